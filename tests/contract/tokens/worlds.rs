//! The worlds of the suite: how each adapter is opened.

use std::sync::Arc;

use async_trait::async_trait;
use bitbrat::store::firestore::FirestoreTarget;
use bitbrat::store::retention::Retention;
use bitbrat::tokens::{
    FileTokenStore, FirestoreTokenOptions, FirestoreTokenStore, MemoryTokenStore, TokenStore,
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
