//! The webhook for `user.authorization.revoke`, which Twitch does not send over websockets: verified deliveries, and the
//! subscription for them. <https://dev.twitch.tv/docs/eventsub/handling-webhook-events/>

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use url::Url;

use super::TwitchPlatform;
use super::eventsub::messages::SubscriptionInfo;
use super::eventsub::rest::{self, Created, Target};
use super::eventsub::{Kind, Subscription, revoked_user};
use super::options::{self, below};
use crate::core::time::Timestamp;
use crate::files::{self, Durability, FileAccess};
use crate::platforms::PlatformError;
use crate::platforms::kit::dedup::RecentIds;

/// The path that Twitch posts to, below the public address.
pub const PATH: &str = "/webhooks/twitch";
/// The largest accepted body, in bytes.
const LARGEST_BODY: usize = 256 * 1024;
/// Twitch's recommendation: an older message is a replay.
const WINDOW: std::time::Duration = std::time::Duration::from_mins(10);
/// Maximum number of message ids remembered.
const REMEMBERED_IDS: usize = 10_000;
/// What deliveries begin their signature with.
const SCHEME: &str = "sha256=";

/// Number of deliveries by result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WebhookCounts {
    /// Withdrawn authorizations that were passed on.
    pub accepted: u64,
    /// Challenges that were answered.
    pub challenges: u64,
    /// Not signed with the secret, or malformed; answered 403.
    pub forged: u64,
    /// Too old or from the future, as a replayed recording is; answered 403.
    pub stale: u64,
    /// Received before; answered 204 and dropped.
    pub duplicate: u64,
    /// About something else; answered 204 and dropped.
    pub other: u64,
    /// Larger than 256 KiB; answered 413.
    pub oversized: u64,
}

/// Receives deliveries, and keeps the subscription for them.
pub struct RevocationWebhook {
    twitch: Arc<TwitchPlatform>,
    callback: String,
    secret: SecretString,
    /// Where the id of the subscription is stored.
    file: PathBuf,
    on_revoked: Box<dyn Fn(&str) + Send + Sync>,
    counts: Mutex<WebhookCounts>,
    received: Mutex<RecentIds>,
    /// Notified when the subscription should be checked.
    pub check: Notify,
}

/// What is stored about the subscription. Twitch does not return secrets, so one that was created with another secret is
/// recognized by the tag.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Stored {
    id: String,
    tag: String,
}

/// The content of a delivery.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(default)]
    challenge: Option<String>,
    #[serde(default)]
    subscription: SubscriptionInfo,
    #[serde(borrow, default)]
    event: Option<&'a serde_json::value::RawValue>,
}

impl TwitchPlatform {
    /// Creates the webhook below the public address `base`. `on_revoked` gets the id of a user who has withdrawn the
    /// authorization of the application.
    pub fn revocation_webhook(
        self: &Arc<Self>,
        base: &Url,
        secret: SecretString,
        file: PathBuf,
        on_revoked: impl Fn(&str) + Send + Sync + 'static,
    ) -> Arc<RevocationWebhook> {
        Arc::new(RevocationWebhook {
            twitch: Arc::clone(self),
            callback: below(base, PATH.trim_start_matches('/')).to_string(),
            secret,
            file,
            on_revoked: Box::new(on_revoked),
            counts: Mutex::default(),
            // Twice the window, so that nothing can be replayed within it.
            received: Mutex::new(RecentIds::new(2 * WINDOW, REMEMBERED_IDS)),
            check: Notify::new(),
        })
    }
}

impl RevocationWebhook {
    /// Returns the number of deliveries by result.
    pub fn counts(&self) -> WebhookCounts {
        *self.counts.lock()
    }

    fn count(&self, counter: impl FnOnce(&mut WebhookCounts) -> &mut u64) {
        *counter(&mut self.counts.lock()) += 1;
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose_secret().as_bytes())
    }

    /// Processes one delivery and returns the response.
    pub fn receive(&self, headers: &HeaderMap, body: &[u8]) -> Response {
        let Some((id, sent, kind)) = self.verified(headers, body) else {
            self.count(|counts| &mut counts.forged);
            return StatusCode::FORBIDDEN.into_response();
        };
        let now = self.twitch.clock.now();
        if !self.is_recent(sent, now) {
            self.count(|counts| &mut counts.stale);
            return StatusCode::FORBIDDEN.into_response();
        }
        let Ok(content) = serde_json::from_slice::<Content<'_>>(body) else {
            self.count(|counts| &mut counts.other);
            return StatusCode::NO_CONTENT.into_response();
        };
        let is_ours = content.subscription.kind == Kind::AuthorizationRevoke.name();
        match (kind, content.challenge, content.event) {
            ("webhook_callback_verification", Some(challenge), _) if is_ours => {
                self.count(|counts| &mut counts.challenges);
                self.check.notify_one();
                return ([(header::CONTENT_TYPE, "text/plain")], challenge).into_response();
            }
            ("notification", _, Some(event)) if is_ours => {
                if !self.received.lock().is_new("message", id, now) {
                    self.count(|counts| &mut counts.duplicate);
                } else if let Some(user) = revoked_user(event.get()) {
                    self.count(|counts| &mut counts.accepted);
                    (self.on_revoked)(&user);
                } else {
                    self.count(|counts| &mut counts.other);
                }
            }
            ("revocation", _, _) if is_ours => self.check.notify_one(),
            _ => self.count(|counts| &mut counts.other),
        }
        StatusCode::NO_CONTENT.into_response()
    }

    /// Returns message id, time and type of a delivery that was signed with the secret. Each header must be present once: with
    /// two, the checked one might not be the used one.
    fn verified<'a>(&self, headers: &'a HeaderMap, body: &[u8]) -> Option<(&'a str, Timestamp, &'a str)> {
        let one = |name: &str| {
            let mut all = headers.get_all(name).iter();
            let text = all.next()?.to_str().ok()?;
            all.next().is_none().then_some(text)
        };
        let id = one("twitch-eventsub-message-id").filter(|id| !id.is_empty())?;
        let timestamp = one("twitch-eventsub-message-timestamp")?;
        let signature = one("twitch-eventsub-message-signature")?.strip_prefix(SCHEME)?;
        let signed = [id.as_bytes(), timestamp.as_bytes(), body].concat();
        hmac::verify(&self.key(), &signed, &bytes_of(signature)?).ok()?;
        Some((id, timestamp.parse().ok()?, one("twitch-eventsub-message-type")?))
    }

    /// Returns whether a message was sent recently by a clock that may be Twitch's.
    fn is_recent(&self, sent: Timestamp, now: Timestamp) -> bool {
        let measured = self.twitch.skew.measured().unwrap_or_default();
        [0, measured, self.twitch.skew.correction()]
            .into_iter()
            .any(|offset| {
                let theirs = now.plus_millis(offset);
                theirs.since(sent).max(sent.since(theirs)) <= WINDOW
            })
    }

    /// Compares the subscription with Twitch's list, and creates it unless it exists with this secret. Returns its status.
    pub async fn reconcile(&self) -> Result<String, PlatformError> {
        let (twitch, app) = (&self.twitch, options::app());
        let name = Kind::AuthorizationRevoke.name();
        let (listed, _) = rest::list(twitch, &app, Some(("type", name))).await?;
        let stored = self.recall();
        let mut status = None;
        for info in listed
            .iter()
            .filter(|info| info.transport.callback == self.callback)
        {
            let is_usable =
                ["enabled", "webhook_callback_verification_pending"].contains(&info.status.as_str());
            let is_stored = stored
                .as_ref()
                .is_some_and(|stored| stored.id == info.id && stored.tag == self.tag());
            if is_usable && is_stored {
                status = Some(info.status.clone());
            } else {
                rest::delete(twitch, &app, &info.id).await?;
            }
        }
        match status {
            Some(status) => Ok(status),
            None => Ok(self.create().await),
        }
    }

    async fn create(&self) -> String {
        let client = self.twitch.options.client_id.clone().unwrap_or_default();
        let subscription = Subscription::new(Kind::AuthorizationRevoke, &client);
        let target = Target::Webhook {
            callback: self.callback.clone(),
            secret: self.secret.clone(),
        };
        match rest::create(&self.twitch, &options::app(), &target, &subscription).await {
            Created::Enabled { id, .. } => {
                self.keep(&id);
                "webhook_callback_verification_pending".to_owned()
            }
            Created::Refused { reason, .. }
            | Created::Unclear { reason }
            | Created::Crowded { reason, .. }
            | Created::Later { reason, .. }
            | Created::Unauthorized { reason } => reason,
            Created::Exists { .. } => "a subscription with this address exists already".to_owned(),
            Created::SessionGone => "Twitch refused the transport".to_owned(),
            Created::CostExceeded => "the points of the application are used".to_owned(),
        }
    }

    fn tag(&self) -> String {
        let tag = hmac::sign(&self.key(), self.callback.as_bytes());
        tag.as_ref().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn recall(&self) -> Option<Stored> {
        serde_json::from_slice(&files::read_input(&self.file, files::SMALL).ok()?).ok()
    }

    fn keep(&self, id: &str) {
        let stored = Stored {
            id: id.to_owned(),
            tag: self.tag(),
        };
        let durability = Durability::Volatile {
            because: "without it the subscription is created again at the next start",
        };
        let written = files::write(&self.file, FileAccess::Owner, durability, |file| {
            file.write_all(serde_json::to_string(&stored)?.as_bytes())
        });
        if let Err(error) = written {
            tracing::debug!(error = %error, "The id of the webhook's subscription cannot be stored");
        }
    }
}

/// Decodes lower-case hexadecimal digits.
fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let (pairs, _rest) = digits.as_chunks::<2>();
    let pairs = pairs.iter().map(|pair| str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// Returns the route that Twitch posts to, to be merged into the web server.
pub fn routes(webhook: Arc<RevocationWebhook>) -> Router {
    Router::new().route(PATH, post(receive)).with_state(webhook)
}

async fn receive(State(webhook): State<Arc<RevocationWebhook>>, headers: HeaderMap, body: Body) -> Response {
    match axum::body::to_bytes(body, LARGEST_BODY).await {
        Ok(body) => webhook.receive(&headers, &body),
        Err(_) => {
            webhook.count(|counts| &mut counts.oversized);
            StatusCode::PAYLOAD_TOO_LARGE.into_response()
        }
    }
}
