//! Why a platform did not answer as requested, and what follows.

use std::time::Duration;

use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, LinkState};
use crate::core::source::PlatformName;
use crate::descriptors;
use crate::tokens::TokenError;

/// Why a platform did not answer as requested. Retry loops decide by [`PlatformError::recovery`] alone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlatformError {
    /// The credentials were rejected.
    #[error("{platform} refused the credentials: {reason}")]
    Unauthorized {
        /// Whose API was called.
        platform: PlatformName,
        /// From the platform's answer.
        reason: String,
    },
    /// The caller is authenticated but not allowed, for example because of a missing scope.
    #[error("{platform} does not allow {operation}: {reason}")]
    Forbidden {
        /// Whose API was called.
        platform: PlatformName,
        /// The request as a noun, such as "the list of streams".
        operation: &'static str,
        /// From the platform's answer.
        reason: String,
    },
    /// Too many requests.
    #[error("{platform} asked for fewer requests")]
    RateLimited {
        /// Whose API was called.
        platform: PlatformName,
        /// How long to wait, if the platform specified it.
        retry_after: Option<Duration>,
    },
    /// No answer, or one that means that the platform itself has failed (5xx, an edge's block page).
    #[error("{platform} {}: {reason}", outage(*code, operation))]
    Unavailable {
        /// Whose API was called.
        platform: PlatformName,
        /// The request as a noun, such as "the list of streams".
        operation: &'static str,
        /// From the transport, or from the answer of the platform or its edge.
        reason: String,
        /// Which kind of failure that is.
        code: Code,
    },
    /// An answer that is not what the platform documents.
    #[error("cannot read {platform}'s answer to {operation}: {reason}")]
    Unreadable {
        /// Whose API was called.
        platform: PlatformName,
        /// The request as a noun, such as "the list of streams".
        operation: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The platform rejects the request itself as invalid.
    #[error("{platform} rejected {operation}: {reason}")]
    Rejected {
        /// Whose API was called.
        platform: PlatformName,
        /// The request as a noun, such as "the list of streams".
        operation: &'static str,
        /// HTTP status.
        status: u16,
        /// From the platform's answer.
        reason: String,
    },
    /// The platform rejects the application: a wrong or missing secret, or an unknown client id.
    #[error("{platform} rejected a token for this client id and secret: {reason}")]
    ClientRejected {
        /// Whose API was called.
        platform: PlatformName,
        /// From the platform's answer.
        reason: String,
    },
    /// The configuration lacks a required value.
    #[error("{platform} needs {what}")]
    NotConfigured {
        /// Whose API was called.
        platform: PlatformName,
        /// What is missing, and how to configure it.
        what: String,
    },
    /// The stored token belongs to a different account than the one for which it is stored.
    #[error("{platform} needs {what}")]
    OtherAccount {
        /// Whose API was called.
        platform: PlatformName,
        /// Whose token is needed, and whose it is.
        what: String,
    },
    /// The local token store cannot be used. This is no evidence about the tokens in it or about the platform.
    #[error("the tokens for {platform} cannot be used: {reason}")]
    TokenStore {
        /// Whose API was called.
        platform: PlatformName,
        /// The reason, and what to do.
        reason: String,
    },
}

/// Says how an outage showed: a server that answers with an error was reached.
fn outage(code: Code, operation: &str) -> String {
    match code {
        Code::Http(status) => format!("answered {operation} with status {status}"),
        Code::HttpWebPage => format!("did not answer {operation}"),
        _ => format!("cannot be reached for {operation}"),
    }
}

/// How a caller should recover from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Retry with backoff.
    Retry,
    /// Retry after this time.
    RetryAfter(Duration),
    /// Check the authorization first.
    Reauthenticate,
    /// A retry would fail the same way.
    GiveUp,
}

impl PlatformError {
    pub fn unauthorized(platform: PlatformName, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Unauthorized { platform, reason }
    }

    pub fn rate_limited(platform: PlatformName, retry_after: Option<Duration>) -> Self {
        Self::RateLimited {
            platform,
            retry_after,
        }
    }

    pub fn not_configured(platform: PlatformName, what: impl Into<String>) -> Self {
        let what = what.into();
        Self::NotConfigured { platform, what }
    }

    /// Builds the error for a token that cannot be read or stored.
    ///
    /// Running out of file descriptors is transient: they are freed when connections end, and the token store needs no
    /// correction.
    pub fn of_token_store(platform: PlatformName, error: &TokenError) -> Self {
        let cause = std::error::Error::source(error);
        let shortage = cause
            .and_then(|cause| cause.downcast_ref::<std::io::Error>())
            .is_some_and(descriptors::is_exhaustion);
        if shortage {
            return Self::Unavailable {
                platform,
                operation: "anything that needs a token",
                reason: descriptors::REASON.to_owned(),
                code: Code::NetworkTooManyFiles,
            };
        }
        let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        Self::TokenStore {
            platform,
            reason: format!("{error}{cause}; {}", error.hint()),
        }
    }

    pub fn code(&self) -> Code {
        match *self {
            Self::Unavailable { code, .. } => code,
            Self::RateLimited { platform, .. } => Code::RateLimited(platform),
            Self::Unauthorized { platform, .. } => Code::Unauthorized(platform),
            Self::Forbidden { platform, .. } => Code::Forbidden(platform),
            Self::Unreadable { platform, .. } => Code::Unreadable(platform),
            Self::Rejected { platform, .. } => Code::Rejected(platform),
            Self::ClientRejected { platform, .. } => Code::ClientRejected(platform),
            Self::NotConfigured { platform, .. } => Code::NotConfigured(platform),
            Self::OtherAccount { platform, .. } => Code::OtherAccount(platform),
            Self::TokenStore { platform, .. } => Code::TokenStore(platform),
        }
    }

    /// Returns the error as stored with a source: the code and a sentence.
    pub fn error_info(&self) -> ErrorInfo {
        ErrorInfo::new(self.code(), self.to_string())
    }

    /// Returns what a failed call means for the transport that it used: refused if it needs attention, otherwise down.
    pub fn link_state(&self) -> LinkState {
        let error = self.error_info();
        match self {
            Self::Unavailable { .. } | Self::RateLimited { .. } | Self::Unreadable { .. } => {
                LinkState::Down { error }
            }
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::Rejected { .. }
            | Self::ClientRejected { .. }
            | Self::NotConfigured { .. }
            | Self::OtherAccount { .. }
            | Self::TokenStore { .. } => LinkState::Refused { error },
        }
    }

    /// Returns whether the account that was used is the reason: it has no usable token.
    pub fn is_of_account(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized { .. } | Self::NotConfigured { .. } | Self::OtherAccount { .. }
        )
    }

    /// Returns how a caller should recover.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::RateLimited { retry_after, .. } => {
                retry_after.map_or(Recovery::Retry, Recovery::RetryAfter)
            }
            Self::Unauthorized { .. } => Recovery::Reauthenticate,
            Self::Unavailable { .. } | Self::Unreadable { .. } | Self::TokenStore { .. } => Recovery::Retry,
            Self::Forbidden { .. }
            | Self::Rejected { .. }
            | Self::ClientRejected { .. }
            | Self::NotConfigured { .. }
            | Self::OtherAccount { .. } => Recovery::GiveUp,
        }
    }

    /// Returns whether the failure would affect every request: nothing was sent, because the platform cannot be reached or no
    /// account is usable.
    pub fn affects_every_request(&self) -> bool {
        match self {
            Self::Unauthorized { .. }
            | Self::NotConfigured { .. }
            | Self::OtherAccount { .. }
            | Self::TokenStore { .. } => true,
            Self::Unavailable { code, .. } => code.is_before_sending(),
            Self::Forbidden { .. }
            | Self::RateLimited { .. }
            | Self::Unreadable { .. }
            | Self::ClientRejected { .. }
            | Self::Rejected { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_exhaustion_is_not_a_token_store_error() {
        let read = |code| TokenError::Read {
            path: "/tokens.json".into(),
            source: std::io::Error::from_raw_os_error(code),
        };
        let shortage = PlatformError::of_token_store(PlatformName::Twitch, &read(libc::EMFILE));
        assert_eq!(shortage.code(), Code::NetworkTooManyFiles);
        assert!(matches!(shortage.link_state(), LinkState::Down { .. }));
        let broken = PlatformError::of_token_store(PlatformName::Twitch, &read(libc::EACCES));
        assert!(matches!(broken.link_state(), LinkState::Refused { .. }));
    }
}
