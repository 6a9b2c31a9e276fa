//! What can be wrong with the ledger's file, and whether it may pass.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::SCHEMA;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It belongs to a newer bitbrat.
    #[error("{} has schema version {found}, but this bitbrat knows only up to {SCHEMA}; upgrade bitbrat", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: i64,
    },
    /// The disk is full.
    #[error("the disk of {} is full", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The system does not let us read or write it now: a quota, a limit, a lock, a disk that fails or is read-only.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Anything else: the file is damaged, or not as we made it.
    #[error("{} is damaged or not as bitbrat made it; move it away and start again", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl LedgerError {
    /// Whether it may be better later without anyone touching the file.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Io { .. })
    }
}

/// What is wrong with a file, before it is said which.
pub(super) enum Trouble {
    /// It belongs to a newer bitbrat: this is what is there.
    Newer(i64),
    /// SQLite says no.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Trouble {
    /// Says what it means for the file.
    pub(super) fn explain(self, path: &Path) -> LedgerError {
        match self {
            Self::Newer(found) => LedgerError::Newer {
                path: path.to_owned(),
                found,
            },
            Self::Sqlite(error) => explain(path, error),
        }
    }
}

/// Says what an error of SQLite means for the file.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => LedgerError::Full {
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
        ) => LedgerError::Io {
            path: path.to_owned(),
            source: error,
        },
        _ => LedgerError::Sqlite {
            path: path.to_owned(),
            source: error,
        },
    }
}
