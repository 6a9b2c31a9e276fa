//! Handling of evidence dated in the future: limited on receipt, rejected when read, moved when it is our own.
//!
//! The newest evidence wins, so a date in the future would outrank every later fact until that time, and would count as fresh
//! until then. A join must not depend on the clock (it would not be a join any more), so these are separate steps that take
//! the current time as an argument and precede the join:
//!
//! - [`Observation::received`] limits the dates of received observations: nothing happens after it was received.
//! - [`Knowledge::drop_future`] applies to evidence that others stored or sent, with clocks that may have been ahead. When
//!   such evidence was obtained is unknown, so it is dropped.
//! - [`Knowledge::redate_future`] applies to the memory of a running process after its clock was set back: that evidence was
//!   obtained a moment ago, so it is moved to the current time and keeps its order.

use std::collections::BTreeMap;

use crate::core::evidence::{Evidence, Existence, Knowledge, Link};
use crate::core::join::{Greatest, Join, Newest};
use crate::core::observation::{Fact, Observation};
use crate::core::stream::evidence::{Live, StreamEvidence, StreamRecord};
use crate::core::time::Timestamp;

/// Tolerated lead of a date over the time of its receipt (ms); well-synchronized clocks differ by less.
pub const ENTRY_TOLERANCE_MS: i64 = 2_000;
/// Tolerated lead of another process's evidence over the local clock (ms). Machines that share a store may be some seconds
/// apart, and none of them may discard the observations of the others.
pub const TOLERANCE_MS: i64 = 60_000;

/// Returns whether stored or received evidence with the date `at` is rejected at `now`.
pub fn is_too_far_ahead(at: Timestamp, now: Timestamp) -> bool {
    at.millis_since(now) > TOLERANCE_MS
}

impl Observation {
    /// Limits the dates to `now`, the time of receipt: nothing happens after it is reported, and a stream that starts in the
    /// future has no known start. A placeholder date for "none" is removed.
    #[must_use]
    pub fn received(mut self, now: Timestamp) -> Self {
        let limit = now.plus_millis(ENTRY_TOLERANCE_MS);
        if self.at > limit || self.at.known().is_none() {
            self.at = now;
        }
        match self.fact_mut() {
            Fact::StreamPush { started_at, .. } | Fact::StreamSeen { started_at, .. } => {
                *started_at = started_at.filter(|start| *start <= limit);
            }
            Fact::Counters { totals, .. } => {
                totals.at = totals.at.map(|at| if at > limit { now } else { at });
            }
            _ => {}
        }
        self
    }
}

impl Knowledge {
    /// Limits the dates of an observation of this source to the time of its receipt, as [`Observation::received`] does.
    ///
    /// A push dated in the future happened at an unknown time before its receipt. Later messages of the same connection are
    /// dated by the platform and may be older than that receipt by the network latency, so the push gets the earliest date
    /// that the order of the existing evidence allows.
    #[must_use]
    pub fn receive(&self, observation: Observation, now: Timestamp) -> Observation {
        let stated = observation.at;
        let mut observation = observation.received(now);
        if stated > now && matches!(*observation.fact, Fact::StreamPush { .. }) {
            let earliest = if stated.millis_since(now) > ENTRY_TOLERANCE_MS {
                now.plus_millis(-ENTRY_TOLERANCE_MS)
            } else {
                now
            };
            let known = self.evidence.stream.newest();
            let after_known = known.map_or(earliest, |known| known.plus_millis(1));
            observation.at = earliest.max(after_known).min(now);
        }
        observation
    }

    /// Drops evidence dated further ahead of `now` than the tolerated clock difference. Returns whether there was any.
    pub fn drop_future(&mut self, now: Timestamp) -> bool {
        let mut refused = false;
        self.redate(&mut |at| {
            let keep = !is_too_far_ahead(at, now);
            refused |= !keep;
            keep.then_some(at)
        });
        refused
            | self
                .evidence
                .stream
                .drop_starts(|start| is_too_far_ahead(start, now))
    }

    /// Moves evidence dated ahead of `now` so that the newest of it is dated `now` and all of it stays newer than the rest.
    /// Returns whether there was any.
    pub fn redate_future(&mut self, now: Timestamp) -> bool {
        let (mut newest, mut newest_past) = (None, None);
        self.redate(&mut |at| {
            newest = newest.max(Some(at));
            newest_past = newest_past.max(Some(at).filter(|at| *at <= now));
            Some(at)
        });
        let ahead = newest.map_or(0, |newest: Timestamp| newest.millis_since(now));
        if ahead <= ENTRY_TOLERANCE_MS {
            return false;
        }
        let floor = self.evidence.stream.forgotten;
        let earliest = newest_past.map(|past: Timestamp| past.plus_millis(1));
        self.redate(&mut |at| {
            let moved = at.plus_millis(-ahead);
            Some(if at > now {
                earliest.map_or(moved, |earliest| moved.max(earliest))
            } else {
                at
            })
        });
        // The moved evidence must stay above the time up to which streams are discarded.
        self.evidence.stream.forgotten = if floor > Some(now) { newest_past } else { floor };
        true
    }

    /// Returns the newest date of any evidence. Changes nothing; `&mut` is required by the one function that visits all dates.
    pub(in crate::core) fn newest(&mut self) -> Option<Timestamp> {
        let mut newest = None;
        self.redate(&mut |at| {
            newest = newest.max(Some(at));
            Some(at)
        });
        newest
    }

    /// Applies `dated` to every date; evidence for which it returns `None` is dropped.
    fn redate(&mut self, dated: &mut impl FnMut(Timestamp) -> Option<Timestamp>) {
        self.evidence.redate(dated);
        for totals in self.counters.values_mut() {
            // Totals are kept whatever their date: a counted total must not be lost.
            totals.at = totals.at.and_then(&mut *dated);
        }
    }
}

impl Evidence {
    fn redate(&mut self, dated: &mut impl FnMut(Timestamp) -> Option<Timestamp>) {
        let Self {
            existence,
            connection,
            auth,
            stream,
            viewers,
            permissions,
            latency,
            profile,
            error,
        } = self;
        existence.redate(dated);
        connection.retain(|_, link| {
            link.redate(dated);
            *link != Link::default()
        });
        members(auth, dated);
        stream.redate(dated);
        value(viewers, dated);
        members(permissions, dated);
        value(latency, dated);
        members(profile, dated);
        value(error, dated);
    }
}

impl Existence {
    fn redate(&mut self, dated: &mut impl FnMut(Timestamp) -> Option<Timestamp>) {
        self.seen = self.seen.and_then(&mut *dated);
        value(&mut self.missing, dated);
    }
}

impl Link {
    fn redate(&mut self, dated: &mut impl FnMut(Timestamp) -> Option<Timestamp>) {
        for at in [&mut self.up, &mut self.answered, &mut self.closed] {
            *at = at.and_then(&mut *dated);
        }
        value(&mut self.failure, dated);
    }
}

impl StreamEvidence {
    /// Drops start times that cannot be correct. Returns whether there was any.
    fn drop_starts(&mut self, wrong: impl Fn(Timestamp) -> bool) -> bool {
        let mut dropped = false;
        for stream in self.streams.values_mut() {
            for live in [&mut stream.pushed, &mut stream.seen].into_iter().flatten() {
                if live.started_at.is_some_and(&wrong) {
                    live.started_at = None;
                    dropped = true;
                }
            }
        }
        dropped
    }

    fn redate(&mut self, dated: &mut impl FnMut(Timestamp) -> Option<Timestamp>) {
        self.streams.retain(|_, stream| {
            stream.redate(dated);
            *stream != StreamRecord::default()
        });
        self.forgotten = self.forgotten.and_then(&mut *dated);
        self.unnamed_end = self.unnamed_end.and_then(&mut *dated);
        let misses = || {
            self.missed
                .values()
                .flat_map(|missed| [missed.first, missed.last])
        };
        if !misses().all(|at| dated(at) == Some(at)) {
            // Misses are keyed by their minute, so a moved one gets another key, and those of one minute may get two.
            let mut moved = Self::default();
            for at in misses().filter_map(&mut *dated) {
                moved.join(Self::absent(at));
            }
            self.missed = moved.missed;
        }
    }
}

impl StreamRecord {
    fn redate(&mut self, dated: &mut impl FnMut(Timestamp) -> Option<Timestamp>) {
        for live in [&mut self.pushed, &mut self.seen] {
            // The start is a claim of the platform and not a date of evidence, so it is not moved.
            *live = live.and_then(|Live { at, started_at }| {
                let at = dated(at)?;
                Some(Live { at, started_at })
            });
        }
        if !self.ends.iter().all(|end| dated(*end) == Some(*end)) {
            let moved = self.ends.iter().filter_map(|end| dated(*end));
            self.ends = moved.fold(Greatest::default(), |mut ends, end| {
                ends.join(Greatest::of(end));
                ends
            });
        }
    }
}

fn value<T>(dated_value: &mut Option<Newest<T>>, dated: &mut impl FnMut(Timestamp) -> Option<Timestamp>) {
    *dated_value = dated_value.take().and_then(|Newest { at, value }| {
        let at = dated(at)?;
        Some(Newest { at, value })
    });
}

fn members<K: Ord, T>(
    members: &mut BTreeMap<K, Newest<T>>,
    dated: &mut impl FnMut(Timestamp) -> Option<Timestamp>,
) {
    members.retain(|_, member| match dated(member.at) {
        Some(at) => {
            member.at = at;
            true
        }
        None => false,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::document::SourceDocument;
    use crate::core::observation::{LinkState, Transport};
    use crate::core::source::SourceKey;
    use crate::core::stream::StreamStatus;
    use crate::core::verdict::{Status, Verdict};

    #[test]
    fn moved_misses_stay_within_their_bound() {
        let missed = |seconds: i64| Observation::new(&key(), at(seconds), "test", Fact::StreamAbsent);
        let mut known = Knowledge::of(&[20, 79, 150, 210, 7_220].map(missed));
        assert!(known.redate_future(at(-10)));
        let mut joined = known.clone();
        joined.join(known.clone());
        assert_eq!(joined, known);
    }

    const HOUR: i64 = 3_600;
    const DAY: i64 = 24 * HOUR;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    fn key() -> SourceKey {
        "kick:900200".parse().unwrap()
    }

    fn up() -> Fact {
        Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        }
    }

    fn seen(id: &str) -> Fact {
        Fact::StreamSeen {
            stream_id: id.to_owned(),
            started_at: None,
        }
    }

    fn update(known: &mut Knowledge, second: i64, facts: impl IntoIterator<Item = Fact>) {
        for fact in facts {
            known.update(&Observation::new(&key(), at(second), "test", fact));
        }
    }

    fn verdict(known: &Knowledge) -> Verdict {
        SourceDocument::from_knowledge(key(), known.clone()).verdict
    }

    #[test]
    fn an_observation_from_the_future_is_dated_at_its_receipt() {
        let push = |at, started_at| {
            let fact = Fact::StreamPush {
                live: true,
                stream_id: Some("1".to_owned()),
                started_at,
            };
            Observation::new(&key(), at, "test", fact)
        };
        let now = at(0);
        for (dated, start, expected, expected_start) in [
            (at(-5), Some(at(-9)), at(-5), Some(at(-9))),
            (at(2), Some(at(1)), at(2), Some(at(1))),
            (at(HOUR), Some(at(HOUR)), now, None),
            (at(-1), Some(at(60)), at(-1), None),
            (Timestamp::from_millis(i64::MIN), None, now, None),
            (Timestamp::EPOCH, None, now, None),
        ] {
            let received = push(dated, start).received(now);
            assert_eq!(received, push(expected, expected_start), "{dated}");
        }
    }

    #[test]
    fn push_dated_ahead_never_outranks_the_next_one() {
        let push = |known: &mut Knowledge, live, id: Option<&str>, (stated, received): (i64, i64)| {
            let fact = Fact::StreamPush {
                live,
                stream_id: id.map(str::to_owned),
                started_at: None,
            };
            let at = |millis| at(0).plus_millis(millis);
            let observation = Observation::new(&key(), at(stated), "test", fact);
            let observation = known.receive(observation, at(received));
            known.update(&observation);
        };
        let stream = |known: &Knowledge| verdict(known).stream.value;
        for ahead in [2_000, 3_000, 60_000, HOUR * 1_000] {
            for delay in [0, 300, 1_500] {
                let mut known = Knowledge::default();
                push(&mut known, true, Some("a"), (ahead, 0));
                push(&mut known, false, None, (1_600 - delay, 1_600));
                assert_eq!(stream(&known), StreamStatus::Offline, "end, {ahead} {delay}");
                let mut known = Knowledge::default();
                push(&mut known, false, None, (ahead, 0));
                push(&mut known, true, Some("b"), (1_600 - delay, 1_600));
                assert_eq!(stream(&known), StreamStatus::Online, "start, {ahead} {delay}");
                let mut known = Knowledge::default();
                push(&mut known, false, Some("a"), (-500, -200));
                push(&mut known, true, Some("b"), (ahead, 0));
                assert_eq!(stream(&known), StreamStatus::Online, "order, {ahead} {delay}");
            }
        }
    }

    #[test]
    fn stored_future_evidence_is_rejected_and_proves_nothing() {
        for ahead in [90, HOUR, DAY, 365 * DAY] {
            let mut known = Knowledge::default();
            update(&mut known, -30, [up()]);
            update(
                &mut known,
                ahead,
                [up(), seen("a"), Fact::StreamAbsent, Fact::Latency { millis: 5 }],
            );
            update(&mut known, ahead + 70, [Fact::StreamAbsent]);
            assert!(known.drop_future(at(0)));
            assert_eq!(known, Knowledge::default(), "{ahead} s");
            assert_eq!(verdict(&known).status.value, Status::Disconnected);
            assert_eq!(verdict(&known).stream.value, StreamStatus::Unknown);
            assert!(!known.drop_future(at(0)));
        }
    }

    #[test]
    fn what_is_not_from_the_future_survives_beside_what_is() {
        let mut known = Knowledge::default();
        update(&mut known, -30, [up(), seen("a"), Fact::StreamAbsent]);
        let present = known.clone();
        assert!(!known.drop_future(at(0)), "nothing to refuse");
        let ended = Fact::StreamPush {
            live: false,
            stream_id: Some("b".to_owned()),
            started_at: None,
        };
        update(
            &mut known,
            HOUR,
            [seen("b"), ended, Fact::StreamAbsent, Fact::Latency { millis: 5 }],
        );
        assert!(known.drop_future(at(0)));
        assert_eq!(known, present);
    }

    #[test]
    fn later_facts_count_at_once_after_a_clock_was_ahead() {
        for live in [true, false] {
            let mut known = Knowledge::default();
            let wrong = if live { Fact::StreamAbsent } else { seen("a") };
            update(&mut known, HOUR, [wrong.clone()]);
            update(&mut known, HOUR + 120, [wrong]);
            known.drop_future(at(0));
            let right = if live { seen("a") } else { Fact::StreamAbsent };
            update(&mut known, 1, [right]);
            let expected = if live {
                StreamStatus::Online
            } else {
                StreamStatus::Offline
            };
            assert_eq!(verdict(&known).stream.value, expected);
        }
    }

    #[test]
    fn clock_jump_evidence_is_redated_in_order_after_correction() {
        let mut known = Knowledge::default();
        update(&mut known, -60, [up(), seen("a")]);
        // The clock is a day ahead for ten seconds, in which the stream ends and a poll misses it.
        let ended = Fact::StreamPush {
            live: false,
            stream_id: Some("a".to_owned()),
            started_at: None,
        };
        update(&mut known, DAY, [up(), seen("a")]);
        update(&mut known, DAY + 5, [ended]);
        update(&mut known, DAY + 10, [Fact::StreamAbsent]);
        assert!(known.redate_future(at(11)));
        assert!(!known.redate_future(at(11)));
        assert_eq!(verdict(&known).stream.value, StreamStatus::Offline);
        assert_eq!(verdict(&known).stream.at, Some(at(11)));
        assert_eq!(
            verdict(&known).status.at,
            Some(at(1)),
            "ten seconds before the newest"
        );
        update(&mut known, 12, [seen("b")]);
        assert_eq!(verdict(&known).stream.value, StreamStatus::Online);
    }
}
