//! Assigns bots to guilds. One bot serves all of them, unless the token store has a token of `discord/bot:<guild id>`:
//! then that token is used for the guild's requests, and its observations count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLockReadGuard};

use super::connection::Connection;
use super::{DiscordPlatform, bot, clean};
use crate::core::observation::{Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::ProbeSink;
use crate::tokens::TokenStore;

impl DiscordPlatform {
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
        let known = self.others().clone();
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

    pub(super) fn others(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.others.read()
    }

    /// Returns the bot that serves a guild: its own one, else the default one.
    pub(super) fn bot_of(&self, key: &SourceKey) -> Option<Arc<Connection>> {
        let own = key
            .id()
            .parse()
            .ok()
            .and_then(|guild: u64| self.others().get(&guild).cloned());
        own.or_else(|| self.connection())
    }

    /// Returns which of `sources` have a bot of their own. They are polled, whatever the gateway reports of others.
    pub async fn with_own_bot(&self, sources: &[SourceKey]) -> BTreeSet<SourceKey> {
        self.renew().await;
        let others = self.others();
        let own = |key: &&SourceKey| {
            key.id()
                .parse()
                .is_ok_and(|guild: u64| others.contains_key(&guild))
        };
        sources.iter().filter(own).cloned().collect()
    }
}

/// Returns the guild that an identity is the own bot of: `discord/bot:<guild id>`.
fn guild_of(identity: &Identity) -> Option<u64> {
    identity.as_str().strip_prefix("discord/bot:")?.parse().ok()
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
