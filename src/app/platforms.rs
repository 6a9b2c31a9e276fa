//! The platforms in this program: which are needed, which identity each request uses, and one adapter of each for the whole
//! process.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use crate::clock::{Chance, Clock};
use crate::config::Settings;
use crate::core::forecast::{Forecast, Renewal, TokenLifetimes};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::http::Http;
use crate::platforms::Platform;
use crate::platforms::descriptor::{Application, BuildError, Endpoint, Parts, Scope, descriptor};
use crate::platforms::kit::answer::is_own_error;
use crate::tokens::{RefreshState, Seed, StoredToken, TokenError, TokenKind, TokenStore};
use crate::traffic::Recorder;

/// Why the application's credentials are not known to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untried {
    /// The platform rejects them, with this message.
    Refused(String),
    /// The platform did not answer.
    NotAsked(String),
}

/// The platforms with the tokens of their accounts. There is one adapter per platform for the whole process: it counts what is left
/// of the rate limit.
pub struct Platforms {
    pub(super) settings: Arc<Settings>,
    pub(super) tokens: Arc<dyn TokenStore>,
    pub(super) http: Http,
    /// Records the traffic with all platforms.
    pub(super) recorder: Option<Recorder>,
    /// How long requests to each platform take.
    pub(super) request_times: [Arc<Histogram>; PlatformName::ALL.len()],
    pub(super) clock: Arc<dyn Clock>,
    pub(super) chance: Chance,
    /// Whether the configuration may bring tokens. A demo has its own.
    pub(super) takes_seeds: bool,
    pub(super) adapters: [OnceCell<Arc<dyn Platform>>; PlatformName::ALL.len()],
}

/// Upper bounds in seconds: a response from nearby, a usual one, a slow one, and the timeouts.
const REQUEST_TIMES: [f64; 6] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Starts counting how long requests to each platform take.
pub(super) fn request_times() -> [Arc<Histogram>; PlatformName::ALL.len()] {
    PlatformName::ALL.map(|_| Arc::new(Histogram::new(&REQUEST_TIMES)))
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Tokens(error) => error.into(),
            BuildError::Platform(error) => error.into(),
        }
    }
}

/// Whose token is the bot's.
fn bot(platform: PlatformName) -> Identity {
    Identity::named(format!("{platform}/bot"))
}

impl Platforms {
    /// Builds the platforms that the configured sources need, with the tokens that the configuration brings.
    pub async fn needed(&self) -> Result<Vec<Arc<dyn Platform>>, Failure> {
        self.seed_tokens().await?;
        let mut needed: Vec<PlatformName> = self.settings.sources.iter().map(|spec| spec.platform).collect();
        needed.sort_unstable();
        needed.dedup();
        let mut platforms = Vec::new();
        for platform in needed {
            platforms.push(self.get(platform).await?);
        }
        Ok(platforms)
    }

    pub async fn get(&self, platform: PlatformName) -> Result<Arc<dyn Platform>, Failure> {
        let build = || self.build(platform, Arc::clone(&self.tokens), false);
        let adapter = self.adapters[platform as usize].get_or_try_init(build).await?;
        Ok(Arc::clone(adapter))
    }

    pub(super) async fn adapter<P: Platform>(&self, platform: PlatformName) -> Result<Arc<P>, Failure> {
        let adapter: Arc<dyn Any + Send + Sync> = self.get(platform).await?;
        Ok(adapter
            .downcast()
            .expect("each platform's descriptor builds its own adapter"))
    }

    /// Builds one platform on top of other tokens than the stored ones: those that were just entered.
    pub async fn build_with(
        &self,
        platform: PlatformName,
        tokens: Arc<dyn TokenStore>,
    ) -> Result<Arc<dyn Platform>, Failure> {
        self.build(platform, tokens, true).await
    }

    async fn build(
        &self,
        platform: PlatformName,
        tokens: Arc<dyn TokenStore>,
        try_refused: bool,
    ) -> Result<Arc<dyn Platform>, Failure> {
        let parts = Parts {
            settings: &self.settings,
            tokens,
            http: self
                .http
                .timed(self.request_times(platform))
                .recorded(self.recorder.as_ref().map(|recorder| recorder.tap(platform))),
            request_times: self.request_times(platform),
            clock: Arc::clone(&self.clock),
            chance: self.chance.clone(),
            try_refused,
        };
        Ok(descriptor(platform).build(parts).await?)
    }

    /// Returns how long requests to `platform` take.
    pub fn request_times(&self, platform: PlatformName) -> Arc<Histogram> {
        Arc::clone(&self.request_times[platform as usize])
    }

    /// Applies to the platforms in use what `settings` configure about single sources.
    pub(super) fn reconfigure(&self, settings: &Settings) {
        for adapter in self.adapters.iter().filter_map(OnceCell::get) {
            adapter.reconfigure(settings);
        }
    }

    /// Returns the scopes that a login as `identity` requests.
    pub fn scopes(&self, platform: PlatformName, identity: &Identity) -> Vec<Scope> {
        descriptor(platform).scopes(&self.settings, identity)
    }

    /// Returns a platform's HTTP addresses.
    pub fn endpoints(&self, platform: PlatformName) -> Vec<Endpoint> {
        descriptor(platform).endpoints(&self.settings)
    }

    /// Requests an application token only to check whether the platform accepts the client id and secret; the token is not kept.
    /// `None` where both are not configured.
    pub async fn try_application(&self, platform: PlatformName) -> Option<Result<(), Untried>> {
        let Application {
            token_url,
            client_id,
            client_secret: secret,
            error,
        } = descriptor(platform).application(&self.settings)?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id.as_str()),
            ("client_secret", secret.expose_secret()),
        ];
        let request = self
            .http
            .request(reqwest::Method::POST, token_url)
            .form(&form)
            .build();
        let answer = match request {
            Ok(request) => self.http.send(request).await,
            Err(_) => return Some(Err(Untried::NotAsked("it cannot be sent".to_owned()))),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(Err(Untried::NotAsked(error.to_string()))),
        };
        let body: serde_json::Value = answer.json().unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(serde_json::Value::as_str);
        if answer.is_success() && text("access_token").is_some() {
            return Some(Ok(()));
        }
        // Only the platform's own error counts: gateways and proxies reject with pages of their own.
        let own = text("message")
            .or_else(|| text("error_description"))
            .or_else(|| text("error"));
        let is_about_app = error.is_none_or(|name| text("error") == Some(name));
        let is_own = is_own_error(platform, &answer) && is_about_app;
        Some(Err(match (answer.status, own) {
            (status, _) if !is_own => {
                Untried::NotAsked(format!("status {status} is no answer of {platform}"))
            }
            (400 | 401 | 403, Some(message)) if !message.contains(secret.expose_secret()) => {
                let message: String = message.chars().take(120).collect();
                Untried::Refused(format!("{message} (status {})", answer.status))
            }
            (400 | 401 | 403, Some(_)) => Untried::Refused(format!("status {}", answer.status)),
            (status, _) => Untried::NotAsked(format!("status {status} is no answer of {platform}")),
        }))
    }

    /// Returns how long each account with a token will work.
    pub async fn forecasts(&self) -> Result<BTreeMap<Identity, Forecast>, TokenError> {
        let tokens = self.tokens.load_all().await?.into_iter();
        let forecasts = tokens.map(|(identity, token)| {
            let forecast = self.forecast(&identity, &token);
            (identity, forecast)
        });
        Ok(forecasts.collect())
    }

    /// Returns how long the account `identity` will work with `token`.
    pub fn forecast(&self, identity: &Identity, token: &StoredToken) -> Forecast {
        let platform = identity.as_str().split('/').next().unwrap_or_default();
        let descriptor = platform.parse().map(descriptor).ok();
        let is_ready = |state: &RefreshState| *state == RefreshState::Ready;
        let is_refreshable = token
            .refresh
            .as_ref()
            .is_some_and(|refresh| is_ready(&refresh.state));
        let has_application =
            || descriptor.is_some_and(|platform| platform.application(&self.settings).is_some());
        let renewal = match token.kind {
            TokenKind::App if has_application() => Renewal::Requested,
            TokenKind::User if is_refreshable && self.tokens.renews(identity) => Renewal::Refreshed,
            TokenKind::User if is_refreshable => Renewal::Elsewhere,
            TokenKind::App | TokenKind::User => Renewal::Impossible,
        };
        Forecast {
            access_until: token.expires_at,
            renewal,
            refreshed_at: token.refreshed_at,
            lifetimes: descriptor.map_or_else(TokenLifetimes::default, |platform| {
                platform.token_lifetimes(&self.settings)
            }),
        }
    }

    /// Returns the identities that the configured sources require.
    pub fn needed_identities(&self) -> Vec<Identity> {
        let mut needed = Vec::new();
        for platform in PlatformName::ALL {
            let has_sources = self.settings.sources.iter().any(|spec| spec.platform == platform);
            if has_sources && !self.does_without_bot(platform) {
                needed.push(bot(platform));
            }
        }
        needed
    }

    /// Whether the platform accepts the application's token alone, without any account.
    fn does_without_bot(&self, platform: PlatformName) -> bool {
        descriptor(platform).does_without_bot(&self.settings)
    }

    /// Returns the platforms that can be used: those with an account, or an application that needs none.
    pub async fn usable(&self) -> Result<Vec<PlatformName>, Failure> {
        self.seed_tokens().await?;
        let stored = self.tokens.identities().await?;
        let has_account = |platform: PlatformName| {
            let prefix = format!("{platform}/");
            stored
                .iter()
                .any(|identity| identity.as_str().starts_with(&prefix))
        };
        let mut usable = PlatformName::ALL.to_vec();
        usable.retain(|platform| has_account(*platform) || self.does_without_bot(*platform));
        Ok(usable)
    }

    /// Stores the configured tokens that are newer than the stored ones.
    pub async fn seed_tokens(&self) -> Result<(), Failure> {
        for (identity, seed) in self.seeds() {
            crate::tokens::seed(self.tokens.as_ref(), &identity, &seed, self.clock.now()).await?;
        }
        Ok(())
    }

    /// Whether the configuration contains a token of `identity`.
    pub fn is_seeded(&self, identity: &Identity) -> bool {
        self.seeds().iter().any(|(seeded, _)| seeded == identity)
    }

    /// Returns the configured tokens.
    fn seeds(&self) -> Vec<(Identity, Seed)> {
        if !self.takes_seeds {
            return Vec::new();
        }
        PlatformName::ALL
            .into_iter()
            .filter_map(|platform| Some((bot(platform), descriptor(platform).bot_token(&self.settings)?)))
            .collect()
    }
}
