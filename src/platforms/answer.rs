//! What an HTTP answer means to a platform adapter: the same reading of statuses for all of them.

use serde::Deserialize;

use super::PlatformError;
use crate::core::observation::{ErrorInfo, LinkState};
use crate::core::source::PlatformName;
use crate::http::{Answer, HttpError};

/// What was asked, for error messages.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The platform.
    pub platform: PlatformName,
    /// What we asked for, for people: `the list of streams`.
    pub operation: &'static str,
}

impl Asked {
    /// Passes a successful answer on and turns everything else into the error that it means.
    ///
    /// A web page is never an API's answer, whatever its status: it comes from an edge, a proxy or a portal.
    pub fn judge(self, outcome: Result<Answer, HttpError>) -> Result<Answer, PlatformError> {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error @ HttpError::TooLarge { .. }) => return Err(self.unreadable(error.to_string())),
            Err(error @ HttpError::Unsendable) => {
                return Err(PlatformError::NotConfigured {
                    platform: self.platform,
                    what: format!("credentials in their right form: {error}"),
                });
            }
            Err(error) => return Err(self.unavailable(error.code(), error.to_string())),
        };
        let Asked { platform, operation } = self;
        let status = answer.status;
        if answer.is_web_page() {
            let code = if answer.is_success() {
                "http.html".to_owned()
            } else {
                format!("http.{status}")
            };
            return Err(self.unavailable(
                &code,
                format!("a web page came instead of an answer (status {status})"),
            ));
        }
        match status {
            200..300 => Ok(answer),
            401 => Err(PlatformError::Unauthorized {
                platform,
                reason: reason(&answer),
            }),
            403 => Err(PlatformError::Forbidden {
                platform,
                operation,
                reason: reason(&answer),
            }),
            429 => Err(PlatformError::RateLimited {
                platform,
                retry_after: answer.asked_wait(),
            }),
            400..500 => Err(PlatformError::Rejected {
                platform,
                operation,
                status,
                reason: reason(&answer),
            }),
            _ => Err(self.unavailable(&format!("http.{status}"), reason(&answer))),
        }
    }

    /// Builds the error for an answer that is not what the platform documents.
    pub fn unreadable(self, reason: String) -> PlatformError {
        PlatformError::Unreadable {
            platform: self.platform,
            operation: self.operation,
            reason,
        }
    }

    fn unavailable(self, code: &str, reason: String) -> PlatformError {
        PlatformError::Unavailable {
            platform: self.platform,
            operation: self.operation,
            reason,
            code: code.to_owned(),
        }
    }
}

impl PlatformError {
    /// Returns the error as it is kept with a source: a stable code and a sentence.
    pub fn error_info(&self) -> ErrorInfo {
        let code = match self {
            Self::Unavailable { code, .. } => code.clone(),
            Self::RateLimited { .. } => "http.429".to_owned(),
            Self::Unauthorized { platform, .. } => format!("{platform}.unauthorized"),
            Self::Forbidden { platform, .. } => format!("{platform}.forbidden"),
            Self::Unreadable { platform, .. } => format!("{platform}.unreadable"),
            Self::Rejected { platform, .. } => format!("{platform}.rejected"),
            Self::NotConfigured { platform, .. } => format!("{platform}.not_configured"),
            Self::TokenStore { platform, .. } => format!("{platform}.token_store"),
        };
        ErrorInfo::new(&code, self.to_string())
    }

    /// Returns what the failure of a call means for the transport that it used: refused where a person must act, else
    /// down.
    pub fn link_state(&self) -> LinkState {
        let error = self.error_info();
        match self {
            Self::Unavailable { .. } | Self::RateLimited { .. } | Self::Unreadable { .. } => {
                LinkState::Down { error }
            }
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::Rejected { .. }
            | Self::NotConfigured { .. }
            | Self::TokenStore { .. } => LinkState::Refused { error },
        }
    }
}

/// Returns the platform's own words of an error answer: its `message` or `error` field, else the status.
pub fn reason(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Body {
        message: Option<serde_json::Value>,
        error: Option<serde_json::Value>,
    }
    let text = |value: serde_json::Value| value.as_str().map(str::to_owned).filter(|text| !text.is_empty());
    let said = answer
        .json::<Body>()
        .ok()
        .and_then(|body| body.message.and_then(text).or(body.error.and_then(text)));
    said.map_or_else(
        || format!("status {}", answer.status),
        |said| {
            // Words of a stranger: short, and without what would move the terminal's cursor.
            said.chars()
                .filter(|letter| !letter.is_control())
                .take(160)
                .collect()
        },
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::time::Timestamp;

    const ASKED: Asked = Asked {
        platform: PlatformName::Twitch,
        operation: "the users",
    };

    fn answer(status: u16, kind: &str, body: &'static str) -> Answer {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        Answer {
            status,
            headers,
            body: body.into(),
            received_at: Timestamp::EPOCH,
            rtt: Duration::ZERO,
        }
    }

    #[test]
    fn statuses_mean_the_same_everywhere() {
        let json = r#"{"error":"Nope","status":0,"message":"because"}"#;
        for (status, expected) in [
            (302, "twitch cannot be reached for the users: because"),
            (400, "twitch rejected the users: because"),
            (401, "twitch refused the credentials: because"),
            (403, "twitch does not allow the users: because"),
            (404, "twitch rejected the users: because"),
            (429, "twitch asked for fewer requests"),
            (500, "twitch cannot be reached for the users: because"),
        ] {
            let error = ASKED
                .judge(Ok(answer(status, "application/json", json)))
                .unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        assert!(ASKED.judge(Ok(answer(200, "application/json", "{}"))).is_ok());
    }

    #[test]
    fn a_web_page_is_an_outage_whatever_its_status() {
        for (status, code) in [
            (200, "http.html"),
            (401, "http.401"),
            (403, "http.403"),
            (503, "http.503"),
        ] {
            let page = ASKED.judge(Ok(answer(status, "text/html", "<html>Blocked</html>")));
            let Err(PlatformError::Unavailable { code: found, .. }) = page else {
                panic!("{status}: {page:?}");
            };
            assert_eq!(found, code);
        }
    }

    #[test]
    fn the_platforms_words_are_short_and_harmless() {
        for (body, words) in [
            ("", "status 400"),
            ("no json", "status 400"),
            (r#"{"error":"Bad Request"}"#, "Bad Request"),
            (r#"{"error":{"code":7}}"#, "status 400"),
            ("{\"message\":\"\\u001b[2Jgone\"}", "[2Jgone"),
        ] {
            assert_eq!(reason(&answer(400, "application/json", body)), words);
        }
    }
}
