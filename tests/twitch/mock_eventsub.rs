//! An EventSub server that is neither Twitch nor our simulator, in the manner of the official mock: everything is free,
//! conditions are ignored, ids are made up, and every client receives all events.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bitbrat::clock::{Clock as _, SystemClock};
use bitbrat::core::observation::Fact;
use bitbrat::core::stream::StreamStatus;
use bitbrat::platforms::twitch::eventsub::EventSubOptions;
use bitbrat::platforms::twitch::{self, TwitchOptions, TwitchPlatform};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use super::foreign::{adapter, serve};
use super::listener_harness::{ListenerHarness, eventually};

#[derive(Clone)]
struct Mock {
    subscriptions: Arc<Mutex<Vec<Value>>>,
    frames: broadcast::Sender<String>,
}

fn message(kind: &str, extra: &Value, payload: &Value) -> String {
    let mut metadata = json!({
        "message_id": made_up_id(), "message_type": kind, "message_timestamp": now(),
    });
    if let (Some(metadata), Some(extra)) = (metadata.as_object_mut(), extra.as_object()) {
        metadata.extend(extra.clone());
    }
    json!({"metadata": metadata, "payload": payload}).to_string()
}

fn made_up_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn now() -> String {
    SystemClock.now().to_string()
}

fn event(kind: &str, event: &Value) -> String {
    let subscription = json!({
        "id": made_up_id(), "status": "enabled", "type": kind, "version": "1", "cost": 0,
        "condition": {"broadcaster_user_id": "1"}, "transport": {"method": "websocket", "session_id": "x"},
    });
    message(
        "notification",
        &json!({"subscription_type": kind, "subscription_version": "1"}),
        &json!({"subscription": subscription, "event": event}),
    )
}

async fn socket(
    upgrade: WebSocketUpgrade,
    Query(query): Query<HashMap<String, String>>,
    State(mock): State<Mock>,
) -> Response {
    upgrade.on_upgrade(move |socket| serve_socket(socket, query.contains_key("reconnect_id"), mock))
}

async fn serve_socket(mut socket: WebSocket, again: bool, mock: Mock) {
    let session = if again {
        "22222222_bbbbbbbb"
    } else {
        "11111111_aaaaaaaa"
    };
    let welcome = json!({"session": {
        "id": session, "status": "connected", "connected_at": now(), "keepalive_timeout_seconds": 10,
        "reconnect_url": null,
    }});
    let mut frames = mock.frames.subscribe();
    let mut ticks = tokio::time::interval(Duration::from_millis(40));
    let _ = socket
        .send(Message::Text(
            message("session_welcome", &json!({}), &welcome).into(),
        ))
        .await;
    loop {
        let text = tokio::select! {
            // Keepalives are sent at a fixed interval, even right after events, and pings between them.
            _ = ticks.tick() => {
                let _ = socket.send(Message::Ping("".into())).await;
                message("session_keepalive", &json!({}), &json!({}))
            }
            frame = frames.recv() => match frame {
                Ok(frame) => frame,
                Err(_) => return,
            },
            incoming = socket.recv() => match incoming {
                Some(Ok(Message::Pong(_))) => continue,
                // Any other message of a client closes it, as with Twitch.
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_))) => {
                    let close = CloseFrame { code: 4001, reason: "inbound".into() };
                    let _ = socket.send(Message::Close(Some(close))).await;
                    return;
                }
                _ => return,
            },
        };
        if socket.send(Message::Text(text.into())).await.is_err() {
            return;
        }
    }
}

async fn create(State(mock): State<Mock>, Json(wanted): Json<Value>) -> Response {
    let mut subscriptions = mock.subscriptions.lock();
    if wanted["type"] == "channel.chat.message" {
        let body = json!({"error": "Bad Request", "status": 400,
            "message": "The combination of values in the type and version fields is not valid"});
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    if subscriptions.iter().any(|known| known["type"] == wanted["type"]) {
        let body = json!({"error": "Conflict", "status": 409, "message": "Subscription by the specified type and version combination for the specified Client ID already exists"});
        return (StatusCode::CONFLICT, Json(body)).into_response();
    }
    let mut made = wanted.clone();
    made["id"] = json!(made_up_id());
    made["status"] = json!("enabled");
    made["cost"] = json!(0);
    subscriptions.push(made.clone());
    let body = json!({"data": [made], "total": 0, "max_total_cost": 10, "total_cost": 0});
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

async fn list(State(mock): State<Mock>) -> Json<Value> {
    let subscriptions = mock.subscriptions.lock().clone();
    Json(
        json!({"total": subscriptions.len(), "data": subscriptions, "total_cost": 0, "max_total_cost": 10, "pagination": {}}),
    )
}

fn router(mock: Mock) -> Router {
    let validate = get(|| async {
        Json(
            json!({"client_id": "mockclient", "user_id": "7", "login": "mockbot", "expires_in": 3600,
            "scopes": ["user:read:chat"]}),
        )
    });
    Router::new()
        .route("/auth/validate", validate)
        .route("/ws", any(socket))
        .route("/eventsub/subscriptions", post(create).get(list))
        .with_state(mock)
}

/// Starts the mock and an adapter that is pointed at it.
async fn start(mock: &Mock) -> (SocketAddr, Arc<TwitchPlatform>, AbortOnDropHandle<()>) {
    let (address, server) = serve(router(mock.clone())).await;
    let options = TwitchOptions {
        auth_url: format!("http://{address}/auth").parse().unwrap(),
        helix_url: format!("http://{address}/mock").parse().unwrap(),
        eventsub_rest_url: format!("http://{address}").parse().unwrap(),
        eventsub_ws_url: format!("ws://{address}/ws").parse().unwrap(),
        ..TwitchOptions::default()
    };
    let platform = adapter(options, "mocktoken", &[twitch::bot()]).await;
    (address, platform, server)
}

#[tokio::test]
async fn the_official_mocks_eventsub_is_understood() {
    let mock = Mock {
        subscriptions: Arc::default(),
        frames: broadcast::Sender::new(64),
    };
    let (address, platform, _server) = start(&mock).await;
    let harness = ListenerHarness::listening(&platform, &["1", "2"], |watched| EventSubOptions {
        chat: true,
        ..EventSubOptions::new(watched)
    });
    eventually("the first channel is up", || {
        harness.verdict("1").status.value.to_string() == "CONNECTED"
    })
    .await;
    // What the mock confuses with the first channel's is no problem of the second's; events of both are received.
    mock.frames
        .send(event(
            "stream.online",
            &json!({"id": "40", "broadcaster_user_id": "2", "broadcaster_user_login": "two",
                "broadcaster_user_name": "Two", "type": "live", "started_at": now()}),
        ))
        .unwrap();
    eventually("the second's start is heard", || {
        harness.verdict("2").stream.value == StreamStatus::Online
    })
    .await;
    // Events of other channels are ignored, and so is an unknown type.
    for (kind, id) in [("stream.online", "99"), ("user.made_up", "1")] {
        let about = json!({"id": "41", "broadcaster_user_id": id, "user_id": id});
        mock.frames.send(event(kind, &about)).unwrap();
    }
    eventually("both are counted", || {
        let tally = harness.status().tally;
        (tally.foreign, tally.unknown) == (1, 1)
    })
    .await;
    // Its reconnect: another address, another session, and the old socket is closed only by the server.
    let body = json!({"session": {"id": "11111111_aaaaaaaa", "status": "reconnecting",
        "keepalive_timeout_seconds": null, "connected_at": now(),
        "reconnect_url": format!("ws://{address}/ws?reconnect_id=abc")}});
    let created = mock.subscriptions.lock().len();
    mock.frames
        .send(message("session_reconnect", &json!({}), &body))
        .unwrap();
    eventually("the line has moved", || {
        let line = &harness.status().connections[0];
        line.session.as_deref() == Some("22222222_bbbbbbbb") && line.state == "CONNECTED"
    })
    .await;
    assert_eq!(mock.subscriptions.lock().len(), created);
    mock.frames
        .send(event("stream.offline", &json!({"broadcaster_user_id": "2"})))
        .unwrap();
    eventually("an end without an id is heard", || {
        harness.verdict("2").stream.value == StreamStatus::Offline
    })
    .await;
    assert!(harness.verdict("2").status.value.to_string() != "ERROR");
    let reported = harness.reported();
    assert!(
        reported
            .iter()
            .all(|reported| !matches!(*reported.fact, Fact::StreamAbsent))
    );
    assert_eq!(harness.status().tally.reconnects, 0);
}
