//! Counts the chat on the bus per source: messages received, and messages passed to delivery.
//!
//! A message is counted once per id, recorded together with the total that it changes, and only then acknowledged. Totals are
//! written to the sources' documents at intervals, with this process's own writer name, so any number of processes may count.

mod channels;
mod pace;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::{info, warn};

use crate::blocking::blocking;
use crate::bus::reopening::ReopeningSubscription;
use crate::bus::{Delivery, EventBus, Filter, Start, Subscription};
use crate::clock::{Chance, Clock};
use crate::core::event::chat::{self, ChatEvent, Place};
use crate::core::event::read::{Reading, Side, read};
use crate::core::evidence::Knowledge;
use crate::core::source::{PlatformName, SourceKey};
use crate::lifecycle::Stop;
use crate::persist::Persister;
use crate::store::SourceStore;

pub use channels::Channels;
pub use pace::Pace;
pub use tally::{Tally, TallyError};

/// The queue name shared by all chat counters; each message is counted by one of them.
pub const QUEUE: &str = "bitbrat-chat";
/// Messages counted in one transaction.
const MAX_MESSAGES_PER_COMMIT: usize = 256;
/// How often changed totals are passed to the persister, which limits the writes to the store.
const HAND_ON: Duration = Duration::from_secs(5);
/// Delay before a retry if the store cannot be read at startup, or the tally cannot be written.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Returns the subscription to one side of the platform. A new one starts now: a bus may retain years of chat.
pub fn subscription(side: Side) -> Subscription {
    Subscription {
        queue: QUEUE.to_owned(),
        filter: match side {
            Side::Ingress => Filter::ingress(),
            Side::Egress => Filter::egress(),
        },
        from: Start::Now,
        in_flight: MAX_MESSAGES_PER_COMMIT,
    }
}

/// Counters since startup, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages counted as chat of a source.
    pub counted: AtomicU64,
    /// Messages whose id had been counted before.
    pub repeated: AtomicU64,
    /// Messages of an unknown channel.
    pub unplaced: AtomicU64,
}

pub struct ChatCounter {
    /// Bus from which messages are consumed.
    pub bus: Arc<dyn EventBus>,
    /// Receives the totals.
    pub persister: Arc<Persister>,
    /// Source of the totals from earlier runs.
    pub store: Arc<dyn SourceStore>,
    /// Persistent totals and ids.
    pub tally: Arc<Tally>,
    /// The writer name of this process; stable across restarts, and unique.
    pub writer: String,
    /// The known sources.
    pub channels: Arc<Channels>,
    /// Clock for pacing and dates.
    pub clock: Arc<dyn Clock>,
    /// Random source for backoff jitter.
    pub chance: Chance,
    /// Counters, shared with metrics.
    pub counts: Arc<Counts>,
    /// Chat that our own listeners count at its origin. It is skipped here, or it would be counted twice.
    pub elsewhere: BTreeSet<(PlatformName, chat::Direction)>,
}

impl ChatCounter {
    /// Runs until stopped.
    pub async fn run(self, stop: Stop) {
        while !self.restore().await {
            if !stop.sleep(RETRY_AFTER).await {
                return;
            }
        }
        let open =
            |side| ReopeningSubscription::new(self.bus.clone(), subscription(side), self.chance.clone());
        let (mut ingress, mut egress) = (open(Side::Ingress), open(Side::Egress));
        let mut handed_on = BTreeMap::new();
        let mut next = tokio::time::interval(HAND_ON);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        info!(bus = self.bus.location(), "Counting chat");
        loop {
            let (side, first) = tokio::select! {
                delivery = ingress.next() => (Side::Ingress, delivery),
                delivery = egress.next() => (Side::Egress, delivery),
                _ = next.tick() => {
                    self.hand_on(&mut handed_on).await;
                    continue;
                }
                () = stop.requested() => break,
            };
            let mut batch = vec![(side, first)];
            for (side, follow) in [(Side::Ingress, &mut ingress), (Side::Egress, &mut egress)] {
                while batch.len() < MAX_MESSAGES_PER_COMMIT
                    && let Some(delivery) = follow.ready()
                {
                    batch.push((side, delivery));
                }
            }
            self.count(batch).await;
        }
        self.hand_on(&mut handed_on).await;
    }

    /// Restores the totals stored with our writer name, and the known sources. Returns whether that succeeded: counting must
    /// not start before, or a total would start again from zero.
    async fn restore(&self) -> bool {
        let stored = match self.store.load_all().await {
            Ok(stored) => stored,
            Err(error) => {
                warn!(error = %error, "Chat is not counted before the store can be read; trying again");
                return false;
            }
        };
        for document in stored.into_iter().filter_map(|stored| stored.document.ok()) {
            let document = document.value;
            self.channels.update(&document.key, &document.knowledge);
            if let Some(totals) = document.knowledge.counters.get(&self.writer) {
                self.tally.restore(&document.key, *totals);
            }
        }
        true
    }

    async fn count(&self, batch: Vec<(Side, Delivery)>) {
        let mut incoming = Vec::new();
        let mut deliveries = Vec::with_capacity(batch.len());
        for (side, delivery) in batch {
            incoming.extend(self.receive(side, &delivery));
            deliveries.push(delivery);
        }
        let (tally, now, found) = (self.tally.clone(), self.clock.now(), incoming.len() as u64);
        let counted = blocking(move || tally.count(&incoming, now)).await;
        match counted {
            Ok(counted) => {
                self.counts.counted.fetch_add(counted, Ordering::Relaxed);
                self.counts.repeated.fetch_add(found - counted, Ordering::Relaxed);
                for delivery in deliveries {
                    delivery.ack().await;
                }
            }
            Err(error) => {
                warn!(error = %error, "Chat cannot be counted now; its messages are delivered again");
                for delivery in deliveries {
                    delivery.nak(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Returns the message's id, direction and source if it is to be counted.
    fn receive(&self, side: Side, delivery: &Delivery) -> Option<(String, chat::Direction, SourceKey)> {
        let message = &delivery.message;
        let kind = message.attributes.get("type");
        // Most other messages have a header that identifies them as something other than chat.
        if side == Side::Ingress && kind.is_some_and(|kind| !chat::is_chat(kind)) {
            return None;
        }
        let Reading::Chat(ChatEvent { id, direction, place }) =
            read(side, &message.attributes, &message.data, self.clock.now())
        else {
            return None;
        };
        let platform = match &place {
            Place::Source(source) => source.platform(),
            Place::Login(platform, _) => *platform,
        };
        if self.elsewhere.contains(&(platform, direction)) {
            return None;
        }
        let source = match place {
            Place::Source(source) => Some(source),
            Place::Login(platform, login) => self.channels.find(platform, &login),
        };
        if source.is_none() {
            self.counts.unplaced.fetch_add(1, Ordering::Relaxed);
        }
        let id = if id.is_empty() {
            format!("{} {}", message.topic, message.transport_id)
        } else {
            id
        };
        Some((id, direction, source?))
    }

    /// Passes changed totals to the persister. Those of unmonitored sources are kept until the source is monitored, so that
    /// chat alone does not create a source.
    async fn hand_on(&self, before: &mut BTreeMap<SourceKey, (u64, u64)>) {
        let changed: Vec<_> = self
            .tally
            .totals()
            .into_iter()
            .filter(|(source, totals)| {
                let figures = (totals.messages_in, totals.messages_out);
                self.channels.is_monitored(source) && before.get(source) != Some(&figures)
            })
            .collect();
        if changed.is_empty() {
            return;
        }
        let updates: Vec<_> = changed
            .iter()
            .map(|(source, totals)| {
                let counters = BTreeMap::from([(self.writer.clone(), *totals)]);
                let knowledge = Knowledge {
                    counters,
                    ..Knowledge::default()
                };
                (source.clone(), knowledge)
            })
            .collect();
        // The persister keeps what the store rejects now, and retries.
        self.persister.apply(updates).await;
        before.extend(
            changed
                .into_iter()
                .map(|(source, totals)| (source, (totals.messages_in, totals.messages_out))),
        );
    }
}
