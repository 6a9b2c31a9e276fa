//! The format of a recording: one JSON object per line, the first of which describes the recording.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::platform::PlatformName;
use crate::core::time::Timestamp;

/// The name of the format, in the first line.
pub const FORMAT: &str = "bitbrat-traffic";
/// The version of the format. A version with other meanings gets another number.
pub const VERSION: u32 = 1;

/// The first line of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the program that recorded.
    pub version: u32,
    /// Version of the program that recorded.
    pub program: String,
    /// When the recording began, by the clock of the machine.
    pub started_at: Timestamp,
    /// The platforms that were monitored.
    pub platforms: Vec<PlatformHeader>,
}

/// What was monitored on one platform, and with which accounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformHeader {
    /// The platform.
    pub platform: PlatformName,
    /// The monitored sources, as `platform:id`.
    pub sources: Vec<String>,
    /// The accounts with a token, as the token store names them.
    pub accounts: Vec<String>,
    /// Whether the application had a secret, and with it a token of its own.
    pub application: bool,
}

/// A line after the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the start of the recording.
    pub at: u64,
    /// The platform; absent where a line is about the recording itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformName>,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// An HTTP request with its answer.
    Request(Exchange),
    /// A websocket was opened, or could not be.
    Open(Open),
    /// A frame of a websocket.
    Frame(Frame),
    /// The end of a websocket.
    Close(Close),
    /// A webhook that was received.
    Webhook(Webhook),
    /// So many events before this line are missing, because they came faster than they could be written.
    Lost(u64),
    /// The recording ended, for this reason.
    End(String),
}

/// An HTTP request with its answer. `at` is the time at which it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// The path, without the address of the host.
    pub path: String,
    /// The parameters, sorted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// A name for the token that was sent: the same token has the same name in the whole recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The body that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Body>,
    /// Milliseconds until the answer was complete, or the request had failed.
    pub took: u64,
    /// The answer.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// With an answer.
    Answer(Answer),
    /// Without one; the error's code, such as `network.timeout`.
    Failed(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers about content and rate limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body; absent when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
}

/// A body, or the content of a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Body {
    /// An object or a list.
    Json(Value),
    /// Any other text.
    Text(String),
    /// Not kept, because what is secret in it cannot be found: JSON that ends early, or binary data, of so many bytes.
    Unreadable(u64),
}

/// A websocket was opened, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// The number of the socket within the recording.
    pub socket: u64,
    /// The path, without the address of the host.
    pub path: String,
    /// Why it could not be opened, as an error's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// A side of a websocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The program that recorded.
    Client,
    /// The platform.
    Platform,
}

/// A frame of a websocket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// The number of the socket.
    pub socket: u64,
    /// Who sent it.
    pub from: Side,
    /// Its content.
    #[serde(flatten)]
    pub body: Body,
}

/// The end of a websocket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Close {
    /// The number of the socket.
    pub socket: u64,
    /// Who closed it; absent when the connection was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Side>,
    /// The close code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
}

/// A webhook that was received. Its signature is not kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The event's type.
    pub kind: String,
    /// The id of the delivery.
    pub id: String,
    /// The status with which it was answered.
    pub status: u16,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
}
