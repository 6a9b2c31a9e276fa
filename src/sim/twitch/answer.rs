//! Input and output of an endpoint: query parameters, pages, refusals in Twitch's formats.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::sim::kit::query::Query;

/// A request that Twitch refuses.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The text of `message`.
    pub(super) message: String,
    /// Additional fields of the body.
    pub(super) extra: Map<String, Value>,
}

impl Refusal {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            extra: Map::new(),
        }
    }

    pub(super) fn with(mut self, field: &str, value: Value) -> Self {
        self.extra.insert(field.to_owned(), value);
        self
    }

    /// Answers as Helix does: `error`, `status` and `message`.
    pub(super) fn into_helix(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut body = self.extra;
        body.insert(
            "error".to_owned(),
            json!(status.canonical_reason().unwrap_or_default()),
        );
        body.insert("status".to_owned(), json!(self.status));
        body.insert("message".to_owned(), json!(self.message));
        (status, Json(Value::Object(body))).into_response()
    }
}

impl Query {
    /// Returns the one required value of `name`.
    pub(in crate::sim::twitch) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name)
            .ok_or_else(|| Refusal::new(400, format!("Missing required parameter \"{name}\"")))
    }

    /// Returns all values of `name`, at most `limit` of them.
    pub(in crate::sim::twitch) fn list(&self, name: &str, limit: usize) -> Result<Vec<&str>, Refusal> {
        let values: Vec<_> = self.all(name).filter(|value| !value.is_empty()).collect();
        if values.len() > limit {
            return Err(malformed(
                name,
                &format!("the number of values must be at most {limit}"),
            ));
        }
        Ok(values)
    }

    /// Returns all values of `name`, at most `limit` and each of digits only, as every id of Twitch is.
    pub(in crate::sim::twitch) fn ids(&self, name: &str, limit: usize) -> Result<Vec<&str>, Refusal> {
        let values = self.list(name, limit)?;
        if values
            .iter()
            .any(|id| !id.bytes().all(|digit| digit.is_ascii_digit()))
        {
            return Err(malformed(name, "the value must be a numeric id"));
        }
        Ok(values)
    }

    /// Returns the requested page size, `default` when not given.
    pub(in crate::sim::twitch) fn first(&self, default: usize, most: usize) -> Result<usize, Refusal> {
        let Some(text) = self.get("first") else {
            return Ok(default);
        };
        match text.parse() {
            Ok(first) if (1..=most).contains(&first) => Ok(first),
            _ => Err(malformed(
                "first",
                &format!("the value must be between 1 and {most}"),
            )),
        }
    }
}

/// Refuses a parameter that cannot be parsed.
pub(super) fn malformed(name: &str, reason: &str) -> Refusal {
    Refusal::new(400, format!("The parameter \"{name}\" was malformed: {reason}"))
}

/// Returns the page of `items` that `after`, `before` and `first` of `query` select.
///
/// Returns the page and its `pagination` object, which is empty on the last page.
pub(super) fn page<T>(
    items: Vec<T>,
    query: &Query,
    default: usize,
    most: usize,
) -> Result<(Vec<T>, Value), Refusal> {
    let first = query.first(default, most)?;
    let start = match (query.get("after"), query.get("before")) {
        (Some(after), _) => position(after)?,
        (None, Some(before)) => position(before)?.saturating_sub(2 * first),
        (None, None) => 0,
    };
    let total = items.len();
    let page: Vec<_> = items.into_iter().skip(start).take(first).collect();
    let end = start + page.len();
    let pagination = if end < total {
        json!({"cursor": cursor(end)})
    } else {
        json!({})
    };
    Ok((page, pagination))
}

/// Cursors are opaque to clients; here they encode the index of the first item of the next page.
fn cursor(position: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("{{\"b\":null,\"a\":{{\"Offset\":{position}}}}}"))
}

fn position(cursor: &str) -> Result<usize, Refusal> {
    let read = || -> Option<usize> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        usize::try_from(value["a"]["Offset"].as_u64()?).ok()
    };
    read().ok_or_else(|| Refusal::new(400, "The pagination cursor is invalid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_until_the_cursor_is_missing() {
        let items: Vec<_> = (0..45).collect();
        let (first, pagination) = page(items.clone(), &Query::parse(""), 20, 100).unwrap();
        assert_eq!(first, (0..20).collect::<Vec<_>>());
        let after = format!("after={}&first=25", pagination["cursor"].as_str().unwrap());
        let (rest, pagination) = page(items.clone(), &Query::parse(&after), 20, 100).unwrap();
        assert_eq!((rest, pagination), ((20..45).collect(), json!({})));
        assert_eq!(
            page(items, &Query::parse("after=nonsense"), 20, 100)
                .unwrap_err()
                .status,
            400
        );
    }

    #[test]
    fn parameters_out_of_bounds_are_refused() {
        let many = (1..=101)
            .map(|id| format!("id={id}"))
            .collect::<Vec<_>>()
            .join("&");
        assert_eq!(Query::parse(&many).ids("id", 100).unwrap_err().status, 400);
        assert_eq!(Query::parse("id=1&id=2").ids("id", 100).unwrap(), ["1", "2"]);
        assert!(Query::parse("id=ratcaster").ids("id", 100).is_err());
        for first in ["0", "101", "many", "-1"] {
            assert!(
                Query::parse(&format!("first={first}")).first(20, 100).is_err(),
                "{first}"
            );
        }
    }
}
