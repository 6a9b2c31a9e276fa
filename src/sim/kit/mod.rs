//! What every simulated platform is built from.

pub mod commands;
pub mod demo;
pub mod failure;
pub mod handle;
pub mod oauth;
pub mod query;
pub mod random_text;

use std::collections::VecDeque;

use crate::core::time::Timestamp;

pub use demo::{DemoLogin, DemoPlatform, Setting};
pub use handle::{PlatformSim, Simulated};

/// Removes the instants at the front that are `span` milliseconds ago, or longer.
pub fn forget(instants: &mut VecDeque<Timestamp>, span: i64, now: Timestamp) {
    while instants.front().is_some_and(|at| now.millis_since(*at) >= span) {
        instants.pop_front();
    }
}
