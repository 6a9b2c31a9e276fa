//! Options of a Kick adapter: addresses, the application, the rate limit.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::core::observation::Identity;

/// The application's identity.
pub const APP: &str = "kick/app";
/// The bot's own identity.
pub const BOT: &str = "kick/bot";
const BROADCASTER: &str = "kick/broadcaster:";

/// Addresses of Kick, and the credentials and limits of requests.
#[derive(Debug, Clone)]
pub struct KickOptions {
    /// Base URL of the OAuth endpoints; `/oauth/…` is appended.
    pub auth_url: Url,
    /// Base URL of the API; `/public/v1/…` is appended.
    pub api_url: Url,
    /// The application's client id.
    pub client_id: Option<String>,
    /// The application's secret; with both, public data is requested as the application.
    pub client_secret: Option<SecretString>,
    /// The bot's user id: a token of another user is refused, and the bot's own chat messages are not counted. Determined from
    /// the token when absent.
    pub bot_user_id: Option<u64>,
    /// Requests a minute, to both hosts together. Kick does not publish its limits; 20 is a rate that has proved safe.
    pub requests_per_minute: u32,
    /// The longest wait for a rate limit reported by Kick, within one probe.
    pub patience: Duration,
    /// How long a channel's slug, title and existence are treated as current.
    pub details_for: Duration,
    /// How long a badge seen on the bot's own message remains valid evidence.
    pub badges_for: Duration,
}

impl Default for KickOptions {
    /// The production addresses, no application.
    fn default() -> Self {
        let url = |text: &str| text.parse().expect("a fixed address is well-formed");
        Self {
            auth_url: url("https://id.kick.com"),
            api_url: url("https://api.kick.com"),
            client_id: None,
            client_secret: None,
            bot_user_id: None,
            requests_per_minute: 20,
            patience: Duration::from_secs(20),
            details_for: Duration::from_mins(10),
            badges_for: Duration::from_hours(7 * 24),
        }
    }
}

/// Returns the application's identity.
pub fn app() -> Identity {
    Identity::named(APP)
}

pub fn bot() -> Identity {
    Identity::named(BOT)
}

pub fn broadcaster(user_id: u64) -> Identity {
    Identity::named(format!("{BROADCASTER}{user_id}"))
}

/// Returns the user id of a broadcaster's identity.
pub(super) fn broadcaster_of(identity: &Identity) -> Option<u64> {
    identity.as_str().strip_prefix(BROADCASTER)?.parse().ok()
}
