//! What the persister knows of one source: the stored document, what was learnt since, and when to write it. No I/O.

use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::join::Join;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::{Transition, transitions};
use crate::persist::Outcome;
use crate::persist::economy::Economy;
use crate::store::{HistoryEntry, Version, Versioned, Write};

/// Pieces of unsaved knowledge kept apart. They matter only for the history, when a conflict makes us count its
/// transitions again.
const PIECES: usize = 64;

/// One source between two writes.
pub struct Known {
    document: SourceDocument,
    base: Base,
    unsaved: Vec<Piece>,
    history: Vec<HistoryEntry>,
    heartbeat: Timestamp,
    retry: Option<Timestamp>,
    failures: u32,
    blocked: bool,
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
    knowledge: Knowledge,
    /// Whether joining it changed a verdict.
    decisive: bool,
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
            document: SourceDocument::new(key),
            base: Base::Unread,
            unsaved: Vec::new(),
            history: Vec::new(),
            heartbeat: Timestamp::EPOCH,
            retry: None,
            failures: 0,
            blocked: false,
        }
    }

    /// Takes in what was learnt.
    pub fn learn(&mut self, knowledge: Knowledge, now: Timestamp) {
        let decisive = match self.base {
            Base::Unread => true,
            Base::Stored(_) => match self.join(knowledge.clone(), now) {
                None => return,
                Some(decisive) => decisive,
            },
        };
        self.keep(Piece { knowledge, decisive });
    }

    /// Joins a piece into the document. `None` when it is not news, else whether it changed a verdict.
    fn join(&mut self, knowledge: Knowledge, now: Timestamp) -> Option<bool> {
        let known = self.document.knowledge.clone();
        let verdict = self.document.verdict.clone();
        self.document.join(knowledge);
        if self.document.knowledge == known {
            return None;
        }
        let changes = transitions(&verdict, &self.document.verdict);
        let decisive = !changes.is_empty();
        let key = &self.document.key;
        self.history.extend(
            changes
                .into_iter()
                .map(|change| HistoryEntry::new(key, now, change)),
        );
        Some(decisive)
    }

    fn keep(&mut self, piece: Piece) {
        match self.unsaved.last_mut() {
            Some(last) if !last.decisive && !piece.decisive => last.knowledge.join(piece.knowledge),
            _ => self.unsaved.push(piece),
        }
        if self.unsaved.len() > PIECES {
            let second = self.unsaved.remove(1);
            self.unsaved[0].knowledge.join(second.knowledge);
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
            None => (SourceDocument::new(self.document.key.clone()), None),
        };
        if first_contact && version.is_some() {
            self.heartbeat = heartbeat;
        }
        let before = std::mem::replace(&mut self.document, document);
        self.base = Base::Stored(version);
        self.history.clear();
        self.retry = None;
        self.blocked = false;
        for piece in std::mem::take(&mut self.unsaved) {
            self.learn(piece.knowledge, now);
        }
        if vanished {
            // Someone deleted the document, or the whole store was replaced: what we know of it is kept.
            self.learn(before.knowledge, now);
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
            document: self.document.clone(),
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
        self.unsaved.clear();
        self.heartbeat = next_heartbeat;
        self.retry = None;
        self.failures = 0;
        self.blocked = false;
        self.history.drain(..).map(|entry| entry.transition).collect()
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
    pub fn document(&self) -> Option<&SourceDocument> {
        (self.base != Base::Unread).then_some(&self.document)
    }
}
