//! One connection to the gateway: Hello, heartbeats, Identify or Resume, and the close codes for clients that break a rule.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::response::Response;
use axum::routing::any;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::handle::DiscordSim;
use super::knobs::Knobs;
use super::sessions::{NoResume, Order};
use crate::core::time::Timestamp;
use crate::sim::host;
use crate::sim::kit;
use crate::sim::kit::query::Query;
use crate::sim::tcp_faults::Wire;

/// The largest frame that a client may send, in bytes.
const LARGEST: usize = 4_096;
/// All intents that exist.
const INTENTS: u64 = 0x1FFFF | 1 << 20 | 1 << 21 | 1 << 24 | 1 << 25;
/// Privileged intents with the two flags of an application, either of which enables it.
const PRIVILEGED: [(u64, u64); 3] = [
    (1 << 1, 1 << 14 | 1 << 15),
    (1 << 8, 1 << 12 | 1 << 13),
    (1 << 15, 1 << 18 | 1 << 19),
];
/// Number of guilds on one shard from which more shards are required.
const SHARD_FULL: usize = 2_500;
/// Real time in which a client must answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the routes of the gateway: the general address, and the one for resuming.
pub(super) fn routes(discord: DiscordSim) -> Router {
    let resume = Router::new()
        .route("/resume", any(open))
        .route("/resume/", any(open))
        .with_state((discord.clone(), false));
    let general = Router::new().route("/", any(open)).with_state((discord, true));
    general.merge(resume)
}

async fn open(
    State((discord, general)): State<(DiscordSim, bool)>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    let version = query.all("v").next().map(str::to_owned);
    if query
        .all("encoding")
        .next()
        .is_some_and(|encoding| encoding != "json")
    {
        return host::unsupported("a gateway with another encoding than json");
    }
    upgrade.on_upgrade(async move |socket| {
        if version.is_some_and(|version| version != "10" && version != "9") {
            return close_politely(socket, 4012).await;
        }
        let (line, orders) = mpsc::unbounded_channel();
        let number = discord.with_world(|world, _| world.sessions.connected(line));
        let connection = Connection {
            discord,
            socket,
            wire,
            number,
            general,
            session: None,
            sent: VecDeque::new(),
            last_received: Instant::now(),
        };
        connection.run(orders).await;
    })
}

async fn close_politely(mut socket: WebSocket, code: u16) {
    let reason = match code {
        4004 => "Authentication failed.",
        4014 => "Disallowed intent(s).",
        _ => "",
    };
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    let _ = socket.send(Message::Close(Some(frame))).await;
    let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, answered).await;
}

/// Why a connection ends.
enum End {
    /// The server closes it with this code.
    Close(u16),
    /// The client closed it with a code that ends its session.
    Left,
    /// It is lost.
    Gone,
}

struct Connection {
    discord: DiscordSim,
    socket: WebSocket,
    wire: Wire,
    number: u64,
    /// Whether it was opened at the general address.
    general: bool,
    session: Option<String>,
    /// When the client sent its latest frames, in simulated time.
    sent: VecDeque<Timestamp>,
    /// When the client last sent a heartbeat, in real time.
    last_received: Instant,
}

impl Connection {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let knobs = self.knobs();
        let hello = json!({"op": 10, "d": {"heartbeat_interval": knobs.heartbeat_interval_ms, "_trace": ["[]"]},
            "s": null, "t": null});
        let end = if knobs.no_hello || self.send(&hello).await {
            self.serve(&mut orders, &knobs).await
        } else {
            End::Gone
        };
        // A session that Discord itself ends cannot be resumed.
        let over = matches!(end, End::Left | End::Close(1000 | 1001 | 4004 | 4007 | 4009));
        let now = self.discord.now();
        self.discord
            .with_world(|world, _| world.sessions.disconnected(self.number, over, now));
        if let End::Close(code) = end {
            close_politely(self.socket, code).await;
        }
    }

    async fn serve(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>, knobs: &Knobs) -> End {
        let stopping = self.discord.host().stopping().clone();
        // Discord closes connections without heartbeats; the exact timeout is not documented.
        let patience = Duration::from_millis(knobs.heartbeat_interval_ms.saturating_mul(3).max(1_500));
        loop {
            let deadline = self.last_received + patience;
            let end = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => Some(End::Gone),
                },
                frame = self.socket.recv() => match frame {
                    Some(Ok(frame)) => self.received(frame).await,
                    Some(Err(_)) | None => Some(End::Gone),
                },
                () = tokio::time::sleep_until(deadline) => Some(End::Close(4009)),
                () = stopping.cancelled() => Some(End::Gone),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Option<End> {
        match order {
            Order::Send(text) => {
                let sent = self.socket.send(Message::Text(text.into())).await;
                sent.is_err().then_some(End::Gone)
            }
            Order::Invalid(resumable) => {
                // The connection stays open: a client may identify or resume on it, or on another one.
                self.session = None;
                let invalid = json!({"op": 9, "d": resumable, "s": null, "t": null});
                (!self.send(&invalid).await).then_some(End::Gone)
            }
            Order::Close(code) => Some(End::Close(code)),
            Order::Reset => {
                self.wire.reset();
                Some(End::Gone)
            }
            Order::Freeze => {
                self.wire.freeze();
                None
            }
        }
    }

    async fn received(&mut self, frame: Message) -> Option<End> {
        let text = match frame {
            Message::Text(text) => text.to_string(),
            Message::Close(close) => {
                let code = close.map_or(1005, |close| close.code);
                return Some(if matches!(code, 1000 | 1001) {
                    End::Left
                } else {
                    End::Gone
                });
            }
            Message::Ping(_) | Message::Pong(_) => return None,
            Message::Binary(_) => return Some(End::Close(4002)),
        };
        let now = self.discord.now();
        self.sent.push_back(now);
        kit::forget(&mut self.sent, 60_000, now);
        let limit = self.discord.with_world(|world, _| {
            world.sessions.counts_mut().frames += 1;
            world.knobs.sends_per_minute
        });
        if self.sent.len() > limit {
            return Some(End::Close(4008));
        }
        if text.len() > LARGEST {
            return Some(End::Close(4002));
        }
        let Ok(frame) = serde_json::from_str::<Value>(&text) else {
            return Some(End::Close(4002));
        };
        match frame["op"].as_u64() {
            Some(1) => self.heartbeat().await,
            Some(2 | 6) if self.session.is_some() => Some(End::Close(4005)),
            Some(2) => self.identify(&frame["d"]).await,
            Some(6) => self.resume(&frame["d"]).await,
            Some(3 | 4 | 8 | 31 | 43) if self.session.is_none() => Some(End::Close(4003)),
            Some(8) => self.request_members(&frame["d"]),
            Some(op @ (3 | 4 | 31 | 43)) => {
                // The gateway has no response to report this.
                let path = format!("/gateway op {op}");
                self.discord.host().journal().not_simulated(now, "SEND", &path);
                None
            }
            _ => Some(End::Close(4001)),
        }
    }

    fn request_members(&self, data: &Value) -> Option<End> {
        if let Some(session) = &self.session {
            self.discord.list_members(session, data);
        }
        None
    }

    async fn heartbeat(&mut self) -> Option<End> {
        self.last_received = Instant::now();
        let knobs = self.discord.with_world(|world, _| {
            world.sessions.counts_mut().heartbeats += 1;
            world.knobs.clone()
        });
        if knobs.no_ack {
            return None;
        }
        if knobs.ack_delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(knobs.ack_delay_ms)).await;
        }
        let ack = json!({"op": 11, "d": null, "s": null, "t": null});
        (!self.send(&ack).await).then_some(End::Gone)
    }

    async fn identify(&mut self, data: &Value) -> Option<End> {
        let now = self.discord.now();
        let token = bare(&data["token"]);
        let judged = self.discord.with_world(|world, _| {
            world.sessions.counts_mut().identifies += 1;
            let Some(bot) = world.bot_of(&token) else {
                return Err(Refused::Close(4004));
            };
            let intents = data["intents"].as_u64().filter(|intents| intents & !INTENTS == 0);
            let Some(intents) = intents else {
                return Err(Refused::Close(4013));
            };
            let flags = world.bots[&bot].flags;
            if PRIVILEGED
                .iter()
                .any(|(intent, switches)| intents & intent != 0 && flags & switches == 0)
            {
                return Err(Refused::Close(4014));
            }
            let shard = shard_of(&data["shard"]).ok_or(Refused::Close(4010))?;
            let on_shard = world
                .guilds_of(bot)
                .filter(|(id, _)| (id >> 22) % shard.1 == shard.0);
            if on_shard.count() >= SHARD_FULL {
                return Err(Refused::Close(4011));
            }
            let window = world.knobs.identify_window_ms;
            let (today, lately) = world.sessions.identified(bot, window, now);
            if today > world.knobs.identify_total {
                return Err(Refused::Exhausted(bot));
            }
            if lately > world.knobs.max_concurrency {
                return Err(Refused::Invalid);
            }
            Ok((bot, intents, shard))
        });
        match judged {
            Ok((bot, intents, shard)) => {
                let id = self.discord.begin_session(bot, intents, shard, self.number);
                self.session = Some(id);
                None
            }
            Err(Refused::Close(code)) => Some(End::Close(code)),
            Err(Refused::Invalid) => {
                let invalid = json!({"op": 9, "d": false, "s": null, "t": null});
                (!self.send(&invalid).await).then_some(End::Gone)
            }
            Err(Refused::Exhausted(bot)) => {
                // A client that begins too many sessions loses them all, and the token.
                self.discord.reset_token(bot, true);
                Some(End::Close(4004))
            }
        }
    }

    async fn resume(&mut self, data: &Value) -> Option<End> {
        let now = self.discord.now();
        let token = bare(&data["token"]);
        let id = data["session_id"].as_str().unwrap_or_default().to_owned();
        let seq = data["seq"].as_u64().unwrap_or(0);
        let (number, general) = (self.number, self.general);
        let resumed = self.discord.with_world(|world, _| {
            let counts = world.sessions.counts_mut();
            counts.resumes += 1;
            counts.misplaced_resumes += u64::from(general);
            let bot = world.bot_of(&token).ok_or(None)?;
            let window = world.knobs.resume_window_ms;
            world
                .sessions
                .resume(&id, bot, seq, number, window, now)
                .map_err(Some)
        });
        match resumed {
            Ok(missed) => {
                for text in missed {
                    if self.socket.send(Message::Text(text.into())).await.is_err() {
                        return Some(End::Gone);
                    }
                }
                self.session = Some(id.clone());
                let done = json!({"_trace": ["[]"]});
                self.discord.with_world(|world, _| {
                    let replayed = world.knobs.replays_resumed;
                    world.sessions.dispatch(&id, "RESUMED", &done, replayed);
                });
                None
            }
            Err(None) => Some(End::Close(4004)),
            Err(Some(NoResume::TooLate)) => Some(End::Close(4009)),
            Err(Some(NoResume::BadSequence)) => Some(End::Close(4007)),
            Err(Some(NoResume::Unknown)) => {
                let invalid = json!({"op": 9, "d": false, "s": null, "t": null});
                (!self.send(&invalid).await).then_some(End::Gone)
            }
        }
    }

    fn knobs(&self) -> Knobs {
        self.discord.with_world(|world, _| world.knobs.clone())
    }

    async fn send(&mut self, frame: &Value) -> bool {
        self.socket
            .send(Message::Text(frame.to_string().into()))
            .await
            .is_ok()
    }
}

/// Why an Identify is refused.
enum Refused {
    Close(u16),
    Invalid,
    Exhausted(u64),
}

/// Returns the token without the prefix that some libraries send with it.
fn bare(token: &Value) -> String {
    let text = token.as_str().unwrap_or_default();
    text.strip_prefix("Bot ").unwrap_or(text).to_owned()
}

fn shard_of(shard: &Value) -> Option<(u64, u64)> {
    if shard.is_null() {
        return Some((0, 1));
    }
    let of = shard[1].as_u64().filter(|of| *of > 0)?;
    let number = shard[0].as_u64().filter(|number| *number < of)?;
    Some((number, of))
}
