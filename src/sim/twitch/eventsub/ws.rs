//! The websocket: welcome, keepalives, pings, the ten-second rule, and orders from the controls.

use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::response::Response;
use axum::routing::any;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::sockets::{reason_of, status_of};
use super::state::Order;
use crate::clock::Clock;
use crate::core::time::Timestamp;
use crate::sim::kit::query::Query;
use crate::sim::tcp_faults::Wire;
use crate::sim::twitch::handle::TwitchSim;

/// Default seconds between keepalives, and the bounds of what a client may request.
const KEEPALIVE: (i64, i64, i64) = (10, 10, 600);
/// Milliseconds after the welcome within which a subscription is required.
const UNUSED_MS: i64 = 10_000;
/// Milliseconds between pings. Twitch documents no figure.
const PING_MS: i64 = 10_000;
/// Real time in which a ping must be answered, so that a jump of the simulated clock causes no timeout.
const PONG: Duration = Duration::from_secs(10);
/// Real time in which a client must answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(in crate::sim::twitch) fn routes(twitch: TwitchSim) -> Router {
    Router::new().route("/ws", any(open)).with_state(twitch)
}

async fn open(
    State(twitch): State<TwitchSim>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    let challenge = query.get("challenge").map(str::to_owned);
    let keepalive = keepalive_of(query.get("keepalive_timeout_seconds"));
    upgrade.on_upgrade(async move |socket| {
        let (line, orders) = mpsc::unbounded_channel();
        let admitted = twitch.with_world(|world, _| match &challenge {
            Some(challenge) => world.eventsub.move_in(challenge, line),
            None => Some(world.eventsub.connect(keepalive, line)),
        });
        match admitted {
            Some((number, welcome)) => Loop::new(twitch, socket, wire, number).run(orders, welcome).await,
            None => close_politely(socket, 4007).await,
        }
    })
}

/// Numbers out of bounds are clamped to the nearest bound; other text counts as not given.
fn keepalive_of(given: Option<&str>) -> i64 {
    let (usual, least, most) = KEEPALIVE;
    given
        .and_then(|text| text.parse::<i64>().ok())
        .map_or(usual, |seconds| seconds.clamp(least, most))
}

async fn close_politely(mut socket: WebSocket, code: u16) {
    let frame = CloseFrame {
        code,
        reason: reason_of(code).into(),
    };
    let _ = socket.send(Message::Close(Some(frame))).await;
    let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, answered).await;
}

/// Why a socket's loop ends.
enum End {
    /// The server closes it with this code.
    Close(u16),
    /// It is lost, or the simulation stops.
    Gone,
}

/// The loop of one connection.
struct Loop {
    twitch: TwitchSim,
    socket: WebSocket,
    wire: Wire,
    number: u64,
    muted: bool,
    last_sent: Timestamp,
    next_ping: Timestamp,
    unused_after: Timestamp,
    leave_by: Option<Timestamp>,
    /// Until when, in real time, a ping must be answered.
    pong_by: Option<Instant>,
}

impl Loop {
    fn new(twitch: TwitchSim, socket: WebSocket, wire: Wire, number: u64) -> Self {
        let now = twitch.clock().now();
        Self {
            twitch,
            socket,
            wire,
            number,
            muted: false,
            last_sent: now,
            next_ping: now.plus_millis(PING_MS),
            unused_after: now.plus_millis(UNUSED_MS),
            leave_by: None,
            pong_by: None,
        }
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, welcome: String) {
        let late = self
            .twitch
            .with_world(|world, _| world.eventsub.conduit_knobs.welcome_late_ms);
        if late > 0 {
            self.twitch.clock().sleep(late).await;
        }
        let end = if self.send(welcome).await {
            self.serve(&mut orders).await
        } else {
            End::Gone
        };
        let code = if let End::Close(code) = end { code } else { 1006 };
        let (number, status) = (self.number, status_of(code));
        self.twitch
            .with_world(|world, _| world.eventsub.disconnect(number, status));
        if let End::Close(code) = end {
            close_politely(self.socket, code).await;
        }
    }

    async fn serve(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
        let clock = std::sync::Arc::clone(self.twitch.clock());
        let stopping = self.twitch.host().stopping().clone();
        loop {
            let pong_by = self.pong_by;
            let overdue = async move {
                match pong_by {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let due = self.next_deadline();
            let end = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => Some(End::Gone),
                },
                frame = self.socket.recv() => match frame {
                    Some(Ok(frame)) => self.received(&frame),
                    Some(Err(_)) | None => Some(End::Gone),
                },
                () = clock.sleep_until(due) => self.tick().await,
                () = overdue => Some(End::Close(4002)),
                () = stopping.cancelled() => Some(End::Gone),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Returns how many milliseconds after the last message a keepalive is sent; `None` never.
    fn keepalive_after(&self) -> Option<i64> {
        let (number, muted) = (self.number, self.muted);
        self.twitch.with_world(|world, _| {
            let socket = world.eventsub.sockets.get(&number)?;
            let knobs = &world.eventsub.knobs;
            (!muted && !knobs.no_keepalives)
                .then_some(socket.keepalive_secs * 1_000 + knobs.keepalive_late_ms)
        })
    }

    fn next_deadline(&self) -> Timestamp {
        let keepalive = self
            .keepalive_after()
            .map(|after| self.last_sent.plus_millis(after));
        // Knobs may change during the wait, so check again at least once per simulated second.
        let again = self.twitch.clock().now().plus_millis(1_000);
        let unused = Some(self.unused_after).filter(|_| self.idle());
        let candidates = [
            Some(again),
            keepalive,
            unused,
            self.leave_by,
            Some(self.next_ping),
        ];
        candidates.into_iter().flatten().min().unwrap_or(again)
    }

    fn idle(&self) -> bool {
        let number = self.number;
        self.twitch.with_world(|world, _| world.eventsub.idle(number))
    }

    /// Executes what has become due.
    async fn tick(&mut self) -> Option<End> {
        self.twitch.with_world(|world, _| world.eventsub.send_late());
        let now = self.twitch.clock().now();
        if self.leave_by.is_some_and(|by| by <= now) {
            return Some(End::Close(4004));
        }
        if self.unused_after <= now && self.idle() {
            return Some(End::Close(4003));
        }
        if self.next_ping <= now {
            self.next_ping = now.plus_millis(PING_MS);
            let timeout = self
                .twitch
                .with_world(|world, _| world.eventsub.knobs.pong_timeout_ms);
            let patience = timeout.map_or(PONG, Duration::from_millis);
            if self.pong_by.is_none() {
                self.pong_by = Some(Instant::now() + patience);
                if self.socket.send(Message::Ping("bitbrat".into())).await.is_err() {
                    return Some(End::Gone);
                }
            }
        }
        if self
            .keepalive_after()
            .is_some_and(|after| self.last_sent.plus_millis(after) <= now)
        {
            let text = self
                .twitch
                .with_world(|world, _| world.eventsub.message("session_keepalive", &json!({})));
            if !self.send(text).await {
                return Some(End::Gone);
            }
        }
        None
    }

    async fn obey(&mut self, order: Order) -> Option<End> {
        match order {
            Order::Send(text) => return (!self.send(text).await).then_some(End::Gone),
            Order::Close(code) => return Some(End::Close(code)),
            Order::Reset => {
                self.wire.reset();
                return Some(End::Gone);
            }
            Order::Freeze => self.wire.freeze(),
            Order::Mute(muted) => self.muted = muted,
            Order::LeaveBy(at) => self.leave_by = Some(at),
        }
        None
    }

    /// Processes a frame of the client: only pongs and a close are allowed.
    fn received(&mut self, frame: &Message) -> Option<End> {
        match frame {
            Message::Pong(_) => {
                self.pong_by = None;
                None
            }
            Message::Close(_) => Some(End::Gone),
            Message::Text(_) | Message::Binary(_) | Message::Ping(_) => Some(End::Close(4001)),
        }
    }

    /// Sends a message, which also postpones the next keepalive. Returns whether the socket accepted it.
    async fn send(&mut self, text: String) -> bool {
        self.last_sent = self.twitch.clock().now();
        // A client that does not read fills the connection; it must not block this loop forever.
        let sent = tokio::time::timeout(PONG, self.socket.send(Message::Text(text.into()))).await;
        matches!(sent, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keepalive_time_is_moved_to_its_bounds() {
        for (given, seconds) in [
            (None, 10),
            (Some("1"), 10),
            (Some("-5"), 10),
            (Some("30"), 30),
            (Some("9999"), 600),
        ] {
            assert_eq!(keepalive_of(given), seconds, "{given:?}");
        }
        assert_eq!(keepalive_of(Some("soon")), 10);
    }
}
