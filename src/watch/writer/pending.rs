//! Changes that wait in memory while the disk rejects writes, and sources whose events were not admitted to the outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::store::HistoryEntry;
use crate::watch::state_file::{Commit, NewEvent};

/// Maximum number of events in memory while the disk rejects writes. Beyond it, each source's changes are compacted into one.
const EVENTS: usize = 10_000;
/// Transitions of one source in memory beyond that bound: the newest ones.
const HISTORY: usize = 16;
/// How soon the commit is retried.
const AGAIN: Duration = Duration::from_secs(1);

/// What could not be committed yet.
#[derive(Debug, Default)]
pub struct PendingCommits {
    /// The history of each source whose document waits. The document itself is the newest one in memory.
    histories: BTreeMap<SourceKey, Vec<HistoryEntry>>,
    pub(super) events: Vec<NewEvent>,
    /// Sources whose last transitions were not admitted.
    pub(super) deferred: BTreeSet<SourceKey>,
    retry_at: Option<Instant>,
}

impl PendingCommits {
    /// Marks the changes of `source` to be published as one event.
    pub(in crate::watch) fn defer(&mut self, source: SourceKey) {
        self.deferred.insert(source);
    }

    /// Whether transitions of `source` wait for the disk.
    pub(super) fn contains(&self, source: &SourceKey) -> bool {
        let has_history = self
            .histories
            .get(source)
            .is_some_and(|history| !history.is_empty());
        has_history || self.events.iter().any(|event| event.event.source == *source)
    }

    /// Returns the number of sources whose changes are to be published as one event.
    pub fn deferred(&self) -> usize {
        self.deferred.len()
    }

    /// Whether nothing waits for the disk.
    pub(super) fn is_empty(&self) -> bool {
        self.histories.is_empty() && self.events.is_empty()
    }

    /// Whether it is too early for a retry.
    pub(super) fn is_backing_off(&self) -> bool {
        self.retry_at.is_some_and(|at| at > Instant::now())
    }

    /// Allows a retry at once.
    pub(super) fn retry_now(&mut self) {
        self.retry_at = None;
    }

    /// Appends what a commit contains to what waits, within the bound: beyond it each source's changes are published as one event
    /// later.
    pub(super) fn add(&mut self, more: Commit) {
        for write in more.documents {
            let history = self.histories.entry(write.document.key).or_default();
            history.extend(write.history);
        }
        self.events.extend(more.events);
        if self.events.len() > EVENTS {
            error!(
                events = self.events.len(),
                "Too many changes wait for the disk; changes of one source will be published as one event later"
            );
            let events = std::mem::take(&mut self.events);
            self.deferred
                .extend(events.into_iter().map(|event| event.event.source));
            for history in self.histories.values_mut() {
                let beyond = history.len().saturating_sub(HISTORY);
                history.drain(..beyond);
            }
        }
    }

    /// Puts back what failed; it is retried a second later.
    pub(super) fn put_back(&mut self, failed: Commit) {
        self.add(failed);
        self.retry_at = Some(Instant::now() + AGAIN);
    }

    /// Takes the events and the histories that wait for the disk.
    pub(super) fn take(&mut self) -> (BTreeMap<SourceKey, Vec<HistoryEntry>>, Vec<NewEvent>) {
        (
            std::mem::take(&mut self.histories),
            std::mem::take(&mut self.events),
        )
    }

    /// Returns the published state after the newest waiting event of `source`.
    pub(super) fn published(&self, source: &SourceKey) -> Option<Knowledge> {
        let newest_first = self.events.iter().rev();
        newest_first
            .filter(|event| event.event.source == *source)
            .find_map(|event| event.published.clone())
    }

    /// Returns the sources with changes that wait or are deferred, some of them more than once.
    pub(super) fn sources(&self) -> impl Iterator<Item = &SourceKey> {
        let waiting = self.events.iter().map(|event| &event.event.source);
        waiting.chain(&self.deferred)
    }
}
