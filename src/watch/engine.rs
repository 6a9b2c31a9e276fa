//! The daemon, assembled from its ports: what `bitbrat watch` runs, whatever the adapters.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

use self::restore::{merge_stored, open_links, restore, unpublished};
use self::routes::build_route;
use super::account_checks::AccountFanOut;
use super::clock_jumps;
use super::delays::EventDelays;
use super::dispatcher::{Dispatched, Dispatcher, Sink};
use super::fleet::Owned;
use super::listener_context::{ListenerContext, ListenerTask, Report, TokenChanges};
use super::lock::{SendingLock, StateLock};
use super::monitored::{MonitoredSource, MonitoredSources};
use super::observations::{ObservationSender, Observer, StoredSender};
use super::overview::{View, ViewOf};
use super::pollers::Pollers;
use super::state_file::StateFile;
use super::ticks::{self, Timetable};
use super::viewers::Viewers;
use super::writer::{CHECKPOINT, Committer, PendingCommits, Writer, WriterStats};
use crate::blocking::blocking;
use crate::clock::{Chance, Clock};
use crate::core::code::Code;
use crate::core::compact::Compact;
use crate::core::counters::Counters;
use crate::core::evidence::Knowledge;
use crate::core::observation::{Fact, Identity, LinkState, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::evidence::StreamEvidence;
use crate::failure::{ExitCode, Failure};
use crate::http::CorrectedClock;
use crate::lifecycle::{Stop, Tasks};
use crate::persist::Stats;
use crate::platforms::{Platform, Probe, ProbeSet, ProbeSink as _};
use crate::store::retention::Retention;

mod restore;
mod routes;
mod selection;

pub use self::routes::{Route, SPREAD};

/// How often the write-ahead logs of SQLite files are checkpointed. Otherwise a commit would have to do it.
pub const TIDY: Duration = Duration::from_secs(5);

/// How long `watch --once` waits for a platform that does not answer at all: longer than one request with its retries takes on a
/// bad connection, and short enough for a cron job that runs every minute.
const ONCE_TIMEOUT: Duration = Duration::from_secs(25);

pub struct Parts {
    /// The directory for the daemon's state. It must exist.
    pub state_dir: PathBuf,
    /// The file of the documents, their history and the outbox.
    pub file: PathBuf,
    /// Limits of the history in that file.
    pub retention: Retention,
    /// Name under which this process stores its totals; generated once when `None`.
    pub instance: Option<String>,
    /// Maximum number of events in the outbox.
    pub outbox_capacity: usize,
    pub sources: Vec<MonitoredSource>,
    /// What a remote store contains about them already, also from other writers.
    pub stored: Vec<(SourceKey, Compact)>,
    /// The platforms of these sources.
    pub platforms: Vec<Arc<dyn Platform>>,
    /// How often a document without transitions is written to the file; `None` where the file's documents are not read.
    pub documents: Option<Duration>,
    /// The destination of events.
    pub route: Route,
    /// Whether alerts or hooks need the events.
    pub has_alerts: bool,
    /// When each probe runs.
    pub timetable: Timetable,
    /// Whether this is a member of a fleet, which monitors nothing before [`Engine::own`].
    pub is_member: bool,
    /// Maximum random delay of each probe.
    pub jitter: Duration,
    pub clock: Arc<dyn Clock>,
    pub chance: Chance,
}

pub struct Engine {
    /// The sources that pollers check; in a fleet, those that this member owns.
    pub monitored: MonitoredSources,
    /// The sources that listeners follow: the same, but in a fleet those of platforms whose account this member owns.
    pub listened: MonitoredSources,
    /// All configured sources, also those that other members own.
    configured: Mutex<Vec<MonitoredSource>>,
    /// What this member of a fleet owns; `None` without a fleet.
    owned: Option<Mutex<Owned>>,
    pub pollers: Arc<Pollers>,
    /// Recent viewer counts.
    pub viewers: Arc<Mutex<Viewers>>,
    observations: Option<ObservationSender>,
    gained_documents: StoredSender,
    inputs_sent: Arc<AtomicU64>,
    timetable: watch::Sender<Timetable>,
    state_file: Arc<StateFile>,
    stats: Arc<WriterStats>,
    dispatched: Arc<Dispatched>,
    event_delays: Arc<EventDelays>,
    sink: Option<Arc<dyn Sink>>,
    /// The file, for users.
    location: String,
    listeners: Vec<(String, Report)>,
    tasks: Tasks,
    finished: Arc<AtomicBool>,
    /// Links that a remote store has as open, of sources that are not in the file.
    left: Vec<(Transport, SourceKey)>,
    instance: String,
    jumped: watch::Receiver<u64>,
    platforms: Vec<Arc<dyn Platform>>,
    token_changes: watch::Sender<TokenChanges>,
}

impl Engine {
    /// Starts everything except listeners and schedules. With `shutdown`, the end of the daemon is published.
    pub fn start(parts: Parts, tasks: &Tasks, shutdown: bool) -> Result<Self, Failure> {
        let lock = StateLock::acquire(&parts.state_dir).map_err(|error| {
            let hint = error.hint();
            cannot(&error).hint(hint)
        })?;
        let (state_file, instance, mut tracker) =
            restore(&parts, lock).map_err(|failure| failure.while_doing("cannot start watching"))?;
        let over_bus = matches!(parts.route, Route::Bus { .. });
        let mut pending = PendingCommits::default();
        let left = merge_stored(parts.stored, &mut tracker, over_bus.then_some(&mut pending));
        if over_bus {
            unpublished(&state_file, &parts.sources, &mut tracker, &mut pending)
                .map_err(|error| cannot(&error))?;
        }
        let initial_events = parts.route.initial_events();
        let stats = Arc::new(WriterStats::since(parts.clock.now()));
        let dispatched = Arc::new(Dispatched::default());
        let configured = Mutex::new(parts.sources.clone());
        let monitored = MonitoredSources::new(parts.sources);
        let listened = match parts.is_member {
            true => MonitoredSources::new(Vec::new()),
            false => monitored.clone(),
        };
        let live = Arc::clone(&stats);
        let pollers = Pollers::new(
            &parts.platforms,
            monitored.clone(),
            Arc::new(move || live.live()),
            parts.jitter,
            parts.chance.clone(),
        );
        let (observations, inputs) = ObservationSender::new();
        let viewers = observed(&observations, &pollers);
        let event_delays = count_delays(&parts.platforms, &parts.clock, &observations);
        let fan_out = AccountFanOut::new(monitored.clone(), parts.platforms.clone());
        observations.set_extender(Arc::new(move |observation| fan_out.others(observation)));
        let wake = Arc::new(Notify::new());
        let (closing, closed) = watch::channel(false);
        let (sink, heartbeats, pace) = build_route(parts.route, &state_file, tasks);
        let writer = Writer {
            tracker,
            committer: Committer::new(
                Arc::clone(&state_file),
                Arc::clone(&wake),
                Arc::clone(&stats),
                pending,
            ),
            inputs,
            confirm_every: parts.documents.map_or(CHECKPOINT, millis),
            heartbeats,
            clock: CorrectedClock::new(Arc::clone(&parts.clock)),
            closing,
            shutdown,
            initial_events,
            last_turn: None,
            results: None,
        };
        tasks.spawn("writer", |stop| writer.run(stop));
        if let Some(sink) = &sink {
            let sender = Dispatcher {
                state_file: Arc::clone(&state_file),
                sink: Arc::clone(sink),
                pace,
                wake,
                closing: closed,
                counts: Arc::clone(&dispatched),
                chance: parts.chance,
            };
            dispatch(sender, parts.state_dir.clone(), tasks);
        }
        let (jump, jumped) = watch::channel(0);
        let (clock, timetable) = (Arc::clone(&parts.clock), watch::Sender::new(parts.timetable));
        tasks.spawn("clock-watch", |stop| clock_jumps::run(clock, jump, stop));
        let (tidied, clock) = (Arc::clone(&state_file), Arc::clone(&parts.clock));
        tasks.spawn("state-file-checkpoint", |stop| tidy(tidied, clock, stop));
        Ok(Self {
            monitored,
            listened,
            configured,
            owned: parts.is_member.then(Mutex::default),
            pollers,
            viewers,
            inputs_sent: observations.sent(),
            gained_documents: observations.stored(),
            observations: Some(observations),
            timetable,
            state_file,
            stats,
            dispatched,
            event_delays,
            sink,
            location: format!("sqlite:{}", parts.file.display()),
            listeners: Vec::new(),
            tasks: tasks.clone(),
            finished: Arc::default(),
            left,
            instance,
            jumped,
            platforms: parts.platforms,
            token_changes: watch::Sender::default(),
        })
    }

    pub fn state_file(&self) -> &Arc<StateFile> {
        &self.state_file
    }

    /// Returns the name under which this process stores its totals.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Returns a function that returns the statistics of the documents in the file.
    pub fn store_stats(&self) -> Arc<dyn Fn() -> Stats + Send + Sync> {
        let stats = Arc::clone(&self.stats);
        Arc::new(move || stats.store())
    }

    /// Passes every observation to `observer`, for listeners that compare their events with what polls observe.
    pub fn add_observer(&self, observer: Observer) {
        if let Some(observations) = &self.observations {
            observations.add_observer(observer);
        }
    }

    /// Adds an observation from outside the daemon's own producers. Must be called before the pollers start.
    pub fn observe(&self, observation: Observation) {
        if let Some(observations) = &self.observations {
            observations.observe(observation);
        }
    }

    /// Returns the totals that `instance` had counted when it stopped, for listeners that count themselves.
    pub fn totals(&self, instance: &str) -> Vec<(SourceKey, Counters)> {
        self.restored(|source, known| Some((source, *known.counters.get(instance)?)))
    }

    /// Returns the sources whose link over `transport` an earlier run left open or failing when it was killed.
    pub fn left_open(&self, transport: Transport) -> BTreeSet<SourceKey> {
        // In a fleet, they may be those of another member.
        if self.owned.is_some() {
            return BTreeSet::new();
        }
        let open =
            self.restored(|source, known| open_links(known).any(|open| open == transport).then_some(source));
        let stored = self.left.iter().filter(|(open, _)| *open == transport);
        open.into_iter()
            .chain(stored.map(|(_, source)| source.clone()))
            .collect()
    }

    /// Returns the known stream evidence of `platform`'s sources from when an earlier run ended.
    pub fn streams(&self, platform: PlatformName) -> Vec<(SourceKey, StreamEvidence)> {
        self.restored(|source, known| {
            (source.platform() == platform).then(|| (source, known.evidence.stream.clone()))
        })
    }

    /// Selects from the state that was stored at the start; empty if that cannot be read.
    fn restored<T>(&self, wanted: impl Fn(SourceKey, &Knowledge) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        let monitored = self.monitored.all();
        let sources = monitored.values().flatten().map(|source| source.key.clone());
        let sources: Vec<SourceKey> = sources.collect();
        let shown = self.state_file.restore(&sources, |source, stored| {
            if let Ok(stored) = stored {
                found.extend(wanted(source, &stored.value.knowledge));
            }
        });
        shown.map_or_else(|_| Vec::new(), |()| found)
    }

    pub fn listen(&mut self, listening: ListenerTask) {
        let Some(observations) = self.observations.clone() else {
            return;
        };
        let context = ListenerContext {
            observations,
            monitored: self.listened.clone(),
            pollers: Arc::clone(&self.pollers),
            token_changes: self.token_changes.subscribe(),
            tasks: self.tasks.clone(),
        };
        self.listeners.push((listening.name.clone(), listening.report));
        self.tasks
            .spawn(listening.name, |stop| (listening.run)(context, stop));
    }

    /// Starts the pollers and their schedules. After this no listener can be added.
    pub fn run_schedules(&mut self) {
        self.run_pollers();
        let (timetable, jumped, pollers) = (
            self.timetable.subscribe(),
            self.jumped.clone(),
            Arc::clone(&self.pollers),
        );
        self.tasks
            .spawn("ticks", |stop| ticks::run(timetable, jumped, pollers, stop));
    }

    /// Starts only the pollers, for callers that provide their own ticks. After this no listener can be added.
    pub fn run_pollers(&mut self) {
        if let Some(observations) = self.observations.take() {
            self.pollers.start(&self.tasks, &observations);
        }
    }

    /// Runs every probe of the timetable once, then requests the stop.
    pub fn run_once(&mut self) {
        let Some(observations) = self.observations.take() else {
            return;
        };
        let probes: ProbeSet = self.timetable.borrow().keys().copied().collect();
        let (pollers, tasks) = (Arc::clone(&self.pollers), self.tasks.clone());
        let finished = Arc::clone(&self.finished);
        self.tasks.spawn_finite("once", |stop| async move {
            if pollers
                .probe_once(&probes, &observations, ONCE_TIMEOUT, &stop)
                .await
            {
                finished.store(true, Ordering::Relaxed);
            }
            tasks.request_stop();
        });
    }

    /// Returns whether [`Engine::run_once`] waited until every platform had finished.
    pub fn finished_once(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// Checks accounts whose tokens have changed, runs all probes of the sources that need them, and lets listeners retry what
    /// was refused.
    pub fn tokens_changed(&self, identities: &BTreeSet<Identity>) {
        let mut changed = BTreeSet::new();
        for platform in &self.platforms {
            let name = platform.name();
            let monitored = self.monitored.of(name);
            let of_platform = format!("{name}/");
            let mut needing = BTreeSet::new();
            for identity in identities {
                if identity.as_str().starts_with(&of_platform) {
                    changed.insert(name);
                    needing.extend(platform.needing(identity, &monitored));
                }
            }
            let needing: Vec<_> = needing.into_iter().collect();
            self.pollers.ask_now(&needing, &ProbeSet::from(Probe::ALL));
        }
        if changed.is_empty() {
            return;
        }
        info!(
            accounts = identities.len(),
            "Accounts are checked: their tokens were changed, or a reload was requested"
        );
        self.token_changes.send_modify(|changes| {
            for name in changed {
                *changes.entry(name).or_default() += 1;
            }
        });
    }

    /// Returns a function that reports whether the writer has made progress since its last call.
    pub fn progress_check(&self) -> impl Fn() -> bool + Send + use<> {
        let stats = Arc::clone(&self.stats);
        let seen = AtomicU64::new(0);
        move || {
            let turns = stats.turns.load(Ordering::Relaxed);
            seen.swap(turns, Ordering::Relaxed) != turns
        }
    }

    /// Counts the commits of documents and of what confirms them.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.stats.commits.subscribe()
    }

    /// Returns a function that returns the daemon's overview.
    pub fn view(&self) -> View {
        let sources = ViewOf {
            monitored: self.monitored.clone(),
            inputs_sent: Arc::clone(&self.inputs_sent),
            stats: Arc::clone(&self.stats),
            dispatched: Arc::clone(&self.dispatched),
            state_file: Arc::clone(&self.state_file),
            sink: self.sink.clone(),
            location: self.location.clone(),
            pollers: Arc::clone(&self.pollers),
            event_delays: Arc::clone(&self.event_delays),
            listeners: self.listeners.clone(),
        };
        Arc::new(move || sources.overview())
    }
}

/// Counts the delays of what is pushed.
fn count_delays(
    platforms: &[Arc<dyn Platform>],
    clock: &Arc<dyn Clock>,
    observations: &ObservationSender,
) -> Arc<EventDelays> {
    let platforms = platforms.iter().map(|platform| platform.name());
    let clock = CorrectedClock::new(Arc::clone(clock));
    let delays = Arc::new(EventDelays::new(platforms, clock));
    let counting = Arc::clone(&delays);
    observations.add_observer(Arc::new(move |observation| counting.observe(observation)));
    delays
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn cannot(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(ExitCode::Failed, "cannot start watching").because(error)
}

/// Starts what sends events, once no command sends any.
fn dispatch(dispatcher: Dispatcher, directory: PathBuf, tasks: &Tasks) {
    tasks.spawn("dispatcher", |stop| async move {
        SendingLock::wait_until_free(&directory).await;
        dispatcher.run(stop).await
    });
}

/// Periodically does work that would otherwise delay a commit.
async fn tidy(state_file: Arc<StateFile>, clock: Arc<dyn Clock>, stop: Stop) {
    /// How many turns pass between two looks for events of daemons that no longer run.
    const ADOPTION: u32 = 12;
    for turn in 0.. {
        let (own, now) = (Arc::clone(&state_file), clock.now());
        let tidied = blocking(move || {
            if own.has_sink() && turn % ADOPTION == 0 {
                own.adopt(now)?;
            }
            own.tidy()
        });
        if let Err(error) = tidied.await {
            debug!(
                error = &error as &dyn std::error::Error,
                "Cannot checkpoint the write-ahead log"
            );
        }
        if !stop.sleep(TIDY).await {
            return;
        }
    }
}

/// Makes observations have effects beside what is stored: a rejected token is checked at once, and viewers are kept for the pages.
fn observed(observations: &ObservationSender, pollers: &Arc<Pollers>) -> Arc<Mutex<Viewers>> {
    let suspicious = Arc::clone(pollers);
    observations.add_observer(Arc::new(move |observation| {
        if is_unauthorized(observation) {
            suspicious.check_tokens(observation.source.platform());
        }
    }));
    let viewers: Arc<Mutex<Viewers>> = Arc::default();
    let recent = Arc::clone(&viewers);
    observations.add_observer(Arc::new(move |observation| recent.lock().receive(observation)));
    viewers
}

/// Whether an observation indicates that an authorization may be revoked although it was not checked.
pub(super) fn is_unauthorized(observation: &Observation) -> bool {
    let (Fact::Connection {
        state: LinkState::Down { error } | LinkState::Refused { error },
        ..
    }
    | Fact::Unanswered { error, .. }
    | Fact::Problem { error }) = &*observation.fact
    else {
        return false;
    };
    let signs = |code: Code| code.is_of_token() || code == Code::Http(401);
    error.code.known().is_some_and(signs)
}
