//! `[kick]`: the application, the bot's own authorization and the two base addresses.

use secrecy::SecretString;
use url::Url;

use crate::config::{Key, Reader, numeric_id, word};

const CLIENT_ID: Key = Key::new("kick.client_id", "Client id of the application.")
    .named(&["KICK_CLIENT_ID"])
    .such_as("01ABCDEFGHJKMNPQRSTVWXYZ00");
const CLIENT_SECRET: Key = Key::new("kick.client_secret", "Client secret of the application.")
    .named(&["KICK_CLIENT_SECRET"])
    .secret();
const BOT_ACCESS_TOKEN: Key = Key::new("kick.bot_access_token", "The bot's access token, to begin with.")
    .named(&["KICK_BOT_ACCESS_TOKEN"])
    .secret();
const BOT_REFRESH_TOKEN: Key = Key::new("kick.bot_refresh_token", "The refresh token that belongs to it.")
    .named(&["KICK_BOT_REFRESH_TOKEN"])
    .secret();
const BOT_USER_ID: Key = Key::new(
    "kick.bot_user_id",
    "User id of the bot; a token of anyone else is refused.",
)
.named(&["KICK_BOT_USER_ID"])
.such_as("123456");
const SCOPES: Key = Key::new(
    "kick.scopes",
    "Scopes that a login of the bot requests in addition to those that bitbrat needs.",
)
.list()
.such_as("chat:write");
const WEBHOOK: Key = Key::new(
    "kick.webhook",
    "Whether `watch` takes webhooks at /webhooks/kick; the application must be set up to send them.",
)
.or("false");
const REQUESTS_PER_MINUTE: Key = Key::new(
    "kick.requests_per_minute",
    "Rate limit for requests; Kick does not publish its limits.",
)
.or("20");
const AUTH_URL: Key = Key::new(
    "kick.auth_url",
    "Base address of the OAuth endpoints; `/oauth/…` is appended.",
)
.or("https://id.kick.com");
const API_URL: Key = Key::new(
    "kick.api_url",
    "Base address of the API; `/public/v1/…` is appended.",
)
.or("https://api.kick.com");

pub const KEYS: &[Key] = &[
    CLIENT_ID,
    CLIENT_SECRET,
    BOT_ACCESS_TOKEN,
    BOT_REFRESH_TOKEN,
    BOT_USER_ID,
    SCOPES,
    WEBHOOK,
    REQUESTS_PER_MINUTE,
    AUTH_URL,
    API_URL,
];

/// Variables that list sources, in addition to the others.
const CHANNELS: Key = Key::new("kick.channels", "Slugs or URLs of Kick channels, in addition.")
    .named(&["KICK_CHANNELS"])
    .list()
    .environment_only()
    .such_as("ratcaster");

pub const SOURCE_KEYS: &[Key] = &[CHANNELS];

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
    let per_minute = reader.number(&REQUESTS_PER_MINUTE, 1..=100).unwrap_or(20);
    Settings {
        client_id: reader.made(&CLIENT_ID, word).map(|found| found.value),
        client_secret: reader.secret(&CLIENT_SECRET),
        bot_access_token: reader.secret(&BOT_ACCESS_TOKEN),
        bot_refresh_token: reader.secret(&BOT_REFRESH_TOKEN),
        bot_user_id: numeric_id(reader, &BOT_USER_ID),
        scopes: reader.list(&SCOPES).map(|found| found.value).unwrap_or_default(),
        webhook: reader.switch(&WEBHOOK),
        requests_per_minute: u32::try_from(per_minute).unwrap_or(20),
        auth_url: reader.address_or_default(&AUTH_URL, &["https", "http"]),
        api_url: reader.address_or_default(&API_URL, &["https", "http"]),
    }
}
