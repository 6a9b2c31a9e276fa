//! Event subscriptions, and what becomes of them when deliveries fail.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::texts;
use crate::core::time::Timestamp;

/// Milliseconds of failing deliveries after which Kick deletes the subscriptions to that event.
const GIVES_UP_AFTER_MS: i64 = 86_400_000;

#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) broadcaster: u64,
    pub(super) event: String,
    created_at: Timestamp,
}

/// All subscriptions, and since when deliveries of an event fail.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) all: Vec<Subscription>,
    failing_since: BTreeMap<String, Timestamp>,
}

impl Subscriptions {
    pub(super) fn of(&self, event: &str, broadcaster: u64) -> Vec<Subscription> {
        let wanted = |known: &&Subscription| known.event == event && known.broadcaster == broadcaster;
        self.all.iter().filter(wanted).cloned().collect()
    }

    pub(super) fn add(
        &mut self,
        id: String,
        client_id: &str,
        broadcaster: u64,
        event: &str,
        created_at: Timestamp,
    ) {
        self.all.push(Subscription {
            id,
            client_id: client_id.to_owned(),
            broadcaster,
            event: event.to_owned(),
            created_at,
        });
    }

    /// Removes the subscriptions of an event (all when empty) of a broadcaster (all when `None`); returns how many.
    pub(super) fn remove(&mut self, event: &str, broadcaster: Option<u64>) -> usize {
        let before = self.all.len();
        self.all.retain(|known| {
            let other_event = !event.is_empty() && known.event != event;
            other_event || broadcaster.is_some_and(|id| known.broadcaster != id)
        });
        before - self.all.len()
    }

    /// Records the result of a delivery. After a day of failures the application is unsubscribed from that event.
    pub(super) fn delivered(&mut self, event: &str, accepted: bool, now: Timestamp) {
        if accepted {
            self.failing_since.remove(event);
            return;
        }
        let since = *self.failing_since.entry(event.to_owned()).or_insert(now);
        if now.millis_since(since) > GIVES_UP_AFTER_MS {
            self.remove(event, None);
            self.failing_since.remove(event);
        }
    }

    pub(super) fn to_json(&self) -> Value {
        Value::Array(self.all.iter().map(Subscription::to_json).collect())
    }
}

impl Subscription {
    /// Returns the subscription as in responses.
    pub(super) fn to_json(&self) -> Value {
        let at = texts::rfc3339(self.created_at);
        json!({
            "id": self.id, "app_id": self.client_id, "broadcaster_user_id": self.broadcaster, "event": self.event,
            "version": 1, "method": "webhook", "created_at": at, "updated_at": at,
        })
    }
}
