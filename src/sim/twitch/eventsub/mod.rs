//! EventSub: sockets, subscriptions, and which of them receive an event.
//!
//! `state` and `sockets` contain state and rules, `delivery` creates and sends messages; `events`, `moderation` and `chat` are the
//! events that changes of the world cause; `conduits` routes messages to shards and `webhooks` posts them; `ws` moves the frames;
//! `rest` and `conduit_rest` answer the requests.

mod bodies;
mod chat;
pub(super) mod conduit_rest;
mod conduits;
mod delivery;
mod events;
mod kinds;
mod knobs;
mod moderation;
pub(super) mod rest;
mod sockets;
pub(super) mod state;
mod webhooks;
pub(super) mod ws;

pub use chat::ChatSpec;
#[cfg(test)]
pub(in crate::sim) use conduits::shard_of;
pub use conduits::{ConduitAct, ConduitKnobs};
pub use knobs::{Duplicate, EventSubKnobs};
pub use moderation::ModerationSpec;
pub use sockets::{Reconnect, SocketAct};
