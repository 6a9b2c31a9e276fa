//! Tokens in a JSON file that only its owner may read.
//!
//! A write goes to a temporary file that is flushed to the disk and renamed over the old one, so a crash or a full disk leaves
//! either the old or the new file. A lock file next to it serializes writers; another one per account serializes refreshes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::local::Local;
use super::locks::{self, beside, directory, reject_shared_directory};
use super::on_disk::{RecordOnDisk, revision_of, version_of};
use super::{Journal, Lock, Snapshot, StoredToken, TokenError, TokenRecord, TokenStore};
use crate::blocking::blocking;
use crate::core::observation::Identity;
use crate::files::{self, Durability, FileAccess};
use crate::os;
use crate::store::Version;

const VERSION: u32 = 1;

/// A [`TokenStore`] in a file.
#[derive(Debug)]
pub struct FileTokenStore {
    local: Local,
}

impl FileTokenStore {
    /// Creates the store for this path; the file is created with the first token.
    ///
    /// A symbolic link is followed once, here: locks and journal are beside the file that it leads to, and writing replaces that file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            local: Local::beside(target_of(path.into())),
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        self.local.base()
    }

    async fn with(&self, is_wanted: fn(&RecordOnDisk) -> bool) -> Result<Vec<Identity>, TokenError> {
        let path = self.path().to_owned();
        let file = blocking(move || read(&path)).await?;
        let wanted = file
            .identities
            .into_iter()
            .filter(|(_, record)| is_wanted(record));
        Ok(wanted.map(|(identity, _)| identity).collect())
    }
}

/// Returns where a link leads, also if there is nothing yet; `path` itself if it is no link.
fn target_of(path: PathBuf) -> PathBuf {
    let Ok(link) = fs::read_link(&path) else {
        return path;
    };
    let target = directory(&path).join(link);
    target.canonicalize().unwrap_or(target)
}

#[async_trait]
impl TokenStore for FileTokenStore {
    async fn identities(&self) -> Result<Vec<Identity>, TokenError> {
        self.with(|record| record.token.is_some()).await
    }

    async fn pending(&self) -> Result<Vec<Identity>, TokenError> {
        self.with(|record| record.pending.is_some()).await
    }

    async fn read(&self, identity: &Identity) -> Result<Snapshot, TokenError> {
        let (path, identity) = (self.path().to_owned(), identity.clone());
        blocking(move || {
            let record = read(&path)?.identities.remove(&identity);
            Ok(Snapshot::from(record))
        })
        .await
    }

    async fn write(
        &self,
        identity: &Identity,
        record: &TokenRecord,
        base: &Version,
    ) -> Result<Version, TokenError> {
        let writers = locks::lock(beside(self.path(), "lock"), "the token file").await?;
        self.local.note_own(identity, record);
        let (path, identity, base) = (self.path().to_owned(), identity.clone(), base.clone());
        let record = RecordOnDisk::from(record);
        blocking(move || {
            let _writers = writers;
            let mut file = read(&path)?;
            if version_of(file.identities.get(&identity)) != base {
                return Err(TokenError::Conflict { identity });
            }
            file.version = VERSION;
            // The lock is held, so no other process is writing: these files were left by killed processes, and contain tokens.
            for leftover in files::leftovers(&path) {
                let _ = fs::remove_file(leftover);
            }
            let version = version_of(Some(&record));
            file.identities.insert(identity, record);
            write(&path, &file)?;
            Ok(version)
        })
        .await
    }

    async fn lock(&self, identity: &Identity) -> Result<Lock, TokenError> {
        self.local.lock(identity).await
    }

    /// Everything that uses the file respects its locks.
    fn lock_domain(&self) -> &'static str {
        "file"
    }

    fn journal(&self) -> &Journal {
        &self.local.journal
    }

    async fn load_all(&self) -> Result<BTreeMap<Identity, StoredToken>, TokenError> {
        let path = self.path().to_owned();
        let file = blocking(move || read(&path)).await?;
        let tokens = file.identities.into_iter().filter_map(|(identity, record)| {
            let token = TokenRecord::from(record).token?;
            Some((identity, token))
        });
        Ok(tokens.collect())
    }

    async fn revision(&self) -> Result<Option<u64>, TokenError> {
        let path = self.path().to_owned();
        blocking(move || revision_of(&path)).await.map(Some)
    }

    fn is_own(&self, identity: &Identity, access: &SecretString) -> bool {
        self.local.is_own(identity, access)
    }
}

/// The serialized format of the file.
#[derive(Default, Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    identities: BTreeMap<Identity, RecordOnDisk>,
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
        io::ErrorKind::Other | io::ErrorKind::FileTooLarge => unreadable(error.to_string()),
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
    reject_shared_directory(path)?;
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

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::core::time::Timestamp;
    use crate::tokens::TokenStoreExt as _;

    fn bot() -> Identity {
        Identity::named("twitch/bot")
    }

    async fn keep(store: &FileTokenStore, access: &str) -> Result<(), TokenError> {
        let token = StoredToken::unproven(access.to_owned(), Timestamp::EPOCH);
        store.set_token(&bot(), Some(token)).await
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
    async fn directory_that_others_can_write_is_refused_with_hint() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let store = FileTokenStore::new(state.join("tokens.json"));
        keep(&store, "hush").await.unwrap();
        let mode = fs::metadata(&state).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        for mode in [0o777, 0o770, 0o702] {
            fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
            for error in [
                store.load(&bot()).await.unwrap_err(),
                keep(&store, "other").await.unwrap_err(),
            ] {
                assert!(matches!(error, TokenError::ExposedDirectory { .. }), "{error}");
                assert!(error.hint().contains("chmod 700"), "{}", error.hint());
            }
        }
    }

    #[tokio::test]
    async fn link_stays_and_its_target_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("real.json"), dir.path().join("tokens.json"));
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        keep(&FileTokenStore::new(&link), "first").await.unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("first"));
        let token = FileTokenStore::new(&target).load(&bot()).await.unwrap();
        assert!(token.is_some());
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
