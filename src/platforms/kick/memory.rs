//! Data about channels that a running adapter caches between probes. It is not evidence; it only saves requests.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::viewers::{self, Counted, Reading};
use crate::core::time::Timestamp;

/// Channels by id, and ids by slug.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    channels: BTreeMap<u64, Known>,
    slugs: BTreeMap<String, u64>,
    counts: BTreeMap<u64, Counted>,
}

/// Cached data about a channel.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// When it was last requested, and whether it existed.
    pub(super) looked_up: Option<(Timestamp, bool)>,
    /// The user's name in its original spelling.
    pub(super) name: Option<String>,
}

impl Memory {
    pub(super) fn channel(&self, id: u64) -> Known {
        self.0.lock().channels.get(&id).cloned().unwrap_or_default()
    }

    /// Records that a channel was requested.
    pub(super) fn looked_up(&self, id: u64, at: Timestamp, exists: bool) {
        self.0.lock().channels.entry(id).or_default().looked_up = Some((at, exists));
    }

    /// Records a user's name.
    pub(super) fn named(&self, id: u64, name: &str) {
        self.0.lock().channels.entry(id).or_default().name = Some(name.to_owned());
    }

    pub(super) fn id_of(&self, slug: &str) -> Option<u64> {
        self.0.lock().slugs.get(slug).copied()
    }

    pub(super) fn remember_slug(&self, slug: &str, id: u64) {
        self.0.lock().slugs.insert(slug.to_owned(), id);
    }

    /// Interprets a viewer count by the previous ones.
    pub(super) fn read_count(&self, id: u64, stream_id: &str, raw: u64, at: Timestamp) -> Reading {
        let mut state = self.0.lock();
        let (reading, counted) = viewers::read(state.counts.get(&id), stream_id, raw, at);
        state.counts.insert(id, counted);
        reading
    }
}
