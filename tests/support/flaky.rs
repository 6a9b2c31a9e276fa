//! A store that can be made unavailable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bitbrat::core::document::SourceDocument;
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;
use bitbrat::store::{HistoryEntry, SourceStore, StoreError, Stored, Version, Versioned, Write};
use futures_util::stream::BoxStream;

/// A store that can be made unavailable; the wrapped one is always available.
#[derive(Default)]
pub struct Flaky<S> {
    pub inner: Arc<S>,
    pub away: Arc<AtomicBool>,
}

impl<S: SourceStore> Flaky<S> {
    fn check_up(&self) -> Result<(), StoreError> {
        match self.away.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(StoreError::Unavailable {
                location: self.inner.location(),
                reason: "it is away".into(),
                hint: None,
            }),
        }
    }
}

#[async_trait]
impl<S: SourceStore> SourceStore for Flaky<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        self.check_up()?;
        self.inner.load(key).await
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        self.check_up()?;
        self.inner.load_all().await
    }

    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError> {
        self.inner.raw(document_id).await
    }

    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError> {
        self.inner.remove(document_id, version).await
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        match self.check_up() {
            Ok(()) => self.inner.save(writes).await,
            Err(error) => writes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        self.inner.delete(document_id).await
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        self.inner.append_history(key, entries).await
    }

    async fn drop_history_after(&self, key: &SourceKey, until: Timestamp) -> Result<(), StoreError> {
        self.inner.drop_history_after(key, until).await
    }

    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.inner.history(key, limit).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError> {
        self.inner.watch().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.check_up()
    }
}
