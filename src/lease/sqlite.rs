//! Leases in a SQLite file, for several processes of one host.
//!
//! Time is that since the start of the system, which all processes of a host share, containers included, and which no change of
//! the wall clock affects. A record of another start of the system has expired. The file is not that of the documents: a renewal
//! must not wait for a large commit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{BootClock, Fence, Holder, LeaseEngine, LeaseError, LeaseName, LeaseRecord, Scope, SharedText};
use crate::blocking::blocking;
use crate::clock::Clock;
use crate::store::sqlite::error;

/// `synchronous = FULL`: an acquisition that was lost in a power failure would be granted again with the same fence.
const PREPARE: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS leases (
        fleet TEXT NOT NULL, name TEXT NOT NULL, holder TEXT NOT NULL, fence INTEGER NOT NULL,
        boot TEXT NOT NULL, expires_ms INTEGER NOT NULL, note TEXT NOT NULL, PRIMARY KEY (fleet, name)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS fleets (
        name TEXT PRIMARY KEY, version INTEGER NOT NULL, view TEXT NOT NULL
    ) STRICT;";

/// The engine in one file.
pub struct SqliteLeases(Arc<Shared>);

struct Shared {
    path: PathBuf,
    scope: Scope,
    boot: String,
    boot_clock: Arc<dyn BootClock>,
    clock: Arc<dyn Clock>,
    connection: Mutex<Option<Opened>>,
}

struct Opened {
    connection: Connection,
    /// Identity of the file.
    file: Option<(u64, u64)>,
}

impl SqliteLeases {
    /// Creates the engine. The file is made at the first call. Fails where the processes of the host share no clock.
    pub fn new(
        path: &Path,
        scope: Scope,
        boot_clock: Arc<dyn BootClock>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LeaseError> {
        let refused = |reason: &str| LeaseError::Refused {
            location: location(path),
            reason: reason.to_owned(),
            hint: "set fleet.url to an address of NATS, PostgreSQL or Firestore".to_owned(),
        };
        let boot = crate::os::boot_id();
        let boot = boot.ok_or_else(|| {
            refused("this system does not show when it was started, which leases in a file need")
        })?;
        let directory = path.parent().unwrap_or(path);
        if crate::os::is_on_network(directory) {
            return Err(refused(
                "it is on a network file system, which other hosts may use",
            ));
        }
        Ok(Self(Arc::new(Shared {
            path: path.to_owned(),
            scope,
            boot,
            boot_clock,
            clock,
            connection: Mutex::default(),
        })))
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &Shared) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LeaseError> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.call(work)).await
    }
}

fn location(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

impl Shared {
    fn call<T>(
        &self,
        work: impl FnOnce(&mut Connection, &Self) -> rusqlite::Result<T>,
    ) -> Result<T, LeaseError> {
        let explain = |error: rusqlite::Error| LeaseError::Store(error::explain(&self.path, &error));
        let mut connection = self.connection.lock();
        // After the file was removed or replaced, the connection would write to one that no other process opens.
        if connection
            .as_ref()
            .is_some_and(|opened| self.file().is_none() || opened.file != self.file())
        {
            *connection = None;
        }
        let opened = match &mut *connection {
            Some(opened) => opened,
            none => none.insert(self.open().map_err(explain)?),
        };
        work(&mut opened.connection, self).map_err(explain)
    }

    /// Returns the identity of the file at the path; `None` if there is none.
    fn file(&self) -> Option<(u64, u64)> {
        let found = std::fs::metadata(&self.path).ok()?;
        // Where the system has no identities, it counts as the same.
        Some(crate::os::file_id(&found).unwrap_or_default())
    }

    fn open(&self) -> rusqlite::Result<Opened> {
        if let Some(parent) = self.path.parent() {
            // A failure shows when the file is opened.
            let _ = crate::files::make_private_dir(parent);
        }
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(self.scope.terms.patience())?;
        connection.execute_batch(PREPARE)?;
        let file = self.file();
        Ok(Opened { connection, file })
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.boot_clock.now().as_millis()).unwrap_or(i64::MAX)
    }

    fn ttl_ms(&self) -> i64 {
        i64::try_from(self.scope.terms.ttl.as_millis()).unwrap_or(i64::MAX)
    }

    fn acquire(
        &self,
        connection: &mut Connection,
        name: &str,
        holder: &str,
        note: &str,
    ) -> rusqlite::Result<Option<i64>> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (fleet, now) = (self.scope.fleet.as_str(), self.now_ms());
        let found = transaction
            .query_row(
                "SELECT holder, fence, boot, expires_ms FROM leases WHERE fleet = ?1 AND name = ?2",
                [fleet, name],
                |row| {
                    let (by, boot): (String, String) = (row.get(0)?, row.get(2)?);
                    let is_live = boot == self.boot && now < row.get(3)?;
                    Ok((by, row.get::<_, i64>(1)?, is_live))
                },
            )
            .optional()?;
        let began = self.clock.now().as_millis();
        let fence = match found {
            Some((by, fence, true)) if by == holder => fence,
            Some((_, _, true)) => return Ok(None),
            // A fence begins with the time and not with 1, so that it grows even if the file was lost.
            Some((_, fence, false)) => began.max(fence + 1),
            None => began.max(1),
        };
        transaction.execute(
            "INSERT OR REPLACE INTO leases VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![fleet, name, holder, fence, self.boot, now + self.ttl_ms(), note],
        )?;
        transaction.commit()?;
        Ok(Some(fence))
    }

    fn list(&self, connection: &Connection) -> rusqlite::Result<Vec<(String, String, i64, String)>> {
        let mut select = connection.prepare_cached(
            "SELECT name, holder, fence, note FROM leases WHERE fleet = ?1 AND boot = ?2 AND expires_ms > ?3 ORDER BY name",
        )?;
        let rows = select.query_map(
            params![self.scope.fleet.as_str(), self.boot, self.now_ms()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        rows.collect()
    }
}

fn number_of(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}

fn fence_of(number: i64) -> Fence {
    Fence(u64::try_from(number).unwrap_or(0))
}

#[async_trait]
impl LeaseEngine for SqliteLeases {
    fn location(&self) -> String {
        location(&self.0.path)
    }

    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        note: &str,
    ) -> Result<Option<Fence>, LeaseError> {
        let (name, holder, note) = (name.to_string(), holder.to_string(), note.to_owned());
        let fence = self
            .call(move |connection, shared| shared.acquire(connection, &name, &holder, &note))
            .await?;
        Ok(fence.map(fence_of))
    }

    async fn renew(
        &self,
        name: &LeaseName,
        holder: &Holder,
        fence: Fence,
        note: &str,
    ) -> Result<bool, LeaseError> {
        let (name, holder, note) = (name.to_string(), holder.to_string(), note.to_owned());
        self.call(move |connection, shared| {
            let now = shared.now_ms();
            let changed = connection.execute(
                "UPDATE leases SET expires_ms = ?1, note = ?2
                 WHERE fleet = ?3 AND name = ?4 AND holder = ?5 AND fence = ?6 AND boot = ?7 AND expires_ms > ?8",
                params![
                    now + shared.ttl_ms(),
                    note,
                    shared.scope.fleet.as_str(),
                    name,
                    holder,
                    number_of(fence),
                    shared.boot,
                    now
                ],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    async fn release(&self, name: &LeaseName, holder: &Holder, fence: Fence) -> Result<(), LeaseError> {
        let (name, holder) = (name.to_string(), holder.to_string());
        self.call(move |connection, shared| {
            let fleet = shared.scope.fleet.as_str();
            connection.execute(
                "UPDATE leases SET expires_ms = min(expires_ms, ?1)
                 WHERE fleet = ?2 AND name = ?3 AND holder = ?4 AND fence = ?5",
                params![shared.now_ms(), fleet, name, holder, number_of(fence)],
            )
        })
        .await
        .map(drop)
    }

    async fn list(&self) -> Result<Vec<LeaseRecord>, LeaseError> {
        let rows = self.call(|connection, shared| shared.list(connection)).await?;
        let unreadable = |reason: String| LeaseError::Refused {
            location: self.location(),
            reason,
            hint: "the file was changed by hand; stop all members, remove it and start them again".to_owned(),
        };
        let record = |(name, holder, fence, note): (String, String, i64, String)| {
            Ok(LeaseRecord {
                name: name.parse().map_err(unreadable)?,
                holder: holder.parse().map_err(unreadable)?,
                fence: fence_of(fence),
                note,
            })
        };
        rows.into_iter().map(record).collect()
    }

    async fn view(&self) -> Result<Option<SharedText>, LeaseError> {
        self.call(|connection, shared| {
            let read = |row: &rusqlite::Row<'_>| {
                Ok(SharedText {
                    version: row.get::<_, i64>(0)?.to_string(),
                    text: row.get(1)?,
                })
            };
            let select = "SELECT version, view FROM fleets WHERE name = ?1";
            connection
                .query_row(select, [shared.scope.fleet.as_str()], read)
                .optional()
        })
        .await
    }

    async fn replace_view(&self, base: Option<&str>, text: &str) -> Result<bool, LeaseError> {
        let (base, text) = (base.map(str::to_owned), text.to_owned());
        self.call(move |connection, shared| {
            let fleet = shared.scope.fleet.as_str();
            // It begins with the time, so that a version does not return after the file was lost.
            let changed = match base {
                None => connection.execute(
                    "INSERT OR IGNORE INTO fleets VALUES (?1, ?2, ?3)",
                    params![fleet, shared.clock.now().as_millis(), text],
                )?,
                Some(base) => connection.execute(
                    "UPDATE fleets SET version = version + 1, view = ?3 WHERE name = ?1 AND CAST(version AS TEXT) = ?2",
                    params![fleet, base, text],
                )?,
            };
            Ok(changed > 0)
        })
        .await
    }
}
