//! Logs the actual volume once a day, for comparison with the prediction of `doctor`.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::core::number::count;
use crate::lifecycle::Tasks;
use crate::persist::Stats;
use crate::persist::write_policy::Workload;
use crate::watch::overview::View;
use crate::watch::volume::{Volume, predict};

const DAY: Duration = Duration::from_hours(24);

pub(super) type StoreStats = Arc<dyn Fn() -> Stats + Send + Sync>;

pub(super) struct Meters {
    /// Source of the published events.
    pub view: Option<View>,
    /// Source of the documents written.
    pub stored: Option<StoreStats>,
    /// Time between two events of one source that are no transitions; `None` where events go to no bus.
    pub heartbeat: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    sent: u64,
    transitions: u64,
    writes: u64,
}

impl Meters {
    pub fn warn_daily(self, tasks: &Tasks) {
        tasks.spawn("volume", |stop| async move {
            let mut before = self.read();
            while stop.sleep(DAY).await {
                let now = self.read();
                self.warn_volume(before, now);
                before = now;
            }
        });
    }

    fn read(&self) -> Reading {
        let counts = self.view.as_ref().map(|view| view());
        Reading {
            sent: counts.as_ref().map_or(0, |counts| counts.sent),
            transitions: counts.as_ref().map_or(0, |counts| counts.transitions),
            writes: self.stored.as_ref().map_or(0, |stats| stats().writes),
        }
    }

    fn warn_volume(&self, before: Reading, now: Reading) {
        let events = now.sent.saturating_sub(before.sent);
        let transitions = now.transitions.saturating_sub(before.transitions);
        let writes = now.writes.saturating_sub(before.writes);
        let expected = self.expected().map(|day| day.events());
        info!(
            events,
            expected,
            transitions,
            writes,
            "In the last day: {} published, with {} in them, and {} of documents and history entries",
            count(events, "event"),
            count(transitions, "transition"),
            count(writes, "write")
        );
    }

    fn expected(&self) -> Option<Volume> {
        let (view, heartbeat) = (self.view.as_ref()?, self.heartbeat?);
        let sources = view().monitored as u64;
        let usual = Workload::usual(sources, Duration::ZERO);
        Some(predict(sources, heartbeat, usual.transitions))
    }
}
