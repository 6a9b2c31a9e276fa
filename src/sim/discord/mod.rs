//! The simulated Discord: the REST API and the gateway on one port, with controls to change its world while it runs.
//!
//! The rules that it enforces come from Discord's documentation; where that is silent, from reports about clients, with a knob
//! where more than one behavior has been observed.

mod control;
pub mod demo;
pub mod faults;
mod handle;
mod intents;
mod knobs;
mod life;
mod members;
mod rate_limit;
mod rest;
mod sessions;
mod shapes;
mod socket;
mod specs;
mod triggers;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::host::{Host, Server};

pub use handle::DiscordSim;
pub use knobs::Knobs;
pub use sessions::GatewayCounts;
pub use specs::{Author, ChannelSpec, GatewayAct, GuildSpec, MessageSpec};

impl DiscordSim {
    /// Starts an empty Discord on `address`. It runs until the returned server is dropped.
    pub async fn start(host: Host, address: SocketAddr) -> io::Result<(Self, Server)> {
        let discord = Self::new(host.clone());
        let platform = rest::routes(discord.clone()).merge(socket::routes(discord.clone()));
        let controls = super::control::routes(host.clone()).merge(control::routes(discord.clone()));
        let server = host.serve(address, platform, controls).await?;
        discord.set_address(server.address());
        let handle = discord.downgrade();
        host.directory().add(move || Some(Arc::new(handle()?)));
        Ok((discord, server))
    }
}
