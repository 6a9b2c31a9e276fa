//! The tables of alerts: events that the rules have not processed, their state, and messages to receivers.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{NewEvent, StateFile, StateFileError};
use crate::alerts::cause::Conditions;
use crate::alerts::incident::Incident;
use crate::alerts::mute::Mute;
use crate::alerts::step::NewDelivery;
use crate::core::document::SourceDocument;
use crate::core::event::Event;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::store::sqlite::{database, rows};
use crate::watch::queue::Class;

/// How many events wait for the rules at most. Only while no daemon runs do they wait at all; then the oldest give way, and the
/// rules find out from the documents what is wrong.
const INBOX: i64 = 20_000;
/// How many sent and dropped messages are kept, for lists.
const KEPT: i64 = 500;

/// The state of the rules of alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertState {
    /// The conditions of sources.
    pub conditions: Conditions,
    /// The incidents by key.
    pub incidents: BTreeMap<String, Incident>,
    /// The mutes in force, and those that have ended since the last step.
    pub mutes: Vec<Mute>,
}

/// A source that the rules evaluate: because of a new event, or because we had closed its connection.
#[derive(Debug, Clone)]
pub struct AlertInput {
    /// The event, if there is one.
    pub event: Option<Event>,
    /// The source now; `None` if it is not stored or cannot be read.
    pub document: Option<SourceDocument>,
}

/// The state of a message to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It will be sent.
    Waiting,
    /// It was accepted.
    Sent,
    /// It will not be sent.
    Dropped,
}

impl DeliveryState {
    fn of(text: &str) -> Self {
        match text {
            "sent" => Self::Sent,
            "dropped" => Self::Dropped,
            _ => Self::Waiting,
        }
    }
}

/// A message to a receiver, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDelivery {
    /// Its number; a receiver gets its messages in this order.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// The alert or hook.
    pub receiver: String,
    /// The incident.
    pub incident: String,
    /// What it is, in one word.
    pub kind: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is to be sent.
    pub due: Timestamp,
    /// How often it was sent in vain.
    pub attempts: u32,
    /// Its state.
    pub state: DeliveryState,
    /// Why it was not accepted at the last attempt.
    pub reason: Option<String>,
    /// The message as JSON.
    pub message: String,
}

/// A receiver that does not accept messages until someone acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The alert.
    pub receiver: String,
    /// A digest of its address: with another one, it is tried again.
    pub address: String,
    /// When it stopped.
    pub at: Timestamp,
    /// What it answered.
    pub reason: String,
}

/// Adds events to those that the rules have not processed, in the transaction of the change. Heartbeats change nothing.
pub(super) fn receive(transaction: &Transaction<'_>, events: &[&NewEvent]) -> rusqlite::Result<()> {
    let mut events = events
        .iter()
        .filter(|event| event.class != Class::Heartbeat)
        .peekable();
    if events.peek().is_none() {
        return Ok(());
    }
    let mut insert = transaction.prepare_cached("INSERT INTO alert_inbox (event) VALUES (?1)")?;
    for event in events {
        insert.execute([super::tables::json(&event.event)])?;
    }
    transaction
        .prepare_cached("DELETE FROM alert_inbox WHERE seq <= (SELECT MAX(seq) FROM alert_inbox) - ?1")?
        .execute([INBOX])?;
    Ok(())
}

impl StateFile {
    /// Whether events wait for the rules.
    pub fn has_alert_input(&self) -> Result<bool, StateFileError> {
        let inner = self.current()?;
        let sql = "SELECT EXISTS (SELECT 1 FROM alert_inbox)";
        let found = inner.opened.connection.prepare_cached(sql);
        self.explained(found.and_then(|mut row| row.query_row([], |row| row.get(0))))
    }

    /// Passes the state of the rules and at most `limit` events to `work`, and stores what it changes, together with the messages
    /// that it returns. All of it is committed, or nothing. Returns the state and how many messages are new.
    pub fn step_alerts(
        &self,
        limit: u32,
        now: Timestamp,
        work: impl FnOnce(&mut AlertState, &[AlertInput]) -> Vec<NewDelivery>,
    ) -> Result<(AlertState, usize), StateFileError> {
        let mut inner = self.current()?;
        self.explained(inner.set_durable(true))?;
        let connection = &mut inner.opened.connection;
        let (seen, inputs) = self.explained(inputs(connection, limit))?;
        self.explained((|| {
            let transaction = database::begin(connection)?;
            transaction.execute("DELETE FROM alert_mutes WHERE until <= ?1", [now.as_millis()])?;
            let before = load(&transaction)?;
            let mut state = before.clone();
            let deliveries = work(&mut state, &inputs);
            transaction
                .prepare_cached("DELETE FROM alert_inbox WHERE seq <= ?1")?
                .execute([seen])?;
            save(&transaction, &before, &state)?;
            let mut count = 0;
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO alert_deliveries (id, receiver, incident, kind, created_at, due, message)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)",
            )?;
            for new in &deliveries {
                let at = now.as_millis();
                count += insert.execute(params![new.id, new.receiver, new.incident, new.kind, at, new.message])?;
            }
            drop(insert);
            transaction.commit()?;
            Ok((state, count))
        })())
    }

    /// Returns the oldest waiting messages of a receiver.
    pub fn next_deliveries(&self, receiver: &str, limit: u32) -> Result<Vec<StoredDelivery>, StateFileError> {
        let inner = self.current()?;
        let sql = format!("{DELIVERIES} WHERE receiver = ?1 AND state = 'waiting' ORDER BY seq LIMIT ?2");
        self.explained(deliveries(
            &inner.opened.connection,
            &sql,
            params![receiver, limit],
        ))
    }

    /// Returns the newest messages to all receivers, newest first.
    pub fn recent_deliveries(&self, limit: u32) -> Result<Vec<StoredDelivery>, StateFileError> {
        let inner = self.current()?;
        let sql = format!("{DELIVERIES} ORDER BY seq DESC LIMIT ?1");
        self.explained(deliveries(&inner.opened.connection, &sql, params![limit]))
    }

    /// Returns the receiver's own name of the message that opened an incident.
    pub fn remote_ref(&self, incident: &str) -> Result<Option<String>, StateFileError> {
        let inner = self.current()?;
        let sql = "SELECT remote_ref FROM alert_deliveries WHERE incident = ?1 AND kind = 'open' ORDER BY seq DESC LIMIT 1";
        let found = inner.opened.connection.prepare_cached(sql);
        let found = found.and_then(|mut row| row.query_row([incident], |row| row.get(0)).optional());
        Ok(self.explained(found)?.flatten())
    }

    /// Records that a message was accepted.
    pub fn delivered(&self, seq: i64, remote_ref: Option<&str>) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| {
            let sql =
                "UPDATE alert_deliveries SET state = 'sent', remote_ref = ?2, reason = NULL WHERE seq = ?1";
            transaction.execute(sql, params![seq, remote_ref])?;
            let sql = "DELETE FROM alert_deliveries WHERE state <> 'waiting' AND seq <=
                       (SELECT MAX(seq) FROM alert_deliveries) - ?1";
            transaction.execute(sql, [KEPT])
        })
    }

    /// Records that a message was not accepted, and when it is sent again.
    pub fn postpone_delivery(&self, seq: i64, due: Timestamp, reason: &str) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| {
            let sql =
                "UPDATE alert_deliveries SET due = ?2, attempts = attempts + 1, reason = ?3 WHERE seq = ?1";
            transaction.execute(sql, params![seq, due.as_millis(), reason])
        })
    }

    /// Records that a message will not be sent; with `whole`, nor any other of its incident that waits.
    pub fn drop_delivery(
        &self,
        delivery: &StoredDelivery,
        whole: bool,
        reason: &str,
    ) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| {
            let sql = "UPDATE alert_deliveries SET state = 'dropped', reason = ?3
                       WHERE seq = ?1 OR (?4 AND incident = ?2 AND state = 'waiting')";
            transaction.execute(sql, params![delivery.seq, delivery.incident, reason, whole])
        })
    }

    /// Records that a receiver does not accept messages until someone acts.
    pub fn stop_receiver(&self, stopped: &Stopped) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| {
            let sql = "INSERT OR REPLACE INTO alert_stopped VALUES (?1, ?2, ?3, ?4)";
            let at = stopped.at.as_millis();
            transaction.execute(
                sql,
                params![stopped.receiver, stopped.address, at, stopped.reason],
            )
        })
    }

    /// Records that a receiver accepts messages again.
    pub fn resume_receiver(&self, receiver: &str) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| {
            transaction.execute("DELETE FROM alert_stopped WHERE receiver = ?1", [receiver])
        })
    }

    /// Returns the receivers that do not accept messages.
    pub fn stopped_receivers(&self) -> Result<Vec<Stopped>, StateFileError> {
        let inner = self.current()?;
        self.explained(stopped(&inner.opened.connection))
    }

    /// Returns the state of the rules.
    pub fn alert_state(&self) -> Result<AlertState, StateFileError> {
        let inner = self.current()?;
        self.explained(load(&inner.opened.connection))
    }

    /// Adds a mute, and returns its number.
    pub fn mute(&self, mute: &Mute) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| {
            let sql = "INSERT INTO alert_mutes (pattern, until, reason, created_at) VALUES (?1, ?2, ?3, ?4)";
            let (until, at) = (mute.until.as_millis(), mute.created_at.as_millis());
            transaction.execute(sql, params![mute.pattern, until, mute.reason, at])
        })
    }

    /// Ends the mutes with this pattern or number. Returns how many there were.
    pub fn unmute(&self, pattern: &str) -> Result<usize, StateFileError> {
        let mut count = 0;
        self.write_alerts(|transaction| {
            let sql = "DELETE FROM alert_mutes WHERE pattern = ?1 OR CAST(id AS TEXT) = ?1";
            count = transaction.execute(sql, [pattern])?;
            Ok(count)
        })?;
        Ok(count)
    }

    fn write_alerts(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>,
    ) -> Result<(), StateFileError> {
        let mut inner = self.current()?;
        self.explained(inner.set_durable(true))?;
        let connection = &mut inner.opened.connection;
        self.explained((|| {
            let transaction = database::begin(connection)?;
            write(&transaction)?;
            transaction.commit()
        })())
    }
}

const DELIVERIES: &str =
    "SELECT seq, id, receiver, incident, kind, created_at, due, attempts, state, reason, message
                          FROM alert_deliveries";

fn deliveries(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Vec<StoredDelivery>> {
    let mut rows = connection.prepare_cached(sql)?;
    let rows = rows.query_map(values, |row| {
        Ok(StoredDelivery {
            seq: row.get(0)?,
            id: row.get(1)?,
            receiver: row.get(2)?,
            incident: row.get(3)?,
            kind: row.get(4)?,
            created_at: Timestamp::from_millis(row.get(5)?),
            due: Timestamp::from_millis(row.get(6)?),
            attempts: row.get(7)?,
            state: DeliveryState::of(&row.get::<_, String>(8)?),
            reason: row.get(9)?,
            message: row.get(10)?,
        })
    })?;
    rows.collect()
}

fn stopped(connection: &Connection) -> rusqlite::Result<Vec<Stopped>> {
    let mut rows = connection.prepare_cached("SELECT receiver, address, at, reason FROM alert_stopped")?;
    let rows = rows.query_map([], |row| {
        Ok(Stopped {
            receiver: row.get(0)?,
            address: row.get(1)?,
            at: Timestamp::from_millis(row.get(2)?),
            reason: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// Returns the number of the last of the oldest events, and the events with the documents of their sources; with them the sources
/// whose connections we had closed, because what follows need not be an event. An event that cannot
/// be read is left out: the next one of its source contains what it proved.
fn inputs(connection: &mut Connection, limit: u32) -> rusqlite::Result<(i64, Vec<AlertInput>)> {
    let (mut seen, mut events) = (0, Vec::new());
    {
        let mut rows =
            connection.prepare_cached("SELECT seq, event FROM alert_inbox ORDER BY seq LIMIT ?1")?;
        let mut rows = rows.query([limit])?;
        while let Some(row) = rows.next()? {
            seen = row.get(0)?;
            let event: Option<Event> = serde_json::from_str(&row.get::<_, String>(1)?).ok();
            events.extend(event);
        }
    }
    let state = load(connection)?;
    let closed = state
        .conditions
        .into_iter()
        .filter(|(_, known)| known.closed_while_up);
    let closed: Vec<SourceKey> = closed.map(|(source, _)| source).collect();
    let mut sources: Vec<SourceKey> = events.iter().map(|event| event.source.clone()).collect();
    sources.extend(closed.iter().cloned());
    sources.sort();
    sources.dedup();
    let ids: Vec<String> = sources.iter().map(SourceKey::to_string).collect();
    let mut documents = BTreeMap::new();
    rows::load_some(connection, &ids, |place, row| {
        if let Some(Ok(document)) = row.map(|row| row.read().document) {
            documents.insert(sources[place].clone(), document.value);
        }
    })?;
    let of_event = |event: Event| AlertInput {
        document: documents.get(&event.source).cloned(),
        event: Some(event),
    };
    let mut inputs: Vec<_> = events.into_iter().map(of_event).collect();
    inputs.extend(closed.into_iter().filter_map(|source| {
        let document = documents.get(&source).cloned();
        document.map(|document| AlertInput {
            event: None,
            document: Some(document),
        })
    }));
    Ok((seen, inputs))
}

/// Reads the state of the rules. A row that cannot be read counts as none.
fn load(connection: &Connection) -> rusqlite::Result<AlertState> {
    let mut state = AlertState::default();
    let mut rows = connection.prepare_cached("SELECT source, known FROM alert_sources")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (source, known): (String, String) = (row.get(0)?, row.get(1)?);
        if let (Ok(source), Ok(known)) = (source.parse(), serde_json::from_str(&known)) {
            state.conditions.insert(source, known);
        }
    }
    let mut rows = connection.prepare_cached("SELECT key, incident FROM alert_incidents")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(incident) = serde_json::from_str(&row.get::<_, String>(1)?) {
            state.incidents.insert(row.get(0)?, incident);
        }
    }
    let mut rows = connection
        .prepare_cached("SELECT id, pattern, until, reason, created_at FROM alert_mutes ORDER BY id")?;
    let rows = rows.query_map([], |row| {
        Ok(Mute {
            id: row.get(0)?,
            pattern: row.get(1)?,
            until: Timestamp::from_millis(row.get(2)?),
            reason: row.get(3)?,
            created_at: Timestamp::from_millis(row.get(4)?),
        })
    })?;
    state.mutes = rows.collect::<rusqlite::Result<_>>()?;
    Ok(state)
}

/// Writes what differs.
fn save(transaction: &Transaction<'_>, before: &AlertState, after: &AlertState) -> rusqlite::Result<()> {
    let mut remove = transaction.prepare_cached("DELETE FROM alert_sources WHERE source = ?1")?;
    for source in before
        .conditions
        .keys()
        .filter(|key| !after.conditions.contains_key(key))
    {
        remove.execute([source.to_string()])?;
    }
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO alert_sources VALUES (?1, ?2)")?;
    for (source, known) in &after.conditions {
        if before.conditions.get(source) != Some(known) {
            insert.execute([source.to_string(), super::tables::json(known)])?;
        }
    }
    let mut remove = transaction.prepare_cached("DELETE FROM alert_incidents WHERE key = ?1")?;
    for key in before
        .incidents
        .keys()
        .filter(|key| !after.incidents.contains_key(*key))
    {
        remove.execute([key])?;
    }
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO alert_incidents VALUES (?1, ?2)")?;
    for (key, incident) in &after.incidents {
        if before.incidents.get(key) != Some(incident) {
            insert.execute([key.clone(), super::tables::json(incident)])?;
        }
    }
    Ok(())
}
