//! What the platform's state engine may be told beside our events: is it live, what is it called, what is played.
//!
//! It keeps one value per key for all channels together, and the platform's own connector sends these for Twitch; so this is
//! off unless somebody asks for it, and of use where that connector is blind.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::core::event::read::text;
use crate::core::event::{Event, EventKind};

/// Seconds that the platform's own mutations of these keys are good for.
const TTL: u64 = 21_600;
/// The type in the header.
const STATE_MUTATION: &str = "state.mutation.v1";

/// One order to the state engine, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Its id, which follows from the event's.
    pub id: String,
    /// Header fields.
    pub attributes: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// Returns the orders that follow from an event: none unless a stream started or ended.
pub fn mutations(event: &Event) -> Vec<Mutation> {
    let live = match event.kind {
        EventKind::SourceStatus => return Vec::new(),
        EventKind::StreamOnline => true,
        EventKind::StreamOffline => false,
    };
    let body: Value = serde_json::from_str(&event.body).unwrap_or(Value::Null);
    let told = |field: &str| text(&body, &["payload", field]).map(str::to_owned);
    let state = if live { "on" } else { "off" }.to_owned();
    let values = [
        ("stream.state", Some(state)),
        ("stream.title", told("title")),
        ("stream.category", told("gameName")),
    ];
    values
        .into_iter()
        .filter_map(|(key, value)| Some(mutation(event, &body, key, &value?)))
        .collect()
}

fn mutation(event: &Event, body: &Value, key: &str, value: &str) -> Mutation {
    let name = format!("bitbrat mutation {key} {}", event.id);
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string();
    let platform = event.source.platform();
    let reason = match event.kind {
        EventKind::StreamOnline => "stream.online observed",
        _ => "stream.offline observed",
    };
    let order = json!({
        "id": id, "op": "set", "key": key, "value": value, "actor": format!("bitbrat:{platform}"), "reason": reason,
        "ts": event.at.to_string(), "ttl": TTL,
        "metadata": {"source": event.source.to_string(), "streamId": body["payload"]["streamId"]},
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
