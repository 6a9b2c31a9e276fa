//! One EventSub connection: the loop that runs `machine` and `subscriptions` and reads the sockets.
//!
//! The loop only parses and forwards. Calls to Twitch run concurrently, so a slow answer never delays a pong. `subscriptions`
//! tracks the subscriptions, `reporting` reports the links of sources.

mod clocks;
mod reporting;
mod subscriptions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use self::clocks::Clocks;
use super::super::TwitchPlatform;
use super::hub::{Hub, Notification, Present};
use super::kinds::Subscription;
use super::machine::{self, Effect, Failure, Input, Millis, Phase, SocketId, State};
use super::rest::{Bill, Created};
use super::socket::{self, End, Frame};
use super::subscription_set::SubscriptionSet;
use super::wire::{self, Body, SubscriptionInfo};
use crate::core::observation::{ErrorInfo, Identity, LinkState};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;

/// How often a connection that is up repeats its observation.
const HEARTBEAT: Millis = 60_000;
/// How often Twitch's list of subscriptions is compared with ours.
const COMPARE: Millis = 10 * 60_000;
/// After a move to another socket the list is compared soon: nothing else reports subscriptions that were lost in the move.
const COMPARE_AFTER_MOVE: Millis = 15_000;
/// A session of this age has outlived all leftovers of its predecessor at Twitch.
const SETTLED: Millis = 120_000;
/// How long sources wait so that they are probed together with others.
const GATHER: Millis = 2_000;
/// The loop checks the clocks at least this often.
const LONGEST_SLEEP: Millis = 5_000;
/// Maximum number of messages read at once.
const AT_ONCE: usize = 1_000;
/// Number of sessions remembered. Twitch removes dead ones within minutes.
const SESSIONS: usize = 20;

/// The dependencies of a connection.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) twitch: Arc<TwitchPlatform>,
    pub(super) hub: Arc<Hub>,
    /// Milliseconds of the connection's time per real millisecond. Only tests use more than 1.
    pub(super) pace: u32,
    /// Whether differences between the clocks end the connection.
    pub(super) watch_clock: bool,
}

pub(super) struct Connection {
    cx: Context,
    /// Unique among a listener's connections.
    name: String,
    identity: Identity,
    socket_number: usize,
    wanted: watch::Receiver<Vec<Subscription>>,
    /// Counts how often refused subscriptions should be retried.
    retries: watch::Receiver<u64>,
    state: State,
    subscriptions: SubscriptionSet,
    clocks: Clocks,
    frames: SelectAll<BoxStream<'static, (SocketId, Frame)>>,
    closers: HashMap<SocketId, oneshot::Sender<()>>,
    works: FuturesUnordered<BoxFuture<'static, Work>>,
    link_reports: BTreeMap<SourceKey, LinkReport>,
    unaccepted: Option<Unaccepted>,
    /// Sources that are covered again and have not been probed since.
    fresh: BTreeSet<SourceKey>,
    fresh_since: Option<Millis>,
    /// The session, and those that it moved from, oldest first. Empty while there is none.
    sessions: Vec<String>,
    past_sessions: Vec<String>,
    session_since: Millis,
    next_heartbeat: Millis,
    next_missed_check: Millis,
    next_compare: Option<Millis>,
    comparing: bool,
    last_error: Option<ErrorInfo>,
    was_up: bool,
    dirty: bool,
}

/// Returns the name that identifies a connection.
pub(super) fn connection_name(identity: &Identity, socket_number: usize) -> String {
    format!("{identity}#{socket_number}")
}

/// The last report about a source's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkReport {
    Nothing,
    Up,
    Failure,
}

/// A subscription that should be accepted but is not; reported unless it is accepted in time.
struct Unaccepted {
    by: Millis,
    /// Since when.
    at: Timestamp,
    /// Why the connection is lost; `None` while Twitch has only not accepted everything yet.
    failure: Option<Failure>,
}

/// A call that ran concurrently with the loop.
enum Work {
    Opened(
        SocketId,
        Result<BoxStream<'static, (SocketId, Frame)>, (Failure, bool)>,
        oneshot::Sender<()>,
    ),
    Created(String, Subscription, Created),
    Listed {
        session: Option<String>,
        settled: bool,
        listed: Result<(Vec<SubscriptionInfo>, Bill), PlatformError>,
    },
    Deleted(Result<(), PlatformError>),
}

impl Connection {
    pub(super) fn new(
        cx: Context,
        identity: Identity,
        socket_number: usize,
        wanted: watch::Receiver<Vec<Subscription>>,
    ) -> Self {
        let clocks = Clocks::new(cx.twitch.clock.now(), cx.pace);
        let retries = cx.hub.retries.subscribe();
        Self {
            cx,
            name: connection_name(&identity, socket_number),
            identity,
            socket_number,
            wanted,
            retries,
            state: State::new(0),
            subscriptions: SubscriptionSet::default(),
            clocks,
            frames: SelectAll::new(),
            closers: HashMap::new(),
            works: FuturesUnordered::new(),
            link_reports: BTreeMap::new(),
            unaccepted: None,
            fresh: BTreeSet::new(),
            fresh_since: None,
            sessions: Vec::new(),
            past_sessions: Vec::new(),
            session_since: 0,
            next_heartbeat: HEARTBEAT,
            next_missed_check: LONGEST_SLEEP,
            next_compare: None,
            comparing: false,
            last_error: None,
            was_up: false,
            dirty: true,
        }
    }

    /// Runs until `stop`, then closes the sockets and reports that.
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
                Ok(()) = self.retries.changed() => {
                    let now = self.now();
                    self.subscriptions.retry_refused(now);
                }
                Some((socket, frame)) = self.frames.next(), if !self.frames.is_empty() => self.frame(socket, frame),
                Some(work) = self.works.next(), if !self.works.is_empty() => self.worked(work),
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

    /// The current time by every clock that may be Twitch's.
    fn present(&self) -> Present {
        let ours = self.cx.twitch.clock.now();
        Present {
            now: self.twitch_now(),
            earliest: self.clocks.earliest(ours, &self.cx.twitch.skew),
        }
    }

    /// How long to sleep if no event occurs.
    fn sleep_time(&self) -> Duration {
        let now = self.now();
        let in_session = self.state.session().is_some();
        let deadlines = [
            self.state.deadline(),
            self.subscriptions.deadline().filter(|_| in_session),
            self.unaccepted.as_ref().map(|unaccepted| unaccepted.by),
            self.fresh_since.map(|since| since + GATHER),
            self.next_compare,
            Some(self.next_heartbeat),
            Some(now + LONGEST_SLEEP),
        ];
        let next = deadlines.into_iter().flatten().min().unwrap_or(now);
        // Never zero: work that is due but cannot be done yet must not cause a busy loop.
        let wait = next.saturating_sub(now).max(5);
        Duration::from_millis(wait) / self.cx.pace
    }

    /// Does everything that is due.
    fn run_due(&mut self) {
        let now = self.now();
        self.notice_jump();
        if self.is_due(now) {
            // If the loop itself was delayed, frames that are ready are read before the keepalive timeout is checked.
            self.read_ready_frames();
            if self.is_due(now) {
                self.step(Input::Tick);
            }
        }
        if matches!(self.state.phase, Phase::Open(_)) {
            self.create_due();
            self.delete_surplus();
            if self.next_compare.is_some_and(|at| at <= now) {
                self.compare(self.settled_for(SETTLED));
            }
        }
        self.report_unaccepted(now);
        self.request_probes(now);
        if self.next_heartbeat <= now {
            self.heartbeat(now);
        }
        if self.next_missed_check <= now {
            self.next_missed_check = now + LONGEST_SLEEP;
            self.detect_missed_events();
        }
        self.publish();
    }

    fn is_due(&self, now: Millis) -> bool {
        self.state.deadline().is_some_and(|deadline| deadline <= now)
    }

    fn read_ready_frames(&mut self) {
        for _ in 0..AT_ONCE {
            match self.frames.next().now_or_never() {
                Some(Some((socket, frame))) => self.frame(socket, frame),
                _ => return,
            }
        }
    }

    /// Detects that this machine was suspended or that its clock was set.
    fn notice_jump(&mut self) {
        if !self.cx.watch_clock {
            return;
        }
        if let Some(apart_ms) = self.clocks.jumped(self.cx.twitch.clock.now()) {
            info!(
                connection = self.name,
                apart_ms, "The clock jumped; connecting afresh"
            );
            self.step(Input::Jumped);
        }
    }

    /// Passes an input to the state machine and performs the resulting effects.
    fn step(&mut self, input: Input) {
        let chance = self.cx.twitch.helix.chance.fraction();
        let state = std::mem::replace(&mut self.state, State::new(0));
        let before = state.phase.clone();
        let (state, effects) = machine::next(state, input, self.now(), chance);
        self.state = state;
        self.dirty |= std::mem::discriminant(&before) != std::mem::discriminant(&self.state.phase);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.dirty = true;
        match effect {
            Effect::Open { socket, url } => self.open(socket, url),
            // Dropping the sender closes the socket; one that is still opening is closed when it opens.
            Effect::Close(socket) => drop(self.closers.remove(&socket)),
            Effect::Subscribe { session } => {
                debug!(connection = self.name, "Welcomed");
                self.sessions.clear();
                self.adopt(&session);
                let now = self.now();
                self.subscriptions.start_over(now);
                self.next_compare = Some(now + COMPARE);
            }
            Effect::Moved { session } => {
                info!(connection = self.name, "Moved to another address of Twitch's");
                self.adopt(&session);
                self.next_compare = Some(self.now() + COMPARE_AFTER_MOVE);
            }
            Effect::Up => self.up(),
            Effect::Down(failure) => self.down(failure),
            Effect::Ended => self.ended(),
        }
    }

    fn adopt(&mut self, session: &str) {
        for sessions in [&mut self.sessions, &mut self.past_sessions] {
            sessions.retain(|known| *known != session);
            if sessions.len() == SESSIONS {
                sessions.remove(0);
            }
            sessions.push(session.to_owned());
        }
        self.session_since = self.now();
        self.cx.hub.note_sessions(&self.name, &self.sessions);
    }

    fn open(&mut self, id: SocketId, url: Option<String>) {
        let (cx, identity) = (self.cx.clone(), self.identity.clone());
        let (close, closed) = oneshot::channel();
        self.works.push(Box::pin(async move {
            let opened = async {
                let url = if let Some(url) = url {
                    url
                } else {
                    // A session is lost if it has no subscription within ten seconds, so the token is obtained first.
                    let access = cx.twitch.auth.access(&identity, &Meter::silent()).await;
                    access.map_err(|error| not_authorized(&error))?;
                    cx.twitch.options.eventsub_ws_url.to_string()
                };
                let socket = socket::open(&url, Duration::from_secs(12)).await?;
                Ok(socket::frames(id, socket, closed))
            };
            Work::Opened(id, opened.await, close)
        }));
    }

    fn worked(&mut self, work: Work) {
        match work {
            Work::Opened(id, Ok(frames), close) => {
                self.closers.insert(id, close);
                self.frames.push(frames);
                self.step(Input::Opened(id));
            }
            Work::Opened(socket, Err((failure, permanent)), _) => self.step(Input::NotOpened {
                socket,
                failure,
                permanent,
            }),
            Work::Created(session, subscription, created) => self.created(&session, &subscription, created),
            Work::Listed {
                session,
                settled,
                listed,
            } => self.listed(session.as_deref(), settled, listed),
            Work::Deleted(Ok(())) => self.subscriptions.capacity_freed(self.clocks.now()),
            Work::Deleted(Err(error)) => {
                debug!(
                    connection = self.name,
                    error = &error as &dyn std::error::Error,
                    "A subscription was not deleted"
                );
            }
        }
    }

    fn frame(&mut self, socket: SocketId, frame: Frame) {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Binary(length) => {
                self.cx.hub.binary(length, self.twitch_now());
                return self.step(Input::Received(socket));
            }
            Frame::Ended(end) => {
                self.closers.remove(&socket);
                return self.step(match end {
                    End::Closed(code) => Input::Closed { socket, code },
                    End::Refused(failure) => Input::Broken { socket, failure },
                });
            }
        };
        let Some(message) = wire::read(&text) else {
            self.cx.hub.unreadable_frame(&self.name, &text, self.twitch_now());
            return self.step(Input::Received(socket));
        };
        match message.body {
            Body::Welcome {
                session,
                keepalive_secs,
            } => {
                if let Some(theirs) = message.at {
                    self.clocks.welcomed(theirs, self.cx.twitch.clock.now());
                }
                self.step(Input::Welcome {
                    socket,
                    session,
                    keepalive_secs,
                });
            }
            Body::Reconnect { url } => self.step(Input::Reconnect { socket, url }),
            Body::Notification { kind, channel, event } => {
                self.step(Input::Received(socket));
                self.cx.hub.notified(&Notification {
                    id: &message.id,
                    kind: &kind,
                    event: event.get(),
                    channel: channel.as_deref(),
                    at: message.at,
                    present: self.present(),
                });
            }
            Body::Revocation(info) => {
                self.step(Input::Received(socket));
                let current = self.state.uses(socket);
                self.revoked(&info, current);
            }
            Body::Keepalive => self.step(Input::Received(socket)),
            Body::Unreadable { kind } => {
                self.cx.hub.unreadable(&kind, self.twitch_now());
                self.step(Input::Received(socket));
            }
            Body::Unknown(kind) => {
                debug!(connection = self.name, kind, "A message of an unknown type");
                self.cx.hub.unknown();
                self.step(Input::Received(socket));
            }
        }
    }
}

fn not_authorized(error: &PlatformError) -> (Failure, bool) {
    let refused = matches!(error.link_state(), LinkState::Refused { .. });
    let failure = Failure {
        code: error.code(),
        reason: error.error_info().message,
        refused,
    };
    (failure, refused)
}
