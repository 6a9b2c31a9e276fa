//! Which sources are live, and how many have each status.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::verdict::{Status, Verdict};

#[derive(Debug, Default)]
pub struct StatusIndex {
    live: BTreeSet<SourceKey>,
    by_status: BTreeMap<(PlatformName, Status), usize>,
}

/// What the index lists of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexedStatus {
    live: bool,
    status: Status,
}

impl IndexedStatus {
    pub(super) fn of(verdict: &Verdict) -> Self {
        Self {
            live: verdict.stream.value == StreamStatus::Online,
            status: verdict.status.value,
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

    /// Replaces what is listed of `source`; `before` is `None` for a new one.
    pub(super) fn replace(&mut self, source: &SourceKey, before: Option<IndexedStatus>, now: IndexedStatus) {
        let platform = source.platform();
        *self.by_status.entry((platform, now.status)).or_default() += 1;
        if let Some(before) = before
            && let Some(count) = self.by_status.get_mut(&(platform, before.status))
        {
            *count -= 1;
        }
        self.by_status.retain(|_, count| *count > 0);
        if now.live {
            self.live.insert(source.clone());
        } else if before.is_some_and(|before| before.live) {
            self.live.remove(source);
        }
    }

    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.by_status.clear();
    }
}
