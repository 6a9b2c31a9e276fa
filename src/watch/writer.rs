//! Turns inputs into stored state and events: the single writer of the daemon's state.
//!
//! A change and its event are committed together before anything is published. While the disk rejects writes, nothing is
//! published, the change waits in memory, and the daemon reports that it is not ready. A damaged file ends the daemon.

use std::collections::{BTreeMap, BTreeSet, HashSet};
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
use super::outbox::{Commit, Committed, Fresh, Outbox, OutboxError};
use super::queue::Class;
use super::tracker::{Change, Tracker};
use crate::blocking::blocking;
use crate::clock::Clock;
use crate::core::compact::Compact;
use crate::core::document::SourceDocument;
use crate::core::event::{self, Event, EventBuilder, EventKind, InitialEvents};
use crate::core::evidence::Knowledge;
use crate::core::facet::Facet;
use crate::core::observation::{Fact, LinkState};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::transition::transitions;
use crate::core::verdict::{NOTHING_PROVEN, Status, Verdict};
use crate::lifecycle::Stop;

mod log;
mod pending;

pub use pending::PendingCommits;

/// Maximum number of inputs per batch; large enough that a poll of thousands of sources causes few commits, small enough that a
/// pushed event behind it does not wait.
const BATCH: usize = 512;
/// Number of sources without transitions that are published per second.
const HEARTBEATS_PER_SECOND: usize = 1000;
/// The state of a source is saved at least this often (ms), which limits how far a crash sets back the rules for missed polls.
const CHECKPOINT: i64 = 5 * 60 * 1000;
/// How long producers may take to finish after a stop.
const FINISH: Duration = Duration::from_secs(5);

/// How changes that are no transitions are published.
#[derive(Debug)]
pub enum Confirmations {
    /// To the persister of this process, each source once per period.
    Store {
        /// Milliseconds.
        period: i64,
        /// Queue to the persister. One batch is in flight at a time; meanwhile, changes accumulate.
        store_queue: mpsc::Sender<Vec<(SourceKey, Compact)>>,
    },
    /// To the bus as heartbeats, each source once per period.
    Publish {
        /// Milliseconds.
        period: i64,
    },
}

/// Counts and health of the writer.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// All transitions; the metrics also count them by facet.
    pub transitions: AtomicU64,
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
}

/// The summary of all sources.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Sources that are live.
    pub live: BTreeSet<SourceKey>,
    /// Sources by platform and status.
    pub by_status: BTreeMap<(PlatformName, Status), usize>,
    /// The accounts that sources need.
    pub accounts: Vec<AccountState>,
}

impl WriterStats {
    /// Returns the sources that are live now.
    pub fn live(&self) -> BTreeSet<SourceKey> {
        self.summary().live
    }

    /// Returns the summary of all sources.
    pub fn summary(&self) -> Summary {
        self.summary.lock().clone()
    }
}

/// The single writer.
pub struct Writer {
    /// The state in memory.
    pub tracker: Tracker,
    /// The state on disk.
    pub outbox: Arc<Outbox>,
    /// The inputs.
    pub inputs: ObservationReceiver,
    /// How changes that are no transitions are published.
    pub confirmations: Confirmations,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Notified after each commit.
    pub wake: Arc<Notify>,
    /// Set when nothing more will be committed.
    pub closing: watch::Sender<bool>,
    /// Counts of what was done.
    pub counts: Arc<WriterStats>,
    /// Whether the end is published: each connected source is then disconnected.
    pub shutdown: bool,
    /// What could not be committed yet.
    pub pending: PendingCommits,
    /// Whether first observations are published as separate events, or only as part of the state.
    pub initial_events: InitialEvents,
}

impl Writer {
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
                count = self.inputs.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    if stop.is_requested() {
                        batch.retain(|input| !closes_link(input));
                    }
                    self.take(std::mem::take(&mut batch)).await?;
                    self.counts.inputs.fetch_add(count as u64, Ordering::Relaxed);
                }
                _ = second.tick() => self.confirmations().await?,
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

    /// Stores the changes that are no transitions, after the transitions before them are sent: the dispatcher has exited by then.
    async fn store_remaining(&mut self, stop: &Stop) {
        if !matches!(self.confirmations, Confirmations::Store { .. }) {
            return;
        }
        tokio::select! {
            () = self.closing.closed() => {}
            () = stop.cut() => {}
        }
        let behind = self.behind();
        let mut last = self.tracker.take_dirty();
        last.retain(|source| !behind.contains(source));
        let snapshot = self.snapshot(&last);
        if let Confirmations::Store { store_queue, .. } = &self.confirmations {
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
        self.commit(Commit::default()).await?;
        let lost = self.pending.events.len();
        if lost > 0 {
            error!(
                events = lost,
                "The disk still refuses; these changes are found again at the next start"
            );
        }
        Ok(())
    }

    /// Processes a batch: merges it, finds the changes, and commits them with their events.
    async fn take(&mut self, inputs: Vec<Input>) -> Result<(), OutboxError> {
        let now = self.clock.now();
        self.tracker.behind_by = self.clock.latest().millis_since(now).max(0);
        let changes = self.tracker.take(inputs, now);
        let mut commit = Commit::default();
        for change in changes {
            self.note(&change);
            let published = self.events(&change, now)?;
            commit.events.extend(published);
            commit.known.push((change.source, change.known));
        }
        if !commit.known.is_empty() {
            self.commit(commit).await?;
        }
        Ok(())
    }

    /// Builds the events that report a source's steps.
    fn events(&mut self, change: &Change, now: Timestamp) -> Result<Vec<Fresh>, OutboxError> {
        if self.pending.deferred.contains(&change.source) {
            return Ok(Vec::new());
        }
        let published = self.published(&change.source)?;
        let mut before = SourceDocument::from_knowledge(change.source.clone(), published);
        let mut events = Vec::new();
        for step in &change.steps {
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
            events.extend(of_step.into_iter().map(|event| Fresh {
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

    /// Commits, together with what could not be committed before.
    async fn commit(&mut self, more: Commit) -> Result<(), OutboxError> {
        self.pending.add(more);
        if self.pending.is_backing_off() {
            self.pending.compact();
            return Ok(());
        }
        self.pending.retry_now();
        if self.pending.is_empty() {
            return Ok(());
        }
        let commit = Arc::new(self.pending.take());
        let (outbox, shared) = (Arc::clone(&self.outbox), Arc::clone(&commit));
        match blocking(move || outbox.commit(&shared)).await {
            Ok(done) => {
                if self.counts.blocked.swap(false, Ordering::Relaxed) {
                    info!("The state directory can be written again");
                }
                self.settle(done);
                self.wake.notify_one();
                Ok(())
            }
            Err(error) if error.may_pass() => {
                if !self.counts.blocked.swap(true, Ordering::Relaxed) {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "Cannot write the state directory; changes wait in memory"
                    );
                }
                self.pending.mark_due(Arc::into_inner(commit).unwrap_or_default());
                Ok(())
            }
            // Waiting for a file that stays damaged would stop publishing for good.
            Err(error) => Err(error),
        }
    }

    fn settle(&mut self, done: Committed) {
        if done.dropped > 0 {
            self.counts
                .dropped
                .fetch_add(done.dropped as u64, Ordering::Relaxed);
        }
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
    }

    /// The sources with changes that are still to be published. A complete state would overtake them, and a stream that started
    /// and ended meanwhile would be missing from the history.
    fn behind(&self) -> HashSet<SourceKey> {
        let mut behind = self.outbox.behind();
        behind.extend(self.pending.sources().cloned());
        behind
    }

    /// Once a second: publishes deferred changes, retries pending commits, and publishes changes that are no transitions.
    async fn confirmations(&mut self) -> Result<(), OutboxError> {
        self.counts.turns.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        self.publish_deferred(now).await?;
        if !self.pending.is_empty() {
            self.commit(Commit::default()).await?;
        }
        self.tracker.report_accounts();
        self.summarize();
        match &self.confirmations {
            Confirmations::Store { period, store_queue } => {
                let Ok(permit) = store_queue.clone().try_reserve_owned() else {
                    return Ok(());
                };
                let due = self.tracker.due(now, *period, HEARTBEATS_PER_SECOND);
                if !due.is_empty() {
                    let behind = self.behind();
                    let (held, due): (Vec<_>, Vec<_>) =
                        due.into_iter().partition(|source| behind.contains(source));
                    self.tracker.mark_due(&held);
                    self.checkpoint(&due, now).await?;
                    permit.send(self.snapshot(&due));
                }
            }
            Confirmations::Publish { period } => {
                let due = self.tracker.due(now, *period, HEARTBEATS_PER_SECOND);
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
            let events = published.events(&transitions(&before.verdict, &after.verdict));
            commit
                .known
                .push((source, super::outbox::json(&after.knowledge).into()));
            commit.events.extend(events.into_iter().map(|event| Fresh {
                class: Class::Transition,
                event,
                published: Some(after.knowledge.clone()),
            }));
        }
        self.commit(commit).await
    }

    /// Saves the state that is about to be published.
    async fn checkpoint(&mut self, sources: &[SourceKey], now: Timestamp) -> Result<(), OutboxError> {
        let known = self.tracker.unsaved(sources, now, CHECKPOINT);
        self.commit(Commit {
            known,
            events: Vec::new(),
        })
        .await
    }

    fn snapshot(&self, sources: &[SourceKey]) -> Vec<(SourceKey, Compact)> {
        let known = |source: &SourceKey| Some((source.clone(), self.tracker.known(source)?));
        sources.iter().filter_map(known).collect()
    }

    async fn heartbeats(&mut self, sources: &[SourceKey], now: Timestamp) -> Result<(), OutboxError> {
        let mut commit = Commit::default();
        for source in sources {
            let Some(document) = self.tracker.document(source) else {
                continue;
            };
            commit
                .known
                .push((source.clone(), super::outbox::json(&document.knowledge).into()));
            let event = if self.tracker.completes_baseline(source) {
                event::baseline(&document, now)
            } else {
                event::heartbeat(&document, now)
            };
            commit.events.push(Fresh {
                class: Class::Heartbeat,
                event,
                published: None,
            });
        }
        if commit.known.is_empty() {
            return Ok(());
        }
        self.commit(commit).await
    }

    fn summarize(&self) {
        let summary = Summary {
            live: self.tracker.live().clone(),
            by_status: self.tracker.by_status().clone(),
            accounts: self.tracker.accounts(),
        };
        *self.counts.summary.lock() = summary;
    }

    /// Logs the changes: the log of a quiet day contains only transitions.
    fn note(&self, change: &Change) {
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
    matches!(&observation.fact, Fact::Connection { state, .. } if *state == closed)
}

fn is_live(verdict: &Verdict) -> bool {
    verdict.stream.value == StreamStatus::Online
}
