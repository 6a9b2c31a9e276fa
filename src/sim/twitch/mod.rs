//! The simulated Twitch: `id.twitch.tv`, Helix and EventSub on one port, with controls to change its world while it runs.
//!
//! The rules that it enforces come from Twitch's documentation; where that is silent, from reports about clients.

mod answer;
mod bucket;
mod call;
mod commands;
pub mod demo;
mod eventsub;
mod handle;
mod helix;
mod lookups;
mod members;
mod oauth;
mod platform;
mod roles;
mod stream;
mod tokens;
mod world;

#[cfg(test)]
pub(in crate::sim) use eventsub::shard_of;
pub use eventsub::{
    ChatSpec, ConduitAct, ConduitKnobs, Duplicate, EventSubKnobs, ModerationSpec, Reconnect, SocketAct,
};
pub use handle::{EndSpec, TwitchSim, TwitchUrls};
pub use members::Role;
pub use stream::Stream;
pub use tokens::TokenSpec;
pub use world::{ChannelSpec, Knobs, StreamSpec, World};
