//! Webhooks: events in Kick's formats, one delivery for each subscription.

use serde_json::{Value, json};

use super::delivery::Outgoing;
use super::texts;
use super::world::{Channel, World, category_json};
use crate::core::time::Timestamp;
use crate::traffic::format::Webhook;

impl World {
    /// Sends an event unchanged to each subscription to it; returns the number of deliveries.
    pub(super) fn emit(&mut self, event: &str, broadcaster: u64, body: &Value, now: Timestamp) -> usize {
        let knobs = self.knobs.webhooks.clone();
        let Some(url) = self.webhooks.url.clone().filter(|_| !knobs.drop) else {
            return 0;
        };
        let body = body.to_string();
        let subscriptions = self.subscriptions.of(event, broadcaster);
        let outgoing = subscriptions.into_iter().map(|subscription| {
            let message_id = texts::ulid(now, &self.chance);
            let timestamp = texts::rfc3339(self.clock.wall().plus_millis(-knobs.age_ms));
            let signed = if knobs.bad_signature { "{}" } else { &body };
            let signature = self.webhooks.key.sign(&message_id, &timestamp, signed.as_bytes());
            Outgoing {
                url: url.clone(),
                event: event.to_owned(),
                headers: vec![
                    ("Kick-Event-Message-Id", message_id.clone()),
                    ("Kick-Event-Message-Timestamp", timestamp),
                    ("Kick-Event-Signature", signature),
                    ("Kick-Event-Subscription-Id", subscription.id),
                    (
                        "Kick-Event-Type",
                        knobs.false_type.clone().unwrap_or_else(|| event.to_owned()),
                    ),
                    ("Kick-Event-Version", "1".to_owned()),
                ],
                message_id,
                body: body.clone(),
                times: 1 + knobs.repeats,
                due: now.plus_millis(knobs.delay_ms),
            }
        });
        let outgoing: Vec<_> = outgoing.collect();
        self.webhooks.send(outgoing)
    }

    /// Posts a recorded webhook to `url` with a time and a signature of its own.
    pub(super) fn post_again(&mut self, url: &str, webhook: &Webhook, body: String, now: Timestamp) {
        let timestamp = texts::rfc3339(self.clock.wall());
        let signature = self.webhooks.key.sign(&webhook.id, &timestamp, body.as_bytes());
        let outgoing = Outgoing {
            url: url.to_owned(),
            event: webhook.kind.clone(),
            headers: vec![
                ("Kick-Event-Message-Id", webhook.id.clone()),
                ("Kick-Event-Message-Timestamp", timestamp),
                ("Kick-Event-Signature", signature),
                ("Kick-Event-Subscription-Id", texts::ulid(now, &self.chance)),
                ("Kick-Event-Type", webhook.kind.clone()),
                ("Kick-Event-Version", "1".to_owned()),
            ],
            message_id: webhook.id.clone(),
            body,
            times: 1,
            due: now,
        };
        self.webhooks.send(vec![outgoing]);
    }

    /// Sends `livestream.status.updated` of a stream that started, or that ended.
    pub(super) fn send_status(&mut self, id: u64, started_at: &str, ended_at: Option<&str>, now: Timestamp) {
        if let Some(channel) = self.channels.get(&id) {
            let body = json!({
                "broadcaster": person(channel), "is_live": ended_at.is_none(), "title": channel.title,
                "started_at": started_at, "ended_at": ended_at,
            });
            self.emit("livestream.status.updated", id, &body, now);
        }
    }

    /// Sends `livestream.metadata.updated`; real ones contain the category twice.
    pub(super) fn send_metadata(&mut self, id: u64, now: Timestamp) {
        if let Some(channel) = self.channels.get(&id) {
            let category = category_json(&channel.category);
            let body = json!({
                "broadcaster": person(channel),
                "metadata": {
                    "title": channel.title, "language": "en", "has_mature_content": false, "category": category,
                    "Category": category,
                },
            });
            self.emit("livestream.metadata.updated", id, &body, now);
        }
    }
}

/// The JSON of a user in an event.
pub(super) fn person(channel: &Channel) -> Value {
    json!({
        "is_anonymous": false, "user_id": channel.id, "username": channel.name, "is_verified": false,
        "profile_picture": "", "channel_slug": channel.slug, "identity": null,
    })
}
