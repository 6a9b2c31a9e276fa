//! What every simulated platform is built from.

pub mod commands;
pub mod failure;
pub mod handle;

pub use handle::{PlatformSim, Simulated};
