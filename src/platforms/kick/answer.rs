//! Classification of Kick's responses, where it differs from the common one.
//!
//! Cloudflare is in front of Kick: its responses, in HTML or in JSON of its own, are about the link and never about
//! the account.

use std::fmt;

use serde::Deserialize;

use crate::core::code::Code;
use crate::core::source::PlatformName;
use crate::http::{Answer, HttpError};
use crate::platforms::PlatformError;
use crate::platforms::kit::answer::{Asked, foreign_text, is_foreign_refusal, reported_error};

/// Names the operation.
pub(super) fn asked(operation: &'static str) -> Asked {
    Asked::new(PlatformName::Kick, operation)
}

/// Parses a response body.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    answer: &Answer,
    operation: &'static str,
) -> Result<T, PlatformError> {
    answer.object().map_err(|reason| unreadable(operation, reason))
}

/// Builds the error for a response that does not match Kick's documentation.
pub(super) fn unreadable(operation: &'static str, reason: String) -> PlatformError {
    asked(operation).unreadable(reason)
}

/// What a request is sent to, which determines the format of Kick's own refusals there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Anything on `api.kick.com`: the envelope.
    Api,
    /// The introspection of a token on `id.kick.com`, which has the API's envelope.
    Introspection,
    /// The token endpoint on `id.kick.com`: a few errors of RFC 6749, without an envelope.
    Token,
}

impl Endpoint {
    /// Returns whether `answer` is a refusal that Kick itself does not send here.
    fn is_foreign(self, answer: &Answer) -> bool {
        if !matches!(answer.status, 400..=428 | 430..=499) {
            return false;
        }
        let own = !is_foreign_refusal(PlatformName::Kick, answer);
        let documented = match (self, error_member(answer).as_deref()) {
            (Self::Api | Self::Introspection, error) => error.is_none(),
            // Which of the two statuses comes is not documented.
            (Self::Token, Some("invalid_grant" | "invalid_client")) => matches!(answer.status, 400 | 401),
            (Self::Token, Some(_)) => answer.status == 400,
            (Self::Token, None) => false,
        };
        !(own && documented)
    }

    /// Returns whether `answer` leaves the question open: another server refused, or Kick reported an error as a success.
    pub(super) fn leaves_open(self, answer: &Answer) -> bool {
        self.is_foreign(answer)
            || (answer.is_success() && reported_error(PlatformName::Kick, answer).is_some())
    }

    /// Classifies a response.
    pub(super) fn judge(
        self,
        asked: Asked,
        outcome: Result<Answer, HttpError>,
    ) -> Result<Answer, PlatformError> {
        match self {
            Self::Api => judge(asked, outcome),
            Self::Introspection | Self::Token => judge_oauth(self, asked, outcome),
        }
    }
}

/// Classifies a response of the API host.
pub(super) fn judge(asked: Asked, outcome: Result<Answer, HttpError>) -> Result<Answer, PlatformError> {
    judge_at(Endpoint::Api, asked, outcome)
}

fn judge_at(
    endpoint: Endpoint,
    asked: Asked,
    outcome: Result<Answer, HttpError>,
) -> Result<Answer, PlatformError> {
    if let Ok(answer) = &outcome
        && let Some(edge) = edge_block(answer)
    {
        return Err(asked.unavailable(Code::EdgeBlocked(PlatformName::Kick), edge.to_string()));
    }
    if let Ok(answer) = &outcome
        && !answer.is_web_page()
        && endpoint.is_foreign(answer)
    {
        let words = foreign_text(asked.platform, answer.status);
        return Err(match answer.status {
            // A server without this path reports that in its own way; the status triggers the request for the older list.
            404 => asked.unavailable(Code::Http(404), words),
            _ => asked.unreadable(words),
        });
    }
    asked.judge(outcome)
}

/// Classifies a response of the OAuth host. It has returned 404 on all paths for days: that is an outage too.
fn judge_oauth(
    endpoint: Endpoint,
    asked: Asked,
    outcome: Result<Answer, HttpError>,
) -> Result<Answer, PlatformError> {
    let name = outcome.as_ref().ok().and_then(error_name);
    match (judge_at(endpoint, asked, outcome), name) {
        (
            Err(PlatformError::Rejected {
                status: 404, reason, ..
            }),
            _,
        ) => Err(asked.unavailable(Code::Http(404), reason)),
        // The error's name decides what to do, and its description must not hide it.
        (Err(PlatformError::Rejected { status, .. }), Some(reason)) => Err(asked.rejected(status, reason)),
        (Err(PlatformError::Unauthorized { platform, .. }), Some(reason)) => {
            Err(PlatformError::Unauthorized { platform, reason })
        }
        (other, _) => other,
    }
}

/// Returns the name of an OAuth error, such as `invalid_grant`.
fn error_name(answer: &Answer) -> Option<String> {
    let name = error_member(answer)?;
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    (name.len() < 40 && name.chars().all(is_name)).then_some(name)
}

/// Returns the member that distinguishes an OAuth error from the envelope.
fn error_member(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: String,
    }
    answer.object::<Body>().ok().map(|body| body.error)
}

/// The edge's own refusal.
struct EdgeBlock(String);

impl fmt::Display for EdgeBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference: String = self
            .0
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(16)
            .collect();
        write!(f, "Kick's edge has blocked the request (reference {reference})")
    }
}

/// Recognizes `{"error":"Request blocked by security policy.","reference":"…"}`, which is not the API's own 403.
fn edge_block(answer: &Answer) -> Option<EdgeBlock> {
    #[derive(Deserialize)]
    struct Body {
        error: String,
        reference: String,
    }
    if answer.status != 403 {
        return None;
    }
    let body: Body = answer.json().ok()?;
    body.error
        .to_ascii_lowercase()
        .contains("security policy")
        .then_some(EdgeBlock(body.reference))
}

/// Returns whether an error comes from an edge that blocks rather than from a network that fails.
pub(super) fn is_blocked(error: &PlatformError) -> bool {
    let PlatformError::Unavailable { code, .. } = error else {
        return false;
    };
    matches!(
        code,
        Code::EdgeBlocked(PlatformName::Kick) | Code::HttpWebPage | Code::Http(401 | 403)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it stands where outcomes stand")]
    fn answer(status: u16, kind: &str, body: &str) -> Result<Answer, HttpError> {
        Ok(Answer::made_up(status, &[("content-type", kind)], body))
    }

    fn code(outcome: Result<Answer, PlatformError>) -> String {
        match outcome {
            Ok(_) => "ok".to_owned(),
            Err(PlatformError::Unavailable { code, .. }) => code.to_string(),
            Err(PlatformError::Unauthorized { .. }) => "unauthorized".to_owned(),
            Err(PlatformError::Forbidden { .. }) => "forbidden".to_owned(),
            Err(PlatformError::Rejected { status, .. }) => format!("rejected {status}"),
            Err(other) => other.to_string(),
        }
    }

    #[test]
    fn edge_errors_concern_the_link_not_authorization() {
        let json = "application/json";
        let waf = r#"{"error":"Request blocked by security policy.","reference":"9e4db7e3"}"#;
        for (status, kind, body, api, introspection) in [
            (200, json, "{}", "ok", "ok"),
            (403, json, waf, "kick.edge_blocked", "kick.edge_blocked"),
            (
                403,
                json,
                r#"{"data":null,"message":"Forbidden"}"#,
                "forbidden",
                "forbidden",
            ),
            (403, "text/html", "<html>Just a moment…", "http.403", "http.403"),
            (503, "text/html", "<html>Just a moment…", "http.503", "http.503"),
            (
                200,
                "text/html",
                "<html>Just a moment…",
                "http.web_page",
                "http.web_page",
            ),
            (401, "text/html", "<html>", "http.401", "http.401"),
            (
                401,
                json,
                r#"{"data":{},"message":"Unauthorized"}"#,
                "unauthorized",
                "unauthorized",
            ),
            (404, json, r#"{"message":"Not Found"}"#, "http.404", "http.404"),
            (
                404,
                json,
                r#"{"data":{},"message":"Not Found"}"#,
                "rejected 404",
                "http.404",
            ),
            (
                500,
                json,
                r#"{"data":null,"message":"Internal server error"}"#,
                "http.500",
                "http.500",
            ),
        ] {
            assert_eq!(
                code(judge(asked("it"), answer(status, kind, body))),
                api,
                "{body}"
            );
            assert_eq!(
                code(Endpoint::Introspection.judge(asked("it"), answer(status, kind, body))),
                introspection,
                "{body}"
            );
        }
    }

    #[test]
    fn each_endpoint_refuses_only_in_its_documented_format() {
        const FOREIGN: &str = "foreign";
        for (status, body, api, introspection, token) in [
            (401, r#"{"error":"invalid_token"}"#, FOREIGN, FOREIGN, FOREIGN),
            (401, r#"{"error":"access_denied"}"#, FOREIGN, FOREIGN, FOREIGN),
            (
                401,
                r#"{"error":"unauthorized_client"}"#,
                FOREIGN,
                FOREIGN,
                FOREIGN,
            ),
            (401, r#"{"error":"Unauthorized"}"#, FOREIGN, FOREIGN, FOREIGN),
            (401, r#"{"active":false}"#, FOREIGN, FOREIGN, FOREIGN),
            (
                401,
                r#"{"error":"invalid_client"}"#,
                FOREIGN,
                FOREIGN,
                "unauthorized",
            ),
            (
                401,
                r#"{"error":"invalid_grant"}"#,
                FOREIGN,
                FOREIGN,
                "unauthorized",
            ),
            (
                400,
                r#"{"error":"invalid_grant"}"#,
                FOREIGN,
                FOREIGN,
                "rejected 400",
            ),
            (
                400,
                r#"{"error":"Invalid request"}"#,
                FOREIGN,
                FOREIGN,
                "rejected 400",
            ),
            (403, r#"{"error":"invalid_client"}"#, FOREIGN, FOREIGN, FOREIGN),
            (401, r#"{"error":"Invalid request"}"#, FOREIGN, FOREIGN, FOREIGN),
            (
                401,
                r#"{"data":null,"message":"Unauthorized"}"#,
                "unauthorized",
                "unauthorized",
                FOREIGN,
            ),
            (
                400,
                r#"{"data":{},"message":"Invalid request"}"#,
                "rejected 400",
                "rejected 400",
                FOREIGN,
            ),
            (
                200,
                r#"{"data":[],"message":"Unauthorized"}"#,
                FOREIGN,
                FOREIGN,
                FOREIGN,
            ),
            (
                200,
                r#"{"data":{"active":true},"message":"OK"}"#,
                "ok",
                "ok",
                "ok",
            ),
        ] {
            for (endpoint, expected) in [
                (Endpoint::Api, api),
                (Endpoint::Introspection, introspection),
                (Endpoint::Token, token),
            ] {
                let outcome = answer(status, "application/json", body);
                let open = outcome.as_ref().is_ok_and(|answer| endpoint.leaves_open(answer));
                let judged = endpoint.judge(asked("it"), outcome);
                let found = match judged {
                    Err(PlatformError::Unreadable { .. }) => FOREIGN.to_owned(),
                    other => code(other),
                };
                assert_eq!(found, expected, "{endpoint:?} {status} {body}");
                assert_eq!(open, expected == FOREIGN, "{endpoint:?} {status} {body}");
            }
        }
    }
}
