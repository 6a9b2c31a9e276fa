//! Orders to the simulation: how their fields are parsed, and how their results are answered.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Why a control request could not be parsed.
pub(super) type Rejected = axum::extract::rejection::JsonRejection;

/// Answers a control request that could not be parsed with the reason.
pub(super) fn refuse(rejected: &Rejected) -> Response {
    (
        StatusCode::BAD_REQUEST,
        Json(json!({"error": rejected.body_text()})),
    )
        .into_response()
}

/// Why an order failed: the status of the response, and its message.
pub(super) type Failure = (u16, String);

/// Executes an order for one platform, with its fields as JSON, and answers with the result.
pub(super) fn obey(
    fields: Result<Json<Map<String, Value>>, Rejected>,
    carry_out: impl FnOnce(Map<String, Value>) -> Result<Value, Failure>,
) -> Response {
    let fields = match fields {
        Ok(Json(fields)) => fields,
        Err(rejected) => return refuse(&rejected),
    };
    answer(carry_out(fields))
}

/// Answers with the result of an order, or with why it failed.
pub(super) fn answer(outcome: Result<Value, Failure>) -> Response {
    match outcome {
        Ok(Value::Null) => StatusCode::NO_CONTENT.into_response(),
        Ok(body) => Json(body).into_response(),
        Err((status, error)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, Json(json!({"error": error}))).into_response()
        }
    }
}
