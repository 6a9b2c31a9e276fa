//! From EventSub's events to observations. Pure: what an event proves, and nothing more.

use serde::Deserialize;

use super::super::map::{one, profile};
use super::kinds::Kind;
use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;

/// Who told: EventSub.
pub(in crate::platforms::twitch) const EVENTSUB: &str = "twitch.eventsub";
/// Twitch's advice: a message that is older is a replay.
const STALE_MS: i64 = 10 * 60_000;

/// What an event comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// Observations of one source.
    Facts(SourceKey, Vec<Observation>),
    /// A line of chat.
    Chat(Line),
    /// Nothing: of a kind or shape that we do not know.
    Nothing,
}

/// A line of chat, as far as counting goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) source: SourceKey,
    /// The line's own id, which is not its message's.
    pub(super) id: String,
    pub(super) chatter: String,
    /// Whether it was said in another channel that shares its chat with this one.
    pub(super) foreign: bool,
    /// The chatter's badges in this channel.
    pub(super) badges: Vec<String>,
}

/// Says whether a message of this age is too old to be heard.
pub(super) fn is_stale(age_ms: i64) -> bool {
    age_ms > STALE_MS
}

/// Reads an event of `kind` that Twitch sent at `at`.
pub(super) fn read(kind: Kind, event: &str, bot_user_id: Option<&str>, at: Timestamp) -> Told {
    let Ok(channel) = serde_json::from_str::<Channel>(event) else {
        return Told::Nothing;
    };
    let Ok(source) = SourceKey::new(PlatformName::Twitch, &channel.id) else {
        return Told::Nothing;
    };
    let fact = match kind {
        Kind::Online => online(event),
        Kind::Offline => Some(offline(event)),
        Kind::Update => update(event),
        Kind::Chat => return chat(source, event),
        Kind::ModeratorAdd => member(event, bot_user_id, "twitch.moderators", "MODERATOR", true),
        Kind::ModeratorRemove => member(event, bot_user_id, "twitch.moderators", "MODERATOR", false),
        Kind::VipAdd => member(event, bot_user_id, "twitch.vips", "VIP", true),
        Kind::VipRemove => member(event, bot_user_id, "twitch.vips", "VIP", false),
    };
    let names = profile(&[("displayName", &channel.name), ("login", &channel.login)]);
    let facts = fact.into_iter().chain(names);
    let told = facts
        .map(|fact| Observation::new(&source, at, EVENTSUB, fact))
        .collect();
    Told::Facts(source, told)
}

#[derive(Deserialize)]
struct Channel {
    #[serde(rename = "broadcaster_user_id")]
    id: String,
    #[serde(default, rename = "broadcaster_user_login")]
    login: String,
    #[serde(default, rename = "broadcaster_user_name")]
    name: String,
}

fn online(event: &str) -> Option<Fact> {
    #[derive(Deserialize)]
    struct Online {
        id: String,
        #[serde(default)]
        started_at: String,
    }
    let online: Online = serde_json::from_str(event).ok()?;
    Some(Fact::StreamPush {
        live: true,
        stream_id: Some(online.id).filter(|id| !id.is_empty()),
        started_at: online.started_at.parse().ok(),
    })
}

fn offline(event: &str) -> Fact {
    #[derive(Default, Deserialize)]
    struct Offline {
        /// Since June 2026; absent from others than Twitch itself.
        #[serde(default)]
        id: Option<String>,
    }
    let offline: Offline = serde_json::from_str(event).unwrap_or_default();
    Fact::StreamPush {
        live: false,
        stream_id: offline.id.filter(|id| !id.is_empty()),
        started_at: None,
    }
}

fn update(event: &str) -> Option<Fact> {
    #[derive(Deserialize)]
    struct Update {
        #[serde(default)]
        title: String,
        #[serde(default)]
        category_name: String,
    }
    let update: Update = serde_json::from_str(event).ok()?;
    profile(&[("title", &update.title), ("category", &update.category_name)])
}

/// A role given or taken; of interest only when it is the bot's.
fn member(event: &str, bot_user_id: Option<&str>, method: &str, role: &str, held: bool) -> Option<Fact> {
    #[derive(Deserialize)]
    struct Member {
        user_id: String,
    }
    let member: Member = serde_json::from_str(event).ok()?;
    (Some(member.user_id.as_str()) == bot_user_id).then(|| Fact::Permissions {
        method: method.to_owned(),
        grants: one(role, Ok(held)),
    })
}

fn chat(source: SourceKey, event: &str) -> Told {
    #[derive(Deserialize)]
    struct Chat {
        message_id: String,
        chatter_user_id: String,
        #[serde(default)]
        source_broadcaster_user_id: Option<String>,
        #[serde(default)]
        badges: Option<Vec<Badge>>,
    }
    #[derive(Deserialize)]
    struct Badge {
        #[serde(default)]
        set_id: String,
    }
    let Ok(chat) = serde_json::from_str::<Chat>(event) else {
        return Told::Nothing;
    };
    let foreign = chat
        .source_broadcaster_user_id
        .is_some_and(|id| !id.is_empty() && id != source.id());
    Told::Chat(Line {
        id: chat.message_id,
        chatter: chat.chatter_user_id,
        foreign,
        badges: chat
            .badges
            .unwrap_or_default()
            .into_iter()
            .map(|badge| badge.set_id)
            .collect(),
        source,
    })
}

/// What the bot's own badges in a channel prove. A badge that is missing proves nothing.
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
        grants,
    };
    Observation::new(source, at, EVENTSUB, fact)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::EPOCH;
    const WHO: &str = r#""broadcaster_user_id":"900200","broadcaster_user_login":"ratcaster","broadcaster_user_name":"RatCaster""#;

    fn facts(kind: Kind, event: &str) -> Vec<Fact> {
        match read(kind, &event.replace("WHO", WHO), Some("900100"), AT) {
            Told::Facts(source, told) => {
                assert_eq!(source.id(), "900200");
                told.into_iter().map(|told| told.fact).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_start_tells_the_stream_and_when_it_started() {
        let told = facts(
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
        ] = told.as_slice()
        else {
            panic!("{told:?}");
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
            let told = facts(Kind::Offline, event);
            let Fact::StreamPush {
                live: false,
                stream_id,
                ..
            } = &told[0]
            else {
                panic!("{event}");
            };
            assert_eq!(*stream_id, expected);
        }
    }

    #[test]
    fn a_role_is_of_interest_when_it_is_the_bots() {
        let told = facts(Kind::ModeratorAdd, r#"{WHO,"user_id":"900100"}"#);
        let Fact::Permissions { method, grants } = &told[0] else {
            panic!("{told:?}");
        };
        assert!(method == "twitch.moderators" && grants.granted.contains("MODERATOR"));
        let told = facts(Kind::VipRemove, r#"{WHO,"user_id":"900100"}"#);
        assert!(matches!(&told[0], Fact::Permissions { grants, .. } if grants.denied.contains("VIP")));
        let told = facts(Kind::VipAdd, r#"{WHO,"user_id":"900300"}"#);
        assert!(matches!(told.as_slice(), [Fact::Profile { .. }]));
    }

    #[test]
    fn a_chat_line_tells_its_own_id_and_whether_it_is_from_here() {
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
            let Told::Chat(line) = read(Kind::Chat, &event, None, AT) else {
                panic!("a line");
            };
            assert_eq!((line.id.as_str(), line.foreign), ("line", foreign), "{origin}");
            assert_eq!(line.badges, ["vip"]);
        }
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        for event in [
            "{}",
            "[]",
            r#"{"broadcaster_user_id":"ratcaster"}"#,
            r#"{"broadcaster_user_id":7}"#,
        ] {
            assert_eq!(read(Kind::Online, event, None, AT), Told::Nothing, "{event}");
        }
    }

    #[test]
    fn badges_prove_roles_and_their_absence_nothing() {
        let source = SourceKey::new(PlatformName::Twitch, "1").unwrap();
        let worn = [
            "lead_moderator".to_owned(),
            "founder".to_owned(),
            "novel".to_owned(),
        ];
        let Fact::Permissions { grants, .. } = badges(&source, &worn, AT).fact else {
            panic!("permissions");
        };
        assert_eq!(
            grants.granted.into_iter().collect::<Vec<_>>(),
            ["MODERATOR", "SUBSCRIBER"]
        );
        assert!(grants.denied.is_empty());
    }
}
