//! Webhooks: signed deliveries to the callback of a subscription, and the challenge that verifies it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::state::{EventSub, Subscription, Transport};
use crate::core::time::Timestamp;
use crate::http::{Http, HttpOptions};
use crate::sim::host::own;
use crate::sim::twitch::handle::TwitchSim;

/// The `Twitch-Eventsub-Message-Type` of a challenge.
const VERIFICATION: &str = "webhook_callback_verification";
/// Maximum number of deliveries that the controls show.
const SHOWN: usize = 1_000;

/// A delivery to be posted.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    subscription_id: String,
    callback: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// What the response to a challenge must contain.
    challenge: Option<String>,
}

/// The queue of deliveries, and the record of posted ones.
#[derive(Default)]
pub(in crate::sim::twitch) struct Webhooks {
    queue: Option<mpsc::UnboundedSender<Outgoing>>,
    log: Arc<Mutex<Vec<Value>>>,
    worker: Option<AbortOnDropHandle<()>>,
}

impl Webhooks {
    /// Starts delivering for `twitch`, until it ends.
    pub(in crate::sim::twitch) fn start(&mut self, twitch: &TwitchSim) {
        let (queue, mut incoming) = mpsc::unbounded_channel::<Outgoing>();
        let options = HttpOptions {
            timeout: Duration::from_secs(3),
            ..HttpOptions::default()
        };
        let http = Http::new(options, twitch.clock().clone());
        let (record, handle) = (Arc::clone(&self.log), twitch.downgrade());
        self.queue = Some(queue);
        self.worker = Some(own(async move {
            while let Some(outgoing) = incoming.recv().await {
                let (status, text) = post(&http, &outgoing).await.unzip();
                let mut log = record.lock();
                if log.len() >= SHOWN {
                    log.remove(0);
                }
                log.push(json!({"headers": outgoing.headers, "body": outgoing.body, "status": status}));
                drop(log);
                let Some(twitch) = handle() else { return };
                if let Some(challenge) = outgoing.challenge {
                    let is_verified = status == Some(200) && text == Some(challenge);
                    let id = outgoing.subscription_id;
                    twitch.with_world(|world, _| world.eventsub.verified(&id, is_verified));
                }
            }
        }));
    }

    pub(super) fn post(&self, outgoing: Outgoing) {
        if let Some(queue) = &self.queue {
            // The worker ends with the server; then there is no receiver, which is no error.
            let _ = queue.send(outgoing);
        }
    }

    /// Returns the deliveries so far, oldest first.
    pub(super) fn log(&self) -> Value {
        json!(*self.log.lock())
    }
}

async fn post(http: &Http, outgoing: &Outgoing) -> Option<(u16, String)> {
    let url = outgoing.callback.parse().ok()?;
    let mut request = http
        .request(reqwest::Method::POST, url)
        .body(outgoing.body.clone());
    for (name, value) in &outgoing.headers {
        request = request.header(*name, value);
    }
    let request = request.header("content-type", "application/json").build().ok()?;
    let answer = http.send(request).await.ok()?;
    Some((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

impl EventSub {
    /// Creates the delivery of a message about a subscription with a webhook.
    pub(super) fn outgoing(
        &self,
        kind: &str,
        subscription: &Subscription,
        at: Timestamp,
        event: Option<&Value>,
    ) -> Outgoing {
        let mut body = json!({"subscription": subscription.to_message_json(self.now())});
        if let Some(event) = event {
            body["event"] = event.clone();
        }
        let challenge = (kind == VERIFICATION).then(|| self.unique_id());
        if let Some(challenge) = &challenge {
            body["challenge"] = json!(challenge);
        }
        let (callback, secret) = match &subscription.transport {
            Transport::Webhook { callback, secret } => (callback.clone(), secret.clone()),
            Transport::Socket { .. } | Transport::Conduit(_) => Default::default(),
        };
        let (body, id, time) = (body.to_string(), self.unique_id(), self.precise(at));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{id}{time}{body}").as_bytes());
        let signature = tag.as_ref().iter().fold("sha256=".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Outgoing {
            subscription_id: subscription.id.clone(),
            callback,
            headers: vec![
                ("Twitch-Eventsub-Message-Id", id),
                ("Twitch-Eventsub-Message-Retry", "0".to_owned()),
                ("Twitch-Eventsub-Message-Type", kind.to_owned()),
                ("Twitch-Eventsub-Message-Signature", signature),
                ("Twitch-Eventsub-Message-Timestamp", time),
                ("Twitch-Eventsub-Subscription-Type", subscription.kind.clone()),
                (
                    "Twitch-Eventsub-Subscription-Version",
                    subscription.version.clone(),
                ),
            ],
            body,
            challenge,
        }
    }

    /// Sends the challenge that verifies the callback of a new subscription.
    pub(super) fn verify(&self, subscription: &Subscription) {
        self.webhooks
            .post(self.outgoing(VERIFICATION, subscription, self.clock.wall(), None));
    }

    /// Records whether the callback of a subscription answered its challenge.
    fn verified(&mut self, id: &str, is_verified: bool) {
        let now = self.now();
        let Some(subscription) = self.subscriptions.iter_mut().find(|sub| sub.id == id) else {
            return;
        };
        let failed = || (now, "webhook_callback_verification_failed".to_owned());
        subscription.end = (!is_verified).then(failed);
    }
}
