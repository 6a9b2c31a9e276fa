//! The connections: welcome, handover, faults, loss, and the effects on their subscriptions.

use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::state::{EventSub, Handover, Order, Socket, Transport};
use crate::sim::kit::random_text::{ALPHANUMERIC, random};

/// Milliseconds in which a client must connect to the reconnect URL.
const HANDOVER_MS: i64 = 30_000;

/// How a socket is asked to reconnect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconnect {
    /// The new session has the old one's id, as observed in production.
    pub same_id: bool,
    /// Events go to both sockets until the old one is closed.
    pub both: bool,
    /// The URL is unreachable.
    pub dead_url: bool,
}

/// An act on a socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketAct {
    /// Close it with this code.
    Close(u16),
    /// Cut it with a TCP RST.
    Reset,
    /// Make it half-open: no frame passes in either direction, without any notification.
    Freeze,
    /// Stop its keepalives; everything else continues.
    Mute,
    /// Send keepalives again.
    Unmute,
    /// Send this text frame unchanged.
    Frame(String),
    /// Send a well-formed message of an undocumented type.
    UnknownMessage,
}

impl EventSub {
    /// Registers a new connection; returns its number and its welcome.
    pub(super) fn connect(
        &mut self,
        keepalive_secs: i64,
        line: mpsc::UnboundedSender<Order>,
    ) -> (u64, String) {
        let session_id = format!("AgoQ{}", random(ALPHANUMERIC, 40, &self.chance));
        self.register(session_id, keepalive_secs, line, None)
    }

    fn register(
        &mut self,
        session_id: String,
        keepalive_secs: i64,
        line: mpsc::UnboundedSender<Order>,
        shadow: Option<u64>,
    ) -> (u64, String) {
        self.last_socket += 1;
        let connected_at = self.clock.wall();
        let welcome = self.message(
            "session_welcome",
            &json!({"session": {
                "id": session_id, "status": "connected", "connected_at": self.precise(connected_at),
                "keepalive_timeout_seconds": keepalive_secs, "reconnect_url": null, "recovery_url": null,
            }}),
        );
        let socket = Socket {
            session_id,
            connected_at,
            keepalive_secs,
            owner: None,
            used: false,
            line,
            shadow,
        };
        self.sockets.insert(self.last_socket, socket);
        (self.last_socket, welcome)
    }

    /// Completes a handover: subscriptions move to the new connection. `None` when the URL is not (or no longer)
    /// valid.
    pub(super) fn move_in(
        &mut self,
        challenge: &str,
        line: mpsc::UnboundedSender<Order>,
    ) -> Option<(u64, String)> {
        let now = self.now();
        let handover = self
            .handovers
            .remove(challenge)
            .filter(|handover| now < handover.until)?;
        let old = self.sockets.get(&handover.from)?;
        let session_id = if handover.same_id {
            old.session_id.clone()
        } else {
            format!("AgoQ{}", random(ALPHANUMERIC, 40, &self.chance))
        };
        let (keepalive_secs, owner, used) = (old.keepalive_secs, old.owner.clone(), old.used);
        let shadow = handover.both.then_some(handover.from);
        let (number, welcome) = self.register(session_id.clone(), keepalive_secs, line, shadow);
        let connected_at = self.clock.wall();
        if let Some(new) = self.sockets.get_mut(&number) {
            (new.owner, new.used) = (owner, used);
        }
        for subscription in &mut self.subscriptions {
            if subscription.socket() == Some(handover.from) && subscription.enabled(now) {
                subscription.transport = Transport::Socket {
                    socket: number,
                    session_id: session_id.clone(),
                    connected_at,
                    disconnected_at: None,
                };
            }
        }
        self.move_shards(handover.from, number);
        Some((number, welcome))
    }

    /// Removes a connection; its subscriptions get `status`, at once or after the orphan time.
    pub(super) fn disconnect(&mut self, socket: u64, status: &str) {
        if self.sockets.remove(&socket).is_none() {
            return;
        }
        self.handovers.retain(|_, handover| handover.from != socket);
        let orphaned = if status == "websocket_disconnected" {
            self.knobs.orphan_cost_ms
        } else {
            0
        };
        let (now, wall) = (self.now(), self.clock.wall());
        for subscription in &mut self.subscriptions {
            if let Transport::Socket {
                socket: own,
                disconnected_at,
                ..
            } = &mut subscription.transport
                && *own == socket
                && subscription.end.is_none()
            {
                *disconnected_at = Some(wall);
                subscription.end = Some((now.plus_millis(orphaned), status.to_owned()));
            }
        }
        self.disable_shards_of(socket, status);
        self.note_totals();
    }

    /// Returns whether a socket has no reason to stay open.
    pub(super) fn idle(&self, socket: u64) -> bool {
        let now = self.now();
        let Some(known) = self.sockets.get(&socket) else {
            return false;
        };
        let subscribed = || {
            self.subscriptions
                .iter()
                .any(|sub| sub.socket() == Some(socket) && sub.enabled(now))
        };
        !known.used || (self.knobs.close_when_empty && !subscribed())
    }

    /// Returns the open sockets with this session id, or all when empty.
    fn meant(&self, session_id: &str) -> Vec<u64> {
        let meant = |socket: &&Socket| session_id.is_empty() || socket.session_id == session_id;
        self.sockets
            .iter()
            .filter(|(_, socket)| meant(socket))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Applies `act` to the sockets with this session id, or to all when empty. Returns how many.
    pub(in crate::sim::twitch) fn spoil(&mut self, session_id: &str, act: &SocketAct) -> usize {
        let meant = self.meant(session_id);
        for socket in &meant {
            match act {
                SocketAct::Close(code) => self.order(*socket, Order::Close(*code)),
                SocketAct::Reset => self.order(*socket, Order::Reset),
                SocketAct::Freeze => self.order(*socket, Order::Freeze),
                SocketAct::Mute => self.order(*socket, Order::Mute(true)),
                SocketAct::Unmute => self.order(*socket, Order::Mute(false)),
                SocketAct::Frame(text) => self.order(*socket, Order::Send(text.clone())),
                SocketAct::UnknownMessage => {
                    let novelty = self.message("session_novelty", &json!({"mood": "curious"}));
                    self.order(*socket, Order::Send(novelty));
                }
            }
        }
        meant.len()
    }

    /// Asks the sockets with this session id (all when empty) to reconnect. Returns how many.
    pub(in crate::sim::twitch) fn reconnect(
        &mut self,
        session_id: &str,
        base: &str,
        how: &Reconnect,
    ) -> usize {
        let meant = self.meant(session_id);
        let until = self.now().plus_millis(HANDOVER_MS);
        for socket in &meant {
            let challenge = random(ALPHANUMERIC, 32, &self.chance);
            let Some(known) = self.sockets.get(socket) else {
                continue;
            };
            let url = if how.dead_url {
                // Port 1 of loopback: refused at once.
                format!(
                    "ws://127.0.0.1:1/ws?challenge={challenge}&id={}",
                    known.session_id
                )
            } else {
                format!("{base}?challenge={challenge}&id={}", known.session_id)
            };
            let body = json!({"session": {
                "id": known.session_id, "status": "reconnecting", "connected_at": self.precise(known.connected_at),
                "keepalive_timeout_seconds": null, "reconnect_url": url, "recovery_url": null,
            }});
            let text = self.message("session_reconnect", &body);
            let handover = Handover {
                from: *socket,
                same_id: how.same_id,
                both: how.both,
                until,
            };
            self.handovers.insert(challenge, handover);
            self.order(*socket, Order::Send(text));
            self.order(*socket, Order::LeaveBy(until));
        }
        meant.len()
    }
}

/// Returns the status that subscriptions get when their socket is closed with `code`.
pub(super) fn status_of(code: u16) -> &'static str {
    match code {
        4000 => "websocket_internal_error",
        4001 => "websocket_received_inbound_traffic",
        4002 => "websocket_failed_ping_pong",
        4003 => "websocket_connection_unused",
        4004 | 4007 => "websocket_failed_to_reconnect",
        4005 => "websocket_network_timeout",
        4006 => "websocket_network_error",
        _ => "websocket_disconnected",
    }
}

/// Returns Twitch's reason text for a close code.
pub(super) fn reason_of(code: u16) -> &'static str {
    match code {
        4000 => "internal server error",
        4001 => "client sent inbound traffic",
        4002 => "client failed ping-pong",
        4003 => "connection unused",
        4004 => "client reconnect grace time expired",
        4005 => "network timeout",
        4006 => "network error",
        4007 => "invalid reconnect attempt",
        _ => "",
    }
}
