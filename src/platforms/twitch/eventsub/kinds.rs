//! The supported subscription types. <https://dev.twitch.tv/docs/eventsub/eventsub-subscription-types/>

use serde::{Serialize, Serializer};

use super::messages::{Condition, SubscriptionInfo};

/// A subscription type with its supported version.
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
    /// `conduit.shard.disabled` 1.
    ShardDisabled,
    /// `user.authorization.revoke` 1.
    AuthorizationRevoke,
}

impl Kind {
    /// Every kind.
    pub(super) const ALL: [Self; 10] = [
        Self::Online,
        Self::Offline,
        Self::Update,
        Self::Chat,
        Self::ModeratorAdd,
        Self::ModeratorRemove,
        Self::VipAdd,
        Self::VipRemove,
        Self::ShardDisabled,
        Self::AuthorizationRevoke,
    ];

    /// Returns Twitch's name of the type.
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
            Self::ShardDisabled => "conduit.shard.disabled",
            Self::AuthorizationRevoke => "user.authorization.revoke",
        }
    }

    pub(super) fn version(self) -> &'static str {
        if self == Self::Update { "2" } else { "1" }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns whether Twitch requires a user's authorization for the type. Such subscriptions cost nothing; the others cost one
    /// point each unless the broadcaster has authorized the application.
    pub(super) fn is_authorized(self) -> bool {
        !matches!(self, Self::Online | Self::Offline | Self::Update)
    }

    /// Returns whether the type is about the application, and not about a channel. It is not available over a websocket.
    pub(super) fn is_of_application(self) -> bool {
        matches!(self, Self::ShardDisabled | Self::AuthorizationRevoke)
    }

    /// Returns whether the type reports that streams start and end, which is the main purpose of listening to a source.
    pub(super) fn is_of_stream(self) -> bool {
        matches!(self, Self::Online | Self::Offline)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A subscription: a type, a channel, and the reading user if relevant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Subscription {
    /// The subscription type.
    pub kind: Kind,
    /// The broadcaster's user id; the client id where the type is about the application.
    pub channel: String,
    /// The user as whom the chat is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
}

impl Subscription {
    pub(in crate::platforms::twitch) fn new(kind: Kind, channel: &str) -> Self {
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
        let mut condition = Condition::from([(subject(self.kind).to_owned(), self.channel.clone())]);
        if let Some(reader) = &self.reader {
            condition.insert("user_id".to_owned(), reader.clone());
        }
        condition
    }

    /// Returns the subscription that Twitch describes, if its type is supported.
    pub(super) fn from_info(info: &SubscriptionInfo) -> Option<Self> {
        let kind = Kind::named(&info.kind)?;
        Some(Self {
            kind,
            channel: info.condition.get(subject(kind))?.clone(),
            reader: info
                .condition
                .get("user_id")
                .filter(|_| kind == Kind::Chat)
                .cloned(),
        })
    }
}

/// Returns the key of the condition that names what a subscription is about.
fn subject(kind: Kind) -> &'static str {
    if kind.is_of_application() {
        "client_id"
    } else {
        "broadcaster_user_id"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscription_is_parsed_from_twitch_response() {
        for wanted in [
            Subscription::new(Kind::Online, "1"),
            Subscription::new(Kind::VipRemove, "1"),
            Subscription::chat("1", "2"),
            Subscription::new(Kind::ShardDisabled, "client"),
        ] {
            let info = SubscriptionInfo {
                kind: wanted.kind.name().to_owned(),
                condition: wanted.condition(),
                ..SubscriptionInfo::default()
            };
            assert_eq!(Subscription::from_info(&info), Some(wanted));
        }
        let foreign = SubscriptionInfo {
            kind: "channel.follow".to_owned(),
            ..SubscriptionInfo::default()
        };
        assert_eq!(Subscription::from_info(&foreign), None);
    }
}
