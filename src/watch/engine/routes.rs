//! Where events and changed states go: nowhere, to a remote store, or to a bus.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::millis;
use crate::bus::EventBus;
use crate::core::compact::CompactDocument;
use crate::core::event::InitialEvents;
use crate::core::source::SourceKey;
use crate::lifecycle::{Stop, Tasks};
use crate::persist::{Applied, Persister};
use crate::watch::dispatcher::Sink;
use crate::watch::sinks::{BusSink, StoreSink};
use crate::watch::state_file::StateFile;
use crate::watch::writer::Heartbeats;

/// Maximum number of events per second to the bus that are not transitions: BitBrat's own consumer loses events in a flood.
pub const SPREAD: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// How long a store must have accepted everything before it is reported as recovered: longer than the backoff between attempts.
const STORE_CALM: Duration = Duration::from_mins(1);

/// The destination of events.
pub enum Route {
    /// None: the file is the store.
    File,
    Store {
        /// Merges with what is stored. It should write what it receives without a long delay, because the writer batches already.
        persister: Arc<Persister>,
        /// Where it stores, for users.
        location: String,
        /// How often the state of a source without transitions is stored.
        heartbeat: Duration,
    },
    Bus {
        bus: Arc<dyn EventBus>,
        /// How often a heartbeat of a source without transitions is published.
        heartbeat: Duration,
        /// How first observations are published.
        initial_events: InitialEvents,
    },
}

impl Route {
    /// Returns how first observations are published.
    pub(super) fn initial_events(&self) -> InitialEvents {
        match self {
            Self::File | Self::Store { .. } => InitialEvents::Flag,
            Self::Bus { initial_events, .. } => *initial_events,
        }
    }
}

/// Builds the path of events and other changes to the destination.
pub(super) fn build_route(
    route: Route,
    state_file: &Arc<StateFile>,
    tasks: &Tasks,
) -> (Option<Arc<dyn Sink>>, Option<Heartbeats>, Option<NonZeroU32>) {
    match route {
        Route::File => (None, None, None),
        Route::Store {
            persister,
            location,
            heartbeat,
        } => {
            // One batch is in flight at a time: while the store is slow, changes accumulate in their most compact form.
            let (store_queue, batches) = mpsc::channel(1);
            let shared = Arc::clone(&persister);
            tasks.spawn("persister", |stop| run_persister(shared, batches, stop));
            let sink = StoreSink {
                persister,
                state_file: Arc::clone(state_file),
                location,
            };
            let period = millis(heartbeat);
            let heartbeats = Heartbeats::Store { period, store_queue };
            (Some(Arc::new(sink)), Some(heartbeats), None)
        }
        Route::Bus { bus, heartbeat, .. } => {
            let period = millis(heartbeat);
            (
                Some(Arc::new(BusSink(bus))),
                Some(Heartbeats::Publish { period }),
                Some(SPREAD),
            )
        }
    }
}

/// Passes changed states to the persister, and lets it do its deferred work.
async fn run_persister(
    persister: Arc<Persister>,
    mut batches: mpsc::Receiver<Vec<(SourceKey, CompactDocument)>>,
    stop: Stop,
) {
    /// Number of sources stored together. A source's state takes ten times the memory when it is not compact; and a change that
    /// arrives meanwhile waits until these are stored.
    const MAX_SOURCES_PER_COMMIT: usize = 100;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut failed = None;
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => match batch {
                Some(batch) => batch,
                None => break,
            },
            _ = second.tick() => {
                failed = report(&persister.tick().await, failed);
                continue;
            }
        };
        for part in batch.chunks(MAX_SOURCES_PER_COMMIT) {
            let expanded = part
                .iter()
                .map(|(source, known)| (source.clone(), known.document(source).knowledge));
            failed = report(&persister.apply(expanded).await, failed);
        }
    }
    // The writer has exited; the dispatcher still delivers only transitions, which are written at once.
    stop.requested().await;
    report(&persister.flush().await, failed);
}

/// Logs that a store has started to fail, and that it has not failed for a while: once each, and not with every attempt. `failed`
/// is the time of the last failure; returns its new value.
fn report(applied: &Applied, failed: Option<Instant>) -> Option<Instant> {
    let Some((source, error)) = applied.failures.first() else {
        let over = failed.is_some_and(|last| last.elapsed() > STORE_CALM);
        if over {
            info!("The store accepts all writes again");
        }
        return failed.filter(|_| !over);
    };
    if failed.is_none() {
        warn!(
            source.key = %source, failed = applied.failures.len(), error = error as &dyn std::error::Error,
            "The store rejected some writes; retrying"
        );
    }
    Some(Instant::now())
}
