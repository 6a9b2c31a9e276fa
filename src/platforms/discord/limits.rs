//! Limits for requests to Discord: buckets per route, the global limit, and a limit that keeps an IP address from being
//! banned. Pure: returns go, wait or hold, and is updated from responses.
//!
//! Buckets are not known in advance; Discord sends them in headers and may change them at any time. Only two limits are fixed,
//! by us: the request rate, which stays well below the global 50 requests a second, and a share of the 10,000 invalid requests
//! in 10 minutes that all bots of one IP address have together.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::answer::{ApiError, BucketState};
use crate::core::time::Timestamp;

/// The window in which Discord counts invalid requests.
const INVALID_WINDOW: Duration = Duration::from_mins(10);
/// First hold after Cloudflare blocked us without a duration, and the longest (ms).
const EDGE_HOLD: (i64, i64) = (300_000, 3_600_000);
/// First hold after a resource was forbidden, and the longest (ms).
const RESOURCE_HOLD: (i64, i64) = (300_000, 3_600_000);
/// Resets that differ by less than this are the same window (ms).
const SAME_WINDOW: i64 = 250;
/// Number of buckets and resources at which expired ones are removed.
const SWEEP_AT: usize = 4_096;

/// Rate limit scope of a request: its kind, and the guild or channel whose limit it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// The path without its parameters.
    pub template: &'static str,
    /// The guild or channel of the request, if any.
    pub top: Option<u64>,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// Now; it has been counted.
    Go,
    /// Ask again at this time.
    Wait(Timestamp),
    /// Not in the near future.
    Hold {
        /// Earliest time to ask again.
        until: Timestamp,
        reason: &'static str,
    },
}

/// State of Discord's limits and of our own.
#[derive(Debug)]
pub struct Limits {
    per_second: usize,
    max_invalid_requests: usize,
    /// The last known bucket of a route. Buckets are named without the guild or channel.
    buckets_of: HashMap<&'static str, String>,
    buckets: HashMap<(String, Option<u64>), Bucket>,
    global: Option<Until>,
    sent: VecDeque<Timestamp>,
    invalid: VecDeque<Timestamp>,
    edge: Breaker,
    resources: HashMap<String, Hold>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    remaining: u32,
    reset: Until,
}

/// The end of a wait, and its original duration: a clock that was ahead and is set back must not extend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Until {
    at: Timestamp,
    /// Milliseconds.
    span: i64,
}

impl Until {
    fn after(span: i64, now: Timestamp) -> Self {
        Self {
            at: now.plus_millis(span),
            span,
        }
    }

    /// Returns when it ends, unless it has or was begun by a clock that was ahead.
    fn pending(self, now: Timestamp) -> Option<Timestamp> {
        (0..=self.span)
            .contains(&(self.at.millis_since(now) - 1))
            .then_some(self.at)
    }

    fn later(self, other: Self) -> Self {
        if other.at > self.at { other } else { self }
    }
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Until,
    /// Duration of the next hold (ms).
    next: i64,
}

/// Circuit breaker for blocks by Cloudflare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Closed again after this time.
    pub until: Until,
    /// Consecutive blocks.
    pub strikes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            until: Until::after(0, Timestamp::EPOCH),
            strikes: 0,
        }
    }
}

impl Limits {
    /// Starts without any state. `per_second` bounds our own request rate; after `max_invalid_requests` invalid requests in 10 minutes
    /// nothing more is sent until some of them are that long ago.
    pub fn new(per_second: u32, max_invalid_requests: u32) -> Self {
        let size = |count: u32| usize::try_from(count.max(1)).unwrap_or(usize::MAX);
        Self {
            per_second: size(per_second),
            max_invalid_requests: size(max_invalid_requests),
            buckets_of: HashMap::new(),
            buckets: HashMap::new(),
            global: None,
            sent: VecDeque::new(),
            invalid: VecDeque::new(),
            edge: Breaker::default(),
            resources: HashMap::new(),
        }
    }

    /// Requests permission to send a request for `resource` (the path) as `route`.
    pub fn admit(&mut self, route: Route, resource: &str, now: Timestamp) -> Admission {
        let hold = |until, reason| Admission::Hold { until, reason };
        if let Some(until) = self.edge.until.pending(now) {
            return hold(until, "Cloudflare turned this address away");
        }
        forget(&mut self.invalid, now, INVALID_WINDOW);
        if self.invalid.len() >= self.max_invalid_requests {
            let oldest = self.invalid.front().copied().unwrap_or(now);
            return hold(
                oldest.plus(INVALID_WINDOW),
                "too many requests were refused lately, and Discord bans addresses for that",
            );
        }
        let forbidden = self.resources.get(resource);
        if let Some(until) = forbidden.and_then(|pause| pause.until.pending(now)) {
            return hold(until, "this was forbidden a short while ago");
        }
        if let Some(until) = self.global.and_then(|until| until.pending(now)) {
            return Admission::Wait(until);
        }
        forget(&mut self.sent, now, Duration::from_secs(1));
        if self.sent.len() >= self.per_second {
            let oldest = self.sent.front().copied().unwrap_or(now);
            return Admission::Wait(oldest.plus_millis(1_000));
        }
        if let Some(bucket) = self.bucket_of(route) {
            if let Some(until) = bucket.reset.pending(now).filter(|_| bucket.remaining == 0) {
                return Admission::Wait(until);
            }
            bucket.remaining = bucket.remaining.saturating_sub(1);
        }
        self.sent.push_back(now);
        Admission::Go
    }

    /// Updates the limits from the response to a request.
    pub fn update(
        &mut self,
        route: Route,
        resource: &str,
        reported: Option<BucketState>,
        outcome: Result<(), &ApiError>,
        now: Timestamp,
    ) {
        if let Some(reported) = reported {
            self.update_bucket(route, reported, now);
        }
        let Err(error) = outcome else {
            self.edge.strikes = 0;
            self.resources.remove(resource);
            return;
        };
        if error.is_invalid_request() {
            self.invalid.push_back(now);
        }
        match error {
            ApiError::RateLimited { wait, global, .. } => {
                let until = Until::after(millis(*wait), now);
                match self.bucket_of(route).filter(|_| !global) {
                    Some(bucket) => {
                        bucket.remaining = 0;
                        bucket.reset = bucket.reset.later(until);
                    }
                    None => self.global = Some(self.global.map_or(until, |known| known.later(until))),
                }
            }
            // Requests that were in flight when the hold began are refused by the same block, which counts once.
            ApiError::EdgeBlocked {
                retry_after: None, ..
            } if self.edge.until.pending(now).is_some() => {}
            ApiError::EdgeBlocked { retry_after, .. } => {
                let pause = retry_after.map_or_else(
                    || {
                        EDGE_HOLD
                            .0
                            .saturating_mul(1 << self.edge.strikes.min(10))
                            .min(EDGE_HOLD.1)
                    },
                    // A proxy may ask for a day; one request an hour costs little.
                    |wait| millis(wait).min(EDGE_HOLD.1),
                );
                self.edge.strikes = self.edge.strikes.saturating_add(1);
                let until = Until::after(pause, now);
                let pending = self.edge.until.pending(now).is_some();
                self.edge.until = if pending {
                    self.edge.until.later(until)
                } else {
                    until
                };
            }
            ApiError::Forbidden { .. } => {
                if self.resources.len() >= SWEEP_AT {
                    self.resources
                        .retain(|_, pause| pause.until.pending(now).is_some());
                }
                let pause = self.resources.entry(resource.to_owned()).or_insert(Hold {
                    until: Until::after(0, now),
                    next: RESOURCE_HOLD.0,
                });
                if pause.until.pending(now).is_none() {
                    pause.until = Until::after(pause.next, now);
                    pause.next = (pause.next * 2).min(RESOURCE_HOLD.1);
                }
            }
            _ => {}
        }
    }

    /// Clears all holds on forbidden resources; used when the guild's rules have changed.
    pub fn clear_holds(&mut self) {
        self.resources.clear();
    }

    /// Returns how many more requests may be refused before nothing is sent for a while, and how many in all.
    pub fn invalid_requests_left(&mut self, now: Timestamp) -> (usize, usize) {
        forget(&mut self.invalid, now, INVALID_WINDOW);
        let left = self.max_invalid_requests.saturating_sub(self.invalid.len());
        (left, self.max_invalid_requests)
    }

    /// Returns the state of the breaker, to be stored for the next process.
    pub fn breaker(&self) -> Breaker {
        self.edge
    }

    /// Restores the state of the breaker from an earlier process.
    pub fn set_breaker(&mut self, breaker: Breaker) {
        self.edge = breaker;
    }

    fn bucket_of(&mut self, route: Route) -> Option<&mut Bucket> {
        let name = self.buckets_of.get(route.template)?;
        self.buckets.get_mut(&(name.clone(), route.top))
    }

    fn update_bucket(&mut self, route: Route, reported: BucketState, now: Timestamp) {
        if self.buckets.len() >= SWEEP_AT {
            self.buckets
                .retain(|_, bucket| bucket.reset.pending(now).is_some());
        }
        self.buckets_of.insert(route.template, reported.bucket.clone());
        let reset = Until::after(millis(reported.reset_after), now);
        let bucket = self
            .buckets
            .entry((reported.bucket, route.top))
            .or_insert(Bucket {
                remaining: reported.remaining,
                reset,
            });
        // Within one window responses may arrive out of order; the lowest count is the newest.
        let same = reset.at.millis_since(bucket.reset.at).abs() < SAME_WINDOW;
        bucket.remaining = if same {
            bucket.remaining.min(reported.remaining)
        } else {
            reported.remaining
        };
        bucket.reset = reset;
    }
}

fn forget(times: &mut VecDeque<Timestamp>, now: Timestamp, window: Duration) {
    // A clock that was set back must not keep old entries forever.
    while times
        .front()
        .is_some_and(|at| now.since(*at) >= window || *at > now.plus(window))
    {
        times.pop_front();
    }
}

fn millis(duration: Duration) -> i64 {
    // Rounded up: a wait that ends a fraction early costs one more refused request.
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: Route = Route {
        template: "users/@me/guilds",
        top: None,
    };

    fn guild(id: u64) -> Route {
        Route {
            template: "guilds/{}",
            top: Some(id),
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000 + millis)
    }

    fn reported(bucket: &str, remaining: u32, millis: u64) -> BucketState {
        BucketState {
            bucket: bucket.into(),
            remaining,
            reset_after: Duration::from_millis(millis),
        }
    }

    fn limits() -> Limits {
        Limits::new(25, 100)
    }

    #[test]
    fn an_empty_bucket_waits_for_its_reset_and_others_go_on() {
        let mut limits = limits();
        limits.update(guild(1), "g/1", Some(reported("ab", 0, 750)), Ok(()), at(0));
        assert_eq!(limits.admit(guild(1), "g/1", at(10)), Admission::Wait(at(750)));
        assert_eq!(
            limits.admit(guild(2), "g/2", at(10)),
            Admission::Go,
            "another guild"
        );
        assert_eq!(limits.admit(LIST, "l", at(10)), Admission::Go, "another route");
        assert_eq!(limits.admit(guild(1), "g/1", at(750)), Admission::Go);
    }

    #[test]
    fn routes_that_share_a_bucket_share_what_is_left() {
        let mut limits = limits();
        let roles = Route {
            template: "guilds/{}/roles",
            top: Some(1),
        };
        limits.update(guild(1), "g/1", Some(reported("ab", 5, 1_000)), Ok(()), at(0));
        limits.update(roles, "g/1/roles", Some(reported("ab", 1, 1_000)), Ok(()), at(0));
        assert_eq!(limits.admit(roles, "g/1/roles", at(10)), Admission::Go);
        assert_eq!(limits.admit(guild(1), "g/1", at(20)), Admission::Wait(at(1_000)));
    }

    #[test]
    fn requests_on_their_way_are_counted_before_they_are_answered() {
        let mut limits = limits();
        limits.update(LIST, "l", Some(reported("ab", 2, 5_000)), Ok(()), at(0));
        let answers: Vec<_> = (1..=3).map(|n| limits.admit(LIST, "l", at(n))).collect();
        assert_eq!(
            answers,
            [Admission::Go, Admission::Go, Admission::Wait(at(5_000))]
        );
    }

    #[test]
    fn a_global_limit_stops_everything_for_its_time() {
        let mut limits = limits();
        let limited = ApiError::RateLimited {
            wait: Duration::from_millis(1_337),
            global: true,
            shared: false,
        };
        limits.update(LIST, "l", None, Err(&limited), at(0));
        assert_eq!(limits.admit(guild(1), "g/1", at(1)), Admission::Wait(at(1_337)));
        assert_eq!(limits.admit(guild(1), "g/1", at(1_337)), Admission::Go);
    }

    #[test]
    fn own_request_rate_is_limited() {
        let mut limits = Limits::new(3, 100);
        let burst: Vec<_> = (0..4).map(|n| limits.admit(LIST, "l", at(n))).collect();
        assert_eq!(burst[..3], [Admission::Go, Admission::Go, Admission::Go]);
        assert_eq!(burst[3], Admission::Wait(at(1_000)));
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_no_wait() {
        let mut limits = limits();
        limits.update(guild(1), "g/1", Some(reported("ab", 0, 750)), Ok(()), at(0));
        assert_eq!(limits.admit(guild(1), "g/1", at(-900_000)), Admission::Go);
    }

    #[test]
    fn holds_begun_by_a_clock_that_was_ahead_are_void() {
        let hour_ahead = at(3_600_000);
        let blocked = ApiError::EdgeBlocked {
            status: 429,
            retry_after: Some(Duration::from_secs(1)),
        };
        let forbidden = ApiError::Forbidden {
            code: 50_001,
            message: String::new(),
        };
        for error in [&blocked, &forbidden] {
            let mut limits = limits();
            limits.update(guild(1), "g/1", None, Err(error), hour_ahead);
            assert_eq!(limits.admit(guild(1), "g/1", at(0)), Admission::Go, "{error:?}");
            limits.update(guild(1), "g/1", None, Err(error), at(0));
            let held = limits.admit(guild(1), "g/1", at(10));
            assert!(
                matches!(held, Admission::Hold { until, .. } if until < hour_ahead),
                "{held:?}"
            );
        }
    }

    #[test]
    fn cloudflare_holds_everything_and_longer_each_time() {
        let mut limits = limits();
        let blocked = |retry_after| ApiError::EdgeBlocked {
            status: 429,
            retry_after,
        };
        let mut now = at(0);
        for minutes in [5, 10, 20, 40, 60, 60] {
            limits.update(LIST, "l", None, Err(&blocked(None)), now);
            let until = now.plus_secs(minutes * 60);
            let held = limits.admit(guild(1), "g/1", now.plus_millis(1));
            assert!(
                matches!(held, Admission::Hold { until: reported, .. } if reported == until),
                "{minutes}: {held:?}"
            );
            assert_eq!(limits.admit(guild(1), "g/1", until), Admission::Go);
            now = until;
        }
        limits.update(LIST, "l", None, Ok(()), now);
        limits.update(LIST, "l", None, Err(&blocked(Some(Duration::from_secs(7)))), now);
        assert_eq!(
            limits.breaker().until,
            Until::after(7_000, now),
            "its own word counts"
        );
    }

    #[test]
    fn requests_in_flight_count_one_block() {
        let mut limits = limits();
        let blocked = ApiError::EdgeBlocked {
            status: 403,
            retry_after: None,
        };
        let forbidden = ApiError::Forbidden {
            code: 50_001,
            message: String::new(),
        };
        for millis in 0..4 {
            limits.update(LIST, "l", None, Err(&blocked), at(millis));
            limits.update(guild(1), "g/1", None, Err(&forbidden), at(millis));
        }
        assert_eq!(limits.breaker().until, Until::after(300_000, at(0)));
        assert_eq!(limits.admit(guild(1), "g/1", at(300_000)), Admission::Go);
    }

    #[test]
    fn refused_requests_are_rationed() {
        let mut limits = Limits::new(1_000, 3);
        let refused = ApiError::NotFound {
            code: 10_004,
            message: String::new(),
        };
        for n in 0..10 {
            limits.update(guild(n), &format!("g/{n}"), None, Err(&refused), at(0));
        }
        assert_eq!(
            limits.admit(LIST, "l", at(1)),
            Admission::Go,
            "404 does not count"
        );
        let forbidden = ApiError::Forbidden {
            code: 50_001,
            message: String::new(),
        };
        for n in 0..3 {
            limits.update(guild(n), &format!("g/{n}"), None, Err(&forbidden), at(10));
        }
        let held = limits.admit(LIST, "l", at(11));
        assert!(
            matches!(held, Admission::Hold { until, .. } if until == at(600_010)),
            "{held:?}"
        );
        assert_eq!(limits.admit(LIST, "l", at(600_010)), Admission::Go);
    }

    #[test]
    fn forbidden_route_backs_off_longer_until_permitted() {
        let mut limits = limits();
        let forbidden = ApiError::Forbidden {
            code: 50_001,
            message: String::new(),
        };
        let mut now = at(0);
        for minutes in [5, 10, 20, 40, 60, 60] {
            limits.update(guild(1), "g/1", None, Err(&forbidden), now);
            let until = now.plus_secs(minutes * 60);
            let held = limits.admit(guild(1), "g/1", until.plus_millis(-1));
            assert!(matches!(held, Admission::Hold { .. }), "{minutes}: {held:?}");
            assert_eq!(limits.admit(guild(2), "g/2", now), Admission::Go);
            now = until;
        }
        limits.clear_holds();
        assert_eq!(limits.admit(guild(1), "g/1", now), Admission::Go);
    }
}
