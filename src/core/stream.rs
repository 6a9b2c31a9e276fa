//! Is it live? The rules that weigh the evidence of pushes and polls.
//!
//! Pushes are prompt and may be lost; polls are cached by the platform and may lag. A stream is therefore followed by
//! its id: each id has its own starts, ends and sightings, and the newest stream decides.

use serde::{Deserialize, Serialize};

use self::evidence::{StreamEvidence, StreamRecord};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;

pub mod evidence;
#[cfg(test)]
mod tests;

/// How patient we are with one platform's polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After a pushed start, polls that miss the stream do not count for so long (ms).
    pub after_start: i64,
    /// After a pushed end, polls that still list the same stream do not count for so long (ms).
    pub after_end: i64,
    /// A stream must have been missed for so long (ms) before polls alone end it.
    pub missing: i64,
    /// A single miss is enough when nothing has told of the stream for so long (ms): no cache lags that far behind, and
    /// whoever looks once an hour must not be shown a stream of this morning.
    pub unheard: i64,
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
                missing: MINUTE,
                unheard: 10 * MINUTE,
            },
            PlatformName::Kick => Self {
                after_start: MINUTE,
                after_end: i64::MAX,
                missing: 90 * SECOND,
                unheard: 10 * MINUTE,
            },
            PlatformName::Discord => Self {
                after_start: 0,
                after_end: 0,
                missing: 0,
                unheard: 0,
            },
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

impl StreamStatus {
    /// Returns the word of the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Offline => "OFFLINE",
            Self::Online => "ONLINE",
        }
    }
}

impl std::fmt::Display for StreamStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
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
    /// How often it was told to have ended and came back, of the ends that are remembered; `None` where what was told does
    /// not add up to a number.
    pub interruptions: Option<usize>,
}

impl StreamEvidence {
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
            interruptions: self.interruptions(stream, patience),
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
        let enough = |since: Timestamp, until: Timestamp| {
            until.millis_since(since) >= patience.missing || until.millis_since(last_live) >= patience.unheard
        };
        match (missing_since, newest_miss) {
            (Some(since), Some(until)) if enough(since, until) => StreamVerdict {
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

    /// Counts the ends of `stream` that it came back from: a start was pushed later, or a poll later than its cache lags.
    ///
    /// Nothing is said where an end named no stream, since only the newest of those is remembered, nor where it ended more
    /// than once without a sign of life in between: a start was missed then, or one end was told twice.
    fn interruptions(&self, stream: &StreamRecord, patience: Patience) -> Option<usize> {
        let came_back = |end: &Timestamp| {
            stream.pushed_at() > Some(*end) || stream.seen_at() > Some(end.plus_millis(patience.after_end))
        };
        let interruptions = stream.ends.iter().filter(|end| came_back(end)).count();
        let others = stream.ends.iter().count() - interruptions;
        let adds_up = self.unnamed_end_of(stream).is_none() && others <= 1;
        adds_up.then_some(interruptions)
    }
}
