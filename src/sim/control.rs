//! The controls that every simulated platform has below `/__sim/`: faults, requests, the clock, outages.

use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::faults::Fault;
use super::host::Host;
use super::kit::failure::{Rejected, answer, refuse};
use super::tcp_faults::Wire;
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
        .route("/__sim", get(show_index))
        .route("/__sim/", get(show_index))
        .route("/__sim/events", get(list_events))
        .route("/__sim/trigger", post(trigger))
        .route("/__sim/{*unknown}", any(no_such_control))
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

/// Change of the clock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    /// Milliseconds to jump ahead.
    #[serde(default)]
    advance_ms: i64,
    /// New difference between the reported time and the simulation's own.
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

/// Whether the server is reachable.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    /// Simulated milliseconds of the outage; the connection of this request stays open.
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

/// The directory of the simulation's controls: a page for browsers, JSON for programs.
async fn show_index(State(host): State<Host>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("text/html")) {
        return Html(host.directory().to_html()).into_response();
    }
    Json(host.directory().to_json()).into_response()
}

async fn list_events(State(host): State<Host>) -> Json<Value> {
    Json(host.directory().events())
}

/// An event to trigger.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trigger {
    /// The platform's own name of the event.
    event: String,
    /// The source, as `platform:id`, name or address.
    source: String,
    /// Additional fields of the event.
    #[serde(default)]
    fields: Map<String, Value>,
}

async fn trigger(State(host): State<Host>, order: Result<Json<Trigger>, Rejected>) -> Response {
    let order = match order {
        Ok(Json(order)) => order,
        Err(rejected) => return refuse(&rejected),
    };
    answer(
        host.directory()
            .trigger(&order.event, &order.source, order.fields),
    )
}

async fn no_such_control(uri: Uri) -> Response {
    let error = format!("no control {}; GET /__sim/ lists them", uri.path());
    answer(Err((404, error)))
}
