//! The platforms in this program: which are needed, which identity each request uses, and one adapter of each for the whole
//! process.
//!
//! Each platform has a module here with the same few functions.

use std::sync::{Arc, OnceLock};

use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;
use url::Url;

use super::App;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::failure::Failure;
use crate::platforms::Platform;
use crate::platforms::discord::DiscordPlatform;
use crate::platforms::kick::KickPlatform;
use crate::platforms::kit::answer::is_own_error;
use crate::platforms::twitch::TwitchPlatform;
use crate::tokens::{Seed, TokenStore};

mod discord;
mod kick;
mod twitch;

/// Why the application's credentials are not known to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untried {
    /// The platform rejects them, with this message.
    Refused(String),
    /// The platform did not answer.
    NotAsked(String),
}

/// One adapter per platform for the whole process: it counts what is left of the rate limit.
#[derive(Default)]
pub(super) struct Adapters {
    twitch: OnceLock<Arc<TwitchPlatform>>,
    kick: OnceLock<Arc<KickPlatform>>,
    discord: OnceCell<Arc<DiscordPlatform>>,
}

/// Whose token is the bot's.
fn bot(platform: PlatformName) -> Identity {
    Identity::named(format!("{platform}/bot"))
}

impl App {
    /// Builds the platforms that the configured sources need, with the tokens that the configuration brings.
    pub async fn platforms(&self) -> Result<Vec<Arc<dyn Platform>>, Failure> {
        self.seed_tokens().await?;
        let mut needed: Vec<PlatformName> = self.settings.sources.iter().map(|spec| spec.platform).collect();
        needed.sort_unstable();
        needed.dedup();
        let mut platforms = Vec::new();
        for platform in needed {
            platforms.push(self.platform(platform).await?);
        }
        Ok(platforms)
    }

    /// Returns one platform. There is one adapter per platform in the whole process: it counts what is left of the rate limit.
    pub async fn platform(&self, platform: PlatformName) -> Result<Arc<dyn Platform>, Failure> {
        Ok(match platform {
            PlatformName::Twitch => self.own_twitch(),
            PlatformName::Kick => self.own_kick(),
            PlatformName::Discord => self.own_discord().await?,
        })
    }

    /// Builds one platform on top of other tokens than the stored ones: those that were just entered.
    pub async fn platform_with(
        &self,
        platform: PlatformName,
        tokens: Arc<dyn TokenStore>,
    ) -> Result<Arc<dyn Platform>, Failure> {
        Ok(match platform {
            PlatformName::Twitch => Arc::new(twitch::build(self, tokens)),
            PlatformName::Kick => Arc::new(kick::build(self, tokens)),
            PlatformName::Discord => Arc::new(discord::build(self, tokens, true).await?),
        })
    }

    /// Applies to the platforms in use what `next` configures about single sources.
    pub(crate) fn adopt(&self, next: &Self) {
        if let Some(discord) = self.adapters.discord.get() {
            discord.configure(discord::guilds(&next.settings));
        }
    }

    /// Returns a platform's HTTP addresses, with what each is for.
    pub fn addresses(&self, platform: PlatformName) -> Vec<(&'static str, Url)> {
        match platform {
            PlatformName::Twitch => twitch::addresses(&self.settings.platforms.twitch),
            PlatformName::Kick => kick::addresses(&self.settings.platforms.kick),
            PlatformName::Discord => discord::addresses(&self.settings.platforms.discord),
        }
    }

    /// Requests an application token only to check whether the platform accepts the client id and secret; the token is not kept.
    /// `None` where both are not configured.
    pub async fn try_application(&self, platform: PlatformName) -> Option<Result<(), Untried>> {
        let (url, id, secret) = match platform {
            PlatformName::Twitch => {
                let twitch = &self.settings.platforms.twitch;
                (&twitch.auth_url, &twitch.client_id, &twitch.client_secret)
            }
            PlatformName::Kick => {
                let kick = &self.settings.platforms.kick;
                (&kick.auth_url, &kick.client_id, &kick.client_secret)
            }
            PlatformName::Discord => return None,
        };
        let (id, secret) = (id.as_ref()?, secret.as_ref()?);
        let mut url = url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            let path: &[&str] = match platform {
                PlatformName::Kick => &["oauth", "token"],
                PlatformName::Twitch | PlatformName::Discord => &["token"],
            };
            segments.pop_if_empty().extend(path);
        }
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", id.as_str()),
            ("client_secret", secret.expose_secret()),
        ];
        let request = self.http.request(reqwest::Method::POST, url).form(&form).build();
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
        // Kick has one name for this; its other errors are about something else.
        let is_about_app = platform != PlatformName::Kick || text("error") == Some("invalid_client");
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
    pub(super) fn does_without_bot(&self, platform: PlatformName) -> bool {
        match platform {
            PlatformName::Twitch => twitch::does_without_bot(&self.settings.platforms.twitch),
            PlatformName::Kick => kick::does_without_bot(&self.settings.platforms.kick),
            PlatformName::Discord => false,
        }
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

    /// Returns the configured tokens. A demo has its own.
    fn seeds(&self) -> Vec<(Identity, Seed)> {
        if self.demo.is_some() {
            return Vec::new();
        }
        let seed = |platform| match platform {
            PlatformName::Twitch => twitch::seed(&self.settings.platforms.twitch),
            PlatformName::Kick => kick::seed(&self.settings.platforms.kick),
            PlatformName::Discord => discord::seed(&self.settings.platforms.discord),
        };
        PlatformName::ALL
            .into_iter()
            .filter_map(|platform| Some((bot(platform), seed(platform)?)))
            .collect()
    }
}
