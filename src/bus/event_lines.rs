//! Implementation of `events tail` and `events publish`: format messages as lines, and prepare an event from a file.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Stream};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Filter, Message, Outgoing, names};
use crate::core::event::chat::Place;
use crate::core::event::fields::text;
use crate::core::event::read::{Ignored, Reading, Side, read};
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// One line of a tail.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The topic, without prefix.
    pub topic: String,
    /// When the bus took it; with the local bus when it was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub published_at: Option<Timestamp>,
    /// The bus's own id of it.
    pub transport_id: String,
    /// Its type, from its body or else its header.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it means to us: `source`, `chat`, `dead: …`, `ignored: …`.
    pub meaning: String,
    /// The source that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub source: Option<SourceKey>,
    /// Header fields.
    pub attributes: BTreeMap<String, String>,
    /// The body, as JSON where it is any, else as text.
    pub event: Value,
}

/// Filter for lines. Empty sets match everything.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Event types.
    pub types: BTreeSet<String>,
    /// Keys of the sources.
    pub sources: BTreeSet<SourceKey>,
}

/// Formats messages that match the filter as lines.
pub fn lines<E: Send + 'static>(
    messages: impl Stream<Item = Result<Message, E>> + Send + 'static,
    wanted: Wanted,
) -> BoxStream<'static, Result<Line, E>> {
    let lines = messages.filter_map(move |message| {
        let line = message.map(line);
        let pass = line.as_ref().map_or(true, |line| wants(&wanted, line));
        std::future::ready(pass.then_some(line))
    });
    lines.boxed()
}

fn wants(wanted: &Wanted, line: &Line) -> bool {
    let kind = line.kind.as_ref();
    let type_fits = wanted.types.is_empty() || kind.is_some_and(|kind| wanted.types.contains(kind));
    let source = line.source.as_ref();
    let source_fits =
        wanted.sources.is_empty() || source.is_some_and(|source| wanted.sources.contains(source));
    type_fits && source_fits
}

fn line(message: Message) -> Line {
    let side = if Filter::egress().matches(&message.topic) {
        Side::Egress
    } else {
        Side::Ingress
    };
    let received = message.published_at.unwrap_or(Timestamp::EPOCH);
    let (meaning, source) = match read(side, &message.attributes, &message.data, received) {
        Reading::SourceUpdate(evidence_update) => ("source".to_owned(), Some(evidence_update.source)),
        Reading::Chat(incoming) => {
            let source = match incoming.place {
                Place::Source(source) => Some(source),
                Place::Login(..) => None,
            };
            ("chat".to_owned(), source)
        }
        Reading::Ignored(why) => (format!("ignored: {}", why.as_str()), None),
        Reading::Unprocessable(dead) => (format!("dead: {}", dead.code), None),
    };
    let event = serde_json::from_slice(&message.data)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&message.data).into_owned()));
    let header = message.attributes.get("type");
    Line {
        topic: message.topic,
        published_at: message.published_at,
        transport_id: message.transport_id,
        kind: text(&event, &["type"])
            .or(header.map(String::as_str))
            .map(str::to_owned),
        meaning,
        source,
        attributes: message.attributes,
        event,
    }
}

/// An event from a file, ready to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The message, with the headers that its own fields imply. Its body is the file's, byte for byte.
    pub message: Outgoing,
    /// Type of the event.
    pub kind: String,
    /// How consumers will interpret it.
    pub use_of_it: UseOfIt,
}

/// How our consumers interpret an event.
#[derive(Debug, Clone, PartialEq)]
pub enum UseOfIt {
    /// It contains evidence about a source.
    Source(SourceKey, Box<Knowledge>),
    /// It is counted as chat.
    Chat,
    /// It is ignored, with the reason.
    Nothing(&'static str),
    /// It becomes a dead letter, with the reason.
    DeadLetter(String),
}

/// Reason why a file contains no event.
#[derive(Debug, thiserror::Error)]
pub enum NoEvent {
    /// The file is not JSON, or not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// It has no type, so consumers cannot interpret it.
    #[error("it has no `type`")]
    NoType,
}

/// Prepares one event without changing its body.
pub fn prepare(data: &[u8], now: Timestamp) -> Result<Prepared, NoEvent> {
    let Ok(event @ Value::Object(_)) = serde_json::from_slice::<Value>(data) else {
        return Err(NoEvent::NotAnObject);
    };
    let kind = text(&event, &["type"]).ok_or(NoEvent::NoType)?;
    let use_of_it = match read(Side::Ingress, &BTreeMap::new(), data, now) {
        Reading::SourceUpdate(evidence_update) => {
            UseOfIt::Source(evidence_update.source, Box::new(evidence_update.knowledge))
        }
        Reading::Chat(_) => UseOfIt::Chat,
        Reading::Ignored(why) => UseOfIt::Nothing(match why {
            Ignored::Forged => "it came through the API gateway, which accepts any claim",
            Ignored::NoEvidence => "it claims nothing that is taken over from other programs",
            Ignored::ChatOfNoSource => "it is chat of no source",
            Ignored::OtherSystemEvent | Ignored::NotAboutSources | Ignored::SystemOnEgress => {
                "bitbrat does not use events of its type"
            }
        }),
        Reading::Unprocessable(dead) => UseOfIt::DeadLetter(dead.reason),
    };
    let from_content = || Uuid::new_v5(&Uuid::NAMESPACE_URL, data).to_string();
    let id = text(&event, &["correlationId"]).map_or_else(from_content, str::to_owned);
    let fields = [
        ("type", Some(kind)),
        ("correlationId", Some(id.as_str())),
        ("idempotencyKey", Some(id.as_str())),
        ("source", text(&event, &["ingress", "source"])),
        ("traceId", text(&event, &["traceId"])),
        ("channel", text(&event, &["ingress", "channel"])),
    ];
    let attributes = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    let message = Outgoing {
        topic: names::INGRESS.to_owned(),
        id: id.clone(),
        attributes,
        data: data.to_vec().into(),
    };
    Ok(Prepared {
        message,
        kind: kind.to_owned(),
        use_of_it,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bus::EventBus as _;
    use crate::bus::local::LocalBus;
    use crate::clock::{Clock, ManualClock};

    fn event(id: &str) -> Vec<u8> {
        json!({
            "v": "2", "type": "system.stream.online", "correlationId": format!("event-{id}"),
            "ingress": {"source": "ingress.twitch.eventsub"},
            "payload": {"platform": "twitch", "id": id, "streamId": "4", "startedAt": "2026-11-20T10:00:00.000Z"}
        })
        .to_string()
        .into_bytes()
    }

    #[tokio::test]
    async fn published_file_event_appears_in_tail_with_its_meaning() {
        let clock = ManualClock::at("2026-11-20T13:00:00Z".parse().unwrap());
        let bus = LocalBus::new(clock.clone());
        let wanted = Wanted {
            sources: BTreeSet::from(["twitch:777001".parse().unwrap()]),
            ..Wanted::default()
        };
        let mut lines = lines(bus.tail(&Filter::ingress(), None).await.unwrap(), wanted);
        for id in ["1", "777001"] {
            let prepared = prepare(&event(id), clock.now()).unwrap();
            assert_eq!(prepared.message.data, event(id));
            assert!(matches!(&prepared.use_of_it, UseOfIt::Source(source, _) if source.id() == id));
            bus.publish(prepared.message).await.unwrap();
        }
        let line = lines.next().await.unwrap().unwrap();
        assert_eq!(
            (
                line.meaning.as_str(),
                line.transport_id.as_str(),
                line.kind.as_deref()
            ),
            ("source", "2", Some("system.stream.online"))
        );
        assert_eq!(line.attributes["correlationid"], "event-777001");
        assert_eq!(line.attributes["source"], "ingress.twitch.eventsub");
    }

    #[test]
    fn unusable_events_are_detected_before_publishing() {
        let now = "2026-11-20T13:00:00Z".parse().unwrap();
        let prepared = |event: Value| prepare(event.to_string().as_bytes(), now);
        assert!(matches!(prepare(b"not json", now), Err(NoEvent::NotAnObject)));
        assert!(matches!(prepared(json!([1])), Err(NoEvent::NotAnObject)));
        assert!(matches!(prepared(json!({})), Err(NoEvent::NoType)));
        let use_of_it = |event: Value| prepared(event).unwrap().use_of_it;
        assert!(
            matches!(use_of_it(json!({"type": "made.up"})), UseOfIt::Nothing(why) if why.contains("type"))
        );
        let nameless =
            json!({"type": "system.source.status", "payload": {"platform": "twitch", "id": "a/b"}});
        assert!(matches!(use_of_it(nameless), UseOfIt::DeadLetter(_)));
        let mut forged: Value = serde_json::from_slice(&event("1")).unwrap();
        forged["ingress"]["source"] = "api-gateway".into();
        assert!(matches!(use_of_it(forged), UseOfIt::Nothing(why) if why.contains("gateway")));
    }
}
