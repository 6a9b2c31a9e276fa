//! Tests of the persister role: from messages on a real bus to stored documents.

mod chat;
mod outage;
mod postgres;
mod probes;
mod roles;
mod stories;
pub mod world;
