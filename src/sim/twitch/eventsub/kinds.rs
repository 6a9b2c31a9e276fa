//! The subscription types: versions, conditions, and requirements for the token.

/// Requirements of a subscription for the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// Any user token. Such types cost a point unless the user in the condition has authorized the application.
    Nothing,
    /// The token's user is the one under this key of the condition and has one of these scopes.
    OneOf(&'static str, &'static [&'static str]),
    /// The application's own token; not available over a websocket.
    Application,
    /// The token's user is the one under this key, and has one scope of each of these groups.
    EachOf(&'static str, &'static [&'static [&'static str]]),
}

/// One subscription type.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) condition: &'static [&'static str],
    pub(super) demand: Demand,
}

const fn kind(
    name: &'static str,
    version: &'static str,
    condition: &'static [&'static str],
    demand: Demand,
) -> Kind {
    Kind {
        name,
        version,
        condition,
        demand,
    }
}

const BROADCASTER: &[&str] = &["broadcaster_user_id"];
const CLIENT: &[&str] = &["client_id"];

const MODERATE_V1: &[&[&str]] = &[
    &["moderator:read:blocked_terms", "moderator:manage:blocked_terms"],
    &["moderator:read:chat_settings", "moderator:manage:chat_settings"],
    &["moderator:read:unban_requests", "moderator:manage:unban_requests"],
    &["moderator:read:banned_users", "moderator:manage:banned_users"],
    &["moderator:read:chat_messages", "moderator:manage:chat_messages"],
    &["moderator:read:moderators"],
    &["moderator:read:vips"],
];

/// As the first version, plus warnings.
const MODERATE_V2: &[&[&str]] = &[
    &["moderator:read:blocked_terms", "moderator:manage:blocked_terms"],
    &["moderator:read:chat_settings", "moderator:manage:chat_settings"],
    &["moderator:read:unban_requests", "moderator:manage:unban_requests"],
    &["moderator:read:banned_users", "moderator:manage:banned_users"],
    &["moderator:read:chat_messages", "moderator:manage:chat_messages"],
    &["moderator:read:warnings", "moderator:manage:warnings"],
    &["moderator:read:moderators"],
    &["moderator:read:vips"],
];

/// The types that are simulated.
pub(super) const KINDS: &[Kind] = &[
    kind("user.authorization.revoke", "1", CLIENT, Demand::Application),
    kind("conduit.shard.disabled", "1", CLIENT, Demand::Application),
    kind("stream.online", "1", BROADCASTER, Demand::Nothing),
    kind("stream.offline", "1", BROADCASTER, Demand::Nothing),
    kind("channel.update", "2", BROADCASTER, Demand::Nothing),
    kind("user.update", "1", &["user_id"], Demand::Nothing),
    kind(
        "channel.chat.message",
        "1",
        &["broadcaster_user_id", "user_id"],
        Demand::OneOf("user_id", &["user:read:chat"]),
    ),
    kind(
        "channel.moderator.add",
        "1",
        BROADCASTER,
        Demand::OneOf("broadcaster_user_id", &["moderation:read"]),
    ),
    kind(
        "channel.moderator.remove",
        "1",
        BROADCASTER,
        Demand::OneOf("broadcaster_user_id", &["moderation:read"]),
    ),
    kind(
        "channel.vip.add",
        "1",
        BROADCASTER,
        Demand::OneOf(
            "broadcaster_user_id",
            &["channel:read:vips", "channel:manage:vips"],
        ),
    ),
    kind(
        "channel.vip.remove",
        "1",
        BROADCASTER,
        Demand::OneOf(
            "broadcaster_user_id",
            &["channel:read:vips", "channel:manage:vips"],
        ),
    ),
    kind(
        "channel.ban",
        "1",
        BROADCASTER,
        Demand::OneOf("broadcaster_user_id", &["channel:moderate"]),
    ),
    kind(
        "channel.unban",
        "1",
        BROADCASTER,
        Demand::OneOf("broadcaster_user_id", &["channel:moderate"]),
    ),
    kind(
        "channel.moderate",
        "1",
        &["broadcaster_user_id", "moderator_user_id"],
        Demand::EachOf("moderator_user_id", MODERATE_V1),
    ),
    kind(
        "channel.moderate",
        "2",
        &["broadcaster_user_id", "moderator_user_id"],
        Demand::EachOf("moderator_user_id", MODERATE_V2),
    ),
];

/// The types that Twitch documents and this simulator does not push, separated by spaces.
const OTHERS: &str = "\
    automod.message.hold automod.message.update automod.settings.update automod.terms.update \
     channel.ad_break.begin channel.bits.use channel.channel_points_automatic_reward_redemption.add \
     channel.channel_points_custom_reward.add channel.channel_points_custom_reward.remove \
     channel.channel_points_custom_reward.update channel.channel_points_custom_reward_redemption.add \
     channel.channel_points_custom_reward_redemption.update channel.charity_campaign.donate \
     channel.charity_campaign.progress channel.charity_campaign.start channel.charity_campaign.stop \
     channel.chat.clear channel.chat.clear_user_messages channel.chat.message_delete \
     channel.chat.notification channel.chat.user_message_hold channel.chat.user_message_update \
     channel.chat_settings.update channel.cheer channel.follow channel.goal.begin channel.goal.end \
     channel.goal.progress channel.guest_star_guest.update channel.guest_star_session.begin \
     channel.guest_star_session.end channel.guest_star_settings.update channel.hype_train.begin \
     channel.hype_train.end channel.hype_train.progress channel.poll.begin channel.poll.end \
     channel.poll.progress channel.prediction.begin channel.prediction.end channel.prediction.lock \
     channel.prediction.progress channel.raid channel.shared_chat.begin channel.shared_chat.end \
     channel.shared_chat.update channel.shield_mode.begin channel.shield_mode.end channel.shoutout.create \
     channel.shoutout.receive channel.subscribe channel.subscription.end channel.subscription.gift \
     channel.subscription.message channel.suspicious_user.message channel.suspicious_user.update \
     channel.unban_request.create channel.unban_request.resolve channel.warning.acknowledge \
     channel.warning.send user.whisper.message";

/// Returns whether Twitch documents the type `name` and offers it over a websocket, but the simulator does not.
pub(super) fn is_documented(name: &str) -> bool {
    OTHERS.split_whitespace().any(|known| known == name)
}

/// Returns the type `name` if it exists in `version`.
pub(super) fn find(name: &str, version: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| kind.name == name && kind.version == version)
}

impl Demand {
    /// Returns the key of the condition that holds the user whose authorization is required.
    pub(super) fn whose(self) -> Option<&'static str> {
        match self {
            Self::OneOf(whose, _) | Self::EachOf(whose, _) => Some(whose),
            Self::Nothing | Self::Application => None,
        }
    }

    /// Returns whether a token of `user` that `has` scopes meets the requirements for a condition read by `key`.
    pub(super) fn met(
        self,
        user: &str,
        key: impl Fn(&str) -> Option<String>,
        has: impl Fn(&str) -> bool,
    ) -> bool {
        match self {
            Self::Nothing => true,
            Self::Application => false,
            Self::OneOf(whose, scopes) => {
                key(whose).as_deref() == Some(user) && scopes.iter().any(|scope| has(scope))
            }
            Self::EachOf(whose, groups) => {
                key(whose).as_deref() == Some(user)
                    && groups.iter().all(|group| group.iter().any(|scope| has(scope)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_are_met_by_the_right_user_with_the_right_scopes() {
        let condition = |key: &str| (key == "broadcaster_user_id").then(|| "1".to_owned());
        let demand = find("channel.vip.add", "1").unwrap().demand;
        assert!(demand.met("1", condition, |scope| scope == "channel:manage:vips"));
        assert!(!demand.met("2", condition, |_| true));
        assert!(!demand.met("1", condition, |scope| scope == "moderation:read"));
        assert!(find("channel.update", "1").is_none());
    }
}
