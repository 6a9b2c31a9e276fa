//! Messages that were heard already: by id, over all sockets, and across restarts.
//!
//! Twitch delivers at least once and repeats a message under its id for ten minutes at most; older messages are not
//! heard at all (see `events`), so ids need not be kept longer.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::core::time::Timestamp;

/// How long an id is remembered, in milliseconds.
pub(super) const REMEMBERED_MS: i64 = 15 * 60_000;
/// Ids remembered at most; at 100 messages a second, a quarter of an hour of them.
const CAPACITY: usize = 90_000;

/// Ids heard lately, as fingerprints.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: HashSet<u64>,
    order: VecDeque<(Timestamp, u64)>,
}

impl Seen {
    /// Takes an id of `space`; returns whether it is new.
    pub(super) fn is_new(&mut self, space: &str, id: &str, now: Timestamp) -> bool {
        let mut hasher = DefaultHasher::new();
        (space, id).hash(&mut hasher);
        self.insert(hasher.finish(), now)
    }

    fn insert(&mut self, fingerprint: u64, now: Timestamp) -> bool {
        while let Some((at, oldest)) = self.order.front().copied() {
            if now.millis_since(at) <= REMEMBERED_MS && self.order.len() < CAPACITY {
                break;
            }
            self.order.pop_front();
            self.ids.remove(&oldest);
        }
        let new = self.ids.insert(fingerprint);
        if new {
            self.order.push_back((now, fingerprint));
        }
        new
    }

    /// Returns what must be remembered across a restart.
    pub(super) fn memory(&self) -> Vec<(Timestamp, u64)> {
        self.order.iter().copied().collect()
    }

    /// Remembers what an earlier run had heard.
    pub(super) fn recall(&mut self, memory: Vec<(Timestamp, u64)>, now: Timestamp) {
        for (at, fingerprint) in memory {
            if now.millis_since(at) <= REMEMBERED_MS && self.ids.insert(fingerprint) {
                self.order.push_back((at, fingerprint));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(second)
    }

    #[test]
    fn an_id_is_new_once_in_a_quarter_of_an_hour() {
        let mut seen = Seen::default();
        assert!(seen.is_new("message", "a", at(0)));
        assert!(!seen.is_new("message", "a", at(600)));
        assert!(seen.is_new("chat", "a", at(600)), "another space");
        assert!(seen.is_new("message", "a", at(901)), "long forgotten");
    }

    #[test]
    fn a_restart_does_not_forget() {
        let mut before = Seen::default();
        before.is_new("message", "a", at(0));
        before.is_new("message", "b", at(1_000));
        let mut after = Seen::default();
        after.recall(before.memory(), at(1_010));
        assert!(!after.is_new("message", "b", at(1_010)));
        assert!(after.is_new("message", "a", at(1_010)), "too old to matter");
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..200_000 {
            seen.is_new("message", &number.to_string(), at(0));
        }
        assert!(seen.order.len() <= CAPACITY && seen.ids.len() == seen.order.len());
        assert!(!seen.is_new("message", "199999", at(0)));
    }
}
