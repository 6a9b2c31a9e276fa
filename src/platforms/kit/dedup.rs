//! Deduplicates deliveries by id. Platforms deliver at least once: a message may arrive again over another socket, for another
//! subscription, or after a restart.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use crate::core::time::Timestamp;

/// Recently received ids, as fingerprints. The oldest ones are removed when they are too old or too many.
#[derive(Debug)]
pub struct RecentIds {
    retention: Duration,
    capacity: usize,
    fingerprints: HashSet<u64>,
    /// Oldest first.
    order: VecDeque<(Timestamp, u64)>,
}

impl RecentIds {
    /// Stores ids for `retention`, and at most `capacity` of them, which must be more than arrive within that time.
    pub fn new(retention: Duration, capacity: usize) -> Self {
        Self {
            retention,
            capacity,
            fingerprints: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Adds an id; returns whether it is new. Ids of different kinds are different ids.
    pub fn is_new(&mut self, kind: &str, id: &str, now: Timestamp) -> bool {
        self.insert(fingerprint(kind, id), now)
    }

    /// Like [`Self::is_new`] for ids that are numbers, all of one kind.
    pub fn is_new_number(&mut self, id: u64, now: Timestamp) -> bool {
        self.insert(id, now)
    }

    fn insert(&mut self, fingerprint: u64, now: Timestamp) -> bool {
        while let Some((at, oldest)) = self.order.front().copied() {
            if now.since(at) <= self.retention && self.order.len() < self.capacity {
                break;
            }
            self.order.pop_front();
            self.fingerprints.remove(&oldest);
        }
        let new = self.fingerprints.insert(fingerprint);
        if new {
            self.order.push_back((now, fingerprint));
        }
        new
    }

    /// Removes an id that was just added, because its delivery was not processed: the next one is new.
    pub fn forget(&mut self, kind: &str, id: &str) {
        let fingerprint = fingerprint(kind, id);
        if self.fingerprints.remove(&fingerprint) {
            let place = self.order.iter().rposition(|(_, known)| *known == fingerprint);
            place.map(|place| self.order.remove(place));
        }
    }

    /// Returns what must be stored across a restart.
    pub fn memory(&self) -> Vec<(Timestamp, u64)> {
        self.order.iter().copied().collect()
    }

    /// Adds the ids that an earlier process had received.
    pub fn recall(&mut self, memory: Vec<(Timestamp, u64)>, now: Timestamp) {
        for (at, fingerprint) in memory {
            if now.since(at) <= self.retention && self.fingerprints.insert(fingerprint) {
                self.order.push_back((at, fingerprint));
            }
        }
    }
}

/// Returns the first eight bytes of the SHA-256 of both, separated by NUL. It is stored on disk, so it must not depend on a
/// library that may change it, such as the standard library's hasher.
fn fingerprint(kind: &str, id: &str) -> u64 {
    let mut digest = Context::new(&SHA256);
    for part in [kind.as_bytes(), &[0], id.as_bytes()] {
        digest.update(part);
    }
    let digest = digest.finish();
    digest
        .as_ref()
        .iter()
        .take(8)
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = 1_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(second)
    }

    fn ids() -> RecentIds {
        RecentIds::new(Duration::from_mins(15), CAPACITY)
    }

    #[test]
    fn an_id_is_new_once_in_a_quarter_of_an_hour() {
        let mut ids = ids();
        assert!(ids.is_new("message", "a", at(0)));
        assert!(!ids.is_new("message", "a", at(900)));
        assert!(ids.is_new("chat", "a", at(900)), "another kind");
        assert!(ids.is_new("message", "a", at(901)), "long forgotten");
    }

    #[test]
    fn forgotten_id_is_new_again() {
        let mut ids = ids();
        assert!(ids.is_new("message", "a", at(0)));
        assert!(ids.is_new("message", "b", at(1)));
        ids.forget("message", "a");
        ids.forget("message", "c");
        assert!(ids.is_new("message", "a", at(2)));
        assert!(!ids.is_new("message", "b", at(3)));
        assert_eq!(ids.order.len(), ids.fingerprints.len());
    }

    #[test]
    fn fingerprints_on_disk_do_not_depend_on_the_rust_release() {
        let known = fingerprint("message", "befa7b53-d79d-478f-86b9-120f112b044e");
        assert_eq!(known, 0xa9cb_c6b4_2413_daa6);
        assert_ne!(fingerprint("ab", "c"), fingerprint("a", "bc"));
    }

    #[test]
    fn a_restart_does_not_forget() {
        let mut before = ids();
        before.is_new("message", "a", at(0));
        before.is_new("message", "b", at(1_000));
        let mut after = ids();
        after.recall(before.memory(), at(1_010));
        assert!(!after.is_new("message", "b", at(1_010)));
        assert!(after.is_new("message", "a", at(1_010)), "too old to matter");
    }

    #[test]
    fn memory_is_bounded() {
        let mut ids = ids();
        for number in 0..2_000_u32 {
            ids.is_new("message", &number.to_string(), at(0));
        }
        assert!(ids.order.len() <= CAPACITY && ids.fingerprints.len() == ids.order.len());
        assert!(!ids.is_new("message", "1999", at(0)));
        let mut numbers = RecentIds::new(Duration::MAX, 2);
        let new = [1, 1, 2, 3, 3, 1].map(|id| numbers.is_new_number(id, at(0)));
        assert_eq!(new, [true, false, true, true, false, true]);
    }
}
