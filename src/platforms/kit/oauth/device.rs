//! What the answers to a device code mean. Pure.
//!
//! Twitch documents `authorization_pending` and `invalid device code`; the other names are those of RFC 8628, section 3.5.

use std::time::Duration;

use super::provider::GrantError;

/// How often a code may be reported as invalid before its time is over: Twitch has done so before the user had confirmed it
/// (<https://github.com/twitchdev/issues/issues/971>).
const TOLERATED_INVALID: u32 = 3;
/// How many requests in a row may stay unanswered.
const TOLERATED_SILENCE: u32 = 5;
/// How much longer the interval gets when the platform asks for fewer requests (RFC 8628, section 3.5).
const SLOWER: Duration = Duration::from_secs(5);

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
    pub interval: Duration,
    invalid: u32,
    silent: u32,
}

impl Polling {
    /// Starts with the interval that the platform requests.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            invalid: 0,
            silent: 0,
        }
    }

    /// Decides what follows from an error.
    pub fn after(&mut self, error: &GrantError) -> Step {
        let words = match error {
            GrantError::NotGranted(words) => words.to_ascii_lowercase(),
            GrantError::NoEffect(_) | GrantError::Lost(_) | GrantError::Foreign(_) => {
                self.silent += 1;
                return if self.silent > TOLERATED_SILENCE {
                    Step::Fail
                } else {
                    Step::Wait
                };
            }
            GrantError::Gone(_) | GrantError::ClientRejected(_) => return Step::Fail,
        };
        self.silent = 0;
        let says = |text: &str| words.contains(text);
        if says("authorization_pending") {
            Step::Wait
        } else if says("slow_down") {
            self.interval += SLOWER;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::PlatformName;
    use crate::platforms::PlatformError;

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
        let mut polling = polling();
        polling.after(&says("slow_down"));
        polling.after(&says("authorization_pending"));
        assert_eq!(polling.interval, Duration::from_secs(10));
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
    fn short_outage_while_waiting_ends_no_login() {
        let silence = || {
            GrantError::NoEffect(PlatformError::RateLimited {
                platform: PlatformName::Twitch,
                retry_after: None,
            })
        };
        let mut polling = polling();
        for _ in 0..TOLERATED_SILENCE {
            assert_eq!(polling.after(&silence()), Step::Wait);
        }
        assert_eq!(polling.after(&says("authorization_pending")), Step::Wait);
        for _ in 0..TOLERATED_SILENCE {
            assert_eq!(polling.after(&silence()), Step::Wait);
        }
        assert_eq!(polling.after(&silence()), Step::Fail);
    }
}
