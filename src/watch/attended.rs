//! The sources that the daemon attends, by platform. A change of the configuration replaces them while everything runs.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::watch;

use crate::core::source::{PlatformName, SourceKey};

/// A source that the daemon attends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attendee {
    /// The source.
    pub key: SourceKey,
    /// Sources with a higher number are listened to first where a platform limits that.
    pub priority: i64,
    /// Discord: the channels that matter; all when empty.
    pub channels: Vec<String>,
}

impl From<SourceKey> for Attendee {
    fn from(key: SourceKey) -> Self {
        Self {
            key,
            priority: 0,
            channels: Vec::new(),
        }
    }
}

/// The sources by platform, in the order of the configuration.
pub type Roll = BTreeMap<PlatformName, Vec<Attendee>>;

/// The sources attended now. Cheap to clone; all clones see a change.
#[derive(Debug, Clone)]
pub struct Attended(watch::Sender<Arc<Roll>>);

impl Attended {
    /// Starts with these sources.
    pub fn new(sources: Vec<Attendee>) -> Self {
        Self(watch::Sender::new(Arc::new(by_platform(sources))))
    }

    /// Returns the keys of a platform's sources.
    pub fn of(&self, platform: PlatformName) -> Vec<SourceKey> {
        let all = self.all();
        let sources = all.get(&platform).into_iter().flatten();
        sources.map(|source| source.key.clone()).collect()
    }

    /// Returns all sources.
    pub fn all(&self) -> Arc<Roll> {
        Arc::clone(&self.0.borrow())
    }

    /// Counts all sources.
    pub fn count(&self) -> usize {
        self.all().values().map(Vec::len).sum()
    }

    /// Replaces the sources. Those who follow changes are told only when there is one.
    pub fn set(&self, sources: Vec<Attendee>) -> bool {
        let next = by_platform(sources);
        self.0.send_if_modified(|now| {
            let differs = **now != next;
            if differs {
                *now = Arc::new(next);
            }
            differs
        })
    }

    /// Follows changes.
    pub fn follow(&self) -> watch::Receiver<Arc<Roll>> {
        self.0.subscribe()
    }
}

fn by_platform(sources: Vec<Attendee>) -> Roll {
    let mut roll = Roll::new();
    let mut seen = HashSet::new();
    for source in sources {
        if seen.insert(source.key.clone()) {
            roll.entry(source.key.platform()).or_default().push(source);
        }
    }
    roll
}
