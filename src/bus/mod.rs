//! The bus port: how events travel between this program's parts, and to and from the rest of the platform.
//!
//! Delivery is at least once and in no promised order on any bus. Whoever consumes joins evidence, so that neither
//! matters to the outcome. `tests/contract/bus.rs` checks every promise made here against every adapter.

pub mod events;
pub mod follow;
mod leaving;
pub mod local;
pub mod mutating;
pub mod names;
pub mod nats;
pub mod pubsub;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::core::event::Event;
use crate::core::event::dead::DeadLetter;
use crate::core::time::Timestamp;

pub use names::{Filter, Names};

/// Carries messages.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Says which bus this is, for people: `local`, `nats://host:4222`, `pubsub:project`. Without passwords.
    fn location(&self) -> String;

    /// Hands one message to the bus and waits until the bus has taken responsibility for it.
    async fn publish(&self, message: Outgoing) -> Result<Accepted, BusError> {
        let mut results = self.publish_many(vec![message]).await;
        results.pop().unwrap_or(Err(BusError::Closed))
    }

    /// Hands many messages to the bus without waiting for one before sending the next, and returns the result of each in
    /// the same order. A message that timed out may still arrive: send it again with the same id.
    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<Accepted, BusError>>;

    /// Consumes what a durable subscription has not settled yet. Whoever consumes under the same name shares the work; each
    /// name sees every message. The name's position outlives its consumers. The stream ends with an error when it
    /// cannot go on by itself; interruptions that heal are not told.
    async fn subscribe(&self, to: &Subscription) -> Result<Deliveries, BusError>;

    /// Follows topics without leaving a trace and without taking anything away from anybody, from `since` as far as the bus
    /// still knows it, else from now.
    async fn tail(&self, filter: &Filter, since: Option<Timestamp>) -> Result<Messages, BusError>;

    /// Looks at the bus and at one subscription, and tells what a person should know.
    async fn inspect(&self, to: &Subscription) -> Result<BusReport, BusError>;

    /// Sends what is still buffered, gives back what readers that are gone were handed, for a while, and closes the
    /// connection.
    async fn close(&self) {}
}

/// Deliveries of a durable subscription.
pub type Deliveries = BoxStream<'static, Result<Delivery, BusError>>;
/// Messages that need no answer.
pub type Messages = BoxStream<'static, Result<Message, BusError>>;

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic, without prefix.
    pub topic: String,
    /// The de-duplication id. A bus that can drops a second message with the same id for a while.
    pub id: String,
    /// Header fields, in camel case.
    pub attributes: BTreeMap<String, String>,
    /// The body.
    pub data: Bytes,
}

impl From<Event> for Outgoing {
    fn from(event: Event) -> Self {
        Self {
            topic: names::INGRESS.to_owned(),
            id: event.id,
            attributes: event.attributes,
            data: event.body.into(),
        }
    }
}

impl From<DeadLetter> for Outgoing {
    fn from(letter: DeadLetter) -> Self {
        Self {
            topic: names::DEAD_LETTERS.to_owned(),
            id: letter.id,
            attributes: letter.attributes,
            data: letter.body.into(),
        }
    }
}

/// The bus has taken responsibility for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// It knew the id already and kept only the first one.
    pub duplicate: bool,
}

/// A durable subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Whose position this is; part of the name that the bus knows it by.
    pub queue: String,
    /// Which topics.
    pub filter: Filter,
    /// Where a subscription that is new to the bus begins.
    pub from: Start,
    /// How many messages may be underway to one consumer, unsettled.
    pub in_flight: usize,
}

/// Where a subscription that is new to the bus begins. Where a bus keeps no past, it begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// With what was published since.
    Since(Timestamp),
}

/// A message from the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic, without prefix.
    pub topic: String,
    /// The bus's own id of it.
    pub transport_id: String,
    /// Header fields under lower-case names: the platform's own services write them in all cases.
    pub attributes: BTreeMap<String, String>,
    /// The body.
    pub data: Bytes,
    /// When the bus took it.
    pub published_at: Option<Timestamp>,
    /// How often it was delivered to this subscription, this time included; 1 where the bus does not count.
    pub deliveries: u32,
}

/// A message that waits to be settled. One that is dropped unsettled is delivered again at once; one of a process that died
/// when the bus has waited for it long enough.
pub struct Delivery {
    /// The message.
    pub message: Message,
    receipt: Box<dyn Receipt>,
}

impl Delivery {
    /// Joins a message and what settles it.
    pub fn new(message: Message, receipt: Box<dyn Receipt>) -> Self {
        Self { message, receipt }
    }

    /// It is done with. An acknowledgement that is lost on the way costs a repeated delivery.
    pub async fn ack(self) {
        self.receipt.settle(Settlement::Done).await;
    }

    /// Deliver it again, not before `delay` has passed.
    pub async fn nak(self, delay: Duration) {
        self.receipt.settle(Settlement::Again(delay)).await;
    }

    /// Never deliver it again, although it was not used.
    pub async fn term(self) {
        self.receipt.settle(Settlement::Never).await;
    }
}

/// What becomes of a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Used.
    Done,
    /// To be delivered again after so long.
    Again(Duration),
    /// Unusable.
    Never,
}

/// An adapter's way to settle one message. Does not wait for the bus to confirm, so that acknowledgements flow in a
/// pipeline.
#[async_trait]
pub trait Receipt: Send + Sync {
    /// Settles the message.
    async fn settle(self: Box<Self>, how: Settlement);
}

/// What a look at the bus showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusReport {
    /// Which bus.
    pub location: String,
    /// How long an answer took.
    pub round_trip: Duration,
    /// Messages that wait for the subscription, where the bus tells.
    pub waiting: Option<u64>,
    /// Messages delivered and not settled, where the bus tells.
    pub unsettled: Option<u64>,
    /// What a person should know.
    pub findings: Vec<Finding>,
}

/// One thing that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at: `stream`, `duplicates`, `retention`, `topic`, `subscription`.
    pub about: &'static str,
    /// What was found, one sentence.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Fine,
    /// It works, but.
    Odd,
    /// It does not work.
    Broken,
}

impl Finding {
    /// All is well.
    pub fn fine(about: &'static str, detail: impl Into<String>) -> Self {
        Self {
            level: Level::Fine,
            about,
            detail: detail.into(),
            hint: None,
        }
    }

    /// Something is odd or broken, and this is what to do.
    pub fn bad(
        level: Level,
        about: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            level,
            about,
            detail: detail.into(),
            hint: Some(hint.into()),
        }
    }
}

/// Why the bus did not do what was asked. Loops ask [`BusError::recovery`] and nothing else.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It cannot be reached, or did not answer in time. What was sent may still arrive.
    #[error("{location} is not available: {reason}")]
    Unavailable {
        /// Which bus.
        location: String,
        /// Why.
        reason: String,
    },
    /// There is no stream or topic of that name. We create none: they belong to the platform.
    #[error("{location} has no stream or topic for `{topic}`")]
    NoTopic {
        /// Which bus.
        location: String,
        /// Full name.
        topic: String,
    },
    /// It refuses us: credentials, permission, a subscription of another kind under our name. A person must act.
    #[error("{location} refused: {reason}")]
    Refused {
        /// Which bus.
        location: String,
        /// Why.
        reason: String,
    },
    /// The message can never be sent.
    #[error("a message of {size} bytes is larger than the bus accepts")]
    TooLarge {
        /// Bytes.
        size: usize,
    },
    /// Our own side is closed.
    #[error("the bus is closed")]
    Closed,
}

/// What a caller should do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Try again with backoff, with the same ids.
    Retry,
    /// Try again, but slowly: somebody has to act first.
    RetrySlowly,
    /// Trying again changes nothing.
    GiveUp,
}

impl BusError {
    /// Says what a caller should do next.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Unavailable { .. } => Recovery::Retry,
            Self::NoTopic { .. } | Self::Refused { .. } => Recovery::RetrySlowly,
            Self::TooLarge { .. } | Self::Closed => Recovery::GiveUp,
        }
    }

    /// Says what a person can do about it, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoTopic { .. } => Some(
                "let the platform create it, or check bus.prefix (BUS_PREFIX): a stream with other subjects does not count",
            ),
            Self::Refused { .. } => Some("check the credentials and permissions of the bus's account"),
            _ => None,
        }
    }
}

/// Runs something that nobody waits for and that may be lost with the process.
fn in_background(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}
