//! The actions of each platform and their requirements, from the platforms' documentation.

use super::Action;
use super::Need::{self, All, Any, Held, Not};

const fn does(name: &'static str, about: &'static str, need: Need) -> Action {
    Action { name, about, need }
}

/// Permission to moderate; Twitch's broadcasters have it in their own channel.
const MODERATES: Need = Any(&[Held("MODERATOR"), Held("BROADCASTER")]);
const OWNS: Need = Held("BROADCASTER");

/// Scopes and roles by Twitch's reference of Helix and EventSub. Actions that change a channel itself require the
/// broadcaster's own token, so with the bot's token they require the bot to be the broadcaster.
pub(super) const TWITCH: &[Action] = &[
    does(
        "read-chat",
        "receive chat messages",
        All(&[
            Any(&[Held("scope:user:read:chat"), Held("scope:chat:read")]),
            Not("BANNED"),
        ]),
    ),
    does(
        "send-chat",
        "send chat messages",
        All(&[
            Any(&[Held("scope:user:write:chat"), Held("scope:chat:edit")]),
            Not("BANNED"),
        ]),
    ),
    does(
        "read-chatters",
        "list who is in the chat",
        All(&[Held("scope:moderator:read:chatters"), MODERATES]),
    ),
    does(
        "announce",
        "send announcements",
        All(&[Held("scope:moderator:manage:announcements"), MODERATES]),
    ),
    does(
        "shoutout",
        "give shoutouts",
        All(&[Held("scope:moderator:manage:shoutouts"), MODERATES]),
    ),
    does(
        "delete-message",
        "delete chat messages",
        All(&[Held("scope:moderator:manage:chat_messages"), MODERATES]),
    ),
    does(
        "timeout",
        "time viewers out",
        All(&[Held("scope:moderator:manage:banned_users"), MODERATES]),
    ),
    does(
        "ban",
        "ban and unban viewers",
        All(&[Held("scope:moderator:manage:banned_users"), MODERATES]),
    ),
    does(
        "warn",
        "warn viewers",
        All(&[Held("scope:moderator:manage:warnings"), MODERATES]),
    ),
    does(
        "chat-settings",
        "change slow mode, followers-only mode and the like",
        All(&[Held("scope:moderator:manage:chat_settings"), MODERATES]),
    ),
    does(
        "shield-mode",
        "switch shield mode",
        All(&[Held("scope:moderator:manage:shield_mode"), MODERATES]),
    ),
    does(
        "moderate",
        "everything that moderating takes: time out, ban, delete",
        All(&[
            Held("scope:moderator:manage:banned_users"),
            Held("scope:moderator:manage:chat_messages"),
            MODERATES,
        ]),
    ),
    does("create-clip", "make clips", Held("scope:clips:edit")),
    does(
        "create-marker",
        "set stream markers",
        All(&[
            Held("scope:channel:manage:broadcast"),
            Any(&[Held("EDITOR"), OWNS]),
        ]),
    ),
    does(
        "edit-title",
        "change title and category",
        All(&[Held("scope:channel:manage:broadcast"), OWNS]),
    ),
    does(
        "manage-vips",
        "make and unmake VIPs",
        All(&[Held("scope:channel:manage:vips"), OWNS]),
    ),
    does(
        "manage-moderators",
        "make and unmake moderators",
        All(&[Held("scope:channel:manage:moderators"), OWNS]),
    ),
    does(
        "run-ads",
        "start commercials",
        All(&[Held("scope:channel:edit:commercial"), OWNS]),
    ),
    does(
        "raid",
        "start raids",
        All(&[Held("scope:channel:manage:raids"), OWNS]),
    ),
];

/// Kick reports scopes; roles only by observed badges, so a role is known or unknown, never a no.
pub(super) const KICK: &[Action] = &[
    does(
        "read-chat",
        "receive chat messages",
        Held("scope:events:subscribe"),
    ),
    does("send-chat", "send chat messages", Held("scope:chat:write")),
    does(
        "timeout",
        "time viewers out",
        All(&[Held("scope:moderation:ban"), KICK_MODERATES]),
    ),
    does(
        "ban",
        "ban and unban viewers",
        All(&[Held("scope:moderation:ban"), KICK_MODERATES]),
    ),
    does(
        "delete-message",
        "delete chat messages",
        All(&[Held("scope:moderation:chat_message:manage"), KICK_MODERATES]),
    ),
    does(
        "edit-title",
        "change title and category",
        Held("scope:channel:write"),
    ),
];
const KICK_MODERATES: Need = Any(&[Held("badge:moderator"), Held("badge:broadcaster")]);

/// Discord's permissions by the names of its flags, as computed for the bot.
pub(super) const DISCORD: &[Action] = &[
    does("read-chat", "see channels and messages", Held("VIEW_CHANNEL")),
    does(
        "read-history",
        "read earlier messages",
        All(&[Held("VIEW_CHANNEL"), Held("READ_MESSAGE_HISTORY")]),
    ),
    does(
        "send-chat",
        "send messages",
        All(&[Held("VIEW_CHANNEL"), Held("SEND_MESSAGES")]),
    ),
    does(
        "send-in-threads",
        "send messages in threads",
        All(&[Held("VIEW_CHANNEL"), Held("SEND_MESSAGES_IN_THREADS")]),
    ),
    does(
        "embed-links",
        "send embeds",
        All(&[Held("VIEW_CHANNEL"), Held("SEND_MESSAGES"), Held("EMBED_LINKS")]),
    ),
    does("react", "add reactions", Held("ADD_REACTIONS")),
    does(
        "delete-message",
        "delete others' messages",
        Held("MANAGE_MESSAGES"),
    ),
    does("timeout", "time members out", Held("MODERATE_MEMBERS")),
    does("kick", "remove members", Held("KICK_MEMBERS")),
    does("ban", "ban and unban members", Held("BAN_MEMBERS")),
    does("manage-roles", "give and take roles", Held("MANAGE_ROLES")),
    does("connect-voice", "join voice channels", Held("CONNECT")),
    does("announce", "mention everyone", Held("MENTION_EVERYONE")),
];
