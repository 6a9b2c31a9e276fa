//! The webhook for withdrawn authorizations against the simulated Twitch.

use std::sync::Arc;

use bitbrat::platforms::twitch::webhook::{self, RevocationWebhook};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::listener_harness::{eventually, own};
use super::{RAT, World};

/// A webhook that is served on loopback, and the users that it reported.
struct Served {
    hook: Arc<RevocationWebhook>,
    address: String,
    users: Arc<Mutex<Vec<String>>>,
    _server: AbortOnDropHandle<()>,
}

async fn served(world: &World, secret: &str, directory: &tempfile::TempDir) -> Served {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let users = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&users);
    let hook = Arc::new(world.platform()).revocation_webhook(
        &address.parse().unwrap(),
        secret.into(),
        directory.path().join("webhook"),
        move |user| reported.lock().push(user.to_owned()),
    );
    let routes = webhook::routes(Arc::clone(&hook));
    let server = own(async move {
        axum::serve(listener, routes).await.unwrap();
    });
    Served {
        hook,
        address,
        users,
        _server: server,
    }
}

impl Served {
    async fn enabled(&self) {
        self.hook.reconcile().await.unwrap();
        eventually("the challenge is answered", || self.hook.counts().challenges > 0).await;
        for _ in 0..1_000 {
            if self.hook.reconcile().await.unwrap() == "enabled" {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("the webhook was never verified");
    }
}

#[tokio::test]
async fn withdrawn_authorization_is_received_once() {
    let (world, directory) = (World::confidential().await, tempfile::tempdir().unwrap());
    let served = served(&world, "0123456789", &directory).await;
    served.enabled().await;
    world
        .give_token(
            &bitbrat::platforms::twitch::broadcaster(RAT),
            RAT,
            &["channel:bot"],
        )
        .await;
    // Twitch may repeat a message under its id.
    world.twitch().eventsub_knobs(|knobs| {
        knobs.duplicate = Some(bitbrat::sim::twitch::Duplicate::SameId);
    });
    world.twitch().disconnect(RAT);
    eventually("it was delivered twice", || served.hook.counts().duplicate == 1).await;
    assert_eq!(*served.users.lock(), [RAT]);
}

#[tokio::test]
async fn restart_keeps_subscription_and_new_secret_replaces_it() {
    let (world, directory) = (World::confidential().await, tempfile::tempdir().unwrap());
    let served = served(&world, "0123456789", &directory).await;
    served.enabled().await;
    let created = || world.twitch().eventsub_state()["created"].as_u64().unwrap();
    assert_eq!(created(), 1);
    assert_eq!(served.hook.reconcile().await.unwrap(), "enabled");
    assert_eq!(created(), 1);
    let other = Arc::new(world.platform()).revocation_webhook(
        &served.address.parse().unwrap(),
        "another-secret".into(),
        directory.path().join("webhook"),
        |_| {},
    );
    assert_eq!(
        other.reconcile().await.unwrap(),
        "webhook_callback_verification_pending"
    );
    assert_eq!(created(), 2);
}

#[tokio::test]
async fn forged_and_old_deliveries_are_refused() {
    let (world, directory) = (World::confidential().await, tempfile::tempdir().unwrap());
    let served = served(&world, "0123456789", &directory).await;
    served.enabled().await;
    world
        .give_token(
            &bitbrat::platforms::twitch::broadcaster(RAT),
            RAT,
            &["channel:bot"],
        )
        .await;
    world.twitch().eventsub_knobs(|knobs| knobs.age_ms = 11 * 60_000);
    world.twitch().disconnect(RAT);
    eventually("the old delivery is refused", || served.hook.counts().stale == 1).await;
    let body = r#"{"subscription":{"type":"user.authorization.revoke"},"event":{"user_id":"900200"}}"#;
    for signature in ["", "sha256=", "sha256=00", "sha256=zz", "sha256=é"] {
        let mut headers = axum::http::HeaderMap::new();
        for (name, value) in [
            ("twitch-eventsub-message-id", "m"),
            ("twitch-eventsub-message-timestamp", "2026-05-01T18:00:00Z"),
            ("twitch-eventsub-message-type", "notification"),
            ("twitch-eventsub-message-signature", signature),
        ] {
            headers.insert(
                name,
                axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        assert_eq!(
            served.hook.receive(&headers, body.as_bytes()).status(),
            403,
            "{signature}"
        );
    }
    assert_eq!(served.hook.counts().forged, 5);
    assert_eq!(*served.users.lock(), Vec::<String>::new());
}
