//! What stores on this machine have beside the tokens themselves: locks and a journal in files, and the tokens that they have written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};

use super::locks::{self, Gates, beside, file_name};
use super::on_disk::{RecordOnDisk, version_of};
use super::{Journal, Lock, Snapshot, TokenError, TokenRecord};
use crate::core::observation::Identity;

/// The files beside a path.
#[derive(Debug)]
pub(super) struct Local {
    base: PathBuf,
    gates: Gates,
    /// The access tokens that were saved through this store.
    own: Mutex<BTreeMap<Identity, SecretString>>,
    pub(super) journal: Journal,
}

impl Local {
    pub(super) fn beside(base: PathBuf) -> Self {
        Self {
            gates: Gates::default(),
            own: Mutex::default(),
            journal: Journal::beside(&base),
            base,
        }
    }

    /// Returns the path that the files are beside.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Waits until no other task or process refreshes the token of `identity`.
    pub(super) async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError> {
        let gate = self.gates.pass(identity).await;
        let path = beside(&self.base, &file_name(identity, "lock"));
        Ok(Box::new((locks::lock(path, identity.as_str()).await?, gate)))
    }

    /// Notes which token is about to be saved.
    pub(super) fn note_own(&self, identity: &Identity, record: &TokenRecord) {
        if let Some(token) = &record.token {
            self.own.lock().insert(identity.clone(), token.access.clone());
        }
    }

    /// Whether the token was saved through this store.
    pub(super) fn is_own(&self, identity: &Identity, access: &SecretString) -> bool {
        let own = self.own.lock();
        own.get(identity)
            .is_some_and(|own| own.expose_secret() == access.expose_secret())
    }
}

impl From<Option<RecordOnDisk>> for Snapshot {
    fn from(record: Option<RecordOnDisk>) -> Self {
        Self {
            version: version_of(record.as_ref()),
            record: record.map(TokenRecord::from).unwrap_or_default(),
            read_at: None,
        }
    }
}
