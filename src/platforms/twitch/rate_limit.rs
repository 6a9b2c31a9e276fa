//! The remaining points of one Twitch bucket, and waiting for points *before* Twitch refuses a request.
//!
//! Twitch refills a bucket of `Ratelimit-Limit` points (800 by default) evenly over a minute; most calls cost one point.
//! <https://dev.twitch.tv/docs/api/guide/#twitch-rate-limits>

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::fleet::RateShare;
use crate::http::Answer;
use crate::platforms::RateLimit;

const DEFAULT_POINTS: f64 = 800.0;
const REFILL_SECS: f64 = 60.0;
/// Share of a bucket that is left to others: the bot itself uses the same bucket.
const RESERVE: f64 = 0.02;
/// Calls that may always be in flight. There are no more before Twitch has reported the points: another program may have used them.
const FEW: f64 = 8.0;
/// Share of the remaining points that may be in flight: two programs that start at once do not overdraw a bucket that both have
/// seen.
const BURST: f64 = 0.5;
/// The largest bucket that is believed; waits are computed from it.
const MOST_POINTS: f64 = 1_000_000.0;
/// The longest wait after a refusal.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Rate limits by bucket: one per client id for app tokens, one per client id and user for user tokens.
#[derive(Debug, Default)]
pub(super) struct RateLimits {
    buckets: Mutex<HashMap<String, Arc<Bucket>>>,
    /// Number of members of the fleet; 0 without a fleet.
    members: AtomicU32,
}

impl RateLimits {
    pub(super) fn of(&self, bucket: &str) -> Arc<Bucket> {
        let mut rate_limits = self.buckets.lock();
        let members = self.members.load(Ordering::Relaxed);
        let bucket = rate_limits.entry(bucket.to_owned()).or_insert_with(|| {
            let bucket = Bucket::default();
            if members > 0 {
                bucket.state.lock().divide(members, Instant::now());
            }
            Arc::new(bucket)
        });
        Arc::clone(bucket)
    }

    /// Divides every bucket among the members of a fleet.
    pub(super) fn divide(&self, members: u32) {
        let rate_limits = self.buckets.lock();
        self.members.store(members, Ordering::Relaxed);
        for bucket in rate_limits.values() {
            bucket.state.lock().divide(members, Instant::now());
        }
    }

    /// Returns the state of each bucket that Twitch has reported, sorted by bucket.
    pub(super) fn levels(&self) -> Vec<RateLimit> {
        let rate_limits = self.buckets.lock();
        let mut levels: Vec<_> = rate_limits
            .iter()
            .filter(|(_, bucket)| bucket.state.lock().reported)
            .map(|(name, bucket)| {
                let (left, size) = bucket.level();
                // Client id and user: the first is the same for all but a few, and of no use to a person.
                let bucket = name.rsplit('/').next().unwrap_or_default();
                RateLimit {
                    name: format!("points of {name}"),
                    bucket: bucket.to_owned(),
                    left,
                    size,
                }
            })
            .collect();
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        levels
    }
}

/// One bucket, as far as its state is known.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    state: Mutex<State>,
    /// Notified when a waiting call may be able to start.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    limit: f64,
    points: f64,
    /// Calls in flight that the newest header may not have counted yet.
    flying: u32,
    updated: Instant,
    closed_until: Option<Instant>,
    /// Whether an answer has reported the bucket's state; before that the values are estimates.
    reported: bool,
    /// This member's part of the bucket; `None` without a fleet.
    share: Option<RateShare>,
    /// The moment from which the share counts.
    started: Instant,
}

impl Default for State {
    fn default() -> Self {
        Self {
            limit: DEFAULT_POINTS,
            points: DEFAULT_POINTS,
            flying: 0,
            updated: Instant::now(),
            closed_until: None,
            reported: false,
            share: None,
            started: Instant::now(),
        }
    }
}

/// Why no point can be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// There may be one after this time.
    For(Duration),
    /// Enough calls are in flight.
    InFlight,
}

/// A point that was taken; its call is in flight until this is dropped.
pub(super) struct Point<'a>(&'a Bucket);

impl Drop for Point<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.flying = state.flying.saturating_sub(1);
        drop(state);
        self.0.changed.notify_one();
    }
}

impl Bucket {
    /// Takes a point, waiting for one if necessary.
    pub(super) async fn take(&self) -> Point<'_> {
        loop {
            let taken = self.state.lock().try_take(Instant::now());
            if taken == Err(Busy::InFlight) {
                self.changed.notified().await;
                continue;
            }
            // One notification can stand for room for several, and this call may be canceled while it sleeps.
            self.changed.notify_one();
            match taken {
                Err(Busy::For(wait)) => tokio::time::sleep(wait).await,
                _ => return Point(self),
            }
        }
    }

    /// Applies the bucket state that an answer reports.
    pub(super) fn update(&self, answer: &Answer) {
        self.state.lock().update(answer, Instant::now());
    }

    /// Returns points left and the bucket's size.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "points are small and not negative"
    )]
    fn level(&self) -> (u32, u32) {
        let mut state = self.state.lock();
        state.refill(Instant::now());
        (state.points.max(0.0) as u32, state.limit as u32)
    }
}

impl State {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.points = (self.points + passed * self.limit / REFILL_SECS).min(self.limit);
        self.updated = now;
    }

    fn divide(&mut self, members: u32, now: Instant) {
        let at = now.saturating_duration_since(self.started);
        match &mut self.share {
            Some(share) => share.divide(members, at),
            None => {
                let minute = Duration::from_secs_f64(REFILL_SECS);
                self.share = Some(RateShare::empty(self.limit, minute, members, at));
            }
        }
    }

    /// Takes a point or returns what to wait for.
    fn try_take(&mut self, now: Instant) -> Result<(), Busy> {
        self.refill(now);
        if let Some(wait) = self
            .closed_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|wait| !wait.is_zero())
        {
            return Err(Busy::For(wait));
        }
        self.closed_until = None;
        let needed = 1.0 + (self.limit * RESERVE).floor();
        if self.points < needed {
            let seconds = (needed - self.points) * REFILL_SECS / self.limit;
            return Err(Busy::For(Duration::from_secs_f64(seconds.max(0.005))));
        }
        let burst = if self.reported { self.points * BURST } else { 0.0 };
        if f64::from(self.flying) >= burst.max(FEW) {
            return Err(Busy::InFlight);
        }
        if let Some(share) = &mut self.share {
            let at = now.saturating_duration_since(self.started);
            share
                .take(at)
                .map_err(|wait| Busy::For(wait.max(Duration::from_millis(5))))?;
        }
        self.points -= 1.0;
        self.flying += 1;
        Ok(())
    }

    fn update(&mut self, answer: &Answer, now: Instant) {
        let number = |name| {
            answer
                .header(name)
                .and_then(|text| text.trim().parse::<f64>().ok())
                .filter(|number| number.is_finite() && *number >= 0.0)
        };
        self.refill(now);
        if let Some(limit) = number("ratelimit-limit").filter(|limit| (1.0..=MOST_POINTS).contains(limit)) {
            self.limit = limit;
            if let Some(share) = &mut self.share {
                share.resize(limit, now.saturating_duration_since(self.started));
            }
        }
        if let Some(remaining) = number("ratelimit-remaining") {
            self.reported = true;
            // The call that returned this header is counted in it; others in flight may not be.
            let uncounted = f64::from(self.flying.saturating_sub(1));
            self.points = self.points.min(remaining - uncounted).min(self.limit);
        }
        if is_bucket_refusal(answer) {
            let wait = answer.requested_wait().unwrap_or(Duration::from_secs(1));
            let wait = wait.clamp(Duration::from_secs(1), LONGEST_WAIT);
            self.reported = true;
            self.points = self.points.min(0.0);
            self.closed_until = self.closed_until.max(Some(now + wait));
        }
    }
}

/// Returns whether a refusal is about the bucket. With points left it is some endpoint's own limit, which waiting for the bucket
/// does not lift.
pub(super) fn is_bucket_refusal(answer: &Answer) -> bool {
    answer.status == 429
        && answer
            .header("ratelimit-remaining")
            .is_none_or(|text| text.trim() == "0")
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        Answer::made_up(status, headers, "")
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_calls_never_take_more_than_the_bucket_gives() {
        let bucket = Bucket::default();
        let start = Instant::now();
        for _ in 0..1000 {
            drop(bucket.take().await);
        }
        let seconds = start.elapsed().as_secs_f64();
        // 784 at once (2 % stay), the rest at 800 a minute.
        assert!((16.0..17.5).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn member_of_a_fleet_takes_its_part_of_the_bucket() {
        let rate_limits = RateLimits::default();
        rate_limits.divide(4);
        let bucket = rate_limits.of("client/user");
        let start = Instant::now();
        for _ in 0..200 {
            drop(bucket.take().await);
        }
        let seconds = start.elapsed().as_secs_f64();
        // It starts empty, and a quarter of 800 are refilled in a minute.
        assert!((59.0..61.0).contains(&seconds), "{seconds}");
        rate_limits.divide(1);
        let start = Instant::now();
        for _ in 0..200 {
            drop(bucket.take().await);
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((14.0..16.0).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn bucket_without_reported_state_is_not_shown() {
        let rate_limits = RateLimits::default();
        let bucket = rate_limits.of("client/user");
        drop(bucket.take().await);
        bucket.update(&answer(200, &[]));
        assert_eq!(rate_limits.levels(), []);
        bucket.update(&answer(
            200,
            &[("ratelimit-limit", "30"), ("ratelimit-remaining", "7")],
        ));
        assert_eq!(
            (rate_limits.levels()[0].left, rate_limits.levels()[0].size),
            (7, 30)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn headers_are_obeyed_before_a_refusal() {
        let bucket = Bucket::default();
        drop(bucket.take().await);
        bucket.update(&answer(
            200,
            &[("ratelimit-limit", "30"), ("ratelimit-remaining", "1")],
        ));
        let start = Instant::now();
        drop(bucket.take().await);
        assert!(start.elapsed() < Duration::from_millis(10));
        drop(bucket.take().await);
        assert!(
            start.elapsed() >= Duration::from_millis(1990),
            "30 points a minute"
        );
        assert_eq!(bucket.level().1, 30);
    }

    #[tokio::test(start_paused = true)]
    async fn bucket_of_an_impossible_size_is_not_believed() {
        for limit in ["0", "-1", "1.7e308", "inf", "NaN"] {
            let bucket = Bucket::default();
            bucket.update(&answer(200, &[("ratelimit-limit", limit)]));
            drop(bucket.take().await);
            assert_eq!(bucket.level().1, 800, "{limit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_under_way_are_subtracted_from_what_a_header_leaves() {
        let bucket = Bucket::default();
        let flying = [bucket.take().await, bucket.take().await, bucket.take().await];
        bucket.update(&answer(200, &[("ratelimit-remaining", "100")]));
        assert_eq!(bucket.level().0, 98);
        drop(flying);
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_reported_points_may_be_in_flight() {
        for (headers, expected) in [
            (vec![], 8),
            (vec![("ratelimit-remaining", "26")], 9),
            (vec![("ratelimit-remaining", "90")], 30),
            (vec![("ratelimit-remaining", "799")], 267),
        ] {
            let budget = Bucket::default();
            drop(budget.take().await);
            budget.update(&answer(200, &headers));
            let mut flying = Vec::new();
            while let Ok(point) = timeout(Duration::ZERO, budget.take()).await {
                flying.push(point);
            }
            assert_eq!(flying.len(), expected, "{headers:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn first_reported_state_starts_all_waiting_calls() {
        let budget = Bucket::default();
        let first = budget.take().await;
        let calls = (0..200).map(|_| async {
            let point = budget.take().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(point);
        });
        let start = Instant::now();
        tokio::join!(futures_util::future::join_all(calls), async {
            budget.update(&answer(200, &[("ratelimit-remaining", "799")]));
            drop(first);
        });
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn rate_limit_closes_bucket_until_reset_up_to_a_minute() {
        for (headers, at_least, at_most) in [
            (vec![("retry-after", "7")], 7.0, 10.0),
            (vec![("ratelimit-remaining", "0")], 1.0, 3.0),
            (vec![("retry-after", "9999")], 60.0, 62.0),
        ] {
            let bucket = Bucket::default();
            bucket.update(&answer(429, &headers));
            let start = Instant::now();
            drop(bucket.take().await);
            let seconds = start.elapsed().as_secs_f64();
            assert!((at_least..at_most).contains(&seconds), "{headers:?}: {seconds}");
        }
    }

    #[test]
    fn a_refusal_with_points_left_is_not_about_the_bucket() {
        assert!(!is_bucket_refusal(&answer(429, &[("ratelimit-remaining", "12")])));
        assert!(is_bucket_refusal(&answer(429, &[("ratelimit-remaining", "0")])));
        assert!(is_bucket_refusal(&answer(429, &[])));
        assert!(!is_bucket_refusal(&answer(200, &[])));
    }
}
