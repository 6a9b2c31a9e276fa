//! The actual state: channels, their streams, tokens, subscriptions, and the knobs for deviating behavior.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::delivery::Webhooks;
use super::subscriptions::Subscriptions;
use super::texts;
use super::tokens::{RULES, Tokens};
use crate::clock::Chance;
use crate::core::time::Timestamp;
use crate::sim::clock::SimClock;
use crate::sim::kit;

/// Deviating behavior of the platform until changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct KickKnobs {
    /// Milliseconds until the lists show a new stream.
    pub list_lag_up_ms: i64,
    /// Milliseconds for which the lists still show an ended stream; 3,000 to 19,000 have been seen.
    pub list_lag_down_ms: i64,
    /// Milliseconds between refreshes of a viewer count.
    pub viewer_refresh_ms: i64,
    /// Whether an unknown slug fails the whole call with 400 instead of being left out.
    pub unknown_slug_400: bool,
    /// Whether `/channels` shows half of the channels as offline when asked for more than 25.
    pub corrupt_over_25: bool,
    /// Whether introspecting an inactive token answers 401 instead of `active: false`.
    pub introspect_inactive_401: bool,
    /// Whether `invalid_grant` comes with 401 instead of 400.
    pub invalid_grant_401: bool,
    /// Whether `expires_in` is a string, as in the documentation.
    pub expires_in_text: bool,
    /// Whether an offline channel's `start_time` is Go's zero time instead of empty.
    pub zero_start_time: bool,
    /// Whether objects have undocumented fields.
    pub unknown_fields: bool,
    /// Requests a minute before 429; unlimited when absent.
    pub requests_per_minute: Option<u32>,
    /// The value of `Retry-After` in that response, in seconds; no such header when absent.
    pub retry_after: Option<u32>,
    /// Maximum subscriptions of one event type; 10,000 at Kick.
    pub subscription_limit: usize,
    /// Maximum subscriptions to chat messages; 1,000 for an unverified application.
    pub chat_subscription_limit: usize,
    /// Whether subscribing twice creates a second subscription, as it used to.
    pub duplicate_subscriptions: bool,
    /// Events for which subscribing fails, with the error in the response.
    pub subscription_errors: BTreeMap<String, String>,
    /// User who agrees at once in browser flows.
    pub consent: Option<u64>,
    /// Faults of deliveries.
    pub webhooks: WebhookKnobs,
}

/// Faults of webhook deliveries.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookKnobs {
    /// Whether nothing is delivered although subscriptions are listed.
    pub drop: bool,
    /// Milliseconds by which deliveries are late; their timestamp stays that of the event.
    pub delay_ms: i64,
    /// Milliseconds by which the timestamp is older than the event.
    pub age_ms: i64,
    /// Whether the signature is for other bytes.
    pub bad_signature: bool,
    /// How often a delivery is repeated with the same message id.
    pub repeats: u32,
    /// The type in the header instead of the real one; that header is not signed.
    pub false_type: Option<String>,
}

impl Default for KickKnobs {
    fn default() -> Self {
        Self {
            list_lag_up_ms: 0,
            list_lag_down_ms: 0,
            viewer_refresh_ms: 60_000,
            unknown_slug_400: false,
            corrupt_over_25: true,
            introspect_inactive_401: false,
            invalid_grant_401: false,
            expires_in_text: false,
            zero_start_time: false,
            unknown_fields: false,
            requests_per_minute: None,
            retry_after: None,
            subscription_limit: 10_000,
            chat_subscription_limit: 1_000,
            duplicate_subscriptions: false,
            subscription_errors: BTreeMap::new(),
            consent: None,
            webhooks: WebhookKnobs::default(),
        }
    }
}

/// Data about a channel, or a change of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KickChannelSpec {
    /// The broadcaster's user id.
    pub id: u64,
    /// The name in addresses; a different one renames the channel.
    pub slug: Option<String>,
    /// The user's name.
    pub name: Option<String>,
    /// The title of its streams.
    pub title: Option<String>,
    /// The category's name.
    pub category: Option<String>,
    /// Whether the channel is omitted from every response, as observed for renamed and banned ones.
    pub vanished: Option<bool>,
}

/// Properties of a stream when it starts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KickStreamSpec {
    /// When it started; now when absent.
    pub started_at: Option<Timestamp>,
    pub viewers: Option<u64>,
    /// Whether the count is hidden, which shows as 0.
    pub hidden_count: bool,
    /// Milliseconds until the lists show it; the world's usual lag when absent.
    pub lag_ms: Option<i64>,
    /// Whether no event is pushed.
    pub silent: bool,
}

/// A channel, which is also a user.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) id: u64,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) title: String,
    pub(super) category: String,
    pub(super) vanished: bool,
    pub(super) streams: Vec<Stream>,
}

/// A stream, live or ended.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) started_at: String,
    pub(super) ended_at: Option<String>,
    pub(super) viewers: u64,
    pub(super) hidden_count: bool,
    /// Number of responses that show 1 viewer, regardless of the actual count.
    pub(super) blips: u32,
    /// The count as last refreshed, and when.
    shown: Option<(Timestamp, u64)>,
    shown_from: Timestamp,
    shown_until: Option<Timestamp>,
}

impl Stream {
    fn listed(&self, now: Timestamp) -> bool {
        now >= self.shown_from && self.shown_until.is_none_or(|end| now < end)
    }

    /// Returns the count as shown in a response.
    pub(super) fn count(&mut self, now: Timestamp, refresh_ms: i64) -> u64 {
        if self.hidden_count {
            return 0;
        }
        if self.blips > 0 {
            self.blips -= 1;
            return 1;
        }
        match self.shown {
            Some((at, count)) if now.millis_since(at) < refresh_ms => count,
            _ => {
                self.shown = Some((now, self.viewers));
                self.viewers
            }
        }
    }
}

impl Channel {
    /// Returns the stream that the lists show.
    pub(super) fn listed(&mut self, now: Timestamp) -> Option<&mut Stream> {
        self.streams.iter_mut().rev().find(|stream| stream.listed(now))
    }

    /// Returns the stream that is actually live.
    pub(super) fn running(&mut self) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.ended_at.is_none())
    }
}

/// The complete state.
pub struct World {
    pub(super) clock: Arc<SimClock>,
    pub(super) chance: Chance,
    pub(super) channels: BTreeMap<u64, Channel>,
    pub(super) tokens: Tokens,
    pub(super) subscriptions: Subscriptions,
    pub(super) webhooks: Webhooks,
    pub(super) knobs: KickKnobs,
    /// When requests were answered, for the limit per minute.
    pub(super) answered: std::collections::VecDeque<Timestamp>,
}

impl World {
    pub(super) fn new(clock: Arc<SimClock>, chance: Chance) -> Self {
        Self {
            clock,
            chance,
            channels: BTreeMap::new(),
            tokens: Tokens::new(&RULES),
            subscriptions: Subscriptions::default(),
            webhooks: Webhooks::default(),
            knobs: KickKnobs::default(),
            answered: std::collections::VecDeque::new(),
        }
    }

    /// Adds a channel or changes it; returns whether data that events contain has changed.
    pub(super) fn put_channel(&mut self, spec: KickChannelSpec) -> bool {
        let id = spec.id;
        let channel = self.channels.entry(id).or_insert_with(|| Channel {
            id,
            slug: format!("channel-{id}"),
            name: format!("Channel{id}"),
            title: String::new(),
            category: String::new(),
            vanished: false,
            streams: Vec::new(),
        });
        let before = (channel.title.clone(), channel.category.clone());
        let take = |place: &mut String, value: Option<String>| {
            if let Some(value) = value {
                *place = value;
            }
        };
        take(&mut channel.slug, spec.slug);
        take(&mut channel.name, spec.name);
        take(&mut channel.title, spec.title);
        take(&mut channel.category, spec.category);
        channel.vanished = spec.vanished.unwrap_or(channel.vanished);
        before != (channel.title.clone(), channel.category.clone())
    }

    /// Starts a stream; `None` for an unknown channel or one that is live. Returns the text of its start.
    pub(super) fn start_stream(&mut self, id: u64, spec: &KickStreamSpec, now: Timestamp) -> Option<String> {
        let lag = spec.lag_ms.unwrap_or(self.knobs.list_lag_up_ms);
        let wall = self.clock.wall();
        let uuid = texts::uuid(&self.chance);
        let channel = self.channels.get_mut(&id)?;
        if channel.running().is_some() {
            return None;
        }
        let started_at = texts::rfc3339(spec.started_at.unwrap_or(wall));
        // Streams that ended long ago are not needed.
        channel
            .streams
            .retain(|stream| stream.shown_until.is_none_or(|end| now < end));
        channel.streams.push(Stream {
            id: uuid,
            started_at: started_at.clone(),
            ended_at: None,
            viewers: spec.viewers.unwrap_or(12),
            hidden_count: spec.hidden_count,
            blips: 0,
            shown: None,
            shown_from: now.plus_millis(lag),
            shown_until: None,
        });
        Some(started_at)
    }

    /// Ends the live stream; returns the texts of its start and its end.
    pub(super) fn end_stream(
        &mut self,
        id: u64,
        lag_ms: Option<i64>,
        now: Timestamp,
    ) -> Option<(String, String)> {
        let lag = lag_ms.unwrap_or(self.knobs.list_lag_down_ms);
        let wall = self.clock.wall();
        let stream = self.channels.get_mut(&id)?.running()?;
        let ended_at = texts::rfc3339(wall);
        stream.ended_at = Some(ended_at.clone());
        stream.shown_until = Some(now.plus_millis(lag));
        Some((stream.started_at.clone(), ended_at))
    }

    /// Counts a request and returns whether it exceeds the limit.
    pub(super) fn over_limit(&mut self, now: Timestamp) -> bool {
        let Some(limit) = self.knobs.requests_per_minute else {
            return false;
        };
        kit::forget(&mut self.answered, 60_000, now);
        if self.answered.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return true;
        }
        self.answered.push_back(now);
        false
    }

    /// Returns the actual state, as the controls show it.
    pub(super) fn describe(&mut self) -> Value {
        let channels: Vec<_> = self
            .channels
            .values_mut()
            .map(|channel| {
                let stream = channel.running().map(|stream| {
                    json!({"id": stream.id, "started_at": stream.started_at, "viewers": stream.viewers})
                });
                json!({
                    "id": channel.id, "slug": channel.slug, "name": channel.name, "title": channel.title,
                    "category": channel.category, "vanished": channel.vanished, "stream": stream,
                })
            })
            .collect();
        json!({"channels": channels, "knobs": self.knobs})
    }
}

/// Returns a category, whose id is always the same for the same name.
pub(super) fn category_json(name: &str) -> Value {
    if name.is_empty() {
        return json!({"id": 0, "name": "", "thumbnail": ""});
    }
    let id = name
        .bytes()
        .fold(7_u64, |id, byte| (id * 31 + u64::from(byte)) % 9_973);
    json!({"id": id + 1, "name": name, "thumbnail": format!("https://files.kick.com/c/{id}.webp")})
}
