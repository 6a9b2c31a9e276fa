//! Who gets room in the outbox: what a bound lets in, what makes way for it, and what is owed.
//!
//! Pure; the rows themselves stay in the file.

use super::queue::{Class, Queue};
use crate::core::source::SourceKey;

/// What becomes of new events, and of those that wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Whether each of the new events gets in, in their order.
    pub admitted: Vec<bool>,
    /// The waiting events that leave, with their sources: superseded, or making room.
    pub gone: Vec<(i64, SourceKey)>,
    /// Heartbeats that had to make room, waiting ones and new ones.
    pub dropped: usize,
    /// Sources whose events find no room: what they tell is owed.
    pub owed: Vec<SourceKey>,
}

impl Admission {
    /// Decides about `fresh` events, which come to `queue` in their order, when at most `bound` may wait.
    ///
    /// A heartbeat is superseded by whatever follows it and makes room for anything else; where there is none left, the
    /// events of a source are owed from the first on that finds none, so that none of them overtakes another.
    pub fn of(queue: &Queue, bound: usize, fresh: &[(&SourceKey, Class)]) -> Self {
        let mut gone = superseded(queue, fresh);
        let mut room = bound.saturating_sub(queue.len() - gone.len());
        let urgent = fresh
            .iter()
            .filter(|(_, class)| *class != Class::Heartbeat)
            .count();
        let evicted = evicted(queue, &gone, urgent.saturating_sub(room));
        room += evicted.len();
        let mut admission = Self {
            dropped: evicted.len(),
            ..Self::default()
        };
        gone.extend(evicted);
        admission.gone = gone;
        // Urgent ones first: a heartbeat must not take their room.
        let mut for_heartbeats = room.saturating_sub(urgent);
        for (source, class) in fresh {
            let owed = admission.owed.contains(source);
            let fits = match class {
                Class::Heartbeat => for_heartbeats > 0,
                _ => room > 0 && !owed,
            };
            if fits {
                room = room.saturating_sub(1);
                for_heartbeats -= usize::from(*class == Class::Heartbeat);
            } else if *class == Class::Heartbeat {
                admission.dropped += 1;
            } else if !owed {
                admission.owed.push((*source).clone());
            }
            admission.admitted.push(fits);
        }
        admission
    }
}

/// The waiting heartbeats that the new events supersede, in their order.
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

/// The oldest heartbeats that are not gone already, `missing` of them if there are so many.
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
        assert_eq!((rest.dropped, rest.owed), (0, Vec::new()));
    }

    #[test]
    fn where_room_is_short_the_oldest_heartbeats_leave_first() {
        let waiting = [(1, Heartbeat), (2, Transition), (3, Heartbeat), (4, Heartbeat)];
        let (admitted, gone, rest) = admit(4, &waiting, &[(5, Transition), (6, Transition)]);
        assert_eq!((admitted, gone), (vec![true; 2], vec![1, 3]));
        assert_eq!((rest.dropped, rest.owed), (2, Vec::new()));
    }

    #[test]
    fn a_heartbeat_takes_the_room_of_nothing_urgent_whichever_comes_first() {
        let (admitted, gone, rest) = admit(2, &[(1, Transition)], &[(2, Heartbeat), (3, Transition)]);
        assert_eq!((admitted, gone), (vec![false, true], Vec::new()));
        assert_eq!((rest.dropped, rest.owed), (1, Vec::new()));
    }

    #[test]
    fn what_finds_no_room_is_owed_and_nothing_of_its_source_overtakes_it() {
        let fresh = [(2, Transition), (3, Transition), (3, Transition), (3, Heartbeat)];
        let (admitted, gone, rest) = admit(2, &[(1, Transition)], &fresh);
        assert_eq!((admitted, gone), (vec![true, false, false, false], Vec::new()));
        assert_eq!((rest.dropped, rest.owed), (1, vec![source(3)]));
    }
}
