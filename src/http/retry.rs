//! When to retry: only where the result may change, a bounded number of times, with capped full-jitter backoff.

use std::time::Duration;

use super::{Answer, HttpError};
use crate::clock::Chance;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Upper bound of the first wait; it doubles with each attempt.
    pub base: Duration,
    /// Upper bound of any backoff of our own.
    pub cap: Duration,
    /// The longest wait requested by the platform that is accepted.
    pub patience: Duration,
}

impl Retries {
    /// For requests that change nothing.
    pub const READ: Self = Self {
        attempts: 3,
        base: Duration::from_millis(400),
        cap: Duration::from_secs(5),
        patience: Duration::from_mins(1),
    };

    /// Returns how long to wait before the attempt after `attempt` (which is counted from 1), or `None` to give up.
    pub fn wait_after(
        &self,
        attempt: u32,
        outcome: &Result<Answer, HttpError>,
        chance: &Chance,
    ) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        match outcome {
            Err(error) => error.is_retryable().then(|| self.backoff(attempt, chance)),
            Ok(answer) if answer.status == 429 || answer.status >= 500 => match answer.requested_wait() {
                Some(asked) if asked > self.patience => None,
                Some(asked) => Some(asked + self.backoff(1, chance)),
                None => Some(self.backoff(attempt, chance)),
            },
            Ok(_) => None,
        }
    }

    /// Returns a random wait up to `base` doubled `attempt - 1` times, at most `cap`.
    pub fn backoff(&self, attempt: u32, chance: &Chance) -> Duration {
        let doubled = self.base.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(self.cap).mul_f64(chance.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;

    #[expect(clippy::unnecessary_wraps, reason = "it stands beside failures in tables")]
    fn answer(status: u16, retry_after: Option<&str>) -> Result<Answer, HttpError> {
        let headers: Vec<_> = retry_after.iter().map(|text| ("retry-after", *text)).collect();
        Ok(Answer::made_up(status, &headers, ""))
    }

    fn network(code: Code) -> Result<Answer, HttpError> {
        Err(HttpError::Network {
            code,
            reason: String::new(),
            never_sent: false,
        })
    }

    #[test]
    fn only_answers_that_may_change_are_asked_for_again() {
        let chance = Chance::seeded(7);
        for (outcome, again) in [
            (answer(200, None), false),
            (answer(401, None), false),
            (answer(404, None), false),
            (answer(429, None), true),
            (answer(500, None), true),
            (answer(503, Some("1")), true),
            (answer(429, Some("3600")), false),
            (network(Code::NetworkTimeout), true),
            (network(Code::NetworkReset), true),
            (network(Code::NetworkTls), false),
            (
                Err(HttpError::TooLarge {
                    limit: 1,
                    status: 200,
                }),
                false,
            ),
        ] {
            assert_eq!(
                Retries::READ.wait_after(1, &outcome, &chance).is_some(),
                again,
                "{outcome:?}"
            );
            assert_eq!(Retries::READ.wait_after(3, &outcome, &chance), None);
        }
    }

    #[test]
    fn waits_are_jittered_capped_and_never_shorter_than_asked() {
        let chance = Chance::seeded(3);
        let policy = Retries {
            attempts: 40,
            ..Retries::READ
        };
        for attempt in 1..39 {
            let own = policy.wait_after(attempt, &answer(500, None), &chance).unwrap();
            assert!(own <= policy.cap);
            let asked = policy
                .wait_after(attempt, &answer(429, Some("7")), &chance)
                .unwrap();
            assert!(asked >= Duration::from_secs(7) && asked <= Duration::from_secs(8));
        }
        let spread: Vec<_> = (0..20).map(|_| policy.backoff(5, &chance)).collect();
        assert!(spread.iter().any(|wait| *wait < policy.cap / 2));
        assert!(spread.iter().any(|wait| *wait > policy.cap / 2));
    }
}
