//! Options of a Discord adapter: addresses, the token, the configuration of guilds, limits of requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::core::observation::Identity;
use crate::histogram::Histogram;
use crate::traffic::Tap;

/// The home page of this program: the package's, else a reserved address.
pub const HOME_PAGE: &str = if env!("CARGO_PKG_HOMEPAGE").is_empty() {
    "https://bitbrat.invalid"
} else {
    env!("CARGO_PKG_HOMEPAGE")
};

#[derive(Debug, Clone)]
pub struct DiscordOptions {
    /// Base URL of the REST API, with its version.
    pub api_url: String,
    /// Home page of the program for the User-Agent, which Discord requires.
    pub home_page: String,
    /// The bot's token, with or without the prefix `Bot`.
    pub bot_token: Option<SecretString>,
    /// Configuration of guilds, by id.
    pub guilds: BTreeMap<u64, GuildOptions>,
    /// What counts as a stream, if anything.
    pub stream_from: Option<StreamFrom>,
    /// Directory where invalid tokens, bans and spent Identifies are stored between processes.
    pub state_dir: Option<PathBuf>,
    /// Timeout of one request.
    pub timeout: Duration,
    /// The longest wait for one of Discord's limits within one probe.
    pub patience: Duration,
    /// Maximum requests per second; Discord allows 50 in all.
    pub requests_per_second: u32,
    /// Refused requests in 10 minutes, after which nothing more is sent for a while. Discord bans an IP address at 10,000, which
    /// all bots behind it share.
    pub max_invalid_requests: u32,
    /// Counts how long requests take.
    pub request_times: Option<Arc<Histogram>>,
    /// Records the traffic.
    pub tap: Option<Tap>,
    /// Whether a token that Discord refused recently is tried once more, because the user has just entered it.
    pub try_refused: bool,
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
            max_invalid_requests: 500,
            request_times: None,
            tap: None,
            try_refused: false,
        }
    }
}

/// Configuration of one guild.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuildOptions {
    /// The channels that the bot uses; its permissions are then those in the channel with the most missing ones.
    pub channels: Vec<u64>,
}

/// What counts as a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFrom {
    /// A live stage instance.
    Stage,
    /// An active scheduled event. It shows what was planned, not what is streamed.
    Event,
    /// A user sharing the screen in voice ("Go Live").
    GoLive,
}

/// Identity of the default bot, which serves all guilds except those with a bot of their own.
pub fn bot() -> Identity {
    Identity::named("discord/bot")
}
