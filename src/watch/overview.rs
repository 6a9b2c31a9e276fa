//! The status of the daemon, for health, metrics and debug pages. Read-only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::account_reports::AccountState;
use super::delays::EventDelays;
use super::dispatcher::{Dispatched, Sink};
use super::listener_context::{ListenerReport, Report};
use super::monitored::MonitoredSources;
use super::pollers::{PollerReport, Pollers};
use super::state_file::{Depth, StateFile};
use super::writer::{Summary, WriterStats};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::histogram::Buckets;
use crate::platforms::RateLimit;

/// The status of the daemon.
#[derive(Debug, Clone)]
pub struct Overview {
    pub summary: Summary,
    pub monitored: usize,
    /// Inputs that were sent and are not processed yet.
    pub inputs: u64,
    /// How many events wait in the outbox.
    pub outbox: Depth,
    /// Since when the oldest transition waits in it.
    pub outbox_oldest: Option<Timestamp>,
    /// Sources whose changes the outbox had no room for.
    pub deferred: u64,
    /// Transitions since the start.
    pub transitions: u64,
    /// Events acknowledged.
    pub sent: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Events that the bus rejected permanently.
    pub refused: u64,
    /// Heartbeats that were dropped to free capacity.
    pub dropped: u64,
    pub pollers: Vec<PollerReport>,
    /// The remaining quotas, as far as platforms report them.
    pub rate_limits: Vec<(PlatformName, RateLimit)>,
    /// How long commits take.
    pub commit_times: Buckets,
    /// How long pushed changes of streams take from the platform's date to us.
    pub event_delays: Vec<(PlatformName, Buckets)>,
    pub listeners: Vec<(String, ListenerReport)>,
    /// The reasons why it is not ready; ready when empty.
    pub unready: Vec<String>,
}

/// Returns the overview; built anew for each call.
pub type View = Arc<dyn Fn() -> Overview + Send + Sync>;

/// The inputs of an overview.
pub(super) struct ViewOf {
    pub monitored: MonitoredSources,
    pub inputs_sent: Arc<AtomicU64>,
    pub stats: Arc<WriterStats>,
    pub dispatched: Arc<Dispatched>,
    pub state_file: Arc<StateFile>,
    pub sink: Option<Arc<dyn Sink>>,
    pub location: String,
    pub pollers: Arc<Pollers>,
    pub event_delays: Arc<EventDelays>,
    pub listeners: Vec<(String, Report)>,
}

impl ViewOf {
    pub(super) fn overview(&self) -> Overview {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let listeners = self
            .listeners
            .iter()
            .map(|(name, report)| (name.clone(), report()));
        let listeners: Vec<_> = listeners.collect();
        Overview {
            unready: self.unready(&listeners),
            summary: self.stats.summary(),
            monitored: self.monitored.count(),
            inputs: count(&self.inputs_sent).saturating_sub(count(&self.stats.inputs)),
            outbox: self.state_file.depth(),
            outbox_oldest: self.state_file.oldest_transition(),
            deferred: count(&self.stats.deferred),
            transitions: count(&self.stats.transitions),
            dropped: count(&self.stats.dropped),
            sent: count(&self.dispatched.sent) + count(&self.stats.listed),
            failed: count(&self.dispatched.failed),
            refused: count(&self.dispatched.rejected),
            pollers: self.pollers.report(),
            rate_limits: self.pollers.rate_limits(),
            commit_times: self.stats.commit_times.read(),
            event_delays: self.event_delays.read(),
            listeners,
        }
    }

    fn unready(&self, listeners: &[(String, ListenerReport)]) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stats.commits_failing.load(Ordering::Relaxed) {
            reasons.push(format!("changes cannot be stored in {}", self.location));
        }
        if let Some(sink) = &self.sink {
            if let Some(reason) = sink.interruption() {
                reasons.push(reason);
            } else if self.dispatched.pending.load(Ordering::Relaxed) {
                reasons.push(format!("{} accepts no events", sink.describe()));
            }
        }
        reasons.extend(
            self.stats
                .summary()
                .accounts
                .iter()
                .filter_map(AccountState::unready),
        );
        for (name, report) in listeners.iter().filter(|(_, report)| !report.healthy) {
            reasons.push(format!("{name}: {}", report.summary));
        }
        reasons
    }
}
