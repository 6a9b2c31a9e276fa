//! One websocket: opening it, and the stream of what comes over it until it ends.
//!
//! Nothing is ever sent but pongs, which the library sends by itself while the stream is read, and a close.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::machine::{SocketId, Trouble};

/// The largest message that is read, in bytes.
const LARGEST: usize = 1024 * 1024;
/// How long a polite close may take.
const FAREWELL: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What comes over a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Text(String),
    /// It ended, with this close code if there was one. Nothing follows.
    Ended(Option<u16>),
}

/// Opens a socket. The second value of an error says that another try will not help.
pub(super) async fn open(url: &str, patience: Duration) -> Result<Socket, (Trouble, bool)> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST))
        .max_frame_size(Some(LARGEST));
    let connecting = tokio_tungstenite::connect_async_with_config(url, Some(config), true);
    match tokio::time::timeout(patience, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(trouble(&error)),
        Err(_) => {
            let reason = "the websocket did not open in time";
            Err((Trouble::passing("network.timeout", reason), false))
        }
    }
}

/// Says why a socket could not be opened, without its address, which may hold a session's secret.
fn trouble(error: &Error) -> (Trouble, bool) {
    match error {
        Error::Http(response) => {
            let status = response.status().as_u16();
            let trouble = Trouble::passing(
                &format!("http.{status}"),
                format!("the websocket was refused with status {status}"),
            );
            (trouble, (400..500).contains(&status) && status != 429)
        }
        Error::Tls(_) => (Trouble::passing("network.tls", "no secure connection"), true),
        Error::Url(_) => (
            Trouble::passing("twitch.eventsub.address", "the websocket's address is not one"),
            true,
        ),
        Error::Io(error) => {
            let code = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "network.connect",
                std::io::ErrorKind::TimedOut => "network.timeout",
                _ if error.to_string().contains("lookup") => "network.dns",
                _ => "network.reset",
            };
            (Trouble::passing(code, "no connection"), false)
        }
        _ => (
            Trouble::passing("network.reset", "the websocket did not open"),
            false,
        ),
    }
}

/// Turns a socket into the stream of what comes over it. It is closed politely once `close` is dropped or sent to; what
/// still arrives until then is told too.
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

/// Waits for the next frame of a socket and returns it with what the socket's life is then.
async fn live(id: SocketId, mut life: Life) -> Option<((SocketId, Frame), Life)> {
    loop {
        life = match life {
            Life::Open(mut socket, mut close) => tokio::select! {
                _ = &mut close => {
                    let farewell = CloseFrame {
                        code: CloseCode::Normal,
                        reason: "".into(),
                    };
                    let deadline = Instant::now() + FAREWELL;
                    // Whether or not it could be said: the other side sees the end.
                    let _ = tokio::time::timeout_at(deadline, socket.close(Some(farewell))).await;
                    Life::Closing(socket, deadline)
                }
                message = socket.next() => match read(message) {
                    Some(Frame::Text(text)) => return Some(((id, Frame::Text(text)), Life::Open(socket, close))),
                    Some(ended) => return Some(((id, ended), Life::Over)),
                    None => Life::Open(socket, close),
                },
            },
            Life::Closing(mut socket, deadline) => {
                match tokio::time::timeout_at(deadline, socket.next()).await.map(read) {
                    Ok(Some(Frame::Text(text))) => {
                        return Some(((id, Frame::Text(text)), Life::Closing(socket, deadline)));
                    }
                    Ok(None) => Life::Closing(socket, deadline),
                    Ok(Some(Frame::Ended(_))) | Err(_) => {
                        return Some(((id, Frame::Ended(Some(1000))), Life::Over));
                    }
                }
            }
            Life::Over => return None,
        };
    }
}

/// Reads what came; `None` for what concerns the library alone.
fn read(message: Option<Result<Message, Error>>) -> Option<Frame> {
    match message {
        Some(Ok(Message::Text(text))) => Some(Frame::Text(text.to_string())),
        Some(Ok(Message::Close(frame))) => Some(Frame::Ended(frame.map(|frame| frame.code.into()))),
        Some(Ok(_)) => None,
        Some(Err(_)) | None => Some(Frame::Ended(None)),
    }
}
