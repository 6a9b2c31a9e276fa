//! What all lines share: what was heard, what is to be told, what was counted, and what is known about costs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::events::{self, EVENTSUB, Told};
use super::kinds::{Kind, Subscription};
use super::planner::Plan;
use super::rest::Bill;
use super::seen::Seen;
use super::silence::Silence;
use super::status::{LineStatus, Status, SubscriptionStatus, Tally};
use crate::core::counters::Counters;
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::{Heard, ProbeSet};

/// Shared by all lines of a listener.
#[derive(Default)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// Rings when there is something to tell.
    pub(super) bell: Notify,
    /// Rings when the plan should be made anew.
    pub(super) replan: Notify,
}

#[derive(Default)]
struct State {
    outbox: VecDeque<Heard>,
    /// Messages heard. Only this run needs them: hearing an event again after a restart changes nothing.
    messages: Seen,
    /// Chat lines counted. Those are remembered across restarts.
    chat: Seen,
    silence: Silence,
    attended: BTreeSet<SourceKey>,
    bot_user_id: Option<String>,
    writer: String,
    totals: BTreeMap<SourceKey, Counters>,
    changed: BTreeSet<SourceKey>,
    badges: BTreeMap<SourceKey, Vec<String>>,
    tally: Tally,
    heard: BTreeMap<(String, Kind), Count>,
    lines: BTreeMap<String, LineStatus>,
    subscriptions: BTreeMap<String, Vec<(Subscription, String)>>,
    /// By line: its session, and those that it moved from.
    sessions: BTreeMap<String, Vec<String>>,
    costs: BTreeMap<String, u32>,
    max_cost: Option<u32>,
    cost_of_others: u32,
    plan: Option<Arc<Plan>>,
    left_open: BTreeSet<SourceKey>,
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
            let mut state = hub.lock();
            writer.clone_into(&mut state.writer);
            state.totals = restored;
            state.left_open = left_open;
        }
        hub
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something into the outbox.
    pub(super) fn tell(&self, heard: Heard) {
        self.lock().outbox.push_back(heard);
        self.bell.notify_one();
    }

    pub(super) fn observe(&self, source: &SourceKey, at: Timestamp, fact: Fact) {
        self.tell(Heard::Observed(Observation::new(source, at, EVENTSUB, fact)));
    }

    /// Asks for a look.
    pub(super) fn missed(&self, sources: impl IntoIterator<Item = SourceKey>, probes: ProbeSet) {
        let sources: Vec<_> = sources.into_iter().collect();
        if !sources.is_empty() {
            self.tell(Heard::Missed { sources, probes });
        }
    }

    /// Takes the oldest thing to tell.
    pub(super) fn next_to_tell(&self) -> Option<Heard> {
        self.lock().outbox.pop_front()
    }

    pub(super) fn has_something_to_tell(&self) -> bool {
        !self.lock().outbox.is_empty()
    }

    /// Sets which channels are attended and who the bot is.
    pub(super) fn attend(&self, sources: BTreeSet<SourceKey>, bot_user_id: Option<String>) {
        let mut state = self.lock();
        state.attended = sources;
        state.bot_user_id = bot_user_id;
    }

    /// Takes in a notification. `now` is the present in Twitch's time, `at` when Twitch sent it.
    pub(super) fn notified(&self, id: &str, kind: &str, event: &str, at: Option<Timestamp>, now: Timestamp) {
        let state = &mut *self.lock();
        if !id.is_empty() && !state.messages.is_new("message", id, now) {
            state.tally.duplicates += 1;
            return;
        }
        // Nothing happens in the future: a time that lies there would outweigh everything that follows.
        let at = at.unwrap_or(now).min(now.plus_secs(60));
        if events::is_stale(now.millis_since(at)) {
            state.tally.stale += 1;
            tracing::debug!(kind, age_ms = now.millis_since(at), "An old message is not heard");
            return;
        }
        let Some(kind) = Kind::named(kind) else {
            state.tally.unknown += 1;
            return;
        };
        match events::read(kind, event, state.bot_user_id.as_deref(), at) {
            Told::Nothing => state.tally.unknown += 1,
            Told::Facts(source, _) | Told::Chat(events::Line { source, .. })
                if !state.attended.contains(&source) =>
            {
                state.tally.foreign += 1;
            }
            Told::Facts(source, told) => {
                state.note_event(&source, kind, at);
                for observation in told {
                    if let Fact::StreamPush { live, stream_id, .. } = &observation.fact {
                        state.silence.pushed(&source, *live, stream_id.as_deref(), at);
                    }
                    state.outbox.push_back(Heard::Observed(observation));
                }
                self.bell.notify_one();
            }
            Told::Chat(line) => {
                if state
                    .chat
                    .is_new("chat", &format!("{}/{}", line.source.id(), line.id), now)
                {
                    state.note_event(&line.source, kind, at);
                    state.count_chat(&line, at);
                    self.bell.notify_one();
                } else {
                    state.tally.duplicates += 1;
                }
            }
        }
    }

    /// Counts a message that was not understood.
    pub(super) fn unknown(&self) {
        self.lock().tally.unknown += 1;
    }

    /// Counts an error of a subscription.
    pub(super) fn failed(&self, source: &SourceKey, kind: Kind, at: Timestamp) {
        let state = &mut *self.lock();
        state.tally.errors += 1;
        let count = state.heard.entry((source.id().to_owned(), kind)).or_default();
        count.errors += 1;
        count.last_error_at = Some(at);
        state.count(source, |totals| totals.errors += 1);
    }

    /// Notes that Twitch accepted a subscription.
    pub(super) fn accepted(&self, source: &SourceKey, kind: Kind, at: Timestamp) {
        let mut state = self.lock();
        let count = state.heard.entry((source.id().to_owned(), kind)).or_default();
        count.created_at = Some(at);
    }

    /// Counts a reconnection for the sources of a line.
    pub(super) fn reconnected<'a>(&self, sources: impl IntoIterator<Item = &'a SourceKey>) {
        let state = &mut *self.lock();
        state.tally.reconnects += 1;
        for source in sources {
            state.count(source, |totals| totals.reconnects += 1);
        }
    }

    /// Puts totals that have changed into the outbox.
    pub(super) fn flush_totals(&self, at: Timestamp) {
        let state = &mut *self.lock();
        for source in std::mem::take(&mut state.changed) {
            let mut totals = state.totals.get(&source).copied().unwrap_or_default();
            totals.at = Some(at);
            let fact = Fact::Counters {
                writer: state.writer.clone(),
                totals,
            };
            let told = Observation::new(&source, at, EVENTSUB, fact);
            state.outbox.push_back(Heard::Observed(told));
        }
        if !state.outbox.is_empty() {
            self.bell.notify_one();
        }
    }

    pub(super) fn silence<R>(&self, act: impl FnOnce(&mut Silence) -> R) -> R {
        act(&mut self.lock().silence)
    }

    pub(super) fn memory(&self) -> Vec<(Timestamp, u64)> {
        self.lock().chat.memory()
    }

    pub(super) fn recall(&self, memory: Vec<(Timestamp, u64)>, now: Timestamp) {
        self.lock().chat.recall(memory, now);
    }

    /// Notes which session a line has, with those that it moved from: a list may still show those.
    pub(super) fn note_sessions(&self, line: &str, sessions: &[String]) {
        let mut state = self.lock();
        if sessions.is_empty() {
            state.sessions.remove(line);
        } else {
            state.sessions.insert(line.to_owned(), sessions.to_vec());
        }
    }

    /// Returns whether a session is one of ours, on any line.
    pub(super) fn is_own_session(&self, session: &str) -> bool {
        self.lock().sessions.values().flatten().any(|own| own == session)
    }

    /// Learns what a subscription turned out to cost.
    pub(super) fn learn_cost(&self, subscription: &Subscription, cost: u32, bill: Bill) {
        let state = &mut *self.lock();
        let mut news = bill.max.is_some() && bill.max != state.max_cost;
        state.max_cost = bill.max.or(state.max_cost);
        if !subscription.kind.is_authorised() {
            news |= state.costs.insert(subscription.channel.clone(), cost) != Some(cost);
        }
        if news {
            self.replan.notify_one();
        }
    }

    /// Learns which points are in use by others.
    pub(super) fn learn_others(&self, cost: u32, max: Option<u32>) {
        let state = &mut *self.lock();
        let news = state.cost_of_others != cost || (max.is_some() && max != state.max_cost);
        state.cost_of_others = cost;
        state.max_cost = max.or(state.max_cost);
        if news {
            self.replan.notify_one();
        }
    }

    /// Forgets what may have changed where we do not listen: what others use, and what polled channels had cost. Trying
    /// tells.
    pub(super) fn forget_others(&self) {
        let state = &mut *self.lock();
        state.cost_of_others = 0;
        if let Some(plan) = &state.plan {
            let channels = plan.lines.iter().flat_map(|line| &line.subscriptions);
            let listened: BTreeSet<_> = channels.map(|planned| &planned.subscription.channel).collect();
            state.costs.retain(|channel, _| listened.contains(channel));
        }
    }

    /// Forgets what a channel had cost, because Twitch sees it otherwise now.
    pub(super) fn forget_cost(&self, channel: &str) {
        self.lock().costs.remove(channel);
    }

    /// Returns costs by channel, the limit, and what others use.
    pub(super) fn costs(&self) -> (BTreeMap<String, u32>, Option<u32>, u32) {
        let state = self.lock();
        (state.costs.clone(), state.max_cost, state.cost_of_others)
    }

    /// Takes a plan in force. What an earlier run left open and this one does not listen to is closed.
    pub(super) fn note_plan(&self, plan: Plan, at: Timestamp) {
        let left: Vec<_> = {
            let state = &mut *self.lock();
            let left = std::mem::take(&mut state.left_open);
            let gone = left
                .into_iter()
                .filter(|source| state.attended.contains(source) && !plan.is_pushed(source));
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

    /// Notes how a line and its subscriptions stand; `None` when it is no more.
    pub(super) fn note_line(&self, line: &str, status: Option<(LineStatus, Vec<(Subscription, String)>)>) {
        let mut state = self.lock();
        if let Some((status, subscriptions)) = status {
            state.lines.insert(line.to_owned(), status);
            state.subscriptions.insert(line.to_owned(), subscriptions);
        } else {
            state.lines.remove(line);
            state.subscriptions.remove(line);
        }
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        let subscriptions = state
            .subscriptions
            .values()
            .flatten()
            .map(|(subscription, status)| {
                let key = (subscription.channel.clone(), subscription.kind);
                let count = state.heard.get(&key).copied().unwrap_or_default();
                SubscriptionStatus {
                    channel: subscription.channel.clone(),
                    event_type: subscription.kind.name(),
                    status: status.clone(),
                    event_count: count.events,
                    error_count: count.errors,
                    created_at: count.created_at,
                    last_event_at: count.last_event_at,
                    last_error_at: count.last_error_at,
                }
            });
        Status {
            subscriptions: subscriptions.collect(),
            lines: state.lines.values().cloned().collect(),
            tally: state.tally,
            silent: state.silence.silent(),
            is_planned: state.plan.is_some(),
            plan: state.plan.clone().unwrap_or_default(),
        }
    }
}

impl State {
    fn note_event(&mut self, source: &SourceKey, kind: Kind, at: Timestamp) {
        self.tally.events += 1;
        let count = self.heard.entry((source.id().to_owned(), kind)).or_default();
        count.events += 1;
        count.last_event_at = count.last_event_at.max(Some(at));
    }

    /// The bot's own lines tell its badges; lines of other channels are counted apart; the rest are messages received.
    fn count_chat(&mut self, line: &events::Line, at: Timestamp) {
        if Some(&line.chatter) == self.bot_user_id.as_ref() {
            let known = self.badges.insert(line.source.clone(), line.badges.clone());
            if known.as_ref() != Some(&line.badges) {
                let told = events::badges(&line.source, &line.badges, at);
                self.outbox.push_back(Heard::Observed(told));
            }
        } else if line.foreign {
            self.tally.shared_chat += 1;
        } else {
            self.count(&line.source, |totals| totals.messages_in += 1);
        }
    }

    fn count(&mut self, source: &SourceKey, add: impl FnOnce(&mut Counters)) {
        add(self.totals.entry(source.clone()).or_default());
        self.changed.insert(source.clone());
    }
}
