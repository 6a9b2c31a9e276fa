//! The listeners that run while the daemon does, and what they receive for that.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::monitored::MonitoredSources;
use super::observations::ObservationSender;
use super::pollers::Pollers;
use crate::core::observation::Observation;
use crate::core::source::PlatformName;
use crate::lifecycle::{Stop, Tasks};

/// Maximum number of observations of a listener that may wait before it stops reading.
const CAPACITY: usize = 4096;

#[derive(Clone)]
pub struct ListenerContext {
    /// Receives its observations.
    pub observations: ObservationSender,
    /// The monitored sources, and their changes.
    pub monitored: MonitoredSources,
    /// Runs probes at once where a listener had a gap.
    pub pollers: Arc<Pollers>,
    /// Counts changed tokens by platform.
    pub(super) token_changes: watch::Receiver<TokenChanges>,
    pub(super) tasks: Tasks,
}

/// How often tokens of each platform's accounts were changed.
pub type TokenChanges = BTreeMap<PlatformName, u64>;

impl ListenerContext {
    /// Returns a notification for changed tokens of `platform`.
    pub fn token_changes_of(&self, platform: PlatformName) -> ChangedTokens {
        ChangedTokens {
            changes: self.token_changes.clone(),
            platform,
            seen: None,
        }
    }

    /// Returns a channel into the observations for listeners that wait when their receiver is slow.
    pub fn channel(&self, name: &str) -> mpsc::Sender<Observation> {
        use crate::platforms::ProbeSink as _;
        let (sender, mut receiver) = mpsc::channel(CAPACITY);
        let observations = self.observations.clone();
        self.tasks
            .spawn_finite(format!("{name}-listener"), |_| async move {
                while let Some(observation) = receiver.recv().await {
                    observations.observe(observation);
                }
            });
        sender
    }
}

/// Notifies when a token of a platform's accounts has changed while the daemon runs.
pub struct ChangedTokens {
    changes: watch::Receiver<TokenChanges>,
    platform: PlatformName,
    seen: Option<u64>,
}

impl ChangedTokens {
    /// Waits until a token has changed since the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        let (platform, seen) = (self.platform, self.seen);
        let count = |changes: &TokenChanges| changes.get(&platform).copied();
        let changed = self.changes.wait_for(|changes| count(changes) != seen).await;
        let now = changed.ok().map(|changes| count(&changes));
        let Some(now) = now else {
            // The daemon is stopping, and there are no further changes.
            return std::future::pending().await;
        };
        self.seen = now;
    }
}

pub struct ListenerTask {
    /// Its name, for logs and pages: `twitch-eventsub`.
    pub name: String,
    /// Runs it until the stop.
    pub run: Box<dyn FnOnce(ListenerContext, Stop) -> BoxFuture<'static, ()> + Send>,
    pub report: Report,
}

/// How many of something a listener has, of those that it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Established {
    pub established: usize,
    pub wanted: usize,
}

/// Returns the status of a listener.
pub type Report = Arc<dyn Fn() -> ListenerReport + Send + Sync>;

#[derive(Debug, Clone, PartialEq)]
pub struct ListenerReport {
    /// Whether it covers what it should.
    pub healthy: bool,
    pub summary: String,
    /// Its connections; `None` where the platform connects to us.
    pub connections: Option<Established>,
    /// Its subscriptions; `None` where it has none.
    pub subscriptions: Option<Established>,
    /// All details for the debug page. Never a secret.
    pub detail: serde_json::Value,
}
