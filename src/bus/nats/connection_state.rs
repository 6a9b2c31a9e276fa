//! State of the connection to NATS: why there is none, or what the server denies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Event, ServerError};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::secrets;
use crate::tls;

/// How long a denied permission explains a request without a response: the server denies immediately, and the request times
/// out some seconds later.
const DENIAL_WINDOW: Duration = Duration::from_secs(10);
/// How long a repeated problem is not logged again.
const REPEAT_INTERVAL: Duration = Duration::from_mins(5);
/// Maximum number of separately counted causes. They are derived from foreign messages, so their number must be bounded.
const MAX_CAUSES: usize = 100;

/// Reason why the bus is not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outage {
    /// The server rejects the login or the request: needs attention.
    Refused(String),
    /// The last attempts to connect failed.
    Failed(String),
}

/// Tracks the connection events of the client. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Address of the bus, without passwords.
    location: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outage: Option<Outage>,
    denied: Option<(Instant, String)>,
    losses: Repeated,
    /// Messages that the client cannot parse, by cause.
    unusable: BTreeMap<String, Repeated>,
}

/// Counts repetitions, so that a series of one problem is a single log entry.
#[derive(Debug, Default)]
struct Repeated {
    reported: Option<Instant>,
    since: u64,
}

impl Repeated {
    /// Counts one more. Returns the number since the last log entry if the next one is due.
    fn again(&mut self) -> Option<u64> {
        self.since += 1;
        let due = self.reported.is_none_or(|at| at.elapsed() >= REPEAT_INTERVAL);
        due.then(|| {
            self.reported = Some(Instant::now());
            std::mem::take(&mut self.since)
        })
    }
}

impl Connection {
    pub(super) fn new(location: Arc<str>) -> Self {
        Self(Arc::new(Shared {
            location,
            state: Mutex::default(),
        }))
    }

    /// Returns the reason why the bus is not available, if known.
    pub(super) fn outage(&self) -> Option<Outage> {
        self.with(|state| {
            let denied = state
                .denied
                .as_ref()
                .filter(|(at, _)| at.elapsed() < DENIAL_WINDOW);
            let denied = denied.map(|(_, what)| Outage::Refused(what.clone()));
            state.outage.clone().or(denied)
        })
    }

    /// Evaluates the errors of the connection attempts so far, one text per failed server.
    pub(super) fn attempted<'a>(&self, errors: impl Iterator<Item = &'a str>) {
        let mut errors: Vec<&str> = errors.collect();
        errors.sort_unstable();
        errors.dedup();
        if errors.is_empty() {
            return;
        }
        let answered = errors.iter().find_map(|error| answer(error));
        let text = explained(&errors.join("; "));
        // A rejection by one server is more specific than unreachable others: it is permanent.
        let refused = errors.iter().find_map(|error| refusal(error));
        self.meet(match (refused, answered) {
            (Some(reason), _) => Outage::Refused(reason),
            (None, Some(said)) => Outage::Failed(format!("the server answered -ERR '{said}'")),
            (None, None) => Outage::Failed(format!("no server answers ({text})")),
        });
    }

    /// Processes an event of the client.
    pub(super) fn happened(&self, event: &Event) {
        let bus = &*self.0.location;
        match event {
            Event::Connected => {
                let again = self.with(|state| {
                    (state.outage, state.denied) = (None, None);
                    state.losses.since > 0
                });
                if again {
                    debug!(bus, "Connected to the bus again");
                } else {
                    info!(bus, "Connected to the bus");
                }
            }
            Event::Disconnected => match self.with(|state| state.losses.again()) {
                Some(1) => warn!(bus, "Lost the bus; connecting again"),
                Some(times) => warn!(bus, times, "Lost the bus again; connecting again"),
                None => debug!(bus, "Lost the bus again; connecting again"),
            },
            Event::ServerError(ServerError::AuthorizationViolation) => {
                self.refused("authorization violation");
            }
            Event::ServerError(ServerError::Other(text)) if refusal(text).is_some() => self.refused(text),
            Event::ServerError(ServerError::Other(text)) if is_denial(text) => {
                let what = format!("our account may not do that ({})", secrets::quote(text));
                let known = self.with(|state| {
                    let known = state.denied.as_ref().is_some_and(|(_, known)| *known == what);
                    state.denied = Some((Instant::now(), what));
                    known
                });
                if !known {
                    error!(
                        bus,
                        "The bus denies our account a permission: {}",
                        secrets::quote(text)
                    );
                }
            }
            Event::ClientError(error) if refusal(&error.to_string()).is_some() => {
                self.refused(&error.to_string());
            }
            other => debug!(bus, event = %other, "The bus's client reports"),
        }
    }

    /// Counts a message that the client cannot parse. Returns the number for this cause since the last log entry if the next
    /// one is due.
    pub(super) fn unusable(&self, cause: &str) -> Option<u64> {
        self.with(|state| {
            if state.unusable.len() >= MAX_CAUSES && !state.unusable.contains_key(cause) {
                state.unusable.clear();
            }
            state.unusable.entry(cause.to_owned()).or_default().again()
        })
    }

    fn refused(&self, text: &str) {
        if let Some(reason) = refusal(text) {
            self.meet(Outage::Refused(reason));
        }
    }

    /// Stores an outage, and logs it if it differs from the previous one.
    fn meet(&self, outage: Outage) {
        let before = self.with(|state| state.outage.replace(outage.clone()));
        let bus = &*self.0.location;
        match outage {
            _ if before.as_ref() == Some(&outage) => {}
            Outage::Refused(reason) => {
                error!(
                    bus,
                    "The bus rejects the connection: {reason}; trying again. Run `bitbrat doctor bus` after correcting it"
                );
            }
            Outage::Failed(reason) => warn!(bus, "The bus cannot be reached: {reason}; trying again"),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.state.lock())
    }
}

/// Returns a failure of the client for people. For TLS the client reports only that it failed; if an environment variable
/// names trusted certificates that cannot be used, that is the cause.
pub(super) fn explained(text: &str) -> String {
    explained_by(text, tls::unusable_variable)
}

fn explained_by(text: &str, unusable: impl FnOnce() -> Option<String>) -> String {
    let quoted = secrets::quote(text);
    if !text.to_ascii_lowercase().contains("tls") {
        return quoted;
    }
    match unusable() {
        Some(reason) => format!("{quoted}; {reason}: correct or unset that variable"),
        None => quoted,
    }
}

/// Returns what a server itself has answered to the connection, as its `-ERR`; `None` where there was no answer.
fn answer(text: &str) -> Option<String> {
    let (_, said) = text.split_once("nats: ")?;
    Some(secrets::quote(said.trim().trim_matches('\'')))
}

/// Returns a description of a rejected login; `None` if the text is not a rejection.
fn refusal(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let says = |what: &[&str]| what.iter().any(|what| lower.contains(what));
    let reason = if says(&["authorization violation", "authentication violation"]) {
        "the server refuses our credentials (authorization violation)"
    } else if says(&[
        "authentication expired",
        "user authentication expired",
        "jwt expired",
    ]) {
        "our credentials at the server have expired"
    } else if says(&["authentication revoked", "account authentication expired"]) {
        "our credentials at the server were revoked"
    } else if says(&["authentication timeout"]) {
        "the server waited for credentials in vain (authentication timeout)"
    } else if says(&["failed signing nonce"]) {
        "the NKey or credentials file cannot sign what the server asks for"
    } else if says(&["invalidcontenttype", "corrupt message"]) {
        "the server does not support TLS; write nats:// in place of tls://, and leave out NATS_CA, NATS_CERT and NATS_KEY"
    } else if says(&["could not add certificate or key", "keymismatch"]) {
        "the client certificate and the private key do not belong together; correct NATS_CERT and NATS_KEY"
    } else if says(&[
        "certificaterequired",
        "certificate required",
        "handshakefailure",
        "badcertificate",
    ]) {
        "the server requires a client certificate that it trusts; set NATS_CERT and NATS_KEY"
    } else if says(&["invalid peer certificate", "invalidcertificate", "unknownissuer"]) {
        return Some(format!(
            "the server's certificate is not trusted ({}); set NATS_CA",
            explained(text)
        ));
    } else if says(&["tls error"]) {
        return Some(format!("no secure connection ({})", explained(text)));
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// Whether the text is a server's permission error for an established connection.
fn is_denial(text: &str) -> bool {
    text.to_lowercase().contains("permissions violation")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_login_is_known_until_it_is_let_in() {
        let line = Connection::new("nats://here".into());
        assert_eq!(line.outage(), None);
        line.attempted(["IO error: Connection refused"].into_iter());
        assert!(matches!(line.outage(), Some(Outage::Failed(_))));
        line.attempted(
            [
                "IO error: Connection refused",
                "authorization violation: nats: authorization violation",
            ]
            .into_iter(),
        );
        assert!(matches!(line.outage(), Some(Outage::Refused(_))));
        line.happened(&Event::Connected);
        assert_eq!(line.outage(), None);
        let denied = "Permissions Violation for Publish to \"$JS.API.STREAM.NAMES\"";
        line.happened(&Event::ServerError(ServerError::Other(denied.to_owned())));
        let Some(Outage::Refused(reason)) = line.outage() else {
            panic!("a denied permission is a refusal");
        };
        assert!(reason.contains("$JS.API.STREAM.NAMES"), "{reason}");
    }

    #[tokio::test]
    async fn servers_own_error_is_quoted_and_masked() {
        secrets::register("nats-answer-s3cret-0123");
        let line = Connection::new("nats://here".into());
        let error = "IO error: nats: 'maximum connections exceeded for nats-answer-s3cret-0123'";
        line.attempted([error, "IO error: Connection refused"].into_iter());
        let Some(Outage::Failed(reason)) = line.outage() else {
            panic!("an answer that is no refusal may change");
        };
        assert_eq!(
            reason,
            "the server answered -ERR 'maximum connections exceeded for ***'"
        );
    }

    #[test]
    fn unusable_ca_variable_explains_a_tls_error() {
        let reason = || Some("SSL_CERT_FILE is /nonexistent.pem: No such file".to_owned());
        let text = explained_by("TLS error", reason);
        assert!(text.contains("/nonexistent.pem"), "{text}");
        assert_eq!(explained_by("connection refused", reason), "connection refused");
        assert_eq!(explained_by("TLS error", || None), "TLS error");
    }

    #[tokio::test(start_paused = true)]
    async fn series_of_one_cause_is_one_line_in_the_log() {
        let line = Connection::new("nats://one".into());
        assert_eq!(line.unusable("a"), Some(1));
        for _ in 0..20 {
            assert_eq!(line.unusable("a"), None);
        }
        assert_eq!(line.unusable("b"), Some(1), "another cause is another line");
        line.happened(&Event::Connected);
        assert_eq!(
            line.unusable("a"),
            None,
            "a connection does not start the count anew"
        );
        tokio::time::advance(REPEAT_INTERVAL).await;
        assert_eq!(line.unusable("a"), Some(22));
        for n in 0..3 * MAX_CAUSES {
            line.unusable(&n.to_string());
        }
        assert!(line.with(|state| state.unusable.len()) <= MAX_CAUSES);
    }

    #[test]
    fn refusals_of_a_server_are_named_by_their_cause() {
        for (text, said) in [
            (
                "authorization violation: nats: authorization violation",
                Some("refuses our credentials"),
            ),
            ("nats: user authentication expired", Some("expired")),
            ("nats: user authentication revoked", Some("revoked")),
            ("failed signing nonce", Some("cannot sign")),
            (
                "TLS error: invalid peer certificate: UnknownIssuer",
                Some("not trusted"),
            ),
            (
                "IO error: received fatal alert: CertificateRequired",
                Some("client certificate"),
            ),
            (
                "IO error: received corrupt message of type InvalidContentType",
                Some("does not support TLS"),
            ),
            (
                "TLS error: could not add certificate or key",
                Some("do not belong together"),
            ),
            ("IO error: Connection refused (os error 111)", None),
            ("timed out", None),
        ] {
            let reason = refusal(text);
            match said {
                Some(said) => assert!(
                    reason.as_deref().is_some_and(|reason| reason.contains(said)),
                    "{text}: {reason:?}"
                ),
                None => assert_eq!(reason, None, "{text}"),
            }
        }
    }
}
