//! Errors of the outbox file, and whether they are transient.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::SCHEMA;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// It was written by a newer bitbrat.
    #[error("{} has schema version {found}, but this bitbrat supports only up to {SCHEMA}; upgrade bitbrat", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema version found.
        found: i64,
    },
    /// The disk is full.
    #[error("the disk of {} is full", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The system does not allow reading or writing it now: a quota, a limit, a lock, or a disk that is failing or read-only.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: rusqlite::Error,
    },
    /// Any other error: the file is damaged, or was not created by bitbrat.
    #[error("{} is damaged or not as bitbrat made it; move it away and start again", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: rusqlite::Error,
    },
}

impl OutboxError {
    /// Whether the error may be resolved without changing the file.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Io { .. })
    }
}

/// An error of a file before its path is added.
pub(super) enum OpenFailure {
    /// It was written by a newer bitbrat: the schema version found.
    Newer(i64),
    /// An error of SQLite.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for OpenFailure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl OpenFailure {
    /// Adds the path of the file.
    pub(super) fn explain(self, path: &Path) -> OutboxError {
        match self {
            Self::Newer(found) => OutboxError::Newer {
                path: path.to_owned(),
                found,
            },
            Self::Sqlite(error) => explain(path, error),
        }
    }
}

/// Returns the error for a file that is a symbolic link.
pub(super) fn is_link(path: &Path, error: &std::io::Error) -> OutboxError {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    OutboxError::Io {
        path: path.to_owned(),
        source: rusqlite::Error::SqliteFailure(code, Some(error.to_string())),
    }
}

/// Classifies an error of SQLite.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> OutboxError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => OutboxError::Full {
            path: path.to_owned(),
        },
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory,
        ) => OutboxError::Io {
            path: path.to_owned(),
            source: error,
        },
        _ => OutboxError::Sqlite {
            path: path.to_owned(),
            source: error,
        },
    }
}
