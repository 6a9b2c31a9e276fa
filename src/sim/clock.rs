//! The clock of the simulated platforms: it can jump ahead, and the time that it reports to clients can be skewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, OffsetClock};
use crate::core::time::Timestamp;

/// Longest wait before the clock is checked again, in case it was advanced meanwhile.
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// Time inside the simulation.
///
/// [`Clock::now`] drives expiries and windows; [`SimClock::wall`] is the time that the platform reports (the `Date` header,
/// timestamps of messages), which a test may skew without firing any timer.
pub struct SimClock {
    inner: Arc<OffsetClock>,
    skew: AtomicI64,
    changed: Notify,
}

impl SimClock {
    /// Starts at the current time of `base`.
    pub fn new(base: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            inner: OffsetClock::new(base),
            skew: AtomicI64::new(0),
            changed: Notify::new(),
        })
    }

    /// Moves the simulation by `millis` and returns the new time; timers that became due fire at once.
    pub fn advance(&self, millis: i64) -> Timestamp {
        let now = self.inner.advance(millis);
        self.changed.notify_waiters();
        now
    }

    /// Makes the platform report times `millis` ahead (behind when negative) of its own timers.
    pub fn set_skew(&self, millis: i64) {
        self.skew.store(millis, Ordering::SeqCst);
    }

    /// Returns the skew set by [`SimClock::set_skew`], in milliseconds.
    pub fn skew(&self) -> i64 {
        self.skew.load(Ordering::SeqCst)
    }

    /// Returns the time as the platform reports it.
    pub fn wall(&self) -> Timestamp {
        self.now().plus_millis(self.skew())
    }

    /// Waits until the simulation reaches `deadline`.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let left = deadline.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(left.min(LONGEST_NAP)) => {}
            }
        }
    }

    /// Waits for `millis` of simulated time.
    pub async fn sleep(&self, millis: i64) {
        self.sleep_until(self.now().plus_millis(millis)).await;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn timer_fires_as_soon_as_the_clock_jumps() {
        let clock = SimClock::new(ManualClock::at(Timestamp::EPOCH));
        let sleeper = clock.sleep(3_600_000);
        tokio::pin!(sleeper);
        assert!(
            tokio::time::timeout(Duration::from_millis(1), &mut sleeper)
                .await
                .is_err()
        );
        clock.advance(3_600_000);
        tokio::time::timeout(Duration::from_secs(5), sleeper)
            .await
            .unwrap();
    }

    #[test]
    fn skew_changes_reported_time_but_no_timer() {
        let clock = SimClock::new(ManualClock::at(Timestamp::EPOCH));
        clock.set_skew(900_000);
        assert_eq!(clock.now(), Timestamp::EPOCH);
        assert_eq!(clock.wall(), Timestamp::EPOCH.plus_secs(900));
    }
}
