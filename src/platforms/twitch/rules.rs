//! Twitch's part of the rules that all platforms share.

use crate::core::permission::Action;
use crate::core::permission::Need::{self, All, Any, Held, Not};
use crate::core::platform::{AbilityActions, Connector, NameRules, PageRules, PlatformRules, SourceAccount};
use crate::core::stream::PollTolerance;

const MINUTE: i64 = 60_000;

/// What is particular to Twitch.
pub static RULES: PlatformRules = PlatformRules {
    title: "Twitch",
    source: "channel",
    names: Some(NameRules {
        field: "login",
        longest: 25,
        extra: "_",
    }),
    has_channels: false,
    pages: PageRules {
        domains: &["twitch.tv"],
        beside: &["popout", "moderator", "embed", "u"],
        invalid: &[],
    },
    source_account: SourceAccount {
        role: "broadcaster",
        hint: "use bot, or broadcaster:ID with the broadcaster's user id or name",
    },
    // Polls lag 1–3 min behind a start and 5–15 min behind an end and alternate at first, so two misses 60 s apart are required.
    poll_tolerance: PollTolerance {
        after_start: 5 * MINUTE,
        after_end: 15 * MINUTE,
        cached: 15 * MINUTE,
        missing: MINUTE,
        unconfirmed_after: 10 * MINUTE,
        named_by_start: false,
    },
    actions: ACTIONS,
    abilities: AbilityActions {
        chat: &["send-chat"],
        moderate: &["timeout", "ban", "delete-message", "warn"],
        manage: &[
            "edit-title",
            "manage-vips",
            "manage-moderators",
            "run-ads",
            "raid",
        ],
    },
    not_covered: &[
        (
            &["send-chat", "announce"],
            "followers-only, subscribers-only, emote-only and slow mode, AutoMod, and a verified phone or e-mail",
        ),
        (
            &["shoutout", "raid"],
            "the cooldown, and whether the stream is live",
        ),
        (
            &["create-clip", "create-marker", "run-ads"],
            "whether the stream is live",
        ),
    ],
    permission_example: "or a permission as the platform names it, in capitals: MODERATOR",
    connector: Some(Connector {
        name: "twitch",
        source_ids: [
            &["message", "rawPlatformPayload", "roomId"],
            &["identity", "external", "metadata", "broadcasterId"],
        ],
        channels_are_logins: true,
    }),
};

/// Permission to moderate; broadcasters have it in their own channel.
const MODERATES: Need = Any(&[Held("MODERATOR"), Held("BROADCASTER")]);
const OWNS: Need = Held("BROADCASTER");

/// Scopes and roles by Twitch's reference of Helix and EventSub. Actions that change a channel itself require the
/// broadcaster's own token, so with the bot's token they require the bot to be the broadcaster.
const ACTIONS: &[Action] = &[
    Action::new(
        "read-chat",
        "receive chat messages",
        All(&[
            Any(&[Held("scope:user:read:chat"), Held("scope:chat:read")]),
            Not("BANNED"),
        ]),
    ),
    Action::new(
        "send-chat",
        "send chat messages",
        All(&[
            Any(&[Held("scope:user:write:chat"), Held("scope:chat:edit")]),
            Not("BANNED"),
        ]),
    ),
    Action::new(
        "read-chatters",
        "list who is in the chat",
        All(&[Held("scope:moderator:read:chatters"), MODERATES]),
    ),
    Action::new(
        "announce",
        "send announcements",
        All(&[Held("scope:moderator:manage:announcements"), MODERATES]),
    ),
    Action::new(
        "shoutout",
        "give shoutouts",
        All(&[Held("scope:moderator:manage:shoutouts"), MODERATES]),
    ),
    Action::new(
        "delete-message",
        "delete chat messages",
        All(&[Held("scope:moderator:manage:chat_messages"), MODERATES]),
    ),
    Action::new(
        "timeout",
        "time viewers out",
        All(&[Held("scope:moderator:manage:banned_users"), MODERATES]),
    ),
    Action::new(
        "ban",
        "ban and unban viewers",
        All(&[Held("scope:moderator:manage:banned_users"), MODERATES]),
    ),
    Action::new(
        "warn",
        "warn viewers",
        All(&[Held("scope:moderator:manage:warnings"), MODERATES]),
    ),
    Action::new(
        "chat-settings",
        "change slow mode, followers-only mode and the like",
        All(&[Held("scope:moderator:manage:chat_settings"), MODERATES]),
    ),
    Action::new(
        "shield-mode",
        "switch shield mode",
        All(&[Held("scope:moderator:manage:shield_mode"), MODERATES]),
    ),
    Action::new(
        "moderate",
        "everything that moderating takes: time out, ban, delete",
        All(&[
            Held("scope:moderator:manage:banned_users"),
            Held("scope:moderator:manage:chat_messages"),
            MODERATES,
        ]),
    ),
    Action::new("create-clip", "make clips", Held("scope:clips:edit")),
    Action::new(
        "create-marker",
        "set stream markers",
        All(&[
            Held("scope:channel:manage:broadcast"),
            Any(&[Held("EDITOR"), OWNS]),
        ]),
    ),
    Action::new(
        "edit-title",
        "change title and category",
        All(&[Held("scope:channel:manage:broadcast"), OWNS]),
    ),
    Action::new(
        "manage-vips",
        "make and unmake VIPs",
        All(&[Held("scope:channel:manage:vips"), OWNS]),
    ),
    Action::new(
        "manage-moderators",
        "make and unmake moderators",
        All(&[Held("scope:channel:manage:moderators"), OWNS]),
    ),
    Action::new(
        "run-ads",
        "start commercials",
        All(&[Held("scope:channel:edit:commercial"), OWNS]),
    ),
    Action::new(
        "raid",
        "start raids",
        All(&[Held("scope:channel:manage:raids"), OWNS]),
    ),
];
