//! What a command that is ended by a signal leaves behind, for the person at the terminal.
//!
//! Signals are sent to the process, so there is one list per process, which the command keeps up to date while it runs.

use parking_lot::Mutex;

use crate::cli::output::Note;

static LEFT: Mutex<Vec<Note>> = Mutex::new(Vec::new());

/// Replaces what is reported if a signal ends the command from now on.
pub fn leaves(notes: Vec<Note>) {
    *LEFT.lock() = notes;
}

/// Returns what the command leaves behind.
pub fn left() -> Vec<Note> {
    LEFT.lock().clone()
}
