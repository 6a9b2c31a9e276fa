//! A request to Helix that passed the access checks: who asks, for what, and the forms of an answer.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::world::World;
use crate::core::time::Timestamp;
use crate::sim::kit::query::Query;

/// The owner of a request's token.
pub(super) struct Caller {
    pub(super) client_id: String,
    /// The user, `None` for an app token.
    pub(super) user_id: Option<String>,
    pub(super) scopes: Vec<String>,
}

impl Caller {
    /// Returns the user of the token; app tokens are refused.
    pub(super) fn user(&self) -> Result<&str, Refusal> {
        self.user_id
            .as_deref()
            .ok_or_else(|| Refusal::new(401, "Missing User OAUTH Token"))
    }

    pub(super) fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }

    /// Requires a user token with one of `scopes` and returns its user.
    pub(super) fn user_with(&self, scopes: &[&str]) -> Result<&str, Refusal> {
        let user = self.user()?;
        if scopes.iter().any(|scope| self.has(scope)) {
            return Ok(user);
        }
        Err(Refusal::new(
            401,
            format!("Missing scope: {}", scopes.join(" or ")),
        ))
    }

    /// Requires that the id given as `parameter` is the token's own user.
    pub(super) fn owns(&self, query: &Query, parameter: &str) -> Result<String, Refusal> {
        let given = query.ids(parameter, 1)?.first().map(|id| (*id).to_owned());
        let given =
            given.ok_or_else(|| Refusal::new(400, format!("Missing required parameter \"{parameter}\"")))?;
        if self.user()? == given {
            return Ok(given);
        }
        let message =
            format!("The ID in {parameter} must match the user ID found in the request's OAuth token.");
        Err(Refusal::new(401, message))
    }
}

/// A request that passed the access checks.
pub(super) struct Call<'a> {
    pub(super) world: &'a mut World,
    pub(super) caller: &'a Caller,
    pub(super) query: &'a Query,
    pub(super) body: &'a str,
    pub(super) now: Timestamp,
}

/// A status and a body.
pub(super) type Answer = (StatusCode, Value);

/// Result of an endpoint.
pub(super) type CallResult = Result<Answer, Refusal>;

/// Handler of one method of one path.
pub(super) type Endpoint = fn(&mut Call<'_>) -> CallResult;

/// Answers 200 with `data`, its `pagination` and nothing else.
pub(super) fn listed(data: &[Value], pagination: &Value) -> Answer {
    (StatusCode::OK, json!({"data": data, "pagination": pagination}))
}

/// Answers 200 with `data` only.
pub(super) fn found(data: &[Value]) -> Answer {
    (StatusCode::OK, json!({"data": data}))
}
