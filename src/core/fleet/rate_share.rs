//! A member's share of a rate limit that all members use.
//!
//! The shares of all members add up to the limit, and a change of the members creates no tokens: a new or larger share starts with
//! the tokens that it had, and a smaller one keeps at most its new capacity. So the fleet never sends more than the limit allows.

use std::time::Duration;

/// A token bucket with a part of a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct RateShare {
    /// Requests of all members together, per period.
    limit: f64,
    period: Duration,
    members: u32,
    tokens: f64,
    updated: Duration,
}

impl RateShare {
    /// Creates the share of one of `members`, without tokens. `now` is a time since any fixed moment.
    pub fn empty(limit: f64, period: Duration, members: u32, now: Duration) -> Self {
        Self {
            limit,
            period,
            members: members.max(1),
            tokens: 0.0,
            updated: now,
        }
    }

    /// The number of requests that may be sent at once.
    pub fn capacity(&self) -> f64 {
        self.limit / f64::from(self.members)
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.updated);
        let part = passed.as_secs_f64() / self.period.as_secs_f64();
        self.tokens = (self.tokens + part * self.capacity()).min(self.capacity());
        self.updated = self.updated.max(now);
    }

    /// Changes the number of members that divide the limit.
    pub fn divide(&mut self, members: u32, now: Duration) {
        self.refill(now);
        self.members = members.max(1);
        self.tokens = self.tokens.min(self.capacity());
    }

    /// Applies a limit that the server reports.
    pub fn resize(&mut self, limit: f64, now: Duration) {
        self.refill(now);
        self.limit = limit.max(1.0);
        self.tokens = self.tokens.min(self.capacity());
    }

    /// Takes a token, or returns how long to wait for one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - self.tokens) * self.period.as_secs_f64() / self.capacity();
        Err(Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// The server's own bucket.
    struct Server {
        tokens: f64,
        updated: Duration,
    }

    impl Server {
        fn accepts(&mut self, now: Duration) -> bool {
            let passed = now.saturating_sub(self.updated).as_secs_f64();
            self.tokens = (self.tokens + passed * 800.0 / 60.0).min(800.0);
            self.updated = now;
            // The last bits of two sums differ.
            let accepts = self.tokens >= 1.0 - 1e-6;
            self.tokens -= 1.0;
            accepts
        }
    }

    /// Greedy members: each sends as soon as it can.
    fn rejected(changes: &[(u16, u8)]) -> (u32, u32) {
        let mut now = Duration::ZERO;
        let mut server = Server {
            tokens: 800.0,
            updated: now,
        };
        let mut shares = vec![RateShare::empty(800.0, MINUTE, 1, now)];
        let (mut rejected, mut sent) = (0, 0);
        for (wait, members) in changes {
            let until = now + Duration::from_millis(u64::from(*wait));
            while now < until {
                for share in &mut shares {
                    while share.take(now).is_ok() {
                        sent += 1;
                        rejected += u32::from(!server.accepts(now));
                    }
                }
                now += Duration::from_millis(50);
            }
            // Those that stay keep what they have; new ones start empty.
            let count = u32::from(*members);
            shares.truncate(usize::from(*members));
            for share in &mut shares {
                share.divide(count, now);
            }
            shares.resize(usize::from(*members), RateShare::empty(800.0, MINUTE, count, now));
        }
        (rejected, sent)
    }

    proptest! {
        #[test]
        fn sum_of_the_shares_never_exceeds_the_limit(
            changes in proptest::collection::vec((0..20_000_u16, 1..6_u8), 1..15)
        ) {
            prop_assert_eq!(rejected(&changes).0, 0);
        }
    }

    #[test]
    fn members_together_use_nearly_the_whole_limit() {
        let changes: Vec<_> = (0..40).map(|index| (15_000, 3 + index % 2)).collect();
        let (rejected, sent) = rejected(&changes);
        assert_eq!(rejected, 0);
        // Ten minutes, of 8,000 possible.
        assert!(sent > 7_000, "{sent}");
    }

    #[test]
    fn lower_limit_of_the_server_takes_tokens_away() {
        let mut share = RateShare::empty(800.0, MINUTE, 4, Duration::ZERO);
        share.resize(4.0, MINUTE);
        assert_eq!(share.take(MINUTE), Ok(()));
        assert!(share.take(MINUTE).is_err());
    }
}
