//! Health in the platform's own format, so that its tools can read it unchanged.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{Site, answer};

/// The service name for the platform's tools.
pub(super) const SERVICE: &str = "bitbrat";

/// Liveness: the process answers.
pub(super) async fn healthy(State(web): State<Site>) -> Response {
    answer(200, Value::Object(body(&web)))
}

/// Liveness in the form of the platform's state engine.
pub(super) async fn state_engine() -> Response {
    answer(200, json!({"status": "ok", "service": SERVICE}))
}

/// Readiness: every required part works.
pub(super) async fn ready(State(web): State<Site>) -> Response {
    let reasons = web.reasons();
    let mut body = body(&web);
    body.insert("ready".into(), reasons.is_empty().into());
    if reasons.is_empty() {
        return answer(200, Value::Object(body));
    }
    body.insert("reasons".into(), reasons.into());
    answer(503, Value::Object(body))
}

/// The root page, in the form of the platform's services.
pub(super) fn root(web: &Site) -> Response {
    let mut body = body(web);
    body.insert("message".into(), format!("{SERVICE} up").into());
    answer(200, Value::Object(body))
}

fn body(web: &Site) -> Map<String, Value> {
    let now = web.clock.now();
    let body = json!({
        "status": "ok", "service": SERVICE, "version": env!("CARGO_PKG_VERSION"), "timestamp": now.to_string(),
        "uptimeSec": now.since(web.started_at).as_secs(),
    });
    match body {
        Value::Object(body) => body,
        _ => unreachable!("it was written as an object"),
    }
}
