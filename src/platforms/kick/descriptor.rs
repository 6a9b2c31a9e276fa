//! Kick's descriptor.

use std::sync::Arc;

use async_trait::async_trait;

use super::options::APP;
use super::{KickOptions, KickPlatform};
use crate::config::Settings;
use crate::core::forecast::TokenLifetimes;
use crate::core::observation::Identity;
use crate::platforms::Platform;
use crate::platforms::descriptor::{Application, BuildError, Endpoint, Parts, PlatformDescriptor, Scope};
use crate::platforms::kit::error_body::ErrorBody;
use crate::tokens::Seed;

/// Errors of Kick's OAuth host: the names that clients have seen, and the message of a malformed request
/// (<https://docs.kick.com/getting-started/generating-tokens-oauth2-flow>).
const OAUTH_ERRORS: [&str; 3] = ["invalid_client", "invalid_grant", "Invalid request"];

/// The scopes of an account, and what does not work without each (<https://docs.kick.com/getting-started/scopes>).
const SCOPES: [(&str, &str); 3] = [
    ("user:read", "whose token it is cannot be checked"),
    (
        "channel:read",
        "the account's own channel is read as the application",
    ),
    (
        "events:subscribe",
        "chat and events of the account's own channel cannot be subscribed to with its token",
    ),
];

/// After about how many days without a refresh Kick's refresh tokens expire (observed; Kick documents no lifetime).
const REFRESH_TOKEN_DAYS: u16 = 30;

/// Describes Kick.
pub struct Descriptor;

#[async_trait]
impl PlatformDescriptor for Descriptor {
    async fn build(&self, parts: Parts<'_>) -> Result<Arc<dyn Platform>, BuildError> {
        let settings = &parts.settings.platforms.kick;
        let options = KickOptions {
            auth_url: settings.auth_url.clone(),
            api_url: settings.api_url.clone(),
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            bot_user_id: settings.bot_user_id.as_ref().and_then(|id| id.parse().ok()),
            requests_per_minute: settings.requests_per_minute,
            ..KickOptions::default()
        };
        let Parts {
            tokens,
            http,
            clock,
            chance,
            ..
        } = parts;
        Ok(Arc::new(KickPlatform::new(options, tokens, http, clock, chance)))
    }

    fn invited(&self) -> &'static [&'static str] {
        &["user:read"]
    }

    fn application_page(&self) -> &'static str {
        "https://kick.com/settings/developer"
    }

    fn endpoints(&self, settings: &Settings) -> Vec<Endpoint> {
        let settings = &settings.platforms.kick;
        // Both answer without credentials; the response at a bare address is not documented.
        vec![
            Endpoint {
                what: "authorization",
                base: settings.auth_url.clone(),
                path: "oauth/authorize",
                documented: None,
            },
            Endpoint {
                what: "api",
                base: settings.api_url.clone(),
                path: "public/v1/public-key",
                documented: None,
            },
        ]
    }

    /// Kick's API wraps every message in an envelope with `data`; its token endpoint uses a few error names of RFC 6749. Other names
    /// of that standard come from gateways, which follow it too.
    fn is_own_error(&self, _: u16, body: &ErrorBody) -> bool {
        let envelope = body.has_only(&["data", "message"])
            && body.get("data").is_some()
            && body.text("message").is_some();
        // Kick reportedly adds a description beside the RFC's members; the member's name is not certain. No member of the RFC
        // repeats the status.
        let oauth = body
            .text("error")
            .is_some_and(|name| OAUTH_ERRORS.contains(&name));
        envelope || (oauth && !body.has_foreign(&["error"]))
    }

    fn bot_token(&self, settings: &Settings) -> Option<Seed> {
        let settings = &settings.platforms.kick;
        Some(Seed {
            access: settings.bot_access_token.clone()?,
            refresh: settings.bot_refresh_token.clone(),
        })
    }

    fn application(&self, settings: &Settings) -> Option<Application> {
        let settings = &settings.platforms.kick;
        let mut token_url = settings.auth_url.clone();
        token_url
            .path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(["oauth", "token"]);
        Some(Application {
            token_url,
            client_id: settings.client_id.clone()?,
            client_secret: settings.client_secret.clone()?,
            error: Some("invalid_client"),
        })
    }

    fn scopes(&self, settings: &Settings, identity: &Identity) -> Vec<Scope> {
        match identity.as_str() {
            APP => Vec::new(),
            _ => Scope::all(&SCOPES, &settings.platforms.kick.scopes),
        }
    }

    fn token_lifetimes(&self, _: &Settings) -> TokenLifetimes {
        TokenLifetimes {
            refresh_days: Some(REFRESH_TOKEN_DAYS),
            ..TokenLifetimes::default()
        }
    }

    fn does_without_bot(&self, settings: &Settings) -> bool {
        settings.platforms.kick.client_secret.is_some()
    }
}
