//! One look at some channels: authorisations, the list of live streams, then as many channels in detail as are due.
//!
//! Only a successful list that was asked for a channel tells that it is not live. Absence from `/channels` means that the
//! channel is gone, and what the two disagree about is asked for singly.

mod channels;
mod identities;
mod lists;

use std::collections::{BTreeMap, BTreeSet};

use super::KickPlatform;
use super::api::LIST_AT_ONCE;
use super::facts::{self, BY_API};
use super::meter::Meter;
use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::{PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary};

/// Channels asked for singly in one look, each a call.
const SINGLY: usize = 8;

/// A look in progress.
pub(super) struct Look<'a> {
    platform: &'a KickPlatform,
    probes: &'a ProbeSet,
    sink: &'a dyn ProbeSink,
    meter: Meter<'a>,
    targets: BTreeMap<u64, SourceKey>,
    live: BTreeSet<u64>,
    /// Channels that the list could not be asked for. What else is answered about them is too rare to speak for the link.
    unlisted: BTreeSet<u64>,
    /// Channels that the list left out, and when; those to be looked up in this look wait for what that brings.
    absent: BTreeMap<u64, Timestamp>,
    singly: usize,
}

impl<'a> Look<'a> {
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
            meter: Meter::telling(sink),
            targets,
            live: BTreeSet::new(),
            unlisted: BTreeSet::new(),
            absent: BTreeMap::new(),
            singly: SINGLY,
        }
    }

    /// Looks.
    pub(super) async fn run(mut self) -> ProbeSummary {
        if !self.targets.is_empty() {
            self.look().await;
        }
        ProbeSummary {
            calls: self.meter.calls.count(),
            problems: self.meter.problems(),
        }
    }

    async fn look(&mut self) {
        if self.wants(&[Probe::Auth, Probe::Permissions]) {
            self.look_at_identities().await;
        }
        if self.wants(&[Probe::Connection, Probe::Stream, Probe::Viewers]) {
            let due = self.due();
            let chunks = self.targets.len().div_ceil(LIST_AT_ONCE);
            self.meter.calls.expect(chunks);
            if self.walk_lists(&due).await {
                self.learn_names(&due).await;
                self.look_up(due).await;
            }
            self.tell_latency();
        }
        self.tell_checks();
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

    fn tell(&self, key: &SourceKey, at: Timestamp, fact: Fact) {
        self.sink.observe(Observation::new(key, at, BY_API, fact));
    }

    fn tell_all(&self, ids: &[u64], fact: &Fact) {
        let now = self.now();
        for key in ids.iter().filter_map(|id| self.targets.get(id)) {
            self.tell(key, now, fact.clone());
        }
    }

    fn fail(&self, ids: &[u64], error: &PlatformError) {
        self.tell_all(ids, &facts::of_failed_look(error));
        self.complain_of(error);
    }

    fn complain_of(&self, error: &PlatformError) {
        self.meter.complain(match error {
            PlatformError::RateLimited { .. } => format!("{error}; this look is left at what it has"),
            error => error.to_string(),
        });
    }

    fn tell_latency(&self) {
        let now = self.now();
        if let Some(millis) = self
            .platform
            .api
            .client
            .latency()
            .filter(|_| self.meter.calls.count() > 0)
        {
            for key in self.targets.values() {
                self.tell(key, now, Fact::Latency { millis });
            }
        }
    }
}

/// Returns whether a failure will meet every other call of this look too.
fn is_hopeless(error: &PlatformError) -> bool {
    !matches!(
        error,
        PlatformError::Unavailable { .. }
            | PlatformError::Unreadable { .. }
            | PlatformError::Rejected { status: 400, .. }
    ) || super::answer::is_blocked(error)
}
