//! One suite per port, run for every adapter.

pub mod bus;
pub mod store;
