//! Why there is no answer: a stable code, and a sentence without addresses or secrets.

use std::error::Error;
use std::io;

/// Why an exchange brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The network or the other side failed.
    #[error("{reason}")]
    Network {
        /// `network.timeout`, `network.connect`, `network.tls`, `network.dns` or `network.reset`.
        code: &'static str,
        /// Why.
        reason: String,
        /// Whether the request surely never reached the other side.
        never_sent: bool,
    },
    /// The request cannot even be written: a header holds what no header may.
    #[error("the token or client id has characters that cannot be sent")]
    Unsendable,
    /// The body is larger than we read.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
}

impl HttpError {
    /// Returns the stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Network { code, .. } => code,
            Self::Unsendable => "http.unsendable",
            Self::TooLarge { .. } => "http.too_large",
        }
    }

    /// Returns whether the request surely had no effect on the other side, because it never got there.
    pub fn never_sent(&self) -> bool {
        matches!(self, Self::Network { never_sent: true, .. } | Self::Unsendable)
    }

    /// Returns whether asking again may bring something else. A certificate does not change between two attempts.
    pub fn may_heal(&self) -> bool {
        !matches!(self.code(), "network.tls" | "http.too_large" | "http.unsendable")
    }

    pub(super) fn from_reqwest(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let chain = causes(&error);
        let text = chain
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ");
        let code = code_of(&error, &chain, &text);
        // A timeout of the whole exchange may strike at any time; one of the connection only before anything is sent.
        let never_sent =
            error.is_connect() || matches!(code, "network.connect" | "network.dns" | "network.tls");
        Self::Network {
            code,
            reason: reason(code, &text),
            never_sent,
        }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut chain = vec![error];
    let mut lowest = error;
    while let Some(cause) = lowest.source() {
        chain.push(cause);
        lowest = cause;
    }
    chain
}

fn code_of(error: &reqwest::Error, chain: &[&(dyn Error + 'static)], text: &str) -> &'static str {
    let kind = chain
        .iter()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    let tls = chain.iter().any(|cause| is_of_tls(*cause));
    if error.is_timeout() || kind == Some(io::ErrorKind::TimedOut) {
        "network.timeout"
    } else if tls {
        "network.tls"
    } else if text.contains("dns error") || text.contains("failed to lookup address") {
        "network.dns"
    } else if error.is_connect() {
        "network.connect"
    } else {
        "network.reset"
    }
}

/// An I/O error hides the error that it was made of from the chain of causes, and may hold another one like it.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| is_of_tls(inner))
}

/// The words for people, with the lowest cause where it says more.
fn reason(code: &str, text: &str) -> String {
    let lowest = text.rsplit(": ").next().unwrap_or_default();
    match code {
        "network.timeout" => "no answer in time".to_owned(),
        "network.dns" => "the host name cannot be resolved".to_owned(),
        "network.connect" => format!("no connection ({lowest})"),
        "network.tls" => format!("no secure connection ({lowest})"),
        _ => format!("the connection broke off ({lowest})"),
    }
}
