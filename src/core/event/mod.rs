//! Events: how changes of a source are published on the bus, and how messages on the bus are interpreted.
//!
//! Publishing is strict and byte-stable, because programs outside our control store the events. Reading is tolerant. Both ends
//! use the same join, so the consumer's final state does not depend on the order, repetition or loss of events, except for the
//! last one.

pub mod chat;
mod claims;
pub mod dead_letter;
mod delta;
pub mod fields;
pub mod mutation;
mod naming;
pub mod read;
pub mod routing;
pub mod wire;

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::counters;
use crate::core::document::{SCHEMA_VERSION, SourceDocument};
use crate::core::facet::Facet;
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;

pub use delta::delta;

/// Retention of a status event on BitBrat in seconds: one day.
const STATUS_TTL: u64 = 86_400;

/// The kinds of event that we publish. The texts are BitBrat's, and consumers compare them exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EventKind {
    /// How a source is: connection, authorization, permissions, totals.
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
    /// All event kinds.
    pub const ALL: [Self; 3] = [Self::SourceStatus, Self::StreamOnline, Self::StreamOffline];

    /// Returns the event type on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceStatus => "system.source.status",
            Self::StreamOnline => "system.stream.online",
            Self::StreamOffline => "system.stream.offline",
        }
    }

    /// Returns the kind for an event type on the wire.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// An event, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Deterministic; also the de-duplication id of the bus.
    pub id: String,
    /// The source that the event describes.
    pub source: SourceKey,
    /// The kind of event.
    pub kind: EventKind,
    /// Whether the event reports a change. Other events may be delayed, and are superseded by later ones.
    pub urgent: bool,
    /// Whether the event reports only first observations (a baseline), not a change.
    #[serde(default)]
    pub initial: bool,
    /// When the reported fact happened.
    pub at: Timestamp,
    /// Message headers, in the camel case that BitBrat's duplicate filter expects.
    pub attributes: BTreeMap<String, String>,
    /// The reported changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transitions: Vec<Transition>,
    /// The body: one JSON object.
    pub body: String,
}

impl Event {
    /// Returns when this process has made the event; `None` if its body is not one of ours.
    pub fn made_at(&self) -> Option<Timestamp> {
        #[derive(Deserialize)]
        struct Body {
            ingress: Ingress,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Ingress {
            ingress_at: Timestamp,
        }
        let body: Body = serde_json::from_str(&self.body).ok()?;
        Some(body.ingress.ingress_at)
    }
}

/// How first observations of a source are published on the bus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InitialEvents {
    /// Publish events with `payload.initial`.
    #[default]
    Flag,
    /// Publish nothing: the next change, or the heartbeat, carries the state.
    Off,
}

/// The text is neither `flag` nor `off`.
#[derive(Debug, thiserror::Error)]
#[error("not `flag` or `off`")]
pub struct NotInitialEvents;

impl FromStr for InitialEvents {
    type Err = NotInitialEvents;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "flag" => Ok(Self::Flag),
            "off" => Ok(Self::Off),
            _ => Err(NotInitialEvents),
        }
    }
}

/// Input for the events about a source.
#[derive(Debug, Clone, Copy)]
pub struct EventBuilder<'a> {
    /// The source as last published (a document without evidence if it never was).
    pub before: &'a SourceDocument,
    /// The current source.
    pub after: &'a SourceDocument,
    /// Origin of the evidence, as in [`crate::core::observation::Observation::by`].
    pub by: &'a str,
    /// When the evidence was received.
    pub observed_at: Timestamp,
}

impl EventBuilder<'_> {
    /// Returns the events for `changes`: at most one status event and one stream event. Each contains all evidence since
    /// `before`, so that neither depends on the other.
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
            let initial = is_initial(&of_state);
            self.status(
                &naming::status_discriminator(&of_state),
                at,
                of_state,
                true,
                initial,
            )
        });
        let streams = of_stream
            .into_iter()
            .filter_map(|change| stream_kind(&change).map(|kind| self.stream(kind, change)));
        status.into_iter().chain(streams).collect()
    }

    fn status(
        &self,
        discriminator: &str,
        at: Timestamp,
        changes: Vec<Transition>,
        urgent: bool,
        initial: bool,
    ) -> Event {
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
            last_error: document.cause(),
            metrics: wire::Totals::of(&totals),
            metadata: wire::StatusMetadata {
                login: profile(document, "login"),
                observed_at: at.to_string(),
                latency_ms: record.latency_ms,
            },
            ours: self.ours(changes.clone(), initial),
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
        self.seal(&envelope, changes, at, urgent, initial)
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
        let broadcast = document.verdict.broadcast.as_ref();
        let started = broadcast
            .and_then(|broadcast| broadcast.started_at)
            .map(|at| at.to_string());
        // Without a stream before it there is no end: an empty list does not show when the last stream ended.
        let was_live = self.before.verdict.stream.value == StreamStatus::Online;
        let ended = broadcast
            .and_then(|broadcast| broadcast.ended_at)
            .or(was_live.then_some(at));
        let initial = change.initial;
        let live_only = |value: Option<String>| value.filter(|_| online);
        let rules = key.platform().rules().connector.as_ref();
        let connector = rules.map_or(SYSTEM, |rules| rules.name);
        let channel = login
            .as_ref()
            .filter(|_| rules.is_some_and(|rules| rules.channels_are_logins))
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
            ended_at: ended.filter(|_| !online).map(|at| at.to_string()),
            viewer_count: if online {
                document.verdict.viewer_count
            } else {
                Some(0)
            },
            ours: self.ours(vec![change.clone()], initial),
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
        self.seal(&envelope, vec![change], at, true, initial)
    }

    fn ours(&self, transitions: Vec<Transition>, initial: bool) -> wire::Ours {
        let evidence_update = delta(&self.before.knowledge, &self.after.knowledge);
        wire::Ours {
            schema_version: SCHEMA_VERSION,
            initial,
            evidence: object(&evidence_update.evidence),
            counters: object(&evidence_update.counters),
            transitions,
        }
    }

    fn seal(
        &self,
        envelope: &wire::Envelope,
        transitions: Vec<Transition>,
        at: Timestamp,
        urgent: bool,
        initial: bool,
    ) -> Event {
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
            initial,
            at,
            attributes,
            transitions,
            body: serde_json::to_string(envelope).expect("our own structs with text keys always serialize"),
        }
    }
}

/// Returns the event that reports the state of a source without a change. It contains all evidence, so that a single one
/// repairs every earlier loss.
pub fn heartbeat(document: &SourceDocument, observed_at: Timestamp) -> Event {
    state(document, observed_at, false)
}

/// Like [`heartbeat`], for data that completes the baseline of a source without a transition: name, title or viewers.
pub fn baseline(document: &SourceDocument, observed_at: Timestamp) -> Event {
    state(document, observed_at, true)
}

fn state(document: &SourceDocument, observed_at: Timestamp, initial: bool) -> Event {
    let builder = EventBuilder {
        before: &SourceDocument::new(document.key.clone()),
        after: document,
        by: "bitbrat.heartbeat",
        observed_at,
    };
    let second = observed_at.as_millis().div_euclid(1000);
    // Two members that monitor one source may hold different evidence of it in the same second.
    let known =
        serde_json::to_vec(&document.knowledge).expect("our own structs with text keys always serialize");
    let known = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, &known);
    let at = document.verdict.status.at.unwrap_or(observed_at);
    builder.status(
        &format!("heartbeat {second} {known}"),
        at,
        Vec::new(),
        false,
        initial,
    )
}

/// The `ingress.source` of our status events.
const STATUS_SOURCE: &str = "ingress.bitbrat.probe";
/// Connector name for platforms without a connector.
const SYSTEM: &str = "system";

/// The platform has no event for a stream whose state is no longer known; a status event carries such a change.
fn stream_kind(change: &Transition) -> Option<EventKind> {
    match (change.facet, change.to.as_deref()) {
        (Facet::Stream, Some("ONLINE")) => Some(EventKind::StreamOnline),
        (Facet::Stream, Some("OFFLINE")) => Some(EventKind::StreamOffline),
        _ => None,
    }
}

/// Whether an event with these changes reports first observations only.
fn is_initial(changes: &[Transition]) -> bool {
    !changes.is_empty() && changes.iter().all(|change| change.initial)
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
