//! The simulated Kick: `id.kick.com`, `api.kick.com` and signed webhooks on one port, with controls to change its world.
//!
//! The rules that it enforces come from Kick's documentation and from what its users have recorded; where these disagree, a knob
//! selects the behavior.

mod answer;
mod chat;
mod commands;
mod delivery;
pub mod demo;
mod handle;
mod oauth;
mod platform;
mod rest;
mod subscription_rest;
mod subscriptions;
mod texts;
mod tokens;
mod webhooks;
mod world;

pub use chat::KickChatSpec;
pub use delivery::Delivery;
pub use handle::{KickSim, KickUrls};
pub use tokens::KickTokenSpec;
pub use world::{KickChannelSpec, KickKnobs, KickStreamSpec, WebhookKnobs, World};
