//! Engines that restart, are unreachable, or have lost their records, and clocks that are wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitbrat::clock::{Clock, ManualClock, SystemClock};
use bitbrat::lease::{
    BootClock, Fence, FenceRegister, FirestoreLeases, LeaseEngine, LeaseState, PostgresLeases, SqliteLeases,
    SystemBootClock,
};
use bitbrat::store::postgres::{PostgresAddress, PostgresTarget};

use super::keepers::Kept;
use super::suite::{acquire, holder, retrying, take_over};
use super::worlds::{
    FirestoreWorld, MemoryWorld, NatsWorld, PostgresWorld, SqliteWorld, World, firestore, nats, scope, sqlite,
};
use crate::contract::bus::servers::NatsServer;
use crate::contract::store::postgres_faults::Server;
use crate::contract::store::worlds::{emulator, postgres_url};
use crate::support::relay::Relay;

/// The holder behind the relay is cut off; another one takes over; the first one notices and never acts under its old fence.
async fn partition(relay: &Relay, behind: Arc<dyn LeaseEngine>, rival: Arc<dyn LeaseEngine>) {
    retrying(|| async { rival.list().await }).await;
    let mut kept = Kept::start(behind, "behind");
    let first = kept.acts().await;
    relay.cut();
    let taken = take_over(&rival, &holder("rival")).await;
    assert_eq!(kept.guard.check(), None, "its right ended before the takeover");
    assert!(taken > first);
    relay.heal();
    kept.reaches(|state| matches!(state, LeaseState::Waiting(_)))
        .await;
    // The rival does not renew.
    let again = kept.acts().await;
    assert!(again > taken, "{taken} {again}");
}

fn address_in(url: &str) -> SocketAddr {
    let url = url::Url::parse(url).unwrap();
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    address.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder_cut_off_from_postgres_stops_in_time() {
    let world = PostgresWorld::new().await;
    let relay = Relay::to(address_in(&postgres_url()));
    let mut url = url::Url::parse(&postgres_url()).unwrap();
    url.set_port(Some(relay.address().port())).unwrap();
    let target = PostgresTarget {
        schema: world.schema.clone(),
        ..PostgresTarget::new(PostgresAddress::parse(url.as_str()).unwrap())
    };
    let behind = Arc::new(PostgresLeases::new(target, scope("fleet")));
    partition(&relay, behind, world.open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder_cut_off_from_nats_stops_in_time() {
    let world = NatsWorld::new().await;
    let relay = Relay::to(address_in(&world.url));
    let behind = nats(
        &format!("nats://{}", relay.address()),
        &format!("{}-fleet", world.prefix),
    )
    .await;
    partition(&relay, behind, world.open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder_cut_off_from_firestore_stops_in_time() {
    let world = FirestoreWorld::new().await;
    let relay = Relay::to(emulator().parse().unwrap());
    let target = firestore(&world.description(), Some(relay.address()));
    let behind = Arc::new(FirestoreLeases::new(target, scope("fleet")));
    partition(&relay, behind, world.open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_nats_server_grants_higher_fences() {
    let mut server = NatsServer::start().await;
    let world = NatsWorld::at(server.url());
    let mut kept = Kept::start(world.open().await, "a");
    let first = kept.acts().await;
    server.kill().await;
    kept.reaches(|state| matches!(state, LeaseState::Waiting(_)))
        .await;
    assert_eq!(kept.guard.check(), None);
    server.run().await;
    let second = kept.acts().await;
    assert!(second > first, "{first} {second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_postgres_server_grants_higher_fences() {
    let server = Server::absent();
    server.start();
    let target = PostgresTarget::new(PostgresAddress::parse(&server.url()).unwrap());
    let engine: Arc<dyn LeaseEngine> = Arc::new(PostgresLeases::new(target, scope("fleet")));
    let mut kept = Kept::start(engine, "a");
    let first = kept.acts().await;
    server.stop("-QUIT");
    kept.reaches(|state| matches!(state, LeaseState::Waiting(_)))
        .await;
    assert_eq!(kept.guard.check(), None);
    server.start();
    let second = kept.acts().await;
    assert!(second > first, "{first} {second}");
    server.stop("-INT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fence_that_is_not_higher_is_not_acted_under() {
    // The engine in memory begins at 1 after a loss, like one whose clock was set back.
    let world = MemoryWorld::new().await;
    let engine = world.open().await;
    for index in 0..3 {
        let holder = holder(&format!("m{index}"));
        let fence = acquire(&engine, &holder).await.unwrap();
        retrying(|| async { engine.release(&super::suite::name(), &holder, fence).await }).await;
    }
    let mut register = FenceRegister::default();
    register.admit(Fence(3), &holder("m2")).unwrap();
    world.wipe().await;
    let wiped = world.open().await;
    let mut kept = Kept::start_with(wiped, "a", Arc::new(SystemBootClock), register);
    kept.reaches(
        |state| matches!(state, LeaseState::Waiting(reason) if reason.contains("has lost its records")),
    )
    .await;
    assert_eq!(kept.guard.check(), None);
}

/// A clock of the system that shows another time.
struct Shifted(Duration);

impl BootClock for Shifted {
    fn now(&self) -> Duration {
        SystemBootClock.now() + self.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_of_a_holder_that_is_30_s_off_changes_nothing() {
    let world = PostgresWorld::new().await;
    let rival = world.open().await;
    retrying(|| async { rival.list().await }).await;
    let clock = Arc::new(Shifted(Duration::from_secs(30)));
    let mut kept = Kept::start_with(world.open().await, "a", clock, FenceRegister::default());
    let fence = kept.acts().await;
    assert_eq!(acquire(&rival, &holder("rival")).await, None);
    kept.done.cancel();
    kept.reaches(|state| *state == LeaseState::Released).await;
    assert!(take_over(&rival, &holder("rival")).await > fence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fences_in_a_file_grow_with_a_clock_set_back() {
    let world = SqliteWorld::new().await;
    let back = ManualClock::at(SystemClock.now().plus_millis(-30_000));
    let slow = SqliteLeases::new(&world.path(), scope("fleet"), Arc::new(SystemBootClock), back).unwrap();
    let slow: Arc<dyn LeaseEngine> = Arc::new(slow);
    let right = world.open().await;
    let (a, b) = (holder("a"), holder("b"));
    let first = acquire(&right, &a).await.unwrap();
    retrying(|| async { right.release(&super::suite::name(), &a, first).await }).await;
    let second = acquire(&slow, &b).await.unwrap();
    assert!(second > first, "{first} {second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_of_another_start_of_the_system_has_expired() {
    let world = SqliteWorld::new().await;
    let engine = world.open().await;
    let first = acquire(&engine, &holder("a")).await.unwrap();
    let raw = rusqlite::Connection::open(world.path()).unwrap();
    raw.execute("UPDATE leases SET boot = 'before', expires_ms = 1 << 60", [])
        .unwrap();
    assert_eq!(engine.list().await.unwrap(), []);
    let second = acquire(&engine, &holder("b")).await.unwrap();
    assert!(second > first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_bucket_of_another_duration_is_refused() {
    let world = NatsWorld::new().await;
    let client = async_nats::connect(&world.url).await.unwrap();
    let bucket = format!("bitbrat_{}-fleet_leases", world.prefix);
    let config = async_nats::jetstream::stream::Config {
        name: format!("KV_{bucket}"),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        max_age: Duration::from_mins(10),
        ..Default::default()
    };
    async_nats::jetstream::new(client)
        .create_stream(config)
        .await
        .unwrap();
    let error = world.open().await.list().await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(error.to_string().contains("600 s"), "{error}");
    assert!(error.hint().contains("fleet.ttl"), "{}", error.hint());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_cannot_be_opened_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fleet.db");
    std::fs::write(&path, "this is no database, and long enough to be seen as one").unwrap();
    let error = sqlite(&path, "fleet").list().await.unwrap_err();
    assert!(error.to_string().contains("fleet.db"), "{error}");
}
