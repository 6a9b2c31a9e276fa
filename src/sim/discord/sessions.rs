//! The gateway's sessions: subscribed events, events that a session has missed, and counts of session starts.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::core::time::Timestamp;

/// Events stored for a session that may resume.
const RETAINED: usize = 2_000;
/// The window in which a bot may request all members of a guild once (ms).
const MEMBERS_WINDOW: i64 = 30_000;
/// The window of the limit of Identifies (ms).
const DAY: i64 = 86_400_000;

/// An order to a connection.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Send(String),
    /// Send that the session of this connection is invalid (op 9), and whether it may be resumed.
    Invalid(bool),
    /// Close with this code.
    Close(u16),
    /// Cut the connection with a TCP RST.
    Reset,
    /// Stop traffic in both directions.
    Freeze,
}

pub(super) type Line = mpsc::UnboundedSender<Order>;

/// The gateway's state.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<String, Session>,
    /// Open connections, including those without a session.
    connections: BTreeMap<u64, Line>,
    identified: BTreeMap<u64, Vec<Timestamp>>,
    /// When a bot last requested all members of a guild.
    asked_for_members: BTreeMap<(u64, u64), Timestamp>,
    counts: GatewayCounts,
    last_number: u64,
}

/// Counts of gateway events so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayCounts {
    pub connections: u64,
    /// Identifies received, valid or not.
    pub identifies: u64,
    /// Resumes received, valid or not.
    pub resumes: u64,
    /// Resumes that were sent to the general address instead of the session's own.
    pub misplaced_resumes: u64,
    pub heartbeats: u64,
    pub frames: u64,
    /// Events sent, or stored for a session that may resume.
    pub dispatched: u64,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) bot: u64,
    pub(super) intents: u64,
    pub(super) shard: (u64, u64),
    pub(super) seq: u64,
    events: VecDeque<(u64, String)>,
    connection: Option<u64>,
    left_at: Option<Timestamp>,
}

/// Why a session is not resumed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoResume {
    /// The session does not exist or has ended.
    Unknown,
    /// It was disconnected too long ago.
    TooLate,
    /// The client claims to have received events that were never sent.
    BadSequence,
}

impl Sessions {
    /// Registers an open connection and returns its number.
    pub(super) fn connected(&mut self, line: Line) -> u64 {
        self.last_number += 1;
        self.connections.insert(self.last_number, line);
        self.counts.connections += 1;
        self.last_number
    }

    /// Removes a connection; its session ends at once or can be resumed for a while.
    pub(super) fn disconnected(&mut self, connection: u64, ends_session: bool, now: Timestamp) {
        self.connections.remove(&connection);
        if ends_session {
            self.by_id
                .retain(|_, session| session.connection != Some(connection));
        }
        for session in self.by_id.values_mut() {
            if session.connection == Some(connection) {
                session.connection = None;
                session.left_at = Some(now);
            }
        }
    }

    pub(super) fn counts_mut(&mut self) -> &mut GatewayCounts {
        &mut self.counts
    }

    pub(super) fn counts(&self) -> GatewayCounts {
        self.counts
    }

    /// Records an Identify of `bot`; returns how many there were within a day and within `window` milliseconds.
    pub(super) fn identified(&mut self, bot: u64, window: i64, now: Timestamp) -> (usize, usize) {
        let times = self.identified.entry(bot).or_default();
        times.retain(|at| now.millis_since(*at) < DAY);
        times.push(now);
        let lately = times.iter().filter(|at| now.millis_since(**at) < window).count();
        (times.len(), lately)
    }

    /// Returns how often `bot` has identified within a day.
    pub(super) fn identifies(&self, bot: u64, now: Timestamp) -> usize {
        self.identified.get(&bot).map_or(0, |times| {
            times.iter().filter(|at| now.millis_since(**at) < DAY).count()
        })
    }

    /// Begins a session on a connection.
    pub(super) fn begin(&mut self, id: &str, bot: u64, intents: u64, shard: (u64, u64), connection: u64) {
        let session = Session {
            bot,
            intents,
            shard,
            seq: 0,
            events: VecDeque::new(),
            connection: Some(connection),
            left_at: None,
        };
        self.by_id.insert(id.to_owned(), session);
    }

    /// Resumes a session on another connection; returns the events that it has missed.
    pub(super) fn resume(
        &mut self,
        id: &str,
        bot: u64,
        seq: u64,
        connection: u64,
        window: i64,
        now: Timestamp,
    ) -> Result<Vec<String>, NoResume> {
        let session = self
            .by_id
            .get_mut(id)
            .filter(|session| session.bot == bot)
            .ok_or(NoResume::Unknown)?;
        if session
            .left_at
            .is_some_and(|left| now.millis_since(left) > window)
        {
            self.by_id.remove(id);
            return Err(NoResume::TooLate);
        }
        if seq > session.seq {
            return Err(NoResume::BadSequence);
        }
        let missed = session.events.iter().filter(|(number, _)| *number > seq);
        let missed = missed.map(|(_, text)| text.clone()).collect();
        let old = session.connection.replace(connection);
        session.left_at = None;
        if let Some(old) = old {
            self.order(old, Order::Close(4000));
        }
        Ok(missed)
    }

    /// Detaches every session from its connection, so that it can be resumed on this or another one.
    pub(super) fn detach(&mut self, now: Timestamp) {
        for session in self.by_id.values_mut() {
            if session.connection.take().is_some() {
                session.left_at = Some(now);
            }
        }
    }

    pub(super) fn intents(&self, id: &str) -> u64 {
        self.by_id.get(id).map_or(0, |session| session.intents)
    }

    pub(super) fn bot(&self, id: &str) -> Option<u64> {
        self.by_id.get(id).map(|session| session.bot)
    }

    /// Records a request for all members of a guild; `Err` has the milliseconds to wait until the next is allowed.
    pub(super) fn ask_for_members(&mut self, bot: u64, guild: u64, now: Timestamp) -> Result<(), i64> {
        let last = self.asked_for_members.get(&(bot, guild));
        let wait = last.map_or(0, |last| MEMBERS_WINDOW - now.millis_since(*last));
        if wait > 0 {
            return Err(wait);
        }
        self.asked_for_members.insert((bot, guild), now);
        Ok(())
    }

    /// Ends sessions of `bot` (of all when `None`); they cannot be resumed.
    pub(super) fn end(&mut self, bot: Option<u64>) {
        self.by_id
            .retain(|_, session| bot.is_some_and(|bot| session.bot != bot));
    }

    /// Sends an event to one session and keeps it for the next resume.
    pub(super) fn send(&mut self, id: &str, event: &str, data: &Value) {
        self.dispatch(id, event, data, true);
    }

    /// Sends an event to one session; `replayed` keeps it for the next resume.
    pub(super) fn dispatch(&mut self, id: &str, event: &str, data: &Value, replayed: bool) {
        let Some(session) = self.by_id.get_mut(id) else {
            return;
        };
        session.seq += 1;
        let text = json!({"op": 0, "d": data, "s": session.seq, "t": event}).to_string();
        if replayed {
            if session.events.len() == RETAINED {
                session.events.pop_front();
            }
            session.events.push_back((session.seq, text.clone()));
        }
        self.counts.dispatched += 1;
        if let Some(connection) = session.connection {
            self.order(connection, Order::Send(text));
        }
    }

    /// Returns the sessions that receive events of `guild` (0 for none in particular) with `intent` (0 for none).
    pub(super) fn hearing(&self, bots: &[u64], guild: u64, intent: u64) -> Vec<(String, u64)> {
        self.by_id
            .iter()
            .filter(|(_, session)| {
                let (shard, of) = session.shard;
                let here = guild == 0 || (guild >> 22) % of.max(1) == shard;
                bots.contains(&session.bot) && here && session.intents & intent == intent
            })
            .map(|(id, session)| (id.clone(), session.bot))
            .collect()
    }

    /// Sends an order to every connection, or only to those of a bot's sessions.
    pub(super) fn order_all(&self, bot: Option<u64>, order: &Order) {
        let of_bot = |connection: &u64| {
            self.by_id
                .values()
                .any(|session| session.connection == Some(*connection) && Some(session.bot) == bot)
        };
        for connection in self.connections.keys() {
            if bot.is_none() || of_bot(connection) {
                self.order(*connection, order.clone());
            }
        }
    }

    pub(super) fn order(&self, connection: u64, order: Order) {
        if let Some(line) = self.connections.get(&connection) {
            // A connection that has just ended needs no orders.
            let _ = line.send(order);
        }
    }

    /// Returns how many sessions have an open connection.
    pub(super) fn live(&self) -> usize {
        self.by_id
            .values()
            .filter(|session| session.connection.is_some())
            .count()
    }

    pub(super) fn to_json(&self) -> Value {
        let sessions: Vec<_> = self
            .by_id
            .iter()
            .map(|(id, session)| {
                json!({"session_id": id, "bot": session.bot.to_string(), "intents": session.intents,
                    "seq": session.seq, "connected": session.connection.is_some()})
            })
            .collect();
        let counts = &self.counts;
        json!({"sessions": sessions, "open_connections": self.connections.len(), "connections": counts.connections,
            "identifies": counts.identifies, "resumes": counts.resumes,
            "misplaced_resumes": counts.misplaced_resumes, "heartbeats": counts.heartbeats,
            "frames": counts.frames, "dispatched": counts.dispatched})
    }
}
