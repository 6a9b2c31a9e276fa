//! Discord: a source is a guild that the bot attends.
//!
//! Looks go over REST ([`DiscordPlatform`]); they never open a gateway session. What Discord documents, and what it punishes,
//! is cited where it is obeyed.

mod answer;
mod bots;
mod channels;
mod detail;
mod facts;
pub mod gateway;
mod limits;
mod listing;
mod look;
mod memory;
pub mod permissions;
mod rest;
mod streams;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OnceCell, watch};
use url::Url;

use self::answer::ApiError;
use self::bots::Together;
use self::gateway::{GatewayListener, GatewayOptions};
use self::limits::Route;
use self::look::Look;
use self::memory::Memory;
use self::rest::{Call, Rest, RestOptions, Tally, Told};
use self::wire::{Application, GatewayBot, Id, ListedGuild, Me};
use super::{Budget, Platform, PlatformError, ProbeSet, ProbeSink, ProbeSummary};
use crate::clock::{Chance, Clock};
use crate::core::observation::{Fact, Identity, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::tokens::TokenStore;

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

/// Looks at Discord.
pub struct DiscordPlatform {
    options: DiscordOptions,
    api_url: Url,
    clock: Arc<dyn Clock>,
    chance: Chance,
    memory: Arc<Memory>,
    /// Where the token may be replaced while we run.
    tokens: Option<Arc<dyn TokenStore>>,
    connection: RwLock<Option<Arc<Connection>>>,
    /// What is configured about guilds; a changed configuration replaces it.
    guilds: RwLock<Arc<BTreeMap<u64, GuildOptions>>>,
    /// The bots of guilds that have one of their own.
    others: RwLock<BTreeMap<u64, Arc<Connection>>>,
    /// Counts the tokens.
    epoch: watch::Sender<u64>,
}

/// One token's way to Discord, with what never changes about it.
struct Connection {
    identity: Identity,
    rest: Rest,
    me: OnceCell<Me>,
    application: OnceCell<Application>,
    /// What a gateway session knows exactly at this moment of the permissions in guilds.
    told: Mutex<BTreeMap<u64, Vec<Fact>>>,
}

/// The bot as Discord knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BotUser {
    /// Its user id.
    pub id: String,
    /// Its name, where told.
    pub name: Option<String>,
}

/// How the budget of gateway sessions stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStarts {
    /// Sessions that we have begun within a day.
    pub ours: usize,
    /// Sessions that anybody may still begin, where told.
    pub left: Option<u64>,
}

impl Connection {
    fn uses(&self, token: &SecretString) -> bool {
        self.rest.token().expose_secret() == token.expose_secret()
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<Fact>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the application's id, asking once.
    async fn application(&self, tally: &Tally) -> Result<Id, ApiError> {
        let ask = async || {
            let call = Call {
                route: Route {
                    template: "applications/@me",
                    top: None,
                },
                path: "applications/@me",
            };
            let told: Result<Told<Application>, _> = self.rest.get(tally, call).await;
            told.map(|told| told.value)
        };
        Ok(self.application.get_or_try_init(ask).await?.id)
    }
}

impl DiscordPlatform {
    /// Prepares looking at Discord; nothing is sent yet. Without a token every look says so.
    pub fn new(
        options: DiscordOptions,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Result<Self, PlatformError> {
        let api_url: Url = options.api_url.parse().map_err(|_| {
            not_configured("discord.api_url to be an address such as https://discord.com/api/v10")
        })?;
        let api_url = versioned(api_url);
        let platform = Self {
            memory: Arc::new(Memory::new(options.state_dir.clone())),
            guilds: RwLock::new(Arc::new(options.guilds.clone())),
            options,
            api_url,
            clock,
            chance,
            tokens: None,
            connection: RwLock::default(),
            others: RwLock::default(),
            epoch: watch::Sender::new(0),
        };
        if let Some(token) = platform.options.bot_token.clone() {
            platform.use_token(&token)?;
        }
        Ok(platform)
    }

    /// From now on looks into `tokens` before each look, since a token may be replaced while we run.
    #[must_use]
    pub fn following(mut self, tokens: Arc<dyn TokenStore>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Uses another token from now on: everything that held the old one is built anew, and nothing that was found out about
    /// the old one counts.
    pub fn use_token(&self, token: &SecretString) -> Result<(), PlatformError> {
        let token = clean(token)?;
        if self.connection().is_some_and(|known| known.uses(&token)) {
            return Ok(());
        }
        let connection = self.connect(bot(), token);
        let mut slot = self.connection.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::new(connection));
        self.epoch.send_modify(|epoch| *epoch += 1);
        Ok(())
    }

    /// Prepares to ask as the bot that `token` belongs to.
    fn connect(&self, identity: Identity, token: SecretString) -> Connection {
        let options = &self.options;
        let rest = RestOptions {
            api_url: self.api_url.clone(),
            home_page: options.home_page.clone(),
            token,
            timeout: options.timeout,
            patience: options.patience,
            per_second: options.requests_per_second,
            invalid_budget: options.invalid_budget,
        };
        let (memory, clock) = (Arc::clone(&self.memory), Arc::clone(&self.clock));
        Connection {
            identity,
            rest: Rest::new(rest, memory, clock, self.chance.clone()),
            me: OnceCell::new(),
            application: OnceCell::new(),
            told: Mutex::default(),
        }
    }

    /// Tells when there is another token.
    pub fn token_changes(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    fn connection(&self) -> Option<Arc<Connection>> {
        self.connection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Checks the token with one request and returns whose it is; sends nothing when it is known to be dead.
    pub async fn whoami(&self) -> Result<BotUser, PlatformError> {
        let connection = self.connected()?;
        let call = Call {
            route: Route {
                template: "users/@me",
                top: None,
            },
            path: "users/@me",
        };
        let me: Told<Me> = connection
            .rest
            .get(&Tally::default(), call)
            .await
            .map_err(|error| facts::port_error(error, "the bot's own user"))?;
        Ok(BotUser {
            id: me.value.id.to_string(),
            name: me.value.username,
        })
    }

    /// Returns the id of the application that a guild's bot belongs to, which an invite link names; `None` when it cannot be
    /// had.
    pub async fn application_id(&self, guild: &SourceKey) -> Option<String> {
        self.renew().await;
        let connection = self.bot_of(guild)?;
        let application = connection.application(&Tally::default()).await.ok()?;
        Some(application.to_string())
    }

    /// Returns how many gateway sessions were begun within a day by programs that share our state directory, and how many
    /// may still be begun by anybody. Begins none.
    pub async fn session_starts(&self) -> Result<SessionStarts, PlatformError> {
        let connection = self.connected()?;
        let call = |template: &'static str| Call {
            route: Route { template, top: None },
            path: template,
        };
        let refused = |error| facts::port_error(error, "the gateway's budget");
        let tally = Tally::default();
        let me: Told<Me> = connection
            .rest
            .get(&tally, call("users/@me"))
            .await
            .map_err(refused)?;
        let bot: Told<GatewayBot> = connection
            .rest
            .get(&tally, call("gateway/bot"))
            .await
            .map_err(refused)?;
        let limit = bot.value.session_start_limit;
        Ok(SessionStarts {
            ours: connection
                .rest
                .memory()
                .identifies(&me.value.id.to_string(), self.clock.now()),
            left: limit.map(|limit| limit.remaining),
        })
    }

    /// Prepares listening to the gateway with the same token, limits and memory. For `watch` only: each session that it
    /// begins is one of few.
    pub fn listener(&self, options: GatewayOptions) -> Result<GatewayListener, PlatformError> {
        let connection = self.connected()?;
        let chance = self.chance.clone();
        let listener = GatewayListener::new(
            connection,
            &self.guilds(),
            self.options.stream_from,
            options,
            chance,
        );
        Ok(listener)
    }

    fn connected(&self) -> Result<Arc<Connection>, PlatformError> {
        self.connection().ok_or_else(|| not_configured(NO_TOKEN))
    }

    /// Goes by what is configured about guilds now. Looks in progress finish with what they began with.
    pub fn configure(&self, guilds: BTreeMap<u64, GuildOptions>) {
        *self.guilds.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(guilds);
    }

    fn guilds(&self) -> Arc<BTreeMap<u64, GuildOptions>> {
        Arc::clone(&self.guilds.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the ids of guilds by name; a name that two guilds share belongs to neither.
    async fn guilds_by_name(
        &self,
        connection: &Connection,
    ) -> Result<BTreeMap<String, Option<u64>>, PlatformError> {
        let mut names: BTreeMap<String, Option<u64>> = BTreeMap::new();
        let mut after = 0;
        loop {
            let path = format!("users/@me/guilds?limit={}&after={after}", listing::PAGE);
            let call = Call {
                route: Route {
                    template: "users/@me/guilds",
                    top: None,
                },
                path: &path,
            };
            let page: Told<Vec<ListedGuild>> = connection
                .rest
                .get(&Tally::default(), call)
                .await
                .map_err(|error| facts::port_error(error, "the list of guilds"))?;
            for guild in &page.value {
                if let Some(name) = &guild.name {
                    names
                        .entry(name.to_lowercase())
                        .and_modify(|known| *known = known.filter(|id| *id == guild.id.0))
                        .or_insert(Some(guild.id.0));
                }
            }
            let last = page.value.iter().map(|guild| guild.id.0).max().unwrap_or(0);
            if page.value.len() < listing::PAGE || last <= after {
                return Ok(names);
            }
            after = last;
        }
    }
}

#[async_trait]
impl Platform for DiscordPlatform {
    fn name(&self) -> PlatformName {
        PlatformName::Discord
    }

    fn budgets(&self) -> Vec<Budget> {
        let connection = self.connection.read().unwrap_or_else(PoisonError::into_inner);
        connection
            .as_ref()
            .map_or_else(Vec::new, |connection| vec![connection.rest.refusals_left()])
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError> {
        let key = |id: &str| SourceKey::new(PlatformName::Discord, id).ok();
        if names.iter().all(|name| key(name).is_some()) {
            return Ok(names.iter().map(|name| key(name)).collect());
        }
        let known = self.guilds_by_name(&*self.connected()?).await?;
        Ok(names
            .iter()
            .map(|name| {
                key(name).or_else(|| {
                    let id = known.get(&name.to_lowercase()).copied().flatten()?;
                    key(&id.to_string())
                })
            })
            .collect())
    }

    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary {
        self.renew().await;
        let ours = sources
            .iter()
            .filter(|key| key.platform() == PlatformName::Discord);
        let mut summary = ProbeSummary::default();
        let mut bots: BTreeMap<Identity, (Arc<Connection>, Vec<SourceKey>)> = BTreeMap::new();
        let mut botless = Vec::new();
        for key in ours {
            match self.bot_of(key) {
                Some(bot) => {
                    let (_, guilds) = bots
                        .entry(bot.identity.clone())
                        .or_insert_with(|| (bot, Vec::new()));
                    guilds.push(key.clone());
                }
                None => botless.push(key),
            }
        }
        if !botless.is_empty() {
            let now = self.clock.now();
            for key in botless {
                let fact = facts::refused(Transport::Api, "config.token", NO_TOKEN);
                sink.observe(Observation::new(key, now, facts::BY_API, fact));
            }
            summary.problems.push(format!("Discord needs {NO_TOKEN}"));
        }
        let together = Together::new(sink);
        for (bot, guilds) in bots.values() {
            let look = Look::new(self, bot, probes, guilds, &together).run().await;
            together.next();
            summary.calls += look.calls;
            summary.problems.extend(look.problems);
        }
        summary
    }
}

/// Adds to a base address what every path begins with, where it was left to us.
fn versioned(mut base: Url) -> Url {
    if matches!(base.path().trim_end_matches('/'), "" | "/api") {
        base.set_path("/api/v10");
    }
    base
}

/// Whose token it is: the bot's that attends all guilds but those with one of their own.
pub fn bot() -> Identity {
    Identity::named("discord/bot")
}

const NO_TOKEN: &str = "a bot token: set DISCORD_BOT_TOKEN";

fn not_configured(what: &str) -> PlatformError {
    PlatformError::NotConfigured {
        platform: PlatformName::Discord,
        what: what.to_owned(),
    }
}

/// Takes the word `Bot` off a token and refuses what could not be one. Its shape is not checked: mock servers use others.
fn clean(token: &SecretString) -> Result<SecretString, PlatformError> {
    let text = token.expose_secret().trim_start();
    let text = text.strip_prefix("Bot ").unwrap_or(text).trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain {
        Ok(SecretString::from(text.to_owned()))
    } else {
        Err(not_configured(
            "a bot token of one word: DISCORD_BOT_TOKEN is empty or has blanks or odd characters in it",
        ))
    }
}

#[cfg(test)]
mod tests;
