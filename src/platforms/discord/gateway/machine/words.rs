//! The words of the gateway's state machine: where a connection may stand, what may happen to it, what is to be done then. What
//! follows from what is for [`super::Machine`] to say.

use serde::{Deserialize, Serialize};

/// How long to wait between attempts (ms): the first time, and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// When no Identify was spent. A Resume costs nothing.
    pub free: (u64, u64),
    /// After an Identify that has led to nothing lasting. They are rationed.
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

/// Where a connection stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Not begun, or ended.
    Idle,
    /// It is being found out whether a session may be begun, and where.
    Asking,
    /// Nothing happens until then.
    Waiting {
        /// When it goes on.
        until: u64,
    },
    /// A socket is being opened.
    Connecting,
    /// The socket is open; Hello must come by then.
    Greeting {
        /// When patience ends.
        by: u64,
    },
    /// Identify or Resume was sent; READY or RESUMED must come by then.
    Entering {
        /// When patience ends.
        by: u64,
    },
    /// Welcome.
    Live {
        /// Since when.
        since: u64,
    },
    /// Only a person, or another token, can help.
    Stuck,
}

/// A session that can be taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Where it is taken up; not the general address.
    pub url: String,
    /// The last event seen.
    pub seq: u64,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Begin, or begin again after the token has come back to life.
    Start,
    /// A session may be begun at this address.
    Permitted(String),
    /// No session may be begun now.
    Denied {
        /// Ask again after so many milliseconds.
        retry_in: u64,
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// It could not be found out whether a session may be begun.
    AskFailed {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// The token is known to be dead.
    TokenDead,
    /// The token was refused by the gateway but works elsewhere.
    TokenWorks,
    /// The socket is open.
    Opened,
    /// The socket could not be opened.
    OpenFailed(String),
    /// A frame came.
    Received(Kind),
    /// The socket is closed.
    Closed(Option<u16>),
    /// Time has passed; see [`super::Machine::deadline`].
    Tick {
        /// Whether everything was read that had come until then.
        heard: bool,
    },
    /// End it.
    Stop,
}

/// What a frame means for the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Op 10 with the heartbeat's interval in milliseconds.
    Hello(u64),
    /// Op 11.
    Ack,
    /// Op 1: a heartbeat is wanted now.
    BeatNow,
    /// Op 7.
    Reconnect,
    /// Op 9, and whether the session can be taken up.
    Invalid(bool),
    /// READY: a session has begun.
    Ready {
        /// Its id.
        session_id: String,
        /// Where to take it up; where it was begun when empty.
        url: String,
        /// The event's number.
        seq: u64,
    },
    /// RESUMED: the session goes on.
    Resumed {
        /// The event's number.
        seq: u64,
    },
    /// Any other event.
    Event {
        /// The event's number.
        seq: u64,
    },
    /// Anything else.
    Other,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Find out whether a session may be begun, and where.
    Ask,
    /// Find out with one request whether the token is really dead.
    ConfirmToken,
    /// Open a socket there.
    Connect(String),
    /// Begin a session, if the record of Identifies allows it.
    Identify {
        /// What to hear of.
        intents: u64,
    },
    /// Take the session up.
    Resume(Session),
    /// Send a heartbeat with the number of the last event.
    Heartbeat(Option<u64>),
    /// Close the socket with this code and forget it.
    Hangup(u16),
    /// Tell the sources.
    Tell(News),
}

/// News for the sources.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The session goes on where it was.
    Resumed,
    /// A heartbeat came back after so many milliseconds, if we were awake to measure it.
    Beat(Option<u64>),
    /// The connection is lost and will come back.
    Down {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// Discord refuses; a person must act.
    Refused {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// The token is dead.
    TokenDead,
    /// A socket was opened that is not the first.
    Reconnected,
    /// We ended it.
    Ended,
}
