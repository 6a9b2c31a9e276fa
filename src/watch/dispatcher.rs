//! Sends what waits in the outbox: in order within a source, after its acknowledgement gone from the file, again after
//! anything else.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::ledger::{Ledger, LedgerError, Waiting};
use crate::blocking::blocking;
use crate::clock::Chance;
use crate::core::event::Event;
use crate::core::source::SourceKey;
use crate::lifecycle::Stop;

/// Where events go: a bus, or straight to the persister.
#[async_trait]
pub trait Outlet: Send + Sync {
    /// Says where, for people.
    fn describe(&self) -> String;

    /// Sends events, at most one a source, and says of each in the same order whether it was acknowledged.
    async fn send(&self, events: &[Event]) -> Vec<Result<(), Unsent>>;
}

/// Why an event was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// It may be later; it may even have arrived.
    #[error("{0}")]
    Later(String),
    /// It never will be: trying again changes nothing.
    #[error("{0}")]
    Never(String),
}

/// Events in one request. Sources are independent, so this is also how many sources may be in flight.
const BATCH: usize = 256;
/// First and longest wait after a failure.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How often a silent outbox is looked at nevertheless.
const IDLE: Duration = Duration::from_secs(1);

/// Counts of the dispatcher, for metrics and health.
#[derive(Debug, Default)]
pub struct Dispatched {
    /// Events acknowledged.
    pub sent: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Events that the bus will never take.
    pub refused: AtomicU64,
    /// Whether the last attempt failed as a whole.
    pub stuck: AtomicBool,
}

/// Sends what waits.
pub struct Dispatcher {
    /// The outbox.
    pub ledger: Arc<Ledger>,
    /// Where to.
    pub outlet: Arc<dyn Outlet>,
    /// Most events a second that are no transitions; no bound when `None`.
    pub pace: Option<NonZeroU32>,
    /// Rung when something new waits.
    pub bell: Arc<Notify>,
    /// True, or without a sender, once nothing more will be put into the outbox.
    pub closing: watch::Receiver<bool>,
    /// What was done.
    pub counts: Arc<Dispatched>,
    /// Jitter.
    pub chance: Chance,
}

impl Dispatcher {
    /// Runs until the outbox is closed and empty, or cannot be emptied.
    pub async fn run(mut self, stop: Stop) -> Result<(), LedgerError> {
        let mut held = Held::default();
        let mut failures = 0_u32;
        let mut spread = Spread::new(self.pace);
        loop {
            // A recorder that died says nothing any more, and nothing comes after it either.
            let closing = *self.closing.borrow() || self.closing.has_changed().is_err();
            self.forget(&mut held).await?;
            // Reading a few rows that were just written takes microseconds: not worth another thread.
            let waiting = match self
                .ledger
                .next(BATCH, spread.allowance(), &|source| held.holds(source))
            {
                Ok(waiting) => waiting,
                // The recorder says so; nothing is lost.
                Err(error) if error.may_pass() && !closing => Vec::new(),
                Err(error) => return Err(error),
            };
            if waiting.is_empty() {
                if closing && (self.ledger.depth().events == 0 || spread.is_bounded()) {
                    self.leave();
                    return Ok(());
                }
                tokio::select! {
                    () = self.bell.notified() => {}
                    () = tokio::time::sleep(spread.until_next().min(IDLE)) => {}
                    _ = self.closing.changed(), if !closing => {}
                    () = stop.cut() => return Ok(()),
                }
                continue;
            }
            let events: Vec<Event> = waiting.iter().map(|waiting| waiting.event.clone()).collect();
            let results = tokio::select! {
                results = self.outlet.send(&events) => results,
                () = stop.cut() => return Ok(()),
            };
            spread.spend(waiting.iter().filter(|waiting| !waiting.urgent).count());
            if self.settle(waiting, results, &mut held).await? {
                if failures > 0 {
                    info!(outlet = self.outlet.describe(), "Events are taken again");
                }
                failures = 0;
                continue;
            }
            failures += 1;
            if closing {
                self.leave();
                return Ok(());
            }
            let wait = self.backoff(failures);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.closing.changed() => {}
                () = stop.cut() => return Ok(()),
            }
        }
    }

    /// Says what stays behind; it is sent at the next start.
    fn leave(&self) {
        let left = self.ledger.depth().events;
        if left > 0 {
            info!(
                events = left,
                "Events stay in the outbox and are sent at the next start"
            );
        }
    }

    /// Forgets what was acknowledged. A full disk refuses even that; then it is remembered until it does not, and its
    /// sources wait, so that nothing is sent over and over.
    async fn forget(&self, held: &mut Held) -> Result<(), LedgerError> {
        held.sources
            .retain(|_, (until, _)| *until + PATIENCE.1 > Instant::now());
        if held.unforgotten.is_empty() || held.forget_at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        let (ledger, unforgotten) = (Arc::clone(&self.ledger), std::mem::take(&mut held.unforgotten));
        let (done, unforgotten) = blocking(move || (ledger.sent(&unforgotten), unforgotten)).await;
        match done {
            Ok(()) => held.forget_at = None,
            Err(error) if error.may_pass() => {
                held.unforgotten = unforgotten;
                held.forget_at = Some(Instant::now() + IDLE);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Books the results. Returns whether anything went through.
    async fn settle(
        &self,
        waiting: Vec<Waiting>,
        results: Vec<Result<(), Unsent>>,
        held: &mut Held,
    ) -> Result<bool, LedgerError> {
        let mut sent = Vec::new();
        let mut refused: Vec<(Waiting, String)> = Vec::new();
        let mut later: Vec<(Waiting, String)> = Vec::new();
        // An outlet that answers too little has not acknowledged the rest.
        let unanswered = std::iter::repeat_with(|| Err(Unsent::Later("no answer".to_owned())));
        for (waiting, result) in waiting.into_iter().zip(results.into_iter().chain(unanswered)) {
            match result {
                Ok(()) => sent.push(waiting),
                Err(Unsent::Never(reason)) => refused.push((waiting, reason)),
                Err(Unsent::Later(reason)) => later.push((waiting, reason)),
            }
        }
        let through = !sent.is_empty() || !refused.is_empty();
        for waiting in &sent {
            held.sources.remove(&waiting.event.source);
        }
        for (waiting, reason) in &later {
            let attempt = held
                .sources
                .get(&waiting.event.source)
                .map_or(0, |(_, attempt)| *attempt);
            debug!(source.key = %waiting.event.source, event.id = waiting.event.id, attempt, reason, "Event not taken");
            if through {
                let until = Instant::now() + self.backoff(attempt + 1);
                held.sources
                    .insert(waiting.event.source.clone(), (until, attempt + 1));
            }
        }
        if let Some((_, reason)) = later.first().filter(|_| !through) {
            if !self.counts.stuck.swap(true, Ordering::Relaxed) {
                warn!(
                    outlet = self.outlet.describe(),
                    reason, "Events are not taken; they wait in the outbox"
                );
            }
        } else {
            self.counts.stuck.store(false, Ordering::Relaxed);
        }
        let count = |counter: &AtomicU64, more: usize| counter.fetch_add(more as u64, Ordering::Relaxed);
        count(&self.counts.sent, sent.len());
        count(&self.counts.failed, later.len());
        count(&self.counts.refused, refused.len());
        for (waiting, reason) in &refused {
            error!(
                source.key = %waiting.event.source, event.id = waiting.event.id, event.kind = waiting.event.kind.as_str(),
                reason, "Event will never be taken and was put aside"
            );
        }
        held.unforgotten.extend(sent);
        held.forget_at = None;
        self.forget(held).await?;
        let ledger = Arc::clone(&self.ledger);
        let aside = blocking(move || {
            let mut aside = refused.iter();
            aside.try_for_each(|(waiting, reason)| ledger.refused(std::slice::from_ref(waiting), reason))
        });
        match aside.await {
            // It will be refused again when there is room to put it aside.
            Ok(()) => Ok(through),
            Err(error) if error.may_pass() => Ok(through),
            Err(error) => Err(error),
        }
    }

    fn backoff(&self, attempt: u32) -> Duration {
        let (first, longest) = PATIENCE;
        let ceiling = first.saturating_mul(1 << attempt.min(10)).min(longest);
        first + ceiling.mul_f64(self.chance.fraction())
    }
}

/// What is not sent now although it waits.
#[derive(Default)]
struct Held {
    /// Sources whose last event was not taken: until when, and how often in a row.
    sources: HashMap<SourceKey, (Instant, u32)>,
    /// Events acknowledged and not yet forgotten.
    unforgotten: Vec<Waiting>,
    /// When forgetting is tried again.
    forget_at: Option<Instant>,
}

impl Held {
    fn holds(&self, source: &SourceKey) -> bool {
        let now = Instant::now();
        self.sources.get(source).is_some_and(|(until, _)| *until > now)
            || self
                .unforgotten
                .iter()
                .any(|waiting| waiting.event.source == *source)
    }
}

/// Lets at most so many events a second pass that are no transitions.
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

    /// How many may pass now: one at a time, so that they never come in a burst.
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
