//! What a Kick adapter is told: where Kick is, which application it speaks for, how much it may ask.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::core::observation::Identity;

/// The application's identity.
pub const APP: &str = "kick/app";
/// The bot's own identity.
pub const BOT: &str = "kick/bot";
const BROADCASTER: &str = "kick/broadcaster:";

/// Where Kick is and how to speak to it.
#[derive(Debug, Clone)]
pub struct KickOptions {
    /// Base address of the OAuth endpoints; `/oauth/…` is appended.
    pub auth_url: Url,
    /// Base address of the API; `/public/v1/…` is appended.
    pub api_url: Url,
    /// The application.
    pub client_id: Option<String>,
    /// The application's secret; with both, public data is read as the application.
    pub client_secret: Option<SecretString>,
    /// The bot's user id: a token of somebody else is refused, and its own chat lines are not counted. Learnt from the
    /// token when absent.
    pub bot_user_id: Option<u64>,
    /// Requests a minute, to both hosts together. Kick does not publish its limits; 20 is what is known to have been safe.
    pub requests_per_minute: u32,
    /// The longest wait for a limit that Kick has told, within one look.
    pub patience: Duration,
    /// How long a channel's slug, title and existence are taken as known.
    pub details_for: Duration,
    /// How long a badge seen on the bot's own message counts.
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

/// Returns the bot's identity.
pub fn bot() -> Identity {
    Identity::named(BOT)
}

/// Returns the identity of the broadcaster with this user id.
pub fn broadcaster(user_id: u64) -> Identity {
    Identity::named(format!("{BROADCASTER}{user_id}"))
}

/// Returns the user id of a broadcaster's identity.
pub(super) fn broadcaster_of(identity: &Identity) -> Option<u64> {
    identity.as_str().strip_prefix(BROADCASTER)?.parse().ok()
}
