//! The subscriptions that we know how to ask for.
//! <https://dev.twitch.tv/docs/eventsub/eventsub-subscription-types/>

use serde::{Serialize, Serializer};

use super::wire::{Condition, Told};

/// A type of subscription, with the version that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `stream.online` 1.
    Online,
    /// `stream.offline` 1.
    Offline,
    /// `channel.update` 2.
    Update,
    /// `channel.chat.message` 1.
    Chat,
    /// `channel.moderator.add` 1.
    ModeratorAdd,
    /// `channel.moderator.remove` 1.
    ModeratorRemove,
    /// `channel.vip.add` 1.
    VipAdd,
    /// `channel.vip.remove` 1.
    VipRemove,
}

impl Kind {
    /// Every kind.
    pub(super) const ALL: [Self; 8] = [
        Self::Online,
        Self::Offline,
        Self::Update,
        Self::Chat,
        Self::ModeratorAdd,
        Self::ModeratorRemove,
        Self::VipAdd,
        Self::VipRemove,
    ];

    /// Returns Twitch's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "stream.online",
            Self::Offline => "stream.offline",
            Self::Update => "channel.update",
            Self::Chat => "channel.chat.message",
            Self::ModeratorAdd => "channel.moderator.add",
            Self::ModeratorRemove => "channel.moderator.remove",
            Self::VipAdd => "channel.vip.add",
            Self::VipRemove => "channel.vip.remove",
        }
    }

    pub(super) fn version(self) -> &'static str {
        if self == Self::Update { "2" } else { "1" }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns whether Twitch asks for somebody's authorisation. Those cost nothing, the others a point each unless the
    /// broadcaster has authorised the application.
    pub(super) fn is_authorised(self) -> bool {
        !matches!(self, Self::Online | Self::Offline | Self::Update)
    }

    /// Returns whether the kind tells who is live, which is what a source is listened to for.
    pub(super) fn is_of_stream(self) -> bool {
        matches!(self, Self::Online | Self::Offline)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A subscription: a kind, a channel, and who reads where that matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Subscription {
    /// What it tells.
    pub kind: Kind,
    /// The broadcaster's user id.
    pub channel: String,
    /// The user who reads the chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
}

impl Subscription {
    pub(super) fn new(kind: Kind, channel: &str) -> Self {
        Self {
            kind,
            channel: channel.to_owned(),
            reader: None,
        }
    }

    pub(super) fn chat(channel: &str, reader: &str) -> Self {
        Self {
            reader: Some(reader.to_owned()),
            ..Self::new(Kind::Chat, channel)
        }
    }

    pub(super) fn condition(&self) -> Condition {
        let mut condition = Condition::from([("broadcaster_user_id".to_owned(), self.channel.clone())]);
        if let Some(reader) = &self.reader {
            condition.insert("user_id".to_owned(), reader.clone());
        }
        condition
    }

    /// Returns the subscription that Twitch tells of, if it is of a kind of ours.
    pub(super) fn told(told: &Told) -> Option<Self> {
        let kind = Kind::named(&told.kind)?;
        Some(Self {
            kind,
            channel: told.condition.get("broadcaster_user_id")?.clone(),
            reader: told
                .condition
                .get("user_id")
                .filter(|_| kind == Kind::Chat)
                .cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_recognised_in_what_twitch_tells() {
        for wanted in [
            Subscription::new(Kind::Online, "1"),
            Subscription::new(Kind::VipRemove, "1"),
            Subscription::chat("1", "2"),
        ] {
            let told = Told {
                kind: wanted.kind.name().to_owned(),
                condition: wanted.condition(),
                ..Told::default()
            };
            assert_eq!(Subscription::told(&told), Some(wanted));
        }
        let foreign = Told {
            kind: "channel.follow".to_owned(),
            ..Told::default()
        };
        assert_eq!(Subscription::told(&foreign), None);
    }
}
