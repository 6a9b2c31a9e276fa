//! Events that are pushed on changes of the world: Twitch's event bodies, and the resulting revocations.

use serde_json::json;

use super::bodies::{BROADCASTER, joined};
use super::kinds;
use super::moderation::ModerationSpec;
use crate::sim::twitch::members::Role;
use crate::sim::twitch::stream::Stream;
use crate::sim::twitch::world::World;

impl World {
    pub(in crate::sim::twitch) fn send_online(&mut self, id: &str, stream: &Stream) {
        let mut event = self.named("broadcaster_user", id);
        event["id"] = json!(stream.id);
        event["type"] = json!(stream.kind);
        event["started_at"] = json!(stream.started_at);
        self.eventsub.notify("stream.online", BROADCASTER, id, &event);
    }

    pub(in crate::sim::twitch) fn send_offline(&mut self, id: &str, stream: &Stream) {
        let mut event = self.named("broadcaster_user", id);
        if !self.eventsub.knobs.offline_without_id {
            event["id"] = json!(stream.id);
        }
        self.eventsub.notify("stream.offline", BROADCASTER, id, &event);
    }

    pub(in crate::sim::twitch) fn send_channel(&mut self, id: &str) {
        let Some(user) = self.user(id) else { return };
        let about = json!({
            "title": user.title, "language": user.language, "category_id": user.game_id,
            "category_name": user.game_name, "content_classification_labels": [],
        });
        let event = joined(self.named("broadcaster_user", id), &about);
        self.eventsub.notify("channel.update", BROADCASTER, id, &event);
    }

    pub(in crate::sim::twitch) fn send_user(&mut self, id: &str) {
        let event = joined(
            self.named("user", id),
            &json!({"email": "", "email_verified": false, "description": ""}),
        );
        self.eventsub.notify("user.update", "user_id", id, &event);
    }

    /// Sends a change of role, and revokes the subscriptions that required the role.
    pub(in crate::sim::twitch) fn send_role(&mut self, channel: &str, user: &str, role: Role, held: bool) {
        let (kind, action) = match (role, held) {
            (Role::Moderator | Role::LeadModerator, true) => ("channel.moderator.add", "mod"),
            (Role::Moderator | Role::LeadModerator, false) => ("channel.moderator.remove", "unmod"),
            (Role::Vip, true) => ("channel.vip.add", "vip"),
            (Role::Vip, false) => ("channel.vip.remove", "unvip"),
            (Role::Banned, true) => ("channel.ban", "ban"),
            (Role::Banned, false) => ("channel.unban", "unban"),
            (Role::Editor | Role::Subscriber | Role::Chatter, _) => return,
        };
        let target = self.named("user", user);
        let mut event = joined(self.named("broadcaster_user", channel), &target);
        if role == Role::Banned {
            event = joined(event, &self.named("moderator_user", channel));
            if held {
                let at = json!(self.eventsub.clock.wall());
                event = joined(
                    event,
                    &json!({"reason": "simulated", "banned_at": at, "ends_at": null, "is_permanent": true}),
                );
            }
        }
        self.eventsub.notify(kind, BROADCASTER, channel, &event);
        self.moderate(
            channel,
            &ModerationSpec {
                action: action.to_owned(),
                user_id: Some(user.to_owned()),
                ..ModerationSpec::default()
            },
        );
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

    /// Removes the connection between a user and an application, and revokes the subscriptions that required it.
    pub(in crate::sim::twitch) fn disconnect(&mut self, client_id: &str, user_id: &str) {
        self.tokens.disconnect(Some(client_id), Some(&user_id.to_owned()));
        // Subscriptions of the application end when they required what this user had granted.
        let required =
            |kind: &str, version: &str| kinds::find(kind, version).and_then(|kind| kind.demand.whose());
        self.eventsub.revoke("authorization_revoked", |sub| {
            let own = sub.user_id == user_id
                || (sub.user_id.is_empty()
                    && required(sub.kind, sub.version).is_some_and(|whose| sub.has(whose, user_id)));
            sub.client_id == client_id && own
        });
        let event = joined(self.named("user", user_id), &json!({"client_id": client_id}));
        self.eventsub
            .notify("user.authorization.revoke", "client_id", client_id, &event);
    }

    /// Revokes every subscription about a user who was removed.
    pub(in crate::sim::twitch) fn send_removed(&mut self, id: &str) {
        self.eventsub.revoke("user_removed", |sub| sub.names(id));
    }

    /// Revokes subscriptions on command: those of type `kind` (all when empty) with the id `id` (all when empty).
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
