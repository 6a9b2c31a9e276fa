//! Webhook deliveries: events in Kick's formats, signed with the platform's own key and posted to one URL per application.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::texts;
use super::world::{Channel, World, category_json};
use crate::core::time::Timestamp;
use crate::http::Http;
use crate::sim::host::{Host, own};

/// The platform's key, generated on first use.
#[derive(Default)]
pub(super) struct SigningKey(OnceLock<RsaKeyPair>);

impl SigningKey {
    fn pair(&self) -> &RsaKeyPair {
        self.0
            .get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key of this size can be made"))
    }

    /// Returns the public key as Kick serves it: an SPKI in PEM.
    pub(super) fn public_pem(&self) -> String {
        let der = self
            .pair()
            .public_key()
            .as_der()
            .expect("a public key can be written");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }

    /// Signs `message_id.timestamp.body`; returns the signature in base64.
    pub(super) fn sign(&self, message_id: &str, timestamp: &str, body: &[u8]) -> String {
        let pair = self.pair();
        let message = [message_id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature)
            .expect("signing with a sound key works");
        STANDARD.encode(signature)
    }
}

/// A posted delivery, and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The event's type.
    pub event: String,
    /// The message id.
    pub message_id: String,
    /// The status of the receiver's response; `None` without a response.
    pub status: Option<u16>,
}

impl Delivery {
    pub(super) fn to_json(&self) -> Value {
        json!({"event": self.event, "message_id": self.message_id, "status": self.status})
    }
}

/// A delivery to be posted.
pub(super) struct Outgoing {
    url: String,
    event: String,
    headers: Vec<(&'static str, String)>,
    message_id: String,
    body: String,
    times: u32,
    due: Timestamp,
}

/// The queue of deliveries, and the record of posted ones.
pub(super) struct Post {
    queue: mpsc::UnboundedSender<Outgoing>,
    pub(super) log: Arc<Mutex<Vec<Delivery>>>,
    _worker: tokio_util::task::AbortOnDropHandle<()>,
}

impl Post {
    /// Starts delivering. `report` takes the event and whether its receiver accepted it, and returns false when the platform has
    /// ended.
    pub(super) fn start(host: &Host, report: impl Fn(&str, bool) -> bool + Send + 'static) -> Self {
        let (queue, mut incoming) = mpsc::unbounded_channel::<Outgoing>();
        let log = Arc::new(Mutex::new(Vec::new()));
        let clock = Arc::clone(host.clock());
        let http = Http::new(
            crate::http::HttpOptions {
                timeout: std::time::Duration::from_secs(3),
                ..crate::http::HttpOptions::default()
            },
            clock.clone(),
        );
        let record = Arc::clone(&log);
        let worker = own(async move {
            while let Some(outgoing) = incoming.recv().await {
                clock.sleep_until(outgoing.due).await;
                for _ in 0..outgoing.times {
                    let status = post(&http, &outgoing).await;
                    let mut log = record.lock();
                    if log.len() >= 1_000 {
                        log.remove(0);
                    }
                    log.push(Delivery {
                        event: outgoing.event.clone(),
                        message_id: outgoing.message_id.clone(),
                        status,
                    });
                    drop(log);
                    let accepted = status.is_some_and(|status| (200..300).contains(&status));
                    if !report(&outgoing.event, accepted) {
                        return;
                    }
                }
            }
        });
        Self {
            queue,
            log,
            _worker: worker,
        }
    }

    pub(super) fn send(&self, outgoing: Vec<Outgoing>) {
        for one in outgoing {
            // The worker ends with the server; then there is no receiver, which is no error.
            let _ = self.queue.send(one);
        }
    }
}

async fn post(http: &Http, outgoing: &Outgoing) -> Option<u16> {
    let url = outgoing.url.parse().ok()?;
    let mut request = http
        .request(reqwest::Method::POST, url)
        .body(outgoing.body.clone());
    for (name, value) in &outgoing.headers {
        request = request.header(*name, value);
    }
    let request = request.header("content-type", "application/json").build().ok()?;
    http.send(request).await.ok().map(|answer| answer.status)
}

impl World {
    /// Prepares the deliveries of an event, one for each subscription to it.
    pub(super) fn outgoing(
        &mut self,
        url: Option<&str>,
        key: &SigningKey,
        event: &str,
        broadcaster: u64,
        body: &Value,
        now: Timestamp,
    ) -> Vec<Outgoing> {
        let knobs = self.knobs.webhooks.clone();
        let Some(url) = url.filter(|_| !knobs.drop) else {
            return Vec::new();
        };
        let body = body.to_string();
        let subscriptions = self.subscriptions.of(event, broadcaster);
        let outgoing = subscriptions.into_iter().map(|subscription| {
            let message_id = texts::ulid(now, &self.chance);
            let timestamp = texts::rfc3339(self.clock.wall().plus_millis(-knobs.age_ms));
            let signed = if knobs.bad_signature { "{}" } else { &body };
            let signature = key.sign(&message_id, &timestamp, signed.as_bytes());
            Outgoing {
                url: url.to_owned(),
                event: event.to_owned(),
                headers: vec![
                    ("Kick-Event-Message-Id", message_id.clone()),
                    ("Kick-Event-Message-Timestamp", timestamp),
                    ("Kick-Event-Signature", signature),
                    ("Kick-Event-Subscription-Id", subscription.id),
                    (
                        "Kick-Event-Type",
                        knobs.false_type.clone().unwrap_or_else(|| event.to_owned()),
                    ),
                    ("Kick-Event-Version", "1".to_owned()),
                ],
                message_id,
                body: body.clone(),
                times: 1 + knobs.repeats,
                due: now.plus_millis(knobs.delay_ms),
            }
        });
        outgoing.collect()
    }
}

/// The JSON of a user in an event.
pub(super) fn person(channel: &Channel) -> Value {
    json!({
        "is_anonymous": false, "user_id": channel.id, "username": channel.name, "is_verified": false,
        "profile_picture": "", "channel_slug": channel.slug, "identity": null,
    })
}

/// The body of `livestream.status.updated`.
pub(super) fn status_event(channel: &Channel, started_at: &str, ended_at: Option<&str>) -> Value {
    json!({
        "broadcaster": person(channel), "is_live": ended_at.is_none(), "title": channel.title,
        "started_at": started_at, "ended_at": ended_at,
    })
}

/// The body of `livestream.metadata.updated`; real ones contain the category twice.
pub(super) fn metadata_event(channel: &Channel) -> Value {
    let category = category_json(&channel.category);
    json!({
        "broadcaster": person(channel),
        "metadata": {
            "title": channel.title, "language": "en", "has_mature_content": false, "category": category,
            "Category": category,
        },
    })
}
