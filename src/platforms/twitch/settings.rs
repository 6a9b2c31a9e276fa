//! `[twitch]`: the application, the bot's own authorization and the four base addresses.

use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::eventsub::planner::TransportChoice;
use crate::config::{BusTarget, Key, Reader, address, numeric_id, word};

const CLIENT_ID: Key = Key::new("twitch.client_id", "Client id of the application.")
    .named(&["TWITCH_CLIENT_ID"])
    .such_as("abcdefghijklmnopqrstuvwxyz0123");
const CLIENT_SECRET: Key = Key::new(
    "twitch.client_secret",
    "Client secret; only confidential applications have one.",
)
.named(&["TWITCH_CLIENT_SECRET"])
.secret();
const BOT_ACCESS_TOKEN: Key = Key::new(
    "twitch.bot_access_token",
    "The bot's access token, to begin with; a newer one in the token store counts more.",
)
.named(&["TWITCH_BOT_ACCESS_TOKEN"])
.secret();
const BOT_REFRESH_TOKEN: Key = Key::new(
    "twitch.bot_refresh_token",
    "The refresh token that belongs to it, if any.",
)
.named(&["TWITCH_BOT_REFRESH_TOKEN"])
.secret();
const BOT_USER_ID: Key = Key::new(
    "twitch.bot_user_id",
    "User id of the bot; a token of anyone else is refused.",
)
.named(&["TWITCH_BOT_USER_ID"])
.such_as("123456");
const SCOPES: Key = Key::new(
    "twitch.scopes",
    "Scopes that a login of the bot requests in addition to those that bitbrat needs.",
)
.list()
.such_as("channel:read:polls clips:edit");
const EVENTSUB: Key = Key::new("twitch.eventsub", "Whether `watch` listens to EventSub.").or("true");
const CHAT: Key = Key::new(
        "twitch.chat",
        "Whether incoming chat is counted over EventSub: auto | true | false. It is never counted on the bus as well; auto \
         leaves it to the bus where there is one.",
    )
    .or("auto");
pub(super) const AUTH_URL: Key =
    Key::new("twitch.auth_url", "Base address of the OAuth endpoints.").or("https://id.twitch.tv/oauth2");
pub(super) const HELIX_URL: Key =
    Key::new("twitch.helix_url", "Base address of Helix.").or("https://api.twitch.tv/helix");
pub(super) const EVENTSUB_REST_URL: Key = Key::new(
    "twitch.eventsub_rest_url",
    "Base address of `/eventsub/subscriptions`. Default: helix_url.",
)
.such_as("https://api.twitch.tv/helix");
const EVENTSUB_WS_URL: Key = Key::new("twitch.eventsub_ws_url", "Address of the EventSub websocket.")
    .or("wss://eventsub.wss.twitch.tv/ws");

const TRANSPORT: Key = Key::new(
    "twitch.transport",
    "How EventSub is received: auto | websocket | conduit. A conduit needs a client secret; auto uses one when the channels exceed \
     the limits of websockets.",
)
.or("auto");
const CONDUIT_ID: Key = Key::new(
    "twitch.conduit_id",
    "Id of the conduit to use, for processes that share one. Default: the one that this process created before, or a new one.",
)
.such_as("bfcfc993-26b1-b876-44d9-afe75a379dac");
const CONDUIT_SHARDS: Key = Key::new(
    "twitch.conduit_shards",
    "Number of shards of the conduit, 1 to 20000.",
)
.or("1");
const CONDUIT_OWN_SHARDS: Key = Key::new(
    "twitch.conduit_own_shards",
    "Shards whose messages this process receives, from 0. Default: all. The process with shard 0 keeps the subscriptions in order.",
)
.list()
.such_as("0");
const WEBHOOK_URL: Key = Key::new(
    "twitch.webhook_url",
    "Public address of `web.listen`, to which Twitch posts withdrawn authorizations below /webhooks/twitch, such as https://bitbrat.example.org (port 443), or off.",
)
.or("off");
const WEBHOOK_SECRET: Key = Key::new(
    "twitch.webhook_secret",
    "What Twitch signs these messages with: 10 to 100 ASCII characters of your choice.",
)
.secret();

pub const KEYS: &[Key] = &[
    CLIENT_ID,
    CLIENT_SECRET,
    BOT_ACCESS_TOKEN,
    BOT_REFRESH_TOKEN,
    BOT_USER_ID,
    SCOPES,
    EVENTSUB,
    TRANSPORT,
    CONDUIT_ID,
    CONDUIT_SHARDS,
    CONDUIT_OWN_SHARDS,
    WEBHOOK_URL,
    WEBHOOK_SECRET,
    CHAT,
    AUTH_URL,
    HELIX_URL,
    EVENTSUB_REST_URL,
    EVENTSUB_WS_URL,
];

/// Variables that list sources, in addition to the others.
const CHANNELS: Key = Key::new(
    "twitch.channels",
    "Logins or URLs of Twitch channels, in addition; a `#` in front is tolerated.",
)
.named(&["TWITCH_CHANNELS"])
.list()
.environment_only()
.such_as("ratcaster catcaster");

pub const SOURCE_KEYS: &[Key] = &[CHANNELS];

/// Where incoming chat is counted: in one place, or a message would count twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChatFrom {
    /// On the bus where there is one, else over EventSub.
    #[default]
    Auto,
    /// Over EventSub.
    EventSub,
    /// On the bus alone.
    Bus,
}

impl FromStr for ChatFrom {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::EventSub),
            "false" => Ok(Self::Bus),
            _ => Err(()),
        }
    }
}

impl ChatFrom {
    /// Returns whether chat is counted over EventSub, and hence not on the bus.
    pub fn is_eventsub(self, bus: &BusTarget) -> bool {
        match self {
            Self::Auto => *bus == BusTarget::Local,
            Self::EventSub => true,
            Self::Bus => false,
        }
    }
}

/// How conduits are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conduit {
    /// The id of an existing one.
    pub id: Option<String>,
    /// The number of its shards.
    pub shard_count: usize,
    /// The shards of this process.
    pub own_shards: Vec<usize>,
}

/// Where and how Twitch delivers by webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The public address of the web server.
    pub url: Url,
    pub secret: SecretString,
}

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
    /// Whether `watch` uses EventSub.
    pub eventsub: bool,
    /// Which transport of EventSub is wanted.
    pub transport: TransportChoice,
    pub conduit: Conduit,
    /// The webhook for withdrawn authorizations.
    pub webhook: Option<Webhook>,
    /// Where incoming chat is counted.
    pub chat: ChatFrom,
    /// Base address of the OAuth endpoints.
    pub auth_url: Url,
    /// Base address of Helix.
    pub helix_url: Url,
    /// Base address of the EventSub subscriptions.
    pub eventsub_rest_url: Url,
    /// Address of the EventSub websocket.
    pub eventsub_ws_url: Url,
}

pub(crate) fn read(reader: &mut Reader<'_>) -> Settings {
    let helix_url = reader.address_or_default(&HELIX_URL, &["https", "http"]);
    let chat = reader.plain(&CHAT, "`auto`, `true` or `false`");
    let transport = reader.plain(&TRANSPORT, "`auto`, `websocket` or `conduit`");
    Settings {
        client_id: reader.made(&CLIENT_ID, word).map(|found| found.value),
        client_secret: reader.secret(&CLIENT_SECRET),
        bot_access_token: reader.secret(&BOT_ACCESS_TOKEN),
        bot_refresh_token: reader.secret(&BOT_REFRESH_TOKEN),
        bot_user_id: numeric_id(reader, &BOT_USER_ID),
        scopes: reader.list(&SCOPES).map(|found| found.value).unwrap_or_default(),
        eventsub: reader.switch(&EVENTSUB),
        transport: transport.map(|found| found.value).unwrap_or_default(),
        conduit: conduit(reader),
        webhook: webhook(reader),
        chat: chat.map(|found| found.value).unwrap_or_default(),
        auth_url: reader.address_or_default(&AUTH_URL, &["https", "http"]),
        eventsub_rest_url: reader
            .address(&EVENTSUB_REST_URL, &["https", "http"])
            .unwrap_or_else(|| helix_url.clone()),
        eventsub_ws_url: reader.address_or_default(&EVENTSUB_WS_URL, &["wss", "ws"]),
        helix_url,
    }
}

fn conduit(reader: &mut Reader<'_>) -> Conduit {
    let count = reader.number(&CONDUIT_SHARDS, 1..=20_000).unwrap_or(1);
    let shard_count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut own_shards: Vec<usize> = (0..shard_count).collect();
    if let Some(given) = reader.list(&CONDUIT_OWN_SHARDS) {
        let parsed: Option<Vec<usize>> = given.value.iter().map(|text| text.parse().ok()).collect();
        match parsed.filter(|own| !own.is_empty() && own.iter().all(|shard| *shard < shard_count)) {
            Some(mut own) => {
                own.sort_unstable();
                own.dedup();
                own_shards = own;
            }
            None => reader.refuse(
                &CONDUIT_OWN_SHARDS,
                &given.origin,
                format!(
                    "expects numbers from 0 to {}: twitch.conduit_shards is {shard_count}",
                    shard_count - 1
                ),
            ),
        }
    }
    Conduit {
        id: reader.made(&CONDUIT_ID, word).map(|found| found.value),
        shard_count,
        own_shards,
    }
}

fn webhook(reader: &mut Reader<'_>) -> Option<Webhook> {
    let url = reader.made(&WEBHOOK_URL, |text| match text {
        "off" => Ok(None),
        text => address(text, &["https", "http"]).map(Some),
    });
    let url = url.and_then(|found| found.value);
    let secret = reader.secret(&WEBHOOK_SECRET);
    match (url, secret) {
        (Some(url), Some(secret)) => {
            let is_secure = url.scheme() == "https" && url.port().is_none();
            if !is_secure && !crate::http::is_loopback(&url) {
                let origin = reader.origin(&WEBHOOK_URL);
                reader.refuse(&WEBHOOK_URL, &origin, "Twitch posts to HTTPS on port 443 only");
            }
            let text = secret.expose_secret();
            if !(10..=100).contains(&text.len()) || !text.is_ascii() {
                let origin = reader.origin(&WEBHOOK_SECRET);
                reader.refuse(&WEBHOOK_SECRET, &origin, "expects 10 to 100 ASCII characters");
            }
            Some(Webhook { url, secret })
        }
        (Some(_), None) => {
            let origin = reader.origin(&WEBHOOK_URL);
            reader.refuse(
                &WEBHOOK_URL,
                &origin,
                "needs twitch.webhook_secret too, or deliveries cannot be verified",
            );
            None
        }
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chat_is_counted_at_one_place() {
        let bus = BusTarget::Nats(Vec::new());
        for (text, beside_a_bus, alone) in [
            ("auto", false, true),
            ("true", true, true),
            ("false", false, false),
        ] {
            let chat: ChatFrom = text.parse().unwrap();
            assert_eq!(
                (chat.is_eventsub(&bus), chat.is_eventsub(&BusTarget::Local)),
                (beside_a_bus, alone),
                "{text}"
            );
        }
        assert!("sometimes".parse::<ChatFrom>().is_err());
    }
}
