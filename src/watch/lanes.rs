//! Looking: one lane for each kind of look and platform, each with one look at a time.
//!
//! What is quick (connection, stream, viewers) shares a lane and shares calls; checks of authorisations and the slow
//! look-up of permissions have lanes of their own, so that neither delays who is live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::attended::Attended;
use super::intake::Intake;
use crate::clock::Chance;
use crate::core::source::{PlatformName, SourceKey};
use crate::lifecycle::{Stop, Tasks};
use crate::platforms::{Platform, Probe, ProbeSet};

/// Ticks of one instant arrive within this time, and are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// A look asked for because of a sign of trouble is not repeated sooner.
const NUDGE: Duration = Duration::from_mins(1);

/// Every lane.
pub struct Lanes {
    all: Vec<Arc<Lane>>,
    attended: Attended,
    live: Arc<dyn Fn() -> BTreeSet<SourceKey> + Send + Sync>,
    jitter: Duration,
    chance: Chance,
}

struct Lane {
    platform: Arc<dyn Platform>,
    name: &'static str,
    probes: ProbeSet,
    waiting: Mutex<Waiting>,
    bell: Notify,
    counts: LaneCounts,
}

/// What a lane was asked for and has not begun.
#[derive(Debug, Default)]
struct Waiting {
    /// All sources of the platform.
    probes: ProbeSet,
    /// What is being looked at.
    running: ProbeSet,
    /// Single sources, at once: a listener had a gap there.
    sources: BTreeMap<SourceKey, ProbeSet>,
    last_nudge: Option<Instant>,
}

/// Counts of a lane.
#[derive(Debug, Default)]
struct LaneCounts {
    looks: AtomicU64,
    skipped: AtomicU64,
    calls: AtomicU64,
    problems: AtomicU64,
}

/// What a lane has done, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneReport {
    /// The platform.
    pub platform: PlatformName,
    /// The lane.
    pub name: &'static str,
    /// Looks begun.
    pub looks: u64,
    /// Ticks that came while the run before still waited or was at work.
    pub skipped: u64,
    /// Requests sent.
    pub calls: u64,
    /// Problems met.
    pub problems: u64,
}

/// The lanes of every platform.
const LANES: [(&str, &[Probe]); 3] = [
    ("quick", &[Probe::Connection, Probe::Stream, Probe::Viewers]),
    ("auth", &[Probe::Auth]),
    ("permissions", &[Probe::Permissions]),
];

impl Lanes {
    /// Makes the lanes of `platforms`. `live` tells which sources are online, because only of those viewers are counted.
    pub fn new(
        platforms: &[Arc<dyn Platform>],
        attended: Attended,
        live: Arc<dyn Fn() -> BTreeSet<SourceKey> + Send + Sync>,
        jitter: Duration,
        chance: Chance,
    ) -> Arc<Self> {
        let lanes = platforms.iter().flat_map(|platform| {
            LANES.map(|(name, probes)| {
                Arc::new(Lane {
                    platform: Arc::clone(platform),
                    name,
                    probes: probes.iter().copied().collect(),
                    waiting: Mutex::default(),
                    bell: Notify::new(),
                    counts: LaneCounts::default(),
                })
            })
        });
        Arc::new(Self {
            all: lanes.collect(),
            attended,
            live,
            jitter,
            chance,
        })
    }

    /// A schedule says that it is time for `probe` of all sources. One run of a schedule is at work at a time: where the one
    /// before has not ended, this one is skipped and counted.
    pub fn tick(&self, probe: Probe) {
        for lane in &self.all {
            lane.tick(probe);
        }
    }

    /// Asks every platform for `probes` of all its sources, also when a look is under way: something has changed since it
    /// began.
    pub fn ask(&self, probes: &ProbeSet) {
        for lane in &self.all {
            lane.ask(probes);
        }
    }

    /// Asks at once for `probes` of single sources, without waiting for a tick.
    pub fn ask_now(&self, sources: &[SourceKey], probes: &ProbeSet) {
        for lane in &self.all {
            lane.ask_now(sources, probes);
        }
    }

    /// Asks for a check of a platform's authorisations, because something unexpected was refused. Not more than once a minute.
    pub fn suspect_authorisation(&self, platform: PlatformName) {
        for lane in &self.all {
            let concerned = lane.platform.name() == platform && lane.probes.contains(&Probe::Auth);
            if concerned && lane.nudge() {
                debug!(platform = %platform, "A refusal was not expected; authorisations are checked");
                lane.ask(&ProbeSet::from([Probe::Auth]));
            }
        }
    }

    /// Starts a task for each lane.
    pub fn start(self: &Arc<Self>, tasks: &Tasks, intake: &Intake) {
        for lane in &self.all {
            let (lanes, lane, intake) = (Arc::clone(self), Arc::clone(lane), intake.clone());
            let name = format!("look-{}-{}", lane.platform.name(), lane.name);
            tasks.spawn(name, |stop| async move { lanes.run(&lane, &intake, &stop).await });
        }
    }

    async fn run(&self, lane: &Lane, intake: &Intake, stop: &Stop) {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = lane.bell.notified() => {}
            }
            let pause = GATHER + self.jitter.mul_f64(self.chance.fraction());
            if !lane.has_single() && !stop.sleep(pause).await {
                return;
            }
            if !self.look(lane, intake, stop).await {
                return;
            }
        }
    }

    /// Asks for `probes` of all sources once, in every lane at the same time, and waits for the answers.
    pub async fn look_once(&self, probes: &ProbeSet, intake: &Intake, stop: &Stop) {
        self.ask(probes);
        let looks = self.all.iter().map(|lane| self.look(lane, intake, stop));
        futures_util::future::join_all(looks).await;
    }

    /// Looks at what was asked for. Returns whether to go on.
    async fn look(&self, lane: &Lane, intake: &Intake, stop: &Stop) -> bool {
        for Look { probes, sources } in self.due(lane) {
            lane.counts.looks.fetch_add(1, Ordering::Relaxed);
            let begun = Instant::now();
            // Cancelling a look loses nothing: what it has found is in the intake already.
            let summary = tokio::select! {
                summary = lane.platform.probe(&probes, &sources, intake) => summary,
                () = stop.requested() => return false,
            };
            let count = |counter: &AtomicU64, more: usize| counter.fetch_add(more as u64, Ordering::Relaxed);
            count(&lane.counts.calls, summary.calls);
            count(&lane.counts.problems, summary.problems.len());
            let platform = lane.platform.name();
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            debug!(platform = %platform, lane = lane.name, sources = sources.len(), calls = summary.calls, duration_ms = took, "Looked");
            for problem in summary.problems {
                // What it means for a source is an observation and shows as a transition.
                debug!(platform = %platform, problem, "Problem while looking");
            }
        }
        lane.waiting().running.clear();
        true
    }

    /// What to look at now.
    fn due(&self, lane: &Lane) -> Vec<Look> {
        let (probes, single) = lane.take();
        let all = self.attended.of(lane.platform.name());
        let mut looks = Vec::new();
        if !single.is_empty() {
            let probes: ProbeSet = single.values().flatten().copied().collect();
            let sources: Vec<SourceKey> = single.into_keys().filter(|source| all.contains(source)).collect();
            looks.push(Look { probes, sources });
        }
        let viewers_only = probes.contains(&Probe::Viewers) && !probes.contains(&Probe::Stream);
        if viewers_only {
            // A look for streams brings the viewers of those that are live along; without one, only they are asked for.
            let live = (self.live)();
            looks.push(Look {
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
        looks.push(Look {
            probes: rest,
            sources: all,
        });
        looks.retain(|look| !look.probes.is_empty() && !look.sources.is_empty());
        looks
    }

    /// Says what each lane has done.
    pub fn report(&self) -> Vec<LaneReport> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.all
            .iter()
            .map(|lane| LaneReport {
                platform: lane.platform.name(),
                name: lane.name,
                looks: count(&lane.counts.looks),
                skipped: count(&lane.counts.skipped),
                calls: count(&lane.counts.calls),
                problems: count(&lane.counts.problems),
            })
            .collect()
    }
}

/// One call of a platform's probe.
struct Look {
    probes: ProbeSet,
    sources: Vec<SourceKey>,
}

impl Lane {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, probe: Probe) {
        if !self.probes.contains(&probe) {
            return;
        }
        let mut waiting = self.waiting();
        let running = waiting.running.contains(&probe);
        if !running && waiting.probes.insert(probe) {
            self.bell.notify_one();
            return;
        }
        let skipped = self.counts.skipped.fetch_add(1, Ordering::Relaxed) + 1;
        // Said rarely: a platform that is slow today will be slow for a while.
        if running && skipped.is_power_of_two() {
            warn!(platform = %self.platform.name(), probe = %probe, skipped, "A look takes longer than its interval; ticks are skipped");
        }
    }

    fn ask(&self, probes: &ProbeSet) {
        let mut waiting = self.waiting();
        waiting.probes.extend(probes.intersection(&self.probes));
        if !waiting.probes.is_empty() {
            self.bell.notify_one();
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
            self.bell.notify_one();
        }
    }

    /// Whether a sign of trouble may lead to a look now.
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
