//! EventSub over websockets: hearing at once who goes live, and never claiming to hear what was not promised.
//!
//! `planner` decides who is listened to, `machine` how a line lives, `roster` what is subscribed to, `events` what an
//! event proves, `silence` when to distrust a line: those are pure. `line` is the loop that obeys them, `accounts` knows
//! whose tokens there are, `rest` and `socket` talk to Twitch, `hub` is what all lines share, and `listener` runs them.

mod accounts;
mod close;
mod events;
mod hub;
mod kinds;
mod line;
mod listener;
mod machine;
mod memory;
pub mod planner;
mod rest;
mod roster;
mod seen;
mod silence;
mod socket;
mod status;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::accounts::{Accounts, Found};
use self::hub::Hub;
use self::planner::{Channel, Known, Limits, Plan};
use super::TwitchPlatform;
use crate::core::counters::Counters;
use crate::core::observation::{Fact, Observation};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

pub use kinds::{Kind, Subscription};
pub use listener::EventSubListener;
pub use memory::FileMemory;
pub use status::{LineStatus, Status, SubscriptionStatus, Tally};

/// Where ids of messages are kept across restarts, so that one that is repeated then is not counted twice.
pub trait MessageMemory: Send + Sync {
    /// Returns what was kept.
    fn recall(&self) -> Vec<(Timestamp, u64)>;

    /// Keeps these in place of what was kept before.
    fn keep(&self, memory: &[(Timestamp, u64)]);
}

/// How to listen.
pub struct EventSubOptions {
    /// The channels to listen to. Changes are followed.
    pub channels: watch::Receiver<Vec<Channel>>,
    /// Whether chat is counted.
    pub chat: bool,
    /// The name under which totals are kept.
    pub writer: String,
    /// The totals that this writer had stored.
    pub restored: BTreeMap<SourceKey, Counters>,
    /// Sources whose link an earlier run left open when it was killed. Those that are not listened to any more are told
    /// to be closed.
    pub left_open: BTreeSet<SourceKey>,
    /// What Twitch allows.
    pub limits: Limits,
    /// How long changed totals are held back to be told together.
    pub flush: Duration,
    /// Where ids of messages are kept across restarts.
    pub memory: Option<Arc<dyn MessageMemory>>,
    /// How many times faster than real a line's time runs: 1, except in tests.
    pub pace: u32,
    /// Whether a jump of the wall clock ends connections, because the machine may have slept.
    pub watch_clock: bool,
}

impl EventSubOptions {
    /// Listens to `channels`, counting no chat.
    pub fn new(channels: watch::Receiver<Vec<Channel>>) -> Self {
        Self {
            channels,
            chat: false,
            writer: "bitbrat".to_owned(),
            restored: BTreeMap::new(),
            left_open: BTreeSet::new(),
            limits: Limits::default(),
            flush: Duration::from_secs(5),
            memory: None,
            pace: 1,
            watch_clock: true,
        }
    }
}

/// A view of a listener, and the way to show it what polls see. Cheap to clone.
#[derive(Clone)]
pub struct EventSubHandle(Arc<Hub>);

impl EventSubHandle {
    /// Returns how the listener stands.
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// Shows what a poll saw, so that a line which is alive and does not tell is noticed.
    pub fn polled(&self, observation: &Observation) {
        if observation.by == events::EVENTSUB {
            return;
        }
        let stream = match &observation.fact {
            Fact::StreamSeen {
                stream_id,
                started_at,
            } => Some((stream_id.as_str(), *started_at)),
            Fact::StreamAbsent => None,
            _ => return,
        };
        self.0
            .silence(|silence| silence.polled(&observation.source, stream, observation.at));
    }
}

impl TwitchPlatform {
    /// Plans who would be listened to, without connecting.
    pub async fn plan(&self, channels: &[Channel], chat: bool, limits: Limits) -> Plan {
        let found = self.accounts(channels, &Accounts::new()).await;
        plan_with(channels, found, chat, limits)
    }

    /// Plans who would be listened to by what is remembered of the tokens, asking nobody.
    pub async fn plan_by_memory(&self, channels: &[Channel], chat: bool, limits: Limits) -> Plan {
        let found = self.accounts_by_memory(channels).await;
        plan_with(channels, found, chat, limits)
    }

    /// Prepares listening. Nothing is opened before it runs.
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

fn plan_with(channels: &[Channel], found: Found, chat: bool, limits: Limits) -> Plan {
    let known = Known {
        chat,
        limits,
        ..found.known()
    };
    planner::plan(channels, &known)
}
