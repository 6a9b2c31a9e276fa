//! Decides whether the failure of one kind of probe is a failure of the link: not while another probe succeeds over the same
//! link.
//!
//! All sources of a platform share one link to its API. A failed probe counts against the link only when no other regularly
//! repeated probe succeeded recently (decision 33).

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::core::time::Timestamp;

/// How long (ms) a successful probe counts as proof that the link works: several intervals of the default schedules. A probe that
/// is no longer scheduled must not count forever.
const PROOF_LIFETIME: Duration = Duration::from_mins(5);

/// The newest result of each kind of probe.
#[derive(Debug, Default)]
pub struct LinkHealth(Mutex<BTreeMap<&'static str, LastAnswer>>);

#[derive(Debug, Clone, Copy)]
struct LastAnswer {
    at: Timestamp,
    answered: bool,
}

impl LinkHealth {
    /// Records that `request` was answered.
    pub fn answered(&self, request: &'static str, at: Timestamp) {
        self.0.lock().insert(request, LastAnswer { at, answered: true });
    }

    /// Records that `request` was not answered for any source.
    pub fn failed(&self, request: &'static str, at: Timestamp) {
        self.0.lock().insert(request, LastAnswer { at, answered: false });
    }

    /// Records that the link itself failed: earlier answers no longer prove that it works.
    pub fn link_failed(&self, at: Timestamp) {
        for last_answer in self.0.lock().values_mut() {
            last_answer.answered &= last_answer.at > at;
        }
    }

    /// Returns whether anything other than `request` was answered at its last attempt, and recently.
    pub fn another_probe_succeeded(&self, request: &str, now: Timestamp) -> bool {
        let results = self.0.lock();
        let mut others = results.iter().filter(|(other, _)| **other != request);
        others.any(|(_, last_answer)| last_answer.answered && now.since(last_answer.at) < PROOF_LIFETIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::source::PlatformName;
    use crate::platforms::PlatformError;
    use crate::platforms::kit::answer::Asked;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    #[test]
    fn only_recent_success_of_another_probe_proves_the_link() {
        let link_health = LinkHealth::default();
        let another_succeeded = |request, seconds| link_health.another_probe_succeeded(request, at(seconds));
        assert!(!another_succeeded("streams", 0), "no request was sent");
        link_health.answered("streams", at(0));
        assert!(!another_succeeded("streams", 1), "its own answer proves nothing");
        assert!(another_succeeded("users", 1));
        link_health.answered("users", at(10));
        assert!(another_succeeded("streams", 309));
        assert!(!another_succeeded("streams", 310));
        link_health.failed("users", at(40));
        assert!(!another_succeeded("streams", 41), "the newest result counts");
        assert!(another_succeeded("users", 41));
        // The platform's clock dates this ahead of ours.
        link_health.answered("users", at(60));
        assert!(another_succeeded("streams", 50));
        link_health.link_failed(at(59));
        assert!(another_succeeded("streams", 61), "it was answered after that");
        link_health.link_failed(at(60));
        assert!(!another_succeeded("streams", 61));
    }

    #[test]
    fn failure_before_sending_affects_every_request() {
        let platform = PlatformName::Twitch;
        let (asked, reason) = (Asked::new(platform, "the list"), String::new);
        for error in [
            asked.unavailable(Code::NetworkConnect, reason()),
            asked.unavailable(Code::NetworkDns, reason()),
            asked.unavailable(Code::NetworkTls, reason()),
            PlatformError::unauthorized(platform, reason()),
            PlatformError::not_configured(platform, reason()),
            PlatformError::TokenStore {
                platform,
                reason: reason(),
            },
        ] {
            assert!(error.affects_every_request(), "{error:?}");
        }
        for error in [
            asked.unavailable(Code::NetworkTimeout, reason()),
            asked.unavailable(Code::NetworkReset, reason()),
            asked.unavailable(Code::Http(500), reason()),
            asked.unavailable(Code::HttpWebPage, reason()),
            PlatformError::rate_limited(platform, None),
            asked.unreadable(reason()),
            asked.forbidden(reason()),
            asked.rejected(404, reason()),
        ] {
            assert!(!error.affects_every_request(), "{error:?}");
        }
    }
}
