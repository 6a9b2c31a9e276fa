//! The chat feed: lines of invented chatters, of the bot itself, and copies in channels that share their chat.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::roles::named;
use super::super::world::World;
use super::events::joined;

/// Lines to be said in a channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSpec {
    /// How many lines.
    pub count: u32,
    /// Who says them; an invented chatter when absent. The badges follow from the roles in the channel.
    pub user_id: Option<String>,
    /// What is said.
    pub text: String,
    /// The channels that share this channel's chat and each get a copy of every line.
    pub shared_with: Vec<String>,
    /// Simulated milliseconds between lines; all at once when zero.
    pub every_ms: i64,
}

impl Default for ChatSpec {
    fn default() -> Self {
        Self {
            count: 1,
            user_id: None,
            text: "hello from the simulator".to_owned(),
            shared_with: Vec::new(),
            every_ms: 0,
        }
    }
}

impl World {
    /// Says one line in `channel` and returns its message id.
    pub(in crate::sim::twitch) fn say(&mut self, channel: &str, spec: &ChatSpec) -> String {
        let origin = self.line(channel, spec, None);
        for other in &spec.shared_with {
            self.line(other, spec, Some((channel, &origin)));
        }
        origin
    }

    /// Delivers a line in `channel`, which is a copy when it has a `source` (channel and message id).
    fn line(&mut self, channel: &str, spec: &ChatSpec, source: Option<(&str, &str)>) -> String {
        let id = self.eventsub.unique_id();
        let badges = |channel| {
            spec.user_id
                .as_ref()
                .map_or_else(|| json!([]), |user| self.badges(channel, user))
        };
        let chatter = spec.user_id.as_ref().map_or_else(
            || json!({"chatter_user_id": "778899", "chatter_user_login": "squeak", "chatter_user_name": "Squeak"}),
            |user| named(self, "chatter_user", user),
        );
        let source_names = source.map_or_else(
            || {
                json!({"source_broadcaster_user_id": null, "source_broadcaster_user_login": null,
                    "source_broadcaster_user_name": null})
            },
            |(source, _)| named(self, "source_broadcaster_user", source),
        );
        let line = json!({
            "message_id": id,
            "message": {"text": spec.text, "fragments": [
                {"type": "text", "text": spec.text, "cheermote": null, "emote": null, "mention": null},
            ]},
            "color": "#00FF7F", "badges": badges(channel), "message_type": "text", "cheer": null, "reply": null,
            "channel_points_custom_reward_id": null,
            "source_message_id": source.map(|(_, message)| message),
            "source_badges": source.map(|(source, _)| badges(source)),
            "is_source_only": source.map(|_| false),
        });
        let names = joined(
            joined(named(self, "broadcaster_user", channel), &source_names),
            &chatter,
        );
        let event = joined(names, &line);
        self.eventsub
            .notify("channel.chat.message", "broadcaster_user_id", channel, &event);
        id
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
