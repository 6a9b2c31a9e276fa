//! Assigns bots to guilds. One bot serves all of them, unless the token store has a token of `discord/bot:<guild id>`:
//! then that token is used for the guild's requests, and its observations count.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use url::Url;

use super::connection::Connection;
use super::memory::Memory;
use super::rest::Rest;
use super::{DiscordOptions, bot, not_configured};
use crate::clock::{Chance, Clock};
use crate::core::observation::{Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::{PlatformError, ProbeSink};
use crate::tokens::TokenStore;

/// The bots, each with its connection.
pub(super) struct Bots {
    options: Arc<DiscordOptions>,
    /// Base URL of requests, with the API version.
    api_url: Url,
    memory: Arc<Memory>,
    clock: Arc<dyn Clock>,
    chance: Chance,
    /// Store in which tokens may be replaced at run time.
    tokens: Option<Arc<dyn TokenStore>>,
    /// The bot of guilds that have none of their own.
    default: RwLock<Option<Arc<Connection>>>,
    others: RwLock<BTreeMap<u64, Arc<Connection>>>,
    /// Incremented with each new token of the default bot.
    epoch: watch::Sender<u64>,
}

impl Bots {
    pub(super) fn new(
        options: Arc<DiscordOptions>,
        api_url: Url,
        memory: Arc<Memory>,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        Self {
            options,
            api_url,
            memory,
            clock,
            chance,
            tokens: None,
            default: RwLock::default(),
            others: RwLock::default(),
            epoch: watch::Sender::new(0),
        }
    }

    /// Sets the store that [`Bots::renew`] reads.
    pub(super) fn follow(&mut self, tokens: Arc<dyn TokenStore>) {
        self.tokens = Some(tokens);
    }

    /// Switches the default bot to another token.
    pub(super) fn use_token(&self, token: &SecretString) -> Result<(), PlatformError> {
        let token = clean(token)?;
        if self.default().is_some_and(|known| known.uses(&token)) {
            return Ok(());
        }
        *self.default.write() = Some(Arc::new(self.connect(bot(), token)));
        self.epoch.send_modify(|epoch| *epoch += 1);
        Ok(())
    }

    /// Prepares a connection as the bot that `token` belongs to.
    fn connect(&self, identity: Identity, token: SecretString) -> Connection {
        let (memory, clock) = (Arc::clone(&self.memory), Arc::clone(&self.clock));
        let (options, api_url) = (Arc::clone(&self.options), self.api_url.clone());
        let rest = Rest::new(options, api_url, token, memory, clock, self.chance.clone());
        Connection::new(identity, rest)
    }

    /// Returns a receiver that is notified when the token of the default bot changes.
    pub(super) fn token_changes(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    pub(super) fn default(&self) -> Option<Arc<Connection>> {
        self.default.read().clone()
    }

    /// Adopts tokens that were replaced in the store. If the store cannot be read, the current tokens stay in use.
    pub(super) async fn renew(&self) {
        let Some(tokens) = &self.tokens else { return };
        self.renew_others(tokens.as_ref()).await;
        if let Ok(Some(token)) = tokens.load(&bot()).await
            && let Err(error) = self.use_token(&token.access)
        {
            tracing::debug!("The stored token of Discord's bot is left alone: {error}");
        }
    }

    /// Adopts the tokens of guilds that have a bot of their own.
    async fn renew_others(&self, tokens: &dyn TokenStore) {
        let Ok(identities) = tokens.identities().await else {
            return;
        };
        let known = self.others.read().clone();
        let mut others = BTreeMap::new();
        for identity in identities {
            let Some(guild) = guild_of(&identity) else {
                continue;
            };
            let token = match tokens.load(&identity).await {
                Ok(Some(token)) => clean(&token.access).ok(),
                Ok(None) => None,
                Err(_) => return,
            };
            let Some(token) = token else { continue };
            let connection = match known.get(&guild).filter(|known| known.uses(&token)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(self.connect(identity, token)),
            };
            others.insert(guild, connection);
        }
        *self.others.write() = others;
    }

    /// Returns the bot that serves a guild: its own one, else the default one.
    pub(super) fn of(&self, key: &SourceKey) -> Option<Arc<Connection>> {
        let guild: Option<u64> = key.id().parse().ok();
        let own = guild.and_then(|guild| self.others.read().get(&guild).cloned());
        own.or_else(|| self.default())
    }

    /// Returns whether a guild has a bot of its own.
    pub(super) fn has_own(&self, key: &SourceKey) -> bool {
        let others = self.others.read();
        key.id()
            .parse()
            .is_ok_and(|guild: u64| others.contains_key(&guild))
    }
}

/// Returns the guild that an identity is the own bot of: `discord/bot:<guild id>`.
fn guild_of(identity: &Identity) -> Option<u64> {
    identity.as_str().strip_prefix("discord/bot:")?.parse().ok()
}

/// Removes the prefix `Bot` from a token and rejects what cannot be one. Its format is not checked: mock servers use others.
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

/// Reports several probes as one: the request counter of each continues where the previous one ended.
pub(super) struct Together<'a> {
    sink: &'a dyn ProbeSink,
    /// Requests of the completed probes, and of the current one so far.
    counted: Mutex<(usize, usize)>,
}

impl<'a> Together<'a> {
    pub(super) fn new(sink: &'a dyn ProbeSink) -> Self {
        Self {
            sink,
            counted: Mutex::default(),
        }
    }

    /// Marks the current probe as completed.
    pub(super) fn next(&self) {
        let mut counted = self.counted.lock();
        *counted = (counted.0 + counted.1, 0);
    }
}

impl ProbeSink for Together<'_> {
    fn observe(&self, observation: Observation) {
        self.sink.observe(observation);
    }

    fn progress(&self, platform: PlatformName, done: usize, expected: usize) {
        let before = {
            let mut counted = self.counted.lock();
            counted.1 = done;
            counted.0
        };
        self.sink.progress(platform, before + done, before + expected);
    }
}
