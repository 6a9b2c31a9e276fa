//! Commits that wait in memory while the disk rejects writes, and sources whose events were not admitted to the outbox.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::watch::outbox::{Commit, Fresh};

/// Maximum number of events in memory while the disk rejects writes. Beyond it, each source's changes are compacted into one.
const EVENTS: usize = 10_000;
/// How soon the commit is retried.
const AGAIN: Duration = Duration::from_secs(1);

/// What could not be committed yet.
#[derive(Debug, Default)]
pub struct PendingCommits {
    known: HashMap<SourceKey, Box<str>>,
    pub(super) events: Vec<Fresh>,
    /// Sources whose last transitions were not admitted.
    pub(super) deferred: BTreeSet<SourceKey>,
    retry_at: Option<Instant>,
}

impl PendingCommits {
    /// Marks the changes of `source` to be published as one event.
    pub(in crate::watch) fn defer(&mut self, source: SourceKey) {
        self.deferred.insert(source);
    }

    /// Whether nothing waits for the disk.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.events.is_empty()
    }

    /// Whether it is too early for a retry.
    pub(super) fn is_backing_off(&self) -> bool {
        self.retry_at.is_some_and(|at| at > Instant::now())
    }

    /// Allows a retry at once.
    pub(super) fn retry_now(&mut self) {
        self.retry_at = None;
    }

    /// Appends a commit to those that wait.
    pub(super) fn add(&mut self, more: Commit) {
        self.known.extend(more.known);
        self.events.extend(more.events);
    }

    /// Takes everything that waits for the disk.
    pub(super) fn take(&mut self) -> Commit {
        Commit {
            known: self.known.drain().collect(),
            events: std::mem::take(&mut self.events),
        }
    }

    /// Puts back a commit that failed; it is retried a second later.
    pub(super) fn mark_due(&mut self, refused: Commit) {
        self.known.extend(refused.known);
        self.events = refused.events;
        self.retry_at = Some(Instant::now() + AGAIN);
        self.compact();
    }

    /// Bounds what waits in memory: beyond the bound each source's changes are published as one event later.
    pub(super) fn compact(&mut self) {
        if self.events.len() <= EVENTS {
            return;
        }
        error!(
            events = self.events.len(),
            "Too many changes wait for the disk; changes of one source will be published as one event later"
        );
        let events = std::mem::take(&mut self.events);
        self.deferred
            .extend(events.into_iter().map(|fresh| fresh.event.source));
    }

    /// Returns the published state after the newest waiting event of `source`.
    pub(super) fn published(&self, source: &SourceKey) -> Option<Knowledge> {
        let newest_first = self.events.iter().rev();
        newest_first
            .filter(|fresh| fresh.event.source == *source)
            .find_map(|fresh| fresh.published.clone())
    }

    /// Returns the sources with changes that wait or are deferred, some of them more than once.
    pub(super) fn sources(&self) -> impl Iterator<Item = &SourceKey> {
        let waiting = self.events.iter().map(|fresh| &fresh.event.source);
        waiting.chain(&self.deferred)
    }
}
