//! Whole-program tests, one binary: it links once.

mod cli;
mod contract;
mod twitch;
mod support;
mod persist;
