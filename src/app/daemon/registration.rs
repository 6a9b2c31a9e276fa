//! Registers the tools for agents with the platform's tool gateway (`mcp.register`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::app::App;
use crate::bus::{EventBus, Recovery};
use crate::clock::Backoff;
use crate::lifecycle::{Stop, Tasks};
use crate::mcp::registration::{Registration, State};

/// Waits between two attempts, and where a person has to act first.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
const SLOWLY: Duration = Duration::from_secs(300);
/// How long the message of a clean stop may take.
const LAST: Duration = Duration::from_secs(2);

/// Starts the task that registers now, and deregisters at a clean stop. `web` is where the web server listens.
pub(super) fn start(app: &Arc<App>, bus: Option<&Arc<dyn EventBus>>, web: Option<SocketAddr>, tasks: &Tasks) {
    let (Some(settings), Some(bus), Some(web)) = (&app.settings.mcp.registration, bus, web) else {
        return;
    };
    let url = settings.url.clone();
    let registration = Registration {
        name: settings.name.clone(),
        url: url.unwrap_or_else(|| format!("http://{web}/sse")),
        token_variable: app.settings.web.token.as_ref().map(|_| settings.variable.clone()),
        required_roles: settings.roles.clone(),
    };
    let (app, bus) = (Arc::clone(app), Arc::clone(bus));
    tasks.spawn("mcp-registration", |stop| async move {
        if register(&app, bus.as_ref(), &registration, &stop).await {
            stop.requested().await;
            let message = registration.message(State::Inactive, app.clock.now());
            match tokio::time::timeout(LAST, bus.publish(message)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => warn!(error = %error, "Cannot deregister from the tool gateway"),
                Err(_) => warn!("Cannot deregister from the tool gateway: the bus did not answer in time"),
            }
        }
    });
}

/// Publishes the registration until the bus has accepted it, or a stop is requested. Returns whether the gateway may have it.
async fn register(app: &App, bus: &dyn EventBus, registration: &Registration, stop: &Stop) -> bool {
    let mut failures = 0;
    loop {
        let message = registration.message(State::Active, app.clock.now());
        let published = tokio::select! {
            published = bus.publish(message) => published,
            // It may be accepted all the same, and a gateway ignores the end of what it does not know.
            () = stop.requested() => return true,
        };
        let Err(error) = published else {
            info!(url = registration.url, "Registered with the tool gateway");
            return true;
        };
        let advice = error.hint().unwrap_or("it is tried again");
        warn!(error = %error, "Cannot register with the tool gateway; {advice}");
        let pause = match error.recovery() {
            Recovery::Retry => BACKOFF.draw(failures, &app.chance),
            Recovery::RetrySlowly => SLOWLY,
            Recovery::GiveUp => {
                stop.requested().await;
                return false;
            }
        };
        if !stop.sleep(pause).await {
            return false;
        }
        failures += 1;
    }
}
