//! What the world pushes when it changes: the event bodies of Twitch, and the revocations that changes bring.

use serde_json::{Value, json};

use super::super::Role;
use super::super::roles::named;
use super::super::stream::Stream;
use super::super::world::World;

const BROADCASTER: &str = "broadcaster_user_id";

impl World {
    fn broadcaster(&self, id: &str) -> Value {
        named(self, "broadcaster_user", id)
    }

    pub(in crate::sim::twitch) fn tell_online(&mut self, id: &str, stream: &Stream) {
        let mut event = self.broadcaster(id);
        event["id"] = json!(stream.id);
        event["type"] = json!(stream.kind);
        event["started_at"] = json!(stream.started_at);
        self.eventsub.notify("stream.online", BROADCASTER, id, &event);
    }

    pub(in crate::sim::twitch) fn tell_offline(&mut self, id: &str, stream: &Stream) {
        let mut event = self.broadcaster(id);
        if !self.eventsub.knobs.offline_without_id {
            event["id"] = json!(stream.id);
        }
        self.eventsub.notify("stream.offline", BROADCASTER, id, &event);
    }

    pub(in crate::sim::twitch) fn tell_channel(&mut self, id: &str) {
        let Some(user) = self.user(id) else { return };
        let about = json!({
            "title": user.title, "language": user.language, "category_id": user.game_id,
            "category_name": user.game_name, "content_classification_labels": [],
        });
        let event = joined(self.broadcaster(id), &about);
        self.eventsub.notify("channel.update", BROADCASTER, id, &event);
    }

    pub(in crate::sim::twitch) fn tell_user(&mut self, id: &str) {
        let event = joined(
            named(self, "user", id),
            &json!({"email": "", "email_verified": false, "description": ""}),
        );
        self.eventsub.notify("user.update", "user_id", id, &event);
    }

    /// Tells a change of role, and ends the subscriptions that the role carried.
    pub(in crate::sim::twitch) fn tell_role(&mut self, channel: &str, user: &str, role: Role, held: bool) {
        let (kind, action) = match (role, held) {
            (Role::Moderator | Role::LeadModerator, true) => ("channel.moderator.add", "mod"),
            (Role::Moderator | Role::LeadModerator, false) => ("channel.moderator.remove", "unmod"),
            (Role::Vip, true) => ("channel.vip.add", "vip"),
            (Role::Vip, false) => ("channel.vip.remove", "unvip"),
            (Role::Banned, true) => ("channel.ban", "ban"),
            (Role::Banned, false) => ("channel.unban", "unban"),
            (Role::Editor | Role::Subscriber | Role::Chatter, _) => return,
        };
        let target = named(self, "user", user);
        let mut event = joined(self.broadcaster(channel), &target);
        if role == Role::Banned {
            event = joined(event, &named(self, "moderator_user", channel));
            if held {
                let at = json!(self.eventsub.clock.wall());
                event = joined(
                    event,
                    &json!({"reason": "simulated", "banned_at": at, "ends_at": null, "is_permanent": true}),
                );
            }
        }
        self.eventsub.notify(kind, BROADCASTER, channel, &event);
        self.tell_moderation(channel, action, &target);
        match role {
            Role::Banned if held => self.eventsub.revoke("chat_user_banned", |sub| {
                sub.kind == "channel.chat.message"
                    && sub.has(BROADCASTER, channel)
                    && sub.has("user_id", user)
            }),
            Role::Moderator | Role::LeadModerator if !held => {
                self.eventsub.revoke("moderator_removed", |sub| {
                    sub.has(BROADCASTER, channel) && sub.has("moderator_user_id", user)
                })
            }
            _ => 0,
        };
    }

    fn tell_moderation(&mut self, channel: &str, action: &str, target: &Value) {
        let mut event = joined(self.broadcaster(channel), &named(self, "moderator_user", channel));
        for field in [
            "source_broadcaster_user_id",
            "source_broadcaster_user_login",
            "source_broadcaster_user_name",
        ] {
            event[field] = Value::Null;
        }
        event["action"] = json!(action);
        for each in [
            "mod",
            "unmod",
            "vip",
            "unvip",
            "ban",
            "unban",
            "timeout",
            "untimeout",
            "warn",
            "delete",
        ] {
            event[each] = if each == action {
                target.clone()
            } else {
                Value::Null
            };
        }
        if action == "ban" {
            event["ban"]["reason"] = json!("simulated");
        }
        self.eventsub
            .notify("channel.moderate", BROADCASTER, channel, &event);
    }

    /// Ends what a user authorised for an application.
    pub(in crate::sim::twitch) fn tell_disconnected(&mut self, client_id: &str, user_id: &str) {
        self.eventsub.revoke("authorization_revoked", |sub| {
            sub.client_id == client_id && sub.user_id == user_id
        });
    }

    /// Ends every subscription about a user who is gone.
    pub(in crate::sim::twitch) fn tell_removed(&mut self, id: &str) {
        self.eventsub.revoke("user_removed", |sub| sub.names(id));
    }

    /// Ends subscriptions on command: those of type `kind` (all when empty) with the id `id` (all when empty).
    pub(in crate::sim::twitch) fn revoke_subscriptions(
        &mut self,
        kind: &str,
        id: &str,
        status: &str,
    ) -> usize {
        self.eventsub.revoke(status, |sub| {
            (kind.is_empty() || sub.kind == kind) && (id.is_empty() || sub.id == id)
        })
    }
}

/// Returns `base` with the fields of `more`.
pub(super) fn joined(mut base: Value, more: &Value) -> Value {
    for (field, value) in more.as_object().into_iter().flatten() {
        base[field] = value.clone();
    }
    base
}
