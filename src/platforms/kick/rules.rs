//! Kick's part of the rules that all platforms share.

use crate::core::permission::Action;
use crate::core::permission::Need::{self, All, Any, Held};
use crate::core::platform::{AbilityActions, NameRules, PageRules, PlatformRules, SourceAccount};
use crate::core::stream::PollTolerance;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;

/// What is particular to Kick.
pub static RULES: PlatformRules = PlatformRules {
    title: "Kick",
    source: "channel",
    names: Some(NameRules {
        field: "slug",
        longest: 60,
        extra: "_-",
    }),
    has_channels: false,
    pages: PageRules {
        domains: &["kick.com"],
        beside: &["popout", "embed"],
        invalid: &[],
    },
    source_account: SourceAccount {
        role: "broadcaster",
        hint: "use bot, or broadcaster:ID with the broadcaster's user id or name",
    },
    // The list lags by seconds, and an ended stream never comes back with the same start time, so a pushed end is final; 90 s of
    // absence are required.
    poll_tolerance: PollTolerance {
        after_start: MINUTE,
        after_end: i64::MAX,
        cached: MINUTE,
        missing: 90 * SECOND,
        unconfirmed_after: 10 * MINUTE,
        named_by_start: true,
    },
    actions: ACTIONS,
    abilities: AbilityActions {
        chat: &["send-chat"],
        moderate: &["timeout", "ban", "delete-message"],
        manage: &["edit-title"],
    },
    not_covered: &[(
        &["send-chat"],
        "followers-only, subscribers-only and slow mode, and a ban by the channel",
    )],
    permission_example: "or a permission as observed: scope:chat:write, badge:moderator",
    // The BitBrat platform has no connector for Kick.
    connector: None,
};

const MODERATES: Need = Any(&[Held("badge:moderator"), Held("badge:broadcaster")]);

/// Kick reports scopes; roles only by observed badges, so a role is known or unknown, never a no.
const ACTIONS: &[Action] = &[
    Action::new(
        "read-chat",
        "receive chat messages",
        Held("scope:events:subscribe"),
    ),
    Action::new("send-chat", "send chat messages", Held("scope:chat:write")),
    Action::new(
        "timeout",
        "time viewers out",
        All(&[Held("scope:moderation:ban"), MODERATES]),
    ),
    Action::new(
        "ban",
        "ban and unban viewers",
        All(&[Held("scope:moderation:ban"), MODERATES]),
    ),
    Action::new(
        "delete-message",
        "delete chat messages",
        All(&[Held("scope:moderation:chat_message:manage"), MODERATES]),
    ),
    Action::new(
        "edit-title",
        "change title and category",
        Held("scope:channel:write"),
    ),
];
