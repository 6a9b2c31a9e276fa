//! Alerts: messages to people and programs about what changed, one per cause.
//!
//! The rules are pure: [`condition`] derives from a source's document what is wrong with it, [`cause`] groups the conditions of all
//! sources by their cause, and [`incident`] decides when a receiver gets a message. Their state is stored beside the documents, in
//! the transaction that removes the events that they were derived from, so that a restart neither repeats nor loses a message.
//! [`receivers`] build the requests of each kind of receiver.

pub mod cause;
pub mod condition;
pub mod delivery;
pub mod engine;
pub mod hooks;
pub mod incident;
pub mod message;
pub mod mute;
pub mod receivers;
pub mod rule;
pub mod step;
pub mod text;
pub mod trigger;

#[cfg(test)]
mod tests;
