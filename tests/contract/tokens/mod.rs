//! The contract of the token store port, checked against every adapter. A further adapter adds a world and one line at the end.

mod firestore;
mod interleavings;
#[cfg(all(feature = "keyring", target_os = "linux"))]
mod keyring;
mod postgres;
mod suite;
pub mod worlds;

/// Runs every test of the suite in a world of `$world`.
macro_rules! contract {
    ($module:ident, $world:ty $(, $attribute:meta)?) => {
        contract!($module, $world, [$($attribute)?]
            nothing_is_stored_at_first
            record_reads_back_as_it_was_written
            record_without_token_is_no_account_but_keeps_its_rest
            login_that_is_not_finished_is_listed
            write_on_an_old_version_is_a_conflict
            first_write_over_an_existing_record_is_a_conflict
            records_of_other_accounts_cause_no_conflict
            of_concurrent_writes_on_one_version_one_succeeds
            lease_never_overwrites_what_it_has_not_read
            lock_has_one_holder_and_leaves_other_accounts_free
            every_change_is_noticed_by_another_process
            own_token_is_told_from_that_of_others
            granted_pair_waits_in_the_journal
        );
    };
    ($module:ident, $world:ty, [$($attribute:meta)?] $($promise:ident)*) => {
        contract!(@ $module, $world, [$(#[$attribute])?] $($promise)*);
    };
    (@ $module:ident, $world:ty, $attributes:tt $($promise:ident)*) => {
        mod $module {
            $(contract!(@@ $world, $attributes $promise);)*
        }
    };
    (@@ $world:ty, [$($attribute:tt)*] $promise:ident) => {
                $($attribute)*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::suite::$promise::<$world>().await;
                }
    };
}

contract!(memory, super::worlds::MemoryWorld);
contract!(file, super::worlds::FileWorld);
contract!(firestore_documents, super::worlds::FirestoreWorld<true>);
contract!(firestore_without_documents, super::worlds::FirestoreWorld<false>);
contract!(postgres_rows, super::worlds::PostgresWorld<true>);
contract!(postgres_without_rows, super::worlds::PostgresWorld<false>);
#[cfg(all(feature = "keyring", target_os = "linux"))]
contract!(
    in_keyring,
    super::keyring::KeyringWorld,
    ignore = "runs in a session with a keyring, by `keyring::keyring_keeps_the_contract`"
);
