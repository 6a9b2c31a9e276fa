//! Errors of PostgreSQL: what they mean for a call, and messages for people with the recommended action.
//!
//! The codes are those of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::error::Error as _;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::Error;

use super::PostgresTarget;
use crate::failure::with_causes;
use crate::secrets;
use crate::store::StoreError;

/// Reason why a call returned no usable response.
#[derive(Debug)]
pub enum Failure {
    /// The server responded with an error, or the connection failed.
    Answer(Error),
    /// No response within the time limit. Whether a statement had an effect is unknown.
    Late,
    /// All connections of the pool are in use.
    Busy,
    /// No connection was attempted, or it cannot be used.
    Store(StoreError),
}

/// What an error means for the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The connection ended. Whether a statement had an effect is unknown; its precondition decides when it is repeated.
    Closed,
    /// Other transactions were in the way: worth another attempt at once.
    Contention,
    /// The statement took longer than the server allows: a smaller one may succeed.
    TooSlow,
    /// One of the values cannot be stored.
    BadValue,
    /// The server accepts no writes: another one has taken its place.
    ReadOnly,
    /// Something between here and the server does not support what was used: a pooler.
    Pooler,
    /// The tables do not exist, or have another form.
    NoSchema,
    /// Needs a person: permission, credentials, names.
    Configuration,
    /// Starting, stopping, out of connections, memory or disk space.
    Unavailable,
}

impl Failure {
    /// Returns what the error means.
    pub fn meaning(&self) -> Meaning {
        match self {
            Self::Late | Self::Busy => Meaning::Unavailable,
            Self::Store(error) if error.is_transient() => Meaning::Unavailable,
            Self::Store(_) => Meaning::Configuration,
            Self::Answer(error) => match error.code() {
                Some(code) => of_code(code.code()),
                None if error.is_closed() || is_io(error) => Meaning::Closed,
                None if with_causes(error).contains("does not allow writes") => Meaning::ReadOnly,
                // Of the client itself: TLS, authentication, a response that it cannot read.
                None => Meaning::Configuration,
            },
        }
    }

    /// Converts the failure of a call that was not about one document.
    pub fn explain(self, target: &PostgresTarget) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Late => return unavailable(target, "it did not answer in time"),
            Self::Busy => {
                let reason = format!(
                    "all {} connections to it are in use (store.connections)",
                    target.connections
                );
                return unavailable(target, &reason);
            }
            Self::Answer(error) => error,
        };
        let code = error.code().map(|code| code.code().to_owned());
        let text = sentence(&error);
        let reason = match &code {
            Some(code) => format!("{text} ({code})"),
            None => text,
        };
        let refused = |hint: String| StoreError::Refused {
            location: target.to_string(),
            reason: reason.clone(),
            hint,
        };
        match Self::Answer(error).meaning() {
            Meaning::Configuration => refused(hint(target, code.as_deref(), &reason)),
            Meaning::Pooler => refused(
                "a connection pooler seems to be in between: set store.pooler = true, or connect to the server itself"
                    .to_owned(),
            ),
            Meaning::NoSchema => refused(format!(
                "the tables in schema `{}` are missing or were changed; start bitbrat again to create what is missing",
                target.schema
            )),
            Meaning::BadValue => refused(format!(
                "check `{}` and the names of the documents; `bitbrat doctor` tests them",
                target.setting
            )),
            Meaning::Closed
            | Meaning::Contention
            | Meaning::TooSlow
            | Meaning::ReadOnly
            | Meaning::Unavailable => unavailable(target, &reason),
        }
    }

    /// Converts the failed write of one document.
    pub fn explain_write(self, target: &PostgresTarget, document_id: &str) -> StoreError {
        match (self.meaning(), &self) {
            (Meaning::BadValue, Self::Answer(error)) => StoreError::Rejected {
                document_id: document_id.to_owned(),
                reason: sentence(error),
            },
            _ => self.explain(target),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::Busy,
            PoolError::Backend(error) => Self::Answer(error),
            _ => Self::Late,
        }
    }
}

fn of_code(code: &str) -> Meaning {
    match code {
        "57P01" | "57P02" | "25P03" | "57P05" => Meaning::Closed,
        "40001" | "40P01" | "55P03" => Meaning::Contention,
        "57014" => Meaning::TooSlow,
        "25006" => Meaning::ReadOnly,
        "26000" | "08P01" => Meaning::Pooler,
        "42P01" | "42703" | "3F000" | "42883" => Meaning::NoSchema,
        // `program_limit_exceeded`: a value is too long for an index.
        "23514" | "23502" | "54000" => Meaning::BadValue,
        "3D000" | "42501" | "0LP01" | "0P000" => Meaning::Configuration,
        // A code has five characters, but the other side may be no PostgreSQL server.
        _ => match code.get(..2).unwrap_or_default() {
            "22" => Meaning::BadValue,
            "28" => Meaning::Configuration,
            "08" => Meaning::Closed,
            "42" => Meaning::NoSchema,
            _ => Meaning::Unavailable,
        },
    }
}

/// Whether the connection failed below the protocol. A certificate that is rejected is no such error.
fn is_io(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(next) = cause {
        if next.is::<rustls::Error>() {
            return false;
        }
        if let Some(io) = next.downcast_ref::<std::io::Error>() {
            let inner = io.get_ref();
            return !inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
                && io.kind() != std::io::ErrorKind::InvalidInput;
        }
        cause = next.source();
    }
    false
}

/// Returns what to do about an error that needs a person.
fn hint(target: &PostgresTarget, code: Option<&str>, reason: &str) -> String {
    let (setting, user) = (target.setting, target.address.user());
    match code {
        Some("28P01" | "28000") => format!(
            "check user and password in `{setting}` (or store.password, PGPASSWORD), and that pg_hba.conf of the server admits them"
        ),
        Some("3D000") => format!(
            "check the database's name in `{setting}`; `createdb {}` makes one",
            target.address.database()
        ),
        Some("42501") => format!(
            "give the user `{user}` the right: GRANT CREATE ON DATABASE … lets it make the schema `{0}`, and where that exists, \
             it needs all rights on its tables and sequences",
            target.schema
        ),
        None if reason.contains("certificate") || reason.contains("CaUsedAsEndEntity") => "name the authority that signed the \
             server's certificate with sslrootcert=FILE in the address; store.tls = \"insecure\" accepts any certificate"
            .to_owned(),
        None if reason.contains("does not support TLS") => {
            "switch `ssl` on there; where the network is trusted, store.tls = \"off\" connects without encryption".to_owned()
        }
        _ => format!("check `{setting}`; `bitbrat doctor store` tests it"),
    }
}

/// Creates the error for an unreachable store.
pub fn unavailable(target: &PostgresTarget, reason: &str) -> StoreError {
    StoreError::Unavailable {
        location: target.to_string(),
        reason: reason.to_owned(),
    }
}

/// The message of the server without its details, which may quote what others stored; or the causes of a failed connection.
fn sentence(error: &Error) -> String {
    match error.as_db_error() {
        Some(answer) => secrets::quote(answer.message()),
        None => secrets::quote(&unreached(&with_causes(error))),
    }
}

/// Returns the cause of a connection failure for people.
fn unreached(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let reason = match () {
        () if has(&["connection refused"]) => "no server accepts connections there",
        () if has(&["lookup address", "name or service not known"]) => {
            "its name cannot be resolved; check the network of this machine"
        }
        () if has(&["timed out", "timeout"]) => "it did not answer in time",
        () if has(&["unreachable"]) => "there is no route to it; check the network of this machine",
        () if has(&["does not support tls"]) => "it does not support TLS",
        () if has(&["notvalidforname"]) => "its certificate is for another host name",
        () if has(&["causedasendentity"]) => "its certificate is that of an authority, and not of a server",
        () if has(&["certificate"]) => return format!("its certificate is not accepted ({text})"),
        () if has(&["password missing"]) => "it needs a password",
        () if has(&[
            "connection reset",
            "broken pipe",
            "connection closed",
            "unexpected eof",
        ]) =>
        {
            "the connection broke off"
        }
        () => text,
    };
    reason.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_the_server_has_its_meaning() {
        for (meaning, codes) in [
            (Meaning::Closed, &["57P01", "57P02", "08006", "25P03"][..]),
            (
                Meaning::Unavailable,
                &["57P03", "53300", "53100", "53200", "58030", "XX000", "", "5", "é"],
            ),
            (Meaning::Contention, &["40001", "40P01", "55P03"]),
            (Meaning::TooSlow, &["57014"]),
            (
                Meaning::BadValue,
                &["22P02", "22003", "22P05", "22021", "23514", "54000"],
            ),
            (Meaning::ReadOnly, &["25006"]),
            (Meaning::Pooler, &["26000", "08P01"]),
            (Meaning::NoSchema, &["42P01", "42703", "3F000"]),
            (Meaning::Configuration, &["28P01", "28000", "3D000", "42501"]),
        ] {
            for code in codes {
                assert_eq!(of_code(code), meaning, "{code}");
            }
        }
    }

    #[test]
    fn unreachable_server_error_hides_transport_details() {
        for (text, shown) in [
            (
                "error connecting to server: Connection refused (os error 111)",
                "no server accepts connections there",
            ),
            (
                "error performing TLS handshake: server does not support TLS",
                "it does not support TLS",
            ),
            (
                "error performing TLS handshake: invalid peer certificate: UnknownIssuer",
                "its certificate is not accepted",
            ),
            (
                "error connecting to server: failed to lookup address information",
                "its name cannot be resolved",
            ),
        ] {
            assert!(unreached(text).starts_with(shown), "{text}");
        }
    }
}
