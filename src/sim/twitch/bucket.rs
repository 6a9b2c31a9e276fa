//! Helix's rate limit: a bucket of points per application, or per application and user, refilled continuously.

use std::collections::HashMap;

use crate::core::time::Timestamp;

/// Points in a full bucket, and points refilled per minute, unless changed by a knob.
pub(super) const USUAL: u32 = 800;

/// All buckets, by application and (for user tokens) user.
#[derive(Debug, Default)]
pub(super) struct Buckets(HashMap<(String, Option<String>), Bucket>);

#[derive(Debug)]
struct Bucket {
    points: f64,
    at: Timestamp,
}

/// State of a bucket after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Milliseconds until the bucket is full again.
    pub(super) full_in_ms: i64,
    /// Whether the request was within the limit.
    pub(super) granted: bool,
}

impl Buckets {
    /// Takes one point from the bucket of (`client`, `user`) if there is one left.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "points are between zero and the limit, times are minutes"
    )]
    pub(super) fn acquire(&mut self, client: &str, user: Option<&str>, limit: u32, now: Timestamp) -> Quota {
        let size = f64::from(limit);
        let key = (client.to_owned(), user.map(str::to_owned));
        let bucket = self.0.entry(key).or_insert(Bucket {
            points: size,
            at: now,
        });
        let elapsed = now.millis_since(bucket.at).max(0) as f64;
        bucket.points = (bucket.points + elapsed * size / 60_000.0).min(size);
        bucket.at = now;
        let granted = bucket.points >= 1.0;
        if granted {
            bucket.points -= 1.0;
        }
        Quota {
            limit,
            remaining: bucket.points as u32,
            full_in_ms: ((size - bucket.points) * 60_000.0 / size).ceil() as i64,
            granted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_allows_800_calls_then_refills_over_time() {
        let mut buckets = Buckets::default();
        let now = Timestamp::EPOCH;
        for used in 1..=USUAL {
            let quota = buckets.acquire("app", None, USUAL, now);
            assert!(quota.granted && quota.remaining == USUAL - used);
        }
        assert_eq!(
            buckets.acquire("app", None, USUAL, now),
            Quota {
                limit: 800,
                remaining: 0,
                full_in_ms: 60_000,
                granted: false
            }
        );
        assert!(
            buckets.acquire("app", Some("1"), USUAL, now).granted,
            "users have buckets of their own"
        );
        assert!(!buckets.acquire("app", None, USUAL, now.plus_millis(74)).granted);
        assert!(buckets.acquire("app", None, USUAL, now.plus_millis(76)).granted);
        assert_eq!(
            buckets.acquire("app", None, USUAL, now.plus_secs(300)).remaining,
            799
        );
    }
}
