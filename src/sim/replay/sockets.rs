//! Plays the frames of a recorded websocket.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Replayed;
use super::answers::{Player, unrecorded};
use super::script::{SocketScript, Step};
use crate::sim::tcp_faults::Wire;
use crate::traffic::format::Body;

/// How long a frame of the client is waited for before what the platform sent after it follows anyway.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a keepalive is sent after the last recorded frame: before the ten seconds after which a client gives up.
const KEEPALIVE: Duration = Duration::from_secs(8);
/// Time in which a client must answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers a request for a websocket with the next recorded one.
pub(super) fn play<W: Replayed>(player: Player<W>, upgrade: WebSocketUpgrade, wire: Wire) -> Response {
    let Some(script) = player.script.next_socket() else {
        return unrecorded(&player.report, &Method::GET, &Uri::from_static("/websocket"));
    };
    if let Some(code) = &script.failed {
        let status = code.strip_prefix("http.").and_then(|status| status.parse().ok());
        if let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) {
            return status.into_response();
        }
        wire.reset();
        return StatusCode::BAD_GATEWAY.into_response();
    }
    upgrade.on_upgrade(async move |socket| {
        let connection = Connection {
            player,
            socket,
            wire,
            received: 0,
        };
        connection.run(&script).await;
    })
}

/// The server's side of one websocket.
struct Connection<W> {
    player: Player<W>,
    socket: WebSocket,
    wire: Wire,
    /// Frames of the client that no recorded one was compared with yet.
    received: usize,
}

impl<W: Replayed> Connection<W> {
    /// Sends the recorded frames at their times. What the platform sent after a frame of the client follows such a frame.
    async fn run(mut self, script: &SocketScript) {
        let (mut begun, mut from) = (Instant::now(), script.opened);
        for (at, step) in &script.steps {
            let after = Duration::from_millis(at.saturating_sub(from)) / self.player.speed;
            let is_open = match step {
                Step::Received => self.wait_for_client().await,
                Step::Sent(_) | Step::Closed(_) | Step::Lost => self.wait_until(begun + after).await,
                Step::Left => break,
            };
            if !is_open {
                return;
            }
            match step {
                Step::Received => (begun, from) = (Instant::now(), *at),
                Step::Sent(body) => {
                    let text = self.player.served(body, *at);
                    if self.socket.send(Message::text(text)).await.is_err() {
                        return;
                    }
                }
                Step::Closed(code) => return self.close(*code).await,
                Step::Lost => return self.wire.reset(),
                Step::Left => {}
            }
        }
        self.stay_open(is_eventsub(script)).await;
    }

    /// Keeps the connection as it was at the end of the recording.
    async fn stay_open(mut self, sends_keepalives: bool) {
        while self.wait_until(Instant::now() + KEEPALIVE).await {
            let now = self.player.sim.clock().wall();
            let keepalive = json!({"metadata": {"message_id": format!("keepalive-{}", now.as_millis()),
                "message_type": "session_keepalive", "message_timestamp": now}, "payload": {}});
            if sends_keepalives
                && self
                    .socket
                    .send(Message::text(keepalive.to_string()))
                    .await
                    .is_err()
            {
                return;
            }
        }
    }

    /// Answers the client until `due`; returns whether the connection is still open.
    async fn wait_until(&mut self, due: Instant) -> bool {
        let stopping = self.player.sim.host().stopping().clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => return true,
                () = stopping.cancelled() => return false,
                frame = self.socket.recv() => if !self.read(frame).await { return false },
            }
        }
    }

    /// Waits for a frame of the client; returns whether the connection is still open.
    async fn wait_for_client(&mut self) -> bool {
        let until = Instant::now() + CLIENT_TIMEOUT;
        while self.received == 0 {
            match tokio::time::timeout_at(until, self.socket.recv()).await {
                Ok(frame) => {
                    if !self.read(frame).await {
                        return false;
                    }
                }
                Err(_) => return true,
            }
        }
        self.received -= 1;
        true
    }

    /// Processes a frame of the client; returns whether the connection is still open.
    async fn read(&mut self, frame: Option<Result<Message, axum::Error>>) -> bool {
        match frame {
            Some(Ok(Message::Text(text))) => {
                let value: Value = serde_json::from_str(&text).unwrap_or_default();
                if value["op"] == 1 {
                    let answer = json!({"op": 11, "d": null}).to_string();
                    return self.socket.send(Message::text(answer)).await.is_ok();
                }
                self.received += 1;
                true
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => false,
            Some(Ok(_)) => true,
        }
    }

    async fn close(mut self, code: Option<u16>) {
        let frame = code.map(|code| CloseFrame {
            code,
            reason: "".into(),
        });
        let _ = self.socket.send(Message::Close(frame)).await;
        let answered = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, answered).await;
    }
}

/// Whether the platform greets as EventSub does, which sends keepalives.
fn is_eventsub(script: &SocketScript) -> bool {
    script.steps.iter().any(|(_, step)| match step {
        Step::Sent(Body::Json(value)) => value["metadata"]["message_type"] == "session_welcome",
        _ => false,
    })
}
