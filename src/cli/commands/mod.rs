//! One file per command: its arguments, its implementation and its report.

pub mod alert;
pub mod auth;
pub mod completion;
pub mod config;
pub mod diff;
pub mod doctor;
pub mod errors;
pub mod events;
pub mod fleet;
pub mod init;
pub mod mcp;
pub mod preflight;
pub mod probe;
pub mod schema;
pub mod sim;
pub mod sources;
pub mod store;
pub mod support;
pub mod top;
pub mod watch;
