//! Time and randomness are injected: nothing below `app` reads the wall clock or draws a random number itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::core::time::Timestamp;

/// A source of the present time.
pub trait Clock: Send + Sync {
    /// Returns the present moment in UTC.
    fn now(&self) -> Timestamp;

    /// Returns the latest time that it may be, where there are signs that this clock is behind.
    fn latest(&self) -> Timestamp {
        self.now()
    }
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }
}

/// A clock that moves only when it is advanced or set.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Creates a clock that stays at `start`.
    pub fn at(start: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(start.as_millis())))
    }

    /// Moves the clock by `millis` (backwards when negative) and returns the new moment.
    pub fn advance(&self, millis: i64) -> Timestamp {
        Timestamp::from_millis(self.0.fetch_add(millis, Ordering::SeqCst) + millis)
    }

    /// Sets the clock to `to`.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Another clock moved by an adjustable offset. The simulator runs on one, so that a request can jump hours ahead
/// while the sockets stay real.
pub struct OffsetClock {
    base: Arc<dyn Clock>,
    offset: AtomicI64,
}

impl OffsetClock {
    /// Wraps `base` with no offset yet.
    pub fn new(base: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            base,
            offset: AtomicI64::new(0),
        })
    }

    /// Moves this clock by `millis` relative to its base and returns the new moment.
    pub fn advance(&self, millis: i64) -> Timestamp {
        self.offset.fetch_add(millis, Ordering::SeqCst);
        self.now()
    }
}

impl Clock for OffsetClock {
    fn now(&self) -> Timestamp {
        self.base.now().plus_millis(self.offset.load(Ordering::SeqCst))
    }
}

/// A source of randomness for jitter: fractions in `[0, 1)`.
#[derive(Clone)]
pub struct Chance(Arc<Mutex<fastrand::Rng>>);

impl Chance {
    /// Draws from the operating system's entropy.
    pub fn random() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// Draws a repeatable sequence, for tests.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Returns the next fraction in `[0, 1)`.
    pub fn fraction(&self) -> f64 {
        self.0.lock().f64()
    }
}

/// The wait before the next attempt: it doubles with each failure, up to a maximum, and has jitter.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The shortest wait, and the range of the jitter before the first failure.
    pub first: Duration,
    /// The maximum of that range.
    pub longest: Duration,
}

impl Backoff {
    /// Returns the upper bound of the jitter after this many failures.
    pub fn ceiling(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(20)).min(self.longest)
    }

    /// Draws a wait after this many failures: never shorter than the first one.
    pub fn draw(&self, failures: u32, chance: &Chance) -> Duration {
        self.first + self.ceiling(failures).mul_f64(chance.fraction())
    }
}
