//! Assembles `watch`: which parts a role needs, from which adapters, and in which order they start.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use axum::Router;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tracing::info;

use self::alerts::Alerts;
use self::reload::{Current, InForce, Reload, current};
use super::volume::{Meters, StoreStats};
use super::{App, StoreAccess, clock_error, invites};
use crate::bus::EventBus;
use crate::config;
use crate::core::number::count;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::{Lifecycle, Tasks, announce_ready};
use crate::persist::{Persister, overview};
use crate::store::SourceStore;
use crate::telemetry::{Bars, names};
use crate::traffic::Recording;
use crate::view::reading::ConfiguredNow;
use crate::watch::account_checks::TokenWatch;
use crate::watch::engine::Engine;
use crate::watch::fleet::FleetMember;
use crate::watch::monitored::MonitoredSources;
use crate::watch::runs;
use crate::watch::viewers::Viewers;
use crate::web::{self, Measured, Stored, Web};

mod alerts;
mod expiry_watch;
mod first_checks;
mod fleet;
mod monitor;
mod recording;
mod registration;
mod reload;
mod remote_documents;
mod store_watch;
mod storing;
mod token_watch;

/// A part of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Probe, listen and publish
    Ingest,
    /// Store events from the bus
    Persist,
    /// Serve pages
    Web,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Persist, Self::Web];
}

/// Decides the exit code of a run from what is stored in its end.
pub type Judge = Box<dyn Fn(&App, Vec<Arc<SourceSummary>>) -> ExitCode + Send + Sync>;

pub struct Plan {
    pub roles: BTreeSet<Role>,
    /// Whether every source is probed once before the daemon exits.
    pub once: bool,
    /// Computes the exit code after a single round, as `sources status` does.
    pub judge: Judge,
    /// Reads the configuration again.
    pub reload: Reload,
    /// The log, whose lines for people are merged while the daemon runs.
    pub logs: Bars,
    /// Where the traffic with platforms is recorded.
    pub recording: Option<Recording>,
}

/// Returns what was stored and what is stored.
type Figures = Arc<dyn Fn() -> Stored + Send + Sync>;

/// Why a process is not ready, as one of its parts reports it.
type Reason = Arc<dyn Fn() -> Option<String> + Send + Sync>;

struct Started {
    /// Holds the lock of the state directory, so it is kept until the end.
    engine: Option<Arc<Engine>>,
    /// Statistics of the stored documents, where this process stores any.
    store_stats: Option<StoreStats>,
    bus: Option<Arc<dyn EventBus>>,
}

/// Runs the daemon until it is stopped.
pub async fn run(app: Arc<App>, plan: Plan, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let (tasks, reloads) = (lifecycle.tasks(), lifecycle.reloads());
    let grace = app.settings.watch.grace;
    let started_at = app.clock.now();
    let logs = plan.logs.clone();
    tasks.spawn("log-lines", |stop| async move { logs.merge_lines(stop).await });
    let (once, judge) = (plan.once, plan.judge);
    let mut plan = Plan {
        judge: Box::new(|_, _| ExitCode::Healthy),
        ..plan
    };
    let recording = plan.recording.take();
    let started = match lifecycle
        .starting(start(&app, plan, recording, &tasks, reloads))
        .await
    {
        Some(started) => Some(started?),
        None => None,
    };
    let mut exit = lifecycle.run(grace).await;
    if once
        && let Some(started) = &started
        && matches!(exit, Ok(ExitCode::Healthy))
    {
        exit = after_one_round(&app, started, &*judge).await;
    }
    let stats = started.as_ref().and_then(|started| started.store_stats.as_ref());
    let stats = stats.map(|stats| stats());
    let stats = stats.as_ref();
    info!(
        name: names::STOPPED,
        ran_s = app.clock.now().since(started_at).as_secs(),
        clean = exit.is_ok(),
        writes = stats.map(|stats| stats.writes),
        reads = stats.map(|stats| stats.reads),
        conflicts = stats.map(|stats| stats.conflicts),
        failures = stats.map(|stats| stats.failures),
        writes_per_day = stats.and_then(|stats| stats.writes_per_day(app.clock.now())),
        "Stopped"
    );
    // Acknowledgements and events that no other task handles any more may be pending: unsent, the next process would receive them
    // late.
    if let Some(bus) = started.as_ref().and_then(|started| started.bus.as_ref()) {
        bus.close().await;
    }
    drop(started);
    exit
}

/// Returns the exit code of a single round: that of the sources as they are stored now, and at least that of a source that is
/// down when a platform was not waited for. A process that does not store documents has no data about the sources.
async fn after_one_round(
    app: &App,
    started: &Started,
    judge: &(dyn Fn(&App, Vec<Arc<SourceSummary>>) -> ExitCode + Send + Sync),
) -> Result<ExitCode, Failure> {
    let finished = started
        .engine
        .as_ref()
        .is_none_or(|engine| engine.finished_once());
    let at_least = if finished {
        ExitCode::Healthy
    } else {
        ExitCode::Down
    };
    if started.store_stats.is_none() {
        return Ok(at_least);
    }
    let stored = app.store(StoreAccess::Read).await?.summaries().await?;
    let summaries: Vec<_> = stored
        .into_iter()
        .filter_map(|stored| stored.document.ok())
        .collect();
    if let Some(engine) = &started.engine {
        let monitored = engine.monitored.all();
        let monitored: HashSet<&SourceKey> = monitored.values().flatten().map(|source| &source.key).collect();
        first_checks::summarize(
            monitored.len(),
            summaries
                .iter()
                .map(Arc::as_ref)
                .filter(|summary| monitored.contains(&summary.key)),
        );
    }
    Ok(judge(app, summaries).worse(at_least))
}

/// Returns what the service manager shows as the state of the daemon.
fn watching(sources: usize) -> String {
    format!("watching {}", count(sources as u64, "source"))
}

async fn start(
    app: &Arc<App>,
    plan: Plan,
    recording: Option<Recording>,
    tasks: &Tasks,
    reloads: tokio::sync::watch::Receiver<u64>,
) -> Result<Started, Failure> {
    let has = |role| plan.roles.contains(&role);
    let in_force = Current::new(Arc::clone(app).into());
    let bus = app.bus().await?;
    if bus.is_none() {
        of_one_process(&plan)?;
    }
    let listener = listen(app, &plan).await?;
    let store = app.store(StoreAccess::Write).await?;
    let web = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let Working {
        mut engine,
        member,
        routes,
        storing,
        store_stats,
        mut reasons,
    } = work(
        app,
        &plan,
        bus.as_ref(),
        &store,
        listener.is_some(),
        recording,
        tasks,
    )
    .await?;
    reasons.push(store_watch::start(&store, store_stats.clone(), tasks));
    let unusable = store_watch::maintain(&store, store_stats.is_some() && !plan.once, tasks);
    let expiries = expiry_watch::start(app, tasks, has(Role::Ingest) && !plan.once);
    let alerts = engine
        .as_ref()
        .filter(|_| !plan.once)
        .map(|engine| Alerts::start(app, engine, &expiries, tasks));
    if let Some(listener) = listener {
        let routes = routes.merge(invites::callback::router(Arc::clone(app)));
        let pages = Web {
            store: Arc::clone(&store),
            view: engine.as_ref().map(Engine::view),
            stored: figures(&in_force, store_stats.clone(), unusable),
            storing,
            expiries,
            unready: Arc::new(move || reasons.iter().filter_map(|reason| reason()).collect()),
            clock: Arc::clone(&app.clock),
            started_at: app.clock.now(),
            token: app.settings.web.token.clone(),
            configured: configured(&in_force),
            problems: alerts
                .as_ref()
                .map_or_else(|| Arc::new(Vec::new) as _, Alerts::problems),
            events: has(Role::Ingest).then(|| app.state_file_path()),
            commits: engine.as_ref().map(Engine::commits),
            viewers: viewers_of(engine.as_ref()),
            instance: engine.as_ref().map_or("bitbrat", Engine::instance).to_owned(),
            runs: app.settings.state_dir.clone(),
            agents: app.agent_options(),
            measured: measured(app, &in_force),
            settings: config::shown(&(plan.reload)()),
        };
        tasks.spawn("web", |stop| web::serve(listener, pages, routes, stop));
        registration::start(app, bus.as_ref(), web, tasks);
    }
    keep_state_files(app, tasks, has(Role::Ingest) && !plan.once);
    // Before the first probe: a token that is changed from then on may have been read already.
    let token_watch = TokenWatch::start(Arc::clone(app.tokens())).await;
    if let Some(engine) = &mut engine {
        run_pollers(app, engine, tasks, plan.once, member.is_none());
    }
    log_start(
        app,
        &plan,
        engine.as_ref(),
        store.as_ref(),
        web,
        store_stats.is_some(),
    );
    Meters {
        view: engine.as_ref().map(Engine::view),
        stored: store_stats.clone(),
        heartbeat: bus.as_ref().map(|_| app.settings.bus.heartbeat),
    }
    .warn_daily(tasks);
    let engine = engine.map(Arc::new);
    if let (Some(member), Some(engine)) = (member, &engine) {
        fleet::start(member, app, engine, &store, tasks);
    }
    announce(tasks, engine.as_deref());
    if let Some(engine) = engine.clone().filter(|_| !plan.once) {
        let app = in_force;
        let in_force = InForce { app, alerts };
        follow_changes(tasks, &engine, token_watch, in_force, reloads, plan.reload);
    }
    Ok(Started {
        engine,
        store_stats,
        bus,
    })
}

/// What works in a daemon, by its roles.
#[derive(Default)]
struct Working {
    engine: Option<Engine>,
    /// The daemon as a member of a fleet.
    member: Option<FleetMember>,
    /// Routes that listeners need.
    routes: Router,
    /// What the persister has stored.
    storing: Option<overview::View>,
    store_stats: Option<StoreStats>,
    reasons: Vec<Reason>,
}

/// Starts what monitors, and what stores what the bus delivers. `served` says whether pages are served.
async fn work(
    app: &Arc<App>,
    plan: &Plan,
    bus: Option<&Arc<dyn EventBus>>,
    store: &Arc<dyn SourceStore>,
    served: bool,
    recording: Option<Recording>,
    tasks: &Tasks,
) -> Result<Working, Failure> {
    let mut working = Working::default();
    if plan.roles.contains(&Role::Ingest) {
        let monitoring = monitor::start(app, bus, store, tasks, plan, served, recording).await?;
        working
            .reasons
            .extend(monitoring.member.as_ref().map(fleet::reason));
        working.engine = Some(monitoring.engine);
        working.store_stats = monitoring.store_stats;
        working.routes = monitoring.routes;
        working.member = monitoring.member;
    }
    if let Some(bus) = bus.filter(|_| plan.roles.contains(&Role::Persist)) {
        let (own, reason) = storing::start(app, bus, store, tasks)?;
        working.reasons.push(reason);
        working.store_stats = Some(with_persister(working.store_stats.take(), &own.persister));
        working.storing = Some(Arc::new(move || own.overview()));
    }
    Ok(working)
}

/// Opens the address of the pages, if this daemon serves any.
async fn listen(app: &App, plan: &Plan) -> Result<Option<TcpListener>, Failure> {
    let serves = plan.roles.contains(&Role::Web) && !plan.once;
    match app.settings.web.listen.filter(|_| serves) {
        Some(address) => web::bind(address).await.map(Some),
        None => Ok(None),
    }
}

/// Logs what the daemon works on.
fn log_start(
    app: &App,
    plan: &Plan,
    engine: Option<&Engine>,
    store: &dyn SourceStore,
    web: Option<std::net::SocketAddr>,
    stores: bool,
) {
    let count = engine.map_or(0, |engine| engine.monitored.count());
    info!(
        name: names::WATCHING,
        store = store.location(), bus = %app.settings.bus.target, sources = count,
        platforms = engine.map(|engine| by_platform(&engine.monitored)), roles = named(&plan.roles),
        web = web.map(|address| format!("http://{address}/")),
        writes_per_day_expected = stores.then(|| app.expected_writes(count)).flatten(),
        "Watching"
    );
}

/// Notifies the service manager that everything is started.
fn announce(tasks: &Tasks, engine: Option<&Engine>) {
    let count = engine.map_or(0, |engine| engine.monitored.count());
    let progress_check = engine.map(Engine::progress_check);
    announce_ready(tasks, &watching(count), move || {
        progress_check.as_ref().is_none_or(|turns| turns())
    });
}

/// Returns the failure of roles that only a bus connects.
fn of_one_process(plan: &Plan) -> Result<(), Failure> {
    if plan.roles.contains(&Role::Ingest) == plan.roles.contains(&Role::Persist) {
        return Ok(());
    }
    let what = "with the local bus, what is seen and what is stored belong to one process";
    Err(Failure::new(ExitCode::Usage, what)
        .hint("run both roles, ingest and persist, or set bus.url to nats:// or pubsub:"))
}

fn viewers_of(engine: Option<&Engine>) -> Arc<Mutex<Viewers>> {
    engine
        .map(|engine| Arc::clone(&engine.viewers))
        .unwrap_or_default()
}

/// Starts what reacts to changed tokens and a changed configuration.
fn follow_changes(
    tasks: &Tasks,
    engine: &Arc<Engine>,
    token_watch: TokenWatch,
    in_force: InForce,
    reloads: tokio::sync::watch::Receiver<u64>,
    reload: Reload,
) {
    let (own, changes) = (Arc::clone(engine), reloads.clone());
    tasks.spawn("token-watch", |stop| {
        token_watch::run(own, token_watch, changes, stop)
    });
    let engine = Arc::clone(engine);
    tasks.spawn("configuration", |stop| async move {
        tokio::select! {
            () = reload::follow(&in_force, &engine, reloads, reload) => {}
            () = stop.requested() => {}
        }
    });
}

/// Keeps the files of the state directory that other processes read: the error of the clock, and when daemons ran.
fn keep_state_files(app: &App, tasks: &Tasks, monitors: bool) {
    let directory = &app.settings.state_dir;
    if app.demo.is_none() {
        let (directory, clock) = (directory.clone(), Arc::clone(&app.machine_clock));
        tasks.spawn("clock-error", |stop| clock_error::run(directory, clock, stop));
    }
    if monitors {
        let (directory, clock) = (directory.clone(), Arc::clone(&app.clock));
        tasks.spawn("runs", |stop| runs::record(directory, clock, stop));
    }
}

/// Starts the pollers, with their schedules or for a single round.
fn run_pollers(app: &App, engine: &mut Engine, tasks: &Tasks, once: bool, is_alone: bool) {
    if once {
        engine.run_once();
    } else {
        if is_alone {
            first_checks::follow(engine, tasks, app.settings.schedule.jitter);
        }
        engine.run_schedules();
    }
}

fn named(roles: &BTreeSet<Role>) -> String {
    let names = roles.iter().filter_map(clap::ValueEnum::to_possible_value);
    let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
    names.join(", ")
}

/// Returns how many sources there are on which platforms, for people.
fn by_platform(monitored: &MonitoredSources) -> String {
    let counts = monitored.all();
    let counts = counts.iter().map(|(platform, sources)| {
        let title = platform.rules().title;
        format!("{} on {title}", sources.len())
    });
    counts.collect::<Vec<_>>().join(", ")
}

/// Adds the statistics of a persister to those of the writer, where it stores, too.
fn with_persister(of_writer: Option<StoreStats>, persister: &Arc<Persister>) -> StoreStats {
    let of_persister = stats_of(persister);
    match of_writer {
        Some(of_writer) => Arc::new(move || of_writer().plus(&of_persister())),
        None => of_persister,
    }
}

fn stats_of(persister: &Arc<Persister>) -> StoreStats {
    let persister = Arc::clone(persister);
    Arc::new(move || persister.stats())
}

/// Returns a function that returns the configured sources, and how often each thing about them is checked.
fn configured(app: &Current) -> ConfiguredNow {
    let app = Arc::clone(app);
    Arc::new(move || current(&app).configured())
}

fn measured(app: &App, in_force: &Current) -> Measured {
    let in_force = Arc::clone(in_force);
    let times = |platform| (platform, app.platforms.request_times(platform));
    Measured {
        intervals: Arc::new(move || current(&in_force).checked_every()),
        request_times: PlatformName::ALL.map(times).to_vec(),
        source_series: app.settings.web.source_metrics,
    }
}

/// Returns a function that reports the statistics of the stored documents next to the prediction.
fn figures(
    app: &Current,
    stats: Option<StoreStats>,
    unusable: store_watch::UnusableCount,
) -> Option<Figures> {
    let (app, stats) = (Arc::clone(app), stats?);
    Some(Arc::new(move || {
        let app = current(&app);
        Stored {
            stats: stats(),
            expected_per_day: app.expected_writes(app.settings.sources.len()),
            unusable: *unusable.lock(),
        }
    }))
}
