//! What bitbrat knows and how it decides. Pure: no async, no I/O, no logging, no clock.

pub mod time;
