//! The simulated platforms with demo data, and the settings that a client needs to reach them.

use crate::core::source::PlatformName;
use crate::sim::twitch::demo as twitch;
use crate::sim::{Sim, discord, kick};

/// A key of the configuration and its value.
pub type Setting = (&'static str, String);

/// A login of the demo world. Its secrets are valid only in the simulation.
pub struct DemoLogin {
    /// The account, as the token store names it.
    pub account: String,
    /// The user's id.
    pub user_id: String,
    /// The access token, or a bot's only token.
    pub access: String,
    /// The refresh token, where there is one.
    pub refresh: Option<String>,
    /// The scopes granted.
    pub scopes: Vec<String>,
}

/// The demo worlds of all simulated platforms.
pub struct World {
    /// Twitch's.
    pub twitch: twitch::DemoWorld,
    /// Kick's.
    pub kick: kick::demo::KickDemoWorld,
    /// Discord's.
    pub discord: discord::demo::DemoWorld,
}

impl World {
    /// Fills the simulated platforms.
    pub fn populate(sim: &Sim) -> Self {
        Self {
            twitch: twitch::populate(&sim.twitch),
            kick: kick::demo::populate(&sim.kick),
            discord: discord::demo::populate(&sim.discord),
        }
    }

    /// Returns the sources of a platform, as `platform:id`.
    pub fn sources(&self, platform: PlatformName) -> Vec<String> {
        let ids: Vec<String> = match platform {
            PlatformName::Twitch => self.twitch.sources.clone(),
            PlatformName::Discord => self.discord.guilds.iter().map(u64::to_string).collect(),
            PlatformName::Kick => self.kick.sources.clone(),
        };
        ids.into_iter().map(|id| format!("{platform}:{id}")).collect()
    }

    /// Returns the sources of a platform as `platform:id`, on Discord with the channels that matter: `discord:id/channel`.
    pub fn sources_with_channels(&self, platform: PlatformName) -> Vec<String> {
        let mut sources = self.sources(platform);
        if platform == PlatformName::Discord {
            for (guild, channel) in &self.discord.channels {
                let key = format!("{platform}:{guild}");
                for source in sources.iter_mut().filter(|source| **source == key) {
                    *source = format!("{key}/{channel}");
                }
            }
        }
        sources
    }

    /// Returns a client's settings for a platform, without its tokens.
    pub fn application(&self, platform: PlatformName) -> Vec<Setting> {
        match platform {
            PlatformName::Twitch => vec![
                ("twitch.client_id", self.twitch.client_id.clone()),
                ("twitch.client_secret", self.twitch.client_secret.clone()),
                ("twitch.bot_user_id", self.twitch.bot.user_id.clone()),
            ],
            PlatformName::Kick => vec![
                ("kick.client_id", self.kick.client_id.clone()),
                ("kick.client_secret", self.kick.client_secret.clone()),
                ("kick.bot_user_id", self.kick.bot_user_id.clone()),
            ],
            PlatformName::Discord => Vec::new(),
        }
    }

    /// Returns every login of a platform's world, those whose tokens are invalid included.
    pub fn logins(&self, platform: PlatformName) -> Vec<DemoLogin> {
        match platform {
            PlatformName::Twitch => {
                let login = |account: String, token: &twitch::DemoToken| DemoLogin {
                    account,
                    user_id: token.user_id.clone(),
                    access: token.access.clone(),
                    refresh: Some(token.refresh.clone()),
                    scopes: token.scopes.clone(),
                };
                let broadcasters = self.twitch.broadcasters.iter();
                let broadcasters =
                    broadcasters.map(|token| login(format!("twitch/broadcaster:{}", token.user_id), token));
                std::iter::once(login("twitch/bot".to_owned(), &self.twitch.bot))
                    .chain(broadcasters)
                    .collect()
            }
            PlatformName::Kick => vec![DemoLogin {
                account: "kick/bot".to_owned(),
                user_id: self.kick.bot_user_id.clone(),
                access: self.kick.bot_access.clone(),
                refresh: Some(self.kick.bot_refresh.clone()),
                scopes: self.kick.bot_scopes.clone(),
            }],
            PlatformName::Discord => {
                let login = |account: String, user: u64, token: &str| DemoLogin {
                    account,
                    user_id: user.to_string(),
                    access: token.to_owned(),
                    refresh: None,
                    scopes: Vec::new(),
                };
                let own = self.discord.own_tokens.iter();
                let own = own.map(|(guild, token)| {
                    login(format!("discord/bot:{guild}"), discord::demo::OTHER_BOT, token)
                });
                std::iter::once(login(
                    "discord/bot".to_owned(),
                    self.discord.bot,
                    &self.discord.token,
                ))
                .chain(own)
                .collect()
            }
        }
    }

    /// Returns the bot's tokens for a platform.
    pub fn tokens(&self, platform: PlatformName) -> Vec<Setting> {
        match platform {
            PlatformName::Twitch => vec![
                ("twitch.bot_access_token", self.twitch.bot.access.clone()),
                ("twitch.bot_refresh_token", self.twitch.bot.refresh.clone()),
            ],
            PlatformName::Kick => vec![
                ("kick.bot_access_token", self.kick.bot_access.clone()),
                ("kick.bot_refresh_token", self.kick.bot_refresh.clone()),
            ],
            PlatformName::Discord => vec![("discord.bot_token", self.discord.token.clone())],
        }
    }
}

/// Returns the addresses of a simulated platform.
pub fn addresses(sim: &Sim, platform: PlatformName) -> Vec<Setting> {
    match platform {
        PlatformName::Twitch => {
            let urls = sim.twitch.urls();
            vec![
                ("twitch.auth_url", urls.auth),
                ("twitch.helix_url", urls.helix),
                ("twitch.eventsub_rest_url", urls.eventsub_rest),
                ("twitch.eventsub_ws_url", urls.eventsub_ws),
            ]
        }
        PlatformName::Kick => {
            let urls = sim.kick.urls();
            vec![("kick.auth_url", urls.auth), ("kick.api_url", urls.api)]
        }
        PlatformName::Discord => vec![("discord.api_url", sim.discord.api_url())],
    }
}

/// Returns the base address of a simulated platform; its control endpoints are below it.
pub fn base(sim: &Sim, platform: PlatformName) -> String {
    match platform {
        PlatformName::Twitch => sim.twitch.http(),
        PlatformName::Kick => sim.kick.http(),
        PlatformName::Discord => sim.discord.http(),
    }
}
