//! The sources that the daemon monitors, by platform. A configuration change replaces them at run time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::watch;

use crate::core::source::{PlatformName, SourceKey};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitoredSource {
    pub key: SourceKey,
    /// Sources with a higher priority are listened to first if a platform limits their number.
    pub priority: i64,
    /// Discord: the relevant channels; all when empty.
    pub channels: Vec<String>,
}

impl From<SourceKey> for MonitoredSource {
    fn from(key: SourceKey) -> Self {
        Self {
            key,
            priority: 0,
            channels: Vec::new(),
        }
    }
}

/// The sources by platform, in the order of the configuration.
pub type SourcesByPlatform = BTreeMap<PlatformName, Vec<MonitoredSource>>;

/// The currently monitored sources. Cheap to clone; all clones share changes.
#[derive(Debug, Clone)]
pub struct MonitoredSources(watch::Sender<Arc<SourcesByPlatform>>);

impl MonitoredSources {
    /// Starts with these sources.
    pub fn new(sources: Vec<MonitoredSource>) -> Self {
        Self(watch::Sender::new(Arc::new(by_platform(sources))))
    }

    /// Returns the keys of a platform's sources.
    pub fn of(&self, platform: PlatformName) -> Vec<SourceKey> {
        let all = self.all();
        let sources = all.get(&platform).into_iter().flatten();
        sources.map(|source| source.key.clone()).collect()
    }

    pub fn all(&self) -> Arc<SourcesByPlatform> {
        Arc::clone(&self.0.borrow())
    }

    pub fn count(&self) -> usize {
        self.all().values().map(Vec::len).sum()
    }

    /// Replaces the sources. Followers are notified only if they differ.
    pub fn set(&self, sources: Vec<MonitoredSource>) -> bool {
        let next = by_platform(sources);
        self.0.send_if_modified(|now| {
            let differs = **now != next;
            if differs {
                *now = Arc::new(next);
            }
            differs
        })
    }

    /// Returns a receiver for changes.
    pub fn follow(&self) -> watch::Receiver<Arc<SourcesByPlatform>> {
        self.0.subscribe()
    }
}

fn by_platform(sources: Vec<MonitoredSource>) -> SourcesByPlatform {
    let mut by_platform = SourcesByPlatform::new();
    let mut seen = HashSet::new();
    for source in sources {
        if seen.insert(source.key.clone()) {
            by_platform.entry(source.key.platform()).or_default().push(source);
        }
    }
    by_platform
}
