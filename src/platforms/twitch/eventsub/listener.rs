//! Runs the lines of a plan, follows its changes, and hands over what was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::super::TwitchPlatform;
use super::EventSubOptions;
use super::accounts::Accounts;
use super::hub::Hub;
use super::kinds::Subscription;
use super::line::{Line, Surroundings};
use super::planner::{self, Channel, Known, Limits, Plan, PlannedLine};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::platforms::{Heard, Listener};

/// How often ids of messages are kept for the case of a crash.
const REMEMBER: Duration = Duration::from_mins(1);
/// How often tokens and sources are looked at for a new plan.
const REPLAN: Duration = Duration::from_mins(10);
/// How soon accounts are looked at again of which nothing could be found out.
const ASK_AGAIN: Duration = Duration::from_secs(20);
/// News about costs come in bursts; the plan waits so long for more of them.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a stop waits for the reader of what is still to be told.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Listens to Twitch's EventSub.
pub struct EventSubListener {
    twitch: Arc<TwitchPlatform>,
    options: EventSubOptions,
    hub: Arc<Hub>,
}

/// A running line.
struct Running {
    wanted: watch::Sender<Vec<Subscription>>,
    stop: CancellationToken,
}

/// A plan and what it was made of.
struct Planned {
    plan: Plan,
    accounts: Accounts,
    /// Why something could not be found out now.
    unclear: Option<String>,
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
    pub(super) fn new(twitch: Arc<TwitchPlatform>, options: EventSubOptions, hub: Arc<Hub>) -> Self {
        Self { twitch, options, hub }
    }

    async fn run(&self, stop: BoxFuture<'static, ()>, sink: &mpsc::Sender<Heard>) {
        let mut channels = self.options.channels.clone();
        let mut lines: BTreeMap<LineKey, Running> = BTreeMap::new();
        let mut running = FuturesUnordered::new();
        let mut stop = stop.fuse();
        let mut flush = tokio::time::interval(self.options.flush.max(Duration::from_millis(1)));
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut remember = tokio::time::interval(REMEMBER);
        remember.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut replan_at = tokio::time::Instant::now();
        let mut forget_at = replan_at + REPLAN;
        // Planning asks for tokens, which may take a while; lines must be polled meanwhile.
        let mut planning: Option<BoxFuture<'_, Planned>> = None;
        let (mut accounts, mut unclear) = (Accounts::new(), false);
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
                    planning = Some(self.replan(wanted, accounts.clone()).boxed());
                }
                made = async { planning.as_mut().expect("the branch is guarded").await }, if planning.is_some() => {
                    planning = None;
                    accounts = made.accounts;
                    if let Some(why) = &made.unclear {
                        replan_at = replan_at.min(tokio::time::Instant::now() + ASK_AGAIN);
                        if !std::mem::replace(&mut unclear, true) {
                            warn!(reason = why, "Whose tokens to listen with cannot be found out now");
                        }
                    } else {
                        unclear = false;
                    }
                    for (key, planned) in self.follow(&mut lines, made.plan, unclear) {
                        let (line, token) = self.start(&mut lines, key.clone(), planned);
                        running.push(async move {
                            line.run(token).await;
                            key
                        });
                    }
                }
                Some(key) = running.next(), if !running.is_empty() => {
                    lines.remove(&key);
                    // It may be wanted again since it was told to end.
                    replan_at = tokio::time::Instant::now();
                }
                _ = flush.tick() => self.hub.flush_totals(self.twitch.clock.now()),
                _ = remember.tick() => self.keep_memory(),
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

    async fn replan(&self, channels: Vec<Channel>, before: Accounts) -> Planned {
        let found = self.twitch.accounts(&channels, &before).await;
        let (costs, max_cost, cost_of_others) = self.hub.costs();
        let limits = Limits {
            max_cost: max_cost.unwrap_or(self.options.limits.max_cost),
            cost_of_others,
            ..self.options.limits
        };
        let (accounts, unclear) = (found.accounts.clone(), found.unclear.clone());
        let known = Known {
            costs,
            limits,
            chat: self.options.chat,
            ..found.known()
        };
        let attended: BTreeSet<_> = channels.iter().map(|channel| channel.source.clone()).collect();
        let bot = known.bot.as_ref().map(|bot| bot.user_id.clone());
        self.hub
            .attend(attended, bot.or_else(|| self.twitch.options.bot_user_id.clone()));
        let plan = planner::plan(&channels, &known);
        Planned {
            plan,
            accounts,
            unclear,
        }
    }

    /// Lets running lines follow the plan and returns those that must be started.
    fn follow(
        &self,
        lines: &mut BTreeMap<LineKey, Running>,
        plan: Plan,
        unclear: bool,
    ) -> Vec<(LineKey, PlannedLine)> {
        debug!(
            lines = plan.lines.len(),
            polled = plan.polled.len(),
            cost = plan.cost,
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
        // A plan that is empty only because nothing could be found out is none.
        if !(unclear && plan.lines.is_empty()) {
            let now = self.twitch.skew.correct(self.twitch.clock.now());
            self.hub.note_plan(plan, now);
        }
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
