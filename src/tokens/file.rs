//! Tokens in a JSON file that only its owner may read.
//!
//! A write goes to a temporary file that is flushed to the disk and renamed over the old one, so a crash or a full disk leaves
//! either the old or the new file. A lock file next to it serializes writers; another one per identity serializes refreshes.
//! Locks are the operating system's, so they are released when the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::memory::Gates;
use super::{
    RefreshState, RefreshToken, StoredToken, TokenError, TokenKind, TokenLease, TokenRecord, TokenStore,
};
use crate::blocking::blocking;
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::files::{self, Durability, FileAccess, make_private_dir};
use crate::os;
use crate::secrets;

/// How long to wait for another process, which may be performing a slow refresh.
const LOCK_PATIENCE: Duration = Duration::from_mins(1);
const LOCK_RETRY: Duration = Duration::from_millis(20);
const VERSION: u32 = 1;

/// A [`TokenStore`] in a file.
#[derive(Debug)]
pub struct FileTokenStore {
    path: PathBuf,
    gates: Gates,
    own: Own,
}

/// The access tokens that were saved through one store, by identity.
type Own = Arc<Mutex<BTreeMap<Identity, SecretString>>>;

impl FileTokenStore {
    /// Creates the store for this path; the file is created with the first token.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            gates: Gates::default(),
            own: Own::default(),
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[async_trait]
impl TokenStore for FileTokenStore {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        let path = self.path.clone();
        let file = blocking(move || read(&path)).await?;
        let with_token = file
            .identities
            .into_iter()
            .filter(|(_, record)| record.token.is_some());
        Ok(with_token.map(|(identity, _)| identity).collect())
    }

    async fn load(&self, identity: &Identity) -> Result<Option<StoredToken>, TokenError> {
        let (path, identity) = (self.path.clone(), identity.clone());
        let mut file = blocking(move || read(&path).map(|file| (file, identity))).await?;
        let record = file.0.identities.remove(&file.1);
        Ok(record.and_then(|record| TokenRecord::from(record).token))
    }

    async fn load_all(&self) -> Result<BTreeMap<Identity, StoredToken>, TokenError> {
        let path = self.path.clone();
        let file = blocking(move || read(&path)).await?;
        let tokens = file.identities.into_iter().filter_map(|(identity, record)| {
            let token = TokenRecord::from(record).token?;
            Some((identity, token))
        });
        Ok(tokens.collect())
    }

    async fn version(&self) -> Result<Option<u64>, TokenError> {
        let path = self.path.clone();
        blocking(move || version(&path)).await.map(Some)
    }

    fn is_own(&self, identity: &Identity, access: &SecretString) -> bool {
        let own = self.own.lock();
        own.get(identity)
            .is_some_and(|own| own.expose_secret() == access.expose_secret())
    }

    async fn lease(&self, identity: &Identity) -> Result<Box<dyn TokenLease>, TokenError> {
        let gate = self.gates.pass(identity).await;
        let lock = lock(beside(&self.path, &lock_name(identity)), identity.as_str()).await?;
        Ok(Box::new(Lease {
            path: self.path.clone(),
            identity: identity.clone(),
            own: Arc::clone(&self.own),
            _lock: lock,
            _gate: gate,
        }))
    }
}

struct Lease {
    path: PathBuf,
    identity: Identity,
    own: Own,
    _lock: File,
    _gate: OwnedMutexGuard<()>,
}

#[async_trait]
impl TokenLease for Lease {
    async fn load(&self) -> Result<TokenRecord, TokenError> {
        let path = self.path.clone();
        let mut file = blocking(move || read(&path)).await?;
        let record = file.identities.remove(&self.identity);
        Ok(record.map(TokenRecord::from).unwrap_or_default())
    }

    async fn save(&self, record: &TokenRecord) -> Result<(), TokenError> {
        let writers = lock(beside(&self.path, "lock"), "the token file").await?;
        if let Some(token) = &record.token {
            let mut own = self.own.lock();
            own.insert(self.identity.clone(), token.access.clone());
        }
        let (path, identity, record) = (
            self.path.clone(),
            self.identity.clone(),
            RecordOnDisk::from(record),
        );
        blocking(move || {
            let mut file = read(&path)?;
            file.version = VERSION;
            file.identities.insert(identity, record);
            let kept = write(&path, &file);
            drop(writers);
            kept
        })
        .await
    }
}

/// The serialized format of the file.
#[derive(Default, Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    identities: BTreeMap<Identity, RecordOnDisk>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct RecordOnDisk {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenOnDisk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<TokenOnDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seeds: Vec<String>,
}

/// The only serialized format of tokens.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenOnDisk {
    #[serde(default)]
    kind: KindOnDisk,
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    refresh_state: Option<StateOnDisk>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    login: Option<String>,
    #[serde(default)]
    scopes: BTreeSet<String>,
    obtained_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    expires_at: Option<Timestamp>,
}

#[derive(Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindOnDisk {
    #[default]
    User,
    App,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
enum StateOnDisk {
    InUse { since: Timestamp, tries: u32 },
    Refused { at: Timestamp, reason: String },
}

impl From<&TokenRecord> for RecordOnDisk {
    fn from(record: &TokenRecord) -> Self {
        Self {
            token: record.token.as_ref().map(TokenOnDisk::from),
            pending: record.pending.as_ref().map(TokenOnDisk::from),
            seeds: record.seeds.clone(),
        }
    }
}

impl From<&StoredToken> for TokenOnDisk {
    fn from(token: &StoredToken) -> Self {
        let refresh = token.refresh.as_ref();
        Self {
            kind: match token.kind {
                TokenKind::User => KindOnDisk::User,
                TokenKind::App => KindOnDisk::App,
            },
            access_token: token.access.expose_secret().to_owned(),
            refresh_token: refresh.map(|refresh| refresh.secret.expose_secret().to_owned()),
            refresh_state: refresh.and_then(|refresh| match &refresh.state {
                RefreshState::Ready => None,
                RefreshState::InUse { since, tries } => Some(StateOnDisk::InUse {
                    since: *since,
                    tries: *tries,
                }),
                RefreshState::Refused { at, reason } => Some(StateOnDisk::Refused {
                    at: *at,
                    reason: reason.clone(),
                }),
            }),
            client_id: token.client_id.clone(),
            user_id: token.user_id.clone(),
            login: token.login.clone(),
            scopes: token.scopes.clone(),
            obtained_at: token.obtained_at,
            expires_at: token.expires_at,
        }
    }
}

impl From<RecordOnDisk> for TokenRecord {
    fn from(record: RecordOnDisk) -> Self {
        Self {
            token: record.token.map(StoredToken::from),
            pending: record.pending.map(StoredToken::from),
            seeds: record.seeds,
        }
    }
}

impl From<TokenOnDisk> for StoredToken {
    fn from(token: TokenOnDisk) -> Self {
        let state = match token.refresh_state {
            None => RefreshState::Ready,
            Some(StateOnDisk::InUse { since, tries }) => RefreshState::InUse { since, tries },
            Some(StateOnDisk::Refused { at, reason }) => RefreshState::Refused { at, reason },
        };
        Self {
            kind: match token.kind {
                KindOnDisk::User => TokenKind::User,
                KindOnDisk::App => TokenKind::App,
            },
            access: secrets::secret(token.access_token),
            refresh: token.refresh_token.map(|secret| RefreshToken {
                secret: secrets::secret(secret),
                state,
            }),
            client_id: token.client_id,
            user_id: token.user_id,
            login: token.login,
            scopes: token.scopes,
            obtained_at: token.obtained_at,
            expires_at: token.expires_at,
        }
    }
}

/// A number for the state of the file. A write creates a new file, so its inode, length or modification time differs; an
/// editor that writes in place changes at least one of the latter two.
fn version(path: &Path) -> Result<u64, TokenError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => {
            let path = path.to_owned();
            return Err(TokenError::Read { path, source });
        }
    };
    let mut hasher = DefaultHasher::new();
    metadata.len().hash(&mut hasher);
    metadata.modified().ok().hash(&mut hasher);
    os::file_id(&metadata).hash(&mut hasher);
    Ok(hasher.finish())
}

fn read(path: &Path) -> Result<OnDisk, TokenError> {
    let failed = |source| TokenError::Read {
        path: path.to_owned(),
        source,
    };
    let unreadable = |reason: String| TokenError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let explain = |error: io::Error| match error.kind() {
        // Not a regular file, or too large.
        io::ErrorKind::Other => unreadable(error.to_string()),
        _ => failed(error),
    };
    let file = match files::open_input(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(OnDisk::default()),
        Err(error) => return Err(explain(error)),
    };
    if let Some(mode) = os::shared_mode(&file.metadata().map_err(failed)?) {
        let path = path.to_owned();
        return Err(TokenError::Exposed { path, mode });
    }
    let bytes = files::bounded(file, files::LARGE).map_err(explain)?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))?;
    // The parser's own message may quote a token, so only the position is reported.
    let on_disk: OnDisk = serde_json::from_str(&text).map_err(|error| {
        unreadable(format!(
            "broken at line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    if on_disk.version > VERSION {
        return Err(unreadable(format!(
            "version {} was written by a newer bitbrat",
            on_disk.version
        )));
    }
    Ok(on_disk)
}

fn write(path: &Path, content: &OnDisk) -> Result<(), TokenError> {
    let written = files::write(path, FileAccess::Owner, Durability::Durable, |file| {
        serde_json::to_writer_pretty(&mut *file, content)?;
        file.write_all(b"\n")
    });
    written.map_err(|source| TokenError::Write {
        path: path.to_owned(),
        source,
    })
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Returns the path of a companion file: `tokens.json` and `lock` give `tokens.json.lock`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Returns a file name for an identity's lock; no identity can escape the directory.
fn lock_name(identity: &Identity) -> String {
    let safe = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '-'
        }
    };
    identity.as_str().chars().map(safe).collect::<String>() + ".lock"
}

/// Locks a file, creating it and its directory if needed.
async fn lock(path: PathBuf, holder: &str) -> Result<File, TokenError> {
    let failed = |source| TokenError::Write {
        path: path.clone(),
        source,
    };
    let file = {
        let path = path.clone();
        blocking(move || open_lock(&path)).await.map_err(failed)?
    };
    let deadline = Instant::now() + LOCK_PATIENCE;
    // Polling, rather than blocking a thread, lets the caller cancel the wait.
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
            Err(fs::TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(TokenError::Busy {
                    holder: holder.to_owned(),
                });
            }
            Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_RETRY).await,
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    make_private_dir(directory(path))?;
    crate::files::open_lock(path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn bot() -> Identity {
        Identity::named("twitch/bot")
    }

    async fn keep(store: &FileTokenStore, access: &str) -> Result<(), TokenError> {
        let record = TokenRecord {
            token: Some(StoredToken::unproven(access.to_owned(), Timestamp::EPOCH)),
            ..TokenRecord::default()
        };
        store.lease(&bot()).await?.save(&record).await
    }

    #[tokio::test]
    async fn the_file_is_for_its_owner_only_and_a_wider_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileTokenStore::new(dir.path().join("state/tokens.json"));
        keep(&store, "hush").await.unwrap();
        let mode = fs::metadata(store.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(store.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = store.load(&bot()).await.unwrap_err();
            assert!(matches!(error, TokenError::Exposed { .. }), "{error}");
            assert!(error.hint().contains("chmod 600"), "{}", error.hint());
            assert!(keep(&store, "other").await.is_err());
        }
    }

    #[tokio::test]
    async fn a_damaged_file_is_reported_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileTokenStore::new(dir.path().join("tokens.json"));
        for garbage in [
            "",
            "{\"version\":1,\"identities\":{\"twitch/bot\":{\"token\":{\"accessToken\":\"hush",
            "{\"version\":1,\"identities\":{\"twitch/bot\":{\"token\":\"hush\"}}}",
            "{\"version\":99,\"identities\":{}}",
        ] {
            fs::write(store.path(), garbage).unwrap();
            fs::set_permissions(store.path(), fs::Permissions::from_mode(0o600)).unwrap();
            let error = keep(&store, "new").await.unwrap_err();
            assert!(matches!(error, TokenError::Unreadable { .. }), "{error:?}");
            let messages = format!("{error} {error:?} {}", error.hint());
            assert!(!messages.contains("hush"), "{messages}");
            assert_eq!(fs::read_to_string(store.path()).unwrap(), garbage);
        }
    }

    #[tokio::test]
    async fn two_stores_on_one_file_take_turns_and_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let stores: Vec<_> = (0..4).map(|_| FileTokenStore::new(&path)).collect();
        let counting = stores.iter().map(|store| async {
            for _ in 0..5 {
                let lease = store.lease(&bot()).await.unwrap();
                let mut record = lease.load().await.unwrap();
                record.seeds.push("x".to_owned());
                lease.save(&record).await.unwrap();
            }
        });
        futures_util::future::join_all(counting).await;
        let record = stores[0].lease(&bot()).await.unwrap().load().await.unwrap();
        assert_eq!(record.seeds.len(), 20);
        let leftovers: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".tokens"))
            .collect();
        assert!(leftovers.is_empty(), "{leftovers:?}");
    }

    #[tokio::test]
    async fn no_identity_names_a_file_outside_the_directory() {
        let name = lock_name(&Identity::named("../../etc/passwd"));
        assert_eq!(name, "------etc-passwd.lock");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_an_error_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = keep(&FileTokenStore::new(file.join("tokens.json")), "new")
            .await
            .unwrap_err();
        assert!(matches!(error, TokenError::Write { .. }), "{error:?}");
        assert!(error.hint().contains("writable"), "{}", error.hint());
    }
}
