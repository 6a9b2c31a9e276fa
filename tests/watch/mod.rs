//! The daemon's memory under fire: killed at random, and for a virtual week.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails fails the test that called it"
)]

mod kill;
mod soak;
mod world;
