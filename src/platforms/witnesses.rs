//! Whether the failure of one question is the link's: not while another question is answered over the same link.
//!
//! All sources of a platform share one link to its API. The questions that are asked of all of them all the time are its
//! witnesses; what one of them fails to answer is held against the link only when no other speaks for it (our decision 33).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::PlatformError;
use crate::core::time::Timestamp;

/// For so long (ms) an answer speaks for the link: several intervals of the usual schedules. A question that nobody asks any
/// more must not vouch for ever.
const VOUCHES_FOR: i64 = 300_000;

/// What each witness said last.
#[derive(Debug, Default)]
pub struct Witnesses(Mutex<BTreeMap<&'static str, Word>>);

#[derive(Debug, Clone, Copy)]
struct Word {
    at: Timestamp,
    answered: bool,
}

impl Witnesses {
    /// Notes that `question` was answered.
    pub fn answered(&self, question: &'static str, at: Timestamp) {
        self.lock().insert(question, Word { at, answered: true });
    }

    /// Notes that `question` was not answered for anybody.
    pub fn failed(&self, question: &'static str, at: Timestamp) {
        self.lock().insert(question, Word { at, answered: false });
    }

    /// Notes that the link itself failed: what was answered before says nothing of what comes after.
    pub fn link_failed(&self, at: Timestamp) {
        for word in self.lock().values_mut() {
            word.answered &= word.at > at;
        }
    }

    /// Returns whether anything but `question` was answered when it was last asked, and lately.
    pub fn vouch_against(&self, question: &str, now: Timestamp) -> bool {
        let words = self.lock();
        let mut others = words.iter().filter(|(other, _)| **other != question);
        others.any(|(_, word)| word.answered && now.millis_since(word.at) < VOUCHES_FOR)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Word>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a failure with this code is of the way to the platform: nothing was ever sent to it.
pub fn is_of_the_way(code: &str) -> bool {
    matches!(code, "network.connect" | "network.dns" | "network.tls")
}

impl PlatformError {
    /// Returns whether the failure would meet any question: nothing was sent, because there is no way to the platform or
    /// nobody who may ask.
    pub fn concerns_every_question(&self) -> bool {
        match self {
            Self::Unauthorized { .. } | Self::NotConfigured { .. } | Self::TokenStore { .. } => true,
            Self::Unavailable { code, .. } => is_of_the_way(code),
            Self::Forbidden { .. }
            | Self::RateLimited { .. }
            | Self::Unreadable { .. }
            | Self::Rejected { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::PlatformName;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    #[test]
    fn only_another_question_vouches_only_by_its_newest_word_and_not_for_ever() {
        let witnesses = Witnesses::default();
        let vouch = |question, seconds| witnesses.vouch_against(question, at(seconds));
        assert!(!vouch("streams", 0), "nobody was asked");
        witnesses.answered("streams", at(0));
        assert!(!vouch("streams", 1), "nobody vouches for himself");
        assert!(vouch("users", 1));
        witnesses.answered("users", at(10));
        assert!(vouch("streams", 309));
        assert!(!vouch("streams", 310));
        witnesses.failed("users", at(40));
        assert!(!vouch("streams", 41), "the newest word counts");
        assert!(vouch("users", 41));
        // Dated ahead of our clock, by the platform's.
        witnesses.answered("users", at(60));
        assert!(vouch("streams", 50));
        witnesses.link_failed(at(59));
        assert!(vouch("streams", 61), "it was answered after that");
        witnesses.link_failed(at(60));
        assert!(!vouch("streams", 61));
    }

    #[test]
    fn a_failure_of_the_way_or_of_the_caller_meets_every_question() {
        let platform = PlatformName::Twitch;
        let (operation, reason) = ("the list", String::new);
        let unavailable = |code: &str| PlatformError::Unavailable {
            platform,
            operation,
            reason: reason(),
            code: code.to_owned(),
        };
        for error in [
            unavailable("network.connect"),
            unavailable("network.dns"),
            unavailable("network.tls"),
            PlatformError::Unauthorized {
                platform,
                reason: reason(),
            },
            PlatformError::NotConfigured {
                platform,
                what: reason(),
            },
            PlatformError::TokenStore {
                platform,
                reason: reason(),
            },
        ] {
            assert!(error.concerns_every_question(), "{error:?}");
        }
        for error in [
            unavailable("network.timeout"),
            unavailable("network.reset"),
            unavailable("http.500"),
            unavailable("http.html"),
            PlatformError::RateLimited {
                platform,
                retry_after: None,
            },
            PlatformError::Unreadable {
                platform,
                operation,
                reason: reason(),
            },
            PlatformError::Forbidden {
                platform,
                operation,
                reason: reason(),
            },
            PlatformError::Rejected {
                platform,
                operation,
                status: 404,
                reason: reason(),
            },
        ] {
            assert!(!error.concerns_every_question(), "{error:?}");
        }
    }
}
