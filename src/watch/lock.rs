//! One daemon a state directory: two of them would announce everything twice and overwrite each other's totals.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Held for as long as the daemon lives. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "holding the file open is what keeps the lock")] File);

/// The state directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another `bitbrat watch` ({holder}) works in {}", directory.display())]
    Taken {
        /// The directory.
        directory: PathBuf,
        /// Who, as far as it is known.
        holder: String,
    },
    /// The lock file cannot be written.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl StateLock {
    /// Takes the lock of `directory`, which must exist.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("watch.lock");
        let io = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(io)?;
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
        // Only for the message above; the lock itself does not depend on it, and a full disk must not keep us from starting.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::debug!(error = %error, "The lock file does not name us");
        }
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_by_name_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateLock::take(dir.path()).unwrap();
        let refused = StateLock::take(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        StateLock::take(dir.path()).unwrap();
    }
}
