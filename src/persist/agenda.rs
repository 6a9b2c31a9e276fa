//! Which sources have something to be written, and when. Kept beside the sources, so that one event among ten thousand
//! sources costs no look at the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::persist::known::{Known, Need};

/// The sources with something unsaved, by when it is due.
#[derive(Default)]
pub struct Agenda {
    entries: BTreeMap<SourceKey, Entry>,
    by_time: BTreeSet<(Timestamp, SourceKey)>,
    urgent: usize,
}

struct Entry {
    due: Timestamp,
    urgent: bool,
}

impl Agenda {
    /// Notes what `known` needs by now.
    pub fn update(&mut self, key: &SourceKey, known: &Known) {
        if let Some(old) = self.entries.remove(key) {
            self.by_time.remove(&(old.due, key.clone()));
            self.urgent -= usize::from(old.urgent);
        }
        let (Need::Reading(due) | Need::Writing(due)) = known.need() else {
            return;
        };
        let urgent = known.is_urgent();
        self.by_time.insert((due, key.clone()));
        self.entries.insert(key.clone(), Entry { due, urgent });
        self.urgent += usize::from(urgent);
    }

    /// Returns the sources due at `now`.
    pub fn due(&self, now: Timestamp) -> BTreeSet<SourceKey> {
        let due = self.by_time.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, key)| key.clone()).collect()
    }

    /// Returns every source with something unsaved.
    pub fn all(&self) -> BTreeSet<SourceKey> {
        self.entries.keys().cloned().collect()
    }

    /// Returns the earliest moment at which something is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Returns how many sources have something unsaved.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many sources have a transition unsaved.
    pub fn urgent(&self) -> usize {
        self.urgent
    }
}
