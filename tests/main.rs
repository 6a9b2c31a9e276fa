//! Whole-program tests, one binary: it links once.

mod cli;
mod contract;
mod persist;
mod support;
mod twitch;
