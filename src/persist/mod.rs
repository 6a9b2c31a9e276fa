//! Keeps a store up to date that other processes write, too: joins evidence into its documents with few writes, and never loses a
//! transition. It is behind the sink of a remote store, in one-shot commands with one, and in the role `persist`.
//!
//! A transition is written immediately, together with its history entry. Everything else waits for the source's heartbeat.
//! Documents and versions are cached, so the steady state needs no reads. After a conflict with another writer, the document
//! is read again, joined and written again. A failing source waits; the others continue.

pub mod chat;
pub mod consumer;
mod due_queue;
pub mod inbox;
pub mod overview;
mod source_state;
#[cfg(test)]
mod tests;
pub mod write_policy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Chance, Clock};
use crate::core::compact::Interner;
use crate::core::document::SourceDocument;
use crate::core::event::read::SourceUpdate;
use crate::core::evidence::Knowledge;
use crate::core::observation::Observation;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::persist::due_queue::DueQueue;
use crate::persist::source_state::{Need, SourceState};
use crate::persist::write_policy::WritePolicy;
use crate::store::{SourceStore, StoreError, Version, Versioned};

/// Rounds of read, join and write against other writers before a source is postponed.
const ROUNDS: u32 = 12;
/// Writes in one call of the store.
const MAX_WRITES_PER_CALL: usize = 500;

/// Keeps a store up to date.
pub struct Persister {
    store: Arc<dyn SourceStore>,
    clock: Arc<dyn Clock>,
    chance: Chance,
    write_policy: WritePolicy,
    /// Whether documents stay as they are between two calls instead of in compact form.
    is_brief: bool,
    state: tokio::sync::Mutex<State>,
    stats: Mutex<Stats>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<SourceKey, SourceState>,
    due_queue: DueQueue,
    interner: Interner,
}

/// New evidence about one source.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceUpdate {
    /// The source concerned.
    pub source: SourceKey,
    /// Knowledge to join.
    pub knowledge: Knowledge,
    /// The transitions reported with it. They define the history: messages that arrive out of order, or at several writers,
    /// would result in other transitions here, or none.
    pub reported: Vec<Transition>,
}

impl From<(SourceKey, Knowledge)> for EvidenceUpdate {
    fn from((source, knowledge): (SourceKey, Knowledge)) -> Self {
        Self {
            source,
            knowledge,
            reported: Vec::new(),
        }
    }
}

impl From<SourceUpdate> for EvidenceUpdate {
    fn from(update: SourceUpdate) -> Self {
        Self {
            source: update.source,
            knowledge: update.knowledge,
            reported: update.transitions,
        }
    }
}

/// Result for one source in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// Stored.
    Written,
    /// No transition; waits for the heartbeat.
    Coalesced,
    /// Already in the store.
    Unchanged,
    /// The store failed; retried later. Until then a transition exists only in memory.
    Waiting,
    /// The stored document cannot be used, or the new one is rejected: needs attention. It is kept in memory and retried with
    /// each heartbeat.
    Blocked,
}

/// Result of a call.
#[derive(Debug, Default)]
pub struct Applied {
    /// Result for each source.
    pub outcomes: BTreeMap<SourceKey, ApplyOutcome>,
    /// The stored transitions.
    pub transitions: BTreeMap<SourceKey, Vec<Transition>>,
    pub failures: Vec<(SourceKey, StoreError)>,
}

impl Applied {
    /// Returns the number of sources with this outcome.
    pub fn count(&self, outcome: ApplyOutcome) -> usize {
        self.outcomes.values().filter(|found| **found == outcome).count()
    }
}

/// Statistics since startup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// When counting started.
    pub since: Timestamp,
    /// Documents and history entries written.
    pub writes: u64,
    /// Documents written, without history entries.
    pub documents: u64,
    /// Documents read from the store.
    pub reads: u64,
    /// Writes that failed because of a newer version by another writer.
    pub conflicts: u64,
    /// Reads and writes that failed for other reasons.
    pub failures: u64,
    /// Whether the last read or write failed.
    pub failing: bool,
    /// Sources with unsaved data.
    pub pending: usize,
    /// Sources with an unsaved transition.
    pub urgent: usize,
    /// When [`Persister::tick`] is due next.
    pub next_due: Option<Timestamp>,
}

impl Stats {
    /// Creates statistics that start at `now`.
    pub fn since(now: Timestamp) -> Self {
        Self {
            since: now,
            writes: 0,
            documents: 0,
            reads: 0,
            conflicts: 0,
            failures: 0,
            failing: false,
            pending: 0,
            urgent: 0,
            next_due: None,
        }
    }

    /// Adds the statistics of another writer of the same documents.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            since: self.since.min(other.since),
            writes: self.writes + other.writes,
            documents: self.documents + other.documents,
            reads: self.reads + other.reads,
            conflicts: self.conflicts + other.conflicts,
            failures: self.failures + other.failures,
            failing: self.failing || other.failing,
            pending: self.pending + other.pending,
            urgent: self.urgent + other.urgent,
            next_due: self.next_due.into_iter().chain(other.next_due).min(),
        }
    }

    /// Returns the projected writes per day; `None` in the first minute, when there is not enough data.
    pub fn writes_per_day(&self, now: Timestamp) -> Option<u64> {
        const DAY: i64 = 86_400_000;
        let elapsed = now.millis_since(self.since);
        let pace = i128::from(self.writes) * i128::from(DAY) / i128::from(elapsed.max(1));
        (elapsed >= 60_000).then(|| u64::try_from(pace).unwrap_or(u64::MAX))
    }
}

impl Persister {
    /// Creates a persister with an empty cache; each source is read on its first evidence.
    pub fn new(
        store: Arc<dyn SourceStore>,
        clock: Arc<dyn Clock>,
        write_policy: WritePolicy,
        chance: Chance,
    ) -> Self {
        let stats = Stats::since(clock.now());
        Self {
            store,
            clock,
            chance,
            write_policy,
            is_brief: false,
            state: tokio::sync::Mutex::default(),
            stats: Mutex::new(stats),
        }
    }

    /// Prepares it for a few calls about a few hundred sources: their documents are not compacted in between, which would take
    /// longer than the calls.
    #[must_use]
    pub fn brief(self) -> Self {
        Self {
            is_brief: true,
            ..self
        }
    }

    /// Joins new evidence in order, and writes sources with a transition. Returns when those are stored or have failed once;
    /// failed writes are retried by [`Persister::tick`].
    pub async fn apply(&self, updates: impl IntoIterator<Item = impl Into<EvidenceUpdate>>) -> Applied {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let mut touched = BTreeSet::new();
        for update in updates {
            let EvidenceUpdate {
                source: key,
                knowledge,
                reported,
            } = update.into();
            let unread = || SourceState::unread(key.clone());
            let entry = state.known.entry(key.clone()).or_insert_with(unread);
            entry.cap_waits(&self.write_policy, now);
            entry.update(knowledge, reported, now);
            entry.advance_heartbeat(&self.write_policy, now);
            touched.insert(key);
        }
        // Recorded before the first await, so that a canceled call loses nothing.
        let State { known, due_queue, .. } = &mut *state;
        for key in &touched {
            due_queue.update(key, &known[key]);
        }
        self.work(&mut state, touched, Due::At(now)).await
    }

    /// Adds documents that were just read from the store to the cache, so that they are not read again.
    pub async fn prime(&self, found: Vec<(SourceKey, Option<Versioned<SourceDocument>>)>) {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        self.count(|stats| stats.reads += found.len() as u64);
        let State { known, interner, .. } = &mut *state;
        for (key, stored) in found {
            let unread = || SourceState::unread(key.clone());
            let entry = known.entry(key.clone()).or_insert_with(unread);
            entry.rebase(
                stored,
                now,
                self.write_policy.first_heartbeat(now, self.chance.fraction()),
            );
            entry.rest(interner);
        }
    }

    /// Like [`Persister::apply`], for observations received now.
    pub async fn observe<'a>(&self, observations: impl IntoIterator<Item = &'a Observation>) -> Applied {
        let now = self.clock.now();
        let updates = observations.into_iter().map(|observation| {
            let received = observation.clone().received(now);
            (received.source.clone(), Knowledge::from(&received))
        });
        self.apply(updates).await
    }

    /// Writes everything that is due: heartbeats, and failed writes.
    pub async fn tick(&self) -> Applied {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let due = state.due_queue.due(now);
        self.work(&mut state, due, Due::At(now)).await
    }

    /// Writes all unsaved data, due or not.
    pub async fn flush(&self) -> Applied {
        let mut state = self.state.lock().await;
        let unsaved = state.due_queue.all();
        self.work(&mut state, unsaved, Due::Always).await
    }

    /// Returns the current statistics.
    pub fn stats(&self) -> Stats {
        *self.stats.lock()
    }

    /// Returns the summaries of the current documents of all sources that were read, stored or not.
    pub async fn summaries(&self) -> Vec<SourceSummary> {
        let state = self.state.lock().await;
        let documents = state.known.values().filter_map(SourceState::document);
        documents.map(|document| SourceSummary::of(&document)).collect()
    }

    /// Returns the current document of a source, stored or not; `None` if it was never read.
    pub async fn document(&self, key: &SourceKey) -> Option<SourceDocument> {
        let state = self.state.lock().await;
        state.known.get(key).and_then(SourceState::document)
    }

    /// Reads and writes those of `keys` that are due.
    async fn work(&self, state: &mut State, keys: BTreeSet<SourceKey>, due: Due) -> Applied {
        let mut applied = Applied::default();
        let known = &mut state.known;
        let unread = keys
            .iter()
            .filter(|key| due.reading(&known[*key]))
            .cloned()
            .collect();
        self.read(known, unread, &mut applied).await;
        let mut left: Vec<_> = keys.iter().cloned().collect();
        for round in 0..ROUNDS {
            left.retain(|key| !applied.outcomes.contains_key(key) && due.writing(&known[key]));
            if left.is_empty() {
                break;
            }
            if round > 0 {
                self.conflict_backoff(round).await;
            }
            left = self.write(known, &left, &mut applied).await;
            self.read(known, left.clone(), &mut applied).await;
        }
        left.retain(|key| !applied.outcomes.contains_key(key) && due.writing(&known[key]));
        for key in left {
            let document_id = key.to_string();
            if let Some(entry) = known.get_mut(&key) {
                self.failed(&key, entry, StoreError::Conflict { document_id }, &mut applied);
            }
        }
        for key in keys {
            let Some(entry) = known.get_mut(&key) else {
                continue;
            };
            if !self.is_brief {
                entry.rest(&mut state.interner);
            }
            state.due_queue.update(&key, entry);
            applied
                .outcomes
                .entry(key)
                .or_insert_with(|| entry.pending_outcome());
        }
        self.update_stats(&state.due_queue);
        applied
    }

    /// Writes `keys`. Returns those with a conflict.
    async fn write(
        &self,
        known: &mut BTreeMap<SourceKey, SourceState>,
        keys: &[SourceKey],
        applied: &mut Applied,
    ) -> Vec<SourceKey> {
        let mut conflicting = Vec::new();
        for batch in keys.chunks(MAX_WRITES_PER_CALL) {
            let writes: Vec<_> = batch.iter().map(|key| known[key].write()).collect();
            let results = self.store.save(&writes).await;
            let now = self.clock.now();
            for (key, result) in batch.iter().zip(results) {
                let Some(entry) = known.get_mut(key) else { continue };
                match result {
                    Ok(version) => self.stored(key, entry, version, now, applied),
                    Err(StoreError::Conflict { .. }) => {
                        self.count(|stats| stats.conflicts += 1);
                        conflicting.push(key.clone());
                    }
                    Err(error) => self.failed(key, entry, error, applied),
                }
            }
        }
        conflicting
    }

    fn stored(
        &self,
        key: &SourceKey,
        entry: &mut SourceState,
        version: Version,
        now: Timestamp,
        applied: &mut Applied,
    ) {
        let heartbeat = self.write_policy.next_heartbeat(now, self.chance.fraction());
        let transitions = entry.saved(version, heartbeat);
        self.count(|stats| {
            stats.writes += 1 + transitions.len() as u64;
            stats.documents += 1;
            stats.failing = false;
        });
        applied.outcomes.insert(key.clone(), ApplyOutcome::Written);
        if !transitions.is_empty() {
            applied
                .transitions
                .entry(key.clone())
                .or_default()
                .extend(transitions);
        }
    }

    fn failed(&self, key: &SourceKey, entry: &mut SourceState, error: StoreError, applied: &mut Applied) {
        let blocked = matches!(error, StoreError::Unusable { .. } | StoreError::Rejected { .. });
        self.count(|stats| {
            stats.failures += 1;
            // A single unusable document does not mean that the store fails.
            stats.failing |= !blocked;
        });
        entry.failed(
            blocked,
            &self.write_policy,
            self.clock.now(),
            self.chance.fraction(),
        );
        applied.outcomes.insert(key.clone(), entry.pending_outcome());
        applied.failures.push((key.clone(), error));
    }

    /// Reads the stored documents of `keys` and joins the unsaved evidence.
    async fn read(
        &self,
        known: &mut BTreeMap<SourceKey, SourceState>,
        keys: Vec<SourceKey>,
        applied: &mut Applied,
    ) {
        if keys.is_empty() {
            return;
        }
        self.count(|stats| stats.reads += keys.len() as u64);
        let found = self.store.load_some(&keys).await;
        let now = self.clock.now();
        for (key, read) in keys.into_iter().zip(found) {
            let Some(entry) = known.get_mut(&key) else {
                continue;
            };
            match read {
                Ok(stored) => {
                    let heartbeat = self.write_policy.first_heartbeat(now, self.chance.fraction());
                    entry.rebase(stored, now, heartbeat);
                    entry.advance_heartbeat(&self.write_policy, now);
                }
                Err(error) => self.failed(&key, entry, error, applied),
            }
        }
    }

    /// Delays a retry after a conflict so that other writers can finish; the delay increases with each round.
    async fn conflict_backoff(&self, round: u32) {
        let longest = Duration::from_millis(5).saturating_mul(1 << round.min(6));
        tokio::time::sleep(longest.mul_f64(self.chance.fraction())).await;
    }

    fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.lock());
    }

    fn update_stats(&self, due_queue: &DueQueue) {
        self.count(|stats| {
            stats.pending = due_queue.len();
            stats.urgent = due_queue.urgent();
            stats.next_due = due_queue.next();
        });
    }
}

/// Selects the sources to process.
#[derive(Clone, Copy)]
enum Due {
    /// Those due at this time.
    At(Timestamp),
    /// All with unsaved data.
    Always,
}

impl Due {
    fn reading(self, entry: &SourceState) -> bool {
        matches!(entry.need(), Need::Reading(from) if self.reached(from))
    }

    fn writing(self, entry: &SourceState) -> bool {
        matches!(entry.need(), Need::Writing(from) if self.reached(from))
    }

    fn reached(self, from: Timestamp) -> bool {
        match self {
            Self::At(now) => from <= now,
            Self::Always => true,
        }
    }
}
