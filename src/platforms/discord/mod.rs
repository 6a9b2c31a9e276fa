//! Discord: a source is a guild that the bot works in.
//!
//! Probes use REST ([`DiscordPlatform`]); they never open a gateway session. Discord's rules and penalties are cited where the
//! code follows them.

mod answer;
mod bots;
mod channels;
mod connection;
pub mod descriptor;
mod doctor;
mod facts;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gateway;
mod guild_list;
mod limits;
mod memory;
mod options;
pub mod permissions;
mod probe;
mod rest;
pub mod rules;
pub mod settings;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use secrecy::SecretString;
use tokio::sync::watch;
use url::Url;

use self::bots::{Bots, Together};
use self::connection::Connection;
use self::gateway::{GatewayListener, GatewayOptions};
use self::memory::Memory;
use self::probe::DiscordProbe;
use super::{Platform, PlatformError, ProbeSet, ProbeSink, ProbeSummary, Problem, RateLimit};
use crate::clock::{Chance, Clock};
use crate::config::Settings;
use crate::core::code::Code;
use crate::core::finding::Finding;
use crate::core::observation::{ErrorInfo, Identity, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::kit::meter::Meter;
use crate::tokens::TokenStore;

pub use connection::SessionStarts;
pub use options::{DiscordOptions, GuildOptions, HOME_PAGE, StreamFrom, bot};
pub use wire::Me;

pub struct DiscordPlatform {
    options: Arc<DiscordOptions>,
    clock: Arc<dyn Clock>,
    chance: Chance,
    bots: Bots,
    /// Configuration of guilds; a changed configuration replaces it.
    guilds: RwLock<Arc<BTreeMap<u64, GuildOptions>>>,
}

impl DiscordPlatform {
    /// Creates the adapter; nothing is sent yet. Without a token every probe reports that it is missing.
    pub fn new(
        options: DiscordOptions,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Result<Self, PlatformError> {
        let api_url: Url = options.api_url.parse().map_err(|_| {
            not_configured("discord.api_url to be an address such as https://discord.com/api/v10")
        })?;
        let options = Arc::new(options);
        let memory = Arc::new(Memory::new(options.state_dir.clone()));
        let platform = Self {
            bots: Bots::new(
                Arc::clone(&options),
                versioned(api_url),
                memory,
                Arc::clone(&clock),
                chance.clone(),
            ),
            guilds: RwLock::new(Arc::new(options.guilds.clone())),
            options,
            clock,
            chance,
        };
        if let Some(token) = platform.options.bot_token.clone() {
            platform.use_token(&token)?;
        }
        Ok(platform)
    }

    /// Sets a store that is read before each probe, since a token may be replaced at run time.
    #[must_use]
    pub fn following(mut self, tokens: Arc<dyn TokenStore>) -> Self {
        self.bots.follow(tokens);
        self
    }

    /// Switches to another token: everything that used the old one is rebuilt, and all observations about the old one are
    /// discarded.
    pub fn use_token(&self, token: &SecretString) -> Result<(), PlatformError> {
        self.bots.use_token(token)
    }

    /// Returns a receiver that is notified when the token changes.
    pub fn token_changes(&self) -> watch::Receiver<u64> {
        self.bots.token_changes()
    }

    /// Checks the token with one request and returns its user; sends nothing when the token is known to be invalid.
    pub async fn whoami(&self) -> Result<Me, PlatformError> {
        self.connected()?.whoami().await
    }

    /// Returns which of `sources` have a bot of their own. They are polled, whatever the gateway reports of others.
    pub async fn with_own_bot(&self, sources: &[SourceKey]) -> BTreeSet<SourceKey> {
        self.bots.renew().await;
        let own = sources.iter().filter(|key| self.bots.has_own(key));
        own.cloned().collect()
    }

    /// Returns the id of the application that a guild's bot belongs to, which an invite link contains; `None` when it cannot be
    /// determined.
    pub async fn application_id(&self, guild: &SourceKey) -> Option<String> {
        self.bots.renew().await;
        let connection = self.bots.of(guild)?;
        let application = connection.application(&Meter::silent()).await.ok()?;
        Some(application.to_string())
    }

    /// Returns how many gateway sessions were begun within a day by programs that share our state directory, and how many may
    /// still be begun with this token. Begins none.
    pub async fn session_starts(&self) -> Result<SessionStarts, PlatformError> {
        self.connected()?.session_starts(self.clock.now()).await
    }

    /// Prepares a gateway listener with the same token, limits and memory. For `watch` only: session starts are limited.
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
        self.bots.default().ok_or_else(|| not_configured(NO_TOKEN))
    }

    /// Applies a changed configuration of guilds. Probes in progress finish with the previous one.
    pub fn configure(&self, guilds: BTreeMap<u64, GuildOptions>) {
        *self.guilds.write() = Arc::new(guilds);
    }

    fn guilds(&self) -> Arc<BTreeMap<u64, GuildOptions>> {
        Arc::clone(&self.guilds.read())
    }
}

#[async_trait]
impl Platform for DiscordPlatform {
    fn name(&self) -> PlatformName {
        PlatformName::Discord
    }

    fn needing(&self, identity: &Identity, sources: &[SourceKey]) -> Vec<SourceKey> {
        let needing = sources
            .iter()
            .filter(|source| identity.concerns(source) && (*identity != bot() || !self.bots.has_own(source)));
        needing.cloned().collect()
    }

    async fn account_name(&self, identity: &Identity) -> Option<String> {
        match *identity == bot() {
            true => self.whoami().await.ok()?.username,
            false => None,
        }
    }

    fn reconfigure(&self, settings: &Settings) {
        self.configure(descriptor::guilds(settings));
    }

    async fn check_push(&self, settings: &Settings, _: &[SourceKey]) -> Vec<Finding> {
        if !settings.platforms.discord.gateway {
            return Vec::new();
        }
        doctor::gateway(self).await
    }

    fn rate_limits(&self) -> Vec<RateLimit> {
        let bot = self.bots.default();
        bot.map(|bot| bot.rest.invalid_requests_left())
            .into_iter()
            .collect()
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError> {
        let key = |id: &str| SourceKey::new(PlatformName::Discord, id).ok();
        if names.iter().all(|name| key(name).is_some()) {
            return Ok(names.iter().map(|name| key(name)).collect());
        }
        self.bots.renew().await;
        let known = self.connected()?.guilds_by_name().await?;
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
        self.bots.renew().await;
        let ours = sources
            .iter()
            .filter(|key| key.platform() == PlatformName::Discord);
        let mut summary = ProbeSummary::default();
        let mut bots: BTreeMap<Identity, (Arc<Connection>, Vec<SourceKey>)> = BTreeMap::new();
        let mut botless = Vec::new();
        for key in ours {
            match self.bots.of(key) {
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
                let fact = facts::refused(
                    Transport::Api,
                    Code::NotConfigured(PlatformName::Discord),
                    NO_TOKEN,
                );
                sink.observe(Observation::new(key, now, facts::BY_API, fact));
            }
            let error = ErrorInfo::new(Code::NotConfigured(PlatformName::Discord), NO_TOKEN);
            let problem = Problem::of_platform(format!("Discord needs {NO_TOKEN}"));
            summary.problems.push(problem.caused_by(error));
        }
        let together = Together::new(sink);
        for (bot, guilds) in bots.values() {
            let probed = DiscordProbe::new(self, bot, probes, guilds, &together)
                .run()
                .await;
            together.next();
            summary.calls += probed.calls;
            summary.problems.extend(probed.problems);
        }
        summary
    }
}

/// Appends the API version to a base URL that has no path.
fn versioned(mut base: Url) -> Url {
    if matches!(base.path().trim_end_matches('/'), "" | "/api") {
        base.set_path("/api/v10");
    }
    base
}

const NO_TOKEN: &str = "a bot token: set DISCORD_BOT_TOKEN";

fn not_configured(what: &str) -> PlatformError {
    PlatformError::not_configured(PlatformName::Discord, what)
}

#[cfg(test)]
mod tests;
