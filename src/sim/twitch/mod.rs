//! The simulated Twitch: `id.twitch.tv`, Helix and EventSub on one port, with controls to change its world while it runs.
//!
//! The rules that it enforces come from Twitch's documentation; where that is silent, from reports about clients.

mod answer;
mod bucket;
mod call;
mod control;
pub mod demo;
mod devices;
mod eventsub;
mod handle;
mod helix;
mod lookups;
mod members;
mod oauth;
mod roles;
mod stream;
mod tokens;
mod triggers;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::host::{Host, Server};

pub use devices::DeviceState;
pub use eventsub::{ChatSpec, Duplicate, EventSubKnobs, ModerationSpec, Reconnect, SocketAct};
pub use handle::{EndSpec, TwitchSim, TwitchUrls};
pub use members::Role;
pub use stream::Stream;
pub use tokens::{TokenPair, TokenSpec};
pub use world::{ChannelSpec, Knobs, StreamSpec};

impl TwitchSim {
    /// Starts an empty Twitch on `address`. It runs until the returned server is dropped.
    pub async fn start(host: Host, address: SocketAddr) -> io::Result<(Self, Server)> {
        let twitch = Self::new(host.clone());
        let platform = oauth::routes(twitch.clone())
            .merge(helix::routes(twitch.clone()))
            .merge(eventsub::ws::routes(twitch.clone()));
        let controls = super::control::routes(host.clone()).merge(control::routes(twitch.clone()));
        let server = host.serve(address, platform, controls).await?;
        twitch.set_address(server.address());
        let handle = twitch.downgrade();
        host.directory().add(move || Some(Arc::new(handle()?)));
        Ok((twitch, server))
    }
}
