//! The loop around the gateway's state machine: reads frames and keeps time. How it does what the machine orders is in
//! [`obeying`], what it tells the sources in [`telling`], what outlives the process in [`keeping`].

mod keeping;
mod obeying;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info};

use super::super::connection::Connection;
use super::super::facts;
use super::super::{GuildOptions, StreamFrom};
use super::GatewayOptions;
use super::counts::Counts;
use super::frames::Frame;
use super::guilds::Guilds;
use super::jobs::{self, Done, Socket};
use super::kept::Keeper;
use super::machine::{INTENTS_ALL, INTENTS_LEAST, Input, Kind, Machine};
use super::status::Status;
use crate::clock::Chance;
use crate::core::counters::Counters;
use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;

/// How often a dead token is looked up again, in case a look found it alive.
const REVIVAL: Duration = Duration::from_mins(1);
/// Observations that may wait for the sink before reading stops.
const BACKLOG: usize = 50_000;
/// Frames that are read at once before a tick, at most.
const CATCH_UP: usize = 1_000;

/// How a listener is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// For good: the session ends, and the sources are told.
    Farewell,
    /// Another listener follows at once, so nobody is told.
    HandOver,
}

/// Keeps one gateway connection for one bot and tells what it hears.
pub struct GatewayListener {
    connection: Arc<Connection>,
    options: GatewayOptions,
    chance: Chance,
    begun: Instant,
    targets: BTreeMap<u64, SourceKey>,
    machine: Machine,
    guilds: Guilds,
    counts: Counts,
    socket: Option<Socket>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    asked_members: BTreeSet<u64>,
    keeper: Keeper,
    /// The totals that were stored, while those of an earlier process's session catch up with them.
    stored: Option<BTreeMap<u64, Counters>>,
    pending: VecDeque<Observation>,
    /// When something was last told of a guild.
    told_at: BTreeMap<u64, Timestamp>,
    settle_at: Option<Instant>,
    flush_at: Instant,
    revive_at: Instant,
    latency: Option<f64>,
    /// When a timeout of the bot ends next.
    timeout_ends: Option<Timestamp>,
    /// Whether it is the token's death that the machine is stuck with.
    token_died: bool,
}

impl GatewayListener {
    pub(in crate::platforms::discord) fn new(
        connection: Arc<Connection>,
        known: &BTreeMap<u64, GuildOptions>,
        stream_from: Option<StreamFrom>,
        options: GatewayOptions,
        chance: Chance,
    ) -> Self {
        let targets: BTreeMap<u64, SourceKey> = options
            .sources
            .iter()
            .filter(|key| key.platform() == PlatformName::Discord)
            .filter_map(|key| Some((key.id().parse().ok()?, key.clone())))
            .collect();
        let configured = targets.keys().map(|id| {
            let guild = known.get(id).cloned();
            (*id, guild.unwrap_or_default())
        });
        let restored: BTreeMap<u64, Counters> = options
            .restored
            .iter()
            .filter_map(|(key, totals)| Some((key.id().parse().ok()?, *totals)))
            .collect();
        // What nobody maps to a stream need not be heard of: voice states are the loudest events after messages.
        let intents = if stream_from.is_some() {
            INTENTS_ALL
        } else {
            INTENTS_LEAST
        };
        let guilds = targets.len();
        options.board.write(|status| {
            *status = Status {
                guilds,
                ..Status::default()
            };
        });
        let mut listener = Self {
            guilds: Guilds::new(configured, stream_from),
            counts: Counts::new(restored, options.count_bots),
            machine: Machine::new(intents, options.pace),
            keeper: Keeper::new(connection.rest.memory().dir()),
            stored: None,
            targets,
            connection,
            chance,
            begun: Instant::now(),
            socket: None,
            jobs: FuturesUnordered::new(),
            asked_members: BTreeSet::new(),
            pending: VecDeque::new(),
            told_at: BTreeMap::new(),
            settle_at: None,
            flush_at: Instant::now() + options.flush,
            revive_at: Instant::now() + REVIVAL,
            latency: None,
            timeout_ends: None,
            token_died: false,
            options,
        };
        listener.recall();
        listener
    }

    /// Listens until `stop` resolves, then ends as it says. What is heard goes to `sink`, whose bound slows down reading but
    /// never the heartbeats. Returns the totals, for whoever listens next.
    pub async fn run(
        mut self,
        stop: impl Future<Output = Ending> + Send,
        sink: mpsc::Sender<Observation>,
    ) -> BTreeMap<SourceKey, Counters> {
        tokio::pin!(stop);
        self.feed(Input::Start).await;
        let ending = loop {
            let wake = self.wake_at();
            let reading = self.socket.is_some() && self.pending.len() < BACKLOG;
            tokio::select! {
                ending = &mut stop => break ending,
                frame = next_frame(&mut self.socket), if reading => self.heard(frame).await,
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.done(done).await,
                permit = sink.reserve(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => if let Some(observation) = self.pending.pop_front() {
                        permit.send(observation);
                    },
                    // Nobody listens any more, so there is nothing left to do.
                    Err(_) => break Ending::HandOver,
                },
                () = tokio::time::sleep_until(wake) => self.tick().await,
            }
        };
        self.caught_up();
        match ending {
            Ending::Farewell => {
                self.feed(Input::Stop).await;
                self.keeper.forget();
            }
            // Never 1000 or 1001, which would end the session.
            Ending::HandOver => self.hang_up(4000).await,
        }
        self.connection.told().clear();
        self.flush();
        while let Some(observation) = self.pending.pop_front() {
            // The engine drains for a bounded time after a stop; what does not fit then is told by the next look.
            if sink.send(observation).await.is_err() {
                break;
            }
        }
        let totals = self.counts.totals();
        let of = |(id, key): (&u64, &SourceKey)| Some((key.clone(), *totals.get(id)?));
        self.targets.iter().filter_map(of).collect()
    }

    fn wake_at(&self) -> Instant {
        let machine = self
            .machine
            .deadline()
            .map(|at| self.begun + Duration::from_millis(at));
        let timeout = self
            .timeout_ends
            .map(|end| Instant::now() + end.since(self.now()));
        [machine, self.settle_at, timeout, Some(self.revive_at)]
            .into_iter()
            .flatten()
            .fold(self.flush_at, Instant::min)
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if self.settle_at.is_some_and(|at| at <= now) {
            self.settle_at = None;
            let told = self.guilds.settle();
            self.tell(told);
        }
        if self.timeout_ends.is_some_and(|end| end <= self.now()) {
            let told = self.guilds.recompute(self.now());
            self.tell(told);
        }
        self.timeout_ends = self.guilds.next_timeout_end(self.now());
        if self.flush_at <= now {
            self.flush_at = now + self.options.flush;
            self.flush();
            self.keep();
        }
        if self.revive_at <= now {
            self.revive_at = now + REVIVAL;
            self.look_at_token().await;
        }
        let heard = self.catch_up().await;
        self.feed(Input::Tick { heard }).await;
    }

    /// Reads what waits in the socket. Returns whether that was all: an acknowledgement that nobody has read yet must not be
    /// taken for silence, however late we are woken.
    async fn catch_up(&mut self) -> bool {
        for _ in 0..CATCH_UP {
            if self.pending.len() >= BACKLOG {
                return false;
            }
            let Some(frame) = tokio::task::unconstrained(next_frame(&mut self.socket)).now_or_never() else {
                return true;
            };
            self.heard(frame).await;
        }
        false
    }

    /// Follows what looks over REST have found out about the token meanwhile: dead, or alive again.
    async fn look_at_token(&mut self) {
        if self.connection.rest.is_dead() {
            self.feed(Input::TokenDead).await;
        } else if self.token_died {
            self.token_died = false;
            self.feed(Input::Start).await;
        }
    }

    async fn heard(&mut self, frame: Option<Message>) {
        match frame {
            Some(Message::Text(text)) => self.read(&text).await,
            Some(Message::Close(close)) => {
                self.socket = None;
                let code = close.map(|close| u16::from(close.code));
                self.feed(Input::Closed(code)).await;
            }
            None => {
                self.socket = None;
                self.feed(Input::Closed(None)).await;
            }
            // Nothing is compressed, so this is text from a server that does not label it as such.
            Some(Message::Binary(bytes)) => match std::str::from_utf8(&bytes) {
                Ok(text) => self.read(text).await,
                Err(_) => self.options.board.write(|status| status.unread += 1),
            },
            // Pings are answered below us.
            Some(_) => {}
        }
    }

    async fn read(&mut self, text: &str) {
        let Some(frame) = Frame::read(text) else {
            debug!("A frame of Discord's gateway cannot be read");
            self.options.board.write(|status| status.unread += 1);
            return;
        };
        let kind = frame.kind();
        if let Some(event) = frame.event() {
            let data = frame.data();
            if event == "MESSAGE_CREATE" {
                let (guilds, counts) = (&self.guilds, &mut self.counts);
                counts.message(
                    data,
                    guilds.me(),
                    |guild| guilds.options(guild),
                    |guild, thread| guilds.parent_of(guild, thread),
                );
            } else {
                if let Some(me) = self.connection.me.get() {
                    self.guilds.presume_me(me.id);
                }
                let unread = self.guilds.unread();
                let told = self.guilds.learn(event, data, self.now());
                self.tell(told);
                if self.guilds.unread() > unread {
                    debug!(event.kind = event, "An event of Discord's gateway cannot be read");
                    self.options.board.write(|status| status.unread += 1);
                }
                if changes_permissions(event) {
                    self.connection.rest.forgive();
                }
                self.timeout_ends = self.guilds.next_timeout_end(self.now());
            }
            if matches!(kind, Kind::Ready { .. }) {
                self.welcomed();
            }
        }
        self.feed(Input::Received(kind)).await;
        self.ask_for_members();
    }

    fn welcomed(&mut self) {
        info!(platform = "discord", "Discord's gateway has begun a session");
        self.caught_up();
        self.settle_at = Some(Instant::now() + self.options.settle);
        self.asked_members.clear();
        self.tell_all(|_| vec![facts::auth(true, None)]);
        let intents = self.machine.intents().to_string();
        self.tell_all(|_| {
            let fields = [("intentsGranted", intents.as_str()), ("shard", "0/1")];
            let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
            vec![Fact::Profile {
                fields: BTreeMap::from(fields),
            }]
        });
    }

    /// Asks over REST for the bot's own member entry where a guild was told without it.
    fn ask_for_members(&mut self) {
        let Some(me) = self.guilds.me() else {
            return;
        };
        let missing: Vec<_> = self
            .guilds
            .without_member()
            .filter(|guild| !self.asked_members.contains(guild))
            .collect();
        for guild in missing {
            self.asked_members.insert(guild);
            let asking = jobs::member(Arc::clone(&self.connection), guild, me);
            self.jobs.push(asking.boxed());
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Input(input) => self.feed(input).await,
            Done::Opened(Ok(socket)) => {
                self.socket = Some(*socket);
                self.feed(Input::Opened).await;
            }
            Done::Opened(Err(reason)) => self.feed(Input::OpenFailed(reason)).await,
            Done::Member(guild, Some(member)) => {
                let told = self.guilds.learn_member(guild, member, self.now());
                self.tell(told);
            }
            Done::Member(_, None) => {}
        }
    }

    /// Lets the machine move and does what it orders, which may move it again.
    async fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let dice = self.chance.fraction();
            for order in self.machine.next(self.elapsed(), input, dice) {
                inputs.extend(self.obey(order).await);
            }
        }
        self.options.board.phase(self.machine.phase(), self.now());
    }

    /// Returns the milliseconds since the start, on a clock that never jumps.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Timestamp {
        self.connection.rest.clock().now()
    }
}

/// Returns whether an event may allow what was forbidden before.
fn changes_permissions(event: &str) -> bool {
    event.starts_with("GUILD_ROLE_")
        || event.starts_with("CHANNEL_")
        || ["GUILD_CREATE", "GUILD_UPDATE", "GUILD_MEMBER_UPDATE"].contains(&event)
}

/// Reads the next frame; `None` when the socket is gone. Cancel-safe: a frame that is not returned is not lost.
async fn next_frame(socket: &mut Option<Socket>) -> Option<Message> {
    match socket {
        Some(socket) => socket.next().await?.ok(),
        None => std::future::pending().await,
    }
}
