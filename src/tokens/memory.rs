//! In-memory tokens, for tests and the demo.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{StoredToken, TokenError, TokenLease, TokenRecord, TokenStore};
use crate::core::observation::Identity;

type Records = Arc<Mutex<BTreeMap<Identity, TokenRecord>>>;

/// A [`TokenStore`] without persistence.
#[derive(Debug, Default)]
pub struct MemoryTokenStore {
    records: Records,
    gates: Gates,
}

/// One mutex per identity, for exclusive access within this process.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<BTreeMap<Identity, Arc<AsyncMutex<()>>>>);

impl Gates {
    pub(super) async fn pass(&self, identity: &Identity) -> OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.0.lock();
            Arc::clone(gates.entry(identity.clone()).or_default())
        };
        gate.lock_owned().await
    }
}

#[async_trait]
impl TokenStore for MemoryTokenStore {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        let records = self.records.lock();
        let with_token = records.iter().filter(|(_, record)| record.token.is_some());
        Ok(with_token.map(|(identity, _)| identity.clone()).collect())
    }

    async fn load(&self, identity: &Identity) -> Result<Option<StoredToken>, TokenError> {
        let records = self.records.lock();
        Ok(records.get(identity).and_then(|record| record.token.clone()))
    }

    async fn lease(&self, identity: &Identity) -> Result<Box<dyn TokenLease>, TokenError> {
        Ok(Box::new(Lease {
            identity: identity.clone(),
            records: Arc::clone(&self.records),
            _gate: self.gates.pass(identity).await,
        }))
    }
}

struct Lease {
    identity: Identity,
    records: Records,
    _gate: OwnedMutexGuard<()>,
}

#[async_trait]
impl TokenLease for Lease {
    async fn load(&self) -> Result<TokenRecord, TokenError> {
        let records = self.records.lock();
        Ok(records.get(&self.identity).cloned().unwrap_or_default())
    }

    async fn save(&self, record: &TokenRecord) -> Result<(), TokenError> {
        let mut records = self.records.lock();
        records.insert(self.identity.clone(), record.clone());
        Ok(())
    }
}
