//! Results of control requests, and how they are answered.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a control request could not be parsed.
pub(in crate::sim) type Rejected = axum::extract::rejection::JsonRejection;

/// Answers a control request that could not be parsed with the reason.
pub(in crate::sim) fn refuse(rejected: &Rejected) -> Response {
    answer(Err((400, rejected.body_text())))
}

/// Why a command failed: the status of the response, and its message.
pub type Failure = (u16, String);

/// Answers with the result of a command, or with why it failed.
pub(in crate::sim) fn answer(outcome: Result<Value, Failure>) -> Response {
    match outcome {
        Ok(Value::Null) => StatusCode::NO_CONTENT.into_response(),
        Ok(body) => Json(body).into_response(),
        Err((status, error)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, Json(json!({"error": error}))).into_response()
        }
    }
}
