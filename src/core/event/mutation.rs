//! Optional mutations for the platform's state engine, published beside our events: live state, title, category.
//!
//! The state engine has one value per key for all channels together, and the platform's own connector sends these for Twitch.
//! Therefore they are disabled by default, and useful only where that connector receives nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::core::event::EventKind;
use crate::core::event::fields::text;

/// Lifetime in seconds, equal to that of the platform's own mutations of these keys.
const TTL: u64 = 21_600;
/// Event type in the header.
const STATE_MUTATION: &str = "state.mutation.v1";

/// One mutation, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Derived from the event's id.
    pub id: String,
    /// Message headers.
    pub attributes: BTreeMap<String, String>,
    /// JSON body.
    pub body: String,
}

/// Returns the mutations for one of our events: none unless a stream started or ended.
pub fn mutations(id: &str, body: &[u8]) -> Vec<Mutation> {
    let event: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let state = match text(&event, &["type"]).and_then(EventKind::from_wire) {
        Some(EventKind::StreamOnline) => "on",
        Some(EventKind::StreamOffline) => "off",
        Some(EventKind::SourceStatus) | None => return Vec::new(),
    };
    let values = [
        ("stream.state", Some(state)),
        ("stream.title", text(&event, &["payload", "title"])),
        ("stream.category", text(&event, &["payload", "gameName"])),
    ];
    values
        .into_iter()
        .filter_map(|(key, value)| Some(mutation(id, &event, key, value?)))
        .collect()
}

fn mutation(event_id: &str, event: &Value, key: &str, value: &str) -> Mutation {
    let name = format!("bitbrat mutation {key} {event_id}");
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string();
    let platform = text(event, &["payload", "platform"]).unwrap_or("system");
    let source = text(event, &["payload", "id"]).unwrap_or_default();
    let kind = text(event, &["externalEvent", "kind"]).unwrap_or("stream");
    let order = json!({
        "id": id, "op": "set", "key": key, "value": value, "actor": format!("bitbrat:{platform}"),
        "reason": format!("{kind} observed"), "ts": text(event, &["externalEvent", "createdAt"]), "ttl": TTL,
        "metadata": {"source": format!("{platform}:{source}"), "streamId": event["payload"]["streamId"]},
    });
    let attributes = [
        ("type", STATE_MUTATION.to_owned()),
        ("correlationId", id.clone()),
        ("idempotencyKey", id.clone()),
        ("source", format!("bitbrat.{platform}")),
    ];
    Mutation {
        attributes: attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        body: order.to_string(),
        id,
    }
}
