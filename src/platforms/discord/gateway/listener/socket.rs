//! The listener's socket to the gateway, while there is one.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tracing::warn;

use crate::core::source::PlatformName;
use crate::websocket::{self, Socket};

/// Timeout for the close handshake and for sending a frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct GatewaySocket(Option<Socket>);

impl GatewaySocket {
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn set(&mut self, socket: Socket) {
        self.0 = Some(socket);
    }

    /// Discards the socket: it has ended.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Reads the next frame; `None` when the socket is closed. Cancel-safe: a frame that is not returned is not lost.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let Some(socket) = &mut self.0 else {
            return std::future::pending().await;
        };
        match socket.next().await? {
            Ok(message) => Some(message),
            Err(error) => {
                if let Some((code, reason)) = websocket::local_error(PlatformName::Discord, &error) {
                    warn!(
                        platform = "discord",
                        %code, reason, "The connection to Discord's gateway was given up"
                    );
                }
                None
            }
        }
    }

    pub(super) async fn send(&mut self, text: String) {
        if let Some(socket) = &mut self.0 {
            // A socket that accepts no more data is detected by its missing heartbeats; it must not block the loop until then.
            let _ = tokio::time::timeout(SEND_TIMEOUT, socket.send(Message::text(text))).await;
        }
    }

    pub(super) async fn close(&mut self, code: u16) {
        let Some(mut socket) = self.0.take() else {
            return;
        };
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        let _ = tokio::time::timeout(SEND_TIMEOUT, socket.close(Some(frame))).await;
    }
}
