//! Tokens in the keyring of the desktop: the Secret Service over D-Bus, which GNOME Keyring and KWallet implement.
//!
//! - Each account is one entry, whose service is the name in `tokens.url` and whose user is the account.
//! - A keyring has no compare-and-set, so a write compares under a lock file in the state directory; the lock of an account is a file there,
//!   too. The journal, in which a granted pair waits until it is stored, is on the disk.
//! - Calls block, and a locked keyring can ask a question on the desktop, so they run outside the threads of async tasks, one at a time and
//!   with a time limit. What holds the connection must not leave that thread: the library blocks when it closes it, which panics on a thread that
//!   runs async tasks.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use keyring_core::api::CredentialStoreApi as _;
use keyring_core::{Error, Result as KeyringResult};
use secrecy::SecretString;
use tokio::sync::Mutex as AsyncMutex;
use zbus_secret_service_keyring_store::Store;

use super::local::Local;
use super::locks::{self, beside};
use super::on_disk::{RecordOnDisk, revision_of, version_of};
use super::{Journal, Lock, Snapshot, TokenError, TokenRecord, TokenStore};
use crate::blocking::blocking;
use crate::core::observation::Identity;
use crate::files::{self, Durability, FileAccess};
use crate::secrets;
use crate::store::Version;

/// How long a call may take, including the wait for those before it.
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
    /// Locks and journal; the file that announces changes is beside them.
    local: Local,
    /// Locked by a call until it ends, even if its caller no longer waits: a keyring that does not answer blocks one thread, not one for every call.
    connection: Arc<AsyncMutex<Connection>>,
}

/// The connection to the Secret Service; `None` until it is needed.
#[derive(Default)]
struct Connection(Option<Arc<Store>>);

impl Drop for Connection {
    /// Closes the connection on a thread of its own, because the last owner can be an async task.
    fn drop(&mut self) {
        let Some(store) = self.0.take() else { return };
        // Not dropped if no thread can be started: the operating system closes the connection when the process ends.
        let store = ManuallyDrop::new(store);
        let closing = thread::Builder::new()
            .name("keyring-close".to_owned())
            .spawn(move || drop(ManuallyDrop::into_inner(store)));
        if let Err(error) = closing {
            tracing::debug!(%error, "The connection to the keyring stays open: no thread can be started");
        }
    }
}

impl Connection {
    /// Runs `work`, and connects before if necessary.
    fn run<T>(&mut self, work: impl FnOnce(&Store) -> KeyringResult<T>) -> KeyringResult<T> {
        let store = match &self.0 {
            Some(store) => Arc::clone(store),
            None => Arc::clone(self.0.insert(Store::new()?)),
        };
        let result = work(&store);
        if let Err(Error::PlatformFailure(_)) = &result {
            // The service may have been restarted; the next call connects again.
            self.0 = None;
        }
        result
    }
}

/// Returns the text of an entry; `None` where there is none.
fn get(store: &Store, name: &str, user: &str) -> KeyringResult<Option<String>> {
    let find = || match store.build(name, user, None)?.get_password() {
        Ok(text) => Ok(Some(text)),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error),
    };
    if let Some(text) = find()? {
        return Ok(Some(text));
    }
    prove_unlocked(store, name)?;
    // Again, as it may have been unlocked only now.
    find()
}

/// Returns the users and texts of all entries.
fn all(store: &Store, name: &str) -> KeyringResult<Vec<(String, String)>> {
    let search = || store.search(&HashMap::from([("service", name)]));
    let mut entries = search()?;
    if entries.is_empty() {
        prove_unlocked(store, name)?;
        entries = search()?;
    }
    let mut all = Vec::new();
    for entry in entries {
        let mut attributes = entry.get_attributes()?;
        let text = entry.get_password()?;
        all.extend(attributes.remove("username").map(|user| (user, text)));
    }
    Ok(all)
}

/// Reads an entry that every unlocked keyring has, and writes it where it is missing. A locked keyring may answer that there is no entry, which
/// would pass for a logout.
fn prove_unlocked(store: &Store, name: &str) -> KeyringResult<()> {
    // Of another service, so that a search for accounts does not find it; with a blank, which no configured name contains.
    let marker = store.build(&format!("{name} (unlocked)"), "marker", None)?;
    match marker.get_password() {
        // Two processes may have written it at the same time.
        Ok(_) | Err(Error::Ambiguous(_)) => Ok(()),
        Err(Error::NoEntry) => marker.set_password("no secret"),
        Err(error) => Err(error),
    }
}

impl KeyringTokenStore {
    /// Creates the store for the entries of the service `name`, without a connection. Locks and journal are beside `base`.
    pub fn new(name: impl Into<String>, base: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            connection: Arc::default(),
            local: Local::beside(base.into()),
        }
    }

    /// Runs `work` on a thread that may block, after the calls before it.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &str) -> KeyringResult<T> + Send + 'static,
    ) -> Result<T, TokenError> {
        let (connection, name) = (Arc::clone(&self.connection), self.name.clone());
        let called = async {
            let mut connection = connection.lock_owned().await;
            // The error is translated there, because it can contain entries, which hold the connection.
            blocking(move || {
                let result = connection.run(|store| work(store, &name));
                result.map_err(|error| explain(&error))
            })
            .await
        };
        tokio::time::timeout(limit(), called).await.unwrap_or_else(|_| {
            Err(unusable(
                "it does not answer; a question to unlock it may be open on the desktop",
            ))
        })
    }

    async fn with(&self, is_wanted: fn(&TokenRecord) -> bool) -> Result<Vec<Identity>, TokenError> {
        let all = self.call(all).await?;
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
                "its entry of `{}` is damaged at column {}; delete it there, and log in again",
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
        // Its own text lists the paths of the entries.
        Error::Ambiguous(entries) => unusable(&format!(
            "it has {} entries of the same account; delete them there, and log in again",
            entries.len()
        )),
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
        let read = self.call(move |store, name| get(store, name, &user));
        let record = read.await?.map(|text| self.parse(&text)).transpose()?;
        Ok(Snapshot::from(record))
    }

    async fn write(
        &self,
        identity: &Identity,
        record: &TokenRecord,
        base: &Version,
    ) -> Result<Version, TokenError> {
        let writers = locks::lock(beside(self.local.base(), "keyring.lock"), "the keyring").await?;
        if self.read(identity).await?.version != *base {
            return Err(TokenError::Conflict {
                identity: identity.clone(),
            });
        }
        self.local.note_own(identity, record);
        let record = RecordOnDisk::from(record);
        let version = version_of(Some(&record));
        let text = serde_json::to_string(&record).expect("text and numbers can be written as JSON");
        let (user, changed) = (identity.as_str().to_owned(), self.changed());
        let write = self.call(move |store, name| {
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
        self.local.lock(identity).await
    }

    /// The state directory belongs to the keyring: both are of one user on one machine.
    fn lock_domain(&self) -> &'static str {
        "keyring"
    }

    fn journal(&self) -> &Journal {
        &self.local.journal
    }

    async fn revision(&self) -> Result<Option<u64>, TokenError> {
        let path = self.changed();
        blocking(move || revision_of(&path)).await.map(Some)
    }

    fn is_own(&self, identity: &Identity, access: &SecretString) -> bool {
        self.local.is_own(identity, access)
    }
}

impl KeyringTokenStore {
    /// Returns the path of the file that each write replaces.
    fn changed(&self) -> PathBuf {
        beside(self.local.base(), "keyring-changed")
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
