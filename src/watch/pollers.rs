//! Pollers: one for each kind of probe and platform, each with one probe run at a time.
//!
//! The quick probes (connection, stream, viewers) share a poller and its calls; authorization checks and the slow permission
//! probe have pollers of their own, so that they do not delay stream detection.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::monitored::MonitoredSources;
use super::observations::ObservationSender;
use crate::clock::Chance;
use crate::core::observation::{Fact, LinkState, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::lifecycle::{Stop, Tasks};
use crate::platforms::{Platform, Probe, ProbeSet, ProbeSink, RateLimit};

/// Ticks of one instant arrive within this time, and are probed together.
const GATHER: Duration = Duration::from_millis(50);
/// A probe that was requested because of a suspected problem is not repeated sooner.
const NUDGE: Duration = Duration::from_mins(1);

pub struct Pollers {
    all: Vec<Arc<Poller>>,
    monitored: MonitoredSources,
    live: Arc<dyn Fn() -> BTreeSet<SourceKey> + Send + Sync>,
    jitter: Duration,
    chance: Chance,
    gate: OnceLock<Gate>,
}

struct Poller {
    platform: Arc<dyn Platform>,
    name: &'static str,
    probes: ProbeSet,
    waiting: Mutex<PendingProbes>,
    wake: Notify,
    counts: PollerCounts,
    evidence: Mutex<BTreeMap<Probe, Timestamp>>,
}

/// Requests that a poller has not started yet.
#[derive(Debug, Default)]
struct PendingProbes {
    /// For all sources of the platform.
    probes: ProbeSet,
    running: ProbeSet,
    /// For single sources, at once: a listener had a gap there.
    sources: BTreeMap<SourceKey, ProbeSet>,
    last_nudge: Option<Instant>,
}

#[derive(Debug, Default)]
struct PollerCounts {
    runs: AtomicU64,
    skipped: AtomicU64,
    calls: AtomicU64,
    problems: AtomicU64,
}

/// Forwards everything, and records when the last observation was received.
struct ActiveSink<'a> {
    inner: &'a dyn ProbeSink,
    last: Mutex<Instant>,
}

impl<'a> ActiveSink<'a> {
    fn new(inner: &'a dyn ProbeSink) -> Self {
        Self {
            inner,
            last: Mutex::new(Instant::now()),
        }
    }

    fn touch(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Returns once no observation was received for `patience`.
    async fn idle_for(&self, patience: Duration) {
        loop {
            let until = *self.last.lock() + patience;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[async_trait]
impl ProbeSink for ActiveSink<'_> {
    fn observe(&self, observation: Observation) {
        self.touch();
        self.inner.observe(observation);
    }

    fn progress(&self, platform: PlatformName, done: usize, expected: usize) {
        self.touch();
        self.inner.progress(platform, done, expected);
    }

    async fn ready(&self) {
        self.inner.ready().await;
        self.touch();
    }

    fn calls_at_once(&self) -> usize {
        self.inner.calls_at_once()
    }
}

/// Whether an observation of a source may have an effect now.
pub type Gate = Arc<dyn Fn(&SourceKey) -> bool + Send + Sync>;

/// Forwards what passes the gate, and records of which probes a run has brought evidence.
struct EvidenceSink<'a> {
    inner: &'a dyn ProbeSink,
    poller: &'a Poller,
    gate: Option<&'a Gate>,
}

#[async_trait]
impl ProbeSink for EvidenceSink<'_> {
    fn observe(&self, observation: Observation) {
        // A run may have begun before another member of the fleet took the source over.
        if self.gate.is_some_and(|gate| !gate(&observation.source)) {
            return;
        }
        if let Some(probe) = proves(&observation.fact) {
            let mut evidence = self.poller.evidence.lock();
            let newest = evidence.entry(probe).or_insert(observation.at);
            *newest = observation.at.max(*newest);
        }
        self.inner.observe(observation);
    }

    fn progress(&self, platform: PlatformName, done: usize, expected: usize) {
        self.inner.progress(platform, done, expected);
    }

    async fn ready(&self) {
        self.inner.ready().await;
    }

    fn calls_at_once(&self) -> usize {
        self.inner.calls_at_once()
    }
}

/// Returns the probe that has succeeded when a run observes `fact`.
fn proves(fact: &Fact) -> Option<Probe> {
    match fact {
        Fact::Connection {
            state: LinkState::Up, ..
        } => Some(Probe::Connection),
        Fact::Auth { .. } => Some(Probe::Auth),
        Fact::StreamSeen { .. } | Fact::StreamAbsent => Some(Probe::Stream),
        Fact::Viewers { .. } | Fact::ViewersHidden { .. } => Some(Probe::Viewers),
        Fact::Permissions { .. } => Some(Probe::Permissions),
        _ => None,
    }
}

/// Counts of a poller, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollerReport {
    pub platform: PlatformName,
    pub name: &'static str,
    /// The probes that it runs.
    pub probes: ProbeSet,
    pub runs: u64,
    /// Ticks that arrived while the previous run was still waiting or in progress.
    pub skipped: u64,
    pub calls: u64,
    pub problems: u64,
    /// The date of the newest evidence that each probe has brought. One without evidence is absent.
    pub evidence: BTreeMap<Probe, Timestamp>,
}

const POLLERS: [(&str, &[Probe]); 3] = [
    ("quick", &[Probe::Connection, Probe::Stream, Probe::Viewers]),
    ("auth", &[Probe::Auth]),
    ("permissions", &[Probe::Permissions]),
];

impl Pollers {
    /// Creates the pollers of `platforms`. `live` returns which sources are online, because viewers are counted only for those.
    pub fn new(
        platforms: &[Arc<dyn Platform>],
        monitored: MonitoredSources,
        live: Arc<dyn Fn() -> BTreeSet<SourceKey> + Send + Sync>,
        jitter: Duration,
        chance: Chance,
    ) -> Arc<Self> {
        let pollers = platforms.iter().flat_map(|platform| {
            POLLERS.map(|(name, probes)| {
                Arc::new(Poller {
                    platform: Arc::clone(platform),
                    name,
                    probes: probes.iter().copied().collect(),
                    waiting: Mutex::default(),
                    wake: Notify::new(),
                    counts: PollerCounts::default(),
                    evidence: Mutex::default(),
                })
            })
        });
        Arc::new(Self {
            all: pollers.collect(),
            monitored,
            live,
            jitter,
            chance,
            gate: OnceLock::new(),
        })
    }

    /// From now on drops observations of sources that `gate` does not let pass. Only the first gate that is set is used.
    pub fn set_gate(&self, gate: Gate) {
        let _ = self.gate.set(gate);
    }

    /// Handles a tick of the schedule: requests `probe` of all sources. One run of a schedule is in progress at a time: if the
    /// previous one has not ended, this one is skipped and counted.
    pub fn tick(&self, probe: Probe) {
        for poller in &self.all {
            poller.tick(probe);
        }
    }

    /// Requests `probes` of all sources of every platform, even if a run is in progress: something has changed since it started.
    pub fn ask(&self, probes: &ProbeSet) {
        for poller in &self.all {
            poller.ask(probes);
        }
    }

    /// Requests `probes` of single sources at once, without waiting for a tick.
    pub fn ask_now(&self, sources: &[SourceKey], probes: &ProbeSet) {
        for poller in &self.all {
            poller.ask_now(sources, probes);
        }
    }

    /// Requests an authorization check of a platform, because of an unexpected refusal. At most once a minute.
    pub fn check_tokens(&self, platform: PlatformName) {
        for poller in &self.all {
            let concerned = poller.platform.name() == platform && poller.probes.contains(&Probe::Auth);
            if concerned && poller.nudge() {
                debug!(platform = %platform, "Unexpected refusal; checking the tokens");
                poller.ask(&ProbeSet::from([Probe::Auth]));
            }
        }
    }

    /// Starts a task for each poller.
    pub fn start(self: &Arc<Self>, tasks: &Tasks, observations: &ObservationSender) {
        for poller in &self.all {
            let (pollers, poller, observations) =
                (Arc::clone(self), Arc::clone(poller), observations.clone());
            let name = format!("probe-{}-{}", poller.platform.name(), poller.name);
            tasks.spawn(name, |stop| async move {
                pollers.run(&poller, &observations, &stop).await;
            });
        }
    }

    async fn run(&self, poller: &Poller, observations: &ObservationSender, stop: &Stop) {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = poller.wake.notified() => {}
            }
            let pause = GATHER + self.jitter.mul_f64(self.chance.fraction());
            if !poller.has_single() && !stop.sleep(pause).await {
                return;
            }
            if !self.probe(poller, observations, stop).await {
                return;
            }
        }
    }

    /// Requests `probes` of all sources once, in every poller concurrently, and waits for the answers, but not for a platform
    /// that has not answered for `patience`. Returns whether every platform was waited for until it had finished.
    pub async fn probe_once(
        &self,
        probes: &ProbeSet,
        observations: &ObservationSender,
        patience: Duration,
        stop: &Stop,
    ) -> bool {
        self.ask(probes);
        let runs = self.all.iter().map(|poller| async move {
            let sink = ActiveSink::new(observations);
            tokio::select! {
                _ = self.probe(poller, &sink, stop) => true,
                () = sink.idle_for(patience) => {
                    let seconds = patience.as_secs();
                    let platform = poller.platform.name();
                    warn!(%platform, probes = poller.name, "{platform} gave no answer for {seconds} s; its check is not finished");
                    false
                }
            }
        });
        let finished = futures_util::future::join_all(runs).await;
        finished.into_iter().all(|finished| finished)
    }

    /// Runs the requested probes. Returns whether to continue.
    async fn probe(&self, poller: &Poller, observations: &dyn ProbeSink, stop: &Stop) -> bool {
        let observations = &EvidenceSink {
            inner: observations,
            poller,
            gate: self.gate.get(),
        };
        for DueProbe { probes, sources } in self.due(poller) {
            poller.counts.runs.fetch_add(1, Ordering::Relaxed);
            let begun = Instant::now();
            // Canceling a run loses nothing: its observations have been sent already.
            let summary = tokio::select! {
                summary = poller.platform.probe(&probes, &sources, observations) => summary,
                () = stop.requested() => return false,
            };
            let count = |counter: &AtomicU64, more: usize| counter.fetch_add(more as u64, Ordering::Relaxed);
            count(&poller.counts.calls, summary.calls);
            count(&poller.counts.problems, summary.problems.len());
            let platform = poller.platform.name();
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            debug!(platform = %platform, poller = poller.name, sources = sources.len(), calls = summary.calls, duration_ms = took, "Probed");
            for problem in summary.problems {
                // Its meaning for a source is an observation and shows as a transition.
                debug!(platform = %platform, problem = problem.text, "Problem while probing");
            }
        }
        poller.waiting().running.clear();
        true
    }

    /// Takes the probe runs that are due.
    fn due(&self, poller: &Poller) -> Vec<DueProbe> {
        let (probes, single) = poller.take();
        let all = self.monitored.of(poller.platform.name());
        let mut runs = Vec::new();
        if !single.is_empty() {
            let probes: ProbeSet = single.values().flatten().copied().collect();
            let known: HashSet<&SourceKey> = all.iter().collect();
            let sources: Vec<SourceKey> = single
                .into_keys()
                .filter(|source| known.contains(source))
                .collect();
            runs.push(DueProbe { probes, sources });
        }
        let viewers_only = probes.contains(&Probe::Viewers) && !probes.contains(&Probe::Stream);
        if viewers_only {
            // A stream probe includes the viewers of live streams; without one, only those sources are probed for viewers.
            let live = (self.live)();
            runs.push(DueProbe {
                probes: ProbeSet::from([Probe::Viewers]),
                sources: all
                    .iter()
                    .filter(|source| live.contains(*source))
                    .cloned()
                    .collect(),
            });
        }
        let rest: ProbeSet = probes
            .into_iter()
            .filter(|probe| !viewers_only || *probe != Probe::Viewers)
            .collect();
        runs.push(DueProbe {
            probes: rest,
            sources: all,
        });
        runs.retain(|probe| !probe.probes.is_empty() && !probe.sources.is_empty());
        runs
    }

    /// Returns the remaining quota of each rate limit of the platforms.
    pub fn rate_limits(&self) -> Vec<(PlatformName, RateLimit)> {
        let mut limits = Vec::new();
        // Every platform has each of the pollers once.
        for poller in self.all.iter().filter(|poller| poller.name == POLLERS[0].0) {
            let of_platform = poller.platform.rate_limits().into_iter();
            limits.extend(of_platform.map(|limit| (poller.platform.name(), limit)));
        }
        limits
    }

    pub fn report(&self) -> Vec<PollerReport> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.all
            .iter()
            .map(|poller| PollerReport {
                platform: poller.platform.name(),
                name: poller.name,
                probes: poller.probes.clone(),
                runs: count(&poller.counts.runs),
                skipped: count(&poller.counts.skipped),
                calls: count(&poller.counts.calls),
                problems: count(&poller.counts.problems),
                evidence: poller.evidence.lock().clone(),
            })
            .collect()
    }
}

/// One call of a platform's probe.
struct DueProbe {
    probes: ProbeSet,
    sources: Vec<SourceKey>,
}

impl Poller {
    fn waiting(&self) -> MutexGuard<'_, PendingProbes> {
        self.waiting.lock()
    }

    fn tick(&self, probe: Probe) {
        if !self.probes.contains(&probe) {
            return;
        }
        let mut waiting = self.waiting();
        let running = waiting.running.contains(&probe);
        if !running && waiting.probes.insert(probe) {
            self.wake.notify_one();
            return;
        }
        let skipped = self.counts.skipped.fetch_add(1, Ordering::Relaxed) + 1;
        // Logged rarely: a platform that is slow now will be slow for a while.
        if running && skipped.is_power_of_two() {
            warn!(platform = %self.platform.name(), probe = %probe, skipped, "A probe takes longer than its interval; ticks are skipped");
        }
    }

    fn ask(&self, probes: &ProbeSet) {
        let mut waiting = self.waiting();
        waiting.probes.extend(probes.intersection(&self.probes));
        if !waiting.probes.is_empty() {
            self.wake.notify_one();
        }
    }

    fn ask_now(&self, sources: &[SourceKey], probes: &ProbeSet) {
        let concerned: ProbeSet = probes.intersection(&self.probes).copied().collect();
        let mine = sources
            .iter()
            .filter(|source| source.platform() == self.platform.name());
        let mut waiting = self.waiting();
        for source in mine.filter(|_| !concerned.is_empty()) {
            waiting
                .sources
                .entry(source.clone())
                .or_default()
                .extend(&concerned);
            self.wake.notify_one();
        }
    }

    /// Whether a suspected problem may trigger a probe now.
    fn nudge(&self) -> bool {
        let mut waiting = self.waiting();
        let now = Instant::now();
        if waiting
            .last_nudge
            .is_some_and(|last| now.duration_since(last) < NUDGE)
        {
            return false;
        }
        waiting.last_nudge = Some(now);
        true
    }

    fn has_single(&self) -> bool {
        !self.waiting().sources.is_empty()
    }

    fn take(&self) -> (ProbeSet, BTreeMap<SourceKey, ProbeSet>) {
        let mut waiting = self.waiting();
        let probes = std::mem::take(&mut waiting.probes);
        waiting.running.clone_from(&probes);
        (probes, std::mem::take(&mut waiting.sources))
    }
}

#[cfg(test)]
mod tests;
