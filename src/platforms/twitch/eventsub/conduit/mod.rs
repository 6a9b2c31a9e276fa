//! A conduit: subscriptions that belong to the application and survive sockets, and a socket that receives the messages of some of
//! its shards.
//!
//! Pure: `shards`. The others: `setup` finds or creates the conduit, `rest` and `calls` make the calls, `results` applies their answers,
//! `incoming` the messages of the socket, `status` publishes. The socket has the same life cycle as any other (`machine`); in place of subscriptions, assigning the shards makes it proven.

mod calls;
mod incoming;
mod rest;
mod results;
mod setup;
mod shards;
mod status;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{BoxStream, SelectAll, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::calls::ConduitCalls;
use self::rest::ConduitInfo;
use self::shards::Health;
use super::connection::calls::Calls;
use super::connection::clocks::Clocks;
use super::connection::reports::{Reports, source_of};
use super::connection::{Context, connection_name};
use super::hub::Present;
use super::kinds::{Kind, Subscription};
use super::machine::{self, Effect, Failure, Input, Millis, Phase, SocketId, State};
use super::rest::Target;
use super::socket::Frame;
use super::subscription_set::{Coverage, Stand, SubscriptionSet};
use crate::core::code::Code;
use crate::core::observation::ErrorInfo;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::twitch::options;

pub use setup::{ConduitFile, ConduitMemory, ConduitOptions};

/// The loop checks the clocks at least this often.
const LONGEST_SLEEP: Millis = 5_000;
/// Maximum number of messages read at once.
const MAX_FRAMES_AT_ONCE: usize = 1_000;
/// How often the shards are checked: that one is disabled may not be reported.
const CHECK_SHARDS: Millis = 60_000;
/// How soon they are checked again after a failure.
const CHECK_AGAIN: Millis = 5_000;
/// The wait between two attempts to assign shards to a new session, which has ten seconds for its first use.
const ATTACH_AGAIN: Millis = 1_000;
/// How often Twitch's list of subscriptions is compared with ours.
const COMPARE: Millis = 10 * 60_000;
/// How soon the list is requested again while subscriptions are missing that another process creates, or after a failure.
const COMPARE_AGAIN: Millis = 20_000;
/// The waits between two attempts to find or create the conduit.
const SETUP_AGAIN: [Millis; 2] = [10_000, 60_000];

/// What is due, and when.
#[derive(Debug, Default)]
struct Due {
    /// Finding or creating the conduit.
    setup: Option<Millis>,
    shards: Option<Millis>,
    attach: Option<Millis>,
    list: Option<Millis>,
}

/// The loop of a conduit.
pub(super) struct Conduit {
    cx: Context,
    options: ConduitOptions,
    name: String,
    wanted: watch::Receiver<Vec<Subscription>>,
    retries: watch::Receiver<u64>,
    conduit: Option<ConduitInfo>,
    state: State,
    subscriptions: SubscriptionSet,
    /// Whether Twitch's list was read since the conduit is known: nothing is created before.
    is_listed: bool,
    clocks: Clocks,
    frames: SelectAll<BoxStream<'static, (SocketId, Frame)>>,
    closers: HashMap<SocketId, oneshot::Sender<()>>,
    calls: Calls,
    conduit_calls: ConduitCalls,
    reports: Reports,
    health: Health,
    due: Due,
    /// Whether sources are reported as covered.
    is_covering: bool,
    setup_failures: usize,
    /// Why shards could not be assigned.
    not_attached: Option<String>,
    last_error: Option<ErrorInfo>,
    next_missed_check: Millis,
    dirty: bool,
}

impl Conduit {
    pub(super) fn new(
        cx: Context,
        options: ConduitOptions,
        wanted: watch::Receiver<Vec<Subscription>>,
    ) -> Self {
        let clocks = Clocks::new(cx.twitch.clock.now(), cx.pace);
        let identity = options::app();
        Self {
            name: connection_name(&identity, 0),
            wanted,
            retries: cx.hub.retries.subscribe(),
            conduit: None,
            state: State::new(0),
            subscriptions: SubscriptionSet::default(),
            is_listed: false,
            clocks,
            frames: SelectAll::new(),
            closers: HashMap::new(),
            calls: Calls::new(cx.clone(), identity),
            conduit_calls: ConduitCalls::new(Arc::clone(&cx.twitch)),
            reports: Reports::new(Arc::clone(&cx.hub)),
            health: Health::default(),
            due: Due {
                setup: Some(0),
                ..Due::default()
            },
            is_covering: false,
            setup_failures: 0,
            not_attached: None,
            last_error: None,
            next_missed_check: LONGEST_SLEEP,
            dirty: true,
            options,
            cx,
        }
    }

    /// Runs until `stop`, then closes the socket. Neither the conduit nor its subscriptions are deleted: the next start, or
    /// another process, continues with them.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.desire();
        while self.state.phase != Phase::Stopped {
            let sleep_time = self.sleep_time();
            tokio::select! {
                () = stop.cancelled() => self.step(Input::Stop),
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.desire(),
                    Err(_) => self.step(Input::Stop),
                },
                Ok(()) = self.retries.changed() => self.retry(),
                Some((socket, frame)) = self.frames.next(), if !self.frames.is_empty() => self.frame(socket, frame),
                Some(completed) = self.calls.next(), if !self.calls.is_empty() => self.completed(completed),
                Some(finished) = self.conduit_calls.next(), if !self.conduit_calls.is_empty() => self.finished(finished),
                () = tokio::time::sleep(sleep_time) => {}
            }
            self.run_due();
        }
        // A graceful close takes a moment, and messages received until then still count.
        while let Some((socket, frame)) = self.frames.next().await {
            self.frame(socket, frame);
        }
        self.cx.hub.note_sessions(&self.name, &[]);
        self.cx.hub.note_connection(&self.name, None);
    }

    fn now(&self) -> Millis {
        self.clocks.now()
    }

    /// The current time by Twitch's clock.
    fn twitch_now(&self) -> Timestamp {
        self.clocks
            .theirs(self.cx.twitch.clock.now(), &self.cx.twitch.skew)
    }

    fn present(&self) -> Present {
        let ours = self.cx.twitch.clock.now();
        Present {
            now: self.twitch_now(),
            earliest: self.clocks.earliest(ours, &self.cx.twitch.skew),
        }
    }

    fn session(&self) -> Option<String> {
        self.state.session().map(|session| session.id.clone())
    }

    /// Whether messages about every subscribed channel are received.
    fn delivers(&self) -> bool {
        let conduit = self.conduit.as_ref();
        self.state.is_up() && conduit.is_some_and(|conduit| self.health.loses_nothing(conduit.shard_count))
    }

    fn sleep_time(&self) -> Duration {
        let now = self.now();
        let socket = self.state.deadline().filter(|_| self.conduit.is_some());
        let creating = self
            .subscriptions
            .deadline()
            .filter(|_| self.is_listed && self.options.keeps_subscriptions());
        let deadlines = [
            socket,
            creating,
            self.due.setup,
            self.due.shards,
            self.due.attach,
            self.due.list,
            Some(self.reports.deadline()),
            Some(now + LONGEST_SLEEP),
        ];
        let next = deadlines.into_iter().flatten().min().unwrap_or(now);
        // Never zero: work that is due but cannot be done yet must not cause a busy loop.
        Duration::from_millis(next.saturating_sub(now).max(5)) / self.cx.pace
    }

    /// Does everything that is due.
    fn run_due(&mut self) {
        let now = self.now();
        if self.cx.watch_clock && self.clocks.jumped(self.cx.twitch.clock.now()).is_some() {
            info!(connection = self.name, "The clock jumped; connecting afresh");
            self.step(Input::Jumped);
        }
        let take = |due: &mut Option<Millis>| due.take_if(|at| *at <= now).is_some();
        if take(&mut self.due.setup) {
            self.conduit_calls.establish(self.options.clone());
        }
        if let Some(conduit) = self.conduit.clone() {
            self.tick();
            if take(&mut self.due.shards) {
                self.conduit_calls.check(conduit.id.clone());
            }
            if take(&mut self.due.list) {
                self.calls.list_conduit(conduit.id.clone());
            }
            if take(&mut self.due.attach) {
                self.attach(&conduit.id);
            }
            self.create_due(&conduit.id);
        }
        let at = self.twitch_now();
        self.reports
            .report_unaccepted(now, self.is_covering, &self.subscriptions);
        self.reports.request_probes(now, self.subscriptions.is_complete());
        self.reports
            .heartbeat(now, self.is_covering, &self.subscriptions, at);
        if self.next_missed_check <= now {
            self.next_missed_check = now + LONGEST_SLEEP;
            self.detect_missed_events();
        }
        self.publish();
    }

    /// Executes a timeout of the socket. If the loop itself was delayed, frames that are ready are read before.
    fn tick(&mut self) {
        let is_due = |conduit: &Self| {
            let now = conduit.now();
            conduit.state.deadline().is_some_and(|deadline| deadline <= now)
        };
        for _ in 0..MAX_FRAMES_AT_ONCE {
            if !is_due(self) {
                return;
            }
            match self.frames.next().now_or_never() {
                Some(Some((socket, frame))) => self.frame(socket, frame),
                _ => break,
            }
        }
        if is_due(self) {
            self.step(Input::Tick);
        }
    }

    /// Assigns those of our shards that are lost, and all of them to a new session.
    fn attach(&mut self, id: &str) {
        let Some(session) = self.session() else { return };
        let conduit = self.conduit.as_ref();
        let count = conduit.map_or(0, |conduit| conduit.shard_count);
        let lost = if self.state.is_up() {
            self.health.lost.clone()
        } else {
            self.options.own_shards.clone()
        };
        let lost: Vec<_> = lost.into_iter().filter(|shard| *shard < count).collect();
        if lost.is_empty() {
            self.not_attached = Some(format!("the conduit has {count} shards, none of which is ours"));
            return;
        }
        self.conduit_calls.attach(id.to_owned(), session, lost);
    }

    fn create_due(&mut self, id: &str) {
        let surplus = self.subscriptions.take_surplus();
        if !self.options.keeps_subscriptions() || !self.is_listed {
            return;
        }
        for surplus in surplus {
            self.calls.delete(surplus);
        }
        for subscription in self.subscriptions.take_due(self.now()) {
            self.calls.create_on(Target::Conduit(id.to_owned()), subscription);
        }
    }

    fn step(&mut self, input: Input) {
        let chance = self.cx.twitch.helix.chance.fraction();
        let state = std::mem::replace(&mut self.state, State::new(0));
        let (state, effects) = machine::next(state, input, self.now(), chance);
        self.state = state;
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.dirty = true;
        let now = self.now();
        match effect {
            Effect::Open { socket, url } => self.calls.open(socket, url),
            Effect::Close(socket) => drop(self.closers.remove(&socket)),
            Effect::Subscribe { session } => {
                debug!(connection = self.name, "Welcomed");
                self.cx.hub.note_sessions(&self.name, &[session]);
                self.not_attached = None;
                self.due.attach = Some(now);
            }
            Effect::Moved { session } => {
                info!(connection = self.name, "Moved to another address of Twitch's");
                self.cx.hub.note_sessions(&self.name, &[session]);
                // The shards should have moved too, which the list shows.
                self.due.shards = Some(now);
            }
            Effect::Up => {
                info!(connection = self.name, shards = ?self.options.own_shards, "Receiving the messages of shards");
                self.last_error = None;
                self.due.shards = Some(now);
            }
            Effect::Down(failure) => self.down(failure),
            Effect::Ended => {
                self.reports.close_all(self.twitch_now());
                self.closers.clear();
            }
        }
    }

    fn down(&mut self, mut failure: Failure) {
        if let (Code::TwitchSessionUnused, Some(reason)) = (failure.code, &self.not_attached) {
            failure.code = Code::TwitchConduitShards;
            failure.reason = format!("shards could not be assigned to the session: {reason}");
        }
        self.cx.hub.note_sessions(&self.name, &[]);
        self.due.attach = None;
        self.uncover(failure);
    }

    /// Records that messages may be lost. Sources are reported as not covered unless that ends soon.
    fn uncover(&mut self, failure: Failure) {
        let (now, at) = (self.now(), self.twitch_now());
        self.dirty = true;
        self.is_covering = false;
        self.last_error = Some(ErrorInfo::new(failure.code, &failure.reason));
        if self.cx.hub.is_new_cause(&format!("conduit {}", failure.code), at) {
            warn!(connection = self.name, code = %failure.code, reason = failure.reason, "Not receiving everything from Twitch");
        }
        self.reports.down(failure, now, at);
    }

    /// Reports the sources as covered, and has them probed once: during the gap any of them may have had events, because which
    /// shard a channel belongs to is not documented.
    fn cover(&mut self) {
        let (now, at) = (self.now(), self.twitch_now());
        self.dirty = true;
        self.last_error = None;
        if !std::mem::replace(&mut self.is_covering, true) {
            self.reports.up(now, at);
        }
        let enabled: Vec<_> = self
            .subscriptions
            .stands()
            .filter(|(_, stand)| matches!(stand, Stand::Enabled { .. }))
            .map(|(subscription, _)| subscription.clone())
            .collect();
        for subscription in enabled {
            self.accepted(&subscription);
        }
    }

    fn accepted(&mut self, subscription: &Subscription) {
        let is_whole = self.subscriptions.coverage(&subscription.channel) == Coverage::Whole;
        let (now, at) = (self.now(), self.twitch_now());
        if self.is_covering {
            self.reports.accepted(subscription, is_whole, now, at);
        }
    }

    fn desire(&mut self) {
        let mut wanted = self.wanted.borrow_and_update().clone();
        let (now, at) = (self.now(), self.twitch_now());
        let of_streams = wanted
            .iter()
            .filter(|subscription| subscription.kind.is_of_stream());
        let sources: BTreeSet<SourceKey> = of_streams.filter_map(source_of).collect();
        self.reports.set_sources(sources, at);
        let client = self.cx.twitch.options.client_id.clone().unwrap_or_default();
        wanted.push(Subscription::new(Kind::ShardDisabled, &client));
        wanted.push(Subscription::new(Kind::AuthorizationRevoke, &client));
        self.subscriptions.desire(wanted, now);
        self.reports.expect(now, at);
        self.dirty = true;
    }

    /// A token has changed, or someone corrected something: nothing waits longer.
    fn retry(&mut self) {
        let now = self.now();
        self.subscriptions.retry_refused(now);
        self.due.setup = self.due.setup.map(|at| at.min(now));
    }

    /// The conduit does not exist any more, and its subscriptions are gone with it.
    fn lost_conduit(&mut self) {
        let Some(lost) = self.conduit.take() else { return };
        warn!(
            conduit = lost.id,
            "The conduit does not exist any more; its subscriptions are created again"
        );
        let now = self.now();
        self.is_listed = false;
        self.subscriptions.start_over(now);
        self.due = Due {
            setup: Some(now),
            ..Due::default()
        };
        self.health = Health::default();
        let reason = format!("the conduit `{}` does not exist any more", lost.id);
        self.uncover(Failure::transient(Code::TwitchConduit, reason));
    }
}
