//! `bitbrat` answers, for every channel or guild a streaming bot attends: is it connected, is it authorised, is it
//! live and for how many, what may the bot do there, and how do we know?
//!
//! Everything that learns something produces a [`core::observation::Observation`]; evidence is joined and verdicts are
//! derived from it. No evidence, no claim. `docs/ARCHITECTURE.md` has the map.

pub mod app;
pub mod blocking;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod failure;
pub mod files;
pub mod http;
pub mod lifecycle;
pub mod persist;
pub mod platforms;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod tokens;
pub mod watch;
pub mod web;
