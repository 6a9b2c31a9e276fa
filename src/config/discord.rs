//! `[discord]`: the bot's token, its one base address, and what counts as a stream.

use secrecy::SecretString;
use url::Url;

use super::key::Key;
use super::reader::{Reader, clip};
use crate::platforms::discord::HOME_PAGE;

pub(super) const KEYS: &[Key] = &[
    Key::new("discord.bot_token", "The bot's token, without `Bot` in front.")
        .named(&["DISCORD_BOT_TOKEN"])
        .secret(),
    Key::new("discord.gateway", "Whether `watch` keeps a gateway connection; one-shot commands never do.")
        .or("false"),
    Key::new(
        "discord.stream_from",
        "What counts as a guild being live: none | stage | event | go-live. A guild has no stream of its own.",
    )
    .or("none"),
    Key::new(
        "discord.home_page",
        "Where people can read about your bot; Discord demands such an address in the User-Agent.",
    )
    .or(HOME_PAGE),
    Key::new("discord.api_url", "Base address of the API; without a path, `/api/v10` is appended.").or("https://discord.com/api/v10"),
];

/// What counts as a guild being live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamFrom {
    /// Nothing: the stream's status stays UNKNOWN.
    #[default]
    None,
    /// A stage instance.
    Stage,
    /// A scheduled event that is running.
    Event,
    /// Someone who shares their screen in a voice channel.
    GoLive,
}

/// Discord.
#[derive(Debug, Clone)]
pub struct DiscordSettings {
    /// The bot's token.
    pub bot_token: Option<SecretString>,
    /// Whether `watch` keeps a gateway connection.
    pub gateway: bool,
    /// What counts as a guild being live.
    pub stream_from: StreamFrom,
    /// Where people can read about the bot.
    pub home_page: Url,
    /// Base address of the API.
    pub api_url: Url,
}

pub(super) fn read(reader: &mut Reader<'_>) -> DiscordSettings {
    let stream_from = reader.made("discord.stream_from", |text| match text {
        "none" => Ok(StreamFrom::None),
        "stage" => Ok(StreamFrom::Stage),
        "event" => Ok(StreamFrom::Event),
        "go-live" => Ok(StreamFrom::GoLive),
        other => Err(format!(
            "`{}` is none of none, stage, event, go-live",
            clip(other)
        )),
    });
    DiscordSettings {
        bot_token: reader.secret("discord.bot_token"),
        gateway: reader.switch("discord.gateway"),
        stream_from: stream_from.map(|found| found.value).unwrap_or_default(),
        home_page: reader.address_or_default("discord.home_page", &["https", "http"]),
        api_url: reader.address_or_default("discord.api_url", &["https", "http"]),
    }
}
