//! Plans which channels are subscribed, over which connections, and which are polled instead. Pure, so that the plan can be shown
//! before connecting.
//!
//! Twitch's limits, per application and user: 3 sockets with 300 subscriptions each, and a total cost of 10 points. A stream
//! subscription costs one point, or nothing if the broadcaster has authorized the application (and in the user's own channel).
//! <https://dev.twitch.tv/docs/eventsub/manage-subscriptions/#subscription-limits>

mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

pub use self::transport::{PushTransport, TransportChoice};
use super::super::options::APP;
use super::kinds::{Kind, Subscription};
use crate::core::observation::Identity;
use crate::core::source::{PlatformName, SourceKey};

/// Maximum total cost in points of an application's subscriptions with conduits and webhooks.
const MAX_CONDUIT_COST: u32 = 10_000;

/// Twitch's limits for one application and user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Maximum total cost in points.
    pub max_cost: u32,
    /// Points that others with the same application and user use.
    pub cost_of_others: u32,
    /// Maximum number of sockets.
    pub sockets: usize,
    /// How many of these sockets stay free: until Twitch notices that a socket is lost, it counts in addition to its successor.
    pub spare_sockets: usize,
    /// Maximum number of subscriptions per socket.
    pub per_socket: usize,
    /// Maximum number of channels whose chat one user may join without a role there.
    pub chats: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_cost: 10,
            cost_of_others: 0,
            sockets: 3,
            spare_sockets: 1,
            per_socket: 300,
            chats: 100,
        }
    }
}

/// An account whose token is available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub identity: Identity,
    pub user_id: String,
    /// The scopes that it has granted.
    pub scopes: BTreeSet<String>,
}

impl Account {
    fn has(&self, scopes: &[&str]) -> bool {
        scopes.iter().any(|scope| self.scopes.contains(*scope))
    }
}

/// A channel that should be subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    pub source: SourceKey,
    /// Channels with a higher priority come first when points are short.
    pub priority: i64,
    /// Whether a consent of the broadcaster is recorded, of which no token was kept. Twitch counts no points then, whoever subscribes.
    pub has_consented: bool,
}

/// The input of the planner.
#[derive(Debug, Clone, Default)]
pub struct PlannerInput {
    /// The bot, if its token is usable.
    pub bot: Option<Account>,
    /// Why the bot's token is not usable.
    pub bot_missing: Option<String>,
    /// Broadcasters whose tokens are usable.
    pub broadcasters: Vec<Account>,
    /// The actual cost of a subscription to a channel.
    pub costs: BTreeMap<String, u32>,
    /// Whether chat messages are counted.
    pub chat: bool,
    pub limits: Limits,
    pub transport: TransportChoice,
    /// Whether the application can have a token of its own, which conduits need.
    pub can_be_app: bool,
    /// Whether a conduit is in use already.
    pub uses_conduit: bool,
}

/// A subscription that a connection is to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedSubscription {
    #[serde(flatten)]
    pub subscription: Subscription,
    /// Its expected cost in points.
    pub cost: u32,
}

/// A socket and its subscriptions, the most certain first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedConnection {
    /// Whose token creates the subscriptions.
    pub identity: Identity,
    /// That account's user id.
    pub user_id: String,
    /// Which of the account's sockets, from 0.
    pub socket: usize,
    pub subscriptions: Vec<PlannedSubscription>,
}

/// A channel that is polled, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Polled {
    pub source: SourceKey,
    /// Why it is not subscribed; thousands may share a reason.
    pub reason: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub transport: PushTransport,
    /// Why this transport.
    pub transport_reason: Arc<str>,
    /// Planned sockets.
    pub connections: Vec<PlannedConnection>,
    /// Channels whose streams are only polled.
    pub polled: Vec<Polled>,
    /// Total cost of the bot's subscriptions in points.
    pub cost: u32,
    /// Points available for them.
    pub cost_limit: u32,
    /// Sockets of the bot that stay free for reconnecting.
    pub spare_sockets: usize,
}

impl PlannedConnection {
    /// Returns whether the connection reports streams, and not only roles.
    pub fn covers_streams(&self) -> bool {
        self.subscriptions
            .iter()
            .any(|planned| planned.subscription.kind.is_of_stream())
    }
}

impl Plan {
    /// Returns a plan that polls every channel, for one reason.
    pub fn nothing(channels: &[Channel], reason: &str) -> Self {
        let reason: Arc<str> = reason.into();
        let polled = channels.iter().map(|channel| Polled {
            source: channel.source.clone(),
            reason: Arc::clone(&reason),
        });
        Self {
            polled: polled.collect(),
            ..Self::default()
        }
    }

    /// Returns the subscriptions of a source, by connection.
    pub fn of<'a>(
        &'a self,
        source: &'a SourceKey,
    ) -> impl Iterator<Item = (&'a PlannedConnection, &'a PlannedSubscription)> {
        self.connections.iter().flat_map(|connection| {
            let of_source = connection.subscriptions.iter().filter(|planned| {
                source.platform() == PlatformName::Twitch && planned.subscription.channel == source.id()
            });
            of_source.map(move |planned| (connection, planned))
        })
    }

    /// Returns whether a source's stream is pushed.
    pub fn is_pushed(&self, source: &SourceKey) -> bool {
        self.of(source)
            .any(|(_, planned)| planned.subscription.kind.is_of_stream())
    }
}

/// Plans the subscriptions, over the transport that is wanted or suffices.
pub fn plan(channels: &[Channel], known: &PlannerInput) -> Plan {
    const NO_SECRET: &str = "a conduit needs twitch.client_id and twitch.client_secret";
    let with = |mut plan: Plan, reason: String| {
        plan.transport_reason = reason.into();
        plan
    };
    match known.transport {
        TransportChoice::Websocket => with(
            plan_websockets(channels, known),
            "twitch.transport is `websocket`".to_owned(),
        ),
        TransportChoice::Conduit if known.can_be_app => with(
            plan_conduit(channels, known),
            "twitch.transport is `conduit`".to_owned(),
        ),
        TransportChoice::Conduit => with(Plan::nothing(channels, NO_SECRET), NO_SECRET.to_owned()),
        TransportChoice::Auto if known.uses_conduit && known.can_be_app => with(
            plan_conduit(channels, known),
            "a conduit is in use since the channels exceeded the limits of websockets".to_owned(),
        ),
        // Without a token of the bot there is nothing whose limits could be exceeded.
        TransportChoice::Auto if known.bot.is_none() => with(
            plan_websockets(channels, known),
            "there is no usable token of the bot".to_owned(),
        ),
        TransportChoice::Auto => {
            let plan = plan_websockets(channels, known);
            let exceeding = plan.polled.len();
            let (all, limits) = (channels.len(), &known.limits);
            let exceed = format!(
                "{exceeding} of {all} channels exceed the limits of websockets ({} points, {} sockets)",
                limits.max_cost, limits.sockets
            );
            match (exceeding, known.can_be_app) {
                (0, _) => with(
                    plan,
                    format!("the limits of websockets suffice for {all} channels"),
                ),
                (_, true) => with(plan_conduit(channels, known), exceed),
                (_, false) => with(plan, format!("{exceed}, but {NO_SECRET}")),
            }
        }
    }
}

/// Plans the subscriptions of a conduit, and those that stay on websockets: over a conduit, only the chat of channels whose
/// broadcaster has invited the bot can be read.
fn plan_conduit(channels: &[Channel], known: &PlannerInput) -> Plan {
    let mut planner = Planner::new(known);
    planner.plan.transport = PushTransport::Conduit;
    (planner.plan.cost_limit, planner.plan.spare_sockets) = (MAX_CONDUIT_COST, 0);
    let sorted = planner.sorted(channels);
    let mut of_conduit = planner.conduit_streams(&sorted);
    planner.place_roles(&sorted);
    of_conduit.extend(std::mem::take(&mut planner.theirs).into_values().flatten());
    if let Some(bot) = &known.bot {
        planner.place_chat(bot, &sorted);
    }
    let mut plan = planner.finish();
    if !of_conduit.is_empty() {
        let connection = PlannedConnection {
            identity: Identity::named(APP),
            user_id: String::new(),
            socket: 0,
            subscriptions: of_conduit,
        };
        plan.connections.insert(0, connection);
    }
    plan
}

fn plan_websockets(channels: &[Channel], known: &PlannerInput) -> Plan {
    let mut planner = Planner::new(known);
    let sorted = planner.sorted(channels);
    match &known.bot {
        Some(bot) => planner.place_with_bot(bot, &sorted),
        None => planner.place_without_bot(&sorted),
    }
    planner.place_roles(&sorted);
    planner.finish()
}

struct Planner<'a> {
    known: &'a PlannerInput,
    /// The bot's subscriptions, in order.
    subscriptions: Vec<PlannedSubscription>,
    /// Subscriptions of broadcasters, by identity.
    theirs: BTreeMap<&'a Identity, Vec<PlannedSubscription>>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(known: &'a PlannerInput) -> Self {
        let limits = &known.limits;
        Self {
            known,
            subscriptions: Vec::new(),
            theirs: BTreeMap::new(),
            plan: Plan {
                cost_limit: limits.max_cost.saturating_sub(limits.cost_of_others),
                spare_sockets: limits.spare_sockets,
                ..Plan::default()
            },
        }
    }

    fn broadcaster_of(&self, source: &SourceKey) -> Option<&'a Account> {
        self.known
            .broadcasters
            .iter()
            .find(|account| account.user_id == source.id())
    }

    /// Cost in points of one stream subscription.
    fn cost_of(&self, channel: &Channel) -> u32 {
        let source = &channel.source;
        if let Some(cost) = self.known.costs.get(source.id()) {
            return *cost;
        }
        let own = self
            .known
            .bot
            .as_ref()
            .is_some_and(|bot| bot.user_id == source.id());
        // A broadcaster who has granted the application any scope at all has authorized it.
        let authorized = self
            .broadcaster_of(source)
            .is_some_and(|account| !account.scopes.is_empty());
        u32::from(!own && !authorized && !channel.has_consented)
    }

    /// Returns free channels first, then by priority; the key makes the order total, so that a plan never changes without a
    /// reason.
    fn sorted<'c>(&self, channels: &'c [Channel]) -> Vec<&'c Channel> {
        let mut sorted: Vec<_> = channels.iter().collect();
        sorted
            .sort_by_cached_key(|channel| (self.cost_of(channel), -channel.priority, channel.source.clone()));
        sorted.dedup_by_key(|channel| &channel.source);
        sorted
    }

    /// Returns the subscriptions to streams that fit the points of the application. Others are polled.
    fn conduit_streams(&mut self, channels: &[&Channel]) -> Vec<PlannedSubscription> {
        let mut planned = Vec::new();
        let mut pushed = Vec::new();
        for channel in channels {
            let cost = self.cost_of(channel);
            if self.plan.cost + 2 * cost > MAX_CONDUIT_COST {
                self.poll(channel, "the 10000 points of the application are used");
                continue;
            }
            self.plan.cost += 2 * cost;
            pushed.push((*channel, cost));
            for kind in [Kind::Online, Kind::Offline] {
                let subscription = Subscription::new(kind, channel.source.id());
                planned.push(PlannedSubscription { subscription, cost });
            }
        }
        // `channel.update` gets the remaining points.
        for (channel, cost) in pushed {
            if self.plan.cost + cost <= MAX_CONDUIT_COST {
                self.plan.cost += cost;
                let subscription = Subscription::new(Kind::Update, channel.source.id());
                planned.push(PlannedSubscription { subscription, cost });
            }
        }
        planned
    }

    fn capacity(&self) -> usize {
        let limits = &self.known.limits;
        limits.sockets.saturating_sub(limits.spare_sockets).max(1) * limits.per_socket
    }

    fn place_with_bot(&mut self, bot: &Account, channels: &[&Channel]) {
        let mut pushed = Vec::new();
        for channel in channels {
            let cost = self.cost_of(channel);
            if self.subscriptions.len() + 2 > self.capacity() {
                self.poll(channel, "the sockets are full");
            } else if self.plan.cost + 2 * cost > self.plan.cost_limit {
                let reason = format!(
                    "it would cost {} of the {} points that Twitch allows, and {} are used",
                    2 * cost,
                    self.plan.cost_limit,
                    self.plan.cost
                );
                self.poll(channel, &reason);
            } else {
                for kind in [Kind::Online, Kind::Offline] {
                    self.push(Subscription::new(kind, channel.source.id()), cost);
                }
                pushed.push(*channel);
            }
        }
        self.place_chat(bot, channels);
        // `channel.update` gets the remaining points.
        for channel in pushed {
            let cost = self.cost_of(channel);
            let fits = self.plan.cost + cost <= self.plan.cost_limit;
            if fits && self.subscriptions.len() < self.capacity() {
                self.push(Subscription::new(Kind::Update, channel.source.id()), cost);
            }
        }
    }

    fn place_chat(&mut self, bot: &Account, channels: &[&Channel]) {
        if !self.known.chat || !bot.has(&["user:read:chat"]) {
            return;
        }
        let mut by_priority = channels.to_vec();
        by_priority.sort_by_key(|channel| (-channel.priority, channel.source.clone()));
        for channel in by_priority.into_iter().take(self.known.limits.chats) {
            if self.subscriptions.len() < self.capacity() {
                self.push(Subscription::chat(channel.source.id(), &bot.user_id), 0);
            }
        }
    }

    /// Without the bot, a broadcaster's own token still receives events of its own channel, at no cost.
    fn place_without_bot(&mut self, channels: &[&Channel]) {
        for channel in channels {
            match self.broadcaster_of(&channel.source) {
                Some(account) => {
                    for kind in [Kind::Online, Kind::Offline, Kind::Update] {
                        self.push_theirs(account, kind, &channel.source);
                    }
                }
                None => {
                    let why = self.known.bot_missing.as_ref().map(|why| format!(": {why}"));
                    let reason = format!("there is no usable token of the bot{}", why.unwrap_or_default());
                    self.poll(channel, &reason);
                }
            }
        }
    }

    /// Changes of moderators and VIPs are sent only to the broadcaster's own token.
    fn place_roles(&mut self, channels: &[&Channel]) {
        for channel in channels {
            let Some(account) = self.broadcaster_of(&channel.source) else {
                continue;
            };
            if account.has(&["moderation:read"]) {
                self.push_theirs(account, Kind::ModeratorAdd, &channel.source);
                self.push_theirs(account, Kind::ModeratorRemove, &channel.source);
            }
            if account.has(&["channel:read:vips", "channel:manage:vips"]) {
                self.push_theirs(account, Kind::VipAdd, &channel.source);
                self.push_theirs(account, Kind::VipRemove, &channel.source);
            }
        }
    }

    fn push(&mut self, subscription: Subscription, cost: u32) {
        self.plan.cost += cost;
        self.subscriptions
            .push(PlannedSubscription { subscription, cost });
    }

    fn push_theirs(&mut self, account: &'a Account, kind: Kind, source: &SourceKey) {
        let planned = PlannedSubscription {
            subscription: Subscription::new(kind, source.id()),
            cost: 0,
        };
        self.theirs.entry(&account.identity).or_default().push(planned);
    }

    fn poll(&mut self, channel: &Channel, reason: &str) {
        let before = self.plan.polled.last().map(|polled| &polled.reason);
        let reason = match before {
            Some(before) if **before == *reason => Arc::clone(before),
            _ => reason.into(),
        };
        self.plan.polled.push(Polled {
            source: channel.source.clone(),
            reason,
        });
    }

    fn finish(mut self) -> Plan {
        let per_socket = self.known.limits.per_socket.max(1);
        if let Some(bot) = &self.known.bot {
            // Only whole pairs per socket: an odd limit would separate a start from its end.
            for (socket, chunk) in self.subscriptions.chunks(per_socket).enumerate() {
                self.plan.connections.push(PlannedConnection {
                    identity: bot.identity.clone(),
                    user_id: bot.user_id.clone(),
                    socket,
                    subscriptions: chunk.to_vec(),
                });
            }
        }
        for account in &self.known.broadcasters {
            if let Some(subscriptions) = self.theirs.remove(&account.identity) {
                self.plan.connections.push(PlannedConnection {
                    identity: account.identity.clone(),
                    user_id: account.user_id.clone(),
                    socket: 0,
                    subscriptions,
                });
            }
        }
        self.plan
    }
}

#[cfg(test)]
mod tests;
