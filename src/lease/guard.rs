//! Whether a holder may act now, by its own clock, and which fences were seen.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{BootClock, Fence, Holder, Terms};

/// The right to act under a fence. Cheap to clone.
///
/// It ends by the holder's own clock, counted from before the request that was granted, a margin before the engine's expiry: so
/// it ends before another holder can get the lease, whatever the clocks show, as long as their rates agree to within the margin.
/// Check it before every effect outside the process, and after every wait that can be long.
#[derive(Clone)]
pub struct Guard {
    clock: Arc<dyn BootClock>,
    held: Arc<Mutex<Option<Held>>>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    fence: Fence,
    from: Duration,
    until: Duration,
}

impl Guard {
    /// Creates a guard that lets nothing pass yet.
    pub fn new(clock: Arc<dyn BootClock>) -> Self {
        Self {
            clock,
            held: Arc::default(),
        }
    }

    /// Returns the fence to act under; `None` if the holder may not act (any more).
    pub fn check(&self) -> Option<Fence> {
        let now = self.clock.now();
        let held = *self.held.lock();
        held.filter(|held| held.from <= now && now < held.until)
            .map(|held| held.fence)
    }

    /// Returns the time that is left; zero if the holder may not act.
    pub fn left(&self) -> Duration {
        let now = self.clock.now();
        let held = *self.held.lock();
        held.map_or(Duration::ZERO, |held| held.until.saturating_sub(now))
    }

    /// Records an acquisition that was requested at `asked`. The holder waits a margin before it acts: what a previous holder has
    /// begun may still be in progress.
    pub(super) fn acquired(&self, fence: Fence, asked: Duration, terms: Terms, jitter: Duration) {
        *self.held.lock() = Some(Held {
            fence,
            from: self.clock.now() + terms.margin() + jitter,
            until: asked + terms.right(),
        });
    }

    /// Records a renewal that was requested at `asked`. Returns `false` if the right had ended before: then it stays ended.
    pub(super) fn renewed(&self, asked: Duration, terms: Terms) -> bool {
        let now = self.clock.now();
        let mut held = self.held.lock();
        match &mut *held {
            Some(held) if now < held.until => {
                held.until = held.until.max(asked + terms.right());
                true
            }
            _ => false,
        }
    }

    /// Ends the right at once.
    pub(super) fn end(&self) {
        *self.held.lock() = None;
    }
}

/// The highest fence that was seen of a name, and of whom.
///
/// A fence is admitted if it is higher, or if it is the highest one of the same holder. Refusing only lower ones is not enough:
/// after an engine has lost its records, the first fence may equal that of a holder that still acts.
#[derive(Debug, Clone, Default)]
pub struct FenceRegister(Option<(Fence, Holder)>);

impl FenceRegister {
    /// Admits a fence, or returns the one that stands against it.
    pub fn admit(&mut self, fence: Fence, holder: &Holder) -> Result<(), Fence> {
        match &self.0 {
            Some((highest, by)) if fence < *highest || (fence == *highest && by != holder) => Err(*highest),
            _ => {
                self.0 = Some((fence, holder.clone()));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ManualBootClock;
    use super::*;

    const TERMS: Terms = Terms {
        ttl: Duration::from_secs(15),
    };

    fn at(seconds: u64) -> (Arc<ManualBootClock>, Guard) {
        let clock = Arc::new(ManualBootClock::default());
        clock.advance(Duration::from_secs(seconds));
        (Arc::clone(&clock), Guard::new(clock))
    }

    #[test]
    fn right_is_counted_from_before_the_request() {
        let (clock, guard) = at(104);
        // The request left 4 s ago.
        guard.acquired(Fence(7), Duration::from_secs(100), TERMS, Duration::ZERO);
        assert_eq!(guard.check(), None, "a margin of 3 s passes first");
        clock.advance(Duration::from_secs(3));
        assert_eq!(guard.check(), Some(Fence(7)));
        clock.advance(Duration::from_secs(5));
        assert_eq!(guard.check(), None, "12 s after the request");
    }

    #[test]
    fn late_renewal_does_not_bring_back_an_ended_right() {
        let (clock, guard) = at(100);
        guard.acquired(Fence(7), Duration::from_secs(100), TERMS, Duration::ZERO);
        clock.advance(Duration::from_secs(12));
        assert!(!guard.renewed(Duration::from_secs(111), TERMS));
        assert_eq!(guard.check(), None);
    }

    #[test]
    fn renewal_extends_without_another_wait() {
        let (clock, guard) = at(100);
        guard.acquired(Fence(7), Duration::from_secs(100), TERMS, Duration::ZERO);
        clock.advance(Duration::from_secs(5));
        assert!(guard.renewed(Duration::from_secs(105), TERMS));
        clock.advance(Duration::from_secs(11));
        assert_eq!(guard.check(), Some(Fence(7)));
    }

    #[test]
    fn equal_fence_of_another_holder_is_not_admitted() {
        let [a, b] = ["a", "b"].map(|name| Holder::new(name.parse().unwrap()));
        let mut register = FenceRegister::default();
        register.admit(Fence(3), &a).unwrap();
        register.admit(Fence(3), &a).unwrap();
        assert_eq!(register.admit(Fence(3), &b), Err(Fence(3)));
        assert_eq!(register.admit(Fence(2), &a), Err(Fence(3)));
        register.admit(Fence(4), &b).unwrap();
        assert_eq!(register.admit(Fence(3), &a), Err(Fence(4)));
    }
}
