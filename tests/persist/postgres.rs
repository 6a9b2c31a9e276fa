//! Persisters on NATS with PostgreSQL behind them: a burst, sustained messages, and a server that is restarted meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitbrat::bus::EventBus;
use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::facet::Facet;
use bitbrat::core::observation::Fact;
use bitbrat::core::source::SourceKey;
use bitbrat::lifecycle::{Lifecycle, Tasks};
use bitbrat::persist::Persister;
use bitbrat::persist::consumer::{Consumer, Counts, subscription};
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::SourceStore;
use bitbrat::store::postgres::PostgresStore;
use bitbrat::store::retention::Retention;
use tokio::task::JoinSet;

use super::world::{self, Ingester, outgoing};
use crate::contract::store::postgres_faults::Server;
use crate::contract::store::worlds::{PostgresWorld, World};

/// Two persisters with a connection pool each.
struct Persisters {
    tasks: Tasks,
    running: JoinSet<()>,
}

impl Persisters {
    async fn start(bus: &Arc<dyn EventBus>, stores: [Arc<dyn SourceStore>; 2]) -> Self {
        drop(bus.subscribe(&subscription(world::now())).await.unwrap());
        let lifecycle = Lifecycle::new();
        let tasks = lifecycle.tasks();
        for (number, store) in (0..).zip(stores) {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let policy = WritePolicy::every(Duration::from_millis(500));
            let consumer = Consumer {
                bus: bus.clone(),
                persister: Arc::new(Persister::new(
                    store,
                    clock.clone(),
                    policy,
                    Chance::seeded(number),
                )),
                clock,
                chance: Chance::seeded(number),
                counts: Arc::new(Counts::default()),
                coalesce: true,
                on_update: None,
            };
            tasks.spawn(format!("persister-{number}"), |stop| consumer.run(stop));
        }
        let mut running = JoinSet::new();
        running.spawn(async move {
            let _ = lifecycle.run(Duration::from_secs(5)).await;
        });
        Self { tasks, running }
    }

    async fn stop(self) {
        self.tasks.request_stop();
        self.running.join_all().await;
    }
}

fn key(n: u32) -> SourceKey {
    format!("twitch:{}", 900_000 + n).parse().unwrap()
}

/// Starts and ends of the streams of `sources`, `rounds` messages each.
fn messages(
    ingester: &mut Ingester,
    sources: u32,
    rounds: std::ops::Range<u32>,
) -> Vec<bitbrat::core::event::Event> {
    let start = world::now().plus_secs(-7200);
    let mut events = Vec::new();
    for round in rounds {
        for n in 0..sources {
            let at = start.plus_secs(i64::from(round * sources + n));
            let live = round % 2 == 0;
            let fact = Fact::StreamPush {
                live,
                stream_id: live.then(|| format!("4{:09}", round * sources + n)),
                started_at: live.then_some(at),
            };
            events.extend(ingester.observes(&key(n), at, fact));
        }
    }
    events
}

/// Waits until every source is stored as in `expected`, with `transitions` of its stream in its history.
async fn settle(store: &dyn SourceStore, expected: &BTreeMap<SourceKey, SourceDocument>, transitions: usize) {
    let deadline = Instant::now() + Duration::from_mins(2);
    for (key, document) in expected {
        loop {
            let stored = store.load(key).await.ok().flatten();
            let streams = |facet: Facet| facet == Facet::Stream;
            let history = store.history(key, 500).await.unwrap_or_default();
            let recorded = history
                .iter()
                .filter(|entry| streams(entry.transition.facet))
                .count();
            let is_stored = stored
                .as_ref()
                .is_some_and(|stored| stored.value.to_stored() == document.to_stored());
            if is_stored && recorded == transitions {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{key}: {recorded} of {transitions} transitions, {:#?} instead of {:#?}",
                stored.map(|stored| stored.value.to_stored()),
                document.to_stored()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn publish(bus: &Arc<dyn EventBus>, events: Vec<bitbrat::core::event::Event>) {
    let results = bus.publish_many(outgoing(events)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn burst_of_300_messages_loses_nothing() {
    let world = PostgresWorld::with(Retention::default()).await;
    let bus = world::nats().await;
    let persisters = Persisters::start(&bus, [world.open().await, world.open().await]).await;
    let mut ingester = Ingester::default();
    let mut events = messages(&mut ingester, 50, 0..6);
    assert_eq!(events.len(), 300);
    fastrand::Rng::with_seed(15).shuffle(&mut events);
    publish(&bus, events).await;
    settle(&*world.open().await, &ingester.documents, 6).await;
    persisters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sustained_messages_survive_restarts_of_the_server() {
    let server = Server::absent();
    server.start();
    let target = server.target(Duration::from_secs(10));
    let open = || -> Arc<dyn SourceStore> { Arc::new(PostgresStore::new(target.clone())) };
    let bus = world::nats().await;
    let persisters = Persisters::start(&bus, [open(), open()]).await;
    let mut ingester = Ingester::default();
    for round in 0..20 {
        let events = messages(&mut ingester, 100, round..round + 1);
        publish(&bus, events).await;
        if round == 5 || round == 12 {
            tokio::task::block_in_place(|| {
                server.stop(if round == 5 { "-INT" } else { "-QUIT" });
                server.start();
            });
        }
    }
    settle(&*open(), &ingester.documents, 20).await;
    persisters.stop().await;
}
