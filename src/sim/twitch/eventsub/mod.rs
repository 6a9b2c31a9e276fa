//! EventSub: sockets, subscriptions, and which of them receive an event.
//!
//! `state` and `sockets` contain state and rules, `delivery` creates and sends messages; `events`, `moderation` and `chat` are the
//! events that changes of the world cause; `ws` moves the frames and `rest` answers the requests.

mod bodies;
mod chat;
mod delivery;
mod events;
mod kinds;
mod knobs;
mod moderation;
pub(super) mod rest;
mod sockets;
pub(super) mod state;
pub(super) mod ws;

pub use chat::ChatSpec;
pub use knobs::{Duplicate, EventSubKnobs};
pub use moderation::ModerationSpec;
pub use sockets::{Reconnect, SocketAct};
