//! How the daemon is, for health, metrics and debug pages: read, never touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::attended::Attended;
use super::dispatcher::{Dispatched, Outlet};
use super::lanes::{LaneReport, Lanes};
use super::ledger::{Depth, Ledger};
use super::listening::{ListenerReport, Report};
use super::recorder::{Recorded, Summary};
use crate::core::time::Timestamp;

/// How the daemon is.
#[derive(Debug, Clone)]
pub struct Overview {
    /// When it started.
    pub started_at: Timestamp,
    /// The name under which it counts.
    pub instance: String,
    /// What the sources amount to.
    pub summary: Summary,
    /// How many sources it attends.
    pub attended: usize,
    /// Inputs that were taken and are not joined yet.
    pub inputs: u64,
    /// What waits in the outbox.
    pub outbox: Depth,
    /// Where events go.
    pub outlet: String,
    /// Transitions since the start.
    pub transitions: u64,
    /// Events acknowledged.
    pub sent: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Events that the bus will never take.
    pub refused: u64,
    /// Heartbeats that had to make room.
    pub dropped: u64,
    /// The lanes.
    pub lanes: Vec<LaneReport>,
    /// The listeners.
    pub listeners: Vec<(String, ListenerReport)>,
    /// Why it is not ready; ready when empty.
    pub unready: Vec<String>,
}

/// What is told about the daemon; built anew for each question.
pub type View = Arc<dyn Fn() -> Overview + Send + Sync>;

/// Where an overview is taken from.
pub(super) struct ViewOf {
    pub started_at: Timestamp,
    pub instance: String,
    pub attended: Attended,
    pub taken: Arc<AtomicU64>,
    pub recorded: Arc<Recorded>,
    pub dispatched: Arc<Dispatched>,
    pub ledger: Arc<Ledger>,
    pub outlet: Arc<dyn Outlet>,
    pub lanes: Arc<Lanes>,
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
            started_at: self.started_at,
            instance: self.instance.clone(),
            summary: self.recorded.summary(),
            attended: self.attended.count(),
            inputs: count(&self.taken).saturating_sub(count(&self.recorded.inputs)),
            outbox: self.ledger.depth(),
            outlet: self.outlet.describe(),
            transitions: count(&self.recorded.transitions),
            dropped: count(&self.recorded.dropped),
            sent: count(&self.dispatched.sent),
            failed: count(&self.dispatched.failed),
            refused: count(&self.dispatched.refused),
            lanes: self.lanes.report(),
            listeners,
        }
    }

    fn unready(&self, listeners: &[(String, ListenerReport)]) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.recorded.blocked.load(Ordering::Relaxed) {
            reasons.push("the state directory cannot be written".to_owned());
        }
        if self.dispatched.stuck.load(Ordering::Relaxed) {
            reasons.push(format!("{} takes no events", self.outlet.describe()));
        }
        for (name, report) in listeners.iter().filter(|(_, report)| !report.healthy) {
            reasons.push(format!("{name}: {}", report.summary));
        }
        reasons
    }
}
