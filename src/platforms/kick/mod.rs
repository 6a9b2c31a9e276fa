//! Kick: a source is a broadcaster's channel.
//!
//! Probes use REST ([`KickPlatform`]) and are authoritative; webhooks ([`webhook`]) make changes visible sooner where Kick can
//! reach us. Kick's documentation, and what its users have found out, is cited where the code follows it.

mod answer;
mod api;
mod badges;
mod client;
pub mod descriptor;
mod facts;
#[cfg(fuzzing)]
pub mod fuzzing;
mod memory;
mod oauth;
mod options;
mod probe;
mod rate_limit;
pub mod rules;
pub mod settings;
mod signature;
mod subscriptions;
mod token_status;
mod viewers;
pub mod webhook;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::api::Api;
use self::client::Client;
use self::memory::Memory;
use self::oauth::{Auth, OAuth};
use self::rate_limit::RateLimiter;
use super::{Platform, PlatformError, ProbeSet, ProbeSink, ProbeSummary, RateLimit};
use crate::clock::{Chance, Clock};
use crate::config::Settings;
use crate::core::finding::{Finding, Level};
use crate::core::number::count;
use crate::core::source::{PlatformName, SourceKey};
use crate::http::{Http, Skew};
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::Accounts;
use crate::platforms::kit::smoothed_latency::Smoothed;
use crate::tokens::TokenStore;

pub use badges::Badges;
pub use options::{APP, BOT, KickOptions, app, bot, broadcaster};
pub use signature::{InvalidPublicKey, PublicKey};
pub use subscriptions::Reconciled;

/// The window of the request rate limit.
const RATE_LIMIT_WINDOW: Duration = Duration::from_mins(1);
/// Length of the longest slug.
const LONGEST_SLUG: usize = 25;

pub struct KickPlatform {
    options: KickOptions,
    clock: Arc<dyn Clock>,
    api: Api,
    memory: Memory,
    badges: Arc<Badges>,
    bot: Arc<BotId>,
}

/// The bot's user: configured, or determined from its token.
#[derive(Debug, Default)]
struct BotId(Mutex<Option<u64>>);

impl BotId {
    fn update(&self, id: u64) {
        self.0.lock().get_or_insert(id);
    }

    fn is(&self, id: Option<u64>) -> bool {
        let bot = *self.0.lock();
        bot.is_some() && bot == id
    }
}

impl KickPlatform {
    /// Creates the adapter; nothing is sent yet.
    pub fn new(
        options: KickOptions,
        tokens: Arc<dyn TokenStore>,
        http: Http,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        Self::with_window(options, tokens, http, clock, chance, RATE_LIMIT_WINDOW)
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
            rate_limiter: RateLimiter::new(options.requests_per_minute, window, chance.clone()),
            chance: chance.clone(),
            patience: options.patience,
            round_trip: Smoothed::new(0.3),
            skew: Skew::default(),
        });
        let oauth = OAuth::new(&options, Arc::clone(&client), Arc::clone(&clock));
        let auth = Auth::new(oauth, tokens, Arc::clone(&clock), chance);
        let bot = BotId(Mutex::new(options.bot_user_id));
        Self {
            options,
            clock,
            api: Api::new(client, auth),
            memory: Memory::default(),
            badges: Arc::default(),
            bot: Arc::new(bot),
        }
    }

    /// Returns the badges seen on the bot's own messages, to be shared with the webhook listener.
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
        // This does not count as a check: the next probe determines the channel's name.
        self.memory.remember_slug(slug, id);
        Ok(key(id))
    }
}

/// Parses a slug as users write it: with `@`, in capitals, or as the address of its channel.
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

    fn accounts(&self) -> Option<&dyn Accounts> {
        Some(&self.api.auth)
    }

    async fn user_name(&self, id: &str) -> Option<String> {
        let id = id.parse().ok()?;
        let page = self.api.users(&[id], &Meter::silent()).await.ok()?;
        page.items
            .into_iter()
            .find(|user| user.user_id == id)
            .map(|user| user.name)
    }

    async fn check_push(&self, settings: &Settings, sources: &[SourceKey]) -> Vec<Finding> {
        const NAME: &str = "webhooks";
        if !settings.platforms.kick.webhook {
            return Vec::new();
        }
        if settings.web.listen.is_none() {
            let detail = "kick.webhook is on, but web.listen is off, so nothing can be delivered";
            return vec![Finding::new(NAME, Level::Warn, detail)];
        }
        let (listed, all) = match self.webhooks_listed(sources).await {
            Ok(counts) => counts,
            Err(error) => return vec![Finding::new(NAME, Level::Warn, error.to_string())],
        };
        let detail = format!("Kick lists {listed} of {}", count(all as u64, "subscription"));
        if listed == all {
            return vec![Finding::new(NAME, Level::Ok, detail)];
        }
        let detail = format!("{detail}; `watch` requests the others");
        vec![Finding::new(NAME, Level::Warn, detail).next("bitbrat watch")]
    }

    fn divide_rate_limits(&self, members: u32) {
        self.api.client.rate_limiter.divide(members);
    }

    /// Kick publishes no limits, so this is our own rate limit.
    fn rate_limits(&self) -> Vec<RateLimit> {
        let size = self.options.requests_per_minute;
        let left = u32::try_from(self.api.client.rate_limiter.left()).unwrap_or(size);
        let name = "requests a minute, of our own limit".to_owned();
        let bucket = "requests_per_minute".to_owned();
        vec![RateLimit {
            name,
            bucket,
            left,
            size,
        }]
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
        probe::run(self, probes, sources, sink).await
    }
}
