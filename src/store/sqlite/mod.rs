//! The embedded store: one file, many processes. `watch` writes while `sources status` reads concurrently.
//!
//! SQLite blocks, so statements run off the async threads, except in read-only processes. Opening and migrating are in
//! `database`, statements in `rows` and `confirmations`, errors in `error`.

pub(crate) mod confirmations;
pub(crate) mod database;
pub(crate) mod error;
pub(crate) mod rows;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use rusqlite::Connection;

use crate::blocking::blocking;
use crate::core::document::SourceDocument;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::store::retention::Retention;
use crate::store::sqlite::database::{Access, Opened};
use crate::store::{
    HistoryEntry, SourceStore, StoreError, Stored, Unusable, Version, Versioned, Write, stored,
};

/// Settings of a SQLite store. The defaults suit everything but tests.
#[derive(Debug, Clone, Copy)]
pub struct SqliteOptions {
    /// Limits of the history.
    pub retention: Retention,
    /// How long to wait for another writing process.
    pub busy_timeout: Duration,
    /// How often [`SourceStore::watch`] checks for writes of other connections; one check costs microseconds.
    pub watch_interval: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            busy_timeout: Duration::from_secs(5),
            watch_interval: Duration::from_millis(200),
        }
    }
}

/// Documents in a SQLite file.
pub struct SqliteStore(Arc<Shared>);

/// State shared by a store's calls and watches.
struct Shared {
    path: PathBuf,
    access: Access,
    options: SqliteOptions,
    connection: Mutex<Option<Opened>>,
    /// Whether there were writes since the log was last checkpointed.
    needs_checkpoint: AtomicBool,
}

impl SqliteStore {
    /// Opens the store at `path` for reading and writing, creating or migrating it as needed.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let store = Self::with(path, options, Access::Write);
        store.call(|_| Ok(())).await?;
        Ok(store)
    }

    /// Opens the store at `path` read-only. It may not exist yet, and another process may be writing it.
    pub async fn open_read_only(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let store = Self::with(path, options, Access::Read);
        store.read(|_| Ok(())).await?;
        Ok(store)
    }

    fn with(path: &Path, options: SqliteOptions, access: Access) -> Self {
        Self(Arc::new(Shared {
            path: path.to_owned(),
            access,
            options,
            connection: Mutex::new(None),
            needs_checkpoint: AtomicBool::new(false),
        }))
    }

    /// Runs `work`, which must not change anything. Returns the default if there is no store yet.
    async fn read<T: Default + Send + 'static>(
        &self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        // Starting a thread would take as long as reading hundreds of sources. If the database is locked, the wait happens on
        // a separate thread, so that this one can still handle signals.
        if self.0.access == Access::Read {
            match self.0.with_connection(Duration::ZERO, &work) {
                Err(StoreError::Unavailable { .. }) => {}
                done => return Ok(done?.unwrap_or_default()),
            }
        }
        let shared = self.0.clone();
        blocking(move || {
            let patience = shared.options.busy_timeout;
            Ok(shared.with_connection(patience, work)?.unwrap_or_default())
        })
        .await
    }

    /// Runs `work`, which may write.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.0.clone();
        blocking(move || {
            if shared.access == Access::Read {
                return Err(shared.read_only());
            }
            let patience = shared.options.busy_timeout;
            shared
                .with_connection(patience, work)?
                .ok_or_else(|| shared.read_only())
        })
        .await
    }
}

impl Shared {
    fn location(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    fn read_only(&self) -> StoreError {
        StoreError::Refused {
            location: self.location(),
            reason: "it was opened only for reading".into(),
            hint: "only one who opens the store for writing may change it".into(),
        }
    }

    /// Runs `work` on the open connection, waiting for other connections up to `patience`; `None` if there is no file to read
    /// yet. The file may be moved or deleted while it is in use; further writes to it would be lost, so the file now at the
    /// path is opened instead.
    fn with_connection<T>(
        &self,
        patience: Duration,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut slot = self.connection.lock();
        if slot
            .as_ref()
            .is_some_and(|opened| opened.was_replaced(&self.path))
        {
            *slot = None;
        }
        if slot.is_none() {
            *slot = database::open(&self.path, self.access, patience)?;
        }
        let Some(opened) = slot.as_mut() else {
            return Ok(None);
        };
        let connection = &mut opened.connection;
        connection
            .busy_timeout(patience)
            .and_then(|()| database::reject_newer(connection))
            .and_then(|()| work(connection))
            .map(Some)
            .map_err(|error| error::explain(&self.path, &error))
    }
}

#[async_trait]
impl SourceStore for SqliteStore {
    fn location(&self) -> String {
        self.0.location()
    }

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        let document_id = key.to_string();
        let row = self
            .read(move |connection| rows::load(connection, &document_id))
            .await?;
        row.map(|row| row.read().into_result()).transpose()
    }

    async fn load_some(
        &self,
        keys: &[SourceKey],
    ) -> Vec<Result<Option<Versioned<SourceDocument>>, StoreError>> {
        let wanted: Vec<String> = keys.iter().map(SourceKey::to_string).collect();
        let rows = self
            .read(move |connection| {
                let mut rows: Vec<Option<rows::Row>> = wanted.iter().map(|_| None).collect();
                rows::load_some(connection, &wanted, |place, row| rows[place] = row)?;
                Ok(rows)
            })
            .await;
        match rows {
            // There is no store yet.
            Ok(rows) if rows.is_empty() => keys.iter().map(|_| Ok(None)).collect(),
            Ok(rows) => rows
                .into_iter()
                .map(|row| row.map(|row| row.read().into_result()).transpose())
                .collect(),
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        self.read(rows::load_all).await
    }

    async fn unusable(&self) -> Result<Vec<(String, Unusable)>, StoreError> {
        self.read(rows::unusable).await
    }

    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError> {
        let document_id = document_id.to_owned();
        let found = self
            .read(move |connection| rows::raw(connection, &document_id))
            .await?;
        Ok(found.map(|(value, version)| Versioned {
            value,
            version: Version(version.to_string()),
        }))
    }

    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError> {
        let (id, version) = (document_id.to_owned(), version.0.parse().unwrap_or(0));
        let is_removed = self
            .call(move |connection| rows::remove(connection, &id, version))
            .await?;
        match is_removed {
            true => Ok(()),
            false => Err(StoreError::Conflict {
                document_id: document_id.to_owned(),
            }),
        }
    }

    async fn summaries(&self) -> Result<Vec<Stored<Arc<SourceSummary>>>, StoreError> {
        self.read(rows::summaries).await
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        let mut results: Vec<Option<Result<Version, StoreError>>> = Vec::with_capacity(writes.len());
        let mut batch = Vec::new();
        for write in writes {
            match rows::Upsert::of(write) {
                Ok(upsert) => {
                    batch.push(upsert);
                    results.push(None);
                }
                Err(refused) => results.push(Some(Err(refused))),
            }
        }
        let documents = if batch.is_empty() {
            Vec::new()
        } else {
            let ids: Vec<String> = batch.iter().map(|upsert| upsert.document_id.clone()).collect();
            let retention = self.0.options.retention;
            match self
                .call(move |connection| rows::save(connection, &batch, retention))
                .await
            {
                Ok(saved) => {
                    self.0.needs_checkpoint.store(true, Ordering::Relaxed);
                    saved
                }
                // The whole transaction failed, so each of its writes has the same result.
                Err(failure) => ids.iter().map(|_| Err(failure.clone())).collect(),
            }
        };
        let mut documents = documents.into_iter();
        results
            .into_iter()
            .map(|known| {
                known
                    .or_else(|| documents.next())
                    .expect("one result per write of the batch")
            })
            .collect()
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        let document_id = document_id.to_owned();
        self.call(move |connection| rows::delete(connection, &document_id))
            .await
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        let (source, entries, retention) = (key.to_string(), entries.to_vec(), self.0.options.retention);
        self.call(move |connection| rows::append(connection, &source, &entries, retention))
            .await
    }

    async fn drop_history_after(&self, key: &SourceKey, until: Timestamp) -> Result<(), StoreError> {
        let source = key.to_string();
        self.call(move |connection| rows::drop_history_after(connection, &source, until))
            .await
    }

    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let source = key.to_string();
        self.read(move |connection| rows::history(connection, &source, limit))
            .await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError> {
        Ok(watch::documents(self.0.clone()))
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        if !self.0.needs_checkpoint.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let shared = self.0.clone();
        blocking(move || {
            // Uses a separate connection, so that concurrent writers do not wait.
            let patience = shared.options.busy_timeout;
            database::checkpoint_wal(&shared.path, patience)
                .map_err(|error| error::explain(&shared.path, &error))
        })
        .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.call(rows::check).await
    }
}

/// Parses a row as a source document, or returns why it cannot be used.
fn stored(document_id: String, version: i64, text: &str) -> Stored {
    Stored {
        document: stored::read_text(&document_id, text).map(|value| Versioned {
            value,
            version: Version(version.to_string()),
        }),
        document_id,
    }
}
