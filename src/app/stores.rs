//! Opens stores: the configured one, and any other that a command names.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Access, App};
use crate::config::StoreTarget;
use crate::failure::Failure;
use crate::store::firestore::{FirestoreStore, FirestoreTarget};
use crate::store::guarded::Guarded;
use crate::store::memory::MemoryStore;
use crate::store::retention::Retention;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{SourceStore, StoreError};

impl App {
    /// Opens the configured store.
    pub async fn store(&self, access: Access) -> Result<Arc<dyn SourceStore>, Failure> {
        self.open_store(&self.settings.store.target, access).await
    }

    /// Opens a store. What is read from it is free of evidence that is dated in the future.
    pub async fn open_store(
        &self,
        target: &StoreTarget,
        access: Access,
    ) -> Result<Arc<dyn SourceStore>, Failure> {
        let store = self.unguarded_store(target, access).await?;
        Ok(Arc::new(Guarded::new(store, self.evidence_clock())))
    }

    /// Opens a store without filtering, evidence that no reader would accept included.
    pub async fn unguarded_store(
        &self,
        target: &StoreTarget,
        access: Access,
    ) -> Result<Arc<dyn SourceStore>, Failure> {
        let retention = self.retention();
        Ok(match target {
            StoreTarget::Sqlite(path) => {
                let options = SqliteOptions {
                    retention,
                    ..SqliteOptions::default()
                };
                match access {
                    Access::Read => Arc::new(SqliteStore::open_read_only(path, options).await?),
                    Access::Write => Arc::new(SqliteStore::open(path, options).await?),
                }
            }
            StoreTarget::Memory => Arc::new(MemoryStore::new(retention)),
            // It connects on the first request; a store that is down fails then.
            StoreTarget::Firestore { project, database } => {
                if self.settings.google.firestore_emulator.is_none() {
                    super::needs_certificates("cannot use the store")?;
                }
                Arc::new(self.firestore(project, database, retention))
            }
        })
    }

    /// Returns the limits of the history.
    pub fn retention(&self) -> Retention {
        Retention {
            entries: self.settings.store.history,
            ..Retention::default()
        }
    }

    /// Returns the file of the documents and the outbox: the store itself, or one of its own beside a remote store.
    pub fn outbox_file(&self) -> PathBuf {
        match &self.settings.store.target {
            StoreTarget::Sqlite(path) => path.clone(),
            StoreTarget::Memory | StoreTarget::Firestore { .. } => self.settings.state_dir.join("watch.db"),
        }
    }

    fn firestore(&self, project: &str, database: &str, retention: Retention) -> FirestoreStore {
        let google = &self.settings.google;
        FirestoreStore::new(FirestoreTarget {
            collection: self.settings.store.collection.clone(),
            emulator: google.firestore_emulator.clone(),
            credentials_file: google.credentials_file.clone(),
            retention,
            ..FirestoreTarget::new(project, database)
        })
    }

    /// Returns the rules of the platform's router, by id; `None` where they are not in the store in use.
    pub async fn routing_rules(&self) -> Option<Result<Vec<(String, serde_json::Value)>, StoreError>> {
        let StoreTarget::Firestore { project, database } = &self.settings.store.target else {
            return None;
        };
        let store = self.firestore(project, database, Retention::default());
        Some(store.others("configs/routingRules", "rules").await)
    }
}
