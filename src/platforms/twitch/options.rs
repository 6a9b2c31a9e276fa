//! The options of a Twitch adapter: Twitch's addresses and the application.

use secrecy::SecretString;
use url::Url;

use crate::core::observation::Identity;

/// The bot's own identity.
pub const BOT: &str = "twitch/bot";
/// The application's identity.
pub const APP: &str = "twitch/app";
const BROADCASTER: &str = "twitch/broadcaster:";

#[derive(Debug, Clone)]
pub struct TwitchOptions {
    /// Base URL of the OAuth calls.
    pub auth_url: Url,
    /// Base URL of the Helix calls.
    pub helix_url: Url,
    /// Base URL of the EventSub subscription calls. In production it is below [`TwitchOptions::helix_url`].
    pub eventsub_rest_url: Url,
    /// The EventSub websocket URL.
    pub eventsub_ws_url: Url,
    /// The application's client id; if absent, the one to which a token turns out to belong.
    pub client_id: Option<String>,
    /// The application's secret; public applications have none.
    pub client_secret: Option<SecretString>,
    /// The bot's user id; protects against a token of another user, and is taken from the token if absent.
    pub bot_user_id: Option<String>,
}

impl Default for TwitchOptions {
    /// Returns the production addresses without an application.
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
        }
    }
}

pub fn bot() -> Identity {
    Identity::named(BOT)
}

/// Returns the application's identity.
pub fn app() -> Identity {
    Identity::named(APP)
}

pub fn broadcaster(user_id: &str) -> Identity {
    Identity::named(format!("{BROADCASTER}{user_id}"))
}

/// Returns the user id of a broadcaster's identity.
pub(super) fn broadcaster_of(identity: &Identity) -> Option<&str> {
    identity.as_str().strip_prefix(BROADCASTER)
}

/// Returns the URL of `path` below `base`, whether or not the base ends in a slash.
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
