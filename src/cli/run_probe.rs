//! Probes the platforms once, with progress, and stores the observations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;

use crate::app::{StoreAccess, clock_error};
use crate::cli::context::Context;
use crate::cli::output::Note;
use crate::cli::output::humane;
use crate::cli::output::view::Tone;
use crate::cli::progress::Progress;
use crate::core::document::SourceDocument;
use crate::core::observation::{AuthCheck, AuthResult, Fact, Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::failure::Failure;
use crate::http;
use crate::platforms::{Platform, ProbeSet, ProbeSink, Problem};
use crate::secrets;
use crate::store::{SourceStore, StoreError, Versioned};

#[derive(Debug, Default)]
pub struct ProbeResult {
    /// Everything that was observed, in order.
    pub observations: Vec<Observation>,
    pub platforms: Vec<PlatformResult>,
}

#[derive(Debug, Clone)]
pub struct PlatformResult {
    pub platform: PlatformName,
    pub sources: usize,
    pub calls: usize,
    /// Milliseconds that it took.
    pub millis: u64,
    pub problems: Vec<Problem>,
}

struct Collector<'a> {
    seen: Mutex<Collected>,
    progress: &'a Progress,
}

/// What was observed so far.
#[derive(Default)]
struct Collected {
    observations: Vec<Observation>,
    /// The newest facts about accounts and permissions, as they were observed and without secrets. Thousands of sources have the same
    /// ones, and they are the largest.
    shared: VecDeque<(Arc<Fact>, Arc<Fact>)>,
}

/// Maximum number of facts that are compared with a new one.
const SHARED_FACTS: usize = 16;

impl Collected {
    /// Adds an observation without the secrets in its texts.
    fn add(&mut self, mut observation: Observation) {
        if !matches!(&*observation.fact, Fact::Auth { .. } | Fact::Permissions { .. }) {
            secrets::clean(&mut observation);
        } else if let Some((_, known)) = self
            .shared
            .iter()
            .find(|(as_seen, _)| *as_seen == observation.fact)
        {
            observation.fact = Arc::clone(known);
        } else {
            let as_seen = Arc::clone(&observation.fact);
            secrets::clean(&mut observation);
            self.shared.truncate(SHARED_FACTS - 1);
            self.shared.push_front((as_seen, Arc::clone(&observation.fact)));
        }
        self.observations.push(observation);
    }
}

impl ProbeSink for Collector<'_> {
    fn observe(&self, observation: Observation) {
        self.seen.lock().add(observation);
    }

    fn progress(&self, platform: PlatformName, done: usize, expected: usize) {
        self.progress.calls(platform, done, expected);
    }
}

impl Collector<'_> {
    /// Returns the newest date of what was observed on a platform.
    fn newest_of(&self, platform: PlatformName) -> Option<Timestamp> {
        let seen = self.seen.lock();
        let of_platform = seen
            .observations
            .iter()
            .filter(|observation| observation.source.platform() == platform);
        of_platform.map(|observation| observation.at).max()
    }
}

/// Returns what to report where the newest observation of a probe is dated by a platform's clock that differs from ours: the
/// dates shown are then not those of this machine.
fn clock_error(
    platform: PlatformName,
    newest: Timestamp,
    began_at: Timestamp,
    now: Timestamp,
) -> Option<Problem> {
    let ahead = began_at.millis_since(newest);
    let behind = newest.millis_since(now);
    let (millis, direction) = if ahead > CLOCK_NOISE_MS {
        (ahead, "ahead of")
    } else if behind > CLOCK_NOISE_MS {
        (behind, "behind")
    } else {
        return None;
    };
    let by = humane::span(millis.unsigned_abs());
    Some(Problem::of_platform(format!(
        "{platform}: the clock of this machine is {by} {direction} the platform's; dates were corrected. Set the clock"
    )))
}

/// Returns what to report where a platform's responses show that our clock is behind, which a single probe does not correct.
fn uncorrected_clock_error(platform: PlatformName, measured: Option<i64>) -> Option<Problem> {
    let behind = measured.filter(|millis| *millis > CLOCK_NOISE_MS)?;
    let by = humane::span(behind.unsigned_abs());
    Some(Problem::of_platform(format!(
        "{platform}: the clock of this machine is {by} behind the platform's. Set the clock"
    )))
}

/// Runs all of `probes` for `sources`, every platform at the same time.
pub async fn run_probe(
    cx: &Context,
    platforms: &[Arc<dyn Platform>],
    probes: &ProbeSet,
    sources: &[SourceKey],
) -> ProbeResult {
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
            let (started, began_at) = (Instant::now(), cx.app.machine_clock.now());
            let summary = platform.probe(probes, keys, collector).await;
            let mut problems = summary.problems;
            let dated = collector.newest_of(platform.name());
            problems.extend(
                dated
                    .and_then(|newest| {
                        clock_error(platform.name(), newest, began_at, cx.app.machine_clock.now())
                    })
                    .or_else(|| uncorrected_clock_error(platform.name(), http::measured_clock_error())),
            );
            PlatformResult {
                platform: platform.name(),
                sources: keys.len(),
                calls: summary.calls,
                millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                problems,
            }
        })
    });
    let platforms = cx.progress.during(join_all(looks)).await;
    if cx.app.demo.is_none() {
        clock_error::share(&cx.app.settings.state_dir, cx.app.machine_clock.as_ref());
    }
    ProbeResult {
        observations: collector.seen.into_inner().observations,
        platforms,
    }
}

/// Clocks differ by less than this (ms), and responses take their time.
const CLOCK_NOISE_MS: i64 = 10_000;

/// Sources whose documents are in memory at a time, per portion. What is written of them fits in the cache of the file's connection.
const PORTION: usize = 250;
/// Portions that are stored concurrently, because a remote store takes its time for each.
const CONCURRENT_PORTIONS: usize = 4;

/// The effect of saving a probe.
#[derive(Debug, Default)]
pub struct SaveResult {
    pub transitions: BTreeMap<SourceKey, Vec<Transition>>,
    /// The documents of the observed sources, in short; without those that cannot be used.
    pub summaries: BTreeMap<SourceKey, SourceSummary>,
    /// Failures to store, with their reasons.
    pub failures: Vec<(SourceKey, StoreError)>,
}

/// Merges the observations into the stored documents, with progress. Returns when everything is stored or has failed, and what
/// changed is published, if there is a bus.
///
/// What was found out about an account holds for every source that needs it, so stored documents that contradict it are corrected
/// too, whether or not their sources were probed.
pub async fn save(
    cx: &Context,
    store: Arc<dyn SourceStore>,
    seen: &[Observation],
) -> Result<SaveResult, Failure> {
    let others = of_accounts(cx, store.as_ref(), seen).await;
    let mut by_source: BTreeMap<&SourceKey, Vec<&Observation>> = BTreeMap::new();
    for observation in seen.iter().chain(&others) {
        by_source
            .entry(&observation.source)
            .or_default()
            .push(observation);
    }
    let total = by_source.len() as u64;
    let recorder = cx.app.recorder(store).await?;
    let mut portions = Vec::new();
    let mut by_source = by_source.into_values().peekable();
    while by_source.peek().is_some() {
        portions.push(by_source.by_ref().take(PORTION).flatten().collect::<Vec<_>>());
    }
    let portions =
        stream::iter(portions).map(|portion| recorder.record(portion.into_iter().cloned().collect()));
    let mut portions = portions.buffer_unordered(CONCURRENT_PORTIONS);
    let saving = async {
        let mut saved = SaveResult::default();
        while let Some(portion) = portions.next().await {
            let portion = portion?;
            saved.transitions.extend(portion.transitions);
            let summaries = portion.summaries.into_iter();
            saved
                .summaries
                .extend(summaries.map(|summary| (summary.key.clone(), summary)));
            saved.failures.extend(portion.failures);
            let done = saved.summaries.len() as u64;
            cx.progress.update("store", "sources", done, total);
        }
        Ok::<_, StoreError>(saved)
    };
    cx.progress.update("store", "sources", 0, total);
    let saved = cx.progress.during(saving).await;
    drop(portions);
    let saved = saved?;
    report_waiting(cx, recorder.finish().await)?;
    Ok(saved)
}

/// Corrects stored documents that contradict what was just found out about accounts. Best effort: a query of accounts must be
/// answered also where the store cannot be written.
pub async fn save_accounts(cx: &Context, checks: &BTreeMap<Identity, AuthCheck>) {
    let at = cx.app.clock.now();
    // Read first: a query of accounts must not create a store.
    let Ok(store) = cx.app.store(StoreAccess::Read).await else {
        return;
    };
    let mut corrections = Vec::new();
    for (identity, check) in checks {
        corrections.extend(contradicting(cx, store.as_ref(), identity, check, at, &BTreeSet::new()).await);
    }
    if corrections.is_empty() {
        return;
    }
    let Ok(store) = cx.app.store(StoreAccess::Write).await else {
        return;
    };
    if let Ok(recorder) = cx.app.recorder(store).await
        && recorder.record(corrections).await.is_ok()
    {
        let waiting = recorder.finish().await;
        // Without standard error it cannot be reported.
        let _ = report_waiting(cx, waiting);
    }
}

/// Reports events that could not be sent to the bus.
fn report_waiting(cx: &Context, waiting: usize) -> Result<(), Failure> {
    if waiting == 0 {
        return Ok(());
    }
    let what = match waiting {
        1 => "1 event waits in the outbox; the next `bitbrat watch` publishes it".to_owned(),
        _ => format!(
            "{} wait in the outbox; the next `bitbrat watch` publishes them",
            humane::count(waiting as u64, "event")
        ),
    };
    cx.note(&[Note::hint(Tone::Warn, what, Some("bitbrat doctor bus"))])
}

/// Returns what was found out about shared accounts as observations of the sources that were not probed and whose stored
/// documents contradict it.
async fn of_accounts(cx: &Context, store: &dyn SourceStore, seen: &[Observation]) -> Vec<Observation> {
    let mut newest: BTreeMap<&Identity, &Observation> = BTreeMap::new();
    let mut probed: BTreeMap<&Identity, BTreeSet<SourceKey>> = BTreeMap::new();
    for observation in seen {
        if let Fact::Auth { identity, .. } = &*observation.fact {
            let known = newest.entry(identity).or_insert(observation);
            if observation.at >= known.at {
                *known = observation;
            }
            probed
                .entry(identity)
                .or_default()
                .insert(observation.source.clone());
        }
    }
    let mut corrections = Vec::new();
    for (identity, observation) in newest {
        let (Fact::Auth { check, .. }, Some(probed)) = (&*observation.fact, probed.get(identity)) else {
            continue;
        };
        // Most probes find an account unchanged. Reading every document for that would cost more than the probe.
        let changed = check.result != AuthResult::Valid
            || !contradicted(store, identity, check, false, probed.iter().take(1))
                .await
                .is_empty();
        if changed {
            corrections.extend(contradicting(cx, store, identity, check, observation.at, probed).await);
        }
    }
    corrections
}

/// Returns `check` as an observation of each configured source that needs `identity`, is not `probed`, and whose stored document
/// contradicts it.
async fn contradicting(
    cx: &Context,
    store: &dyn SourceStore,
    identity: &Identity,
    check: &AuthCheck,
    at: Timestamp,
    probed: &BTreeSet<SourceKey>,
) -> Vec<Observation> {
    let keys = cx.app.sources.all().keys();
    // A guild with a bot of its own does not use the one of all others.
    let own_bot = |key: &SourceKey| Identity::named(format!("{identity}:{}", key.id()));
    let stored = cx.app.tokens().identities().await.unwrap_or_default();
    let others = keys
        .iter()
        .filter(|key| identity.concerns(key) && !probed.contains(key) && !stored.contains(&own_bot(key)));
    let sources = contradicted(store, identity, check, true, others)
        .await
        .into_iter();
    let check = Arc::new(check.clone());
    let fact = |identity: &Identity| Fact::Auth {
        identity: identity.clone(),
        check: Arc::clone(&check),
    };
    sources
        .map(|source| Observation::new(&source, at, "bitbrat.accounts", fact(identity)))
        .collect()
}

/// Returns those of `sources` whose stored documents give another result for `identity`, or none where `missing` counts.
async fn contradicted<'a>(
    store: &dyn SourceStore,
    identity: &Identity,
    check: &AuthCheck,
    missing: bool,
    sources: impl Iterator<Item = &'a SourceKey>,
) -> Vec<SourceKey> {
    let keys: Vec<SourceKey> = sources.cloned().collect();
    let found = store.load_some(&keys).await;
    let differs = |found: Result<Option<Versioned<SourceDocument>>, StoreError>| {
        let Ok(Some(stored)) = found else {
            return false;
        };
        let known = stored.value.knowledge.evidence.auth.get(identity);
        known.map_or(missing, |known| {
            (known.value.result, known.value.rejected) != (check.result, check.rejected)
        })
    };
    keys.into_iter()
        .zip(found)
        .filter_map(|(key, found)| differs(found).then_some(key))
        .collect()
}

impl SaveResult {
    /// Returns the first reason why the store rejected a write, other than that one document cannot be used: that one is shown as
    /// such.
    pub fn first_refusal(&self) -> Option<StoreError> {
        let mut errors = self.failures.iter().map(|(_, error)| error);
        errors
            .find(|error| !matches!(error, StoreError::Unusable { .. }))
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrected_clock_is_reported() {
        let at = |second| Timestamp::EPOCH.plus_secs(second);
        let report = |newest| clock_error(PlatformName::Kick, at(newest), at(7_200), at(7_203));
        assert_eq!((report(7_201), report(7_195), report(7_204)), (None, None, None));
        let ahead = report(3_600).unwrap().text;
        assert!(
            ahead.contains("clock of this machine is 1h") && ahead.contains("ahead of"),
            "{ahead}"
        );
        assert!(report(10_900).unwrap().text.contains("behind"));
    }
}
