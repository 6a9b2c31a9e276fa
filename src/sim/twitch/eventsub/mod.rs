//! EventSub: sockets, subscriptions, and who gets told what.
//!
//! Everything here is state and rules; `ws` moves the frames and `rest` answers the requests.

mod chat;
mod delivery;
mod events;
mod kinds;
pub(super) mod rest;
pub(super) mod ws;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::clock::SimClock;
use super::tokens::random_text;
use crate::clock::{Chance, Clock};
use crate::core::time::Timestamp;

pub use chat::ChatSpec;
pub use delivery::Duplicate;

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
/// Milliseconds in which a client must move to the reconnect address.
const HANDOVER_MS: i64 = 30_000;

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

/// What a socket is told to do.
#[derive(Debug)]
enum Order {
    Send(String),
    Close(u16),
    Reset,
    Freeze,
    /// Whether keepalives stop.
    Mute(bool),
    /// The client must have closed this socket by then.
    LeaveBy(Timestamp),
}

/// One websocket connection. Its number is ours; after a handover two sockets may share a session id.
struct Socket {
    session_id: String,
    connected_at: Timestamp,
    keepalive_secs: i64,
    /// The application and user of its first subscription.
    owner: Option<(String, String)>,
    /// Whether it ever had a subscription.
    used: bool,
    line: mpsc::UnboundedSender<Order>,
    /// The socket it replaced, while events are to go to both.
    shadow: Option<u64>,
}

/// A reconnect address that was handed out.
struct Handover {
    from: u64,
    same_id: bool,
    both: bool,
    until: Timestamp,
}

/// How a socket is to be moved.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconnect {
    /// The new session has the old one's id, as seen in production.
    pub same_id: bool,
    /// Events go to both sockets until the old one is closed.
    pub both: bool,
    /// The address leads nowhere.
    pub dead_url: bool,
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

    /// Registers a fresh connection; returns its number and its welcome.
    fn connect(&mut self, keepalive_secs: i64, line: mpsc::UnboundedSender<Order>) -> (u64, String) {
        let session_id = format!("AgoQ{}", random_text(40, &self.chance));
        self.register(session_id, keepalive_secs, line, None)
    }

    fn register(
        &mut self,
        session_id: String,
        keepalive_secs: i64,
        line: mpsc::UnboundedSender<Order>,
        shadow: Option<u64>,
    ) -> (u64, String) {
        self.last_socket += 1;
        let connected_at = self.clock.wall();
        let welcome = self.message(
            "session_welcome",
            &json!({"session": {
                "id": session_id, "status": "connected", "connected_at": self.precise(connected_at),
                "keepalive_timeout_seconds": keepalive_secs, "reconnect_url": null, "recovery_url": null,
            }}),
        );
        let socket = Socket {
            session_id,
            connected_at,
            keepalive_secs,
            owner: None,
            used: false,
            line,
            shadow,
        };
        self.sockets.insert(self.last_socket, socket);
        (self.last_socket, welcome)
    }

    /// Completes a handover: subscriptions move to the new connection. `None` when the address is not (or no longer)
    /// good.
    fn move_in(&mut self, challenge: &str, line: mpsc::UnboundedSender<Order>) -> Option<(u64, String)> {
        let now = self.now();
        let handover = self
            .handovers
            .remove(challenge)
            .filter(|handover| now < handover.until)?;
        let old = self.sockets.get(&handover.from)?;
        let session_id = if handover.same_id {
            old.session_id.clone()
        } else {
            format!("AgoQ{}", random_text(40, &self.chance))
        };
        let (keepalive_secs, owner, used) = (old.keepalive_secs, old.owner.clone(), old.used);
        let shadow = handover.both.then_some(handover.from);
        let (number, welcome) = self.register(session_id.clone(), keepalive_secs, line, shadow);
        let connected_at = self.clock.wall();
        if let Some(new) = self.sockets.get_mut(&number) {
            (new.owner, new.used) = (owner, used);
        }
        for subscription in &mut self.subscriptions {
            if subscription.socket == handover.from && subscription.enabled(now) {
                subscription.socket = number;
                subscription.session_id.clone_from(&session_id);
                subscription.connected_at = connected_at;
            }
        }
        Some((number, welcome))
    }

    /// Forgets a connection; its subscriptions get `status`, at once or after the orphan time.
    fn disconnect(&mut self, socket: u64, status: &str) {
        if self.sockets.remove(&socket).is_none() {
            return;
        }
        self.handovers.retain(|_, handover| handover.from != socket);
        let orphaned = if status == "websocket_disconnected" {
            self.knobs.orphan_cost_ms
        } else {
            0
        };
        let (now, wall) = (self.now(), self.clock.wall());
        for subscription in &mut self.subscriptions {
            if subscription.socket == socket && subscription.end.is_none() {
                subscription.end = Some((now.plus_millis(orphaned), status.to_owned()));
                subscription.disconnected_at = Some(wall);
            }
        }
        self.note_totals();
    }

    /// Returns whether a socket has no reason to stay open.
    fn idle(&self, socket: u64) -> bool {
        let now = self.now();
        let Some(known) = self.sockets.get(&socket) else {
            return false;
        };
        let subscribed = || {
            self.subscriptions
                .iter()
                .any(|sub| sub.socket == socket && sub.enabled(now))
        };
        !known.used || (self.knobs.close_when_empty && !subscribed())
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

    /// Returns the open sockets with this session id, or all when empty.
    fn meant(&self, session_id: &str) -> Vec<u64> {
        let meant = |socket: &&Socket| session_id.is_empty() || socket.session_id == session_id;
        self.sockets
            .iter()
            .filter(|(_, socket)| meant(socket))
            .map(|(number, _)| *number)
            .collect()
    }

    fn order(&self, socket: u64, order: Order) {
        if let Some(socket) = self.sockets.get(&socket) {
            // A socket whose loop has just ended has nobody to obey.
            let _ = socket.line.send(order);
        }
    }

    /// Does `act` to the sockets with this session id, or to all when empty. Returns how many.
    pub(super) fn spoil(&mut self, session_id: &str, act: &SocketAct) -> usize {
        let meant = self.meant(session_id);
        for socket in &meant {
            match act {
                SocketAct::Close(code) => self.order(*socket, Order::Close(*code)),
                SocketAct::Reset => self.order(*socket, Order::Reset),
                SocketAct::Freeze => self.order(*socket, Order::Freeze),
                SocketAct::Mute => self.order(*socket, Order::Mute(true)),
                SocketAct::Unmute => self.order(*socket, Order::Mute(false)),
                SocketAct::Frame(text) => self.order(*socket, Order::Send(text.clone())),
                SocketAct::UnknownMessage => {
                    let novelty = self.message("session_novelty", &json!({"mood": "curious"}));
                    self.order(*socket, Order::Send(novelty));
                }
            }
        }
        meant.len()
    }

    /// Asks the sockets with this session id (all when empty) to move. Returns how many.
    pub(super) fn reconnect(&mut self, session_id: &str, base: &str, how: &Reconnect) -> usize {
        let meant = self.meant(session_id);
        let until = self.now().plus_millis(HANDOVER_MS);
        for socket in &meant {
            let challenge = random_text(32, &self.chance);
            let Some(known) = self.sockets.get(socket) else {
                continue;
            };
            let url = if how.dead_url {
                // Port 1 of loopback: refused at once.
                format!(
                    "ws://127.0.0.1:1/ws?challenge={challenge}&id={}",
                    known.session_id
                )
            } else {
                format!("{base}?challenge={challenge}&id={}", known.session_id)
            };
            let body = json!({"session": {
                "id": known.session_id, "status": "reconnecting", "connected_at": self.precise(known.connected_at),
                "keepalive_timeout_seconds": null, "reconnect_url": url, "recovery_url": null,
            }});
            let text = self.message("session_reconnect", &body);
            let handover = Handover {
                from: *socket,
                same_id: how.same_id,
                both: how.both,
                until,
            };
            self.handovers.insert(challenge, handover);
            self.order(*socket, Order::Send(text));
            self.order(*socket, Order::LeaveBy(until));
        }
        meant.len()
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

/// What can be done to a socket from outside.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketAct {
    /// Close it with this code.
    Close(u16),
    /// Cut it with a TCP RST.
    Reset,
    /// Make it half-open: no frame passes in either direction, nobody is told.
    Freeze,
    /// Stop its keepalives; everything else goes on.
    Mute,
    /// Send keepalives again.
    Unmute,
    /// Send this text frame, whatever it is.
    Frame(String),
    /// Send a well-formed message of a type that nobody has heard of.
    UnknownMessage,
}

/// Returns the status that subscriptions get when their socket is closed with `code`.
fn status_of(code: u16) -> &'static str {
    match code {
        4000 => "websocket_internal_error",
        4001 => "websocket_received_inbound_traffic",
        4002 => "websocket_failed_ping_pong",
        4003 => "websocket_connection_unused",
        4004 | 4007 => "websocket_failed_to_reconnect",
        4005 => "websocket_network_timeout",
        4006 => "websocket_network_error",
        _ => "websocket_disconnected",
    }
}

/// Returns Twitch's words for a close code.
fn reason_of(code: u16) -> &'static str {
    match code {
        4000 => "internal server error",
        4001 => "client sent inbound traffic",
        4002 => "client failed ping-pong",
        4003 => "connection unused",
        4004 => "client reconnect grace time expired",
        4005 => "network timeout",
        4006 => "network error",
        4007 => "invalid reconnect attempt",
        _ => "",
    }
}
