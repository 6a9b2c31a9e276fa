//! Turns inputs into stored documents and events: the single writer of the daemon's state.
//!
//! A change is merged and judged once. Its document, its history and its events are committed together before anything is
//! published. Where another process has written a document in between, the change is moved onto that one. While the disk rejects
//! writes, nothing is published, the change waits in memory, and the daemon reports that it is not ready. A damaged file ends the
//! daemon.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use self::events::EventRules;
use self::log::log;
use super::observations::{Input, ObservationReceiver};
use super::queue::Class;
use super::state_file::{Commit, NewEvent, StateFileError};
use super::tracker::{Change, Destination, Step, Tracker};
use crate::clock::Clock;
use crate::core::compact::CompactDocument;
use crate::core::document::SourceDocument;
use crate::core::event::{self, EventBuilder, InitialEvents};
use crate::core::facet::Facet;
use crate::core::future::TOLERANCE_MS;
use crate::core::observation::{Fact, LinkState, Observation};
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::{Transition, transitions};
use crate::lifecycle::Stop;
use crate::store::StoreError;
use crate::store::sqlite::confirmations::ConfirmedGroup;

mod committer;
mod events;
mod log;
mod pending;
mod stats;

pub use committer::Committer;
pub use pending::PendingCommits;
pub use stats::{Summary, WriterStats};

/// Maximum number of inputs per batch; large enough that a poll of thousands of sources causes few commits, small enough that a
/// pushed event behind it does not wait.
const MAX_INPUTS: usize = 512;
/// Number of sources without transitions that are written per second.
const HEARTBEATS_PER_SECOND: usize = 1000;
/// Number of documents without transitions in one commit: a change that arrives meanwhile waits for it.
const DOCUMENTS_PER_COMMIT: usize = 100;
/// How often (ms) what only confirms the documents is written where the documents of the file are not read: it limits how far a
/// crash sets back the rules for missed polls.
pub(super) const CHECKPOINT: i64 = 5 * 60 * 1000;
/// How long producers may take to finish after a stop.
const FINISH: Duration = Duration::from_secs(5);
/// A clock that is behind the last turn by more than this (ms) was set back.
const SET_BACK_MS: i64 = 2_000;
/// Pause before a change is moved onto the document of another process once more.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

/// How changes that are no transitions reach the sink.
#[derive(Debug)]
pub enum Heartbeats {
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

/// The single writer.
pub struct Writer {
    /// The state in memory.
    pub tracker: Tracker,
    /// The state on disk, and what waits for it.
    pub committer: Committer,
    pub inputs: ObservationReceiver,
    /// How often (ms) what only confirms the documents is written.
    pub confirm_every: i64,
    /// How changes that are no transitions reach the sink; `None` without a sink.
    pub heartbeats: Option<Heartbeats>,
    pub clock: Arc<dyn Clock>,
    /// Set when nothing more will be committed.
    pub closing: watch::Sender<bool>,
    /// Whether the end is published: each connected source is then disconnected.
    pub shutdown: bool,
    /// Whether first observations are published as separate events, or only as part of the state.
    pub initial_events: InitialEvents,
    /// The time of the last turn, by which a clock that is set back is noticed.
    pub last_turn: Option<Timestamp>,
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
    ) -> Result<(), StateFileError> {
        let inputs = observations.into_iter().map(Input::Observed);
        self.process(inputs.collect()).await?;
        let unwritten = self.tracker.writes.take_dirty(Destination::File);
        self.write_documents(&unwritten, self.clock.now()).await
    }

    /// Runs until the last producer is gone, then publishes the shutdown.
    pub async fn run(mut self, stop: Stop) -> Result<(), StateFileError> {
        self.tracker.writes.publishes_baseline = self.initial_events == InitialEvents::Flag;
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
                    self.process(std::mem::take(&mut batch)).await?;
                    self.committer.counts.inputs.fetch_add(count as u64, Ordering::Relaxed);
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
        self.committer.wake.notify_one();
        self.store_remaining(&stop).await;
        Ok(())
    }

    /// Stores the changes that are no transitions in the remote store, after the transitions before them are sent: the dispatcher
    /// has exited by then.
    async fn store_remaining(&mut self, stop: &Stop) {
        if !matches!(self.heartbeats, Some(Heartbeats::Store { .. })) {
            return;
        }
        tokio::select! {
            () = self.closing.closed() => {}
            () = stop.cut() => {}
        }
        let behind = self.committer.behind();
        let mut last = self.tracker.writes.take_dirty(Destination::Sink);
        last.retain(|source| !behind.contains(source));
        let snapshot = self.snapshot(&last);
        if let Some(Heartbeats::Store { store_queue, .. }) = &self.heartbeats {
            // Fails only if the persister has exited already.
            let _ = store_queue.send(snapshot).await;
        }
    }

    async fn shutdown(&mut self) -> Result<(), StateFileError> {
        let now = self.clock.now();
        if self.shutdown {
            let inputs = self.tracker.shutdown(now);
            self.process(inputs).await?;
        }
        self.committer.pending.retry_now();
        self.retry(now).await?;
        let groups = self.tracker.all_groups();
        self.confirm(groups, now).await?;
        let unwritten = self.tracker.writes.take_dirty(Destination::File);
        self.write_documents(&unwritten, now).await?;
        match self
            .committer
            .last_error
            .take()
            .filter(|_| !self.committer.pending.is_empty())
        {
            Some(error) => {
                error!(
                    events = self.committer.pending.events.len(),
                    "Changes could not be stored until the end; what is still true is found again at the next start"
                );
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// Processes a batch: merges it, finds the changes, and commits them with their events.
    async fn process(&mut self, inputs: Vec<Input>) -> Result<(), StateFileError> {
        let now = self.clock.now();
        self.tracker.behind_by = self.clock.latest().millis_since(now).max(0);
        let changes = self.tracker.merge(inputs, now);
        self.commit_changes(changes, now).await
    }

    /// Commits changes with their events. Those of sources that another process has written are moved onto its documents.
    async fn commit_changes(
        &mut self,
        mut changes: Vec<Change>,
        now: Timestamp,
    ) -> Result<(), StateFileError> {
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
            changes.retain(|change| {
                !change.steps.is_empty() && !self.committer.pending.contains(&change.source)
            });
            if changes.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Moves a source onto the document that another process has stored. One that cannot be used is not replaced: the source's
    /// events are published without it.
    fn rebase(&mut self, source: &SourceKey, steps: Vec<Step>) -> Result<Option<Change>, StateFileError> {
        self.committer.counts.count(|stats| {
            stats.conflicts += 1;
            stats.reads += 1;
        });
        let stored = match self.committer.state_file.document(source)? {
            None => None,
            Some(Ok(mut stored)) => {
                let latest = self.clock.latest();
                if stored.value.drop_future(latest) {
                    self.committer
                        .state_file
                        .drop_history_after(source, latest.plus_millis(TOLERANCE_MS))?;
                }
                Some(stored)
            }
            Some(Err(reason)) => {
                self.protect(
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
    pub fn protect(&mut self, source: &SourceKey, error: StoreError) {
        if !self.tracker.protect(source) {
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

    /// Builds the events of a change. A deferred source is published as one event later.
    fn events(&self, change: &Change, now: Timestamp) -> Result<Vec<NewEvent>, StateFileError> {
        if self.committer.pending.deferred.contains(&change.source) {
            return Ok(Vec::new());
        }
        let has_sink = self.committer.state_file.has_sink();
        let before = if has_sink {
            let published = self.committer.published(&change.source)?;
            SourceDocument::from_knowledge(change.source.clone(), published)
        } else {
            change.before.document(&change.source)
        };
        let rules = EventRules {
            initial_events: self.initial_events,
            // The first probe of many sources would list nothing but baselines.
            lists_baselines: has_sink || self.results.is_none(),
        };
        Ok(rules.events(change, before, now))
    }

    /// Commits, after what could not be committed before. Returns the sources that another process has written.
    async fn commit(&mut self, more: Commit) -> Result<Vec<SourceKey>, StateFileError> {
        let done = self.committer.commit(more, &self.tracker).await?;
        for (source, version) in done.versions {
            self.tracker.writes.mark_stored(&source, version);
        }
        if let Some(results) = &mut self.results {
            let summaries = done.summaries.into_iter();
            results
                .summaries
                .extend(summaries.map(|summary| (summary.key.clone(), summary)));
        }
        for (source, error) in done.rejected {
            self.protect(&source, error);
        }
        Ok(done.conflicts)
    }

    /// Commits what could not be committed before.
    async fn retry(&mut self, now: Timestamp) -> Result<(), StateFileError> {
        if self.committer.pending.is_empty() {
            return Ok(());
        }
        self.commit_changes(Vec::new(), now).await
    }

    /// Once a second: publishes deferred changes, retries pending commits, and writes changes that are no transitions.
    async fn turn(&mut self) -> Result<(), StateFileError> {
        self.committer.counts.turns.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        if self
            .last_turn
            .is_some_and(|last| last.millis_since(now) > SET_BACK_MS)
        {
            self.tracker.redate_future(self.clock.latest());
        }
        self.last_turn = Some(now);
        self.publish_deferred(now).await?;
        self.retry(now).await?;
        self.tracker.report_accounts();
        self.committer.counts.summarize(&self.tracker);
        if self.committer.pending.is_empty() {
            let (period, limit) = (self.confirm_every, HEARTBEATS_PER_SECOND);
            let due = self.tracker.writes.due_documents(now, period, limit);
            self.write_documents(&due, now).await?;
            let due = self.tracker.due_groups(now, period);
            self.confirm(due, now).await?;
        }
        self.send_heartbeats(now).await
    }

    async fn send_heartbeats(&mut self, now: Timestamp) -> Result<(), StateFileError> {
        let limit = HEARTBEATS_PER_SECOND;
        match &self.heartbeats {
            None => {}
            Some(Heartbeats::Store { period, store_queue }) => {
                let Ok(permit) = store_queue.clone().try_reserve_owned() else {
                    return Ok(());
                };
                let due = self.tracker.writes.due_for_sink(now, *period, limit);
                if !due.is_empty() {
                    let behind = self.committer.behind();
                    let (held, due): (Vec<_>, Vec<_>) =
                        due.into_iter().partition(|source| behind.contains(source));
                    self.tracker.writes.mark_due(&held);
                    let grown = self.tracker.writes.uncounted(&due);
                    self.write_documents(&grown, now).await?;
                    permit.send(self.snapshot(&due));
                }
            }
            Some(Heartbeats::Publish { period }) => {
                let due = self.tracker.writes.due_for_sink(now, *period, limit);
                self.publish_heartbeats(&due, now).await?;
            }
        }
        Ok(())
    }

    /// Publishes as one event per source what was not admitted before.
    async fn publish_deferred(&mut self, now: Timestamp) -> Result<(), StateFileError> {
        if self.committer.pending.deferred.is_empty()
            || self.committer.counts.commits_failing.load(Ordering::Relaxed)
        {
            return Ok(());
        }
        let sources: Vec<SourceKey> = self
            .committer
            .pending
            .deferred
            .iter()
            .take(100)
            .cloned()
            .collect();
        let mut commit = Commit::default();
        for source in sources {
            self.committer.pending.deferred.remove(&source);
            let Some(after) = self.tracker.document(&source) else {
                continue;
            };
            let before = SourceDocument::from_knowledge(source.clone(), self.committer.published(&source)?);
            let builder = EventBuilder {
                before: &before,
                after: &after,
                by: "bitbrat.watch",
                observed_at: now,
            };
            commit.documents.extend(self.tracker.write(&source, Vec::new()));
            if !self.committer.state_file.has_sink() {
                continue;
            }
            let events = builder.events(&transitions(&before.verdict, &after.verdict));
            commit.events.extend(events.into_iter().map(|event| NewEvent {
                class: Class::Transition,
                event,
                published: Some(after.knowledge.clone()),
            }));
        }
        self.commit_states(commit, now).await
    }

    /// Commits documents and events of sources without new changes; what another process has written is merged.
    async fn commit_states(&mut self, commit: Commit, now: Timestamp) -> Result<(), StateFileError> {
        let conflicts = self.commit(commit).await?;
        self.merge_conflicts(conflicts, now).await
    }

    async fn merge_conflicts(
        &mut self,
        conflicts: Vec<SourceKey>,
        now: Timestamp,
    ) -> Result<(), StateFileError> {
        let mut changes = Vec::new();
        for source in conflicts {
            changes.extend(self.rebase(&source, Vec::new())?);
        }
        changes.retain(|change| !change.steps.is_empty());
        self.commit_changes(changes, now).await
    }

    /// Reads stored documents again that could not be used.
    fn read_protected(&mut self, sources: &[SourceKey]) -> Result<(), StateFileError> {
        for source in sources {
            if self.tracker.writes.is_protected(source) {
                self.rebase(source, Vec::new())?;
            }
        }
        Ok(())
    }

    /// Writes the documents of sources without new changes.
    async fn write_documents(&mut self, sources: &[SourceKey], now: Timestamp) -> Result<(), StateFileError> {
        self.read_protected(sources)?;
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
    async fn confirm(&mut self, groups: Vec<ConfirmedGroup>, now: Timestamp) -> Result<(), StateFileError> {
        if groups.is_empty() {
            return Ok(());
        }
        let (conflicts, unwritten) = self.committer.confirm(groups).await?;
        self.tracker.writes.mark_unconfirmed(&unwritten);
        self.merge_conflicts(conflicts, now).await
    }

    fn snapshot(&self, sources: &[SourceKey]) -> Vec<(SourceKey, CompactDocument)> {
        let known = |source: &SourceKey| Some((source.clone(), self.tracker.compact(source)?));
        sources.iter().filter_map(known).collect()
    }

    async fn publish_heartbeats(
        &mut self,
        sources: &[SourceKey],
        now: Timestamp,
    ) -> Result<(), StateFileError> {
        self.read_protected(sources)?;
        let mut commit = Commit::default();
        for source in sources {
            let Some(document) = self.tracker.document(source) else {
                continue;
            };
            let event = if self.tracker.writes.completes_baseline(source) {
                event::baseline(&document, now)
            } else {
                event::heartbeat(&document, now)
            };
            if !self
                .tracker
                .writes
                .uncounted(std::slice::from_ref(source))
                .is_empty()
            {
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

    /// Logs the changes: the log of a quiet day contains only transitions. Those of a command are its results.
    fn note(&mut self, change: &Change) {
        if let Some(results) = &mut self.results {
            let of_source = results.transitions.entry(change.source.clone()).or_default();
            of_source.extend(change.transitions().cloned());
            return;
        }
        let mut stream = false;
        for step in &change.steps {
            self.committer
                .counts
                .transitions
                .fetch_add(step.changes.len() as u64, Ordering::Relaxed);
            for transition in &step.changes {
                stream |= transition.facet == Facet::Stream;
                log(&change.source, transition, step);
            }
        }
        if stream {
            self.committer.counts.summarize(&self.tracker);
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
