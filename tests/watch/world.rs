//! A daemon in this process whose time is moved: the real engine, adapters and files, the simulated Twitch over real sockets,
//! and a clock that stands still while anything is under way. Hours pass between two instructions, and whatever happens
//! happens at an exact moment, however slow the machine is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitbrat::clock::{Chance, Clock, ManualClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::facet::Facet;
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::Transition;
use bitbrat::http::{Http, HttpOptions};
use bitbrat::lifecycle::{Lifecycle, Signal};
use bitbrat::persist::Persister;
use bitbrat::persist::economy::Economy;
use bitbrat::platforms::twitch::{self, TwitchOptions, TwitchPlatform};
use bitbrat::platforms::{Budget, Platform, PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary};
use bitbrat::sim::twitch::{TokenSpec, TwitchUrls};
use bitbrat::sim::{Sim, SimOptions};
use bitbrat::store::SourceStore;
use bitbrat::store::retention::Retention;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use bitbrat::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenRecord, TokenStore};
use bitbrat::watch::engine::{Engine, Parts, Route};
use bitbrat::watch::intake::Intake;
use bitbrat::watch::lanes::Lanes;
use bitbrat::watch::listening::{ListenerReport, Listening};
use bitbrat::watch::overview::View;
use tokio::sync::{mpsc, oneshot};

use crate::support::flaky::Flaky;

/// When the story begins.
pub const START: i64 = 1_780_000_000_000;
const BOT: &str = "900100";
/// For so long nothing at all may happen before a wait is given up: pauses between attempts are half a minute at most. How long
/// it takes in all says something of the machine only.
const STILL: Duration = Duration::from_secs(120);

/// The name of every thread of a daemon.
const THREADS: &str = "moved-daemon";
/// What has panicked on them.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many looks have ended, how many of them for streams, and how many of those with problems.
#[derive(Default)]
struct Looks {
    any: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
}

/// Twitch, and a count of the looks at it.
struct Watched {
    twitch: TwitchPlatform,
    looks: Arc<Looks>,
}

#[async_trait]
impl Platform for Watched {
    fn name(&self) -> PlatformName {
        self.twitch.name()
    }

    fn budgets(&self) -> Vec<Budget> {
        self.twitch.budgets()
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError> {
        self.twitch.resolve(names).await
    }

    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary {
        let summary = self.twitch.probe(probes, sources, sink).await;
        if probes.contains(&Probe::Stream) {
            let failed = u64::from(!summary.problems.is_empty());
            self.looks.failed.fetch_add(failed, Ordering::SeqCst);
            self.looks.ended.fetch_add(1, Ordering::SeqCst);
        }
        self.looks.any.fetch_add(1, Ordering::SeqCst);
        summary
    }
}

/// The world around the daemon, which may run or not.
pub struct World {
    pub directory: tempfile::TempDir,
    pub sim: Sim,
    pub store: Arc<SqliteStore>,
    pub starts: u64,
    store_away: Arc<AtomicBool>,
    sources: Vec<SourceKey>,
    tokens: Arc<dyn TokenStore>,
    looks: Arc<Looks>,
    daemon: Option<Daemon>,
}

/// A running daemon.
struct Daemon {
    lanes: Arc<Lanes>,
    view: View,
    /// Where pushes enter; gone as soon as it is asked to stop.
    intake: Arc<Mutex<Option<Intake>>>,
    signals: mpsc::Sender<Signal>,
    kill: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// Waits until nothing of a daemon is at work any more. Not even in its last moment may anything of it have panicked.
async fn over(ended: oneshot::Receiver<()>) {
    ended.await.expect("its threads end");
    assert_eq!(
        PANICS.load(Ordering::SeqCst),
        0,
        "a thread of the daemon panicked"
    );
}

/// Counts from now on what panics on threads of a daemon: one that is killed leaves nobody behind to notice.
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
            looks: Arc::default(),
            daemon: None,
            starts: 0,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.sim.clock.now()
    }

    /// Starts the daemon on what a previous one left behind. It has threads of its own, so that its end is an end: nothing of it
    /// is at work any more when the next one starts.
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
            looks: Arc::clone(&self.looks),
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
            // Drops all tasks where they are, and waits only for what is just being written.
            drop(runtime);
            let _ = end.send(());
        });
        running.expect("a thread");
        let (lanes, view, intake) = started.await.expect("it starts");
        self.daemon = Some(Daemon {
            lanes,
            view,
            intake,
            signals,
            kill,
            ended,
        });
    }

    /// Ends the daemon politely: it takes in and tells what is under way, then says goodbye.
    pub async fn stop(&mut self) {
        let daemon = self.daemon.take().expect("it runs");
        daemon.signals.send(Signal::Terminate).await.unwrap();
        over(daemon.ended).await;
    }

    /// Ends the daemon in the middle of whatever it is doing, without a word.
    pub async fn kill(&mut self) {
        let daemon = self.daemon.take().expect("it runs");
        daemon.kill.send(()).unwrap();
        over(daemon.ended).await;
    }

    /// Pushes to the daemon. Returns whether anybody heard.
    pub fn push(&self, push: Observation) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let intake = daemon.intake.lock().unwrap();
        if let Some(intake) = &*intake {
            intake.observe(push);
        }
        intake.is_some()
    }

    /// Asks for a look at all sources, without waiting for it.
    pub fn ask(&self) {
        if let Some(daemon) = &self.daemon {
            daemon
                .lanes
                .ask(&ProbeSet::from([Probe::Connection, Probe::Stream]));
        }
    }

    /// Looks at all sources, and waits until nothing is under way any more.
    pub async fn look(&self) {
        if self.daemon.is_none() {
            return;
        }
        // What was pushed before is taken in before.
        self.settle().await;
        let before = self.looks();
        self.ask();
        self.wait("a look never ended", || self.looks() > before).await;
        self.settle().await;
    }

    /// Looks at all sources for `probes`, which are of one lane, and waits until nothing is under way any more.
    pub async fn look_for(&self, probes: &[Probe]) {
        let daemon = self.daemon.as_ref().expect("it runs");
        self.settle().await;
        let any = || self.looks.any.load(Ordering::SeqCst);
        let before = any();
        daemon.lanes.ask(&probes.iter().copied().collect());
        self.wait("a look never ended", || any() > before).await;
        self.settle().await;
    }

    /// Returns how many looks for streams have ended.
    pub fn looks(&self) -> u64 {
        self.looks.ended.load(Ordering::SeqCst)
    }

    /// Returns how many looks met problems.
    pub fn failed_looks(&self) -> u64 {
        self.looks.failed.load(Ordering::SeqCst)
    }

    /// Waits until nothing is under way any more: what was learnt is joined and, unless the store is away, stored.
    pub async fn settle(&self) {
        let Some(daemon) = &self.daemon else { return };
        let away = self.store_away.load(Ordering::SeqCst);
        self.wait("what was learnt was never stored", || {
            let view = (daemon.view)();
            view.inputs == 0 && (away || view.outbox.events == 0)
        })
        .await;
    }

    /// Waits as long as anything moves.
    async fn wait(&self, otherwise: &str, done: impl Fn() -> bool) {
        let progress = || {
            let view = self.daemon.as_ref().map(|daemon| (daemon.view)());
            let view = view.map(|view| (view.inputs, view.outbox, view.sent));
            (self.looks.any.load(Ordering::SeqCst), view)
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

    /// Takes the store away, or brings it back.
    pub fn set_store_away(&self, away: bool) {
        self.store_away.store(away, Ordering::SeqCst);
    }

    /// Brings the simulator back to the network, which takes real time.
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

    /// Returns the changes of a source's stream that were told, in the order in which they happened.
    pub async fn told(&self, source: &SourceKey) -> Vec<Transition> {
        self.told_of(source, Facet::Stream).await
    }

    /// Returns the changes of one verdict that were told, in the order in which they happened.
    pub async fn told_of(&self, source: &SourceKey, facet: Facet) -> Vec<Transition> {
        let entries = self.store.history(source, 100_000).await.unwrap();
        let mut told: Vec<_> = entries.into_iter().map(|entry| entry.transition).collect();
        told.retain(|transition| transition.facet == facet);
        told.sort_by_key(|transition| transition.at);
        told
    }
}

/// What a daemon's life needs.
struct Life {
    state: PathBuf,
    sources: Vec<SourceKey>,
    urls: TwitchUrls,
    clock: Arc<dyn Clock>,
    store: Arc<dyn SourceStore>,
    tokens: Arc<dyn TokenStore>,
    looks: Arc<Looks>,
    seed: u64,
}

/// What others hold of a daemon that has started.
type Started = (Arc<Lanes>, View, Arc<Mutex<Option<Intake>>>);

impl Life {
    async fn live(self, up: oneshot::Sender<Started>, signals: mpsc::Receiver<Signal>) {
        let hours = |count| Duration::from_hours(count);
        let persister = Persister::new(
            self.store,
            Arc::clone(&self.clock),
            Economy::every(hours(6)),
            Chance::seeded(self.seed),
        );
        let options = TwitchOptions {
            auth_url: self.urls.auth.parse().unwrap(),
            helix_url: self.urls.helix.parse().unwrap(),
            client_id: Some("app".to_owned()),
            client_secret: Some("hush-secret".to_owned().into()),
            ..TwitchOptions::default()
        };
        // None of the troubles needs a timeout to be noticed: one that strikes says something of the machine only.
        let patient = HttpOptions {
            connect_timeout: STILL,
            timeout: STILL,
            ..HttpOptions::default()
        };
        let http = Http::new(patient, Arc::clone(&self.clock));
        let clock = Arc::clone(&self.clock);
        let platform = Watched {
            twitch: TwitchPlatform::new(options, self.tokens, http, clock, Chance::seeded(1)),
            looks: self.looks,
        };
        let parts = Parts {
            state_dir: self.state,
            instance: Some("moved".to_owned()),
            outbox: 100_000,
            sources: self.sources.into_iter().map(Into::into).collect(),
            platforms: vec![Arc::new(platform) as Arc<dyn Platform>],
            route: Route::Local {
                persister: Arc::new(persister),
                location: "sqlite".to_owned(),
                heartbeat: hours(12),
            },
            timetable: BTreeMap::new(),
            jitter: Duration::ZERO,
            clock: self.clock,
            chance: Chance::seeded(self.seed),
        };
        let lifecycle = Lifecycle::new();
        let mut engine = Engine::start(parts, &lifecycle.tasks(), true).unwrap();
        let (ear, intake) = ear();
        engine.listen(ear);
        engine.run_lanes();
        let intake_of_ear = intake.await.expect("the ear runs");
        let _ = up.send((Arc::clone(&engine.lanes), engine.view(), intake_of_ear));
        // However long it takes: the test waits for its end and has a time limit of its own.
        let ended = lifecycle.run_with(signals, hours(1)).await;
        ended.expect("it stops when it is asked to");
    }
}

/// Hears what is pushed, until the daemon is asked to stop.
fn ear() -> (Listening, oneshot::Receiver<Arc<Mutex<Option<Intake>>>>) {
    let (open, intake) = oneshot::channel();
    let listening = Listening {
        name: "twitch-eventsub".to_owned(),
        run: Box::new(move |ears, stop| {
            Box::pin(async move {
                let ear = Arc::new(Mutex::new(Some(ears.intake)));
                let _ = open.send(Arc::clone(&ear));
                stop.requested().await;
                ear.lock().unwrap().take();
            })
        }),
        report: Arc::new(|| ListenerReport {
            healthy: true,
            summary: "hears".to_owned(),
            detail: serde_json::Value::Null,
        }),
    };
    (listening, intake)
}

/// The bot's tokens.
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
    let lease = tokens.lease(&twitch::bot()).await.unwrap();
    let record = TokenRecord {
        token: Some(token),
        ..TokenRecord::default()
    };
    lease.save(&record).await.unwrap();
    drop(lease);
    Arc::new(tokens)
}

/// What EventSub tells of a stream that starts or ends.
pub fn pushed(source: &SourceKey, stream: &str, live: bool, at: Timestamp) -> Observation {
    let fact = Fact::StreamPush {
        live,
        stream_id: live.then(|| stream.to_owned()),
        started_at: live.then_some(at),
    };
    Observation::new(source, at, "twitch.eventsub", fact)
}
