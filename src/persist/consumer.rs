//! The persister role: reads events from the bus and stores what they tell, beside as many others as there are.
//!
//! Messages are acknowledged after their knowledge is stored, or is known to be stored already. What the store cannot take
//! now is delivered again later; what can never be used is reported and done with. No message stops the ones behind it.
//! What brings no transition is acknowledged while it waits for the source's next write: should this process die before
//! that, the next heartbeat event, which carries everything, makes up for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::bus::follow::Follow;
use crate::bus::{Delivery, EventBus, Filter, Recovery, Start, Subscription};
use crate::clock::{Chance, Clock};
use crate::core::event::chat;
use crate::core::event::dead::Dead;
use crate::core::event::read::{Ignored, Learnt, Origin, Reading, Side, read};
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::lifecycle::Stop;
use crate::persist::inbox::Inbox;
use crate::persist::{Applied, Outcome, Persister};

/// The name that all persisters share; each message goes to one of them.
pub const QUEUE: &str = "bitbrat-persist";
/// Messages read and not yet settled. It bounds memory, and what is delivered again after a crash.
const IN_FLIGHT: usize = 500;
/// Sources in one write to the store.
const SOURCES: usize = 64;
/// How far back a persister that is new to the bus begins (s). Every source is told of in full four times an hour.
const FIRST_LOOK_BACK: i64 = 3600;
/// First and longest time until a message comes back that the store could not take.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often we look whether something else is to be written.
const TICK: Duration = Duration::from_secs(1);

/// Returns the persisters' subscription.
pub fn subscription(now: Timestamp) -> Subscription {
    Subscription {
        queue: QUEUE.to_owned(),
        filter: Filter::ingress(),
        from: Start::Since(now.plus_secs(-FIRST_LOOK_BACK)),
        in_flight: IN_FLIGHT,
    }
}

/// What a persister has done since it started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages whose knowledge is stored.
    pub stored: AtomicU64,
    /// Those of them that other programs sent.
    pub foreign: AtomicU64,
    /// Messages to be delivered again because the store was in trouble.
    pub postponed: AtomicU64,
    /// Messages that can never be used.
    pub dead: AtomicU64,
    /// Messages delivered more than once.
    pub repeated: AtomicU64,
    /// Whether messages are read and stored.
    pub healthy: AtomicBool,
    ignored: Mutex<BTreeMap<Ignored, u64>>,
}

impl Counts {
    /// Returns how many messages meant nothing, by why.
    pub fn ignored(&self) -> BTreeMap<Ignored, u64> {
        self.ignored
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn ignore(&self, why: Ignored) {
        *self
            .ignored
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(why)
            .or_default() += 1;
    }
}

/// Reads events and stores what they tell.
pub struct Consumer {
    /// Where from.
    pub bus: Arc<dyn EventBus>,
    /// Where to.
    pub persister: Arc<Persister>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub chance: Chance,
    /// What was done.
    pub counts: Arc<Counts>,
    /// Whether several waiting messages of one source may become one write. Spares the store when messages pile up.
    pub coalesce: bool,
    /// Told of every source that events are about.
    pub listener: Option<Listener>,
}

/// Whoever wants to know what is learnt.
pub type Listener = Arc<dyn Fn(&SourceKey, &Knowledge) + Send + Sync>;

struct Item {
    learnt: Box<Learnt>,
    delivery: Delivery,
}

impl Consumer {
    /// Runs until it is stopped, and then stores what it still holds.
    pub async fn run(self, stop: Stop) {
        let to = subscription(self.clock.now());
        let mut follow = Follow::new(self.bus.clone(), to, self.chance.clone());
        let mut inbox = Inbox::default();
        let mut failures = 0_u32;
        info!(bus = self.bus.location(), "Storing what is told on the bus");
        while !stop.is_requested() {
            while inbox.len() < IN_FLIGHT
                && let Some(delivery) = follow.ready()
            {
                self.take_in(delivery, &mut inbox).await;
            }
            if inbox.is_empty() {
                tokio::select! {
                    delivery = follow.next() => self.take_in(delivery, &mut inbox).await,
                    () = tokio::time::sleep(TICK) => self.tick().await,
                    () = stop.requested() => {}
                }
                self.counts
                    .healthy
                    .store(follow.is_open() && failures == 0, Ordering::Relaxed);
                continue;
            }
            let each = if self.coalesce { usize::MAX } else { 1 };
            let batch = inbox.take(SOURCES, each);
            let persisting = self.persist(batch, failures);
            tokio::pin!(persisting);
            let fine = loop {
                tokio::select! {
                    fine = &mut persisting => break fine,
                    // The store takes its time, and what comes meanwhile is read meanwhile.
                    delivery = follow.next(), if inbox.len() < IN_FLIGHT => self.take_in(delivery, &mut inbox).await,
                    () = stop.cut() => return,
                }
            };
            failures = if fine { 0 } else { failures.saturating_add(1) };
            self.counts.healthy.store(fine, Ordering::Relaxed);
        }
        // What is still in the inbox goes back to the bus by being dropped.
        drop(inbox);
        let applied = self.persister.flush().await;
        debug!(
            written = applied.count(Outcome::Written),
            "Stored what was waiting"
        );
    }

    async fn tick(&self) {
        let applied = self.persister.tick().await;
        for (source, error) in &applied.failures {
            debug!(source.key = %source, error = %error, "Still not stored");
        }
    }

    /// Settles what means nothing, and puts the rest into its source's line.
    async fn take_in(&self, delivery: Delivery, inbox: &mut Inbox<Item>) {
        let message = &delivery.message;
        if message.deliveries > 1 {
            self.counts.repeated.fetch_add(1, Ordering::Relaxed);
        }
        // Most of what passes by is chat, which its header tells without reading the body.
        if message
            .attributes
            .get("type")
            .is_some_and(|kind| chat::is_chat(kind))
        {
            self.counts.ignore(Ignored::NotAboutSources);
            return delivery.ack().await;
        }
        match read(
            Side::Ingress,
            &message.attributes,
            &message.data,
            self.clock.now(),
        ) {
            Reading::Learnt(learnt) => inbox.push(learnt.source.clone(), Item { learnt, delivery }),
            Reading::Chat(_) => {
                self.counts.ignore(Ignored::NotAboutSources);
                delivery.ack().await;
            }
            Reading::Ignored(why) => {
                self.counts.ignore(why);
                if why == Ignored::Forged {
                    debug!(
                        transport_id = message.transport_id,
                        "Ignored an event that anybody may have sent"
                    );
                }
                delivery.ack().await;
            }
            Reading::Dead(dead) => self.bury(delivery, &dead).await,
        }
    }

    /// Reports a message that can never be used, and is done with it once the report is out.
    async fn bury(&self, delivery: Delivery, dead: &Dead) {
        let letter = dead.letter(&delivery.message.data, self.clock.now());
        let id = letter.id.clone();
        match self.bus.publish(letter.into()).await {
            Ok(_) => {}
            Err(error) if error.recovery() == Recovery::Retry => {
                debug!(error = %error, "A dead letter could not be sent");
                let pause = self.pause(delivery_attempt(&delivery));
                return delivery.nak(pause).await;
            }
            // Without a topic for dead letters this log is all there is.
            Err(error) => warn!(error = %error, "A dead letter has nowhere to go"),
        }
        self.counts.dead.fetch_add(1, Ordering::Relaxed);
        warn!(
            event.id = id,
            code = dead.code,
            reason = dead.reason,
            original_id = dead.original_id,
            original_type = dead.original_type,
            bytes = delivery.message.data.len(),
            "A message can never be used and was put aside"
        );
        delivery.term().await;
    }

    /// Stores a batch and settles its messages. Returns whether the store took anything.
    async fn persist(&self, batch: Vec<(SourceKey, Vec<Item>)>, failures: u32) -> bool {
        let mut learnt = Vec::new();
        let mut waiting = Vec::with_capacity(batch.len());
        for (source, items) in batch {
            let mut deliveries = Vec::with_capacity(items.len());
            for item in items {
                if let Some(listener) = &self.listener {
                    listener(&source, &item.learnt.knowledge);
                }
                if item.learnt.origin == Origin::Foreign {
                    self.counts.foreign.fetch_add(1, Ordering::Relaxed);
                }
                learnt.push(*item.learnt);
                deliveries.push(item.delivery);
            }
            waiting.push((source, deliveries));
        }
        let applied = self.persister.apply(learnt).await;
        let mut fine = false;
        for (source, deliveries) in waiting {
            let outcome = applied.outcomes.get(&source).copied().unwrap_or(Outcome::Waiting);
            fine |= outcome != Outcome::Waiting;
            for delivery in deliveries {
                self.settle(&source, outcome, delivery, &applied, failures).await;
            }
        }
        fine
    }

    async fn settle(
        &self,
        source: &SourceKey,
        outcome: Outcome,
        delivery: Delivery,
        applied: &Applied,
        failures: u32,
    ) {
        match outcome {
            Outcome::Written | Outcome::Coalesced | Outcome::Unchanged => {
                self.counts.stored.fetch_add(1, Ordering::Relaxed);
                delivery.ack().await;
            }
            Outcome::Waiting => {
                self.counts.postponed.fetch_add(1, Ordering::Relaxed);
                if failures == 0 {
                    let reason = reason(applied, source);
                    warn!(source.key = %source, reason, "The store does not take events; they are delivered again");
                }
                let attempt = delivery_attempt(&delivery).max(failures);
                delivery.nak(self.pause(attempt)).await;
            }
            Outcome::Blocked => {
                let reason =
                    reason(applied, source).unwrap_or_else(|| "what is stored cannot be used".to_owned());
                self.bury(delivery, &Dead::new("store.blocked", reason)).await;
            }
        }
    }

    fn pause(&self, attempt: u32) -> Duration {
        let (first, longest) = PATIENCE;
        let ceiling = first.saturating_mul(1 << attempt.min(6)).min(longest);
        first + ceiling.mul_f64(self.chance.fraction())
    }
}

fn delivery_attempt(delivery: &Delivery) -> u32 {
    delivery.message.deliveries.saturating_sub(1)
}

fn reason(applied: &Applied, source: &SourceKey) -> Option<String> {
    let failed = applied.failures.iter().find(|(failed, _)| failed == source);
    failed.map(|(_, error)| error.to_string())
}
