//! The loop around the gateway's state machine: reads frames, tracks time, and executes the machine's orders.

mod emitter;
mod resumption;
mod socket;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info, warn};

use self::emitter::Emitter;
use self::resumption::Resumption;
use self::socket::GatewaySocket;
use super::super::connection::Connection;
use super::super::facts;
use super::super::{GuildOptions, StreamFrom};
use super::GatewayOptions;
use super::counts::Counts;
use super::frames::{self, Frame};
use super::guilds::{GuildFacts, Guilds};
use super::jobs::{self, Done, IdentifyLimits, SPENT};
use super::machine::{GatewayReport, INTENTS_ALL, Input, Kind, MINIMUM_INTENTS, Machine, Order, Phase};
use super::resume::Claim;
use super::status::Status;
use crate::clock::Chance;
use crate::core::code::Code;
use crate::core::counters::Counters;
use crate::core::json;
use crate::core::observation::{ErrorInfo, Fact, LinkState, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey, by_number};
use crate::core::time::Timestamp;
use crate::platforms::kit::smoothed_latency::Smoothed;

/// Interval at which a warning about events that cannot be parsed is repeated.
const UNREAD_EVERY: Duration = Duration::from_mins(1);

/// Interval at which a rejected token is checked again, in case a probe found that it works.
const REVIVAL: Duration = Duration::from_mins(1);
/// Maximum number of frames that are read at once before a tick.
const MAX_FRAMES_AT_ONCE: usize = 1_000;

/// How a listener is to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// For good: the session ends, and the sources' verdicts change.
    Final,
    /// Another listener follows at once, so nothing is published.
    Handover,
}

/// Keeps one gateway connection for one bot and publishes what it receives.
pub struct GatewayListener {
    connection: Arc<Connection>,
    options: GatewayOptions,
    chance: Chance,
    begun: Instant,
    machine: Machine,
    guilds: Guilds,
    counts: Counts,
    socket: GatewaySocket,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    requested_members: BTreeSet<u64>,
    resumption: Resumption,
    emitter: Emitter,
    missing_at: Option<Instant>,
    /// When the warning about events that cannot be parsed was last logged.
    unread_warned: Option<Instant>,
    flush_at: Instant,
    revive_at: Instant,
    latency: Smoothed,
    /// When a timeout of the bot next expires.
    timeout_end: Option<Timestamp>,
    /// Whether the machine is in `Phase::Refused` because of an invalid token.
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
        let targets = by_number(PlatformName::Discord, &options.sources);
        let configured = targets.keys().map(|id| {
            let guild = known.get(id).cloned();
            (*id, guild.unwrap_or_default())
        });
        let restored: BTreeMap<u64, Counters> = options
            .restored
            .iter()
            .filter_map(|(key, totals)| Some((key.id().parse().ok()?, *totals)))
            .collect();
        let streams = options
            .streams
            .iter()
            .filter_map(|(key, known)| Some((key.id().parse().ok()?, known.clone())))
            .collect();
        // Without a stream mapping, voice states are not needed: they are the most frequent events after messages.
        let intents = if stream_from.is_some() {
            INTENTS_ALL
        } else {
            MINIMUM_INTENTS
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
            counts: Counts::new(restored),
            machine: Machine::new(intents, options.pace),
            resumption: Resumption::new(connection.rest.memory.dir(), streams),
            emitter: Emitter::new(Arc::clone(&connection), targets),
            connection,
            chance,
            begun: Instant::now(),
            socket: GatewaySocket::default(),
            jobs: FuturesUnordered::new(),
            requested_members: BTreeSet::new(),
            missing_at: None,
            unread_warned: None,
            flush_at: Instant::now() + options.flush,
            revive_at: Instant::now() + REVIVAL,
            latency: Smoothed::new(0.3),
            timeout_end: None,
            token_died: false,
            options,
        };
        listener.recall_session();
        listener
    }

    /// Listens until `stop` resolves, then shuts down as it specifies. Observations go to `sink`, whose bound slows down reading
    /// but never the heartbeats. Returns the totals, for the next listener.
    pub async fn run(
        mut self,
        stop: impl Future<Output = Shutdown> + Send,
        sink: mpsc::Sender<Observation>,
    ) -> BTreeMap<SourceKey, Counters> {
        tokio::pin!(stop);
        self.feed(Input::Start).await;
        let ending = loop {
            let wake = self.wake_at();
            let reading = self.socket.is_open() && !self.emitter.is_full();
            tokio::select! {
                ending = &mut stop => break ending,
                frame = self.socket.next(), if reading => self.on_frame(frame).await,
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.done(done).await,
                permit = sink.reserve(), if !self.emitter.is_empty() => match permit {
                    Ok(permit) => if let Some(observation) = self.emitter.take() {
                        permit.send(observation);
                    },
                    // The sender of `stop` is gone, so there is nothing left to do.
                    Err(_) => break Shutdown::Handover,
                },
                () = tokio::time::sleep_until(wake) => self.tick().await,
            }
        };
        self.resumption.end_replay(&mut self.counts);
        match ending {
            Shutdown::Final => {
                self.feed(Input::Stop).await;
                self.resumption.forget();
            }
            // Never 1000 or 1001, which would end the session. Its current state is stored, so that nothing that this listener
            // has reported is replayed to the next one.
            Shutdown::Handover => {
                self.store_session();
                self.socket.close(4000).await;
            }
        }
        self.connection.emitted.lock().clear();
        self.flush();
        while let Some(observation) = self.emitter.take() {
            // The engine drains for a bounded time after a stop; what does not fit then is reported by the next probe.
            if sink.send(observation).await.is_err() {
                break;
            }
        }
        let totals = self.counts.totals.all();
        let of = |(id, key): (&u64, &SourceKey)| Some((key.clone(), *totals.get(id)?));
        self.emitter.targets().iter().filter_map(of).collect()
    }

    fn wake_at(&self) -> Instant {
        let machine = self
            .machine
            .deadline()
            .map(|at| self.begun + Duration::from_millis(at));
        let timeout = self
            .timeout_end
            .map(|end| Instant::now() + end.since(self.discord_now()));
        [
            machine,
            self.missing_at,
            self.resumption.deadline(),
            timeout,
            Some(self.revive_at),
        ]
        .into_iter()
        .flatten()
        .fold(self.flush_at, Instant::min)
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if self.missing_at.is_some_and(|at| at <= now) {
            self.missing_at = None;
            let facts = self.guilds.report_missing();
            self.emit(facts);
        }
        if self.timeout_end.is_some_and(|end| end <= self.discord_now()) {
            let facts = self.guilds.recompute(self.discord_now());
            self.emit(facts);
        }
        self.timeout_end = self.guilds.next_timeout_end(self.discord_now());
        if self.flush_at <= now {
            self.flush_at = now + self.options.flush;
            self.flush();
            if self.resumption.may_keep(self.elapsed()) {
                self.store_session();
            }
        }
        if self.revive_at <= now {
            self.revive_at = now + REVIVAL;
            self.check_token().await;
        }
        let caught_up = self.catch_up().await;
        if self.resumption.ends_replay(now, caught_up) {
            self.take_over();
        }
        self.feed(Input::Tick { caught_up }).await;
    }

    /// Reads what is buffered in the socket. Returns whether that was all: an acknowledgement that was not read yet must not
    /// count as missing, however late the task runs.
    async fn catch_up(&mut self) -> bool {
        for _ in 0..MAX_FRAMES_AT_ONCE {
            if self.emitter.is_full() {
                return false;
            }
            let Some(frame) = tokio::task::unconstrained(self.socket.next()).now_or_never() else {
                return true;
            };
            self.on_frame(frame).await;
        }
        false
    }

    /// Applies what probes over REST have found out about the token meanwhile: invalid, or valid again.
    async fn check_token(&mut self) {
        if self.connection.rest.is_token_rejected() {
            self.feed(Input::TokenRejected).await;
        } else if self.token_died {
            self.token_died = false;
            self.feed(Input::Start).await;
        }
    }

    async fn on_frame(&mut self, frame: Option<Message>) {
        match frame {
            Some(Message::Text(text)) => self.read(&json::repair_text(&text)).await,
            Some(Message::Close(close)) => {
                self.socket.clear();
                let code = close.map(|close| u16::from(close.code));
                self.feed(Input::Closed(code)).await;
            }
            None => {
                self.socket.clear();
                self.feed(Input::Closed(None)).await;
            }
            // Compression is not requested, so this is text from a server that labels it as binary.
            Some(Message::Binary(bytes)) => self.read(&json::repair(&bytes)).await,
            // Pings are answered by the websocket library.
            Some(_) => {}
        }
    }

    async fn read(&mut self, text: &str) {
        let Some(frame) = Frame::read(text) else {
            frames::log_unreadable(text);
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
                    self.guilds.assume_bot_user(me.id);
                }
                let unread = self.guilds.unread();
                let now = self.discord_now();
                let facts = self.guilds.update(event, data, now);
                let replay = &mut self.resumption.replay;
                let facts = self.emitter.emit_replayed(facts, replay, now);
                self.emit(facts);
                if self.guilds.unread() > unread {
                    self.warn_of_unread(event);
                    self.options.board.write(|status| status.unread += 1);
                }
                if changes_permissions(event) {
                    self.connection.rest.clear_holds();
                }
                self.timeout_end = self.guilds.next_timeout_end(self.discord_now());
            }
            if matches!(kind, Kind::Ready { .. }) {
                self.welcomed();
            }
        }
        self.feed(Input::Received(kind)).await;
        self.request_members();
    }

    /// Warns that an event cannot be parsed, once a minute: visible to the operator, but not logged for every event of a busy
    /// guild.
    fn warn_of_unread(&mut self, event: &str) {
        let now = Instant::now();
        if self
            .unread_warned
            .is_some_and(|last| now.duration_since(last) < UNREAD_EVERY)
        {
            return debug!(event.kind = event, "An event of Discord's gateway cannot be read");
        }
        self.unread_warned = Some(now);
        warn!(
            platform = "discord",
            event.kind = event,
            "An event of Discord's gateway cannot be read; what it changed is unknown until a probe finds it"
        );
    }

    fn welcomed(&mut self) {
        info!(platform = "discord", "Discord's gateway has begun a session");
        self.resumption.end_replay(&mut self.counts);
        self.missing_at = Some(Instant::now() + self.options.guild_patience);
        self.requested_members.clear();
        let intents = self.machine.intents().to_string();
        let fields = [("intentsGranted", intents.as_str()), ("shard", "0/1")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let profile = Fact::Profile {
            fields: BTreeMap::from(fields),
        };
        self.emit_all(&[facts::auth(true, None)]);
        self.emit_all(&[profile]);
    }

    /// Requests the bot's own member entry over REST for guilds that were received without it.
    fn request_members(&mut self) {
        let Some(me) = self.guilds.me() else {
            return;
        };
        let missing: Vec<_> = self
            .guilds
            .without_member()
            .filter(|guild| !self.requested_members.contains(guild))
            .collect();
        for guild in missing {
            self.requested_members.insert(guild);
            let asking = jobs::member(Arc::clone(&self.connection), guild, me);
            self.jobs.push(asking.boxed());
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Input(input) => self.feed(input).await,
            Done::Opened(Ok(socket)) => {
                self.socket.set(*socket);
                self.feed(Input::Opened).await;
            }
            Done::Opened(Err((code, message))) => self.feed(Input::OpenFailed { code, message }).await,
            Done::Member(guild, Some(member)) => {
                let facts = self.guilds.apply_member(guild, member, self.discord_now());
                self.emit(facts);
            }
            Done::Member(_, None) => {}
        }
    }

    /// Feeds the machine and executes its orders, which may feed it again.
    async fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let jitter = self.chance.fraction();
            for order in self.machine.next(self.elapsed(), input, jitter) {
                inputs.extend(self.execute(order).await);
            }
        }
        self.options.board.phase(self.machine.phase(), self.now());
    }

    async fn execute(&mut self, order: Order) -> Option<Input> {
        match order {
            Order::Ask => {
                let limits = IdentifyLimits {
                    cap: self.options.identify_cap,
                    reserve: self.options.identify_reserve,
                    spacing: self.options.identify_spacing,
                };
                self.jobs
                    .push(jobs::ask(Arc::clone(&self.connection), limits).boxed());
            }
            Order::ConfirmToken => self
                .jobs
                .push(jobs::confirm(Arc::clone(&self.connection)).boxed()),
            Order::Connect(url) => self
                .jobs
                .push(jobs::open(Arc::clone(&self.connection), url).boxed()),
            Order::Identify { intents } => return self.identify(intents).await,
            Order::Resume(session) => {
                let text = frames::resume(&self.connection.rest.token, &session);
                self.socket.send(text).await;
            }
            Order::Heartbeat(seq) => self.socket.send(frames::heartbeat(seq)).await,
            Order::Hangup(code) => self.socket.close(code).await,
            Order::Report(report) => {
                // A probe over REST may have found that the token is invalid while this socket is still open.
                let send_heartbeat = matches!(report, GatewayReport::HeartbeatAcknowledged(_));
                self.announce(report);
                return (send_heartbeat && self.connection.rest.is_token_rejected())
                    .then_some(Input::TokenRejected);
            }
        }
        None
    }

    /// Sends an Identify if it can be recorded first.
    async fn identify(&mut self, intents: u64) -> Option<Input> {
        let bot = self
            .connection
            .me
            .get()
            .map(|me| me.id.to_string())
            .unwrap_or_default();
        let memory = &self.connection.rest.memory;
        match memory.claim_identify(&bot, self.options.identify_cap, self.now()) {
            Ok(()) => {
                self.options.board.write(|status| status.identifies += 1);
                let text = frames::identify(&self.connection.rest.token, intents);
                self.socket.send(text).await;
                None
            }
            Err(refusal) => Some(Input::Denied {
                retry_in: SPENT,
                code: Code::DiscordIdentifyLimit,
                message: refusal.to_string(),
            }),
        }
    }

    fn announce(&mut self, report: GatewayReport) {
        match report {
            GatewayReport::Resumed => {
                debug!(platform = "discord", "The session with Discord's gateway goes on");
                self.options.board.write(|status| status.resumes += 1);
                self.emit_all(&[facts::auth(true, None)]);
                if self.resumption.resumed() {
                    let available: Vec<_> = self.guilds.available().collect();
                    self.emit_up(&available, None);
                }
            }
            GatewayReport::HeartbeatAcknowledged(millis) => {
                if let Some(millis) = millis {
                    self.latency.record(Duration::from_millis(millis));
                }
                let (now, latency) = (self.now(), self.latency.millis());
                self.options.board.write(|status| {
                    status.last_heartbeat = Some(now);
                    status.latency_ms = latency;
                });
                let available: Vec<_> = self.guilds.available().collect();
                self.emit_up(&available, millis.and(latency));
            }
            GatewayReport::Down { code, message } => {
                warn!(platform = "discord", %code, "Discord's gateway is lost: {message}");
                self.resumption.lost(self.discord_now());
                self.show_error(code, &message);
                let monitored: Vec<_> = self.guilds.monitored().collect();
                self.counts.failed(monitored.iter().copied());
                let fact = facts::down(Transport::Gateway, code, &message);
                self.emit(monitored.into_iter().map(|id| (id, fact.clone())).collect());
            }
            GatewayReport::Refused { code, message } => {
                warn!(platform = "discord", %code, "Discord's gateway refuses: {message}");
                self.show_error(code, &message);
                self.counts.failed(self.emitter.targets().keys().copied());
                self.emit_all(&[facts::refused(Transport::Gateway, code, &message)]);
            }
            GatewayReport::TokenRejected => {
                warn!(platform = "discord", "Discord refuses the bot token");
                self.show_error(Code::Unauthorized(PlatformName::Discord), facts::TOKEN_REFUSED);
                self.token_died = true;
                let at = self.connection.rest.token_rejected_at();
                let mut fact = facts::auth(false, Some("the gateway or the API refused the token"));
                if let Fact::Auth { check, .. } = &mut fact {
                    Arc::make_mut(check).rejected = !self.connection.rest.was_accepted();
                }
                self.emitter.emit_all(at.unwrap_or_else(|| self.now()), &[fact]);
                let refused = facts::refused(
                    Transport::Gateway,
                    Code::Unauthorized(PlatformName::Discord),
                    facts::TOKEN_REFUSED,
                );
                self.emit_all(&[refused]);
            }
            GatewayReport::Reconnected => {
                self.resumption.replay.resumed();
                let monitored: Vec<_> = self.guilds.monitored().collect();
                self.counts.reconnected(monitored.into_iter());
            }
            GatewayReport::Closed => {
                self.connection.emitted.lock().clear();
                let monitored: Vec<_> = self.guilds.monitored().collect();
                let fact = facts::link(Transport::Gateway, LinkState::Closed);
                self.emit(monitored.into_iter().map(|id| (id, fact.clone())).collect());
            }
        }
    }

    /// Ends the replay of an earlier process's session: what that process had reported is valid again.
    fn take_over(&mut self) {
        self.resumption.end_replay(&mut self.counts);
        let facts = self.guilds.republish(self.discord_now());
        self.timeout_end = self.guilds.next_timeout_end(self.discord_now());
        self.emit(facts);
    }

    fn emit_up(&mut self, guilds: &[u64], millis: Option<u64>) {
        let up = facts::up(Transport::Gateway);
        let facts = guilds.iter().flat_map(|id| {
            let latency = millis.map(|millis| (*id, Fact::Latency { millis }));
            [(*id, up.clone())].into_iter().chain(latency)
        });
        self.emit(facts.collect());
    }

    fn flush(&mut self) {
        let now = self.now();
        let writer = self.options.writer.clone();
        let changes = self.counts.totals.take_changes(now);
        let facts = changes.into_iter().map(|(guild, totals)| {
            let writer = writer.clone();
            (guild, Fact::Counters { writer, totals })
        });
        self.emit(facts.collect());
    }

    /// Emits facts about all guilds.
    fn emit_all(&mut self, facts: &[Fact]) {
        self.emitter.emit_all(self.now(), facts);
    }

    fn emit(&mut self, facts: GuildFacts) {
        let live = matches!(self.machine.phase(), Phase::Live { .. } | Phase::Entering { .. });
        self.emitter.share(&facts, &self.guilds, live);
        if facts.is_empty() {
            return;
        }
        let available = self.guilds.available().count();
        self.options.board.write(|status| status.available = available);
        self.emitter.emit(facts);
    }

    /// Loads the session of an earlier process that was not ended.
    fn recall_session(&mut self) {
        if self.connection.rest.is_token_rejected() {
            return;
        }
        let now = self.now();
        let claim = claim(&self.connection, &self.machine, &self.options);
        let session = self
            .resumption
            .recall(&claim, now, &mut self.guilds, &mut self.counts);
        if let Some(session) = session {
            self.machine.restore_session(session);
        }
    }

    /// Stores the session for the next process.
    fn store_session(&mut self) {
        let when = (self.now(), self.elapsed());
        let claim = claim(&self.connection, &self.machine, &self.options);
        self.resumption
            .keep(&claim, &self.machine, &self.guilds, &self.counts, when);
    }

    /// Shows on the status board why the connection is down.
    fn show_error(&self, code: Code, message: &str) {
        self.connection.emitted.lock().clear();
        let error = ErrorInfo::new(code, message);
        self.options.board.write(|status| status.last_error = Some(error));
    }

    /// Returns the milliseconds since the start, by a monotonic clock.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Timestamp {
        self.connection.rest.clock.now()
    }

    /// The current time by Discord's clock, by which timeouts expire.
    fn discord_now(&self) -> Timestamp {
        self.connection.rest.skew.correct(self.now())
    }
}

/// Returns whether an event may allow what was forbidden before.
fn changes_permissions(event: &str) -> bool {
    event.starts_with("GUILD_ROLE_")
        || event.starts_with("CHANNEL_")
        || ["GUILD_CREATE", "GUILD_UPDATE", "GUILD_MEMBER_UPDATE"].contains(&event)
}

/// Returns the claim that identifies us to the session store.
fn claim<'a>(connection: &'a Connection, machine: &Machine, options: &'a GatewayOptions) -> Claim<'a> {
    Claim {
        token: &connection.rest.fingerprint,
        intents: machine.intents(),
        writer: &options.writer,
    }
}
