//! The worlds of the suite: how each adapter is opened.

use std::sync::Arc;

use async_trait::async_trait;
use bitbrat::store::firestore::FirestoreTarget;
use bitbrat::store::postgres::{PostgresAccess, PostgresAddress, PostgresTarget};
use bitbrat::store::retention::Retention;
use bitbrat::tokens::{
    FileTokenStore, FirestoreTokenOptions, FirestoreTokenStore, MemoryTokenStore, PostgresTokenOptions,
    PostgresTokenStore, TokenStore,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract::store::worlds::{self as stores, World as _};

/// A fresh, empty store of one kind.
#[async_trait]
pub trait World: Send + Sync + Sized + 'static {
    /// Whether each opened store is a process of its own, which distinguishes its writes from those of others.
    const SEVERAL_PROCESSES: bool;

    /// Creates the store.
    async fn new() -> Self;

    /// Opens the same store once more, as another process of this machine would.
    async fn open(&self) -> Arc<dyn TokenStore>;
}

pub struct MemoryWorld(Arc<MemoryTokenStore>);

#[async_trait]
impl World for MemoryWorld {
    const SEVERAL_PROCESSES: bool = false;

    async fn new() -> Self {
        Self(Arc::default())
    }

    async fn open(&self) -> Arc<dyn TokenStore> {
        self.0.clone()
    }
}

pub struct FileWorld(tempfile::TempDir);

#[async_trait]
impl World for FileWorld {
    const SEVERAL_PROCESSES: bool = true;

    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Arc<dyn TokenStore> {
        Arc::new(FileTokenStore::new(self.0.path().join("state/tokens.json")))
    }
}

/// A Firestore database, read and written as the platform does, without our code.
pub struct Platform {
    raw: stores::FirestoreWorld,
}

impl Platform {
    pub async fn new() -> Self {
        let mut raw = stores::FirestoreWorld::with(Retention::default()).await;
        "oauth".clone_into(&mut raw.target.collection);
        Self { raw }
    }

    pub fn project(&self) -> &str {
        &self.raw.target.project
    }

    /// Replaces the document of a place such as `twitch/bot`.
    pub async fn put(&self, place: &str, document: Value) {
        self.raw.put_raw(&format!("{place}/token"), document).await;
    }

    /// Reads the document of a place.
    pub async fn document(&self, place: &str) -> Option<Value> {
        self.raw.raw(&format!("{place}/token")).await
    }

    /// Makes the refresh that is recorded of a place as old as if its machine had been gone for long.
    pub async fn pass_deadline(&self, document: &str) {
        let mut own = stores::FirestoreWorld::with(Retention::default()).await;
        own.target = self.raw.target.clone();
        "bitbrat_tokens".clone_into(&mut own.target.collection);
        let Some(mut record) = own.raw(document).await else {
            return;
        };
        if let Some(deadline) = record.pointer_mut("/intent/deadline") {
            *deadline = "2000-01-01T00:00:00.000Z".into();
            own.put_raw(document, record).await;
        }
    }

    /// Opens the tokens on the machine with this state directory.
    pub fn open(&self, machine: &TempDir, refresh: bool) -> FirestoreTokenStore {
        FirestoreTokenStore::new(FirestoreTokenOptions {
            target: FirestoreTarget {
                setting: "tokens.url",
                ..self.raw.target.clone()
            },
            bot_path: "oauth/twitch/bot".to_owned(),
            broadcaster_path: "oauth/twitch/broadcaster".to_owned(),
            refresh,
            file: machine.path().join("state/tokens.json"),
        })
    }
}

/// The platform's documents, without tokens at first, or none at all.
pub struct FirestoreWorld<const DOCUMENTS: bool>(Platform, TempDir);

#[async_trait]
impl<const DOCUMENTS: bool> World for FirestoreWorld<DOCUMENTS> {
    const SEVERAL_PROCESSES: bool = true;

    async fn new() -> Self {
        let platform = Platform::new().await;
        if DOCUMENTS {
            for place in ["twitch/bot", "twitch/broadcaster"] {
                platform.put(place, json!({ "userId": "900100" })).await;
            }
        }
        Self(platform, tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.0.open(&self.1, true))
    }
}

/// A database with the platform's tables, read and written as the platform does, without our code.
pub struct Database {
    /// Schema of the platform's tables; ours has another one, with this name and `_own`.
    schema: String,
}

impl Database {
    pub async fn new() -> Self {
        let database = Self {
            schema: format!("p_{}", &uuid::Uuid::new_v4().simple().to_string()[..20]),
        };
        database.execute("CREATE SCHEMA {p}", &[]).await;
        for table in ["twitch_tokens", "auth_scopes"] {
            let create = format!(
                "CREATE TABLE {{p}}.{table} (id varchar(255) PRIMARY KEY, data jsonb NOT NULL, \
                 created_at timestamp DEFAULT now(), updated_at timestamp DEFAULT now())"
            );
            database.execute(&create, &[]).await;
        }
        database
    }

    pub fn own_schema(&self) -> String {
        format!("{}_own", self.schema)
    }

    /// Executes a statement on the platform's tables `{p}`.
    pub async fn execute(&self, statement: &str, parameters: &[&str]) -> Option<String> {
        let statement = statement.replace("{p}", &self.schema);
        stores::execute(&stores::postgres_url(), &statement, parameters).await
    }

    /// Replaces a row as the platform does: its whole document.
    pub async fn put(&self, row: &str, document: Value) {
        let statement = "INSERT INTO {p}.twitch_tokens (id, data) VALUES ($1, $2::text::jsonb)
                         ON CONFLICT (id) DO UPDATE SET data = excluded.data, updated_at = now()";
        self.execute(statement, &[row, &document.to_string()]).await;
    }

    pub async fn row(&self, row: &str) -> Option<Value> {
        let statement = "SELECT data::text FROM {p}.twitch_tokens WHERE id = $1";
        let text = self.execute(statement, &[row]).await?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// Opens the tokens on the machine with this state directory.
    pub fn open(&self, machine: &TempDir, refresh: bool) -> PostgresTokenStore {
        let address = PostgresAddress::parse(&stores::postgres_url()).unwrap();
        PostgresTokenStore::new(PostgresTokenOptions {
            target: PostgresTarget {
                schema: self.own_schema(),
                setting: "tokens.url",
                access: match refresh {
                    true => PostgresAccess::Write,
                    false => PostgresAccess::Read,
                },
                ..PostgresTarget::new(address)
            },
            platform_schema: self.schema.clone(),
            bot_path: "oauth/twitch/bot".to_owned(),
            broadcaster_path: "oauth/twitch/broadcaster".to_owned(),
            refresh,
            file: machine.path().join("state/tokens.json"),
        })
    }
}

/// The platform's rows, without tokens at first, or none at all.
pub struct PostgresWorld<const ROWS: bool>(Database, TempDir);

#[async_trait]
impl<const ROWS: bool> World for PostgresWorld<ROWS> {
    const SEVERAL_PROCESSES: bool = true;

    async fn new() -> Self {
        let database = Database::new().await;
        if ROWS {
            for row in ["twitch:bot", "twitch:broadcaster"] {
                database.put(row, json!({ "userId": "900100" })).await;
            }
        }
        Self(database, tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.0.open(&self.1, true))
    }
}
