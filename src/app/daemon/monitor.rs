//! Starts what monitors sources: the engine with its pollers, and the listeners.

use std::sync::Arc;

use axum::Router;

use super::{Plan, StoreStats, fleet, recording, remote_documents, stats_of};
use crate::app::{App, listeners};
use crate::bus::EventBus;
use crate::config::StoreTarget;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Tasks;
use crate::persist::Persister;
use crate::persist::write_policy::WritePolicy;
use crate::store::SourceStore;
use crate::traffic::Recording;
use crate::watch::engine::{Engine, Parts, Route};
use crate::watch::fleet::{FleetMember, Owned};

/// What monitors sources.
pub(super) struct Monitoring {
    pub engine: Engine,
    pub store_stats: Option<StoreStats>,
    /// Routes that listeners need.
    pub routes: Router,
    /// The daemon as a member of a fleet.
    pub member: Option<FleetMember>,
}

/// Starts the engine and, unless it is for a single round, the listeners.
pub(super) async fn start(
    app: &Arc<App>,
    bus: Option<&Arc<dyn EventBus>>,
    store: &Arc<dyn SourceStore>,
    tasks: &Tasks,
    plan: &Plan,
    served: bool,
    recording: Option<Recording>,
) -> Result<Monitoring, Failure> {
    let (mut engine, store_stats) = ingest(app, bus, store, tasks, plan).await?;
    if let Some(recording) = recording {
        recording::start(app, &engine, recording, tasks).await?;
    }
    let (mut routes, mut member) = (Router::new(), None);
    // A single round of probes ends before a listener could report anything, or a share of a fleet were assigned.
    if !plan.once {
        member = fleet::prepare(app, &mut engine).await?;
        routes = listeners::start(app, &mut engine, served).await?;
    }
    if member.is_some() {
        // Nothing is owned yet.
        engine.own(&Owned::default());
    }
    Ok(Monitoring {
        engine,
        store_stats,
        routes,
        member,
    })
}

/// Starts pollers, listeners and the publishing of what they observe.
async fn ingest(
    app: &Arc<App>,
    bus: Option<&Arc<dyn EventBus>>,
    store: &Arc<dyn SourceStore>,
    tasks: &Tasks,
    plan: &Plan,
) -> Result<(Engine, Option<StoreStats>), Failure> {
    if app.settings.sources.is_empty() {
        return Err(Failure::new(ExitCode::Configuration, "no source is configured")
            .hint("add one with [[source]] to bitbrat.toml (`bitbrat init` sets everything up), or try `bitbrat --demo watch`"));
    }
    let platforms = app.platforms.needed().await?;
    let sources = app.sources.monitored(&platforms).await?;
    let settings = &app.settings;
    let file = app.state_file_path();
    let documents = match &settings.store.target {
        StoreTarget::Sqlite(_) => Some(settings.store.heartbeat),
        StoreTarget::Memory | StoreTarget::Firestore { .. } | StoreTarget::Postgres(_) => {
            crate::files::reject_symlink(&file).map_err(|error| {
                let what = format!("cannot use {}", file.display());
                Failure::new(ExitCode::Failed, what).because(&error)
            })?;
            None
        }
    };
    crate::files::make_private_dir(&settings.state_dir).map_err(|error| {
        let what = format!("cannot make the state directory {}", settings.state_dir.display());
        Failure::new(ExitCode::Failed, what).because(&error)
    })?;
    let mut own = None;
    let route = match bus {
        Some(bus) => Route::Bus {
            bus: app.publishing(bus),
            heartbeat: settings.bus.heartbeat,
            initial_events: settings.bus.initial_events,
        },
        None if documents.is_some() => Route::File,
        None => {
            // Observations wait once, where they are smallest, and not a second time in the persister.
            let persister = Arc::new(Persister::new(
                Arc::clone(store),
                app.evidence_clock(),
                WritePolicy::every(settings.store.heartbeat / 2),
                app.chance.clone(),
            ));
            own = Some(Arc::clone(&persister));
            Route::Store {
                persister,
                location: store.location(),
                heartbeat: settings.store.heartbeat,
            }
        }
    };
    let stored = match documents {
        Some(_) => Vec::new(),
        None => remote_documents::read(store, &sources, own.as_deref()).await,
    };
    let is_member = settings.fleet.is_some() && !plan.once;
    let parts = Parts {
        state_dir: settings.state_dir.clone(),
        file,
        retention: app.retention(),
        instance: settings.watch.instance.clone(),
        outbox_capacity: settings.watch.outbox,
        sources,
        stored,
        platforms,
        documents,
        route,
        has_alerts: settings.alerts.is_used(),
        is_member,
        timetable: settings.schedule.probes.clone(),
        jitter: settings.schedule.jitter,
        clock: Arc::clone(&app.machine_clock),
        chance: app.chance.clone(),
    };
    // A single round opened no connections, so none is reported as closed.
    // Nor by a member of a fleet: others continue its work.
    let engine = Engine::start(parts, tasks, !plan.once && !is_member)?;
    let stats = match own {
        Some(persister) => Some(stats_of(&persister)),
        None => documents.map(|_| engine.store_stats()),
    };
    Ok((engine, stats))
}
