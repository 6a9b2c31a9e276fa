//! One suite per port, run for every adapter.

pub mod bus;
mod lease;
mod platform;
pub mod store;
pub mod tokens;
