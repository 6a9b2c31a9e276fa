//! One websocket: opening it, and the stream of its frames until it ends.
//!
//! Nothing is ever sent except pongs, which the library sends by itself while the stream is read, and a close frame.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::machine::{Failure, SocketId};
use crate::core::code::Code;
use crate::core::source::PlatformName;
use crate::traffic::Tap;
use crate::websocket::{self, Socket};

/// The maximum size of a message, in bytes.
const LARGEST: usize = 1024 * 1024;
/// How long a graceful close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A frame received over a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Text(String),
    /// A binary message of this many bytes. Twitch sends none.
    Binary(usize),
    /// The socket ended. Nothing follows.
    Ended(End),
}

/// How a socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// With this close code, or without one.
    Closed(Option<u16>),
    /// Because of a message received over it.
    Refused(Failure),
}

/// Opens a socket, whose frames `tap` records. The second value of an error means that another attempt will fail too.
pub(super) async fn open(
    url: &str,
    patience: Duration,
    tap: Option<&Tap>,
) -> Result<Socket, (Failure, bool)> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST))
        .max_frame_size(Some(LARGEST));
    match tokio::time::timeout(patience, websocket::open(url, Some(config), tap)).await {
        Ok(opened) => opened.map_err(|error| (Failure::transient(error.code, error.reason), error.permanent)),
        Err(_) => {
            let reason = "the websocket did not open in time";
            Err((Failure::transient(Code::NetworkTimeout, reason), false))
        }
    }
}

/// Turns a socket into the stream of its frames. It is closed gracefully when `close` is dropped or sent to; frames that arrive
/// until then are included.
pub(super) fn frames(
    id: SocketId,
    socket: Socket,
    close: oneshot::Receiver<()>,
) -> BoxStream<'static, (SocketId, Frame)> {
    stream::unfold(Life::Open(socket, close), move |life| live(id, life)).boxed()
}

enum Life {
    Open(Socket, oneshot::Receiver<()>),
    Closing(Socket, Instant),
    Over,
}

/// Waits for the next frame of a socket and returns it with the socket's next state.
async fn live(id: SocketId, mut life: Life) -> Option<((SocketId, Frame), Life)> {
    loop {
        life = match life {
            Life::Open(mut socket, mut close) => tokio::select! {
                _ = &mut close => {
                    let close_frame = CloseFrame {
                        code: CloseCode::Normal,
                        reason: "".into(),
                    };
                    let deadline = Instant::now() + CLOSE_TIMEOUT;
                    // The result does not matter: the peer detects the end in any case.
                    let _ = tokio::time::timeout_at(deadline, socket.close(Some(close_frame))).await;
                    Life::Closing(socket, deadline)
                }
                message = socket.next() => match read(message) {
                    Some(ended @ Frame::Ended(_)) => return Some(((id, ended), Life::Over)),
                    Some(message) => return Some(((id, message), Life::Open(socket, close))),
                    None => Life::Open(socket, close),
                },
            },
            Life::Closing(mut socket, deadline) => {
                match tokio::time::timeout_at(deadline, socket.next()).await.map(read) {
                    Ok(Some(Frame::Ended(_))) | Err(_) => {
                        return Some(((id, Frame::Ended(End::Closed(Some(1000)))), Life::Over));
                    }
                    Ok(Some(message)) => {
                        return Some(((id, message), Life::Closing(socket, deadline)));
                    }
                    Ok(None) => Life::Closing(socket, deadline),
                }
            }
            Life::Over => return None,
        };
    }
}

/// Converts a message to a frame; `None` for messages that only concern the library.
fn read(message: Option<Result<Message, Error>>) -> Option<Frame> {
    match message {
        Some(Ok(Message::Text(text))) => Some(Frame::Text(text.to_string())),
        Some(Ok(Message::Binary(bytes))) => Some(Frame::Binary(bytes.len())),
        Some(Ok(Message::Close(frame))) => {
            let code = frame.map(|frame| frame.code.into());
            Some(Frame::Ended(End::Closed(code)))
        }
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(Frame::Ended(
            match websocket::local_error(PlatformName::Twitch, &error) {
                Some((code, reason)) => End::Refused(Failure::transient(code, reason)),
                None => End::Closed(None),
            },
        )),
        None => Some(Frame::Ended(End::Closed(None))),
    }
}
