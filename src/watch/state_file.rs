//! The daemon's state on disk: the documents with their history, what was published about each source, and the outbox.
//!
//! One SQLite file, so that a change and its events are committed together or not at all. It is the store itself where that is
//! SQLite; with a remote store it is a file of its own with the same schema. Blocking functions are called through
//! [`blocking`](crate::blocking::blocking).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};

use self::error::explain;
use self::tables::{Inner, Prepared, trim};
use super::lock::StateLock;
use super::queue::Class;
use crate::core::document::SourceDocument;
use crate::core::event::Event;
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::store::retention::Retention;
use crate::store::sqlite::confirmations::{self, ConfirmedGroup};
use crate::store::sqlite::database;
use crate::store::sqlite::rows;
use crate::store::{StoreError, Unusable, Version, Versioned, Write};

mod alerts;
mod error;
mod tables;

pub use alerts::{AlertInput, AlertState, DeliveryState, Stopped, StoredDelivery};
pub use error::StateFileError;

/// How long to wait for another process that writes the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct StateFileOptions {
    /// Name of this process in the file; the events of other running daemons are theirs.
    pub instance: String,
    /// Maximum number of waiting events.
    pub bound: usize,
    /// Whether events wait for a sink. Otherwise they are only listed, for `events tail`.
    pub has_sink: bool,
    /// Whether alerts or hooks need the events.
    pub has_alerts: bool,
    /// Limits of the history; `None` where it is not read, because a remote store has it.
    pub history: Option<Retention>,
}

pub struct StateFile {
    path: PathBuf,
    options: StateFileOptions,
    /// Whether anything was committed since the last checkpoint of the write-ahead log.
    needs_checkpoint: AtomicBool,
    inner: Mutex<Inner>,
    _lock: Option<StateLock>,
}

/// What is committed together.
#[derive(Debug, Default)]
pub struct Commit {
    /// New documents with their transitions, at most one per source.
    pub documents: Vec<Write>,
    /// New events in order, each with the state that is published once it is sent. A heartbeat does not change the published
    /// state: any later event includes it again.
    pub events: Vec<NewEvent>,
}

impl Commit {
    /// Returns the part of `sources`.
    #[must_use]
    pub fn of(mut self, sources: &[SourceKey]) -> Self {
        self.documents
            .retain(|write| sources.contains(&write.document.key));
        self.events.retain(|event| sources.contains(&event.event.source));
        self
    }
}

#[derive(Debug, Clone)]
pub struct NewEvent {
    pub class: Class,
    pub event: Event,
    /// The state that is published with it; `None` for heartbeats.
    pub published: Option<Knowledge>,
}

#[derive(Debug, Default)]
pub struct Committed {
    pub versions: Vec<(SourceKey, Version)>,
    /// The written documents in short.
    pub summaries: Vec<SourceSummary>,
    /// Sources whose documents another process has written since their base: nothing of them was committed, events included.
    pub conflicts: Vec<SourceKey>,
    /// Sources whose documents cannot be stored, with the reason; their events are committed.
    pub rejected: Vec<(SourceKey, StoreError)>,
    /// Number of heartbeats that were dropped to free capacity.
    pub dropped: usize,
    /// Sources whose events were not admitted: their changes are published later.
    pub deferred: Vec<SourceKey>,
}

#[derive(Debug, Clone)]
pub struct Waiting {
    pub seq: i64,
    pub urgent: bool,
    pub event: Event,
}

/// How many events wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    pub events: usize,
    /// Heartbeats among them.
    pub heartbeats: usize,
}

impl StateFile {
    /// Opens the file at `path`, creating it if missing.
    pub fn open(path: &Path, options: StateFileOptions) -> Result<Self, StateFileError> {
        let inner = Inner::open(path, &options)?;
        Ok(Self {
            path: path.to_owned(),
            options,
            needs_checkpoint: AtomicBool::new(true),
            inner: Mutex::new(inner),
            _lock: None,
        })
    }

    /// Holds the lock of the state directory for as long as the file is in use. A commit may outlive the task that requested it;
    /// another daemon that had read the file by then would miss that commit.
    #[must_use]
    pub fn holding(self, lock: StateLock) -> Self {
        Self {
            _lock: Some(lock),
            ..self
        }
    }

    /// Whether events wait for a sink.
    pub fn has_sink(&self) -> bool {
        self.options.has_sink
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Returns the file that is now at the path: it may have been moved or deleted, and what is written to it then is lost. A newer
    /// bitbrat may also have migrated it; then nothing is read or written until the path has a file that fits again.
    fn current(&self) -> Result<MutexGuard<'_, Inner>, StateFileError> {
        let mut inner = self.inner();
        if inner.opened.was_replaced(&self.path) {
            *inner = Inner::open(&self.path, &self.options)?;
        }
        self.explained(database::reject_newer(&inner.opened.connection))?;
        Ok(inner)
    }

    fn explained<T>(&self, result: rusqlite::Result<T>) -> Result<T, StateFileError> {
        result.map_err(|error| explain(&self.path, &error))
    }

    /// Passes the stored documents of `sources` to `show`, one after the other and in any order: all of them together would be
    /// large.
    pub fn restore(
        &self,
        sources: &[SourceKey],
        mut show: impl FnMut(SourceKey, Result<Versioned<SourceDocument>, Unusable>),
    ) -> Result<(), StateFileError> {
        let mut inner = self.current()?;
        let ids: Vec<String> = sources.iter().map(SourceKey::to_string).collect();
        self.explained(rows::load_some(
            &mut inner.opened.connection,
            &ids,
            |place, row| {
                if let Some(row) = row {
                    show(sources[place].clone(), row.read().document);
                }
            },
        ))
    }

    /// Writes groups of confirmed states. Returns the sources whose documents another process has written since. It does not wait
    /// for the disk: the next probes confirm the same again.
    pub fn confirm(&self, groups: &[ConfirmedGroup]) -> Result<Vec<SourceKey>, StateFileError> {
        let mut inner = self.current()?;
        self.explained(inner.set_durable(false))?;
        let conflicts = self.explained((|| {
            let transaction = database::begin(&mut inner.opened.connection)?;
            let mut conflicts = Vec::new();
            for group in groups {
                conflicts.extend(confirmations::write(&transaction, &self.options.instance, group)?);
            }
            transaction.commit()?;
            Ok(conflicts)
        })())?;
        self.needs_checkpoint.store(true, Ordering::Relaxed);
        Ok(conflicts)
    }

    pub fn document(
        &self,
        source: &SourceKey,
    ) -> Result<Option<Result<Versioned<SourceDocument>, Unusable>>, StateFileError> {
        let mut found = None;
        self.restore(std::slice::from_ref(source), |_, document| found = Some(document))?;
        Ok(found)
    }

    /// Returns the published state of a source; `None` if nothing was ever published.
    pub fn published(&self, source: &SourceKey) -> Result<Option<Knowledge>, StateFileError> {
        let inner = self.current()?;
        let json: Option<String> = self.explained(
            inner
                .opened
                .connection
                .prepare_cached("SELECT knowledge FROM published WHERE source = ?1")
                .and_then(|mut row| row.query_row([source.to_string()], |row| row.get(0)).optional()),
        )?;
        // A published state that cannot be parsed counts as unpublished: everything is published again, which is harmless.
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Deletes the history of a source that is dated after `until`: a clock that was ahead has dated it.
    pub fn drop_history_after(&self, source: &SourceKey, until: Timestamp) -> Result<(), StateFileError> {
        let mut inner = self.current()?;
        let connection = &mut inner.opened.connection;
        self.explained(rows::drop_history_after(connection, &source.to_string(), until))
    }

    /// Commits documents and events in one transaction, within the bound. After it returns, transitions survive a power failure.
    pub fn commit(&self, commit: &Commit) -> Result<Committed, StateFileError> {
        // Before the lock: meanwhile, another writer of the process can commit.
        let prepared = Prepared::of(&commit.documents);
        let mut inner = self.current()?;
        let is_durable =
            !commit.events.is_empty() || commit.documents.iter().any(|write| !write.history.is_empty());
        self.explained(inner.set_durable(is_durable))?;
        let done = self.explained(inner.commit(&commit.events, prepared, &self.options))?;
        self.needs_checkpoint.store(true, Ordering::Relaxed);
        Ok(done)
    }

    /// Returns at most `limit` events that may be sent now, at most one per source; at most `spread` of those that are not
    /// urgent.
    pub fn next(
        &self,
        limit: usize,
        spread: usize,
        held: &dyn Fn(&SourceKey) -> bool,
    ) -> Result<Vec<Waiting>, StateFileError> {
        let mut inner = self.current()?;
        self.explained((|| {
            inner.receive()?;
            let due = inner.queue.next(limit, spread, held);
            let mut row = inner
                .opened
                .connection
                .prepare_cached("SELECT event FROM outbox WHERE seq = ?1")?;
            let mut waiting = Vec::with_capacity(due.len());
            let mut gone = Vec::new();
            for (seq, source, urgent) in due {
                let json: Option<String> = row.query_row([seq], |row| row.get(0)).optional()?;
                let Some(json) = json else {
                    // The command that left it for any daemon has sent it in the meantime.
                    gone.push((seq, source));
                    continue;
                };
                let event = serde_json::from_str(&json).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
                })?;
                waiting.push(Waiting { seq, urgent, event });
            }
            drop(row);
            for (seq, source) in gone {
                inner.queue.remove(seq, &source);
            }
            Ok(waiting)
        })())
    }

    /// Removes acknowledged events from the queue; a limited number is kept for `events tail`.
    pub fn sent(&self, events: &[Waiting]) -> Result<(), StateFileError> {
        self.dequeue(events, |transaction, waiting| {
            let mut keep = transaction
                .prepare_cached("INSERT INTO sent (event) SELECT event FROM outbox WHERE seq = ?1")?;
            keep.execute([waiting.seq])?;
            Ok(())
        })
    }

    /// Sets aside events that the bus rejected permanently.
    pub fn rejected(&self, events: &[Waiting], reason: &str) -> Result<(), StateFileError> {
        self.dequeue(events, |transaction, waiting| {
            let mut keep = transaction.prepare_cached(
                "INSERT OR REPLACE INTO rejected SELECT seq, event, ?2 FROM outbox WHERE seq = ?1",
            )?;
            keep.execute(params![waiting.seq, reason])?;
            Ok(())
        })
    }

    fn dequeue(
        &self,
        events: &[Waiting],
        keep: impl Fn(&Transaction<'_>, &Waiting) -> rusqlite::Result<()>,
    ) -> Result<(), StateFileError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut inner = self.current()?;
        // The next durable commit includes this one. After a power failure in between, the events are sent again and deduplicated
        // by their ids.
        self.explained(inner.set_durable(false))?;
        let Inner { opened, queue, .. } = &mut *inner;
        self.explained((|| {
            let transaction = database::begin(&mut opened.connection)?;
            for waiting in events {
                keep(&transaction, waiting)?;
                transaction
                    .prepare_cached("DELETE FROM outbox WHERE seq = ?1")?
                    .execute([waiting.seq])?;
            }
            trim(&transaction)?;
            transaction.commit()
        })())?;
        self.needs_checkpoint.store(true, Ordering::Relaxed);
        for waiting in events {
            queue.remove(waiting.seq, &waiting.event.source);
        }
        Ok(())
    }

    /// Checkpoints the write-ahead log into the file, concurrently with commits.
    pub fn tidy(&self) -> Result<(), StateFileError> {
        if !self.needs_checkpoint.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        self.explained(database::checkpoint_wal(&self.path, BUSY_TIMEOUT))
    }

    /// Simulates a full disk beyond `pages`; `0` removes the limit.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: i64) {
        let most = if pages == 0 { 1 << 30 } else { pages };
        self.inner()
            .opened
            .connection
            .pragma_update(None, "max_page_count", most)
            .unwrap();
    }

    /// Returns the sources with waiting events.
    pub fn behind(&self) -> HashSet<SourceKey> {
        self.inner().queue.sources().cloned().collect()
    }

    /// Records that this process uses the file at `now`, and takes over the events of daemons that no longer do: one whose name was
    /// lost with its state directory, or that was moved.
    pub fn adopt(&self, now: Timestamp) -> Result<(), StateFileError> {
        let mut inner = self.current()?;
        self.explained(inner.set_durable(false))?;
        self.explained(inner.adopt(&self.options.instance, now))
    }

    /// Counts the events of all processes that wait in the file.
    pub fn count_waiting(&self) -> Result<usize, StateFileError> {
        let inner = self.current()?;
        let connection = &inner.opened.connection;
        let count: i64 =
            self.explained(connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Returns how many events wait.
    pub fn depth(&self) -> Depth {
        let inner = self.inner();
        Depth {
            events: inner.queue.len(),
            heartbeats: inner.queue.heartbeats(),
        }
    }

    /// Returns since when the oldest transition waits; `None` if none waits, or the file cannot be read. Other events are spread over
    /// time, and wait as a rule.
    pub fn oldest_transition(&self) -> Option<Timestamp> {
        let inner = self.inner();
        let oldest = inner.queue.oldest_transition()?;
        let connection = &inner.opened.connection;
        let event: String = connection
            .prepare_cached("SELECT event FROM outbox WHERE seq = ?1")
            .and_then(|mut row| row.query_row([oldest], |row| row.get(0)))
            .ok()?;
        let event: Event = serde_json::from_str(&event).ok()?;
        event.made_at()
    }
}

/// Returns the events sent after `since` (a number from an earlier call; `None`: the last few), oldest first, from a file that
/// another process may be writing.
pub fn sent_since(path: &Path, since: Option<i64>) -> Result<Vec<(i64, Event)>, StateFileError> {
    let read = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // The file exists before its tables do.
        let made = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'sent')";
        if !connection.query_row(made, [], |row| row.get::<_, bool>(0))? {
            return Ok(Vec::new());
        }
        let newest: i64 =
            connection.query_row("SELECT COALESCE(MAX(seq), 0) FROM sent", [], |row| row.get(0))?;
        let mut rows = connection.prepare("SELECT seq, event FROM sent WHERE seq > ?1 ORDER BY seq")?;
        let rows = rows.query_map([since.unwrap_or(newest - 10)], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows = read().map_err(|error| explain(path, &error))?;
    let readable = rows
        .into_iter()
        .filter_map(|(seq, json)| Some((seq, serde_json::from_str(&json).ok()?)));
    Ok(readable.collect())
}
