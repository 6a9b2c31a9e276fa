//! An EventSub server of another hand, which keeps to the documented protocol in its own way: other addresses, other order
//! of members, more of them, another keepalive, a welcome that takes its time, lists that lag behind. What it does is told
//! to it by the test.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
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
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use super::ear::{Ear, eventually};
use super::foreign;

/// A line's time runs so many times faster than real time.
const PACE: u32 = 10;

/// What the server does, and what it has seen.
struct Manners {
    welcome_after: Duration,
    keepalive_secs: u64,
    /// The time that welcomes carry; the present when `None`.
    welcome_at: Option<&'static str>,
    /// Channels of which nothing is accepted for the time being.
    unavailable: BTreeSet<String>,
    /// Channels of which nothing is answered for the time being.
    slow: BTreeSet<String>,
    /// Whether lists still show the session that subscriptions were made on, whatever it moved to.
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
        self.manners.lock().unwrap()
    }

    fn say(&self, frame: String) {
        self.frames.send(frame).unwrap();
    }

    /// A start or an end, with its members in an order of its own and some that nobody documented.
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

/// The same moment as clocks two hours to the east write it, with nanoseconds.
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
            heard = socket.recv() => match heard {
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
    // The least that may be answered, under another status of success.
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

/// The server with a listener at work on it.
struct Pair {
    server: Server,
    address: SocketAddr,
    ear: Ear,
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
    let ear = Ear::listening(&platform, channels, |watched| EventSubOptions {
        pace: PACE,
        watch_clock: false,
        ..EventSubOptions::new(watched)
    });
    Pair {
        server,
        address,
        ear,
        _serving: serving,
    }
}

impl Pair {
    fn session(&self) -> Option<String> {
        self.ear.status().lines.first()?.session.clone()
    }

    /// Sends the line to another address, and waits until it is there.
    async fn reconnect(&self, path: &str) {
        let before = self.session();
        self.server.say(format!(
            r#"{{"payload":{{"session":{{"id":"x","reconnect_url":"ws://{}/{path}"}}}},
            "metadata":{{"message_type":"session_reconnect","message_id":"r"}}}}"#,
            self.address
        ));
        eventually("the line has moved", || {
            self.session() != before && self.ear.status().is_healthy()
        })
        .await;
    }

    /// Lets so many seconds of the line's time pass.
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
    eventually("both are up", || pair.ear.is_up("1") && pair.ear.is_up("2")).await;
    pair.server.event("stream.online", &live("2"));
    eventually("the start is heard", || {
        pair.ear.stream("2") == StreamStatus::Online
    })
    .await;
    // Silence of almost a keepalive's length and a half is none.
    pair.pass(100).await;
    pair.reconnect("another/place?token=a%2Fb").await;
    let gone = json!({"broadcaster_user_name": "Two", "broadcaster_user_id": "2"});
    pair.server.event("stream.offline", &gone);
    eventually("the end is heard", || {
        pair.ear.stream("2") == StreamStatus::Offline
    })
    .await;
    assert_eq!(pair.ear.status().tally.reconnects, 0);
    assert_eq!(pair.server.manners().asked, 6, "nothing was subscribed to twice");
}

#[tokio::test]
async fn a_list_that_lags_behind_a_move_costs_no_subscription() {
    let pair = start(&["1"], |manners| manners.lists_lag = true).await;
    eventually("it is up", || pair.ear.is_up("1")).await;
    let asked = pair.server.manners().asked;
    pair.reconnect("second").await;
    // The list is looked at fifteen seconds after a move.
    pair.pass(25).await;
    let seen = {
        let manners = pair.server.manners();
        (manners.asked, manners.deleted)
    };
    assert_eq!(seen, (asked, 0));
    pair.server.event("stream.online", &live("1"));
    eventually("the start is heard", || {
        pair.ear.stream("1") == StreamStatus::Online
    })
    .await;
}

#[tokio::test]
async fn a_subscription_that_is_accepted_while_the_line_moves_is_not_lost_sight_of() {
    let pair = start(&["1", "2"], |manners| {
        manners.slow.insert("2".to_owned());
    })
    .await;
    eventually("the first is up and the second asked for", || {
        pair.ear.is_up("1") && pair.server.manners().asked >= 4
    })
    .await;
    pair.reconnect("second").await;
    pair.server.manners().slow.clear();
    eventually("the second is up", || pair.ear.is_up("2")).await;
}

#[tokio::test]
async fn what_is_not_accepted_again_after_a_gap_is_not_claimed_to_be_heard() {
    let pair = start(&["1", "2"], |_| {}).await;
    eventually("both are up", || pair.ear.is_up("1") && pair.ear.is_up("2")).await;
    pair.server.manners().unavailable.insert("2".to_owned());
    pair.server.say("reset".to_owned());
    eventually("what is not heard is told so", || pair.ear.is_down("2")).await;
    eventually("the line is back", || {
        pair.ear.is_up("1") && pair.ear.status().is_healthy()
    })
    .await;
    assert!(pair.ear.is_down("2"));
    pair.server.manners().unavailable.clear();
    eventually("the second is back", || pair.ear.is_up("2")).await;
}

#[tokio::test]
async fn a_server_whose_clock_is_years_behind_does_not_date_our_evidence() {
    let pair = start(&["1"], |manners| {
        manners.welcome_at = Some("2023-07-19T14:56:51.634234626Z");
    })
    .await;
    eventually("it is up", || pair.ear.is_up("1")).await;
    pair.server.event("stream.online", &live("1"));
    eventually("the start is heard", || {
        pair.ear.stream("1") == StreamStatus::Online
    })
    .await;
    let now = SystemClock.now();
    for told in pair.ear.told() {
        assert!(now.millis_since(told.at).abs() < 60_000, "{told:?}");
    }
}
