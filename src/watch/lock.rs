//! Allows one process per state directory that sends events: a daemon, or one command at a time while none runs. Two of them would
//! publish everything twice, and two daemons would overwrite each other's totals.
//!
//! A command has a lock of its own, so that a daemon which starts meanwhile is not refused: it waits until the command has sent.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than a command holds the lock to find out whether it is taken.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How often a process that waits for the other lock tries again.
const POLL: Duration = Duration::from_millis(20);
/// Longer than a command sends events.
const SENDING_LIMIT: Duration = Duration::from_secs(10);

/// Held by a command while it sends events. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct SendingLock(#[expect(dead_code, reason = "holding the file open is what keeps the lock")] File);

impl SendingLock {
    /// Waits until no other command sends events of `directory`, and takes the lock. `None` if the directory cannot be written, in
    /// which no daemon can work either.
    pub async fn take(directory: &Path) -> Option<Self> {
        let file = crate::files::open_lock(&directory.join("sending.lock")).ok()?;
        loop {
            match file.try_lock() {
                Ok(()) => return Some(Self(file)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL).await,
                Err(TryLockError::Error(_)) => return None,
            }
        }
    }

    /// Waits until no command sends events of `directory`, or should have ended long ago.
    pub async fn wait_until_free(directory: &Path) {
        if tokio::time::timeout(SENDING_LIMIT, Self::take(directory))
            .await
            .is_err()
        {
            tracing::warn!(
                "A command has been sending events for more than {} s",
                SENDING_LIMIT.as_secs()
            );
        }
    }
}

/// Held for as long as the daemon runs. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "holding the file open is what keeps the lock")] File);

/// The state directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("another `bitbrat watch` ({holder}) works in {}", directory.display())]
    Taken { directory: PathBuf, holder: String },
    /// The lock file cannot be written.
    #[error("cannot lock {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl LockError {
    /// Returns how to resolve the error.
    pub fn hint(&self) -> String {
        match self {
            Self::Taken { .. } => "stop the other one, or give this one its own BITBRAT_STATE_DIR".to_owned(),
            Self::Io { path, .. } if path.symlink_metadata().is_ok_and(|found| !found.is_file()) => {
                format!("run `rm {}` after checking who put it there", path.display())
            }
            Self::Io { .. } => {
                "run `bitbrat doctor state` to see what is wrong with the directory".to_owned()
            }
        }
    }
}

impl StateLock {
    /// Takes the lock of `directory`, which must exist.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        match Self::try_take(directory) {
            // A command may only be looking whether a daemon works there.
            Err(LockError::Taken { .. }) => {
                std::thread::sleep(RETRY_DELAY);
                Self::try_take(directory)
            }
            taken => taken,
        }
    }

    /// Returns whether a daemon works in `directory`.
    pub fn is_taken(directory: &Path) -> bool {
        matches!(Self::try_take(directory), Err(LockError::Taken { .. }))
    }

    fn try_take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("watch.lock");
        let io = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut file = crate::files::open_lock(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                return Err(LockError::Taken {
                    directory: directory.to_owned(),
                    holder: if known {
                        format!("process {}", holder.trim())
                    } else {
                        "unknown".to_owned()
                    },
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        // Only for the error message of another process; the lock itself does not depend on it, and a full disk must not prevent
        // the start.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::debug!(error = %error, "The process id could not be written to the lock file");
        }
        Ok(Self(file))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_by_name_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateLock::acquire(dir.path()).unwrap();
        let refused = StateLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        assert!(
            StateLock::acquire(dir.path())
                .unwrap_err()
                .hint()
                .contains("stop the other one")
        );
        drop(first);
        StateLock::acquire(dir.path()).unwrap();
    }

    #[tokio::test]
    async fn commands_send_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let first = SendingLock::take(dir.path()).await.unwrap();
        let mut second = std::pin::pin!(SendingLock::take(dir.path()));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
        // A daemon is not refused meanwhile, and a directory that does not exist delays no command.
        StateLock::acquire(dir.path()).unwrap();
        assert!(SendingLock::take(&dir.path().join("absent")).await.is_none());
    }

    #[test]
    fn a_watch_lock_that_is_a_link_truncates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let link_target = dir.path().join("victim");
        std::fs::write(&link_target, "precious").unwrap();
        std::os::unix::fs::symlink(&link_target, dir.path().join("watch.lock")).unwrap();
        let refused = StateLock::acquire(dir.path()).unwrap_err();
        assert!(matches!(refused, LockError::Io { .. }), "{refused}");
        // No other daemon holds the lock, so there is none to stop.
        let hint = refused.hint();
        assert!(hint.contains("rm ") && !hint.contains("other one"), "{hint}");
        assert_eq!(std::fs::read_to_string(&link_target).unwrap(), "precious");
    }
}
