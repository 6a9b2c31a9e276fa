//! The platforms in this program: which are needed, as whom they are asked, and one adapter of each for the whole process.
//!
//! What is particular to a platform is in its module here, the same few functions each.

use std::sync::{Arc, OnceLock};

use tokio::sync::OnceCell;
use url::Url;

use super::App;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::failure::Failure;
use crate::platforms::Platform;
use crate::platforms::discord::DiscordPlatform;
use crate::platforms::kick::KickPlatform;
use crate::platforms::twitch::TwitchPlatform;
use crate::tokens::{Seed, TokenStore};

mod discord;
mod kick;
mod twitch;

/// One adapter a platform for the whole process: it knows what is left of the budget.
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

    /// Returns one platform. There is one adapter a platform in the whole process: it knows what is left of the budget.
    pub async fn platform(&self, platform: PlatformName) -> Result<Arc<dyn Platform>, Failure> {
        Ok(match platform {
            PlatformName::Twitch => self.own_twitch(),
            PlatformName::Kick => self.own_kick(),
            PlatformName::Discord => self.own_discord().await?,
        })
    }

    /// Builds one platform on top of other tokens than the stored ones.
    pub async fn platform_with(
        &self,
        platform: PlatformName,
        tokens: Arc<dyn TokenStore>,
    ) -> Result<Arc<dyn Platform>, Failure> {
        Ok(match platform {
            PlatformName::Twitch => Arc::new(twitch::build(self, tokens)),
            PlatformName::Kick => Arc::new(kick::build(self, tokens)),
            PlatformName::Discord => Arc::new(discord::build(self, tokens).await?),
        })
    }

    /// Lets the platforms in use go by what `next` has configured about single sources.
    pub(crate) fn adopt(&self, next: &Self) {
        if let Some(discord) = self.adapters.discord.get() {
            discord.configure(discord::guilds(&next.settings));
        }
    }

    /// Returns the addresses that a platform is reached at over HTTP, with what each is for.
    pub fn addresses(&self, platform: PlatformName) -> Vec<(&'static str, Url)> {
        match platform {
            PlatformName::Twitch => twitch::addresses(&self.settings.twitch),
            PlatformName::Kick => kick::addresses(&self.settings.kick),
            PlatformName::Discord => discord::addresses(&self.settings.discord),
        }
    }

    /// Returns the identities that the configured sources cannot do without.
    pub fn needed_identities(&self) -> Vec<Identity> {
        let settings = &self.settings;
        let mut needed = Vec::new();
        for platform in PlatformName::ALL {
            let has_sources = settings.sources.iter().any(|spec| spec.platform == platform);
            let does_without = match platform {
                PlatformName::Twitch => twitch::does_without_bot(&settings.twitch),
                PlatformName::Kick => kick::does_without_bot(&settings.kick),
                PlatformName::Discord => false,
            };
            if has_sources && !does_without {
                needed.push(bot(platform));
            }
        }
        needed
    }

    /// Takes over tokens that the configuration brings, those that are newer than what is stored.
    pub async fn seed_tokens(&self) -> Result<(), Failure> {
        for (identity, seed) in self.seeds() {
            crate::tokens::seed(self.tokens.as_ref(), &identity, &seed, self.clock.now()).await?;
        }
        Ok(())
    }

    /// Whether the configuration brings a token of `identity`.
    pub fn is_seeded(&self, identity: &Identity) -> bool {
        self.seeds().iter().any(|(seeded, _)| seeded == identity)
    }

    /// Returns the tokens that the configuration brings. A demo has its own.
    fn seeds(&self) -> Vec<(Identity, Seed)> {
        if self.demo.is_some() {
            return Vec::new();
        }
        let seed = |platform| match platform {
            PlatformName::Twitch => twitch::seed(&self.settings.twitch),
            PlatformName::Kick => kick::seed(&self.settings.kick),
            PlatformName::Discord => discord::seed(&self.settings.discord),
        };
        PlatformName::ALL
            .into_iter()
            .filter_map(|platform| Some((bot(platform), seed(platform)?)))
            .collect()
    }
}
