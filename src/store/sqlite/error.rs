//! SQLite errors as messages for the file's owner, with the recommended action.

use std::path::Path;

use rusqlite::ErrorCode;

use super::database::{NewerSchema, SCHEMA};
use crate::descriptors;
use crate::store::StoreError;

/// Converts an error of SQLite for the file at `path`.
pub fn explain(path: &Path, error: &rusqlite::Error) -> StoreError {
    if let rusqlite::Error::FromSqlConversionFailure(_, _, cause) = error
        && let Some(NewerSchema(found)) = cause.downcast_ref()
    {
        return StoreError::NewerSchema {
            location: location(path),
            found: *found,
            known: SCHEMA,
        };
    }
    let shown = path.display();
    let directory = path.parent().unwrap_or(path).display();
    let refused = |reason: String, hint: String| StoreError::Refused {
        location: location(path),
        reason,
        hint,
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            StoreError::Unavailable {
                location: location(path),
                reason: "another process keeps it locked".into(),
                hint: Some(format!(
                    "try again when that process has finished; `fuser {shown}` or `lsof {shown}` names it"
                )),
            }
        }
        Some(
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
        ) => refused(
            "it is read-only for us".into(),
            format!("let this user write `{shown}` and its directory, or choose another path in `store.url`"),
        ),
        Some(ErrorCode::DiskFull) => refused(
            "its disk is full; nothing of this change was written".into(),
            format!("free space in `{directory}`; what is pending is written then"),
        ),
        Some(ErrorCode::CannotOpen) if descriptors::are_exhausted() => StoreError::Unavailable {
            location: location(path),
            reason: descriptors::REASON.into(),
            hint: Some("raise the limit of open files (`ulimit -n`), or stop what holds files open".into()),
        },
        Some(ErrorCode::CannotOpen) => refused(
            "it cannot be opened".into(),
            format!("check that `{shown}` is a file and that this user may read and write `{directory}`"),
        ),
        Some(ErrorCode::NotADatabase) => refused(
            "it is not a SQLite database".into(),
            format!("move `{shown}` away, or choose another path in `store.url`"),
        ),
        Some(ErrorCode::DatabaseCorrupt) => refused(
            format!("its contents are damaged ({error})"),
            format!("stop bitbrat, keep a copy, and rescue what is there with `sqlite3 {shown} .recover`"),
        ),
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => StoreError::Unavailable {
            location: location(path),
            reason: format!("the system failed to read or write it ({error})"),
            hint: Some(format!(
                "see with `df {directory}` whether the disk is full, and in the system's log whether it fails"
            )),
        },
        _ => refused(
            error.to_string(),
            format!("run `bitbrat doctor`; if the file was edited by hand, move `{shown}` away"),
        ),
    }
}

/// Converts the failure to create the directory of `path`.
pub fn directory(path: &Path, error: &std::io::Error) -> StoreError {
    let directory = path.parent().unwrap_or(path).display();
    StoreError::Refused {
        location: location(path),
        reason: format!("its directory cannot be made ({error})"),
        hint: format!("make `{directory}` and let this user write it, or choose another path in `store.url`"),
    }
}

/// Converts the rejection of `file`, which is the database at `path` or beside it, and not a regular file.
pub fn special(path: &Path, file: &Path, error: &std::io::Error) -> StoreError {
    let reason = if path == file {
        error.to_string()
    } else {
        format!("{}: {error}", file.display())
    };
    StoreError::Refused {
        location: location(path),
        reason,
        hint: format!(
            "move `{}` away, or choose another path in `store.url`",
            file.display()
        ),
    }
}

/// Creates the error for a database of another program.
pub fn another_programs(path: &Path) -> StoreError {
    StoreError::Refused {
        location: location(path),
        reason: "it is the database of another program".into(),
        hint: "choose another path in `store.url`".into(),
    }
}

fn location(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}
