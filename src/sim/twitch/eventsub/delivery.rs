//! How messages are made and reach their sockets: once, twice, late, old, held back, or not at all.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::sockets::Order;
use super::{Condition, EventSub, Subscription};
use crate::core::time::Timestamp;

/// How a notification is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicate {
    /// With the same message id, as at-least-once delivery does.
    SameId,
    /// As another message with an id of its own.
    FreshId,
}

impl EventSub {
    /// Makes a message of the session itself.
    pub(super) fn message(&self, kind: &str, payload: &Value) -> String {
        let metadata = self.metadata(kind, self.clock.wall());
        json!({"metadata": metadata, "payload": payload}).to_string()
    }

    fn metadata(&self, kind: &str, at: Timestamp) -> Value {
        json!({"message_id": self.unique_id(), "message_type": kind, "message_timestamp": self.precise(at)})
    }

    fn about(&self, kind: &str, subscription: &Subscription, at: Timestamp, event: Option<&Value>) -> String {
        let mut metadata = self.metadata(kind, at);
        metadata["subscription_type"] = json!(subscription.kind);
        metadata["subscription_version"] = json!(subscription.version);
        let mut payload = json!({"subscription": subscription.to_message_json(self.now())});
        if let Some(event) = event {
            payload["event"] = event.clone();
        }
        json!({"metadata": metadata, "payload": payload}).to_string()
    }

    /// Tells `event` to every enabled subscription of type `kind` whose condition has `key` = `value`. Returns how many
    /// subscriptions that were.
    pub(in crate::sim::twitch) fn notify(
        &mut self,
        kind: &str,
        key: &str,
        value: &str,
        event: &Value,
    ) -> usize {
        let now = self.now();
        let at = self.clock.wall().plus_millis(-self.knobs.age_ms);
        let matching = |sub: &&Subscription| {
            sub.kind == kind && sub.enabled(now) && sub.condition.get(key).is_some_and(|given| given == value)
        };
        let mut letters = Vec::new();
        for subscription in self.subscriptions.iter().filter(matching) {
            let text = self.about("notification", subscription, at, Some(event));
            match self.knobs.duplicate {
                Some(Duplicate::SameId) => letters.push((subscription.socket, text.clone())),
                Some(Duplicate::FreshId) => {
                    letters.push((
                        subscription.socket,
                        self.about("notification", subscription, at, Some(event)),
                    ));
                }
                None => {}
            }
            letters.push((subscription.socket, text));
        }
        let told = self.subscriptions.iter().filter(matching).count();
        for (socket, text) in letters {
            self.post(socket, text);
        }
        told
    }

    fn post(&mut self, socket: u64, text: String) {
        if self.knobs.drop_events {
            return;
        }
        if self.knobs.hold {
            self.held.push_back((socket, text));
            return;
        }
        self.send(socket, &text);
    }

    fn send(&self, socket: u64, text: &str) {
        self.order(socket, Order::Send(text.to_owned()));
        if let Some(shadow) = self.sockets.get(&socket).and_then(|socket| socket.shadow) {
            self.order(shadow, Order::Send(text.to_owned()));
        }
    }

    /// Lets go of all messages held back, in their order or from the newest to the oldest. Returns how many.
    pub(in crate::sim::twitch) fn release(&mut self, newest_first: bool) -> usize {
        self.knobs.hold = false;
        let mut held: Vec<_> = self.held.drain(..).collect();
        if newest_first {
            held.reverse();
        }
        for (socket, text) in &held {
            self.send(*socket, text);
        }
        held.len()
    }

    /// Ends the enabled subscriptions that `chosen` picks, by type and condition, with a revocation message. Returns how
    /// many.
    pub(super) fn revoke(&mut self, status: &str, chosen: impl Fn(&SubscriptionView<'_>) -> bool) -> usize {
        let (now, at) = (self.now(), self.clock.wall());
        let mut ended = Vec::new();
        for (index, sub) in self.subscriptions.iter_mut().enumerate() {
            let view = SubscriptionView {
                id: &sub.id,
                kind: &sub.kind,
                condition: &sub.condition,
                client_id: &sub.client_id,
                user_id: &sub.user_id,
            };
            if sub.enabled(now) && chosen(&view) {
                sub.end = Some((now, status.to_owned()));
                ended.push(index);
            }
        }
        for index in &ended {
            let sub = &self.subscriptions[*index];
            let text = self.about("revocation", sub, at, None);
            self.send(sub.socket, &text);
        }
        self.note_totals();
        ended.len()
    }
}

/// What a subscription is chosen by.
pub(super) struct SubscriptionView<'a> {
    pub(super) id: &'a str,
    pub(super) kind: &'a str,
    pub(super) condition: &'a Condition,
    pub(super) client_id: &'a str,
    pub(super) user_id: &'a str,
}

impl SubscriptionView<'_> {
    /// Returns whether the condition names `user` under any key.
    pub(super) fn names(&self, user: &str) -> bool {
        self.condition.values().any(|value| value == user)
    }

    /// Returns whether the condition has `value` under `key`.
    pub(super) fn has(&self, key: &str, value: &str) -> bool {
        self.condition.get(key).is_some_and(|given| given == value)
    }
}
