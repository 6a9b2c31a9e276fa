//! Entity tags: a client that asks again gets no body while nothing has changed.

use std::hash::{DefaultHasher, Hash as _, Hasher};

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;

use crate::secrets;

/// Answers with JSON and its tag, or with 304 if the client has that state. Tags are weak: two responses of the same state differ
/// in their time and in ages.
pub(super) fn tagged(headers: &HeaderMap, body: &impl Serialize) -> Response {
    let value = serde_json::to_value(body).expect("answers have text keys");
    let tag = format!("W/\"{:016x}\"", hash(&value));
    let text = secrets::mask(&value.to_string()).into_owned();
    with_tag(headers, &tag, "private, no-cache", "application/json", text)
}

/// Answers with `text`, or with 304 if the client has the state with this tag.
pub(in crate::web) fn with_tag(
    headers: &HeaderMap,
    tag: &str,
    caching: &'static str,
    media_type: &'static str,
    text: String,
) -> Response {
    let mut response = if is_known(headers, tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, media_type)], text).into_response()
    };
    let own = response.headers_mut();
    own.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        own.insert(ETAG, tag);
    }
    response
}

/// Whether `If-None-Match` names the tag: by weak comparison (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let tags = headers.get_all(IF_NONE_MATCH).iter();
    let tags = tags.filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(','))
        .any(|known| known.trim() == "*" || opaque(known) == opaque(tag))
}

/// Hashes what does not change by itself.
fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    add(value, &mut hasher);
    hasher.finish()
}

fn add(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name != "asOf" && !name.ends_with("AgeMs") && name != "ageMs" {
                    name.hash(hasher);
                    add(value, hasher);
                }
            }
        }
        Value::Array(items) => {
            items.len().hash(hasher);
            for item in items {
                add(item, hasher);
            }
        }
        other => other.to_string().hash(hasher),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ages_and_times_do_not_change_a_tag() {
        let of = |now: &str, age: u64, status: &str| {
            hash(&json!({"asOf": now, "items": [{"statusAgeMs": age, "ageMs": age, "status": status}]}))
        };
        assert_eq!(of("a", 1, "CONNECTED"), of("b", 2, "CONNECTED"));
        assert_ne!(of("a", 1, "CONNECTED"), of("a", 1, "ERROR"));
        assert_ne!(hash(&json!([["a"], "b"])), hash(&json!([["a", "b"]])));
    }

    #[test]
    fn known_tags_are_compared_weakly() {
        for (header, expected) in [
            ("W/\"1\"", true),
            ("\"1\"", true),
            ("\"0\", W/\"1\"", true),
            ("*", true),
            ("\"2\"", false),
            ("1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_str(header).unwrap());
            assert_eq!(is_known(&headers, "W/\"1\""), expected, "{header}");
        }
    }
}
