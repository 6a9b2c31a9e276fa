//! Pairs that a platform has granted and that are not stored yet.
//!
//! A granted pair is written here, durably, before anything else is done that may fail: its owner is checked over the network, and the
//! store may be remote. One account is refreshed by one process of a machine at a time, so each account has a file of its own with at
//! most one pair.

use std::collections::BTreeMap;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::locks::{beside, file_name, reject_shared_directory};
use super::on_disk::TokenOnDisk;
use super::{StoredToken, TokenError};
use crate::blocking::blocking;
use crate::core::observation::Identity;
use crate::files::{self, Durability, FileAccess};

/// A pair as it was granted.
#[derive(Debug, Clone)]
pub struct GrantedPair {
    /// The refresh that it is the result of.
    pub intent: String,
    /// The record's generation when that was begun.
    pub generation: u64,
    /// The token with the new pair.
    pub token: StoredToken,
    /// The other owner that the platform has named. Such a pair is never stored.
    pub other_owner: Option<String>,
}

/// Bytes that are reserved for a pair. Tokens of the platforms have some dozens.
const SPACE: usize = 16_384;

/// Reserved space on the disk; see [`Journal::reserve`]. Dropping it frees the space.
#[derive(Debug)]
pub struct Space(Option<tempfile::NamedTempFile>);

/// The granted pairs of a machine.
#[derive(Debug, Default)]
pub struct Journal {
    /// The path beside which each account's file is; without it, pairs are kept in memory only.
    base: Option<PathBuf>,
    /// What this process has put in and not removed; it is valid also if the disk is full.
    pairs: Arc<Mutex<BTreeMap<Identity, GrantedPair>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PairOnDisk {
    identity: Identity,
    intent: String,
    generation: u64,
    token: TokenOnDisk,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    other_owner: Option<String>,
}

impl Journal {
    /// Keeps pairs in files beside `base`, which only their owner can read.
    pub fn beside(base: &Path) -> Self {
        Self {
            base: Some(base.to_owned()),
            pairs: Arc::default(),
        }
    }

    fn path(&self, identity: &Identity) -> Option<PathBuf> {
        let base = self.base.as_ref()?;
        Some(beside(base, &file_name(identity, "journal")))
    }

    /// Reserves space on the disk for the pair of an account, so that it can be put in also if the disk is full by then.
    pub async fn reserve(&self, identity: &Identity) -> Result<Space, TokenError> {
        let Some(path) = self.path(identity) else {
            return Ok(Space(None));
        };
        blocking(move || {
            let reserved = files::temporary(&path).and_then(|mut file| {
                file.write_all(&[b' '; SPACE])?;
                file.as_file().sync_all()?;
                Ok(file)
            });
            let reserved = reserved.map_err(|source| TokenError::Write { path, source })?;
            Ok(Space(Some(reserved)))
        })
        .await
    }

    /// Puts in a pair. An error means that it is in memory only.
    pub async fn put(&self, identity: &Identity, pair: &GrantedPair) -> Result<(), TokenError> {
        self.put_in(identity, pair, Space(None)).await
    }

    /// As [`Self::put`], into reserved space.
    pub async fn put_in(
        &self,
        identity: &Identity,
        pair: &GrantedPair,
        space: Space,
    ) -> Result<(), TokenError> {
        self.pairs.lock().insert(identity.clone(), pair.clone());
        let Some(path) = self.path(identity) else {
            return Ok(());
        };
        let pair = PairOnDisk {
            identity: identity.clone(),
            intent: pair.intent.clone(),
            generation: pair.generation,
            token: TokenOnDisk::from(&pair.token),
            other_owner: pair.other_owner.clone(),
        };
        blocking(move || {
            let written = serde_json::to_vec(&pair)
                .map_err(io::Error::from)
                .and_then(|bytes| match space.0 {
                    // The rest of the space stays blank.
                    Some(mut file) if bytes.len() <= SPACE => {
                        file.rewind()?;
                        file.write_all(&bytes)?;
                        files::persist(file, &path)
                    }
                    _ => files::write(&path, FileAccess::Owner, Durability::Durable, |file| {
                        file.write_all(&bytes)
                    }),
                });
            written.map_err(|source| TokenError::Write { path, source })
        })
        .await
    }

    /// Cleans up after a process that was killed while it put in a pair of the account, whose lock the caller holds: a complete one is
    /// put in, and what else was left is deleted.
    pub async fn tidy(&self, identity: &Identity) {
        let Some(path) = self.path(identity) else {
            return;
        };
        blocking(move || {
            for leftover in files::leftovers(&path) {
                let is_complete = || matches!(read(&leftover), Ok(Some(_)));
                if path.exists() || !is_complete() || std::fs::rename(&leftover, &path).is_err() {
                    let _ = std::fs::remove_file(&leftover);
                }
            }
        })
        .await;
    }

    /// Returns the pair of an account, if there is one.
    pub async fn get(&self, identity: &Identity) -> Result<Option<GrantedPair>, TokenError> {
        if let Some(pair) = self.pairs.lock().get(identity) {
            return Ok(Some(pair.clone()));
        }
        let Some(path) = self.path(identity) else {
            return Ok(None);
        };
        let found = blocking(move || read(&path)).await?;
        let found = found.filter(|found| found.identity == *identity);
        Ok(found.map(|found| GrantedPair {
            intent: found.intent,
            generation: found.generation,
            token: found.token.into(),
            other_owner: found.other_owner,
        }))
    }

    /// Removes the pair of an account, and what a process that was killed has left of one.
    pub async fn remove(&self, identity: &Identity) -> Result<(), TokenError> {
        self.pairs.lock().remove(identity);
        let Some(path) = self.path(identity) else {
            return Ok(());
        };
        blocking(move || {
            for leftover in files::leftovers(&path) {
                let _ = std::fs::remove_file(leftover);
            }
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(TokenError::Write { path, source })
                }
                _ => Ok(()),
            }
        })
        .await
    }
}

fn read(path: &Path) -> Result<Option<PairOnDisk>, TokenError> {
    let failed = |source| TokenError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match files::open_input(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    reject_shared_directory(path)?;
    let bytes = files::bounded(file, files::SMALL).map_err(failed)?;
    // Written in one step, so a file that cannot be read was changed by hand. The parser's own message may quote a token.
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let reason = format!("broken at line {}, column {}", error.line(), error.column());
        TokenError::Unreadable {
            path: path.to_owned(),
            reason,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::core::time::Timestamp;

    fn bot() -> Identity {
        Identity::named("twitch/bot")
    }

    fn pair(access: &str) -> GrantedPair {
        GrantedPair {
            intent: "intent-1".to_owned(),
            generation: 3,
            token: StoredToken::unproven(access, Timestamp::EPOCH),
            other_owner: None,
        }
    }

    #[tokio::test]
    async fn pair_survives_the_process_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("tokens.json");
        Journal::beside(&base)
            .put(&bot(), &pair("granted"))
            .await
            .unwrap();
        let file = dir.path().join("tokens.json.twitch-bot.journal");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let later = Journal::beside(&base);
        let found = later.get(&bot()).await.unwrap().unwrap();
        assert_eq!((found.intent.as_str(), found.generation), ("intent-1", 3));
        assert_eq!(found.token.access.expose_secret(), "granted");
        assert!(later.get(&Identity::named("twitch/app")).await.unwrap().is_none());
        later.remove(&bot()).await.unwrap();
        later.remove(&bot()).await.unwrap();
        assert!(!file.exists() && later.get(&bot()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn reserved_space_takes_the_pair_without_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("tokens.json");
        let journal = Journal::beside(&base);
        let space = journal.reserve(&bot()).await.unwrap();
        let reserved = space.0.as_ref().unwrap();
        assert_eq!(reserved.as_file().metadata().unwrap().len(), SPACE as u64);
        let inode = |path: &Path| crate::os::file_id(&path.metadata().unwrap());
        let before = inode(reserved.path());
        journal.put_in(&bot(), &pair("granted"), space).await.unwrap();
        let file = dir.path().join("tokens.json.twitch-bot.journal");
        assert_eq!(inode(&file), before);
        assert!(Journal::beside(&base).get(&bot()).await.unwrap().is_some());
        let missing = Journal::beside(&dir.path().join("missing/tokens.json"));
        assert!(missing.reserve(&bot()).await.is_err());
    }

    #[tokio::test]
    async fn leftovers_are_adopted_if_complete_and_deleted_if_not() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("tokens.json");
        let journal = dir.path().join("tokens.json.twitch-bot.journal");
        let left = |letters: &str| {
            dir.path()
                .join(format!(".tokens.json.twitch-bot.journal-{letters}"))
        };
        Journal::beside(&base)
            .put(&bot(), &pair("granted"))
            .await
            .unwrap();
        std::fs::rename(&journal, left("abcDE1")).unwrap();
        std::fs::write(left("abcDE2"), "{\"identity\":").unwrap();
        std::fs::write(left("of-a-person"), "").unwrap();
        let later = Journal::beside(&base);
        later.tidy(&bot()).await;
        assert!(later.get(&bot()).await.unwrap().is_some());
        assert!(!left("abcDE1").exists() && !left("abcDE2").exists());
        std::fs::write(left("abcDE3"), "{").unwrap();
        later.remove(&bot()).await.unwrap();
        assert!(!left("abcDE3").exists() && left("of-a-person").exists());
    }

    #[tokio::test]
    async fn pair_is_kept_in_memory_where_it_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::beside(&dir.path().join("missing/tokens.json"));
        assert!(journal.put(&bot(), &pair("granted")).await.is_err());
        assert!(journal.get(&bot()).await.unwrap().is_some());
    }
}
