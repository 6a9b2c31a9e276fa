//! The JSON of Discord's objects, with all documented fields.

use serde_json::{Map, Value, json};

use super::world::{Bot, Channel, Event, Guild, Membership, Role, Stage, Voice, is_thread};
use crate::core::time::Timestamp;

/// Formats a time as Discord does: with microseconds and an offset.
pub(super) fn time(at: Timestamp) -> String {
    format!("{}000+00:00", at.to_string().trim_end_matches('Z'))
}

pub(super) fn user(id: u64, bot: &Bot) -> Value {
    json!({"id": id.to_string(), "username": bot.name, "discriminator": "0042", "global_name": null, "avatar": null,
        "bot": true, "mfa_enabled": false, "flags": 0, "public_flags": 0, "verified": true, "email": null,
        "locale": "en-US", "banner": null, "accent_color": null, "avatar_decoration_data": null, "collectibles": null,
        "primary_guild": null})
}

/// A user who is not a bot of the world. The owner of guilds and applications is always the same fictional user.
pub(super) fn person(id: u64) -> Value {
    let name = match id {
        77 => "ada".to_owned(),
        _ => format!("user{id}"),
    };
    json!({"id": id.to_string(), "username": name, "discriminator": "0", "global_name": null, "avatar": null, "flags": 0,
        "public_flags": 0, "banner": null, "accent_color": null, "avatar_decoration_data": null, "collectibles": null,
        "primary_guild": null})
}

pub(super) fn application(id: u64, bot: &Bot, guilds: usize) -> Value {
    json!({"id": id.to_string(), "name": bot.name, "icon": null, "description": "", "bot_public": false,
        "bot_require_code_grant": false, "verify_key": "0".repeat(64), "team": null, "flags": bot.flags,
        "flags_new": bot.flags.to_string(), "approximate_guild_count": guilds, "type": null, "owner": person(77),
        "bot": user(id, bot), "redirect_uris": [], "interactions_endpoint_url": null,
        "role_connections_verification_url": null, "approximate_user_install_count": 0,
        "approximate_user_authorization_count": 0, "explicit_content_filter": 0, "eligible_oauth2_scopes": [],
        "rpc_origins": []})
}

/// A guild in the list of a bot's guilds.
pub(super) fn partial_guild(id: u64, guild: &Guild, bot: u64, counts: bool) -> Value {
    let mut shown = json!({"id": id.to_string(), "name": guild.name, "icon": null, "banner": null,
        "owner": guild.owner == bot, "permissions": guild.permissions(id, bot).to_string(),
        "features": ["COMMUNITY"]});
    add_counts(&mut shown, guild, counts);
    shown
}

pub(super) fn guild(id: u64, guild: &Guild, counts: bool) -> Value {
    let roles: Vec<_> = roles(guild).collect();
    let mut shown = json!({"id": id.to_string(), "name": guild.name, "icon": null, "splash": null,
        "discovery_splash": null, "owner_id": guild.owner.to_string(), "afk_channel_id": null, "afk_timeout": 300,
        "verification_level": 1, "default_message_notifications": 1, "explicit_content_filter": 0, "roles": roles,
        "emojis": [], "features": ["COMMUNITY"], "mfa_level": 0, "application_id": null, "system_channel_id": null,
        "system_channel_flags": 0, "rules_channel_id": null, "vanity_url_code": null, "description": null,
        "banner": null, "premium_tier": 0, "preferred_locale": "en-US", "public_updates_channel_id": null,
        "nsfw_level": 0, "premium_progress_bar_enabled": false, "safety_alerts_channel_id": null,
        "incidents_data": null, "home_header": null, "region": "deprecated", "widget_enabled": false,
        "widget_channel_id": null, "max_presences": null, "max_members": 500_000, "max_stage_video_channel_users": 50,
        "max_video_channel_users": 25, "premium_subscription_count": 0, "nsfw": false, "stickers": []});
    add_counts(&mut shown, guild, counts);
    shown
}

fn add_counts(shown: &mut Value, guild: &Guild, counts: bool) {
    if counts {
        shown["approximate_member_count"] = guild.member_count.into();
        shown["approximate_presence_count"] = guild.presence_count.into();
    }
}

/// The roles of a guild, in the order of their ids.
pub(super) fn roles(guild: &Guild) -> impl Iterator<Item = Value> {
    guild.roles.iter().map(|(id, of)| role(*id, of))
}

pub(super) fn role(id: u64, role: &Role) -> Value {
    let mut shown = json!({"id": id.to_string(), "name": role.name, "color": 0,
        "colors": {"primary_color": 0, "secondary_color": null, "tertiary_color": null}, "hoist": false,
        "position": role.position, "permissions": role.permissions.to_string(), "managed": role.bot.is_some(),
        "mentionable": false, "flags": 0, "icon": null, "unicode_emoji": null});
    if let Some(bot) = role.bot {
        shown["tags"] = json!({"bot_id": bot.to_string()});
    }
    shown
}

pub(super) fn member(id: u64, bot: &Bot, member: &Membership) -> Value {
    json!({"user": user(id, bot), "nick": null, "avatar": null, "banner": null, "premium_since": null,
        "roles": member.roles.iter().map(u64::to_string).collect::<Vec<_>>(),
        "joined_at": "2026-01-05T10:00:00.000000+00:00", "deaf": false, "mute": false, "flags": 0, "pending": false,
        "communication_disabled_until": member.timed_out_until.map(time)})
}

/// A member who is not a bot of the world and has no role except `@everyone`.
pub(super) fn plain_member(id: u64) -> Value {
    json!({"user": person(id), "nick": null, "avatar": null, "banner": null, "premium_since": null, "roles": [],
        "joined_at": "2026-01-01T00:00:00.000000+00:00", "deaf": false, "mute": false, "flags": 0, "pending": false,
        "communication_disabled_until": null})
}

pub(super) fn channel(id: u64, guild: u64, channel: &Channel) -> Value {
    let overwrites: Vec<_> = channel
        .overwrites
        .iter()
        .map(|overwrite| {
            json!({"id": overwrite.id.to_string(), "type": overwrite.kind, "allow": overwrite.allow.to_string(),
                "deny": overwrite.deny.to_string()})
        })
        .collect();
    let mut shown = json!({"id": id.to_string(), "guild_id": guild.to_string(), "type": channel.kind,
        "name": channel.name, "flags": 0, "parent_id": channel.parent.map(|id| id.to_string()),
        "last_message_id": null, "rate_limit_per_user": 0});
    let more = if is_thread(channel.kind) {
        json!({"owner_id": "77", "message_count": 0, "member_count": 1, "total_message_sent": 0,
            "thread_metadata": {"archived": false, "archive_timestamp": "2026-01-05T10:00:00.000000+00:00",
                "auto_archive_duration": 1_440, "locked": false,
                "create_timestamp": "2026-01-05T10:00:00.000000+00:00"}})
    } else {
        json!({"position": 1, "permission_overwrites": overwrites, "nsfw": false})
    };
    extend(&mut shown, more);
    if matches!(channel.kind, VOICE | STAGE) {
        let more = json!({"bitrate": 64_000, "user_limit": 0, "rtc_region": null, "video_quality_mode": 1});
        extend(&mut shown, more);
    }
    if matches!(channel.kind, FORUM | MEDIA) {
        let more = json!({"available_tags": [], "default_reaction_emoji": null, "default_sort_order": null,
            "default_forum_layout": 0});
        extend(&mut shown, more);
    }
    if !is_thread(channel.kind) && !matches!(channel.kind, VOICE | CATEGORY) {
        shown["topic"] = Value::Null;
    }
    shown
}

const VOICE: u64 = 2;
const CATEGORY: u64 = 4;
const STAGE: u64 = 13;
const FORUM: u64 = 15;
const MEDIA: u64 = 16;

fn extend(shown: &mut Value, more: Value) {
    if let (Value::Object(shown), Value::Object(more)) = (shown, more) {
        shown.extend(more);
    }
}

pub(super) fn stage(guild: u64, channel: u64, stage: &Stage) -> Value {
    json!({"id": stage.id.to_string(), "guild_id": guild.to_string(), "channel_id": channel.to_string(),
        "topic": stage.topic, "privacy_level": 2, "discoverable_disabled": false, "guild_scheduled_event_id": null})
}

pub(super) fn event(guild: u64, id: u64, event: &Event) -> Value {
    json!({"id": id.to_string(), "guild_id": guild.to_string(),
        "channel_id": event.channel.map(|id| id.to_string()), "creator_id": "77", "name": event.name,
        "description": null, "scheduled_start_time": "2026-06-01T18:00:00+00:00", "scheduled_end_time": null,
        "privacy_level": 2, "status": event.status, "entity_type": 1, "entity_id": null, "entity_metadata": null,
        "user_count": 14, "image": null, "recurrence_rule": null, "guild_scheduled_event_exceptions": []})
}

/// The voice state of a user; without `voice` the update that the user has left.
pub(super) fn voice(guild: u64, user: u64, voice: Option<&Voice>) -> Value {
    let mut shown = json!({"guild_id": guild.to_string(),
        "channel_id": voice.map(|voice| voice.channel.to_string()), "user_id": user.to_string(),
        "session_id": format!("v{user}"), "deaf": false, "mute": false, "self_deaf": false, "self_mute": false,
        "self_video": false, "suppress": false, "request_to_speak_timestamp": null});
    if voice.is_some_and(|voice| voice.streaming) {
        shown["self_stream"] = true.into();
    }
    shown
}

/// The same voice state as REST returns it, where no field is optional.
pub(super) fn voice_of_rest(guild: u64, user: u64, stay: &Voice) -> Value {
    let mut shown = voice(guild, user, Some(stay));
    shown["self_stream"] = stay.streaming.into();
    shown
}

/// The first event about a guild after a session has begun, or after an outage.
pub(super) fn guild_create(id: u64, of: &Guild, bot_id: u64, bot: &Bot, membership: &Membership) -> Value {
    let mut shown = guild(id, of, false);
    let listed = |threads: bool| -> Vec<_> {
        of.channels
            .iter()
            .filter(|(_, channel)| is_thread(channel.kind) == threads)
            .map(|(channel, what)| self::channel(*channel, id, what))
            .collect()
    };
    let more = json!({"joined_at": "2026-01-05T10:00:00.000000+00:00", "large": false,
        "member_count": of.member_count, "members": [member(bot_id, bot, membership)],
        "channels": listed(false), "threads": listed(true), "presences": [], "soundboard_sounds": [],
        "voice_states": of.voices.iter().map(|(user, stay)| voice(id, *user, Some(stay))).collect::<Vec<_>>(),
        "stage_instances": of.stages.iter().map(|(channel, what)| stage(id, *channel, what)).collect::<Vec<_>>(),
        "guild_scheduled_events": of.events.iter().map(|(event, what)| self::event(id, *event, what)).collect::<Vec<_>>()});
    extend(&mut shown, more);
    shown
}

/// Adds undocumented fields to every object within `value`.
pub(super) fn with_unknown_fields(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(with_unknown_fields).collect(),
        Value::Object(fields) => {
            let mut grown: Map<_, _> = fields
                .into_iter()
                .map(|(key, value)| (key, with_unknown_fields(value)))
                .collect();
            grown.insert("x_new_field".to_owned(), json!({"a": [1, null, {"b": "c"}]}));
            Value::Object(grown)
        }
        plain => plain,
    }
}
