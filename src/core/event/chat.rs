//! Chat counting: which messages on the bus are chat of a source, by the message formats of BitBrat's connectors.
//!
//! Messages received from a channel and messages passed to delivery to a channel are counted. No component reports whether a
//! message arrived.

use serde_json::Value;

use crate::core::event::fields::{field, id_text, text};
use crate::core::source::{PlatformName, SourceKey};

/// Direction of a chat message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Received from chat.
    In,
    /// Sent to chat.
    Out,
}

/// One chat message on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatEvent {
    /// Id of the message on the bus; counted once per id and direction.
    pub id: String,
    /// Direction of the message.
    pub direction: Direction,
    /// The source or channel of the message.
    pub place: Place,
}

/// Identifies the source of a chat message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By the source's id.
    Source(SourceKey),
    /// By the channel's login, which the caller must resolve to an id.
    Login(PlatformName, String),
}

/// Event types that are chat of people. Derived events (progress, moderation, model calls) are not counted.
const CHAT_TYPES: [&str; 3] = ["chat.message.v1", "dm.message.v1", "chat.command.v1"];

/// Returns whether an inbound event of this type is chat.
pub fn is_chat(kind: &str) -> bool {
    CHAT_TYPES.contains(&kind)
}

/// Parses an inbound event of a chat type. `None` if it belongs to no source (a direct message, an unknown connector).
pub fn inbound(event: &Value, id: &str) -> Option<ChatEvent> {
    let platform = connector(event, &["ingress", "connector"])?;
    let place = place(event, platform, text(event, &["ingress", "channel"]))?;
    Some(ChatEvent {
        id: id.to_owned(),
        direction: Direction::In,
        place,
    })
}

/// Parses an event on an egress topic. `None` if no part of it is delivered to a source that can be identified.
pub fn outbound(event: &Value, id: &str) -> Option<ChatEvent> {
    let platform = connector(event, &["egress", "connector"])?;
    best_text(event)?;
    let channel = text(event, &["egress", "channel"]);
    let came_from = text(event, &["ingress", "channel"]);
    let same_place = connector(event, &["ingress", "connector"]) == Some(platform)
        && channel.is_none_or(|channel| came_from.is_none_or(|other| other == channel));
    let place = if same_place {
        place(event, platform, channel.or(came_from))
    } else {
        by_login(platform, channel)
    }?;
    Some(ChatEvent {
        id: id.to_owned(),
        direction: Direction::Out,
        place,
    })
}

/// The platform whose chat the connector named at `path` carries.
fn connector(event: &Value, path: &[&str]) -> Option<PlatformName> {
    let name = text(event, path)?;
    PlatformName::ALL.into_iter().find(|platform| {
        platform
            .rules()
            .connector
            .as_ref()
            .is_some_and(|rules| rules.name == name)
    })
}

fn place(event: &Value, platform: PlatformName, channel: Option<&str>) -> Option<Place> {
    let ids = platform.rules().connector.as_ref()?.source_ids;
    let mut keys = ids.iter().filter_map(|path| id_text(field(event, path)?));
    let known = keys.find_map(|id| SourceKey::new(platform, &id).ok());
    known.map(Place::Source).or_else(|| by_login(platform, channel))
}

/// A Discord channel is identified by a number from which its guild cannot be derived, so only logins identify a source.
fn by_login(platform: PlatformName, channel: Option<&str>) -> Option<Place> {
    let is_login = platform.rules().connector.as_ref()?.channels_are_logins;
    let login = channel?.trim_start_matches('#').to_ascii_lowercase();
    (is_login && !login.is_empty()).then_some(Place::Login(platform, login))
}

/// The text that will be delivered: that of the candidate with the lowest priority, then the highest confidence. Without
/// candidates nothing is delivered, whatever `message` contains.
fn best_text(event: &Value) -> Option<&str> {
    let number = |candidate: &Value, name: &str, missing: f64| {
        candidate.get(name).and_then(Value::as_f64).unwrap_or(missing)
    };
    let best = event.get("candidates")?.as_array()?.iter().min_by(|a, b| {
        let by_priority = number(a, "priority", f64::MAX).total_cmp(&number(b, "priority", f64::MAX));
        by_priority.then(number(b, "confidence", 0.0).total_cmp(&number(a, "confidence", 0.0)))
    })?;
    text(best, &["text"]).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(text: &str) -> Place {
        Place::Source(text.parse().unwrap())
    }

    fn login(text: &str) -> Place {
        Place::Login(PlatformName::Twitch, text.to_owned())
    }

    #[test]
    fn inbound_chat_is_assigned_to_its_channel() {
        let table = [
            (
                json!({"ingress": {"connector": "twitch", "channel": "#rats"}, "message": {"rawPlatformPayload": {"roomId": "777001"}}}),
                Some(source("twitch:777001")),
            ),
            (
                json!({"ingress": {"connector": "twitch", "channel": "#Rats"}, "message": {"rawPlatformPayload": {"roomId": ""}}}),
                Some(login("rats")),
            ),
            (
                json!({"ingress": {"connector": "twitch"}, "identity": {"external": {"metadata": {"broadcasterId": "777001"}}}}),
                Some(source("twitch:777001")),
            ),
            (
                json!({"ingress": {"connector": "discord", "channel": "5"}, "message": {"rawPlatformPayload": {"guildId": "55"}}}),
                Some(source("discord:55")),
            ),
            (
                json!({"ingress": {"connector": "discord", "channel": "5"}, "message": {"rawPlatformPayload": {"guildId": ""}}}),
                None,
            ),
            (
                json!({"ingress": {"connector": "slack", "channel": "#general"}}),
                None,
            ),
            (json!({}), None),
        ];
        for (event, place) in table {
            assert_eq!(
                inbound(&event, "1").map(|incoming| incoming.place),
                place,
                "{event}"
            );
        }
    }

    #[test]
    fn outbound_counts_what_will_be_delivered_and_nothing_else() {
        let said = |candidates: Value| json!({"egress": {"connector": "twitch", "channel": "#rats"}, "message": {"text": "hi"}, "candidates": candidates});
        let table = [
            (json!([{"text": "hello"}]), true),
            (json!([]), false),
            (Value::Null, false),
            (json!([{"text": "  "}]), false),
            // The empty candidate ranks first, so nothing is sent.
            (
                json!([{"text": "worse", "priority": 2}, {"text": "", "priority": 1}]),
                false,
            ),
            (
                json!([{"text": "", "priority": 1, "confidence": 0.1}, {"text": "sure", "priority": 1, "confidence": 0.9}]),
                true,
            ),
        ];
        for (candidates, counted) in table {
            let incoming = outbound(&said(candidates.clone()), "1").map(|incoming| incoming.place);
            assert_eq!(incoming, counted.then(|| login("rats")), "{candidates}");
        }
    }

    #[test]
    fn reply_belongs_to_asking_guild_unless_redirected() {
        let answer = |egress_channel: &str| {
            json!({
                "ingress": {"connector": "discord", "channel": "5"}, "egress": {"connector": "discord", "channel": egress_channel},
                "identity": {"external": {"metadata": {"guildId": "55"}}}, "candidates": [{"text": "hi"}]
            })
        };
        assert_eq!(
            outbound(&answer("5"), "1").map(|incoming| incoming.place),
            Some(source("discord:55"))
        );
        assert_eq!(outbound(&answer("6"), "1"), None);
    }
}
