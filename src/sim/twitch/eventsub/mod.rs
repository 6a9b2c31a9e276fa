//! EventSub: sockets, subscriptions, and who gets told what.
//!
//! Everything here is state and rules; `ws` moves the frames and `rest` answers the requests.

mod chat;
mod delivery;
mod events;
mod kinds;
pub(super) mod rest;
mod sockets;
pub(super) mod ws;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::clock::SimClock;
use crate::clock::{Chance, Clock};
use crate::core::time::Timestamp;

pub use chat::ChatSpec;
pub use delivery::Duplicate;
pub use sockets::{Reconnect, SocketAct};

use sockets::{Handover, Socket};

/// Sockets with enabled subscriptions that one (application, user) may have.
const SOCKETS: usize = 3;
/// Enabled subscriptions on one socket.
const SUBSCRIPTIONS: usize = 300;
/// Enabled subscriptions of equal type and condition, over all sockets.
const EQUALS: usize = 3;
/// Cost points of one (application, user).
const MAX_COST: u32 = 10;
/// Milliseconds for which a disabled subscription is still listed; documented as at least a minute.
const LISTED_MS: i64 = 90_000;

/// Ways in which the simulated EventSub departs from its usual behaviour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent switch of the control surface"
)]
pub struct EventSubKnobs {
    /// Every notification comes twice.
    pub duplicate: Option<Duplicate>,
    /// Milliseconds by which the timestamps of notifications lie in the past.
    pub age_ms: i64,
    /// Notifications are kept back until released.
    pub hold: bool,
    /// Notifications are lost.
    pub drop_events: bool,
    /// `stream.offline` comes without the stream's id, as before June 2026.
    pub offline_without_id: bool,
    /// Simulated milliseconds by which keepalives are late.
    pub keepalive_late_ms: i64,
    /// Keepalives are never sent.
    pub no_keepalives: bool,
    /// Real milliseconds that a client has to answer a ping; ten seconds when absent.
    pub pong_timeout_ms: Option<u64>,
    /// Simulated milliseconds for which the subscriptions of a lost socket go on costing.
    pub orphan_cost_ms: i64,
    /// Subscriptions of a lost socket that still cost are not listed.
    pub orphans_hidden: bool,
    /// Simulated milliseconds by which the listed `total` is behind.
    pub stale_total_ms: i64,
    /// The id of the existing subscription is missing from a 409.
    pub conflict_without_id: bool,
    /// A socket that lost its last subscription is closed with 4003.
    pub close_when_empty: bool,
}

type Condition = BTreeMap<String, String>;

struct Subscription {
    id: String,
    kind: String,
    version: String,
    condition: Condition,
    cost: u32,
    client_id: String,
    user_id: String,
    socket: u64,
    session_id: String,
    connected_at: Timestamp,
    created_at: String,
    /// From when on it is disabled, and the status it then has.
    end: Option<(Timestamp, String)>,
    disconnected_at: Option<Timestamp>,
}

impl Subscription {
    fn status(&self, now: Timestamp) -> &str {
        match &self.end {
            Some((from, status)) if *from <= now => status,
            _ => "enabled",
        }
    }

    fn enabled(&self, now: Timestamp) -> bool {
        self.status(now) == "enabled"
    }

    fn owned_by(&self, client: &str, user: &str) -> bool {
        self.client_id == client && self.user_id == user
    }

    /// Returns the subscription as REST tells it.
    fn to_json(&self, now: Timestamp) -> Value {
        let mut transport = json!({
            "method": "websocket", "session_id": self.session_id, "connected_at": self.connected_at,
        });
        if let Some(at) = self.disconnected_at {
            transport["disconnected_at"] = json!(at);
        }
        let mut shown = self.to_message_json(now);
        shown["transport"] = transport;
        shown
    }

    /// Returns the subscription as messages carry it.
    fn to_message_json(&self, now: Timestamp) -> Value {
        let enabled = self.enabled(now);
        json!({
            "id": self.id, "status": self.status(now), "type": self.kind, "version": self.version,
            "condition": self.condition, "created_at": self.created_at,
            "transport": {"method": "websocket", "session_id": self.session_id},
            "cost": if enabled { self.cost } else { 0 },
        })
    }
}

/// All sockets and subscriptions.
pub(super) struct EventSub {
    clock: Arc<SimClock>,
    chance: Chance,
    sockets: BTreeMap<u64, Socket>,
    last_socket: u64,
    handovers: HashMap<String, Handover>,
    /// Oldest first.
    subscriptions: Vec<Subscription>,
    held: VecDeque<(u64, String)>,
    /// How many subscriptions there were since when, per owner, for a `total` that is behind.
    totals: HashMap<(String, String), Vec<(Timestamp, usize)>>,
    pub(super) knobs: EventSubKnobs,
}

impl EventSub {
    pub(super) fn new(clock: Arc<SimClock>, chance: Chance) -> Self {
        Self {
            clock,
            chance,
            sockets: BTreeMap::new(),
            last_socket: 0,
            handovers: HashMap::new(),
            subscriptions: Vec::new(),
            held: VecDeque::new(),
            totals: HashMap::new(),
            knobs: EventSubKnobs::default(),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes the platform's time with the nanoseconds that Twitch sends.
    fn precise(&self, at: Timestamp) -> String {
        let text = at.to_string();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a fraction of a million"
        )]
        let nanos = (self.chance.fraction() * 1_000_000.0) as u32;
        format!("{}{nanos:06}Z", text.trim_end_matches('Z'))
    }

    fn unique_id(&self) -> String {
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

    /// Drops subscriptions that have been disabled for longer than they are listed.
    fn prune(&mut self) {
        let now = self.now();
        self.subscriptions.retain(|sub| {
            sub.end
                .as_ref()
                .is_none_or(|(from, _)| now < from.plus_millis(LISTED_MS))
        });
        self.note_totals();
    }

    fn note_totals(&mut self) {
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
            // Nothing looks back further than a few minutes.
            if history.len() > 1_000 {
                history.drain(..500);
            }
        }
    }

    /// Returns how many subscriptions an owner has, as late as the knob says.
    fn total(&self, client: &str, user: &str) -> usize {
        let asof = self.now().plus_millis(-self.knobs.stale_total_ms);
        let history = self.totals.get(&(client.to_owned(), user.to_owned()));
        history
            .and_then(|history| history.iter().rev().find(|(at, _)| *at <= asof))
            .map_or(0, |(_, count)| *count)
    }

    /// Returns the cost points in use by an owner.
    fn total_cost(&self, client: &str, user: &str) -> u32 {
        let now = self.now();
        let counted = self
            .subscriptions
            .iter()
            .filter(|sub| sub.owned_by(client, user) && sub.enabled(now));
        counted.map(|sub| sub.cost).sum()
    }

    /// Returns the numbers of the sockets on which an owner has enabled subscriptions.
    fn sockets_in_use(&self, client: &str, user: &str) -> BTreeSet<u64> {
        let now = self.now();
        let counted = self
            .subscriptions
            .iter()
            .filter(|sub| sub.owned_by(client, user) && sub.enabled(now));
        counted.map(|sub| sub.socket).collect()
    }

    /// Returns the open sockets as the control surface shows them.
    pub(super) fn to_json(&self) -> Value {
        let now = self.now();
        let sockets = self.sockets.iter().map(|(number, socket)| {
            let held = self
                .subscriptions
                .iter()
                .filter(|sub| sub.socket == *number && sub.enabled(now));
            json!({
                "session_id": socket.session_id, "connected_at": socket.connected_at,
                "user_id": socket.owner.as_ref().map(|(_, user)| user), "subscriptions": held.count(),
            })
        });
        let sockets: Vec<_> = sockets.collect();
        let subscriptions: Vec<_> = self.subscriptions.iter().map(|sub| sub.to_json(now)).collect();
        json!({"sockets": sockets, "subscriptions": subscriptions, "held": self.held.len()})
    }
}
