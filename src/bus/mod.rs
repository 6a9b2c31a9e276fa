//! The bus port: transports events between the parts of this program and the rest of the platform.
//!
//! Delivery is at least once and unordered on every bus. Consumers join evidence, so neither affects the result.
//! `tests/contract/bus/` checks every guarantee documented here against every adapter.

mod closing;
pub mod event_lines;
pub mod local;
pub mod names;
pub mod nats;
pub mod pubsub;
pub mod reopening;
pub mod state_mutations;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::core::event::Event;
use crate::core::event::dead_letter::DeadLetter;
use crate::core::finding::Finding;
use crate::core::time::Timestamp;
use crate::secrets;

pub use names::{Filter, Names};

/// A message bus.
#[async_trait]
#[warn(missing_docs)]
pub trait EventBus: Send + Sync {
    /// Returns the address of the bus for people: `local`, `nats://host:4222`, `pubsub:project`. Without passwords.
    fn location(&self) -> String;

    /// Publishes one message and waits until the bus has accepted responsibility for it.
    async fn publish(&self, message: Outgoing) -> Result<Accepted, BusError> {
        let mut results = self.publish_many(vec![message]).await;
        results.pop().unwrap_or(Err(BusError::Closed))
    }

    /// Publishes many messages without waiting for each before sending the next, and returns the results in the same order. A
    /// message that timed out may still arrive: retry it with the same id.
    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<Accepted, BusError>>;

    /// Consumes the unsettled messages of a durable subscription. Consumers with the same queue name share the messages; each
    /// queue receives every message. Its position outlives its consumers. The stream ends with an error if it cannot recover;
    /// interruptions that recover are not reported.
    async fn subscribe(&self, to: &Subscription) -> Result<Deliveries, BusError>;

    /// Follows topics without side effects on the bus or other consumers, from `since` as far as the bus has retained
    /// messages, else from now.
    async fn tail(&self, filter: &Filter, since: Option<Timestamp>) -> Result<Messages, BusError>;

    /// Checks the bus and one subscription, and returns the findings for people.
    async fn inspect(&self, to: &Subscription) -> Result<BusReport, BusError>;

    /// Returns why no message can be transported now, as far as the client detects it without a request; `None` otherwise.
    fn interruption(&self) -> Option<String> {
        None
    }

    /// Flushes buffered messages, returns the messages that closed readers had prefetched (for a limited time), and closes the
    /// connection.
    async fn close(&self) {}
}

/// Deliveries of a durable subscription.
pub type Deliveries = BoxStream<'static, Result<Delivery, BusError>>;
/// Messages that are not settled.
pub type Messages = BoxStream<'static, Result<Message, BusError>>;

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic, without prefix.
    pub topic: String,
    /// The de-duplication id. If the bus supports it, a second message with the same id is dropped for a while.
    pub id: String,
    /// Headers, in camel case.
    pub attributes: BTreeMap<String, String>,
    /// The body, as published.
    pub data: Bytes,
}

impl From<Event> for Outgoing {
    fn from(event: Event) -> Self {
        Self {
            topic: names::INGRESS.to_owned(),
            id: event.id,
            attributes: event.attributes,
            // Observations are masked when they are created; data that was stored earlier by other programs may not be.
            data: secrets::mask(&event.body).into_owned().into(),
        }
    }
}

impl From<DeadLetter> for Outgoing {
    fn from(letter: DeadLetter) -> Self {
        Self {
            topic: names::DEAD_LETTERS.to_owned(),
            id: letter.id,
            attributes: letter.attributes,
            data: secrets::mask(&letter.body).into_owned().into(),
        }
    }
}

/// Acknowledgement of a published message by the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// The bus already had a message with this id and kept only the first one.
    pub duplicate: bool,
}

/// A durable subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Consumer group; part of the durable name on the bus.
    pub queue: String,
    /// The subscribed topics.
    pub filter: Filter,
    /// Start position if the subscription is new to the bus.
    pub from: Start,
    /// Maximum number of unsettled messages per consumer.
    pub in_flight: usize,
}

/// Start position of a new subscription. A bus without retention starts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With messages published from now on.
    Now,
    /// With messages published since this time.
    Since(Timestamp),
}

/// A message from the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic, without prefix.
    pub topic: String,
    /// The bus's own id of the message.
    pub transport_id: String,
    /// Headers with lower-case names: the platform's own services write them in all cases.
    pub attributes: BTreeMap<String, String>,
    /// The body, as received.
    pub data: Bytes,
    /// When the bus accepted it.
    pub published_at: Option<Timestamp>,
    /// Number of deliveries to this subscription, including this one; 1 if the bus does not count.
    pub deliveries: u32,
    /// Reason why its headers cannot be parsed. Such a message has no attributes, and can only be reported and terminated.
    pub unreadable: Option<String>,
}

/// A message that has to be settled. If dropped unsettled, it is redelivered immediately; if the process dies, after the bus's
/// ack timeout.
pub struct Delivery {
    /// The received message.
    pub message: Message,
    receipt: Box<dyn Receipt>,
}

impl Delivery {
    /// Combines a message with its receipt.
    pub fn new(message: Message, receipt: Box<dyn Receipt>) -> Self {
        Self { message, receipt }
    }

    /// Acknowledges the message. A lost acknowledgement causes a redelivery.
    pub async fn ack(self) {
        self.receipt.settle(Settlement::Done).await;
    }

    /// Requests redelivery after `delay`.
    pub async fn nak(self, delay: Duration) {
        self.receipt.settle(Settlement::Again(delay)).await;
    }

    /// Requests that the message is never delivered again, although it was not processed.
    pub async fn term(self) {
        self.receipt.settle(Settlement::Never).await;
    }
}

/// How to settle a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Processed.
    Done,
    /// Redeliver after this delay.
    Again(Duration),
    /// Cannot be processed; never redeliver.
    Never,
}

/// Settles one message of an adapter. Does not wait for the bus to confirm, so that acknowledgements are pipelined.
#[async_trait]
pub trait Receipt: Send + Sync {
    /// Settles the message.
    async fn settle(self: Box<Self>, how: Settlement);
}

/// Result of [`EventBus::inspect`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusReport {
    /// Address of the bus, without passwords.
    pub location: String,
    /// Round-trip time of a request.
    pub round_trip: Duration,
    /// Messages waiting for the subscription, if the bus reports it.
    pub waiting: Option<u64>,
    /// Messages delivered and not settled, if the bus reports it.
    pub unsettled: Option<u64>,
    /// Findings for people.
    pub findings: Vec<Finding>,
}

/// Error of a bus operation. Loops use only [`BusError::recovery`].
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus is unreachable, or did not respond in time. A published message may still arrive.
    #[error("{location} is not available: {reason}")]
    Unavailable {
        /// Address of the bus, without passwords.
        location: String,
        /// Reported by the client or server.
        reason: String,
    },
    /// There is no stream or topic of that name. It is not created here, because it belongs to the platform.
    #[error("{location} has no stream or topic for `{topic}`")]
    NoTopic {
        /// Address of the bus, without passwords.
        location: String,
        /// Full name with prefix.
        topic: String,
    },
    /// The bus rejects us: credentials, permission, or a subscription of another kind with our name. Needs attention.
    #[error("{location} refused: {reason}")]
    Refused {
        /// Address of the bus, without passwords.
        location: String,
        /// Reported by the client or server.
        reason: String,
    },
    /// The message exceeds the size limit of the bus.
    #[error("a message of {size} bytes is larger than the bus accepts")]
    TooLarge {
        /// In bytes.
        size: usize,
    },
    /// The bus was closed by this process.
    #[error("the bus is closed")]
    Closed,
}

/// Recommended reaction to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Retry with backoff, with the same ids.
    Retry,
    /// Retry at long intervals: the error needs attention first.
    RetrySlowly,
    /// A retry cannot succeed.
    GiveUp,
}

impl BusError {
    /// Returns the recommended reaction.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Unavailable { .. } => Recovery::Retry,
            Self::NoTopic { .. } | Self::Refused { .. } => Recovery::RetrySlowly,
            Self::TooLarge { .. } | Self::Closed => Recovery::GiveUp,
        }
    }

    /// Returns what a person can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoTopic { .. } => Some(
                "let the platform create it, or check bus.prefix (BUS_PREFIX): a stream with other subjects does not count",
            ),
            Self::Refused { reason, .. } => {
                const USUAL: &str = "check the credentials and permissions of the bus's account";
                // In this order: a reason may name several, of which the first is the cause.
                const KEYS: [(&str, &str); 8] = [
                    ("in place of tls://", "correct bus.nats_url (NATS_URL)"),
                    (
                        "NATS_CERT and NATS_KEY",
                        "correct bus.nats_cert_file (NATS_CERT) and bus.nats_key_file (NATS_KEY)",
                    ),
                    ("NATS_CREDS", "correct bus.nats_creds_file (NATS_CREDS)"),
                    ("NATS_NKEY_SEED", "correct bus.nats_nkey_seed (NATS_NKEY_SEED)"),
                    ("NATS_NKEY", "correct bus.nats_nkey_file (NATS_NKEY)"),
                    ("NATS_CA", "correct bus.nats_ca_file (NATS_CA)"),
                    ("NATS_CERT", "correct bus.nats_cert_file (NATS_CERT)"),
                    ("NATS_KEY", "correct bus.nats_key_file (NATS_KEY)"),
                ];
                let named = KEYS.iter().find(|(name, _)| reason.contains(name));
                Some(named.map_or(USUAL, |(_, hint)| *hint))
            }
            _ => None,
        }
    }
}

/// Runs a task that is not awaited and may be lost with the process.
fn in_background(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}
