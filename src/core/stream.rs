//! Live status: the rules that weigh the evidence of pushes and polls.
//!
//! Pushes are prompt and may be lost; polls are cached by the platform and may lag. Therefore streams are tracked by id: each
//! id has its own starts, ends and sightings, and the stream that was live last decides.

use serde::{Deserialize, Serialize};

use self::evidence::{StreamEvidence, StreamRecord};
use crate::core::time::Timestamp;

pub mod evidence;
#[cfg(test)]
mod tests;

/// Tolerances for the cache of one platform's polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollTolerance {
    /// For this long (ms) after a pushed start, polls that miss the stream do not count.
    pub after_start: i64,
    /// For this long (ms) after a pushed end, polls that still list the same stream do not count.
    pub after_end: i64,
    /// Maximum time (ms) for which polls may list a stream after its end because they are cached.
    pub cached: i64,
    /// For this long (ms) a stream must have been missed before polls alone end it.
    pub missing: i64,
    /// A single miss suffices if there was no evidence of the stream for this long (ms): no cache lags that far behind, and an
    /// hourly probe must not report a stream of this morning.
    pub unconfirmed_after: i64,
    /// Whether the platform has no stream ids, so that each stream is identified by its start.
    pub named_by_start: bool,
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
    /// Returns the value in the document.
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

/// The rule for a source without stream evidence.
pub const NO_STREAM_EVIDENCE: &str = "stream.nothing-proven";

/// The live status with the rule that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamVerdict {
    /// The live status.
    pub status: StreamStatus,
    /// The rule that decided; [`crate::core::verdict::explain`] describes it.
    pub rule: &'static str,
    /// The stream concerned.
    pub broadcast: Option<Broadcast>,
    /// Time of the newest evidence for the status. Outweighed evidence against it does not count: polls that miss a stream do
    /// not confirm that it is live.
    pub at: Option<Timestamp>,
}

/// One broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// The platform's id of the stream.
    pub stream_id: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended, if it has.
    pub ended_at: Option<Timestamp>,
    /// Number of stored ends after which the stream came back; `None` if the evidence is not sufficient to count them.
    pub interruptions: Option<usize>,
    /// The name that the broadcast has, or had, from a start without a stream id.
    pub provisional: Option<String>,
}

impl Broadcast {
    /// Returns whether this is the same broadcast as `before`, which may have had a provisional name.
    pub fn continues(&self, before: &Self) -> bool {
        self.stream_id == before.stream_id || self.provisional.as_ref() == Some(&before.stream_id)
    }
}

impl StreamEvidence {
    /// Weighs the evidence.
    pub fn verdict(&self, tolerance: PollTolerance) -> StreamVerdict {
        let Some((completed, names)) = self.completed(tolerance) else {
            return self.weigh(tolerance);
        };
        let mut verdict = completed.weigh(tolerance);
        if let Some(broadcast) = &mut verdict.broadcast
            && let Some(name) = names.get(&broadcast.stream_id)
        {
            broadcast.provisional = Some(name.clone());
        }
        verdict
    }

    fn weigh(&self, tolerance: PollTolerance) -> StreamVerdict {
        let Some((id, stream)) = self.current(tolerance) else {
            return self.verdict_without_stream();
        };
        let end = self.end_of(stream);
        let pushed = stream
            .pushed_at()
            .filter(|start| end.is_none_or(|end| *start > end));
        let seen = stream.seen_at().filter(|seen| {
            end.is_none_or(|end| *seen > end) && self.sighting_counts(stream, *seen, tolerance)
        });
        let broadcast = |ended_at| Broadcast {
            stream_id: id.to_owned(),
            started_at: stream.started_at().or(stream.pushed_at()),
            ended_at,
            interruptions: self.interruptions(stream, tolerance),
            provisional: stream.is_provisional(id, tolerance).then(|| id.to_owned()),
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
                broadcast: Some(broadcast(end)),
                at: end.max(self.newest_miss()),
            };
        };
        // A poll right after a pushed start still returns a cached result from before it.
        let misses_count_from = pushed
            .map(|start| start.plus_millis(tolerance.after_start))
            .max(Some(last_live));
        let missing_since = self
            .missed
            .values()
            .find_map(|missed| missed.first_after(misses_count_from));
        let newest_miss = self.newest_miss();
        let missed_since_live = newest_miss.is_some_and(|miss| miss > last_live);
        let enough = |since: Timestamp, until: Timestamp| {
            until.millis_since(since) >= tolerance.missing
                || until.millis_since(last_live) >= tolerance.unconfirmed_after
        };
        match (missing_since, newest_miss) {
            (Some(since), Some(until)) if enough(since, until) => StreamVerdict {
                status: StreamStatus::Offline,
                rule: "stream.missing-from-polls",
                broadcast: Some(broadcast(Some(since))),
                at: newest_miss,
            },
            _ => StreamVerdict {
                status: StreamStatus::Online,
                rule: match (missing_since.is_some(), missed_since_live, pushed >= seen) {
                    (true, ..) => "stream.missed-but-not-for-long",
                    (false, true, _) => "stream.push-beats-poll",
                    (false, false, true) => "stream.pushed-start",
                    (false, false, false) => "stream.seen-in-poll",
                },
                broadcast: Some(broadcast(None)),
                at: Some(last_live),
            },
        }
    }

    fn newest_miss(&self) -> Option<Timestamp> {
        self.missed.values().next_back().map(|missed| missed.last)
    }

    fn verdict_without_stream(&self) -> StreamVerdict {
        let (status, rule) = if self.unnamed_end.is_some() {
            (StreamStatus::Offline, "stream.pushed-end")
        } else if self.missed.is_empty() {
            (StreamStatus::Unknown, NO_STREAM_EVIDENCE)
        } else {
            (StreamStatus::Offline, "stream.absent-from-poll")
        };
        StreamVerdict {
            status,
            rule,
            broadcast: None,
            at: self.unnamed_end.max(self.newest_miss()),
        }
    }

    /// Counts the ends after which `stream` came back: a start was pushed later, or a poll listed it later than the cache
    /// lags.
    ///
    /// `None` if an end has no stream id, since only the newest of those is stored, or if it ended more than once without
    /// evidence in between: then a start was missed, or one end was reported twice.
    fn interruptions(&self, stream: &StreamRecord, tolerance: PollTolerance) -> Option<usize> {
        let came_back = |end: &Timestamp| {
            stream.pushed_at() > Some(*end) || stream.seen_at() > Some(end.plus_millis(tolerance.after_end))
        };
        let interruptions = stream.ends.iter().filter(|end| came_back(end)).count();
        let others = stream.ends.iter().count() - interruptions;
        let adds_up = self.unnamed_end_of(stream).is_none() && others <= 1;
        adds_up.then_some(interruptions)
    }
}
