//! Computes exactly what a member may do in a guild and in a channel. Pure.
//!
//! The rules are those of Discord's documentation on permissions ("Permission Hierarchy", "Permission Overwrites",
//! "Implicit Permissions", "Permissions for Timed Out Members").

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{NEEDED, Permissions};

/// Type of a channel, as far as permissions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Text, announcement, forum or media channel.
    Text,
    /// Any thread; its overwrites are those of its parent.
    Thread,
    /// A thread that a moderator has locked; only members with `MANAGE_THREADS` can still send messages in it.
    LockedThread,
    Voice,
    Stage,
    /// A category: a group of channels, which contains no messages.
    Category,
    /// A directory: a list of guilds, which contains no messages.
    Directory,
    /// A type that this program does not support.
    Other,
}

impl ChannelKind {
    /// Converts the `type` of a channel.
    pub fn of(number: u64) -> Self {
        match number {
            0 | 5 | 15 | 16 => Self::Text,
            10..=12 => Self::Thread,
            2 => Self::Voice,
            13 => Self::Stage,
            4 => Self::Category,
            14 => Self::Directory,
            _ => Self::Other,
        }
    }

    /// Returns the permissions that an ingress bot needs to receive and send messages in such a channel (our decision).
    pub fn needed(self) -> Permissions {
        match self {
            Self::Thread | Self::LockedThread => {
                Permissions::VIEW_CHANNEL
                    | Permissions::READ_MESSAGE_HISTORY
                    | Permissions::SEND_MESSAGES_IN_THREADS
            }
            Self::Voice | Self::Stage => NEEDED | Permissions::CONNECT,
            Self::Text | Self::Category | Self::Directory | Self::Other => NEEDED,
        }
    }
}

/// What the permissions in a guild follow from.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct GuildRules {
    /// The guild's id, which is also the id of the `@everyone` role.
    pub id: u64,
    pub owner_id: u64,
    /// The permissions of each role.
    pub roles: BTreeMap<u64, Permissions>,
}

/// A member, as far as permissions depend on it.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// The user's id.
    pub id: u64,
    /// The member's roles, without `@everyone`.
    pub roles: BTreeSet<u64>,
    /// Whether the member is currently in a timeout.
    pub timed_out: bool,
}

/// Target of an overwrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everyone with a role; the guild's own id stands for `@everyone`.
    Role(u64),
    Member(u64),
}

/// A permission overwrite of a channel.
#[derive(Debug, Clone, Copy)]
pub struct Overwrite {
    /// Role or member that it applies to.
    pub target: Target,
    /// Permissions that are granted in addition.
    pub allow: Permissions,
    /// Permissions that are removed.
    pub deny: Permissions,
}

impl GuildRules {
    /// Returns the guild-level permissions of `member`, before timeouts and channel overwrites.
    pub fn base(&self, member: &Member) -> Permissions {
        if member.id == self.owner_id {
            return Permissions::ALL;
        }
        let role = |id: &u64| self.roles.get(id).copied().unwrap_or_default();
        let sum = member
            .roles
            .iter()
            .map(role)
            .fold(role(&self.id), |sum, more| sum | more);
        if sum.contains(Permissions::ADMINISTRATOR) {
            Permissions::ALL
        } else {
            sum
        }
    }

    /// Returns the current guild-level permissions of `member`.
    pub fn in_guild(&self, member: &Member) -> Permissions {
        let base = self.base(member);
        if member.timed_out && !base.contains(Permissions::ADMINISTRATOR) {
            base & Permissions::IN_TIMEOUT
        } else {
            base
        }
    }

    /// Returns `member`'s permissions after applying a channel's overwrites, before the implicit rules.
    ///
    /// The order of roles does not matter: what any role allows outweighs what any other role denies. A category's
    /// overwrites count only where a channel holds copies of them.
    pub fn overwritten(&self, member: &Member, overwrites: &[Overwrite]) -> Permissions {
        let base = self.base(member);
        if base.contains(Permissions::ADMINISTRATOR) {
            return Permissions::ALL;
        }
        let apply = |held: Permissions, concerns: &dyn Fn(Target) -> bool| {
            let (mut allow, mut deny) = (Permissions::NONE, Permissions::NONE);
            for overwrite in overwrites.iter().filter(|overwrite| concerns(overwrite.target)) {
                allow = allow | overwrite.allow;
                deny = deny | overwrite.deny;
            }
            held.without(deny) | allow
        };
        let held = apply(base, &|target| target == Target::Role(self.id));
        let held = apply(
            held,
            &|target| matches!(target, Target::Role(role) if role != self.id && member.roles.contains(&role)),
        );
        apply(held, &|target| target == Target::Member(member.id))
    }

    /// Returns the effective permissions of `member` in a channel of `kind` with these overwrites (its parent's for a thread).
    pub fn in_channel(&self, member: &Member, kind: ChannelKind, overwrites: &[Overwrite]) -> Permissions {
        let mut held = self.overwritten(member, overwrites);
        if member.timed_out && !self.base(member).contains(Permissions::ADMINISTRATOR) {
            held = held & Permissions::IN_TIMEOUT;
        }
        if !held.contains(Permissions::VIEW_CHANNEL) {
            return Permissions::NONE;
        }
        match kind {
            ChannelKind::Text if !held.contains(Permissions::SEND_MESSAGES) => {
                held.without(Permissions::NEEDS_SENDING)
            }
            ChannelKind::Thread => held.in_thread(),
            ChannelKind::LockedThread if held.contains(Permissions::MANAGE_THREADS) => held.in_thread(),
            ChannelKind::LockedThread => held.without(Permissions::SEND_MESSAGES_IN_THREADS).in_thread(),
            ChannelKind::Voice | ChannelKind::Stage if !held.contains(Permissions::CONNECT) => {
                held & Permissions::OUTSIDE_VOICE
            }
            _ => held,
        }
    }
}

impl Permissions {
    /// Applies the rules that Discord documents for threads: everything is inherited from the parent except `SEND_MESSAGES`,
    /// which `SEND_MESSAGES_IN_THREADS` replaces, with all that depends on it.
    fn in_thread(self) -> Self {
        if self.contains(Self::SEND_MESSAGES_IN_THREADS) {
            self | Self::SEND_MESSAGES
        } else {
            self.without(Self::SEND_MESSAGES | Self::NEEDS_SENDING)
        }
    }
}
