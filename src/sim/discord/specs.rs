//! Parameters of the controls: guilds, channels, messages, and acts on connections.

use serde::Deserialize;
use serde_json::Value;

/// A guild to add or change; absent fields stay as they are or get a plausible value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuildSpec {
    pub id: u64,
    pub name: Option<String>,
    pub owner: Option<u64>,
    /// Permissions of everyone.
    pub everyone: Option<u64>,
    /// Permissions of the bot's own role.
    pub bot_role: Option<u64>,
    /// How many members it has.
    pub members: Option<u64>,
    /// How many of them are not offline.
    pub presences: Option<u64>,
}

/// A channel to add or change.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelSpec {
    pub guild: u64,
    pub id: u64,
    /// Its type: 0 text, 2 voice, 4 category, 5 announcement, 10 to 12 threads, 13 stage, 15 forum.
    pub kind: u64,
    pub name: Option<String>,
    /// The category, or the channel of a thread.
    pub parent: Option<u64>,
}

/// A message to send.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessageSpec {
    pub channel: u64,
    /// Its id; a new one when absent.
    pub id: Option<u64>,
    pub author: Author,
    /// Its type: 0 usual, 19 reply, 7 member joined, ….
    pub kind: u64,
    /// Its text.
    pub content: String,
    /// Number of such messages, each with an id of its own.
    pub count: u32,
    /// How often each is sent.
    pub copies: u32,
}

impl Default for MessageSpec {
    fn default() -> Self {
        Self {
            channel: 0,
            id: None,
            author: Author::Person,
            kind: 0,
            content: "hello".to_owned(),
            count: 1,
            copies: 1,
        }
    }
}

/// Author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// A user who is not a bot.
    Person,
    /// The bot of the client under test.
    Itself,
    /// Another bot.
    OtherBot,
    Webhook,
}

/// An act on open connections.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayAct {
    /// Close with this code.
    Close(u16),
    /// Cut with a TCP RST.
    Reset,
    /// Stop traffic in both directions.
    Freeze,
    /// Op 7: ask to reconnect.
    Reconnect,
    /// Op 9: the session is invalid; whether it may be resumed.
    Invalid(bool),
    /// Op 1: ask for a heartbeat.
    Heartbeat,
    /// Send this frame unchanged.
    Frame(Value),
    /// Send an event with this name, with a sequence number like any other.
    Event(String, Value),
}
