//! Understanding what is on the bus: our events, our older events, those of BitBrat's own services, and the rest. What an
//! event claims that brings no evidence of ours is for `claims` to weigh.
//!
//! Everything odd is tolerated as long as it leaves no doubt about the fact and its source. What claims a fact that
//! cannot be used is a dead letter; what claims nothing that concerns us is ignored, and counted by why.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::core::document::SCHEMA_VERSION;
use crate::core::event::chat::{self, Heard};
use crate::core::event::dead::Dead;
use crate::core::event::fields::{storable, text};
use crate::core::event::{EventKind, claims};
use crate::core::evidence::Knowledge;
use crate::core::join::Join;
use crate::core::observation::Observation;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;

/// Bodies larger than this are not read. A NATS server refuses them by default before they travel.
pub const MAX_BODY: usize = 1024 * 1024;
/// On which side of the platform a message was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Topic `internal.ingress.v1`.
    Ingress,
    /// Any egress topic.
    Egress,
}

/// What a message means to us.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// Knowledge about a source.
    Learnt(Box<Learnt>),
    /// A chat message to count.
    Chat(Heard),
    /// Nothing.
    Ignored(Ignored),
    /// It can never be used, and should be reported.
    Dead(Dead),
}

/// Knowledge about one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    /// The event's id.
    pub id: Option<String>,
    /// The source.
    pub source: SourceKey,
    /// What to join.
    pub knowledge: Knowledge,
    /// The changes that the sender told, for the history. Only our own events name them.
    pub transitions: Vec<Transition>,
    /// Who sent it.
    pub origin: Origin,
}

/// Who sent an event about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This program, with its evidence.
    Ours,
    /// This program before events carried evidence, or someone who writes events by its documentation.
    OursWithoutEvidence,
    /// One of BitBrat's own connectors.
    Foreign,
}

/// Why a message means nothing to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// It came in through the API gateway, where every client chooses the type itself.
    Forged,
    /// A system event on an egress topic is a text for chat, not a fact.
    SystemOnEgress,
    /// A system event of a type that we do not know.
    OtherSystemEvent,
    /// An event of another kind.
    NotAboutSources,
    /// Chat that belongs to no source, or is not delivered.
    ChatOfNoSource,
    /// It is about a source, but claims nothing that we take over from others.
    NoEvidence,
}

impl Ignored {
    /// Returns the name that counters carry.
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

/// Reads one message. `attributes` are its header fields under lower-case names; `received` is when it arrived.
pub fn read(side: Side, attributes: &BTreeMap<String, String>, data: &[u8], received: Timestamp) -> Reading {
    if data.len() > MAX_BODY {
        let reason = format!("it has {} bytes; at most {MAX_BODY} are read", data.len());
        return Reading::Dead(Dead::new("body.too_large", reason));
    }
    let event = match serde_json::from_slice::<Value>(data) {
        Ok(event @ Value::Object(_)) => event,
        Ok(_) => return Reading::Dead(Dead::new("json.not_an_object", "it is not a JSON object")),
        Err(error) => {
            let reason = format!("it is not JSON ({error})");
            return Reading::Dead(Dead::new("json.invalid", reason));
        }
    };
    let from_header = |name: &str| attributes.get(name).map(String::as_str);
    let kind = match event.get("type") {
        Some(Value::String(kind)) => Some(kind.as_str()),
        None | Some(Value::Null) => from_header("type"),
        Some(_) => return Reading::Dead(Dead::new("type.not_text", "its `type` is not text")),
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
            Ok(Some(learnt)) => Reading::Learnt(Box::new(Learnt {
                id: id.map(str::to_owned),
                ..learnt
            })),
            Ok(None) => Reading::Ignored(Ignored::NoEvidence),
            Err(dead) => Reading::Dead(Dead {
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

fn counted(heard: Option<Heard>) -> Reading {
    heard.map_or(Reading::Ignored(Ignored::ChatOfNoSource), Reading::Chat)
}

/// Clients of the API gateway choose the type of what they send, so nothing from there is a fact; nor is what the
/// scheduler sends chat of people.
fn from_gateway(event: &Value) -> bool {
    text(event, &["ingress", "source"]).is_some_and(|source| {
        source
            .split('.')
            .any(|part| part.eq_ignore_ascii_case("api-gateway") || part.eq_ignore_ascii_case("scheduler"))
    })
}

fn about_source(kind: EventKind, event: &Value, received: Timestamp) -> Result<Option<Learnt>, Dead> {
    let source = claims::source(event)?;
    let payload = event.get("payload").and_then(Value::as_object);
    if let Some(payload) = payload.filter(|payload| payload.get("evidence").is_some_and(Value::is_object)) {
        return ours(source, payload).map(Some);
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
        knowledge.learn(&Observation::new(&source, at, ingress, fact));
    }
    Ok((knowledge != Knowledge::default()).then(|| Learnt {
        id: None,
        source,
        knowledge,
        transitions: Vec::new(),
        origin,
    }))
}

fn ours(source: SourceKey, payload: &Map<String, Value>) -> Result<Learnt, Dead> {
    let newer = payload
        .get("schemaVersion")
        .and_then(Value::as_u64)
        .is_some_and(|version| version > u64::from(SCHEMA_VERSION));
    let unreadable = |field: &str, reason: String| {
        let hint = if newer {
            "; it was sent by a newer bitbrat"
        } else {
            ""
        };
        Dead::new(
            "evidence.unreadable",
            format!("its {field} cannot be read ({reason}){hint}"),
        )
    };
    let mut parts = Map::new();
    for field in ["evidence", "counters"] {
        if let Some(value) = payload.get(field).filter(|value| !value.is_null()) {
            storable(value).map_err(|reason| unreadable(field, reason))?;
            parts.insert(field.to_owned(), value.clone());
        }
    }
    let knowledge: Knowledge = serde_json::from_value(Value::Object(parts))
        .map_err(|error| unreadable("evidence", error.to_string()))?;
    // A change that cannot be read costs a line of history, not the evidence.
    let transitions = payload
        .get("transitions")
        .and_then(Value::as_array)
        .map(|changes| {
            changes
                .iter()
                .filter_map(|change| serde_json::from_value(change.clone()).ok())
                .collect()
        })
        .unwrap_or_default();
    Ok(Learnt {
        id: None,
        source,
        knowledge: rejoined(knowledge),
        transitions,
        origin: Origin::Ours,
    })
}

/// Joins knowledge to nothing, so that what came in keeps the bounds that a join keeps.
fn rejoined(knowledge: Knowledge) -> Knowledge {
    let mut clean = Knowledge::default();
    clean.join(knowledge);
    clean
}
