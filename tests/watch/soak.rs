//! A virtual week in minutes: hundreds of channels, random faults, clean and unclean restarts. At its end every document
//! is the simulated truth, and every broadcast was announced.
//!
//! The default run is small; `scripts/soak.sh` sets `BITBRAT_SOAK_SOURCES` and `BITBRAT_SOAK_DAYS`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitbrat::clock::{Chance, Clock, RuntimeClock};
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::Facet;
use bitbrat::core::verdict::Status;
use bitbrat::lifecycle::{Lifecycle, Signal};
use bitbrat::persist::Persister;
use bitbrat::persist::economy::Economy;
use bitbrat::platforms::{Probe, ProbeSet, ProbeSink as _};
use bitbrat::store::SourceStore;
use bitbrat::store::memory::MemoryStore;
use bitbrat::store::retention::Retention;
use bitbrat::watch::engine::{Engine, Parts, Route};
use bitbrat::watch::listening::{ListenerReport, Listening};
use tokio::sync::mpsc;

use super::world::{FlakyStore, ScriptedPlatform, Trouble, Troubles, Truth};

const START: i64 = 1_780_000_000_000;
/// Seconds between two looks.
const LOOK: u64 = 300;

struct Running {
    signals: mpsc::Sender<Signal>,
    done: tokio::task::JoinHandle<()>,
}

/// Starts the daemon on what a previous one left behind.
fn start(
    directory: &Path,
    truth: &Arc<Truth>,
    trouble: &Troubles,
    store: &MemoryStore,
    seed: u64,
) -> Running {
    let clock: Arc<dyn Clock> = truth.clock.clone();
    let flaky: Arc<dyn SourceStore> = Arc::new(FlakyStore {
        inner: store.clone(),
        trouble: Arc::clone(trouble),
    });
    let economy = Economy::every(Duration::from_secs(150));
    let persister = Arc::new(Persister::new(
        flaky,
        Arc::clone(&clock),
        economy,
        Chance::seeded(seed),
    ));
    let parts = Parts {
        state_dir: directory.to_owned(),
        instance: Some("soak".to_owned()),
        outbox: 100_000,
        sources: truth.keys().into_iter().map(Into::into).collect(),
        platforms: vec![Arc::new(ScriptedPlatform {
            truth: Arc::clone(truth),
            trouble: Arc::clone(trouble),
        })],
        route: Route::Local {
            persister,
            location: "memory".to_owned(),
            heartbeat: Duration::from_secs(300),
        },
        timetable: BTreeMap::new(),
        jitter: Duration::from_secs(2),
        clock,
        chance: Chance::seeded(seed),
    };
    let lifecycle = Lifecycle::new();
    let mut engine = Engine::start(parts, &lifecycle.tasks(), true).unwrap();
    engine.listen(listener(Arc::clone(truth), seed));
    engine.run_lanes();
    let lanes = Arc::clone(&engine.lanes);
    // Cron follows the wall clock, which stands still here; these ticks follow the virtual one.
    lifecycle.tasks().spawn("ticks", |stop| async move {
        loop {
            lanes.ask(&ProbeSet::from([Probe::Connection, Probe::Stream]));
            if !stop.sleep(Duration::from_secs(LOOK)).await {
                return;
            }
        }
    });
    let (signals, receiver) = mpsc::channel(4);
    #[expect(clippy::disallowed_methods, reason = "the test owns this one")]
    let done = tokio::spawn(async move {
        let _engine = engine;
        // A killed daemon fails, and that is what is wanted of it.
        let _ = lifecycle.run_with(receiver, Duration::from_secs(10)).await;
    });
    Running { signals, done }
}

/// Pushes starts and ends as EventSub does: mostly at once, some late, some twice, some never.
fn listener(truth: Arc<Truth>, seed: u64) -> Listening {
    Listening {
        name: "twitch-eventsub".to_owned(),
        run: Box::new(move |ears, stop| {
            Box::pin(async move {
                let mut chance = fastrand::Rng::with_seed(seed);
                let mut due: BTreeMap<(Timestamp, u64), Observation> = BTreeMap::new();
                let mut from = truth.clock.now();
                while stop.sleep(Duration::from_secs(5)).await {
                    let now = truth.clock.now();
                    for observation in pushes(&truth, from, now) {
                        for _ in 0..[0, 1, 1, 1, 1, 1, 1, 2][chance.usize(0..8)] {
                            let late = if chance.u8(0..10) == 0 {
                                chance.i64(1_000..120_000)
                            } else {
                                0
                            };
                            due.insert((now.plus_millis(late), chance.u64(..)), observation.clone());
                        }
                    }
                    from = now;
                    let later = due.split_off(&(now.plus_millis(1), 0));
                    for (_, observation) in std::mem::replace(&mut due, later) {
                        ears.intake.observe(observation);
                    }
                }
            })
        }),
        report: Arc::new(|| ListenerReport {
            healthy: true,
            summary: "hears".to_owned(),
            detail: serde_json::Value::Null,
        }),
    }
}

fn pushes(truth: &Truth, from: Timestamp, to: Timestamp) -> Vec<Observation> {
    let within = |at: Timestamp| from <= at && at < to;
    let mut told = Vec::new();
    for (source, broadcasts) in &truth.broadcasts {
        for broadcast in broadcasts {
            for (live, at) in [(true, broadcast.start), (false, broadcast.end)] {
                if within(at) {
                    let fact = Fact::StreamPush {
                        live,
                        stream_id: live.then(|| broadcast.id.clone()),
                        started_at: live.then_some(broadcast.start),
                    };
                    told.push(Observation::new(source, at, "twitch.eventsub", fact));
                }
            }
        }
    }
    told
}

fn setting(name: &str, usual: u32) -> u32 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

#[tokio::test(start_paused = true)]
async fn after_a_virtual_week_of_faults_every_document_is_the_truth() {
    let (sources, days) = (
        setting("BITBRAT_SOAK_SOURCES", 10),
        setting("BITBRAT_SOAK_DAYS", 1),
    );
    let seed = u64::from(setting("BITBRAT_SOAK_SEED", 7));
    let mut chance = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let clock = RuntimeClock::starting_at(Timestamp::from_millis(START));
    let truth = Arc::new(Truth::invent(
        clock.clone(),
        sources,
        i64::from(days),
        &mut chance,
    ));
    let trouble: Troubles = Arc::default();
    let store = MemoryStore::new(Retention {
        entries: 10_000,
        age: Duration::from_hours(24 * 365),
    });
    let end = clock.now().plus_secs(i64::from(days) * 86_400);
    let mut running = start(dir.path(), &truth, &trouble, &store, seed);
    let mut restarts = 0_u64;
    while clock.now() < end {
        let quiet = chance.u64(600..4 * 3_600);
        tokio::time::sleep(Duration::from_secs(quiet)).await;
        match chance.u8(0..6) {
            0 => {
                fault(
                    &trouble,
                    Trouble {
                        api_down: true,
                        ..Trouble::default()
                    },
                    chance.u64(60..1_800),
                )
                .await;
            }
            1 => {
                fault(
                    &trouble,
                    Trouble {
                        cache: chance.i64(30..300),
                        ..Trouble::default()
                    },
                    chance.u64(600..3_600),
                )
                .await;
            }
            2 => {
                fault(
                    &trouble,
                    Trouble {
                        store_down: true,
                        ..Trouble::default()
                    },
                    chance.u64(60..1_200),
                )
                .await;
            }
            kind @ (3 | 4) => {
                running.signals.send(Signal::Terminate).await.unwrap();
                if kind == 4 {
                    running.signals.send(Signal::Terminate).await.unwrap();
                }
                running.done.await.unwrap();
                tokio::time::sleep(Duration::from_secs(chance.u64(1..900))).await;
                restarts += 1;
                running = start(dir.path(), &truth, &trouble, &store, seed + restarts);
            }
            _ => {}
        }
    }
    // Time enough for the slowest rule: an end that only polls tell, from a cache that lags.
    tokio::time::sleep(Duration::from_hours(1)).await;
    compare(&truth, &store).await;
    running.signals.send(Signal::Terminate).await.unwrap();
    running.done.await.unwrap();
    for source in truth.keys() {
        let stored = store.load(&source).await.unwrap().unwrap().value;
        assert_eq!(
            stored.verdict.status.value,
            Status::Disconnected,
            "{source} after a clean stop"
        );
    }
}

async fn fault(trouble: &Troubles, what: Trouble, seconds: u64) {
    *trouble.lock().unwrap() = what;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    *trouble.lock().unwrap() = Trouble::default();
}

/// Compares documents and history with the truth.
async fn compare(truth: &Truth, store: &MemoryStore) {
    let now = truth.clock.now();
    let mut problems = Vec::new();
    // What changed just now may rest on polls alone, which need two looks.
    let settled = |source: &SourceKey| !truth.changed_within(source, 900, now);
    for source in truth.keys().into_iter().filter(settled) {
        let document = store.load(&source).await.unwrap().unwrap().value;
        let live = truth.at(&source, now);
        let expected = if live.is_some() {
            StreamStatus::Online
        } else {
            StreamStatus::Offline
        };
        if (document.verdict.stream.value, document.verdict.status.value) != (expected, Status::Connected) {
            problems.push(format!(
                "{source}: {:?} {:?}, truth {live:?}",
                document.verdict.stream, document.verdict.status
            ));
        }
        let session = document
            .verdict
            .session
            .as_ref()
            .map(|session| session.stream_id.clone());
        if live.is_some() && session != live.map(|broadcast| broadcast.id.clone()) {
            problems.push(format!("{source}: stream {session:?}, truth {live:?}"));
        }
        problems.extend(history(truth, store, &source, now).await);
    }
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

/// Each broadcast that lasted was announced, none that never was, and none before it began.
async fn history(truth: &Truth, store: &MemoryStore, source: &SourceKey, now: Timestamp) -> Vec<String> {
    let entries = store.history(source, 100_000).await.unwrap();
    let mut announced: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    for entry in entries
        .iter()
        .filter(|entry| entry.transition.facet == Facet::Stream)
    {
        if entry.transition.to.as_deref() == Some("ONLINE") {
            let stream = entry.transition.stream_id.clone().unwrap_or_default();
            announced.entry(stream).or_default().push(entry.transition.at);
        }
    }
    let mut problems = Vec::new();
    for broadcast in truth.broadcasts[source]
        .iter()
        .filter(|broadcast| broadcast.start < now.plus_secs(-900))
    {
        match announced.remove(&broadcast.id) {
            None => problems.push(format!("{source}: {broadcast:?} was never announced")),
            Some(times) => {
                if times.iter().any(|at| *at < broadcast.start) {
                    problems.push(format!(
                        "{source}: {broadcast:?} was announced before it began: {times:?}"
                    ));
                }
            }
        }
    }
    problems.extend(
        announced
            .keys()
            .map(|stream| format!("{source}: stream {stream} was announced and never was")),
    );
    problems
}
