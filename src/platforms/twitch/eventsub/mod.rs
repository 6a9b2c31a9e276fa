//! EventSub over websockets: immediate notification when streams start, without claiming coverage that Twitch has not confirmed.
//!
//! Pure modules: `planner` decides which channels are subscribed, `machine` is the life cycle of a connection, `subscriptions`
//! tracks what is subscribed, `events` derives what an event proves, and `missed_events` detects connections that miss events.
//! The others: `connection` is the loop that runs them, `accounts` finds usable tokens, `rest` and `socket` communicate with
//! Twitch, `hub` is the state that all connections share, and `listener` runs them.

mod accounts;
mod close;
mod conduit;
mod connection;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hub;
mod kinds;
mod listener;
mod machine;
mod memory;
pub(super) mod messages;
mod missed_events;
pub mod planner;
pub(super) mod rest;
mod socket;
mod status;
mod subscription_set;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::accounts::{Accounts, Found};
use self::hub::Hub;
use self::planner::{Channel, Limits, Plan, PlannerInput, TransportChoice};
use super::TwitchPlatform;
use crate::core::counters::Counters;
use crate::core::observation::{Fact, Observation};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

pub(super) use self::events::revoked_user;
pub use conduit::{ConduitFile, ConduitMemory, ConduitOptions};
pub use kinds::{Kind, Subscription};
pub use listener::EventSubListener;
pub use memory::FileMemory;
pub use status::{ConduitStatus, ConnectionStatus, Status, SubscriptionState, SubscriptionStatus, Tally};

/// Stores message ids across restarts, so that a message that is repeated after one is not counted twice.
pub trait MessageMemory: Send + Sync {
    /// Returns the stored ids.
    fn recall(&self) -> Vec<(Timestamp, u64)>;

    /// Replaces the stored ids.
    fn keep(&self, memory: &[(Timestamp, u64)]);
}

/// Options of the listener.
pub struct EventSubOptions {
    /// The channels to listen to. Changes are applied while it runs.
    pub channels: watch::Receiver<Vec<Channel>>,
    /// Whether chat messages are counted.
    pub chat: bool,
    /// The name under which totals are stored.
    pub writer: String,
    /// The totals that this writer had stored.
    pub restored: BTreeMap<SourceKey, Counters>,
    /// Sources whose link an earlier run left open when it was killed. Those that are no longer subscribed are reported as
    /// closed.
    pub left_open: BTreeSet<SourceKey>,
    pub limits: Limits,
    /// Which transport is wanted.
    pub transport: TransportChoice,
    pub conduit: ConduitOptions,
    /// How long changed totals are held back so that they are published together.
    pub flush: Duration,
    /// Stores message ids across restarts.
    pub memory: Option<Arc<dyn MessageMemory>>,
    /// How many times faster than real time a connection's clock runs: 1, except in tests.
    pub pace: u32,
    /// Whether a jump of the wall clock ends connections, because the machine may have been suspended.
    pub watch_clock: bool,
}

impl EventSubOptions {
    /// Returns options that listen to `channels` without counting chat messages.
    pub fn new(channels: watch::Receiver<Vec<Channel>>) -> Self {
        Self {
            channels,
            chat: false,
            writer: "bitbrat".to_owned(),
            restored: BTreeMap::new(),
            left_open: BTreeSet::new(),
            limits: Limits::default(),
            transport: TransportChoice::default(),
            conduit: ConduitOptions::default(),
            flush: Duration::from_secs(5),
            memory: None,
            pace: 1,
            watch_clock: true,
        }
    }
}

/// What a plan without a listener is made for.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanOptions {
    /// Whether chat messages are counted.
    pub chat: bool,
    pub limits: Limits,
    pub transport: TransportChoice,
}

/// A handle to a listener: its status, and the input for what polls observe. Cheap to clone.
#[derive(Clone)]
pub struct EventSubHandle(Arc<Hub>);

impl EventSubHandle {
    /// Returns the status of the listener.
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// Retries what Twitch refused, because a token has changed.
    pub fn retry(&self) {
        self.0.retry.notify_one();
    }

    /// Passes in that a user has withdrawn the authorization of the application, which a webhook reported.
    pub fn authorization_revoked(&self, user_id: &str) {
        self.0.authorization_revoked(user_id);
    }

    /// Passes in what a poll observed, so that a connection that misses events is detected.
    pub fn polled(&self, observation: &Observation) {
        if observation.by == events::EVENTSUB {
            return;
        }
        let stream = match &*observation.fact {
            Fact::StreamSeen {
                stream_id,
                started_at,
            } => Some((stream_id.as_str(), *started_at)),
            Fact::StreamAbsent => None,
            _ => return,
        };
        self.0
            .missed_events(|missed_events| missed_events.polled(&observation.source, stream, observation.at));
    }
}

impl TwitchPlatform {
    /// Plans which channels would be subscribed, without connecting.
    pub async fn plan(&self, channels: &[Channel], wanted: &PlanOptions) -> Plan {
        let found = accounts::usable(&self.auth, channels, &Accounts::new()).await;
        self.plan_with(channels, found, wanted)
    }

    /// Plans which channels would be subscribed from the stored tokens, without sending requests.
    pub async fn plan_by_memory(&self, channels: &[Channel], wanted: &PlanOptions) -> Plan {
        let found = accounts::by_memory(&self.auth, channels).await;
        self.plan_with(channels, found, wanted)
    }

    fn plan_with(&self, channels: &[Channel], found: Found, wanted: &PlanOptions) -> Plan {
        let known = PlannerInput {
            chat: wanted.chat,
            limits: wanted.limits,
            transport: wanted.transport,
            can_be_app: self.auth.can_be_app(),
            ..found.known()
        };
        planner::plan(channels, &known)
    }

    /// Creates a listener. Nothing is opened before it runs.
    pub fn listener(self: &Arc<Self>, options: EventSubOptions) -> (EventSubListener, EventSubHandle) {
        let hub = Arc::new(Hub::new(
            &options.writer,
            options.restored.clone(),
            options.left_open.clone(),
        ));
        let handle = EventSubHandle(Arc::clone(&hub));
        (EventSubListener::new(Arc::clone(self), options, hub), handle)
    }
}
