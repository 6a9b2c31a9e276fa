//! The types of the gateway's state machine: phases of a connection, inputs, and orders. The transitions are in
//! [`super::Machine`].

use crate::core::code::Code;
use serde::{Deserialize, Serialize};

/// Backoff between attempts (ms): the first wait, and the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// When no Identify was spent. A Resume is not limited.
    pub free: (u64, u64),
    /// After an Identify whose session did not last. Identifies are limited.
    pub identify: (u64, u64),
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            free: (1_000, 60_000),
            identify: (5_000, 900_000),
        }
    }
}

/// Phase of a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Not started, or ended.
    Idle,
    /// Checking whether a session may be begun, and at which address.
    Asking,
    /// Waiting before the next step.
    Waiting {
        /// When the wait ends.
        until: u64,
    },
    Connecting,
    /// The socket is open; Hello must be received by then.
    Greeting {
        by: u64,
    },
    /// Identify or Resume was sent; READY or RESUMED must be received by then.
    Entering {
        by: u64,
    },
    /// READY or RESUMED was received.
    Live {
        since: u64,
    },
    /// Needs attention, or another token.
    Refused,
}

/// A session that can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Session {
    pub id: String,
    /// Address at which it is resumed; not the general address.
    pub url: String,
    /// Sequence number of the last event received.
    pub seq: u64,
}

/// Input of the state machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Start, or start again after the token has become valid again.
    Start,
    /// A session may be begun at this address.
    Permitted(String),
    /// No session may be begun now.
    Denied {
        /// Milliseconds until the next attempt.
        retry_in: u64,
        code: Code,
        /// Message for users.
        message: String,
    },
    /// The check whether a session may be begun has failed.
    AskFailed {
        code: Code,
        /// Message for users.
        message: String,
    },
    /// The token is known to be invalid.
    TokenRejected,
    /// The token was refused by the gateway but works over REST.
    TokenWorks,
    Opened,
    OpenFailed {
        code: Code,
        /// Message for users.
        message: String,
    },
    /// A frame was received.
    Received(Kind),
    /// The socket is closed, with this close code.
    Closed(Option<u16>),
    /// Time has passed; see [`super::Machine::deadline`].
    Tick {
        /// Whether every frame received until then was read.
        caught_up: bool,
    },
    /// End the connection.
    Stop,
}

/// Meaning of a frame for the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Op 10 with the heartbeat's interval in milliseconds.
    Hello(u64),
    /// Op 11.
    Ack,
    /// Op 1: a heartbeat is requested now.
    HeartbeatRequested,
    /// Op 7.
    Reconnect,
    /// Op 9, and whether the session can be resumed.
    Invalid(bool),
    /// READY: a session has begun.
    Ready {
        session_id: String,
        /// Address at which to resume it; the address of its start when empty.
        url: String,
        /// Sequence number of the event.
        seq: u64,
    },
    /// RESUMED: the session continues.
    Resumed {
        /// Sequence number of the event.
        seq: u64,
    },
    /// Any other event.
    Event {
        /// Sequence number of the event.
        seq: u64,
    },
    /// Any other frame.
    Other,
}

/// Output of the state machine: an action to execute.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Check whether a session may be begun, and at which address.
    Ask,
    /// Check with one request whether the token is really invalid.
    ConfirmToken,
    /// Open a socket to this address.
    Connect(String),
    /// Begin a session, if the record of Identifies allows it.
    Identify {
        /// Gateway intents, which select the events to receive.
        intents: u64,
    },
    Resume(Session),
    /// Send a heartbeat with the sequence number of the last event.
    Heartbeat(Option<u64>),
    /// Close the socket with this code and drop it.
    Hangup(u16),
    /// Report to the sources.
    Report(GatewayReport),
}

/// Report about the connection for the sources.
#[derive(Debug, Clone, PartialEq)]
pub enum GatewayReport {
    /// The session continues where it was.
    Resumed,
    /// A heartbeat was acknowledged after so many milliseconds, if the task ran in time to measure it.
    HeartbeatAcknowledged(Option<u64>),
    /// The connection is lost and will be retried.
    Down {
        code: Code,
        /// Message for users.
        message: String,
    },
    /// Discord refuses the connection; this needs attention.
    Refused {
        code: Code,
        /// Message for users.
        message: String,
    },
    /// The token is invalid.
    TokenRejected,
    /// A socket was opened that is not the first.
    Reconnected,
    /// The connection was closed by us.
    Closed,
}
