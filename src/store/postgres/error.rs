//! Errors of PostgreSQL: what they mean for a call, and messages for people with the recommended action.
//!
//! The codes are those of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::error::Error as _;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::Error;

use super::PostgresTarget;
use crate::failure::with_causes;
use crate::secrets;
use crate::store::{StoreError, unreached};

/// Reason why a call returned no usable response.
#[derive(Debug)]
pub enum Failure {
    /// The server responded with an error, or the connection failed.
    Answer(Error),
    /// No response within the time limit. Whether a statement had an effect is unknown.
    Late,
    /// All connections of the pool are in use.
    Busy,
    /// The schema has another version than when it was checked. Nothing was written.
    OtherSchema,
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
            Self::Late | Self::Busy | Self::OtherSchema => Meaning::Unavailable,
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
                let reason = format!("all {} connections to it are in use", target.connections);
                let hint = "raise store.connections; what waits is written later";
                return unavailable_until(target, &reason, hint.to_owned());
            }
            Self::OtherSchema => return unavailable(target, "its schema is being changed"),
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
            | Meaning::Unavailable => {
                unavailable_until(target, &reason, passing_hint(target, code.as_deref(), &reason))
            }
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

/// Returns what to do about an error that may be over by itself, by the class of its code.
fn passing_hint(target: &PostgresTarget, code: Option<&str>, reason: &str) -> String {
    let setting = target.setting;
    let hint = match code {
        Some("53300") => {
            "raise max_connections of the server, or lower store.connections of the programs that use it"
        }
        Some("53100") => "free space on the server's disk; what waits is written then",
        Some("53200" | "53000") => "free memory on the server; what waits is written then",
        Some("25006") => {
            return format!(
                "name the server that accepts writes in `{setting}`, or all of them: postgres://HOST,HOST/DATABASE"
            );
        }
        Some("57P03") => "wait until the server has started; its log shows how far it is",
        Some("57014") => "find what keeps the server busy: SELECT * FROM pg_stat_activity",
        Some("40001" | "40P01" | "55P03") => {
            "find transactions that stay open: SELECT * FROM pg_stat_activity WHERE state <> 'idle'"
        }
        Some("57P01" | "57P02") => "start the server again; what waits is written then",
        Some(code) if code.starts_with("58") || code.starts_with("XX") => {
            "read the log of the server: it has an error of its own"
        }
        Some(_) => "try again; the log of the server has more about the error",
        None if reason.contains("resolved") => {
            return format!("check the host in `{setting}` and the network of this machine");
        }
        None => return away(target),
    };
    hint.to_owned()
}

/// Returns what to do about a server that does not answer.
fn away(target: &PostgresTarget) -> String {
    format!(
        "see that the server runs, that host and port in `{}` are its own, and that no firewall is in between",
        target.setting
    )
}

/// Creates the error for a server that does not answer.
pub fn unavailable(target: &PostgresTarget, reason: &str) -> StoreError {
    unavailable_until(target, reason, away(target))
}

/// Creates the error for a store that can be used again after `hint`, or by itself.
fn unavailable_until(target: &PostgresTarget, reason: &str, hint: String) -> StoreError {
    StoreError::Unavailable {
        location: target.to_string(),
        reason: reason.to_owned(),
        hint: Some(hint),
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
    let reason = match () {
        () if lower.contains("does not support tls") => "it does not support TLS",
        () if lower.contains("notvalidforname") => "its certificate is for another host name",
        () if lower.contains("causedasendentity") => {
            "its certificate is that of an authority, and not of a server"
        }
        () if lower.contains("certificate") => return format!("its certificate is not accepted ({text})"),
        () if lower.contains("password missing") => "it needs a password",
        () => unreached::reason(text).unwrap_or(text),
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
    fn each_class_of_errors_has_its_own_next_step() {
        let address =
            crate::store::postgres::PostgresAddress::parse("postgres://rat@db.example/bitbrat").unwrap();
        let target = PostgresTarget::new(address);
        for (code, reason, next) in [
            (
                Some("53300"),
                "sorry, too many clients already",
                "max_connections",
            ),
            (
                Some("25006"),
                "cannot execute INSERT",
                "accepts writes in `store.url`",
            ),
            (Some("53100"), "could not extend file", "free space"),
            (Some("57P03"), "the database system is starting up", "has started"),
            (Some("57014"), "canceling statement", "pg_stat_activity"),
            (Some("XX000"), "internal", "log of the server"),
            (None, "no server accepts connections there", "the server runs"),
            (None, "its name cannot be resolved", "check the host"),
        ] {
            let hint = passing_hint(&target, code, reason);
            assert!(hint.contains(next), "{code:?} {reason}: {hint}");
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
