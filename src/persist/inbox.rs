//! Messages read from the bus and not stored yet: in order within a source, with fair turns between sources.

use std::collections::{BTreeMap, VecDeque};

use crate::core::source::SourceKey;

/// Items by source; the source that has waited longest is first.
#[derive(Debug)]
pub struct Inbox<T> {
    lines: BTreeMap<SourceKey, VecDeque<T>>,
    turns: VecDeque<SourceKey>,
    held: usize,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            turns: VecDeque::new(),
            held: 0,
        }
    }
}

impl<T> Inbox<T> {
    /// Appends an item to the queue of its source.
    pub fn push(&mut self, source: SourceKey, item: T) {
        let line = self.lines.entry(source.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(source);
        }
        line.push_back(item);
        self.held += 1;
    }

    /// Takes items of at most `sources` sources, at most `each` of every one.
    pub fn take(&mut self, sources: usize, each: usize) -> Vec<(SourceKey, Vec<T>)> {
        let mut taken = Vec::new();
        for _ in 0..sources.min(self.turns.len()) {
            let Some(source) = self.turns.pop_front() else {
                break;
            };
            let Some(line) = self.lines.get_mut(&source) else {
                continue;
            };
            let items: Vec<_> = line.drain(..each.min(line.len())).collect();
            self.held -= items.len();
            if line.is_empty() {
                self.lines.remove(&source);
            } else {
                self.turns.push_back(source.clone());
            }
            taken.push((source, items));
        }
        taken
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Returns whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_per_source_and_no_source_starves() {
        let key = |n: u8| format!("twitch:{n}").parse::<SourceKey>().unwrap();
        let mut inbox = Inbox::default();
        for item in 0..5 {
            inbox.push(key(1), item);
        }
        inbox.push(key(2), 10);
        inbox.push(key(3), 20);
        assert_eq!(inbox.len(), 7);
        assert_eq!(inbox.take(2, 2), [(key(1), vec![0, 1]), (key(2), vec![10])]);
        assert_eq!(inbox.take(2, 2), [(key(3), vec![20]), (key(1), vec![2, 3])]);
        inbox.push(key(1), 5);
        assert_eq!(inbox.take(9, 9), [(key(1), vec![4, 5])]);
        assert!(inbox.is_empty() && inbox.take(9, 9).is_empty());
    }
}
