//! Twitch: what its OAuth, Helix and EventSub tell about channels.
//!
//! `wire` reads its JSON, `map` turns answers into observations, `standing` decides about authorisations: those three
//! are pure. `oauth` and `helix` make the calls, `auth` keeps tokens usable, `budget` keeps within the rate limits,
//! `reads` and `permissions` ask, and `probe` puts them together.

mod auth;
mod budget;
pub mod eventsub;
mod helix;
mod map;
mod oauth;
mod options;
mod permissions;
mod probe;
mod reader;
mod reads;
mod renewal;
mod standing;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use self::auth::Auth;
use self::budget::Budgets;
use self::helix::{Helix, Latency, PAGE};
use self::oauth::OAuth;
use self::probe::Look;
use crate::clock::{Chance, Clock};
use crate::core::source::{PlatformName, SourceKey};
use crate::http::{Http, Skew};
use crate::platforms::meter::Meter;
use crate::platforms::witnesses::Witnesses;
use crate::platforms::{Budget, Platform, PlatformError, ProbeSet, ProbeSink, ProbeSummary};
use crate::tokens::TokenStore;

pub use options::{APP, BOT, TwitchOptions, app, bot, broadcaster};

/// Looks at Twitch.
pub struct TwitchPlatform {
    options: TwitchOptions,
    auth: Auth,
    helix: Helix,
    clock: Arc<dyn Clock>,
    skew: Arc<Skew>,
    /// One for each call that may be under way.
    permits: Semaphore,
    witnesses: Witnesses,
}

impl TwitchPlatform {
    /// Prepares the adapter; nothing is asked yet.
    pub fn new(
        options: TwitchOptions,
        tokens: Arc<dyn TokenStore>,
        http: Http,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        let skew = Arc::new(Skew::default());
        let oauth = OAuth {
            http: http.clone(),
            base: options.auth_url.clone(),
            chance: chance.clone(),
            skew: Arc::clone(&skew),
        };
        let helix = Helix {
            http,
            base: options.helix_url.clone(),
            chance,
            skew: Arc::clone(&skew),
            budgets: Budgets::default(),
            latency: Latency::default(),
        };
        Self {
            auth: Auth::new(oauth, tokens, Arc::clone(&clock), &options),
            helix,
            clock,
            skew,
            permits: Semaphore::new(options.concurrency.max(1)),
            witnesses: Witnesses::default(),
            options,
        }
    }

    /// Returns Twitch's time minus ours in milliseconds, as far as answers have told it.
    pub fn clock_offset(&self) -> Option<i64> {
        self.skew.measured()
    }

    /// Returns the smoothed round trip of Helix calls in milliseconds.
    pub fn latency(&self) -> Option<u64> {
        self.helix.latency.millis()
    }
}

#[async_trait]
impl Platform for TwitchPlatform {
    fn name(&self) -> PlatformName {
        PlatformName::Twitch
    }

    fn budgets(&self) -> Vec<Budget> {
        self.helix.budgets.levels()
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError> {
        let logins: Vec<_> = names.iter().map(|name| login(name)).collect();
        let mut wanted: Vec<&str> = logins.iter().flatten().map(String::as_str).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let meter = Meter::silent();
        let reader = reader::Reader::new(self).await?;
        let mut ids = std::collections::HashMap::new();
        for batch in wanted.chunks(PAGE) {
            for user in reader.users("login", batch, &meter).await?.rows {
                ids.insert(user.login.to_ascii_lowercase(), user.id);
            }
        }
        let key = |login: &Option<String>| {
            let id = ids.get(login.as_ref()?)?;
            SourceKey::new(PlatformName::Twitch, id).ok()
        };
        Ok(logins.iter().map(key).collect())
    }

    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary {
        Look::new(self, probes, sink).at(sources).await
    }
}

/// Returns a login as Twitch writes it, or `None` for what can be none and would spoil a whole batch.
fn login(name: &str) -> Option<String> {
    let login = name.trim().trim_start_matches('#').to_ascii_lowercase();
    let plausible = (1..=25).contains(&login.len())
        && login
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    plausible.then_some(login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_written_as_twitch_does() {
        for (name, expected) in [
            ("#RatCaster", Some("ratcaster")),
            (" rat_caster2 ", Some("rat_caster2")),
            ("", None),
            ("雪の庭", None),
            ("two words", None),
        ] {
            assert_eq!(login(name).as_deref(), expected, "{name}");
        }
    }
}
