//! What the fuzz targets do with their input: read it as the program would, and check a law of the result where there is one.
//!
//! A target is a file in `src/bin/`, and its first inputs are in `seeds/`. `scripts/fuzz.sh` builds and runs them.

mod files;
mod laws;
mod platforms;
mod rows;
mod texts;
mod web;

pub use files::{config, env_file, tokens};
pub use platforms::{discord_gateway, discord_rest, eventsub, helix, kick_api, kick_webhook};
pub use rows::{bus, document, state_rows};
pub use texts::{alerts, secrets, words};
pub use web::{api_query, http_headers, mcp_args};

use bitbrat::core::time::Timestamp;

/// The time of every target, so that an input always means the same.
pub fn now() -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000)
}

/// Declares a fuzz target: the function of this library with the same name.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$name(data));
    };
}
