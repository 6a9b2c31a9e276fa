//! EventSub over websockets: hearing at once who goes live, and never claiming to hear what was not promised.
//!
//! `planner` decides who is listened to, `machine` how a line lives, `roster` what is subscribed to, `events` what an
//! event proves, `silence` when to distrust a line: those are pure. `line` is the loop that obeys them, `rest` and
//! `socket` talk to Twitch, `hub` is what all lines share, and the listener here runs them.

mod close;
mod events;
mod hub;
mod kinds;
mod line;
mod machine;
pub mod planner;
mod rest;
mod roster;
mod seen;
mod silence;
mod socket;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::hub::Hub;
use self::line::{Line, Surroundings};
use self::planner::{Account, Channel, Known, Limits, Plan, PlannedLine};
use super::TwitchPlatform;
use super::meter::Meter;
use super::options::{BOT, broadcaster_of};
use crate::core::counters::Counters;
use crate::core::observation::{Fact, Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::{Heard, Listener};

pub use hub::{LineStatus, Status, SubscriptionStatus, Tally};
pub use kinds::{Kind, Subscription};

/// How often tokens and sources are looked at for a new plan.
const REPLAN: Duration = Duration::from_mins(10);
/// News about costs come in bursts; the plan waits so long for more of them.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a stop waits for the reader of what is still to be told.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Where ids of messages are kept across restarts, so that one that is repeated then is not counted twice.
pub trait MessageMemory: Send + Sync {
    /// Returns what was kept.
    fn recall(&self) -> Vec<(Timestamp, u64)>;

    /// Keeps these in place of what was kept before.
    fn keep(&self, memory: &[(Timestamp, u64)]);
}

/// How to listen.
pub struct EventSubOptions {
    /// The channels to listen to. Changes are followed.
    pub channels: watch::Receiver<Vec<Channel>>,
    /// Whether chat is counted.
    pub chat: bool,
    /// The name under which totals are kept.
    pub writer: String,
    /// The totals that this writer had stored.
    pub restored: BTreeMap<SourceKey, Counters>,
    /// What Twitch allows.
    pub limits: Limits,
    /// How long changed totals are held back to be told together.
    pub flush: Duration,
    /// Where ids of messages are kept across restarts.
    pub memory: Option<Arc<dyn MessageMemory>>,
    /// How many times faster than real a line's time runs: 1, except in tests.
    pub pace: u32,
    /// Whether a jump of the wall clock ends connections, because the machine may have slept.
    pub watch_clock: bool,
}

impl EventSubOptions {
    /// Listens to `channels`, counting no chat.
    pub fn new(channels: watch::Receiver<Vec<Channel>>) -> Self {
        Self {
            channels,
            chat: false,
            writer: "bitbrat".to_owned(),
            restored: BTreeMap::new(),
            limits: Limits::default(),
            flush: Duration::from_secs(5),
            memory: None,
            pace: 1,
            watch_clock: true,
        }
    }
}

/// Listens to Twitch's EventSub.
pub struct EventSubListener {
    twitch: Arc<TwitchPlatform>,
    options: EventSubOptions,
    hub: Arc<Hub>,
}

/// A view of a listener, and the way to show it what polls see. Cheap to clone.
#[derive(Clone)]
pub struct EventSubHandle(Arc<Hub>);

impl EventSubHandle {
    /// Returns how the listener stands.
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// Shows what a poll saw, so that a line which is alive and does not tell is noticed.
    pub fn polled(&self, observation: &Observation) {
        if observation.by == events::EVENTSUB {
            return;
        }
        let stream = match &observation.fact {
            Fact::StreamSeen {
                stream_id,
                started_at,
            } => Some((stream_id.as_str(), *started_at)),
            Fact::StreamAbsent => None,
            _ => return,
        };
        self.0
            .silence(|silence| silence.polled(&observation.source, stream, observation.at));
    }
}

impl TwitchPlatform {
    /// Plans who would be listened to, without connecting.
    pub async fn plan(&self, channels: &[Channel], chat: bool, limits: Limits) -> Plan {
        let known = Known {
            chat,
            limits,
            ..self.accounts(channels).await
        };
        planner::plan(channels, &known)
    }

    /// Finds the accounts whose tokens are usable: the bot, and the broadcasters among `channels`.
    async fn accounts(&self, channels: &[Channel]) -> Known {
        let mut known = Known::default();
        let wanted: BTreeSet<_> = channels.iter().map(|channel| channel.source.id()).collect();
        let stored = match self.auth.identities().await {
            Ok(stored) => stored,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "The tokens cannot be read"
                );
                return known;
            }
        };
        for identity in stored {
            let relevant =
                identity.as_str() == BOT || broadcaster_of(&identity).is_some_and(|id| wanted.contains(id));
            if !relevant {
                continue;
            }
            let access = match self.auth.access(&identity, &Meter::silent()).await {
                Ok(access) => access,
                Err(error) => {
                    debug!(identity = %identity, error = &error as &dyn std::error::Error, "A token is not usable");
                    continue;
                }
            };
            let Some(user_id) = access.user_id else {
                continue;
            };
            let account = Account {
                identity: identity.clone(),
                user_id,
                scopes: access.scopes,
            };
            if identity.as_str() == BOT {
                known.bot = Some(account);
            } else {
                known.broadcasters.push(account);
            }
        }
        known
    }

    /// Prepares listening. Nothing is opened before it runs.
    pub fn listener(self: &Arc<Self>, options: EventSubOptions) -> (EventSubListener, EventSubHandle) {
        let hub = Arc::new(Hub::new(&options.writer, options.restored.clone()));
        let handle = EventSubHandle(Arc::clone(&hub));
        let listener = EventSubListener {
            twitch: Arc::clone(self),
            options,
            hub,
        };
        (listener, handle)
    }
}

/// A running line.
struct Running {
    wanted: watch::Sender<Vec<Subscription>>,
    stop: CancellationToken,
}

/// What names a line: whose token, and which of its sockets.
type LineKey = (Identity, usize);

#[async_trait]
impl Listener for EventSubListener {
    fn name(&self) -> PlatformName {
        PlatformName::Twitch
    }

    async fn listen(self: Box<Self>, stop: BoxFuture<'static, ()>, sink: mpsc::Sender<Heard>) {
        let now = self.twitch.clock.now();
        if let Some(memory) = &self.options.memory {
            self.hub.recall(memory.recall(), now);
        }
        self.run(stop, &sink).await;
        self.hub.flush_totals(self.twitch.clock.now());
        self.keep_memory();
        let last_words = async {
            while let Some(heard) = self.hub.next_to_tell() {
                if sink.send(heard).await.is_err() {
                    return;
                }
            }
        };
        // A reader that has gone away must not hold up the stop.
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    }
}

impl EventSubListener {
    async fn run(&self, stop: BoxFuture<'static, ()>, sink: &mpsc::Sender<Heard>) {
        let mut channels = self.options.channels.clone();
        let mut lines: BTreeMap<LineKey, Running> = BTreeMap::new();
        let mut running = FuturesUnordered::new();
        let mut stop = stop.fuse();
        let mut flush = tokio::time::interval(self.options.flush.max(Duration::from_millis(1)));
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut replan_at = tokio::time::Instant::now();
        let mut forget_at = replan_at + REPLAN;
        // Planning asks for tokens, which may take a while; lines must be polled meanwhile.
        let mut planning: Option<BoxFuture<'_, (Plan, BTreeSet<SourceKey>)>> = None;
        let mut following = true;
        loop {
            tokio::select! {
                () = &mut stop => break,
                changed = channels.changed(), if following => match changed {
                    Ok(()) => replan_at = tokio::time::Instant::now(),
                    // Nobody will change them any more.
                    Err(_) => following = false,
                },
                () = self.hub.replan.notified() => {
                    replan_at = replan_at.min(tokio::time::Instant::now() + SETTLE);
                }
                () = tokio::time::sleep_until(replan_at), if planning.is_none() => {
                    if forget_at <= tokio::time::Instant::now() {
                        forget_at = tokio::time::Instant::now() + REPLAN;
                        self.hub.forget_others();
                    }
                    replan_at = tokio::time::Instant::now() + REPLAN;
                    let wanted = channels.borrow_and_update().clone();
                    planning = Some(self.replan(wanted).boxed());
                }
                (plan, attended) = async { planning.as_mut().expect("the branch is guarded").await }, if planning.is_some() => {
                    planning = None;
                    for (key, planned) in self.follow(&mut lines, plan, &attended) {
                        let (line, token) = self.start(&mut lines, key.clone(), planned);
                        running.push(async move {
                            line.run(token).await;
                            key
                        });
                    }
                }
                Some(key) = running.next(), if !running.is_empty() => {
                    lines.remove(&key);
                }
                _ = flush.tick() => self.hub.flush_totals(self.twitch.clock.now()),
                () = self.hand_over(sink) => {}
            }
        }
        for line in lines.values() {
            line.stop.cancel();
        }
        drop(planning);
        while running.next().await.is_some() {}
    }

    /// Hands the oldest thing to tell to the reader, waiting for something to tell and for room.
    async fn hand_over(&self, sink: &mpsc::Sender<Heard>) {
        if !self.hub.has_something_to_tell() {
            self.hub.bell.notified().await;
        }
        match sink.reserve().await {
            Ok(permit) => {
                if let Some(heard) = self.hub.next_to_tell() {
                    permit.send(heard);
                }
            }
            // Nobody reads any more, and the stop is near.
            Err(_) => std::future::pending().await,
        }
    }

    async fn replan(&self, channels: Vec<Channel>) -> (Plan, BTreeSet<SourceKey>) {
        let (costs, max_cost, cost_of_others) = self.hub.costs();
        let limits = Limits {
            max_cost: max_cost.unwrap_or(self.options.limits.max_cost),
            cost_of_others,
            ..self.options.limits
        };
        let known = Known {
            costs,
            limits,
            chat: self.options.chat,
            ..self.twitch.accounts(&channels).await
        };
        let attended: BTreeSet<_> = channels.iter().map(|channel| channel.source.clone()).collect();
        let bot = known.bot.as_ref().map(|bot| bot.user_id.clone());
        self.hub.attend(
            attended.clone(),
            bot.or_else(|| self.twitch.options.bot_user_id.clone()),
        );
        (planner::plan(&channels, &known), attended)
    }

    /// Lets running lines follow the plan and returns those that must be started.
    fn follow(
        &self,
        lines: &mut BTreeMap<LineKey, Running>,
        plan: Plan,
        attended: &BTreeSet<SourceKey>,
    ) -> Vec<(LineKey, PlannedLine)> {
        debug!(
            lines = plan.lines.len(),
            polled = plan.polled.len(),
            cost = plan.cost,
            sources = attended.len(),
            "Planned who is listened to"
        );
        let mut missing = Vec::new();
        let mut planned: BTreeSet<LineKey> = BTreeSet::new();
        for line in plan.lines.iter().cloned() {
            let key = (line.identity.clone(), line.socket);
            planned.insert(key.clone());
            match lines.get(&key) {
                Some(running) => {
                    let wanted = subscriptions(&line);
                    running.wanted.send_if_modified(|current| {
                        let news = *current != wanted;
                        if news {
                            *current = wanted;
                        }
                        news
                    });
                }
                None => missing.push((key, line)),
            }
        }
        for (key, running) in &*lines {
            if !planned.contains(key) {
                running.stop.cancel();
            }
        }
        self.hub.note_plan(plan);
        missing
    }

    fn start(
        &self,
        lines: &mut BTreeMap<LineKey, Running>,
        key: LineKey,
        planned: PlannedLine,
    ) -> (Line, CancellationToken) {
        let (sender, wanted) = watch::channel(subscriptions(&planned));
        let around = Surroundings {
            twitch: Arc::clone(&self.twitch),
            hub: Arc::clone(&self.hub),
            pace: self.options.pace.max(1),
            watch_clock: self.options.watch_clock,
        };
        let line = Line::new(around, planned.identity, planned.socket, wanted);
        let stop = CancellationToken::new();
        let running = Running {
            wanted: sender,
            stop: stop.clone(),
        };
        lines.insert(key, running);
        (line, stop)
    }

    fn keep_memory(&self) {
        if let Some(memory) = &self.options.memory {
            memory.keep(&self.hub.memory());
        }
    }
}

fn subscriptions(line: &PlannedLine) -> Vec<Subscription> {
    line.subscriptions
        .iter()
        .map(|planned| planned.subscription.clone())
        .collect()
}
