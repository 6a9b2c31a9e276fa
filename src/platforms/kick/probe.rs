//! One probe of some channels: accounts, the list of live streams, then details of as many channels as are due.
//!
//! Only a successful list that was requested for a channel proves that it is not live. Absence from `/channels` means that the
//! channel was removed, and channels on which the two disagree are requested individually.

mod channels;
mod identities;
mod lists;

use std::collections::{BTreeMap, BTreeSet};

use super::KickPlatform;
use super::api::LIST_AT_ONCE;
use super::facts::{self, BY_API};
use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::kit::meter::Meter;
use crate::platforms::{PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary, Problem};

/// Channels requested individually in one probe, each a request.
const SINGLY: usize = 8;

/// A probe in progress.
pub(super) struct ProbeRun<'a> {
    platform: &'a KickPlatform,
    probes: &'a ProbeSet,
    sink: &'a dyn ProbeSink,
    meter: Meter<'a>,
    targets: BTreeMap<u64, SourceKey>,
    live: BTreeSet<u64>,
    /// Channels that the list could not be requested for. Other responses about them are too rare to be evidence about the link.
    unlisted: BTreeSet<u64>,
    /// Channels that the list left out, and when; those whose details this probe requests wait for that result.
    absent: BTreeMap<u64, Timestamp>,
    singly: usize,
}

impl<'a> ProbeRun<'a> {
    pub(super) fn new(
        platform: &'a KickPlatform,
        probes: &'a ProbeSet,
        sources: &[SourceKey],
        sink: &'a dyn ProbeSink,
    ) -> Self {
        let targets = sources
            .iter()
            .filter(|key| key.platform() == PlatformName::Kick)
            .filter_map(|key| Some((key.id().parse().ok()?, key.clone())))
            .collect();
        Self {
            platform,
            probes,
            sink,
            meter: Meter::with_progress(PlatformName::Kick, sink),
            targets,
            live: BTreeSet::new(),
            unlisted: BTreeSet::new(),
            absent: BTreeMap::new(),
            singly: SINGLY,
        }
    }

    /// Runs the probe.
    pub(super) async fn run(mut self) -> ProbeSummary {
        if !self.targets.is_empty() {
            self.execute().await;
        }
        self.meter.summary()
    }

    async fn execute(&mut self) {
        let accounts = self.wants(&[Probe::Auth, Probe::Permissions]);
        if accounts {
            self.probe_identities().await;
        }
        if self.wants(&[Probe::Connection, Probe::Stream, Probe::Viewers]) {
            let due = self.due();
            let chunks = self.targets.len().div_ceil(LIST_AT_ONCE);
            self.meter.expect(chunks);
            if self.walk_lists(&due).await {
                self.fetch_names(&due).await;
                self.fetch(due).await;
            }
            self.emit_latency();
        }
        // Last, because an OAuth host that does not answer must not delay results of the API.
        if !accounts && self.wants(&[Probe::Connection]) {
            self.check_idle_accounts().await;
        }
        self.emit_checks();
    }

    fn wants(&self, probes: &[Probe]) -> bool {
        probes.iter().any(|probe| self.probes.contains(probe))
    }

    fn all(&self) -> Vec<u64> {
        self.targets.keys().copied().collect()
    }

    fn now(&self) -> Timestamp {
        self.platform.clock.now()
    }

    /// Observes a fact at `at` by our clock, dated by Kick's: if our clock is ahead, the fact must not outrank later ones.
    fn emit(&self, key: &SourceKey, at: Timestamp, fact: Fact) {
        let at = self.platform.api.client.skew.correct(at);
        self.sink.observe(Observation::new(key, at, BY_API, fact));
    }

    fn emit_all(&self, ids: &[u64], fact: &Fact) {
        let now = self.now();
        for key in ids.iter().filter_map(|id| self.targets.get(id)) {
            self.emit(key, now, fact.clone());
        }
    }

    fn fail(&self, ids: &[u64], error: &PlatformError) {
        self.emit_all(ids, &facts::of_failed_probe(error));
        self.problem_of(error);
    }

    /// Records that a request failed.
    fn problem_of(&self, error: &PlatformError) {
        let text = match error {
            PlatformError::RateLimited { .. } => format!("{error}; this probe stays incomplete"),
            error => error.to_string(),
        };
        self.problem(Problem::of_platform(text).caused_by(facts::error(error, &error.to_string())));
    }

    /// Records a problem for the summary.
    fn problem(&self, problem: Problem) {
        self.meter.problems.add(problem);
    }

    fn emit_latency(&self) {
        let now = self.now();
        if let Some(millis) = self
            .platform
            .api
            .client
            .latency()
            .filter(|_| self.meter.count() > 0)
        {
            for key in self.targets.values() {
                self.emit(key, now, Fact::Latency { millis });
            }
        }
    }
}

/// Returns whether a request that was not sent waits for the end of a backoff.
fn is_backoff(error: &PlatformError) -> bool {
    matches!(error, PlatformError::RateLimited { .. }) || super::answer::is_blocked(error)
}

/// Returns whether a failure will affect every other request of this probe too.
fn is_permanent(error: &PlatformError) -> bool {
    !matches!(
        error,
        PlatformError::Unavailable { .. }
            | PlatformError::Unreadable { .. }
            | PlatformError::Rejected { status: 400, .. }
    ) || super::answer::is_blocked(error)
}
