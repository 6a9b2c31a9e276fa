//! This daemon as a member of a fleet: the lease engines of the configuration, and what changes when the member's share does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::{Reason, remote_documents};
use crate::app::{App, fleet};
use crate::config::StoreTarget;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::lease::{LeaseName, SystemBootClock, Terms};
use crate::lifecycle::Tasks;
use crate::store::SourceStore;
use crate::watch::engine::Engine;
use crate::watch::fleet::{FleetMember, FleetParts, Load, Owned, Work};
use crate::watch::listener_context::{Established, ListenerReport};

/// How long a member waits for what it has observed about sources that it gives away.
const SETTLE: Duration = Duration::from_secs(2);

/// Creates the member for `engine`, which then monitors nothing until a share is assigned; `None` without a fleet.
pub(super) async fn prepare(app: &App, engine: &mut Engine) -> Result<Option<FleetMember>, Failure> {
    let Some(settings) = &app.settings.fleet else {
        return Ok(None);
    };
    // Names of members are used in every engine, and some do not accept dots.
    let member = engine.instance().replace('.', "_").parse::<LeaseName>();
    let member = member.map_err(|reason| {
        Failure::new(
            ExitCode::Configuration,
            format!("this daemon cannot be a member of a fleet: {reason}"),
        )
        .hint("set watch.instance to a name of at most 60 letters, digits, `-` and `_`")
    })?;
    let member = FleetMember::new(FleetParts {
        fleet: settings.name.clone(),
        member,
        engine: fleet::leases(app, settings).await?,
        renewing: fleet::leases(app, settings).await?,
        terms: Terms::lasting(settings.ttl),
        clock: Arc::new(SystemBootClock),
        chance: app.chance.clone(),
        started_at: app.clock.now().to_string(),
    });
    let ownership = member.ownership();
    engine.pollers.set_gate(Arc::new(move |source: &SourceKey| {
        ownership.may_act_on(&source.to_string())
    }));
    let status = member.status();
    engine.add_report(
        "fleet",
        Arc::new(move || {
            let status = status.borrow();
            ListenerReport {
                healthy: status.problem.is_none(),
                summary: match &status.problem {
                    Some(problem) => problem.clone(),
                    None => format!(
                        "{} of {} shards, {} members, epoch {}",
                        status.shards,
                        crate::core::fleet::SHARDS,
                        status.members,
                        status.epoch
                    ),
                },
                connections: Some(Established {
                    established: usize::from(status.problem.is_none()),
                    wanted: 1,
                }),
                subscriptions: None,
                detail: serde_json::to_value(&*status).unwrap_or_default(),
            }
        }),
    );
    Ok(Some(member))
}

/// Why the process is not ready as far as its fleet is concerned.
pub(super) fn reason(member: &FleetMember) -> Reason {
    let status = member.status();
    Arc::new(move || {
        let status = status.borrow();
        let problem = status.problem.as_ref()?;
        Some(format!("fleet `{}`: {problem}", status.name))
    })
}

/// Starts the member.
pub(super) fn start(
    member: FleetMember,
    app: &App,
    engine: &Arc<Engine>,
    store: &Arc<dyn SourceStore>,
    tasks: &Tasks,
) {
    let is_remote = !matches!(app.settings.store.target, StoreTarget::Sqlite(_));
    let work = DaemonWork {
        engine: Arc::clone(engine),
        store: is_remote.then(|| Arc::clone(store)),
    };
    member.start(Arc::new(work), tasks);
}

/// The sources and listeners of the daemon.
struct DaemonWork {
    engine: Arc<Engine>,
    /// A remote store, from which the documents of gained sources are read.
    store: Option<Arc<dyn SourceStore>>,
}

impl DaemonWork {
    fn load(&self, owned: &Owned) -> Load {
        let accounts = PlatformName::ALL.into_iter();
        let accounts = accounts.filter(|platform| owned.contains(&Engine::account_of(*platform)));
        Load {
            sources: self.engine.monitored.count() as u64,
            accounts: accounts.map(|platform| platform.to_string()).collect(),
        }
    }
}

#[async_trait]
impl Work for DaemonWork {
    async fn stop_others(&self, owned: &Owned) -> Load {
        self.engine.own(owned);
        // What was observed before is committed: the next owner continues from there.
        let _ = timeout(SETTLE, self.engine.processed()).await;
        self.load(owned)
    }

    async fn start(&self, owned: &Owned) -> Load {
        let gained = self.engine.gained(owned);
        if let Some(store) = &self.store {
            let stored = remote_documents::read(store, &gained, None).await;
            self.engine.restore_gained(stored);
        }
        self.engine.own(owned);
        self.load(owned)
    }
}
