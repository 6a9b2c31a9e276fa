//! The loop around the gateway's state machine: opens sockets, reads and writes frames, keeps time, tells what was learnt.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tracing::{debug, info, warn};

use super::super::facts;
use super::super::{Connection, DiscordOptions};
use super::GatewayOptions;
use super::counts::Counts;
use super::frames::{self, Frame};
use super::guilds::Guilds;
use super::jobs::{self, Done, Ration, SPENT, Socket};
use super::machine::{INTENTS_ALL, INTENTS_LEAST, Input, Kind, Machine, News, Order};
use crate::clock::Chance;
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;

/// Who tells what was learnt over the gateway.
const BY: &str = "discord.gateway";
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often a dead token is looked up again, in case a look found it alive.
const REVIVAL: Duration = Duration::from_mins(1);
/// Observations that may wait for the sink before reading stops.
const BACKLOG: usize = 50_000;
/// Frames that are read at once before a tick, at most.
const CATCH_UP: usize = 1_000;
/// Weight of the newest heartbeat in the smoothed latency.
const SMOOTHING: f64 = 0.3;

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
        discord: &DiscordOptions,
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
            let guild = discord.guilds.get(id).cloned();
            (*id, guild.unwrap_or_default())
        });
        let restored = options
            .restored
            .iter()
            .filter_map(|(key, totals)| Some((key.id().parse().ok()?, *totals)));
        // What nobody maps to a stream need not be heard of: voice states are the loudest events after messages.
        let intents = if discord.stream_from.is_some() {
            INTENTS_ALL
        } else {
            INTENTS_LEAST
        };
        Self {
            guilds: Guilds::new(configured, discord.stream_from),
            counts: Counts::new(restored.collect(), options.count_bots),
            machine: Machine::new(intents, options.pace),
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
        }
    }

    /// Listens until `stop` resolves, then ends the session and tells that. What is heard goes to `sink`, whose bound
    /// slows down reading but never the heartbeats.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send, sink: mpsc::Sender<Observation>) {
        tokio::pin!(stop);
        self.feed(Input::Start).await;
        loop {
            let wake = self.wake_at();
            let reading = self.socket.is_some() && self.pending.len() < BACKLOG;
            tokio::select! {
                () = &mut stop => break,
                frame = next_frame(&mut self.socket), if reading => self.heard(frame).await,
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.done(done).await,
                permit = sink.reserve(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => if let Some(observation) = self.pending.pop_front() {
                        permit.send(observation);
                    },
                    // Nobody listens any more, so there is nothing left to do.
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(wake) => self.tick().await,
            }
        }
        self.feed(Input::Stop).await;
        self.flush();
        while let Some(observation) = self.pending.pop_front() {
            // The engine drains for a bounded time after a stop; what does not fit then is told by the next look.
            if sink.send(observation).await.is_err() {
                return;
            }
        }
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
            // Without compression there are no binary frames; pings are answered below us.
            Some(_) => {}
        }
    }

    async fn read(&mut self, text: &str) {
        let Some(frame) = Frame::read(text) else {
            debug!("A frame of Discord's gateway cannot be read");
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
                let unread = self.guilds.unread();
                let told = self.guilds.learn(event, data, self.now());
                self.tell(told);
                if self.guilds.unread() > unread {
                    debug!(event.kind = event, "An event of Discord's gateway cannot be read");
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
            let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let dice = self.chance.fraction();
            for order in self.machine.next(elapsed, input, dice) {
                inputs.extend(self.obey(order).await);
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Option<Input> {
        match order {
            Order::Ask => self
                .jobs
                .push(jobs::ask(Arc::clone(&self.connection), self.ration()).boxed()),
            Order::ConfirmToken => self
                .jobs
                .push(jobs::confirm(Arc::clone(&self.connection)).boxed()),
            Order::Connect(url) => self.jobs.push(jobs::open(url).boxed()),
            Order::Identify { intents } => return self.identify(intents).await,
            Order::Resume(session) => {
                let text = frames::resume(self.connection.rest.token(), &session);
                self.send(text).await;
            }
            Order::Heartbeat(seq) => self.send(frames::heartbeat(seq)).await,
            Order::Hangup(code) => self.hang_up(code).await,
            Order::Tell(news) => {
                // A look over REST may have found the token dead while this socket lives on.
                let beat = matches!(news, News::Beat(_));
                self.announce(news);
                return (beat && self.connection.rest.is_dead()).then_some(Input::TokenDead);
            }
        }
        None
    }

    /// Sends an Identify if it can be put on record before.
    async fn identify(&mut self, intents: u64) -> Option<Input> {
        let bot = self
            .connection
            .me
            .get()
            .map(|me| me.id.to_string())
            .unwrap_or_default();
        let memory = self.connection.rest.memory();
        match memory.claim_identify(&bot, self.options.identify_cap, self.now()) {
            Ok(()) => {
                let text = frames::identify(self.connection.rest.token(), intents);
                self.send(text).await;
                None
            }
            Err(refusal) => Some(Input::Denied {
                retry_in: SPENT,
                code: "discord.identify_budget".to_owned(),
                message: refusal.to_string(),
            }),
        }
    }

    fn ration(&self) -> Ration {
        Ration {
            cap: self.options.identify_cap,
            reserve: self.options.identify_reserve,
            spacing: self.options.identify_spacing,
        }
    }

    async fn send(&mut self, text: String) {
        if let Some(socket) = &mut self.socket {
            // A socket that takes nothing any more is found dead by its silence; it must not hold up the loop until then.
            let _ = tokio::time::timeout(GOODBYE, socket.send(Message::text(text))).await;
        }
    }

    async fn hang_up(&mut self, code: u16) {
        let Some(mut socket) = self.socket.take() else {
            return;
        };
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        let _ = tokio::time::timeout(GOODBYE, socket.close(Some(frame))).await;
    }

    fn announce(&mut self, news: News) {
        match news {
            News::Resumed => {
                debug!(platform = "discord", "The session with Discord's gateway goes on");
                let available: Vec<_> = self.guilds.available().collect();
                self.tell_all(|_| vec![facts::auth(true, None)]);
                self.tell_up(&available, None);
            }
            News::Beat(millis) => {
                let newest = millis.map(|millis| Duration::from_millis(millis).as_secs_f64() * 1_000.0);
                let smoothed = newest.map(|newest| {
                    self.latency
                        .map_or(newest, |old| old + SMOOTHING * (newest - old))
                });
                self.latency = smoothed.or(self.latency);
                let available: Vec<_> = self.guilds.available().collect();
                self.tell_up(&available, smoothed);
            }
            News::Down { code, message } => {
                warn!(platform = "discord", code, "Discord's gateway is lost: {message}");
                let attended: Vec<_> = self.guilds.attended().collect();
                self.counts.failed(attended.iter().copied());
                let fact = facts::down(Transport::Gateway, &code, &message);
                self.tell(attended.into_iter().map(|id| (id, fact.clone())).collect());
            }
            News::Refused { code, message } => {
                warn!(platform = "discord", code, "Discord's gateway refuses: {message}");
                self.counts.failed(self.targets.keys().copied());
                self.tell_all(|_| vec![facts::refused(Transport::Gateway, &code, &message)]);
            }
            News::TokenDead => {
                warn!(platform = "discord", "Discord refuses the bot token");
                self.token_died = true;
                let at = self.connection.rest.dead_since();
                self.tell_all_at(at.unwrap_or_else(|| self.now()), |_| {
                    vec![facts::auth(
                        false,
                        Some("the gateway or the API refused the token"),
                    )]
                });
                let refused =
                    facts::refused(Transport::Gateway, "discord.token_invalid", facts::TOKEN_REFUSED);
                self.tell_all(|_| vec![refused.clone()]);
            }
            News::Reconnected => {
                let attended: Vec<_> = self.guilds.attended().collect();
                self.counts.reconnected(attended.into_iter());
            }
            News::Ended => {
                let attended: Vec<_> = self.guilds.attended().collect();
                let fact = facts::link(Transport::Gateway, LinkState::Closed);
                self.tell(attended.into_iter().map(|id| (id, fact.clone())).collect());
            }
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a heartbeat takes no longer than its interval"
    )]
    fn tell_up(&mut self, guilds: &[u64], latency: Option<f64>) {
        let up = facts::link(Transport::Gateway, LinkState::Up);
        let millis = latency.map(|latency| latency.round() as u64);
        let told = guilds.iter().flat_map(|id| {
            let latency = millis.map(|millis| (*id, Fact::Latency { millis }));
            [(*id, up.clone())].into_iter().chain(latency)
        });
        self.tell(told.collect());
    }

    fn flush(&mut self) {
        let now = self.now();
        let writer = self.options.writer.clone();
        let changes = self.counts.take_changes(now);
        let told = changes.into_iter().map(|(guild, totals)| {
            let writer = writer.clone();
            (guild, Fact::Counters { writer, totals })
        });
        self.tell(told.collect());
    }

    fn tell_all(&mut self, facts: impl Fn(u64) -> Vec<Fact>) {
        self.tell_all_at(self.now(), facts);
    }

    fn tell_all_at(&mut self, at: Timestamp, facts: impl Fn(u64) -> Vec<Fact>) {
        for id in self.targets.keys().copied().collect::<Vec<_>>() {
            self.tell_at(id, at, facts(id));
        }
    }

    fn tell(&mut self, told: Vec<(u64, Fact)>) {
        let now = self.now();
        let mut by_guild: BTreeMap<u64, Vec<Fact>> = BTreeMap::new();
        for (id, fact) in told {
            by_guild.entry(id).or_default().push(fact);
        }
        for (id, facts) in by_guild {
            self.tell_at(id, now, facts);
        }
    }

    /// Tells facts that were learnt together. Two events of one millisecond must not tie, because the order in which they
    /// came is known here and nowhere else; the later one is dated a millisecond later.
    fn tell_at(&mut self, guild: u64, at: Timestamp, facts: Vec<Fact>) {
        const DRIFT: i64 = 1_000;
        let Some(key) = self.targets.get(&guild) else {
            return;
        };
        let last = self.told_at.get(&guild).copied();
        let behind = last.filter(|last| (0..DRIFT).contains(&last.millis_since(at)));
        let at = behind.map_or(at, |last| last.plus_millis(1));
        self.told_at.insert(guild, at);
        let observations = facts.into_iter().map(|fact| Observation::new(key, at, BY, fact));
        self.pending.extend(observations);
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
