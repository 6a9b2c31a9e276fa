//! Another implementation of an EventSub server, which follows the documented protocol in its own way: other addresses, other
//! order of members, more of them, another keepalive, a delayed welcome, lists that lag behind. The test configures its behavior.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use bitbrat::clock::{Clock as _, SystemClock};
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::platforms::twitch::eventsub::EventSubOptions;
use bitbrat::platforms::twitch::{self, TwitchOptions};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use super::foreign;
use super::listener_harness::{ListenerHarness, eventually};

/// A connection's time runs this many times faster than real time.
const PACE: u32 = 10;

/// The behavior of the server, and what it has received.
struct Manners {
    welcome_after: Duration,
    keepalive_secs: u64,
    /// The time in welcomes; the present when `None`.
    welcome_at: Option<&'static str>,
    /// Channels whose subscriptions are rejected for the time being.
    unavailable: BTreeSet<String>,
    /// Channels whose requests are not answered for the time being.
    slow: BTreeSet<String>,
    /// Whether lists still contain the session that subscriptions were created on, after a reconnect.
    lists_lag: bool,
    sessions: usize,
    subscriptions: Vec<Value>,
    asked: usize,
    deleted: usize,
}

#[derive(Clone)]
struct Server {
    manners: Arc<Mutex<Manners>>,
    frames: broadcast::Sender<String>,
}

impl Server {
    fn manners(&self) -> MutexGuard<'_, Manners> {
        self.manners.lock()
    }

    fn say(&self, frame: String) {
        self.frames.send(frame).unwrap();
    }

    /// A start or an end, with its members in another order and some that are not documented.
    fn event(&self, kind: &str, event: &Value) {
        self.say(format!(
            r#"{{ "trace": null, "payload": {{"event": {event}, "subscription": {{"transport": {{"session_id": "any",
            "method": "websocket"}}, "type": "{kind}", "id": "s", "cost": 1.0, "novelty": [1, {{}}],
            "condition": {{"broadcaster_user_id": "1", "moderator_user_id": ""}}, "status": "enabled"}}}},
            "metadata": {{"subscription_version": "1", "subscription_type": "{kind}", "retry": 0,
            "message_timestamp": "{}", "message_type": "notification", "message_id": "{}"}} }}"#,
            east(SystemClock.now()),
            uuid::Uuid::new_v4(),
        ));
    }
}

/// The same time in a time zone two hours to the east, with nanoseconds.
fn east(at: Timestamp) -> String {
    let text = at.plus_secs(7_200).to_string();
    text.replace('Z', "123456+02:00")
}

fn socket(upgrade: WebSocketUpgrade, server: Server) -> Response {
    upgrade.on_upgrade(|socket| serve(socket, server))
}

async fn serve(mut socket: WebSocket, server: Server) {
    let (after, keepalive, at, session) = {
        let mut manners = server.manners();
        manners.sessions += 1;
        let at = manners
            .welcome_at
            .map_or_else(|| east(SystemClock.now()), str::to_owned);
        (
            manners.welcome_after,
            manners.keepalive_secs,
            at,
            format!("session/{}", manners.sessions),
        )
    };
    let mut frames = server.frames.subscribe();
    tokio::time::sleep(after).await;
    let welcome = format!(
        r#"{{"payload":{{"session":{{"reconnect_url":null,"recovery_url":null,"keepalive_timeout_seconds":{keepalive},
        "status":"connected","id":"{session}","region":"elsewhere"}}}},
        "metadata":{{"message_timestamp":"{at}","message_type":"session_welcome","message_id":"w-{session}"}}}}"#
    );
    if socket.send(Message::Text(welcome.into())).await.is_err() {
        return;
    }
    let pause = Duration::from_secs(keepalive) / PACE;
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => match frame {
                Ok(frame) => frame,
                Err(_) => return,
            },
            () = tokio::time::sleep(pause) => r#"{"metadata":{"message_id":"k","message_type":"session_keepalive"}}"#.to_owned(),
            incoming = socket.recv() => match incoming {
                Some(Ok(Message::Pong(_))) => continue,
                _ => return,
            },
        };
        if frame == "reset" || socket.send(Message::Text(frame.into())).await.is_err() {
            return;
        }
    }
}

async fn create(State(server): State<Server>, Json(wanted): Json<Value>) -> Response {
    let channel = wanted["condition"]["broadcaster_user_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    server.manners().asked += 1;
    while server.manners().slow.contains(&channel) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut manners = server.manners();
    if manners.unavailable.contains(&channel) {
        return (StatusCode::SERVICE_UNAVAILABLE, "later").into_response();
    }
    let id = format!("made-{}", manners.asked);
    manners
        .subscriptions
        .push(json!({"id": id, "status": "enabled", "type": wanted["type"],
        "condition": wanted["condition"], "transport": wanted["transport"]}));
    // The minimal response, under another status of success.
    (
        StatusCode::OK,
        Json(json!({"data": [{"id": id, "status": "enabled"}]})),
    )
        .into_response()
}

async fn list(State(server): State<Server>) -> Json<Value> {
    let manners = server.manners();
    let newest = format!("session/{}", manners.sessions);
    let shown = manners.subscriptions.iter().cloned().map(|mut one| {
        if !manners.lists_lag {
            one["transport"]["session_id"] = json!(newest);
        }
        one
    });
    Json(json!({"data": shown.collect::<Vec<_>>()}))
}

async fn delete(State(server): State<Server>) -> StatusCode {
    server.manners().deleted += 1;
    StatusCode::NO_CONTENT
}

/// The server with a running listener.
struct Pair {
    server: Server,
    address: SocketAddr,
    harness: ListenerHarness,
    _serving: AbortOnDropHandle<()>,
}

async fn start(channels: &[&str], change: impl FnOnce(&mut Manners)) -> Pair {
    let mut manners = Manners {
        welcome_after: Duration::ZERO,
        keepalive_secs: 10,
        welcome_at: None,
        unavailable: BTreeSet::new(),
        slow: BTreeSet::new(),
        lists_lag: false,
        sessions: 0,
        subscriptions: Vec::new(),
        asked: 0,
        deleted: 0,
    };
    change(&mut manners);
    let server = Server {
        manners: Arc::new(Mutex::new(manners)),
        frames: broadcast::Sender::new(64),
    };
    let validated =
        json!({"client_id": "c", "user_id": "7", "login": "bot", "expires_in": 3600, "scopes": []});
    let app = Router::new()
        .route("/o/validate", get(|| async { Json(validated) }))
        .route(
            "/{*anywhere}",
            any(
                |Path(_): Path<String>, upgrade: WebSocketUpgrade, State(server): State<Server>| async move {
                    socket(upgrade, server)
                },
            ),
        )
        .route(
            "/rest/v9/eventsub/subscriptions",
            get(list).post(create).delete(delete),
        )
        .with_state(server.clone());
    let (address, serving) = foreign::serve(app).await;
    let options = TwitchOptions {
        auth_url: format!("http://{address}/o").parse().unwrap(),
        helix_url: format!("http://{address}/h").parse().unwrap(),
        eventsub_rest_url: format!("http://{address}/rest/v9/").parse().unwrap(),
        eventsub_ws_url: format!("ws://{address}/live/stream?flavour=plain")
            .parse()
            .unwrap(),
        ..TwitchOptions::default()
    };
    let platform = foreign::adapter(options, "token", &[twitch::bot()]).await;
    let harness = ListenerHarness::listening(&platform, channels, |watched| EventSubOptions {
        pace: PACE,
        watch_clock: false,
        ..EventSubOptions::new(watched)
    });
    Pair {
        server,
        address,
        harness,
        _serving: serving,
    }
}

impl Pair {
    fn session(&self) -> Option<String> {
        self.harness.status().connections.first()?.session.clone()
    }

    /// Sends the connection to another address, and waits until it has reconnected.
    async fn reconnect(&self, path: &str) {
        let before = self.session();
        self.server.say(format!(
            r#"{{"payload":{{"session":{{"id":"x","reconnect_url":"ws://{}/{path}"}}}},
            "metadata":{{"message_type":"session_reconnect","message_id":"r"}}}}"#,
            self.address
        ));
        eventually("the line has moved", || {
            self.session() != before && self.harness.status().is_healthy()
        })
        .await;
    }

    /// Lets this many seconds of the connection's time pass.
    async fn pass(&self, secs: u64) {
        tokio::time::sleep(Duration::from_secs(secs) / PACE).await;
    }
}

fn live(id: &str) -> Value {
    json!({"started_at": SystemClock.now().to_string(), "id": format!("stream-of-{id}"), "broadcaster_user_id": id,
        "type": "live", "mood": {"of": "the day"}})
}

#[tokio::test]
async fn the_protocol_is_understood_in_another_hand() {
    let pair = start(&["1", "2"], |manners| {
        manners.welcome_after = Duration::from_secs(8) / PACE;
        manners.keepalive_secs = 30;
    })
    .await;
    eventually("both are up", || {
        pair.harness.is_up("1") && pair.harness.is_up("2")
    })
    .await;
    pair.server.event("stream.online", &live("2"));
    eventually("the start is heard", || {
        pair.harness.stream("2") == StreamStatus::Online
    })
    .await;
    // No message for almost one and a half keepalive intervals is no timeout.
    pair.pass(100).await;
    pair.reconnect("another/place?token=a%2Fb").await;
    let gone = json!({"broadcaster_user_name": "Two", "broadcaster_user_id": "2"});
    pair.server.event("stream.offline", &gone);
    eventually("the end is heard", || {
        pair.harness.stream("2") == StreamStatus::Offline
    })
    .await;
    assert_eq!(pair.harness.status().tally.reconnects, 0);
    assert_eq!(pair.server.manners().asked, 6, "nothing was subscribed to twice");
}

#[tokio::test]
async fn a_list_that_lags_behind_a_move_costs_no_subscription() {
    let pair = start(&["1"], |manners| manners.lists_lag = true).await;
    eventually("it is up", || pair.harness.is_up("1")).await;
    let asked = pair.server.manners().asked;
    pair.reconnect("second").await;
    // The list is requested fifteen seconds after a move.
    pair.pass(25).await;
    let seen = {
        let manners = pair.server.manners();
        (manners.asked, manners.deleted)
    };
    assert_eq!(seen, (asked, 0));
    pair.server.event("stream.online", &live("1"));
    eventually("the start is heard", || {
        pair.harness.stream("1") == StreamStatus::Online
    })
    .await;
}

#[tokio::test]
async fn subscription_accepted_during_reconnect_is_not_lost() {
    let pair = start(&["1", "2"], |manners| {
        manners.slow.insert("2".to_owned());
    })
    .await;
    eventually("the first is up and the second asked for", || {
        pair.harness.is_up("1") && pair.server.manners().asked >= 4
    })
    .await;
    pair.reconnect("second").await;
    pair.server.manners().slow.clear();
    eventually("the second is up", || pair.harness.is_up("2")).await;
}

#[tokio::test]
async fn subscription_not_restored_after_gap_is_reported_down() {
    let pair = start(&["1", "2"], |_| {}).await;
    eventually("both are up", || {
        pair.harness.is_up("1") && pair.harness.is_up("2")
    })
    .await;
    pair.server.manners().unavailable.insert("2".to_owned());
    pair.server.say("reset".to_owned());
    eventually("what is not heard is told so", || pair.harness.is_down("2")).await;
    eventually("the line is back", || {
        pair.harness.is_up("1") && pair.harness.status().is_healthy()
    })
    .await;
    assert!(pair.harness.is_down("2"));
    pair.server.manners().unavailable.clear();
    eventually("the second is back", || pair.harness.is_up("2")).await;
}

#[tokio::test]
async fn server_clock_years_behind_does_not_date_evidence() {
    let pair = start(&["1"], |manners| {
        manners.welcome_at = Some("2023-07-19T14:56:51.634234626Z");
    })
    .await;
    eventually("it is up", || pair.harness.is_up("1")).await;
    pair.server.event("stream.online", &live("1"));
    eventually("the start is heard", || {
        pair.harness.stream("1") == StreamStatus::Online
    })
    .await;
    let now = SystemClock.now();
    for reported in pair.harness.reported() {
        assert!(now.millis_since(reported.at).abs() < 60_000, "{reported:?}");
    }
}
