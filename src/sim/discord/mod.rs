//! The simulated Discord: the REST API and the gateway on one port, with controls to change its world while it runs.
//!
//! The rules that it enforces come from Discord's documentation; where that is silent, from reports about clients, with a knob
//! where more than one behavior has been observed.

mod commands;
pub mod demo;
pub mod faults;
mod handle;
mod intents;
mod knobs;
mod life;
mod members;
mod platform;
mod rate_limit;
mod rest;
mod sessions;
mod shapes;
mod socket;
mod specs;
mod world;

pub use handle::DiscordSim;
pub use knobs::Knobs;
pub use sessions::GatewayCounts;
pub use specs::{Author, ChannelSpec, GatewayAct, GuildSpec, MessageSpec};
pub use world::World;
