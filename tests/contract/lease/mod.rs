//! The contract of the lease port, checked against every engine. A further engine adds a world and one line at the end.

mod faults;
mod keepers;
mod suite;
mod worlds;

/// Runs every test of the suite in a world of `$world`.
macro_rules! contract {
    ($module:ident, $world:ty) => {
        contract!($module, $world,
            of_eight_racers_one_gets_the_lease
            lease_moves_only_after_its_expiry_and_with_a_higher_fence
            renewal_keeps_the_fence_and_prevents_a_takeover
            expired_lease_is_not_renewed
            released_lease_is_free_and_its_fence_never_returns
            repeated_request_of_a_holder_gets_its_fence_again
            fences_grow_after_the_engine_has_lost_its_records
            live_leases_are_listed_with_their_notes
            view_is_replaced_only_at_its_version
            fleets_with_other_names_share_nothing
            keeper_acts_renews_and_releases
            stopped_process_does_not_act_after_a_takeover
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

contract!(memory, super::worlds::MemoryWorld);
contract!(sqlite, super::worlds::SqliteWorld);
contract!(postgres, super::worlds::PostgresWorld);
contract!(nats, super::worlds::NatsWorld);
contract!(firestore, super::worlds::FirestoreWorld);
