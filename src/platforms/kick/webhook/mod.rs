//! Receives Kick's webhooks: verifies that Kick has sent them, counts refused ones, and publishes their observations.
//!
//! A delivery that fails is lost for good and silence proves nothing, so polls remain authoritative. One key signs for all
//! applications: a valid signature proves only that Kick has sent it to some application. That suffices: what happened in the
//! channel is the same for all of them. The subscription id is not signed, so it decides nothing; subscriptions that were
//! created again, by this process or another one, deliver before any list names them.

mod delivery;
mod events;
mod keys;
mod missed_events;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::delivery::{Delivery, WINDOW};
use self::events::{Event, Unusable, WebhookEvent};
use self::keys::{Keys, Signed};
use self::missed_events::MissedEvents;
use super::client::Client;
use super::facts::{self, BADGES_METHOD, BY_WEBHOOK};
use super::{BotId, KickPlatform};
use crate::clock::Clock;
use crate::core::code::Code;
use crate::core::counters::Counters;
use crate::core::observation::{Fact, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey, by_number};
use crate::core::time::Timestamp;
use crate::platforms::kit::dedup::RecentIds;

pub use events::{CHAT, METADATA, STATUS};

/// The path of the webhook URL to configure at Kick.
pub const PATH: &str = "/webhooks/kick";
/// The largest accepted body, in bytes.
const LARGEST_BODY: usize = 1024 * 1024;
/// Minimum interval of warnings about stale deliveries, and about unusable ones of one type.
const WARNED_EVERY: Duration = Duration::from_mins(10);
/// Minimum interval at which proof that webhooks arrive is published for each channel.
const PROOF_EVERY: Duration = Duration::from_mins(1);
/// Maximum number of ids remembered, of deliveries and of chat messages: far more than arrive within ten minutes.
const REMEMBERED_IDS: usize = 400_000;
/// The kind of the ids of deliveries.
const DELIVERY: &str = "delivery";
/// The kind of the ids of chat messages, which stay the same when one is delivered for two subscriptions.
const CHAT_MESSAGE: &str = "chat";

/// Receives deliveries. One for the whole process.
pub struct WebhookListener {
    keys: Keys,
    clock: Arc<dyn Clock>,
    client: Arc<Client>,
    out: mpsc::Sender<Observation>,
    writer: String,
    bot: Arc<BotId>,
    badges: Arc<super::Badges>,
    /// Not part of the state: refused deliveries are counted without its lock.
    counts: Mutex<WebhookCounts>,
    state: Mutex<WebhookState>,
}

struct WebhookState {
    sources: BTreeMap<u64, SourceKey>,
    /// Ids of deliveries, and of chat messages, which keep their id when they are delivered for two subscriptions.
    received: RecentIds,
    totals: BTreeMap<u64, Counters>,
    proven: BTreeMap<u64, Timestamp>,
    missed_events: MissedEvents,
    /// When the last warning about a stale delivery was logged.
    stale_warned: Option<Timestamp>,
    /// When the last warning about an unusable delivery was logged, by event type.
    unusable_warned: BTreeMap<String, Timestamp>,
}

/// Number of deliveries by result, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebhookCounts {
    /// Accepted and published.
    pub accepted: u64,
    /// Not signed by Kick, malformed, or of another type than the header names; answered 401.
    pub forged: u64,
    /// Too old or from the future, as a replayed recording is; answered 401.
    pub stale: u64,
    /// Received before; answered 200 and dropped.
    pub duplicate: u64,
    /// Of a type that is not used.
    pub other: u64,
    /// About a channel that is not a source.
    pub untracked: u64,
    /// Of its type, but without a required field.
    pub unusable: u64,
    /// Larger than 1 MiB; answered 413.
    pub oversized: u64,
    /// Refused with 503 because observations were not consumed fast enough.
    pub held_off: u64,
}

impl KickPlatform {
    /// Creates the listener. Observations go to `out`; chat messages are counted under the name `writer`.
    pub fn webhook_listener(&self, out: mpsc::Sender<Observation>, writer: &str) -> Arc<WebhookListener> {
        Arc::new(WebhookListener {
            keys: Keys::new(Arc::clone(&self.api.client), Arc::clone(&self.clock)),
            clock: Arc::clone(&self.clock),
            client: Arc::clone(&self.api.client),
            out,
            writer: writer.to_owned(),
            bot: Arc::clone(&self.bot),
            badges: Arc::clone(&self.badges),
            counts: Mutex::default(),
            state: Mutex::new(WebhookState {
                sources: BTreeMap::new(),
                // Twice the window, so that nothing can be replayed within it.
                received: RecentIds::new(2 * WINDOW, REMEMBERED_IDS),
                totals: BTreeMap::new(),
                proven: BTreeMap::new(),
                missed_events: MissedEvents::default(),
                stale_warned: None,
                unusable_warned: BTreeMap::new(),
            }),
        })
    }
}

impl WebhookListener {
    /// Sets the channels whose events count.
    pub fn track(&self, sources: &[SourceKey]) {
        self.state.lock().sources = by_number(PlatformName::Kick, sources);
    }

    /// Continues counting from this writer's stored totals.
    pub fn restore(&self, source: &SourceKey, totals: Counters) {
        if let Ok(id) = source.id().parse() {
            self.state.lock().totals.insert(id, totals);
        }
    }

    /// Returns the number of deliveries by result.
    pub fn counts(&self) -> WebhookCounts {
        *self.counts.lock()
    }

    fn count(&self, counter: impl FnOnce(&mut WebhookCounts) -> &mut u64, answer: StatusCode) -> StatusCode {
        *counter(&mut self.counts.lock()) += 1;
        answer
    }

    /// Records the observations of polls, to compare the webhooks with them.
    pub fn update(&self, observation: &Observation) {
        let stream_id = match &*observation.fact {
            Fact::StreamSeen { stream_id, .. } => Some(stream_id.as_str()),
            Fact::StreamAbsent => None,
            _ => return,
        };
        if observation.source.platform() == PlatformName::Kick
            && let Ok(id) = observation.source.id().parse()
        {
            self.state
                .lock()
                .missed_events
                .polled(id, stream_id, observation.at);
        }
    }

    /// Returns the sources whose webhooks were found to be missing since the last call, and the observations for each.
    /// Their subscriptions should be renewed; polls remain authoritative.
    pub fn take_missing(&self) -> Vec<(SourceKey, Vec<Observation>)> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let found = state.missed_events.found(now);
        let keys = found.iter().filter_map(|id| state.sources.get(id).cloned());
        keys.map(|key| {
            let words = "polls found a stream that no webhook announced; renewing its subscriptions";
            let mut facts = vec![facts::problem(Code::PushSilent(PlatformName::Kick), words)];
            facts.extend(facts::profile([("webhook", Some("silent"))]));
            let observations = facts
                .into_iter()
                .map(|fact| Observation::new(&key, now, BY_WEBHOOK, fact));
            (key.clone(), observations.collect())
        })
        .collect()
    }

    /// Processes one delivery and returns the response. Of a refused one only the count is stored.
    pub async fn receive(&self, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let Ok(delivery) = delivery::read(headers) else {
            return self.count(|counts| &mut counts.forged, StatusCode::UNAUTHORIZED);
        };
        let recent = delivery.is_recent(&self.clocks());
        if !recent && !self.warns_of_stale() {
            return self.count(|counts| &mut counts.stale, StatusCode::UNAUTHORIZED);
        }
        let signed = Signed {
            message_id: delivery.message_id,
            timestamp: delivery.timestamp,
            body,
            signature: &delivery.signature,
        };
        if !self.keys.verify(&signed).await {
            return self.count(|counts| &mut counts.forged, StatusCode::UNAUTHORIZED);
        }
        if !recent {
            self.warn_of_stale(&delivery);
            return self.count(|counts| &mut counts.stale, StatusCode::UNAUTHORIZED);
        }
        let event = match events::read(delivery.kind, body) {
            None => return self.count(|counts| &mut counts.other, StatusCode::OK),
            Some(Err(Unusable::OtherType)) => {
                return self.count(|counts| &mut counts.forged, StatusCode::UNAUTHORIZED);
            }
            Some(Err(Unusable::Incomplete)) => {
                self.warn_of_unusable(&delivery, body.len());
                return self.count(|counts| &mut counts.unusable, StatusCode::OK);
            }
            Some(Ok(event)) => event,
        };
        self.hand_on(&delivery, &event)
    }

    /// Records a delivery that Kick has signed. Anyone can send the others, and as many as they like.
    fn record(&self, headers: &HeaderMap, body: &[u8], status: StatusCode) {
        if let Some(tap) = self.client.http.tap()
            && status != StatusCode::UNAUTHORIZED
            && let Ok(delivery) = delivery::read(headers)
        {
            tap.webhook(delivery.kind, delivery.message_id, body, status.as_u16());
        }
    }

    /// Returns the current time by each clock that may be Kick's. Until the time of its responses is confirmed, that includes
    /// ours; afterwards ours does not count, or a recording could be replayed once each of the clocks reaches its time.
    fn clocks(&self) -> Vec<Timestamp> {
        let (now, skew) = (self.clock.now(), &self.client.skew);
        match skew.correction() {
            0 => {
                let measured = skew.measured().map(|offset| now.plus_millis(offset));
                [now].into_iter().chain(measured).collect()
            }
            correction => vec![now.plus_millis(correction)],
        }
    }

    /// Returns whether to warn about a stale delivery, if Kick has signed it: once in ten minutes.
    fn warns_of_stale(&self) -> bool {
        let now = self.clock.now();
        self.state
            .lock()
            .stale_warned
            .is_none_or(|last| !last.is_recent(WARNED_EVERY, now))
    }

    fn warn_of_stale(&self, delivery: &Delivery<'_>) {
        let now = self.clock.now();
        self.state.lock().stale_warned = Some(now);
        tracing::warn!(
            platform = "kick",
            code = %Code::PushStale(PlatformName::Kick),
            sent = %delivery.at,
            received = %now,
            "A webhook that Kick has signed was refused because its time is more than 5 minutes off; unless a recording was sent, \
             the clock of this machine is wrong (`bitbrat doctor kick` compares it). Polls find what it was about"
        );
    }

    /// Warns that a delivery that Kick has signed cannot be read, once in ten minutes and type: its event is lost, and without a
    /// warning that could not be distinguished from silence.
    fn warn_of_unusable(&self, delivery: &Delivery<'_>, length: usize) {
        let (now, kind) = (self.clock.now(), delivery.kind);
        {
            let mut state = self.state.lock();
            let last = state.unusable_warned.get(kind);
            if last.is_some_and(|last| last.is_recent(WARNED_EVERY, now)) {
                return;
            }
            // Only types that are used come here, so there are few.
            state.unusable_warned.insert(kind.to_owned(), now);
        }
        tracing::warn!(
            platform = "kick",
            code = %Code::PushUnreadable(PlatformName::Kick),
            event.kind = kind,
            length,
            "A webhook that Kick has signed cannot be read, or lacks a required field; polls find what it was about"
        );
    }

    fn hand_on(&self, delivery: &Delivery<'_>, event: &WebhookEvent) -> StatusCode {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(key) = state.sources.get(&event.broadcaster).cloned() else {
            return self.count(|counts| &mut counts.untracked, StatusCode::OK);
        };
        if !state.received.is_new(DELIVERY, delivery.message_id, now) {
            return self.count(|counts| &mut counts.duplicate, StatusCode::OK);
        }
        let line = match &event.event {
            Event::Chat { message_id, .. } => Some(message_id.as_str()),
            Event::Status { .. } | Event::Metadata { .. } => None,
        };
        if line.is_some_and(|line| !state.received.is_new(CHAT_MESSAGE, line, now)) {
            return self.count(|counts| &mut counts.duplicate, StatusCode::OK);
        }
        let facts = self.facts(&state, delivery, event);
        let Ok(places) = self.out.try_reserve_many(facts.len()) else {
            // Not accepted: if Kick sends it again, it is new.
            state.received.forget(DELIVERY, delivery.message_id);
            if let Some(line) = line {
                state.received.forget(CHAT_MESSAGE, line);
            }
            return self.count(|counts| &mut counts.held_off, StatusCode::SERVICE_UNAVAILABLE);
        };
        for (place, (at, fact)) in places.zip(facts) {
            state.remember(event, &fact, now);
            place.send(Observation::new(&key, at, BY_WEBHOOK, fact));
        }
        if let Event::Chat { sender, badges, .. } = &event.event
            && self.bot.is(*sender)
        {
            self.badges.saw(event.broadcaster, delivery.at, badges.clone());
        }
        self.count(|counts| &mut counts.accepted, StatusCode::OK)
    }

    /// Returns the facts of a delivery. Its time is the one that Kick has signed.
    fn facts(
        &self,
        state: &WebhookState,
        delivery: &Delivery<'_>,
        event: &WebhookEvent,
    ) -> Vec<(Timestamp, Fact)> {
        let at = delivery.at;
        let mut facts = Vec::new();
        let due = |last: &Timestamp| !last.is_recent(PROOF_EVERY, self.clock.now());
        if state.proven.get(&event.broadcaster).is_none_or(due) {
            facts.push((at, facts::up(Transport::Webhook)));
            let working = facts::profile([("webhook", Some("working"))]);
            facts.extend(working.map(|fact| (at, fact)));
        }
        match &event.event {
            Event::Status {
                live,
                started_at,
                title,
            } => {
                let started_at = started_at.as_deref().and_then(facts::started_at);
                let push = Fact::StreamPush {
                    live: *live,
                    // The time, not its text: the list of live streams may write the same start with another offset.
                    stream_id: started_at.map(|start| start.to_string()),
                    started_at,
                };
                facts.push((at, push));
                facts.extend(facts::profile([("title", title.as_deref())]).map(|fact| (at, fact)));
            }
            Event::Metadata { title, category } => {
                let about = facts::profile([("title", title.as_deref()), ("category", category.as_deref())]);
                facts.extend(about.map(|fact| (at, fact)));
            }
            // The bot's own messages are delivered too: they do not count as messages received, but they show its badges.
            Event::Chat { sender, badges, .. } if self.bot.is(*sender) => {
                let names: BTreeSet<_> = badges.iter().map(|kind| format!("badge:{kind}")).collect();
                let grants = crate::core::observation::Grants {
                    granted: names,
                    ..Default::default()
                };
                let method = BADGES_METHOD.to_owned();
                facts.push((
                    at,
                    Fact::Permissions {
                        method,
                        grants: grants.into(),
                    },
                ));
            }
            Event::Chat { .. } => {
                let mut totals = state.totals.get(&event.broadcaster).copied().unwrap_or_default();
                totals.messages_in += 1;
                totals.at = totals.at.max(Some(at));
                let writer = self.writer.clone();
                facts.push((at, Fact::Counters { writer, totals }));
            }
        }
        facts
    }
}

impl WebhookState {
    /// Stores what a published fact means for the next one.
    fn remember(&mut self, event: &WebhookEvent, fact: &Fact, now: Timestamp) {
        match fact {
            Fact::Connection { .. } => {
                self.proven.insert(event.broadcaster, now);
            }
            Fact::Counters { totals, .. } => {
                self.totals.insert(event.broadcaster, *totals);
            }
            Fact::StreamPush {
                stream_id: Some(id), ..
            } => self.missed_events.pushed(event.broadcaster, id),
            Fact::StreamPush { live: true, .. } => self.missed_events.pushed_unnamed(event.broadcaster),
            _ => {}
        }
    }
}

/// Returns the route that Kick posts to, to be merged into the web server.
pub fn routes(listener: Arc<WebhookListener>) -> Router {
    Router::new().route(PATH, post(receive)).with_state(listener)
}

async fn receive(State(listener): State<Arc<WebhookListener>>, headers: HeaderMap, body: Body) -> StatusCode {
    match axum::body::to_bytes(body, LARGEST_BODY).await {
        Ok(body) => {
            let status = listener.receive(&headers, &body).await;
            listener.record(&headers, &body, status);
            status
        }
        Err(_) => listener.count(|counts| &mut counts.oversized, StatusCode::PAYLOAD_TOO_LARGE),
    }
}
