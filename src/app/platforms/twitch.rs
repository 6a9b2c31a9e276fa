//! Builds the Twitch adapter from the settings.

use std::sync::Arc;

use url::Url;

use crate::app::App;
use crate::platforms::twitch::settings::Settings as TwitchSettings;
use crate::platforms::twitch::{TwitchOptions, TwitchPlatform};
use crate::tokens::{Seed, TokenStore};

impl App {
    /// Returns the adapter of this process.
    pub(in crate::app) fn own_twitch(&self) -> Arc<TwitchPlatform> {
        let made = || Arc::new(build(self, Arc::clone(&self.tokens)));
        Arc::clone(self.adapters.twitch.get_or_init(made))
    }
}

/// Builds Twitch on top of `tokens`.
pub(super) fn build(app: &App, tokens: Arc<dyn TokenStore>) -> TwitchPlatform {
    let settings = &app.settings.platforms.twitch;
    let options = TwitchOptions {
        auth_url: settings.auth_url.clone(),
        helix_url: settings.helix_url.clone(),
        eventsub_rest_url: settings.eventsub_rest_url.clone(),
        eventsub_ws_url: settings.eventsub_ws_url.clone(),
        client_id: settings.client_id.clone(),
        client_secret: settings.client_secret.clone(),
        bot_user_id: settings.bot_user_id.clone(),
        ..TwitchOptions::default()
    };
    let (http, clock) = (app.http.clone(), Arc::clone(&app.machine_clock));
    TwitchPlatform::new(options, tokens, http, clock, app.chance.clone())
}

/// Returns Twitch's HTTP addresses, with what each is for.
pub(super) fn addresses(settings: &TwitchSettings) -> Vec<(&'static str, Url)> {
    let mut addresses = vec![
        ("authorization", settings.auth_url.clone()),
        ("api", settings.helix_url.clone()),
    ];
    // Usually it is Helix. Where it is not, this address gets no request before a subscription is wanted.
    if settings.eventsub && settings.eventsub_rest_url != settings.helix_url {
        addresses.push(("eventsub api", settings.eventsub_rest_url.clone()));
    }
    addresses
}

/// Whether Twitch can be used without the bot's token: with its secret the application has a token of its own.
pub(super) fn does_without_bot(settings: &TwitchSettings) -> bool {
    settings.client_id.is_some() && settings.client_secret.is_some()
}

/// Returns the configured token of the bot.
pub(super) fn seed(settings: &TwitchSettings) -> Option<Seed> {
    Some(Seed {
        access: settings.bot_access_token.clone()?,
        refresh: settings.bot_refresh_token.clone(),
    })
}
