//! Discord's rate limits: a bucket per route and guild or channel, one global limit, and the ban for too many
//! refused requests.

use std::collections::{HashMap, VecDeque};

use super::knobs::Knobs;
use crate::core::time::Timestamp;
use crate::sim::kit;

/// The window in which refused requests are counted (ms).
const INVALID_WINDOW: i64 = 600_000;
/// How long Cloudflare bans an IP address (ms). Discord documents no figure; about an hour has been reported.
const BAN: i64 = 3_600_000;

/// All limits of one IP address and one bot.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    buckets: HashMap<(&'static str, u64), Bucket>,
    recent: VecDeque<Timestamp>,
    refused: VecDeque<Timestamp>,
    banned_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Bucket {
    used: u32,
    reset: Timestamp,
}

/// Result of a request with regard to the limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Admission {
    /// Within its bucket.
    Granted(Remaining),
    BucketEmpty(Remaining),
    /// Too many requests in all; milliseconds to wait.
    TooMany(i64),
    Banned,
}

/// State of a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Remaining {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Milliseconds until the bucket is reset.
    pub(super) reset_after: i64,
}

impl RateLimit {
    /// Counts a request of `route` about `top` (a guild or channel, 0 for none).
    pub(super) fn acquire(
        &mut self,
        route: &'static str,
        top: u64,
        knobs: &Knobs,
        now: Timestamp,
    ) -> Admission {
        if self.banned_until.is_some_and(|until| until > now) {
            return Admission::Banned;
        }
        kit::forget(&mut self.recent, 1_000, now);
        if self.recent.len() >= knobs.global_per_second {
            let wait = self.recent.front().map_or(0, |at| 1_000 - now.millis_since(*at));
            return Admission::TooMany(wait);
        }
        self.recent.push_back(now);
        let fresh = || Bucket {
            used: 0,
            reset: now.plus_millis(knobs.bucket_window_ms),
        };
        let bucket = self.buckets.entry((route, top)).or_insert_with(fresh);
        if bucket.reset <= now {
            *bucket = fresh();
        }
        let empty = bucket.used >= knobs.bucket;
        bucket.used = (bucket.used + 1).min(knobs.bucket);
        let room = Remaining {
            limit: knobs.bucket,
            remaining: knobs.bucket - bucket.used,
            reset_after: bucket.reset.millis_since(now),
        };
        if empty {
            Admission::BucketEmpty(room)
        } else {
            Admission::Granted(room)
        }
    }

    /// Counts a refused request (401, 403, 429 unless shared).
    pub(super) fn refused(&mut self, knobs: &Knobs, now: Timestamp) {
        self.refused.push_back(now);
        if self.invalid(now) >= knobs.invalid_limit {
            self.banned_until = Some(now.plus_millis(BAN));
        }
    }

    /// Returns how many requests were refused within the last ten minutes.
    pub(super) fn invalid(&self, now: Timestamp) -> usize {
        let recent = |at: &&Timestamp| now.millis_since(**at) < INVALID_WINDOW;
        self.refused.iter().filter(recent).count()
    }
}
