//! `[discord]`: the bot's token, its one base address, and what counts as a stream.

use secrecy::SecretString;
use url::Url;

use super::options::{self, StreamFrom};
use crate::config::{Key, Reader, clip};

const BOT_TOKEN: Key = Key::new("discord.bot_token", "The bot's token, without `Bot` in front.")
    .named(&["DISCORD_BOT_TOKEN"])
    .secret();
const GATEWAY: Key = Key::new(
    "discord.gateway",
    "Whether `watch` keeps a gateway connection; one-shot commands never do.",
)
.or("false");
const STREAM_FROM: Key = Key::new(
    "discord.stream_from",
    "What counts as a guild being live: none | stage | event | go-live. A guild has no stream of its own.",
)
.or("none");
const HOME_PAGE: Key = Key::new(
    "discord.home_page",
    "Where people can read about your bot; Discord demands such an address in the User-Agent.",
)
.or(options::HOME_PAGE);
const API_URL: Key = Key::new(
    "discord.api_url",
    "Base address of the API; without a path, `/api/v10` is appended.",
)
.or("https://discord.com/api/v10");

pub const KEYS: &[Key] = &[BOT_TOKEN, GATEWAY, STREAM_FROM, HOME_PAGE, API_URL];

/// Variables that list sources, in addition to the others.
const GUILD_ID: Key = Key::new(
    "discord.guild_id",
    "Id, name or URL of a Discord guild, in addition.",
)
.named(&["DISCORD_GUILD_ID"])
.environment_only()
.such_as("987654321");
const CHANNELS: Key = Key::new(
    "discord.channels",
    "Channel ids that matter in that guild; all when none are given.",
)
.named(&["DISCORD_CHANNELS"])
.list()
.environment_only()
.such_as("111111 222222");

pub const SOURCE_KEYS: &[Key] = &[GUILD_ID, CHANNELS];

#[derive(Debug, Clone)]
pub struct Settings {
    pub bot_token: Option<SecretString>,
    /// Whether `watch` keeps a gateway connection.
    pub gateway: bool,
    /// What counts as a guild being live, if anything.
    pub stream_from: Option<StreamFrom>,
    /// Where people can read about the bot.
    pub home_page: Url,
    /// Base address of the API.
    pub api_url: Url,
}

pub(crate) fn read(reader: &mut Reader<'_>) -> Settings {
    let stream_from = reader.made(&STREAM_FROM, |text| match text {
        "none" => Ok(None),
        "stage" => Ok(Some(StreamFrom::Stage)),
        "event" => Ok(Some(StreamFrom::Event)),
        "go-live" => Ok(Some(StreamFrom::GoLive)),
        other => Err(format!(
            "`{}` is none of none, stage, event, go-live",
            clip(other)
        )),
    });
    Settings {
        bot_token: reader.secret(&BOT_TOKEN),
        gateway: reader.switch(&GATEWAY),
        stream_from: stream_from.and_then(|found| found.value),
        home_page: reader.address_or_default(&HOME_PAGE, &["https", "http"]),
        api_url: reader.address_or_default(&API_URL, &["https", "http"]),
    }
}
