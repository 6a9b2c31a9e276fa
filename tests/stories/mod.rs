//! Complete scenarios of sources, run through the persister with every kind of store: the documents must be identical.

mod clock_scenarios;
pub mod day;
mod migration;
mod processes;
pub mod publishing;
mod scenarios;

use crate::contract::store::worlds::{FirestoreWorld, MemoryWorld, PostgresWorld, SqliteWorld};

/// Runs every scenario in a world of `$world`.
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
    ($module:ident, $world:ty, $($scenario:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    super::publishing::in_every_way::<$world>(super::scenarios::$scenario()).await;
                }
            )*
        }
    };
}
stories!(memory, super::MemoryWorld);
stories!(sqlite_file, super::SqliteWorld);
stories!(firestore_emulator, super::FirestoreWorld);
stories!(postgres_server, super::PostgresWorld);
