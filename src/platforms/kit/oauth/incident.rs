//! Whether refused refresh tokens are revocations or an incident of the platform. Pure.
//!
//! Twitch has refused the refresh tokens of every user of public applications for some hours
//! (<https://github.com/twitchdev/issues/issues/1037>). One refusal is believed at once: a user has changed a password or has removed the
//! application. Users do not do that together, so from the second account within minutes on, a refusal counts only once it was
//! repeated after a pause. It counts at once where the platform has also rejected an access token that had not expired: two
//! endpoints then agree, and tokens that merely could not be refreshed look different.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::observation::Identity;
use crate::core::time::Timestamp;

/// Refusals of several accounts within this time belong together.
const WINDOW: Duration = Duration::from_mins(10);
/// Time after which a repeated refusal confirms the first.
pub(super) const PAUSE: Duration = Duration::from_mins(2);

/// The accounts of a platform whose refresh tokens were refused although nothing else is known against them.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Identity, Refusal>);

#[derive(Debug, Clone, Copy)]
struct Refusal {
    first: Timestamp,
    last: Timestamp,
    is_confirmed: bool,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The authorization is revoked.
    Revoked,
    /// So many accounts were refused that it may be an incident; the next refusal after the pause decides.
    Incident {
        /// How many.
        accounts: usize,
    },
}

impl Refusals {
    /// Notes a refusal.
    pub(super) fn note(&mut self, identity: &Identity, now: Timestamp) -> Meaning {
        let refusal = self.0.entry(identity.clone()).or_insert(Refusal {
            first: now,
            last: now,
            is_confirmed: false,
        });
        refusal.last = now;
        refusal.is_confirmed |= now.since(refusal.first) >= PAUSE;
        let is_confirmed = refusal.is_confirmed;
        self.0
            .retain(|known, refusal| known == identity || refusal.last.is_recent(WINDOW, now));
        if is_confirmed || self.0.len() < 2 {
            return Meaning::Revoked;
        }
        Meaning::Incident {
            accounts: self.0.len(),
        }
    }

    /// Returns whether the refusal of an account, which counted as a revocation at `at`, turned out to be one of several and is to be
    /// confirmed now.
    pub(super) fn reopens(&self, identity: &Identity, at: Timestamp, now: Timestamp) -> bool {
        let own = self.0.get(identity);
        let others = self.0.iter().filter(|(other, refusal)| {
            *other != identity && refusal.first.since(at).max(at.since(refusal.first)) <= WINDOW
        });
        own.is_some_and(|own| !own.is_confirmed) && now.since(at) >= PAUSE && others.count() > 0
    }

    /// Forgets an account whose token was refreshed or replaced.
    pub(super) fn forget(&mut self, identity: &Identity) {
        self.0.remove(identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Identity {
        Identity::named(name)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(second)
    }

    #[test]
    fn refusal_of_one_account_is_believed_at_once() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.note(&account("twitch/bot"), at(0)), Meaning::Revoked);
        // Much later, another one is a case of its own.
        let other = account("twitch/broadcaster:1");
        assert_eq!(refusals.note(&other, at(700)), Meaning::Revoked);
    }

    #[test]
    fn burst_over_several_accounts_counts_only_once_confirmed() {
        let mut refusals = Refusals::default();
        let [first, second, third] =
            ["twitch/bot", "twitch/broadcaster:1", "twitch/broadcaster:2"].map(account);
        refusals.note(&first, at(0));
        assert_eq!(refusals.note(&second, at(1)), Meaning::Incident { accounts: 2 });
        assert_eq!(refusals.note(&third, at(2)), Meaning::Incident { accounts: 3 });
        assert_eq!(refusals.note(&second, at(60)), Meaning::Incident { accounts: 3 });
        assert_eq!(refusals.note(&second, at(121)), Meaning::Revoked);
        refusals.forget(&third);
        assert_eq!(refusals.note(&third, at(130)), Meaning::Incident { accounts: 3 });
    }

    #[test]
    fn first_refusal_of_a_burst_is_tried_once_more() {
        let mut refusals = Refusals::default();
        let [first, second] = ["twitch/bot", "twitch/broadcaster:1"].map(account);
        refusals.note(&first, at(0));
        assert!(!refusals.reopens(&first, at(0), at(200)), "it is alone");
        refusals.note(&second, at(1));
        assert!(!refusals.reopens(&first, at(0), at(60)), "too early");
        assert!(refusals.reopens(&first, at(0), at(200)));
        assert_eq!(refusals.note(&first, at(200)), Meaning::Revoked);
        assert!(!refusals.reopens(&first, at(200), at(400)), "it is confirmed");
    }
}
