//! Counts the chat that flows over the bus, per source: what came in, and what was handed to delivery.
//!
//! A message is counted once per id, written down with the total that it changes, and only then acknowledged. Totals go
//! to the sources' documents now and then, under this process's own writer name, so that any number of processes may count.

mod pace;
mod roster;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::{info, warn};

use crate::blocking::blocking;
use crate::bus::follow::Follow;
use crate::bus::{Delivery, EventBus, Filter, Start, Subscription};
use crate::clock::{Chance, Clock};
use crate::core::event::chat::{self, Heard, Place};
use crate::core::event::read::{Reading, Side, read};
use crate::core::evidence::Knowledge;
use crate::core::source::{PlatformName, SourceKey};
use crate::lifecycle::Stop;
use crate::persist::Persister;
use crate::store::SourceStore;

pub use pace::Pace;
pub use roster::Roster;
pub use tally::{Tally, TallyError};

/// The name that all counters of chat share; each message is counted by one of them.
pub const QUEUE: &str = "bitbrat-chat";
/// Messages counted in one transaction.
const BATCH: usize = 256;
/// How often changed totals are handed on. The persister spares the store by itself.
const HAND_ON: Duration = Duration::from_secs(5);
/// How long to wait when the store cannot be read at the start, or the tally cannot be written.
const PAUSE: Duration = Duration::from_secs(5);

/// Returns the subscription to one side of the platform. A new one begins now: the past of a bus may be years of chat.
pub fn subscription(side: Side) -> Subscription {
    Subscription {
        queue: QUEUE.to_owned(),
        filter: match side {
            Side::Ingress => Filter::ingress(),
            Side::Egress => Filter::egress(),
        },
        from: Start::Now,
        in_flight: BATCH,
    }
}

/// What was counted since the start, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages counted.
    pub counted: AtomicU64,
    /// Messages whose id had been counted before.
    pub repeated: AtomicU64,
    /// Messages of a channel that we do not know.
    pub unplaced: AtomicU64,
}

/// Counts chat.
pub struct ChatCounter {
    /// Where messages flow.
    pub bus: Arc<dyn EventBus>,
    /// Where totals go.
    pub persister: Arc<Persister>,
    /// Where totals were kept before.
    pub store: Arc<dyn SourceStore>,
    /// Where they are written down.
    pub tally: Arc<Tally>,
    /// The name under which this process counts; the same after every restart, and nobody else's.
    pub writer: String,
    /// Which sources there are.
    pub roster: Arc<Roster>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub chance: Chance,
    /// What was done.
    pub counts: Arc<Counts>,
    /// Chat that listeners of ours count where it is said. Counted here as well, it would count twice.
    pub elsewhere: BTreeSet<(PlatformName, chat::Direction)>,
}

impl ChatCounter {
    /// Runs until it is stopped.
    pub async fn run(self, stop: Stop) {
        while !self.restore().await {
            if !stop.sleep(PAUSE).await {
                return;
            }
        }
        let open = |side| Follow::new(self.bus.clone(), subscription(side), self.chance.clone());
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
                while batch.len() < BATCH
                    && let Some(delivery) = follow.ready()
                {
                    batch.push((side, delivery));
                }
            }
            self.count(batch).await;
        }
        self.hand_on(&mut handed_on).await;
    }

    /// Learns the totals that the store has under our name, and which sources there are. Returns whether that worked: nothing
    /// is counted before, or a total would start over.
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
            self.roster.learn(&document.key, &document.knowledge);
            if let Some(totals) = document.knowledge.counters.get(&self.writer) {
                self.tally.restore(&document.key, *totals);
            }
        }
        true
    }

    async fn count(&self, batch: Vec<(Side, Delivery)>) {
        let mut heard = Vec::new();
        let mut deliveries = Vec::with_capacity(batch.len());
        for (side, delivery) in batch {
            heard.extend(self.hear(side, &delivery));
            deliveries.push(delivery);
        }
        let (tally, now, found) = (self.tally.clone(), self.clock.now(), heard.len() as u64);
        let counted = blocking(move || tally.count(&heard, now)).await;
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
                    delivery.nak(PAUSE).await;
                }
            }
        }
    }

    /// Returns what is to be counted of a message, and where.
    fn hear(&self, side: Side, delivery: &Delivery) -> Option<(String, chat::Direction, SourceKey)> {
        let message = &delivery.message;
        let kind = message.attributes.get("type");
        // Most of the rest has a header that says that it is no chat.
        if side == Side::Ingress && kind.is_some_and(|kind| !chat::is_chat(kind)) {
            return None;
        }
        let Reading::Chat(Heard { id, direction, place }) =
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
            Place::Login(platform, login) => self.roster.find(platform, &login),
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

    /// Hands the totals that moved to the persister. Those of sources that nobody attends are kept until somebody does, so that
    /// chatting alone makes no source.
    async fn hand_on(&self, before: &mut BTreeMap<SourceKey, (u64, u64)>) {
        let moved: Vec<_> = self
            .tally
            .totals()
            .into_iter()
            .filter(|(source, totals)| {
                let figures = (totals.messages_in, totals.messages_out);
                self.roster.attends(source) && before.get(source) != Some(&figures)
            })
            .collect();
        if moved.is_empty() {
            return;
        }
        let learnt: Vec<_> = moved
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
        // What the store cannot take now the persister keeps and tries again.
        self.persister.apply(learnt).await;
        before.extend(
            moved
                .into_iter()
                .map(|(source, totals)| (source, (totals.messages_in, totals.messages_out))),
        );
    }
}
