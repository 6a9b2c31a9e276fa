//! Commits to the file, and keeps what could not be committed until it can.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Notify;
use tracing::{error, info};

use super::pending::PendingCommits;
use super::stats::WriterStats;
use crate::blocking::blocking;
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::store::sqlite::confirmations::ConfirmedGroup;
use crate::watch::state_file::{Commit, Committed, StateFile, StateFileError};
use crate::watch::tracker::Tracker;

/// The state on disk, and what waits for it.
pub struct Committer {
    pub state_file: Arc<StateFile>,
    /// Notified after each commit.
    pub wake: Arc<Notify>,
    pub counts: Arc<WriterStats>,
    /// Whether a commit that fails is tried again; otherwise its error is returned.
    pub retries: bool,
    /// What could not be committed yet.
    pub pending: PendingCommits,
    /// Why the last commit failed, if it did.
    pub(super) last_error: Option<StateFileError>,
}

impl Committer {
    /// Creates a committer to which nothing waits; `pending` are changes to publish that an earlier run did not.
    pub fn new(
        state_file: Arc<StateFile>,
        wake: Arc<Notify>,
        counts: Arc<WriterStats>,
        pending: PendingCommits,
    ) -> Self {
        Self {
            state_file,
            wake,
            counts,
            retries: true,
            pending,
            last_error: None,
        }
    }

    /// Commits, after what could not be committed before; of the documents that wait, `tracker` has the newest form.
    pub(super) async fn commit(
        &mut self,
        more: Commit,
        tracker: &Tracker,
    ) -> Result<Committed, StateFileError> {
        if self.pending.is_empty() {
            return self.try_commit(more, false).await;
        }
        self.pending.add(more);
        if self.pending.is_backing_off() {
            return Ok(Committed::default());
        }
        let (histories, events) = self.pending.take();
        let documents = histories
            .into_iter()
            .filter_map(|(source, history)| tracker.write(&source, history));
        let commit = Commit {
            documents: documents.collect(),
            events,
        };
        self.try_commit(commit, true).await
    }

    /// Commits. With `waited`, what conflicts waits again: its transitions have happened, whatever another process has written
    /// since.
    async fn try_commit(&mut self, commit: Commit, waited: bool) -> Result<Committed, StateFileError> {
        if commit.documents.is_empty() && commit.events.is_empty() {
            return Ok(Committed::default());
        }
        let commit = Arc::new(commit);
        let (state_file, shared) = (Arc::clone(&self.state_file), Arc::clone(&commit));
        let begun = Instant::now();
        let done = blocking(move || state_file.commit(&shared)).await;
        self.counts.commit_times.record(begun.elapsed());
        let commit = Arc::into_inner(commit).unwrap_or_default();
        match done {
            Ok(mut done) => {
                self.report_stored();
                self.record(&commit, &mut done);
                if waited {
                    self.pending.add(commit.of(&done.conflicts));
                }
                self.wake.notify_one();
                Ok(done)
            }
            Err(error) if error.is_transient() && self.retries => {
                self.report_failure(error);
                self.pending.put_back(commit);
                Ok(Committed::default())
            }
            // Waiting for a file that stays damaged would stop publishing for good.
            Err(error) => Err(error),
        }
    }

    /// Writes groups of confirmed states. Returns the sources that another process has written, and the groups that could not be
    /// written.
    pub(super) async fn confirm(
        &mut self,
        groups: Vec<ConfirmedGroup>,
    ) -> Result<(Vec<SourceKey>, Vec<ConfirmedGroup>), StateFileError> {
        let rows = groups.len() as u64;
        let state_file = Arc::clone(&self.state_file);
        let (groups, done) = blocking(move || {
            let done = state_file.confirm(&groups);
            (groups, done)
        })
        .await;
        match done {
            Ok(conflicts) => {
                self.report_stored();
                self.counts.count(|stats| {
                    stats.writes += rows;
                    stats.failing = false;
                });
                Ok((conflicts, Vec::new()))
            }
            Err(error) if error.is_transient() => {
                self.report_failure(error);
                Ok((Vec::new(), groups))
            }
            Err(error) => Err(error),
        }
    }

    fn report_stored(&self) {
        self.counts.commits.send_modify(|commits| *commits += 1);
        if self.counts.commits_failing.swap(false, Ordering::Relaxed) {
            info!("Changes can be stored again");
        }
    }

    fn report_failure(&mut self, error: StateFileError) {
        if !self.counts.commits_failing.swap(true, Ordering::Relaxed) {
            error!(
                error = &error as &dyn std::error::Error,
                "Cannot store changes; they wait in memory"
            );
        }
        self.counts.count(|stats| {
            stats.failures += 1;
            stats.failing = true;
        });
        self.last_error = Some(error);
    }

    /// Counts what was committed, and defers the sources whose events were not admitted.
    fn record(&mut self, commit: &Commit, done: &mut Committed) {
        let conflicts: HashSet<&SourceKey> = done.conflicts.iter().collect();
        let written = commit
            .documents
            .iter()
            .filter(|write| !conflicts.contains(&write.document.key));
        let history: usize = written.map(|write| write.history.len()).sum();
        let documents = done.versions.len();
        self.counts.count(|stats| {
            stats.documents += documents as u64;
            stats.writes += (documents + history) as u64;
            stats.failing = false;
        });
        let count = |counter: &AtomicU64, more: usize| counter.fetch_add(more as u64, Ordering::Relaxed);
        if !self.state_file.has_sink() {
            let listed = commit
                .events
                .iter()
                .filter(|event| !conflicts.contains(&event.event.source));
            count(&self.counts.listed, listed.count());
        }
        count(&self.counts.dropped, done.dropped);
        if !done.deferred.is_empty() {
            error!(
                sources = done.deferred.len(),
                "Outbox full; changes of these sources will be published as one event later"
            );
            self.pending.deferred.extend(std::mem::take(&mut done.deferred));
        }
        self.counts
            .deferred
            .store(self.pending.deferred.len() as u64, Ordering::Relaxed);
    }

    /// The last published state of a source, including one that is not on disk yet.
    pub(super) fn published(&self, source: &SourceKey) -> Result<Knowledge, StateFileError> {
        match self.pending.published(source) {
            Some(published) => Ok(published),
            None => match self.state_file.published(source) {
                Ok(published) => Ok(published.unwrap_or_default()),
                // Without a published state the event contains everything: longer, but never wrong.
                Err(error) if error.is_transient() => Ok(Knowledge::default()),
                Err(error) => Err(error),
            },
        }
    }

    /// The sources with changes that are still to be published. A complete state would overtake them, and a stream that started
    /// and ended meanwhile would be missing from the history.
    pub(super) fn behind(&self) -> HashSet<SourceKey> {
        let mut behind = self.state_file.behind();
        behind.extend(self.pending.sources().cloned());
        behind
    }
}
