//! Which sources are live, and how many have each status.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::{Status, Verdict};

#[derive(Debug, Default)]
pub struct StatusIndex {
    live: BTreeSet<SourceKey>,
    by_status: BTreeMap<(PlatformName, Status), usize>,
    confirmed: Confirmed,
}

/// How many sources of a platform have a status whose evidence was last confirmed in this second. Sources are confirmed a page at a
/// time, so there are few different seconds.
pub type Confirmed = BTreeMap<(PlatformName, Timestamp), usize>;

/// What the index lists of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexedStatus {
    live: bool,
    status: Status,
    confirmed_at: Option<Timestamp>,
}

impl IndexedStatus {
    pub(super) fn of(verdict: &Verdict) -> Self {
        Self {
            live: verdict.stream.value == StreamStatus::Online,
            status: verdict.status.value,
            confirmed_at: verdict.status.at.map(whole_second),
        }
    }
}

fn whole_second(at: Timestamp) -> Timestamp {
    at.plus_millis(-at.as_millis().rem_euclid(1_000))
}

/// Counts one less of `key`.
fn subtract<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl StatusIndex {
    pub fn live(&self) -> &BTreeSet<SourceKey> {
        &self.live
    }

    /// Returns how many sources there are by platform and status.
    pub fn by_status(&self) -> &BTreeMap<(PlatformName, Status), usize> {
        &self.by_status
    }

    /// Returns when the statuses of the sources were last confirmed.
    pub fn confirmed(&self) -> &Confirmed {
        &self.confirmed
    }

    /// Replaces what is listed of `source`; `before` is `None` for a new one.
    pub(super) fn replace(&mut self, source: &SourceKey, before: Option<IndexedStatus>, now: IndexedStatus) {
        let platform = source.platform();
        *self.by_status.entry((platform, now.status)).or_default() += 1;
        if let Some(at) = now.confirmed_at {
            *self.confirmed.entry((platform, at)).or_default() += 1;
        }
        if let Some(before) = before {
            subtract(&mut self.by_status, &(platform, before.status));
            if let Some(at) = before.confirmed_at {
                subtract(&mut self.confirmed, &(platform, at));
            }
        }
        if now.live {
            self.live.insert(source.clone());
        } else if before.is_some_and(|before| before.live) {
            self.live.remove(source);
        }
    }

    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.by_status.clear();
        self.confirmed.clear();
    }
}
