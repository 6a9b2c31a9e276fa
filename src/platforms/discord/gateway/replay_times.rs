//! Times of replayed events. Discord's events carry no time of their own, so those that an earlier process has already
//! recorded get the time under which they were stored, and starts that were missed while the connection was lost the time of their
//! id. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::observation::Fact;
use crate::core::stream::evidence::{StreamEvidence, StreamRecord};
use crate::core::time::Timestamp;

/// An event dated at least this long before its receipt is old. Clock differences and network delays explain less.
const CERTAINLY_EARLIER: Duration = Duration::from_secs(5);

/// The replay of a session that an earlier process has left: from the time of its stored state up to RESUMED.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The time of the stored state. What is stored from before it is not replayed.
    since: Option<Timestamp>,
    /// Stored evidence of the streams, by guild.
    stored: BTreeMap<u64, StreamEvidence>,
    /// Stored ends that were matched with a replayed event.
    matched: BTreeSet<(u64, String, Timestamp)>,
    /// When this process lost its connection, until the session is resumed.
    lost_at: Option<Timestamp>,
}

impl Replay {
    /// Prepares a replay with the stored evidence.
    pub(super) fn new(stored: BTreeMap<u64, StreamEvidence>) -> Self {
        Self {
            stored,
            ..Self::default()
        }
    }

    /// Begins to resume a session from a state of the time `since`.
    pub(super) fn begin(&mut self, since: Timestamp) {
        self.since = Some(since);
    }

    /// Records that the connection was lost: what happens until [`Replay::resumed`] is replayed.
    pub(super) fn lost(&mut self, at: Timestamp) {
        self.lost_at.get_or_insert(at);
    }

    /// Records that the connection is back and that everything missed was received.
    pub(super) fn resumed(&mut self) {
        self.lost_at = None;
    }

    /// Ends the replay; later events are new.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Returns when a fact received at `now` happened; `None` where that is the time of receipt.
    ///
    /// A replayed start that was stored keeps its stored time, and so does each replayed end. Another start is dated by the
    /// platform's own id where that is certainly earlier than its receipt: it was replayed, perhaps to the process that had
    /// missed it, and later observations take precedence.
    pub(super) fn time_of(&mut self, guild: u64, fact: &Fact, now: Timestamp) -> Option<Timestamp> {
        let Fact::StreamPush {
            live,
            stream_id: Some(id),
            started_at,
        } = fact
        else {
            return None;
        };
        let stored = self.stored.get(&guild);
        let record = stored.and_then(|stored| stored.streams.get(id));
        if *live {
            let certain = started_at.filter(|at| now.since(*at) > CERTAINLY_EARLIER);
            // Polls may have listed the stream and its end while the connection was lost; dated by its receipt, the start would
            // count as another one.
            let missed = |lost: Timestamp| started_at.map(|at| at.max(lost)).filter(|at| *at < now);
            let own = certain.or_else(|| self.lost_at.and_then(missed));
            let Some(since) = self.since else { return own };
            let known = record.and_then(start).filter(|at| *at >= since);
            let newest = stored.and_then(StreamEvidence::newest);
            return known.or(own).or(started_at.filter(|at| Some(*at) > newest));
        }
        let since = self.since?;
        let mut ends = record.into_iter().flat_map(|record| record.ends.iter().copied());
        let matched = &mut self.matched;
        ends.find(|end| *end >= since && matched.insert((guild, id.clone(), *end)))
    }
}

fn start(record: &StreamRecord) -> Option<Timestamp> {
    record.pushed.map(|live| live.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::join::Join as _;

    const GUILD: u64 = 9_001;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(second)
    }

    fn push(live: bool, id: &str, started: Option<i64>) -> Fact {
        Fact::StreamPush {
            live,
            stream_id: Some(id.to_owned()),
            started_at: started.map(at),
        }
    }

    fn replay(stored: impl IntoIterator<Item = StreamEvidence>, since: i64) -> Replay {
        let mut all = StreamEvidence::default();
        for evidence in stored {
            all.join(evidence);
        }
        let mut replay = Replay::new([(GUILD, all)].into());
        replay.begin(at(since));
        replay
    }

    #[test]
    fn start_missed_while_the_connection_was_lost_keeps_its_time() {
        let mut replay = Replay::default();
        let start = |id| push(true, id, Some(12));
        assert_eq!(replay.time_of(GUILD, &start("a"), at(14)), None, "it may be new");
        replay.lost(at(11));
        assert_eq!(replay.time_of(GUILD, &start("a"), at(14)), Some(at(12)));
        replay.lost(at(13));
        replay.resumed();
        replay.lost(at(13));
        assert_eq!(replay.time_of(GUILD, &start("b"), at(14)), Some(at(13)));
        replay.resumed();
        assert_eq!(replay.time_of(GUILD, &start("c"), at(14)), None);
    }

    #[test]
    fn replayed_events_keep_the_time_they_were_stored_under() {
        let stored = [
            StreamEvidence::start(at(10), "a", None),
            StreamEvidence::end(at(20), Some("a")),
            StreamEvidence::end(at(30), Some("a")),
        ];
        let mut replay = replay(stored, 5);
        assert_eq!(
            replay.time_of(GUILD, &push(true, "a", None), at(40)),
            Some(at(10))
        );
        assert_eq!(
            replay.time_of(GUILD, &push(false, "a", None), at(40)),
            Some(at(20))
        );
        assert_eq!(
            replay.time_of(GUILD, &push(false, "a", None), at(40)),
            Some(at(30))
        );
        assert_eq!(
            replay.time_of(GUILD, &push(false, "a", None), at(40)),
            None,
            "a new end"
        );
        replay.end();
        assert_eq!(replay.time_of(GUILD, &push(true, "a", None), at(40)), None);
    }

    #[test]
    fn evidence_older_than_resume_state_is_not_replayed() {
        let stored = [
            StreamEvidence::start(at(10), "a", None),
            StreamEvidence::end(at(20), Some("a")),
        ];
        let mut replay = replay(stored, 25);
        assert_eq!(replay.time_of(GUILD, &push(true, "a", None), at(40)), None);
        assert_eq!(replay.time_of(GUILD, &push(false, "a", None), at(40)), None);
    }

    #[test]
    fn start_in_between_dates_from_its_id_unless_later_is_known() {
        let start = push(true, "b", Some(12));
        let mut early = replay([StreamEvidence::absent(at(10))], 5);
        assert_eq!(early.time_of(GUILD, &start, at(14)), Some(at(12)));
        let mut late = replay([StreamEvidence::absent(at(15))], 5);
        assert_eq!(late.time_of(GUILD, &start, at(16)), None);
        assert_eq!(late.time_of(GUILD, &start, at(40)), Some(at(12)), "an old event");
    }

    #[test]
    fn old_start_keeps_its_own_date_outside_a_replay_too() {
        let mut none = Replay::default();
        assert_eq!(
            none.time_of(GUILD, &push(true, "b", Some(12)), at(40)),
            Some(at(12))
        );
        assert_eq!(none.time_of(GUILD, &push(true, "b", Some(12)), at(14)), None);
        assert_eq!(none.time_of(GUILD, &push(false, "b", Some(12)), at(40)), None);
    }
}
