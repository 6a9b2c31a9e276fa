//! What all parts of a probe share: the channels, the requests, and where results go.

use std::collections::BTreeMap;

use super::super::KickPlatform;
use super::super::facts::{self, BY_API};

use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey, by_number};
use crate::core::time::Timestamp;
use crate::platforms::kit::meter::Meter;
use crate::platforms::{PlatformError, Probe, ProbeSet, ProbeSink, Problem};

/// The channels of a probe, and where its results go.
pub(super) struct ProbeContext<'a> {
    pub(super) platform: &'a KickPlatform,
    pub(super) probes: &'a ProbeSet,
    sink: &'a dyn ProbeSink,
    pub(super) meter: Meter<'a>,
    pub(super) targets: BTreeMap<u64, SourceKey>,
}

impl<'a> ProbeContext<'a> {
    /// Prepares a probe of `sources`.
    pub(super) fn new(
        platform: &'a KickPlatform,
        probes: &'a ProbeSet,
        sources: &[SourceKey],
        sink: &'a dyn ProbeSink,
    ) -> Self {
        Self {
            platform,
            probes,
            sink,
            meter: Meter::with_progress(PlatformName::Kick, sink),
            targets: by_number(PlatformName::Kick, sources),
        }
    }

    pub(super) fn wants(&self, probes: &[Probe]) -> bool {
        probes.iter().any(|probe| self.probes.contains(probe))
    }

    pub(super) fn all(&self) -> Vec<u64> {
        self.targets.keys().copied().collect()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.platform.clock.now()
    }

    /// Observes a fact at `at` by our clock, dated by Kick's: if our clock is ahead, the fact must not outrank later ones.
    pub(super) fn emit(&self, key: &SourceKey, at: Timestamp, fact: Fact) {
        let at = self.platform.api.client.skew.correct(at);
        self.sink.observe(Observation::new(key, at, BY_API, fact));
    }

    pub(super) fn emit_all(&self, ids: &[u64], fact: &Fact) {
        let now = self.now();
        for key in ids.iter().filter_map(|id| self.targets.get(id)) {
            self.emit(key, now, fact.clone());
        }
    }

    pub(super) fn fail(&self, ids: &[u64], error: &PlatformError) {
        self.emit_all(ids, &facts::of_failed_probe(error));
        self.problem_of(error);
    }

    /// Records that a request failed.
    pub(super) fn problem_of(&self, error: &PlatformError) {
        let text = match error {
            PlatformError::RateLimited { .. } => format!("{error}; this probe stays incomplete"),
            error => error.to_string(),
        };
        self.problem(Problem::of_platform(text).caused_by(facts::error(error, &error.to_string())));
    }

    /// Records a problem for the summary.
    pub(super) fn problem(&self, problem: Problem) {
        self.meter.problem(problem);
    }

    pub(super) fn emit_latency(&self) {
        let now = self.now();
        if let Some(millis) = self
            .platform
            .api
            .client
            .round_trip
            .millis()
            .filter(|_| self.meter.count() > 0)
        {
            for key in self.targets.values() {
                self.emit(key, now, Fact::Latency { millis });
            }
        }
    }
}
