//! Errors of the outbox file, and whether they are transient.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::store::StoreError;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] StoreError),
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
        match self {
            Self::Full { .. } | Self::Io { .. } => true,
            Self::Open(error) => error.is_transient(),
            Self::Sqlite { .. } => false,
        }
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
