//! What an answer of Kick means, where it differs from the common reading.
//!
//! Cloudflare stands in front of Kick: what it says, in HTML or in JSON of its own, is about the way there and never about
//! the authorisation.

use std::fmt;

use serde::Deserialize;

use crate::core::source::PlatformName;
use crate::http::{Answer, HttpError};
use crate::platforms::PlatformError;
use crate::platforms::answer::Asked;

/// Names what was asked.
pub(super) fn asked(operation: &'static str) -> Asked {
    Asked {
        platform: PlatformName::Kick,
        operation,
    }
}

/// Reads an answer of the API host.
pub(super) fn judge(asked: Asked, outcome: Result<Answer, HttpError>) -> Result<Answer, PlatformError> {
    if let Ok(answer) = &outcome
        && let Some(edge) = edge_block(answer)
    {
        return Err(unavailable(asked, "kick.edge_blocked", edge.to_string()));
    }
    asked.judge(outcome)
}

/// Reads an answer of the OAuth host. It has answered 404 on all paths for days: that is an outage too.
pub(super) fn judge_oauth(asked: Asked, outcome: Result<Answer, HttpError>) -> Result<Answer, PlatformError> {
    let name = outcome.as_ref().ok().and_then(error_name);
    match (judge(asked, outcome), name) {
        (
            Err(PlatformError::Rejected {
                status: 404, reason, ..
            }),
            _,
        ) => Err(unavailable(asked, "http.404", reason)),
        // The name decides what is to be done, and words beside it must not hide it.
        (Err(PlatformError::Rejected { status, .. }), Some(reason)) => Err(PlatformError::Rejected {
            platform: asked.platform,
            operation: asked.operation,
            status,
            reason,
        }),
        (Err(PlatformError::Unauthorized { platform, .. }), Some(reason)) => {
            Err(PlatformError::Unauthorized { platform, reason })
        }
        (other, _) => other,
    }
}

/// Returns the name of an OAuth error, such as `invalid_grant`.
fn error_name(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: String,
    }
    let name = answer.json::<Body>().ok()?.error;
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    (name.len() < 40 && name.chars().all(is_name)).then_some(name)
}

fn unavailable(asked: Asked, code: &str, reason: String) -> PlatformError {
    PlatformError::Unavailable {
        platform: asked.platform,
        operation: asked.operation,
        reason,
        code: code.to_owned(),
    }
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

/// Recognises `{"error":"Request blocked by security policy.","reference":"…"}`, which is not the API's own 403.
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
        code.as_str(),
        "kick.edge_blocked" | "http.html" | "http.403" | "http.401"
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
            Err(PlatformError::Unavailable { code, .. }) => code,
            Err(PlatformError::Unauthorized { .. }) => "unauthorized".to_owned(),
            Err(PlatformError::Forbidden { .. }) => "forbidden".to_owned(),
            Err(PlatformError::Rejected { status, .. }) => format!("rejected {status}"),
            Err(other) => other.to_string(),
        }
    }

    #[test]
    fn what_the_edge_says_is_about_the_way_and_never_about_authorisation() {
        let json = "application/json";
        let waf = r#"{"error":"Request blocked by security policy.","reference":"9e4db7e3"}"#;
        for (status, kind, body, api, oauth) in [
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
            (200, "text/html", "<html>Just a moment…", "http.html", "http.html"),
            (401, "text/html", "<html>", "http.401", "http.401"),
            (
                401,
                json,
                r#"{"data":{},"message":"Unauthorized"}"#,
                "unauthorized",
                "unauthorized",
            ),
            (
                404,
                json,
                r#"{"message":"Not Found"}"#,
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
                code(judge_oauth(asked("it"), answer(status, kind, body))),
                oauth,
                "{body}"
            );
        }
    }
}
