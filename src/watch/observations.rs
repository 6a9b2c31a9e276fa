//! The channel through which all observations and counts enter the daemon.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc};

use crate::core::compact::Compact;
use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::ProbeSink;
use crate::secrets;

/// An observation or a count.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Observed(Observation),
    Counted(SourceKey, CountDelta),
    /// What another member of the fleet has stored about a source that this one takes over.
    Stored(SourceKey, Compact),
}

impl Input {
    pub fn source(&self) -> &SourceKey {
        match self {
            Self::Observed(observation) => &observation.source,
            Self::Counted(source, _) | Self::Stored(source, _) => source,
        }
    }
}

/// What to add to a source's totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountDelta {
    /// Chat messages received.
    pub messages_in: u64,
    /// Chat messages passed on for delivery.
    pub messages_out: u64,
    /// Number of errors.
    pub errors: u64,
    /// New connections after the first.
    pub reconnects: u64,
}

impl AddAssign for CountDelta {
    fn add_assign(&mut self, more: Self) {
        self.messages_in += more.messages_in;
        self.messages_out += more.messages_out;
        self.errors += more.errors;
        self.reconnects += more.reconnects;
    }
}

/// Returns what an observation means for other sources.
pub type Extender = Arc<dyn Fn(&Observation) -> Vec<Observation> + Send + Sync>;

/// Called with every incoming observation.
pub type Observer = Arc<dyn Fn(&Observation) + Send + Sync>;

/// The sending end. Cheap to clone; when the last clone is dropped, no more inputs follow.
///
/// The channel has no bound because a producer cannot wait in the middle of a platform's answer. It can before it requests the
/// next one, and producers of many observations do: see [`ProbeSink::ready`].
#[derive(Clone)]
pub struct ObservationSender {
    inputs: mpsc::UnboundedSender<Input>,
    observers: Arc<RwLock<Vec<Observer>>>,
    extender: Arc<OnceLock<Extender>>,
    sent: Arc<AtomicU64>,
    waiting: Arc<QueueDepth>,
}

/// The receiving end.
#[derive(Debug)]
pub struct ObservationReceiver {
    inputs: mpsc::UnboundedReceiver<Input>,
    waiting: Arc<QueueDepth>,
}

/// Sends what is stored about sources that this member of a fleet takes over. It does not keep the channel open.
#[derive(Debug, Clone)]
pub struct StoredSender {
    inputs: mpsc::WeakUnboundedSender<Input>,
    sent: Arc<AtomicU64>,
    waiting: Arc<QueueDepth>,
}

impl StoredSender {
    /// Sends a stored state, before what is observed later.
    pub fn restore(&self, source: SourceKey, stored: Compact) {
        if let Some(inputs) = self.inputs.upgrade() {
            self.sent.fetch_add(1, Ordering::Relaxed);
            self.waiting.count.fetch_add(1, Ordering::AcqRel);
            // The receiver is gone only if the daemon has stopped.
            let _ = inputs.send(Input::Stored(source, stored));
        }
    }
}

/// Inputs that were sent and not received yet.
#[derive(Debug, Default)]
struct QueueDepth {
    count: AtomicUsize,
    fewer: Notify,
}

/// How many inputs may wait before producers that can wait do so: a few pages of sources. Otherwise the first probe of ten
/// thousand of them would be held in memory as a whole.
const CAPACITY: usize = 2048;

impl ObservationReceiver {
    /// Receives at most `limit` inputs and appends them to `batch`, waiting for the first. Returns how many; zero when no more
    /// will follow.
    pub async fn recv_many(&mut self, batch: &mut Vec<Input>, limit: usize) -> usize {
        let count = self.inputs.recv_many(batch, limit).await;
        self.waiting.count.fetch_sub(count, Ordering::AcqRel);
        self.waiting.fewer.notify_waiters();
        count
    }
}

impl ObservationSender {
    /// Creates the sending and the receiving end.
    pub fn new() -> (Self, ObservationReceiver) {
        let (sender, inputs) = mpsc::unbounded_channel();
        let waiting: Arc<QueueDepth> = Arc::default();
        let observations = Self {
            inputs: sender,
            observers: Arc::default(),
            extender: Arc::default(),
            sent: Arc::default(),
            waiting: Arc::clone(&waiting),
        };
        (observations, ObservationReceiver { inputs, waiting })
    }

    /// From now on calls `observer` with every incoming observation.
    pub fn add_observer(&self, observer: Observer) {
        self.observers.write().push(observer);
    }

    /// From now on adds to every observation what it means for other sources. Only the first extender that is set is used.
    pub fn set_extender(&self, extender: Extender) {
        let _ = self.extender.set(extender);
    }

    pub fn count(&self, source: &SourceKey, delta: CountDelta) {
        self.send(Input::Counted(source.clone(), delta));
    }

    /// Returns a sender of stored states.
    pub fn stored(&self) -> StoredSender {
        StoredSender {
            inputs: self.inputs.downgrade(),
            sent: Arc::clone(&self.sent),
            waiting: Arc::clone(&self.waiting),
        }
    }

    /// Returns the counter of inputs sent, for users that must not keep the channel open.
    pub fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    fn send(&self, input: Input) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.waiting.count.fetch_add(1, Ordering::AcqRel);
        // The receiver is gone: the daemon has stopped, and the next start will observe this again.
        let _ = self.inputs.send(input);
    }
}

#[async_trait]
impl ProbeSink for ObservationSender {
    fn observe(&self, mut observation: Observation) {
        secrets::clean(&mut observation);
        for observer in self.observers.read().iter() {
            observer(&observation);
        }
        let others = self.extender.get().map(|extender| extender(&observation));
        self.send(Input::Observed(observation));
        for other in others.into_iter().flatten() {
            self.send(Input::Observed(other));
        }
    }

    fn progress(&self, _: PlatformName, _: usize, _: usize) {}

    async fn ready(&self) {
        loop {
            let fewer = self.waiting.fewer.notified();
            tokio::pin!(fewer);
            // A receive between the check and the wait must not be missed.
            fewer.as_mut().enable();
            if self.waiting.count.load(Ordering::Acquire) < CAPACITY || self.inputs.is_closed() {
                return;
            }
            fewer.await;
        }
    }

    /// Few: the schedules leave time, their runs overlap, and pages that are in flight do not count for the capacity.
    fn calls_at_once(&self) -> usize {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn full_sender_waits_until_observations_are_consumed() {
        let (observations, mut inputs) = ObservationSender::new();
        let source: SourceKey = "twitch:1".parse().unwrap();
        observations.ready().await;
        for _ in 0..CAPACITY {
            observations.count(&source, CountDelta::default());
        }
        let (mut waiting, mut batch) = (Box::pin(observations.ready()), Vec::new());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(inputs.recv_many(&mut batch, 1).await, 1);
        waiting.await;
        observations.count(&source, CountDelta::default());
        let waiting = observations.ready();
        drop(inputs);
        // It will never be received.
        waiting.await;
    }
}
