//! The daemon put together from its ports: what `bitbrat watch` runs, whatever the adapters behind them.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::attended::{Attended, Attendee};
use super::dispatcher::{Dispatched, Dispatcher, Outlet};
use super::intake::{Intake, Observer};
use super::jumps;
use super::lanes::Lanes;
use super::ledger::{Ledger, LedgerError};
use super::listening::{Ears, Listening, Report};
use super::lock::StateLock;
use super::outlets::{ToBus, ToPersister};
use super::overview::{View, ViewOf};
use super::recorder::{Beat, Recorded, Recorder, Stuck};
use super::ticks::{self, Timetable};
use super::tracker::Tracker;
use crate::blocking::blocking;
use crate::bus::EventBus;
use crate::clock::{Chance, Clock};
use crate::core::counters::Counters;
use crate::core::evidence::{Knowledge, LinkNow};
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::resting::Resting;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::{Stop, Tasks};
use crate::persist::Persister;
use crate::platforms::{Platform, ProbeSet, ProbeSink as _};

/// What is not a transition leaves for the bus at most so often a second: BitBrat's own consumer loses floods.
pub const SPREAD: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// How often the logs of SQLite files are moved into them. Whoever commits would have to do it otherwise.
pub const TIDY: Duration = Duration::from_secs(5);

/// How long a store must have taken everything before it is said to be well again: longer than pauses between attempts.
const STORE_CALM: Duration = Duration::from_mins(1);

/// What the daemon is made of.
pub struct Parts {
    /// Where it keeps its memory. It must exist.
    pub state_dir: PathBuf,
    /// Name under which it counts; made up once when `None`.
    pub instance: Option<String>,
    /// Most events that its outbox keeps.
    pub outbox: usize,
    /// What it attends.
    pub sources: Vec<Attendee>,
    /// The platforms of these sources.
    pub platforms: Vec<Arc<dyn Platform>>,
    /// Where events go.
    pub route: Route,
    /// When each probe runs.
    pub timetable: Timetable,
    /// Each look starts up to this much later.
    pub jitter: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub chance: Chance,
}

/// Where events go.
pub enum Route {
    /// Straight to the persister of this process.
    Local {
        /// The persister. It should write what it is given without waiting for long, because we wait already.
        persister: Arc<Persister>,
        /// Where it stores, for people.
        location: String,
        /// How often a source without transitions is handed on.
        heartbeat: Duration,
    },
    /// Over a bus.
    Bus {
        /// The bus.
        bus: Arc<dyn EventBus>,
        /// How often a source without transitions is told of.
        heartbeat: Duration,
    },
}

/// A running daemon.
pub struct Engine {
    /// What it attends.
    pub attended: Attended,
    /// The lanes.
    pub lanes: Arc<Lanes>,
    intake: Option<Intake>,
    taken: Arc<AtomicU64>,
    timetable: watch::Sender<Timetable>,
    ledger: Arc<Ledger>,
    recorded: Arc<Recorded>,
    dispatched: Arc<Dispatched>,
    outlet: Arc<dyn Outlet>,
    listeners: Vec<(String, Report)>,
    tasks: Tasks,
    started_at: Timestamp,
    instance: String,
    jumped: watch::Receiver<u64>,
}

impl Engine {
    /// Starts everything but listeners and schedules. With `farewell`, the end of the daemon is told.
    pub fn start(parts: Parts, tasks: &Tasks, farewell: bool) -> Result<Self, Failure> {
        let cannot = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(ExitCode::Failed, "cannot start watching").because(error)
        };
        let lock = StateLock::take(&parts.state_dir).map_err(|error| {
            cannot(&error).hint("stop the other one, or give this one its own BITBRAT_STATE_DIR")
        })?;
        let (ledger, instance, tracker) = restore(&parts, lock).map_err(|error| cannot(&error))?;
        let recorded = Arc::new(Recorded::default());
        let dispatched = Arc::new(Dispatched::default());
        let attended = Attended::new(parts.sources);
        let live = Arc::clone(&recorded);
        let lanes = Lanes::new(
            &parts.platforms,
            attended.clone(),
            Arc::new(move || live.live()),
            parts.jitter,
            parts.chance.clone(),
        );
        let suspicious = Arc::clone(&lanes);
        let (intake, inputs) = Intake::new();
        intake.show_to(Arc::new(move |observation| {
            if looks_unauthorised(observation) {
                suspicious.suspect_authorisation(observation.source.platform());
            }
        }));
        let bell = Arc::new(Notify::new());
        let (closing, closed) = watch::channel(false);
        let (outlet, beat, pace) = pave(parts.route, &parts.clock, tasks);
        let writer = Recorder {
            tracker,
            ledger: Arc::clone(&ledger),
            inputs,
            beat,
            clock: Arc::clone(&parts.clock),
            bell: Arc::clone(&bell),
            closing,
            counts: Arc::clone(&recorded),
            farewell,
            stuck: Stuck::default(),
        };
        let sender = Dispatcher {
            ledger: Arc::clone(&ledger),
            outlet: Arc::clone(&outlet),
            pace,
            bell,
            closing: closed,
            counts: Arc::clone(&dispatched),
            chance: parts.chance,
        };
        tasks.spawn("recorder", |stop| writer.run(stop));
        tasks.spawn("dispatcher", |stop| sender.run(stop));
        let (jump, jumped) = watch::channel(0);
        let (clock, timetable) = (Arc::clone(&parts.clock), watch::Sender::new(parts.timetable));
        tasks.spawn("clock-watch", |stop| jumps::run(clock, jump, stop));
        let tidied = Arc::clone(&ledger);
        tasks.spawn("ledger-tidy", |stop| tidy(tidied, stop));
        Ok(Self {
            started_at: parts.clock.now(),
            attended,
            lanes,
            taken: intake.taken(),
            intake: Some(intake),
            timetable,
            ledger,
            recorded,
            dispatched,
            outlet,
            listeners: Vec::new(),
            tasks: tasks.clone(),
            instance,
            jumped,
        })
    }

    /// Returns the name under which this process counts.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Shows every observation to `observer`, for listeners that hold what they hear against what polls see.
    pub fn show(&self, observer: Observer) {
        if let Some(intake) = &self.intake {
            intake.show_to(observer);
        }
    }

    /// Takes in what somebody outside the daemon's own producers knows. After the lanes have started it is too late.
    pub fn observe(&self, observation: Observation) {
        if let Some(intake) = &self.intake {
            intake.observe(observation);
        }
    }

    /// Returns the totals that `writer` had counted when it stopped, for listeners that count by themselves.
    pub fn totals(&self, writer: &str) -> Vec<(SourceKey, Counters)> {
        self.restored(|source, known| Some((source, *known.counters.get(writer)?)))
    }

    /// Returns the sources whose link over `transport` an earlier run left open, or in trouble, when it was killed.
    pub fn left_open(&self, transport: Transport) -> BTreeSet<SourceKey> {
        let open = self.restored(|source, known| {
            let link = known.evidence.connection.get(&transport);
            link.is_some_and(|link| link.now() != LinkNow::Unattended)
                .then_some(source)
        });
        open.into_iter().collect()
    }

    /// What is wanted of what was known at the start; nothing where that cannot be read.
    fn restored<T>(&self, wanted: impl Fn(SourceKey, &Knowledge) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        let shown = self
            .ledger
            .restore(|source, known| found.extend(wanted(source, &known)));
        shown.map_or_else(|_| Vec::new(), |()| found)
    }

    /// Starts a listener.
    pub fn listen(&mut self, listening: Listening) {
        let Some(intake) = self.intake.clone() else { return };
        let ears = Ears {
            intake,
            attended: self.attended.clone(),
            lanes: Arc::clone(&self.lanes),
            tasks: self.tasks.clone(),
        };
        self.listeners.push((listening.name.clone(), listening.report));
        self.tasks
            .spawn(listening.name, |stop| (listening.run)(ears, stop));
    }

    /// Starts the lanes and their schedules. After this no listener can be added.
    pub fn run_schedules(&mut self) {
        self.run_lanes();
        let (timetable, jumped, lanes) = (
            self.timetable.subscribe(),
            self.jumped.clone(),
            Arc::clone(&self.lanes),
        );
        self.tasks
            .spawn("ticks", |stop| ticks::run(timetable, jumped, lanes, stop));
    }

    /// Starts the lanes alone, for those who bring their own ticks. After this no listener can be added.
    pub fn run_lanes(&mut self) {
        if let Some(intake) = self.intake.take() {
            self.lanes.start(&self.tasks, &intake);
        }
    }

    /// Looks once for everything on the timetable, then asks for the end.
    pub fn run_once(&mut self) {
        let Some(intake) = self.intake.take() else { return };
        let probes: ProbeSet = self.timetable.borrow().keys().copied().collect();
        let (lanes, tasks) = (Arc::clone(&self.lanes), self.tasks.clone());
        self.tasks.spawn_brief("once", |stop| async move {
            lanes.look_once(&probes, &intake, &stop).await;
            tasks.request_stop();
        });
    }

    /// Takes over changed sources and schedules.
    pub fn reconfigure(&self, sources: Vec<Attendee>, timetable: Timetable) {
        let probes: ProbeSet = timetable.keys().copied().collect();
        let rescheduled = self.timetable.send_if_modified(|now| {
            let differs = *now != timetable;
            if differs {
                *now = timetable;
            }
            differs
        });
        if self.attended.set(sources) && !rescheduled {
            self.lanes.ask(&probes);
        }
    }

    /// Returns what tells whether the daemon's heart has moved since it was last asked.
    pub fn pulse(&self) -> impl Fn() -> bool + Send + use<> {
        let recorded = Arc::clone(&self.recorded);
        let seen = AtomicU64::new(0);
        move || {
            let beats = recorded.beats.load(Ordering::Relaxed);
            seen.swap(beats, Ordering::Relaxed) != beats
        }
    }

    /// Returns what tells how the daemon is.
    pub fn view(&self) -> View {
        let sources = ViewOf {
            started_at: self.started_at,
            instance: self.instance.clone(),
            attended: self.attended.clone(),
            taken: Arc::clone(&self.taken),
            recorded: Arc::clone(&self.recorded),
            dispatched: Arc::clone(&self.dispatched),
            ledger: Arc::clone(&self.ledger),
            outlet: Arc::clone(&self.outlet),
            lanes: Arc::clone(&self.lanes),
            listeners: self.listeners.clone(),
        };
        Arc::new(move || sources.overview())
    }
}

/// Opens the memory on disk and restores what was known.
fn restore(parts: &Parts, lock: StateLock) -> Result<(Arc<Ledger>, String, Tracker), LedgerError> {
    let ledger = Ledger::open(&parts.state_dir, parts.outbox)?.holding(lock);
    let instance = match &parts.instance {
        Some(name) => name.clone(),
        None => ledger.note_or("instance", || format!("watch-{}", uuid::Uuid::new_v4().simple()))?,
    };
    let mut tracker = Tracker::new(&instance);
    ledger.restore(|source, known| tracker.restore(source, known))?;
    Ok((Arc::new(ledger), instance, tracker))
}

/// Does now and then what would otherwise hold up a commit.
async fn tidy(ledger: Arc<Ledger>, stop: Stop) {
    while stop.sleep(TIDY).await {
        let ledger = Arc::clone(&ledger);
        if let Err(error) = blocking(move || ledger.tidy()).await {
            debug!(
                error = &error as &dyn std::error::Error,
                "The log of the state directory stays long"
            );
        }
    }
}

/// Makes the road that events and other news take.
fn pave(route: Route, clock: &Arc<dyn Clock>, tasks: &Tasks) -> (Arc<dyn Outlet>, Beat, Option<NonZeroU32>) {
    let period = |heartbeat: Duration| i64::try_from(heartbeat.as_millis()).unwrap_or(i64::MAX);
    match route {
        Route::Local {
            persister,
            location,
            heartbeat,
        } => {
            // One batch is under way at a time: while the store is slow, news gather where they are smallest.
            let (keeper, batches) = mpsc::channel(1);
            let keeping = Arc::clone(&persister);
            tasks.spawn("keeper", |stop| keep(keeping, batches, stop));
            let outlet = ToPersister {
                persister,
                location,
                clock: Arc::clone(clock),
            };
            let period = period(heartbeat);
            (Arc::new(outlet), Beat::Keep { period, keeper }, None)
        }
        Route::Bus { bus, heartbeat } => {
            let period = period(heartbeat);
            (Arc::new(ToBus(bus)), Beat::Publish { period }, Some(SPREAD))
        }
    }
}

/// Whether an observation says that an authorisation may be gone although nobody checked it.
pub(super) fn looks_unauthorised(observation: &Observation) -> bool {
    let (Fact::Connection {
        state: LinkState::Down { error } | LinkState::Refused { error },
        ..
    }
    | Fact::Unanswered { error, .. }
    | Fact::Problem { error }) = &observation.fact
    else {
        return false;
    };
    ["unauthorized", "unauthorised", "http.401", "token"]
        .iter()
        .any(|sign| error.code.contains(sign))
}

/// Hands news to the persister, and lets it do what it had put off.
async fn keep(persister: Arc<Persister>, mut batches: mpsc::Receiver<Vec<(SourceKey, Resting)>>, stop: Stop) {
    /// Handed over together. Awake, a source's knowledge takes ten times the room; and a change that comes meanwhile waits
    /// until these are stored.
    const TOGETHER: usize = 100;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut failed = None;
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => match batch {
                Some(batch) => batch,
                None => break,
            },
            _ = second.tick() => {
                failed = report(&persister.tick().await, failed);
                continue;
            }
        };
        for part in batch.chunks(TOGETHER) {
            let awake = part
                .iter()
                .map(|(source, known)| (source.clone(), known.knowledge()));
            failed = report(&persister.apply(awake).await, failed);
        }
    }
    // The recorder is gone; what the dispatcher still brings are transitions, which are written at once.
    stop.requested().await;
    report(&persister.flush().await, failed);
}

/// Says that a store begins to refuse and that it has stopped refusing for a while: once each, and not with every attempt.
/// `failed` is when it last did; returns that anew.
fn report(applied: &crate::persist::Applied, failed: Option<Instant>) -> Option<Instant> {
    let Some((source, error)) = applied.failures.first() else {
        let over = failed.is_some_and(|last| last.elapsed() > STORE_CALM);
        if over {
            info!("The store takes everything again");
        }
        return failed.filter(|_| !over);
    };
    if failed.is_none() {
        warn!(
            source.key = %source, failed = applied.failures.len(), error = error as &dyn std::error::Error,
            "The store did not take everything; it is tried again until it does"
        );
    }
    Some(Instant::now())
}

/// Says which platforms a set of sources needs.
pub fn platforms_of(sources: &[Attendee]) -> Vec<PlatformName> {
    let mut platforms: Vec<PlatformName> = sources.iter().map(|source| source.key.platform()).collect();
    platforms.sort_unstable();
    platforms.dedup();
    platforms
}
