//! Actions of moderators: `channel.moderate` with all its fields, in both versions.

use serde::Deserialize;
use serde_json::{Value, json};

use super::bodies::{BROADCASTER, joined};
use crate::sim::twitch::world::World;

/// An action of a moderator. Fields that it does not use are ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModerationSpec {
    /// The action, such as `ban` or `slowoff`.
    pub action: String,
    /// Id of the affected user; the channel itself when absent.
    pub user_id: Option<String>,
    /// Id of the moderator; the channel itself when absent.
    pub moderator_user_id: Option<String>,
    pub reason: Option<String>,
    /// How long a timeout lasts, or how long chatters wait in slow mode (seconds).
    pub seconds: Option<i64>,
    /// How long chatters must have followed (minutes).
    pub minutes: Option<i64>,
    /// Number of viewers of a raid.
    pub viewers: Option<u64>,
    /// The message deleted.
    pub message_id: Option<String>,
    /// The text of that message, or a moderator's answer to an unban request.
    pub text: Option<String>,
    /// Terms that are added or removed.
    pub terms: Vec<String>,
    /// Rules of the chat that a warning cites.
    pub rules: Vec<String>,
    /// The channel in which it happened, where chats are shared.
    pub source: Option<String>,
}

/// Every action, with the object that describes it where there is one.
const ACTIONS: [(&str, &str); 34] = [
    ("ban", "ban"),
    ("timeout", "timeout"),
    ("unban", "unban"),
    ("untimeout", "untimeout"),
    ("clear", ""),
    ("emoteonly", ""),
    ("emoteonlyoff", ""),
    ("followers", "followers"),
    ("followersoff", ""),
    ("uniquechat", ""),
    ("uniquechatoff", ""),
    ("slow", "slow"),
    ("slowoff", ""),
    ("subscribers", ""),
    ("subscribersoff", ""),
    ("raid", "raid"),
    ("unraid", "unraid"),
    ("delete", "delete"),
    ("vip", "vip"),
    ("unvip", "unvip"),
    ("mod", "mod"),
    ("unmod", "unmod"),
    ("add_blocked_term", "automod_terms"),
    ("add_permitted_term", "automod_terms"),
    ("remove_blocked_term", "automod_terms"),
    ("remove_permitted_term", "automod_terms"),
    ("approve_unban_request", "unban_request"),
    ("deny_unban_request", "unban_request"),
    ("warn", WARN),
    ("shared_chat_ban", "shared_chat_ban"),
    ("shared_chat_unban", "shared_chat_unban"),
    ("shared_chat_timeout", "shared_chat_timeout"),
    ("shared_chat_untimeout", "shared_chat_untimeout"),
    ("shared_chat_delete", "shared_chat_delete"),
];

/// The action that only the second version has.
const WARN: &str = "warn";

impl ModerationSpec {
    /// Refuses an action that Twitch does not have.
    pub(in crate::sim::twitch) fn check(&self) -> Result<(), String> {
        if ACTIONS.iter().any(|(action, _)| *action == self.action) {
            return Ok(());
        }
        let all: Vec<_> = ACTIONS.iter().map(|(action, _)| *action).collect();
        Err(format!("no action `{}`; known: {}", self.action, all.join(", ")))
    }
}

impl World {
    /// Sends `channel.moderate` about an action in `channel`; returns to how many subscriptions.
    pub(in crate::sim::twitch) fn moderate(&mut self, channel: &str, spec: &ModerationSpec) -> usize {
        let moderator = spec.moderator_user_id.as_deref().unwrap_or(channel);
        let mut event = joined(
            self.named("broadcaster_user", channel),
            &self.named("moderator_user", moderator),
        );
        let source = match &spec.source {
            Some(source) => self.named("source_broadcaster_user", source),
            None => json!({"source_broadcaster_user_id": null, "source_broadcaster_user_login": null,
                "source_broadcaster_user_name": null}),
        };
        event = joined(event, &source);
        event["action"] = json!(spec.action);
        for (_, field) in ACTIONS.iter().filter(|(_, field)| !field.is_empty()) {
            event[*field] = Value::Null;
        }
        let field = ACTIONS.iter().find(|(action, _)| *action == spec.action);
        if let Some((_, field)) = field.filter(|(_, field)| !field.is_empty()) {
            event[*field] = self.act(channel, spec);
        }
        self.eventsub
            .notify_versions("channel.moderate", BROADCASTER, channel, |version| {
                let mut event = event.clone();
                if version == "1" {
                    if event["action"] == WARN {
                        return None;
                    }
                    event.as_object_mut()?.remove(WARN);
                }
                Some(event)
            })
    }

    /// Returns the object that describes an action.
    fn act(&self, channel: &str, spec: &ModerationSpec) -> Value {
        let user = self.named("user", spec.user_id.as_deref().unwrap_or(channel));
        let reason = json!(spec.reason.as_deref().unwrap_or("simulated"));
        let action = spec.action.as_str();
        match action.trim_start_matches("shared_chat_") {
            "followers" => json!({"follow_duration_minutes": spec.minutes.unwrap_or(10)}),
            "slow" => json!({"wait_time_seconds": spec.seconds.unwrap_or(30)}),
            "ban" => joined(user, &json!({"reason": reason})),
            "timeout" => {
                let end = self.eventsub.clock.wall().plus_secs(spec.seconds.unwrap_or(600));
                joined(user, &json!({"reason": reason, "expires_at": end}))
            }
            "raid" => joined(user, &json!({"viewer_count": spec.viewers.unwrap_or(5)})),
            "delete" => {
                let id = spec
                    .message_id
                    .clone()
                    .unwrap_or_else(|| self.eventsub.unique_id());
                let body = spec.text.as_deref().unwrap_or("a line that was deleted");
                joined(user, &json!({"message_id": id, "message_body": body}))
            }
            WARN => joined(
                user,
                &json!({"reason": reason, "chat_rules_cited": if spec.rules.is_empty() { Value::Null } else { json!(spec.rules) }}),
            ),
            "approve_unban_request" | "deny_unban_request" => joined(
                user,
                &json!({"is_approved": action.starts_with("approve"),
                    "moderator_message": spec.text.as_deref().unwrap_or_default()}),
            ),
            term if term.ends_with("_term") => json!({
                "action": if term.starts_with("add") { "add" } else { "remove" },
                "list": if term.contains("blocked") { "blocked" } else { "permitted" },
                "terms": spec.terms, "from_automod": false,
            }),
            _ => user,
        }
    }
}
