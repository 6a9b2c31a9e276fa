//! Discord: a source is a guild that the bot attends.

pub mod permissions;
