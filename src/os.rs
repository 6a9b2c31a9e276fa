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

/// What job control requests of a program that draws on the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobSignal {
    /// SIGTSTP: stop until the job is continued.
    Stop,
    /// SIGCONT: the process was stopped, and goes on.
    Continue,
}

/// What the system requests of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop.
    Terminate,
    /// SIGINT: stop; requested by a person.
    Interrupt,
    /// SIGQUIT: stop at once; requested by a person.
    Quit,
    /// SIGHUP: read the configuration again, or the terminal is gone.
    Reload,
}
