//! State that all connections share: processed messages, pending events, counters, and known subscription costs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::events::{self, EVENTSUB, ParsedEvent};
use super::kinds::{Kind, Subscription};
use super::missed_events::MissedEvents;
use super::planner::Plan;
use super::rest::Bill;
use super::status::{ConnectionStatus, Status, SubscriptionState, SubscriptionStatus, Tally};
use crate::core::code::Code;
use crate::core::counters::Counters;
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::PlatformName;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::kit::dedup::RecentIds;
use crate::platforms::kit::totals::Totals;
use crate::platforms::{ListenerEvent, ProbeSet};
use crate::secrets;

/// A warning about unparsable events of one kind is repeated at most this often.
const UNREADABLE_EVERY: Duration = Duration::from_mins(1);
/// Maximum number of kinds for which that is remembered; their names come from outside.
const KINDS_REMEMBERED: usize = 64;
/// For this long the same cause of lost subscriptions is not logged again.
const ONE_CAUSE: Duration = Duration::from_mins(10);

/// Shared by all connections of a listener.
#[derive(Default)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// Notified when an event is pending.
    pub(super) pending_notify: Notify,
    /// Notified when the plan should be recomputed.
    pub(super) replan: Notify,
    /// Notified when a token has changed, for the listener.
    pub(super) retry: Notify,
    /// Counts token changes for the connections, which then retry refused subscriptions.
    pub(super) retries: watch::Sender<u64>,
}

/// How long the id of a message is remembered. Twitch repeats a message under its id for at most ten minutes; older messages
/// are dropped (see `events`).
const ID_RETENTION: Duration = Duration::from_mins(15);
/// Maximum number of ids remembered; at 100 messages a second, a quarter of an hour of them.
const REMEMBERED_IDS: usize = 90_000;

/// Ids of messages, over all sockets.
struct MessageIds(RecentIds);

impl Default for MessageIds {
    fn default() -> Self {
        Self(RecentIds::new(ID_RETENTION, REMEMBERED_IDS))
    }
}

#[derive(Default)]
struct State {
    pending: VecDeque<ListenerEvent>,
    /// Messages processed. Only this run needs them: processing an event again after a restart changes nothing.
    messages: MessageIds,
    /// Chat messages counted. These are remembered across restarts.
    chat: MessageIds,
    missed_events: MissedEvents,
    monitored: BTreeSet<SourceKey>,
    bot_user_id: Option<String>,
    writer: String,
    totals: Totals<SourceKey>,
    badges: BTreeMap<SourceKey, Vec<String>>,
    tally: Tally,
    incoming: BTreeMap<(String, Kind), Count>,
    connections: BTreeMap<String, ConnectionStatus>,
    subscriptions: BTreeMap<String, Vec<(Subscription, SubscriptionState)>>,
    /// By connection: its session, and those that it moved from.
    sessions: BTreeMap<String, Vec<String>>,
    costs: BTreeMap<String, u32>,
    max_cost: Option<u32>,
    cost_of_others: u32,
    plan: Option<Arc<Plan>>,
    bot_missing: Option<String>,
    /// Causes of lost subscriptions, and when they were last logged as a warning.
    warned: BTreeMap<String, Timestamp>,
    left_open: BTreeSet<SourceKey>,
    /// When the warning about unparsable events of a kind was last logged.
    unreadable: BTreeMap<String, Timestamp>,
    /// When the warning about stale messages was last logged.
    stale_warned: Option<Timestamp>,
}

impl State {
    /// Records an event that was subscribed to and cannot be parsed. Its content is lost until a poll finds it, which is worth a
    /// warning, but not for every message of a busy chat.
    fn unreadable(&mut self, kind: &str, now: Timestamp) {
        self.tally.unknown += 1;
        let lately = |last: &Timestamp| last.is_recent(UNREADABLE_EVERY, now);
        if self.unreadable.len() >= KINDS_REMEMBERED || self.unreadable.get(kind).is_some_and(lately) {
            return;
        }
        self.unreadable.insert(kind.to_owned(), now);
        tracing::warn!(
            platform = "twitch",
            event.kind = kind,
            "An event of a subscription cannot be read; polls will find what it was about"
        );
    }
}

impl State {
    /// Records a message that is too old. Late or repeated delivery causes one now and then; a wrong clock affects all of them,
    /// which is worth a warning.
    fn stale(&mut self, kind: &str, age: Duration, now: Timestamp) {
        self.tally.stale += 1;
        let lately = |last: Timestamp| last.is_recent(ONE_CAUSE, now);
        if self.stale_warned.is_some_and(lately) {
            tracing::debug!(
                kind,
                age_ms = age.as_millis(),
                "A pushed message is too old and was dropped"
            );
            return;
        }
        self.stale_warned = Some(now);
        tracing::warn!(
            platform = "twitch",
            code = %Code::PushStale(PlatformName::Twitch),
            event.kind = kind,
            age_s = age.as_secs(),
            "A pushed message was dropped because it is dated more than 10 minutes ago; unless it was sent late, the clock of \
             this machine or of the server is wrong (`bitbrat doctor twitch` compares them). Polls find what it was about"
        );
    }
}

/// The current time, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    /// By the clock that is most likely Twitch's.
    pub(super) now: Timestamp,
    /// By the earliest of the clocks that may be Twitch's. A message counts as stale only if it is stale by all of them: a wrong
    /// clock must not cause messages to be dropped.
    pub(super) earliest: Timestamp,
}

/// A notification as it was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notification<'a> {
    pub(super) id: &'a str,
    pub(super) kind: &'a str,
    pub(super) event: &'a str,
    /// The channel in the subscription's condition, for an event that does not name it.
    pub(super) channel: Option<&'a str>,
    /// When Twitch sent it, if specified.
    pub(super) at: Option<Timestamp>,
    pub(super) present: Present,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    events: u64,
    errors: u64,
    created_at: Option<Timestamp>,
    last_event_at: Option<Timestamp>,
    last_error_at: Option<Timestamp>,
}

impl Hub {
    pub(super) fn new(
        writer: &str,
        restored: BTreeMap<SourceKey, Counters>,
        left_open: BTreeSet<SourceKey>,
    ) -> Self {
        let hub = Self::default();
        {
            let mut state = hub.state.lock();
            writer.clone_into(&mut state.writer);
            state.totals = Totals::new(restored);
            state.left_open = left_open;
        }
        hub
    }

    /// Adds an event to the pending ones.
    pub(super) fn emit(&self, incoming: ListenerEvent) {
        self.state.lock().pending.push_back(incoming);
        self.pending_notify.notify_one();
    }

    pub(super) fn observe(&self, source: &SourceKey, at: Timestamp, fact: Fact) {
        self.emit(ListenerEvent::Observed(Observation::new(
            source, at, EVENTSUB, fact,
        )));
    }

    /// Requests a probe.
    pub(super) fn missed(&self, sources: impl IntoIterator<Item = SourceKey>, probes: ProbeSet) {
        let sources: Vec<_> = sources.into_iter().collect();
        if !sources.is_empty() {
            self.emit(ListenerEvent::Missed { sources, probes });
        }
    }

    /// Takes the oldest pending event.
    pub(super) fn next_to_emit(&self) -> Option<ListenerEvent> {
        self.state.lock().pending.pop_front()
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.state.lock().pending.is_empty()
    }

    /// Sets which channels are monitored and the bot's user id.
    pub(super) fn monitor(&self, sources: BTreeSet<SourceKey>, bot_user_id: Option<String>) {
        let mut state = self.state.lock();
        state.monitored = sources;
        state.bot_user_id = bot_user_id;
    }

    /// Processes a notification.
    pub(super) fn notified(&self, notification: &Notification<'_>) {
        let Notification {
            id,
            kind,
            event,
            channel,
            at,
            present: Present { now, earliest },
        } = *notification;
        let state = &mut *self.state.lock();
        if !id.is_empty() && !state.messages.0.is_new("message", id, now) {
            state.tally.duplicates += 1;
            return;
        }
        // Nothing happens in the future: a future time would outweigh everything that follows.
        let at = at.unwrap_or(now).min(now.plus_secs(60));
        if events::is_stale(earliest.since(at)) {
            state.stale(kind, earliest.since(at), now);
            return;
        }
        let Some(kind) = Kind::named(kind) else {
            state.tally.unknown += 1;
            return;
        };
        match events::read(kind, event, channel, state.bot_user_id.as_deref(), at) {
            ParsedEvent::Unreadable => state.unreadable(kind.name(), now),
            ParsedEvent::Facts(source, _) | ParsedEvent::Chat(events::ChatMessage { source, .. })
                if !state.monitored.contains(&source) =>
            {
                state.tally.foreign += 1;
            }
            ParsedEvent::Facts(source, reported) => {
                state.note_event(&source, kind, at);
                for observation in reported {
                    if let Fact::StreamPush { live, stream_id, .. } = &*observation.fact {
                        state
                            .missed_events
                            .pushed(&source, *live, stream_id.as_deref(), at);
                    }
                    state.pending.push_back(ListenerEvent::Observed(observation));
                }
                self.pending_notify.notify_one();
            }
            ParsedEvent::Chat(message) => {
                if state
                    .chat
                    .0
                    .is_new("chat", &format!("{}/{}", message.source.id(), message.id), now)
                {
                    state.note_event(&message.source, kind, at);
                    state.count_chat(&message, at);
                    self.pending_notify.notify_one();
                } else {
                    state.tally.duplicates += 1;
                }
            }
        }
    }

    /// Records a notification whose event cannot be parsed.
    pub(super) fn unreadable(&self, kind: &str, now: Timestamp) {
        self.state.lock().unreadable(kind, now);
    }

    /// Counts a message of unknown type.
    pub(super) fn unknown(&self) {
        self.state.lock().tally.unknown += 1;
    }

    /// Counts a frame that is no message of EventSub, and logs its beginning: whatever sends it should be investigated.
    pub(super) fn unreadable_frame(&self, connection: &str, text: &str, now: Timestamp) {
        self.state.lock().tally.unknown += 1;
        tracing::debug!(
            connection,
            bytes = text.len(),
            frame = secrets::quote(text),
            "A frame of EventSub cannot be read"
        );
        if self.is_new_cause("frame", now) {
            tracing::warn!(
                platform = "twitch",
                code = %Code::PushUnreadable(PlatformName::Twitch),
                "Frames of EventSub cannot be read; something between may send them (-v logs each)"
            );
        }
    }

    /// Counts a binary message. Twitch sends only text, so its sender should be investigated.
    pub(super) fn binary(&self, length: usize, now: Timestamp) {
        self.state.lock().tally.unknown += 1;
        if self.is_new_cause("binary", now) {
            tracing::warn!(
                platform = "twitch",
                code = %Code::PushUnreadable(PlatformName::Twitch),
                length,
                "A binary message came over EventSub and was dropped; Twitch sends texts only"
            );
        }
    }

    /// Counts an error of a subscription.
    pub(super) fn failed(&self, source: &SourceKey, kind: Kind, at: Timestamp) {
        let state = &mut *self.state.lock();
        state.tally.errors += 1;
        let count = state.incoming.entry((source.id().to_owned(), kind)).or_default();
        count.errors += 1;
        count.last_error_at = Some(at);
        state.totals.count(source, |totals| totals.errors += 1);
    }

    /// Records that Twitch accepted a subscription.
    pub(super) fn accepted(&self, source: &SourceKey, kind: Kind, at: Timestamp) {
        let mut state = self.state.lock();
        let count = state.incoming.entry((source.id().to_owned(), kind)).or_default();
        count.created_at = Some(at);
    }

    /// Counts a reconnect for the sources of a connection.
    pub(super) fn reconnected<'a>(&self, sources: impl IntoIterator<Item = &'a SourceKey>) {
        let state = &mut *self.state.lock();
        state.tally.reconnects += 1;
        for source in sources {
            state.totals.count(source, |totals| totals.reconnects += 1);
        }
    }

    /// Emits totals that have changed.
    pub(super) fn flush_totals(&self, at: Timestamp) {
        let state = &mut *self.state.lock();
        for (source, totals) in state.totals.take_changes(at) {
            let fact = Fact::Counters {
                writer: state.writer.clone(),
                totals,
            };
            let reported = Observation::new(&source, at, EVENTSUB, fact);
            state.pending.push_back(ListenerEvent::Observed(reported));
        }
        if !state.pending.is_empty() {
            self.pending_notify.notify_one();
        }
    }

    pub(super) fn missed_events<R>(&self, act: impl FnOnce(&mut MissedEvents) -> R) -> R {
        act(&mut self.state.lock().missed_events)
    }

    pub(super) fn memory(&self) -> Vec<(Timestamp, u64)> {
        self.state.lock().chat.0.memory()
    }

    pub(super) fn recall(&self, memory: Vec<(Timestamp, u64)>, now: Timestamp) {
        self.state.lock().chat.0.recall(memory, now);
    }

    /// Records a connection's session and those that it moved from: Twitch's list may still contain those.
    pub(super) fn note_sessions(&self, connection: &str, sessions: &[String]) {
        let mut state = self.state.lock();
        if sessions.is_empty() {
            state.sessions.remove(connection);
        } else {
            state.sessions.insert(connection.to_owned(), sessions.to_vec());
        }
    }

    /// Returns whether a session belongs to any of our connections.
    pub(super) fn is_own_session(&self, session: &str) -> bool {
        self.state
            .lock()
            .sessions
            .values()
            .flatten()
            .any(|own| own == session)
    }

    /// Records the actual cost of a subscription.
    pub(super) fn record_cost(&self, subscription: &Subscription, cost: u32, bill: Bill) {
        let state = &mut *self.state.lock();
        let mut is_changed = bill.max.is_some() && bill.max != state.max_cost;
        state.max_cost = bill.max.or(state.max_cost);
        if !subscription.kind.is_authorized() {
            is_changed |= state.costs.insert(subscription.channel.clone(), cost) != Some(cost);
        }
        if is_changed {
            self.replan.notify_one();
        }
    }

    /// Records the cost that others use.
    pub(super) fn record_cost_of_others(&self, cost: u32, max: Option<u32>) {
        let state = &mut *self.state.lock();
        let is_changed = state.cost_of_others != cost || (max.is_some() && max != state.max_cost);
        state.cost_of_others = cost;
        state.max_cost = max.or(state.max_cost);
        if is_changed {
            self.replan.notify_one();
        }
    }

    /// Discards what may have changed for channels that are not subscribed: the cost that others use, and the costs of polled
    /// channels. The next attempt determines them again.
    pub(super) fn forget_others(&self) {
        let state = &mut *self.state.lock();
        state.cost_of_others = 0;
        if let Some(plan) = &state.plan {
            let channels = plan
                .connections
                .iter()
                .flat_map(|connection| &connection.subscriptions);
            let subscribed: BTreeSet<_> = channels.map(|planned| &planned.subscription.channel).collect();
            state.costs.retain(|channel, _| subscribed.contains(channel));
        }
    }

    /// Discards a channel's cost, because Twitch now reports a different one.
    pub(super) fn forget_cost(&self, channel: &str) {
        self.state.lock().costs.remove(channel);
    }

    /// Returns costs by channel, the limit, and the cost that others use.
    pub(super) fn costs(&self) -> (BTreeMap<String, u32>, Option<u32>, u32) {
        let state = self.state.lock();
        (state.costs.clone(), state.max_cost, state.cost_of_others)
    }

    /// Records the plan in force. Links that an earlier run left open and that this plan does not cover are closed.
    pub(super) fn note_plan(&self, plan: Plan, at: Timestamp) {
        let left: Vec<_> = {
            let state = &mut *self.state.lock();
            let left = std::mem::take(&mut state.left_open);
            let gone = left
                .into_iter()
                .filter(|source| state.monitored.contains(source) && !plan.is_pushed(source));
            let gone = gone.collect();
            state.plan = Some(Arc::new(plan));
            gone
        };
        for source in left {
            let fact = Fact::Connection {
                transport: Transport::EventSub,
                state: LinkState::Closed,
            };
            self.observe(&source, at, fact);
        }
    }

    /// Records why the stored token of the bot cannot be used; `None` if it can, or if there is none.
    pub(super) fn note_bot(&self, missing: Option<String>) {
        self.state.lock().bot_missing = missing;
    }

    /// Returns whether a cause of lost subscriptions deserves a warning. One cause often ends all subscriptions at once.
    pub(super) fn is_new_cause(&self, cause: &str, at: Timestamp) -> bool {
        let warned = &mut self.state.lock().warned;
        warned.retain(|_, last| last.is_recent(ONE_CAUSE, at));
        warned.insert(cause.to_owned(), at).is_none()
    }

    /// Records the status of a connection and its subscriptions; `None` when it has ended.
    pub(super) fn note_connection(
        &self,
        connection: &str,
        status: Option<(ConnectionStatus, Vec<(Subscription, SubscriptionState)>)>,
    ) {
        let mut state = self.state.lock();
        if let Some((status, subscriptions)) = status {
            state.connections.insert(connection.to_owned(), status);
            state.subscriptions.insert(connection.to_owned(), subscriptions);
        } else {
            state.connections.remove(connection);
            state.subscriptions.remove(connection);
        }
    }

    /// Returns whether a connection is up.
    pub(super) fn is_connected(&self, connection: &str) -> bool {
        self.state
            .lock()
            .connections
            .get(connection)
            .is_some_and(ConnectionStatus::is_connected)
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state.lock();
        let by_connection = state
            .subscriptions
            .iter()
            .flat_map(|(connection, subscriptions)| {
                let connected = state
                    .connections
                    .get(connection)
                    .is_some_and(ConnectionStatus::has_session);
                subscriptions.iter().map(move |found| (connected, found))
            });
        let subscriptions = by_connection.map(|(connected, (subscription, status))| {
            let key = (subscription.channel.clone(), subscription.kind);
            let count = state.incoming.get(&key).copied().unwrap_or_default();
            SubscriptionStatus {
                channel: subscription.channel.clone(),
                event_type: subscription.kind.name(),
                // Subscriptions end with the session of their socket.
                status: if *status == SubscriptionState::Enabled && !connected {
                    SubscriptionState::NotConnected
                } else {
                    status.clone()
                },
                event_count: count.events,
                error_count: count.errors,
                created_at: count.created_at,
                last_event_at: count.last_event_at,
                last_error_at: count.last_error_at,
            }
        });
        Status {
            subscriptions: subscriptions.collect(),
            connections: state.connections.values().cloned().collect(),
            tally: state.tally,
            silent: state.missed_events.silent(),
            is_planned: state.plan.is_some(),
            plan: state.plan.clone().unwrap_or_default(),
            bot_user_id: state.bot_user_id.clone(),
            bot_missing: state.bot_missing.clone(),
        }
    }
}

impl State {
    fn note_event(&mut self, source: &SourceKey, kind: Kind, at: Timestamp) {
        self.tally.events += 1;
        let count = self.incoming.entry((source.id().to_owned(), kind)).or_default();
        count.events += 1;
        count.last_event_at = count.last_event_at.max(Some(at));
    }

    /// The bot's own messages provide its badges; messages of other channels are counted separately; the rest are messages
    /// received.
    fn count_chat(&mut self, message: &events::ChatMessage, at: Timestamp) {
        if Some(&message.chatter) == self.bot_user_id.as_ref() {
            let known = self.badges.insert(message.source.clone(), message.badges.clone());
            if known.as_ref() != Some(&message.badges) {
                let reported = events::badges(&message.source, &message.badges, at);
                self.pending.push_back(ListenerEvent::Observed(reported));
            }
        } else if message.foreign {
            self.tally.shared_chat += 1;
        } else {
            self.totals
                .count(&message.source, |totals| totals.messages_in += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::PlatformName;

    const EVENT: &str = r#"{"id":"4","broadcaster_user_id":"900200","started_at":"2026-05-01T18:00:07Z"}"#;

    fn push(hub: &Hub, id: &str, at: Option<Timestamp>, present: Present) {
        hub.notified(&Notification {
            id,
            kind: Kind::Online.name(),
            event: EVENT,
            channel: None,
            at,
            present,
        });
    }

    #[test]
    fn push_that_only_a_wrong_clock_makes_old_is_not_dropped() {
        let hub = Hub::default();
        let source = SourceKey::new(PlatformName::Twitch, "900200").unwrap();
        hub.monitor([source].into(), None);
        let now = Timestamp::EPOCH.plus_secs(1_800_000_000);
        let (sent, ahead) = (now.plus_secs(-900), now);
        let present = Present {
            now: ahead,
            earliest: sent,
        };
        push(&hub, "1", Some(sent), present);
        assert_eq!((hub.status().tally.events, hub.status().tally.stale), (1, 0));
        // The same message where every clock considers it stale.
        push(&hub, "2", Some(sent), Present { now, earliest: now });
        assert_eq!((hub.status().tally.events, hub.status().tally.stale), (1, 1));
        // A message without a time counts as sent now.
        push(&hub, "3", None, Present { now, earliest: now });
        assert_eq!((hub.status().tally.events, hub.status().tally.stale), (2, 1));
    }

    #[test]
    fn unreadable_frames_are_logged_masked_and_shortened() {
        let hub = Hub::default();
        let now = Timestamp::EPOCH.plus_secs(1_800_000_000);
        crate::secrets::register("frame-hush-0451");
        let frame = format!("<html>token=frame-hush-0451 {}", "x".repeat(10_000));
        let log = crate::telemetry::captured(|| {
            for _ in 0..3 {
                hub.unreadable_frame("bot", &frame, now);
            }
        });
        assert_eq!(hub.status().tally.unknown, 3);
        assert_eq!(log.matches("WARN").count(), 1, "{log}");
        assert_eq!(log.matches("DEBUG").count(), 3, "{log}");
        assert!(
            log.contains("<html>") && log.contains("twitch.push_unreadable"),
            "{log}"
        );
        assert!(!log.contains("hush-0451") && log.len() < 5_000, "{log}");
    }

    #[test]
    fn dropped_old_pushes_are_warned_of_once_and_counted() {
        let hub = Hub::default();
        let now = Timestamp::EPOCH.plus_secs(1_800_000_000);
        let log = crate::telemetry::captured(|| {
            for id in ["1", "2", "3"] {
                push(
                    &hub,
                    id,
                    Some(now.plus_secs(-900)),
                    Present { now, earliest: now },
                );
            }
        });
        assert_eq!(hub.status().tally.stale, 3);
        assert_eq!(log.matches("WARN").count(), 1, "{log}");
        assert!(
            log.contains("twitch.push_stale") && log.contains("clock"),
            "{log}"
        );
    }
}
