//! `watch` put together: which parts a role needs, from which adapters, in which order they start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use tracing::{debug, info, warn};

use super::names::Names;
use super::volume::Meters;
use super::{Access, App};
use crate::bus::EventBus;
use crate::bus::mutating::MutatingBus;
use crate::bus::nats::{NatsBus, NatsOptions};
use crate::bus::pubsub::{PubsubBus, PubsubOptions};
use crate::config::{BusTarget, Configuration, SourceAddress};
use crate::core::document::SourceDocument;
use crate::core::event::chat::Direction;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::{Lifecycle, Tasks, announce_ready};
use crate::persist::chat::{self, ChatCounter, Roster, Tally};
use crate::persist::consumer::{Consumer, Counts};
use crate::persist::economy::Economy;
use crate::persist::{Persister, overview};
use crate::platforms::Platform;
use crate::store::{HistoryEntry, SourceStore};
use crate::watch::attended::Attendee;
use crate::watch::engine::{Engine, Parts, Route, TIDY};
use crate::web::{self, Render, Stored, Web};

/// How often names that could not be resolved are asked for again.
const ASK_AGAIN: Duration = Duration::from_mins(5);

/// How often the store is asked whether it answers, and how long it may take.
const STORE_EVERY: Duration = Duration::from_secs(30);
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// A part of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Look, listen, and tell
    Ingest,
    /// Store what is told
    Persist,
    /// Serve pages
    Web,
}

impl Role {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Persist, Self::Web];
}

/// What is to run.
pub struct Plan {
    /// The parts.
    pub roles: BTreeSet<Role>,
    /// Whether everything is looked at once and then ended.
    pub once: bool,
    /// Writes a list of sources for the API, by the configuration in force.
    pub list: Write<Vec<Arc<SourceSummary>>>,
    /// Writes one source for the API.
    pub one: Write<(SourceDocument, Vec<HistoryEntry>)>,
    /// Reads the configuration again.
    pub reload: Box<dyn Fn() -> Configuration + Send + Sync>,
}

/// Writes something as JSON, by the configuration in force.
pub type Write<T> = Box<dyn Fn(&App, T) -> serde_json::Value + Send + Sync>;

/// The configuration in force: a SIGHUP replaces it.
type Current = Arc<std::sync::RwLock<Arc<App>>>;

fn current(app: &Current) -> Arc<App> {
    Arc::clone(&app.read().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn render<T: 'static>(app: &Current, write: Write<T>) -> Render<T> {
    let app = Arc::clone(app);
    Arc::new(move |value| write(&current(&app), value))
}

/// Why a process is not ready, as far as one part knows.
type Reason = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What runs once everything is started.
struct Started {
    /// It keeps the lock of the state directory, so it is held to the very end.
    _engine: Option<Arc<Engine>>,
    persister: Option<Arc<Persister>>,
    bus: Option<Arc<dyn EventBus>>,
}

/// Runs the daemon until it is stopped.
pub async fn run(app: Arc<App>, plan: Plan, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let (tasks, reloads) = (lifecycle.tasks(), lifecycle.reloads());
    let grace = app.settings.watch.grace;
    let started = match lifecycle.starting(start(&app, plan, &tasks, reloads)).await {
        Some(started) => Some(started?),
        None => None,
    };
    let exit = lifecycle.run(grace).await;
    if let Some(persister) = started.as_ref().and_then(|started| started.persister.as_ref()) {
        let stats = persister.stats();
        info!(
            writes = stats.writes,
            reads = stats.reads,
            conflicts = stats.conflicts,
            failures = stats.failures,
            writes_per_day = stats.writes_per_day(app.clock.now()),
            "Stopped"
        );
    }
    // Acknowledgements are underway, and what nobody looked at any more: unsent, it would reach the next process late.
    if let Some(bus) = started.as_ref().and_then(|started| started.bus.as_ref()) {
        bus.close().await;
    }
    drop(started);
    exit
}

async fn start(
    app: &Arc<App>,
    plan: Plan,
    tasks: &Tasks,
    reloads: tokio::sync::watch::Receiver<u64>,
) -> Result<Started, Failure> {
    let has = |role| plan.roles.contains(&role);
    let in_force = Current::new(Arc::clone(app).into());
    let bus = app.bus().await?;
    if bus.is_none() && has(Role::Ingest) != has(Role::Persist) {
        let what = "with the local bus, what is seen and what is stored belong to one process";
        return Err(Failure::new(ExitCode::Usage, what)
            .hint("run both roles, ingest and persist, or set bus.url to nats:// or pubsub:"));
    }
    let listener = match app.settings.web.listen.filter(|_| has(Role::Web) && !plan.once) {
        Some(address) => Some(web::bind(address).await?),
        None => None,
    };
    let store = app.store(Access::Write).await?;
    let mut reasons: Vec<Reason> = Vec::new();
    let mut extra = Router::new();
    let mut view = None;
    let mut engine = None;
    let mut storing: Option<overview::View> = None;
    let mut persister = None;
    if has(Role::Ingest) {
        let (mut started, own) = ingest(app, bus.as_ref(), &store, tasks, &plan).await?;
        // A single round of looks is over before a listener could tell anything.
        if !plan.once {
            extra = super::listeners::start(app, &mut started, listener.is_some()).await?;
        }
        view = Some(started.view());
        engine = Some(started);
        persister = own;
    }
    if let Some(bus) = bus.as_ref().filter(|_| has(Role::Persist)) {
        let (own, reason) = persist(app, bus, &store, tasks)?;
        reasons.push(reason);
        persister = Some(Arc::clone(&own.persister));
        storing = Some(Arc::new(move || own.overview()));
    }
    reasons.push(watch_store(&store, persister.clone(), tasks));
    let tidied = Arc::clone(&store);
    tasks.spawn("store-tidy", |stop| async move {
        while stop.sleep(TIDY).await {
            if let Err(error) = tidied.tidy().await {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "The store could not be tidied"
                );
            }
        }
    });
    if let Some(listener) = listener {
        let pages = Web {
            store: Arc::clone(&store),
            view,
            stored: persister.clone().map(|persister| figures(&in_force, persister)),
            storing,
            unready: Arc::new(move || reasons.iter().filter_map(|reason| reason()).collect()),
            clock: Arc::clone(&app.clock),
            started_at: app.clock.now(),
            token: app.settings.web.token.clone(),
            list: render(&in_force, plan.list),
            one: render(&in_force, plan.one),
        };
        tasks.spawn("web", |stop| web::serve(listener, pages, extra, stop));
    }
    if let Some(engine) = &mut engine {
        if plan.once {
            engine.run_once();
        } else {
            engine.run_schedules();
        }
    }
    let count = engine.as_ref().map_or(0, |engine| engine.attended.count());
    let expected = persister.as_ref().map(|_| app.expected_day(count).writes());
    info!(
        store = store.location(), bus = %app.settings.bus.target, sources = count, writes_per_day_expected = expected,
        "Watching"
    );
    let meters = Meters {
        view: engine.as_ref().map(Engine::view),
        persister: persister.clone(),
        heartbeat: bus.as_ref().map(|_| app.settings.bus.heartbeat),
    };
    meters.tell_daily(tasks);
    let engine = engine.map(Arc::new);
    let pulse = engine.as_ref().map(|engine| engine.pulse());
    announce_ready(tasks, &format!("watching {count} sources"), move || {
        pulse.as_ref().is_none_or(|beats| beats())
    });
    if let Some(engine) = engine.clone().filter(|_| !plan.once) {
        tasks.spawn("configuration", |stop| async move {
            tokio::select! {
                () = follow_configuration(&in_force, &engine, reloads, plan.reload) => {}
                () = stop.requested() => {}
            }
        });
    }
    Ok(Started {
        _engine: engine,
        persister,
        bus,
    })
}

/// Starts what looks, listens and tells.
async fn ingest(
    app: &Arc<App>,
    bus: Option<&Arc<dyn EventBus>>,
    store: &Arc<dyn SourceStore>,
    tasks: &Tasks,
    plan: &Plan,
) -> Result<(Engine, Option<Arc<Persister>>), Failure> {
    if app.settings.sources.is_empty() {
        return Err(Failure::new(ExitCode::Configuration, "no source is configured")
            .hint("add one with [[source]] to bitbrat.toml (`bitbrat config init` writes one), or try `bitbrat --demo watch`"));
    }
    let platforms = app.platforms().await?;
    let sources = attendees(app, &platforms).await?;
    let settings = &app.settings;
    let mut own = None;
    let route = match bus {
        Some(bus) => Route::Bus {
            bus: if settings.bus.state_mutations {
                Arc::new(MutatingBus(Arc::clone(bus)))
            } else {
                Arc::clone(bus)
            },
            heartbeat: settings.bus.heartbeat,
        },
        None => {
            // News wait once, where they are smallest, and not a second time in the persister.
            let persister = Arc::new(Persister::new(
                Arc::clone(store),
                Arc::clone(&app.clock),
                Economy::every(settings.store.heartbeat / 2),
                app.chance.clone(),
            ));
            own = Some(Arc::clone(&persister));
            Route::Local {
                persister,
                location: store.location(),
                heartbeat: settings.store.heartbeat,
            }
        }
    };
    crate::files::make_private_dir(&settings.state_dir).map_err(|error| {
        let what = format!("cannot make the state directory {}", settings.state_dir.display());
        Failure::new(ExitCode::Failed, what).because(&error)
    })?;
    let parts = Parts {
        state_dir: settings.state_dir.clone(),
        instance: settings.watch.instance.clone(),
        outbox: settings.watch.outbox,
        sources,
        platforms,
        route,
        timetable: settings.schedule.cron.clone(),
        jitter: settings.schedule.jitter,
        clock: Arc::clone(&app.clock),
        chance: app.chance.clone(),
    };
    // Whoever looks once kept nothing connected, so nothing is said to end.
    Ok((Engine::start(parts, tasks, !plan.once)?, own))
}

/// Starts what stores what the bus tells, and what counts the chat on it.
fn persist(
    app: &Arc<App>,
    bus: &Arc<dyn EventBus>,
    store: &Arc<dyn SourceStore>,
    tasks: &Tasks,
) -> Result<(overview::ViewOf, Reason), Failure> {
    let persister = Arc::new(app.persister(Arc::clone(store)));
    let counts = Arc::new(Counts::default());
    let roster = Arc::new(Roster::default());
    let learning = Arc::clone(&roster);
    let consumer = Consumer {
        bus: Arc::clone(bus),
        persister: Arc::clone(&persister),
        clock: Arc::clone(&app.clock),
        chance: app.chance.clone(),
        counts: Arc::clone(&counts),
        coalesce: true,
        listener: Some(Arc::new(move |source, knowledge| {
            learning.learn(source, knowledge);
        })),
    };
    let cannot = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(ExitCode::Failed, "cannot open the tally of chat messages").because(error)
    };
    let directory = &app.settings.state_dir;
    crate::files::make_private_dir(directory).map_err(|error| cannot(&error))?;
    let tally = Arc::new(Tally::open(&directory.join("chat.db")).map_err(|error| cannot(&error))?);
    let chat = ChatCounter {
        bus: Arc::clone(bus),
        persister: Arc::clone(&persister),
        store: Arc::clone(store),
        tally: Arc::clone(&tally),
        writer: chat_writer(app),
        roster,
        clock: Arc::clone(&app.clock),
        chance: app.chance.clone(),
        counts: Arc::new(chat::Counts::default()),
        elsewhere: counted_elsewhere(app),
    };
    let own = overview::ViewOf {
        counts: Arc::clone(&counts),
        persister,
        chat: Arc::clone(&chat.counts),
        tally,
        clock: Arc::clone(&app.clock),
    };
    tasks.spawn("persister", |stop| consumer.run(stop));
    tasks.spawn("chat-counter", |stop| chat.run(stop));
    let location = bus.location();
    let reason: Reason = Arc::new(move || {
        let healthy = counts.healthy.load(Ordering::Relaxed);
        (!healthy).then(|| format!("{location} is not read, or what it tells is not stored"))
    });
    Ok((own, reason))
}

/// Tells the figures of a persister next to what was expected of it.
fn figures(app: &Current, persister: Arc<Persister>) -> Arc<dyn Fn() -> Stored + Send + Sync> {
    let app = Arc::clone(app);
    Arc::new(move || {
        let app = current(&app);
        Stored {
            stats: persister.stats(),
            expected_per_day: app.expected_day(app.settings.sources.len()).writes(),
        }
    })
}

/// Chat that a listener counts where it is said. Its settings must be the same in every process of a deployment.
fn counted_elsewhere(app: &App) -> BTreeSet<(PlatformName, Direction)> {
    let settings = &app.settings;
    let twitch = super::eventsub::counts_chat(app);
    [
        (PlatformName::Twitch, Direction::In, twitch),
        (PlatformName::Discord, Direction::In, settings.discord.gateway),
        (PlatformName::Discord, Direction::Out, settings.discord.gateway),
    ]
    .into_iter()
    .filter_map(|(platform, direction, listens)| listens.then_some((platform, direction)))
    .collect()
}

/// The name under which this process counts the chat on the bus: its own, and the same after every restart.
fn chat_writer(app: &App) -> String {
    let instance = app.settings.watch.instance.clone();
    let name = instance.unwrap_or_else(|| {
        // The directory is what stays the same, and nobody else counts in it.
        let directory = app.settings.state_dir.display().to_string();
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        uuid::Uuid::new_v5(
            &uuid::Uuid::NAMESPACE_URL,
            format!("{} {directory}", host.trim()).as_bytes(),
        )
        .simple()
        .to_string()
    });
    format!("{name}-chat")
}

/// Looks at the store now and then, so that readiness knows of it before something is to be written. It only reads: writes
/// cost money on some stores, and whether they work is told by those that are needed anyway.
fn watch_store(store: &Arc<dyn SourceStore>, persister: Option<Arc<Persister>>, tasks: &Tasks) -> Reason {
    // No platform has a source of this number; what is looked for is an answer.
    let nobody = SourceKey::new(PlatformName::Twitch, "1").expect("a number is an id");
    let trouble: Arc<std::sync::Mutex<Option<String>>> = Arc::default();
    let (seen, store) = (Arc::clone(&trouble), Arc::clone(store));
    tasks.spawn("store-watch", |stop| async move {
        loop {
            let answer = tokio::time::timeout(STORE_PATIENCE, store.load(&nobody));
            let found = tokio::select! {
                answer = answer => match answer {
                    Ok(answer) => answer.err().map(|error| error.to_string()),
                    Err(_) => Some(format!("{} does not answer", store.location())),
                },
                () = stop.requested() => return,
            };
            *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = found;
            if !stop.sleep(STORE_EVERY).await {
                return;
            }
        }
    });
    Arc::new(move || {
        let stats = persister.as_ref().map(|persister| persister.stats());
        let refused = stats.filter(|stats| stats.urgent > 0 && stats.failing);
        let unwritten = refused.map(|stats| format!("{} changes are not stored yet", stats.urgent));
        let seen = trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.clone().or(unwritten)
    })
}

/// Returns what the configuration names, as far as its keys are known or can be found out.
pub(super) async fn attendees(app: &App, platforms: &[Arc<dyn Platform>]) -> Result<Vec<Attendee>, Failure> {
    let found = app.resolve(platforms).await?;
    for unresolved in &found.unresolved {
        warn!(
            source = unresolved.name,
            origin = unresolved.origin,
            "`{}` is not watched: {}",
            unresolved.name,
            unresolved.reason
        );
    }
    Ok(remembered(app))
}

/// Returns what the configuration names, as far as its keys are known or were found out before.
pub(super) fn remembered(app: &App) -> Vec<Attendee> {
    let names = Names::load(&app.settings.state_dir);
    let attendees = app.settings.sources.iter().filter_map(|spec| {
        let key = match &spec.address {
            SourceAddress::Id(key) => key.clone(),
            SourceAddress::Name(name) => names.key(spec.platform, name)?,
        };
        Some(Attendee {
            key,
            priority: spec.priority,
            channels: spec.channels.clone(),
        })
    });
    attendees.collect()
}

/// Reads the configuration again when asked to, and asks again for names that had no answer.
async fn follow_configuration(
    in_force: &Current,
    engine: &Engine,
    mut reloads: tokio::sync::watch::Receiver<u64>,
    reload: Box<dyn Fn() -> Configuration + Send + Sync>,
) {
    // It owns the adapters: they know what is left of each budget, so a reload does not make new ones.
    let first = current(in_force);
    loop {
        let app = current(in_force);
        let asked = tokio::select! {
            changed = reloads.changed() => match changed {
                Ok(()) => true,
                Err(_) => std::future::pending().await,
            },
            () = tokio::time::sleep(ASK_AGAIN), if !app.sources().unresolved.is_empty() => false,
        };
        let app = if asked {
            match next(&app, reload()) {
                Ok(next) => Arc::new(next),
                Err(failure) => {
                    warn!("The changed configuration is refused and the old one stays: {failure}");
                    continue;
                }
            }
        } else {
            app
        };
        let platforms = match first.platforms().await {
            Ok(platforms) => platforms,
            Err(failure) => {
                warn!("Sources cannot be looked up: {failure}");
                continue;
            }
        };
        match attendees(&app, &platforms).await {
            Ok(sources) => {
                first.adopt(&app);
                engine.reconfigure(sources, app.settings.schedule.cron.clone());
                *in_force
                    .write()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = app;
                if asked {
                    info!(
                        sources = engine.attended.count(),
                        "The configuration was read again; what is not about sources or schedules counts at the next start"
                    );
                }
            }
            Err(failure) => warn!("Names cannot be looked up: {failure}"),
        }
    }
}

fn next(current: &App, configuration: Configuration) -> Result<App, Failure> {
    let settings = configuration.checked()?;
    if settings.sources.is_empty() {
        return Err(Failure::new(
            ExitCode::Configuration,
            "no source is configured any more",
        ));
    }
    let mut next = App::new(settings, Arc::clone(&current.clock), None)?;
    // Names are kept where they were; moving the directory takes a restart.
    next.settings.state_dir.clone_from(&current.settings.state_dir);
    Ok(next)
}

impl App {
    /// Opens the configured bus; `None` when events stay within the process.
    pub async fn bus(&self) -> Result<Option<Arc<dyn EventBus>>, Failure> {
        let prefix = self.settings.bus.prefix.clone();
        let bus: Result<Arc<dyn EventBus>, _> = match &self.settings.bus.target {
            BusTarget::Local => return Ok(None),
            BusTarget::Nats(servers) => {
                let servers: Vec<&str> = servers.iter().map(url::Url::as_str).collect();
                let options = NatsOptions {
                    ack_wait: self.settings.bus.ack_wait,
                    ..NatsOptions::new(servers.join(","), prefix)
                };
                NatsBus::connect(&options).await.map(|bus| Arc::new(bus) as _)
            }
            BusTarget::Pubsub { project } => {
                let google = &self.settings.google;
                let key = match &google.credentials_file {
                    Some(path) if google.pubsub_emulator.is_none() => {
                        let key = std::fs::read_to_string(path).map_err(|error| {
                            let what = format!("cannot read the key file {}", path.display());
                            Failure::new(ExitCode::Configuration, what).because(&error)
                        })?;
                        Some(key.into())
                    }
                    _ => None,
                };
                let options = PubsubOptions {
                    project: project.clone(),
                    prefix,
                    emulator: google.pubsub_emulator.clone(),
                    key,
                };
                PubsubBus::connect(&options).await.map(|bus| Arc::new(bus) as _)
            }
        };
        bus.map(Some).map_err(|error| {
            let failure = Failure::new(ExitCode::Failed, "cannot use the bus").because(&error);
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }
}
