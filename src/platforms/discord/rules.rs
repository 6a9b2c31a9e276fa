//! Discord's part of the rules that all platforms share.

use crate::core::permission::Action;
use crate::core::permission::Need::{All, Held};
use crate::core::platform::{AbilityActions, Connector, PageRules, PlatformRules, SourceAccount};
use crate::core::stream::PollTolerance;

/// What is particular to Discord.
pub static RULES: PlatformRules = PlatformRules {
    title: "Discord",
    source: "guild",
    names: None,
    has_channels: true,
    pages: PageRules {
        domains: &["discord.com", "discordapp.com"],
        beside: &["channels"],
        invalid: &[(
            "discord.gg",
            "an invitation link does not contain the guild's id; open the guild in a browser and use the address from there \
             (discord.com/channels/ID)",
        )],
    },
    source_account: SourceAccount {
        role: "bot",
        hint: "use bot, or bot:ID for the bot of one guild",
    },
    // There is no cache that is polled for streams.
    poll_tolerance: PollTolerance {
        after_start: 0,
        after_end: 0,
        cached: 0,
        missing: 0,
        unconfirmed_after: 0,
        named_by_start: false,
    },
    actions: ACTIONS,
    abilities: AbilityActions {
        chat: &["send-chat"],
        moderate: &["timeout", "kick", "ban", "delete-message"],
        manage: &["manage-roles"],
    },
    not_covered: &[
        (
            &["timeout", "kick", "ban", "manage-roles"],
            "members and roles at or above the bot's highest role, and the owner",
        ),
        (
            &["send-chat", "send-in-threads"],
            "slow mode, AutoMod and archived threads",
        ),
    ],
    permission_example: "or a permission as the platform names it, in capitals: SEND_MESSAGES",
    connector: Some(Connector {
        name: "discord",
        source_ids: [
            &["message", "rawPlatformPayload", "guildId"],
            &["identity", "external", "metadata", "guildId"],
        ],
        channels_are_logins: false,
    }),
};

/// Discord's permissions by the names of its flags, as computed for the bot.
const ACTIONS: &[Action] = &[
    Action::new("read-chat", "see channels and messages", Held("VIEW_CHANNEL")),
    Action::new(
        "read-history",
        "read earlier messages",
        All(&[Held("VIEW_CHANNEL"), Held("READ_MESSAGE_HISTORY")]),
    ),
    Action::new(
        "send-chat",
        "send messages",
        All(&[Held("VIEW_CHANNEL"), Held("SEND_MESSAGES")]),
    ),
    Action::new(
        "send-in-threads",
        "send messages in threads",
        All(&[Held("VIEW_CHANNEL"), Held("SEND_MESSAGES_IN_THREADS")]),
    ),
    Action::new(
        "embed-links",
        "send embeds",
        All(&[Held("VIEW_CHANNEL"), Held("SEND_MESSAGES"), Held("EMBED_LINKS")]),
    ),
    Action::new("react", "add reactions", Held("ADD_REACTIONS")),
    Action::new(
        "delete-message",
        "delete others' messages",
        Held("MANAGE_MESSAGES"),
    ),
    Action::new("timeout", "time members out", Held("MODERATE_MEMBERS")),
    Action::new("kick", "remove members", Held("KICK_MEMBERS")),
    Action::new("ban", "ban and unban members", Held("BAN_MEMBERS")),
    Action::new("manage-roles", "give and take roles", Held("MANAGE_ROLES")),
    Action::new("connect-voice", "join voice channels", Held("CONNECT")),
    Action::new("announce", "mention everyone", Held("MENTION_EVERYONE")),
];
