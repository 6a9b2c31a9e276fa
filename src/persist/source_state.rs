//! The persister's state of one source: the stored document, unsaved evidence, and when to write it. No I/O.

use std::collections::{BTreeSet, VecDeque};

use uuid::Uuid;

use crate::core::compact::{Compact, CompactDocument, Interner};
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::join::Join;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::{Transition, transitions};
use crate::persist::ApplyOutcome;
use crate::persist::write_policy::{Burst, Presentation, WritePolicy};
use crate::store::{HistoryEntry, Version, Versioned, Write};

/// Pieces of unsaved knowledge kept separately. They are needed only for the history, when a conflict requires its transitions
/// to be determined again.
const PIECES: usize = 64;

/// History entries by which a redelivered message is detected.
const RECORDED: usize = 16;

/// A source between two writes.
pub struct SourceState {
    key: SourceKey,
    document: Held,
    base: Base,
    unsaved: Vec<Piece>,
    history: Vec<HistoryEntry>,
    /// Ids of the most recently stored entries.
    recorded: VecDeque<Uuid>,
    heartbeat: Timestamp,
    /// Limits how often a changed name, title or category is written before the heartbeat.
    early: Burst,
    /// Whether such a change is waiting to be written.
    renamed: bool,
    retry: Option<Timestamp>,
    failures: u32,
    blocked: bool,
}

/// A document in memory.
enum Held {
    Open(Box<SourceDocument>),
    Compact(CompactDocument),
}

impl Held {
    fn new(document: SourceDocument) -> Self {
        Self::Open(Box::new(document))
    }

    /// Returns the document, expanding it if necessary.
    fn get(&self, key: &SourceKey) -> SourceDocument {
        match self {
            Self::Open(document) => SourceDocument::clone(document),
            Self::Compact(document) => document.document(key),
        }
    }

    fn open(&mut self, key: &SourceKey) -> &mut SourceDocument {
        if let Self::Compact(document) = self {
            *self = Self::new(document.document(key));
        }
        match self {
            Self::Open(document) => document,
            Self::Compact(_) => unreachable!("it was opened above"),
        }
    }

    fn rest(&mut self, key: &SourceKey, interner: &mut Interner) {
        if let Self::Open(document) = self {
            let document = std::mem::replace(&mut **document, SourceDocument::new(key.clone()));
            *self = Self::Compact(interner.document(document));
        }
    }
}

/// State of the stored document in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    /// Not read yet.
    Unread,
    /// Its version; `None` if there is no document.
    Stored(Option<Version>),
}

struct Piece {
    knowledge: Memory,
    reported: Vec<Transition>,
    /// Whether joining it changed a verdict.
    decisive: bool,
}

/// Unsaved knowledge.
enum Memory {
    Loaded(Box<Knowledge>),
    Compact(Compact),
}

impl Memory {
    fn new(knowledge: Knowledge) -> Self {
        Self::Loaded(Box::new(knowledge))
    }

    fn load(self) -> Knowledge {
        match self {
            Self::Loaded(knowledge) => *knowledge,
            Self::Compact(compact) => compact.knowledge(),
        }
    }

    fn join(&mut self, more: Self) {
        if let Self::Compact(compact) = self {
            *self = Self::new(compact.knowledge());
        }
        if let Self::Loaded(knowledge) = self {
            knowledge.join(more.load());
        }
    }

    fn rest(&mut self, interner: &mut Interner) {
        if let Self::Loaded(knowledge) = self {
            *self = Self::Compact(interner.compact(std::mem::take(knowledge)));
        }
    }
}

/// The next action for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// There is nothing to write.
    Nothing,
    /// Its stored document must be read first, from this time on.
    Reading(Timestamp),
    /// It is to be written, from this time on.
    Writing(Timestamp),
}

impl SourceState {
    /// Creates the state of a source whose document was not read yet.
    pub fn unread(key: SourceKey) -> Self {
        Self {
            document: Held::new(SourceDocument::new(key.clone())),
            key,
            base: Base::Unread,
            unsaved: Vec::new(),
            history: Vec::new(),
            recorded: VecDeque::new(),
            heartbeat: Timestamp::EPOCH,
            early: Burst::default(),
            renamed: false,
            retry: None,
            failures: 0,
            blocked: false,
        }
    }

    /// Joins new evidence.
    pub fn update(&mut self, mut knowledge: Knowledge, reported: Vec<Transition>, now: Timestamp) {
        knowledge.drop_future(now);
        let decisive = match self.base {
            Base::Unread => true,
            Base::Stored(_) => match self.join(knowledge.clone(), &reported, now) {
                Some(decisive) => decisive,
                None => return,
            },
        };
        self.keep(Piece {
            knowledge: Memory::new(knowledge),
            reported,
            decisive,
        });
    }

    /// Joins a piece into the document. `None` if it adds nothing, else whether there is a transition to record: those
    /// reported with it, and those of other facets that it causes here. Reported transitions are recorded even if later
    /// evidence has already superseded them.
    fn join(&mut self, knowledge: Knowledge, reported: &[Transition], now: Timestamp) -> Option<bool> {
        let key = &self.key;
        let found = &self.document.open(key).verdict;
        // A sender that observes a facet for the first time has no access to the history of others, so the comparison below
        // decides.
        let reported: Vec<_> = reported
            .iter()
            .filter(|change| !(change.initial && found.is_known(change.facet)))
            .cloned()
            .collect();
        let fresh = self.not_recorded(&reported, now);
        let key = &self.key;
        let document = self.document.open(key);
        let known = document.knowledge.clone();
        let verdict = document.verdict.clone();
        // The local clock may have been ahead when this was observed. The loss is not a transition until other evidence
        // replaces it.
        document.drop_future(now);
        let accepted = document.verdict.clone();
        document.join(knowledge);
        if document.knowledge == known && fresh.is_empty() {
            return None;
        }
        self.renamed |= Presentation::of(&known) != Presentation::of(&document.knowledge);
        if document.knowledge.evidence.is_refused() && !known.evidence.is_refused() {
            // Stored at once although the status is an error already, as after a revocation: a login that another process stores
            // meanwhile would otherwise be followed by this older refusal, as if it were a new error.
            self.heartbeat = self.heartbeat.min(now);
        }
        let is_reported = |facet| reported.iter().any(|change| change.facet == facet);
        let replaced: BTreeSet<_> = transitions(&accepted, &document.verdict)
            .into_iter()
            .map(|change| change.facet)
            .collect();
        let mut changes = transitions(&verdict, &document.verdict);
        changes.retain(|change| !is_reported(change.facet) && replaced.contains(&change.facet));
        let decisive = !changes.is_empty() || !fresh.is_empty();
        self.history.extend(HistoryEntry::of_changes(key, now, &changes));
        self.history.extend(fresh);
        Some(decisive)
    }

    /// Returns the entries of those transitions that are neither recorded nor waiting. A message may be redelivered.
    fn not_recorded(&self, reported: &[Transition], now: Timestamp) -> Vec<HistoryEntry> {
        HistoryEntry::of_changes(&self.key, now, reported)
            .into_iter()
            .filter(|entry| {
                let waits = self.history.iter().any(|waiting| waiting.id == entry.id);
                !waits && !entry.id.parse().is_ok_and(|id| self.recorded.contains(&id))
            })
            .collect()
    }

    fn keep(&mut self, piece: Piece) {
        match self.unsaved.last_mut() {
            Some(last) if !last.decisive && !piece.decisive => last.knowledge.join(piece.knowledge),
            _ => self.unsaved.push(piece),
        }
        if self.unsaved.len() > PIECES {
            let second = self.unsaved.remove(1);
            self.unsaved[0].knowledge.join(second.knowledge);
            self.unsaved[0].reported.extend(second.reported);
        }
    }

    /// Joins unsaved evidence to the document that is stored now. What the document already contains is no longer unsaved.
    pub fn rebase(
        &mut self,
        stored: Option<Versioned<SourceDocument>>,
        now: Timestamp,
        heartbeat: Timestamp,
    ) {
        let first_contact = self.base == Base::Unread;
        let vanished = stored.is_none() && matches!(self.base, Base::Stored(Some(_)));
        let (document, version) = match stored {
            Some(stored) => (stored.value, Some(stored.version)),
            None => (SourceDocument::new(self.key.clone()), None),
        };
        if first_contact && version.is_some() {
            self.heartbeat = heartbeat;
        }
        let before = std::mem::replace(&mut self.document, Held::new(document));
        self.base = Base::Stored(version);
        self.history.clear();
        self.retry = None;
        self.blocked = false;
        for piece in std::mem::take(&mut self.unsaved) {
            self.update(piece.knowledge.load(), piece.reported, now);
        }
        if vanished {
            // The document was deleted, or the whole store was replaced: our knowledge is kept.
            self.update(before.get(&self.key).knowledge, Vec::new(), now);
        }
    }

    /// Converts it to the compact form until it is needed again: there may be ten thousand sources.
    pub fn rest(&mut self, interner: &mut Interner) {
        self.document.rest(&self.key, interner);
        for piece in &mut self.unsaved {
            piece.knowledge.rest(interner);
        }
    }

    /// Brings the next write forward if a name, title or category has changed, within the rate limit.
    pub fn advance_heartbeat(&mut self, write_policy: &WritePolicy, now: Timestamp) {
        let period = i64::try_from(write_policy.heartbeat.as_millis()).unwrap_or(i64::MAX);
        if self.renamed && self.heartbeat > now && self.early.acquire(now, period) {
            self.heartbeat = now;
            self.renamed = false;
        }
    }

    /// Shortens waits that were set by a clock that was ahead: no source waits longer than the longest heartbeat.
    pub fn cap_waits(&mut self, write_policy: &WritePolicy, now: Timestamp) {
        self.heartbeat = self.heartbeat.min(write_policy.next_heartbeat(now, 1.0));
        let latest = write_policy
            .next_heartbeat(now, 1.0)
            .max(write_policy.next_try(now, u32::MAX, 1.0));
        self.retry = self.retry.map(|retry| retry.min(latest));
    }

    /// Returns the next action.
    pub fn need(&self) -> Need {
        let from = |usual: Timestamp| self.retry.map_or(usual, |retry| retry.max(usual));
        match &self.base {
            _ if self.unsaved.is_empty() => Need::Nothing,
            Base::Unread => Need::Reading(from(Timestamp::EPOCH)),
            Base::Stored(None) => Need::Writing(from(Timestamp::EPOCH)),
            Base::Stored(Some(_)) if !self.history.is_empty() => Need::Writing(from(Timestamp::EPOCH)),
            Base::Stored(Some(_)) => Need::Writing(from(self.heartbeat)),
        }
    }

    /// Returns whether a transition, or the first document, is unsaved, or the document was not read yet.
    pub fn is_urgent(&self) -> bool {
        !self.unsaved.is_empty() && (!self.history.is_empty() || !matches!(self.base, Base::Stored(Some(_))))
    }

    /// Returns the write that is due.
    pub fn write(&self) -> Write {
        Write {
            document: self.document.get(&self.key),
            base: match &self.base {
                Base::Unread => None,
                Base::Stored(version) => version.clone(),
            },
            history: self.history.clone(),
        }
    }

    /// Records a successful write. Returns its transitions.
    pub fn saved(&mut self, version: Version, next_heartbeat: Timestamp) -> Vec<Transition> {
        self.base = Base::Stored(Some(version));
        self.unsaved = Vec::new();
        self.heartbeat = next_heartbeat;
        self.renamed = false;
        self.retry = None;
        self.failures = 0;
        self.blocked = false;
        let stored = std::mem::take(&mut self.history);
        self.recorded
            .extend(stored.iter().filter_map(|entry| entry.id.parse::<Uuid>().ok()));
        let beyond = self.recorded.len().saturating_sub(RECORDED);
        self.recorded.drain(..beyond);
        stored.into_iter().map(|entry| entry.transition).collect()
    }

    /// Records a failed read or write. One that needs attention (`blocked`) is retried one heartbeat later.
    pub fn failed(&mut self, blocked: bool, write_policy: &WritePolicy, now: Timestamp, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.blocked = blocked;
        self.retry = Some(if blocked {
            write_policy.next_heartbeat(now, chance)
        } else {
            write_policy.next_try(now, self.failures, chance)
        });
    }

    /// Returns the outcome if nothing was written.
    pub fn pending_outcome(&self) -> ApplyOutcome {
        match self.need() {
            Need::Nothing => ApplyOutcome::Unchanged,
            _ if self.blocked => ApplyOutcome::Blocked,
            Need::Writing(_) if !self.is_urgent() => ApplyOutcome::Coalesced,
            Need::Reading(_) | Need::Writing(_) => ApplyOutcome::Waiting,
        }
    }

    /// Returns the current document, stored or not.
    pub fn document(&self) -> Option<SourceDocument> {
        (self.base != Base::Unread).then(|| self.document.get(&self.key))
    }
}
