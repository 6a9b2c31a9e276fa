//! The one writer: joins what is learnt into stored documents, sparingly, and never loses a transition.
//!
//! A transition is written at once, together with its history entry. Everything else waits for the source's heartbeat.
//! Documents and versions are remembered, so the steady case reads nothing. When someone else wrote in between, the
//! document is read again, joined and written again. A source in trouble waits; the others go on.

mod agenda;
pub mod chat;
pub mod consumer;
pub mod economy;
pub mod inbox;
mod known;
pub mod overview;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Chance, Clock};
use crate::core::document::SourceDocument;
use crate::core::event::read::Learnt;
use crate::core::evidence::Knowledge;
use crate::core::observation::Observation;
use crate::core::resting::Shelf;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::persist::agenda::Agenda;
use crate::persist::economy::Economy;
use crate::persist::known::{Known, Need};
use crate::store::{SourceStore, StoreError, Version};

/// Rounds of read, join and write against other writers before a source is left for later.
const ROUNDS: u32 = 12;
/// Writes in one call of the store.
const BATCH: usize = 500;

/// Keeps a store up to date.
pub struct Persister {
    store: Arc<dyn SourceStore>,
    clock: Arc<dyn Clock>,
    chance: Chance,
    economy: Economy,
    state: tokio::sync::Mutex<State>,
    stats: Mutex<Stats>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<SourceKey, Known>,
    agenda: Agenda,
    shelf: Shelf,
}

/// What was learnt of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// The source.
    pub source: SourceKey,
    /// What to join.
    pub knowledge: Knowledge,
    /// The changes that whoever learnt it told. The history is theirs: messages that come out of order, or to several
    /// writers, would show others here, or none.
    pub told: Vec<Transition>,
}

impl From<(SourceKey, Knowledge)> for News {
    fn from((source, knowledge): (SourceKey, Knowledge)) -> Self {
        Self {
            source,
            knowledge,
            told: Vec::new(),
        }
    }
}

impl From<Learnt> for News {
    fn from(learnt: Learnt) -> Self {
        Self {
            source: learnt.source,
            knowledge: learnt.knowledge,
            told: learnt.transitions,
        }
    }
}

/// What became of one source in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Written,
    /// It brought no transition and waits for the heartbeat.
    Coalesced,
    /// The store already had it.
    Unchanged,
    /// The store is in trouble; it is tried again later. Until then a transition is only in memory.
    Waiting,
    /// What is stored cannot be used, or what is to be stored is refused: a person must act. It is kept in memory and
    /// looked at again with each heartbeat.
    Blocked,
}

/// What a call did.
#[derive(Debug, Default)]
pub struct Applied {
    /// What became of each source.
    pub outcomes: BTreeMap<SourceKey, Outcome>,
    /// The transitions that were stored.
    pub transitions: BTreeMap<SourceKey, Vec<Transition>>,
    /// What went wrong.
    pub failures: Vec<(SourceKey, StoreError)>,
}

impl Applied {
    /// Returns how many sources had this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.values().filter(|found| **found == outcome).count()
    }
}

/// Actual figures since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// When counting began.
    pub since: Timestamp,
    /// Documents and history entries written.
    pub writes: u64,
    /// Documents written.
    pub documents: u64,
    /// Documents read.
    pub reads: u64,
    /// Writes that someone else had overtaken.
    pub conflicts: u64,
    /// Reads and writes that failed otherwise.
    pub failures: u64,
    /// Whether the last read or write failed.
    pub failing: bool,
    /// Sources with something not yet stored.
    pub pending: usize,
    /// Sources with a transition not yet stored.
    pub urgent: usize,
    /// When [`Persister::tick`] has something to do next.
    pub next_due: Option<Timestamp>,
}

impl Stats {
    /// Starts counting.
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

    /// Returns the writes a day at the pace so far; `None` in the first minute, which says nothing.
    pub fn writes_per_day(&self, now: Timestamp) -> Option<u64> {
        const DAY: i64 = 86_400_000;
        let elapsed = now.millis_since(self.since);
        let pace = i128::from(self.writes) * i128::from(DAY) / i128::from(elapsed.max(1));
        (elapsed >= 60_000).then(|| u64::try_from(pace).unwrap_or(u64::MAX))
    }
}

impl Persister {
    /// Starts without knowing anything; each source is read when it is first heard of.
    pub fn new(store: Arc<dyn SourceStore>, clock: Arc<dyn Clock>, economy: Economy, chance: Chance) -> Self {
        let stats = Stats::since(clock.now());
        Self {
            store,
            clock,
            chance,
            economy,
            state: tokio::sync::Mutex::default(),
            stats: Mutex::new(stats),
        }
    }

    /// Takes in what was learnt, in order, and writes what brings a transition. Returns when that is stored or has
    /// failed once; what failed is tried again by [`Persister::tick`].
    pub async fn apply(&self, learnt: impl IntoIterator<Item = impl Into<News>>) -> Applied {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let mut touched = BTreeSet::new();
        for news in learnt {
            let News {
                source: key,
                knowledge,
                told,
            } = news.into();
            let unread = || Known::unread(key.clone());
            let entry = state.known.entry(key.clone()).or_insert_with(unread);
            entry.learn(knowledge, told, now);
            touched.insert(key);
        }
        // Noted before anything is awaited, so that a caller who gives up on this call loses nothing.
        let State { known, agenda, .. } = &mut *state;
        for key in &touched {
            agenda.update(key, &known[key]);
        }
        self.work(&mut state, touched, Due::At(now)).await
    }

    /// As [`Persister::apply`], for single observations.
    pub async fn observe(&self, observations: &[Observation]) -> Applied {
        let learnt = observations
            .iter()
            .map(|observation| (observation.source.clone(), Knowledge::from(observation)));
        self.apply(learnt).await
    }

    /// Writes everything that is due: heartbeats, and what had failed before.
    pub async fn tick(&self) -> Applied {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let due = state.agenda.due(now);
        self.work(&mut state, due, Due::At(now)).await
    }

    /// Writes everything that is not stored yet, due or not.
    pub async fn flush(&self) -> Applied {
        let mut state = self.state.lock().await;
        let unsaved = state.agenda.all();
        self.work(&mut state, unsaved, Due::Always).await
    }

    /// Returns the figures so far.
    pub fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a source's document as it is known now, stored or not; `None` when it was never read.
    pub async fn document(&self, key: &SourceKey) -> Option<SourceDocument> {
        let state = self.state.lock().await;
        state.known.get(key).and_then(Known::document)
    }

    /// Reads and writes what is due of `keys`.
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
                self.step_aside(round).await;
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
            entry.rest(&mut state.shelf);
            state.agenda.update(&key, entry);
            applied.outcomes.entry(key).or_insert_with(|| entry.outlook());
        }
        self.take_stock(&state.agenda);
        applied
    }

    /// Writes `keys`. Returns those that someone else had overtaken.
    async fn write(
        &self,
        known: &mut BTreeMap<SourceKey, Known>,
        keys: &[SourceKey],
        applied: &mut Applied,
    ) -> Vec<SourceKey> {
        let mut overtaken = Vec::new();
        for batch in keys.chunks(BATCH) {
            let writes: Vec<_> = batch.iter().map(|key| known[key].write()).collect();
            let results = self.store.save(&writes).await;
            let now = self.clock.now();
            for (key, result) in batch.iter().zip(results) {
                let Some(entry) = known.get_mut(key) else { continue };
                match result {
                    Ok(version) => self.stored(key, entry, version, now, applied),
                    Err(StoreError::Conflict { .. }) => {
                        self.count(|stats| stats.conflicts += 1);
                        overtaken.push(key.clone());
                    }
                    Err(error) => self.failed(key, entry, error, applied),
                }
            }
        }
        overtaken
    }

    fn stored(
        &self,
        key: &SourceKey,
        entry: &mut Known,
        version: Version,
        now: Timestamp,
        applied: &mut Applied,
    ) {
        let heartbeat = self.economy.next_heartbeat(now, self.chance.fraction());
        let transitions = entry.saved(version, heartbeat);
        self.count(|stats| {
            stats.writes += 1 + transitions.len() as u64;
            stats.documents += 1;
            stats.failing = false;
        });
        applied.outcomes.insert(key.clone(), Outcome::Written);
        if !transitions.is_empty() {
            applied
                .transitions
                .entry(key.clone())
                .or_default()
                .extend(transitions);
        }
    }

    fn failed(&self, key: &SourceKey, entry: &mut Known, error: StoreError, applied: &mut Applied) {
        self.count(|stats| {
            stats.failures += 1;
            stats.failing = true;
        });
        let blocked = matches!(error, StoreError::Unusable { .. } | StoreError::Rejected { .. });
        entry.failed(blocked, &self.economy, self.clock.now(), self.chance.fraction());
        applied.outcomes.insert(key.clone(), entry.outlook());
        applied.failures.push((key.clone(), error));
    }

    /// Reads the stored documents of `keys` and puts what was learnt on top of them.
    async fn read(
        &self,
        known: &mut BTreeMap<SourceKey, Known>,
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
                    let heartbeat = self.economy.first_heartbeat(now, self.chance.fraction());
                    entry.rebase(stored, now, heartbeat);
                }
                Err(error) => self.failed(&key, entry, error, applied),
            }
        }
    }

    /// Lets other writers of the same documents finish; the more often they were faster, the longer.
    async fn step_aside(&self, round: u32) {
        let longest = Duration::from_millis(5).saturating_mul(1 << round.min(6));
        tokio::time::sleep(longest.mul_f64(self.chance.fraction())).await;
    }

    fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take_stock(&self, agenda: &Agenda) {
        self.count(|stats| {
            stats.pending = agenda.len();
            stats.urgent = agenda.urgent();
            stats.next_due = agenda.next();
        });
    }
}

/// Which sources are to be worked on.
#[derive(Clone, Copy)]
enum Due {
    /// Those due at a moment.
    At(Timestamp),
    /// All that have anything unsaved.
    Always,
}

impl Due {
    fn reading(self, entry: &Known) -> bool {
        matches!(entry.need(), Need::Reading(from) if self.reached(from))
    }

    fn writing(self, entry: &Known) -> bool {
        matches!(entry.need(), Need::Writing(from) if self.reached(from))
    }

    fn reached(self, from: Timestamp) -> bool {
        match self {
            Self::At(now) => from <= now,
            Self::Always => true,
        }
    }
}
