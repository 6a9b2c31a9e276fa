//! What the writer has done, and a summary of the sources, for metrics, readiness and the overview.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::core::verdict::Status;
use crate::histogram::Histogram;
use crate::persist::Stats;
use crate::watch::account_reports::AccountState;
use crate::watch::tracker::{Confirmed, Tracker};

/// Upper bounds in seconds: without waiting for the disk, with it, and a disk that is busy.
const COMMIT_TIMES: [f64; 6] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0];

#[derive(Debug)]
pub struct WriterStats {
    /// All transitions; the metrics also count them by facet.
    pub transitions: AtomicU64,
    /// Events that were only listed, because no sink waits for them.
    pub listed: AtomicU64,
    /// Heartbeats dropped because the outbox was full.
    pub dropped: AtomicU64,
    /// Sources whose transitions were not admitted; they are published as one event later.
    pub deferred: AtomicU64,
    /// Whether the disk rejects writes.
    pub commits_failing: AtomicBool,
    /// Inputs that are processed and, if they changed a verdict, saved.
    pub inputs: AtomicU64,
    /// Incremented once a second unless the writer is blocked.
    pub turns: AtomicU64,
    /// How long commits take.
    pub commit_times: Histogram,
    /// Counts the commits, for readers of the store in this process.
    pub commits: watch::Sender<u64>,
    /// The summary of all sources, as of the last second.
    summary: Mutex<Summary>,
    store: Mutex<Stats>,
}

#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub live: BTreeSet<SourceKey>,
    pub by_status: BTreeMap<(PlatformName, Status), usize>,
    /// When the statuses of sources were last confirmed.
    pub confirmed: Confirmed,
    /// The accounts that sources need.
    pub accounts: Vec<AccountState>,
}

impl WriterStats {
    /// Creates counters that start at `now`.
    pub fn since(now: Timestamp) -> Self {
        Self {
            transitions: AtomicU64::default(),
            listed: AtomicU64::default(),
            dropped: AtomicU64::default(),
            deferred: AtomicU64::default(),
            commits_failing: AtomicBool::default(),
            inputs: AtomicU64::default(),
            turns: AtomicU64::default(),
            commit_times: Histogram::new(&COMMIT_TIMES),
            commits: watch::Sender::default(),
            summary: Mutex::default(),
            store: Mutex::new(Stats::since(now)),
        }
    }

    pub fn live(&self) -> BTreeSet<SourceKey> {
        self.summary().live
    }

    pub fn summary(&self) -> Summary {
        self.summary.lock().clone()
    }

    pub(super) fn summarize(&self, tracker: &Tracker) {
        *self.summary.lock() = Summary {
            live: tracker.index.live().clone(),
            by_status: tracker.index.by_status().clone(),
            confirmed: tracker.index.confirmed().clone(),
            accounts: tracker.accounts(),
        };
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.store.lock());
    }

    /// Returns the statistics of the documents written.
    pub fn store(&self) -> Stats {
        *self.store.lock()
    }
}
