//! What was known of a source at a time in the past, from its history.
//!
//! A history has changes and no confirmations. A state that a change began is proven at that change, and for as long as a daemon
//! ran without recording another one; between the runs nothing is proven, so it is as old as the last proof.

use std::collections::BTreeMap;

use crate::core::document::SourceDocument;
use crate::core::facet::Facet;
use crate::core::freshness::Intervals;
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::stream::evidence::is_start_of;
use crate::core::summary::{PastVerdicts, SourceSummary};
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::core::verdict::{CLOSED_BY_US, Status};
use crate::store::HistoryEntry;
use crate::view::source_row::SourceRow;

/// When a daemon ran: from its start until it was last known to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// A source whose past is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    pub key: &'a SourceKey,
    /// Its present name: a history has none.
    pub name: Option<&'a str>,
    /// Its history, in any order.
    pub history: &'a [HistoryEntry],
    /// The runs of daemons, oldest first.
    pub runs: &'a [Run],
}

/// Returns the entries that were recorded by `at`, newest first. What was recorded later was not known then.
pub fn known_at(history: &[HistoryEntry], at: Timestamp) -> Vec<HistoryEntry> {
    let known = history
        .iter()
        .filter(|entry| entry.recorded_at <= at && entry.transition.at <= at);
    HistoryEntry::without_repeats(known.cloned().collect())
}

/// Returns when a state that began at `since`, and that nothing ended by `at`, was last proven.
pub fn last_proof(since: Timestamp, at: Timestamp, runs: &[Run]) -> Timestamp {
    let ran = runs.iter().filter(|run| run.from <= at);
    let proofs = ran.map(|run| run.until.min(at));
    proofs.max().map_or(since, |proof| proof.max(since))
}

/// Returns the parts of `runs` in which the source was reached: without a connection nothing else is confirmed. `entries` are its
/// history without repeats, newest first.
pub fn covered(entries: &[HistoryEntry], runs: &[Run]) -> Vec<Run> {
    let changes = entries.iter().rev().map(|entry| &entry.transition);
    let changes = changes.filter(|change| change.facet == Facet::Status);
    let mut parts = runs.to_vec();
    let mut lost: Option<Timestamp> = None;
    let mut cut = |from: Timestamp, until: Timestamp| {
        let pieces = parts.iter().flat_map(|run| {
            let before = Run {
                until: run.until.min(from),
                ..*run
            };
            let after = Run {
                from: run.from.max(until),
                ..*run
            };
            [before, after]
        });
        parts = pieces.filter(|run| run.from <= run.until).collect();
    };
    for change in changes {
        let is_connected = change.to.as_deref() == Some(Status::Connected.as_str());
        match lost {
            None if !is_connected => lost = Some(change.at),
            Some(since) if is_connected => {
                cut(since, change.at);
                lost = None;
            }
            _ => {}
        }
    }
    if let Some(since) = lost {
        parts.retain(|run| run.from <= since);
        for run in &mut parts {
            run.until = run.until.min(since);
        }
    }
    parts
}

impl Past<'_> {
    /// Returns the source as it was known at `at`. What was not known is unknown; viewers, latency and errors are not part of a
    /// history.
    pub fn row(&self, intervals: &Intervals, at: Timestamp) -> SourceRow {
        let entries = known_at(self.history, at);
        let latest = |facet: Facet| {
            let mut changes = entries.iter().map(|entry| &entry.transition);
            changes.find(|change| change.facet == facet)
        };
        let reached = covered(&entries, self.runs);
        let verdicts = PastVerdicts {
            status: latest(Facet::Status).and_then(|change| state(change, at, self.runs)),
            stream: latest(Facet::Stream).and_then(|change| state(change, at, &reached)),
            // A baseline was live before it was first seen.
            started_at: latest(Facet::Stream)
                .filter(|change| !change.initial)
                .map(|change| change.at),
            auth: latest(Facet::Auth).and_then(|change| state(change, at, &reached)),
            permissions: latest(Facet::Permissions).and_then(|change| {
                let names = change.to.as_deref()?.split(' ').filter(|name| !name.is_empty());
                let names = names.map(str::to_owned).collect();
                Some((names, last_proof(change.at, at, &reached)))
            }),
        };
        let is_known = !entries.is_empty();
        let summary = SourceSummary::of_past(self.key.clone(), self.name, verdicts);
        SourceRow {
            stored: is_known,
            ..SourceRow::new(summary, intervals, at)
        }
    }
}

/// Returns the value that `change` began, and when it was last proven; `None` where it proves nothing.
fn state<T: serde::de::DeserializeOwned>(
    change: &Transition,
    at: Timestamp,
    runs: &[Run],
) -> Option<(T, Timestamp)> {
    // That we closed the connection ourselves says nothing about the platform.
    if change.rule == CLOSED_BY_US {
        return None;
    }
    let value = serde_json::Value::String(change.to.clone()?);
    let value = serde_json::from_value(value).ok()?;
    Some((value, last_proof(change.at, at, runs)))
}

/// One stream, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub stream_id: Option<String>,
    /// `None` where it was live already when it was first seen, and the platform did not say since when.
    pub start: Option<Timestamp>,
    pub end: End,
}

impl Session {
    /// Whether this is the stream with this id, which the platform lists as started at `started`. A stream whose start had no id is
    /// known by its time until a list names it.
    fn is_same(&self, id: Option<&str>, started: Option<Timestamp>) -> bool {
        let is_name = |id: &str| id.parse::<Timestamp>().is_err();
        match (self.stream_id.as_deref(), id) {
            (Some(own), Some(id)) if own == id => true,
            (Some(own), _) if is_name(own) => false,
            (_, Some(id)) if is_name(id) => {
                let (began, started) = (self.start, started);
                began
                    .zip(started)
                    .is_some_and(|(began, started)| is_start_of(began, started))
            }
            _ => false,
        }
    }

    /// Returns the latest time at which it may have been live.
    pub fn last_seen(&self) -> Timestamp {
        match self.end {
            End::At(at) | End::Between { missing: at, .. } => at,
            End::Live { proven } | End::Unknown { proven } => proven,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was live at the last proof.
    Live { proven: Timestamp },
    /// It ended at this time: the platform said so, or it was monitored without a gap.
    At(Timestamp),
    /// It ended between its last proof and the time at which it was first missing.
    Between { proven: Timestamp, missing: Timestamp },
    /// Nothing was proven about it any more from this time on.
    Unknown { proven: Timestamp },
}

/// For how long after its start a daemon may find what happened before it (ms): the checks of streams begin within it.
const FIRST_CHECKS_MS: i64 = 180_000;

/// Returns the streams of a source, newest first. `entries` are its history without repeats, newest first.
pub fn sessions_of(document: &SourceDocument, entries: &[HistoryEntry], runs: &[Run]) -> Vec<Session> {
    let verdict = &document.verdict;
    let broadcast = verdict.broadcast.as_ref();
    let current = broadcast.and_then(|stream| Some((stream.stream_id.as_str(), stream.started_at?)));
    let streams = document.knowledge.evidence.stream.streams.iter();
    let listed = streams.filter_map(|(id, stream)| Some((id.as_str(), stream.started_at()?)));
    let starts: BTreeMap<&str, Timestamp> = listed.chain(current).collect();
    sessions(entries, &starts, runs, verdict.stream.at)
}

/// Returns the streams of a source, newest first. `entries` are its history without repeats, newest first. `starts` are the
/// platform's own times of the starts of streams, by id, as far as they are known.
fn sessions(
    entries: &[HistoryEntry],
    starts: &BTreeMap<&str, Timestamp>,
    runs: &[Run],
    proven_until: Option<Timestamp>,
) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    let runs = &covered(entries, runs);
    let changes = entries.iter().rev().map(|entry| &entry.transition);
    for change in changes.filter(|change| change.facet == Facet::Stream) {
        let is_online = change.to.as_deref() == Some(StreamStatus::Online.as_str());
        if !is_online {
            if let Some(open) = sessions
                .last_mut()
                .filter(|open| matches!(open.end, End::Live { .. }))
            {
                open.end = end(open, change, runs);
            }
            continue;
        }
        let id = change.stream_id.as_deref();
        let started = id.and_then(|id| starts.get(id)).copied();
        if let Some(place) = sessions.iter().rposition(|session| session.is_same(id, started)) {
            // The same stream coming back, also after a gap in which nothing was known of it.
            let mut same = sessions.remove(place);
            same.end = End::Live { proven: change.at };
            same.stream_id = change.stream_id.clone().or(same.stream_id);
            same.start = started.or(same.start);
            sessions.push(same);
            continue;
        }
        if let Some(before) = sessions.last_mut()
            && let End::Live { proven } = before.end
        {
            before.end = End::Between {
                proven,
                missing: change.at,
            };
        }
        sessions.push(Session {
            stream_id: change.stream_id.clone(),
            start: started.or_else(|| (!change.initial).then_some(change.at)),
            end: End::Live { proven: change.at },
        });
    }
    if let (
        Some(Session {
            end: End::Live { proven },
            ..
        }),
        Some(until),
    ) = (sessions.last_mut(), proven_until)
    {
        *proven = until.max(*proven);
    }
    sessions.reverse();
    sessions
}

/// Returns how a stream ended by `change`.
fn end(open: &Session, change: &Transition, runs: &[Run]) -> End {
    let End::Live { proven } = open.end else {
        return open.end;
    };
    if change.rule.ends_with("pushed-end") {
        return End::At(change.at);
    }
    let run = runs
        .iter()
        .rfind(|run| run.from <= change.at && run.until >= change.at);
    let watched = run.filter(|run| run.from.plus_millis(FIRST_CHECKS_MS) <= change.at);
    let is_missing = change.to.as_deref() == Some(StreamStatus::Offline.as_str());
    match (is_missing, watched) {
        (true, Some(_)) => End::At(change.at),
        (true, None) => {
            // A run that only just began says nothing about the time before it.
            let ended = runs.iter().filter(|run| run.until < change.at);
            let before = ended.map(|run| run.until).max().unwrap_or(proven);
            End::Between {
                proven: proven.max(before),
                missing: change.at,
            }
        }
        (false, _) => End::Unknown {
            proven: last_proof(proven, change.at, runs),
        },
    }
}

/// The changes of one facet of a source in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub facet: Facet,
    /// The value at the start; `None` where nothing was known.
    pub from: Option<String>,
    /// The value at the end; `None` where it is not known any more.
    pub to: Option<String>,
    /// Number of changes in between.
    pub changes: u64,
    pub last: Timestamp,
}

/// Returns what changed after `since`, one difference per facet. `entries` are a history without repeats, newest first.
pub fn differences(entries: &[HistoryEntry], since: Timestamp) -> Vec<Difference> {
    let facets = [Facet::Status, Facet::Stream, Facet::Auth, Facet::Permissions];
    let of_facet = |facet: Facet| {
        let changes = entries.iter().map(|entry| &entry.transition);
        let changes: Vec<&Transition> = changes.filter(|change| change.facet == facet).collect();
        let (after, before) = changes.split_at(changes.partition_point(|change| change.at > since));
        let last = after.first()?;
        Some(Difference {
            facet,
            from: before.first().and_then(|change| change.to.clone()),
            to: last.to.clone(),
            changes: after.len() as u64,
            last: last.at,
        })
    };
    facets.into_iter().filter_map(of_facet).collect()
}

#[cfg(test)]
mod tests;
