//! The simulated Kick: `id.kick.com`, `api.kick.com` and signed webhooks on one port, with controls to change its world.
//!
//! The rules that it enforces come from Kick's documentation and from what its users have recorded; where these disagree, a knob
//! selects the behavior.

mod answer;
mod chat;
mod control;
pub mod demo;
mod handle;
mod oauth;
mod rest;
mod subscription_rest;
mod subscriptions;
mod texts;
mod tokens;
mod triggers;
mod webhooks;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::middleware;

use super::host::{Host, Server};

pub use chat::KickChatSpec;
pub use handle::{KickSim, KickUrls};
pub use tokens::{KickTokenSpec, KickTokens};
pub use webhooks::Delivery;
pub use world::{KickChannelSpec, KickKnobs, KickStreamSpec, WebhookKnobs};

impl KickSim {
    /// Starts an empty Kick on `address`. It runs until the returned server is dropped.
    pub async fn start(host: Host, address: SocketAddr) -> io::Result<(Self, Server)> {
        let kick = Self::new(host.clone());
        let platform = oauth::routes(kick.clone())
            .merge(rest::routes(kick.clone()))
            .merge(subscription_rest::routes(kick.clone()))
            .layer(middleware::from_fn_with_state(kick.clone(), rest::limit));
        let controls = super::control::routes(host.clone()).merge(control::routes(kick.clone()));
        let server = host.serve(address, platform, controls).await?;
        kick.set_address(server.address());
        let handle = kick.downgrade();
        host.directory().add(move || Some(Arc::new(handle()?)));
        Ok((kick, server))
    }
}
