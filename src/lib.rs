//! `bitbrat` answers, for every channel or guild that a streaming bot monitors: is it connected, is it authorized, is it live and
//! for how many viewers, what may the bot do there, and what is that based on?
//!
//! Every source of evidence produces a [`core::observation::Observation`]; evidence is merged and verdicts are derived from it.
//! No evidence, no claim. `docs/ARCHITECTURE.md` describes the modules.

// The domain and the ports say what each of their parts means. Elsewhere a name may be enough.
pub mod alerts;
pub mod app;
pub mod blocking;
pub mod bus;
pub mod cli;
#[warn(missing_docs)]
pub mod clock;
pub mod config;
#[warn(missing_docs)]
pub mod core;
pub mod descriptors;
pub mod failure;
pub mod fault;
pub mod files;
#[warn(missing_docs)]
pub mod histogram;
pub mod http;
pub mod lifecycle;
pub mod mcp;
pub mod os;
pub mod persist;
pub mod platforms;
pub mod secrets;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod tokens;
pub mod traffic;
pub mod view;
pub mod watch;
pub mod web;
pub mod websocket;
