//! The bus is unreachable, a thousand streams start and end in the meantime, and processes are killed in the middle: two that
//! listen and two that store, each a process of its own, with a real NATS server that is killed, and a real Firestore emulator or
//! PostgreSQL server.
//!
//! The processes are this same test binary, started again. They receive streams through a file that the test writes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitbrat::bus::names::INGRESS;
use bitbrat::bus::nats::{NatsBus, NatsOptions};
use bitbrat::bus::{EventBus, Filter, Outgoing};
use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::facet::Facet;
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::lifecycle::{Lifecycle, Tasks};
use bitbrat::persist::Persister;
use bitbrat::persist::consumer::{Consumer, Counts};
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::firestore::FirestoreStore;
use bitbrat::store::postgres::{PostgresAddress, PostgresStore, PostgresTarget};
use bitbrat::store::retention::Retention;
use bitbrat::store::{HistoryEntry, SourceStore};
use bitbrat::watch::sinks::BusSink;
use futures_util::StreamExt as _;

use crate::contract::bus::servers::{self, NatsServer};
use crate::contract::store::worlds::{FirestoreWorld, PostgresWorld, World, postgres_url};
use crate::support::{bare_engine, process};

const ROLE: &str = "BITBRAT_TEST_OUTAGE_ROLE";
const PREFIX: &str = "here.";
const SOURCES: u32 = 20;
const TRANSITIONS: u32 = 1000;

/// Minimum duration of the outage. Twelve seconds are long enough for every retry to have backed off to seconds;
/// `BITBRAT_TEST_OUTAGE=300 cargo test --test main persist::outage` extends it to five minutes.
fn outage() -> Duration {
    let asked = std::env::var("BITBRAT_TEST_OUTAGE").ok();
    Duration::from_secs(asked.map_or(12, |seconds| seconds.parse().unwrap()))
}

/// The parameters of a process, passed in its environment.
struct Role {
    name: String,
    directory: PathBuf,
    url: String,
    /// The Firestore project or the schema in PostgreSQL.
    place: String,
}

impl Role {
    fn of_process() -> Option<Self> {
        let words = std::env::var(ROLE).ok()?;
        let mut words = words.split('|').map(str::to_owned);
        let mut next = || words.next().unwrap();
        Some(Self {
            name: next(),
            directory: next().into(),
            url: next(),
            place: next(),
        })
    }

    async fn bus(&self) -> Arc<dyn EventBus> {
        let options = NatsOptions {
            // Messages that a killed process held are delivered again soon.
            ack_wait: Duration::from_secs(3),
            ..NatsOptions::new(&self.url, PREFIX)
        };
        Arc::new(NatsBus::connect(&options).await.unwrap())
    }
}

/// The main function of one of the processes. Ignored as a test of its own: it is only ever started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is a process of the test below"]
async fn part() {
    let Some(role) = Role::of_process() else { return };
    let lifecycle = Lifecycle::new();
    if role.name.starts_with("ingest") {
        ingest(&role, &lifecycle.tasks()).await;
    } else {
        persist(&role, &lifecycle.tasks()).await;
    }
    let _ = lifecycle.run(Duration::from_secs(5)).await;
}

async fn ingest(role: &Role, tasks: &Tasks) {
    let own = role.directory.join(&role.name);
    std::fs::create_dir_all(&own).unwrap();
    let bus = Arc::new(BusSink(role.bus().await));
    bare_engine::start(
        &own,
        &role.name,
        &sources(),
        role.directory.join("platform"),
        bus,
        tasks,
    );
}

async fn persist(role: &Role, tasks: &Tasks) {
    let store: Arc<dyn SourceStore> = match role.place.split_once(':') {
        Some(("schema", schema)) => {
            let mut target = PostgresTarget::new(PostgresAddress::parse(&postgres_url()).unwrap());
            schema.clone_into(&mut target.schema);
            Arc::new(PostgresStore::new(target))
        }
        _ => {
            let mut target = FirestoreWorld::with(Retention::default()).await.target;
            target.project.clone_from(&role.place);
            Arc::new(FirestoreStore::new(target))
        }
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let persister = Persister::new(
        store,
        clock.clone(),
        WritePolicy::every(Duration::from_millis(500)),
        Chance::random(),
    );
    let consumer = Consumer {
        bus: role.bus().await,
        persister: Arc::new(persister),
        clock,
        chance: Chance::random(),
        counts: Arc::new(Counts::default()),
        coalesce: true,
        on_update: None,
    };
    tasks.spawn("persister", |stop| consumer.run(stop));
}

fn sources() -> Vec<SourceKey> {
    (1..=SOURCES)
        .map(|id| format!("twitch:{id}").parse().unwrap())
        .collect()
}

/// The platform's events, in a file that only grows; a process that starts reads all of them again.
struct Platform {
    file: std::fs::File,
    live: BTreeMap<SourceKey, String>,
    streams: BTreeMap<SourceKey, u32>,
    reported: BTreeMap<SourceKey, Vec<(&'static str, String)>>,
    now: Timestamp,
}

impl Platform {
    fn toggle(&mut self, source: &SourceKey) {
        self.now = self.now.plus_secs(1);
        let (live, stream) = match self.live.remove(source) {
            Some(stream) => (false, stream),
            None => {
                let count = self.streams.entry(source.clone()).or_default();
                *count += 1;
                let stream = format!("{}{count:04}", source.id());
                self.live.insert(source.clone(), stream.clone());
                (true, stream)
            }
        };
        let word = if live { "ONLINE" } else { "OFFLINE" };
        self.reported
            .entry(source.clone())
            .or_default()
            .push((word, self.now.to_string()));
        let fact = Fact::StreamPush {
            live,
            stream_id: Some(stream),
            started_at: live.then_some(self.now),
        };
        let observation = Observation::new(source, self.now, "twitch.eventsub", fact);
        writeln!(self.file, "{}", serde_json::to_string(&observation).unwrap()).unwrap();
    }
}

/// The processes, each of which may be killed and started again.
struct Processes {
    directory: PathBuf,
    url: String,
    place: String,
    running: BTreeMap<&'static str, Child>,
}

impl Processes {
    fn start(&mut self, name: &'static str) {
        let role = [
            name,
            &self.directory.display().to_string(),
            &self.url,
            &self.place,
        ]
        .join("|");
        let child = process::again("persist::outage::part")
            .args(["--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running.insert(name, child);
    }

    /// Kills one as `kill -9` does, and starts it again.
    fn kill(&mut self, name: &'static str) {
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.start(name);
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The streams in a source's history as it is read, oldest first. The state of a process that was killed may arrive before the events
/// that waited in its outbox; what it repeats of them is joined by readers.
async fn reported(store: &dyn SourceStore, source: &SourceKey) -> Vec<(String, String)> {
    let mut history = HistoryEntry::without_repeats(store.history(source, 500).await.unwrap());
    history.reverse();
    let streams = history
        .into_iter()
        .filter(|entry| entry.transition.facet == Facet::Stream);
    streams
        .map(|entry| {
            (
                entry.transition.to.unwrap_or_default(),
                entry.transition.at.to_string(),
            )
        })
        .collect()
}

fn expected(platform: &Platform, source: &SourceKey) -> Vec<(String, String)> {
    let reported = platform.reported[source].iter();
    reported
        .map(|(word, at)| ((*word).to_owned(), at.clone()))
        .collect()
}

async fn settle(store: &dyn SourceStore, platform: &Platform, patience: Duration) {
    let deadline = Instant::now() + patience;
    for source in platform.reported.keys() {
        let expected = expected(platform, source);
        loop {
            let stored = reported(store, source).await;
            if stored == expected {
                break;
            }
            if Instant::now() > deadline {
                assert_eq!(stored, expected, "{source}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let document = store.load(source).await.unwrap().unwrap().value;
        let live = platform.live.get(source);
        let wanted = if live.is_some() {
            StreamStatus::Online
        } else {
            StreamStatus::Offline
        };
        assert_eq!(document.verdict.stream.value, wanted, "{source}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_outage_with_kills_loses_and_repeats_no_transition() {
    let world = FirestoreWorld::with(Retention::default()).await;
    outage_with_kills(&world, world.target.project.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_outage_with_kills_loses_nothing_in_postgres() {
    let world = PostgresWorld::with(Retention::default()).await;
    outage_with_kills(&world, format!("schema:{}", world.target.schema)).await;
}

async fn outage_with_kills(world: &impl World, place: String) {
    let mut server = NatsServer::start().await;
    servers::create_stream_on(&server.url(), "HERE", &[&format!("{PREFIX}>")]).await;
    let store = world.open().await;
    let directory = tempfile::tempdir().unwrap();
    let mut platform = Platform {
        file: std::fs::File::create(directory.path().join("platform")).unwrap(),
        live: BTreeMap::new(),
        streams: BTreeMap::new(),
        reported: BTreeMap::new(),
        now: SystemClock.now().plus_secs(-7200),
    };
    let mut processes = Processes {
        directory: directory.path().to_owned(),
        url: server.url(),
        place,
        running: BTreeMap::new(),
    };
    for name in ["ingest-a", "ingest-b", "persist-a", "persist-b"] {
        processes.start(name);
    }
    let keys = sources();
    for key in &keys {
        platform.toggle(key);
    }
    settle(&*store, &platform, Duration::from_mins(1)).await;

    server.kill().await;
    let away = Instant::now();
    let mut chance = fastrand::Rng::with_seed(20_261_122);
    for number in 0..TRANSITIONS {
        platform.toggle(&keys[chance.usize(..keys.len())]);
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        match number {
            300 => processes.kill("persist-a"),
            500 => processes.kill("ingest-a"),
            700 => processes.kill("ingest-b"),
            _ => {}
        }
    }
    tokio::time::sleep(outage().saturating_sub(away.elapsed())).await;
    server.run().await;
    // They catch up, and are killed at random in the meantime.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(chance.u64(100..900))).await;
        processes.kill(["ingest-a", "ingest-b", "persist-a", "persist-b"][chance.usize(..4)]);
    }
    settle(&*store, &platform, Duration::from_mins(2)).await;

    // On the bus too each of them exists once, although two processes published it and some more than once.
    let all: usize = platform.reported.values().map(Vec::len).sum();
    assert_eq!(all, (SOURCES + TRANSITIONS) as usize);
    let ids = ids(&server.url()).await;
    let different: BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), different.len()), (all, all));
}

/// Ids of the stream events on the bus, in its order.
async fn ids(url: &str) -> Vec<String> {
    let bus = NatsBus::connect(&NatsOptions::new(url, PREFIX)).await.unwrap();
    let since = SystemClock.now().plus_secs(-3600);
    let messages = bus.tail(&Filter::ingress(), Some(since)).await.unwrap();
    let end = Outgoing {
        topic: INGRESS.to_owned(),
        id: "end".to_owned(),
        attributes: BTreeMap::from([("type".to_owned(), "test.end".to_owned())]),
        data: "{}".into(),
    };
    bus.publish(end).await.unwrap();
    let attributes = messages.map(|message| message.unwrap().attributes);
    let before = attributes.take_while(|attributes| std::future::ready(attributes["type"] != "test.end"));
    let streams = before.filter_map(|attributes| {
        let stream = attributes["type"].starts_with("system.stream.");
        std::future::ready(stream.then(|| attributes["correlationid"].clone()))
    });
    streams.collect().await
}
