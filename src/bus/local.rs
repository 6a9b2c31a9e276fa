//! The in-process bus: for a single process with all roles, and for tests.
//!
//! It keeps the newest messages in memory only. Data that must survive the process is in the outbox.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{
    Accepted, BusError, BusReport, Deliveries, Delivery, EventBus, Filter, Message, Messages, Outgoing,
    Receipt, Settlement, Start, Subscription,
};
use crate::clock::Clock;
use crate::core::finding::{Finding, Level};
use crate::core::time::Timestamp;

/// Messages kept for subscriptions that start in the past, and ids kept to detect duplicates.
const RETAINED: usize = 10_000;

/// An in-process bus. Clones share one bus.
#[derive(Clone)]
pub struct LocalBus {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    next: u64,
    past: VecDeque<Message>,
    ids: BTreeSet<(String, String)>,
    ids_by_age: VecDeque<(String, String)>,
    queues: BTreeMap<(String, Filter), Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<QueuedMessage>,
    unsettled: u64,
}

struct QueuedMessage {
    message: Message,
    not_before: Option<Instant>,
}

impl LocalBus {
    /// Creates an empty bus.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            clock,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while the state is inconsistent.
        self.state.lock()
    }

    fn announce(&self) {
        self.changed
            .send_modify(|version| *version = version.wrapping_add(1));
    }

    fn publish(&self, message: Outgoing) -> Accepted {
        let mut guard = self.state();
        let state = &mut *guard;
        let id = (message.topic.clone(), message.id);
        if !state.ids.insert(id.clone()) {
            return Accepted { duplicate: true };
        }
        state.ids_by_age.push_back(id);
        if state.ids_by_age.len() > RETAINED
            && let Some(oldest) = state.ids_by_age.pop_front()
        {
            state.ids.remove(&oldest);
        }
        state.next += 1;
        let message = Message {
            topic: message.topic,
            transport_id: state.next.to_string(),
            attributes: message
                .attributes
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            data: message.data,
            published_at: Some(self.clock.now()),
            deliveries: 0,
            unreadable: None,
        };
        for ((_, filter), queue) in &mut state.queues {
            if filter.matches(&message.topic) {
                queue.waiting.push_back(QueuedMessage {
                    message: message.clone(),
                    not_before: None,
                });
            }
        }
        state.past.push_back(message);
        if state.past.len() > RETAINED {
            state.past.pop_front();
        }
        drop(guard);
        self.announce();
        Accepted::default()
    }

    /// Takes the next deliverable message, or returns the latest time to check again.
    fn take(&self, key: &(String, Filter)) -> Result<Message, Option<Instant>> {
        let mut state = self.state();
        let Some(queue) = state.queues.get_mut(key) else {
            return Err(None);
        };
        let now = Instant::now();
        let ready = queue
            .waiting
            .iter()
            .position(|waiting| waiting.not_before.is_none_or(|time| time <= now));
        match ready.and_then(|index| queue.waiting.remove(index)) {
            Some(waiting) => {
                queue.unsettled += 1;
                let deliveries = waiting.message.deliveries + 1;
                Ok(Message {
                    deliveries,
                    ..waiting.message
                })
            }
            None => Err(queue
                .waiting
                .iter()
                .filter_map(|waiting| waiting.not_before)
                .min()),
        }
    }

    fn settle(&self, key: &(String, Filter), message: Message, how: Settlement) {
        let mut state = self.state();
        if let Some(queue) = state.queues.get_mut(key) {
            queue.unsettled = queue.unsettled.saturating_sub(1);
            if let Settlement::Again(delay) = how {
                let not_before = (delay > Duration::ZERO).then(|| Instant::now() + delay);
                queue.waiting.push_front(QueuedMessage { message, not_before });
            }
        }
        drop(state);
        self.announce();
    }
}

/// Settles by returning the message to its queue or removing it. If dropped, the message returns immediately.
struct LocalReceipt {
    shared: Arc<Shared>,
    key: (String, Filter),
    message: Option<Message>,
}

#[async_trait]
impl Receipt for LocalReceipt {
    async fn settle(mut self: Box<Self>, how: Settlement) {
        if let Some(message) = self.message.take() {
            self.shared.settle(&self.key, message, how);
        }
    }
}

impl Drop for LocalReceipt {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.shared
                .settle(&self.key, message, Settlement::Again(Duration::ZERO));
        }
    }
}

#[async_trait]
impl EventBus for LocalBus {
    fn location(&self) -> String {
        "local".to_owned()
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<Accepted, BusError>> {
        messages
            .into_iter()
            .map(|message| Ok(self.shared.publish(message)))
            .collect()
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Deliveries, BusError> {
        let key = (to.queue.clone(), to.filter.clone());
        {
            let mut guard = self.shared.state();
            let state = &mut *guard;
            let past = state.past.iter().filter(|message| {
                let wanted = match to.from {
                    Start::Now => false,
                    Start::Since(since) => message.published_at >= Some(since),
                };
                wanted && to.filter.matches(&message.topic)
            });
            state.queues.entry(key.clone()).or_insert_with(|| Queue {
                waiting: past
                    .map(|message| QueuedMessage {
                        message: message.clone(),
                        not_before: None,
                    })
                    .collect(),
                unsettled: 0,
            });
        }
        let changes = self.shared.changed.subscribe();
        let shared = self.shared.clone();
        let deliveries = stream::unfold((shared, key, changes), |(shared, key, mut changes)| async move {
            loop {
                changes.borrow_and_update();
                match shared.take(&key) {
                    Ok(message) => {
                        let receipt = LocalReceipt {
                            shared: shared.clone(),
                            key: key.clone(),
                            message: Some(message.clone()),
                        };
                        return Some((
                            Ok(Delivery::new(message, Box::new(receipt))),
                            (shared, key, changes),
                        ));
                    }
                    Err(Some(time)) => {
                        let _ = tokio::time::timeout_at(time, changes.changed()).await;
                    }
                    Err(None) => changes.changed().await.ok()?,
                }
            }
        });
        Ok(deliveries.boxed())
    }

    async fn tail(&self, filter: &Filter, since: Option<Timestamp>) -> Result<Messages, BusError> {
        let changes = self.shared.changed.subscribe();
        let from = match since {
            Some(since) => {
                let state = self.shared.state();
                let newest_before = state
                    .past
                    .iter()
                    .rev()
                    .find(|message| message.published_at < Some(since));
                newest_before.map_or(0, number)
            }
            None => self.shared.state().next,
        };
        let (shared, filter) = (self.shared.clone(), filter.clone());
        let messages = stream::unfold(
            (shared, filter, changes, from),
            |(shared, filter, mut changes, mut seen)| async move {
                loop {
                    changes.borrow_and_update();
                    let next = {
                        let state = shared.state();
                        let newer = state
                            .past
                            .iter()
                            .find(|message| number(message) > seen && filter.matches(&message.topic));
                        newer.cloned()
                    };
                    match next {
                        Some(message) => {
                            seen = number(&message);
                            let message = Message {
                                deliveries: 1,
                                ..message
                            };
                            return Some((Ok(message), (shared, filter, changes, seen)));
                        }
                        None => changes.changed().await.ok()?,
                    }
                }
            },
        );
        Ok(messages.boxed())
    }

    async fn inspect(&self, to: &Subscription) -> Result<BusReport, BusError> {
        let state = self.shared.state();
        let queue = state.queues.get(&(to.queue.clone(), to.filter.clone()));
        Ok(BusReport {
            location: self.location(),
            round_trip: Duration::ZERO,
            waiting: queue.map(|queue| queue.waiting.len() as u64),
            unsettled: queue.map(|queue| queue.unsettled),
            findings: vec![Finding::new("bus", Level::Ok, "events stay within this process")],
        })
    }
}

/// The sequence number of the message on this bus.
fn number(message: &Message) -> u64 {
    message.transport_id.parse().unwrap_or(0)
}
