//! The contract of the store port, checked against every adapter.

mod firestore_faults;
pub mod postgres_faults;
mod postgres_platform;
mod sqlite;
mod suite;
pub mod worlds;

use crate::contract::store::worlds::{FirestoreWorld, MemoryWorld, PoolerWorld, PostgresWorld, SqliteWorld};

/// Runs every test of the suite in a world of `$world`.
macro_rules! contract {
    ($module:ident, $world:ty) => {
        contract!($module, $world,
            nothing_is_there_at_first
            a_document_reads_back_as_it_was_saved
            documents_are_listed_by_id
            a_write_on_an_old_version_is_a_conflict
            a_first_write_where_something_is_already_is_a_conflict
            a_version_never_returns_after_a_deletion
            a_conflict_never_stops_its_neighbors
            a_document_too_large_is_rejected_and_its_neighbors_are_kept
            fields_of_others_survive_our_writes
            nulls_and_foreign_metric_names_are_read_and_healed
            a_document_without_status_is_read
            one_broken_document_hides_no_other
            summaries_tell_what_the_documents_tell
            what_cannot_be_used_is_never_overwritten
            unusable_documents_are_listed_alone
            removed_document_keeps_its_history
            changed_document_is_not_removed
            deleting_takes_the_history_along
            anything_can_be_deleted_by_its_raw_id
            history_is_newest_first_and_limited
            history_written_twice_is_kept_once
            history_of_a_refused_write_is_not_kept
            history_after_a_date_is_dropped
            a_conflict_never_stops_its_neighbors_with_history
            many_documents_with_history_are_written_in_one_call
            history_beyond_the_retention_is_dropped_oldest_first
            history_older_than_the_retention_is_dropped
            watching_yields_now_and_after_every_change
            watching_sees_deletions
            watchers_do_not_disturb_each_other
            concurrent_writers_lose_nothing
            a_thousand_writes_go_in_one_call
            nul_characters_of_others_stop_no_write
            checking_leaves_nothing_behind
        );
    };
    ($module:ident, $world:ty, $($promise:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::suite::$promise::<$world>().await;
                }
            )*
        }
    };
}
contract!(memory, super::MemoryWorld);
contract!(sqlite_file, super::SqliteWorld);
contract!(firestore_emulator, super::FirestoreWorld);
contract!(postgres_server, super::PostgresWorld);
contract!(postgres_pooler, super::PoolerWorld);
