//! The time since the system was started, which no change of the wall clock affects.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A clock that counts while the process is stopped and, where the system has such a clock, while the machine is suspended.
pub trait BootClock: Send + Sync {
    /// Returns the time since a fixed moment in the past.
    fn now(&self) -> Duration;
}

/// The system's clock: `CLOCK_BOOTTIME` on Linux.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemBootClock;

impl BootClock for SystemBootClock {
    fn now(&self) -> Duration {
        crate::os::since_boot()
    }
}

/// A clock that moves only when it is advanced.
#[derive(Debug, Default)]
pub struct ManualBootClock(AtomicU64);

impl ManualBootClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl BootClock for ManualBootClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}
