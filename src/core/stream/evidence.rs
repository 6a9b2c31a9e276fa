//! Stored evidence of a source's streams: starts, ends, sightings and misses, bounded and joined.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PollTolerance;
use crate::core::join::{Greatest, Join};
use crate::core::time::Timestamp;

/// Streams stored per source. Three suffice to distinguish a late message of the previous stream from the current one.
const STREAMS: usize = 3;
/// Minutes in which a poll missed the stream. Four always span more than two minutes, which covers every platform's
/// tolerances.
const MISSED_MINUTES: usize = 4;
/// Ends stored per stream.
const DROPS: usize = 16;

/// Maximum time by which a stream may have begun, according to the platform's list, before a start without an id is received
/// (ms).
const STARTED_BEFORE: i64 = 10 * 60_000;
/// Maximum time after it: the platform's clock may be slightly ahead of ours.
const STARTED_AFTER: i64 = 2 * 60_000;

/// Returns whether a stream that the platform lists as started at `listed` may be the one of a start without an id that was
/// received at `began`.
pub fn is_start_of(began: Timestamp, listed: Timestamp) -> bool {
    (began.plus_millis(-STARTED_BEFORE)..=began.plus_millis(STARTED_AFTER)).contains(&listed)
}

/// The evidence of a source's streams.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamEvidence {
    /// The latest streams by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, StreamRecord>,
    /// Evidence up to this time is discarded: it belongs to old streams. Because evidence is discarded by time and not by
    /// stream, the bounded memory is a join: in any order, the same facts are discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Timestamp>,
    /// The newest pushed end without a stream id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unnamed_end: Option<Timestamp>,
    /// The newest minutes (since the epoch) in which polls missed the stream.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub missed: BTreeMap<i64, Missed>,
}

/// The evidence of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamRecord {
    /// The newest pushed start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed: Option<Live>,
    /// The newest poll that listed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Live>,
    /// The newest pushed ends.
    #[serde(skip_serializing_if = "Greatest::is_empty")]
    pub ends: Greatest<Timestamp, DROPS>,
}

/// One piece of evidence that a stream is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Time of the evidence.
    pub at: Timestamp,
    /// When the stream started, according to the platform.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<Timestamp>,
}

/// The first and the last miss within one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// First miss.
    pub first: Timestamp,
    /// Last miss.
    pub last: Timestamp,
}

impl Join for Missed {
    fn join(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

impl Join for StreamRecord {
    fn join(&mut self, other: Self) {
        self.pushed = self.pushed.max(other.pushed);
        self.seen = self.seen.max(other.seen);
        self.ends.join(other.ends);
    }
}

impl StreamRecord {
    /// Time of the newest evidence about this stream.
    fn newest(&self) -> Option<Timestamp> {
        self.pushed_at().max(self.seen_at()).max(self.end())
    }

    pub(super) fn pushed_at(&self) -> Option<Timestamp> {
        self.pushed.map(|live| live.at)
    }

    pub(super) fn seen_at(&self) -> Option<Timestamp> {
        self.seen.map(|live| live.at)
    }

    /// The newest pushed end.
    fn end(&self) -> Option<Timestamp> {
        self.ends.iter().next_back().copied()
    }

    /// When it started, according to the platform's newest report.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.pushed.max(self.seen).and_then(|live| live.started_at)
    }

    /// The best estimate of when it began.
    fn began(&self) -> Option<Timestamp> {
        self.started_at()
            .or(self.pushed_at())
            .or(self.seen_at())
            .or(self.end())
    }

    /// Whether `id`, the key of this record, was derived from the time of a start without an id.
    ///
    /// Where ids are starts, a start may also be unknown because it lies in the future. Such an id is the platform's own, and
    /// so is the id of an end whose start was lost: polls list that stream by that id or not at all.
    pub(super) fn is_provisional(&self, id: &str, tolerance: PollTolerance) -> bool {
        let (Some(pushed), None, Ok(named)) = (self.pushed, self.seen, id.parse::<Timestamp>()) else {
            return false;
        };
        !tolerance.named_by_start || (pushed.started_at.is_none() && named <= pushed.at)
    }

    fn forget_until(&mut self, floor: Timestamp) {
        self.pushed = self.pushed.filter(|live| live.at > floor);
        self.seen = self.seen.filter(|live| live.at > floor);
        self.ends.retain(|end| *end > floor);
    }
}

impl Join for StreamEvidence {
    fn join(&mut self, other: Self) {
        self.streams.join(other.streams);
        self.forgotten = self.forgotten.max(other.forgotten);
        let mut newest: Vec<_> = self.streams.values().filter_map(StreamRecord::newest).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        self.forgotten = self.forgotten.max(newest.get(STREAMS).copied());
        if let Some(floor) = self.forgotten {
            self.streams.retain(|_, stream| {
                stream.forget_until(floor);
                stream.newest().is_some()
            });
        }
        self.unnamed_end = self.unnamed_end.max(other.unnamed_end);
        self.missed.join(other.missed);
        while self.missed.len() > MISSED_MINUTES {
            self.missed.pop_first();
        }
    }
}

impl StreamEvidence {
    /// Evidence of a pushed start.
    pub fn start(at: Timestamp, stream_id: &str, started_at: Option<Timestamp>) -> Self {
        Self::of(
            stream_id,
            StreamRecord {
                pushed: Some(Live { at, started_at }),
                ..StreamRecord::default()
            },
        )
    }

    /// Evidence of a pushed end.
    pub fn end(at: Timestamp, stream_id: Option<&str>) -> Self {
        match stream_id {
            Some(id) => Self::of(
                id,
                StreamRecord {
                    ends: Greatest::of(at),
                    ..StreamRecord::default()
                },
            ),
            None => Self {
                unnamed_end: Some(at),
                ..Self::default()
            },
        }
    }

    /// Evidence of a poll that listed the stream.
    pub fn seen(at: Timestamp, stream_id: &str, started_at: Option<Timestamp>) -> Self {
        Self::of(
            stream_id,
            StreamRecord {
                seen: Some(Live { at, started_at }),
                ..StreamRecord::default()
            },
        )
    }

    /// Evidence of a poll that did not list the stream.
    pub fn absent(at: Timestamp) -> Self {
        let minute = at.as_millis().div_euclid(60_000);
        Self {
            missed: BTreeMap::from([(minute, Missed { first: at, last: at })]),
            ..Self::default()
        }
    }

    fn of(stream_id: &str, record: StreamRecord) -> Self {
        Self {
            streams: BTreeMap::from([(stream_id.to_owned(), record)]),
            ..Self::default()
        }
    }

    /// Time of the newest evidence about any stream.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest_stream()
            .max(self.missed.values().map(|missed| missed.last).max())
    }

    /// Time of the newest evidence of a stream itself: started, ended or seen. Absence is not about a stream.
    pub fn newest_stream(&self) -> Option<Timestamp> {
        self.streams
            .values()
            .filter_map(StreamRecord::newest)
            .max()
            .max(self.unnamed_end)
    }

    /// The stream that was live last by the evidence that counts: a channel has one at a time, so a later one ends every
    /// earlier one.
    ///
    /// Streams in the current polls are current, whatever their start: a platform's clock may be off, so starts only break
    /// ties (two rows for one channel in one response). But polls are cached: for a while after a pushed start they may list
    /// the previous stream.
    pub(super) fn current(&self, tolerance: PollTolerance) -> Option<(&str, &StreamRecord)> {
        let (id, listed) = self.streams.iter().max_by_key(|(id, stream)| {
            let live_at = self.live_at(id, stream, tolerance);
            (
                live_at,
                // One second may contain the end of a stream and the start of the next one.
                live_at > self.end_of(stream),
                stream.began(),
                stream.newest(),
                *id,
            )
        })?;
        let pushed = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.pushed.is_some())
            .max_by_key(|(id, stream)| {
                let live = stream.pushed_at() > self.end_of(stream);
                (stream.pushed_at(), live, stream.began(), *id)
            });
        if let Some((pushed_id, pushed)) = pushed {
            let listed_at = self.live_at(id, listed, tolerance);
            let answers_from_before = listed_at
                <= pushed
                    .pushed_at()
                    .map(|start| start.plus_millis(tolerance.after_start))
                && listed.began() < pushed.began();
            let ended = self.end_of(pushed).is_some_and(|end| Some(end) <= listed_at);
            if answers_from_before && !ended {
                return Some((pushed_id, pushed));
            }
        }
        Some((id, listed))
    }

    /// The evidence with each provisional stream joined to the one that completes it, and a map from provisional names to
    /// those ids; `None` if there is nothing to complete, which is the usual case.
    ///
    /// A start without an id belongs to the stream that polls list next, if that stream began when the start was reported.
    pub(super) fn completed(&self, tolerance: PollTolerance) -> Option<(Self, BTreeMap<String, String>)> {
        let is_provisional = |(id, stream): &(&String, &StreamRecord)| stream.is_provisional(id, tolerance);
        if !self.streams.iter().any(|entry| is_provisional(&entry)) {
            return None;
        }
        let mut names = BTreeMap::new();
        let mut completed = self.clone();
        for (name, provisional) in self.streams.iter().filter(is_provisional) {
            let Some(began) = provisional.began() else {
                continue;
            };
            let is_it = |(_, stream): &(&String, &StreamRecord)| {
                let starts_then = stream.started_at().is_none_or(|start| is_start_of(began, start));
                // A stream that ended before is another one.
                let then = stream.newest() >= Some(began) && stream.end().is_none_or(|end| end >= began);
                starts_then && then && !self.begins_after_end_of(provisional, stream, tolerance)
            };
            let named = self.streams.iter().filter(|entry| !is_provisional(entry));
            let found = named.filter(is_it).min_by_key(|(id, stream)| {
                (stream.began().map(|start| start.millis_since(began).abs()), *id)
            });
            let Some((id, _)) = found else { continue };
            if let Some(provisional) = completed.streams.remove(name)
                && let Some(stream) = completed.streams.get_mut(id)
            {
                let started_at = stream.started_at();
                stream.join(provisional);
                if let Some(live) = &mut stream.pushed {
                    live.started_at = live.started_at.filter(|_| started_at.is_none()).or(started_at);
                }
                names.insert(id.clone(), name.clone());
            }
        }
        (!names.is_empty()).then_some((completed, names))
    }

    /// Whether the evidence of `stream` shows that it is not `provisional`, which has ended: it began later, or it is still
    /// listed when no cache contains the ended one any more.
    fn begins_after_end_of(
        &self,
        provisional: &StreamRecord,
        stream: &StreamRecord,
        tolerance: PollTolerance,
    ) -> bool {
        self.end_of(provisional).is_some_and(|end| {
            stream.started_at() > Some(end)
                || stream.pushed_at() >= Some(end)
                || stream.seen_at() > Some(end.plus_millis(tolerance.cached))
        })
    }

    /// Whether polls that listed `stream` at `seen` count although it may have ended: not while they may be cached from
    /// before the end, unless a start was pushed since.
    pub(super) fn sighting_counts(
        &self,
        stream: &StreamRecord,
        seen: Timestamp,
        tolerance: PollTolerance,
    ) -> bool {
        self.end_of(stream).is_none_or(|end| {
            seen <= end || seen > end.plus_millis(tolerance.after_end) || stream.pushed_at() > Some(end)
        })
    }

    /// When `stream` was last live by the evidence that counts: a poll that lists it shortly after its end does not count.
    ///
    /// An end alone proves nothing about other streams: it may be a late end of a stream that was never seen. Only where ids
    /// are starts does it show that the stream began after the others.
    fn live_at(&self, id: &str, stream: &StreamRecord, tolerance: PollTolerance) -> Option<Timestamp> {
        let end = self.end_of(stream);
        let counts = |seen: &Timestamp| self.sighting_counts(stream, *seen, tolerance);
        let began_last = || {
            let began = id.parse::<Timestamp>().ok().filter(|_| tolerance.named_by_start);
            // A start after its own end is no date.
            let began = began.filter(|began| Some(*began) <= end);
            let mut others = self.streams.iter().filter(|(other, _)| *other != id);
            began.is_some_and(|began| others.all(|(_, other)| other.began() < Some(began)))
        };
        let was_live = stream.pushed.is_some() || stream.seen.is_some() || began_last();
        stream
            .pushed_at()
            .max(stream.seen_at().filter(counts))
            .or(end.filter(|_| was_live))
    }

    /// Returns the id of the stream that an end at `at` without an id concerns: the one that was last proven to be live before
    /// it. `None` if that one has ended since, or was seen again in the meantime.
    pub fn live_before(&self, at: Timestamp) -> Option<&str> {
        let proven = |stream: &StreamRecord| {
            let proofs = [stream.pushed_at(), stream.seen_at()].into_iter().flatten();
            proofs.filter(|proof| *proof <= at).max()
        };
        let (id, last) = self
            .streams
            .iter()
            .filter(|(_, stream)| proven(stream).is_some())
            .max_by_key(|(id, stream)| (proven(stream), stream.began(), *id))?;
        (self.end_of(last) < proven(last)).then_some(id.as_str())
    }

    /// When `stream` was reported as ended: by its own id, or by an end without an id after it began.
    pub(super) fn end_of(&self, stream: &StreamRecord) -> Option<Timestamp> {
        stream.end().max(self.unnamed_end_of(stream))
    }

    /// The end without an id that came after `stream` began.
    pub(super) fn unnamed_end_of(&self, stream: &StreamRecord) -> Option<Timestamp> {
        self.unnamed_end
            .filter(|end| stream.began().is_none_or(|began| *end >= began))
    }
}

impl Missed {
    pub(super) fn first_after(self, floor: Option<Timestamp>) -> Option<Timestamp> {
        [self.first, self.last]
            .into_iter()
            .find(|miss| floor.is_none_or(|floor| *miss > floor))
    }
}
