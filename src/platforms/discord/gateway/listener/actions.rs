//! Executes the machine's orders: starts jobs, writes frames, closes the socket.

use crate::core::code::Code;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::frames;
use super::super::jobs::{self, Ration, SPENT};
use super::super::machine::{GatewayReport, Input, Order};
use super::GatewayListener;

/// Timeout for the close handshake and for sending a frame.
const GOODBYE: Duration = Duration::from_secs(1);

impl GatewayListener {
    pub(super) async fn obey(&mut self, order: Order) -> Option<Input> {
        match order {
            Order::Ask => self
                .jobs
                .push(jobs::ask(Arc::clone(&self.connection), self.ration()).boxed()),
            Order::ConfirmToken => self
                .jobs
                .push(jobs::confirm(Arc::clone(&self.connection)).boxed()),
            Order::Connect(url) => self.jobs.push(jobs::open(url).boxed()),
            Order::Identify { intents } => return self.identify(intents).await,
            Order::Resume(session) => {
                let text = frames::resume(self.connection.rest.token(), &session);
                self.send(text).await;
            }
            Order::Heartbeat(seq) => self.send(frames::heartbeat(seq)).await,
            Order::Hangup(code) => self.close_socket(code).await,
            Order::Report(report) => {
                // A probe over REST may have found that the token is invalid while this socket is still open.
                let send_heartbeat = matches!(report, GatewayReport::HeartbeatAcknowledged(_));
                self.announce(report);
                return (send_heartbeat && self.connection.rest.is_dead()).then_some(Input::TokenDead);
            }
        }
        None
    }

    /// Sends an Identify if it can be recorded first.
    async fn identify(&mut self, intents: u64) -> Option<Input> {
        let bot = self
            .connection
            .me
            .get()
            .map(|me| me.id.to_string())
            .unwrap_or_default();
        let memory = self.connection.rest.memory();
        match memory.claim_identify(&bot, self.options.identify_cap, self.now()) {
            Ok(()) => {
                self.options.board.write(|status| status.identifies += 1);
                let text = frames::identify(self.connection.rest.token(), intents);
                self.send(text).await;
                None
            }
            Err(refusal) => Some(Input::Denied {
                retry_in: SPENT,
                code: Code::DiscordIdentifyLimit,
                message: refusal.to_string(),
            }),
        }
    }

    fn ration(&self) -> Ration {
        Ration {
            cap: self.options.identify_cap,
            reserve: self.options.identify_reserve,
            spacing: self.options.identify_spacing,
        }
    }

    async fn send(&mut self, text: String) {
        if let Some(socket) = &mut self.socket {
            // A socket that accepts no more data is detected by its missing heartbeats; it must not block the loop until then.
            let _ = tokio::time::timeout(GOODBYE, socket.send(Message::text(text))).await;
        }
    }

    pub(super) async fn close_socket(&mut self, code: u16) {
        let Some(mut socket) = self.socket.take() else {
            return;
        };
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        let _ = tokio::time::timeout(GOODBYE, socket.close(Some(frame))).await;
    }
}
