//! A daemon in this process whose time is moved: the real engine, adapters and files, the simulated Twitch over real sockets, and
//! a clock that stands still while anything is in progress. Hours pass between two instructions, and everything happens at an
//! exact time, however slow the machine is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitbrat::clock::{Chance, Clock, ManualClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::facet::Facet;
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::Transition;
use bitbrat::http::{Http, HttpOptions, LenientClock};
use bitbrat::lifecycle::Lifecycle;
use bitbrat::os::Signal;
use bitbrat::persist::Persister;
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::platforms::twitch::{self, TwitchOptions, TwitchPlatform};
use bitbrat::platforms::{Platform, PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary, RateLimit};
use bitbrat::sim::twitch::{TokenSpec, TwitchUrls};
use bitbrat::sim::{Sim, SimOptions};
use bitbrat::store::SourceStore;
use bitbrat::store::retention::Retention;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use bitbrat::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenStore, TokenStoreExt as _};
use bitbrat::watch::engine::{Engine, Parts, Route};
use bitbrat::watch::listener_context::{ListenerReport, ListenerTask};
use bitbrat::watch::observations::ObservationSender;
use bitbrat::watch::overview::View;
use bitbrat::watch::pollers::Pollers;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::support::flaky::Flaky;

/// Start time of the simulation.
pub const START: i64 = 1_780_000_000_000;
const BOT: &str = "900100";
/// A wait fails after this time without any activity: the backoff between attempts is half a minute at most. The total duration
/// depends only on the machine.
const STILL: Duration = Duration::from_secs(120);

/// The name of every thread of a daemon.
const THREADS: &str = "moved-daemon";
/// Number of panics on them.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many probes have ended, how many of them for streams, and how many of those with problems.
#[derive(Default)]
struct ProbeCounts {
    any: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    /// The problems of the last one that failed.
    problems: Mutex<String>,
}

/// Twitch, and a count of its probes.
struct Watched {
    twitch: TwitchPlatform,
    probe_counts: Arc<ProbeCounts>,
}

#[async_trait]
impl Platform for Watched {
    fn name(&self) -> PlatformName {
        self.twitch.name()
    }

    fn rate_limits(&self) -> Vec<RateLimit> {
        self.twitch.rate_limits()
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError> {
        self.twitch.resolve(names).await
    }

    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary {
        let summary = self.twitch.probe(probes, sources, sink).await;
        if probes.contains(&Probe::Stream) {
            if !summary.problems.is_empty() {
                *self.probe_counts.problems.lock() = format!("{:?}", summary.problems);
                self.probe_counts.failed.fetch_add(1, Ordering::SeqCst);
            }
            self.probe_counts.ended.fetch_add(1, Ordering::SeqCst);
        }
        self.probe_counts.any.fetch_add(1, Ordering::SeqCst);
        summary
    }
}

/// The environment of the daemon, which may run or not.
pub struct World {
    pub directory: tempfile::TempDir,
    pub sim: Sim,
    pub store: Arc<SqliteStore>,
    pub starts: u64,
    store_away: Arc<AtomicBool>,
    sources: Vec<SourceKey>,
    tokens: Arc<dyn TokenStore>,
    probe_counts: Arc<ProbeCounts>,
    daemon: Option<Daemon>,
}

/// A running daemon.
struct Daemon {
    pollers: Arc<Pollers>,
    view: View,
    /// Sender of pushes; gone as soon as a stop is requested.
    observations: Arc<Mutex<Option<ObservationSender>>>,
    signals: mpsc::Sender<Signal>,
    kill: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// Waits until no task of a daemon runs any more. None of them may have panicked, not even at the end.
async fn over(ended: oneshot::Receiver<()>) {
    ended.await.expect("its threads end");
    assert_eq!(
        PANICS.load(Ordering::SeqCst),
        0,
        "a thread of the daemon panicked"
    );
}

/// From now on counts panics on threads of a daemon: after a kill no task is left to report them.
fn count_panics() {
    static COUNTING: Once = Once::new();
    COUNTING.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREADS) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            usual(panic);
        }));
    });
}

impl World {
    pub async fn new(sources: Vec<SourceKey>) -> Self {
        count_panics();
        let sim = Sim::start(SimOptions {
            clock: ManualClock::at(Timestamp::from_millis(START)),
            ..SimOptions::default()
        })
        .await
        .unwrap();
        sim.twitch.add_client("app", Some("hush-secret"));
        sim.twitch.add_channel(BOT, "bitbrat_bot");
        for source in &sources {
            sim.twitch
                .add_channel(source.id(), &format!("rat{}", source.id()));
        }
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions {
            retention: Retention {
                entries: 10_000,
                age: Duration::from_hours(24 * 365),
            },
            ..SqliteOptions::default()
        };
        let store = SqliteStore::open(&directory.path().join("store.db"), options)
            .await
            .unwrap();
        Self {
            tokens: tokens(&sim).await,
            directory,
            sim,
            sources,
            store: Arc::new(store),
            store_away: Arc::default(),
            probe_counts: Arc::default(),
            daemon: None,
            starts: 0,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.sim.clock.now()
    }

    /// Starts the daemon on the state of the previous one. It has threads of its own, so that its end is complete: none of its
    /// tasks run any more when the next one starts.
    pub async fn start(&mut self) {
        self.starts += 1;
        let life = Life {
            state: self.directory.path().to_owned(),
            sources: self.sources.clone(),
            urls: self.sim.twitch.urls(),
            clock: Arc::clone(&self.sim.clock) as Arc<dyn Clock>,
            store: Arc::new(Flaky {
                inner: Arc::clone(&self.store),
                away: Arc::clone(&self.store_away),
            }),
            tokens: Arc::clone(&self.tokens),
            probe_counts: Arc::clone(&self.probe_counts),
            seed: self.starts,
        };
        let (signals, receiver) = mpsc::channel(4);
        let (up, started) = oneshot::channel();
        let (kill, killed) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(THREADS.to_owned());
        let running = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(4)
                .thread_name(THREADS)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = life.live(up, receiver) => {}
                    _ = killed => {}
                }
            });
            // Drops all tasks where they are, and waits only for writes in progress.
            drop(runtime);
            let _ = end.send(());
        });
        running.expect("a thread");
        let (pollers, view, observations) = started.await.expect("it starts");
        self.daemon = Some(Daemon {
            pollers,
            view,
            observations,
            signals,
            kill,
            ended,
        });
    }

    /// Stops the daemon cleanly: it processes and publishes what is in progress, then reports its end.
    pub async fn stop(&mut self) {
        let daemon = self.daemon.take().expect("it runs");
        daemon.signals.send(Signal::Terminate).await.unwrap();
        over(daemon.ended).await;
    }

    /// Stops the daemon in the middle of whatever it is doing, without any report.
    pub async fn kill(&mut self) {
        let daemon = self.daemon.take().expect("it runs");
        daemon.kill.send(()).unwrap();
        over(daemon.ended).await;
    }

    /// Pushes to the daemon. Returns whether there was a receiver.
    pub fn push(&self, push: Observation) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let observations = daemon.observations.lock();
        if let Some(observations) = &*observations {
            observations.observe(push);
        }
        observations.is_some()
    }

    /// Requests a probe of all sources, without waiting for it.
    pub fn ask(&self) {
        if let Some(daemon) = &self.daemon {
            daemon
                .pollers
                .ask(&ProbeSet::from([Probe::Connection, Probe::Stream]));
        }
    }

    /// Probes all sources, and waits until nothing is in progress any more.
    pub async fn probe(&self) {
        if self.daemon.is_none() {
            return;
        }
        // Earlier pushes are processed first.
        self.settle().await;
        let before = self.probe_counts();
        self.ask();
        self.wait("a look never ended", || self.probe_counts() > before)
            .await;
        self.settle().await;
    }

    /// Probes all sources for `probes`, which are of one poller, and waits until nothing is in progress any more.
    pub async fn probe_for(&self, probes: &[Probe]) {
        let daemon = self.daemon.as_ref().expect("it runs");
        self.settle().await;
        let any = || self.probe_counts.any.load(Ordering::SeqCst);
        let before = any();
        daemon.pollers.ask(&probes.iter().copied().collect());
        self.wait("a look never ended", || any() > before).await;
        self.settle().await;
    }

    /// Returns how many probes of streams have ended.
    pub fn probe_counts(&self) -> u64 {
        self.probe_counts.ended.load(Ordering::SeqCst)
    }

    /// Returns the problems of the last probe that had any.
    pub fn last_problems(&self) -> String {
        self.probe_counts.problems.lock().clone()
    }

    /// Returns how many probes had problems.
    pub fn failed_probes(&self) -> u64 {
        self.probe_counts.failed.load(Ordering::SeqCst)
    }

    /// Waits until nothing is in progress any more: observations are merged and, unless the store is unavailable, stored.
    pub async fn settle(&self) {
        let Some(daemon) = &self.daemon else { return };
        let away = self.store_away.load(Ordering::SeqCst);
        self.wait("what was learnt was never stored", || {
            let view = (daemon.view)();
            view.inputs == 0 && (away || view.outbox.events == 0)
        })
        .await;
    }

    /// Waits as long as there is activity.
    async fn wait(&self, otherwise: &str, done: impl Fn() -> bool) {
        let progress = || {
            let view = self.daemon.as_ref().map(|daemon| (daemon.view)());
            let view = view.map(|view| (view.inputs, view.outbox, view.sent));
            (self.probe_counts.any.load(Ordering::SeqCst), view)
        };
        let (mut last, mut moved) = (progress(), Instant::now());
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if moved.elapsed() > STILL {
                let now = progress();
                assert_ne!(now, last, "{otherwise}");
                (last, moved) = (now, Instant::now());
            }
        }
    }

    /// Makes the store unavailable, or available again.
    pub fn set_store_away(&self, away: bool) {
        self.store_away.store(away, Ordering::SeqCst);
    }

    /// Reconnects the simulator to the network, which takes real time.
    pub async fn come_up(&self) {
        self.sim.twitch.host().come_up();
        let address = self.sim.twitch.http().replacen("http://", "", 1);
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            assert!(begun.elapsed() < STILL, "the simulator stays away");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the stored document of a source.
    pub async fn document(&self, source: &SourceKey) -> SourceDocument {
        self.store
            .load(source)
            .await
            .unwrap()
            .expect("it is stored")
            .value
    }

    /// Returns the published changes of a source's stream, in the order in which they happened.
    pub async fn transitions(&self, source: &SourceKey) -> Vec<Transition> {
        self.transitions_of(source, Facet::Stream).await
    }

    /// Returns the published changes of one verdict, in the order in which they happened.
    pub async fn transitions_of(&self, source: &SourceKey, facet: Facet) -> Vec<Transition> {
        let entries = self.store.history(source, 100_000).await.unwrap();
        let mut transitions: Vec<_> = entries.into_iter().map(|entry| entry.transition).collect();
        transitions.retain(|transition| transition.facet == facet);
        transitions.sort_by_key(|transition| transition.at);
        transitions
    }
}

/// What a daemon's run needs.
struct Life {
    state: PathBuf,
    sources: Vec<SourceKey>,
    urls: TwitchUrls,
    clock: Arc<dyn Clock>,
    store: Arc<dyn SourceStore>,
    tokens: Arc<dyn TokenStore>,
    probe_counts: Arc<ProbeCounts>,
    seed: u64,
}

/// Handles of a daemon that has started.
type Started = (Arc<Pollers>, View, Arc<Mutex<Option<ObservationSender>>>);

impl Life {
    async fn live(self, up: oneshot::Sender<Started>, signals: mpsc::Receiver<Signal>) {
        let hours = |count| Duration::from_hours(count);
        let persister = Persister::new(
            self.store,
            LenientClock::new(Arc::clone(&self.clock)),
            WritePolicy::every(hours(6)),
            Chance::seeded(self.seed),
        );
        let options = TwitchOptions {
            auth_url: self.urls.auth.parse().unwrap(),
            helix_url: self.urls.helix.parse().unwrap(),
            client_id: Some("app".to_owned()),
            client_secret: Some("hush-secret".to_owned().into()),
            ..TwitchOptions::default()
        };
        // None of the faults needs a timeout to be detected: a timeout would only reflect the machine's speed.
        let patient = HttpOptions {
            connect_timeout: STILL,
            timeout: STILL,
            ..HttpOptions::default()
        };
        let http = Http::new(patient, Arc::clone(&self.clock));
        let clock = Arc::clone(&self.clock);
        let platform = Watched {
            twitch: TwitchPlatform::new(options, self.tokens, http, clock, Chance::seeded(1)),
            probe_counts: self.probe_counts,
        };
        let parts = Parts {
            file: self.state.join("watch.db"),
            retention: Retention::default(),
            documents: None,
            state_dir: self.state,
            instance: Some("moved".to_owned()),
            outbox_capacity: 100_000,
            sources: self.sources.into_iter().map(Into::into).collect(),
            stored: Vec::new(),
            platforms: vec![Arc::new(platform) as Arc<dyn Platform>],
            route: Route::Store {
                persister: Arc::new(persister),
                location: "sqlite".to_owned(),
                heartbeat: hours(12),
            },
            has_alerts: false,
            is_member: false,
            timetable: BTreeMap::new(),
            jitter: Duration::ZERO,
            clock: self.clock,
            chance: Chance::seeded(self.seed),
        };
        let lifecycle = Lifecycle::with_signals(signals);
        let mut engine = Engine::start(parts, &lifecycle.tasks(), true).unwrap();
        let (harness, observations) = harness();
        engine.listen(harness);
        engine.run_pollers();
        let intake_of_ear = observations.await.expect("the ear runs");
        let _ = up.send((Arc::clone(&engine.pollers), engine.view(), intake_of_ear));
        // Without a short limit: the test waits for its end and has a time limit of its own.
        let ended = lifecycle.run(hours(1)).await;
        ended.expect("it stops when it is asked to");
    }
}

/// Receives pushes, until a stop of the daemon is requested.
fn harness() -> (
    ListenerTask,
    oneshot::Receiver<Arc<Mutex<Option<ObservationSender>>>>,
) {
    let (open, observations) = oneshot::channel();
    let listening = ListenerTask {
        name: "twitch-eventsub".to_owned(),
        run: Box::new(move |context, stop| {
            Box::pin(async move {
                let harness = Arc::new(Mutex::new(Some(context.observations)));
                let _ = open.send(Arc::clone(&harness));
                stop.requested().await;
                harness.lock().take();
            })
        }),
        report: Arc::new(|| ListenerReport {
            healthy: true,
            summary: "hears".to_owned(),
            connections: None,
            subscriptions: None,
            detail: serde_json::Value::Null,
        }),
    };
    (listening, observations)
}

async fn tokens(sim: &Sim) -> Arc<dyn TokenStore> {
    let tokens = MemoryTokenStore::default();
    let pair = sim.twitch.issue_token(TokenSpec {
        client_id: "app".to_owned(),
        user_id: Some(BOT.to_owned()),
        ..TokenSpec::default()
    });
    let now = sim.clock.now();
    let token = StoredToken {
        refresh: pair.refresh.map(RefreshToken::fresh),
        client_id: Some("app".to_owned()),
        user_id: Some(BOT.to_owned()),
        expires_at: Some(now.plus_secs(pair.expires_in)),
        ..StoredToken::unproven(pair.access, now)
    };
    tokens.set_token(&twitch::bot(), Some(token)).await.unwrap();
    Arc::new(tokens)
}

/// EventSub's observation of a stream that starts or ends.
pub fn pushed(source: &SourceKey, stream: &str, live: bool, at: Timestamp) -> Observation {
    let fact = Fact::StreamPush {
        live,
        stream_id: live.then(|| stream.to_owned()),
        started_at: live.then_some(at),
    };
    Observation::new(source, at, "twitch.eventsub", fact)
}
