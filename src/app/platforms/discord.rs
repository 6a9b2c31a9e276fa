//! Builds the Discord adapter from the settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use crate::app::App;
use crate::config::Settings;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::Failure;
use crate::platforms::discord::settings::Settings as DiscordSettings;
use crate::platforms::discord::{self, DiscordOptions, DiscordPlatform, GuildOptions, SessionStarts};
use crate::tokens::{Seed, TokenStore};

impl App {
    /// Returns the adapter of this process.
    pub(in crate::app) async fn own_discord(&self) -> Result<Arc<DiscordPlatform>, Failure> {
        let made =
            || async { Ok::<_, Failure>(Arc::new(build(self, Arc::clone(&self.tokens), false).await?)) };
        Ok(Arc::clone(self.adapters.discord.get_or_try_init(made).await?))
    }

    /// Returns the id of Discord's application that the bot belongs to, with one request; `None` when Discord does not return it.
    pub async fn discord_application(&self, guild: &SourceKey) -> Option<String> {
        self.own_discord().await.ok()?.application_id(guild).await
    }

    /// Returns the name of Discord's bot, with one request; `None` when Discord does not return it.
    pub async fn discord_name(&self) -> Option<String> {
        self.own_discord().await.ok()?.whoami().await.ok()?.name
    }

    /// Returns the state of Discord's session start limit; begins no session.
    pub async fn discord_sessions(&self) -> Result<SessionStarts, Failure> {
        Ok(self.own_discord().await?.session_starts().await?)
    }
}

/// Builds Discord with the bot's token from `tokens`, where it may be replaced while the process runs. With `try_refused`, a
/// token that was rejected lately is tried once more.
pub(super) async fn build(
    app: &App,
    tokens: Arc<dyn TokenStore>,
    try_refused: bool,
) -> Result<DiscordPlatform, Failure> {
    let settings = &app.settings.platforms.discord;
    let token = tokens.load(&discord::bot()).await?.map(|token| token.access);
    let options = DiscordOptions {
        api_url: settings.api_url.to_string(),
        home_page: settings.home_page.to_string(),
        bot_token: token,
        guilds: guilds(&app.settings),
        stream_from: settings.stream_from,
        state_dir: Some(app.settings.state_dir.clone()),
        try_refused,
        ..DiscordOptions::default()
    };
    let discord = DiscordPlatform::new(options, Arc::clone(&app.machine_clock), app.chance.clone())?;
    Ok(discord.following(tokens))
}

/// Returns what is configured about Discord's guilds.
pub(super) fn guilds(settings: &Settings) -> BTreeMap<u64, GuildOptions> {
    let guilds = settings.sources.iter().filter_map(|spec| {
        let id = spec
            .key()
            .filter(|key| key.platform() == PlatformName::Discord)?
            .id()
            .parse()
            .ok()?;
        let channels = spec
            .channels
            .iter()
            .filter_map(|channel| channel.parse().ok())
            .collect();
        let options = GuildOptions {
            channels,
            ..GuildOptions::default()
        };
        Some((id, options))
    });
    guilds.collect()
}

/// Returns Discord's HTTP addresses, with what each is for.
pub(super) fn addresses(settings: &DiscordSettings) -> Vec<(&'static str, Url)> {
    vec![("api", settings.api_url.clone())]
}

/// Returns the configured token of the bot.
pub(super) fn seed(settings: &DiscordSettings) -> Option<Seed> {
    Some(Seed {
        access: settings.bot_token.clone()?,
        refresh: None,
    })
}
