//! The exact computation of what a member may do in a guild and in a channel. Pure.
//!
//! The rules are those of Discord's documentation on permissions ("Permission Hierarchy", "Permission Overwrites",
//! "Implicit Permissions", "Permissions for Timed Out Members").

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{NEEDED, Permissions};

/// What a channel is, as far as permissions care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Text, announcement, forum, media.
    Text,
    /// Any thread; its overwrites are those of its parent.
    Thread,
    /// Voice.
    Voice,
    /// Stage.
    Stage,
    /// A category, or a kind that this program does not know.
    Other,
}

impl ChannelKind {
    /// Reads the `type` of a channel.
    pub fn of(number: u64) -> Self {
        match number {
            0 | 5 | 15 | 16 => Self::Text,
            10..=12 => Self::Thread,
            2 => Self::Voice,
            13 => Self::Stage,
            _ => Self::Other,
        }
    }

    /// Returns what an ingress bot needs to hear and be heard in such a channel (our decision).
    pub fn needed(self) -> Permissions {
        match self {
            Self::Thread => {
                Permissions::VIEW_CHANNEL
                    | Permissions::READ_MESSAGE_HISTORY
                    | Permissions::SEND_MESSAGES_IN_THREADS
            }
            Self::Voice | Self::Stage => NEEDED | Permissions::CONNECT,
            Self::Text | Self::Other => NEEDED,
        }
    }
}

/// A guild's rules.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct GuildRules {
    /// The guild, which is also the id of the role that everyone has.
    pub id: u64,
    /// Who owns it.
    pub owner_id: u64,
    /// The permissions of each role.
    pub roles: BTreeMap<u64, Permissions>,
}

/// A member, as far as permissions care.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// The user.
    pub id: u64,
    /// The member's roles, without the one that everyone has.
    pub roles: BTreeSet<u64>,
    /// Whether the member is in a timeout now.
    pub timed_out: bool,
}

/// Whom an overwrite concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everyone with a role; the guild's own id stands for everyone.
    Role(u64),
    /// One member.
    Member(u64),
}

/// An exception that a channel makes.
#[derive(Debug, Clone, Copy)]
pub struct Overwrite {
    /// For whom.
    pub target: Target,
    /// What is allowed in addition.
    pub allow: Permissions,
    /// What is taken away.
    pub deny: Permissions,
}

impl GuildRules {
    /// Returns what `member` may do in the guild as a whole, before timeouts and channels.
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

    /// Returns what `member` may do in the guild as a whole now.
    pub fn in_guild(&self, member: &Member) -> Permissions {
        let base = self.base(member);
        if member.timed_out && !base.contains(Permissions::ADMINISTRATOR) {
            base & Permissions::IN_TIMEOUT
        } else {
            base
        }
    }

    /// Returns what the overwrites of a channel leave of `member`'s permissions, before the implicit rules.
    ///
    /// The order of roles plays no part: what any role allows outweighs what any other role denies. A category's
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

    /// Returns what `member` may really do in a channel of `kind` with these overwrites (its parent's for a thread).
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
            ChannelKind::Thread if !held.contains(Permissions::SEND_MESSAGES_IN_THREADS) => {
                held.without(Permissions::NEEDS_SENDING)
            }
            ChannelKind::Voice | ChannelKind::Stage if !held.contains(Permissions::CONNECT) => {
                held & Permissions::OUTSIDE_VOICE
            }
            _ => held,
        }
    }
}
