//! What the commands report, as data.

pub mod actions;
pub mod alerts;
pub mod auth;
pub mod columns;
pub mod config;
pub mod diff;
pub mod doctor;
pub mod edit;
pub mod events;
pub mod fleet;
pub mod history;
pub mod invites;
pub mod migrate;
pub mod plan;
pub mod predicate;
pub mod preflight;
pub mod probe;
pub mod prune;
pub mod schemas;
pub mod sessions;
pub mod sim;
pub mod sim_events;
pub mod source;
pub mod sources;

#[cfg(test)]
mod tests;
