//! Looks once at the platforms, with progress, and keeps what was seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::join_all;

use crate::cli::context::Context;
use crate::cli::progress::Progress;
use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::Failure;
use crate::platforms::{Platform, ProbeSet, ProbeSink};

/// What a look brought.
#[derive(Debug, Default)]
pub struct Looked {
    /// Everything that was seen, in the order in which it was seen.
    pub observations: Vec<Observation>,
    /// How it went on each platform.
    pub platforms: Vec<PlatformLook>,
}

/// How a look at one platform went.
#[derive(Debug, Clone)]
pub struct PlatformLook {
    /// The platform.
    pub platform: PlatformName,
    /// Sources looked at.
    pub sources: usize,
    /// Requests sent.
    pub calls: usize,
    /// Milliseconds that it took.
    pub millis: u64,
    /// Problems worth telling.
    pub problems: Vec<String>,
}

impl Looked {
    /// Returns what was seen of `key`.
    pub fn of<'a>(&'a self, key: &'a SourceKey) -> impl Iterator<Item = &'a Observation> {
        self.observations.iter().filter(move |seen| seen.source == *key)
    }
}

struct Collector<'a> {
    seen: Mutex<Vec<Observation>>,
    progress: &'a Progress,
}

impl ProbeSink for Collector<'_> {
    fn observe(&self, observation: Observation) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(observation);
    }

    fn progress(&self, platform: PlatformName, done: usize, expected: usize) {
        self.progress.calls(platform, done, expected);
    }
}

/// Looks at `sources` for all of `probes`, every platform at the same time.
pub async fn look(
    cx: &Context,
    platforms: &[Arc<dyn Platform>],
    probes: &ProbeSet,
    sources: &[SourceKey],
) -> Result<Looked, Failure> {
    let mut by_platform: BTreeMap<PlatformName, Vec<SourceKey>> = BTreeMap::new();
    for key in sources {
        by_platform.entry(key.platform()).or_default().push(key.clone());
    }
    let collector = Collector {
        seen: Mutex::default(),
        progress: &cx.progress,
    };
    let looks = platforms.iter().filter_map(|platform| {
        let keys = by_platform.get(&platform.name())?;
        let collector = &collector;
        Some(async move {
            let started = Instant::now();
            let summary = platform.probe(probes, keys, collector).await;
            PlatformLook {
                platform: platform.name(),
                sources: keys.len(),
                calls: summary.calls,
                millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                problems: summary.problems,
            }
        })
    });
    let platforms = cx.progress.during(join_all(looks)).await;
    Ok(Looked {
        observations: collector.seen.into_inner().unwrap_or_else(PoisonError::into_inner),
        platforms,
    })
}
