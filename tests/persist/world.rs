//! Persisters on a bus, with a store that can be made unavailable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitbrat::bus::local::LocalBus;
use bitbrat::bus::nats::{NatsBus, NatsOptions};
use bitbrat::bus::pubsub::{PubsubBus, PubsubOptions};
use bitbrat::bus::{EventBus, Outgoing};
use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::event::{Event, EventBuilder};
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::transitions;
use bitbrat::lifecycle::{Lifecycle, Tasks};
use bitbrat::persist::Persister;
use bitbrat::persist::consumer::{Consumer, Counts, subscription};
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::memory::MemoryStore;
use tokio::task::JoinSet;

use crate::contract::bus::servers;
use crate::support::flaky::Flaky;

/// A bus within the process.
pub async fn local() -> Arc<dyn EventBus> {
    Arc::new(LocalBus::new(Arc::new(SystemClock)))
}

/// A deployment of its own on the shared NATS server.
pub async fn nats() -> Arc<dyn EventBus> {
    let prefix = servers::prefix();
    servers::create_stream(&servers::nats_url(), &prefix).await;
    nats_of(&prefix).await
}

/// Another connection to a deployment.
pub async fn nats_of(prefix: &str) -> Arc<dyn EventBus> {
    let options = NatsOptions::new(servers::nats_url(), prefix);
    Arc::new(NatsBus::connect(&options).await.unwrap())
}

/// A project of its own in the Pub/Sub emulator.
pub async fn pubsub() -> Arc<dyn EventBus> {
    pubsub_of(servers::prefix().trim_end_matches('.')).await
}

/// Another connection to a project.
pub async fn pubsub_of(name: &str) -> Arc<dyn EventBus> {
    let options = PubsubOptions {
        project: format!("bitbrat-{name}"),
        prefix: "local.".to_owned(),
        emulator: Some(servers::pubsub_host()),
        key: None,
    };
    Arc::new(PubsubBus::connect(&options).await.unwrap())
}

/// A store in memory that can be made unavailable.
pub type Fragile = Flaky<MemoryStore>;

impl Fragile {
    pub fn document(&self, key: &SourceKey) -> Option<serde_json::Value> {
        self.inner.get_raw(&key.to_string())
    }
}

/// Persisters that share a store.
pub struct Persisters {
    pub store: Arc<Fragile>,
    pub counts: Vec<Arc<Counts>>,
    tasks: Tasks,
    running: JoinSet<()>,
}

impl Persisters {
    /// Starts `count` of them and waits until the bus has registered them.
    pub async fn start(count: usize, bus: &Arc<dyn EventBus>) -> Self {
        let store = Arc::new(Fragile::default());
        let lifecycle = Lifecycle::new();
        let tasks = lifecycle.tasks();
        let mut all = Vec::new();
        // On a bus without retention, what precedes the subscription is lost: the subscription comes first.
        drop(bus.subscribe(&subscription(now())).await.unwrap());
        for number in 0..count {
            let counts = Arc::new(Counts::default());
            let consumer = Consumer {
                bus: bus.clone(),
                persister: Arc::new(Persister::new(
                    store.clone(),
                    Arc::new(SystemClock),
                    WritePolicy::every(Duration::from_millis(500)),
                    Chance::seeded(number as u64),
                )),
                clock: Arc::new(SystemClock),
                chance: Chance::seeded(number as u64),
                counts: counts.clone(),
                coalesce: true,
                on_update: None,
            };
            tasks.spawn(format!("persister-{number}"), |stop| consumer.run(stop));
            all.push(counts);
        }
        let mut running = JoinSet::new();
        running.spawn(async move {
            let _ = lifecycle.run(Duration::from_secs(5)).await;
        });
        Self {
            store,
            counts: all,
            tasks,
            running,
        }
    }

    /// Waits until every source is stored as in `expected`.
    pub async fn settle(&self, expected: &BTreeMap<SourceKey, SourceDocument>) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let wrong: Vec<_> = expected
                .iter()
                .filter(|(key, document)| self.store.document(key) != Some(document.to_stored().into()))
                .map(|(key, _)| key)
                .collect();
            if wrong.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                let key = wrong[0];
                panic!(
                    "{} of {} sources are wrong; {key} is {:#?} instead of {:#?}",
                    wrong.len(),
                    expected.len(),
                    self.store.document(key),
                    expected[key].to_stored()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sum of one count over all of them.
    pub fn sum(&self, count: impl Fn(&Counts) -> u64) -> u64 {
        self.counts.iter().map(|counts| count(counts)).sum()
    }

    pub async fn stop(self) {
        self.tasks.request_stop();
        self.running.join_all().await;
    }
}

pub fn now() -> Timestamp {
    SystemClock.now()
}

/// The evidence of an ingester and the events that it publishes.
#[derive(Default)]
pub struct Ingester {
    pub documents: BTreeMap<SourceKey, SourceDocument>,
}

impl Ingester {
    /// Adds one fact and returns the events for what changed.
    pub fn observes(&mut self, key: &SourceKey, at: Timestamp, fact: Fact) -> Vec<Event> {
        let document = self
            .documents
            .entry(key.clone())
            .or_insert_with(|| SourceDocument::new(key.clone()));
        let before = document.clone();
        document.join(Knowledge::from(&Observation::new(
            key,
            at,
            "twitch.eventsub",
            fact,
        )));
        let reported = EventBuilder {
            before: &before,
            after: document,
            by: "twitch.eventsub",
            observed_at: at,
        };
        reported.events(&transitions(&before.verdict, &document.verdict))
    }
}

pub fn outgoing(events: impl IntoIterator<Item = Event>) -> Vec<Outgoing> {
    events.into_iter().map(Outgoing::from).collect()
}
