//! The state of EventSub: sockets, subscriptions, and what counts of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::conduits::{ConduitKnobs, Conduits, Late};
use super::knobs::EventSubKnobs;
use super::webhooks::Webhooks;
use crate::clock::{Chance, Clock};
use crate::core::time::Timestamp;
use crate::sim::clock::SimClock;

/// Milliseconds for which a disabled subscription is still listed; documented as at least a minute.
const LISTED_MS: i64 = 90_000;

/// An order to a socket.
#[derive(Debug)]
pub(super) enum Order {
    Send(String),
    Close(u16),
    Reset,
    Freeze,
    /// Whether to stop keepalives.
    Mute(bool),
    /// The client must have closed this socket by then.
    LeaveBy(Timestamp),
}

/// One websocket connection. The simulator numbers them; after a handover two sockets may share a session id.
pub(super) struct Socket {
    pub(super) session_id: String,
    pub(super) connected_at: Timestamp,
    pub(super) keepalive_secs: i64,
    /// The application and user of its first subscription.
    pub(super) owner: Option<(String, String)>,
    /// Whether it ever had a subscription.
    pub(super) used: bool,
    pub(super) line: mpsc::UnboundedSender<Order>,
    /// The socket that it replaced, while events are sent to both.
    pub(super) shadow: Option<u64>,
}

/// A reconnect URL that was sent.
pub(super) struct Handover {
    pub(super) from: u64,
    pub(super) same_id: bool,
    pub(super) both: bool,
    pub(super) until: Timestamp,
}

/// A message that was sent.
pub(super) struct ChatMessage {
    pub(super) id: String,
    pub(super) chatter: Value,
    pub(super) text: String,
}

/// Users by the role that they have in a condition.
pub(super) type Condition = BTreeMap<String, String>;

/// Where a subscription delivers.
#[derive(Debug, Clone)]
pub(super) enum Transport {
    /// A socket, by its number.
    Socket {
        socket: u64,
        session_id: String,
        connected_at: Timestamp,
        disconnected_at: Option<Timestamp>,
    },
    Conduit(String),
    Webhook {
        callback: String,
        secret: String,
    },
}

impl Transport {
    fn to_json(&self) -> Value {
        match self {
            Self::Socket { session_id, .. } => json!({"method": "websocket", "session_id": session_id}),
            Self::Conduit(id) => json!({"method": "conduit", "conduit_id": id}),
            Self::Webhook { callback, .. } => json!({"method": "webhook", "callback": callback}),
        }
    }
}

/// One subscription, enabled or still listed.
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) version: String,
    pub(super) condition: Condition,
    pub(super) cost: u32,
    pub(super) client_id: String,
    /// Empty for a subscription of the application.
    pub(super) user_id: String,
    pub(super) transport: Transport,
    pub(super) created_at: String,
    /// When it was disabled, and its status since then.
    pub(super) end: Option<(Timestamp, String)>,
}

impl Subscription {
    pub(super) fn status(&self, now: Timestamp) -> &str {
        match &self.end {
            Some((from, status)) if *from <= now => status,
            _ => "enabled",
        }
    }

    pub(super) fn enabled(&self, now: Timestamp) -> bool {
        self.status(now) == "enabled"
    }

    pub(super) fn owned_by(&self, client: &str, user: &str) -> bool {
        self.client_id == client && self.user_id == user
    }

    /// Returns the number of its socket.
    pub(super) fn socket(&self) -> Option<u64> {
        match &self.transport {
            Transport::Socket { socket, .. } => Some(*socket),
            Transport::Conduit(_) | Transport::Webhook { .. } => None,
        }
    }

    /// Returns whether it delivers to this conduit.
    pub(super) fn is_of_conduit(&self, id: &str) -> bool {
        matches!(&self.transport, Transport::Conduit(own) if own == id)
    }

    /// Returns the subscription as in REST responses.
    pub(super) fn to_json(&self, now: Timestamp) -> Value {
        let mut shown = self.to_message_json(now);
        if let Transport::Socket {
            connected_at,
            disconnected_at,
            ..
        } = &self.transport
        {
            shown["transport"]["connected_at"] = json!(connected_at);
            if let Some(at) = disconnected_at {
                shown["transport"]["disconnected_at"] = json!(at);
            }
        }
        shown
    }

    /// Returns the subscription as in messages.
    pub(super) fn to_message_json(&self, now: Timestamp) -> Value {
        let enabled = self.enabled(now);
        json!({
            "id": self.id, "status": self.status(now), "type": self.kind, "version": self.version,
            "condition": self.condition, "created_at": self.created_at,
            "transport": self.transport.to_json(),
            "cost": if enabled { self.cost } else { 0 },
        })
    }
}

/// All sockets and subscriptions.
pub(in crate::sim::twitch) struct EventSub {
    pub(super) clock: Arc<SimClock>,
    pub(super) chance: Chance,
    pub(super) sockets: BTreeMap<u64, Socket>,
    pub(super) last_socket: u64,
    pub(super) handovers: HashMap<String, Handover>,
    /// Oldest first.
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) held: VecDeque<(Address, String)>,
    pub(super) conduits: Conduits,
    /// Messages that are sent later.
    pub(super) late: Vec<Late>,
    pub(in crate::sim::twitch) webhooks: Webhooks,
    /// Number of subscriptions created so far.
    pub(super) created: u64,
    /// The latest chat messages, for replies to them.
    pub(super) lines: VecDeque<ChatMessage>,
    /// Number of subscriptions that were sent a notification so far.
    pub(in crate::sim::twitch) notified: u64,
    /// Former numbers of subscriptions with their times, per owner, for a `total` that is behind.
    pub(super) totals: HashMap<(String, String), Vec<(Timestamp, usize)>>,
    pub(in crate::sim::twitch) knobs: EventSubKnobs,
    pub(in crate::sim::twitch) conduit_knobs: ConduitKnobs,
}

/// Where a message goes.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Socket(u64),
    /// The shard of a conduit that this key of a condition belongs to.
    Conduit {
        id: String,
        key: String,
    },
}

impl EventSub {
    pub(in crate::sim::twitch) fn new(clock: Arc<SimClock>, chance: Chance) -> Self {
        Self {
            clock,
            chance,
            sockets: BTreeMap::new(),
            last_socket: 0,
            handovers: HashMap::new(),
            subscriptions: Vec::new(),
            held: VecDeque::new(),
            conduits: Conduits::default(),
            late: Vec::new(),
            webhooks: Webhooks::default(),
            created: 0,
            lines: VecDeque::new(),
            notified: 0,
            totals: HashMap::new(),
            knobs: EventSubKnobs::default(),
            conduit_knobs: ConduitKnobs::default(),
        }
    }

    /// Creates a message of the session itself.
    pub(super) fn message(&self, kind: &str, payload: &Value) -> String {
        let metadata = self.metadata(kind, self.clock.wall());
        json!({"metadata": metadata, "payload": payload}).to_string()
    }

    /// Returns the metadata of a message with a new id.
    pub(super) fn metadata(&self, kind: &str, at: Timestamp) -> Value {
        json!({"message_id": self.unique_id(), "message_type": kind, "message_timestamp": self.precise(at)})
    }

    /// Gives an order to a socket.
    pub(super) fn order(&self, socket: u64, order: Order) {
        if let Some(socket) = self.sockets.get(&socket) {
            // A socket whose loop has just ended needs no orders.
            let _ = socket.line.send(order);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Formats the platform's time with nanoseconds, as Twitch does.
    pub(super) fn precise(&self, at: Timestamp) -> String {
        let text = at.to_string();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a fraction of a million"
        )]
        let nanos = (self.chance.fraction() * 1_000_000.0) as u32;
        format!("{}{nanos:06}Z", text.trim_end_matches('Z'))
    }

    pub(super) fn unique_id(&self) -> String {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "half of a random id"
        )]
        let half = || (self.chance.fraction() * 18_446_744_073_709_551_615.0) as u64;
        uuid::Builder::from_random_bytes(((u128::from(half()) << 64) | u128::from(half())).to_be_bytes())
            .into_uuid()
            .to_string()
    }

    /// Removes subscriptions that have been disabled for longer than they are listed.
    pub(super) fn prune(&mut self) {
        self.remove_dead_conduits();
        let now = self.now();
        self.subscriptions.retain(|sub| {
            sub.end
                .as_ref()
                .is_none_or(|(from, _)| now < from.plus_millis(LISTED_MS))
        });
        self.note_totals();
    }

    pub(super) fn note_totals(&mut self) {
        let now = self.now();
        let mut counts: HashMap<(String, String), usize> = HashMap::new();
        for sub in &self.subscriptions {
            *counts
                .entry((sub.client_id.clone(), sub.user_id.clone()))
                .or_default() += 1;
        }
        for owner in self.totals.keys() {
            counts.entry(owner.clone()).or_default();
        }
        for (owner, count) in counts {
            let history = self.totals.entry(owner).or_default();
            if history.last().is_none_or(|(_, last)| *last != count) {
                history.push((now, count));
            }
            // Only the last few minutes are needed.
            if history.len() > 1_000 {
                history.drain(..500);
            }
        }
    }

    /// Returns how many subscriptions an owner has, with the delay set by the knob.
    pub(super) fn total(&self, client: &str, user: &str) -> usize {
        let asof = self.now().plus_millis(-self.knobs.stale_total_ms);
        let history = self.totals.get(&(client.to_owned(), user.to_owned()));
        history
            .and_then(|history| history.iter().rev().find(|(at, _)| *at <= asof))
            .map_or(0, |(_, count)| *count)
    }

    /// Returns the cost points in use by an owner.
    pub(super) fn total_cost(&self, client: &str, user: &str) -> u32 {
        let now = self.now();
        let counted = self
            .subscriptions
            .iter()
            .filter(|sub| sub.owned_by(client, user) && sub.enabled(now));
        counted.map(|sub| sub.cost).sum()
    }

    /// Returns the numbers of the sockets on which an owner has enabled subscriptions.
    pub(super) fn sockets_in_use(&self, client: &str, user: &str) -> BTreeSet<u64> {
        let now = self.now();
        let counted = self
            .subscriptions
            .iter()
            .filter(|sub| sub.owned_by(client, user) && sub.enabled(now));
        counted.filter_map(Subscription::socket).collect()
    }

    /// Returns the open sockets as the controls show them.
    pub(in crate::sim::twitch) fn to_json(&self) -> Value {
        let now = self.now();
        let sockets = self.sockets.iter().map(|(number, socket)| {
            let held = self
                .subscriptions
                .iter()
                .filter(|sub| sub.socket() == Some(*number) && sub.enabled(now));
            json!({
                "session_id": socket.session_id, "connected_at": socket.connected_at,
                "user_id": socket.owner.as_ref().map(|(_, user)| user), "subscriptions": held.count(),
            })
        });
        let sockets: Vec<_> = sockets.collect();
        let subscriptions: Vec<_> = self.subscriptions.iter().map(|sub| sub.to_json(now)).collect();
        json!({
            "sockets": sockets, "subscriptions": subscriptions, "held": self.held.len(), "created": self.created,
            "conduits": self.conduits_json(), "webhooks": self.webhooks.log(),
        })
    }
}
