//! What an HTTP answer means to a platform adapter. All adapters interpret statuses by the same rules.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::error_body::{ErrorBody, Reported};
use crate::clock::Chance;
use crate::core::code::Code;
use crate::core::source::PlatformName;
use crate::http::{Answer, HttpError, Retries};
use crate::platforms::PlatformError;
use crate::platforms::descriptor::descriptor;
use crate::secrets;

/// What was requested, for error messages.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub platform: PlatformName,
    /// What was requested, as shown to users: `the list of streams`.
    pub operation: &'static str,
}

impl Asked {
    pub const fn new(platform: PlatformName, operation: &'static str) -> Self {
        Self { platform, operation }
    }

    /// Returns a successful answer unchanged and turns everything else into the error that it means.
    ///
    /// A web page is never an API's answer, whatever its status: it comes from an edge, a proxy or a captive portal. The same
    /// applies to a refusal that does not have the platform's error format: it proves nothing about a token, a permission or a
    /// source. Nor is an answer with status 200 that reports an error.
    pub fn judge(self, outcome: Result<Answer, HttpError>) -> Result<Answer, PlatformError> {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error @ HttpError::TooLarge { .. }) => return Err(self.unreadable(error.to_string())),
            Err(error @ HttpError::Unsendable) => {
                let what = format!("credentials in their right form: {error}");
                return Err(PlatformError::not_configured(self.platform, what));
            }
            Err(error) => return Err(self.unavailable(error.code(), error.to_string())),
        };
        let platform = self.platform;
        let status = answer.status;
        if answer.is_web_page() {
            let code = if answer.is_success() {
                Code::HttpWebPage
            } else {
                Code::Http(status)
            };
            return Err(self.unavailable(
                code,
                format!("a web page came instead of an answer (status {status})"),
            ));
        }
        match status {
            200..300 => match reported_error(platform, &answer) {
                Some(reason) => Err(self.unreadable(error_despite(status, &reason))),
                None => Ok(answer),
            },
            _ if is_foreign_refusal(platform, &answer) => {
                Err(self.unreadable(foreign_text(platform, status)))
            }
            401 => Err(PlatformError::unauthorized(platform, reason(&answer))),
            403 => Err(self.forbidden(reason(&answer))),
            429 => Err(PlatformError::rate_limited(platform, answer.requested_wait())),
            400..500 => Err(self.rejected(status, reason(&answer))),
            _ => Err(self.unavailable(Code::Http(status), reason(&answer))),
        }
    }

    /// Returns how long to wait before the retry after attempt `attempt`, or `None` if this outcome is final. A refusal that is
    /// not the platform's own, or an error with status 200, leaves the request unanswered, so it is retried.
    pub fn wait_after(
        self,
        attempt: u32,
        outcome: &Result<Answer, HttpError>,
        chance: &Chance,
    ) -> Option<Duration> {
        let policy = Retries::READ;
        match outcome {
            Ok(answer)
                if is_foreign_refusal(self.platform, answer)
                    || (answer.is_success() && reported_error(self.platform, answer).is_some()) =>
            {
                (attempt < policy.attempts).then(|| policy.backoff(attempt, chance))
            }
            outcome => policy.wait_after(attempt, outcome, chance),
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

    pub fn unavailable(self, code: Code, reason: String) -> PlatformError {
        PlatformError::Unavailable {
            platform: self.platform,
            operation: self.operation,
            reason,
            code,
        }
    }

    pub fn forbidden(self, reason: String) -> PlatformError {
        PlatformError::Forbidden {
            platform: self.platform,
            operation: self.operation,
            reason,
        }
    }

    pub fn rejected(self, status: u16, reason: String) -> PlatformError {
        PlatformError::Rejected {
            platform: self.platform,
            operation: self.operation,
            status,
            reason,
        }
    }
}

/// Returns whether an answer is a refusal that `platform` itself did not send. A rate limit (429) counts as the platform's
/// whoever sets it, because every caller checks for it by status.
pub fn is_foreign_refusal(platform: PlatformName, answer: &Answer) -> bool {
    matches!(answer.status, 400..=428 | 430..=499) && !is_own_error(platform, answer)
}

/// Returns the message for a refusal that is not the platform's own.
pub fn foreign_text(platform: PlatformName, status: u16) -> String {
    format!("status {status} came without {platform}'s own error; something between may have answered")
}

/// Returns the message for an error that came with the status of a success.
pub fn error_despite(status: u16, reason: &str) -> String {
    format!("status {status} came with an error: {reason}")
}

/// Returns the error that an answer with the status of a success reports in the members of `platform`'s errors, if any. An
/// empty list beside an error is not an answer that nothing is listed. Other unknown members mean nothing.
pub fn reported_error(platform: PlatformName, answer: &Answer) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Members {
        error: Option<Value>,
        status: Option<Value>,
        message: Option<Value>,
        code: Option<Value>,
    }
    let members: Members = answer.object().ok()?;
    let (error, message) = (members.error.as_ref(), members.message.as_ref());
    let is_set = |member: Option<&Value>| match member {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.trim().is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(object)) => !object.is_empty(),
        Some(Value::Bool(true) | Value::Number(_)) => true,
    };
    let number = |member: Option<&Value>| match member {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let is_success = |member: Option<&Value>| {
        let text = member.and_then(Value::as_str).unwrap_or_default().trim();
        SUCCESS_MESSAGES
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
    };
    let numbers = Reported {
        has_message: is_set(message) && !is_success(message),
        status: number(members.status.as_ref()),
        code: number(members.code.as_ref()),
    };
    let failed = descriptor(platform).reports_error(&numbers);
    (failed || is_set(error)).then(|| reason(answer))
}

/// What Kick writes as the message of a success, and spellings of it by servers that stand in for it.
const SUCCESS_MESSAGES: [&str; 2] = ["ok", "success"];

/// Returns whether an error answer has `platform`'s own error format. Proxies, gateways and captive portals answer 401 too, and
/// only the platform's own answer is evidence about a token.
///
/// The match is exact because web frameworks also repeat the status beside a message.
pub fn is_own_error(platform: PlatformName, answer: &Answer) -> bool {
    let Ok(Value::Object(body)) = answer.json::<Value>() else {
        return false;
    };
    if answer.is_web_page() {
        return false;
    }
    descriptor(platform).is_own_error(answer.status, &ErrorBody(body))
}

/// Returns the platform's own reason from an error answer: its `data`, where Kick puts the reason beside a general `message`,
/// else its `message` or `error` field, else the status.
pub fn reason(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Body {
        data: Option<serde_json::Value>,
        message: Option<serde_json::Value>,
        error: Option<serde_json::Value>,
    }
    let text = |value: serde_json::Value| value.as_str().map(str::to_owned).filter(|text| !text.is_empty());
    let said = answer.object::<Body>().ok().and_then(|body| {
        [body.data, body.message, body.error]
            .into_iter()
            .flatten()
            .find_map(text)
    });
    said.map_or_else(
        || format!("status {}", answer.status),
        |said| secrets::quote(&said),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::time::Timestamp;

    const ASKED: Asked = Asked::new(PlatformName::Twitch, "the users");

    fn answer(status: u16, kind: &str, body: &'static str) -> Answer {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        Answer {
            status,
            headers,
            body: body.into(),
            sent_at: Timestamp::EPOCH,
            received_at: Timestamp::EPOCH,
            rtt: Duration::ZERO,
        }
    }

    #[test]
    fn statuses_mean_the_same_everywhere() {
        for (status, expected) in [
            (302, "twitch answered the users with status 302: because"),
            (400, "twitch rejected the users: because"),
            (401, "twitch refused the credentials: because"),
            (403, "twitch does not allow the users: because"),
            (404, "twitch rejected the users: because"),
            (429, "twitch asked for fewer requests"),
            (500, "twitch answered the users with status 500: because"),
        ] {
            let json = format!(r#"{{"status":{status},"message":"because"}}"#);
            let json: &'static str = Box::leak(json.into_boxed_str());
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
            (200, Code::HttpWebPage),
            (401, Code::Http(401)),
            (403, Code::Http(403)),
            (503, Code::Http(503)),
        ] {
            let page = ASKED.judge(Ok(answer(status, "text/html", "<html>Blocked</html>")));
            let Err(PlatformError::Unavailable { code: found, .. }) = page else {
                panic!("{status}: {page:?}");
            };
            assert_eq!(found, code);
        }
    }

    #[test]
    fn framework_error_with_the_status_is_not_twitchs() {
        for (status, words) in [
            (400, "Bad Request"),
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (404, "Not Found"),
        ] {
            let is_own = |body: String| {
                let body: &'static str = Box::leak(body.into_boxed_str());
                is_own_error(PlatformName::Twitch, &answer(status, "application/json", body))
            };
            let body = |more: &str| format!(r#"{{"status":{status},"message":"invalid token"{more}}}"#);
            assert!(is_own(body("")), "{status}");
            assert!(is_own(body(&format!(r#","error":"{words}""#))), "{status}");
            for more in [
                format!(r#","error":"{words}","timestamp":"2026-05-01T18:00:00Z","path":"/x""#),
                format!(r#","error":"{words}","path":"/x""#),
                r#","error":"Conflict""#.to_owned(),
                r#","error":null"#.to_owned(),
                r#","error":7"#.to_owned(),
            ] {
                assert!(!is_own(body(&more)), "{status} {more}");
            }
        }
    }

    #[test]
    fn conflict_of_twitch_may_name_what_exists() {
        for (more, own) in [
            (r#","id":"6f0e""#, true),
            (r#","data":[{"id":"6f0e"}]"#, true),
            (r#","path":"/x""#, false),
        ] {
            let body = format!(
                r#"{{"error":"Conflict","status":409,"message":"subscription already exists"{more}}}"#
            );
            let body: &'static str = Box::leak(body.into_boxed_str());
            let answer = answer(409, "application/json", body);
            assert_eq!(is_own_error(PlatformName::Twitch, &answer), own, "{more}");
        }
    }

    #[test]
    fn framework_error_is_neither_kicks_nor_discords() {
        for (platform, body) in [
            (
                PlatformName::Kick,
                r#"{"data":null,"message":"Forbidden","status":403}"#,
            ),
            (
                PlatformName::Kick,
                r#"{"code":403,"data":null,"message":"Forbidden"}"#,
            ),
            (
                PlatformName::Kick,
                r#"{"error":"access_denied","status":403,"path":"/x","timestamp":"2026-05-01T18:00:00Z"}"#,
            ),
            (
                PlatformName::Discord,
                r#"{"message":"Forbidden","code":40300,"status":403,"path":"/x"}"#,
            ),
            (
                PlatformName::Discord,
                r#"{"message":"Forbidden","code":0,"error":"Forbidden"}"#,
            ),
        ] {
            let answer = answer(403, "application/json", body);
            assert!(!is_own_error(platform, &answer), "{body}");
        }
    }

    #[test]
    fn error_with_status_200_is_a_failed_question() {
        use PlatformName::{Discord, Kick, Twitch};
        for (platform, body, failed) in [
            (
                Twitch,
                r#"{"data":[],"error":"Internal Server Error","status":500,"message":"boom"}"#,
                true,
            ),
            (
                Twitch,
                r#"{"data":[],"error":"Unauthorized","status":401,"message":"Invalid OAuth token"}"#,
                true,
            ),
            (Twitch, r#"{"data":[],"status":"503"}"#, true),
            (Twitch, r#"{"data":[],"message":"boom"}"#, true),
            (Twitch, r#"{"data":[],"error":"Forbidden"}"#, true),
            (
                Twitch,
                r#"{"data":[],"pagination":{},"total":0,"new":[1]}"#,
                false,
            ),
            (
                Twitch,
                r#"{"data":[],"error":null,"message":"","status":200}"#,
                false,
            ),
            (Kick, r#"{"data":[],"message":"Internal server error"}"#, true),
            (Kick, r#"{"data":[],"message":"Unauthorized"}"#, true),
            (Kick, r#"{"data":[],"error":"boom","message":"OK"}"#, true),
            (Kick, r#"{"data":[],"message":"OK","status":500}"#, true),
            (
                Kick,
                r#"{"data":[],"message":"OK","pagination":{"next_cursor":""}}"#,
                false,
            ),
            (Kick, r#"{"data":[],"message":"ok"}"#, false),
            (Kick, r#"{"data":[],"message":""}"#, false),
            (Kick, r#"{"data":[]}"#, false),
            (Discord, r#"{"message":"Unknown Guild","code":10004}"#, true),
            (
                Discord,
                r#"{"id":"1","message":"401: Unauthorized","code":0}"#,
                true,
            ),
            (Discord, r#"{"id":"1","code":"abc","name":"Lab"}"#, false),
            (Discord, r#"[{"message":"text","code":7}]"#, false),
            (Discord, "", false),
        ] {
            let judged = Asked { platform, ..ASKED }.judge(Ok(answer(200, "application/json", body)));
            assert_eq!(
                matches!(judged, Err(PlatformError::Unreadable { .. })),
                failed,
                "{platform} {body}"
            );
            assert_eq!(judged.is_err(), failed, "{platform} {body}");
        }
        let outcome = Ok(answer(200, "application/json", r#"{"data":[],"error":"boom"}"#));
        assert!(ASKED.wait_after(1, &outcome, &Chance::seeded(1)).is_some());
        assert_eq!(ASKED.wait_after(3, &outcome, &Chance::seeded(1)), None);
    }

    #[test]
    fn oauth_errors_that_kick_does_not_send_are_foreign() {
        for name in [
            "invalid_token",
            "access_denied",
            "unauthorized_client",
            "invalid_request",
            "server_error",
            "Unauthorized",
        ] {
            let body: &'static str = Box::leak(format!(r#"{{"error":"{name}"}}"#).into_boxed_str());
            let answer = answer(401, "application/json", body);
            assert!(!is_own_error(PlatformName::Kick, &answer), "{name}");
        }
    }

    const FOREIGN: [&str; 9] = [
        "",
        "Unauthorized",
        "null",
        "[]",
        r#"{"message":"Unauthorized"}"#,
        r#"{"error":"unauthorized"}"#,
        r#"{"code":401,"message":"Unauthorized"}"#,
        r#"{"statusCode":401,"error":"Unauthorized","message":"Invalid token"}"#,
        r#"{"timestamp":"2026-05-01T18:00:00Z","status":401,"error":"Unauthorized","message":"Full authentication is required","path":"/x"}"#,
    ];

    #[test]
    fn foreign_refusal_is_no_evidence() {
        for platform in PlatformName::ALL {
            let asked = Asked { platform, ..ASKED };
            for body in FOREIGN {
                for status in [400, 401, 403, 404, 405, 410, 418] {
                    let judged = asked.judge(Ok(answer(status, "application/json", body)));
                    assert!(
                        matches!(judged, Err(PlatformError::Unreadable { .. })),
                        "{platform} {status} {body}: {judged:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn foreign_refusal_is_retried_with_backoff() {
        let chance = Chance::seeded(1);
        for (status, body, again) in [
            (401, "", true),
            (400, "", true),
            (404, "404 page not found", true),
            (401, r#"{"message":"Unauthorized"}"#, true),
            (401, r#"{"status":401,"message":"invalid access token"}"#, false),
            (404, r#"{"status":404,"message":"no such thing"}"#, false),
        ] {
            let outcome = Ok(answer(status, "application/json", body));
            assert_eq!(
                ASKED.wait_after(1, &outcome, &chance).is_some(),
                again,
                "{status} {body}"
            );
            assert_eq!(ASKED.wait_after(3, &outcome, &chance), None);
        }
    }

    #[test]
    fn own_errors_of_each_platform_are_recognized() {
        for (platform, body) in [
            (
                PlatformName::Twitch,
                r#"{"status":401,"message":"invalid access token"}"#,
            ),
            (
                PlatformName::Twitch,
                r#"{"error":"Unauthorized","status":401,"message":"Invalid OAuth token"}"#,
            ),
            (PlatformName::Kick, r#"{"data":{},"message":"Unauthorized"}"#),
            (PlatformName::Kick, r#"{"data":null,"message":"Unauthorized"}"#),
            (
                PlatformName::Kick,
                r#"{"error":"invalid_grant","error_description":"it is revoked"}"#,
            ),
            (
                PlatformName::Discord,
                r#"{"message":"401: Unauthorized","code":0}"#,
            ),
        ] {
            assert!(
                is_own_error(platform, &answer(401, "application/json", body)),
                "{body}"
            );
            assert!(!is_own_error(platform, &answer(401, "text/html", body)), "{body}");
        }
    }

    #[test]
    fn platform_messages_are_shortened_and_sanitized() {
        for (body, words) in [
            ("", "status 400"),
            ("no json", "status 400"),
            (
                r#"{"data":"event subscription limit reached","message":"Bad request"}"#,
                "event subscription limit reached",
            ),
            (r#"{"data":{},"message":"Invalid request"}"#, "Invalid request"),
            (r#"{"data":"","message":"Unauthorized"}"#, "Unauthorized"),
            ("{\"message\":\"half \\ud83d\"}", "half \u{fffd}"),
            (r#"{"error":"Bad Request"}"#, "Bad Request"),
            (r#"{"error":{"code":7}}"#, "status 400"),
            ("{\"message\":\"\\u001b[2Jgone\"}", "gone"),
        ] {
            assert_eq!(reason(&answer(400, "application/json", body)), words);
        }
    }
}
