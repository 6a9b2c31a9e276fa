//! Creation and delivery of messages: once, twice, late, with an old timestamp, held back, or not at all.

use serde_json::{Value, json};

use super::knobs::Duplicate;
use super::state::{Address, Condition, EventSub, Order, Subscription, Transport};
use super::webhooks::Outgoing;
use crate::core::time::Timestamp;

impl EventSub {
    pub(super) fn about(
        &self,
        kind: &str,
        subscription: &Subscription,
        at: Timestamp,
        event: Option<&Value>,
    ) -> String {
        let mut metadata = self.metadata(kind, at);
        metadata["subscription_type"] = json!(subscription.kind);
        metadata["subscription_version"] = json!(subscription.version);
        let mut payload = json!({"subscription": subscription.to_message_json(self.now())});
        if let Some(event) = event {
            payload["event"] = event.clone();
        }
        json!({"metadata": metadata, "payload": payload}).to_string()
    }

    /// Sends `event` to every enabled subscription of type `kind` whose condition has `key` = `value`. Returns how many
    /// subscriptions that were.
    pub(in crate::sim::twitch) fn notify(
        &mut self,
        kind: &str,
        key: &str,
        value: &str,
        event: &Value,
    ) -> usize {
        self.notify_versions(kind, key, value, |_| Some(event.clone()))
    }

    /// Like [`EventSub::notify`], with an event that depends on the subscription's version; `None` where that version has no
    /// such event.
    pub(super) fn notify_versions(
        &mut self,
        kind: &str,
        key: &str,
        value: &str,
        event: impl Fn(&str) -> Option<Value>,
    ) -> usize {
        let now = self.now();
        let at = self.clock.wall().plus_millis(-self.knobs.age_ms);
        // A condition that names a conduit is about that one, whatever its client.
        let narrower = |sub: &Subscription| key == "client_id" && sub.condition.contains_key("conduit_id");
        let matching = |sub: &&Subscription| {
            sub.kind == kind
                && sub.enabled(now)
                && sub.condition.get(key).is_some_and(|given| given == value)
                && !narrower(sub)
        };
        let mut letters = Vec::new();
        let mut posts = Vec::new();
        let mut sent = 0;
        for subscription in self.subscriptions.iter().filter(matching) {
            let Some(event) = &event(&subscription.version) else {
                continue;
            };
            sent += 1;
            let address = match &subscription.transport {
                Transport::Socket { socket, .. } => Address::Socket(*socket),
                Transport::Conduit(id) => Address::Conduit {
                    id: id.clone(),
                    key: value.to_owned(),
                },
                Transport::Webhook { .. } => {
                    posts.push(self.outgoing("notification", subscription, at, Some(event)));
                    continue;
                }
            };
            let text = self.about("notification", subscription, at, Some(event));
            match self.knobs.duplicate {
                Some(Duplicate::SameId) => letters.push((address.clone(), text.clone())),
                Some(Duplicate::FreshId) => {
                    letters.push((
                        address.clone(),
                        self.about("notification", subscription, at, Some(event)),
                    ));
                }
                None => {}
            }
            letters.push((address, text));
        }
        for (address, text) in letters {
            self.post(address, text);
        }
        self.post_webhooks(posts);
        self.notified += u64::try_from(sent).unwrap_or(0);
        sent
    }

    fn post_webhooks(&mut self, posts: Vec<Outgoing>) {
        if self.knobs.drop_events {
            return;
        }
        let times = if self.knobs.duplicate.is_some() { 2 } else { 1 };
        for outgoing in posts {
            for _ in 0..times {
                self.webhooks.post(outgoing.clone());
            }
        }
    }

    pub(super) fn post(&mut self, address: Address, text: String) {
        if self.knobs.drop_events {
            return;
        }
        if self.knobs.hold {
            self.held.push_back((address, text));
            return;
        }
        self.deliver(&address, &text);
    }

    fn deliver(&mut self, address: &Address, text: &str) {
        match address {
            Address::Socket(socket) => self.send(*socket, text),
            Address::Conduit { id, key } => {
                for socket in self.route(id, key) {
                    self.send(socket, text);
                }
            }
        }
    }

    fn send(&self, socket: u64, text: &str) {
        self.order(socket, Order::Send(text.to_owned()));
        if let Some(shadow) = self.sockets.get(&socket).and_then(|socket| socket.shadow) {
            self.order(shadow, Order::Send(text.to_owned()));
        }
    }

    /// Releases all messages held back, in their order or from the newest to the oldest. Returns how many.
    pub(in crate::sim::twitch) fn release(&mut self, newest_first: bool) -> usize {
        self.knobs.hold = false;
        let mut held: Vec<_> = self.held.drain(..).collect();
        if newest_first {
            held.reverse();
        }
        for (address, text) in &held {
            self.deliver(address, text);
        }
        held.len()
    }

    /// Revokes the enabled subscriptions that `chosen` selects, by type and condition, with a revocation message. Returns how
    /// many.
    pub(super) fn revoke(&mut self, status: &str, chosen: impl Fn(&SubscriptionView<'_>) -> bool) -> usize {
        let (now, at) = (self.now(), self.clock.wall());
        let mut ended = Vec::new();
        for (index, sub) in self.subscriptions.iter_mut().enumerate() {
            let view = SubscriptionView {
                id: &sub.id,
                kind: &sub.kind,
                version: &sub.version,
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
            let address = match &sub.transport {
                Transport::Socket { socket, .. } => Address::Socket(*socket),
                Transport::Conduit(id) => Address::Conduit {
                    id: id.clone(),
                    key: sub.condition.values().next().cloned().unwrap_or_default(),
                },
                Transport::Webhook { .. } => {
                    let outgoing = self.outgoing("revocation", sub, at, None);
                    self.webhooks.post(outgoing);
                    continue;
                }
            };
            let text = self.about("revocation", sub, at, None);
            self.deliver(&address, &text);
        }
        self.note_totals();
        ended.len()
    }
}

/// Properties by which a subscription is selected.
pub(super) struct SubscriptionView<'a> {
    pub(super) id: &'a str,
    pub(super) kind: &'a str,
    pub(super) version: &'a str,
    pub(super) condition: &'a Condition,
    pub(super) client_id: &'a str,
    pub(super) user_id: &'a str,
}

impl SubscriptionView<'_> {
    /// Returns whether the condition has `user` under any key.
    pub(super) fn names(&self, user: &str) -> bool {
        self.condition.values().any(|value| value == user)
    }

    /// Returns whether the condition has `value` under `key`.
    pub(super) fn has(&self, key: &str, value: &str) -> bool {
        self.condition.get(key).is_some_and(|given| given == value)
    }
}
