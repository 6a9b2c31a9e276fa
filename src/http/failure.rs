//! Why there is no response: a stable code, and a sentence without addresses or secrets.

use std::error::Error;
use std::io;

use crate::core::code::Code;
use crate::descriptors;
use crate::secrets;
use crate::tls;

/// Why an exchange brought no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The network or the other side failed.
    #[error("{reason}")]
    Network {
        code: Code,
        reason: String,
        /// Whether the request certainly never reached the other side.
        never_sent: bool,
    },
    /// The request cannot be encoded: a header contains invalid characters.
    #[error("the token or client id has characters that cannot be sent")]
    Unsendable,
    /// The body is larger than we read.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
        /// The status of the answer.
        status: u16,
    },
}

impl HttpError {
    pub fn code(&self) -> Code {
        match self {
            Self::Network { code, .. } => *code,
            Self::Unsendable => Code::HttpUnsendable,
            Self::TooLarge { .. } => Code::HttpTooLarge,
        }
    }

    /// Returns whether the request certainly had no effect on the other side, because it never arrived.
    pub fn never_sent(&self) -> bool {
        matches!(self, Self::Network { never_sent: true, .. } | Self::Unsendable)
    }

    /// Returns whether a retry may have another result. A certificate does not change between two attempts.
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self.code(),
            Code::NetworkTls | Code::HttpTooLarge | Code::HttpUnsendable
        )
    }

    /// Adds the proxy (`HOST:PORT`) to a connection failure, where requests are sent over one: the platform was not reached at
    /// all.
    #[must_use]
    pub(super) fn over(self, proxy: Option<&str>) -> Self {
        let (Self::Network { code, reason, .. }, Some(proxy)) = (&self, proxy) else {
            return self;
        };
        let reason = match *code {
            Code::NetworkProxy if reason.to_lowercase().contains("auth") => {
                return Self::of_proxy_credentials(Some(proxy));
            }
            Code::NetworkProxy => reason.replacen("the proxy", &format!("the proxy {proxy}"), 1),
            Code::NetworkConnect => format!("the proxy {proxy} cannot be reached: {reason}"),
            Code::NetworkDns => {
                format!("the proxy {proxy} cannot be reached, or it does not know the host: {reason}")
            }
            _ => return self,
        };
        Self::of_proxy(&reason)
    }

    /// The failure of a proxy (`HOST:PORT`) that requires other credentials.
    pub(super) fn of_proxy_credentials(proxy: Option<&str>) -> Self {
        let which = match proxy {
            Some(proxy) => format!("the proxy {proxy}"),
            None => "a proxy".to_owned(),
        };
        Self::of_proxy(&format!(
            "{which} requires a user and a password, or refuses the given ones (status 407)"
        ))
    }

    fn of_proxy(reason: &str) -> Self {
        Self::Network {
            code: Code::NetworkProxy,
            reason: secrets::quote(reason),
            never_sent: true,
        }
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
        let code = if is_our_shortage(code, &chain) {
            Code::NetworkTooManyFiles
        } else {
            code
        };
        // A timeout of the whole exchange may occur at any time; one of the connection only before anything is sent.
        let never_sent = error.is_connect() || code.is_before_sending() || code == Code::NetworkTooManyFiles;
        Self::Network {
            code,
            reason: secrets::quote(
                &chain
                    .iter()
                    .find_map(|cause| tls_error(*cause))
                    .and_then(certificate)
                    .unwrap_or_else(|| reason(code, &text)),
            ),
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

/// Whether nothing was opened because this process has no descriptor left. A resolver and a TLS stack report that as failures of
/// their own, so it is checked separately where no error contains it.
fn is_our_shortage(code: Code, chain: &[&(dyn Error + 'static)]) -> bool {
    let said = chain
        .iter()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(descriptors::is_exhaustion);
    said || (matches!(code, Code::NetworkConnect | Code::NetworkDns | Code::NetworkTls)
        && descriptors::are_exhausted())
}

fn code_of(error: &reqwest::Error, chain: &[&(dyn Error + 'static)], text: &str) -> Code {
    let kind = chain
        .iter()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    let tls = chain.iter().any(|cause| tls_error(*cause).is_some());
    if error.is_timeout() || kind == Some(io::ErrorKind::TimedOut) {
        Code::NetworkTimeout
    } else if tls {
        Code::NetworkTls
    } else if text.contains("tunnel error") || text.contains("connecting to socks proxy") {
        Code::NetworkProxy
    } else if text.contains("dns error") || text.contains("failed to lookup address") {
        Code::NetworkDns
    } else if error.is_connect() {
        Code::NetworkConnect
    } else {
        Code::NetworkReset
    }
}

/// An I/O error hides the error that it was made of from the chain of causes, and may contain another one like it.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| tls_error(inner))
}

/// Returns why no secure connection was established; `None` where the error has another cause.
pub fn tls_reason(error: &(dyn Error + 'static)) -> Option<String> {
    let found = causes(error).into_iter().find_map(tls_error)?;
    Some(certificate(found).unwrap_or_else(|| reason(Code::NetworkTls, &found.to_string())))
}

/// Describes the problem with a certificate; `None` for other errors.
///
/// Where a variable points to certificates that cannot be used, that may be why no issuer is trusted, so the message contains it.
fn certificate(error: &rustls::Error) -> Option<String> {
    certificate_with(error, tls::unusable_variable())
}

fn certificate_with(error: &rustls::Error, unusable: Option<String>) -> Option<String> {
    use rustls::CertificateError as Wrong;
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return None;
    };
    let of_issuer = match wrong {
        Wrong::UnknownIssuer => true,
        Wrong::Other(other) => format!("{other:?}").contains("CaUsedAsEndEntity"),
        _ => false,
    };
    let explanation = match wrong {
        Wrong::Expired | Wrong::ExpiredContext { .. } => "its certificate has ended".to_owned(),
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or this machine's clock is wrong".to_owned()
        }
        Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
            "its certificate is for another host".to_owned()
        }
        Wrong::UnknownIssuer => {
            "its certificate is signed by an authority that this machine does not trust".to_owned()
        }
        // The library has no variant for it.
        Wrong::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is self-signed".to_owned()
        }
        other => format!("its certificate is refused: {other}"),
    };
    Some(match unusable.filter(|_| of_issuer) {
        Some(reason) => {
            format!("no secure connection ({explanation}; {reason}: correct or unset that variable)")
        }
        None => format!("no secure connection ({explanation})"),
    })
}

/// The message for people, with the lowest cause where it adds information.
fn reason(code: Code, text: &str) -> String {
    let lowest = text.rsplit(": ").next().unwrap_or_default();
    match code {
        Code::NetworkTimeout => "no answer in time".to_owned(),
        Code::NetworkDns => "the host name cannot be resolved".to_owned(),
        Code::NetworkTooManyFiles => descriptors::REASON.to_owned(),
        Code::NetworkConnect => format!("no connection ({lowest})"),
        Code::NetworkTls => format!("no secure connection ({lowest})"),
        Code::NetworkProxy => format!("the proxy does not let us through ({lowest})"),
        _ => format!("the connection broke off ({lowest})"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError as Wrong;

    use super::*;

    #[test]
    fn failure_of_a_proxy_names_the_proxy_and_its_credentials() {
        let network = |code, reason: &str| HttpError::Network {
            code,
            reason: reason.to_owned(),
            never_sent: true,
        };
        for (code, reason, explanation) in [
            (
                Code::NetworkConnect,
                "no connection (Connection refused)",
                "the proxy gate:3128 cannot be reached: no connection (Connection refused)",
            ),
            (
                Code::NetworkProxy,
                "the proxy does not let us through (unsuccessful)",
                "the proxy gate:3128 does not let us through (unsuccessful)",
            ),
            (
                Code::NetworkProxy,
                "the proxy does not let us through (proxy authorization required)",
                "the proxy gate:3128 requires a user and a password, or refuses the given ones (status 407)",
            ),
        ] {
            let error = network(code, reason).over(Some("gate:3128"));
            assert_eq!(
                (error.code(), error.to_string().as_str()),
                (Code::NetworkProxy, explanation)
            );
            assert_eq!(network(code, reason).over(None), network(code, reason));
        }
        let tls = network(Code::NetworkTls, "no secure connection");
        assert_eq!(tls.clone().over(Some("gate:3128")), tls);
    }

    #[test]
    fn running_out_of_descriptors_is_our_own_failure() {
        let full = io::Error::from_raw_os_error(libc::EMFILE);
        assert!(is_our_shortage(Code::NetworkReset, &[&full]));
        assert!(reason(Code::NetworkTooManyFiles, "Too many open files").contains("ulimit -n"));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(!is_our_shortage(Code::NetworkConnect, &[&refused]));
    }

    #[test]
    fn rejected_certificate_is_explained_in_plain_words() {
        #[derive(Debug, thiserror::Error)]
        #[error("CaUsedAsEndEntity")]
        struct CaUsedAsEndEntity;
        let unconfirmed_offset = rustls::OtherError(std::sync::Arc::new(CaUsedAsEndEntity));
        for (wrong, words) in [
            (Wrong::Expired, "has ended"),
            (Wrong::NotValidYet, "clock"),
            (Wrong::NotValidForName, "another host"),
            (Wrong::UnknownIssuer, "authority that this machine does not trust"),
            (Wrong::Other(unconfirmed_offset), "is self-signed"),
            (Wrong::Revoked, "is refused"),
        ] {
            let inner = io::Error::other(rustls::Error::InvalidCertificate(wrong));
            let error = io::Error::other(inner);
            let explanation = tls_error(&error).and_then(certificate).unwrap();
            assert!(explanation.contains(words), "{explanation}");
        }
        let unknown = rustls::Error::InvalidCertificate(Wrong::UnknownIssuer);
        let missing = Some("SSL_CERT_FILE is /nonexistent.pem: No such file".to_owned());
        let explanation = certificate_with(&unknown, missing.clone()).unwrap();
        assert!(explanation.contains("/nonexistent.pem"), "{explanation}");
        let expired = rustls::Error::InvalidCertificate(Wrong::Expired);
        assert!(certificate_with(&expired, missing).unwrap().contains("has ended"));
        assert_eq!(certificate(&rustls::Error::DecryptError), None);
        assert!(tls_error(&io::Error::other("no route")).is_none());
    }
}
