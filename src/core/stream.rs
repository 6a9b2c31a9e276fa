//! Is it live? The evidence of pushes and polls, and the rules that weigh them.
//!
//! Pushes are prompt and may be lost; polls are cached by the platform and may lag. A stream is therefore followed by
//! its id: each id has its own starts, ends and sightings, and the newest stream decides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::join::{Greatest, Join};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;

/// Streams remembered per source. Three are enough to tell a late message of the previous stream from the current one.
const STREAMS: usize = 3;
/// Minutes in which a poll missed the stream. Four always span more than two minutes, which covers every platform's
/// patience.
const MISSED_MINUTES: usize = 4;
/// Drop instants remembered per stream.
const DROPS: usize = 16;

/// How patient we are with one platform's polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After a pushed start, polls that miss the stream do not count for so long (ms).
    pub after_start: i64,
    /// After a pushed end, polls that still list the same stream do not count for so long (ms).
    pub after_end: i64,
    /// A stream must have been missed for so long (ms) before polls alone end it.
    pub missing: i64,
}

impl Patience {
    /// Returns the patience with `platform`.
    ///
    /// Twitch: polls lag 1–3 min behind a start and 5–15 min behind an end and flap at first, so two misses 60 s apart
    /// are asked for. Kick: the list lags by seconds, and an ended stream never comes back under the same start time,
    /// so a pushed end is final; 90 s of absence are asked for. Discord keeps no cache that we poll for streams.
    pub fn with(platform: PlatformName) -> Self {
        const SECOND: i64 = 1000;
        const MINUTE: i64 = 60 * SECOND;
        match platform {
            PlatformName::Twitch => Self {
                after_start: 5 * MINUTE,
                after_end: 15 * MINUTE,
                missing: 60 * SECOND,
            },
            PlatformName::Kick => Self {
                after_start: MINUTE,
                after_end: i64::MAX,
                missing: 90 * SECOND,
            },
            PlatformName::Discord => Self {
                after_start: 0,
                after_end: 0,
                missing: 0,
            },
        }
    }
}

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

    fn pushed_at(&self) -> Option<Timestamp> {
        self.pushed.map(|live| live.at)
    }

    fn seen_at(&self) -> Option<Timestamp> {
        self.seen.map(|live| live.at)
    }

    /// The newest pushed end.
    fn end(&self) -> Option<Timestamp> {
        self.ends.iter().next_back().copied()
    }

    /// When it started, by the newest word of the platform.
    fn started_at(&self) -> Option<Timestamp> {
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

/// Whether a source is live.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum StreamStatus {
    /// Nothing was ever proven, or the platform has no such thing.
    Unknown,
    /// Proven not to be live.
    Offline,
    /// Proven to be live.
    Online,
}

impl std::fmt::Display for StreamStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Unknown => "UNKNOWN",
            Self::Offline => "OFFLINE",
            Self::Online => "ONLINE",
        })
    }
}

/// What the evidence says, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamVerdict {
    /// The verdict.
    pub status: StreamStatus,
    /// The rule that decided; [`crate::core::verdict::explain`] spells it out.
    pub rule: &'static str,
    /// The stream that it is about.
    pub session: Option<Session>,
}

/// One broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The platform's id of the stream.
    pub stream_id: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended, once it has.
    pub ended_at: Option<Timestamp>,
    /// How often it dropped and came back.
    pub interruptions: usize,
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
        let streams = self.streams.values().filter_map(StreamRecord::newest).max();
        streams
            .max(self.unnamed_end)
            .max(self.missed.values().map(|missed| missed.last).max())
    }

    /// Weighs the evidence.
    pub fn verdict(&self, patience: Patience) -> StreamVerdict {
        let Some((id, stream)) = self.current() else {
            return self.verdict_without_stream();
        };
        let end = self.end_of(stream);
        let pushed = stream
            .pushed_at()
            .filter(|start| end.is_none_or(|end| *start > end));
        let seen = stream
            .seen_at()
            .filter(|seen| end.is_none_or(|end| *seen > end.plus_millis(patience.after_end)));
        let session = |ended_at| Session {
            stream_id: id.to_owned(),
            started_at: stream.started_at().or(stream.pushed_at()),
            ended_at,
            interruptions: drops(stream, pushed.max(seen)),
        };
        let Some(last_live) = pushed.max(seen) else {
            let rule = if stream.seen_at() > end {
                "stream.same-stream-after-end"
            } else {
                "stream.pushed-end"
            };
            return StreamVerdict {
                status: StreamStatus::Offline,
                rule,
                session: Some(session(end)),
            };
        };
        // A poll right after a pushed start still answers from before it.
        let deaf_until = pushed
            .map(|start| start.plus_millis(patience.after_start))
            .max(Some(last_live));
        let missing_since = self
            .missed
            .values()
            .find_map(|missed| missed.first_after(deaf_until));
        let newest_miss = self.missed.values().next_back().map(|missed| missed.last);
        let missed_since_live = newest_miss.is_some_and(|miss| miss > last_live);
        match (missing_since, newest_miss) {
            (Some(since), Some(until)) if until.millis_since(since) >= patience.missing => StreamVerdict {
                status: StreamStatus::Offline,
                rule: "stream.missing-from-polls",
                session: Some(session(Some(since))),
            },
            _ => StreamVerdict {
                status: StreamStatus::Online,
                rule: match (missing_since.is_some(), missed_since_live, pushed >= seen) {
                    (true, ..) => "stream.missed-but-not-for-long",
                    (false, true, _) => "stream.push-beats-poll",
                    (false, false, true) => "stream.pushed-start",
                    (false, false, false) => "stream.seen-in-poll",
                },
                session: Some(session(None)),
            },
        }
    }

    fn verdict_without_stream(&self) -> StreamVerdict {
        let (status, rule) = if self.unnamed_end.is_some() {
            (StreamStatus::Offline, "stream.pushed-end")
        } else if self.missed.is_empty() {
            (StreamStatus::Unknown, "stream.nothing-proven")
        } else {
            (StreamStatus::Offline, "stream.absent-from-poll")
        };
        StreamVerdict {
            status,
            rule,
            session: None,
        }
    }

    /// The newest stream: a channel has one at a time, so a later one ends every earlier one.
    fn current(&self) -> Option<(&str, &StreamRecord)> {
        self.streams
            .iter()
            .max_by_key(|(id, stream)| (stream.began(), stream.newest(), *id))
            .map(|(id, stream)| (id.as_str(), stream))
    }

    /// When `stream` was told to have ended: by its own id, or by an end without an id that came after it began.
    fn end_of(&self, stream: &StreamRecord) -> Option<Timestamp> {
        stream.end().max(
            self.unnamed_end
                .filter(|end| stream.began().is_none_or(|began| *end >= began)),
        )
    }
}

impl Missed {
    fn first_after(self, floor: Option<Timestamp>) -> Option<Timestamp> {
        [self.first, self.last]
            .into_iter()
            .find(|miss| floor.is_none_or(|floor| *miss > floor))
    }
}

/// Counts the ends that the stream came back from.
fn drops(stream: &StreamRecord, last_live: Option<Timestamp>) -> usize {
    last_live.map_or(0, |live| stream.ends.iter().filter(|end| **end < live).count())
}
