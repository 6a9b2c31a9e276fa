//! What the controls are told: guilds, channels, messages, and what is to happen to connections.

use serde::Deserialize;
use serde_json::Value;

/// A guild to be added or changed; what is absent stays or gets a plausible value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuildSpec {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: Option<String>,
    /// Who owns it.
    pub owner: Option<u64>,
    /// What everyone may do.
    pub everyone: Option<u64>,
    /// What the bot's own role allows.
    pub bot_role: Option<u64>,
    /// How many members it has.
    pub members: Option<u64>,
    /// How many of them are not offline.
    pub presences: Option<u64>,
}

/// A channel to be added or changed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelSpec {
    /// The guild.
    pub guild: u64,
    /// Its id.
    pub id: u64,
    /// What it is: 0 text, 2 voice, 4 category, 5 announcement, 10 to 12 threads, 13 stage, 15 forum.
    pub kind: u64,
    /// Its name.
    pub name: Option<String>,
    /// The category, or the channel of a thread.
    pub parent: Option<u64>,
}

/// A message to be sent by somebody.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessageSpec {
    /// Where.
    pub channel: u64,
    /// Its id; a fresh one when absent.
    pub id: Option<u64>,
    /// By whom.
    pub author: Author,
    /// What it is: 0 usual, 19 reply, 7 somebody joined, ….
    pub kind: u64,
    /// What it says.
    pub content: String,
    /// How many such messages, each with an id of its own.
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

/// Who writes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// Some person.
    Person,
    /// The bot that listens.
    Itself,
    /// Another bot.
    OtherBot,
    /// A webhook.
    Webhook,
}

/// What happens to open connections.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayAct {
    /// Close with this code.
    Close(u16),
    /// Cut with a TCP RST.
    Reset,
    /// Fall silent in both directions.
    Freeze,
    /// Op 7: ask to reconnect.
    Reconnect,
    /// Op 9: the session is invalid; whether it may be resumed.
    Invalid(bool),
    /// Op 1: ask for a heartbeat.
    Heartbeat,
    /// This frame, as it is.
    Frame(Value),
    /// An event with this name, counted as any other.
    Event(String, Value),
}
