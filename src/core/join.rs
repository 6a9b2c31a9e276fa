//! The join of a semilattice: merges two pieces of knowledge.
//!
//! A join is commutative, associative and idempotent. Because of these laws late, duplicated, reordered and replayed events,
//! and several writers, all result in the same document.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::core::time::Timestamp;

/// Knowledge that can be joined with other knowledge of its kind.
pub trait Join {
    /// Merges `other` into `self`.
    fn join(&mut self, other: Self);
}

/// A value with the time of the event that reported it; the newest one wins.
///
/// Two values with the same time are ordered by the value itself, so that the result does not depend on the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Newest<T> {
    /// When the event happened.
    pub at: Timestamp,
    /// The reported value.
    pub value: T,
}

impl<T> Newest<T> {
    /// Creates a value with its time.
    pub fn new(at: Timestamp, value: T) -> Self {
        Self { at, value }
    }
}

impl<T: Ord> Join for Newest<T> {
    fn join(&mut self, other: Self) {
        if other > *self {
            *self = other;
        }
    }
}

impl<T: Join> Join for Option<T> {
    fn join(&mut self, other: Self) {
        match (self.as_mut(), other) {
            (Some(mine), Some(theirs)) => mine.join(theirs),
            (None, theirs @ Some(_)) => *self = theirs,
            (_, None) => {}
        }
    }
}

impl<K: Ord, V: Join> Join for BTreeMap<K, V> {
    fn join(&mut self, other: Self) {
        for (key, theirs) in other {
            match self.entry(key) {
                std::collections::btree_map::Entry::Occupied(mut mine) => mine.get_mut().join(theirs),
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(theirs);
                }
            }
        }
    }
}

/// The `N` greatest members of a set. Keeping the greatest `N` of a union is itself a join, so a bounded set is idempotent; a
/// bounded counter would not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Greatest<T: Ord, const N: usize>(BTreeSet<T>);

impl<T: Ord, const N: usize> Default for Greatest<T, N> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Ord, const N: usize> Greatest<T, N> {
    /// Creates a set with one member.
    pub fn of(member: T) -> Self {
        Self(BTreeSet::from([member]))
    }

    /// Drops the members that do not satisfy `keep`.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.0.retain(keep);
    }

    /// Iterates over the members in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter()
    }

    /// Returns the number of members, at most `N`.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the set has no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Ord, const N: usize> Join for Greatest<T, N> {
    fn join(&mut self, other: Self) {
        self.0.extend(other.0);
        while self.0.len() > N {
            self.0.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(set: &Greatest<u8, 2>) -> Vec<u8> {
        set.iter().copied().collect()
    }

    #[test]
    fn bounded_set_keeps_the_greatest_members() {
        let mut set = Greatest::<u8, 2>::default();
        assert_eq!((set.len(), set.is_empty()), (0, true));
        for (member, expected) in [(3, vec![3]), (1, vec![1, 3]), (2, vec![2, 3]), (1, vec![2, 3])] {
            set.join(Greatest::of(member));
            assert_eq!((members(&set), set.len()), (expected.clone(), expected.len()));
            assert!(!set.is_empty());
        }
        set.retain(|member| *member > 2);
        assert_eq!(members(&set), [3]);
    }

    #[test]
    fn newer_value_wins_and_a_missing_one_changes_nothing() {
        let at = |seconds| Timestamp::EPOCH.plus_secs(seconds);
        let mut known = None;
        for (more, expected) in [
            (None, None),
            (Some((1, 'a')), Some((1, 'a'))),
            (Some((2, 'b')), Some((2, 'b'))),
            (Some((1, 'z')), Some((2, 'b'))),
            // At the same time, the greater value wins in whichever order they arrive.
            (Some((2, 'a')), Some((2, 'b'))),
            (Some((2, 'c')), Some((2, 'c'))),
            (None, Some((2, 'c'))),
        ] {
            known.join(more.map(|(seconds, value)| Newest::new(at(seconds), value)));
            let expected = expected.map(|(seconds, value)| Newest::new(at(seconds), value));
            assert_eq!(known, expected, "{more:?}");
        }
    }
}
