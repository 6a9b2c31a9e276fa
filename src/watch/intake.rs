//! Where everything that was learnt enters the daemon.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

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
/// The channel has no bound because a producer cannot wait here (a platform's answer is being read), and needs none: what
/// platforms tell is bounded by their request budgets, and the reader never waits for the network.
#[derive(Clone)]
pub struct Intake {
    inputs: mpsc::UnboundedSender<Input>,
    observers: Arc<RwLock<Vec<Observer>>>,
    taken: Arc<AtomicU64>,
}

impl Intake {
    /// Makes an intake and its reading end.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Input>) {
        let (inputs, receiver) = mpsc::unbounded_channel();
        let intake = Self {
            inputs,
            observers: Arc::default(),
            taken: Arc::default(),
        };
        (intake, receiver)
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
        // Nobody reads any more: the daemon has ended, and what comes now will be learnt again at the next start.
        let _ = self.inputs.send(input);
    }
}

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
}
