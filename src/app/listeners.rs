//! The listeners that the configuration asks for, each put on the daemon's ear.

use std::sync::Arc;

use axum::Router;
use tracing::warn;

use super::{App, eventsub};
use crate::core::source::PlatformName;
use crate::failure::Failure;
use crate::watch::engine::Engine;

mod discord;
mod kick;

/// Starts the listeners. Returns the pages that some of them bring; they come to nothing unless they are `served`.
pub(super) async fn start(app: &Arc<App>, engine: &mut Engine, served: bool) -> Result<Router, Failure> {
    let attended = engine.attended.all();
    let has = |platform: PlatformName| attended.contains_key(&platform);
    if has(PlatformName::Twitch) && app.settings.twitch.eventsub {
        eventsub::listen(app, engine);
    } else {
        eventsub::leave_closed(app, engine);
    }
    if has(PlatformName::Discord) && app.settings.discord.gateway {
        discord::start(app, engine).await?;
    }
    let mut pages = Router::new();
    if has(PlatformName::Kick) && app.settings.kick.webhook {
        if served {
            pages = pages.merge(kick::start(app, engine));
        } else {
            warn!("kick.webhook needs web.listen: nobody could deliver, so Kick is polled only");
        }
    }
    Ok(pages)
}
