//! Rate limit of requests: at most so many in any minute, and none while Kick requests a backoff.
//!
//! Kick neither publishes its limits nor sends headers about them, so the count is our own: no minute, starting at any time,
//! contains more than the configured number of requests.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Chance;
use crate::platforms::PlatformError;

/// First backoff after a refusal without a duration, doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_mins(10);

/// The rate limit of all requests to Kick.
pub(super) struct RateLimiter {
    limit: usize,
    window: Duration,
    chance: Chance,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sent: VecDeque<Instant>,
    refusals: u32,
    quiet_until: Option<Instant>,
    /// The failure that caused the backoff, if Kick did not ask for it.
    cause: Option<PlatformError>,
    /// This member's part of the limit; `None` without a fleet.
    share: Option<Share>,
}

/// The part of a limit, which grows only after a whole window: until then, the requests of the member that had it count.
#[derive(Debug)]
struct Share {
    limit: usize,
    next: usize,
    grows_at: Instant,
}

/// Kick requests a backoff that is longer than the caller is ready to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quiet(pub(super) Duration);

impl RateLimiter {
    /// Allows `limit` requests in any `window`.
    pub(super) fn new(limit: u32, window: Duration, chance: Chance) -> Self {
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX).max(1),
            window,
            chance,
            state: Mutex::default(),
        }
    }

    /// Waits until a request may be sent, and counts it. It always waits for the rate limit itself, and for a backoff requested
    /// by Kick only up to `patience`.
    pub(super) async fn acquire(&self, patience: Duration) -> Result<(), Quiet> {
        loop {
            let wait = {
                let mut state = self.state.lock();
                let now = Instant::now();
                match state
                    .quiet_until
                    .and_then(|until| until.checked_duration_since(now))
                {
                    Some(quiet) if quiet > patience => return Err(Quiet(quiet)),
                    Some(quiet) if !quiet.is_zero() => quiet,
                    _ => {
                        let limit = state.limit(now, self.limit);
                        match state.admit(now, limit, self.window) {
                            Ok(()) => return Ok(()),
                            Err(wait) => wait,
                        }
                    }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Returns how many requests the window allows.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Divides the limit among this number of members of a fleet.
    pub(super) fn divide(&self, members: u32) {
        let members = usize::try_from(members).unwrap_or(usize::MAX).max(1);
        let next = (self.limit / members).max(1);
        let mut state = self.state.lock();
        let now = Instant::now();
        let limit = match state.share {
            Some(_) => state.limit(now, self.limit).min(next),
            None => 0,
        };
        state.share = Some(Share {
            limit,
            next,
            grows_at: now + self.window,
        });
    }

    /// Returns how many requests could be sent at this moment.
    pub(super) fn left(&self) -> usize {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.quiet_until.is_some_and(|until| until > now) {
            return 0;
        }
        state.forget(now, self.window);
        state.limit(now, self.limit).saturating_sub(state.sent.len())
    }

    /// Starts a backoff after a refusal: as long as requested, otherwise longer with each refusal. Returns its duration.
    pub(super) fn refused(&self, asked: Option<Duration>) -> Duration {
        self.back_off(asked, None)
    }

    /// Starts the same backoff after a response that is not Kick's, which may come from an edge that blocks.
    pub(super) fn blocked(&self, asked: Option<Duration>, cause: &PlatformError) {
        self.back_off(asked, Some(cause.clone()));
    }

    /// Returns the failure that caused the current or last backoff; `None` when Kick asked for it.
    pub(super) fn cause(&self) -> Option<PlatformError> {
        self.state.lock().cause.clone()
    }

    fn back_off(&self, asked: Option<Duration>, cause: Option<PlatformError>) -> Duration {
        let mut state = self.state.lock();
        state.cause = cause;
        let doubled = FIRST_BACKOFF.saturating_mul(1 << state.refusals.min(10));
        let own = doubled
            .min(LONGEST_BACKOFF)
            .mul_f64(0.5 + self.chance.fraction() / 2.0);
        let quiet = asked.map_or(own, |asked| asked.min(LONGEST_BACKOFF));
        state.refusals += 1;
        state.quiet_until = state.quiet_until.max(Some(Instant::now() + quiet));
        quiet
    }

    /// Records that Kick answers again.
    pub(super) fn answered(&self) {
        self.state.lock().refusals = 0;
    }
}

impl State {
    /// Returns how many requests the window allows this process.
    fn limit(&self, now: Instant, all: usize) -> usize {
        match &self.share {
            None => all,
            Some(share) if now >= share.grows_at => share.next,
            Some(share) => share.limit,
        }
    }

    fn forget(&mut self, now: Instant, window: Duration) {
        while self
            .sent
            .front()
            .is_some_and(|sent| now.duration_since(*sent) >= window)
        {
            self.sent.pop_front();
        }
    }

    fn admit(&mut self, now: Instant, limit: usize, window: Duration) -> Result<(), Duration> {
        self.forget(now, window);
        match self.sent.front() {
            // A share that has not grown yet; it is asked for again.
            None if limit == 0 => Err(window / 60),
            Some(oldest) if self.sent.len() >= limit => {
                // Slightly longer, because the clocks of both sides are coarse.
                Err(window.saturating_sub(now.duration_since(*oldest)) + Duration::from_millis(5))
            }
            _ => {
                self.sent.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn no_minute_ever_holds_more_than_the_limit() {
        let rate_limiter = RateLimiter::new(20, MINUTE, Chance::seeded(3));
        let mut sent = Vec::new();
        for n in 0..100_u64 {
            rate_limiter.acquire(Duration::ZERO).await.unwrap();
            sent.push(Instant::now());
            // Bursts and pauses of odd lengths.
            tokio::time::sleep(Duration::from_millis((n * 7_919) % 4_000)).await;
        }
        for (place, first) in sent.iter().enumerate() {
            let within = sent[place..].iter().filter(|at| **at - *first < MINUTE).count();
            assert!(within <= 20, "{within} requests in the minute from {place}");
        }
        let taken = *sent.last().unwrap() - sent[0];
        assert!(taken < MINUTE * 6, "no slower than needed: {taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn members_of_a_fleet_never_exceed_the_limit_together() {
        let limiter = || RateLimiter::new(20, MINUTE, Chance::seeded(3));
        let (first, second) = (limiter(), limiter());
        let start = Instant::now();
        let mut sent = Vec::new();
        first.divide(1);
        for step in 0..600_u64 {
            match step {
                200 => [&first, &second].iter().for_each(|member| member.divide(2)),
                // The second one ends.
                400 => first.divide(1),
                _ => {}
            }
            for member in [&first, &second] {
                let is_there = std::ptr::eq(member, &raw const first) || (200..400).contains(&step);
                if is_there && member.left() > 0 {
                    member.acquire(Duration::ZERO).await.unwrap();
                    sent.push(Instant::now());
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for (place, first) in sent.iter().enumerate() {
            let within = sent[place..].iter().filter(|at| **at - *first < MINUTE).count();
            assert!(within <= 20, "{within} after {:?}", *first - start);
        }
        assert!(sent.len() > 120, "{}", sent.len());
    }

    #[tokio::test(start_paused = true)]
    async fn short_wait_is_observed_and_long_wait_is_an_error() {
        let rate_limiter = RateLimiter::new(20, MINUTE, Chance::seeded(3));
        assert_eq!(rate_limiter.left(), 20);
        rate_limiter.refused(Some(Duration::from_secs(7)));
        assert_eq!(rate_limiter.left(), 0);
        let quiet = rate_limiter.acquire(Duration::from_secs(5)).await.unwrap_err();
        assert!(quiet.0 > Duration::from_secs(6));
        let start = Instant::now();
        rate_limiter.acquire(Duration::from_secs(10)).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(7));
    }

    #[test]
    fn own_backoff_doubles_up_to_ten_minutes_and_starts_over() {
        let rate_limiter = RateLimiter::new(20, MINUTE, Chance::seeded(3));
        let pauses: Vec<_> = (0..8).map(|_| rate_limiter.refused(None).as_secs()).collect();
        for (pause, full) in pauses.iter().zip([30, 60, 120, 240, 480, 600, 600, 600]) {
            assert!((full / 2..=full).contains(pause), "{pauses:?}");
        }
        rate_limiter.answered();
        assert!(rate_limiter.refused(None).as_secs() <= 30);
    }
}
