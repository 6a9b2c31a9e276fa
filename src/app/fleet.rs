//! Opens the lease engine of a fleet.

use std::sync::Arc;

use super::{App, bus, stores};
use crate::bus::nats::NatsOptions;
use crate::config::{FleetSettings, FleetTarget};
use crate::failure::{ExitCode, Failure};
use crate::lease::{
    FirestoreLeases, LeaseEngine, LeaseError, NatsLeases, PostgresLeases, Scope, SqliteLeases,
    SystemBootClock, Terms,
};

/// Opens the engine with a connection of its own. An engine that is unavailable now is connected to later.
pub async fn leases(app: &App, fleet: &FleetSettings) -> Result<Arc<dyn LeaseEngine>, Failure> {
    let scope = Scope {
        fleet: fleet.name.clone(),
        terms: Terms::lasting(fleet.ttl),
    };
    let settings = &app.settings;
    Ok(match &fleet.target {
        FleetTarget::Sqlite(path) => {
            let opened = SqliteLeases::new(
                path,
                scope,
                Arc::new(SystemBootClock),
                Arc::clone(&app.machine_clock),
            );
            Arc::new(opened?)
        }
        FleetTarget::Postgres(address) => Arc::new(PostgresLeases::new(
            stores::postgres_target(settings, address, "fleet.url", "cannot join the fleet")?,
            scope,
        )),
        FleetTarget::Firestore { project, database } => {
            if settings.google.firestore_emulator.is_none() {
                super::needs_certificates("cannot join the fleet")?;
            }
            let target = stores::firestore_target(settings, project, database);
            Arc::new(FirestoreLeases::new(target, scope))
        }
        FleetTarget::Nats(servers) => {
            let servers: Vec<&str> = servers.iter().map(url::Url::as_str).collect();
            let options = NatsOptions {
                login: bus::login(&settings.bus.nats).await?,
                ..NatsOptions::new(servers.join(","), String::new())
            };
            // The future is large, and only the engine stays.
            let opened = Box::pin(NatsLeases::connect(&options, scope)).await;
            Arc::new(opened?)
        }
    })
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        Self::new(ExitCode::Failed, "cannot use the leases of the fleet")
            .because(&error)
            .hint(error.hint())
    }
}
