//! Logs how far the first check of all sources has come, and what it has found: without this the log of a start without
//! problems would not show when the numbers are complete.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::info;

use crate::core::number;
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::verdict::Status;
use crate::lifecycle::{Stop, Tasks};
use crate::telemetry::names;
use crate::watch::engine::Engine;
use crate::watch::overview::View;

/// How often the progress of a first check that takes long is logged.
const PROGRESS: Duration = Duration::from_secs(10);
/// How long after the last first check its results are counted: probes of accounts and permissions run beside it, and the summary
/// of all sources is updated once a second.
const SUMMARY_DELAY: Duration = Duration::from_millis(1_500);

/// The first checks that are still missing.
#[derive(Default)]
struct FirstChecks {
    missing: Mutex<Option<Missing>>,
    done: Notify,
}

#[derive(Default)]
struct Missing {
    sources: HashSet<SourceKey>,
    /// Why sources are not connected, with the number of sources.
    reasons: BTreeMap<String, usize>,
}

/// What is logged in the end.
#[derive(Debug, Default)]
struct Found {
    live: usize,
    attention: usize,
    disconnected: usize,
}

/// Starts to follow the first checks. Must be called before the pollers start. `jitter` is the longest delay of a probe.
pub(super) fn follow(engine: &Engine, tasks: &Tasks, jitter: Duration) {
    let all = engine.monitored.all();
    let sources: HashSet<SourceKey> = all.values().flatten().map(|source| source.key.clone()).collect();
    let count = sources.len();
    let checks = Arc::new(FirstChecks::default());
    *checks.missing.lock() = Some(Missing {
        sources,
        ..Missing::default()
    });
    let observed = Arc::clone(&checks);
    engine.add_observer(Arc::new(move |observation| observed.observe(observation)));
    let view = engine.view();
    tasks.spawn_finite("first-checks", |stop| async move {
        checks.report(count, &view, jitter, &stop).await;
    });
}

/// Logs the result of a single round, from what is stored.
pub(super) fn summarize<'a>(sources: usize, summaries: impl Iterator<Item = &'a SourceSummary>) {
    let mut found = Found::default();
    let mut checked = 0;
    for summary in summaries {
        checked += usize::from(summary.proven || summary.status == Status::Error);
        found.live += usize::from(summary.stream_status == StreamStatus::Online);
        found.attention += usize::from(summary.status == Status::Error);
        found.disconnected += usize::from(summary.proven && summary.status == Status::Disconnected);
    }
    log(checked, sources, &found, None);
}

impl FirstChecks {
    fn observe(&self, observation: &Observation) {
        let reason = match &*observation.fact {
            Fact::Connection {
                transport: Transport::Api,
                state,
            } => match state {
                LinkState::Down { error } => Some(&error.message),
                LinkState::Closed => return,
                LinkState::Up | LinkState::Answered | LinkState::Refused { .. } => None,
            },
            Fact::Exists | Fact::NoSuchSource { .. } => None,
            _ => return,
        };
        let mut missing = self.missing.lock();
        // Nothing is missing any more: the usual case.
        let Some(missing) = missing.as_mut() else {
            return;
        };
        if !missing.sources.remove(&observation.source) {
            return;
        }
        if let Some(reason) = reason {
            *missing.reasons.entry(reason.clone()).or_default() += 1;
        }
        if missing.sources.is_empty() {
            self.done.notify_one();
        }
    }

    async fn report(&self, count: usize, view: &View, jitter: Duration, stop: &Stop) {
        let started = Instant::now();
        let mut progress = tokio::time::interval_at(started + PROGRESS, PROGRESS);
        let mut reported = 0;
        if count == 0 {
            return;
        }
        loop {
            tokio::select! {
                () = self.done.notified() => break,
                () = stop.requested() => break,
                _ = progress.tick() => {
                    let left = self.missing.lock().as_ref().map_or(0, |missing| missing.sources.len());
                    let checked = count.saturating_sub(left);
                    if checked > std::mem::replace(&mut reported, checked) {
                        info!(
                            name: names::CHECKING, checked, sources = count,
                            "Checked {checked} of {} so far", number::count(count as u64, "source")
                        );
                    }
                }
            }
        }
        // Ends the work for each observation, too.
        let missing = self.missing.lock().take().unwrap_or_default();
        let counted_at = Instant::now().max(started + jitter) + SUMMARY_DELAY;
        if !stop.sleep(counted_at - Instant::now()).await {
            return;
        }
        let summary = view().summary;
        let with = |status: Status| {
            let counts = summary.by_status.iter().filter(|((_, with), _)| *with == status);
            counts.map(|(_, count)| count).sum()
        };
        let found = Found {
            live: summary.live.len(),
            attention: with(Status::Error),
            disconnected: with(Status::Disconnected),
        };
        let most = missing.reasons.into_iter().max_by_key(|(_, count)| *count);
        let reason = most.map(|(reason, _)| reason).filter(|_| found.disconnected > 0);
        log(count, count, &found, reason.as_deref());
    }
}

fn log(checked: usize, sources: usize, found: &Found, reason: Option<&str>) {
    let Found {
        live,
        attention,
        disconnected,
    } = found;
    info!(
        name: names::CHECKED, checked, sources, live, attention, disconnected, reason,
        "Checked {checked} of {}: {live} live, {disconnected} not connected, {attention} in error",
        number::count(sources as u64, "source")
    );
}
