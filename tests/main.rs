//! Whole-program tests, one binary: it links once.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps in vain has failed, and says where"
)]

use std::alloc::System;

use stats_alloc::StatsAlloc;

/// Counts the bytes in use.
#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

mod campaign;
mod cli;
mod contract;
mod docs;
mod persist;
mod secrets;
mod stories;
mod support;
mod twitch;
mod watch;
