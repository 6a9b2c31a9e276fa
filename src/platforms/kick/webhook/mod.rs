//! Takes Kick's webhooks: checks that Kick has sent them, counts what it refuses, and hands on what they tell.
//!
//! A delivery that fails is lost for good and silence proves nothing, so polls remain the truth. One key signs for all
//! applications: a good signature proves only that Kick has sent it to somebody.

mod delivery;
mod events;
mod keys;
mod seen;
mod silence;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::sync::mpsc;

use self::delivery::{Delivery, Refusal, WINDOW};
use self::events::{Event, Told, Unusable};
use self::keys::{Keys, Signed};
use self::seen::Seen;
use self::silence::Silence;
use super::facts::{self, BADGES_METHOD, BY_WEBHOOK};
use super::{BotId, KickPlatform, Subscribed};
use crate::clock::Clock;
use crate::core::counters::Counters;
use crate::core::observation::{Fact, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;

pub use events::{CHAT, METADATA, STATUS};

/// The path that Kick is to be told.
pub const PATH: &str = "/webhooks/kick";
/// The largest body that is read, in bytes.
const LARGEST_BODY: usize = 1024 * 1024;
/// Proof that webhooks arrive is told this often (ms) for each channel.
const PROOF_EVERY: i64 = 60_000;

/// Takes deliveries. One for the whole process.
pub struct WebhookListener {
    keys: Keys,
    clock: Arc<dyn Clock>,
    out: mpsc::Sender<Observation>,
    writer: String,
    bot: Arc<BotId>,
    badges: Arc<super::Badges>,
    subscribed: Arc<Subscribed>,
    counts: Counts,
    state: Mutex<Listening>,
}

struct Listening {
    sources: BTreeMap<u64, SourceKey>,
    messages: Seen,
    lines: Seen,
    totals: BTreeMap<u64, Counters>,
    proven: BTreeMap<u64, Timestamp>,
    silence: Silence,
}

/// How many deliveries were met with what.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    forged: AtomicU64,
    stale: AtomicU64,
    duplicate: AtomicU64,
    other: AtomicU64,
    untracked: AtomicU64,
    unusable: AtomicU64,
    oversized: AtomicU64,
    held_off: AtomicU64,
}

/// How many deliveries were met with what, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebhookCounts {
    /// Taken and handed on.
    pub accepted: u64,
    /// Not signed by Kick, misshapen, or of another type than claimed; answered 401.
    pub forged: u64,
    /// Too old or from the future, as a recording played back is; answered 401.
    pub stale: u64,
    /// Taken before; answered 200 and dropped.
    pub duplicate: u64,
    /// Of a type that we make nothing of.
    pub other: u64,
    /// About a channel that is not a source, or by a subscription that is not ours.
    pub untracked: u64,
    /// Of its type, but without something that we need.
    pub unusable: u64,
    /// Larger than 1 MiB; answered 413.
    pub oversized: u64,
    /// Refused with 503 because nobody took the observations away fast enough.
    pub held_off: u64,
}

impl KickPlatform {
    /// Prepares taking webhooks. Observations go to `out`; lines of chat are counted under the name `writer`.
    pub fn webhook_listener(&self, out: mpsc::Sender<Observation>, writer: &str) -> Arc<WebhookListener> {
        Arc::new(WebhookListener {
            keys: Keys::new(Arc::clone(&self.api.client), Arc::clone(&self.clock)),
            clock: Arc::clone(&self.clock),
            out,
            writer: writer.to_owned(),
            bot: Arc::clone(&self.bot),
            badges: Arc::clone(&self.badges),
            subscribed: Arc::clone(&self.subscribed),
            counts: Counts::default(),
            state: Mutex::new(Listening {
                sources: BTreeMap::new(),
                // Twice the window, so that nothing can be played back within it.
                messages: Seen::for_ms(2 * WINDOW),
                // A line keeps its id when it is delivered for two subscriptions.
                lines: Seen::for_ms(2 * WINDOW),
                totals: BTreeMap::new(),
                proven: BTreeMap::new(),
                silence: Silence::default(),
            }),
        })
    }
}

impl WebhookListener {
    /// Sets the channels whose events count.
    pub fn track(&self, sources: &[SourceKey]) {
        self.lock().sources = sources
            .iter()
            .filter(|key| key.platform() == PlatformName::Kick)
            .filter_map(|key| Some((key.id().parse().ok()?, key.clone())))
            .collect();
    }

    /// Goes on counting from what this writer has counted before.
    pub fn restore(&self, source: &SourceKey, totals: Counters) {
        if let Ok(id) = source.id().parse() {
            self.lock().totals.insert(id, totals);
        }
    }

    /// Returns how many deliveries were met with what.
    pub fn counts(&self) -> WebhookCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        WebhookCounts {
            accepted: read(&counts.accepted),
            forged: read(&counts.forged),
            stale: read(&counts.stale),
            duplicate: read(&counts.duplicate),
            other: read(&counts.other),
            untracked: read(&counts.untracked),
            unusable: read(&counts.unusable),
            oversized: read(&counts.oversized),
            held_off: read(&counts.held_off),
        }
    }

    /// Learns what polls have found, to hold the webhooks against it.
    pub fn learn(&self, observation: &Observation) {
        let stream_id = match &observation.fact {
            Fact::StreamSeen { stream_id, .. } => Some(stream_id.as_str()),
            Fact::StreamAbsent => None,
            _ => return,
        };
        if observation.source.platform() == PlatformName::Kick
            && let Ok(id) = observation.source.id().parse()
        {
            self.lock().silence.polled(id, stream_id, observation.at);
        }
    }

    /// Returns the sources whose webhooks have turned out to be silent since the last time, and what to observe of each.
    /// Their subscriptions should be renewed; polls go on telling the truth.
    pub fn fallen_silent(&self) -> Vec<(SourceKey, Vec<Observation>)> {
        let now = self.clock.now();
        let mut state = self.lock();
        let found = state.silence.found(now);
        let keys = found.iter().filter_map(|id| state.sources.get(id).cloned());
        keys.map(|key| {
            let words = "polls found a stream that no webhook told of; its subscriptions are renewed";
            let mut facts = vec![facts::problem("kick.webhook_silent", words)];
            facts.extend(facts::profile([("webhook", Some("silent"))]));
            let observations = facts
                .into_iter()
                .map(|fact| Observation::new(&key, now, BY_WEBHOOK, fact));
            (key.clone(), observations.collect())
        })
        .collect()
    }

    /// Takes one delivery and returns what to answer. Nothing of a refused one is kept but its count.
    pub async fn receive(&self, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let delivery = match delivery::read(headers, self.clock.now()) {
            Ok(delivery) => delivery,
            Err(Refusal::Misshapen) => return count(&self.counts.forged, StatusCode::UNAUTHORIZED),
            Err(Refusal::Stale) => return count(&self.counts.stale, StatusCode::UNAUTHORIZED),
        };
        let signed = Signed {
            message_id: delivery.message_id,
            timestamp: delivery.timestamp,
            body,
            signature: &delivery.signature,
        };
        if !self.keys.verify(&signed).await {
            return count(&self.counts.forged, StatusCode::UNAUTHORIZED);
        }
        let told = match events::read(delivery.kind, body) {
            None => return count(&self.counts.other, StatusCode::OK),
            Some(Err(Unusable::OtherType)) => {
                return count(&self.counts.forged, StatusCode::UNAUTHORIZED);
            }
            Some(Err(Unusable::Incomplete)) => return count(&self.counts.unusable, StatusCode::OK),
            Some(Ok(told)) => told,
        };
        self.hand_on(&delivery, &told)
    }

    fn hand_on(&self, delivery: &Delivery<'_>, told: &Told) -> StatusCode {
        let now = self.clock.now();
        let mut state = self.lock();
        let foreign = delivery
            .subscription_id
            .is_some_and(|id| self.subscribed.is_foreign(id));
        let Some(key) = state.sources.get(&told.broadcaster).filter(|_| !foreign).cloned() else {
            return count(&self.counts.untracked, StatusCode::OK);
        };
        if !state.messages.note(delivery.message_id, now) {
            return count(&self.counts.duplicate, StatusCode::OK);
        }
        let line = match &told.event {
            Event::Chat { message_id, .. } => Some(message_id.as_str()),
            Event::Status { .. } | Event::Metadata { .. } => None,
        };
        if line.is_some_and(|line| !state.lines.note(line, now)) {
            return count(&self.counts.duplicate, StatusCode::OK);
        }
        let facts = self.facts(&state, delivery, told);
        let Ok(places) = self.out.try_reserve_many(facts.len()) else {
            // Not taken: should Kick send it again, it is new.
            state.messages.forget(delivery.message_id);
            if let Some(line) = line {
                state.lines.forget(line);
            }
            return count(&self.counts.held_off, StatusCode::SERVICE_UNAVAILABLE);
        };
        for (place, (at, fact)) in places.zip(facts) {
            state.remember(told, &fact, now);
            place.send(Observation::new(&key, at, BY_WEBHOOK, fact));
        }
        if let Event::Chat { sender, badges, .. } = &told.event
            && self.bot.is(*sender)
        {
            self.badges.saw(told.broadcaster, delivery.at, badges.clone());
        }
        count(&self.counts.accepted, StatusCode::OK)
    }

    /// Returns what a delivery tells. Its time is the one that Kick has signed.
    fn facts(&self, state: &Listening, delivery: &Delivery<'_>, told: &Told) -> Vec<(Timestamp, Fact)> {
        let at = delivery.at;
        let mut facts = Vec::new();
        let due = |last: &Timestamp| self.clock.now().millis_since(*last) >= PROOF_EVERY;
        if state.proven.get(&told.broadcaster).is_none_or(due) {
            facts.push((at, facts::up(Transport::Webhook)));
            let working = facts::profile([("webhook", Some("working"))]);
            facts.extend(working.map(|fact| (at, fact)));
        }
        match &told.event {
            Event::Status {
                live,
                started_at,
                title,
            } => {
                let push = Fact::StreamPush {
                    live: *live,
                    stream_id: Some(started_at.clone()),
                    started_at: facts::started_at(started_at),
                };
                facts.push((at, push));
                facts.extend(facts::profile([("title", title.as_deref())]).map(|fact| (at, fact)));
            }
            Event::Metadata { title, category } => {
                let about = facts::profile([("title", title.as_deref()), ("category", category.as_deref())]);
                facts.extend(about.map(|fact| (at, fact)));
            }
            // The bot's own lines come back as an echo: they are no messages in, but they show its badges.
            Event::Chat { sender, badges, .. } if self.bot.is(*sender) => {
                let names: BTreeSet<_> = badges.iter().map(|kind| format!("badge:{kind}")).collect();
                let grants = crate::core::observation::Grants {
                    granted: names,
                    ..Default::default()
                };
                let method = BADGES_METHOD.to_owned();
                facts.push((at, Fact::Permissions { method, grants }));
            }
            Event::Chat { .. } => {
                let mut totals = state.totals.get(&told.broadcaster).copied().unwrap_or_default();
                totals.messages_in += 1;
                totals.at = totals.at.max(Some(at));
                let writer = self.writer.clone();
                facts.push((at, Fact::Counters { writer, totals }));
            }
        }
        facts
    }

    fn lock(&self) -> MutexGuard<'_, Listening> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// Keeps what a fact that is being handed on means for the next one.
    fn remember(&mut self, told: &Told, fact: &Fact, now: Timestamp) {
        match fact {
            Fact::Connection { .. } => {
                self.proven.insert(told.broadcaster, now);
            }
            Fact::Counters { totals, .. } => {
                self.totals.insert(told.broadcaster, *totals);
            }
            Fact::StreamPush {
                stream_id: Some(id), ..
            } => self.silence.pushed(told.broadcaster, id),
            _ => {}
        }
    }
}

fn count(counter: &AtomicU64, answer: StatusCode) -> StatusCode {
    counter.fetch_add(1, Ordering::Relaxed);
    answer
}

/// Returns the route that Kick posts to, to be merged into the web server.
pub fn routes(listener: Arc<WebhookListener>) -> Router {
    Router::new().route(PATH, post(take)).with_state(listener)
}

async fn take(State(listener): State<Arc<WebhookListener>>, headers: HeaderMap, body: Body) -> StatusCode {
    match axum::body::to_bytes(body, LARGEST_BODY).await {
        Ok(body) => listener.receive(&headers, &body).await,
        Err(_) => count(&listener.counts.oversized, StatusCode::PAYLOAD_TOO_LARGE),
    }
}
