//! Discord's descriptor.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{DiscordOptions, DiscordPlatform, GuildOptions, bot};
use crate::config::Settings;
use crate::core::event::chat::Direction;
use crate::core::forecast::TokenLifetimes;
use crate::core::source::PlatformName;
use crate::platforms::Platform;
use crate::platforms::descriptor::{BuildError, CountedChat, Endpoint, Parts, PlatformDescriptor};
use crate::platforms::kit::error_body::{ErrorBody, Reported};
use crate::tokens::Seed;

/// Describes Discord.
pub struct Descriptor;

#[async_trait]
impl PlatformDescriptor for Descriptor {
    async fn build(&self, parts: Parts<'_>) -> Result<Arc<dyn Platform>, BuildError> {
        let settings = &parts.settings.platforms.discord;
        let token = parts.tokens.load(&bot()).await?;
        let options = DiscordOptions {
            api_url: settings.api_url.to_string(),
            home_page: settings.home_page.to_string(),
            bot_token: token.map(|token| token.access),
            guilds: guilds(parts.settings),
            stream_from: settings.stream_from,
            state_dir: Some(parts.settings.state_dir.clone()),
            request_times: Some(parts.request_times),
            tap: parts.http.tap().cloned(),
            try_refused: parts.try_refused,
            ..DiscordOptions::default()
        };
        let discord = DiscordPlatform::new(options, parts.clock, parts.chance)?;
        Ok(Arc::new(discord.following(parts.tokens)))
    }

    fn application_page(&self) -> &'static str {
        "https://discord.com/developers/applications"
    }

    fn endpoints(&self, settings: &Settings) -> Vec<Endpoint> {
        vec![Endpoint {
            what: "api",
            base: settings.platforms.discord.api_url.clone(),
            path: "",
            documented: None,
        }]
    }

    /// Discord's errors carry a code from its own list: 0, or at least five digits. Some carry further members.
    /// <https://discord.com/developers/docs/topics/opcodes-and-status-codes#json>
    fn is_own_error(&self, _: u16, body: &ErrorBody) -> bool {
        let code = body.get("code").and_then(Value::as_u64);
        !body.has_foreign(&[])
            && code.is_some_and(|code| code == 0 || code >= 10_000)
            && body.text("message").is_some()
    }

    fn reports_error(&self, members: &Reported) -> bool {
        members.has_message && members.code.is_some()
    }

    fn bot_token(&self, settings: &Settings) -> Option<Seed> {
        Some(Seed {
            access: settings.platforms.discord.bot_token.clone()?,
            refresh: None,
        })
    }

    fn token_lifetimes(&self, _: &Settings) -> TokenLifetimes {
        TokenLifetimes {
            access_expires: false,
            refresh_days: None,
        }
    }

    fn counted_chat(&self, settings: &Settings) -> Option<CountedChat> {
        settings.platforms.discord.gateway.then_some(CountedChat {
            directions: &[Direction::In, Direction::Out],
            about: "Discord chat (discord.gateway)",
        })
    }
}

/// Returns what is configured about guilds.
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
        let options = GuildOptions { channels };
        Some((id, options))
    });
    guilds.collect()
}
