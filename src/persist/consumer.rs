//! The persister role: reads events from the bus and stores their evidence; several instances may run in parallel.
//!
//! Messages are acknowledged after their knowledge is stored, or found to be stored already. Messages that the store cannot
//! accept now are redelivered later; messages that can never be processed are reported and removed. No message blocks the ones
//! behind it. A message without a transition is acknowledged while it waits for the source's next write: if this process dies
//! before that, the next heartbeat event, which contains everything, replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{debug, info, warn};

use crate::bus::reopening::ReopeningSubscription;
use crate::bus::{Delivery, EventBus, Filter, Recovery, Start, Subscription};
use crate::clock::{Backoff, Chance, Clock};
use crate::core::code::Code;
use crate::core::event::chat;
use crate::core::event::dead_letter::Unprocessable;
use crate::core::event::read::{Ignored, Origin, Reading, Side, SourceUpdate, read};
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::lifecycle::Stop;
use crate::persist::inbox::Inbox;
use crate::persist::{Applied, ApplyOutcome, Persister};

/// The queue name shared by all persisters; each message goes to one of them.
pub const QUEUE: &str = "bitbrat-persist";
/// Messages read and not yet settled. Bounds the memory, and the number of redeliveries after a crash.
const IN_FLIGHT: usize = 500;
/// Sources in one write to the store.
const SOURCES: usize = 64;
/// How far back a persister that is new to the bus starts (s). Each source is published in full four times an hour.
const FIRST_LOOKBACK: i64 = 3600;
/// First and longest delay before redelivery of a message that the store could not accept.
const REDELIVERY_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};
/// How often due writes are checked.
const TICK: Duration = Duration::from_secs(1);

/// Returns the subscription shared by all persisters; a new one starts up to an hour back.
pub fn subscription(now: Timestamp) -> Subscription {
    Subscription {
        queue: QUEUE.to_owned(),
        filter: Filter::ingress(),
        from: Start::Since(now.plus_secs(-FIRST_LOOKBACK)),
        in_flight: IN_FLIGHT,
    }
}

/// Counters of a persister since startup.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages whose knowledge is stored.
    pub stored: AtomicU64,
    /// Those among `stored` that other programs sent.
    pub foreign: AtomicU64,
    /// Messages to be redelivered because the store failed.
    pub postponed: AtomicU64,
    /// Messages that can never be processed.
    pub dead: AtomicU64,
    /// Messages delivered more than once.
    pub repeated: AtomicU64,
    /// Whether messages are read and stored.
    pub healthy: AtomicBool,
    ignored: Mutex<BTreeMap<Ignored, u64>>,
}

impl Counts {
    /// Returns the number of ignored messages by reason.
    pub fn ignored(&self) -> BTreeMap<Ignored, u64> {
        self.ignored.lock().clone()
    }

    fn ignore(&self, why: Ignored) {
        *self.ignored.lock().entry(why).or_default() += 1;
    }
}

/// Reads events and stores their evidence.
pub struct Consumer {
    /// Bus from which events are consumed.
    pub bus: Arc<dyn EventBus>,
    /// Writes the received knowledge.
    pub persister: Arc<Persister>,
    /// Clock for dates of receipt.
    pub clock: Arc<dyn Clock>,
    /// Random source for backoff jitter.
    pub chance: Chance,
    /// Counters, shared with metrics.
    pub counts: Arc<Counts>,
    /// Whether several waiting messages of one source may be combined into one write. Reduces writes when messages pile up.
    pub coalesce: bool,
    /// Called for every source with an event.
    pub on_update: Option<OnUpdate>,
}

/// Callback for received knowledge.
pub type OnUpdate = Arc<dyn Fn(&SourceKey, &Knowledge) + Send + Sync>;

struct Item {
    update: Box<SourceUpdate>,
    delivery: Delivery,
}

impl Consumer {
    /// Runs until stopped, and then stores all remaining knowledge.
    pub async fn run(self, stop: Stop) {
        let to = subscription(self.clock.now());
        let mut follow = ReopeningSubscription::new(self.bus.clone(), to, self.chance.clone());
        let is_open = follow.is_open();
        let mut inbox = Inbox::default();
        let mut failures = 0_u32;
        info!(bus = self.bus.location(), "Storing events from the bus");
        while !stop.is_requested() {
            while inbox.len() < IN_FLIGHT
                && let Some(delivery) = follow.ready()
            {
                self.take_in(delivery, &mut inbox).await;
            }
            if inbox.is_empty() {
                // Not interrupted by ticks: opening a subscription may take longer than one.
                let delivery = {
                    let next = follow.next();
                    tokio::pin!(next);
                    loop {
                        tokio::select! {
                            delivery = &mut next => break Some(delivery),
                            () = tokio::time::sleep(TICK) => {
                                self.tick().await;
                                let healthy = is_open.load(Ordering::Relaxed) && failures == 0;
                                self.counts.healthy.store(healthy, Ordering::Relaxed);
                            }
                            () = stop.requested() => break None,
                        }
                    }
                };
                if let Some(delivery) = delivery {
                    self.take_in(delivery, &mut inbox).await;
                    self.counts.healthy.store(failures == 0, Ordering::Relaxed);
                }
                continue;
            }
            let each = if self.coalesce { usize::MAX } else { 1 };
            let batch = inbox.take(SOURCES, each);
            let persisting = self.persist(batch, failures);
            tokio::pin!(persisting);
            let fine = loop {
                tokio::select! {
                    fine = &mut persisting => break fine,
                    // Messages are read while the store is working.
                    delivery = follow.next(), if inbox.len() < IN_FLIGHT => self.take_in(delivery, &mut inbox).await,
                    () = stop.cut() => return,
                }
            };
            failures = if fine { 0 } else { failures.saturating_add(1) };
            self.counts.healthy.store(fine, Ordering::Relaxed);
        }
        // Dropping the inbox returns its messages to the bus.
        drop(inbox);
        let applied = self.persister.flush().await;
        debug!(
            written = applied.count(ApplyOutcome::Written),
            "Stored what was waiting"
        );
    }

    async fn tick(&self) {
        let applied = self.persister.tick().await;
        for (source, error) in &applied.failures {
            debug!(source.key = %source, error = %error, "Still not stored");
        }
    }

    /// Settles irrelevant messages, and queues the others by source.
    async fn take_in(&self, delivery: Delivery, inbox: &mut Inbox<Item>) {
        let message = &delivery.message;
        if message.deliveries > 1 {
            self.counts.repeated.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(why) = &message.unreadable {
            let dead = Unprocessable::new(Code::HeadersInvalid, why);
            return self.publish_dead_letter(delivery, &dead).await;
        }
        // Most messages are chat, which is detected by the header without parsing the body.
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
            Reading::SourceUpdate(update) => inbox.push(update.source.clone(), Item { update, delivery }),
            Reading::Chat(_) => {
                self.counts.ignore(Ignored::NotAboutSources);
                delivery.ack().await;
            }
            Reading::Ignored(why) => {
                self.counts.ignore(why);
                if why == Ignored::Forged {
                    debug!(
                        transport_id = message.transport_id,
                        "Ignored an event from an untrusted sender"
                    );
                }
                delivery.ack().await;
            }
            Reading::Unprocessable(dead) => self.publish_dead_letter(delivery, &dead).await,
        }
    }

    /// Reports a message that can never be processed, and removes it once the report was published.
    async fn publish_dead_letter(&self, delivery: Delivery, dead: &Unprocessable) {
        let message = &delivery.message;
        // Bodies without their headers are often identical, and often empty.
        let place = message
            .unreadable
            .as_ref()
            .map(|_| format!("{} {}", message.topic, message.transport_id));
        let what = [place.unwrap_or_default().as_bytes(), message.data.as_ref()].concat();
        let letter = dead.letter(&what, self.clock.now());
        let id = letter.id.clone();
        match self.bus.publish(letter.into()).await {
            Ok(_) => {}
            Err(error) if error.recovery() == Recovery::Retry => {
                debug!(error = %error, "A dead letter could not be sent");
                let backoff = REDELIVERY_BACKOFF.draw(delivery_attempt(&delivery), &self.chance);
                return delivery.nak(backoff).await;
            }
            // Without a topic for dead letters this log entry is the only report.
            Err(error) => warn!(error = %error, "A dead letter could not be published"),
        }
        self.counts.dead.fetch_add(1, Ordering::Relaxed);
        warn!(
            event.id = id,
            code = %dead.code,
            reason = dead.reason,
            original_id = dead.original_id,
            original_type = dead.original_type,
            bytes = delivery.message.data.len(),
            "A message can never be processed; it was sent to the dead-letter topic"
        );
        delivery.term().await;
    }

    /// Stores a batch and settles its messages. Returns whether the store accepted anything.
    async fn persist(&self, batch: Vec<(SourceKey, Vec<Item>)>, failures: u32) -> bool {
        let mut updates = Vec::new();
        let mut waiting = Vec::with_capacity(batch.len());
        for (source, items) in batch {
            let mut deliveries = Vec::with_capacity(items.len());
            for item in items {
                if let Some(on_update) = &self.on_update {
                    on_update(&source, &item.update.knowledge);
                }
                if item.update.origin == Origin::Foreign {
                    self.counts.foreign.fetch_add(1, Ordering::Relaxed);
                }
                updates.push(*item.update);
                deliveries.push(item.delivery);
            }
            waiting.push((source, deliveries));
        }
        let applied = self.persister.apply(updates).await;
        let mut fine = false;
        for (source, deliveries) in waiting {
            let outcome = applied
                .outcomes
                .get(&source)
                .copied()
                .unwrap_or(ApplyOutcome::Waiting);
            fine |= outcome != ApplyOutcome::Waiting;
            for delivery in deliveries {
                self.settle(&source, outcome, delivery, &applied, failures).await;
            }
        }
        fine
    }

    async fn settle(
        &self,
        source: &SourceKey,
        outcome: ApplyOutcome,
        delivery: Delivery,
        applied: &Applied,
        failures: u32,
    ) {
        match outcome {
            ApplyOutcome::Written | ApplyOutcome::Coalesced | ApplyOutcome::Unchanged => {
                self.counts.stored.fetch_add(1, Ordering::Relaxed);
                delivery.ack().await;
            }
            ApplyOutcome::Waiting => {
                self.counts.postponed.fetch_add(1, Ordering::Relaxed);
                if failures == 0 {
                    let reason = reason(applied, source);
                    warn!(source.key = %source, reason, "The store does not accept events; they are redelivered");
                }
                let attempt = delivery_attempt(&delivery).max(failures);
                delivery.nak(REDELIVERY_BACKOFF.draw(attempt, &self.chance)).await;
            }
            ApplyOutcome::Blocked => {
                let reason =
                    reason(applied, source).unwrap_or_else(|| "what is stored cannot be used".to_owned());
                self.publish_dead_letter(delivery, &Unprocessable::new(Code::StoreBlocked, reason))
                    .await;
            }
        }
    }
}

fn delivery_attempt(delivery: &Delivery) -> u32 {
    delivery.message.deliveries.saturating_sub(1)
}

fn reason(applied: &Applied, source: &SourceKey) -> Option<String> {
    let failed = applied.failures.iter().find(|(failed, _)| failed == source);
    failed.map(|(_, error)| error.to_string())
}
