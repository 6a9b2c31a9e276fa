//! Runs the connections of a plan, applies plan changes, and forwards the events.

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
use super::accounts::{self, Accounts};
use super::connection::{Connection, Context, connection_name};
use super::hub::Hub;
use super::kinds::Subscription;
use super::planner::{self, Channel, Limits, Plan, PlannedConnection, PlannerInput};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::platforms::{Listener, ListenerEvent};

/// How often message ids are saved in case of a crash.
const REMEMBER: Duration = Duration::from_mins(1);
/// How often tokens and sources are checked for a new plan.
const REPLAN: Duration = Duration::from_mins(10);
/// How soon accounts are checked again after a check that found out nothing.
const ASK_AGAIN: Duration = Duration::from_secs(20);
/// Changes of costs arrive in bursts; replanning waits this long for more of them.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a stop waits for the receiver of the remaining events.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens to Twitch's EventSub.
pub struct EventSubListener {
    twitch: Arc<TwitchPlatform>,
    options: EventSubOptions,
    hub: Arc<Hub>,
}

/// A running connection.
struct Running {
    wanted: watch::Sender<Vec<Subscription>>,
    stop: CancellationToken,
}

/// A plan and its inputs.
struct Replanned {
    plan: Plan,
    accounts: Accounts,
    /// Why something could not be determined now.
    unclear: Option<String>,
}

/// Identifies a connection: whose token, and which of its sockets.
type ConnectionKey = (Identity, usize);

#[async_trait]
impl Listener for EventSubListener {
    fn name(&self) -> PlatformName {
        PlatformName::Twitch
    }

    async fn listen(self: Box<Self>, stop: BoxFuture<'static, ()>, sink: mpsc::Sender<ListenerEvent>) {
        let now = self.twitch.clock.now();
        if let Some(memory) = &self.options.memory {
            self.hub.recall(memory.recall(), now);
        }
        self.run(stop, &sink).await;
        self.hub.flush_totals(self.twitch.clock.now());
        self.keep_memory();
        let drained = async {
            while let Some(incoming) = self.hub.next_to_emit() {
                if sink.send(incoming).await.is_err() {
                    return;
                }
            }
        };
        // A receiver that no longer reads must not delay the stop.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, drained).await;
    }
}

impl EventSubListener {
    pub(super) fn new(twitch: Arc<TwitchPlatform>, options: EventSubOptions, hub: Arc<Hub>) -> Self {
        Self { twitch, options, hub }
    }

    async fn run(&self, stop: BoxFuture<'static, ()>, sink: &mpsc::Sender<ListenerEvent>) {
        let mut channels = self.options.channels.clone();
        let mut connections: BTreeMap<ConnectionKey, Running> = BTreeMap::new();
        let mut running = FuturesUnordered::new();
        let mut stop = stop.fuse();
        let mut flush = tokio::time::interval(self.options.flush.max(Duration::from_millis(1)));
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut remember = tokio::time::interval(REMEMBER);
        remember.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut replan_at = tokio::time::Instant::now();
        let mut forget_others_at = replan_at + REPLAN;
        // Planning requests tokens, which may take a while; connections must be polled meanwhile.
        let mut planning: Option<BoxFuture<'_, Replanned>> = None;
        let (mut accounts, mut unclear) = (Accounts::new(), false);
        let mut following = true;
        loop {
            tokio::select! {
                () = &mut stop => break,
                changed = channels.changed(), if following => match changed {
                    Ok(()) => replan_at = tokio::time::Instant::now(),
                    // The sender is gone, so there are no further changes.
                    Err(_) => following = false,
                },
                () = self.hub.retry.notified() => {
                    self.hub.retries.send_modify(|retries| *retries += 1);
                    // Connections that are up retry their refused subscriptions. The others restart with the token that is stored
                    // now, without waiting for their backoff.
                    for ((identity, socket), connection) in &connections {
                        if !self.hub.is_connected(&connection_name(identity, *socket)) {
                            connection.stop.cancel();
                        }
                    }
                    replan_at = tokio::time::Instant::now();
                }
                () = self.hub.replan.notified() => {
                    replan_at = replan_at.min(tokio::time::Instant::now() + SETTLE);
                }
                () = tokio::time::sleep_until(replan_at), if planning.is_none() => {
                    if forget_others_at <= tokio::time::Instant::now() {
                        forget_others_at = tokio::time::Instant::now() + REPLAN;
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
                            warn!(reason = why, "Cannot determine which tokens to use for EventSub; trying again");
                        }
                    } else {
                        unclear = false;
                    }
                    for (key, planned) in self.follow(&mut connections, made.plan, unclear) {
                        let (connection, token) = self.start(&mut connections, key.clone(), planned);
                        running.push(async move {
                            connection.run(token).await;
                            key
                        });
                    }
                }
                Some(key) = running.next(), if !running.is_empty() => {
                    connections.remove(&key);
                    // It may have been planned again after it was stopped.
                    replan_at = tokio::time::Instant::now();
                }
                _ = flush.tick() => self.hub.flush_totals(self.twitch.clock.now()),
                _ = remember.tick() => self.keep_memory(),
                () = self.hand_over(sink) => {}
            }
        }
        for connection in connections.values() {
            connection.stop.cancel();
        }
        drop(planning);
        while running.next().await.is_some() {}
    }

    /// Sends the oldest pending event to the receiver; waits for an event and for capacity.
    async fn hand_over(&self, sink: &mpsc::Sender<ListenerEvent>) {
        if !self.hub.has_pending() {
            self.hub.pending_notify.notified().await;
        }
        match sink.reserve().await {
            Ok(permit) => {
                if let Some(incoming) = self.hub.next_to_emit() {
                    permit.send(incoming);
                }
            }
            // The receiver is gone, and a stop is imminent.
            Err(_) => std::future::pending().await,
        }
    }

    async fn replan(&self, channels: Vec<Channel>, before: Accounts) -> Replanned {
        let found = accounts::usable(&self.twitch.auth, &channels, &before).await;
        let (costs, max_cost, cost_of_others) = self.hub.costs();
        let limits = Limits {
            max_cost: max_cost.unwrap_or(self.options.limits.max_cost),
            cost_of_others,
            ..self.options.limits
        };
        let (accounts, unclear) = (found.accounts.clone(), found.unclear.clone());
        self.hub.note_bot(found.bot_missing.clone());
        let known = PlannerInput {
            costs,
            limits,
            chat: self.options.chat,
            ..found.known()
        };
        let monitored: BTreeSet<_> = channels.iter().map(|channel| channel.source.clone()).collect();
        let bot = known.bot.as_ref().map(|bot| bot.user_id.clone());
        self.hub
            .monitor(monitored, bot.or_else(|| self.twitch.options.bot_user_id.clone()));
        let plan = planner::plan(&channels, &known);
        Replanned {
            plan,
            accounts,
            unclear,
        }
    }

    /// Applies the plan to running connections and returns those that must be started.
    fn follow(
        &self,
        connections: &mut BTreeMap<ConnectionKey, Running>,
        plan: Plan,
        unclear: bool,
    ) -> Vec<(ConnectionKey, PlannedConnection)> {
        debug!(
            connections = plan.connections.len(),
            polled = plan.polled.len(),
            cost = plan.cost,
            "Subscriptions planned"
        );
        let mut missing = Vec::new();
        let mut planned: BTreeSet<ConnectionKey> = BTreeSet::new();
        for connection in plan.connections.iter().cloned() {
            let key = (connection.identity.clone(), connection.socket);
            planned.insert(key.clone());
            match connections.get(&key) {
                Some(running) => {
                    let wanted = subscriptions(&connection);
                    running.wanted.send_if_modified(|current| {
                        let is_changed = *current != wanted;
                        if is_changed {
                            *current = wanted;
                        }
                        is_changed
                    });
                }
                None => missing.push((key, connection)),
            }
        }
        for (key, running) in &*connections {
            if !planned.contains(key) {
                running.stop.cancel();
            }
        }
        // A plan that is empty only because nothing could be determined does not count.
        if !(unclear && plan.connections.is_empty()) {
            let now = self.twitch.skew.correct(self.twitch.clock.now());
            self.hub.note_plan(plan, now);
        }
        missing
    }

    fn start(
        &self,
        connections: &mut BTreeMap<ConnectionKey, Running>,
        key: ConnectionKey,
        planned: PlannedConnection,
    ) -> (Connection, CancellationToken) {
        let (sender, wanted) = watch::channel(subscriptions(&planned));
        let cx = Context {
            twitch: Arc::clone(&self.twitch),
            hub: Arc::clone(&self.hub),
            pace: self.options.pace.max(1),
            watch_clock: self.options.watch_clock,
        };
        let connection = Connection::new(cx, planned.identity, planned.socket, wanted);
        let stop = CancellationToken::new();
        let running = Running {
            wanted: sender,
            stop: stop.clone(),
        };
        connections.insert(key, running);
        (connection, stop)
    }

    fn keep_memory(&self) {
        if let Some(memory) = &self.options.memory {
            memory.keep(&self.hub.memory());
        }
    }
}

fn subscriptions(connection: &PlannedConnection) -> Vec<Subscription> {
    connection
        .subscriptions
        .iter()
        .map(|planned| planned.subscription.clone())
        .collect()
}
