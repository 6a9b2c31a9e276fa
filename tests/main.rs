//! Whole-program tests, one binary: it links once.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps in vain has failed, and says where"
)]

mod cli;
mod contract;
mod docs;
mod persist;
mod stories;
mod support;
mod twitch;
mod watch;
