//! Roles of users in channels, and who has them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use crate::core::time::Timestamp;

/// Role of a user in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Moderates the channel.
    Moderator,
    /// Moderates the channel and leads its moderators; shown by another badge.
    LeadModerator,
    /// VIP; excludes being moderator.
    Vip,
    /// May edit the channel.
    Editor,
    /// Subscribes to the channel (tier 1).
    Subscriber,
    /// Is banned from its chat.
    Banned,
    /// Is present in its chat.
    Chatter,
}

/// Members of channels in one role.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_channel: HashMap<String, BTreeMap<String, Member>>,
    by_user: HashMap<String, BTreeSet<String>>,
}

/// Data about one membership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) since: Option<Timestamp>,
    /// `1000`, `2000` or `3000` for subscribers; `lead` for lead moderators.
    pub(super) tier: String,
    pub(super) gift: bool,
}

impl Members {
    /// Adds a member; returns whether that is a change.
    pub(super) fn add(&mut self, channel: &str, user: &str, member: Member) -> bool {
        self.by_user
            .entry(user.to_owned())
            .or_default()
            .insert(channel.to_owned());
        self.by_channel
            .entry(channel.to_owned())
            .or_default()
            .insert(user.to_owned(), member)
            .is_none()
    }

    /// Removes a member; returns whether there was one.
    pub(super) fn remove(&mut self, channel: &str, user: &str) -> bool {
        if let Some(channels) = self.by_user.get_mut(user) {
            channels.remove(channel);
        }
        self.by_channel
            .get_mut(channel)
            .is_some_and(|members| members.remove(user).is_some())
    }

    pub(super) fn get(&self, channel: &str, user: &str) -> Option<&Member> {
        self.by_channel.get(channel)?.get(user)
    }

    pub(super) fn has(&self, channel: &str, user: &str) -> bool {
        self.get(channel, user).is_some()
    }

    /// Returns the members of `channel` in order of their ids.
    pub(super) fn of(&self, channel: &str) -> impl Iterator<Item = (&String, &Member)> {
        self.by_channel.get(channel).into_iter().flatten()
    }

    /// Returns the channels that `user` is a member of, in order of their ids.
    pub(super) fn channels_of(&self, user: &str) -> impl Iterator<Item = &String> {
        self.by_user.get(user).into_iter().flatten()
    }
}

/// Members of all channels by role.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) moderators: Members,
    pub(super) vips: Members,
    pub(super) editors: Members,
    pub(super) subscribers: Members,
    pub(super) banned: Members,
    pub(super) chatters: Members,
}

impl Roles {
    /// Returns the members of all channels in `role`.
    pub(super) fn of(&mut self, role: Role) -> &mut Members {
        match role {
            Role::Moderator | Role::LeadModerator => &mut self.moderators,
            Role::Vip => &mut self.vips,
            Role::Editor => &mut self.editors,
            Role::Subscriber => &mut self.subscribers,
            Role::Banned => &mut self.banned,
            Role::Chatter => &mut self.chatters,
        }
    }
}
