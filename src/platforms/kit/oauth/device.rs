//! What the answers to a device code mean. Pure.
//!
//! Twitch documents `authorization_pending` and `invalid device code`; the other names are those of RFC 8628, section 3.5.

use std::time::Duration;

use super::provider::GrantError;
use crate::platforms::PlatformError;

/// How often a code may be reported as invalid before its time is over: Twitch has done so before the user had confirmed it
/// (<https://github.com/twitchdev/issues/issues/971>).
const TOLERATED_INVALID: u32 = 3;
/// How much longer the interval gets when the platform asks for fewer requests (RFC 8628, section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// The longest wait, unless the platform requests a longer one: the user has confirmed the code and waits, too.
const LONGEST: Duration = Duration::from_secs(60);

/// What to do after a request for the token of a device code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for the interval and request it again.
    Wait,
    /// The code has expired.
    Expired,
    /// The user has declined.
    Declined,
    /// The platform no longer accepts the code, although its time is not over: it was declined, or used.
    Invalid,
    /// The request will not succeed.
    Fail,
}

/// The state of waiting for a user.
#[derive(Debug)]
pub struct Polling {
    /// The wait before the next request.
    pub delay: Duration,
    interval: Duration,
    invalid: u32,
    silent: u32,
}

impl Polling {
    /// Starts with the interval that the platform requests.
    pub fn new(interval: Duration) -> Self {
        Self {
            delay: interval,
            interval,
            invalid: 0,
            silent: 0,
        }
    }

    /// Returns whether the last request was the first of a series without an answer.
    pub fn is_first_silence(&self) -> bool {
        self.silent == 1
    }

    /// Decides what follows from an error. Without an answer the requests go on, ever more rarely, until the code expires.
    pub fn after(&mut self, error: &GrantError) -> Step {
        let words = match error {
            GrantError::NotGranted(words) => words.to_ascii_lowercase(),
            GrantError::NoEffect(error) | GrantError::Lost(error) | GrantError::Foreign(error) => {
                self.wait_longer(error);
                return Step::Wait;
            }
            GrantError::Gone(_) | GrantError::ClientRejected(_) => return Step::Fail,
        };
        self.silent = 0;
        self.delay = self.interval;
        let says = |text: &str| words.contains(text);
        if says("authorization_pending") {
            Step::Wait
        } else if says("slow_down") {
            self.slow_down();
            Step::Wait
        } else if says("expired_token") {
            Step::Expired
        } else if says("access_denied") {
            Step::Declined
        } else if says("invalid device code") {
            self.invalid += 1;
            if self.invalid > TOLERATED_INVALID {
                Step::Invalid
            } else {
                Step::Wait
            }
        } else {
            Step::Fail
        }
    }
}

impl Polling {
    fn slow_down(&mut self) {
        self.interval = (self.interval + SLOWER).min(LONGEST.max(self.interval));
        self.delay = self.interval;
    }

    fn wait_longer(&mut self, error: &PlatformError) {
        self.silent += 1;
        match error {
            PlatformError::RateLimited { retry_after, .. } => {
                self.slow_down();
                self.delay = self.delay.max(retry_after.unwrap_or_default());
            }
            // A connection without an answer says nothing about the rate.
            PlatformError::Unavailable { code, .. } if code.is_of_network() => {
                let doubled = self.interval.saturating_mul(1 << self.silent.min(6));
                self.delay = doubled.min(LONGEST).max(self.interval);
            }
            // A gateway's page may be its answer to too many requests.
            _ => self.slow_down(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::source::PlatformName;

    fn polling() -> Polling {
        Polling::new(Duration::from_secs(5))
    }

    fn says(words: &str) -> GrantError {
        GrantError::NotGranted(words.to_owned())
    }

    #[test]
    fn each_answer_to_a_device_code_has_its_step() {
        for (words, step) in [
            ("authorization_pending", Step::Wait),
            ("slow_down", Step::Wait),
            ("expired_token", Step::Expired),
            ("access_denied", Step::Declined),
            ("missing device_code", Step::Fail),
        ] {
            assert_eq!(polling().after(&says(words)), step, "{words}");
        }
        assert_eq!(
            polling().after(&GrantError::ClientRejected("invalid client".to_owned())),
            Step::Fail
        );
    }

    #[test]
    fn request_for_fewer_polls_lengthens_the_interval() {
        let limited = |retry_after| {
            GrantError::NoEffect(PlatformError::RateLimited {
                platform: PlatformName::Twitch,
                retry_after,
            })
        };
        let page = GrantError::Foreign(PlatformError::Unreadable {
            platform: PlatformName::Twitch,
            operation: "a token",
            reason: "status 403".to_owned(),
        });
        for (error, first, then) in [
            (says("slow_down"), 10, 10),
            (limited(None), 10, 10),
            (limited(Some(Duration::from_secs(90))), 90, 10),
            (page, 10, 10),
        ] {
            let mut polling = polling();
            assert_eq!(polling.after(&error), Step::Wait);
            assert_eq!(polling.delay, Duration::from_secs(first), "{error:?}");
            polling.after(&says("authorization_pending"));
            assert_eq!(polling.delay, Duration::from_secs(then), "{error:?}");
        }
    }

    #[test]
    fn code_reported_invalid_too_early_is_tolerated_three_times() {
        let mut polling = polling();
        let steps: Vec<_> = (0..4)
            .map(|_| polling.after(&says("invalid device code")))
            .collect();
        assert_eq!(steps, [Step::Wait, Step::Wait, Step::Wait, Step::Invalid]);
    }

    #[test]
    fn outage_while_waiting_ends_no_login() {
        let silence = GrantError::Lost(PlatformError::Unavailable {
            platform: PlatformName::Twitch,
            operation: "a token",
            reason: "timeout".to_owned(),
            code: Code::NetworkTimeout,
        });
        let mut polling = polling();
        let delays: Vec<_> = (0..6)
            .map(|_| {
                assert_eq!(polling.after(&silence), Step::Wait);
                polling.delay.as_secs()
            })
            .collect();
        assert_eq!(delays, [10, 20, 40, 60, 60, 60]);
        assert_eq!(polling.after(&says("authorization_pending")), Step::Wait);
        assert_eq!(polling.delay, Duration::from_secs(5));
    }
}
