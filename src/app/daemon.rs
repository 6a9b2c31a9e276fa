//! `watch` put together: which parts a role needs, from which adapters, in which order they start.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use tracing::info;

use self::configuration::{Current, current};
use super::volume::Meters;
use super::{Access, App, listeners};
use crate::bus::EventBus;
use crate::bus::mutating::MutatingBus;
use crate::config::Configuration;
use crate::core::document::SourceDocument;
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::{Lifecycle, Tasks, announce_ready};
use crate::persist::economy::Economy;
use crate::persist::{Persister, overview};
use crate::store::{HistoryEntry, SourceStore};
use crate::watch::engine::{Engine, Parts, Route};
use crate::web::{self, Render, Stored, Web};

mod configuration;
mod store_watch;
mod storing;

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
            extra = listeners::start(app, &mut started, listener.is_some()).await?;
        }
        view = Some(started.view());
        engine = Some(started);
        persister = own;
    }
    if let Some(bus) = bus.as_ref().filter(|_| has(Role::Persist)) {
        let (own, reason) = storing::start(app, bus, &store, tasks)?;
        reasons.push(reason);
        persister = Some(Arc::clone(&own.persister));
        storing = Some(Arc::new(move || own.overview()));
    }
    reasons.push(store_watch::start(&store, persister.clone(), tasks));
    store_watch::tidy(&store, tasks);
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
                () = configuration::follow(&in_force, &engine, reloads, plan.reload) => {}
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
    let sources = app.attendees(&platforms).await?;
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
