//! What every simulated platform is built from.

pub mod commands;
pub mod failure;
pub mod handle;
pub mod oauth;
pub mod query;
pub mod text;

pub use handle::{PlatformSim, Simulated};
