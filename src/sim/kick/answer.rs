//! Input and output of an endpoint: query parameters, the envelope, refusals in Kick's formats.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::sim::kit::query::Query;

/// A request that Kick refuses.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Refusal {
    fn new(status: u16, body: Value) -> Self {
        Self { status, body }
    }

    /// Refuses a request that cannot be parsed.
    pub(super) fn invalid() -> Self {
        Self::new(400, json!({"data": {}, "message": "Invalid request"}))
    }

    /// Refuses a request with Kick's reason in `data`.
    pub(super) fn bad(reason: &str) -> Self {
        Self::new(400, json!({"data": reason, "message": "Bad request"}))
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, json!({"data": {}, "message": "Unauthorized"}))
    }

    pub(super) fn forbidden() -> Self {
        Self::new(403, json!({"data": null, "message": "Forbidden"}))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body)).into_response()
    }
}

/// The data of a response, or the refusal.
pub(super) type RestResult = Result<Value, Refusal>;

/// Wraps data in the envelope of the API.
pub(super) fn envelope(outcome: RestResult) -> Response {
    match outcome {
        Ok(data) => Json(json!({"data": data, "message": "OK"})).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl Query {
    /// Returns all values of `name` as ids, at most `limit`. Values joined by commas are no ids: Kick requires the key to be
    /// repeated.
    pub(in crate::sim::kick) fn numbers(&self, name: &str, limit: usize) -> Result<Vec<u64>, Refusal> {
        let ids: Result<Vec<u64>, _> = self.all(name).map(str::parse).collect();
        match ids {
            Ok(ids) if ids.len() <= limit => Ok(ids),
            _ => Err(Refusal::invalid()),
        }
    }

    /// Returns a number between 1 and `most`, `default` when not given.
    pub(in crate::sim::kick) fn limit(&self, default: usize, most: usize) -> Result<usize, Refusal> {
        match self.get("limit").map(str::parse) {
            None => Ok(default),
            Some(Ok(limit)) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(Refusal::invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_repeated_and_never_joined_by_commas() {
        assert_eq!(
            Query::parse("user_id=1&user_id=2").numbers("user_id", 2).unwrap(),
            [1, 2]
        );
        for raw in ["user_id=1,2", "user_id=1&user_id=2&user_id=3", "user_id=ada"] {
            assert_eq!(
                Query::parse(raw).numbers("user_id", 2).unwrap_err(),
                Refusal::invalid(),
                "{raw}"
            );
        }
    }
}
