//! Running totals by source: they only grow, and a process continues from those that it had stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::counters::Counters;
use crate::core::join::Join as _;
use crate::core::time::Timestamp;

/// Totals by key, and which of them have changed.
#[derive(Debug)]
pub struct Totals<K> {
    all: BTreeMap<K, Counters>,
    changed: BTreeSet<K>,
}

impl<K> Default for Totals<K> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Totals<K> {
    /// Continues counting from `stored`.
    pub fn new(stored: BTreeMap<K, Counters>) -> Self {
        Self {
            all: stored,
            changed: BTreeSet::new(),
        }
    }

    /// Returns all totals.
    pub fn all(&self) -> &BTreeMap<K, Counters> {
        &self.all
    }

    /// Raises the totals to `others` where those are higher.
    pub fn raise(&mut self, others: &BTreeMap<K, Counters>) {
        for (key, totals) in others {
            self.all.entry(key.clone()).or_default().join(*totals);
        }
    }

    /// Changes the totals of `key`.
    pub fn count(&mut self, key: &K, add: impl FnOnce(&mut Counters)) {
        add(self.all.entry(key.clone()).or_default());
        self.changed.insert(key.clone());
    }

    /// Returns the totals that have changed since the last call, dated `at`.
    pub fn take_changes(&mut self, at: Timestamp) -> Vec<(K, Counters)> {
        let changed = std::mem::take(&mut self.changed);
        let dated = changed.into_iter().filter_map(|key| {
            let totals = self.all.get_mut(&key)?;
            totals.at = Some(at);
            Some((key, *totals))
        });
        dated.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_continue_and_only_changes_are_taken() {
        let stored = Counters {
            messages_in: 40,
            ..Counters::default()
        };
        let mut totals = Totals::new(BTreeMap::from([(1, stored), (2, stored)]));
        assert_eq!(totals.take_changes(Timestamp::EPOCH), []);
        totals.count(&1, |totals| totals.messages_in += 1);
        let at = Timestamp::EPOCH.plus_secs(5);
        let changed = totals.take_changes(at);
        assert_eq!(changed.len(), 1);
        assert_eq!(
            (changed[0].0, changed[0].1.messages_in, changed[0].1.at),
            (1, 41, Some(at))
        );
        assert_eq!(totals.take_changes(at), []);
    }

    #[test]
    fn raised_totals_are_the_higher_ones() {
        let of = |messages_in| Counters {
            messages_in,
            ..Counters::default()
        };
        let mut totals = Totals::new(BTreeMap::from([(1, of(5)), (2, of(5))]));
        totals.raise(&BTreeMap::from([(1, of(7)), (2, of(3)), (3, of(1))]));
        let counted: Vec<_> = totals.all().values().map(|totals| totals.messages_in).collect();
        assert_eq!(counted, [7, 5, 1]);
    }
}
