//! Outbox admission: which new events are admitted within the bound, which waiting events are removed for them, and which sources
//! are deferred.
//!
//! Pure; the rows themselves stay in the file.

use super::queue::{Class, Queue};
use crate::core::source::SourceKey;

/// What happens to new events and to waiting ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Whether each of the new events is admitted, in their order.
    pub admitted: Vec<bool>,
    /// The waiting events that are removed, with their sources: superseded, or evicted to free capacity.
    pub gone: Vec<(i64, SourceKey)>,
    /// Number of heartbeats, waiting and new ones, that were dropped to free capacity.
    pub dropped: usize,
    /// Sources whose events were not admitted: their changes are published later.
    pub deferred: Vec<SourceKey>,
}

impl Admission {
    /// Decides about `fresh` events, which are appended to `queue` in their order, when at most `bound` may wait.
    ///
    /// A heartbeat is superseded by any later event of its source and is evicted for any other event. When no heartbeat is left,
    /// the events of a source are deferred from the first one that is not admitted, so that none of them overtakes another.
    pub fn of(queue: &Queue, bound: usize, fresh: &[(&SourceKey, Class)]) -> Self {
        let mut gone = superseded(queue, fresh);
        let mut ready = bound.saturating_sub(queue.len() - gone.len());
        let urgent = fresh
            .iter()
            .filter(|(_, class)| *class != Class::Heartbeat)
            .count();
        let evicted = evicted(queue, &gone, urgent.saturating_sub(ready));
        ready += evicted.len();
        let mut admission = Self {
            dropped: evicted.len(),
            ..Self::default()
        };
        gone.extend(evicted);
        admission.gone = gone;
        // Urgent ones first: a heartbeat must not take their capacity.
        let mut for_heartbeats = ready.saturating_sub(urgent);
        for (source, class) in fresh {
            let deferred = admission.deferred.contains(source);
            let fits = match class {
                Class::Heartbeat => for_heartbeats > 0,
                _ => ready > 0 && !deferred,
            };
            if fits {
                ready = ready.saturating_sub(1);
                for_heartbeats -= usize::from(*class == Class::Heartbeat);
            } else if *class == Class::Heartbeat {
                admission.dropped += 1;
            } else if !deferred {
                admission.deferred.push((*source).clone());
            }
            admission.admitted.push(fits);
        }
        admission
    }
}

/// The waiting heartbeats that the new events supersede, in order.
fn superseded(queue: &Queue, fresh: &[(&SourceKey, Class)]) -> Vec<(i64, SourceKey)> {
    let mut gone: Vec<_> = fresh
        .iter()
        .flat_map(|(source, _)| {
            let waiting = queue.heartbeats_of(source).into_iter();
            waiting.map(|seq| (seq, (*source).clone()))
        })
        .collect();
    gone.sort_unstable();
    gone.dedup();
    gone
}

/// The oldest heartbeats that are not removed already, at most `missing` of them.
fn evicted(queue: &Queue, gone: &[(i64, SourceKey)], missing: usize) -> Vec<(i64, SourceKey)> {
    if missing == 0 {
        return Vec::new();
    }
    let oldest = queue.oldest_heartbeats(missing + gone.len()).into_iter();
    oldest
        .filter(|row| gone.binary_search(row).is_err())
        .take(missing)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Class::{Heartbeat, Transition};
    use super::*;

    fn source(id: u64) -> SourceKey {
        format!("twitch:{id}").parse().unwrap()
    }

    /// Decides about `fresh` where `waiting` have the numbers 1, 2, ….
    fn admit(
        bound: usize,
        waiting: &[(u64, Class)],
        fresh: &[(u64, Class)],
    ) -> (Vec<bool>, Vec<i64>, Admission) {
        let mut queue = Queue::default();
        for (seq, (id, class)) in (1..).zip(waiting) {
            queue.push(seq, &source(*id), *class);
        }
        let sources: Vec<_> = fresh.iter().map(|(id, _)| source(*id)).collect();
        let fresh: Vec<_> = sources
            .iter()
            .zip(fresh)
            .map(|(source, (_, class))| (source, *class))
            .collect();
        let admission = Admission::of(&queue, bound, &fresh);
        let gone = admission.gone.iter().map(|(seq, _)| *seq).collect();
        (admission.admitted.clone(), gone, admission)
    }

    #[test]
    fn a_heartbeat_makes_way_for_whatever_follows_it() {
        let waiting = [(1, Transition), (1, Heartbeat), (2, Heartbeat)];
        let (admitted, gone, rest) = admit(10, &waiting, &[(1, Transition), (2, Heartbeat), (2, Heartbeat)]);
        assert_eq!((admitted, gone), (vec![true; 3], vec![2, 3]));
        assert_eq!((rest.dropped, rest.deferred), (0, Vec::new()));
    }

    #[test]
    fn full_queue_drops_oldest_heartbeats_first() {
        let waiting = [(1, Heartbeat), (2, Transition), (3, Heartbeat), (4, Heartbeat)];
        let (admitted, gone, rest) = admit(4, &waiting, &[(5, Transition), (6, Transition)]);
        assert_eq!((admitted, gone), (vec![true; 2], vec![1, 3]));
        assert_eq!((rest.dropped, rest.deferred), (2, Vec::new()));
    }

    #[test]
    fn transition_takes_precedence_over_earlier_heartbeat() {
        let (admitted, gone, rest) = admit(2, &[(1, Transition)], &[(2, Heartbeat), (3, Transition)]);
        assert_eq!((admitted, gone), (vec![false, true], Vec::new()));
        assert_eq!((rest.dropped, rest.deferred), (1, Vec::new()));
    }

    #[test]
    fn overflow_is_deferred_and_later_events_do_not_overtake_it() {
        let fresh = [(2, Transition), (3, Transition), (3, Transition), (3, Heartbeat)];
        let (admitted, gone, rest) = admit(2, &[(1, Transition)], &fresh);
        assert_eq!((admitted, gone), (vec![true, false, false, false], Vec::new()));
        assert_eq!((rest.dropped, rest.deferred), (1, vec![source(3)]));
    }

    #[test]
    fn superseded_heartbeat_makes_room_in_a_full_queue() {
        let (admitted, gone, rest) = admit(1, &[(1, Heartbeat)], &[(1, Transition)]);
        assert_eq!((admitted, gone), (vec![true], vec![1]));
        assert_eq!((rest.dropped, rest.deferred), (0, Vec::new()));
    }

    #[test]
    fn heartbeat_is_evicted_beside_one_that_is_superseded() {
        let waiting = [(1, Heartbeat), (2, Heartbeat), (3, Heartbeat)];
        let (admitted, gone, rest) = admit(3, &waiting, &[(1, Transition), (4, Transition)]);
        assert_eq!((admitted, gone), (vec![true; 2], vec![1, 2]));
        assert_eq!((rest.dropped, rest.deferred), (1, Vec::new()));
    }

    #[test]
    fn new_heartbeats_take_the_remaining_capacity_only() {
        let (admitted, gone, rest) = admit(2, &[(1, Transition)], &[(2, Heartbeat), (3, Heartbeat)]);
        assert_eq!((admitted, gone), (vec![true, false], Vec::new()));
        assert_eq!((rest.dropped, rest.deferred), (1, Vec::new()));
    }
}
