//! Whole lives of sources, told through the persister to every kind of store: the documents must be identical.

pub mod day;
mod migration;
mod processes;
mod tales;
pub mod telling;
mod travelled;

use crate::contract::store::worlds::{FirestoreWorld, MemoryWorld, SqliteWorld};

/// Tells every tale in a world of `$world`.
macro_rules! stories {
    ($module:ident, $world:ty) => {
        stories!($module, $world,
            a_stream_goes_live_drops_for_forty_seconds_resumes_and_ends
            a_token_expires_is_refreshed_and_revoked
            a_connection_is_lost_heals_and_is_refused
            a_second_stream_follows_the_first_without_a_pause
            a_discord_guild_is_attended_without_streams
        );
    };
    ($module:ident, $world:ty, $($tale:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $tale() {
                    super::telling::in_every_way::<$world>(super::tales::$tale()).await;
                }
            )*
        }
    };
}
stories!(memory, super::MemoryWorld);
stories!(sqlite_file, super::SqliteWorld);
stories!(firestore_emulator, super::FirestoreWorld);
