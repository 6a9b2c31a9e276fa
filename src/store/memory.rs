//! An in-memory store for demos, dry runs and tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::core::document::SourceDocument;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::store::retention::Retention;
use crate::store::{HistoryEntry, SourceStore, StoreError, Stored, Version, Versioned, Write, stored};

/// Documents in memory, in the same form as in other stores. Clones share one store.
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    retention: Retention,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    documents: BTreeMap<String, (Value, u64)>,
    history: BTreeMap<String, Vec<HistoryEntry>>,
    sequence: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Retention::default())
    }
}

impl MemoryStore {
    /// Creates an empty store with limits for the history.
    pub fn new(retention: Retention) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            retention,
            changes: watch::Sender::new(0),
        }))
    }

    /// Stores a document without validation, as another program would.
    pub fn put_raw(&self, document_id: &str, document: Value) {
        let mut state = self.0.state.lock();
        let version = state.next_version();
        state
            .documents
            .insert(document_id.to_owned(), (document, version));
        drop(state);
        self.0.changed();
    }

    /// Returns a document in its stored form.
    pub fn get_raw(&self, document_id: &str) -> Option<Value> {
        let state = self.0.state.lock();
        state
            .documents
            .get(document_id)
            .map(|(document, _)| document.clone())
    }
}

impl Shared {
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn all(&self) -> Vec<Stored> {
        let documents = self.state.lock().documents.clone();
        documents.into_iter().map(parsed).collect()
    }
}

fn parsed((document_id, (document, version)): (String, (Value, u64))) -> Stored {
    Stored {
        document: stored::read(&document_id, document).map(|value| Versioned {
            value,
            version: name(version),
        }),
        document_id,
    }
}

impl State {
    fn next_version(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn write(&mut self, write: &Write, retention: Retention) -> Result<Version, StoreError> {
        let document_id = write.document.key.to_string();
        let (fields, _) = stored::write(&write.document)?;
        let current = self
            .documents
            .get(&document_id)
            .map(|(_, version)| name(*version));
        if current != write.base {
            return Err(StoreError::Conflict { document_id });
        }
        self.remember(&document_id, &write.history, retention);
        let version = self.next_version();
        self.documents
            .insert(document_id, (Value::Object(fields), version));
        Ok(name(version))
    }

    fn remember(&mut self, document_id: &str, entries: &[HistoryEntry], retention: Retention) {
        if entries.is_empty() {
            return;
        }
        let kept = self.history.entry(document_id.to_owned()).or_default();
        for entry in entries {
            if kept.iter().all(|known| known.id != entry.id) {
                kept.push(entry.clone());
            }
        }
        retention.apply(kept);
    }
}

fn name(version: u64) -> Version {
    Version(version.to_string())
}

#[async_trait]
impl SourceStore for MemoryStore {
    fn location(&self) -> String {
        "memory".into()
    }

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        let document_id = key.to_string();
        let found = self.0.state.lock().documents.get(&document_id).cloned();
        let stored = found.map(|found| parsed((document_id, found)));
        stored.map(Stored::into_result).transpose()
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        Ok(self.0.all())
    }

    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError> {
        let state = self.0.state.lock();
        let found = state.documents.get(document_id);
        Ok(found.map(|(document, version)| Versioned {
            value: document.to_string(),
            version: name(*version),
        }))
    }

    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError> {
        let mut state = self.0.state.lock();
        let known = state
            .documents
            .get(document_id)
            .map(|(_, version)| name(*version));
        if known.as_ref() != Some(version) {
            let document_id = document_id.to_owned();
            return Err(StoreError::Conflict { document_id });
        }
        state.documents.remove(document_id);
        drop(state);
        self.0.changed();
        Ok(())
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        let mut state = self.0.state.lock();
        let results: Vec<_> = writes
            .iter()
            .map(|write| state.write(write, self.0.retention))
            .collect();
        drop(state);
        if results.iter().any(Result::is_ok) {
            self.0.changed();
        }
        results
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        let mut state = self.0.state.lock();
        let document = state.documents.remove(document_id).is_some();
        let history = state.history.remove(document_id).is_some();
        drop(state);
        if document {
            self.0.changed();
        }
        Ok(document || history)
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        self.0
            .state
            .lock()
            .remember(&key.to_string(), entries, self.0.retention);
        Ok(())
    }

    async fn drop_history_after(&self, key: &SourceKey, until: Timestamp) -> Result<(), StoreError> {
        if let Some(kept) = self.0.state.lock().history.get_mut(&key.to_string()) {
            kept.retain(|entry| entry.transition.at <= until);
        }
        Ok(())
    }

    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let state = self.0.state.lock();
        let kept = state.history.get(&key.to_string()).into_iter().flatten();
        Ok(kept.take(limit).cloned().collect())
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError> {
        let mut changes = self.0.changes.subscribe();
        changes.mark_changed();
        let watching = (self.0.clone(), changes);
        Ok(stream::unfold(watching, |(shared, mut changes)| async move {
            changes.changed().await.ok()?;
            Some((Ok(shared.all()), (shared, changes)))
        })
        .boxed())
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
