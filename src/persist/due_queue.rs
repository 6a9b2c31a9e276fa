//! Queue of sources with unsaved data by due time. Separate from the sources, so that an event for one of ten thousand sources
//! does not require a scan of the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::persist::source_state::{Need, SourceState};

/// The sources with unsaved data by due time.
#[derive(Default)]
pub struct DueQueue {
    entries: BTreeMap<SourceKey, Entry>,
    by_time: BTreeSet<(Timestamp, SourceKey)>,
    urgent: usize,
}

struct Entry {
    due: Timestamp,
    urgent: bool,
}

impl DueQueue {
    /// Updates the entry of `key` from `known`.
    pub fn update(&mut self, key: &SourceKey, known: &SourceState) {
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

    pub fn due(&self, now: Timestamp) -> BTreeSet<SourceKey> {
        let due = self.by_time.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, key)| key.clone()).collect()
    }

    /// Returns every source with unsaved data.
    pub fn all(&self) -> BTreeSet<SourceKey> {
        self.entries.keys().cloned().collect()
    }

    /// Returns the earliest due time.
    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Returns the number of sources with unsaved data.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of sources with an unsaved transition.
    pub fn urgent(&self) -> usize {
        self.urgent
    }
}
