//! Delivery of webhooks: the platform's own key, and the queue of what is posted to the one URL of an application.

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
use tokio_util::task::AbortOnDropHandle;

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
    pub(super) url: String,
    pub(super) event: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) message_id: String,
    pub(super) body: String,
    pub(super) times: u32,
    pub(super) due: Timestamp,
}

/// Where webhooks are delivered, what signs them, the queue of deliveries, and the record of posted ones.
#[derive(Default)]
pub(super) struct Webhooks {
    pub(super) key: Arc<SigningKey>,
    /// The one webhook URL, and `None` while webhooks are switched off.
    pub(super) url: Option<String>,
    /// Number of deliveries for events so far.
    pub(super) posted: u64,
    queue: Option<mpsc::UnboundedSender<Outgoing>>,
    log: Arc<Mutex<Vec<Delivery>>>,
    worker: Option<AbortOnDropHandle<()>>,
}

impl Webhooks {
    /// Starts delivering. `report` takes the event and whether its receiver accepted it, and returns false when the platform has
    /// ended.
    pub(super) fn start(&mut self, host: &Host, report: impl Fn(&str, bool) -> bool + Send + 'static) {
        let (queue, mut incoming) = mpsc::unbounded_channel::<Outgoing>();
        let clock = Arc::clone(host.clock());
        let http = Http::new(
            crate::http::HttpOptions {
                timeout: std::time::Duration::from_secs(3),
                ..crate::http::HttpOptions::default()
            },
            clock.clone(),
        );
        let record = Arc::clone(&self.log);
        self.queue = Some(queue);
        self.worker = Some(own(async move {
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
        }));
    }

    /// Posts deliveries of one event; returns their number.
    pub(super) fn send(&mut self, outgoing: Vec<Outgoing>) -> usize {
        let count = outgoing.len();
        self.posted += u64::try_from(count).unwrap_or(0);
        if let Some(queue) = &self.queue {
            for one in outgoing {
                // The worker ends with the server; then there is no receiver, which is no error.
                let _ = queue.send(one);
            }
        }
        count
    }

    /// Returns the deliveries so far, oldest first.
    pub(super) fn log(&self) -> Vec<Delivery> {
        self.log.lock().clone()
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
