//! Whole-program tests, one binary: it links once.

mod contract;
mod twitch;
mod persist;
