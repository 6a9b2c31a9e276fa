//! A virtual week in minutes: hundreds of channels of the simulated Twitch, looked at over real sockets and pushed, with
//! random faults and restarts, clean and unclean. At its end every document is the simulator's truth, every broadcast was
//! announced exactly once, and memory has stopped growing.
//!
//! The clock is moved: from one event to the next at once. By default the week has 60 sources, half a minute of processor time in a
//! debug build; `scripts/soak.sh` runs it with 500, and with other seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitbrat::clock::{Chance, Clock, ManualClock};
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::Facet;
use bitbrat::core::verdict::Status;
use bitbrat::http::{Http, HttpOptions};
use bitbrat::lifecycle::{Lifecycle, Signal};
use bitbrat::persist::Persister;
use bitbrat::persist::economy::Economy;
use bitbrat::platforms::twitch::{self, TwitchOptions, TwitchPlatform};
use bitbrat::platforms::{Budget, Platform, PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary};
use bitbrat::sim::twitch::{EndSpec, StreamSpec, TokenSpec};
use bitbrat::sim::{Fault, FaultBody, Sim, SimOptions, WireFault};
use bitbrat::store::SourceStore;
use bitbrat::store::retention::Retention;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use bitbrat::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenRecord, TokenStore};
use bitbrat::watch::engine::{Engine, Parts, Route};
use bitbrat::watch::lanes::Lanes;
use bitbrat::watch::listening::{ListenerReport, Listening};
use bitbrat::watch::overview::View;
use tokio::sync::mpsc;

use super::world::{FlakyStore, Truth};

const START: i64 = 1_780_000_000_000;
const BOT: &str = "900100";
/// Seconds between two looks.
const LOOK: u32 = 3_600;
/// What may still be added to memory after the first third of the week, in KiB: caches of the allocator and of SQLite.
const GROWTH: u64 = 24 * 1024;

/// Twitch, and how many looks at it have ended, how many of them with problems.
struct Watched {
    twitch: TwitchPlatform,
    looked: AtomicU64,
    failed: AtomicU64,
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
            self.failed.fetch_add(failed, Ordering::SeqCst);
            self.looked.fetch_add(1, Ordering::SeqCst);
        }
        summary
    }
}

/// The world around the daemon.
struct World {
    directory: tempfile::TempDir,
    sim: Sim,
    truth: Truth,
    platform: Arc<Watched>,
    store: Arc<SqliteStore>,
    store_away: Arc<AtomicBool>,
    chance: fastrand::Rng,
    /// Pushes under way: when they arrive, and what they tell.
    pushes: BTreeMap<(Timestamp, u64), Observation>,
    daemon: Option<Daemon>,
    starts: u64,
}

/// A running daemon.
struct Daemon {
    lanes: Arc<Lanes>,
    view: View,
    signals: mpsc::Sender<Signal>,
    heard: mpsc::UnboundedSender<Observation>,
    done: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new(sources: u32, days: u32, seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let start = Timestamp::from_millis(START);
        let truth = Truth::invent(start, sources, i64::from(days), &mut chance);
        let sim = Sim::start(SimOptions {
            clock: ManualClock::at(start),
            ..SimOptions::default()
        })
        .await
        .unwrap();
        sim.twitch.add_client("app", Some("hush-secret"));
        sim.twitch.add_channel(BOT, "bitbrat_bot");
        for source in truth.keys() {
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
            platform: Arc::new(Watched {
                twitch: platform(&sim).await,
                looked: AtomicU64::new(0),
                failed: AtomicU64::new(0),
            }),
            directory,
            sim,
            truth,
            store: Arc::new(store),
            store_away: Arc::default(),
            chance,
            pushes: BTreeMap::new(),
            daemon: None,
            starts: 0,
        }
    }

    fn now(&self) -> Timestamp {
        self.sim.clock.now()
    }

    /// Starts the daemon on what a previous one left behind.
    fn start(&mut self) {
        self.starts += 1;
        let clock: Arc<dyn Clock> = Arc::clone(&self.sim.clock) as Arc<dyn Clock>;
        let store: Arc<dyn SourceStore> = Arc::new(FlakyStore {
            inner: Arc::clone(&self.store),
            away: Arc::clone(&self.store_away),
        });
        let hours = |count| Duration::from_hours(count);
        let persister = Persister::new(
            store,
            Arc::clone(&clock),
            Economy::every(hours(6)),
            Chance::seeded(self.starts),
        );
        let parts = Parts {
            state_dir: self.directory.path().to_owned(),
            instance: Some("soak".to_owned()),
            outbox: 100_000,
            sources: self.truth.keys().into_iter().map(Into::into).collect(),
            platforms: vec![Arc::clone(&self.platform) as Arc<dyn Platform>],
            route: Route::Local {
                persister: Arc::new(persister),
                location: "sqlite".to_owned(),
                heartbeat: hours(12),
            },
            timetable: BTreeMap::new(),
            jitter: Duration::ZERO,
            clock,
            chance: Chance::seeded(self.starts),
        };
        let lifecycle = Lifecycle::new();
        let mut engine = Engine::start(parts, &lifecycle.tasks(), true).unwrap();
        let (heard, told) = mpsc::unbounded_channel();
        engine.listen(ear(told));
        engine.run_lanes();
        let (lanes, view) = (Arc::clone(&engine.lanes), engine.view());
        let (signals, receiver) = mpsc::channel(4);
        #[expect(clippy::disallowed_methods, reason = "the test owns this one")]
        let done = tokio::spawn(async move {
            let _engine = engine;
            // A killed daemon fails, and that is what is wanted of it.
            let _ = lifecycle.run_with(receiver, Duration::from_secs(30)).await;
        });
        self.daemon = Some(Daemon {
            lanes,
            view,
            signals,
            heard,
            done,
        });
    }

    /// Ends the daemon, cleanly or in the middle of things.
    async fn stop(&mut self, cleanly: bool) {
        let daemon = self.daemon.take().unwrap();
        daemon.signals.send(Signal::Terminate).await.unwrap();
        if !cleanly {
            daemon.signals.send(Signal::Terminate).await.unwrap();
        }
        daemon.done.await.unwrap();
    }

    /// Looks at all sources, and waits until that is over: the clock must not move meanwhile.
    async fn look(&self) {
        let Some(daemon) = &self.daemon else { return };
        let before = self.platform.looked.load(Ordering::SeqCst);
        daemon
            .lanes
            .ask(&ProbeSet::from([Probe::Connection, Probe::Stream]));
        let patience = Instant::now() + Duration::from_secs(60);
        while self.platform.looked.load(Ordering::SeqCst) == before {
            assert!(Instant::now() < patience, "a look never ended");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Seconds of this machine are hours of the week: a daemon that lags behind would lose hours when it is killed.
        while (daemon.view)().inputs > 0 {
            assert!(Instant::now() < patience, "what was seen was never taken in");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the simulator is back on the network, which takes real time.
    async fn reachable(&self) {
        let address = self.sim.twitch.http().replacen("http://", "", 1);
        let patience = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            assert!(Instant::now() < patience, "the simulator stays away");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets time pass while nothing is wrong, so that no look may fail.
    async fn rest(&mut self, seconds: i64, look_every: i64) {
        let failed = self.platform.failed.load(Ordering::SeqCst);
        self.pass(seconds, look_every).await;
        assert_eq!(
            self.platform.failed.load(Ordering::SeqCst),
            failed,
            "a look failed without a reason"
        );
    }

    /// Lets time pass: streams start and end at their moments, looks happen at theirs.
    async fn pass(&mut self, seconds: i64, look_every: i64) {
        let end = self.now().plus_secs(seconds);
        let mut look_at = self.now().plus_secs(look_every);
        loop {
            let now = self.now();
            let change = self.truth.next_change(now);
            let push = self.pushes.first_key_value().map(|((at, _), _)| *at);
            let next = [Some(end), Some(look_at), change, push]
                .into_iter()
                .flatten()
                .min()
                .unwrap();
            self.sim.clock.advance(next.millis_since(now).max(0));
            for (source, stream, live) in self.truth.changes_at(next).collect::<Vec<_>>() {
                self.change(&source, &stream, live, next);
            }
            self.deliver(next);
            if next == look_at {
                self.look().await;
                look_at = look_at.plus_secs(look_every);
            }
            if next == end {
                return;
            }
        }
    }

    /// Starts or ends a stream. Polls lag behind; its push comes at once, late, twice or never.
    fn change(&mut self, source: &SourceKey, stream: &str, live: bool, at: Timestamp) {
        let lag_ms = Some(self.chance.i64(0..180_000));
        if live {
            let spec = StreamSpec {
                stream_id: Some(stream.to_owned()),
                lag_ms,
                ..StreamSpec::default()
            };
            self.sim.twitch.go_live_with(source.id(), &spec).unwrap();
        } else {
            let spec = EndSpec {
                lag_ms,
                ..EndSpec::default()
            };
            self.sim.twitch.end_stream_with(source.id(), &spec).unwrap();
        }
        let fact = Fact::StreamPush {
            live,
            stream_id: live.then(|| stream.to_owned()),
            started_at: live.then_some(at),
        };
        let push = Observation::new(source, at, "twitch.eventsub", fact);
        for _ in 0..[0, 1, 1, 1, 1, 1, 1, 2][self.chance.usize(0..8)] {
            let late = match self.chance.u8(0..10) {
                0 => self.chance.i64(1_000..120_000),
                _ => 0,
            };
            let order = self.chance.u64(..);
            self.pushes.insert((at.plus_millis(late), order), push.clone());
        }
    }

    /// Delivers pushes that are due; nobody hears them while the daemon is away.
    fn deliver(&mut self, now: Timestamp) {
        let later = self.pushes.split_off(&(now.plus_millis(1), 0));
        for (_, push) in std::mem::replace(&mut self.pushes, later) {
            if let Some(daemon) = &self.daemon {
                daemon.heard.send(push).unwrap();
            }
        }
    }

    /// One of the things that go wrong.
    async fn trouble(&mut self) {
        let host = self.sim.twitch.host().clone();
        let seconds = self.chance.i64(60..1_800);
        let fault = match self.chance.u8(0..9) {
            0 => Fault::status(503),
            1 => Fault::body(FaultBody::Garbage),
            2 => Fault::wire(WireFault::Reset),
            3 => Fault {
                chance: Some(0.5),
                ..Fault::status(500)
            },
            4 => {
                host.go_down();
                self.look().await;
                self.pass(seconds, i64::from(LOOK)).await;
                host.come_up();
                self.reachable().await;
                return;
            }
            5 => {
                self.store_away.store(true, Ordering::SeqCst);
                self.pass(seconds, seconds / 2).await;
                self.store_away.store(false, Ordering::SeqCst);
                return;
            }
            kind => {
                self.stop(kind != 6).await;
                self.pass(seconds / 2, i64::from(LOOK)).await;
                self.start();
                // A daemon that starts looks at everything.
                self.look().await;
                return;
            }
        };
        let fault = host.faults().add(fault.on("/helix"));
        self.look().await;
        self.pass(seconds, i64::from(LOOK)).await;
        host.faults().remove(fault);
    }

    /// Compares documents and history with the truth.
    async fn compare(&self) {
        let now = self.now();
        let mut problems = Vec::new();
        let truth = live_streams(&self.sim.twitch.truth());
        for source in self.truth.keys() {
            let document = self.store.load(&source).await.unwrap().unwrap().value;
            let live = truth.get(source.id()).cloned();
            let planned = self.truth.at(&source, now).map(|broadcast| broadcast.id.clone());
            assert_eq!(live, planned, "the simulator did as it was told");
            let expected = match live {
                Some(_) => StreamStatus::Online,
                None => StreamStatus::Offline,
            };
            let verdict = &document.verdict;
            if (verdict.stream.value, verdict.status.value) != (expected, Status::Connected) {
                problems.push(format!(
                    "{source}: {:?} {:?}, truth {live:?}",
                    verdict.stream, verdict.status
                ));
            }
            let session = verdict.session.as_ref().map(|session| session.stream_id.clone());
            if live.is_some() && session != live {
                problems.push(format!("{source}: stream {session:?}, truth {live:?}"));
            }
            problems.extend(self.history(&source, now).await);
        }
        assert!(
            problems.is_empty(),
            "{} problems:\n{}",
            problems.len(),
            problems.join("\n")
        );
    }

    /// Each broadcast was announced, once, not before it began, and none that never was.
    async fn history(&self, source: &SourceKey, now: Timestamp) -> Vec<String> {
        let entries = self.store.history(source, 100_000).await.unwrap();
        let mut announced: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
        let online = entries
            .iter()
            .map(|entry| &entry.transition)
            .filter(|transition| {
                transition.facet == Facet::Stream && transition.to.as_deref() == Some("ONLINE")
            });
        for transition in online {
            let stream = transition.stream_id.clone().unwrap_or_default();
            announced.entry(stream).or_default().push(transition.at);
        }
        let mut problems = Vec::new();
        for broadcast in self.truth.broadcasts[source]
            .iter()
            .filter(|broadcast| broadcast.start <= now)
        {
            match announced.remove(&broadcast.id).as_deref() {
                None => problems.push(format!("{source}: {broadcast:?} was never announced")),
                Some([at]) if *at < broadcast.start => problems.push(format!(
                    "{source}: {broadcast:?} was announced at {at}, before it began"
                )),
                Some([_]) => {}
                Some(times) => problems.push(format!("{source}: {broadcast:?} was announced at {times:?}")),
            }
        }
        problems.extend(
            announced
                .keys()
                .map(|stream| format!("{source}: stream {stream} was announced and never was")),
        );
        problems
    }
}

/// Twitch's adapter with a bot that is authorised.
async fn platform(sim: &Sim) -> TwitchPlatform {
    let tokens: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::default());
    let pair = sim.twitch.issue_token(TokenSpec {
        client_id: "app".to_owned(),
        user_id: Some(BOT.to_owned()),
        ..TokenSpec::default()
    });
    let token = StoredToken {
        refresh: pair.refresh.map(RefreshToken::fresh),
        client_id: Some("app".to_owned()),
        user_id: Some(BOT.to_owned()),
        expires_at: Some(sim.clock.now().plus_secs(pair.expires_in)),
        ..StoredToken::unproven(pair.access, sim.clock.now())
    };
    let lease = tokens.lease(&twitch::bot()).await.unwrap();
    let record = TokenRecord {
        token: Some(token),
        ..TokenRecord::default()
    };
    lease.save(&record).await.unwrap();
    let urls = sim.twitch.urls();
    let options = TwitchOptions {
        auth_url: urls.auth.parse().unwrap(),
        helix_url: urls.helix.parse().unwrap(),
        client_id: Some("app".to_owned()),
        client_secret: Some("hush-secret".to_owned().into()),
        ..TwitchOptions::default()
    };
    let clock: Arc<dyn Clock> = Arc::clone(&sim.clock) as Arc<dyn Clock>;
    let http = Http::new(HttpOptions::default(), Arc::clone(&clock));
    TwitchPlatform::new(options, tokens, http, clock, Chance::seeded(1))
}

/// Who is live with which stream, as the simulator tells it.
fn live_streams(truth: &serde_json::Value) -> BTreeMap<String, String> {
    let channels = truth["channels"].as_array().unwrap().iter();
    let live = channels.filter_map(|channel| {
        let stream = channel["stream"]["id"].as_str()?;
        Some((channel["id"].as_str()?.to_owned(), stream.to_owned()))
    });
    live.collect()
}

/// Hears what is pushed.
fn ear(mut told: mpsc::UnboundedReceiver<Observation>) -> Listening {
    Listening {
        name: "twitch-eventsub".to_owned(),
        run: Box::new(move |ears, stop| {
            Box::pin(async move {
                loop {
                    tokio::select! {
                        Some(observation) = told.recv() => ears.intake.observe(observation),
                        () = stop.requested() => return,
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

/// Memory in use by this process, simulator included, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

fn setting(name: &str, usual: u32) -> u32 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_virtual_week_of_faults_every_document_is_the_truth() {
    let (sources, days) = (
        setting("BITBRAT_SOAK_SOURCES", 60),
        setting("BITBRAT_SOAK_DAYS", 7),
    );
    let look = i64::from(setting("BITBRAT_SOAK_LOOK", LOOK));
    let begun = Instant::now();
    let mut world = World::new(sources, days, u64::from(setting("BITBRAT_SOAK_SEED", 7))).await;
    let start = world.now();
    let end = start.plus_secs(i64::from(days) * 86_400);
    let third = start.plus_secs(i64::from(days) * 86_400 / 3);
    world.start();
    world.look().await;
    let (mut early, mut troubles) = (0, 0);
    while world.now() < end {
        let quiet = world.chance.i64(3_600..6 * 3_600);
        world.rest(quiet, look).await;
        world.trouble().await;
        troubles += 1;
        if early == 0 && world.now() > third {
            early = memory();
        }
    }
    // Time enough for the slowest rule: an end that only polls tell, from a cache that lags.
    world.truth.cut(world.now());
    world.rest(1_200, 300).await;
    settle(&world).await;
    world.compare().await;
    let late = memory();
    assert!(late < early + GROWTH, "memory grew from {early} to {late} KiB");
    let ledger = size(&world.directory.path().join("watch.db"));
    assert!(ledger < 16 << 20, "watch.db has {ledger} bytes");
    world.stop(true).await;
    for source in world.truth.keys() {
        let stored = world.store.load(&source).await.unwrap().unwrap().value;
        let status = stored.verdict.status.value;
        assert_eq!(status, Status::Disconnected, "{source} after a clean stop");
    }
    let broadcasts: usize = world.truth.broadcasts.values().map(Vec::len).sum();
    let looks = world.platform.looked.load(Ordering::SeqCst);
    let seconds = begun.elapsed().as_secs();
    #[expect(clippy::print_stderr, reason = "whoever runs it by hand wants to know")]
    {
        eprintln!(
            "{days} days of {sources} sources in {seconds} s: {broadcasts} broadcasts, {looks} looks, {troubles} troubles, \
             {} starts, {early} KiB after a third, {late} KiB at the end, {ledger} bytes of ledger",
            world.starts
        );
    }
}

/// Waits until what is known is stored.
async fn settle(world: &World) {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let mut waiting = BTreeSet::new();
        for source in world.truth.keys() {
            let stored = world.store.load(&source).await.unwrap().map(|found| found.value);
            if stored.is_none_or(|document| document.verdict.status.value != Status::Connected) {
                waiting.insert(source);
            }
        }
        if waiting.is_empty() || Instant::now() > patience {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // What was learnt with the last look may still be under way to the store.
    tokio::time::sleep(Duration::from_secs(2)).await;
}
