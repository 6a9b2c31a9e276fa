//! The gateway's sessions: who listens to what, what a session has missed, and how often sessions were begun.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::core::time::Timestamp;

/// Events kept for a session that may resume.
const KEPT: usize = 2_000;
/// The window of the limit of Identifies (ms).
const DAY: i64 = 86_400_000;

/// What a connection is told to do.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// Send this text.
    Send(String),
    /// Close with this code.
    Close(u16),
    /// Cut the connection with a TCP RST.
    Reset,
    /// Fall silent in both directions.
    Freeze,
}

pub(super) type Line = mpsc::UnboundedSender<Order>;

/// Everything that the gateway remembers.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<String, Session>,
    /// Open connections, those without a session included.
    connections: BTreeMap<u64, Line>,
    identified: BTreeMap<u64, Vec<Timestamp>>,
    counts: GatewayCounts,
    last_number: u64,
}

/// What has happened at the gateway so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayCounts {
    /// Connections opened.
    pub connections: u64,
    /// Identifies received, good or bad.
    pub identifies: u64,
    /// Resumes received, good or bad.
    pub resumes: u64,
    /// Resumes that were sent to the general address instead of the session's own.
    pub misplaced_resumes: u64,
    /// Heartbeats received.
    pub heartbeats: u64,
    /// Frames received in all.
    pub frames: u64,
}

/// One session.
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
    /// There is no such session any more.
    Unknown,
    /// It was left too long ago.
    TooLate,
    /// The client claims to have seen what was never sent.
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

    /// Forgets a connection; its session ends at once or can be resumed for a while.
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

    pub(super) fn counts(&mut self) -> &mut GatewayCounts {
        &mut self.counts
    }

    pub(super) fn told(&self) -> GatewayCounts {
        self.counts
    }

    /// Counts an Identify of `bot`; returns how many there were within a day and within `window` milliseconds.
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

    /// Takes a session up again on another connection; returns what it has missed.
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

    /// Ends sessions of `bot` (of all when `None`); they cannot be resumed.
    pub(super) fn end(&mut self, bot: Option<u64>) {
        self.by_id
            .retain(|_, session| bot.is_some_and(|bot| session.bot != bot));
    }

    /// Sends an event to one session.
    pub(super) fn send(&mut self, id: &str, event: &str, data: &Value) {
        let Some(session) = self.by_id.get_mut(id) else {
            return;
        };
        session.seq += 1;
        let text = json!({"op": 0, "d": data, "s": session.seq, "t": event}).to_string();
        if session.events.len() == KEPT {
            session.events.pop_front();
        }
        session.events.push_back((session.seq, text.clone()));
        if let Some(connection) = session.connection {
            self.order(connection, Order::Send(text));
        }
    }

    /// Returns the sessions that hear of `guild` (0 for none in particular) and have asked for `intent` (0 for none).
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

    /// Orders every connection, or only those of a bot's sessions.
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

    /// Returns how many sessions are on an open connection.
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
            "frames": counts.frames})
    }
}
