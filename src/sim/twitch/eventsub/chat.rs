//! The chat feed: messages of fictional chatters, of the bot itself, and copies in channels with shared chat.

use serde::Deserialize;
use serde_json::{Value, json};

use super::bodies::joined;
use super::state::ChatMessage;
use crate::sim::twitch::world::World;

/// Chat messages to send in a channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSpec {
    /// Number of messages.
    pub count: u32,
    /// Id of the sender; a fictional chatter when absent. The badges follow from the roles in the channel.
    pub user_id: Option<String>,
    /// Text of the messages. `@login` of a user, names of some global emotes, and `Cheer100` where bits are given become
    /// fragments.
    pub text: String,
    /// The channels that share this channel's chat and each receive a copy of every message.
    pub shared_with: Vec<String>,
    /// Simulated milliseconds between messages; all at once when zero.
    pub every_ms: i64,
    /// Bits that are cheered with the message.
    pub bits: Option<u64>,
    /// The id of the message that is replied to.
    pub reply_to: Option<String>,
    /// Type of the message, such as `user_intro`.
    pub message_type: String,
    /// The custom reward that was redeemed for the message.
    pub reward_id: Option<String>,
    /// The color of the name; empty when the user has chosen none.
    pub color: String,
}

impl Default for ChatSpec {
    fn default() -> Self {
        Self {
            count: 1,
            user_id: None,
            text: "hello from the simulator".to_owned(),
            shared_with: Vec::new(),
            every_ms: 0,
            bits: None,
            reply_to: None,
            message_type: "text".to_owned(),
            reward_id: None,
            color: "#00FF7F".to_owned(),
        }
    }
}

/// Messages stored for replies.
const REMEMBERED: usize = 500;
/// Global emotes, with their ids.
const EMOTES: [(&str, &str); 4] = [
    ("Kappa", "25"),
    ("HeyGuys", "30259"),
    ("LUL", "425618"),
    ("PogChamp", "305954156"),
];

impl World {
    /// Sends one message in `channel` and returns its id.
    pub(in crate::sim::twitch) fn say(&mut self, channel: &str, spec: &ChatSpec) -> String {
        let origin = self.line(channel, spec, None);
        for other in &spec.shared_with {
            self.line(other, spec, Some((channel, &origin)));
        }
        origin
    }

    /// Delivers a message in `channel`, which is a copy when it has a `source` (channel and message id).
    fn line(&mut self, channel: &str, spec: &ChatSpec, source: Option<(&str, &str)>) -> String {
        let id = self.eventsub.unique_id();
        let badges = |channel| {
            spec.user_id
                .as_ref()
                .map_or_else(|| json!([]), |user| self.badges(channel, user))
        };
        let chatter = spec.user_id.as_ref().map_or_else(
            || json!({"chatter_user_id": "778899", "chatter_user_login": "squeak", "chatter_user_name": "Squeak"}),
            |user| self.named("chatter_user", user),
        );
        let source_names = source.map_or_else(
            || {
                json!({"source_broadcaster_user_id": null, "source_broadcaster_user_login": null,
                    "source_broadcaster_user_name": null})
            },
            |(source, _)| self.named("source_broadcaster_user", source),
        );
        let line = json!({
            "message_id": id,
            "message": {"text": spec.text, "fragments": self.fragments(spec)},
            "color": spec.color, "badges": badges(channel), "message_type": spec.message_type,
            "cheer": spec.bits.map(|bits| json!({"bits": bits})),
            "reply": spec.reply_to.as_deref().map(|parent| self.reply(channel, parent)),
            "channel_points_custom_reward_id": spec.reward_id, "channel_points_animation_id": null,
            "source_message_id": source.map(|(_, message)| message),
            "source_badges": source.map(|(source, _)| badges(source)),
            "is_source_only": source.map(|_| false),
        });
        let names = joined(
            joined(self.named("broadcaster_user", channel), &source_names),
            &chatter,
        );
        let event = joined(names, &line);
        let lines = &mut self.eventsub.lines;
        lines.push_back(ChatMessage {
            id: id.clone(),
            chatter,
            text: spec.text.clone(),
        });
        if lines.len() > REMEMBERED {
            lines.pop_front();
        }
        self.eventsub
            .notify("channel.chat.message", "broadcaster_user_id", channel, &event);
        id
    }

    /// Splits a text into fragments: mentions, emotes, cheers, and the text between them.
    fn fragments(&self, spec: &ChatSpec) -> Vec<Value> {
        let mut plain = String::new();
        let mut fragments = Vec::new();
        for word in spec.text.split_inclusive(' ') {
            let bare = word.trim_end_matches(' ');
            match self.special(bare, spec.bits.is_some()) {
                Some(special) => {
                    if !plain.is_empty() {
                        fragments.push(fragment("text", &std::mem::take(&mut plain), "", Value::Null));
                    }
                    fragments.push(special);
                    plain.push_str(&word[bare.len()..]);
                }
                None => plain.push_str(word),
            }
        }
        if !plain.is_empty() || fragments.is_empty() {
            fragments.push(fragment("text", &plain, "", Value::Null));
        }
        fragments
    }

    /// Returns the fragment of a token that is more than text.
    fn special(&self, word: &str, cheering: bool) -> Option<Value> {
        if let Some(user) = word.strip_prefix('@').and_then(|login| self.user_by_login(login)) {
            let about = json!({"user_id": user.id, "user_login": user.login, "user_name": user.name});
            return Some(fragment("mention", word, "mention", about));
        }
        if let Some((_, id)) = EMOTES.iter().find(|(name, _)| *name == word) {
            let about = json!({"id": id, "emote_set_id": "0", "owner_id": "0", "format": ["static"]});
            return Some(fragment("emote", word, "emote", about));
        }
        let digits = word.find(|c: char| c.is_ascii_digit()).filter(|_| cheering)?;
        let (prefix, bits) = word.split_at(digits);
        let bits: u64 = bits.parse().ok()?;
        let tier = [10_000, 5_000, 1_000, 100, 1]
            .into_iter()
            .find(|tier| bits >= *tier)?;
        let is_cheer = prefix.eq_ignore_ascii_case("cheer");
        let about = json!({"prefix": prefix.to_lowercase(), "bits": bits, "tier": tier});
        is_cheer.then(|| fragment("cheermote", word, "cheermote", about))
    }

    /// Describes the message that is replied to. The author of an unknown one is assumed to be the broadcaster.
    fn reply(&self, channel: &str, parent: &str) -> Value {
        let known = self.eventsub.lines.iter().rev().find(|line| line.id == parent);
        let stranger = || self.named("chatter_user", channel);
        let author = known.map_or_else(stranger, |line| line.chatter.clone());
        let body = known.map_or("", |line| line.text.as_str());
        let mut reply = json!({
            "parent_message_id": parent, "parent_message_body": body, "thread_message_id": parent,
        });
        for part in ["id", "login", "name"] {
            for whose in ["parent", "thread"] {
                reply[format!("{whose}_user_{part}")] = author[format!("chatter_user_{part}")].clone();
            }
        }
        reply
    }

    fn badges(&self, channel: &str, user: &str) -> Value {
        let moderator = self.roles.moderators.get(channel, user);
        let held = [
            (channel == user, "broadcaster", "1", ""),
            (
                moderator.is_some_and(|member| member.tier == "lead"),
                "lead_moderator",
                "1",
                "",
            ),
            (
                moderator.is_some_and(|member| member.tier != "lead"),
                "moderator",
                "1",
                "",
            ),
            (self.roles.vips.has(channel, user), "vip", "1", ""),
            (self.roles.subscribers.has(channel, user), "subscriber", "3", "4"),
        ];
        let badges = held.into_iter().filter(|(held, ..)| *held);
        badges
            .map(|(_, set, id, info)| json!({"set_id": set, "id": id, "info": info}))
            .collect()
    }
}

/// One part of a message; the objects that do not describe it are null.
fn fragment(kind: &str, text: &str, field: &str, about: Value) -> Value {
    let mut shown = json!({"type": kind, "text": text, "cheermote": null, "emote": null, "mention": null});
    if !field.is_empty() {
        shown[field] = about;
    }
    shown
}
