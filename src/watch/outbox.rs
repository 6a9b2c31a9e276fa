//! The daemon's state on disk: what is known of each source, what was published about it, and the outbox.
//!
//! One SQLite file, so that a change and its event are committed together or not at all. Blocking functions are called through
//! [`blocking`](crate::blocking::blocking).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use self::error::{OpenFailure, explain};
use super::admission::Admission;
use super::lock::StateLock;
use super::queue::{Class, Queue};
use crate::core::event::Event;
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;

mod error;

pub use error::OutboxError;

/// The newest known schema version.
const SCHEMA: i64 = 1;

const MIGRATION: &str = "
    CREATE TABLE source (key TEXT PRIMARY KEY, known TEXT NOT NULL, told TEXT NOT NULL) STRICT;
    CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, class INTEGER NOT NULL, event TEXT NOT NULL
    ) STRICT;
    CREATE TABLE refused (seq INTEGER PRIMARY KEY, event TEXT NOT NULL, reason TEXT NOT NULL) STRICT;
    CREATE TABLE sent (seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL) STRICT;
    CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// Maximum number of pages in the write-ahead log before a commit checkpoints it, which then waits for the disk three times
/// instead of once. Usually [`Outbox::tidy`] is earlier.
const LOG_PAGES: i64 = 8192;

/// Number of sent events that are kept, for `events tail`.
const SENT: i64 = 1000;
/// Number of permanently rejected events that are kept.
const REFUSED: i64 = 1000;

/// The open file.
pub struct Outbox {
    path: PathBuf,
    /// Whether anything was committed since the last checkpoint of the write-ahead log.
    needs_checkpoint: AtomicBool,
    inner: Mutex<Inner>,
    bound: usize,
    _lock: Option<StateLock>,
}

struct Inner {
    connection: Connection,
    queue: Queue,
}

/// What is committed together.
#[derive(Debug, Default)]
pub struct Commit {
    /// The new state of each source, as JSON.
    pub known: Vec<(SourceKey, Box<str>)>,
    /// New events in order, each with the state that is published once it is sent. A heartbeat does not change the published
    /// state: any later event includes it again.
    pub events: Vec<Fresh>,
}

/// An event to be committed.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// Its urgency.
    pub class: Class,
    /// The event.
    pub event: Event,
    /// The state that is published with it; `None` for heartbeats.
    pub published: Option<Knowledge>,
}

/// The result of a commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Number of heartbeats that were dropped to free capacity.
    pub dropped: usize,
    /// Sources whose events were not admitted: their changes are published later.
    pub deferred: Vec<SourceKey>,
}

/// A waiting event.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its sequence number.
    pub seq: i64,
    /// Whether it is urgent.
    pub urgent: bool,
    /// The event.
    pub event: Event,
}

/// How many events wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// All events.
    pub events: usize,
    /// Heartbeats among them.
    pub heartbeats: usize,
}

impl Outbox {
    /// Opens the file of a state directory, creating it if missing. `bound` is the maximum number of events that it holds.
    pub fn open(directory: &Path, bound: usize) -> Result<Self, OutboxError> {
        let path = directory.join("watch.db");
        // SQLite's own flag for that would also refuse links in the parent directories, which are their owner's choice.
        crate::files::reject_symlink(&path)
            .and_then(|()| crate::files::reject_special_file(&path))
            .map_err(|error| error::is_link(&path, &error))?;
        Self::prepare(&path, bound).map_err(|failure| failure.explain(&path))
    }

    fn prepare(path: &Path, bound: usize) -> Result<Self, OpenFailure> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // What was acknowledged must survive a power failure too; transitions are rare enough to afford it.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if found > SCHEMA {
            return Err(OpenFailure::Newer(found));
        }
        if found == 0 {
            let migration = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            migration.execute_batch(MIGRATION)?;
            migration.pragma_update(None, "user_version", SCHEMA)?;
            migration.commit()?;
        }
        let mut queue = Queue::default();
        {
            let mut rows = connection.prepare("SELECT seq, source, class FROM outbox ORDER BY seq")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let source: String = row.get(1)?;
                if let Ok(source) = source.parse() {
                    queue.push(row.get(0)?, &source, Class::from_number(row.get(2)?));
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            needs_checkpoint: AtomicBool::new(true),
            inner: Mutex::new(Inner { connection, queue }),
            bound,
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

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn explained<T>(&self, result: rusqlite::Result<T>) -> Result<T, OutboxError> {
        result.map_err(|error| explain(&self.path, error))
    }

    /// Passes the stored state of every source to `show`, one after the other: all of them together would be large.
    pub fn restore(&self, mut show: impl FnMut(SourceKey, Knowledge)) -> Result<(), OutboxError> {
        let inner = self.inner();
        self.explained((|| {
            let mut rows = inner.connection.prepare("SELECT key, known FROM source")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let key = row.get_ref(0)?.as_str()?.parse();
                // A state that cannot be parsed is skipped; it will be observed again.
                if let (Ok(key), Ok(known)) = (key, serde_json::from_str(row.get_ref(1)?.as_str()?)) {
                    show(key, known);
                }
            }
            Ok(())
        })())
    }

    /// Returns the published state of a source; `None` if nothing was ever published.
    pub fn published(&self, source: &SourceKey) -> Result<Option<Knowledge>, OutboxError> {
        let inner = self.inner();
        let json: Option<String> = self.explained(
            inner
                .connection
                .prepare_cached("SELECT told FROM source WHERE key = ?1 AND told <> ''")
                .and_then(|mut row| row.query_row([source.to_string()], |row| row.get(0)).optional()),
        )?;
        // A published state that cannot be parsed counts as unpublished: everything is published again, which is harmless.
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Commits changes and their events in one transaction, within the bound.
    pub fn commit(&self, commit: &Commit) -> Result<Committed, OutboxError> {
        let mut inner = self.inner();
        let Inner { connection, queue } = &mut *inner;
        let fresh: Vec<_> = commit
            .events
            .iter()
            .map(|fresh| (&fresh.event.source, fresh.class))
            .collect();
        let Admission {
            admitted,
            gone,
            dropped,
            deferred,
        } = Admission::of(queue, self.bound, &fresh);
        let kept = commit.events.iter().zip(admitted);
        let kept: Vec<&Fresh> = kept
            .filter_map(|(fresh, admitted)| admitted.then_some(fresh))
            .collect();
        let written = write(connection, commit, &gone, &kept);
        let numbers = self.explained(written)?;
        self.needs_checkpoint.store(true, Ordering::Relaxed);
        for (seq, source) in &gone {
            queue.remove(*seq, source);
        }
        for (seq, fresh) in numbers.into_iter().zip(&kept) {
            queue.push(seq, &fresh.event.source, fresh.class);
        }
        Ok(Committed { dropped, deferred })
    }

    /// Returns at most `limit` events that may be sent now, at most one per source; at most `spread` of those that are not
    /// urgent.
    pub fn next(
        &self,
        limit: usize,
        spread: usize,
        held: &dyn Fn(&SourceKey) -> bool,
    ) -> Result<Vec<Waiting>, OutboxError> {
        let inner = self.inner();
        let due = inner.queue.next(limit, spread, held);
        self.explained((|| {
            let mut row = inner
                .connection
                .prepare_cached("SELECT event FROM outbox WHERE seq = ?1")?;
            let mut waiting = Vec::with_capacity(due.len());
            for (seq, _, urgent) in due {
                let json: String = row.query_row([seq], |row| row.get(0))?;
                let event = serde_json::from_str(&json).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
                })?;
                waiting.push(Waiting { seq, urgent, event });
            }
            Ok(waiting)
        })())
    }

    /// Removes acknowledged events from the queue; a limited number is kept for `events tail`.
    pub fn sent(&self, events: &[Waiting]) -> Result<(), OutboxError> {
        self.take_out(events, |transaction, waiting| {
            let mut keep = transaction
                .prepare_cached("INSERT INTO sent (event) SELECT event FROM outbox WHERE seq = ?1")?;
            keep.execute([waiting.seq])?;
            Ok(())
        })
    }

    /// Sets aside events that the bus rejected permanently.
    pub fn refused(&self, events: &[Waiting], reason: &str) -> Result<(), OutboxError> {
        self.take_out(events, |transaction, waiting| {
            let mut keep = transaction.prepare_cached(
                "INSERT OR REPLACE INTO refused SELECT seq, event, ?2 FROM outbox WHERE seq = ?1",
            )?;
            keep.execute(params![waiting.seq, reason])?;
            Ok(())
        })
    }

    fn take_out(
        &self,
        events: &[Waiting],
        keep: impl Fn(&rusqlite::Transaction<'_>, &Waiting) -> rusqlite::Result<()>,
    ) -> Result<(), OutboxError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut inner = self.inner();
        let Inner { connection, queue } = &mut *inner;
        // The next commit waits for the disk and includes this one. After a power failure in between, the events are sent again
        // and deduplicated by their ids.
        self.explained(connection.pragma_update(None, "synchronous", "NORMAL"))?;
        let taken = self.explained((|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for waiting in events {
                keep(&transaction, waiting)?;
                transaction
                    .prepare_cached("DELETE FROM outbox WHERE seq = ?1")?
                    .execute([waiting.seq])?;
            }
            for (table, most) in [("sent", SENT), ("refused", REFUSED)] {
                let sql = format!("DELETE FROM {table} WHERE seq <= (SELECT MAX(seq) FROM {table}) - ?1");
                transaction.prepare_cached(&sql)?.execute([most])?;
            }
            transaction.commit()
        })());
        self.explained(connection.pragma_update(None, "synchronous", "FULL"))?;
        taken?;
        self.needs_checkpoint.store(true, Ordering::Relaxed);
        for waiting in events {
            queue.remove(waiting.seq, &waiting.event.source);
        }
        Ok(())
    }

    /// Checkpoints the write-ahead log into the file, concurrently with commits.
    pub fn tidy(&self) -> Result<(), OutboxError> {
        if !self.needs_checkpoint.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let moved = || {
            let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        };
        self.explained(moved())
    }

    /// Simulates a full disk beyond `pages`; `0` removes the limit.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: i64) {
        let most = if pages == 0 { 1 << 30 } else { pages };
        self.inner()
            .connection
            .pragma_update(None, "max_page_count", most)
            .unwrap();
    }

    /// Returns the sources with waiting events.
    pub fn behind(&self) -> HashSet<SourceKey> {
        self.inner().queue.sources().cloned().collect()
    }

    /// Returns how many events wait.
    pub fn depth(&self) -> Depth {
        let inner = self.inner();
        Depth {
            events: inner.queue.len(),
            heartbeats: inner.queue.heartbeats(),
        }
    }

    /// Returns a stored note, writing `fresh` first if there is none.
    pub fn note_or(&self, name: &str, fresh: impl FnOnce() -> String) -> Result<String, OutboxError> {
        let inner = self.inner();
        self.explained((|| {
            let read = "SELECT value FROM note WHERE name = ?1";
            let known: Option<String> = inner
                .connection
                .query_row(read, [name], |row| row.get(0))
                .optional()?;
            if let Some(known) = known {
                return Ok(known);
            }
            let value = fresh();
            inner
                .connection
                .execute("INSERT INTO note VALUES (?1, ?2)", params![name, value])?;
            Ok(value)
        })())
    }
}

/// Returns the events sent after `since` (a number from an earlier call; `None`: the last few), oldest first, from a file that
/// another process may be writing.
pub fn sent_since(directory: &Path, since: Option<i64>) -> Result<Vec<(i64, Event)>, OutboxError> {
    let path = directory.join("watch.db");
    let read = || {
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
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
    let rows = read().map_err(|error| explain(&path, error))?;
    let readable = rows
        .into_iter()
        .filter_map(|(seq, json)| Some((seq, serde_json::from_str(&json).ok()?)));
    Ok(readable.collect())
}

fn write(
    connection: &mut Connection,
    commit: &Commit,
    gone: &[(i64, SourceKey)],
    kept: &[&Fresh],
) -> rusqlite::Result<Vec<i64>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut numbers = Vec::with_capacity(kept.len());
    {
        let mut known = transaction.prepare_cached(
            "INSERT INTO source VALUES (?1, ?2, '') ON CONFLICT (key) DO UPDATE SET known = excluded.known",
        )?;
        for (key, json) in &commit.known {
            known.execute(params![key.to_string(), json])?;
        }
        let mut remove = transaction.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?;
        for (seq, _) in gone {
            remove.execute([seq])?;
        }
        let mut insert =
            transaction.prepare_cached("INSERT INTO outbox (source, class, event) VALUES (?1, ?2, ?3)")?;
        let mut published = transaction.prepare_cached("UPDATE source SET told = ?2 WHERE key = ?1")?;
        for fresh in kept {
            let source = fresh.event.source.to_string();
            insert.execute(params![source, fresh.class as u8, json(&fresh.event)])?;
            numbers.push(transaction.last_insert_rowid());
            if let Some(knowledge) = &fresh.published {
                published.execute(params![source, json(knowledge)])?;
            }
        }
    }
    transaction.commit()?;
    Ok(numbers)
}

/// Serializes our own types, which always succeeds.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("our own structs with text keys always serialize")
}
