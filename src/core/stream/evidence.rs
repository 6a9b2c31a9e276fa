//! What is remembered of a source's streams: starts, ends, sightings and misses, bounded and joined.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::join::{Greatest, Join};
use crate::core::time::Timestamp;

/// Streams remembered per source. Three are enough to tell a late message of the previous stream from the current one.
const STREAMS: usize = 3;
/// Minutes in which a poll missed the stream. Four always span more than two minutes, which covers every platform's
/// patience.
const MISSED_MINUTES: usize = 4;
/// Drop instants remembered per stream.
const DROPS: usize = 16;

/// Everything known about a source's streams.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamEvidence {
    /// The latest streams by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, StreamRecord>,
    /// Nothing told up to this moment is kept: it belongs to streams long gone. Forgetting by time, not by stream, is
    /// what keeps the bounded memory a join: whatever the order, the same facts are forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Timestamp>,
    /// The newest pushed end that named no stream.
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

/// One proof that a stream is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// When we were told.
    pub at: Timestamp,
    /// When the stream started, by the platform.
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
    /// The newest moment at which anything was told about this stream.
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

    /// When it started, by the newest word of the platform.
    pub(super) fn started_at(&self) -> Option<Timestamp> {
        self.pushed.max(self.seen).and_then(|live| live.started_at)
    }

    /// When it began, as well as we know.
    fn began(&self) -> Option<Timestamp> {
        self.started_at()
            .or(self.pushed_at())
            .or(self.seen_at())
            .or(self.end())
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

    /// Evidence of a poll that did not list it.
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

    /// The newest moment at which anything was told about any stream.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest_stream()
            .max(self.missed.values().map(|missed| missed.last).max())
    }

    /// The newest moment at which a stream itself was told of: started, ended or seen. Absence is not about a stream.
    pub fn newest_stream(&self) -> Option<Timestamp> {
        self.streams
            .values()
            .filter_map(StreamRecord::newest)
            .max()
            .max(self.unnamed_end)
    }

    /// The newest stream: a channel has one at a time, so a later one ends every earlier one.
    pub(super) fn current(&self) -> Option<(&str, &StreamRecord)> {
        self.streams
            .iter()
            .max_by_key(|(id, stream)| (stream.began(), stream.newest(), *id))
            .map(|(id, stream)| (id.as_str(), stream))
    }

    /// When `stream` was told to have ended: by its own id, or by an end without an id that came after it began.
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
