//! Opening of the database file: application id, schema version and connection settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::store::StoreError;
use crate::store::sqlite::error;

/// Identifies our files (`bitb`), so that another program's database is never written.
const APPLICATION_ID: i64 = 0x6269_7462;

/// Each step migrates from the schema version of its index to the next.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE sources (id TEXT PRIMARY KEY, version INTEGER NOT NULL, document TEXT NOT NULL) STRICT;
    CREATE TABLE history (
        source TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, recorded_at INTEGER NOT NULL,
        entry TEXT NOT NULL, PRIMARY KEY (source, id)
    ) STRICT;
    CREATE INDEX history_newest ON history (source, at DESC, recorded_at DESC, id DESC);
    CREATE TABLE sequence (value INTEGER NOT NULL) STRICT;
    INSERT INTO sequence VALUES (0);
    CREATE TABLE probe (id INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
",
    // Our writes change a document together with its version; a change of the document alone makes its summary invalid.
    "
    ALTER TABLE sources ADD COLUMN summary TEXT;
    CREATE TRIGGER document_edited AFTER UPDATE OF document ON sources WHEN NEW.version = OLD.version BEGIN
        UPDATE sources SET summary = NULL WHERE id = NEW.id;
    END;
",
    // Summaries are for programs. A list reads only their index, and no documents.
    "
    DROP TRIGGER document_edited;
    ALTER TABLE sources DROP COLUMN summary;
    ALTER TABLE sources ADD COLUMN summary BLOB;
    CREATE TRIGGER document_edited AFTER UPDATE OF document ON sources WHEN NEW.version = OLD.version BEGIN
        UPDATE sources SET summary = NULL WHERE id = NEW.id;
    END;
    CREATE INDEX sources_in_short ON sources (id, summary);
",
    // The outbox is in the same file as the documents, so that a change and its events are committed together. A document that was
    // edited by hand has another version, so that no process replaces it with its own.
    "
    CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, writer TEXT NOT NULL, source TEXT NOT NULL, class INTEGER NOT NULL,
        event TEXT NOT NULL
    ) STRICT;
    CREATE TABLE published (source TEXT PRIMARY KEY, knowledge TEXT NOT NULL) STRICT;
    CREATE TABLE sent (seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL) STRICT;
    CREATE TABLE rejected (seq INTEGER PRIMARY KEY, event TEXT NOT NULL, reason TEXT NOT NULL) STRICT;
    CREATE TABLE writers (name TEXT PRIMARY KEY, seen_at INTEGER NOT NULL) STRICT;
    DROP TRIGGER document_edited;
    CREATE TRIGGER document_edited AFTER UPDATE OF document ON sources WHEN NEW.version = OLD.version BEGIN
        UPDATE sequence SET value = value + 1;
        UPDATE sources SET summary = NULL, version = (SELECT value FROM sequence) WHERE id = NEW.id;
    END;
    CREATE TRIGGER document_replaced AFTER UPDATE OF document ON sources
        WHEN NEW.version <> OLD.version AND NEW.summary IS OLD.summary BEGIN
        UPDATE sources SET summary = NULL WHERE id = NEW.id;
    END;
",
    // What only confirms a document is written in groups of many sources: see `confirmations`.
    "
    CREATE TABLE confirmations (
        block INTEGER NOT NULL, writer TEXT NOT NULL, states BLOB NOT NULL, PRIMARY KEY (block, writer)
    ) STRICT;
    DROP INDEX sources_in_short;
    CREATE INDEX sources_in_short ON sources (id, version, summary);
",
    // One tree: beside a table, two indexes were half of what was written of an entry.
    "
    ALTER TABLE history RENAME TO history_with_indexes;
    CREATE TABLE history (
        source TEXT NOT NULL, at INTEGER NOT NULL, id TEXT NOT NULL, recorded_at INTEGER NOT NULL,
        entry TEXT NOT NULL, PRIMARY KEY (source, at, id)
    ) STRICT, WITHOUT ROWID;
    INSERT OR IGNORE INTO history SELECT source, at, id, recorded_at, entry FROM history_with_indexes;
    DROP TABLE history_with_indexes;
",
    // Alerts: changes that their rules have not processed, the conditions of sources, incidents, and messages to receivers.
    "
    CREATE TABLE alert_inbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL) STRICT;
    CREATE TABLE alert_sources (source TEXT PRIMARY KEY, known TEXT NOT NULL) STRICT;
    CREATE TABLE alert_incidents (key TEXT PRIMARY KEY, incident TEXT NOT NULL) STRICT;
    CREATE TABLE alert_deliveries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, receiver TEXT NOT NULL, incident TEXT NOT NULL,
        kind TEXT NOT NULL, created_at INTEGER NOT NULL, due INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL DEFAULT 'waiting', remote_ref TEXT, reason TEXT, message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX alert_waiting ON alert_deliveries (receiver, state, seq);
    CREATE TABLE alert_stopped (receiver TEXT PRIMARY KEY, address TEXT NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL) STRICT;
    CREATE TABLE alert_mutes (
        id INTEGER PRIMARY KEY AUTOINCREMENT, pattern TEXT NOT NULL, until INTEGER NOT NULL, reason TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
",
    // The last success and failure of receivers and hooks, and until when nothing is sent to a receiver.
    "
    CREATE TABLE alert_receivers (
        receiver TEXT PRIMARY KEY, succeeded_at INTEGER, failed_at INTEGER, failure TEXT, paused_until INTEGER
    ) STRICT;
",
];

/// Pages in the write-ahead log from which a write checkpoints it, which costs the write two disk syncs. Usually [`checkpoint_wal`]
/// checkpoints earlier.
const LOG_PAGES: i64 = 8192;

/// The newest supported schema version.
pub const SCHEMA: i64 = 8;

/// The first schema version with summaries in an index, and with confirmations.
pub const WITH_CONFIRMATIONS: i64 = 5;

/// Page cache of a reader.
const PAGES: i64 = 16;

/// Access mode of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes; creates and migrates the file.
    Write,
    /// Only reads; a missing file counts as an empty store.
    Read,
}

/// An open connection and the file to which it belongs.
pub struct Opened {
    pub connection: Connection,
    file: Option<(u64, u64)>,
}

impl Opened {
    /// Returns whether `path` is now another file, or does not exist.
    pub fn was_replaced(&self, path: &Path) -> bool {
        self.file.is_some() && self.file != file_id(path)
    }
}

/// Another process has migrated the file to a schema that this program does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its schema version is {0}")]
pub struct NewerSchema(pub i64);

/// Begins a transaction that writes. It fails before anything is written if another process has migrated the file to a newer schema
/// since it was opened. That is checked within the transaction, because a migration holds the lock that this function waits for.
pub fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    reject_newer(&transaction)?;
    Ok(transaction)
}

/// Fails if the file has a newer schema than this program: what is read from it could mean something else.
pub fn reject_newer(connection: &Connection) -> rusqlite::Result<()> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        found if found > SCHEMA => Err(rusqlite::Error::FromSqlConversionFailure(
            0,
            Type::Integer,
            Box::new(NewerSchema(found)),
        )),
        _ => Ok(()),
    }
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    crate::os::file_id(&path.metadata().ok()?)
}

/// Creates a missing file for its owner only: SQLite would apply the umask, and alerts that wait in it contain names and reasons.
/// Files beside it get its mode. A failure is reported when the file is opened.
fn make_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    drop(crate::os::private_file(&mut options).open(path));
}

/// Opens the file at `path`, waiting for other connections up to `patience`; `None` for read-only access if there is no
/// database yet.
pub fn open(path: &Path, access: Access, patience: Duration) -> Result<Option<Opened>, StoreError> {
    let explain = |error: rusqlite::Error| error::explain(path, &error);
    // SQLite would wait for a writer of a FIFO, and create a file where a link that leads nowhere points to.
    for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-journal")] {
        crate::files::reject_special_file(&file).map_err(|error| error::special(path, &file, &error))?;
    }
    let connection = match access {
        Access::Write => {
            if let Some(parent) = path.parent() {
                crate::files::make_private_dir(parent).map_err(|error| error::directory(path, &error))?;
            }
            make_private(path);
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            let mut connection = connect(path, flags, patience).map_err(explain)?;
            prepare(&mut connection, path, patience)?;
            connection
        }
        Access::Read => {
            if !path.exists() {
                return Ok(None);
            }
            let connection = connect_reader(path, patience).map_err(explain)?;
            // A writer that has just created the file may not have created its tables yet. Older schema versions can be read;
            // only a writer migrates them.
            if schema(&connection, path)? == 0 {
                return Ok(None);
            }
            connection
        }
    };
    let file = file_id(path);
    Ok(Some(Opened { connection, file }))
}

/// Returns the path of a file that SQLite keeps beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Opens the file with the settings that a connection needs before its first statement.
fn connect(path: &Path, flags: OpenFlags, patience: Duration) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    // Otherwise a statement whose limit is a parameter is compiled again for each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Opens the file for reading. A reader of a write-ahead log needs a shared-memory file next to it; in a read-only directory,
/// a cleanly closed database can still be read as an immutable file.
fn connect_reader(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, patience)?;
    // A list of all sources reads the whole file once, so a larger page cache would only cost memory.
    connection.pragma_update(None, "cache_size", PAGES)?;
    let opened = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let log = beside(path, "-wal");
    match opened {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && !log.exists() => {
            let path = path
                .to_string_lossy()
                .replace('%', "%25")
                .replace('?', "%3f")
                .replace('#', "%23");
            let unchanging = format!("file:{path}?immutable=1");
            connect(Path::new(&unchanging), OpenFlags::SQLITE_OPEN_READ_ONLY, patience)
        }
        Err(error) => Err(error),
        Ok(()) => Ok(connection),
    }
}

/// Returns the schema version; rejects files of other programs and newer versions.
fn schema(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let explain = |error: rusqlite::Error| error::explain(path, &error);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    // In this order: another process may commit the first migration atomically between any two of these statements.
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(explain)?;
    let maker = pragma("application_id").map_err(explain)?;
    let found = pragma("user_version").map_err(explain)?;
    if maker != APPLICATION_ID && (maker != 0 || tables > 0) {
        return Err(error::another_programs(path));
    }
    reject_newer(connection).map_err(explain)?;
    Ok(found)
}

/// Migrates the file to the newest schema and applies a writer's settings.
fn prepare(connection: &mut Connection, path: &Path, patience: Duration) -> Result<(), StoreError> {
    let explain = |error: rusqlite::Error| error::explain(path, &error);
    let found = schema(connection, path)?;
    enable_wal(connection, patience).map_err(explain)?;
    // With a write-ahead log this survives a crash of the program. Writes of transitions wait for the disk besides:
    // docs/decisions/0031-fsync-policy.md.
    connection
        .pragma_update(None, "synchronous", "NORMAL")
        .map_err(explain)?;
    connection
        .pragma_update(None, "wal_autocheckpoint", LOG_PAGES)
        .map_err(explain)?;
    if found == SCHEMA {
        return Ok(());
    }
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(explain)?;
    // Another process may have migrated it while this one waited for the lock.
    let found = usize::try_from(schema(&transaction, path)?).unwrap_or(0);
    for step in &MIGRATIONS[found..] {
        transaction.execute_batch(step).map_err(explain)?;
    }
    transaction
        .pragma_update(None, "user_version", SCHEMA)
        .map_err(explain)?;
    transaction
        .pragma_update(None, "application_id", APPLICATION_ID)
        .map_err(explain)?;
    transaction.commit().map_err(explain)
}

/// Checkpoints the log into the file, as far as no other connection is reading or writing it.
pub fn checkpoint_wal(path: &Path, patience: Duration) -> rusqlite::Result<()> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, patience)?;
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Switches to a write-ahead log. SQLite does not wait for other connections in this case despite its busy timeout, so this
/// function does; the setting is persistent.
fn enable_wal(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    const RETRY_AFTER: Duration = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && waited < patience => {
                std::thread::sleep(RETRY_AFTER);
                waited += RETRY_AFTER;
            }
            done => return done,
        }
    }
}
