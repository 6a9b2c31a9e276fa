//! The listeners that the configuration asks for.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use tracing::warn;

use super::App;
use crate::core::event::chat::Direction;
use crate::core::source::PlatformName;
use crate::failure::Failure;
use crate::platforms::descriptor::descriptor;
use crate::watch::engine::Engine;

mod discord;
mod kick;
mod twitch;
mod twitch_webhook;

pub use discord::discord_application;
pub use twitch::{eventsub_plan, eventsub_plan_by_memory};

/// Starts the listeners. Returns the routes that some of them need; without `served` they have no effect.
pub(super) async fn start(app: &Arc<App>, engine: &mut Engine, served: bool) -> Result<Router, Failure> {
    let monitored = engine.monitored.all();
    let has = |platform: PlatformName| monitored.contains_key(&platform);
    let mut pages = Router::new();
    if has(PlatformName::Twitch) && app.settings.platforms.twitch.eventsub {
        pages = pages.merge(twitch::listen(app, engine, served).await?);
    } else {
        twitch::leave_closed(app, engine);
    }
    if has(PlatformName::Discord) && app.settings.platforms.discord.gateway {
        discord::start(app, engine).await?;
    }
    if has(PlatformName::Kick) && app.settings.platforms.kick.webhook {
        if served {
            pages = pages.merge(kick::start(app, engine).await?);
        } else {
            warn!("kick.webhook needs web.listen, or nothing can be delivered; Kick is polled only");
        }
    }
    Ok(pages)
}

/// Returns the chat that a listener counts where it is posted. Its settings must be the same in every process of a deployment.
pub(super) fn chat_counted(app: &App) -> BTreeSet<(PlatformName, Direction)> {
    let counted = PlatformName::ALL.into_iter().filter_map(|platform| {
        let chat = descriptor(platform).counted_chat(&app.settings)?;
        Some(
            chat.directions
                .iter()
                .map(move |direction| (platform, *direction)),
        )
    });
    counted.flatten().collect()
}
