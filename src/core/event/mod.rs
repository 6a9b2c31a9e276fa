//! Events: how a change of a source is told on the bus, and how what is told there is understood.
//!
//! Telling is strict and byte-stable, because programs that we do not control store it. Reading is tolerant. Both ends use
//! the same join, so order, repetition and loss of all but the last event do not matter to what our consumer ends up with.

pub mod chat;
mod claims;
pub mod dead;
mod delta;
pub mod fields;
pub mod mutation;
mod naming;
pub mod read;
pub mod routing;
pub mod wire;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::counters;
use crate::core::document::{SCHEMA_VERSION, SourceDocument};
use crate::core::facet::Facet;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::core::verdict::Status;

pub use delta::delta;

/// Seconds that the platform keeps one of our status events. They are of no use after a day.
const STATUS_TTL: u64 = 86_400;

/// The kinds of event that we tell. The texts are the platform's, and consumers compare them exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EventKind {
    /// How a source is: connection, authorisation, permissions, totals.
    #[serde(rename = "system.source.status")]
    SourceStatus,
    /// A stream started or came back.
    #[serde(rename = "system.stream.online")]
    StreamOnline,
    /// A stream ended.
    #[serde(rename = "system.stream.offline")]
    StreamOffline,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SourceStatus, Self::StreamOnline, Self::StreamOffline];

    /// Returns the text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceStatus => "system.source.status",
            Self::StreamOnline => "system.stream.online",
            Self::StreamOffline => "system.stream.offline",
        }
    }

    /// Returns the kind with this text on the wire.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One event, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Deterministic; also the bus's de-duplication id.
    pub id: String,
    /// The source that it is about.
    pub source: SourceKey,
    /// Its kind.
    pub kind: EventKind,
    /// Whether it tells a change. What does not may be spread over time, and is superseded by its successors.
    pub urgent: bool,
    /// When what it tells happened.
    pub at: Timestamp,
    /// Header fields, in the camel case that the platform's duplicate filter looks for.
    pub attributes: BTreeMap<String, String>,
    /// The body: one JSON object.
    pub body: String,
}

/// What there is to tell about a source.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The source as the bus was last told of it (about which nothing is known when it never was).
    pub before: &'a SourceDocument,
    /// The source as it is.
    pub after: &'a SourceDocument,
    /// Who told us, as in [`crate::core::observation::Observation::by`].
    pub by: &'a str,
    /// When we learnt of it.
    pub observed_at: Timestamp,
}

impl Told<'_> {
    /// Returns the events that tell `changes`: at most one of the source's status and one of its stream. Each carries all
    /// that was learnt since `before`, so that neither needs the other.
    pub fn events(&self, changes: &[Transition]) -> Vec<Event> {
        let (of_stream, of_state): (Vec<_>, Vec<_>) = changes
            .iter()
            .cloned()
            .partition(|change| stream_kind(change).is_some());
        let status = (!of_state.is_empty()).then(|| {
            let at = of_state
                .iter()
                .map(|change| change.at)
                .max()
                .unwrap_or(self.observed_at);
            self.status(&naming::status_discriminator(&of_state), at, of_state, true)
        });
        let streams = of_stream
            .into_iter()
            .filter_map(|change| stream_kind(&change).map(|kind| self.stream(kind, change)));
        status.into_iter().chain(streams).collect()
    }

    fn status(&self, discriminator: &str, at: Timestamp, changes: Vec<Transition>, urgent: bool) -> Event {
        let document = self.after;
        let key = &document.key;
        let record = document.record();
        let totals = counters::sum(&document.knowledge.counters);
        let id = naming::correlation_id(EventKind::SourceStatus, key, discriminator);
        let payload = wire::StatusPayload {
            source: key.to_string(),
            platform: key.platform(),
            id: key.id().to_owned(),
            display_name: record.display_name.clone(),
            status: record.status.to_string(),
            auth_status: record.auth_status.map(|auth| auth.to_string()),
            last_error: record.last_error.filter(|_| record.status != Status::Connected),
            metrics: wire::Totals {
                messages_in: totals.messages_in,
                messages_out: totals.messages_out,
                errors: totals.errors,
                reconnects: totals.reconnects,
            },
            metadata: wire::StatusMetadata {
                login: profile(document, "login"),
                observed_at: at.to_string(),
                latency_ms: record.latency_ms,
            },
            ours: self.ours(changes),
        };
        let envelope = wire::Envelope {
            v: "2".to_owned(),
            kind: EventKind::SourceStatus,
            trace_id: Some(id.replace('-', "")),
            correlation_id: id,
            ingress: wire::Ingress {
                ingress_at: self.observed_at.to_string(),
                source: STATUS_SOURCE.to_owned(),
                connector: SYSTEM.to_owned(),
                channel: None,
            },
            identity: wire::Identity {
                external: wire::External {
                    id: key.id().to_owned(),
                    platform: key.platform(),
                    display_name: record.display_name,
                    metadata: None,
                },
            },
            egress: wire::Egress {
                destination: String::new(),
                connector: SYSTEM.to_owned(),
                channel: None,
            },
            external_event: None,
            payload: wire::Payload::Status(Box::new(payload)),
            qos: Some(wire::Qos {
                persistence_ttl_sec: STATUS_TTL,
            }),
            routing: wire::Routing::quiet(),
        };
        self.seal(&envelope, at, urgent)
    }

    fn stream(&self, kind: EventKind, change: Transition) -> Event {
        let document = self.after;
        let key = &document.key;
        let discriminator = naming::stream_discriminator(self.before, document, &change);
        let id = naming::correlation_id(kind, key, &discriminator);
        let at = change.at;
        let online = kind == EventKind::StreamOnline;
        let login = profile(document, "login");
        let name = document.display_name().map(str::to_owned);
        let session = document.verdict.session.as_ref();
        let started = session
            .and_then(|session| session.started_at)
            .map(|at| at.to_string());
        let ended = session.and_then(|session| session.ended_at).unwrap_or(at);
        let live_only = |value: Option<String>| value.filter(|_| online);
        let connector = connector(key.platform());
        let channel = login
            .as_ref()
            .filter(|_| key.platform() == PlatformName::Twitch)
            .map(|login| format!("#{login}"));
        let external_id = match (&change.stream_id, online) {
            (Some(stream), true) => stream.clone(),
            (Some(stream), false) => format!("offline-{stream}"),
            (None, _) => format!("{}-{id}", if online { "online" } else { "offline" }),
        };
        let payload = wire::StreamPayload {
            platform: key.platform(),
            id: key.id().to_owned(),
            broadcaster_id: key.id().to_owned(),
            broadcaster_login: live_only(login.clone()),
            broadcaster_display_name: live_only(name.clone()),
            stream_id: change.stream_id.clone(),
            kind: live_only(Some("live".to_owned())),
            title: live_only(profile(document, "title")),
            game_name: live_only(profile(document, "category")),
            started_at: live_only(started.clone()),
            ended_at: (!online).then(|| ended.to_string()),
            viewer_count: if online {
                document.verdict.viewer_count
            } else {
                Some(0)
            },
            ours: self.ours(vec![change]),
        };
        let envelope = wire::Envelope {
            v: "2".to_owned(),
            kind,
            correlation_id: id,
            trace_id: None,
            ingress: wire::Ingress {
                ingress_at: self.observed_at.to_string(),
                source: format!("ingress.{}", self.by),
                connector: connector.to_owned(),
                channel: channel.clone(),
            },
            identity: wire::Identity {
                external: wire::External {
                    id: key.id().to_owned(),
                    platform: key.platform(),
                    display_name: name.clone(),
                    metadata: login.clone().map(|login| wire::ExternalMetadata { login }),
                },
            },
            egress: wire::Egress {
                destination: String::new(),
                connector: connector.to_owned(),
                channel,
            },
            external_event: Some(wire::ExternalEvent {
                id: external_id,
                source: self.by.to_owned(),
                kind: if online { "stream.online" } else { "stream.offline" }.to_owned(),
                version: "1".to_owned(),
                created_at: at.to_string(),
                metadata: wire::Broadcaster {
                    broadcaster_id: key.id().to_owned(),
                    broadcaster_login: login,
                    broadcaster_display_name: name,
                    started_at: live_only(started),
                },
            }),
            payload: wire::Payload::Stream(Box::new(payload)),
            qos: None,
            routing: wire::Routing::quiet(),
        };
        self.seal(&envelope, at, true)
    }

    fn ours(&self, transitions: Vec<Transition>) -> wire::Ours {
        let learnt = delta(&self.before.knowledge, &self.after.knowledge);
        wire::Ours {
            schema_version: SCHEMA_VERSION,
            evidence: object(&learnt.evidence),
            counters: object(&learnt.counters),
            transitions,
        }
    }

    fn seal(&self, envelope: &wire::Envelope, at: Timestamp, urgent: bool) -> Event {
        let mut attributes = BTreeMap::from([
            ("type".to_owned(), envelope.kind.as_str().to_owned()),
            ("correlationId".to_owned(), envelope.correlation_id.clone()),
            ("idempotencyKey".to_owned(), envelope.correlation_id.clone()),
            ("source".to_owned(), envelope.ingress.source.clone()),
        ]);
        let more = [
            ("traceId", &envelope.trace_id),
            ("channel", &envelope.ingress.channel),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                attributes.insert(name.to_owned(), value.clone());
            }
        }
        Event {
            id: envelope.correlation_id.clone(),
            source: self.after.key.clone(),
            kind: envelope.kind,
            urgent,
            at,
            attributes,
            body: serde_json::to_string(envelope).expect("our own structs with text keys always serialise"),
        }
    }
}

/// Returns the event that tells how a source is although nothing changed. It carries everything that is known, so that
/// one of them heals whatever was lost before it.
pub fn heartbeat(document: &SourceDocument, observed_at: Timestamp) -> Event {
    let told = Told {
        before: &SourceDocument::new(document.key.clone()),
        after: document,
        by: "bitbrat.heartbeat",
        observed_at,
    };
    let second = observed_at.as_millis().div_euclid(1000);
    // Two that attend one source know different things of it in the same second.
    let known =
        serde_json::to_vec(&document.knowledge).expect("our own structs with text keys always serialise");
    let known = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, &known);
    let at = document.verdict.status.at.unwrap_or(observed_at);
    told.status(&format!("heartbeat {second} {known}"), at, Vec::new(), false)
}

/// The `ingress.source` of our status events.
const STATUS_SOURCE: &str = "ingress.bitbrat.probe";
/// The connector name of whatever the platform has no connector for.
const SYSTEM: &str = "system";

/// The platform's connector names. It has none for Kick.
fn connector(platform: PlatformName) -> &'static str {
    match platform {
        PlatformName::Twitch => "twitch",
        PlatformName::Discord => "discord",
        PlatformName::Kick => SYSTEM,
    }
}

/// The platform has no event that says that a stream is no longer known; such a change travels in a status event.
fn stream_kind(change: &Transition) -> Option<EventKind> {
    match (change.facet, change.to.as_deref()) {
        (Facet::Stream, Some("ONLINE")) => Some(EventKind::StreamOnline),
        (Facet::Stream, Some("OFFLINE")) => Some(EventKind::StreamOffline),
        _ => None,
    }
}

fn profile(document: &SourceDocument, field: &str) -> Option<String> {
    let known = document.knowledge.evidence.profile.get(field)?;
    Some(known.value.clone())
}

fn object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("our own structs with text keys always become objects"),
    }
}

#[cfg(test)]
mod tests;
