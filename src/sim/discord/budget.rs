//! Discord's limits on requests: a bucket per route and guild or channel, one limit over all, and the ban for too many
//! refused ones.

use std::collections::{HashMap, VecDeque};

use super::world::Knobs;
use crate::core::time::Timestamp;

/// The window in which refused requests are counted (ms).
const INVALID_WINDOW: i64 = 600_000;
/// How long Cloudflare bans an address (ms). Discord tells no figure; about an hour has been reported.
const BAN: i64 = 3_600_000;

/// All limits of one address and one bot.
#[derive(Debug, Default)]
pub(super) struct Budget {
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

/// How a request stands with the limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Standing {
    /// Within its bucket.
    Granted(Room),
    /// The bucket is empty.
    BucketEmpty(Room),
    /// Too many requests in all; wait so many milliseconds.
    TooMany(i64),
    /// The address is banned.
    Banned,
}

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Room {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Milliseconds until the bucket is full again.
    pub(super) reset_after: i64,
}

impl Budget {
    /// Counts a request of `route` about `top` (a guild or channel, 0 for none).
    pub(super) fn take(&mut self, route: &'static str, top: u64, knobs: &Knobs, now: Timestamp) -> Standing {
        if self.banned_until.is_some_and(|until| until > now) {
            return Standing::Banned;
        }
        while self
            .recent
            .front()
            .is_some_and(|at| now.millis_since(*at) >= 1_000)
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= knobs.global_per_second {
            let wait = self.recent.front().map_or(0, |at| 1_000 - now.millis_since(*at));
            return Standing::TooMany(wait);
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
        let room = Room {
            limit: knobs.bucket,
            remaining: knobs.bucket - bucket.used,
            reset_after: bucket.reset.millis_since(now),
        };
        if empty {
            Standing::BucketEmpty(room)
        } else {
            Standing::Granted(room)
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
