//! Sends the events that wait in the outbox: in order within a source. An acknowledged event is removed from the file; a failed
//! one is retried.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::state_file::{StateFile, StateFileError, Waiting};
use crate::blocking::blocking;
use crate::clock::{Backoff, Chance};
use crate::core::event::Event;
use crate::core::source::SourceKey;
use crate::lifecycle::Stop;

/// Receives events: a bus, or a remote store.
#[async_trait]
pub trait Sink: Send + Sync {
    fn describe(&self) -> String;

    /// Returns why nothing can be sent now, if that is known without trying.
    fn interruption(&self) -> Option<String> {
        None
    }

    /// Sends events, at most one per source, and returns for each in the same order whether it was acknowledged.
    async fn send(&self, events: &[Event]) -> Vec<Result<(), SendError>>;
}

/// Why an event was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A retry may succeed; the event may even have arrived.
    #[error("{0}")]
    Transient(String),
    /// Events of this source are not accepted until someone acts; those of other sources are.
    #[error("{0}")]
    Blocked(String),
    /// It will never be accepted: a retry changes nothing.
    #[error("{0}")]
    Permanent(String),
}

/// Maximum number of events per request. Sources are independent, so this is also how many sources may be in flight.
const MAX_EVENTS_PER_REQUEST: usize = 256;
/// First and longest backoff after a failure.
const RETRY_BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(30),
};
/// How often the outbox is checked without a notification.
const IDLE: Duration = Duration::from_secs(1);

/// Counts of the dispatcher, for metrics and health.
#[derive(Debug, Default)]
pub struct Dispatched {
    /// Events acknowledged.
    pub sent: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Events that the bus rejected permanently.
    pub rejected: AtomicU64,
    /// Whether the last attempt failed as a whole.
    pub pending: AtomicBool,
}

/// Sends the waiting events.
pub struct Dispatcher {
    pub state_file: Arc<StateFile>,
    pub sink: Arc<dyn Sink>,
    /// Maximum number of events per second that are not transitions; unlimited when `None`.
    pub pace: Option<NonZeroU32>,
    /// Notified when a new event waits.
    pub wake: Arc<Notify>,
    /// True, or without a sender, once nothing more will be added to the outbox.
    pub closing: watch::Receiver<bool>,
    pub counts: Arc<Dispatched>,
    pub chance: Chance,
}

impl Dispatcher {
    /// Runs until the outbox is closed and empty, or cannot be emptied.
    pub async fn run(mut self, stop: Stop) -> Result<(), StateFileError> {
        let mut held = Held::default();
        let mut failures = 0_u32;
        let mut spread = Spread::new(self.pace);
        loop {
            // A writer that has exited sends nothing more, and no events follow.
            let closing = *self.closing.borrow() || self.closing.has_changed().is_err();
            self.forget(&mut held).await?;
            // Reading a few rows that were just written takes microseconds: not worth another thread.
            let waiting = match self
                .state_file
                .next(MAX_EVENTS_PER_REQUEST, spread.allowance(), &|source| {
                    held.holds(source)
                }) {
                Ok(waiting) => waiting,
                // The writer reports the error; nothing is lost.
                Err(error) if error.is_transient() && !closing => Vec::new(),
                Err(error) => return Err(error),
            };
            if waiting.is_empty() {
                let only_blocked_left = || self.state_file.behind().is_subset(&held.blocked);
                if closing
                    && (self.state_file.depth().events == 0 || spread.is_bounded() || only_blocked_left())
                {
                    self.leave();
                    return Ok(());
                }
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(spread.until_next().min(IDLE)) => {}
                    _ = self.closing.changed(), if !closing => {}
                    () = stop.cut() => return Ok(()),
                }
                continue;
            }
            let events: Vec<Event> = waiting.iter().map(|waiting| waiting.event.clone()).collect();
            let results = tokio::select! {
                results = self.sink.send(&events) => results,
                () = stop.cut() => return Ok(()),
            };
            spread.spend(waiting.iter().filter(|waiting| !waiting.urgent).count());
            if self.apply_results(waiting, results, &mut held).await? {
                if failures > 0 {
                    info!(sink = self.sink.describe(), "Events are accepted again");
                }
                failures = 0;
                continue;
            }
            failures += 1;
            if closing {
                self.leave();
                return Ok(());
            }
            let wait = RETRY_BACKOFF.draw(failures, &self.chance);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.closing.changed() => {}
                () = stop.cut() => return Ok(()),
            }
        }
    }

    /// Logs how many events remain; they are sent at the next start.
    fn leave(&self) {
        let left = self.state_file.depth().events;
        if left > 0 {
            info!(
                events = left,
                "Events stay in the outbox and are sent at the next start"
            );
        }
    }

    /// Removes acknowledged events from the file. A full disk prevents even that; then they are remembered until it succeeds, and
    /// their sources wait, so that no event is sent again and again.
    async fn forget(&self, held: &mut Held) -> Result<(), StateFileError> {
        held.sources
            .retain(|_, (until, _)| *until + RETRY_BACKOFF.longest > Instant::now());
        if held.acknowledged.is_empty() || held.remove_retry_at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        let (state_file, acknowledged) = (
            Arc::clone(&self.state_file),
            std::mem::take(&mut held.acknowledged),
        );
        let (done, acknowledged) = blocking(move || (state_file.sent(&acknowledged), acknowledged)).await;
        match done {
            Ok(()) => held.remove_retry_at = None,
            Err(error) if error.is_transient() => {
                held.acknowledged = acknowledged;
                held.remove_retry_at = Some(Instant::now() + IDLE);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Applies the results. Returns whether any event was acknowledged.
    async fn apply_results(
        &self,
        waiting: Vec<Waiting>,
        results: Vec<Result<(), SendError>>,
        held: &mut Held,
    ) -> Result<bool, StateFileError> {
        let mut sent = Vec::new();
        let mut refused: Vec<(Waiting, String)> = Vec::new();
        let mut later: Vec<(Waiting, String)> = Vec::new();
        let mut blocked: Vec<(Waiting, String)> = Vec::new();
        // A sink that returns too few results has not acknowledged the rest.
        let unanswered = std::iter::repeat_with(|| Err(SendError::Transient("no answer".to_owned())));
        for (waiting, result) in waiting.into_iter().zip(results.into_iter().chain(unanswered)) {
            match result {
                Ok(()) => sent.push(waiting),
                Err(SendError::Permanent(reason)) => refused.push((waiting, reason)),
                Err(SendError::Transient(reason)) => later.push((waiting, reason)),
                Err(SendError::Blocked(reason)) => blocked.push((waiting, reason)),
            }
        }
        let through = !sent.is_empty() || !refused.is_empty() || (!blocked.is_empty() && later.is_empty());
        for (waiting, reason) in &blocked {
            let source = &waiting.event.source;
            let attempt = held.sources.get(source).map_or(0, |(_, attempt)| *attempt);
            if attempt == 0 {
                warn!(source.key = %source, reason, "Events of `{source}` are not accepted; they wait in the outbox");
            }
            let until = Instant::now() + RETRY_BACKOFF.longest;
            held.sources.insert(source.clone(), (until, attempt + 1));
            held.blocked.insert(source.clone());
        }
        for waiting in &sent {
            held.sources.remove(&waiting.event.source);
            held.blocked.remove(&waiting.event.source);
        }
        for (waiting, reason) in &later {
            let attempt = held
                .sources
                .get(&waiting.event.source)
                .map_or(0, |(_, attempt)| *attempt);
            debug!(source.key = %waiting.event.source, event.id = waiting.event.id, attempt, reason, "Event not accepted");
            if through {
                let until = Instant::now() + RETRY_BACKOFF.draw(attempt + 1, &self.chance);
                held.sources
                    .insert(waiting.event.source.clone(), (until, attempt + 1));
            }
        }
        if let Some((_, reason)) = later.first().filter(|_| !through) {
            if !self.counts.pending.swap(true, Ordering::Relaxed) {
                warn!(
                    sink = self.sink.describe(),
                    reason, "Events are not accepted; they wait in the outbox"
                );
            }
        } else {
            self.counts.pending.store(false, Ordering::Relaxed);
        }
        let count = |counter: &AtomicU64, more: usize| counter.fetch_add(more as u64, Ordering::Relaxed);
        count(&self.counts.sent, sent.len());
        count(&self.counts.failed, later.len() + blocked.len());
        count(&self.counts.rejected, refused.len());
        for (waiting, reason) in &refused {
            error!(
                source.key = %waiting.event.source, event.id = waiting.event.id, event.kind = waiting.event.kind.as_str(),
                reason, "Event permanently rejected and set aside"
            );
        }
        held.acknowledged.extend(sent);
        held.remove_retry_at = None;
        self.forget(held).await?;
        let state_file = Arc::clone(&self.state_file);
        let aside = blocking(move || {
            let mut aside = refused.iter();
            aside.try_for_each(|(waiting, reason)| state_file.rejected(std::slice::from_ref(waiting), reason))
        });
        match aside.await {
            // It will be rejected again when there is space to store it as refused.
            Ok(()) => Ok(through),
            Err(error) if error.is_transient() => Ok(through),
            Err(error) => Err(error),
        }
    }
}

/// Waiting events that are not sent now.
#[derive(Default)]
struct Held {
    /// Sources whose last event was not accepted: until when, and the number of consecutive failures.
    sources: HashMap<SourceKey, (Instant, u32)>,
    /// Those of them whose events are not accepted until someone acts.
    blocked: HashSet<SourceKey>,
    /// Events that are acknowledged and not yet removed from the file.
    acknowledged: Vec<Waiting>,
    /// When removing them is retried.
    remove_retry_at: Option<Instant>,
}

impl Held {
    fn holds(&self, source: &SourceKey) -> bool {
        let now = Instant::now();
        self.sources.get(source).is_some_and(|(until, _)| *until > now)
            || self
                .acknowledged
                .iter()
                .any(|waiting| waiting.event.source == *source)
    }
}

/// Limits how many events per second pass that are not transitions.
struct Spread {
    interval: Option<Duration>,
    next: Instant,
}

impl Spread {
    fn new(pace: Option<NonZeroU32>) -> Self {
        Self {
            interval: pace.map(|pace| Duration::from_secs(1) / pace.get()),
            next: Instant::now(),
        }
    }

    fn is_bounded(&self) -> bool {
        self.interval.is_some()
    }

    /// How many may pass now: one at a time, so that they never form a burst.
    fn allowance(&self) -> usize {
        match self.interval {
            None => usize::MAX,
            Some(_) => usize::from(self.next <= Instant::now()),
        }
    }

    fn spend(&mut self, count: usize) {
        if let Some(interval) = self.interval.filter(|_| count > 0) {
            self.next = Instant::now() + interval;
        }
    }

    fn until_next(&self) -> Duration {
        match self.interval {
            None => IDLE,
            Some(_) => self
                .next
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1)),
        }
    }
}
