//! Locks of accounts across the tasks and processes of a machine.
//!
//! They are the operating system's, so they are released when a process ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::TokenError;
use crate::blocking::blocking;
use crate::core::observation::Identity;
use crate::files::make_private_dir;
use crate::os;

/// How long to wait for another process, which may be performing a slow refresh.
const LOCK_PATIENCE: Duration = Duration::from_mins(1);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A lock that is held as long as this exists.
pub type Lock = Box<dyn Send + Sync>;

/// One mutex per account, for exclusive access within this process.
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

pub(super) fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Returns the path of a companion file: `tokens.json` and `lock` give `tokens.json.lock`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Returns the name of an account's companion file of this kind; no account can escape the directory.
pub(super) fn file_name(identity: &Identity, kind: &str) -> String {
    let safe = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '-'
        }
    };
    let name: String = identity.as_str().chars().map(safe).collect();
    format!("{name}.{kind}")
}

/// Fails where other users may write: they could replace the files there, or put links in their place.
pub(super) fn reject_shared_directory(path: &Path) -> Result<(), TokenError> {
    let directory = directory(path);
    let found = fs::metadata(directory).ok();
    match found.and_then(|found| os::mode_writable_by_others(&found)) {
        Some(mode) => Err(TokenError::ExposedDirectory {
            path: directory.to_owned(),
            mode,
        }),
        None => Ok(()),
    }
}

/// Locks a file, creating it and its directory if needed.
pub(super) async fn lock(path: PathBuf, holder: &str) -> Result<File, TokenError> {
    let failed = |source| TokenError::Write {
        path: path.clone(),
        source,
    };
    let file = {
        let path = path.clone();
        blocking(move || {
            reject_shared_directory(&path)?;
            open_lock(&path).map_err(|source| TokenError::Write { path, source })
        })
        .await?
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

/// Returns the name of the lock domain of the locks beside `base`, for a store that several machines use: a random id that is stored there once,
/// and the name of the host, since a copied disk contains the same id.
pub(super) fn machine(base: &Path) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // Without a stored id, each process counts as a machine of its own, whose refreshes others wait for.
    let id = machine_id(&beside(base, "machine")).unwrap_or_else(|_| new_id());
    format!("{id}@{}", host.trim())
}

fn machine_id(path: &Path) -> io::Result<String> {
    if let Ok(found) = crate::files::read_input_text(path, crate::files::SMALL)
        && !found.trim().is_empty()
    {
        return Ok(found.trim().to_owned());
    }
    make_private_dir(directory(path))?;
    let mut fresh = tempfile::NamedTempFile::new_in(directory(path))?;
    fresh.write_all(new_id().as_bytes())?;
    // Of several processes the first stores its id, and all use that.
    match fresh.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error),
    }
    crate::files::read_input_text(path, crate::files::SMALL).map(|found| found.trim().to_owned())
}

fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_identity_names_a_file_outside_the_directory() {
        let name = file_name(&Identity::named("../../etc/passwd"), "lock");
        assert_eq!(name, "------etc-passwd.lock");
    }

    #[test]
    fn processes_of_a_machine_share_a_lock_domain() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = |directory: &tempfile::TempDir| machine(&directory.path().join("state/tokens.json"));
        assert_eq!(of(&here), of(&here));
        assert_ne!(of(&here), of(&there));
    }
}
