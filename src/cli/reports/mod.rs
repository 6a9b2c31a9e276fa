//! What the commands report, as data.

pub mod auth;
pub mod cells;
pub mod config;
pub mod doctor;
pub mod events;
pub mod history;
pub mod migrate;
pub mod plan;
pub mod predicate;
pub mod probe;
pub mod prune;
pub mod schemas;
pub mod sim;
pub mod source;
pub mod sources;

#[cfg(test)]
pub(crate) mod tests;
