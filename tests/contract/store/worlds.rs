//! The worlds in which the suite runs: how each adapter is opened, and how another program writes beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitbrat::store::SourceStore;
use bitbrat::store::memory::MemoryStore;
use bitbrat::store::retention::Retention;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::Value;

/// A fresh, empty store of one kind.
#[async_trait]
pub trait World: Send + Sync + Sized + 'static {
    /// Makes the store.
    async fn with(retention: Retention) -> Self;

    /// Opens the same store once more, as another process would.
    async fn open(&self) -> Arc<dyn SourceStore>;

    /// Puts a document as another program would, without our code.
    async fn put_raw(&self, document_id: &str, document: Value);

    /// Reads a document without our code.
    async fn raw(&self, document_id: &str) -> Option<Value>;
}

pub struct MemoryWorld(MemoryStore);

#[async_trait]
impl World for MemoryWorld {
    async fn with(retention: Retention) -> Self {
        Self(MemoryStore::new(retention))
    }

    async fn open(&self) -> Arc<dyn SourceStore> {
        Arc::new(self.0.clone())
    }

    async fn put_raw(&self, document_id: &str, document: Value) {
        self.0.put_raw(document_id, document);
    }

    async fn raw(&self, document_id: &str) -> Option<Value> {
        self.0.raw(document_id)
    }
}

pub struct SqliteWorld {
    directory: tempfile::TempDir,
    options: SqliteOptions,
}

impl SqliteWorld {
    fn connection(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.directory.path().join("store.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }
}

#[async_trait]
impl World for SqliteWorld {
    async fn with(retention: Retention) -> Self {
        let options = SqliteOptions {
            retention,
            watch_interval: Duration::from_millis(10),
            ..SqliteOptions::default()
        };
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
            options,
        };
        world.open().await;
        world
    }

    async fn open(&self) -> Arc<dyn SourceStore> {
        let path = self.directory.path().join("store.db");
        Arc::new(SqliteStore::open(&path, self.options).await.unwrap())
    }

    async fn put_raw(&self, document_id: &str, document: Value) {
        self.connection()
            .execute(
                "INSERT OR REPLACE INTO sources VALUES (?1, 1000000, ?2)",
                (document_id, document.to_string()),
            )
            .unwrap();
    }

    async fn raw(&self, document_id: &str) -> Option<Value> {
        let text: String = self
            .connection()
            .query_row(
                "SELECT document FROM sources WHERE id = ?1",
                [document_id],
                |row| row.get(0),
            )
            .ok()?;
        serde_json::from_str(&text).ok()
    }
}
