//! Errors of the state file, and whether they are transient.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::failure::Failure;
use crate::store::StoreError;
use crate::store::sqlite::error::explain as explain_store;

/// The file cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct StateFileError {
    reason: StoreError,
    is_transient: bool,
}

impl StateFileError {
    /// Whether the error may be resolved without repairing the file: the disk is full, the system does not allow reading or writing
    /// it now, or a newer bitbrat has migrated it. Otherwise the file is damaged, or was not created by bitbrat.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }

    pub fn into_reason(self) -> StoreError {
        self.reason
    }
}

/// The file cannot be opened.
impl From<StoreError> for StateFileError {
    fn from(reason: StoreError) -> Self {
        Self {
            is_transient: reason.is_transient() || is_newer(&reason),
            reason,
        }
    }
}

impl From<StateFileError> for Failure {
    fn from(error: StateFileError) -> Self {
        error.reason.into()
    }
}

/// Classifies an error of SQLite.
pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> StateFileError {
    let is_transient = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
        )
    );
    let reason = explain_store(path, error);
    StateFileError {
        is_transient: is_transient || is_newer(&reason),
        reason,
    }
}

fn is_newer(reason: &StoreError) -> bool {
    matches!(reason, StoreError::NewerSchema { .. })
}
