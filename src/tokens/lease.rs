//! Reading and writing a record under its lock.

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Lock, StoredToken, TokenError, TokenRecord, TokenStore};
use crate::core::observation::Identity;
use crate::store::Version;

/// A locked record. It is written only if it is still as it was read, so another machine's change is never overwritten.
pub struct TokenLease<'a, S: ?Sized> {
    store: &'a S,
    identity: Identity,
    /// The version that was last read or written.
    base: Mutex<Option<Version>>,
    _lock: Lock,
}

/// Leases of every [`TokenStore`].
#[async_trait]
pub trait TokenStoreExt: TokenStore {
    /// Locks the record of `identity`.
    async fn lease<'a>(&'a self, identity: &Identity) -> Result<TokenLease<'a, Self>, TokenError> {
        Ok(TokenLease {
            store: self,
            identity: identity.clone(),
            base: Mutex::default(),
            _lock: self.lock(identity).await?,
        })
    }

    /// Replaces the token of `identity`, whatever it is.
    async fn set_token(&self, identity: &Identity, token: Option<StoredToken>) -> Result<(), TokenError> {
        let lease = self.lease(identity).await?;
        let mut record = lease.load().await?;
        record.replace_token(token);
        lease.save(&record).await
    }
}

impl<S: TokenStore + ?Sized> TokenStoreExt for S {}

impl<S: TokenStore + ?Sized> TokenLease<'_, S> {
    /// Reads the record; an empty one if there is none yet.
    pub async fn load(&self) -> Result<TokenRecord, TokenError> {
        let snapshot = self.store.read(&self.identity).await?;
        *self.base.lock() = Some(snapshot.version);
        Ok(snapshot.record)
    }

    /// Writes the record, if it is still as it was last read or written here.
    pub async fn save(&self, record: &TokenRecord) -> Result<(), TokenError> {
        let read = self.base.lock().clone();
        let base = match read {
            Some(base) => base,
            None => self.store.read(&self.identity).await?.version,
        };
        let version = self.store.write(&self.identity, record, &base).await?;
        *self.base.lock() = Some(version);
        Ok(())
    }
}
