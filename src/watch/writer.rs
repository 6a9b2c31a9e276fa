//! Turns inputs into stored documents and events: the single writer of the daemon's state.
//!
//! A change is merged and judged once. Its document, its history and its events are committed together before anything is
//! published. Where another process has written a document in between, the change is moved onto that one. While the disk rejects
//! writes, nothing is published, the change waits in memory, and the daemon reports that it is not ready. A damaged file ends the
//! daemon.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use self::log::log;
use super::account_watch::AccountState;
use super::observations::{Input, ObservationReceiver};
use super::outbox::{Commit, Committed, NewEvent, Outbox, OutboxError};
use super::queue::Class;
use super::tracker::{Change, Destination, Step, Tracker};
use crate::blocking::blocking;
use crate::clock::Clock;
use crate::core::compact::CompactDocument;
use crate::core::document::SourceDocument;
use crate::core::event::{self, Event, EventBuilder, EventKind, InitialEvents};
use crate::core::evidence::Knowledge;
use crate::core::facet::Facet;
use crate::core::future::TOLERANCE_MS;
use crate::core::observation::{Fact, LinkState, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::{Transition, transitions};
use crate::core::verdict::{NOTHING_PROVEN, Status, Verdict};
use crate::lifecycle::Stop;
use crate::persist::Stats;
use crate::store::StoreError;
use crate::store::sqlite::confirmations::ConfirmedBlock;

mod log;
mod pending;

pub use pending::PendingCommits;

/// Maximum number of inputs per batch; large enough that a poll of thousands of sources causes few commits, small enough that a
/// pushed event behind it does not wait.
const MAX_INPUTS: usize = 512;
/// Number of sources without transitions that are written per second.
const CONFIRMATIONS_PER_SECOND: usize = 1000;
/// Number of documents without transitions in one commit: a change that arrives meanwhile waits for it.
const DOCUMENTS_PER_COMMIT: usize = 100;
/// How often (ms) what only confirms the documents is written where the documents of the file are not read: it limits how far a crash sets back the rules
/// for missed polls.
pub(super) const CHECKPOINT: i64 = 5 * 60 * 1000;
/// How long producers may take to finish after a stop.
const FINISH: Duration = Duration::from_secs(5);
/// A clock that is behind the last turn by more than this (ms) was set back.
const SET_BACK_MS: i64 = 2_000;
/// Pause before a change is moved onto the document of another process once more.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

/// How changes that are no transitions reach the sink.
#[derive(Debug)]
pub enum Confirmations {
    /// To the persister of a remote store, each source once per period.
    Store {
        /// Milliseconds.
        period: i64,
        /// Queue to the persister. One batch is in flight at a time; meanwhile, changes accumulate.
        store_queue: mpsc::Sender<Vec<(SourceKey, CompactDocument)>>,
    },
    /// To the bus as heartbeats, each source once per period.
    Publish {
        /// Milliseconds.
        period: i64,
    },
}

#[derive(Debug)]
pub struct WriterStats {
    /// All transitions; the metrics also count them by facet.
    pub transitions: AtomicU64,
    /// Events that were only listed, because no sink waits for them.
    pub listed: AtomicU64,
    /// Heartbeats dropped because the outbox was full.
    pub dropped: AtomicU64,
    /// Sources whose transitions were not admitted; they are published as one event later.
    pub deferred: AtomicU64,
    /// Whether the disk rejects writes.
    pub blocked: AtomicBool,
    /// Inputs that are processed and, if they changed a verdict, saved.
    pub inputs: AtomicU64,
    /// Incremented once a second unless the writer is blocked.
    pub turns: AtomicU64,
    /// The summary of all sources, as of the last second.
    summary: Mutex<Summary>,
    store: Mutex<Stats>,
}

#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub live: BTreeSet<SourceKey>,
    pub by_status: BTreeMap<(PlatformName, Status), usize>,
    /// The accounts that sources need.
    pub accounts: Vec<AccountState>,
}

impl WriterStats {
    /// Creates counters that start at `now`.
    pub fn since(now: Timestamp) -> Self {
        Self {
            transitions: AtomicU64::default(),
            listed: AtomicU64::default(),
            dropped: AtomicU64::default(),
            deferred: AtomicU64::default(),
            blocked: AtomicBool::default(),
            inputs: AtomicU64::default(),
            turns: AtomicU64::default(),
            summary: Mutex::default(),
            store: Mutex::new(Stats::since(now)),
        }
    }

    pub fn live(&self) -> BTreeSet<SourceKey> {
        self.summary().live
    }

    pub fn summary(&self) -> Summary {
        self.summary.lock().clone()
    }

    /// Returns the statistics of the documents written.
    pub fn store(&self) -> Stats {
        *self.store.lock()
    }
}

/// The single writer.
pub struct Writer {
    /// The state in memory.
    pub tracker: Tracker,
    /// The state on disk.
    pub outbox: Arc<Outbox>,
    pub inputs: ObservationReceiver,
    /// How often (ms) what only confirms the documents is written.
    pub confirm_every: i64,
    /// How changes that are no transitions reach the sink; `None` without a sink.
    pub confirmations: Option<Confirmations>,
    pub clock: Arc<dyn Clock>,
    /// Notified after each commit.
    pub wake: Arc<Notify>,
    /// Set when nothing more will be committed.
    pub closing: watch::Sender<bool>,
    pub counts: Arc<WriterStats>,
    /// Whether the end is published: each connected source is then disconnected.
    pub shutdown: bool,
    /// What could not be committed yet.
    pub pending: PendingCommits,
    /// Whether first observations are published as separate events, or only as part of the state.
    pub initial_events: InitialEvents,
    /// The time of the last turn, by which a clock that is set back is noticed.
    pub last_turn: Option<Timestamp>,
    /// Why the last commit failed, if it did.
    pub last_error: Option<OutboxError>,
    /// The results for a command that stores once; `None` in the daemon, which logs them and retries what fails.
    pub results: Option<Results>,
}

/// What was stored for a command.
#[derive(Debug, Default)]
pub struct Results {
    pub transitions: BTreeMap<SourceKey, Vec<Transition>>,
    /// The written documents in short, by source.
    pub summaries: BTreeMap<SourceKey, SourceSummary>,
    /// Sources whose documents cannot be replaced, with the reason.
    pub failures: Vec<(SourceKey, StoreError)>,
}

impl Writer {
    /// Merges and commits observations of a few hundred sources at once.
    pub async fn store(
        &mut self,
        observations: impl IntoIterator<Item = Observation>,
    ) -> Result<(), OutboxError> {
        let inputs = observations.into_iter().map(Input::Observed);
        self.take(inputs.collect()).await?;
        let unwritten = self.tracker.take_dirty(Destination::File);
        self.write_documents(&unwritten, self.clock.now()).await
    }

    /// Runs until the last producer is gone, then publishes the shutdown.
    pub async fn run(mut self, stop: Stop) -> Result<(), OutboxError> {
        self.tracker.publishes_baseline = self.initial_events == InitialEvents::Flag;
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut batch = Vec::new();
        let finish = async {
            stop.requested().await;
            tokio::time::sleep(FINISH).await;
        };
        tokio::pin!(finish);
        loop {
            tokio::select! {
                biased;
                count = self.inputs.recv_many(&mut batch, MAX_INPUTS) => {
                    if count == 0 {
                        break;
                    }
                    if stop.is_requested() {
                        batch.retain(|input| !closes_link(input));
                    }
                    self.take(std::mem::take(&mut batch)).await?;
                    self.counts.inputs.fetch_add(count as u64, Ordering::Relaxed);
                }
                _ = second.tick() => self.turn().await?,
                () = &mut finish => {
                    warn!("Some producers did not finish in time; their last observations are read again at the next start");
                    break;
                }
            }
        }
        // Without producers there is nothing to do, but the daemon ends only when it is stopped.
        stop.requested().await;
        self.shutdown().await?;
        // If the receiver is gone, so is the dispatcher, and the notification is not needed.
        self.closing.send_replace(true);
        self.wake.notify_one();
        self.store_remaining(&stop).await;
        Ok(())
    }

    /// Stores the changes that are no transitions in the remote store, after the transitions before them are sent: the dispatcher
    /// has exited by then.
    async fn store_remaining(&mut self, stop: &Stop) {
        if !matches!(self.confirmations, Some(Confirmations::Store { .. })) {
            return;
        }
        tokio::select! {
            () = self.closing.closed() => {}
            () = stop.cut() => {}
        }
        let behind = self.behind();
        let mut last = self.tracker.take_dirty(Destination::Sink);
        last.retain(|source| !behind.contains(source));
        let snapshot = self.snapshot(&last);
        if let Some(Confirmations::Store { store_queue, .. }) = &self.confirmations {
            // Fails only if the persister has exited already.
            let _ = store_queue.send(snapshot).await;
        }
    }

    async fn shutdown(&mut self) -> Result<(), OutboxError> {
        let now = self.clock.now();
        if self.shutdown {
            let inputs = self.tracker.shutdown(now);
            self.take(inputs).await?;
        }
        self.pending.retry_now();
        self.retry(now).await?;
        let blocks = self.tracker.all_blocks();
        self.confirm(blocks, now).await?;
        let unwritten = self.tracker.take_dirty(Destination::File);
        self.write_documents(&unwritten, now).await?;
        match self.last_error.take().filter(|_| !self.pending.is_empty()) {
            Some(error) => {
                error!(
                    events = self.pending.events.len(),
                    "Changes could not be stored until the end; what is still true is found again at the next start"
                );
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// Processes a batch: merges it, finds the changes, and commits them with their events.
    async fn take(&mut self, inputs: Vec<Input>) -> Result<(), OutboxError> {
        let now = self.clock.now();
        self.tracker.behind_by = self.clock.latest().millis_since(now).max(0);
        let changes = self.tracker.take(inputs, now);
        self.commit_changes(changes, now).await
    }

    /// Commits changes with their events. Those of sources that another process has written are moved onto its documents.
    async fn commit_changes(&mut self, mut changes: Vec<Change>, now: Timestamp) -> Result<(), OutboxError> {
        for round in 0.. {
            if round > 1 {
                tokio::time::sleep(CONFLICT_PAUSE).await;
            }
            let mut commit = Commit::default();
            for change in &changes {
                commit.events.extend(self.events(change, now)?);
                commit.documents.extend(self.tracker.write_of(change, now));
            }
            let conflicts = self.commit(commit).await?;
            let (conflicting, done): (Vec<_>, Vec<_>) = changes
                .into_iter()
                .partition(|change| conflicts.contains(&change.source));
            for change in &done {
                self.note(change);
            }
            if conflicts.is_empty() {
                return Ok(());
            }
            let mut steps: HashMap<SourceKey, Vec<Step>> = conflicting
                .into_iter()
                .map(|change| (change.source, change.steps))
                .collect();
            changes = Vec::new();
            for source in conflicts {
                let steps = steps.remove(&source).unwrap_or_default();
                changes.extend(self.rebase(&source, steps)?);
            }
            // What waits contains the steps, as they were found.
            changes.retain(|change| !change.steps.is_empty() && !self.pending.contains(&change.source));
            if changes.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Moves a source onto the document that another process has stored. One that cannot be used is not replaced: the source's
    /// events are published without it.
    fn rebase(&mut self, source: &SourceKey, steps: Vec<Step>) -> Result<Option<Change>, OutboxError> {
        self.count(|stats| {
            stats.conflicts += 1;
            stats.reads += 1;
        });
        let stored = match self.outbox.document(source)? {
            None => None,
            Some(Ok(mut stored)) => {
                let latest = self.clock.latest();
                if stored.value.drop_future(latest) {
                    self.outbox
                        .drop_history_after(source, latest.plus_millis(TOLERANCE_MS))?;
                }
                Some(stored)
            }
            Some(Err(reason)) => {
                self.block(
                    source,
                    StoreError::Unusable {
                        document_id: source.to_string(),
                        source: reason,
                    },
                );
                let before = self.tracker.compact(source);
                return Ok(before.map(|before| Change {
                    source: source.clone(),
                    before,
                    steps,
                }));
            }
        };
        Ok(Some(self.tracker.rebase(source, steps, stored)))
    }

    /// Keeps the stored document of a source from being replaced.
    pub fn block(&mut self, source: &SourceKey, error: StoreError) {
        if !self.tracker.block(source) {
            return;
        }
        match &mut self.results {
            Some(results) => results.failures.push((source.clone(), error)),
            None => warn!(
                source.key = %source, reason = error.reason(),
                "The document of `{source}` cannot be stored; what is stored stays as it is"
            ),
        }
    }

    /// Builds the events that report a source's steps.
    fn events(&self, change: &Change, now: Timestamp) -> Result<Vec<NewEvent>, OutboxError> {
        if self.pending.deferred.contains(&change.source) {
            return Ok(Vec::new());
        }
        let mut before = if self.outbox.has_sink() {
            SourceDocument::from_knowledge(change.source.clone(), self.published(&change.source)?)
        } else {
            change.before.document(&change.source)
        };
        let mut events = Vec::new();
        // The first probe of many sources would list nothing but baselines.
        let with_baselines = self.outbox.has_sink() || self.results.is_none();
        for step in &change.steps {
            if !with_baselines && step.changes.iter().all(|change| change.initial) {
                continue;
            }
            let this = EventBuilder {
                before: &before,
                after: &step.after,
                by: &step.by,
                observed_at: now,
            };
            let class = if step.first && !is_live(&step.after.verdict) {
                Class::Baseline
            } else {
                Class::Transition
            };
            let mut of_step = this.events(&step.changes);
            of_step.retain(|event| !self.suppresses(event, &step.after.verdict));
            if of_step.is_empty() {
                // The next event includes this evidence.
                continue;
            }
            events.extend(of_step.into_iter().map(|event| NewEvent {
                class,
                event,
                published: Some(step.after.knowledge.clone()),
            }));
            before = step.after.clone();
        }
        Ok(events)
    }

    /// Whether a baseline is not published: baselines are disabled, or it would have to claim a status before the connection was
    /// probed.
    fn suppresses(&self, event: &Event, after: &Verdict) -> bool {
        let unproven = event.kind == EventKind::SourceStatus && after.status.rule == NOTHING_PROVEN;
        event.initial && (unproven || self.initial_events == InitialEvents::Off)
    }

    /// The last published state of a source, including one that is not on disk yet.
    fn published(&self, source: &SourceKey) -> Result<Knowledge, OutboxError> {
        match self.pending.published(source) {
            Some(published) => Ok(published),
            None => match self.outbox.published(source) {
                Ok(published) => Ok(published.unwrap_or_default()),
                // Without a published state the event contains everything: longer, but never wrong.
                Err(error) if error.may_pass() => Ok(Knowledge::default()),
                Err(error) => Err(error),
            },
        }
    }

    /// Commits, after what could not be committed before. Returns the sources that another process has written.
    async fn commit(&mut self, more: Commit) -> Result<Vec<SourceKey>, OutboxError> {
        if self.pending.is_empty() {
            return self.try_commit(more, false).await;
        }
        self.pending.add(more);
        if self.pending.is_backing_off() {
            return Ok(Vec::new());
        }
        let (histories, events) = self.pending.take();
        let documents = histories
            .into_iter()
            .filter_map(|(source, history)| self.tracker.write(&source, history));
        let commit = Commit {
            documents: documents.collect(),
            events,
        };
        self.try_commit(commit, true).await
    }

    /// Commits. With `waited`, what conflicts waits again: its transitions have happened, whatever another process has written
    /// since.
    async fn try_commit(&mut self, commit: Commit, waited: bool) -> Result<Vec<SourceKey>, OutboxError> {
        if commit.documents.is_empty() && commit.events.is_empty() {
            return Ok(Vec::new());
        }
        let commit = Arc::new(commit);
        let (outbox, shared) = (Arc::clone(&self.outbox), Arc::clone(&commit));
        let done = blocking(move || outbox.commit(&shared)).await;
        let commit = Arc::into_inner(commit).unwrap_or_default();
        match done {
            Ok(done) => {
                self.report_stored();
                let conflicts = self.settle(&commit, done);
                if waited {
                    self.pending.add(commit.of(&conflicts));
                }
                self.wake.notify_one();
                Ok(conflicts)
            }
            Err(error) if error.may_pass() && self.results.is_none() => {
                self.report_failure(error);
                self.pending.put_back(commit);
                Ok(Vec::new())
            }
            // Waiting for a file that stays damaged would stop publishing for good.
            Err(error) => Err(error),
        }
    }

    fn report_stored(&self) {
        if self.counts.blocked.swap(false, Ordering::Relaxed) {
            info!("Changes can be stored again");
        }
    }

    fn report_failure(&mut self, error: OutboxError) {
        if !self.counts.blocked.swap(true, Ordering::Relaxed) {
            error!(
                error = &error as &dyn std::error::Error,
                "Cannot store changes; they wait in memory"
            );
        }
        self.count(|stats| {
            stats.failures += 1;
            stats.failing = true;
        });
        self.last_error = Some(error);
    }

    /// Records what was committed. Returns the sources that another process has written.
    fn settle(&mut self, commit: &Commit, done: Committed) -> Vec<SourceKey> {
        let conflicts: HashSet<&SourceKey> = done.conflicts.iter().collect();
        let written = commit
            .documents
            .iter()
            .filter(|write| !conflicts.contains(&write.document.key));
        let history: usize = written.map(|write| write.history.len()).sum();
        let documents = done.versions.len();
        self.count(|stats| {
            stats.documents += documents as u64;
            stats.writes += (documents + history) as u64;
            stats.failing = false;
        });
        for (source, version) in done.versions {
            self.tracker.mark_stored(&source, version);
        }
        if let Some(results) = &mut self.results {
            let summaries = done.summaries.into_iter();
            results
                .summaries
                .extend(summaries.map(|summary| (summary.key.clone(), summary)));
        }
        for (source, error) in done.rejected {
            self.block(&source, error);
        }
        let count = |counter: &AtomicU64, more: usize| counter.fetch_add(more as u64, Ordering::Relaxed);
        if !self.outbox.has_sink() {
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
            self.pending.deferred.extend(done.deferred);
        }
        self.counts
            .deferred
            .store(self.pending.deferred.len() as u64, Ordering::Relaxed);
        done.conflicts
    }

    fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.counts.store.lock());
    }

    /// Commits what could not be committed before.
    async fn retry(&mut self, now: Timestamp) -> Result<(), OutboxError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.commit_changes(Vec::new(), now).await
    }

    /// The sources with changes that are still to be published. A complete state would overtake them, and a stream that started
    /// and ended meanwhile would be missing from the history.
    fn behind(&self) -> HashSet<SourceKey> {
        let mut behind = self.outbox.behind();
        behind.extend(self.pending.sources().cloned());
        behind
    }

    /// Once a second: publishes deferred changes, retries pending commits, and writes changes that are no transitions.
    async fn turn(&mut self) -> Result<(), OutboxError> {
        self.counts.turns.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        if self
            .last_turn
            .is_some_and(|last| last.millis_since(now) > SET_BACK_MS)
        {
            self.tracker.settle(self.clock.latest());
        }
        self.last_turn = Some(now);
        self.publish_deferred(now).await?;
        self.retry(now).await?;
        self.tracker.report_accounts();
        self.summarize();
        if self.pending.is_empty() {
            let (period, limit) = (self.confirm_every, CONFIRMATIONS_PER_SECOND);
            let due = self.tracker.due_documents(now, period, limit);
            self.write_documents(&due, now).await?;
            let due = self.tracker.due_blocks(now, period);
            self.confirm(due, now).await?;
        }
        self.confirm_to_sink(now).await
    }

    async fn confirm_to_sink(&mut self, now: Timestamp) -> Result<(), OutboxError> {
        let limit = CONFIRMATIONS_PER_SECOND;
        match &self.confirmations {
            None => {}
            Some(Confirmations::Store { period, store_queue }) => {
                let Ok(permit) = store_queue.clone().try_reserve_owned() else {
                    return Ok(());
                };
                let due = self.tracker.due_for_sink(now, *period, limit);
                if !due.is_empty() {
                    let behind = self.behind();
                    let (held, due): (Vec<_>, Vec<_>) =
                        due.into_iter().partition(|source| behind.contains(source));
                    self.tracker.mark_due(&held);
                    let grown = self.tracker.uncounted(&due);
                    self.write_documents(&grown, now).await?;
                    permit.send(self.snapshot(&due));
                }
            }
            Some(Confirmations::Publish { period }) => {
                let due = self.tracker.due_for_sink(now, *period, limit);
                self.heartbeats(&due, now).await?;
            }
        }
        Ok(())
    }

    /// Publishes as one event per source what was not admitted before.
    async fn publish_deferred(&mut self, now: Timestamp) -> Result<(), OutboxError> {
        if self.pending.deferred.is_empty() || self.counts.blocked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let sources: Vec<SourceKey> = self.pending.deferred.iter().take(100).cloned().collect();
        let mut commit = Commit::default();
        for source in sources {
            self.pending.deferred.remove(&source);
            let Some(after) = self.tracker.document(&source) else {
                continue;
            };
            let before = SourceDocument::from_knowledge(source.clone(), self.published(&source)?);
            let published = EventBuilder {
                before: &before,
                after: &after,
                by: "bitbrat.watch",
                observed_at: now,
            };
            commit.documents.extend(self.tracker.write(&source, Vec::new()));
            if !self.outbox.has_sink() {
                continue;
            }
            let events = published.events(&transitions(&before.verdict, &after.verdict));
            commit.events.extend(events.into_iter().map(|event| NewEvent {
                class: Class::Transition,
                event,
                published: Some(after.knowledge.clone()),
            }));
        }
        self.commit_states(commit, now).await
    }

    /// Commits documents and events of sources without new changes; what another process has written is merged.
    async fn commit_states(&mut self, commit: Commit, now: Timestamp) -> Result<(), OutboxError> {
        let conflicts = self.commit(commit).await?;
        self.merge_conflicts(conflicts, now).await
    }

    async fn merge_conflicts(
        &mut self,
        conflicts: Vec<SourceKey>,
        now: Timestamp,
    ) -> Result<(), OutboxError> {
        let mut changes = Vec::new();
        for source in conflicts {
            changes.extend(self.rebase(&source, Vec::new())?);
        }
        changes.retain(|change| !change.steps.is_empty());
        self.commit_changes(changes, now).await
    }

    /// Reads stored documents again that could not be used.
    fn read_blocked(&mut self, sources: &[SourceKey]) -> Result<(), OutboxError> {
        for source in sources {
            if self.tracker.is_blocked(source) {
                self.rebase(source, Vec::new())?;
            }
        }
        Ok(())
    }

    /// Writes the documents of sources without new changes.
    async fn write_documents(&mut self, sources: &[SourceKey], now: Timestamp) -> Result<(), OutboxError> {
        self.read_blocked(sources)?;
        for sources in sources.chunks(DOCUMENTS_PER_COMMIT) {
            let documents = sources
                .iter()
                .filter_map(|source| self.tracker.write(source, Vec::new()));
            let commit = Commit {
                documents: documents.collect(),
                events: Vec::new(),
            };
            self.commit_states(commit, now).await?;
        }
        Ok(())
    }

    /// Writes what only confirms the documents; what another process has written is merged.
    async fn confirm(&mut self, blocks: Vec<ConfirmedBlock>, now: Timestamp) -> Result<(), OutboxError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let rows = blocks.len() as u64;
        let outbox = Arc::clone(&self.outbox);
        let (blocks, done) = blocking(move || {
            let done = outbox.confirm(&blocks);
            (blocks, done)
        })
        .await;
        match done {
            Ok(conflicts) => {
                self.report_stored();
                self.count(|stats| {
                    stats.writes += rows;
                    stats.failing = false;
                });
                self.merge_conflicts(conflicts, now).await
            }
            Err(error) if error.may_pass() => {
                self.tracker.mark_unconfirmed(&blocks);
                self.report_failure(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn snapshot(&self, sources: &[SourceKey]) -> Vec<(SourceKey, CompactDocument)> {
        let known = |source: &SourceKey| Some((source.clone(), self.tracker.compact(source)?));
        sources.iter().filter_map(known).collect()
    }

    async fn heartbeats(&mut self, sources: &[SourceKey], now: Timestamp) -> Result<(), OutboxError> {
        self.read_blocked(sources)?;
        let mut commit = Commit::default();
        for source in sources {
            let Some(document) = self.tracker.document(source) else {
                continue;
            };
            let event = if self.tracker.completes_baseline(source) {
                event::baseline(&document, now)
            } else {
                event::heartbeat(&document, now)
            };
            if !self.tracker.uncounted(std::slice::from_ref(source)).is_empty() {
                commit.documents.extend(self.tracker.write(source, Vec::new()));
            }
            commit.events.push(NewEvent {
                class: Class::Heartbeat,
                event,
                published: None,
            });
        }
        self.commit_states(commit, now).await
    }

    fn summarize(&self) {
        let summary = Summary {
            live: self.tracker.live().clone(),
            by_status: self.tracker.by_status().clone(),
            accounts: self.tracker.accounts(),
        };
        *self.counts.summary.lock() = summary;
    }

    /// Logs the changes: the log of a quiet day contains only transitions. Those of a command are its results.
    fn note(&mut self, change: &Change) {
        if let Some(results) = &mut self.results {
            let of_source = results.transitions.entry(change.source.clone()).or_default();
            of_source.extend(change.transitions().cloned());
            return;
        }
        let mut stream = false;
        for step in &change.steps {
            self.counts
                .transitions
                .fetch_add(step.changes.len() as u64, Ordering::Relaxed);
            for transition in &step.changes {
                stream |= transition.facet == Facet::Stream;
                log(&change.source, transition, step);
            }
        }
        if stream {
            self.summarize();
        }
    }
}

/// Whether an input reports that a listener closed its connection. During a stop we cause that ourselves, so it is no change: if
/// connections were closed one by one, a failing one would be followed by a recovery that did not happen. [`Tracker::shutdown`]
/// closes all that were up at once.
fn closes_link(input: &Input) -> bool {
    let Input::Observed(observation) = input else {
        return false;
    };
    let closed = LinkState::Closed;
    matches!(&*observation.fact, Fact::Connection { state, .. } if *state == closed)
}

fn is_live(verdict: &Verdict) -> bool {
    verdict.stream.value == StreamStatus::Online
}
