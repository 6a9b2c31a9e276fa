//! What every simulated platform is built from.

pub mod commands;
pub mod demo;
pub mod failure;
pub mod handle;
pub mod oauth;
pub mod query;
pub mod text;

pub use demo::{DemoLogin, DemoPlatform, Setting};
pub use handle::{PlatformSim, Simulated};
