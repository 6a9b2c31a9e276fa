//! As `notify`, where there is no service manager that supervises the daemon.

use std::time::Duration;

pub(super) fn ready(_: &str) {}

pub(super) fn status(_: &str) {}

pub(super) fn alive() {}

pub(super) fn stopping() {}

pub(super) fn watchdog() -> Option<Duration> {
    None
}
