//! The controls that every simulated platform has below `/__sim/`: faults, requests, the clock, outages.

use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::faults::Fault;
use super::host::Host;
use super::wire::Wire;
use crate::clock::Clock;

/// Returns the routes common to all platforms.
pub(super) fn routes(host: Host) -> Router {
    Router::new()
        .route(
            "/__sim/faults",
            get(list_faults).post(add_fault).delete(clear_faults),
        )
        .route("/__sim/faults/{id}", delete(remove_fault))
        .route("/__sim/requests", get(show_requests).delete(clear_requests))
        .route("/__sim/clock", get(show_clock).post(move_clock))
        .route("/__sim/server", post(switch_server))
        .with_state(host)
}

async fn list_faults(State(host): State<Host>) -> Json<Value> {
    Json(host.faults().to_json())
}

async fn add_fault(State(host): State<Host>, fault: Result<Json<Fault>, Rejected>) -> Response {
    match fault {
        Ok(Json(fault)) => Json(json!({"id": host.faults().add(fault)})).into_response(),
        Err(rejected) => refuse(&rejected),
    }
}

async fn clear_faults(State(host): State<Host>) -> StatusCode {
    host.faults().clear();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(host): State<Host>, Path(id): Path<u64>) -> StatusCode {
    if host.faults().remove(id) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn show_requests(State(host): State<Host>) -> Json<Value> {
    Json(host.journal().to_json())
}

async fn clear_requests(State(host): State<Host>) -> StatusCode {
    host.journal().clear();
    StatusCode::NO_CONTENT
}

async fn show_clock(State(host): State<Host>) -> Json<Value> {
    let clock = host.clock();
    Json(json!({"now": clock.now(), "wall": clock.wall(), "skew_ms": clock.skew()}))
}

/// How the clock is to move.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    /// Milliseconds to jump ahead.
    #[serde(default)]
    advance_ms: i64,
    /// New difference between the time told to others and the simulation's own.
    skew_ms: Option<i64>,
}

async fn move_clock(State(host): State<Host>, order: Result<Json<Move>, Rejected>) -> Response {
    let order = match order {
        Ok(Json(order)) => order,
        Err(rejected) => return refuse(&rejected),
    };
    if let Some(skew) = order.skew_ms {
        host.clock().set_skew(skew);
    }
    host.clock().advance(order.advance_ms);
    show_clock(State(host)).await.into_response()
}

/// Whether the server is on the network.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    /// Simulated milliseconds to stay off it; the connection that brings the order stays open.
    down_for_ms: i64,
}

async fn switch_server(
    State(host): State<Host>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    order: Result<Json<Switch>, Rejected>,
) -> Response {
    match order {
        Ok(Json(order)) => {
            host.go_down_until(host.clock().now().plus_millis(order.down_for_ms), Some(&wire));
            StatusCode::NO_CONTENT.into_response()
        }
        Err(rejected) => refuse(&rejected),
    }
}

/// Why a control request could not be read.
pub(super) type Rejected = axum::extract::rejection::JsonRejection;

/// Answers a control request that could not be read with the reason.
pub(super) fn refuse(rejected: &Rejected) -> Response {
    (
        StatusCode::BAD_REQUEST,
        Json(json!({"error": rejected.body_text()})),
    )
        .into_response()
}

/// Why an order was not carried out: the status of the answer, and what it says.
pub(super) type Failure = (u16, String);

/// Answers an order to one platform, its fields as JSON, with what carrying it out brought.
pub(super) fn obey(
    fields: Result<Json<Map<String, Value>>, Rejected>,
    carry_out: impl FnOnce(Map<String, Value>) -> Result<Value, Failure>,
) -> Response {
    let fields = match fields {
        Ok(Json(fields)) => fields,
        Err(rejected) => return refuse(&rejected),
    };
    match carry_out(fields) {
        Ok(Value::Null) => StatusCode::NO_CONTENT.into_response(),
        Ok(body) => Json(body).into_response(),
        Err((status, error)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, Json(json!({"error": error}))).into_response()
        }
    }
}
