//! Interpretation of messages on the bus: our events, older versions of our events, those of BitBrat's services, and others.
//! The claims of events without our evidence are evaluated in `claims`.
//!
//! Irregular messages are accepted as long as the fact and its source are unambiguous. A message that claims a fact but cannot
//! be used becomes a dead letter; a message that does not concern us is ignored and counted by reason.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::core::code::Code;
use crate::core::document::{SCHEMA_VERSION, whole_numbers};
use crate::core::event::chat::{self, ChatEvent};
use crate::core::event::dead_letter::Unprocessable;
use crate::core::event::fields::{storable, text};
use crate::core::event::{EventKind, claims};
use crate::core::evidence::{Knowledge, bounds};
use crate::core::future::is_too_far_ahead;
use crate::core::join::Join;
use crate::core::json;
use crate::core::observation::Observation;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;

/// Larger bodies are not parsed. A NATS server rejects them by default when they are published.
pub const MAX_BODY: usize = 1024 * 1024;
/// The topic group from which a message was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Topic `internal.ingress.v1`.
    Ingress,
    /// Any egress topic.
    Egress,
}

/// Interpretation of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// Knowledge about a source.
    SourceUpdate(Box<SourceUpdate>),
    /// A chat message to count.
    Chat(ChatEvent),
    /// Not relevant, with the reason.
    Ignored(Ignored),
    /// Can never be processed, and should be reported as a dead letter.
    Unprocessable(Unprocessable),
}

/// Knowledge about one source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceUpdate {
    /// The event's id, if it has one.
    pub id: Option<String>,
    /// The source that the event describes.
    pub source: SourceKey,
    /// Knowledge to join.
    pub knowledge: Knowledge,
    /// The transitions in the event, for the history. Only our own events contain them.
    pub transitions: Vec<Transition>,
    /// Sender of the event.
    pub origin: Origin,
}

/// Sender of an event about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This program, with its evidence.
    Ours,
    /// An older version of this program, or another program that follows our documentation of events.
    OursWithoutEvidence,
    /// One of BitBrat's own connectors.
    Foreign,
}

/// Reason why a message is not relevant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// Received through the API gateway, where clients choose the type themselves.
    Forged,
    /// A system event on an egress topic, which is a text for chat and not a fact.
    SystemOnEgress,
    /// A system event of an unknown type.
    OtherSystemEvent,
    /// An event of another kind.
    NotAboutSources,
    /// Chat that belongs to no source, or is not delivered.
    ChatOfNoSource,
    /// About a source, but without claims that are accepted from other programs.
    NoEvidence,
}

impl Ignored {
    /// Returns the label used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::SystemOnEgress => "system_on_egress",
            Self::OtherSystemEvent => "other_system_event",
            Self::NotAboutSources => "not_about_sources",
            Self::ChatOfNoSource => "chat_of_no_source",
            Self::NoEvidence => "no_evidence",
        }
    }
}

/// Interprets one message. `attributes` are its headers with lower-case names; `received` is the time of receipt.
pub fn read(side: Side, attributes: &BTreeMap<String, String>, data: &[u8], received: Timestamp) -> Reading {
    if data.len() > MAX_BODY {
        let reason = format!("it has {} bytes; at most {MAX_BODY} are read", data.len());
        return Reading::Unprocessable(Unprocessable::new(Code::BodyTooLarge, reason));
    }
    // Chat may contain unpaired surrogates, which Node writes as escapes that strict parsers reject.
    let event = match json::read::<Value>(data) {
        Ok(event @ Value::Object(_)) => event,
        Ok(_) => {
            return Reading::Unprocessable(Unprocessable::new(
                Code::JsonNotAnObject,
                "it is not a JSON object",
            ));
        }
        Err(error) => {
            let reason = format!("it is not JSON ({error})");
            return Reading::Unprocessable(Unprocessable::new(Code::JsonInvalid, reason));
        }
    };
    let from_header = |name: &str| attributes.get(name).map(String::as_str);
    let kind = match event.get("type") {
        Some(Value::String(kind)) => Some(kind.as_str()),
        None | Some(Value::Null) => from_header("type"),
        Some(_) => {
            return Reading::Unprocessable(Unprocessable::new(Code::TypeNotText, "its `type` is not text"));
        }
    };
    let id = text(&event, &["correlationId"]).or_else(|| from_header("correlationid"));
    let Some(kind) = kind else {
        return Reading::Ignored(Ignored::NotAboutSources);
    };
    if from_gateway(&event) {
        return Reading::Ignored(Ignored::Forged);
    }
    let system = kind.starts_with("system.");
    match (side, EventKind::from_wire(kind)) {
        (Side::Egress, _) if system => Reading::Ignored(Ignored::SystemOnEgress),
        (Side::Egress, _) => counted(chat::outbound(&event, id.unwrap_or_default())),
        (Side::Ingress, Some(known)) => match about_source(known, &event, received) {
            Ok(Some(evidence_update)) => Reading::SourceUpdate(Box::new(SourceUpdate {
                id: id.map(str::to_owned),
                ..evidence_update
            })),
            Ok(None) => Reading::Ignored(Ignored::NoEvidence),
            Err(dead) => Reading::Unprocessable(Unprocessable {
                original_id: id.map(str::to_owned),
                original_type: Some(kind.to_owned()),
                ..dead
            }),
        },
        (Side::Ingress, None) if system => Reading::Ignored(Ignored::OtherSystemEvent),
        (Side::Ingress, None) if chat::is_chat(kind) => {
            counted(chat::inbound(&event, id.unwrap_or_default()))
        }
        (Side::Ingress, None) => Reading::Ignored(Ignored::NotAboutSources),
    }
}

fn counted(incoming: Option<ChatEvent>) -> Reading {
    incoming.map_or(Reading::Ignored(Ignored::ChatOfNoSource), Reading::Chat)
}

/// Clients of the API gateway choose the type of what they send, so no event from there is a fact; nor are events of the
/// scheduler chat of people.
fn from_gateway(event: &Value) -> bool {
    text(event, &["ingress", "source"]).is_some_and(|source| {
        source
            .split('.')
            .any(|part| part.eq_ignore_ascii_case("api-gateway") || part.eq_ignore_ascii_case("scheduler"))
    })
}

fn about_source(
    kind: EventKind,
    event: &Value,
    received: Timestamp,
) -> Result<Option<SourceUpdate>, Unprocessable> {
    let source = claims::source(event)?;
    let payload = event.get("payload").and_then(Value::as_object);
    if let Some(payload) = payload.filter(|payload| payload.get("evidence").is_some_and(Value::is_object)) {
        return ours(source, payload, received).map(Some);
    }
    let at = claims::time(kind, event, received)?;
    let ingress = text(event, &["ingress", "source"]).unwrap_or("bus");
    let origin = if ingress.starts_with("ingress.bitbrat.") {
        Origin::OursWithoutEvidence
    } else {
        Origin::Foreign
    };
    let facts = claims::facts(kind, &source, event, origin == Origin::Foreign)?;
    let mut knowledge = Knowledge::default();
    for fact in facts {
        knowledge.update(&Observation::new(&source, at, ingress, fact).received(received));
    }
    Ok((knowledge != Knowledge::default()).then(|| SourceUpdate {
        id: None,
        source,
        knowledge,
        transitions: Vec::new(),
        origin,
    }))
}

fn ours(
    source: SourceKey,
    payload: &Map<String, Value>,
    received: Timestamp,
) -> Result<SourceUpdate, Unprocessable> {
    let newer = payload
        .get("schemaVersion")
        .and_then(Value::as_f64)
        .is_some_and(|version| version > f64::from(SCHEMA_VERSION));
    let unreadable = |field: &str, reason: String| {
        let hint = if newer {
            "; it was sent by a newer bitbrat"
        } else {
            ""
        };
        Unprocessable::new(
            Code::EvidenceUnreadable,
            format!("its {field} cannot be read ({reason}){hint}"),
        )
    };
    let mut parts = Map::new();
    for field in ["evidence", "counters"] {
        if let Some(value) = payload.get(field).filter(|value| !value.is_null()) {
            storable(value).map_err(|reason| unreadable(field, reason))?;
            parts.insert(field.to_owned(), whole_numbers(value.clone()));
        }
    }
    let mut knowledge: Knowledge = serde_json::from_value(Value::Object(parts))
        .map_err(|error| unreadable("evidence", error.to_string()))?;
    bounds::apply(&mut knowledge.evidence);
    let refused = knowledge.drop_future(received);
    if refused && knowledge == Knowledge::default() {
        let reason =
            "all its evidence is dated in the future; the clock of its sender or of this machine is wrong";
        return Err(Unprocessable::new(Code::TimeFuture, reason));
    }
    // A transition that cannot be parsed is missing from the history; the evidence is still used.
    let transitions = payload
        .get("transitions")
        .and_then(Value::as_array)
        .map(|changes| {
            changes
                .iter()
                .filter_map(|change| serde_json::from_value(change.clone()).ok())
                .filter(|change: &Transition| !is_too_far_ahead(change.at, received))
                .collect()
        })
        .unwrap_or_default();
    Ok(SourceUpdate {
        id: None,
        source,
        knowledge: rejoined(knowledge),
        transitions,
        origin: Origin::Ours,
    })
}

/// Joins received knowledge to an empty value, so that the size limits of a join apply to it.
fn rejoined(knowledge: Knowledge) -> Knowledge {
    let mut clean = Knowledge::default();
    clean.join(knowledge);
    clean
}
