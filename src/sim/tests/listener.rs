//! An EventSub client reduced to what the tests of the simulator need.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::twitch::{RAT, Rig};

/// A message of a socket, or how it ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Received {
    Message(Value),
    Closed(u16),
    Lost,
}

/// One websocket of a client.
pub(super) struct Listener {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(super) session: String,
    pub(super) welcome: Value,
}

impl Listener {
    /// Connects and waits for the welcome.
    pub(super) async fn connect(rig: &Rig) -> Self {
        Self::connect_to(&rig.twitch().urls().eventsub_ws).await
    }

    pub(super) async fn connect_to(url: &str) -> Self {
        let mut listener = Self::dial(url).await;
        listener.welcome = listener.message().await;
        listener.session = listener.welcome["payload"]["session"]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        listener
    }

    /// Connects without waiting for a message.
    pub(super) async fn dial(url: &str) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        Self {
            socket,
            session: String::new(),
            welcome: Value::Null,
        }
    }

    /// Waits for the next message or the end, ignoring pings.
    pub(super) async fn receive(&mut self) -> Received {
        let received = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Received::Message(serde_json::from_str(&text).unwrap_or(Value::Null));
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return Received::Closed(frame.map_or(1005, |frame| frame.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Received::Lost,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), received)
            .await
            .expect("something is received within ten seconds")
    }

    /// Waits for the next message.
    pub(super) async fn message(&mut self) -> Value {
        match self.receive().await {
            Received::Message(message) => message,
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    /// Waits for the next message of this type, skipping keepalives.
    pub(super) async fn message_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.message().await;
            if message["metadata"]["message_type"] == kind {
                return message;
            }
            assert_eq!(
                message["metadata"]["message_type"], "session_keepalive",
                "while waiting for {kind}"
            );
        }
    }

    /// Waits for the end, skipping messages.
    pub(super) async fn end(&mut self) -> Received {
        loop {
            match self.receive().await {
                Received::Message(_) => {}
                end => return end,
            }
        }
    }

    /// Returns whether nothing except pings is received for `time`.
    pub(super) async fn silent_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.receive()).await.is_err()
    }

    pub(super) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(super) async fn close(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Requests a subscription about [`RAT`] over this socket.
    pub(super) async fn subscribe(&self, rig: &Rig, token: &str, kind: &str) -> (u16, Value) {
        self.subscribe_to(rig, token, kind, &json!({"broadcaster_user_id": RAT}))
            .await
    }

    pub(super) async fn subscribe_to(
        &self,
        rig: &Rig,
        token: &str,
        kind: &str,
        condition: &Value,
    ) -> (u16, Value) {
        rig.post(
            token,
            "/eventsub/subscriptions",
            &wish(kind, condition, &self.session),
        )
        .await
    }
}

/// Returns the body of a request for a subscription.
pub(super) fn wish(kind: &str, condition: &Value, session: &str) -> Value {
    let version = if matches!(kind, "channel.update" | "channel.moderate") {
        "2"
    } else {
        "1"
    };
    json!({"type": kind, "version": version, "condition": condition,
        "transport": {"method": "websocket", "session_id": session}})
}
