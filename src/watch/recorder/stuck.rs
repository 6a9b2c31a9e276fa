//! What waits in memory while the disk refuses, and what found no room in the outbox.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::watch::ledger::{Commit, Fresh};

/// Events that wait in memory while the disk refuses. Beyond it, each source's changes melt into one.
const EVENTS: usize = 10_000;
/// How soon the disk is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What could not be committed yet.
#[derive(Debug, Default)]
pub struct Stuck {
    known: HashMap<SourceKey, Box<str>>,
    pub(super) events: Vec<Fresh>,
    /// Sources whose last transitions found no room.
    pub(super) owed: BTreeSet<SourceKey>,
    retry_at: Option<Instant>,
}

impl Stuck {
    /// Whether nothing waits for the disk.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.events.is_empty()
    }

    /// Whether it is too early to try the disk again.
    pub(super) fn is_resting(&self) -> bool {
        self.retry_at.is_some_and(|at| at > Instant::now())
    }

    /// Lets the disk be tried at once.
    pub(super) fn rouse(&mut self) {
        self.retry_at = None;
    }

    /// Adds what is to be committed after what waits.
    pub(super) fn add(&mut self, more: Commit) {
        self.known.extend(more.known);
        self.events.extend(more.events);
    }

    /// Hands out all that waits for the disk.
    pub(super) fn take(&mut self) -> Commit {
        Commit {
            known: self.known.drain().collect(),
            events: std::mem::take(&mut self.events),
        }
    }

    /// Takes back what the disk refused; it is tried again a second later.
    pub(super) fn put_back(&mut self, refused: Commit) {
        self.known.extend(refused.known);
        self.events = refused.events;
        self.retry_at = Some(Instant::now() + AGAIN);
        self.melt();
    }

    /// Keeps what waits in memory bounded: beyond the bound each source's changes are told in one piece later.
    pub(super) fn melt(&mut self) {
        if self.events.len() <= EVENTS {
            return;
        }
        error!(
            events = self.events.len(),
            "Too many changes wait for the disk; those of one source are told in one piece later"
        );
        let events = std::mem::take(&mut self.events);
        self.owed
            .extend(events.into_iter().map(|fresh| fresh.event.source));
    }

    /// Returns what the newest waiting event of `source` tells.
    pub(super) fn told(&self, source: &SourceKey) -> Option<Knowledge> {
        let newest_first = self.events.iter().rev();
        newest_first
            .filter(|fresh| fresh.event.source == *source)
            .find_map(|fresh| fresh.told.clone())
    }

    /// Returns the sources of which changes wait or are owed, some of them more than once.
    pub(super) fn sources(&self) -> impl Iterator<Item = &SourceKey> {
        let waiting = self.events.iter().map(|fresh| &fresh.event.source);
        waiting.chain(&self.owed)
    }
}
