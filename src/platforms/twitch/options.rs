//! What a Twitch adapter is told: where Twitch is, which application it speaks for, and what to ask besides.

use secrecy::SecretString;
use url::Url;

use crate::core::observation::Identity;

/// The bot's own identity.
pub const BOT: &str = "twitch/bot";
/// The application's identity.
pub const APP: &str = "twitch/app";
const BROADCASTER: &str = "twitch/broadcaster:";

/// Where Twitch is and how to speak to it.
#[derive(Debug, Clone)]
pub struct TwitchOptions {
    /// Base of the OAuth calls.
    pub auth_url: Url,
    /// Base of the Helix calls.
    pub helix_url: Url,
    /// Base of the EventSub subscription calls. Production serves them below [`TwitchOptions::helix_url`].
    pub eventsub_rest_url: Url,
    /// The EventSub websocket.
    pub eventsub_ws_url: Url,
    /// The application; when absent, the one that a token turns out to belong to.
    pub client_id: Option<String>,
    /// The application's secret; public applications have none.
    pub client_secret: Option<SecretString>,
    /// The bot's user id; a safeguard against a token of somebody else, and learnt from the token when absent.
    pub bot_user_id: Option<String>,
    /// Ask for each source whether the bot subscribes to it: one call a source.
    pub check_subscriptions: bool,
    /// Ask each source for its chatters, which only moderators may: one call a source.
    pub check_chatters: bool,
    /// Ask for titles and categories of offline channels too: one call per 100 sources.
    pub channel_details: bool,
    /// Calls in flight at most.
    pub concurrency: usize,
}

impl Default for TwitchOptions {
    /// The production addresses, no application, the fewest calls.
    fn default() -> Self {
        let url = |text: &str| text.parse().expect("a fixed address is well-formed");
        Self {
            auth_url: url("https://id.twitch.tv/oauth2"),
            helix_url: url("https://api.twitch.tv/helix"),
            eventsub_rest_url: url("https://api.twitch.tv/helix"),
            eventsub_ws_url: url("wss://eventsub.wss.twitch.tv/ws"),
            client_id: None,
            client_secret: None,
            bot_user_id: None,
            check_subscriptions: false,
            check_chatters: false,
            channel_details: false,
            concurrency: 8,
        }
    }
}

/// Returns the bot's identity.
pub fn bot() -> Identity {
    Identity::named(BOT)
}

/// Returns the application's identity.
pub fn app() -> Identity {
    Identity::named(APP)
}

/// Returns the identity of the broadcaster with this user id.
pub fn broadcaster(user_id: &str) -> Identity {
    Identity::named(format!("{BROADCASTER}{user_id}"))
}

/// Returns the user id of a broadcaster's identity.
pub(super) fn broadcaster_of(identity: &Identity) -> Option<&str> {
    identity.as_str().strip_prefix(BROADCASTER)
}

/// Returns the address of `path` below `base`, whether or not the base ends in a slash.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let mut address = base.clone();
    if let Ok(mut segments) = address.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/'));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_below_any_base() {
        for (base, expected) in [
            (
                "https://api.twitch.tv/helix",
                "https://api.twitch.tv/helix/chat/chatters",
            ),
            (
                "http://127.0.0.1:8080/mock/",
                "http://127.0.0.1:8080/mock/chat/chatters",
            ),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081/chat/chatters"),
        ] {
            assert_eq!(below(&base.parse().unwrap(), "chat/chatters").as_str(), expected);
        }
    }
}
