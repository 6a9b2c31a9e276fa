//! What differs between operating systems: who may access a file, special files, signals, limits.
//!
//! The modules have the same items, so that nothing elsewhere needs a condition. On Windows, files have the permissions that their
//! directory passes on, nothing checks these, and there is no signal that reloads the configuration.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::*;

/// What the system requests of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop.
    Terminate,
    /// SIGINT: stop; requested by a person.
    Interrupt,
    /// SIGHUP: read the configuration again; the terminal of a command is gone.
    Reload,
}
