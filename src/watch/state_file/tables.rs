//! The tables of the file: what one transaction writes into them, and the queue in memory that follows the outbox.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Transaction, params};

use super::alerts;
use super::error::{StateFileError, explain};
use super::{BUSY_TIMEOUT, Committed, NewEvent, StateFileOptions};
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::store::sqlite::database::{self, Access, Opened};
use crate::store::sqlite::rows::{self, Upsert};
use crate::store::{StoreError, Version, Write};
use crate::watch::admission::Admission;
use crate::watch::queue::{Class, Queue};

/// A daemon that has not used the file for this long (ms) no longer runs.
const ALIVE_MS: i64 = 5 * 60 * 1000;

/// Number of sent events that are kept, for `events tail`.
const SENT: i64 = 1000;
/// Number of permanently rejected events that are kept.
const REJECTED: i64 = 1000;

/// The open file, and what of its outbox is in memory.
pub(super) struct Inner {
    pub(super) opened: Opened,
    pub(super) queue: Queue,
    /// The newest number in the queue, and the newest of the events that one-shot commands left for any daemon.
    seen: i64,
    is_durable: bool,
}

/// Documents as they are written.
#[derive(Default)]
pub(super) struct Prepared {
    upserts: Vec<Upsert>,
    rejected: Vec<(SourceKey, StoreError)>,
}

impl Prepared {
    pub(super) fn of(documents: &[Write]) -> Self {
        let mut prepared = Self::default();
        for write in documents {
            match Upsert::of(write) {
                Ok(upsert) => prepared.upserts.push(upsert),
                Err(reason) => prepared.rejected.push((write.document.key.clone(), reason)),
            }
        }
        prepared
    }
}

impl Inner {
    pub(super) fn open(path: &Path, options: &StateFileOptions) -> Result<Self, StateFileError> {
        let Some(opened) = database::open(path, Access::Write, BUSY_TIMEOUT)? else {
            unreachable!("a file that is opened for writing is created");
        };
        let mut inner = Self {
            opened,
            queue: Queue::default(),
            seen: 0,
            is_durable: false,
        };
        inner
            .read_queue(&options.instance)
            .map_err(|error| explain(path, &error))?;
        Ok(inner)
    }

    /// Reads which events of `instance`, and of commands that have ended, wait.
    fn read_queue(&mut self, instance: &str) -> rusqlite::Result<()> {
        let connection = &self.opened.connection;
        let mut rows = connection
            .prepare("SELECT seq, source, class FROM outbox WHERE writer IN (?1, '') ORDER BY seq")?;
        let mut rows = rows.query([instance])?;
        while let Some(row) = rows.next()? {
            self.seen = row.get(0)?;
            enqueue(&mut self.queue, row)?;
        }
        Ok(())
    }

    pub(super) fn adopt(&mut self, instance: &str, now: Timestamp) -> rusqlite::Result<()> {
        let alive_since = now.plus_millis(-ALIVE_MS).as_millis();
        let transaction = database::begin(&mut self.opened.connection)?;
        transaction.execute(
            "INSERT INTO writers VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at",
            params![instance, now.as_millis()],
        )?;
        let adopted = transaction.execute(
            "UPDATE outbox SET writer = ?1 WHERE writer NOT IN (?1, '')
             AND writer NOT IN (SELECT name FROM writers WHERE seen_at > ?2)",
            params![instance, alive_since],
        )?;
        transaction.commit()?;
        if adopted > 0 {
            self.queue = Queue::default();
            self.read_queue(instance)?;
        }
        Ok(())
    }

    /// Adds the events to the queue that one-shot commands have left since the last call.
    pub(super) fn receive(&mut self) -> rusqlite::Result<()> {
        let mut rows = self.opened.connection.prepare_cached(
            "SELECT seq, source, class FROM outbox WHERE seq > ?1 AND writer = '' ORDER BY seq",
        )?;
        let mut rows = rows.query([self.seen])?;
        while let Some(row) = rows.next()? {
            self.seen = row.get(0)?;
            enqueue(&mut self.queue, row)?;
        }
        Ok(())
    }

    /// Chooses whether commits wait for the disk.
    pub(super) fn set_durable(&mut self, is_durable: bool) -> rusqlite::Result<()> {
        if self.is_durable != is_durable {
            let mode = if is_durable { "FULL" } else { "NORMAL" };
            self.opened.connection.pragma_update(None, "synchronous", mode)?;
            self.is_durable = is_durable;
        }
        Ok(())
    }

    pub(super) fn commit(
        &mut self,
        events: &[NewEvent],
        prepared: Prepared,
        options: &StateFileOptions,
    ) -> rusqlite::Result<Committed> {
        let mut done = Committed {
            rejected: prepared.rejected,
            ..Committed::default()
        };
        let transaction = database::begin(&mut self.opened.connection)?;
        let versions = rows::new_versions(&transaction, prepared.upserts.len())?;
        for (upsert, version) in prepared.upserts.into_iter().zip(versions) {
            let source = upsert.summary.key.clone();
            if rows::upsert_one(&transaction, &upsert, version, options.history)? {
                done.versions.push((source, Version(version.to_string())));
                done.summaries.push(upsert.summary);
            } else {
                done.conflicts.push(source);
            }
        }
        let events = events
            .iter()
            .filter(|event| !done.conflicts.contains(&event.event.source));
        let events: Vec<&NewEvent> = events.collect();
        if options.has_alerts {
            alerts::receive(&transaction, &events)?;
        }
        if !options.has_sink {
            list(&transaction, &events)?;
            return transaction.commit().map(|()| done);
        }
        let incoming: Vec<_> = events
            .iter()
            .map(|event| (&event.event.source, event.class))
            .collect();
        let admission = Admission::of(&self.queue, options.bound, &incoming);
        let admitted = events.into_iter().zip(admission.admitted);
        let admitted: Vec<&NewEvent> = admitted
            .filter_map(|(event, admitted)| admitted.then_some(event))
            .collect();
        let numbers = insert(&transaction, &options.instance, &admission.gone, &admitted)?;
        transaction.commit()?;
        for (seq, source) in &admission.gone {
            self.queue.remove(*seq, source);
        }
        for (seq, event) in numbers.into_iter().zip(&admitted) {
            self.queue.push(seq, &event.event.source, event.class);
        }
        done.dropped = admission.dropped;
        done.deferred = admission.deferred;
        Ok(done)
    }
}

fn enqueue(queue: &mut Queue, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
    let source: String = row.get(1)?;
    if let Ok(source) = source.parse() {
        queue.push(row.get(0)?, &source, Class::from_number(row.get(2)?));
    }
    Ok(())
}

/// Lists events that no sink waits for.
fn list(transaction: &Transaction<'_>, events: &[&NewEvent]) -> rusqlite::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut insert = transaction.prepare_cached("INSERT INTO sent (event) VALUES (?1)")?;
    for event in events {
        insert.execute([json(&event.event)])?;
    }
    trim(transaction)
}

/// Removes the oldest of the listed events beyond their number.
pub(super) fn trim(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for (table, most) in [("sent", SENT), ("rejected", REJECTED)] {
        let sql = format!("DELETE FROM {table} WHERE seq <= (SELECT MAX(seq) FROM {table}) - ?1");
        transaction.prepare_cached(&sql)?.execute([most])?;
    }
    Ok(())
}

/// Replaces the `gone` events with the new ones, and returns the numbers of these.
fn insert(
    transaction: &Transaction<'_>,
    instance: &str,
    gone: &[(i64, SourceKey)],
    events: &[&NewEvent],
) -> rusqlite::Result<Vec<i64>> {
    let mut remove = transaction.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?;
    for (seq, _) in gone {
        remove.execute([seq])?;
    }
    let mut insert = transaction
        .prepare_cached("INSERT INTO outbox (writer, source, class, event) VALUES (?1, ?2, ?3, ?4)")?;
    let mut numbers = Vec::with_capacity(events.len());
    let mut published: HashMap<&SourceKey, &Knowledge> = HashMap::new();
    for event in events {
        let source = &event.event.source;
        insert.execute(params![
            instance,
            source.to_string(),
            event.class as u8,
            json(&event.event)
        ])?;
        numbers.push(transaction.last_insert_rowid());
        published.extend(event.published.as_ref().map(|knowledge| (source, knowledge)));
    }
    let mut publish = transaction.prepare_cached(
        "INSERT INTO published VALUES (?1, ?2) ON CONFLICT (source) DO UPDATE SET knowledge = excluded.knowledge",
    )?;
    for (source, knowledge) in published {
        publish.execute(params![source.to_string(), json(knowledge)])?;
    }
    Ok(numbers)
}

/// Serializes our own types, which always succeeds.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("our own structs with text keys always serialize")
}
