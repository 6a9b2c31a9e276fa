//! The tables of messages to receivers and runs of hooks: what waits, what became of it, and what each receiver has done last.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{StateFile, StateFileError};
use crate::core::time::Timestamp;

/// How many sent and dropped messages are kept, for lists.
const KEPT: i64 = 500;

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

/// What a receiver or a hook has done last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceiverRecord {
    /// The alert, or the hook as [`crate::alerts::step::hook_receiver`] names it.
    pub receiver: String,
    /// When it last accepted a message, or a run of the hook succeeded.
    pub succeeded_at: Option<Timestamp>,
    /// When it last did not.
    pub failed_at: Option<Timestamp>,
    /// Why it did not.
    pub failure: Option<String>,
    /// Until when nothing is sent to it.
    pub paused_until: Option<Timestamp>,
    /// Number of waiting messages or runs.
    pub waiting: u32,
}

impl ReceiverRecord {
    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failed_at.is_some() && self.failed_at > self.succeeded_at
    }
}

/// A failed attempt.
#[derive(Debug, Clone, Copy)]
pub struct FailedAttempt<'a> {
    /// When it failed.
    pub at: Timestamp,
    /// Why.
    pub reason: &'a str,
    /// When the message is sent again.
    pub due: Timestamp,
    /// Until when nothing at all is sent to the receiver.
    pub paused_until: Option<Timestamp>,
}

impl StateFile {
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

    /// Returns the message to send to a receiver next, of which the ones about the same incident are sent in order: the oldest that
    /// is due or expired, or else the first that will be due. Dates beyond `latest` come from a clock that was set back.
    pub fn next_delivery(
        &self,
        receiver: &str,
        now: Timestamp,
        latest: Timestamp,
        expired: Timestamp,
    ) -> Result<Option<StoredDelivery>, StateFileError> {
        let inner = self.current()?;
        let sql = format!(
            "WITH first AS (
                SELECT MIN(seq) AS seq FROM alert_deliveries WHERE receiver = ?1 AND state = 'waiting' GROUP BY incident
             )
             {DELIVERIES} WHERE seq IN (SELECT seq FROM first)
             ORDER BY CASE WHEN due <= ?2 OR due > ?3 OR created_at <= ?4 THEN 0 ELSE due END, seq LIMIT 1"
        );
        let values = params![receiver, now.as_millis(), latest.as_millis(), expired.as_millis()];
        let found = deliveries(&inner.opened.connection, &sql, values);
        Ok(self.explained(found)?.pop())
    }

    /// Returns the receiver's own name of the message that a delivery replaces: the one before it about the incident, unless that
    /// one has closed it.
    pub fn remote_ref(&self, delivery: &StoredDelivery) -> Result<Option<String>, StateFileError> {
        let inner = self.current()?;
        let sql = "SELECT CASE kind WHEN 'close' THEN NULL ELSE remote_ref END FROM alert_deliveries
                   WHERE incident = ?1 AND seq < ?2 AND state = 'sent' ORDER BY seq DESC LIMIT 1";
        let found = inner.opened.connection.prepare_cached(sql);
        let values = params![delivery.incident, delivery.seq];
        let found = found.and_then(|mut row| row.query_row(values, |row| row.get(0)).optional());
        Ok(self.explained(found)?.flatten())
    }

    /// Records that a message was accepted at `at`, or that a run of a hook begins. What failed while the receiver accepted nothing
    /// is due now.
    pub fn delivered(
        &self,
        delivery: &StoredDelivery,
        remote_ref: Option<&str>,
        accepted_at: Option<Timestamp>,
    ) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| {
            let sql =
                "UPDATE alert_deliveries SET state = 'sent', remote_ref = ?2, reason = NULL WHERE seq = ?1";
            transaction.execute(sql, params![delivery.seq, remote_ref])?;
            if let Some(at) = accepted_at {
                let sql = "UPDATE alert_deliveries SET due = MIN(due, ?2) WHERE receiver = ?1 AND state = 'waiting'";
                transaction.execute(sql, params![delivery.receiver, at.as_millis()])?;
                record(transaction, &delivery.receiver, at, None)?;
            }
            let sql = "DELETE FROM alert_deliveries WHERE state <> 'waiting' AND seq <=
                       (SELECT MAX(seq) FROM alert_deliveries) - ?1";
            transaction.execute(sql, [KEPT])
        })
    }

    /// Records that a message was not accepted, and when it is sent again.
    pub fn postpone_delivery(
        &self,
        delivery: &StoredDelivery,
        failed: FailedAttempt<'_>,
    ) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| {
            let sql =
                "UPDATE alert_deliveries SET due = ?2, attempts = attempts + 1, reason = ?3 WHERE seq = ?1";
            transaction.execute(sql, params![delivery.seq, failed.due.as_millis(), failed.reason])?;
            record(transaction, &delivery.receiver, failed.at, Some(failed.reason))?;
            let sql = "UPDATE alert_receivers SET paused_until = ?2 WHERE receiver = ?1";
            let until = failed.paused_until.map(Timestamp::as_millis);
            transaction.execute(sql, params![delivery.receiver, until])
        })
    }

    /// Records that a receiver or a hook has succeeded at `at`, or why it has not.
    pub fn record_attempt(
        &self,
        receiver: &str,
        at: Timestamp,
        failure: Option<&str>,
    ) -> Result<(), StateFileError> {
        self.write_alerts(|transaction| record(transaction, receiver, at, failure))
    }

    /// Returns what each receiver and hook has done last, by name.
    pub fn receiver_records(&self) -> Result<BTreeMap<String, ReceiverRecord>, StateFileError> {
        let inner = self.current()?;
        self.explained(receiver_records(&inner.opened.connection))
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
}

fn record(
    transaction: &Transaction<'_>,
    receiver: &str,
    at: Timestamp,
    failure: Option<&str>,
) -> rusqlite::Result<usize> {
    let sql = match failure {
        None => {
            "INSERT INTO alert_receivers (receiver, succeeded_at) VALUES (?1, ?2) ON CONFLICT (receiver)
             DO UPDATE SET succeeded_at = excluded.succeeded_at, paused_until = NULL"
        }
        Some(_) => {
            "INSERT INTO alert_receivers (receiver, failed_at, failure) VALUES (?1, ?2, ?3) ON CONFLICT (receiver)
             DO UPDATE SET failed_at = excluded.failed_at, failure = excluded.failure"
        }
    };
    match failure {
        None => transaction.execute(sql, params![receiver, at.as_millis()]),
        Some(reason) => transaction.execute(sql, params![receiver, at.as_millis(), reason]),
    }
}

fn receiver_records(connection: &Connection) -> rusqlite::Result<BTreeMap<String, ReceiverRecord>> {
    let mut records: BTreeMap<String, ReceiverRecord> = BTreeMap::new();
    let sql = "SELECT receiver, succeeded_at, failed_at, failure, paused_until FROM alert_receivers";
    let mut rows = connection.prepare_cached(sql)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let at =
            |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis));
        let record = ReceiverRecord {
            receiver: row.get(0)?,
            succeeded_at: at(1)?,
            failed_at: at(2)?,
            failure: row.get(3)?,
            paused_until: at(4)?,
            waiting: 0,
        };
        records.insert(record.receiver.clone(), record);
    }
    let sql = "SELECT receiver, count(*) FROM alert_deliveries WHERE state = 'waiting' GROUP BY receiver";
    let mut rows = connection.prepare_cached(sql)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let receiver: String = row.get(0)?;
        records.entry(receiver).or_default().waiting = row.get(1)?;
    }
    Ok(records)
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
