//! The worlds of the suite: how each adapter is opened.

use std::sync::Arc;

use async_trait::async_trait;
use bitbrat::tokens::{FileTokenStore, MemoryTokenStore, TokenStore};

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
