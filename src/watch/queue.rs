//! The order of events in the outbox: strictly in order within a source, and across sources whichever may be sent now.
//!
//! Pure; the rows themselves stay in the file.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::core::source::SourceKey;

/// The urgency of a waiting event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// A change: sent at once.
    Transition = 0,
    /// The first event about a source: spread over time, so that a start causes no flood.
    Baseline = 1,
    /// No change: spread over time, superseded by any later event of its source, and dropped first when capacity is short.
    Heartbeat = 2,
}

impl Class {
    /// Converts the number that is stored in the file.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Transition,
            1 => Self::Baseline,
            _ => Self::Heartbeat,
        }
    }
}

/// The waiting events, by source.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: HashMap<SourceKey, VecDeque<(i64, Class)>>,
    /// The next event of each source.
    heads: BTreeMap<i64, SourceKey>,
    heartbeats: BTreeMap<i64, SourceKey>,
    transitions: BTreeSet<i64>,
    len: usize,
}

impl Queue {
    /// Returns how many events wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of the transition that has waited longest.
    pub fn oldest_transition(&self) -> Option<i64> {
        self.transitions.first().copied()
    }

    /// Returns how many of them are heartbeats.
    pub fn heartbeats(&self) -> usize {
        self.heartbeats.len()
    }

    pub fn sources(&self) -> impl Iterator<Item = &SourceKey> {
        self.waiting.keys()
    }

    /// Adds an event, at the place of its number among those of its source.
    pub fn push(&mut self, seq: i64, source: &SourceKey, class: Class) {
        let line = self.waiting.entry(source.clone()).or_default();
        let place = line.partition_point(|(own, _)| *own < seq);
        if place == 0 {
            if let Some((head, _)) = line.front() {
                self.heads.remove(head);
            }
            self.heads.insert(seq, source.clone());
        }
        line.insert(place, (seq, class));
        self.len += 1;
        match class {
            Class::Transition => drop(self.transitions.insert(seq)),
            Class::Baseline => {}
            Class::Heartbeat => drop(self.heartbeats.insert(seq, source.clone())),
        }
    }

    pub fn remove(&mut self, seq: i64, source: &SourceKey) {
        let Some(line) = self.waiting.get_mut(source) else {
            return;
        };
        let Some(place) = line.iter().position(|(own, _)| *own == seq) else {
            return;
        };
        line.remove(place);
        self.len -= 1;
        self.heartbeats.remove(&seq);
        self.transitions.remove(&seq);
        if place == 0 {
            self.heads.remove(&seq);
            match line.front() {
                Some((next, _)) => {
                    self.heads.insert(*next, source.clone());
                }
                None => {
                    self.waiting.remove(source);
                }
            }
        }
    }

    /// Returns the waiting heartbeats of `source`; a later event of it supersedes them.
    pub fn heartbeats_of(&self, source: &SourceKey) -> Vec<i64> {
        let line = self.waiting.get(source).into_iter().flatten();
        line.filter(|(_, class)| *class == Class::Heartbeat)
            .map(|(seq, _)| *seq)
            .collect()
    }

    /// Returns the `count` oldest heartbeats with their sources.
    pub fn oldest_heartbeats(&self, count: usize) -> Vec<(i64, SourceKey)> {
        let oldest = self.heartbeats.iter().take(count);
        oldest.map(|(seq, source)| (*seq, source.clone())).collect()
    }

    /// Returns at most `limit` events that may be sent now, at most one per source, oldest first; at most `spread` of those that
    /// are not urgent. An event before a transition of its source is as urgent as the transition. Sources in `held` wait.
    pub fn next(
        &self,
        limit: usize,
        spread: usize,
        held: &dyn Fn(&SourceKey) -> bool,
    ) -> Vec<(i64, SourceKey, bool)> {
        let mut left = spread;
        let mut next = Vec::new();
        for (seq, source) in &self.heads {
            if next.len() == limit {
                break;
            }
            if held(source) {
                continue;
            }
            let urgent = self.is_urgent(source);
            if urgent || left > 0 {
                left -= usize::from(!urgent);
                next.push((*seq, source.clone(), urgent));
            }
        }
        next
    }

    fn is_urgent(&self, source: &SourceKey) -> bool {
        let line = self.waiting.get(source).into_iter().flatten();
        line.into_iter().any(|(_, class)| *class == Class::Transition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> SourceKey {
        format!("twitch:{id}").parse().unwrap()
    }

    fn queue(events: &[(i64, u32, Class)]) -> Queue {
        let mut queue = Queue::default();
        for (seq, id, class) in events {
            queue.push(*seq, &key(*id), *class);
        }
        queue
    }

    fn seqs(queue: &Queue, limit: usize, spread: usize) -> Vec<i64> {
        queue
            .next(limit, spread, &|_| false)
            .into_iter()
            .map(|(seq, ..)| seq)
            .collect()
    }

    use Class::{Baseline, Heartbeat, Transition};

    #[test]
    fn one_event_a_source_goes_at_a_time_and_in_order() {
        let mut queue = queue(&[(1, 1, Transition), (2, 1, Transition), (3, 2, Transition)]);
        assert_eq!(seqs(&queue, 10, 0), [1, 3]);
        queue.remove(1, &key(1));
        assert_eq!(seqs(&queue, 10, 0), [2, 3]);
        assert_eq!(seqs(&queue, 1, 0), [2]);
    }

    #[test]
    fn non_urgent_events_wait_unless_followed_by_transition() {
        let queue = queue(&[
            (1, 1, Baseline),
            (2, 2, Heartbeat),
            (3, 3, Baseline),
            (4, 3, Transition),
        ]);
        assert_eq!(seqs(&queue, 10, 0), [3]);
        assert_eq!(seqs(&queue, 10, 1), [1, 3]);
        assert_eq!(seqs(&queue, 10, 9), [1, 2, 3]);
    }

    #[test]
    fn heartbeats_can_be_found_and_taken_out_of_the_middle() {
        let mut queue = queue(&[
            (1, 1, Transition),
            (2, 1, Heartbeat),
            (3, 1, Transition),
            (4, 2, Heartbeat),
        ]);
        assert_eq!(queue.heartbeats_of(&key(1)), [2]);
        assert_eq!(queue.oldest_heartbeats(5), [(2, key(1)), (4, key(2))]);
        queue.remove(2, &key(1));
        queue.remove(4, &key(2));
        assert_eq!((queue.len(), queue.heartbeats()), (2, 0));
        assert_eq!(seqs(&queue, 10, 0), [1]);
    }

    #[test]
    fn oldest_transition_is_not_an_event_that_is_spread() {
        let mut queue = queue(&[
            (1, 1, Baseline),
            (2, 2, Transition),
            (3, 3, Transition),
            (4, 4, Heartbeat),
        ]);
        assert_eq!(queue.oldest_transition(), Some(2));
        queue.remove(2, &key(2));
        assert_eq!(queue.oldest_transition(), Some(3));
        queue.remove(3, &key(3));
        assert_eq!(queue.oldest_transition(), None);
    }

    #[test]
    fn event_that_is_found_later_keeps_its_place() {
        let queue = queue(&[(2, 1, Transition), (3, 1, Transition), (1, 1, Transition)]);
        assert_eq!(seqs(&queue, 10, 0), [1]);
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn a_held_source_does_not_hold_the_others() {
        let queue = queue(&[(1, 1, Transition), (2, 2, Transition)]);
        let held = |source: &SourceKey| *source == key(1);
        assert_eq!(queue.next(9, 0, &held).len(), 1);
    }

    #[test]
    fn stored_number_of_a_class_is_read_back() {
        for class in [Transition, Baseline, Heartbeat] {
            assert_eq!(Class::from_number(class as u8), class);
        }
        assert_eq!(Class::from_number(9), Heartbeat, "of a later version");
    }

    #[test]
    fn waiting_events_are_counted_by_source_and_class() {
        let mut queue = queue(&[(1, 1, Transition), (2, 1, Heartbeat), (3, 2, Heartbeat)]);
        let sources = |queue: &Queue| queue.sources().cloned().collect::<BTreeSet<_>>();
        assert_eq!(sources(&queue), BTreeSet::from([key(1), key(2)]));
        assert_eq!((queue.len(), queue.heartbeats(), queue.is_empty()), (3, 2, false));
        for (seq, id) in [(1, 1), (2, 1), (3, 2), (3, 2)] {
            queue.remove(seq, &key(id));
        }
        assert_eq!(sources(&queue), BTreeSet::new());
        assert_eq!((queue.len(), queue.heartbeats(), queue.is_empty()), (0, 0, true));
    }

    #[test]
    fn events_that_may_be_sent_are_marked_as_urgent_or_not() {
        let queue = queue(&[(1, 1, Heartbeat), (2, 1, Transition), (3, 2, Baseline)]);
        let next = queue.next(9, 9, &|_| false);
        assert_eq!(next, [(1, key(1), true), (3, key(2), false)]);
    }
}
