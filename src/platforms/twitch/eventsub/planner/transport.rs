//! The transports of EventSub, and the choice between them.

use std::str::FromStr;

use serde::Serialize;

/// How messages are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PushTransport {
    /// Subscriptions of sockets, with the tokens of users.
    #[default]
    Websocket,
    /// Subscriptions of a conduit, with the application's token.
    Conduit,
}

/// Which transport is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportChoice {
    /// Websockets as long as their limits suffice.
    Auto,
    #[default]
    Websocket,
    Conduit,
}

impl FromStr for TransportChoice {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "websocket" => Ok(Self::Websocket),
            "conduit" => Ok(Self::Conduit),
            _ => Err(()),
        }
    }
}
