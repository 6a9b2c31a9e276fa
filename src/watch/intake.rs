//! Where everything that was learnt enters the daemon.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::ProbeSink;

/// Something that was learnt.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A fact.
    Observed(Observation),
    /// Something to count for a source.
    Counted(SourceKey, Tally),
}

impl Input {
    /// Returns the source that it is about.
    pub fn source(&self) -> &SourceKey {
        match self {
            Self::Observed(observation) => &observation.source,
            Self::Counted(source, _) => source,
        }
    }
}

/// What to add to a source's totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Chat messages received.
    pub messages_in: u64,
    /// Chat messages handed to delivery.
    pub messages_out: u64,
    /// Errors met.
    pub errors: u64,
    /// New connections after the first.
    pub reconnects: u64,
}

/// Is shown every observation on its way in.
pub type Observer = Arc<dyn Fn(&Observation) + Send + Sync>;

/// Takes in what producers learn. Cheap to clone; when the last one is gone, nothing more will come.
///
/// The channel has no bound because a producer cannot wait in the middle of a platform's answer. Before it asks for the next
/// one it can, and those who ask for much do: see [`ProbeSink::room`].
#[derive(Clone)]
pub struct Intake {
    inputs: mpsc::UnboundedSender<Input>,
    observers: Arc<RwLock<Vec<Observer>>>,
    taken: Arc<AtomicU64>,
    waiting: Arc<Waiting>,
}

/// The reading end of an intake.
#[derive(Debug)]
pub struct Inputs {
    inputs: mpsc::UnboundedReceiver<Input>,
    waiting: Arc<Waiting>,
}

/// What was taken and not read yet.
#[derive(Debug, Default)]
struct Waiting {
    count: AtomicUsize,
    fewer: Notify,
}

/// How much may wait before those who can wait do: a few pages of sources. A first look at ten thousand of them would
/// otherwise lie here as a whole.
const ROOM: usize = 2048;

impl Inputs {
    /// Reads at most `limit` inputs to the end of `batch`, waiting for the first. Returns how many; none when nothing will
    /// come any more.
    pub async fn recv_many(&mut self, batch: &mut Vec<Input>, limit: usize) -> usize {
        let count = self.inputs.recv_many(batch, limit).await;
        self.waiting.count.fetch_sub(count, Ordering::AcqRel);
        self.waiting.fewer.notify_waiters();
        count
    }
}

impl Intake {
    /// Makes an intake and its reading end.
    pub fn new() -> (Self, Inputs) {
        let (sender, inputs) = mpsc::unbounded_channel();
        let waiting: Arc<Waiting> = Arc::default();
        let intake = Self {
            inputs: sender,
            observers: Arc::default(),
            taken: Arc::default(),
            waiting: Arc::clone(&waiting),
        };
        (intake, Inputs { inputs, waiting })
    }

    /// From now on shows every observation to `observer` on its way in.
    pub fn show_to(&self, observer: Observer) {
        self.observers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(observer);
    }

    /// Counts something for a source.
    pub fn count(&self, source: &SourceKey, tally: Tally) {
        self.take(Input::Counted(source.clone(), tally));
    }

    /// Returns the count of inputs taken, for those who must not keep the intake open.
    pub fn taken(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }

    fn take(&self, input: Input) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.waiting.count.fetch_add(1, Ordering::AcqRel);
        // Nobody reads any more: the daemon has ended, and what comes now will be learnt again at the next start.
        let _ = self.inputs.send(input);
    }
}

#[async_trait]
impl ProbeSink for Intake {
    fn observe(&self, observation: Observation) {
        for observer in self
            .observers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            observer(&observation);
        }
        self.take(Input::Observed(observation));
    }

    fn progress(&self, _: PlatformName, _: usize, _: usize) {}

    async fn room(&self) {
        loop {
            let fewer = self.waiting.fewer.notified();
            tokio::pin!(fewer);
            // Whoever reads between our look and our waiting must not be missed.
            fewer.as_mut().enable();
            if self.waiting.count.load(Ordering::Acquire) < ROOM || self.inputs.is_closed() {
                return;
            }
            fewer.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_much_to_tell_waits_until_what_was_told_is_read() {
        let (intake, mut inputs) = Intake::new();
        let source: SourceKey = "twitch:1".parse().unwrap();
        intake.room().await;
        for _ in 0..ROOM {
            intake.count(&source, Tally::default());
        }
        let (mut waiting, mut batch) = (Box::pin(intake.room()), Vec::new());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(inputs.recv_many(&mut batch, 1).await, 1);
        waiting.await;
        intake.count(&source, Tally::default());
        let waiting = intake.room();
        drop(inputs);
        // Nobody will ever read it.
        waiting.await;
    }
}
