//! Badges on the bot's own chat messages: the only evidence of its roles, since no endpoint returns them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;

use crate::core::observation::Grants;
use crate::core::time::Timestamp;

/// The badges seen, by broadcaster.
#[derive(Debug, Default)]
pub struct Badges(Mutex<BTreeMap<u64, Seen>>);

#[derive(Debug, Clone)]
struct Seen {
    at: Timestamp,
    kinds: BTreeSet<String>,
}

impl Badges {
    /// Records the badge types on one of the bot's messages; a message older than the newest known one is ignored.
    pub fn saw(&self, broadcaster: u64, at: Timestamp, kinds: BTreeSet<String>) {
        let mut all = self.0.lock();
        if all.get(&broadcaster).is_none_or(|known| known.at < at) {
            all.insert(broadcaster, Seen { at, kinds });
        }
    }

    /// Returns what the badges seen grant, and since when; `None` where no badges were ever received.
    ///
    /// A badge is a fact about the time of its message. One that was seen too long ago is no longer reported, and one that
    /// was not seen is not denied.
    pub fn grants(&self, broadcaster: u64, now: Timestamp, max_age: Duration) -> Option<(Timestamp, Grants)> {
        let seen = {
            let all = self.0.lock();
            all.get(&broadcaster).cloned()?
        };
        Some(grants_of(&seen.kinds, seen.at, now, max_age))
    }
}

fn grants_of(
    kinds: &BTreeSet<String>,
    at: Timestamp,
    now: Timestamp,
    max_age: Duration,
) -> (Timestamp, Grants) {
    let names = kinds.iter().map(|kind| format!("badge:{kind}"));
    if now.since(at) <= max_age {
        let granted = Grants {
            granted: names.collect(),
            ..Grants::default()
        };
        return (at, granted);
    }
    let aged = format!("last seen on the bot's own message at {at}");
    let unknown = Grants {
        unknown: names.map(|name| (name, aged.clone())).collect(),
        ..Grants::default()
    };
    (now, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_hours(7 * 24);

    #[test]
    fn a_badge_counts_for_a_week_and_is_never_denied() {
        let badges = Badges::default();
        let seen = Timestamp::EPOCH.plus_secs(1_000);
        assert_eq!(badges.grants(7, seen, WEEK), None);
        badges.saw(7, seen, ["moderator".to_owned()].into());
        let (at, grants) = badges.grants(7, seen.plus_secs(7 * 86_400), WEEK).unwrap();
        assert_eq!(
            (at, grants.granted),
            (seen, ["badge:moderator".to_owned()].into())
        );
        let later = seen.plus_secs(7 * 86_400 + 1);
        let (at, grants) = badges.grants(7, later, WEEK).unwrap();
        assert_eq!(at, later);
        assert!(grants.granted.is_empty() && grants.denied.is_empty());
        assert!(grants.unknown["badge:moderator"].contains("1970-01-01"));
    }

    #[test]
    fn a_late_message_does_not_bring_old_badges_back() {
        let badges = Badges::default();
        let at = |second| Timestamp::EPOCH.plus_secs(second);
        badges.saw(7, at(20), BTreeSet::new());
        badges.saw(7, at(10), ["moderator".to_owned()].into());
        assert!(badges.grants(7, at(21), WEEK).unwrap().1.granted.is_empty());
    }
}
