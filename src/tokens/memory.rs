//! In-memory tokens, for tests and the demo.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::locks::Gates;
use super::{Journal, Lock, Snapshot, TokenError, TokenRecord, TokenStore};
use crate::core::observation::Identity;
use crate::store::Version;

/// A [`TokenStore`] without persistence.
#[derive(Debug, Default)]
pub struct MemoryTokenStore {
    /// Each record with the number of its writes.
    records: Mutex<BTreeMap<Identity, (TokenRecord, u64)>>,
    gates: Gates,
    journal: Journal,
}

impl MemoryTokenStore {
    fn with(&self, is_wanted: impl Fn(&TokenRecord) -> bool) -> Vec<Identity> {
        let records = self.records.lock();
        let wanted = records.iter().filter(|(_, (record, _))| is_wanted(record));
        wanted.map(|(identity, _)| identity.clone()).collect()
    }
}

#[async_trait]
impl TokenStore for MemoryTokenStore {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        Ok(self.with(|record| record.token.is_some()))
    }

    async fn pending(&self) -> Result<Vec<Identity>, TokenError> {
        Ok(self.with(|record| record.pending.is_some()))
    }

    async fn read(&self, identity: &Identity) -> Result<Snapshot, TokenError> {
        let (record, writes) = self.records.lock().get(identity).cloned().unwrap_or_default();
        Ok(Snapshot {
            record,
            version: Version(writes.to_string()),
            read_at: None,
        })
    }

    async fn write(
        &self,
        identity: &Identity,
        record: &TokenRecord,
        base: &Version,
    ) -> Result<Version, TokenError> {
        let mut records = self.records.lock();
        let (current, writes) = records.entry(identity.clone()).or_default();
        if base.0 != writes.to_string() {
            return Err(TokenError::Conflict {
                identity: identity.clone(),
            });
        }
        *current = record.clone();
        *writes += 1;
        Ok(Version(writes.to_string()))
    }

    async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError> {
        Ok(Box::new(self.gates.pass(identity).await))
    }

    fn lock_domain(&self) -> &'static str {
        "memory"
    }

    fn journal(&self) -> &Journal {
        &self.journal
    }
}
