//! Twitch's webhook in the daemon: the web server receives deliveries, and the subscription is kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde_json::json;
use tracing::{info, warn};

use crate::lifecycle::Stop;
use crate::platforms::twitch::TwitchPlatform;
use crate::platforms::twitch::eventsub::EventSubHandle;
use crate::platforms::twitch::settings::Webhook;
use crate::platforms::twitch::webhook::{self, RevocationWebhook};
use crate::watch::engine::Engine;
use crate::watch::listener_context::{ListenerReport, ListenerTask};

/// How often the subscription is compared with Twitch's list.
const RECONCILE: Duration = Duration::from_mins(15);
/// Delay before the next attempt while it is not enabled.
const AGAIN: Duration = Duration::from_mins(1);
/// After a challenge was answered, Twitch's list shows the result soon.
const SETTLE: Duration = Duration::from_secs(1);
/// The status of a subscription that delivers.
const ENABLED: &str = "enabled";

/// Starts the webhook. What it reports goes to the listener of `handle`. Returns the route that Twitch posts to.
pub(super) fn start(
    engine: &mut Engine,
    twitch: &Arc<TwitchPlatform>,
    handle: EventSubHandle,
    settings: &Webhook,
    state_dir: &Path,
) -> Router {
    let file = state_dir.join("twitch-webhook");
    let hook = twitch.revocation_webhook(&settings.url, settings.secret.clone(), file, move |user| {
        info!(user, "A user has withdrawn the authorization of the application");
        handle.authorization_revoked(user);
    });
    let status = Arc::new(Mutex::new(String::from("not checked yet")));
    let (running, shown) = (Arc::clone(&hook), Arc::clone(&status));
    let counting = Arc::clone(&hook);
    engine.listen(ListenerTask {
        name: "twitch-webhook".to_owned(),
        run: Box::new(move |_, stop| run(running, status, stop).boxed()),
        report: Arc::new(move || report(&counting, &shown.lock())),
    });
    webhook::routes(hook)
}

async fn run(hook: Arc<RevocationWebhook>, status: Arc<Mutex<String>>, stop: Stop) {
    loop {
        let found = tokio::select! {
            found = hook.reconcile() => found.unwrap_or_else(|error| error.to_string()),
            () = stop.requested() => return,
        };
        let before = std::mem::replace(&mut *status.lock(), found.clone());
        if before != found && found == ENABLED {
            info!("Twitch's webhook is verified");
        } else if before != found {
            warn!(status = found, "Twitch's webhook does not deliver yet");
        }
        let pause = if found == ENABLED { RECONCILE } else { AGAIN };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hook.check.notified() => tokio::time::sleep(SETTLE).await,
            () = stop.requested() => return,
        }
    }
}

fn report(hook: &RevocationWebhook, status: &str) -> ListenerReport {
    let counts = hook.counts();
    ListenerReport {
        healthy: status == ENABLED,
        summary: format!("subscription: {status}, {} withdrawals received", counts.accepted),
        connections: None,
        subscriptions: None,
        detail: json!({"enabled": true, "subscription": status, "deliveries": counts}),
    }
}
