//! Tokens in the keyring of the desktop: the Secret Service over D-Bus, which GNOME Keyring and KWallet implement.
//!
//! - Each account is one entry, whose service is the name in `tokens.url` and whose user is the account.
//! - A keyring has no compare-and-set, so a write compares under a lock file in the state directory; the lock of an account is a file there,
//!   too. The journal, in which a granted pair waits until it is stored, is on the disk.
//! - Calls block, and a locked keyring can ask a question on the desktop, so each runs on a thread of its own with a time limit.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keyring_core::api::CredentialStoreApi as _;
use keyring_core::{Error, Result as KeyringResult};
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use zbus_secret_service_keyring_store::Store;

use super::locks::{self, Gates, beside, file_name};
use super::on_disk::{RecordOnDisk, revision_of, version_of};
use super::{Journal, Lock, Snapshot, TokenError, TokenRecord, TokenStore};
use crate::blocking::blocking;
use crate::core::observation::Identity;
use crate::files::{self, Durability, FileAccess};
use crate::secrets;
use crate::store::Version;

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(5);
const ANNOUNCED: Durability = Durability::Volatile {
    because: "it only announces a change to processes that run now",
};
/// How long a person may take to unlock the keyring, where there is one to ask.
const UNLOCK_LIMIT: Duration = Duration::from_mins(1);

/// A [`TokenStore`] in the keyring of the desktop.
pub struct KeyringTokenStore {
    /// The service of the entries.
    name: String,
    /// Locks, journal and the file that announces changes are beside this path.
    base: PathBuf,
    connection: Arc<Connection>,
    gates: Gates,
    own: Mutex<BTreeMap<Identity, SecretString>>,
    journal: Journal,
}

/// The connection to the Secret Service.
#[derive(Default)]
struct Connection {
    store: Mutex<Option<Arc<Store>>>,
    /// Whether an entry could be written.
    is_proven: AtomicBool,
}

impl Drop for Connection {
    /// Closing the connection blocks, which a thread that runs tasks must not do.
    fn drop(&mut self) {
        if let Some(store) = self.store.get_mut().take() {
            std::thread::spawn(move || drop(store));
        }
    }
}

impl Connection {
    fn store(&self) -> KeyringResult<Arc<Store>> {
        let mut store = self.store.lock();
        if let Some(store) = &*store {
            return Ok(Arc::clone(store));
        }
        let opened = Store::new()?;
        *store = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Returns the text of an entry; `None` where there is none.
    fn get(&self, store: &Store, name: &str, user: &str) -> KeyringResult<Option<String>> {
        match store.build(name, user, None)?.get_password() {
            Ok(text) => Ok(Some(text)),
            Err(Error::NoEntry) => self.prove(store, name).map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// Writes an entry and deletes it: a locked keyring answers that there is no entry, which would pass for a logout.
    fn prove(&self, store: &Store, name: &str) -> KeyringResult<()> {
        if !self.is_proven.load(Ordering::Relaxed) {
            // Of another service, so that a search for accounts does not find it.
            let id = uuid::Uuid::new_v4().simple().to_string();
            let entry = store.build(&format!("{name}-trial"), &id, None)?;
            entry.set_password("trial")?;
            entry.delete_credential()?;
            self.is_proven.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns the users and texts of all entries.
    fn all(&self, store: &Store, name: &str) -> KeyringResult<Vec<(String, String)>> {
        let entries = store.search(&HashMap::from([("service", name)]))?;
        if entries.is_empty() {
            self.prove(store, name)?;
        }
        let mut all = Vec::new();
        for entry in entries {
            let mut attributes = entry.get_attributes()?;
            let text = entry.get_password()?;
            all.extend(attributes.remove("username").map(|user| (user, text)));
        }
        Ok(all)
    }
}

impl KeyringTokenStore {
    /// Creates the store for the entries of the service `name`, without a connection. Locks and journal are beside `base`.
    pub fn new(name: impl Into<String>, base: impl Into<PathBuf>) -> Self {
        let base = base.into();
        Self {
            name: name.into(),
            connection: Arc::default(),
            gates: Gates::default(),
            own: Mutex::default(),
            journal: Journal::beside(&base),
            base,
        }
    }

    /// Runs `work` on a thread that may block.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Store, &str) -> KeyringResult<T> + Send + 'static,
    ) -> Result<T, TokenError> {
        let (connection, name) = (Arc::clone(&self.connection), self.name.clone());
        let called = blocking(move || {
            let store = connection.store()?;
            let result = work(&connection, &store, &name);
            if let Err(Error::PlatformFailure(_)) = &result {
                // The service may have been restarted; the next call connects again.
                *connection.store.lock() = None;
            }
            result
        });
        match tokio::time::timeout(limit(), called).await {
            Ok(result) => result.map_err(|error| explain(&error)),
            Err(_) => Err(unusable(
                "it does not answer; a question to unlock it may be open on the desktop",
            )),
        }
    }

    async fn with(&self, is_wanted: fn(&TokenRecord) -> bool) -> Result<Vec<Identity>, TokenError> {
        let all = self.call(Connection::all).await?;
        let mut wanted = Vec::new();
        for (user, text) in all {
            if is_wanted(&TokenRecord::from(self.parse(&text)?)) {
                wanted.push(Identity::named(user));
            }
        }
        wanted.sort();
        Ok(wanted)
    }

    /// The parser's own message may quote a token, so only the position is reported.
    fn parse(&self, text: &str) -> Result<RecordOnDisk, TokenError> {
        serde_json::from_str(text).map_err(|error| {
            let reason = format!(
                "its entry of `{}` is damaged at column {}",
                self.name,
                error.column()
            );
            unusable(&reason)
        })
    }
}

/// Returns the limit of a call: at a terminal of a desktop a person can unlock the keyring.
fn limit() -> Duration {
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    if has_display && std::io::stderr().is_terminal() {
        UNLOCK_LIMIT
    } else {
        LIMIT
    }
}

fn unusable(reason: &str) -> TokenError {
    TokenError::Keyring {
        reason: reason.to_owned(),
    }
}

fn explain(error: &Error) -> TokenError {
    match error {
        Error::NoStorageAccess(_) => unusable("it is locked"),
        Error::PlatformFailure(cause) => {
            let cause = secrets::quote(&cause.to_string());
            unusable(&format!("no keyring answers on the session bus ({cause})"))
        }
        // The others' own texts contain no secret, unlike their fields.
        other => unusable(&secrets::quote(&other.to_string())),
    }
}

/// Announces a change to other processes. Without it they notice it only when they read the entry.
fn announce(path: &Path) {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let written = files::write(path, FileAccess::Owner, ANNOUNCED, |file| {
        file.write_all(id.as_bytes())
    });
    if let Err(error) = written {
        tracing::warn!(%error, "A changed token cannot be announced to other processes");
    }
}

#[async_trait]
impl TokenStore for KeyringTokenStore {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        self.with(|record| record.token.is_some()).await
    }

    async fn pending(&self) -> Result<Vec<Identity>, TokenError> {
        self.with(|record| record.pending.is_some()).await
    }

    async fn read(&self, identity: &Identity) -> Result<Snapshot, TokenError> {
        let user = identity.as_str().to_owned();
        let read = self.call(move |connection, store, name| connection.get(store, name, &user));
        let record = read.await?.map(|text| self.parse(&text)).transpose()?;
        let version = version_of(record.as_ref());
        Ok(Snapshot {
            record: record.map(TokenRecord::from).unwrap_or_default(),
            version,
            read_at: None,
        })
    }

    async fn write(
        &self,
        identity: &Identity,
        record: &TokenRecord,
        base: &Version,
    ) -> Result<Version, TokenError> {
        let writers = locks::lock(beside(&self.base, "keyring.lock"), "the keyring").await?;
        if self.read(identity).await?.version != *base {
            return Err(TokenError::Conflict {
                identity: identity.clone(),
            });
        }
        if let Some(token) = &record.token {
            let mut own = self.own.lock();
            own.insert(identity.clone(), token.access.clone());
        }
        let record = RecordOnDisk::from(record);
        let version = version_of(Some(&record));
        let text = serde_json::to_string(&record).expect("text and numbers can be written as JSON");
        let (user, changed) = (identity.as_str().to_owned(), self.changed());
        let write = self.call(move |_, store, name| {
            // Held until the write has ended, also if the caller no longer waits for it.
            let _writers = writers;
            store.build(name, &user, None)?.set_password(&text)?;
            announce(&changed);
            Ok(())
        });
        write.await?;
        Ok(version)
    }

    async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError> {
        let gate = self.gates.pass(identity).await;
        let path = beside(&self.base, &file_name(identity, "lock"));
        Ok(Box::new((locks::lock(path, identity.as_str()).await?, gate)))
    }

    /// The state directory belongs to the keyring: both are of one user on one machine.
    fn lock_domain(&self) -> &'static str {
        "keyring"
    }

    fn journal(&self) -> &Journal {
        &self.journal
    }

    async fn revision(&self) -> Result<Option<u64>, TokenError> {
        let path = self.changed();
        blocking(move || revision_of(&path)).await.map(Some)
    }

    fn is_own(&self, identity: &Identity, access: &SecretString) -> bool {
        let own = self.own.lock();
        own.get(identity)
            .is_some_and(|own| own.expose_secret() == access.expose_secret())
    }
}

impl KeyringTokenStore {
    /// Returns the path of the file that each write replaces.
    fn changed(&self) -> PathBuf {
        beside(&self.base, "keyring-changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_a_keyring_names_what_to_do_and_no_secret() {
        let locked = explain(&Error::NoStorageAccess("hush".into()));
        assert!(locked.to_string().contains("locked"), "{locked}");
        assert!(
            locked.hint().contains("tokens.url = \"file\""),
            "{}",
            locked.hint()
        );
        let damaged = explain(&Error::BadEncoding(b"hush".to_vec()));
        assert!(!format!("{damaged} {damaged:?}").contains("hush"), "{damaged}");
    }
}
