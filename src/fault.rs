//! Named points at which a test ends the process, as a crash would.
//!
//! `BITBRAT_TEST_FAULT` names one. Release builds do not read it.

/// Aborts the process if a test has chosen this point.
#[cfg(debug_assertions)]
pub fn fault_point(name: &str) {
    if std::env::var_os("BITBRAT_TEST_FAULT").is_some_and(|chosen| chosen == name) {
        std::process::abort();
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub fn fault_point(_name: &str) {}
