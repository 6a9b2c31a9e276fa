//! Firestore errors as messages for the project's owner, with the recommended action.

use firestore::errors::FirestoreError;
use firestore::gcloud_sdk::tonic::{Code, Status};

use crate::failure::with_causes;
use crate::secrets;
use crate::store::firestore::FirestoreTarget;
use crate::store::{StoreError, unreached};

/// Reason why a call returned no usable response.
pub enum Failure {
    /// Firestore responded with an error.
    Answer(Status),
    NoConnection(StoreError),
}

impl Failure {
    /// Converts the failure of a call that was not about one document.
    pub fn explain(self, target: &FirestoreTarget) -> StoreError {
        match self {
            Self::Answer(status) => of_answer(target, status.code(), status.message()),
            Self::NoConnection(error) => error,
        }
    }

    /// Converts the failed write of one document.
    pub fn explain_write(self, target: &FirestoreTarget, document_id: &str) -> StoreError {
        match self {
            Self::Answer(status) => of_write(target, document_id, status.code(), status.message()),
            Self::NoConnection(error) => error,
        }
    }
}

/// Converts the response to a write of `document_id`.
pub fn of_write(target: &FirestoreTarget, document_id: &str, code: Code, message: &str) -> StoreError {
    let document_id = document_id.to_owned();
    match code {
        // The precondition failed: the document was written, created or deleted in the meantime.
        Code::FailedPrecondition | Code::AlreadyExists => StoreError::Conflict { document_id },
        Code::NotFound if !is_about_the_database(message) => StoreError::Conflict { document_id },
        Code::InvalidArgument | Code::OutOfRange => StoreError::Rejected {
            document_id,
            reason: sentence(message),
        },
        _ => of_answer(target, code, message),
    }
}

/// Converts a response that was not about one document.
pub fn of_answer(target: &FirestoreTarget, code: Code, message: &str) -> StoreError {
    let (project, setting) = (&target.project, target.setting);
    let refused = |reason: String, hint: String| StoreError::Refused {
        location: target.to_string(),
        reason,
        hint,
    };
    match code {
        Code::PermissionDenied => refused(
            format!("permission denied ({})", sentence(message)),
            format!(
                "check that `{project}` is the right project in `{setting}`, and give the account the role \
                 `roles/datastore.user` there"
            ),
        ),
        Code::Unauthenticated => no_credentials(target, message),
        Code::Unknown if message.contains("credentials") => no_credentials(target, message),
        Code::NotFound => refused(
            sentence(message),
            format!(
                "check project and database in `{setting}`; a new database is made with `gcloud firestore databases \
                 create --project={project} --location=REGION`"
            ),
        ),
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented | Code::OutOfRange => refused(
            sentence(message),
            format!("check `{setting}` and the names of the documents; `bitbrat doctor` tests them"),
        ),
        Code::DeadlineExceeded => unavailable(target, "it did not answer in time".into()),
        Code::ResourceExhausted => StoreError::Unavailable {
            location: target.to_string(),
            reason: format!("a quota is used up ({})", sentence(message)),
            hint: Some(format!(
                "what waits is written when the quota is renewed; raise it in the Google Cloud console (project `{project}`), or \
                 set a longer store.heartbeat"
            )),
        },
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => {
            let reason = unreached(message).map_or_else(|| sentence(message), str::to_owned);
            unavailable(target, reason)
        }
        _ => unavailable(target, sentence(message)),
    }
}

/// Converts the failure to connect.
pub fn of_connecting(target: &FirestoreTarget, error: &FirestoreError) -> StoreError {
    let text = with_causes(error);
    if target.emulator.is_none() && (text.contains("credential") || text.contains("key file")) {
        return no_credentials(target, &text);
    }
    unavailable(
        target,
        unreached(&text).map_or_else(|| sentence(&text), str::to_owned),
    )
}

/// Returns the cause of a connection failure for people.
fn unreached(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let is_about_certificate = ["certificate", "invalid peer", "unknownissuer"]
        .iter()
        .any(|word| lower.contains(word));
    match is_about_certificate {
        true => {
            Some("its certificate is not accepted; something between here and there may open the connection")
        }
        false => unreached::reason(text),
    }
}

/// Creates the error for an unreachable store.
pub fn unavailable(target: &FirestoreTarget, reason: String) -> StoreError {
    let reason = match &target.emulator {
        Some(host) => format!("{reason} (emulator at {host}; `scripts/services.sh up` starts one)"),
        None => reason,
    };
    StoreError::Unavailable {
        location: target.to_string(),
        reason,
        hint: None,
    }
}

/// Creates the error for credentials that are missing or that Firestore rejects.
pub fn no_credentials(target: &FirestoreTarget, message: &str) -> StoreError {
    let hint = match &target.credentials_file {
        Some(file) => format!("check the service account's key file `{}`", file.display()),
        None => "run `gcloud auth application-default login`, or name a service account's key file in \
                 GOOGLE_APPLICATION_CREDENTIALS; for an emulator set FIRESTORE_EMULATOR_HOST"
            .into(),
    };
    StoreError::Refused {
        location: target.to_string(),
        reason: format!("there are no usable credentials ({})", sentence(message)),
        hint,
    }
}

/// A missing document and a missing database have the same code.
fn is_about_the_database(message: &str) -> bool {
    message.contains("database") && !message.contains("document")
        || message.contains("does not exist for project")
}

/// The first line of a message, truncated for people.
fn sentence(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return "no reason was given".into();
    }
    secrets::quote(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> FirestoreTarget {
        FirestoreTarget::new("demo", "(default)")
    }

    #[test]
    fn a_broken_precondition_is_a_conflict_whatever_its_name() {
        for (code, message) in [
            (
                Code::FailedPrecondition,
                "the stored version does not match the required base version",
            ),
            (Code::AlreadyExists, "entity already exists"),
            (Code::NotFound, "no entity to update"),
            (
                Code::NotFound,
                "No document to update: projects/p/databases/(default)/documents/sources/kick:5",
            ),
        ] {
            let mapped = of_write(&target(), "kick:5", code, message);
            assert!(
                matches!(mapped, StoreError::Conflict { .. }),
                "{code} {message}: {mapped}"
            );
        }
    }

    #[test]
    fn what_a_person_must_mend_is_refused_with_the_next_step() {
        for (code, message, step) in [
            (
                Code::PermissionDenied,
                "Missing or insufficient permissions.",
                "roles/datastore.user",
            ),
            (
                Code::Unauthenticated,
                "invalid credentials",
                "application-default login",
            ),
            (
                Code::Unknown,
                "credentials error: none found",
                "application-default login",
            ),
            (
                Code::NotFound,
                "The database (default) does not exist for project demo",
                "databases create --project=demo",
            ),
        ] {
            match of_write(&target(), "kick:5", code, message) {
                StoreError::Refused { hint, .. } => assert!(hint.contains(step), "{code}: {hint}"),
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_heals_by_itself_is_transient() {
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::Internal,
            Code::Cancelled,
            Code::ResourceExhausted,
            Code::Unknown,
        ] {
            assert!(
                of_write(&target(), "kick:5", code, "transport error").is_transient(),
                "{code}"
            );
        }
    }

    #[test]
    fn unreachable_server_error_hides_transport_details() {
        for (message, expected) in [
            (
                "error trying to connect: tcp connect error: Connection refused (os error 111)",
                "no server accepts connections there",
            ),
            (
                "transport error: dns error: failed to lookup address information: Name or service not known",
                "name cannot be resolved",
            ),
            ("transport error: operation timed out", "did not answer in time"),
            (
                "transport error: invalid peer certificate: UnknownIssuer",
                "certificate is not accepted",
            ),
            ("The service is currently overloaded.", "currently overloaded"),
        ] {
            let mapped = of_answer(&target(), Code::Unavailable, message).to_string();
            assert!(
                mapped.contains(expected) && !mapped.contains("transport") && !mapped.contains("os error"),
                "{mapped}"
            );
        }
    }

    #[test]
    fn rejected_document_reports_the_reason() {
        let mapped = of_write(
            &target(),
            "kick:5",
            Code::InvalidArgument,
            "exceeds the maximum allowed size",
        );
        assert!(
            matches!(&mapped, StoreError::Rejected { reason, .. } if reason.contains("maximum")),
            "{mapped}"
        );
    }
}
