//! Understanding what is on the bus: our events, our older events, those of BitBrat's own services, and the rest.
//!
//! Everything odd is tolerated as long as it leaves no doubt about the fact and its source. What claims a fact that
//! cannot be used is a dead letter; what claims nothing that concerns us is ignored, and counted by why.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::core::document::SCHEMA_VERSION;
use crate::core::event::EventKind;
use crate::core::event::chat::{self, Heard};
use crate::core::event::dead::Dead;
use crate::core::evidence::Knowledge;
use crate::core::join::Join;
use crate::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState, Observation, Transport,
};
use crate::core::source::{InvalidSourceKey, PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::core::transition::Transition;

/// Bodies larger than this are not read. A NATS server refuses them by default before they travel.
pub const MAX_BODY: usize = 1024 * 1024;
/// How far another program's clock may be ahead of ours (ms). A time beyond it would outweigh every true one until
/// it has passed.
const MAX_AHEAD: i64 = 10 * 60 * 1000;

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
    let source = source(event)?;
    let payload = event.get("payload").and_then(Value::as_object);
    if let Some(payload) = payload.filter(|payload| payload.get("evidence").is_some_and(Value::is_object)) {
        return ours(source, payload).map(Some);
    }
    let at = event_time(kind, event, received)?;
    let ingress = text(event, &["ingress", "source"]).unwrap_or("bus");
    let origin = if ingress.starts_with("ingress.bitbrat.") {
        Origin::OursWithoutEvidence
    } else {
        Origin::Foreign
    };
    let facts = match kind {
        EventKind::SourceStatus => status_facts(&source, event, origin),
        EventKind::StreamOnline | EventKind::StreamOffline => stream_facts(kind, &source, event)?,
    };
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

/// What a status event without evidence proves. Of other programs' claims only what is no claim about connection or
/// authorisation is taken over: their connectors report CONNECTED while disabled and VALID by default.
fn status_facts(source: &SourceKey, event: &Value, origin: Origin) -> Vec<Fact> {
    let Some(payload) = body(event) else {
        return Vec::new();
    };
    let error = payload.get("lastError").and_then(|error| {
        let message = text(error, &["message"])?;
        Some(ErrorInfo::new(
            text(error, &["code"]).unwrap_or("unknown"),
            message,
        ))
    });
    let mut facts = profile(event);
    if origin == Origin::Foreign {
        facts.extend(error.map(|error| Fact::Problem { error }));
        return facts;
    }
    let state = match (text(payload, &["status"]), error) {
        (Some("CONNECTED"), _) => Some(LinkState::Up),
        (Some("DISCONNECTED"), Some(error)) => Some(LinkState::Down { error }),
        (Some("DISCONNECTED"), None) => Some(LinkState::Closed),
        (Some("ERROR"), error) => Some(LinkState::Refused {
            error: error.unwrap_or_else(|| ErrorInfo::new("unknown", "no reason was given")),
        }),
        _ => None,
    };
    facts.extend(state.map(|state| Fact::Connection {
        transport: Transport::Api,
        state,
    }));
    let result = match text(payload, &["authStatus"]) {
        Some("VALID") => Some(AuthResult::Valid),
        Some("EXPIRED") => Some(AuthResult::Expired),
        Some("REVOKED") => Some(AuthResult::Revoked),
        _ => None,
    };
    facts.extend(result.map(|result| Fact::Auth {
        identity: Identity::named(format!("{}/bot", source.platform())),
        check: AuthCheck {
            result,
            expires_at: None,
            scopes: std::collections::BTreeSet::new(),
            reason: None,
        },
    }));
    let latency = field(payload, &["metadata", "latencyMs"]).and_then(Value::as_u64);
    facts.extend(latency.map(|millis| Fact::Latency { millis }));
    facts
}

fn stream_facts(kind: EventKind, source: &SourceKey, event: &Value) -> Result<Vec<Fact>, Dead> {
    let live = kind == EventKind::StreamOnline;
    let stream_id = stream_id(live, source, event)?;
    let started_at = ["payload", "externalEvent.metadata"]
        .into_iter()
        .find_map(|part| {
            let path: Vec<_> = part.split('.').chain(["startedAt"]).collect();
            text(event, &path)?.parse().ok()
        });
    let viewers = body(event)
        .and_then(|payload| payload.get("viewer_count"))
        .and_then(Value::as_u64)
        .filter(|_| live);
    let mut facts = profile(event);
    facts.extend(viewers.map(|count| Fact::Viewers {
        count,
        stream_id: stream_id.clone(),
    }));
    facts.push(Fact::StreamPush {
        live,
        stream_id,
        started_at: started_at.filter(|_| live),
    });
    Ok(facts)
}

/// The stream's id. BitBrat's connectors put it where the source's id belongs (`metadata.id`); when a stream ends they
/// know none and make one up.
fn stream_id(live: bool, source: &SourceKey, event: &Value) -> Result<Option<String>, Dead> {
    let paths: [&[&str]; 4] = [
        &["payload", "streamId"],
        &["externalEvent", "metadata", "streamId"],
        &["externalEvent", "metadata", "id"],
        &["externalEvent", "id"],
    ];
    let told = paths.into_iter().enumerate().find_map(|(n, path)| {
        let id = id_text(field(event, path)?)?;
        let id = id.strip_prefix("offline-").unwrap_or(&id).to_owned();
        let certain = n < 2 || (id.bytes().all(|byte| byte.is_ascii_digit()) && (live || n == 3));
        (certain && id != source.id()).then_some(id)
    });
    match told {
        Some(id) if !storable_key(&id) => Err(Dead::new("stream.id", "its stream id cannot be a stream's")),
        told => Ok(told),
    }
}

/// How the source presents itself, as far as an event says it.
fn profile(event: &Value) -> Vec<Fact> {
    let first = |paths: &[&[&str]]| {
        let found = paths.iter().find_map(|path| text(event, path));
        found.map(|value| value.chars().take(300).collect::<String>())
    };
    let metadata = "metadata";
    let fields = [
        (
            "displayName",
            first(&[
                &["payload", "displayName"],
                &["payload", "broadcasterDisplayName"],
                &["externalEvent", metadata, "broadcasterDisplayName"],
            ]),
        ),
        (
            "login",
            first(&[
                &["payload", metadata, "login"],
                &["payload", "broadcasterLogin"],
                &["externalEvent", metadata, "broadcasterLogin"],
            ]),
        ),
        (
            "title",
            first(&[&["payload", "title"], &["externalEvent", metadata, "title"]]),
        ),
        ("category", first(&[&["payload", "gameName"]])),
    ];
    let fields: BTreeMap<_, _> = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    if fields.is_empty() {
        Vec::new()
    } else {
        vec![Fact::Profile { fields }]
    }
}

/// The time of the event itself, never that of its arrival as long as it names one.
fn event_time(kind: EventKind, event: &Value, received: Timestamp) -> Result<Timestamp, Dead> {
    let paths: &[&[&str]] = match kind {
        EventKind::SourceStatus => &[&["payload", "metadata", "observedAt"], &["ingress", "ingressAt"]],
        EventKind::StreamOnline => &[
            &["externalEvent", "createdAt"],
            &["payload", "startedAt"],
            &["ingress", "ingressAt"],
        ],
        EventKind::StreamOffline => &[
            &["externalEvent", "createdAt"],
            &["payload", "endedAt"],
            &["ingress", "ingressAt"],
        ],
    };
    let told = paths.iter().find_map(|path| text(event, path)?.parse().ok());
    let at: Timestamp = told.unwrap_or(received);
    if at.millis_since(received) > MAX_AHEAD {
        return Err(Dead::new(
            "time.future",
            format!("its time {at} lies in the future"),
        ));
    }
    Ok(at)
}

/// Finds out which source an event is about, preferring the fields that BitBrat's connectors never fill with another
/// id (a stream's, the bot's).
fn source(event: &Value) -> Result<SourceKey, Dead> {
    let platform_paths: [&[&str]; 5] = [
        &["payload", "platform"],
        &["identity", "external", "platform"],
        &["payload", "source"],
        &["externalEvent", "source"],
        &["ingress", "connector"],
    ];
    let platform: PlatformName = platform_paths
        .iter()
        .filter_map(|path| text(event, path))
        .find_map(|told| told.split([':', '.']).next()?.to_ascii_lowercase().parse().ok())
        .ok_or_else(|| Dead::new("source.platform", "it names no platform that has sources"))?;
    let id_paths: [&[&str]; 4] = [
        &["payload", "broadcasterId"],
        &["externalEvent", "metadata", "broadcasterId"],
        &["payload", "id"],
        &["identity", "external", "id"],
    ];
    let after_colon = || Some(text(event, &["payload", "source"])?.split_once(':')?.1.to_owned());
    let id = id_paths
        .iter()
        .find_map(|path| id_text(field(event, path)?))
        .or_else(after_colon)
        .ok_or_else(|| Dead::new("source.id", "it names no source"))?;
    SourceKey::new(platform, &id).map_err(|error: InvalidSourceKey| Dead::new("source.id", error.to_string()))
}

/// The part of an event that describes its fact: the payload, else the metadata of the outside event.
fn body(event: &Value) -> Option<&Value> {
    let payload = event
        .get("payload")
        .filter(|payload| payload.as_object().is_some_and(|it| !it.is_empty()));
    payload.or_else(|| field(event, &["externalEvent", "metadata"]))
}

/// Says why a value could not be stored in every store: Firestore refuses arrays in arrays, empty keys, reserved keys and deep
/// nesting, and one odd value would cost the whole document.
fn storable(value: &Value) -> Result<(), String> {
    fn check(value: &Value, in_array: bool, depth: usize) -> Result<(), String> {
        match value {
            _ if depth > 12 => Err("nested too deeply".to_owned()),
            Value::Array(_) if in_array => Err("an array within an array".to_owned()),
            Value::Array(items) => items.iter().try_for_each(|item| check(item, true, depth + 1)),
            Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
                if !storable_key(key) {
                    return Err("an empty, reserved or oversized key".to_owned());
                }
                check(value, false, depth + 1)
            }),
            _ => Ok(()),
        }
    }
    check(value, false, 0)
}

fn storable_key(key: &str) -> bool {
    let reserved = key.len() >= 4 && key.starts_with("__") && key.ends_with("__");
    !key.is_empty() && key.len() <= 200 && !reserved && !key.chars().any(char::is_control)
}

/// Follows a path of field names.
pub(super) fn field<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

/// Follows a path to a text that is not empty.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    field(value, path)?.as_str().filter(|text| !text.is_empty())
}

/// An id, which some senders write as a number.
pub(super) fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
