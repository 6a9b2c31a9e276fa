//! Discord's JSON, parsed as tolerantly as necessary: unknown fields are ignored, absent and null mean the same, ids and
//! permissions may be strings or numbers. Only fields that affect a verdict are required.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::permissions::{ChannelKind, GuildRules, Member, Overwrite, Permissions, Target};
use crate::core::time::Timestamp;

use crate::platforms::kit::lenient::{count, id, positive_id};

pub use crate::platforms::kit::lenient::{Rows, lenient, readable};

/// A snowflake: a positive number that Discord writes as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        positive_id(deserializer).map(Self)
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
    pub id: Id,
    #[serde(default, deserialize_with = "lenient")]
    pub username: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Application {
    /// Its id, which an invite link needs.
    pub id: Id,
}

/// A guild in the list of the bot's guilds.
#[derive(Debug, Clone, Deserialize)]
pub struct ListedGuild {
    pub id: Id,
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// Whether the bot owns it; `None` when that cannot be parsed, and then the bot may have permissions beyond those listed.
    #[serde(default = "not_owner", deserialize_with = "owner")]
    pub owner: Option<bool>,
    /// The bot's permissions without channels and timeouts.
    #[serde(default, deserialize_with = "lenient")]
    pub permissions: Option<Permissions>,
    /// Approximate number of members.
    #[serde(default, deserialize_with = "count")]
    pub approximate_member_count: Option<u64>,
    /// Approximate number of members who are not offline.
    #[serde(default, deserialize_with = "count")]
    pub approximate_presence_count: Option<u64>,
    /// Whether it has an outage; not documented for this list.
    #[serde(default, deserialize_with = "lenient")]
    pub unavailable: Option<bool>,
}

impl ListedGuild {
    /// Returns what the bot holds in the whole guild, apart from timeouts; `None` where the row leaves it open.
    pub fn held(&self) -> Option<Permissions> {
        let permissions = self.permissions?;
        // For an administrator it makes no difference who owns the guild.
        let is_owner = match self.owner {
            None => permissions
                .contains(Permissions::ADMINISTRATOR)
                .then_some(false)?,
            Some(is_owner) => is_owner,
        };
        Some(permissions.expanded(is_owner))
    }
}

/// Without the field the bot is not the owner.
#[expect(clippy::unnecessary_wraps, reason = "it stands for a field")]
fn not_owner() -> Option<bool> {
    Some(false)
}

fn owner<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(if value.is_null() {
        not_owner()
    } else {
        value.as_bool()
    })
}

/// A guild with the fields that its permissions need.
#[derive(Debug, Clone, Deserialize)]
pub struct FullGuild {
    pub id: Id,
    pub owner_id: Id,
    /// Its roles, including `@everyone`.
    pub roles: Rows<Role>,
}

impl FullGuild {
    pub fn covers(&self, member: &GuildMember) -> bool {
        self.roles.unread.is_empty() || covers(&self.rules(), member)
    }

    pub fn rules(&self) -> GuildRules {
        guild_rules(self.id, self.owner_id, &self.roles.read)
    }
}

/// Returns whether every role that matters for `member` is in `rules`. One that could not be parsed may be any of the member's
/// roles.
pub fn covers(rules: &GuildRules, member: &GuildMember) -> bool {
    let is_read = |role: u64| rules.roles.contains_key(&role);
    is_read(rules.id) && member.roles.iter().all(|role| is_read(role.0))
}

pub fn guild_rules(id: Id, owner: Id, roles: &[Role]) -> GuildRules {
    GuildRules {
        id: id.0,
        owner_id: owner.0,
        roles: roles.iter().map(|role| (role.id.0, role.permissions)).collect(),
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Role {
    pub id: Id,
    /// Permissions that it grants.
    pub permissions: Permissions,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct GuildMember {
    /// The user; absent where the request identifies it.
    #[serde(default, deserialize_with = "lenient")]
    pub user: Option<Me>,
    /// The member's roles, without `@everyone`.
    pub roles: Vec<Id>,
    /// The timeout of the member.
    #[serde(default)]
    pub communication_disabled_until: Timeout,
}

/// When the timeout of a member expires. Discord leaves the time set afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timeout {
    /// The member was never in one.
    #[default]
    None,
    Until(Timestamp),
    /// The time cannot be parsed, so whether the member is in a timeout is unknown.
    Unreadable,
}

impl Timeout {
    /// Returns whether it lasts at `now`, if that is known.
    pub fn lasts(self, now: Timestamp) -> Option<bool> {
        match self {
            Self::None => Some(false),
            Self::Until(until) => Some(until > now),
            Self::Unreadable => None,
        }
    }
}

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value.is_null() {
            return Ok(Self::None);
        }
        Ok(serde_json::from_value(value).map_or(Self::Unreadable, Self::Until))
    }
}

impl Serialize for Timeout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Until(until) => until.serialize(serializer),
            // Read again as a time that cannot be parsed.
            Self::Unreadable => serializer.serialize_str("unreadable"),
        }
    }
}

impl GuildMember {
    /// Returns the member as needed for permissions at `now`, in a timeout only if that is certain: see
    /// [`Self::has_unclear_timeout`].
    pub fn subject(&self, id: u64, now: Timestamp) -> Member {
        Member {
            id,
            roles: self.roles.iter().map(|role| role.0).collect(),
            timed_out: self.communication_disabled_until.lasts(now).unwrap_or(false),
        }
    }

    /// Returns whether a timeout that cannot be parsed may reduce the member's permissions `base`. It does not for
    /// administrators.
    pub fn has_unclear_timeout(&self, base: Permissions) -> bool {
        self.communication_disabled_until == Timeout::Unreadable && !base.contains(Permissions::ADMINISTRATOR)
    }
}

/// Why permissions are unknown when [`GuildMember::has_unclear_timeout`].
pub const UNCLEAR_TIMEOUT: &str =
    "whether the bot is in a timeout is unknown, because Discord's time of its end cannot be read";

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Channel {
    pub id: Id,
    /// Its type, a number for which new values may be added. Absent when it cannot be parsed: a channel of an unknown type is not
    /// one of type 0.
    #[serde(rename = "type", default, deserialize_with = "count")]
    kind: Option<u64>,
    /// The channel that a thread belongs to, or the category of any other.
    #[serde(default, deserialize_with = "lenient")]
    pub parent_id: Option<Id>,
    /// Its guild; absent in the guild's own list.
    #[serde(default, deserialize_with = "lenient")]
    pub guild_id: Option<Id>,
    /// Whether a thread is locked. Like the overwrites, a value that cannot be parsed makes the channel unreadable: a guess would
    /// be a false result.
    #[serde(default)]
    thread_metadata: Option<ThreadMetadata>,
    #[serde(default)]
    permission_overwrites: Option<Vec<RawOverwrite>>,
}

/// Additional fields of a thread.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct ThreadMetadata {
    #[serde(default)]
    locked: Option<bool>,
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

/// Target type of an overwrite: a number since version 8, a string before.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum OverwriteKind {
    Number(u64),
    Text(String),
}

impl Channel {
    /// Returns its type; `None` when Discord did not send it.
    pub fn kind(&self) -> Option<ChannelKind> {
        let locked = self.thread_metadata.as_ref().and_then(|thread| thread.locked) == Some(true);
        self.kind.map(|kind| match ChannelKind::of(kind) {
            ChannelKind::Thread if locked => ChannelKind::LockedThread,
            kind => kind,
        })
    }

    /// Returns its overwrites. Types other than role and member do not exist yet and are ignored.
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

/// A live stage instance.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct StageInstance {
    pub id: Id,
    pub channel_id: Id,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ScheduledEvent {
    pub id: Id,
    /// 1 scheduled, 2 active, 3 completed, 4 canceled.
    #[serde(deserialize_with = "id")]
    pub status: u64,
}

impl ScheduledEvent {
    pub fn is_active(&self) -> bool {
        self.status == 2
    }
}

/// Voice state of a user.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct VoiceState {
    /// The channel; absent when the user has left.
    #[serde(default, deserialize_with = "lenient")]
    pub channel_id: Option<Id>,
    pub user_id: Id,
    /// Id of the voice session.
    #[serde(default, deserialize_with = "lenient")]
    pub session_id: Option<String>,
    /// Whether the user is streaming ("Go Live"); present only then. A value that cannot be parsed proves neither a stream nor its
    /// end.
    #[serde(default)]
    pub self_stream: Option<bool>,
}

impl VoiceState {
    pub fn streams(&self) -> bool {
        self.self_stream == Some(true) && self.channel_id.is_some()
    }

    /// Returns an id for the stream; Discord has none.
    pub fn stream_id(&self) -> String {
        let session = self.session_id.as_deref().unwrap_or("voice");
        format!("go-live-{}-{session}", self.user_id)
    }
}

/// The gateway's address and the limit of session starts.
#[derive(Debug, Clone, Deserialize)]
pub struct GatewayBot {
    pub url: String,
    /// The limit of session starts. Without it only our own record of them counts.
    #[serde(default, deserialize_with = "lenient")]
    pub session_start_limit: Option<SessionStartLimit>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SessionStartLimit {
    /// Session starts left.
    pub remaining: u64,
    /// Milliseconds until the limit is reset.
    #[serde(default)]
    pub reset_after: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platforms::kit::lenient::odd;
    use serde_json::json;

    #[test]
    fn listed_guild_parses_extra_missing_and_odd_fields() {
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

    /// Parses a response as received.
    fn read<T: serde::de::DeserializeOwned>(body: &str) -> serde_json::Result<T> {
        serde_json::from_str(&crate::core::json::repair(body.as_bytes()))
    }

    #[test]
    fn odd_value_costs_at_most_its_row() {
        fn others<T: serde::de::DeserializeOwned>(row: &serde_json::Value) {
            for odd in odd::variants(row) {
                let rows: Rows<T> =
                    read(&format!("[{odd},{row}]")).unwrap_or_else(|error| panic!("{odd}: {error}"));
                assert!(
                    !rows.read.is_empty() && rows.read.len() + rows.unread.len() == 2,
                    "{odd}"
                );
            }
        }
        others::<ListedGuild>(
            &json!({"id": "9001", "name": "Lab", "owner": false, "permissions": "3148864",
            "approximate_member_count": 120, "approximate_presence_count": 31, "unavailable": false}),
        );
        others::<Channel>(
            &json!({"id": "9200", "type": 0, "parent_id": "1", "guild_id": "9001",
            "thread_metadata": {"locked": true},
            "permission_overwrites": [{"id": "9001", "type": 0, "allow": "0", "deny": "2048"}]}),
        );
        others::<Role>(&json!({"id": "9100", "permissions": "8"}));
        others::<StageInstance>(&json!({"id": "1", "channel_id": "2"}));
        others::<ScheduledEvent>(&json!({"id": "1", "status": 2}));
        others::<VoiceState>(
            &json!({"channel_id": "1", "user_id": "2", "session_id": "a", "self_stream": true}),
        );
        let role = json!({"id": "9001", "permissions": "8"});
        for odd in odd::variants(&role) {
            let body = format!(r#"{{"id":"9001","owner_id":"1","roles":[{odd},{role}]}}"#);
            let guild: FullGuild = read(&body).unwrap_or_else(|error| panic!("{odd}: {error}"));
            let member = |roles: serde_json::Value| serde_json::from_value(json!({"roles": roles})).unwrap();
            assert!(guild.covers(&member(json!([]))), "{odd}");
            let unknown = guild.covers(&member(json!(["9100"])));
            assert_eq!(
                unknown,
                guild.roles.unread.is_empty(),
                "{odd}: a role that may be the unreadable one"
            );
        }
        // Unusual values of purely informational fields, which are not in a list.
        for odd in odd::variants(&json!({"username": "bitbrat"})) {
            let body = odd.replacen('{', r#"{"id":"1","#, 1);
            assert!(read::<Me>(&body).is_ok(), "{body}");
        }
    }

    #[test]
    fn a_snowflake_keeps_all_its_digits() {
        let id: Id = serde_json::from_str("\"18446744073709551615\"").unwrap();
        assert_eq!(id.0, u64::MAX);
        for impossible in ["\"abc\"", "1.5", "0", "\"0\"", "-1", "1e30", "true", "null"] {
            assert!(serde_json::from_str::<Id>(impossible).is_err(), "{impossible}");
        }
    }

    #[test]
    fn unreadable_owner_or_permissions_leave_what_is_held_open() {
        let held = |owner: serde_json::Value, permissions: serde_json::Value| {
            let row = json!({"id": "9001", "owner": owner, "permissions": permissions});
            serde_json::from_value::<ListedGuild>(row).unwrap().held()
        };
        let usual = Some(Permissions::VIEW_CHANNEL);
        assert_eq!(held(json!(false), json!("1024")), usual);
        assert_eq!(held(json!(null), json!("1024")), usual);
        assert_eq!(held(json!(true), json!("1024")), Some(Permissions::ALL));
        for odd in [json!("true"), json!("false"), json!(1), json!([true])] {
            assert_eq!(held(odd.clone(), json!("1024")), None, "{odd}");
            assert_eq!(held(odd.clone(), json!("8")), Some(Permissions::ALL), "{odd}");
        }
        for odd in [
            json!("1".repeat(41)),
            json!("8 "),
            json!(-8),
            json!(8.5),
            json!(true),
            json!(null),
        ] {
            assert_eq!(held(json!(false), odd.clone()), None, "{odd}");
            assert_eq!(held(json!(true), odd.clone()), None, "{odd}");
        }
    }

    #[test]
    fn unreadable_lock_of_a_thread_makes_the_channel_unreadable() {
        let thread = |metadata: serde_json::Value| {
            let row = json!({"id": "6", "type": 11, "parent_id": "5", "thread_metadata": metadata});
            serde_json::from_value::<Channel>(row)
                .ok()
                .map(|channel| channel.kind())
        };
        assert_eq!(
            thread(json!({"locked": true})),
            Some(Some(ChannelKind::LockedThread))
        );
        for open in [
            json!({"locked": false}),
            json!({"locked": null}),
            json!({}),
            json!(null),
        ] {
            assert_eq!(thread(open.clone()), Some(Some(ChannelKind::Thread)), "{open}");
        }
        for odd in [
            json!({"locked": "true"}),
            json!({"locked": 1}),
            json!("locked"),
            json!(7),
        ] {
            assert_eq!(thread(odd.clone()), None, "{odd}");
        }
    }

    #[test]
    fn overwrites_parse_numeric_and_text_types_without_guessing() {
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
    fn unreadable_timeout_is_not_taken_for_none() {
        let member = |until: serde_json::Value| -> GuildMember {
            let value = json!({"roles": [], "communication_disabled_until": until});
            let member: GuildMember = serde_json::from_value(value).unwrap();
            // It survives the storage of a session's state.
            let stored = serde_json::to_value(&member).unwrap();
            let restored: GuildMember = serde_json::from_value(stored).unwrap();
            assert_eq!(
                restored.communication_disabled_until,
                member.communication_disabled_until
            );
            restored
        };
        for odd in [json!("garbage"), json!(""), json!({}), json!([1]), json!(true)] {
            let member = member(odd.clone());
            assert!(member.has_unclear_timeout(Permissions::NONE), "{odd}");
            assert!(!member.has_unclear_timeout(Permissions::ALL), "{odd}");
        }
        for fine in [json!(null), json!("2026-06-01T12:00:00.000000+00:00")] {
            assert!(
                !member(fine.clone()).has_unclear_timeout(Permissions::NONE),
                "{fine}"
            );
        }
        let absent: GuildMember = serde_json::from_value(json!({"roles": []})).unwrap();
        assert_eq!(absent.communication_disabled_until, Timeout::None);
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
