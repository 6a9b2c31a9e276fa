//! The receivers: the form of a message for each kind, and what a response means.

mod discord;
mod ntfy;
mod signature;
mod slack;
#[cfg(test)]
mod tests;
mod webhook;

use std::net::IpAddr;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use url::Url;

pub use signature::sign;

use super::incident::MessageKind;
use super::message::Message;
use super::rule::{Receiver, ReceiverKind};
use super::text::{Unit, clean, fit};
use crate::core::time::Timestamp;

/// How much of a response is quoted, in characters.
const QUOTED: usize = 200;

/// A request that is sent as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverRequest {
    /// `POST` or `PATCH`.
    pub method: &'static str,
    /// Where to.
    pub url: Url,
    /// Headers besides the content type, which is JSON.
    pub headers: Vec<(&'static str, String)>,
    /// The exact bytes.
    pub body: String,
}

/// What a response means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The message has arrived; the receiver may have named it, so that it can be edited.
    Accepted { remote_ref: Option<String> },
    /// It may be accepted later, not before the time that the receiver asks for.
    Later { wait: Option<Duration>, reason: String },
    /// The receiver does not exist any more, or does not accept us: nothing more is sent until someone acts.
    Stopped { reason: String },
    /// The message to be edited is gone.
    Gone,
    /// This message will not be accepted.
    Rejected { reason: String },
}

/// Builds the request of a message. `remote_ref` names the message that it replaces; `plain` asks for the simplest form, after
/// the receiver has rejected the usual one.
pub fn request(
    receiver: &Receiver,
    message: &Message,
    remote_ref: Option<&str>,
    plain: bool,
    now: Timestamp,
) -> ReceiverRequest {
    let mut request = match receiver.kind {
        ReceiverKind::Discord => discord::request(&receiver.url, message, remote_ref, plain),
        ReceiverKind::Slack => slack::request(&receiver.url, message, plain),
        ReceiverKind::Ntfy => ntfy::request(&receiver.url, message, plain),
        ReceiverKind::Webhook => webhook::request(&receiver.url, message),
    };
    if let Some(token) = &receiver.token {
        let value = format!("Bearer {}", token.expose_secret());
        request.headers.push(("authorization", value));
    }
    if receiver.kind == ReceiverKind::Webhook {
        let seconds = now.as_millis() / 1000;
        request.headers.push(("webhook-id", message.id.clone()));
        request.headers.push(("webhook-timestamp", seconds.to_string()));
        if let Some(key) = &receiver.signing_key {
            let signature = sign(key, &message.id, seconds, &request.body);
            request.headers.push(("webhook-signature", signature));
        }
    }
    request
}

/// Interprets a response. `header_wait` is what its headers ask to wait.
pub fn reply(
    kind: ReceiverKind,
    status: u16,
    header_wait: Option<Duration>,
    body: &[u8],
    is_edit: bool,
) -> Reply {
    let said = || fit(&clean(&String::from_utf8_lossy(body)), QUOTED, Unit::Characters);
    let reason = || match said() {
        said if said.is_empty() => format!("HTTP {status}"),
        said => format!("HTTP {status}: {said}"),
    };
    match status {
        200..=299 => {
            let id = (kind == ReceiverKind::Discord)
                .then(|| discord::message_id(body))
                .flatten();
            Reply::Accepted { remote_ref: id }
        }
        404 if is_edit => Reply::Gone,
        404 | 410 => Reply::Stopped { reason: reason() },
        401 if kind == ReceiverKind::Discord => Reply::Stopped { reason: reason() },
        403 if kind == ReceiverKind::Slack => Reply::Stopped { reason: reason() },
        408 | 425 | 429 | 500..=599 => {
            let in_body = || {
                let body: Value = serde_json::from_slice(body).ok()?;
                Duration::try_from_secs_f64(body.get("retry_after")?.as_f64()?).ok()
            };
            // The body of Discord has fractions of a second, and its header has whole ones.
            let wait = in_body()
                .max(header_wait)
                .filter(|_| status == 429 || status == 503);
            Reply::Later {
                wait,
                reason: reason(),
            }
        }
        300..=399 => Reply::Rejected {
            reason: format!("HTTP {status}: redirects are not followed; correct the address"),
        },
        _ => Reply::Rejected { reason: reason() },
    }
}

/// A color for a message: red for what broke, green for what recovered, amber for what is unstable, blue for the rest.
fn color(message: &Message) -> u32 {
    use super::trigger::TriggerKind::{StreamOffline, StreamOnline};
    match (message.kind, message.trigger) {
        (MessageKind::Test, _) | (_, Some(StreamOnline | StreamOffline)) => 0x0037_72ff,
        (MessageKind::Open, _) => 0x00d7_263d,
        (MessageKind::Flapping, _) => 0x00f4_9d37,
        (MessageKind::Close, _) => 0x002a_9d5c,
    }
}

/// Whether a host is written as an address inside a private network, or as this machine. A receiver there is only allowed on
/// purpose: otherwise, who can set the address could make us send requests into the network.
pub fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => is_private_address(address.into()),
        Some(url::Host::Ipv6(address)) => is_private_address(address.into()),
        Some(url::Host::Domain(name)) => {
            let last = name.trim_end_matches('.').rsplit('.').next();
            matches!(last, Some("localhost" | "local" | "internal"))
        }
        None => true,
    }
}

/// Whether an address is not one of the public network.
pub fn is_private_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_multicast()
                || first == 0
                // Shared address space of carriers.
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_multicast()
        }
    }
}
