//! Classifies Discord's HTTP responses. Pure: status, headers and body in, success or one kind of failure out.
//!
//! Between Discord and us is Cloudflare, which answers in HTML or plain text, and perhaps a proxy or a gateway with its own
//! error format; such a response is never evidence about a token, a guild or a permission.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

use crate::core::code::Code;
use crate::core::json;
use crate::core::time::Timestamp;
use crate::platforms::kit::error_body::FOREIGN_MEMBERS;
use crate::platforms::kit::lenient::{count, decimal, flag, text};
use crate::secrets;

/// Reason why a request failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// The token is not (or no longer) accepted. Discord never reports why.
    #[error("the bot token was refused: {reason}")]
    TokenRefused {
        /// Time of the response.
        at: Timestamp,
        /// Discord's message.
        reason: String,
    },
    /// The caller is authenticated but not permitted.
    #[error("not allowed: {message} (code {code})")]
    Forbidden { code: u64, message: String },
    /// It does not exist, or the bot has no access to it.
    #[error("not found: {message} (code {code})")]
    NotFound { code: u64, message: String },
    /// Cloudflare blocks this program (code 40333).
    #[error("the request was blocked: {message}")]
    ClientBlocked {
        /// Message of the response.
        message: String,
    },
    /// Cloudflare bans or limits this IP address.
    #[error("Cloudflare turned the request away with status {status}")]
    EdgeBlocked {
        status: u16,
        /// Duration, where given.
        retry_after: Option<Duration>,
    },
    /// Too many requests.
    #[error("asked to wait {:.1} s", wait.as_secs_f64())]
    RateLimited {
        /// How long to wait.
        wait: Duration,
        /// Whether the limit applies to all routes.
        global: bool,
        /// Whether others used up the limit; such responses do not count as invalid requests.
        shared: bool,
    },
    /// No response, or a server error at Discord.
    #[error("{reason}")]
    Unavailable {
        /// Why there is none.
        code: Code,
        /// What happened.
        reason: String,
    },
    /// A response that does not match Discord's documentation.
    #[error("the answer cannot be read: {reason}")]
    Unreadable {
        /// What does not match.
        reason: String,
    },
    /// A refusal that is not in Discord's own format: an intermediary has answered.
    #[error("status {status} came without Discord's own error; something between may have answered")]
    Foreign { status: u16 },
    /// Discord reports that the request itself is invalid.
    #[error("rejected with status {status}: {message} (code {code})")]
    Rejected { status: u16, code: u64, message: String },
    /// Nothing was sent, because it would have been useless or harmful.
    #[error("nothing was sent until {until}: {reason}")]
    Held {
        /// Time from which requests are sent again.
        until: Timestamp,
        reason: String,
    },
}

impl ApiError {
    /// Returns whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Unreadable { .. } | Self::Foreign { .. }
        )
    }

    /// Returns whether the status was 404, from any server. For a list or the bot itself it is no evidence: Discord answers both
    /// for every valid token.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Foreign { status: 404 })
    }

    /// Returns whether Discord counts the response towards its limit of invalid requests (10,000 in 10 minutes per IP address).
    pub fn is_invalid_request(&self) -> bool {
        match self {
            Self::TokenRefused { .. }
            | Self::Forbidden { .. }
            | Self::ClientBlocked { .. }
            | Self::EdgeBlocked { .. } => true,
            Self::RateLimited { shared, .. } => !shared,
            _ => false,
        }
    }
}

/// Discord's error body. Everything is optional: an intermediary may send anything.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    #[serde(deserialize_with = "count")]
    code: Option<u64>,
    #[serde(deserialize_with = "text")]
    message: String,
    #[serde(deserialize_with = "decimal")]
    retry_after: Option<f64>,
    #[serde(deserialize_with = "flag")]
    global: Option<bool>,
    /// All other fields.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

impl ErrorBody {
    /// Returns whether it is Discord's own. Its codes are 0 or have five digits and more, and with 0 its message repeats the
    /// status: `{"message": "401: Unauthorized", "code": 0}`.
    /// <https://discord.com/developers/docs/topics/opcodes-and-status-codes#json>
    fn is_own(&self, status: u16) -> bool {
        if FOREIGN_MEMBERS.iter().any(|name| self.others.contains_key(*name)) {
            return false;
        }
        match self.code {
            Some(0) => self.message.starts_with(&status.to_string()),
            Some(code) => code >= 10_000,
            None => false,
        }
    }
}

/// Classifies a response received at `at`; `Ok` for success.
pub fn judge(status: u16, headers: &HeaderMap, body: &[u8], at: Timestamp) -> Result<(), ApiError> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    let error: Option<ErrorBody> = json::read_object(&json::repair(body)).ok();
    let parse_error = |error: Option<ErrorBody>| {
        let error = error.unwrap_or_default();
        let code = error.code.unwrap_or_default();
        (code, secrets::quote(&error.message))
    };
    let own = error.as_ref().is_some_and(|error| error.is_own(status));
    Err(match status {
        401 if own => ApiError::TokenRefused {
            at,
            reason: parse_error(error).1,
        },
        403 if own || (error.is_none() && is_page(headers, body)) => match error {
            Some(ErrorBody {
                code: Some(40_333),
                message,
                ..
            }) => ApiError::ClientBlocked {
                message: secrets::quote(&message),
            },
            Some(error) => {
                let (code, message) = parse_error(Some(error));
                ApiError::Forbidden { code, message }
            }
            None => edge(status, headers),
        },
        404 if own => {
            let (code, message) = parse_error(error);
            ApiError::NotFound { code, message }
        }
        429 => too_many(headers, error.as_ref()),
        500.. => ApiError::Unavailable {
            code: Code::Http(status),
            reason: format!("Discord answered with status {status}"),
        },
        _ if !own => ApiError::Foreign { status },
        _ => {
            let (code, message) = parse_error(error);
            ApiError::Rejected {
                status,
                code,
                message,
            }
        }
    })
}

/// Distinguishes Discord's own rate limit from Cloudflare's.
fn too_many(headers: &HeaderMap, error: Option<&ErrorBody>) -> ApiError {
    let by_header = seconds(headers, "retry-after");
    let by_body = error.and_then(|error| error.retry_after).and_then(duration);
    let Some(wait) = by_header.max(by_body).filter(|_| error.is_some()) else {
        return edge(429, headers);
    };
    let scope = header(headers, "x-ratelimit-scope").unwrap_or_default();
    let known_bucket = header(headers, "x-ratelimit-bucket").is_some() || !scope.is_empty();
    ApiError::RateLimited {
        wait,
        // A limit without a bucket may apply to anything.
        global: error.is_some_and(|error| error.global == Some(true))
            || scope == "global"
            || header(headers, "x-ratelimit-global").is_some()
            || !known_bucket,
        shared: scope == "shared",
    }
}

fn edge(status: u16, headers: &HeaderMap) -> ApiError {
    ApiError::EdgeBlocked {
        status,
        retry_after: seconds(headers, "retry-after"),
    }
}

/// Returns whether the body is a web page or Cloudflare's plain `error code: 1015`.
fn is_page(headers: &HeaderMap, body: &[u8]) -> bool {
    let html = header(headers, CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html"));
    html || body.starts_with(b"<") || body.starts_with(b"error code:")
}

/// State of the rate limit bucket of a request, from the response headers.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketState {
    /// Opaque name of the bucket.
    pub bucket: String,
    /// Requests left.
    pub remaining: u32,
    /// Time until it is reset. Discord's absolute time is not used: it needs synchronized clocks.
    pub reset_after: Duration,
}

/// Parses the bucket headers, if all are present.
pub fn bucket_state(headers: &HeaderMap) -> Option<BucketState> {
    Some(BucketState {
        bucket: header(headers, "x-ratelimit-bucket")?.to_owned(),
        remaining: header(headers, "x-ratelimit-remaining")?.parse().ok()?,
        reset_after: seconds(headers, "x-ratelimit-reset-after")?,
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Parses a header in seconds, which may have decimals.
fn seconds(headers: &HeaderMap, name: &str) -> Option<Duration> {
    duration(header(headers, name)?.trim().parse().ok()?)
}

/// Converts seconds to a duration of at most a day.
fn duration(seconds: f64) -> Option<Duration> {
    const DAY: f64 = 86_400.0;
    (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(DAY)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn judged(status: u16, pairs: &[(&'static str, &'static str)], body: &str) -> ApiError {
        judge(status, &headers(pairs), body.as_bytes(), Timestamp::EPOCH).unwrap_err()
    }

    const HTML: &str = "<!DOCTYPE html><html><body>Attention Required!</body></html>";

    #[test]
    fn only_discords_own_401_condemns_a_token() {
        for body in [
            r#"{"message":"401: Unauthorized","code":0}"#,
            r#"{"message":"Unauthorized","code":40001}"#,
            r#"{"message":"Invalid","code":50014,"new":{}}"#,
        ] {
            let error = judged(401, &[], body);
            assert!(
                matches!(error, ApiError::TokenRefused { .. }),
                "{body}: {error:?}"
            );
        }
    }

    #[test]
    fn refusal_of_a_stranger_never_condemns_a_token() {
        for body in [
            HTML,
            "error code: 1015",
            "",
            "Unauthorized",
            "null",
            "{}",
            r#"{"message":"Unauthorized"}"#,
            r#"{"error":"unauthorized"}"#,
            r#"{"code":401,"message":"Unauthorized"}"#,
            r#"{"code":0,"message":"no session"}"#,
            r#"{"error":"Unauthorized","status":401,"message":"Unauthorized"}"#,
            r#"{"code":40100,"status":401,"message":"Unauthorized","path":"/x"}"#,
            r#"{"code":0,"timestamp":"t","message":"401: Unauthorized"}"#,
        ] {
            let error = judged(401, &[], body);
            assert!(
                matches!(error, ApiError::Foreign { status: 401 }),
                "{body}: {error:?}"
            );
            assert!(error.is_transient(), "{body}: asked again with backoff");
        }
    }

    #[test]
    fn a_refusal_needs_discords_own_word_whatever_its_status() {
        for body in [
            "",
            "Bad Request",
            "{}",
            r#"{"message":"nope"}"#,
            r#"{"code":403,"message":"nope"}"#,
            r#"{"error":"bad_request","code":0,"message":"nope"}"#,
        ] {
            for status in [400, 401, 403, 404, 405, 410] {
                let error = judged(status, &[], body);
                assert!(
                    matches!(error, ApiError::Foreign { .. }),
                    "{status} {body}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn an_error_body_with_odd_types_is_still_discords_own() {
        let access = judged(403, &[], r#"{"message":null,"code":"50001"}"#);
        assert!(
            matches!(access, ApiError::Forbidden { code: 50_001, .. }),
            "{access:?}"
        );
        let limited = judged(
            429,
            &[],
            r#"{"message":"slow down","retry_after":"1.5","global":null,"code":null}"#,
        );
        assert!(
            matches!(limited, ApiError::RateLimited { wait, .. } if wait == Duration::from_millis(1_500)),
            "{limited:?}"
        );
    }

    #[test]
    fn a_403_is_access_the_client_or_the_edge_but_never_the_token() {
        let access = judged(403, &[], r#"{"message":"Missing Access","code":50001}"#);
        assert_eq!(
            access,
            ApiError::Forbidden {
                code: 50_001,
                message: "Missing Access".into()
            }
        );
        let agent = judged(403, &[], r#"{"message":"internal network error","code":40333}"#);
        assert!(matches!(agent, ApiError::ClientBlocked { .. }));
        assert!(matches!(
            judged(403, &[], HTML),
            ApiError::EdgeBlocked { status: 403, .. }
        ));
    }

    #[test]
    fn rate_limit_scope_is_read_from_body_and_headers() {
        let limited = judged(
            429,
            &[
                ("retry-after", "1"),
                ("x-ratelimit-scope", "user"),
                ("x-ratelimit-bucket", "ab"),
            ],
            r#"{"message":"You are being rate limited.","retry_after":1.337,"global":false}"#,
        );
        assert_eq!(
            limited,
            ApiError::RateLimited {
                wait: Duration::from_secs_f64(1.337),
                global: false,
                shared: false
            }
        );
        for (pairs, body, global, shared) in [
            (
                vec![("x-ratelimit-scope", "shared")],
                r#"{"retry_after":2}"#,
                false,
                true,
            ),
            (
                vec![("x-ratelimit-scope", "global")],
                r#"{"retry_after":2}"#,
                true,
                false,
            ),
            (
                vec![("x-ratelimit-global", "true")],
                r#"{"retry_after":2}"#,
                true,
                false,
            ),
            (
                vec![("x-ratelimit-bucket", "ab")],
                r#"{"retry_after":2,"global":true}"#,
                true,
                false,
            ),
            // Without any header the bucket is unknown, so everything waits.
            (vec![], r#"{"retry_after":2,"global":false}"#, true, false),
            (vec![("retry-after", "2")], "{}", true, false),
        ] {
            let expected = ApiError::RateLimited {
                wait: Duration::from_secs(2),
                global,
                shared,
            };
            let error = judged(429, &pairs, body);
            assert_eq!(error, expected, "{body}");
            assert_eq!(error.is_invalid_request(), !shared);
        }
    }

    #[test]
    fn a_429_of_cloudflare_blocks_the_host() {
        for (pairs, body, retry_after) in [
            (vec![], HTML, None),
            (vec![], "error code: 1015", None),
            (
                vec![("retry-after", "30")],
                "error code: 1015",
                Some(Duration::from_secs(30)),
            ),
            (vec![], r#"{"message":"slow down"}"#, None),
        ] {
            let expected = ApiError::EdgeBlocked {
                status: 429,
                retry_after,
            };
            assert_eq!(judged(429, &pairs, body), expected, "{body}");
        }
    }

    #[test]
    fn other_failures_are_classified() {
        let gone = judged(404, &[], r#"{"message":"Unknown Guild","code":10004}"#);
        assert!(matches!(gone, ApiError::NotFound { code: 10_004, .. }));
        // A 404 from an intermediary is no evidence about a guild.
        assert!(matches!(
            judged(404, &[], HTML),
            ApiError::Foreign { status: 404 }
        ));
        let overloaded = judged(503, &[], r#"{"message":"overloaded","code":130000}"#);
        assert!(overloaded.is_transient() && judged(502, &[], HTML).is_transient());
        let version = judged(400, &[], r#"{"message":"Invalid API version","code":50041}"#);
        assert!(matches!(version, ApiError::Rejected { code: 50_041, .. }));
        assert!(matches!(judged(302, &[], ""), ApiError::Foreign { status: 302 }));
    }

    #[test]
    fn partial_bucket_headers_are_ignored_and_huge_values_clamped() {
        let reported = bucket_state(&headers(&[
            ("x-ratelimit-bucket", "abcd"),
            ("x-ratelimit-remaining", "4"),
            ("x-ratelimit-reset-after", "0.75"),
            ("x-ratelimit-reset", "1470173023.123"),
        ]));
        assert_eq!(
            reported,
            Some(BucketState {
                bucket: "abcd".into(),
                remaining: 4,
                reset_after: Duration::from_millis(750)
            })
        );
        assert_eq!(bucket_state(&headers(&[("x-ratelimit-remaining", "4")])), None);
        for (text, read) in [
            ("1e300", Some(86_400)),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
        ] {
            let got = seconds(&headers(&[("retry-after", text)]), "retry-after");
            assert_eq!(got, read.map(Duration::from_secs), "{text}");
        }
    }
}
