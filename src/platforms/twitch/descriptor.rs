//! Twitch's descriptor.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::StatusCode;
use serde_json::Value;

use super::options::{BOT, broadcaster_of};
use super::{TwitchOptions, TwitchPlatform, settings};
use crate::config::Settings;
use crate::core::event::chat::Direction;
use crate::core::forecast::TokenLifetimes;
use crate::core::observation::Identity;
use crate::platforms::Platform;
use crate::platforms::descriptor::{
    Application, BuildError, CountedChat, Endpoint, Parts, PlatformDescriptor, Scope,
};
use crate::platforms::kit::error_body::ErrorBody;
use crate::tokens::Seed;

/// The scopes of a bot, and what does not work without each
/// (<https://dev.twitch.tv/docs/authentication/scopes/>).
const BOT_SCOPES: [(&str, &str); 4] = [
    ("user:read:chat", "chat is not received or counted over EventSub"),
    ("user:write:chat", "the bot cannot send chat messages"),
    (
        "user:bot",
        "the bot cannot join chats with the application's token (webhooks, conduits)",
    ),
    (
        "user:read:moderated_channels",
        "where the bot is moderator is not known",
    ),
];
/// The scopes of a broadcaster.
const BROADCASTER_SCOPES: [(&str, &str); 4] = [
    (
        "channel:bot",
        "the bot joins this chat as an ordinary user, with Twitch's limits for those",
    ),
    (
        "moderation:read",
        "whether the bot is moderator or banned here is not known",
    ),
    ("channel:read:vips", "whether the bot is VIP here is not known"),
    (
        "channel:read:editors",
        "whether the bot is editor here is not known",
    ),
];

/// Describes Twitch.
pub struct Descriptor;

#[async_trait]
impl PlatformDescriptor for Descriptor {
    async fn build(&self, parts: Parts<'_>) -> Result<Arc<dyn Platform>, BuildError> {
        let settings = &parts.settings.platforms.twitch;
        let options = TwitchOptions {
            auth_url: settings.auth_url.clone(),
            helix_url: settings.helix_url.clone(),
            eventsub_rest_url: settings.eventsub_rest_url.clone(),
            eventsub_ws_url: settings.eventsub_ws_url.clone(),
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            bot_user_id: settings.bot_user_id.clone(),
        };
        let Parts {
            tokens,
            http,
            clock,
            chance,
            ..
        } = parts;
        Ok(Arc::new(TwitchPlatform::new(
            options, tokens, http, clock, chance,
        )))
    }

    fn invited(&self) -> &'static [&'static str] {
        &["channel:bot"]
    }

    fn application_page(&self) -> &'static str {
        "https://dev.twitch.tv/console/apps"
    }

    fn endpoints(&self, settings: &Settings) -> Vec<Endpoint> {
        let settings = &settings.platforms.twitch;
        // Twitch rejects each of these requests with a 401 without a token.
        let mut endpoints = vec![
            Endpoint {
                what: "authorization",
                base: settings.auth_url.clone(),
                path: "validate",
                documented: Some(settings::AUTH_URL.path),
            },
            Endpoint {
                what: "api",
                base: settings.helix_url.clone(),
                path: "users",
                documented: Some(settings::HELIX_URL.path),
            },
        ];
        // Usually it is Helix. Where it is not, this address gets no request before a subscription is wanted.
        if settings.eventsub && settings.eventsub_rest_url != settings.helix_url {
            endpoints.push(Endpoint {
                what: "eventsub api",
                base: settings.eventsub_rest_url.clone(),
                path: "eventsub/subscriptions",
                documented: Some(settings::EVENTSUB_REST_URL.path),
            });
        }
        endpoints
    }

    /// Twitch sends the members `error` (the reason phrase of the status; its OAuth host omits it), `status` and `message`, and no
    /// others: <https://dev.twitch.tv/docs/api/guide/#twitch-api-http-status-codes>.
    fn is_own_error(&self, status: u16, body: &ErrorBody) -> bool {
        let in_words = StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let names_status = body.get("error").is_none_or(|error| {
            matches!((error.as_str(), in_words), (Some(error), Some(words)) if error.eq_ignore_ascii_case(words))
        });
        // A conflict names the existing object in an undocumented member.
        let names_more = status == 409 && !body.has_foreign(&["error", "status"]);
        (body.has_only(&["error", "message", "status"]) || names_more)
            && body.get("status").and_then(Value::as_u64) == Some(u64::from(status))
            && body.text("message").is_some()
            && names_status
    }

    fn bot_token(&self, settings: &Settings) -> Option<Seed> {
        let settings = &settings.platforms.twitch;
        Some(Seed {
            access: settings.bot_access_token.clone()?,
            refresh: settings.bot_refresh_token.clone(),
        })
    }

    fn application(&self, settings: &Settings) -> Option<Application> {
        let settings = &settings.platforms.twitch;
        let mut token_url = settings.auth_url.clone();
        token_url.path_segments_mut().ok()?.pop_if_empty().push("token");
        Some(Application {
            token_url,
            client_id: settings.client_id.clone()?,
            client_secret: settings.client_secret.clone()?,
            error: None,
        })
    }

    fn does_without_bot(&self, settings: &Settings) -> bool {
        let settings = &settings.platforms.twitch;
        settings.client_id.is_some() && settings.client_secret.is_some()
    }

    fn scopes(&self, settings: &Settings, identity: &Identity) -> Vec<Scope> {
        match identity.as_str() {
            BOT => Scope::all(&BOT_SCOPES, &settings.platforms.twitch.scopes),
            _ if broadcaster_of(identity).is_some() => Scope::all(&BROADCASTER_SCOPES, &[]),
            _ => Vec::new(),
        }
    }

    /// Refresh tokens of public applications last 30 days; those of confidential ones do not age
    /// (<https://dev.twitch.tv/docs/authentication/refresh-tokens/>).
    fn token_lifetimes(&self, settings: &Settings) -> TokenLifetimes {
        let is_public = settings.platforms.twitch.client_secret.is_none();
        TokenLifetimes {
            refresh_days: is_public.then_some(30),
            ..TokenLifetimes::default()
        }
    }

    fn counted_chat(&self, settings: &Settings) -> Option<CountedChat> {
        let twitch = &settings.platforms.twitch;
        let is_counted = twitch.eventsub && twitch.chat.is_eventsub(&settings.bus.target);
        is_counted.then_some(CountedChat {
            directions: &[Direction::In],
            about: "incoming Twitch chat (twitch.chat)",
        })
    }
}
