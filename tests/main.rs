//! Whole-program tests, one binary: it links once.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps in vain has failed, and says where"
)]

mod contract;

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod twitch;
