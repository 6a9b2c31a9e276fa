//! What the persister knows of one source: the stored document, what was learnt since, and when to write it. No I/O.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::join::Join;
use crate::core::resting::{Resting, Shelf};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::{Transition, transitions};
use crate::persist::Outcome;
use crate::persist::economy::Economy;
use crate::store::{HistoryEntry, Version, Versioned, Write};

/// Pieces of unsaved knowledge kept apart. They matter only for the history, when a conflict makes us count its
/// transitions again.
const PIECES: usize = 64;

/// Entries of the history by which a message that comes again is known.
const RECORDED: usize = 16;

/// One source between two writes.
pub struct Known {
    key: SourceKey,
    document: Held,
    base: Base,
    unsaved: Vec<Piece>,
    history: Vec<HistoryEntry>,
    /// Ids of the entries that were stored last.
    recorded: VecDeque<Uuid>,
    heartbeat: Timestamp,
    retry: Option<Timestamp>,
    failures: u32,
    blocked: bool,
}

/// A document in memory.
enum Held {
    Open(Box<SourceDocument>),
    /// What it follows from.
    Resting(Resting),
    /// The same with what others wrote: the stored document, as JSON.
    RestingWithForeign(Box<str>),
}

impl Held {
    fn new(document: SourceDocument) -> Self {
        Self::Open(Box::new(document))
    }

    /// Returns the document, whatever form it has.
    fn get(&self, key: &SourceKey) -> SourceDocument {
        const OURS: &str = "it was written by us";
        match self {
            Self::Open(document) => SourceDocument::clone(document),
            Self::Resting(known) => SourceDocument::from_knowledge(key.clone(), known.knowledge()),
            Self::RestingWithForeign(text) => SourceDocument::from_text(key.clone(), text).expect(OURS),
        }
    }

    fn open(&mut self, key: &SourceKey) -> &mut SourceDocument {
        if !matches!(self, Self::Open(_)) {
            *self = Self::new(self.get(key));
        }
        match self {
            Self::Open(document) => document,
            Self::Resting(_) | Self::RestingWithForeign(_) => unreachable!("it was opened above"),
        }
    }

    fn rest(&mut self, shelf: &mut Shelf) {
        if let Self::Open(document) = self {
            *self = if document.is_all_ours() {
                Self::Resting(shelf.rest(std::mem::take(&mut document.knowledge)))
            } else {
                Self::RestingWithForeign(document.to_text().into())
            };
        }
    }
}

/// What is known of the stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    /// It was not read yet.
    Unread,
    /// Its version; `None` when there is no document.
    Stored(Option<Version>),
}

struct Piece {
    knowledge: Kept,
    /// The changes that whoever learnt it told.
    told: Vec<Transition>,
    /// Whether joining it changed a verdict.
    decisive: bool,
}

/// Knowledge that waits.
enum Kept {
    Awake(Box<Knowledge>),
    Resting(Resting),
}

impl Kept {
    fn new(knowledge: Knowledge) -> Self {
        Self::Awake(Box::new(knowledge))
    }

    fn wake(self) -> Knowledge {
        match self {
            Self::Awake(knowledge) => *knowledge,
            Self::Resting(resting) => resting.knowledge(),
        }
    }

    fn join(&mut self, more: Self) {
        if let Self::Resting(resting) = self {
            *self = Self::new(resting.knowledge());
        }
        if let Self::Awake(knowledge) = self {
            knowledge.join(more.wake());
        }
    }

    fn rest(&mut self, shelf: &mut Shelf) {
        if let Self::Awake(knowledge) = self {
            *self = Self::Resting(shelf.rest(std::mem::take(knowledge)));
        }
    }
}

/// How a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing is to be written.
    Nothing,
    /// Its stored document must be read first, from this moment on.
    Reading(Timestamp),
    /// It is to be written from this moment on.
    Writing(Timestamp),
}

impl Known {
    /// Starts with a source of which nothing was read yet.
    pub fn unread(key: SourceKey) -> Self {
        Self {
            document: Held::new(SourceDocument::new(key.clone())),
            key,
            base: Base::Unread,
            unsaved: Vec::new(),
            history: Vec::new(),
            recorded: VecDeque::new(),
            heartbeat: Timestamp::EPOCH,
            retry: None,
            failures: 0,
            blocked: false,
        }
    }

    /// Takes in what was learnt.
    pub fn learn(&mut self, knowledge: Knowledge, told: Vec<Transition>, now: Timestamp) {
        let decisive = match self.base {
            Base::Unread => true,
            Base::Stored(_) => match self.join(knowledge.clone(), &told, now) {
                Some(decisive) => decisive,
                None => return,
            },
        };
        self.keep(Piece {
            knowledge: Kept::new(knowledge),
            told,
            decisive,
        });
    }

    /// Joins a piece into the document. `None` when it is not news, else whether there is a change to be recorded: those that
    /// were told with it, and those of other facets that it brings here. What was told is recorded also when later evidence has
    /// overtaken it.
    fn join(&mut self, knowledge: Knowledge, told: &[Transition], now: Timestamp) -> Option<bool> {
        let fresh = self.not_recorded(told, now);
        let key = &self.key;
        let document = self.document.open(key);
        let known = document.knowledge.clone();
        let verdict = document.verdict.clone();
        document.join(knowledge);
        if document.knowledge == known && fresh.is_empty() {
            return None;
        }
        let is_told = |facet| told.iter().any(|change| change.facet == facet);
        let mut changes = transitions(&verdict, &document.verdict);
        changes.retain(|change| !is_told(change.facet));
        let decisive = !changes.is_empty() || !fresh.is_empty();
        self.history.extend(
            changes
                .into_iter()
                .map(|change| HistoryEntry::new(key, now, change)),
        );
        self.history.extend(fresh);
        Some(decisive)
    }

    /// Returns the entries of those changes that are not recorded yet, and do not wait for it. A message may come again.
    fn not_recorded(&self, told: &[Transition], now: Timestamp) -> Vec<HistoryEntry> {
        told.iter()
            .map(|change| HistoryEntry::new(&self.key, now, change.clone()))
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
            self.unsaved[0].told.extend(second.told);
        }
    }

    /// Puts what was learnt on top of the document that is stored now. What it already contains is not news any more.
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
            self.learn(piece.knowledge.wake(), piece.told, now);
        }
        if vanished {
            // Someone deleted the document, or the whole store was replaced: what we know of it is kept.
            self.learn(before.get(&self.key).knowledge, Vec::new(), now);
        }
    }

    /// Makes it small until it is next needed: there may be ten thousand of them.
    pub fn rest(&mut self, shelf: &mut Shelf) {
        self.document.rest(shelf);
        for piece in &mut self.unsaved {
            piece.knowledge.rest(shelf);
        }
    }

    /// Returns what the source needs.
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

    /// Returns whether a transition, or the very first document, waits to be written or is not even known yet.
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

    /// Records that the write was stored. Returns its transitions.
    pub fn saved(&mut self, version: Version, next_heartbeat: Timestamp) -> Vec<Transition> {
        self.base = Base::Stored(Some(version));
        self.unsaved = Vec::new();
        self.heartbeat = next_heartbeat;
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

    /// Records a failure to read or write. One that a person must mend (`blocked`) is looked at again a heartbeat later.
    pub fn failed(&mut self, blocked: bool, economy: &Economy, now: Timestamp, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.blocked = blocked;
        self.retry = Some(if blocked {
            economy.next_heartbeat(now, chance)
        } else {
            economy.next_try(now, self.failures, chance)
        });
    }

    /// Returns how things stand when nothing was written.
    pub fn outlook(&self) -> Outcome {
        match self.need() {
            Need::Nothing => Outcome::Unchanged,
            _ if self.blocked => Outcome::Blocked,
            Need::Writing(_) if !self.is_urgent() => Outcome::Coalesced,
            Need::Reading(_) | Need::Writing(_) => Outcome::Waiting,
        }
    }

    /// Returns the document as it is known now, stored or not.
    pub fn document(&self) -> Option<SourceDocument> {
        (self.base != Base::Unread).then(|| self.document.get(&self.key))
    }
}
