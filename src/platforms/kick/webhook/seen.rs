//! Ids that were seen lately, so that what arrives twice counts once. Pure.

use std::collections::{HashSet, VecDeque};

use crate::core::time::Timestamp;

/// Ids remembered at most: far more than arrive within any window.
const MOST: usize = 200_000;

/// Ids and when they were seen.
#[derive(Debug)]
pub(super) struct Seen {
    for_ms: i64,
    ids: HashSet<String>,
    order: VecDeque<(Timestamp, String)>,
}

impl Seen {
    /// Remembers ids for `for_ms`.
    pub(super) fn for_ms(for_ms: i64) -> Self {
        Self {
            for_ms,
            ids: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Notes an id; returns whether it is new.
    pub(super) fn note(&mut self, id: &str, now: Timestamp) -> bool {
        while self
            .order
            .front()
            .is_some_and(|(at, _)| self.order.len() >= MOST || now.millis_since(*at) > self.for_ms)
        {
            if let Some((_, old)) = self.order.pop_front() {
                self.ids.remove(&old);
            }
        }
        let new = self.ids.insert(id.to_owned());
        if new {
            self.order.push_back((now, id.to_owned()));
        }
        new
    }

    /// Forgets an id that was noted just now, because nothing came of it.
    pub(super) fn forget(&mut self, id: &str) {
        if self.ids.remove(id) {
            self.order.retain(|(_, known)| known != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_within_the_time() {
        let at = |second| Timestamp::EPOCH.plus_secs(second);
        let mut seen = Seen::for_ms(600_000);
        assert!(seen.note("a", at(0)));
        assert!(!seen.note("a", at(600)));
        assert!(seen.note("a", at(601)));
        seen.forget("a");
        assert!(seen.note("a", at(602)));
    }
}
