//! Twitch: what its OAuth, Helix and EventSub APIs report about channels.
//!
//! Pure modules: `wire` parses its JSON and `map` turns answers into observations. The others: `oauth` and `helix` make the calls,
//! `lists` recovers from a rejected token, `rate_limit` keeps within the rate limits, `reads` and `permissions` run the requests,
//! and `probe` combines them.

pub mod descriptor;
pub mod eventsub;
#[cfg(fuzzing)]
pub mod fuzzing;
mod helix;
mod lists;
mod map;
mod oauth;
mod options;
mod permissions;
mod probe;
mod rate_limit;
mod reader;
mod reads;
pub mod rules;
pub mod settings;
pub mod webhook;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use self::eventsub::planner::TransportChoice;
use self::helix::{Helix, PAGE};
use self::oauth::{Auth, OAuth};
use self::probe::ProbeRun;
use self::rate_limit::RateLimits;
use crate::clock::{Chance, Clock};
use crate::config::Settings;
use crate::core::finding::{Finding, Level};
use crate::core::observation::{AuthCheck, AuthResult, Identity};
use crate::core::source::{PlatformName, SourceKey};
use crate::http::{Http, Skew};
use crate::platforms::kit::greeting;
use crate::platforms::kit::link_health::LinkHealth;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::Accounts;
use crate::platforms::kit::smoothed_latency::Smoothed;
use crate::platforms::{Platform, PlatformError, ProbeSet, ProbeSink, ProbeSummary, RateLimit};
use crate::tokens::TokenStore;

pub use options::{APP, BOT, TwitchOptions, app, bot, broadcaster};

/// Probes Twitch.
pub struct TwitchPlatform {
    options: TwitchOptions,
    auth: Auth,
    helix: Arc<Helix>,
    clock: Arc<dyn Clock>,
    skew: Arc<Skew>,
    link_health: LinkHealth,
}

impl TwitchPlatform {
    /// Creates the adapter without sending requests.
    pub fn new(
        options: TwitchOptions,
        tokens: Arc<dyn TokenStore>,
        http: Http,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        let skew = Arc::new(Skew::default());
        let helix = Arc::new(Helix {
            http,
            base: options.helix_url.clone(),
            chance: chance.clone(),
            skew: Arc::clone(&skew),
            rate_limits: RateLimits::default(),
            latency: Smoothed::new(0.2),
        });
        let oauth = OAuth::new(&options, Arc::clone(&helix), Arc::clone(&clock));
        Self {
            auth: Auth::new(oauth, tokens, Arc::clone(&clock), chance),
            helix,
            clock,
            skew,
            link_health: LinkHealth::default(),
            options,
        }
    }
}

#[async_trait]
impl Platform for TwitchPlatform {
    fn name(&self) -> PlatformName {
        PlatformName::Twitch
    }

    async fn check_account(&self, identity: &Identity) -> Option<Result<AuthCheck, PlatformError>> {
        // A source that has a bot does not use the application token, so no probe checks it.
        if identity.as_str() != APP {
            return None;
        }
        let outcome = match self.auth.check(identity, &Meter::silent()).await {
            Ok(check) => match (check.status.evidence(&check.token), check.error) {
                (Some(evidence), _) => Ok(evidence),
                (None, Some(error)) => Err(error),
                (None, None) => return None,
            },
            // The token is fetched on demand with the client id and secret, so their rejection is the account's.
            Err(PlatformError::Unauthorized { reason, .. }) => Ok(AuthCheck {
                result: AuthResult::Expired,
                expires_at: None,
                scopes: std::collections::BTreeSet::new(),
                rejected: true,
                client_rejected: false,
                reason: Some(reason),
            }),
            Err(error) => Err(error),
        };
        Some(outcome)
    }

    fn accounts(&self) -> Option<&dyn Accounts> {
        Some(&self.auth)
    }

    async fn user_name(&self, id: &str) -> Option<String> {
        let reader = reader::Reader::new(self).await.ok()?;
        let page = reader.users("id", &[id], &Meter::silent()).await.ok()?;
        page.rows
            .into_iter()
            .find(|user| user.id == id)
            .map(|user| user.login)
    }

    async fn check_push(&self, settings: &Settings, _: &[SourceKey]) -> Vec<Finding> {
        let settings = &settings.platforms.twitch;
        if !settings.eventsub {
            return Vec::new();
        }
        let is_welcome = |message: &Value| {
            message.pointer("/metadata/message_type").and_then(Value::as_str) == Some("session_welcome")
        };
        let next = "bitbrat config show  # twitch.eventsub_ws_url, and the proxy";
        let url = settings.eventsub_ws_url.as_str();
        let mut findings = vec![greeting::check("eventsub", url, is_welcome, next).await];
        if settings.transport == TransportChoice::Conduit && !self.auth.can_be_app() {
            let detail = "twitch.transport is `conduit`, which needs twitch.client_id and twitch.client_secret; channels are polled";
            findings.push(Finding::new("conduit", Level::Fail, detail).next("bitbrat config show"));
        }
        findings
    }

    fn rate_limits(&self) -> Vec<RateLimit> {
        self.helix.rate_limits.levels()
    }

    fn divide_rate_limits(&self, members: u32) {
        self.helix.rate_limits.divide(members);
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
            let page = reader.users("login", batch, &meter).await?;
            for user in page.rows {
                ids.insert(user.login.to_ascii_lowercase(), user.id);
            }
            // A name whose row cannot be parsed is not a name that does not exist on Twitch.
            if !page.unread.is_empty() && batch.iter().any(|login| !ids.contains_key(*login)) {
                return Err(PlatformError::Unreadable {
                    platform: PlatformName::Twitch,
                    operation: "the list of users",
                    reason: "a row of it cannot be read".to_owned(),
                });
            }
        }
        let key = |login: &Option<String>| {
            let id = ids.get(login.as_ref()?)?;
            SourceKey::new(PlatformName::Twitch, id).ok()
        };
        Ok(logins.iter().map(key).collect())
    }

    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary {
        ProbeRun::new(self, probes, sink).at(sources).await
    }
}

/// Returns a login in Twitch's spelling, or `None` for an invalid one, which would make a whole batch fail.
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
