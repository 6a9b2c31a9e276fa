//! What an HTTP answer of Discord means. Pure: status, headers and body in, success or one kind of failure out.
//!
//! Between Discord and us stands Cloudflare, which answers in HTML or plain text; such an answer never tells anything about
//! a token, a guild or a permission.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

use crate::core::time::Timestamp;
use crate::platforms::lenient::{count, decimal, flag, text};

/// Why Discord did not answer as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// The token is not (or no longer) accepted. Discord never says why.
    #[error("the bot token was refused: {reason}")]
    TokenRefused {
        /// When we were told.
        at: Timestamp,
        /// Discord's words.
        reason: String,
    },
    /// The caller is known and may not.
    #[error("not allowed: {message} (code {code})")]
    Forbidden {
        /// Discord's JSON code.
        code: u64,
        /// Discord's words.
        message: String,
    },
    /// There is no such thing, or the bot cannot know of it.
    #[error("not found: {message} (code {code})")]
    NotFound {
        /// Discord's JSON code.
        code: u64,
        /// Discord's words.
        message: String,
    },
    /// Cloudflare does not like this program (code 40333).
    #[error("the request was blocked: {message}")]
    ClientBlocked {
        /// Its words.
        message: String,
    },
    /// Cloudflare bans or limits this address.
    #[error("Cloudflare turned the request away with status {status}")]
    EdgeBlocked {
        /// HTTP status.
        status: u16,
        /// How long, where it said so.
        retry_after: Option<Duration>,
    },
    /// Too many requests.
    #[error("asked to wait {:.1} s", wait.as_secs_f64())]
    RateLimited {
        /// How long to wait.
        wait: Duration,
        /// Whether all routes are concerned.
        global: bool,
        /// Whether others used up the limit; such answers are not held against us.
        shared: bool,
    },
    /// No answer, or Discord itself is in trouble.
    #[error("{reason}")]
    Unavailable {
        /// `network.timeout`, `http.502`, ….
        code: String,
        /// What happened.
        reason: String,
    },
    /// An answer that is not what Discord documents.
    #[error("the answer cannot be read: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// Discord says that the request itself is wrong.
    #[error("rejected with status {status}: {message} (code {code})")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// Discord's JSON code.
        code: u64,
        /// Discord's words.
        message: String,
    },
    /// Nothing was sent, because it would have been useless or harmful.
    #[error("nothing was sent until {until}: {reason}")]
    Held {
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: String,
    },
}

impl ApiError {
    /// Returns whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unreadable { .. })
    }

    /// Returns whether Discord counts the answer towards its limit of invalid requests (10,000 in 10 minutes and address).
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

/// Discord's error body. Everything is optional: what stands between may answer with anything.
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
}

/// Judges an answer received at `at`; `Ok` for success.
pub fn judge(status: u16, headers: &HeaderMap, body: &[u8], at: Timestamp) -> Result<(), ApiError> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    let error: Option<ErrorBody> = serde_json::from_slice(body).ok();
    let told = |error: Option<ErrorBody>| {
        let error = error.unwrap_or_default();
        let code = error.code.unwrap_or_default();
        (code, error.message.chars().take(200).collect::<String>())
    };
    Err(match status {
        401 if error.is_some() || !is_page(headers, body) => ApiError::TokenRefused {
            at,
            reason: told(error).1,
        },
        403 => match error {
            Some(ErrorBody {
                code: Some(40_333),
                message,
                ..
            }) => ApiError::ClientBlocked { message },
            Some(error) => {
                let (code, message) = told(Some(error));
                ApiError::Forbidden { code, message }
            }
            None => edge(status, headers),
        },
        404 if error.is_some() => {
            let (code, message) = told(error);
            ApiError::NotFound { code, message }
        }
        429 => too_many(headers, error.as_ref()),
        500.. => ApiError::Unavailable {
            code: format!("http.{status}"),
            reason: format!("Discord answered with status {status}"),
        },
        401 | 404 => ApiError::Unreadable {
            reason: format!("status {status} without Discord's error body"),
        },
        _ => {
            let (code, message) = told(error);
            ApiError::Rejected {
                status,
                code,
                message,
            }
        }
    })
}

/// Tells Discord's own limit from Cloudflare's.
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
        // A limit that names no bucket may concern anything.
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

/// Returns whether the body is a web page or Cloudflare's terse `error code: 1015`.
fn is_page(headers: &HeaderMap, body: &[u8]) -> bool {
    let html = header(headers, CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html"));
    html || body.starts_with(b"<") || body.starts_with(b"error code:")
}

/// What the headers say about the bucket that a request was counted in.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketNews {
    /// The bucket's opaque name.
    pub bucket: String,
    /// Requests left.
    pub remaining: u32,
    /// Time until it is full again. Discord's absolute time is not used: it needs equal clocks.
    pub reset_after: Duration,
}

/// Reads the bucket headers, if they are all there.
pub fn bucket_news(headers: &HeaderMap) -> Option<BucketNews> {
    Some(BucketNews {
        bucket: header(headers, "x-ratelimit-bucket")?.to_owned(),
        remaining: header(headers, "x-ratelimit-remaining")?.parse().ok()?,
        reset_after: seconds(headers, "x-ratelimit-reset-after")?,
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads a header in seconds, which may have decimals.
fn seconds(headers: &HeaderMap, name: &str) -> Option<Duration> {
    duration(header(headers, name)?.trim().parse().ok()?)
}

/// Turns seconds into a duration of at most a day.
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
            "",
        ] {
            let error = judged(401, &[], body);
            assert!(
                matches!(error, ApiError::TokenRefused { .. }),
                "{body}: {error:?}"
            );
        }
        for body in [HTML, "error code: 1015"] {
            assert!(
                matches!(judged(401, &[], body), ApiError::Unreadable { .. }),
                "{body}"
            );
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
    fn a_429_is_discords_when_it_says_how_long_in_json() {
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
            // No header at all: nothing says which bucket, so everything waits.
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
    fn other_failures_are_told_apart() {
        let gone = judged(404, &[], r#"{"message":"Unknown Guild","code":10004}"#);
        assert!(matches!(gone, ApiError::NotFound { code: 10_004, .. }));
        // A 404 of something else on the way says nothing about a guild.
        assert!(matches!(judged(404, &[], HTML), ApiError::Unreadable { .. }));
        let overloaded = judged(503, &[], r#"{"message":"overloaded","code":130000}"#);
        assert!(overloaded.is_transient() && judged(502, &[], HTML).is_transient());
        let version = judged(400, &[], r#"{"message":"Invalid API version","code":50041}"#);
        assert!(matches!(version, ApiError::Rejected { code: 50_041, .. }));
        assert!(matches!(
            judged(302, &[], ""),
            ApiError::Rejected { status: 302, .. }
        ));
    }

    #[test]
    fn bucket_headers_count_only_together_and_absurd_numbers_are_tamed() {
        let news = bucket_news(&headers(&[
            ("x-ratelimit-bucket", "abcd"),
            ("x-ratelimit-remaining", "4"),
            ("x-ratelimit-reset-after", "0.75"),
            ("x-ratelimit-reset", "1470173023.123"),
        ]));
        assert_eq!(
            news,
            Some(BucketNews {
                bucket: "abcd".into(),
                remaining: 4,
                reset_after: Duration::from_millis(750)
            })
        );
        assert_eq!(bucket_news(&headers(&[("x-ratelimit-remaining", "4")])), None);
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
