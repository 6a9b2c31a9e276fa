//! What a Discord adapter is told: where Discord is, as whom it asks, what is configured about guilds, how much it may ask.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::core::observation::Identity;

/// The home page of this program: the package's, else an address that certainly belongs to nobody.
pub const HOME_PAGE: &str = if env!("CARGO_PKG_HOMEPAGE").is_empty() {
    "https://bitbrat.invalid"
} else {
    env!("CARGO_PKG_HOMEPAGE")
};

/// How to look at Discord.
#[derive(Debug, Clone)]
pub struct DiscordOptions {
    /// Base address of the REST API, with its version.
    pub api_url: String,
    /// Where people can read about the program, for the User-Agent that Discord demands.
    pub home_page: String,
    /// The bot's token, with or without the word `Bot` in front.
    pub bot_token: Option<SecretString>,
    /// What is configured about guilds, by id.
    pub guilds: BTreeMap<u64, GuildOptions>,
    /// What counts as a stream, if anything.
    pub stream_from: Option<StreamFrom>,
    /// Where dead tokens, bans and spent Identifies are remembered between processes.
    pub state_dir: Option<PathBuf>,
    /// How long one exchange may take.
    pub timeout: Duration,
    /// The longest wait for one of Discord's limits within one look.
    pub patience: Duration,
    /// Requests a second at most; Discord allows 50 in all.
    pub requests_per_second: u32,
    /// Refused requests in 10 minutes, after which nothing more is sent for a while. Discord bans an address at 10,000, which
    /// all bots behind it share.
    pub invalid_budget: u32,
}

impl Default for DiscordOptions {
    fn default() -> Self {
        Self {
            api_url: "https://discord.com/api/v10".to_owned(),
            home_page: HOME_PAGE.to_owned(),
            bot_token: None,
            guilds: BTreeMap::new(),
            stream_from: None,
            state_dir: None,
            timeout: Duration::from_secs(10),
            patience: Duration::from_secs(15),
            requests_per_second: 25,
            invalid_budget: 500,
        }
    }
}

/// What is configured about one guild.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuildOptions {
    /// The channels that the bot works in; permissions are then those of the worst of them.
    pub channels: Vec<u64>,
    /// The stage, or the voice channel in which somebody goes live, that counts as the stream.
    pub stream_channel: Option<u64>,
    /// The user whose going live counts as the stream.
    pub stream_user: Option<u64>,
}

/// What counts as a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFrom {
    /// Something going on on a stage.
    Stage,
    /// An active scheduled event. It tells what was planned, not what is sent.
    Event,
    /// Somebody sharing the screen in voice ("Go Live").
    GoLive,
}

impl std::str::FromStr for StreamFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stage" => Ok(Self::Stage),
            "event" => Ok(Self::Event),
            "go-live" => Ok(Self::GoLive),
            other => Err(format!(
                "`{other}` is no kind of stream; use one of stage, event, go-live"
            )),
        }
    }
}

/// Whose token it is: the bot's that attends all guilds but those with one of their own.
pub fn bot() -> Identity {
    Identity::named("discord/bot")
}
