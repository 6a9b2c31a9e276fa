//! Looks once at the platforms, with progress, and keeps what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::cli::context::Context;
use crate::cli::progress::Progress;
use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::transition::Transition;
use crate::platforms::{Platform, ProbeSet, ProbeSink};
use crate::store::{SourceStore, StoreError};

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
) -> Looked {
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
    Looked {
        observations: collector
            .seen
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
        platforms,
    }
}

/// How often it is counted what is stored already.
const GLANCE: Duration = Duration::from_millis(100);

/// What keeping a look changed.
#[derive(Debug, Default)]
pub struct Kept {
    /// Transitions that were stored.
    pub transitions: BTreeMap<SourceKey, Vec<Transition>>,
    /// What could not be stored, and why.
    pub failures: Vec<(SourceKey, StoreError)>,
}

/// Joins what was seen into the stored documents, with progress. Returns when everything is stored or has failed.
pub async fn keep(cx: &Context, store: Arc<dyn SourceStore>, seen: &[Observation]) -> Kept {
    let persister = cx.app.persister(store);
    let sources: BTreeSet<_> = seen.iter().map(|observation| &observation.source).collect();
    let keeping = async {
        let applied = persister.observe(seen).await;
        (applied, persister.flush().await)
    };
    let telling = async {
        loop {
            let done = persister.stats().documents;
            cx.progress.update("store", "sources", done, sources.len() as u64);
            tokio::time::sleep(GLANCE).await;
        }
    };
    let (mut applied, flushed) = cx
        .progress
        .during(async {
            tokio::select! {
                biased;
                kept = keeping => kept,
                never = telling => never,
            }
        })
        .await;
    for (key, transitions) in flushed.transitions {
        applied.transitions.entry(key).or_default().extend(transitions);
    }
    // What failed at first and was stored by the flush is no failure.
    let failures = flushed.failures;
    Kept {
        transitions: applied.transitions,
        failures,
    }
}

impl Kept {
    /// Returns the first reason why the store did not take something, other than that one document cannot be used: that
    /// one is shown as such.
    pub fn first_refusal(&self) -> Option<StoreError> {
        let mut errors = self.failures.iter().map(|(_, error)| error);
        errors
            .find(|error| !matches!(error, StoreError::Unusable { .. }))
            .cloned()
    }
}
