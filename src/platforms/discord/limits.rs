//! How often Discord may be asked: buckets per route, the global limit, and the restraint that keeps an address from being
//! banned. Pure: it says go, wait or leave it, and learns from what came back.
//!
//! Nothing about a bucket is known beforehand; Discord tells it in headers and may change it at any time. What is fixed
//! is ours: the pace, which stays well below the global 50 requests a second, and a share of the 10,000 invalid requests in
//! 10 minutes that all bots of one address have together.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::answer::{ApiError, BucketNews};
use crate::core::time::Timestamp;

/// The window in which Discord counts invalid requests (ms).
const INVALID_WINDOW: i64 = 600_000;
/// First pause after Cloudflare turned us away without saying for how long, and the longest (ms).
const EDGE_PAUSE: (i64, i64) = (300_000, 3_600_000);
/// First pause after a resource was forbidden, and the longest (ms).
const RESOURCE_PAUSE: (i64, i64) = (300_000, 3_600_000);
/// Resets that lie closer together than this are one (ms).
const SAME_WINDOW: i64 = 250;
/// Buckets and resources remembered before expired ones are swept out.
const SWEEP_AT: usize = 4_096;

/// What a request is counted as: a kind of request, and the guild or channel whose limit it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// The path with its parameters left out.
    pub template: &'static str,
    /// The guild or channel that it is about, if any.
    pub top: Option<u64>,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// Now; it has been counted.
    Go,
    /// Ask again then.
    Wait(Timestamp),
    /// Not in the foreseeable future.
    Hold {
        /// Not before.
        until: Timestamp,
        /// Why.
        reason: &'static str,
    },
}

/// What is known about Discord's limits and our standing.
#[derive(Debug)]
pub struct Limits {
    per_second: usize,
    invalid_budget: usize,
    /// The bucket that a route was last seen in. Buckets are named without the guild or channel.
    buckets_of: HashMap<&'static str, String>,
    buckets: HashMap<(String, Option<u64>), Bucket>,
    global: Option<Until>,
    sent: VecDeque<Timestamp>,
    invalid: VecDeque<Timestamp>,
    edge: Breaker,
    resources: HashMap<String, Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    remaining: u32,
    reset: Until,
}

/// The end of a wait, and how long it was to be: a clock that was set back must not make it longer.
#[derive(Debug, Clone, Copy)]
struct Until {
    at: Timestamp,
    span: i64,
}

impl Until {
    fn after(span: i64, now: Timestamp) -> Self {
        Self {
            at: now.plus_millis(span),
            span,
        }
    }

    /// Returns when it ends, unless it has.
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
struct Pause {
    until: Timestamp,
    /// How long it will be next time (ms).
    next: i64,
}

/// Whether Cloudflare has turned this address away, and how often in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Closed again from then on.
    pub until: Timestamp,
    /// Times in a row.
    pub strikes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            until: Timestamp::EPOCH,
            strikes: 0,
        }
    }
}

impl Limits {
    /// Starts with nothing known. `per_second` bounds our own pace; after `invalid_budget` invalid requests in 10 minutes
    /// nothing more is sent until some of them are that long ago.
    pub fn new(per_second: u32, invalid_budget: u32) -> Self {
        let size = |count: u32| usize::try_from(count.max(1)).unwrap_or(usize::MAX);
        Self {
            per_second: size(per_second),
            invalid_budget: size(invalid_budget),
            buckets_of: HashMap::new(),
            buckets: HashMap::new(),
            global: None,
            sent: VecDeque::new(),
            invalid: VecDeque::new(),
            edge: Breaker::default(),
            resources: HashMap::new(),
        }
    }

    /// Asks for permission to request `resource` (the path) as `route`.
    pub fn admit(&mut self, route: Route, resource: &str, now: Timestamp) -> Admission {
        let hold = |until, reason| Admission::Hold { until, reason };
        if self.edge.until > now {
            return hold(self.edge.until, "Cloudflare turned this address away");
        }
        forget(&mut self.invalid, now, INVALID_WINDOW);
        if self.invalid.len() >= self.invalid_budget {
            let oldest = self.invalid.front().copied().unwrap_or(now);
            return hold(
                oldest.plus_millis(INVALID_WINDOW),
                "too many requests were refused lately, and Discord bans addresses for that",
            );
        }
        if let Some(pause) = self.resources.get(resource).filter(|pause| pause.until > now) {
            return hold(pause.until, "this was forbidden a short while ago");
        }
        if let Some(until) = self.global.and_then(|until| until.pending(now)) {
            return Admission::Wait(until);
        }
        forget(&mut self.sent, now, 1_000);
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

    /// Learns from the answer to a request that was sent.
    pub fn learn(
        &mut self,
        route: Route,
        resource: &str,
        news: Option<BucketNews>,
        outcome: Result<(), &ApiError>,
        now: Timestamp,
    ) {
        if let Some(news) = news {
            self.learn_bucket(route, news, now);
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
            ApiError::EdgeBlocked { retry_after, .. } => {
                let pause = retry_after.map_or_else(
                    || {
                        EDGE_PAUSE
                            .0
                            .saturating_mul(1 << self.edge.strikes.min(10))
                            .min(EDGE_PAUSE.1)
                    },
                    millis,
                );
                self.edge.strikes = self.edge.strikes.saturating_add(1);
                self.edge.until = self.edge.until.max(now.plus_millis(pause));
            }
            ApiError::Forbidden { .. } => {
                if self.resources.len() >= SWEEP_AT {
                    self.resources.retain(|_, pause| pause.until > now);
                }
                let pause = self.resources.entry(resource.to_owned()).or_insert(Pause {
                    until: now,
                    next: RESOURCE_PAUSE.0,
                });
                pause.until = now.plus_millis(pause.next);
                pause.next = (pause.next * 2).min(RESOURCE_PAUSE.1);
            }
            _ => {}
        }
    }

    /// Forgets that anything was forbidden; for when the guild's rules have changed.
    pub fn forgive(&mut self) {
        self.resources.clear();
    }

    /// Returns how many more requests may be refused before nothing is sent for a while, and how many in all.
    pub fn refusals_left(&mut self, now: Timestamp) -> (usize, usize) {
        forget(&mut self.invalid, now, INVALID_WINDOW);
        let left = self.invalid_budget.saturating_sub(self.invalid.len());
        (left, self.invalid_budget)
    }

    /// Returns the state of the breaker, to be kept for the next process.
    pub fn breaker(&self) -> Breaker {
        self.edge
    }

    /// Takes over the state of the breaker from an earlier process.
    pub fn set_breaker(&mut self, breaker: Breaker) {
        self.edge = breaker;
    }

    fn bucket_of(&mut self, route: Route) -> Option<&mut Bucket> {
        let name = self.buckets_of.get(route.template)?;
        self.buckets.get_mut(&(name.clone(), route.top))
    }

    fn learn_bucket(&mut self, route: Route, news: BucketNews, now: Timestamp) {
        if self.buckets.len() >= SWEEP_AT {
            self.buckets
                .retain(|_, bucket| bucket.reset.pending(now).is_some());
        }
        self.buckets_of.insert(route.template, news.bucket.clone());
        let reset = Until::after(millis(news.reset_after), now);
        let bucket = self.buckets.entry((news.bucket, route.top)).or_insert(Bucket {
            remaining: news.remaining,
            reset,
        });
        // Within one window answers may overtake each other; the lowest count is the newest.
        let same = reset.at.millis_since(bucket.reset.at).abs() < SAME_WINDOW;
        bucket.remaining = if same {
            bucket.remaining.min(news.remaining)
        } else {
            news.remaining
        };
        bucket.reset = reset;
    }
}

fn forget(times: &mut VecDeque<Timestamp>, now: Timestamp, window: i64) {
    // A clock that was set back must not keep old entries for ever.
    while times
        .front()
        .is_some_and(|at| now.millis_since(*at) >= window || *at > now.plus_millis(window))
    {
        times.pop_front();
    }
}

fn millis(duration: Duration) -> i64 {
    // Rounded up: a wait that ends a fraction early is one more refused request.
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

    fn news(bucket: &str, remaining: u32, millis: u64) -> BucketNews {
        BucketNews {
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
        limits.learn(guild(1), "g/1", Some(news("ab", 0, 750)), Ok(()), at(0));
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
        limits.learn(guild(1), "g/1", Some(news("ab", 5, 1_000)), Ok(()), at(0));
        limits.learn(roles, "g/1/roles", Some(news("ab", 1, 1_000)), Ok(()), at(0));
        assert_eq!(limits.admit(roles, "g/1/roles", at(10)), Admission::Go);
        assert_eq!(limits.admit(guild(1), "g/1", at(20)), Admission::Wait(at(1_000)));
    }

    #[test]
    fn requests_on_their_way_are_counted_before_they_are_answered() {
        let mut limits = limits();
        limits.learn(LIST, "l", Some(news("ab", 2, 5_000)), Ok(()), at(0));
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
        limits.learn(LIST, "l", None, Err(&limited), at(0));
        assert_eq!(limits.admit(guild(1), "g/1", at(1)), Admission::Wait(at(1_337)));
        assert_eq!(limits.admit(guild(1), "g/1", at(1_337)), Admission::Go);
    }

    #[test]
    fn our_own_pace_is_kept() {
        let mut limits = Limits::new(3, 100);
        let burst: Vec<_> = (0..4).map(|n| limits.admit(LIST, "l", at(n))).collect();
        assert_eq!(burst[..3], [Admission::Go, Admission::Go, Admission::Go]);
        assert_eq!(burst[3], Admission::Wait(at(1_000)));
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_no_wait() {
        let mut limits = limits();
        limits.learn(guild(1), "g/1", Some(news("ab", 0, 750)), Ok(()), at(0));
        assert_eq!(limits.admit(guild(1), "g/1", at(-900_000)), Admission::Go);
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
            limits.learn(LIST, "l", None, Err(&blocked(None)), now);
            let until = now.plus_secs(minutes * 60);
            let held = limits.admit(guild(1), "g/1", now.plus_millis(1));
            assert!(
                matches!(held, Admission::Hold { until: told, .. } if told == until),
                "{minutes}: {held:?}"
            );
            assert_eq!(limits.admit(guild(1), "g/1", until), Admission::Go);
            now = until;
        }
        limits.learn(LIST, "l", None, Ok(()), now);
        limits.learn(LIST, "l", None, Err(&blocked(Some(Duration::from_secs(7)))), now);
        assert_eq!(limits.breaker().until, now.plus_secs(7), "its own word counts");
    }

    #[test]
    fn refused_requests_are_rationed() {
        let mut limits = Limits::new(1_000, 3);
        let refused = ApiError::NotFound {
            code: 10_004,
            message: String::new(),
        };
        for n in 0..10 {
            limits.learn(guild(n), &format!("g/{n}"), None, Err(&refused), at(0));
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
            limits.learn(guild(n), &format!("g/{n}"), None, Err(&forbidden), at(10));
        }
        let held = limits.admit(LIST, "l", at(11));
        assert!(
            matches!(held, Admission::Hold { until, .. } if until == at(600_010)),
            "{held:?}"
        );
        assert_eq!(limits.admit(LIST, "l", at(600_010)), Admission::Go);
    }

    #[test]
    fn what_is_forbidden_is_left_alone_longer_each_time_until_it_is_allowed() {
        let mut limits = limits();
        let forbidden = ApiError::Forbidden {
            code: 50_001,
            message: String::new(),
        };
        let mut now = at(0);
        for minutes in [5, 10, 20, 40, 60, 60] {
            limits.learn(guild(1), "g/1", None, Err(&forbidden), now);
            let until = now.plus_secs(minutes * 60);
            let held = limits.admit(guild(1), "g/1", until.plus_millis(-1));
            assert!(matches!(held, Admission::Hold { .. }), "{minutes}: {held:?}");
            assert_eq!(limits.admit(guild(2), "g/2", now), Admission::Go);
            now = until;
        }
        limits.forgive();
        assert_eq!(limits.admit(guild(1), "g/1", now), Admission::Go);
    }
}
