//! What `events tail` and `events publish` do: follow a bus as lines, and put one event on it from a file.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Accepted, BusError, EventBus, Filter, Message, Outgoing, names};
use crate::core::event::dead::Dead;
use crate::core::event::read::{Reading, Side, read, text};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// One line of a tail.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The topic, without prefix.
    pub topic: String,
    /// When the bus took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// The bus's own id of it.
    pub transport_id: String,
    /// What it means to us: `source`, `chat`, `dead: …`, `ignored: …`.
    pub meaning: String,
    /// The source that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceKey>,
    /// Header fields.
    pub attributes: BTreeMap<String, String>,
    /// The body, as JSON where it is any, else as text.
    pub event: Value,
}

/// Which lines are wanted. Empty means all.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Types of events.
    pub types: BTreeSet<String>,
    /// Sources.
    pub sources: BTreeSet<SourceKey>,
    /// Topics; sources' events and inbound chat when empty.
    pub filter: Option<Filter>,
}

/// Follows the bus.
pub async fn tail(
    bus: &dyn EventBus,
    wanted: Wanted,
    since: Option<Timestamp>,
) -> Result<BoxStream<'static, Result<Line, BusError>>, BusError> {
    let filter = wanted.filter.clone().unwrap_or_else(Filter::ingress);
    let messages = bus.tail(&filter, since).await?;
    let lines = messages.filter_map(move |message| {
        let line = message.map(line);
        let pass = line.as_ref().map_or(true, |line| wants(&wanted, line));
        std::future::ready(pass.then_some(line))
    });
    Ok(lines.boxed())
}

fn wants(wanted: &Wanted, line: &Line) -> bool {
    let header = line.attributes.get("type").map(String::as_str);
    let kind = text(&line.event, &["type"]).or(header);
    let type_fits = wanted.types.is_empty() || kind.is_some_and(|kind| wanted.types.contains(kind));
    let source_fits = wanted.sources.is_empty()
        || line
            .source
            .as_ref()
            .is_some_and(|source| wanted.sources.contains(source));
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
        Reading::Learnt(learnt) => ("source".to_owned(), Some(learnt.source)),
        Reading::Chat(heard) => {
            let source = match heard.place {
                crate::core::event::chat::Place::Source(source) => Some(source),
                crate::core::event::chat::Place::Login(..) => None,
            };
            ("chat".to_owned(), source)
        }
        Reading::Ignored(why) => (format!("ignored: {}", why.as_str()), None),
        Reading::Dead(dead) => (format!("dead: {}", dead.code), None),
    };
    let event = serde_json::from_slice(&message.data)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&message.data).into_owned()));
    Line {
        topic: message.topic,
        published_at: message.published_at,
        transport_id: message.transport_id,
        meaning,
        source,
        attributes: message.attributes,
        event,
    }
}

/// Why a file was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Nobody could use it.
    #[error("the event would be a dead letter: {}", .0.reason)]
    Dead(Dead),
    /// It has no type, so no consumer would know what it is.
    #[error("the event has no `type`")]
    NoType,
    /// The bus did not take it.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Publishes one event as it is, with the header fields that its own fields give. Returns its id and what the bus said.
pub async fn publish(
    bus: &dyn EventBus,
    data: &[u8],
    now: Timestamp,
) -> Result<(String, Accepted), PublishError> {
    if let Reading::Dead(dead) = read(Side::Ingress, &BTreeMap::new(), data, now) {
        return Err(PublishError::Dead(dead));
    }
    let event: Value = serde_json::from_slice(data).unwrap_or(Value::Null);
    let kind = text(&event, &["type"]).ok_or(PublishError::NoType)?;
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
    let outgoing = Outgoing {
        topic: names::INGRESS.to_owned(),
        id: id.clone(),
        attributes,
        data: data.to_vec().into(),
    };
    let accepted = bus.publish(outgoing).await?;
    Ok((id, accepted))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::bus::local::LocalBus;
    use crate::clock::{Clock, ManualClock};

    #[tokio::test]
    async fn what_is_published_from_a_file_shows_in_a_tail_with_its_meaning() {
        let clock = ManualClock::at("2026-11-20T13:00:00Z".parse().unwrap());
        let bus = LocalBus::new(clock.clone());
        let wanted = Wanted {
            sources: BTreeSet::from(["twitch:777001".parse().unwrap()]),
            ..Wanted::default()
        };
        let mut lines = tail(&bus, wanted, None).await.unwrap();
        let event = |id: &str| {
            json!({
                "v": "2", "type": "system.stream.online", "correlationId": format!("event-{id}"),
                "ingress": {"source": "ingress.twitch.eventsub"},
                "payload": {"platform": "twitch", "id": id, "streamId": "4", "startedAt": "2026-11-20T10:00:00.000Z"}
            })
            .to_string()
        };
        for id in ["1", "777001"] {
            publish(&bus, event(id).as_bytes(), clock.now()).await.unwrap();
        }
        let line = lines.next().await.unwrap().unwrap();
        assert_eq!(
            (line.meaning.as_str(), line.transport_id.as_str()),
            ("source", "2")
        );
        assert_eq!(line.attributes["correlationid"], "event-777001");
        assert_eq!(line.attributes["source"], "ingress.twitch.eventsub");

        let twice = publish(&bus, event("1").as_bytes(), clock.now()).await.unwrap();
        assert!(twice.1.duplicate);
        for (refused, reason) in [("not json", "dead letter"), ("{}", "no `type`")] {
            let error = publish(&bus, refused.as_bytes(), clock.now())
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        }
        let _: Arc<dyn EventBus> = Arc::new(bus);
    }
}
