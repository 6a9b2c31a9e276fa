//! Kick: a source is a broadcaster's channel.
//!
//! Looks go over REST ([`KickPlatform`]) and are the truth; webhooks ([`webhook`]) make them prompt where Kick can reach
//! us. What Kick documents, and what its users have found out, is cited where it is obeyed.

mod answer;
mod api;
mod auth;
mod badges;
mod budget;
mod client;
mod facts;
mod look;
mod memory;
mod meter;
mod options;
mod signature;
mod standing;
mod subscriptions;
mod viewers;
pub mod webhook;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::api::Api;
use self::auth::Auth;
use self::budget::Budget;
use self::client::Client;
use self::look::Look;
use self::memory::Memory;
use self::meter::Meter;
use super::{Budget as Level, Platform, PlatformError, ProbeSet, ProbeSink, ProbeSummary};
use crate::clock::{Chance, Clock};
use crate::core::source::{PlatformName, SourceKey};
use crate::http::Http;
use crate::tokens::TokenStore;

pub use badges::Badges;
pub use options::{APP, BOT, KickOptions, app, bot, broadcaster};
pub use signature::{InvalidPublicKey, PublicKey};
pub use subscriptions::Reconciled;

use subscriptions::Subscribed;

/// The stretch of time that the budget of requests is counted over.
const BUDGET_WINDOW: Duration = Duration::from_mins(1);
/// Letters in the longest slug.
const LONGEST_SLUG: usize = 25;

/// Looks at Kick.
pub struct KickPlatform {
    options: KickOptions,
    clock: Arc<dyn Clock>,
    api: Api,
    memory: Memory,
    badges: Arc<Badges>,
    bot: Arc<BotId>,
    subscribed: Arc<Subscribed>,
}

/// Who the bot is: configured, or learnt from its token.
#[derive(Debug, Default)]
struct BotId(Mutex<Option<u64>>);

impl BotId {
    fn learn(&self, id: u64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(id);
    }

    fn is(&self, id: Option<u64>) -> bool {
        let bot = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bot.is_some() && bot == id
    }
}

impl KickPlatform {
    /// Prepares looking at Kick; nothing is sent yet.
    pub fn new(
        options: KickOptions,
        tokens: Arc<dyn TokenStore>,
        http: Http,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        Self::with_window(options, tokens, http, clock, chance, BUDGET_WINDOW)
    }

    fn with_window(
        options: KickOptions,
        tokens: Arc<dyn TokenStore>,
        http: Http,
        clock: Arc<dyn Clock>,
        chance: Chance,
        window: Duration,
    ) -> Self {
        let client = Arc::new(Client {
            http,
            auth_url: options.auth_url.clone(),
            api_url: options.api_url.clone(),
            budget: Budget::new(options.requests_per_minute, window, chance.clone()),
            chance,
            patience: options.patience,
            round_trip: Mutex::default(),
        });
        let auth = Auth::new(Arc::clone(&client), tokens, Arc::clone(&clock), &options);
        let bot = BotId(Mutex::new(options.bot_user_id));
        Self {
            options,
            clock,
            api: Api::new(client, auth),
            memory: Memory::default(),
            badges: Arc::default(),
            bot: Arc::new(bot),
            subscribed: Arc::default(),
        }
    }

    /// Returns the badges seen on the bot's own messages, for whoever receives them.
    pub fn badges(&self) -> &Arc<Badges> {
        &self.badges
    }

    async fn resolve_slug(&self, slug: &str) -> Result<Option<SourceKey>, PlatformError> {
        let key = |id: u64| SourceKey::new(PlatformName::Kick, &id.to_string()).ok();
        if let Some(id) = self.memory.id_of(slug) {
            return Ok(key(id));
        }
        let Some(channel) = self.api.channel_of(slug, &Meter::default()).await? else {
            return Ok(None);
        };
        let id = channel.broadcaster_user_id;
        // It does not count as looked up: what the channel is called is for the next look to tell.
        self.memory.remember_slug(slug, id);
        Ok(key(id))
    }
}

/// Reads a slug as people write it: with `@`, in capitals, or as the address of its channel.
fn slug_of(name: &str) -> Option<String> {
    let name = name.trim().trim_end_matches('/');
    let slug = name
        .rsplit('/')
        .next()
        .unwrap_or(name)
        .trim_start_matches('@')
        .to_lowercase();
    let fits = !slug.is_empty() && slug.len() <= LONGEST_SLUG;
    let plain = slug
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    (fits && plain).then_some(slug)
}

#[async_trait]
impl Platform for KickPlatform {
    fn name(&self) -> PlatformName {
        PlatformName::Kick
    }

    /// Kick tells nothing about its limits, so that this is the pace that we keep to ourselves.
    fn budgets(&self) -> Vec<Level> {
        let size = self.options.requests_per_minute;
        let left = u32::try_from(self.api.client.budget.left()).unwrap_or(size);
        let name = "requests a minute, of our own limit".to_owned();
        vec![Level { name, left, size }]
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError> {
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            keys.push(match slug_of(name) {
                Some(slug) => self.resolve_slug(&slug).await?,
                None => None,
            });
        }
        Ok(keys)
    }

    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary {
        Look::new(self, probes, sources, sink).run().await
    }
}
