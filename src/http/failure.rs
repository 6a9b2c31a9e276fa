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
            reason: chain
                .iter()
                .find_map(|cause| tls_error(*cause))
                .and_then(certificate)
                .unwrap_or_else(|| reason(code, &text)),
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
    let tls = chain.iter().any(|cause| tls_error(*cause).is_some());
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
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| tls_error(inner))
}

/// What is wrong with a certificate, in words; `None` for what is not about one.
fn certificate(error: &rustls::Error) -> Option<String> {
    use rustls::CertificateError as Wrong;
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return None;
    };
    let told = match wrong {
        Wrong::Expired | Wrong::ExpiredContext { .. } => "its certificate has ended".to_owned(),
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or this machine's clock is wrong".to_owned()
        }
        Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
            "its certificate is for another host".to_owned()
        }
        Wrong::UnknownIssuer => "nobody that this machine trusts has signed its certificate".to_owned(),
        // The library has no word of its own for it.
        Wrong::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is signed by nobody but itself".to_owned()
        }
        other => format!("its certificate is refused: {other}"),
    };
    Some(format!("no secure connection ({told})"))
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

#[cfg(test)]
mod tests {
    use rustls::CertificateError as Wrong;

    use super::*;

    #[test]
    fn a_certificate_that_is_refused_is_said_to_be_wrong_in_words() {
        #[derive(Debug, thiserror::Error)]
        #[error("CaUsedAsEndEntity")]
        struct CaUsedAsEndEntity;
        let unheard_of = rustls::OtherError(std::sync::Arc::new(CaUsedAsEndEntity));
        for (wrong, words) in [
            (Wrong::Expired, "has ended"),
            (Wrong::NotValidYet, "clock"),
            (Wrong::NotValidForName, "another host"),
            (Wrong::UnknownIssuer, "nobody that this machine trusts"),
            (Wrong::Other(unheard_of), "nobody but itself"),
            (Wrong::Revoked, "is refused"),
        ] {
            let inner = io::Error::other(rustls::Error::InvalidCertificate(wrong));
            let error = io::Error::other(inner);
            let told = tls_error(&error).and_then(certificate).unwrap();
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(certificate(&rustls::Error::DecryptError), None);
        assert!(tls_error(&io::Error::other("no route")).is_none());
    }
}
