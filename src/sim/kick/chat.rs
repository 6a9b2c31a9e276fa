//! Chat messages, which the platform sends in webhooks only.

use serde::Deserialize;
use serde_json::{Value, json};

use super::texts;
use super::webhooks::person;
use super::world::{Channel, World};
use crate::core::time::Timestamp;

/// Chat messages to send.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KickChatSpec {
    /// Id of the sender.
    pub user_id: u64,
    pub text: String,
    /// Number of messages.
    pub count: u32,
    /// The types of the badges that the sender has here, such as `moderator`.
    pub badges: Vec<String>,
}

impl Default for KickChatSpec {
    fn default() -> Self {
        Self {
            user_id: 990_001,
            text: "hello".to_owned(),
            count: 1,
            badges: Vec::new(),
        }
    }
}

impl World {
    /// Returns the bodies of `chat.message.sent` for messages in a channel, or `None` for an unknown one.
    pub(super) fn lines(&self, id: u64, spec: &KickChatSpec, now: Timestamp) -> Option<Vec<Value>> {
        let channel = self.channels.get(&id)?;
        let sender = match self.channels.get(&spec.user_id) {
            Some(known) => person(known),
            None => person(&stranger(spec.user_id)),
        };
        let badges: Vec<_> = spec.badges.iter().map(|kind| badge(kind)).collect();
        let line = |_| {
            let mut sender = sender.clone();
            sender["identity"] = json!({"username_color": "#FF5733", "badges": badges});
            json!({
                "message_id": texts::uuid(&self.chance), "replies_to": null, "broadcaster": person(channel),
                "sender": sender, "content": spec.text, "emotes": null, "created_at": texts::rfc3339(now),
            })
        };
        Some((0..spec.count).map(line).collect())
    }
}

fn badge(kind: &str) -> Value {
    let mut text: String = kind.replace('_', " ");
    if let Some(first) = text.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    let mut badge = json!({"text": text, "type": kind});
    if matches!(kind, "subscriber" | "sub_gifter") {
        badge["count"] = json!(3);
    }
    badge
}

fn stranger(id: u64) -> Channel {
    Channel {
        id,
        slug: format!("viewer-{id}"),
        name: format!("Viewer{id}"),
        title: String::new(),
        category: String::new(),
        vanished: false,
        streams: Vec::new(),
    }
}
