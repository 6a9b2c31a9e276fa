//! Turns what comes in into what is known, told and kept: the single writer of the daemon's memory.
//!
//! A change and its event are committed together before anything is told. While the disk refuses, nothing is told, the
//! change waits in memory, and the daemon says that it is not ready. A file that is broken ends it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use self::log::log;
use super::intake::{Input, Inputs};
use super::ledger::{Commit, Committed, Fresh, Ledger, LedgerError};
use super::queue::Class;
use super::tracker::{Change, Tracker};
use crate::blocking::blocking;
use crate::clock::Clock;
use crate::core::document::SourceDocument;
use crate::core::event::{self, Told};
use crate::core::evidence::Knowledge;
use crate::core::facet::Facet;
use crate::core::resting::Resting;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::transition::transitions;
use crate::core::verdict::{Status, Verdict};
use crate::lifecycle::Stop;

mod log;
mod stuck;

pub use stuck::Stuck;

/// Inputs taken together; enough that a poll of thousands of sources costs few commits, few enough that a pushed event
/// behind it does not wait.
const BATCH: usize = 512;
/// Sources handed on a second that have no transition.
const BEATS: usize = 1000;
/// What is known of a source is written down at least so often (ms), so that a crash never throws the rules for missed polls
/// back by more.
const CHECKPOINT: i64 = 5 * 60 * 1000;
/// How long producers get to finish after a stop.
const FINISH: Duration = Duration::from_secs(5);

/// What happens to news that is no transition.
#[derive(Debug)]
pub enum Beat {
    /// They go to the persister of this process, each source once a period.
    Keep {
        /// Milliseconds.
        period: i64,
        /// To the persister. One batch is under way at a time; while it is, news gather.
        keeper: mpsc::Sender<Vec<(SourceKey, Resting)>>,
    },
    /// They go to the bus as heartbeats, each source once a period.
    Publish {
        /// Milliseconds.
        period: i64,
    },
}

/// Counts and health of the recorder.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Transitions by facet are counted in the metrics; these are all of them.
    pub transitions: AtomicU64,
    /// Heartbeats dropped because the outbox was full.
    pub dropped: AtomicU64,
    /// Sources whose transitions found no room; what they tell is told in one piece later.
    pub owed: AtomicU64,
    /// Whether the disk refuses.
    pub blocked: AtomicBool,
    /// Inputs that are joined and, where they changed a verdict, written down.
    pub inputs: AtomicU64,
    /// Moved once a second, as long as the recorder is not stuck.
    pub beats: AtomicU64,
    /// What the sources amount to, as of the last second.
    summary: Mutex<Summary>,
}

/// What the sources amount to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Sources that are live.
    pub live: BTreeSet<SourceKey>,
    /// Sources by platform and status.
    pub by_status: BTreeMap<(PlatformName, Status), usize>,
}

impl Recorded {
    /// Returns the sources that are live now.
    pub fn live(&self) -> BTreeSet<SourceKey> {
        self.summary().live
    }

    /// Returns what the sources amount to.
    pub fn summary(&self) -> Summary {
        self.summary
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The single writer.
pub struct Recorder {
    /// Its memory.
    pub tracker: Tracker,
    /// Its memory on disk.
    pub ledger: Arc<Ledger>,
    /// What comes in.
    pub inputs: Inputs,
    /// What happens to news that is no transition.
    pub beat: Beat,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Rung after each commit.
    pub bell: Arc<Notify>,
    /// Told when nothing more will be committed.
    pub closing: watch::Sender<bool>,
    /// What was done.
    pub counts: Arc<Recorded>,
    /// Whether the end is told: each source that was kept connected is then disconnected.
    pub farewell: bool,
    /// What could not be committed yet.
    pub stuck: Stuck,
}

impl Recorder {
    /// Runs until the last producer is gone, then says farewell.
    pub async fn run(mut self, stop: Stop) -> Result<(), LedgerError> {
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
                    self.take(std::mem::take(&mut batch)).await?;
                    self.counts.inputs.fetch_add(count as u64, Ordering::Relaxed);
                }
                _ = second.tick() => self.beat().await?,
                () = &mut finish => {
                    warn!("Some producers have not finished in time; what they still tell is learnt at the next start");
                    break;
                }
            }
        }
        // Without producers there is nothing to do, but the daemon is over only when it is stopped.
        stop.requested().await;
        self.farewell().await?;
        // Nobody waits for the bell any more only when the dispatcher is gone, and then nobody needs it.
        self.closing.send_replace(true);
        self.bell.notify_one();
        self.keep_the_rest(&stop).await;
        Ok(())
    }

    /// Hands on the news that are no transitions, once the changes before them are told: the dispatcher is then gone.
    async fn keep_the_rest(&mut self, stop: &Stop) {
        if !matches!(self.beat, Beat::Keep { .. }) {
            return;
        }
        tokio::select! {
            () = self.closing.closed() => {}
            () = stop.cut() => {}
        }
        let behind = self.behind();
        let mut last = self.tracker.all_moved();
        last.retain(|source| !behind.contains(source));
        let snapshot = self.snapshot(&last);
        if let Beat::Keep { keeper, .. } = &self.beat {
            // Fails only when the persister is gone already.
            let _ = keeper.send(snapshot).await;
        }
    }

    async fn farewell(&mut self) -> Result<(), LedgerError> {
        let now = self.clock.now();
        if self.farewell {
            let inputs = self.tracker.farewell(now);
            self.take(inputs).await?;
        }
        self.stuck.rouse();
        self.commit(Commit::default()).await?;
        let lost = self.stuck.events.len();
        if lost > 0 {
            error!(
                events = lost,
                "The disk still refuses; these changes are found again at the next start"
            );
        }
        Ok(())
    }

    /// Takes in a batch: joins it, finds what changed, and commits that with its events.
    async fn take(&mut self, inputs: Vec<Input>) -> Result<(), LedgerError> {
        let now = self.clock.now();
        let changes = self.tracker.take(inputs, now);
        let mut commit = Commit::default();
        for change in changes {
            self.note(&change);
            let told = self.events(&change, now)?;
            commit.events.extend(told);
            commit.known.push((change.source, change.known));
        }
        if !commit.known.is_empty() {
            self.commit(commit).await?;
        }
        Ok(())
    }

    /// Builds the events that tell a source's steps.
    fn events(&mut self, change: &Change, now: Timestamp) -> Result<Vec<Fresh>, LedgerError> {
        if self.stuck.owed.contains(&change.source) {
            return Ok(Vec::new());
        }
        let mut told = self.told(&change.source)?;
        let mut events = Vec::new();
        for step in &change.steps {
            let before = SourceDocument::from_knowledge(change.source.clone(), told);
            let this = Told {
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
            events.extend(this.events(&step.changes).into_iter().map(|event| Fresh {
                class,
                event,
                told: Some(step.after.knowledge.clone()),
            }));
            told = step.after.knowledge.clone();
        }
        Ok(events)
    }

    /// What the bus was last told of a source, also when that is not on disk yet.
    fn told(&self, source: &SourceKey) -> Result<Knowledge, LedgerError> {
        match self.stuck.told(source) {
            Some(told) => Ok(told),
            None => match self.ledger.told(source) {
                Ok(told) => Ok(told.unwrap_or_default()),
                // Told from nothing is told in full: longer, never wrong.
                Err(error) if error.may_pass() => Ok(Knowledge::default()),
                Err(error) => Err(error),
            },
        }
    }

    /// Commits, together with what could not be committed before.
    async fn commit(&mut self, more: Commit) -> Result<(), LedgerError> {
        self.stuck.add(more);
        if self.stuck.is_resting() {
            self.stuck.melt();
            return Ok(());
        }
        self.stuck.rouse();
        if self.stuck.is_empty() {
            return Ok(());
        }
        let commit = Arc::new(self.stuck.take());
        let (ledger, shared) = (Arc::clone(&self.ledger), Arc::clone(&commit));
        match blocking(move || ledger.commit(&shared)).await {
            Ok(done) => {
                if self.counts.blocked.swap(false, Ordering::Relaxed) {
                    info!("The state directory can be written again");
                }
                self.settle(done);
                self.bell.notify_one();
                Ok(())
            }
            Err(error) if error.may_pass() => {
                if !self.counts.blocked.swap(true, Ordering::Relaxed) {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "Cannot write the state directory; changes wait in memory"
                    );
                }
                self.stuck.put_back(Arc::into_inner(commit).unwrap_or_default());
                Ok(())
            }
            // To wait for a file that stays broken would be to tell nothing any more, for good.
            Err(error) => Err(error),
        }
    }

    fn settle(&mut self, done: Committed) {
        if done.dropped > 0 {
            self.counts
                .dropped
                .fetch_add(done.dropped as u64, Ordering::Relaxed);
        }
        if !done.owed.is_empty() {
            error!(
                sources = done.owed.len(),
                "The outbox is full; the changes of these sources are told in one piece when there is room"
            );
            self.stuck.owed.extend(done.owed);
        }
        self.counts
            .owed
            .store(self.stuck.owed.len() as u64, Ordering::Relaxed);
    }

    /// The sources of which changes are still to be told. What is handed on as a whole would overtake them, and a stream that
    /// came and went meanwhile would be in nobody's history.
    fn behind(&self) -> HashSet<SourceKey> {
        let mut behind = self.ledger.behind();
        behind.extend(self.stuck.sources().cloned());
        behind
    }

    /// Once a second: what is owed, what is stuck, and the news that are no transitions.
    async fn beat(&mut self) -> Result<(), LedgerError> {
        self.counts.beats.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        self.pay(now).await?;
        if !self.stuck.is_empty() {
            self.commit(Commit::default()).await?;
        }
        self.summarise();
        match &self.beat {
            Beat::Keep { period, keeper } => {
                let Ok(permit) = keeper.clone().try_reserve_owned() else {
                    return Ok(());
                };
                let due = self.tracker.due(now, *period, BEATS);
                if !due.is_empty() {
                    let behind = self.behind();
                    let (held, due): (Vec<_>, Vec<_>) =
                        due.into_iter().partition(|source| behind.contains(source));
                    self.tracker.not_handed_on(&held);
                    self.checkpoint(&due, now).await?;
                    permit.send(self.snapshot(&due));
                }
            }
            Beat::Publish { period } => {
                let due = self.tracker.due(now, *period, BEATS);
                self.heartbeats(&due, now).await?;
            }
        }
        Ok(())
    }

    /// Tells in one piece what found no room before.
    async fn pay(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        if self.stuck.owed.is_empty() || self.counts.blocked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let sources: Vec<SourceKey> = self.stuck.owed.iter().take(100).cloned().collect();
        let mut commit = Commit::default();
        for source in sources {
            self.stuck.owed.remove(&source);
            let Some(after) = self.tracker.document(&source) else {
                continue;
            };
            let before = SourceDocument::from_knowledge(source.clone(), self.told(&source)?);
            let told = Told {
                before: &before,
                after: &after,
                by: "bitbrat.watch",
                observed_at: now,
            };
            let events = told.events(&transitions(&before.verdict, &after.verdict));
            commit
                .known
                .push((source, super::ledger::json(&after.knowledge).into()));
            commit.events.extend(events.into_iter().map(|event| Fresh {
                class: Class::Transition,
                event,
                told: Some(after.knowledge.clone()),
            }));
        }
        self.commit(commit).await
    }

    /// Writes down what is about to be handed on.
    async fn checkpoint(&mut self, sources: &[SourceKey], now: Timestamp) -> Result<(), LedgerError> {
        let known = self.tracker.unsaved(sources, now, CHECKPOINT);
        self.commit(Commit {
            known,
            events: Vec::new(),
        })
        .await
    }

    fn snapshot(&self, sources: &[SourceKey]) -> Vec<(SourceKey, Resting)> {
        let known = |source: &SourceKey| Some((source.clone(), self.tracker.known(source)?));
        sources.iter().filter_map(known).collect()
    }

    async fn heartbeats(&mut self, sources: &[SourceKey], now: Timestamp) -> Result<(), LedgerError> {
        let mut commit = Commit::default();
        for source in sources {
            let Some(document) = self.tracker.document(source) else {
                continue;
            };
            commit
                .known
                .push((source.clone(), super::ledger::json(&document.knowledge).into()));
            commit.events.push(Fresh {
                class: Class::Heartbeat,
                event: event::heartbeat(&document, now),
                told: None,
            });
        }
        if commit.known.is_empty() {
            return Ok(());
        }
        self.commit(commit).await
    }

    fn summarise(&self) {
        let summary = Summary {
            live: self.tracker.live().clone(),
            by_status: self.tracker.by_status().clone(),
        };
        *self.counts.summary.lock().unwrap_or_else(PoisonError::into_inner) = summary;
    }

    /// Logs what changed: the log of a quiet day holds transitions and nothing else.
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
            self.summarise();
        }
    }
}

fn is_live(verdict: &Verdict) -> bool {
    verdict.stream.value == StreamStatus::Online
}
