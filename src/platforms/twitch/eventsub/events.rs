//! Turns EventSub events into observations. Pure: only what an event proves.

use std::time::Duration;

use serde::Deserialize;

use super::super::map::{one, profile};
use super::kinds::Kind;
use crate::core::json::{read_object, repair_text};
use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::kit::lenient;

/// Evidence origin: EventSub.
pub(in crate::platforms::twitch) const EVENTSUB: &str = "twitch.eventsub";
/// A pushed event is evidence of role changes, never of a list that may not have been requested.
const MODERATOR_EVENTS: &str = "twitch.moderator-events";
const VIP_EVENTS: &str = "twitch.vip-events";
/// Twitch's recommendation: an older message is a replay.
const MAX_AGE: Duration = Duration::from_mins(10);

/// The result of parsing an event.
#[derive(Debug, PartialEq)]
pub(super) enum ParsedEvent {
    Facts(SourceKey, Vec<Observation>),
    Chat(ChatMessage),
    /// A subscribed event occurred, but its content cannot be parsed.
    Unreadable,
}

/// A chat message, with the fields needed for counting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChatMessage {
    pub(super) source: SourceKey,
    /// The event's own id, which differs from the message id.
    pub(super) id: String,
    pub(super) chatter: String,
    /// Whether it was sent in another channel that shares its chat with this one.
    pub(super) foreign: bool,
    /// The chatter's badges in this channel.
    pub(super) badges: Vec<String>,
}

/// Returns whether a message of this age is too old to be processed.
pub(super) fn is_stale(age: Duration) -> bool {
    age > MAX_AGE
}

/// Returns the user whose authorization a `user.authorization.revoke` event is about.
pub(in crate::platforms::twitch) fn revoked_user(event: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Revoked {
        #[serde(default, deserialize_with = "lenient::maybe_id")]
        user_id: Option<String>,
    }
    read_object::<Revoked>(&repair_text(event)).ok()?.user_id
}

/// Parses an event of `kind` that Twitch sent at `at`.
///
/// `channel` is the one in the subscription's condition, for an event that does not name it.
pub(super) fn read(
    kind: Kind,
    event: &str,
    channel: Option<&str>,
    bot_user_id: Option<&str>,
    at: Timestamp,
) -> ParsedEvent {
    let condition = channel;
    let repaired = repair_text(event);
    let event = repaired.as_ref();
    let Ok(channel) = read_object::<Channel>(event) else {
        return ParsedEvent::Unreadable;
    };
    let id = channel.id.as_deref().or(condition).unwrap_or_default();
    let Ok(source) = SourceKey::new(PlatformName::Twitch, id) else {
        return ParsedEvent::Unreadable;
    };
    let fact = match kind {
        // Without the stream's id a start could not be distinguished from the next one.
        Kind::Online => match online(event) {
            Some(fact) => Some(fact),
            None => return ParsedEvent::Unreadable,
        },
        Kind::Offline => Some(offline(event)),
        Kind::Update => update(event),
        Kind::Chat => return chat(source, event),
        // About the application, not about a channel.
        Kind::ShardDisabled | Kind::AuthorizationRevoke => return ParsedEvent::Unreadable,
        Kind::ModeratorAdd | Kind::ModeratorRemove | Kind::VipAdd | Kind::VipRemove => {
            let (method, role) = if matches!(kind, Kind::ModeratorAdd | Kind::ModeratorRemove) {
                (MODERATOR_EVENTS, "MODERATOR")
            } else {
                (VIP_EVENTS, "VIP")
            };
            let held = matches!(kind, Kind::ModeratorAdd | Kind::VipAdd);
            match member(event) {
                Some(member) if Some(member.as_str()) == bot_user_id => Some(Fact::Permissions {
                    method: method.to_owned(),
                    grants: one(role, Ok(held)).into(),
                }),
                Some(_) => None,
                None => return ParsedEvent::Unreadable,
            }
        }
    };
    let names = profile(&[("displayName", &channel.name), ("login", &channel.login)]);
    let facts = fact.into_iter().chain(names);
    let emitted = facts
        .map(|fact| Observation::new(&source, at, EVENTSUB, fact))
        .collect();
    ParsedEvent::Facts(source, emitted)
}

#[derive(Deserialize)]
struct Channel {
    #[serde(
        default,
        rename = "broadcaster_user_id",
        deserialize_with = "lenient::maybe_id"
    )]
    id: Option<String>,
    #[serde(
        default,
        rename = "broadcaster_user_login",
        deserialize_with = "lenient::text"
    )]
    login: String,
    #[serde(default, rename = "broadcaster_user_name", deserialize_with = "lenient::text")]
    name: String,
}

fn online(event: &str) -> Option<Fact> {
    #[derive(Deserialize)]
    struct Online {
        #[serde(default, deserialize_with = "lenient::maybe_id")]
        id: Option<String>,
        #[serde(default, deserialize_with = "lenient::lenient")]
        started_at: Option<Timestamp>,
    }
    let online: Online = serde_json::from_str(event).ok()?;
    // Either of them identifies the stream.
    (online.id.is_some() || online.started_at.is_some()).then_some(Fact::StreamPush {
        live: true,
        stream_id: online.id,
        started_at: online.started_at,
    })
}

fn offline(event: &str) -> Fact {
    #[derive(Default, Deserialize)]
    struct Offline {
        /// Since June 2026; servers other than Twitch's omit it.
        #[serde(default, deserialize_with = "lenient::maybe_id")]
        id: Option<String>,
    }
    let offline: Offline = serde_json::from_str(event).unwrap_or_default();
    Fact::StreamPush {
        live: false,
        stream_id: offline.id,
        started_at: None,
    }
}

fn update(event: &str) -> Option<Fact> {
    #[derive(Deserialize)]
    struct Update {
        #[serde(default, deserialize_with = "lenient::text")]
        title: String,
        #[serde(default, deserialize_with = "lenient::text")]
        category_name: String,
    }
    let update: Update = serde_json::from_str(event).ok()?;
    profile(&[("title", &update.title), ("category", &update.category_name)])
}

/// The user whose role was added or removed.
fn member(event: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Member {
        #[serde(deserialize_with = "lenient::id_text")]
        user_id: String,
    }
    let member: Member = serde_json::from_str(event).ok()?;
    Some(member.user_id)
}

fn chat(source: SourceKey, event: &str) -> ParsedEvent {
    #[derive(Deserialize)]
    struct Chat {
        #[serde(deserialize_with = "lenient::id_text")]
        message_id: String,
        /// Decides whether the message is the bot's own.
        #[serde(deserialize_with = "lenient::id_text")]
        chatter_user_id: String,
        #[serde(default, deserialize_with = "lenient::maybe_id")]
        source_broadcaster_user_id: Option<String>,
        #[serde(default, deserialize_with = "lenient::readable")]
        badges: Vec<Badge>,
    }
    #[derive(Deserialize)]
    struct Badge {
        #[serde(default, deserialize_with = "lenient::text")]
        set_id: String,
    }
    let Ok(chat) = serde_json::from_str::<Chat>(event) else {
        return ParsedEvent::Unreadable;
    };
    let foreign = chat
        .source_broadcaster_user_id
        .is_some_and(|id| id != source.id());
    ParsedEvent::Chat(ChatMessage {
        id: chat.message_id,
        chatter: chat.chatter_user_id,
        foreign,
        badges: chat.badges.into_iter().map(|badge| badge.set_id).collect(),
        source,
    })
}

/// What the bot's own badges in a channel prove. A missing badge proves nothing.
pub(super) fn badges(source: &SourceKey, badges: &[String], at: Timestamp) -> Observation {
    let roles = badges.iter().filter_map(|badge| match badge.as_str() {
        "broadcaster" => Some("BROADCASTER"),
        "moderator" | "lead_moderator" => Some("MODERATOR"),
        "vip" => Some("VIP"),
        "subscriber" | "founder" => Some("SUBSCRIBER"),
        _ => None,
    });
    let grants = crate::core::observation::Grants {
        granted: roles.map(str::to_owned).collect(),
        ..Default::default()
    };
    let fact = Fact::Permissions {
        method: "twitch.badges".to_owned(),
        grants: grants.into(),
    };
    Observation::new(source, at, EVENTSUB, fact)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::EPOCH;
    const WHO: &str = r#""broadcaster_user_id":"900200","broadcaster_user_login":"ratcaster","broadcaster_user_name":"RatCaster""#;

    fn facts(kind: Kind, event: &str) -> Vec<Fact> {
        match read(kind, &event.replace("WHO", WHO), None, Some("900100"), AT) {
            ParsedEvent::Facts(source, emitted) => {
                assert_eq!(source.id(), "900200");
                emitted
                    .into_iter()
                    .map(|emitted| std::sync::Arc::unwrap_or_clone(emitted.fact))
                    .collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn online_event_contains_stream_and_start_time() {
        let emitted = facts(
            Kind::Online,
            r#"{"id":"40900001",WHO,"type":"novel","started_at":"2026-05-01T18:00:07Z"}"#,
        );
        let [
            Fact::StreamPush {
                live: true,
                stream_id: Some(id),
                started_at: Some(_),
            },
            Fact::Profile { fields },
        ] = emitted.as_slice()
        else {
            panic!("{emitted:?}");
        };
        assert_eq!(
            (id.as_str(), fields["displayName"].as_str()),
            ("40900001", "RatCaster")
        );
    }

    #[test]
    fn an_end_may_come_without_an_id() {
        for (event, expected) in [
            (r#"{"id":"40900001",WHO}"#, Some("40900001".to_owned())),
            (r#"{"id":"",WHO}"#, None),
            (r#"{"id":null,WHO}"#, None),
            (r"{WHO}", None),
        ] {
            let emitted = facts(Kind::Offline, event);
            let Fact::StreamPush {
                live: false,
                stream_id,
                ..
            } = &emitted[0]
            else {
                panic!("{event}");
            };
            assert_eq!(*stream_id, expected);
        }
    }

    #[test]
    fn a_role_is_of_interest_when_it_is_the_bots() {
        let emitted = facts(Kind::ModeratorAdd, r#"{WHO,"user_id":"900100"}"#);
        let Fact::Permissions { method, grants } = &emitted[0] else {
            panic!("{emitted:?}");
        };
        assert!(method == MODERATOR_EVENTS && grants.granted.contains("MODERATOR"));
        let emitted = facts(Kind::VipRemove, r#"{WHO,"user_id":"900100"}"#);
        assert!(matches!(&emitted[0], Fact::Permissions { grants, .. } if grants.denied.contains("VIP")));
        let emitted = facts(Kind::VipAdd, r#"{WHO,"user_id":"900300"}"#);
        assert!(matches!(emitted.as_slice(), [Fact::Profile { .. }]));
    }

    #[test]
    fn chat_event_contains_own_id_and_shared_chat_origin() {
        for (origin, foreign) in [
            ("null", false),
            ("\"900200\"", false),
            ("\"77\"", true),
            ("\"\"", false),
        ] {
            let event = format!(
                r#"{{{WHO},"message_id":"line","chatter_user_id":"5","source_broadcaster_user_id":{origin},
                "badges":[{{"set_id":"vip"}}],"message_type":"novel"}}"#
            );
            let ParsedEvent::Chat(message) = read(Kind::Chat, &event, None, None, AT) else {
                panic!("a chat message");
            };
            assert_eq!(
                (message.id.as_str(), message.foreign),
                ("line", foreign),
                "{origin}"
            );
            assert_eq!(message.badges, ["vip"]);
        }
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        for event in [
            "{}",
            "[]",
            r#"["900200","ratcaster","RatCaster"]"#,
            r#"{"broadcaster_user_id":"ratcaster"}"#,
            r#"{"broadcaster_user_id":null}"#,
            r#"{"broadcaster_user_id":7}"#,
        ] {
            assert_eq!(
                read(Kind::Online, event, None, None, AT),
                ParsedEvent::Unreadable,
                "{event}"
            );
        }
        for kind in [Kind::Chat, Kind::ModeratorAdd, Kind::VipRemove] {
            assert_eq!(
                read(kind, &format!("{{{WHO}}}"), None, None, AT),
                ParsedEvent::Unreadable,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn event_without_a_channel_is_of_its_subscriptions() {
        let event = r#"{"id":"40900001","started_at":"2026-05-01T18:00:07Z"}"#;
        let emitted = read(Kind::Online, event, Some("900200"), None, AT);
        assert!(
            matches!(emitted, ParsedEvent::Facts(source, facts) if source.id() == "900200" && facts.len() == 1)
        );
        let named = format!("{{{WHO}}}");
        let emitted = read(Kind::Offline, &named, Some("7"), None, AT);
        assert!(matches!(emitted, ParsedEvent::Facts(source, _) if source.id() == "900200"));
        assert_eq!(read(Kind::Online, event, None, None, AT), ParsedEvent::Unreadable);
    }

    #[test]
    fn events_with_nulls_numbers_and_half_emojis_are_read() {
        let odd = r#"{"id":40900001,"broadcaster_user_id":900200,"broadcaster_user_login":null,
            "broadcaster_user_name":"Rat\ud83d","started_at":null}"#;
        let emitted = facts(Kind::Online, odd);
        let [
            Fact::StreamPush {
                live: true,
                stream_id: Some(id),
                started_at: None,
            },
            Fact::Profile { fields },
        ] = emitted.as_slice()
        else {
            panic!("{emitted:?}");
        };
        assert_eq!(
            (id.as_str(), fields["displayName"].as_str()),
            ("40900001", "Rat\u{fffd}")
        );
        let nulls =
            r#"{"broadcaster_user_id":900200,"broadcaster_user_login":null,"broadcaster_user_name":null"#;
        let emitted = facts(Kind::Offline, &format!("{nulls},\"id\":7}}"));
        assert!(
            matches!(&emitted[..], [Fact::StreamPush { live: false, stream_id: Some(id), .. }] if id == "7")
        );
        let emitted = facts(
            Kind::Update,
            &format!("{nulls},\"title\":\"x\\udE00\",\"category_name\":null}}"),
        );
        assert!(matches!(&emitted[..], [Fact::Profile { fields }] if fields["title"] == "x\u{fffd}"));
        let emitted = facts(Kind::ModeratorAdd, &format!("{nulls},\"user_id\":900100}}"));
        assert!(matches!(&emitted[..], [Fact::Permissions { .. }]));
        let event = format!(
            "{nulls},\"message_id\":\"m\",\"chatter_user_id\":5,\"badges\":[null,{{\"set_id\":\"vip\"}}]}}"
        );
        assert!(
            matches!(read(Kind::Chat, &event, None, None, AT), ParsedEvent::Chat(message) if message.badges == ["vip"])
        );
    }

    #[test]
    fn badges_prove_roles_and_their_absence_nothing() {
        let source = SourceKey::new(PlatformName::Twitch, "1").unwrap();
        let worn = [
            "lead_moderator".to_owned(),
            "founder".to_owned(),
            "novel".to_owned(),
        ];
        let Fact::Permissions { grants, .. } =
            std::sync::Arc::unwrap_or_clone(badges(&source, &worn, AT).fact)
        else {
            panic!("permissions");
        };
        assert_eq!(
            grants.granted.iter().collect::<Vec<_>>(),
            ["MODERATOR", "SUBSCRIBER"]
        );
        assert!(grants.denied.is_empty());
    }
}
