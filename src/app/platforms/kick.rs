//! Builds the Kick adapter from the settings.

use std::sync::Arc;

use url::Url;

use crate::app::App;
use crate::failure::Failure;
use crate::platforms::kick::settings::Settings as KickSettings;
use crate::platforms::kick::{KickOptions, KickPlatform};
use crate::tokens::{Seed, TokenStore};

impl App {
    /// Returns the adapter of this process.
    pub(in crate::app) fn own_kick(&self) -> Arc<KickPlatform> {
        let made = || Arc::new(build(self, Arc::clone(&self.tokens)));
        Arc::clone(self.adapters.kick.get_or_init(made))
    }

    /// Returns how many of the wanted event subscriptions Kick lists, and how many are wanted.
    pub async fn kick_webhooks(&self) -> Result<(usize, usize), Failure> {
        let keys = self.sources().keys();
        Ok(self.own_kick().webhooks_listed(&keys).await?)
    }
}

/// Builds Kick on top of `tokens`.
pub(super) fn build(app: &App, tokens: Arc<dyn TokenStore>) -> KickPlatform {
    let settings = &app.settings.platforms.kick;
    let options = KickOptions {
        auth_url: settings.auth_url.clone(),
        api_url: settings.api_url.clone(),
        client_id: settings.client_id.clone(),
        client_secret: settings.client_secret.clone(),
        bot_user_id: settings.bot_user_id.as_ref().and_then(|id| id.parse().ok()),
        requests_per_minute: settings.requests_per_minute,
        ..KickOptions::default()
    };
    let (http, clock) = (app.http.clone(), Arc::clone(&app.machine_clock));
    KickPlatform::new(options, tokens, http, clock, app.chance.clone())
}

/// Returns Kick's HTTP addresses, with what each is for.
pub(super) fn addresses(settings: &KickSettings) -> Vec<(&'static str, Url)> {
    vec![
        ("authorization", settings.auth_url.clone()),
        ("api", settings.api_url.clone()),
    ]
}

/// Whether Kick can be used without the bot's token: with its secret the application has a token of its own.
pub(super) fn does_without_bot(settings: &KickSettings) -> bool {
    settings.client_secret.is_some()
}

/// Returns the configured token of the bot.
pub(super) fn seed(settings: &KickSettings) -> Option<Seed> {
    Some(Seed {
        access: settings.bot_access_token.clone()?,
        refresh: settings.bot_refresh_token.clone(),
    })
}
