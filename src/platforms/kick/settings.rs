//! `[kick]`: the application, the bot's own authorization and the two base addresses.

use secrecy::SecretString;
use url::Url;

use crate::config::{Key, Reader, numeric_id, word};

pub const KEYS: &[Key] = &[
    Key::new("kick.client_id", "Client id of the application.")
        .named(&["KICK_CLIENT_ID"])
        .such_as("01ABCDEFGHJKMNPQRSTVWXYZ00"),
    Key::new("kick.client_secret", "Client secret of the application.")
        .named(&["KICK_CLIENT_SECRET"])
        .secret(),
    Key::new("kick.bot_access_token", "The bot's access token, to begin with.")
        .named(&["KICK_BOT_ACCESS_TOKEN"])
        .secret(),
    Key::new("kick.bot_refresh_token", "The refresh token that belongs to it.")
        .named(&["KICK_BOT_REFRESH_TOKEN"])
        .secret(),
    Key::new(
        "kick.bot_user_id",
        "User id of the bot; a token of anyone else is refused.",
    )
    .named(&["KICK_BOT_USER_ID"])
    .such_as("123456"),
    Key::new(
        "kick.scopes",
        "Scopes that a login of the bot requests in addition to those that bitbrat needs.",
    )
    .list()
    .such_as("chat:write"),
    Key::new(
        "kick.webhook",
        "Whether `watch` takes webhooks at /webhooks/kick; the application must be set up to send them.",
    )
    .or("false"),
    Key::new(
        "kick.requests_per_minute",
        "Rate limit for requests; Kick does not publish its limits.",
    )
    .or("20"),
    Key::new(
        "kick.auth_url",
        "Base address of the OAuth endpoints; `/oauth/…` is appended.",
    )
    .or("https://id.kick.com"),
    Key::new(
        "kick.api_url",
        "Base address of the API; `/public/v1/…` is appended.",
    )
    .or("https://api.kick.com"),
];

/// Variables that list sources, in addition to the others.
pub const SOURCE_KEYS: &[Key] = &[
    Key::new("kick.channels", "Slugs or URLs of Kick channels, in addition.")
        .named(&["KICK_CHANNELS"])
        .list()
        .environment_only()
        .such_as("ratcaster"),
];

#[derive(Debug, Clone)]
pub struct Settings {
    pub client_id: Option<String>,
    pub client_secret: Option<SecretString>,
    /// Initial access token of the bot.
    pub bot_access_token: Option<SecretString>,
    /// The refresh token that belongs to it.
    pub bot_refresh_token: Option<SecretString>,
    pub bot_user_id: Option<String>,
    /// Scopes that a login of the bot requests in addition.
    pub scopes: Vec<String>,
    /// Whether `watch` receives webhooks.
    pub webhook: bool,
    /// Rate limit in requests per minute.
    pub requests_per_minute: u32,
    /// Base address of the OAuth endpoints.
    pub auth_url: Url,
    /// Base address of the API.
    pub api_url: Url,
}

pub(crate) fn read(reader: &mut Reader<'_>) -> Settings {
    let per_minute = reader.number("kick.requests_per_minute", 1..=100).unwrap_or(20);
    Settings {
        client_id: reader.made("kick.client_id", word).map(|found| found.value),
        client_secret: reader.secret("kick.client_secret"),
        bot_access_token: reader.secret("kick.bot_access_token"),
        bot_refresh_token: reader.secret("kick.bot_refresh_token"),
        bot_user_id: numeric_id(reader, "kick.bot_user_id"),
        scopes: reader
            .list("kick.scopes")
            .map(|found| found.value)
            .unwrap_or_default(),
        webhook: reader.switch("kick.webhook"),
        requests_per_minute: u32::try_from(per_minute).unwrap_or(20),
        auth_url: reader.address_or_default("kick.auth_url", &["https", "http"]),
        api_url: reader.address_or_default("kick.api_url", &["https", "http"]),
    }
}
