//! Discord's JSON, as tolerantly as it must be read: unknown fields are ignored, absent and null mean the same, ids and
//! permissions may be strings or numbers. Only what decides something is required.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::permissions::{ChannelKind, GuildRules, Member, Overwrite, Permissions, Target};
use crate::core::time::Timestamp;

pub use crate::platforms::lenient::{lenient, readable};

/// A snowflake: a number that Discord writes as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(u64),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(id) => Ok(Self(id)),
            Either::Text(text) => text
                .parse()
                .map(Self)
                .map_err(|_| serde::de::Error::custom("an id is not a number")),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The bot itself.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Me {
    /// Its user id.
    pub id: Id,
    /// Its name.
    #[serde(default, deserialize_with = "lenient")]
    pub username: Option<String>,
}

/// The application that the bot belongs to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Application {
    /// Its id, which an invite link needs.
    pub id: Id,
}

/// A guild as the list of the bot's guilds shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct ListedGuild {
    /// Its id.
    pub id: Id,
    /// Its name.
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// Whether the bot owns it.
    #[serde(default, deserialize_with = "lenient")]
    pub owner: Option<bool>,
    /// The bot's permissions without channels and timeouts.
    #[serde(default, deserialize_with = "lenient")]
    pub permissions: Option<Permissions>,
    /// About how many members it has.
    #[serde(default, deserialize_with = "lenient")]
    pub approximate_member_count: Option<u64>,
    /// About how many of them are not offline.
    #[serde(default, deserialize_with = "lenient")]
    pub approximate_presence_count: Option<u64>,
    /// Whether it suffers an outage; not documented here.
    #[serde(default, deserialize_with = "lenient")]
    pub unavailable: Option<bool>,
}

/// A guild with what its permissions need.
#[derive(Debug, Clone, Deserialize)]
pub struct FullGuild {
    /// Its id.
    pub id: Id,
    /// Who owns it.
    pub owner_id: Id,
    /// Its roles, the one that everyone has included.
    pub roles: Vec<Role>,
}

impl FullGuild {
    /// Returns the guild's rules.
    pub fn rules(&self) -> GuildRules {
        GuildRules {
            id: self.id.0,
            owner_id: self.owner_id.0,
            roles: self
                .roles
                .iter()
                .map(|role| (role.id.0, role.permissions))
                .collect(),
        }
    }
}

/// A role.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Role {
    /// Its id.
    pub id: Id,
    /// What it allows.
    pub permissions: Permissions,
}

/// A member of a guild.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct GuildMember {
    /// Who it is; absent where that is clear from the request.
    #[serde(default, deserialize_with = "lenient")]
    pub user: Option<Me>,
    /// The member's roles, never the one that everyone has.
    pub roles: Vec<Id>,
    /// Until when the member is in a timeout; stays set when it is over.
    #[serde(default, deserialize_with = "lenient")]
    pub communication_disabled_until: Option<Timestamp>,
}

impl GuildMember {
    /// Returns the member as permissions see it at `now`.
    pub fn subject(&self, id: u64, now: Timestamp) -> Member {
        Member {
            id,
            roles: self.roles.iter().map(|role| role.0).collect(),
            timed_out: self.communication_disabled_until.is_some_and(|until| until > now),
        }
    }
}

/// A channel.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Channel {
    /// Its id.
    pub id: Id,
    /// What it is; a number that may grow new values.
    #[serde(rename = "type", default)]
    kind: u64,
    /// The channel that a thread belongs to, or the category of any other.
    #[serde(default, deserialize_with = "lenient")]
    pub parent_id: Option<Id>,
    /// The guild that it belongs to; absent in the guild's own list.
    #[serde(default, deserialize_with = "lenient")]
    pub guild_id: Option<Id>,
    /// Its exceptions. One that cannot be read makes the channel unreadable: a guess would be a false claim.
    #[serde(default)]
    permission_overwrites: Option<Vec<RawOverwrite>>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct RawOverwrite {
    id: Id,
    #[serde(rename = "type")]
    kind: OverwriteKind,
    #[serde(default)]
    allow: Permissions,
    #[serde(default)]
    deny: Permissions,
}

/// Whom an overwrite is for: a number since version 8, a word before.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum OverwriteKind {
    Number(u64),
    Text(String),
}

impl Channel {
    /// Returns what it is.
    pub fn kind(&self) -> ChannelKind {
        ChannelKind::of(self.kind)
    }

    /// Returns its exceptions. Kinds of overwrites other than of roles and members do not exist yet and concern nobody here.
    pub fn overwrites(&self) -> Vec<Overwrite> {
        let raw = self.permission_overwrites.iter().flatten();
        raw.filter_map(|raw| {
            let target = match &raw.kind {
                OverwriteKind::Number(0) => Target::Role(raw.id.0),
                OverwriteKind::Number(1) => Target::Member(raw.id.0),
                OverwriteKind::Text(text) if text == "role" || text == "0" => Target::Role(raw.id.0),
                OverwriteKind::Text(text) if text == "member" || text == "1" => Target::Member(raw.id.0),
                _ => return None,
            };
            Some(Overwrite {
                target,
                allow: raw.allow,
                deny: raw.deny,
            })
        })
        .collect()
    }
}

/// Something live on a stage.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct StageInstance {
    /// Its id.
    pub id: Id,
    /// The stage channel.
    pub channel_id: Id,
}

/// A scheduled event.
#[derive(Debug, Clone, Deserialize)]
pub struct ScheduledEvent {
    /// Its id.
    pub id: Id,
    /// 1 scheduled, 2 active, 3 completed, 4 cancelled.
    pub status: u64,
}

impl ScheduledEvent {
    /// Returns whether it is going on.
    pub fn is_active(&self) -> bool {
        self.status == 2
    }
}

/// Somebody in a voice channel.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct VoiceState {
    /// The channel; absent when the user has left.
    #[serde(default, deserialize_with = "lenient")]
    pub channel_id: Option<Id>,
    /// The user.
    pub user_id: Id,
    /// The stay in voice.
    #[serde(default, deserialize_with = "lenient")]
    pub session_id: Option<String>,
    /// Whether the user is streaming ("Go Live"); present only then.
    #[serde(default, deserialize_with = "lenient")]
    pub self_stream: Option<bool>,
}

impl VoiceState {
    /// Returns whether the user is streaming.
    pub fn streams(&self) -> bool {
        self.self_stream == Some(true) && self.channel_id.is_some()
    }

    /// Returns an id for what is being streamed; Discord has none.
    pub fn stream_id(&self) -> String {
        let session = self.session_id.as_deref().unwrap_or("voice");
        format!("go-live-{}-{session}", self.user_id)
    }
}

/// Where the gateway is and how often a session may still be started.
#[derive(Debug, Clone, Deserialize)]
pub struct GatewayBot {
    /// The gateway's address.
    pub url: String,
    /// The budget of session starts. Without it only our own record of them counts.
    #[serde(default, deserialize_with = "lenient")]
    pub session_start_limit: Option<SessionStartLimit>,
}

/// The budget of session starts.
#[derive(Debug, Clone, Deserialize)]
pub struct SessionStartLimit {
    /// How many are left.
    pub remaining: u64,
    /// Milliseconds until the budget is full again.
    #[serde(default)]
    pub reset_after: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_listed_guild_is_read_with_more_less_and_stranger_fields_than_documented() {
        let full: ListedGuild = serde_json::from_value(json!({
            "id": "9001", "name": "Lab", "icon": null, "banner": null, "owner": false, "permissions": "3148864",
            "features": ["COMMUNITY", "SOMETHING_NEW"], "approximate_member_count": 120,
            "approximate_presence_count": 31, "brand_new": {"a": [1]},
        }))
        .unwrap();
        assert_eq!(full.id, Id(9001));
        assert_eq!(full.permissions.unwrap().bits(), 3_148_864);
        let least: ListedGuild = serde_json::from_value(json!({"id": 9001, "name": null})).unwrap();
        assert_eq!(
            (least.id, least.name, least.approximate_member_count),
            (Id(9001), None, None)
        );
        let odd: ListedGuild =
            serde_json::from_value(json!({"id": "1", "approximate_member_count": "many", "permissions": []}))
                .unwrap();
        assert!(odd.approximate_member_count.is_none() && odd.permissions.is_none());
    }

    #[test]
    fn a_snowflake_keeps_all_its_digits() {
        let id: Id = serde_json::from_str("\"18446744073709551615\"").unwrap();
        assert_eq!(id.0, u64::MAX);
        assert!(serde_json::from_str::<Id>("\"abc\"").is_err() && serde_json::from_str::<Id>("1.5").is_err());
    }

    #[test]
    fn overwrites_are_read_in_numbers_or_words_and_never_guessed() {
        let channel: Channel = serde_json::from_value(json!({
            "id": "9200", "type": 0, "permission_overwrites": [
                {"id": "9001", "type": 0, "allow": "0", "deny": "2048"},
                {"id": "4001", "type": "member", "allow": "2048", "deny": "0"},
                {"id": "1", "type": 7, "allow": "1", "deny": "0"},
            ],
        }))
        .unwrap();
        let targets: Vec<_> = channel
            .overwrites()
            .iter()
            .map(|overwrite| overwrite.target)
            .collect();
        assert_eq!(targets, [Target::Role(9001), Target::Member(4001)]);
        let broken =
            json!({"id": "1", "type": 0, "permission_overwrites": [{"id": "1", "type": 0, "deny": "x"}]});
        assert!(serde_json::from_value::<Channel>(broken).is_err());
    }

    #[test]
    fn a_timeout_that_is_over_is_none() {
        let member: GuildMember = serde_json::from_value(json!({
            "roles": ["9100"], "communication_disabled_until": "2026-06-01T12:00:00.000000+00:00",
        }))
        .unwrap();
        let end: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        assert!(member.subject(1, end.plus_millis(-1)).timed_out);
        assert!(!member.subject(1, end).timed_out);
    }
}
