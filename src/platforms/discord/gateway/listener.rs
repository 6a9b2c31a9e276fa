//! The loop around the gateway's state machine: reads frames and tracks time. [`actions`] executes the machine's orders,
//! [`reporting`] publishes facts for the sources, [`resume`] stores what outlives the process.

mod actions;
mod reporting;
mod resume;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info, warn};

use super::super::connection::Connection;
use super::super::facts;
use super::super::{GuildOptions, StreamFrom};
use super::GatewayOptions;
use super::counts::Counts;
use super::frames::{self, Frame};
use super::guilds::Guilds;
use super::jobs::{self, Done, Socket};
use super::machine::{INTENTS_ALL, Input, Kind, MINIMUM_INTENTS, Machine};
use super::replay::Replay;
use super::resume::Keeper;
use super::status::Status;
use crate::clock::Chance;
use crate::core::counters::Counters;
use crate::core::json;
use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::websocket;

/// Interval at which a warning about events that cannot be parsed is repeated.
const UNREAD_EVERY: Duration = Duration::from_mins(1);

/// Interval at which a rejected token is checked again, in case a probe found that it works.
const REVIVAL: Duration = Duration::from_mins(1);
/// How long after RESUMED the replay of an earlier process's session counts as over. The documentation does not say whether the
/// RESUMED of an earlier resume is replayed, too; then events of the replay follow it. Facts of that time are reported all the same.
const REPLAY_TAIL: Duration = Duration::from_secs(1);
/// Observations that may be queued for the sink before reading stops.
const BACKLOG: usize = 50_000;
/// Maximum number of frames that are read at once before a tick.
const CATCH_UP: usize = 1_000;

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
    targets: BTreeMap<u64, SourceKey>,
    machine: Machine,
    guilds: Guilds,
    counts: Counts,
    socket: Option<Socket>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    requested_members: BTreeSet<u64>,
    keeper: Keeper,
    /// The stored totals, while those of an earlier process's session catch up with them.
    stored: Option<BTreeMap<u64, Counters>>,
    replay: Replay,
    /// When the replay of an earlier process's session counts as over.
    replay_ends_at: Option<Instant>,
    pending: VecDeque<Observation>,
    /// When something was last emitted for a guild.
    emitted_at: BTreeMap<u64, Timestamp>,
    settle_at: Option<Instant>,
    /// When the warning about events that cannot be parsed was last logged.
    unread_warned: Option<Instant>,
    flush_at: Instant,
    revive_at: Instant,
    latency: Option<f64>,
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
            counts: Counts::new(restored, options.count_bots),
            machine: Machine::new(intents, options.pace),
            keeper: Keeper::new(connection.rest.memory().dir()),
            stored: None,
            replay: Replay::new(streams),
            replay_ends_at: None,
            targets,
            connection,
            chance,
            begun: Instant::now(),
            socket: None,
            jobs: FuturesUnordered::new(),
            requested_members: BTreeSet::new(),
            pending: VecDeque::new(),
            emitted_at: BTreeMap::new(),
            settle_at: None,
            unread_warned: None,
            flush_at: Instant::now() + options.flush,
            revive_at: Instant::now() + REVIVAL,
            latency: None,
            timeout_end: None,
            token_died: false,
            options,
        };
        listener.recall();
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
            let reading = self.socket.is_some() && self.pending.len() < BACKLOG;
            tokio::select! {
                ending = &mut stop => break ending,
                frame = next_frame(&mut self.socket), if reading => self.on_frame(frame).await,
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.done(done).await,
                permit = sink.reserve(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => if let Some(observation) = self.pending.pop_front() {
                        permit.send(observation);
                    },
                    // The sender of `stop` is gone, so there is nothing left to do.
                    Err(_) => break Shutdown::Handover,
                },
                () = tokio::time::sleep_until(wake) => self.tick().await,
            }
        };
        self.caught_up();
        match ending {
            Shutdown::Final => {
                self.feed(Input::Stop).await;
                self.keeper.forget();
            }
            // Never 1000 or 1001, which would end the session. Its current state is stored, so that nothing that this listener
            // has reported is replayed to the next one.
            Shutdown::Handover => {
                self.keep_now();
                self.close_socket(4000).await;
            }
        }
        self.connection.emitted().clear();
        self.flush();
        while let Some(observation) = self.pending.pop_front() {
            // The engine drains for a bounded time after a stop; what does not fit then is reported by the next probe.
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
            .timeout_end
            .map(|end| Instant::now() + end.since(self.discord_now()));
        [
            machine,
            self.settle_at,
            self.replay_ends_at,
            timeout,
            Some(self.revive_at),
        ]
        .into_iter()
        .flatten()
        .fold(self.flush_at, Instant::min)
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if self.settle_at.is_some_and(|at| at <= now) {
            self.settle_at = None;
            let facts = self.guilds.settle();
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
            self.keep();
        }
        if self.revive_at <= now {
            self.revive_at = now + REVIVAL;
            self.check_token().await;
        }
        let caught_up = self.catch_up().await;
        if self.replay_ends_at.is_some_and(|at| at <= now) {
            if caught_up {
                self.take_over();
            } else {
                self.replay_ends_at = Some(now + REPLAY_TAIL);
            }
        }
        self.feed(Input::Tick { caught_up }).await;
    }

    /// Reads what is buffered in the socket. Returns whether that was all: an acknowledgement that was not read yet must not
    /// count as missing, however late the task runs.
    async fn catch_up(&mut self) -> bool {
        for _ in 0..CATCH_UP {
            if self.pending.len() >= BACKLOG {
                return false;
            }
            let Some(frame) = tokio::task::unconstrained(next_frame(&mut self.socket)).now_or_never() else {
                return true;
            };
            self.on_frame(frame).await;
        }
        false
    }

    /// Applies what probes over REST have found out about the token meanwhile: invalid, or valid again.
    async fn check_token(&mut self) {
        if self.connection.rest.is_dead() {
            self.feed(Input::TokenDead).await;
        } else if self.token_died {
            self.token_died = false;
            self.feed(Input::Start).await;
        }
    }

    async fn on_frame(&mut self, frame: Option<Message>) {
        match frame {
            Some(Message::Text(text)) => self.read(&json::repair_text(&text)).await,
            Some(Message::Close(close)) => {
                self.socket = None;
                let code = close.map(|close| u16::from(close.code));
                self.feed(Input::Closed(code)).await;
            }
            None => {
                self.socket = None;
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
                let facts = self.guilds.update(event, data, self.discord_now());
                self.emit_replayed(facts);
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
        self.caught_up();
        self.settle_at = Some(Instant::now() + self.options.settle);
        self.requested_members.clear();
        self.emit_all(|_| vec![facts::auth(true, None)]);
        let intents = self.machine.intents().to_string();
        self.emit_all(|_| {
            let fields = [("intentsGranted", intents.as_str()), ("shard", "0/1")];
            let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
            vec![Fact::Profile {
                fields: BTreeMap::from(fields),
            }]
        });
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
                self.socket = Some(*socket);
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
                inputs.extend(self.obey(order).await);
            }
        }
        self.options.board.phase(self.machine.phase(), self.now());
    }

    /// Returns the milliseconds since the start, by a monotonic clock.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Timestamp {
        self.connection.rest.clock().now()
    }

    /// The current time by Discord's clock, by which timeouts expire.
    fn discord_now(&self) -> Timestamp {
        self.connection.rest.skew().correct(self.now())
    }
}

/// Returns whether an event may allow what was forbidden before.
fn changes_permissions(event: &str) -> bool {
    event.starts_with("GUILD_ROLE_")
        || event.starts_with("CHANNEL_")
        || ["GUILD_CREATE", "GUILD_UPDATE", "GUILD_MEMBER_UPDATE"].contains(&event)
}

/// Reads the next frame; `None` when the socket is closed. Cancel-safe: a frame that is not returned is not lost.
async fn next_frame(socket: &mut Option<Socket>) -> Option<Message> {
    match socket {
        Some(socket) => match socket.next().await? {
            Ok(message) => Some(message),
            Err(error) => {
                if let Some((code, reason)) = websocket::local_error(PlatformName::Discord, &error) {
                    warn!(
                        platform = "discord",
                        %code, reason, "The connection to Discord's gateway was given up"
                    );
                }
                None
            }
        },
        None => std::future::pending().await,
    }
}
