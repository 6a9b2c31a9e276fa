//! One line: the loop that obeys `machine` and `roster` and reads the sockets.
//!
//! The loop only parses and hands on. Calls to Twitch run beside it, so a slow answer never keeps a ping waiting. What
//! becomes of subscriptions is in `books`, what is told of sources in `voice`.

mod books;
mod clocks;
mod voice;

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
use super::hub::Hub;
use super::kinds::Subscription;
use super::machine::{self, Effect, Input, Millis, Phase, SocketId, State, Trouble};
use super::rest::{Bill, Created};
use super::roster::Roster;
use super::socket::{self, Frame};
use super::wire::{self, Body, Told};
use crate::core::observation::{ErrorInfo, Identity, LinkState};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::meter::Meter;

/// How often a line that is up says so again.
const BEAT: Millis = 60_000;
/// How often the list of subscriptions is compared with ours.
const COMPARE: Millis = 10 * 60_000;
/// After a move the list is looked at soon: nothing else would tell of what got lost on the way.
const COMPARE_AFTER_MOVE: Millis = 15_000;
/// A session of this age has outlived whatever its predecessor left behind.
const SETTLED: Millis = 120_000;
/// How long sources wait for others to be looked at together with them.
const GATHER: Millis = 2_000;
/// The loop looks at the clocks so often.
const LONGEST_NAP: Millis = 5_000;
/// Messages that are read in one go.
const AT_ONCE: usize = 1_000;
/// Sessions that are remembered. Twitch forgets dead ones within minutes.
const SESSIONS: usize = 20;

/// What a line needs of its surroundings.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) twitch: Arc<TwitchPlatform>,
    pub(super) hub: Arc<Hub>,
    /// Milliseconds of a line's time in a real one. Only tests hurry.
    pub(super) pace: u32,
    /// Whether differences between the clocks end the connection.
    pub(super) watch_clock: bool,
}

/// One line.
pub(super) struct Line {
    around: Surroundings,
    /// Unique among a listener's lines.
    name: String,
    identity: Identity,
    socket_number: usize,
    wanted: watch::Receiver<Vec<Subscription>>,
    state: State,
    roster: Roster,
    clocks: Clocks,
    frames: SelectAll<BoxStream<'static, (SocketId, Frame)>>,
    closers: HashMap<SocketId, oneshot::Sender<()>>,
    works: FuturesUnordered<BoxFuture<'static, Work>>,
    told: BTreeMap<SourceKey, Telling>,
    unheard: Option<Unheard>,
    /// Sources that are heard again and have not been looked at since.
    fresh: BTreeSet<SourceKey>,
    fresh_since: Option<Millis>,
    /// The session, and those that it moved from, oldest first. Empty while there is none.
    sessions: Vec<String>,
    past_sessions: Vec<String>,
    session_since: Millis,
    next_beat: Millis,
    next_suspicion: Millis,
    next_compare: Option<Millis>,
    comparing: bool,
    last_error: Option<ErrorInfo>,
    was_up: bool,
    dirty: bool,
}

/// What was last told of a source's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Nothing,
    Up,
    Trouble,
}

/// Something that should be heard is not, and is told so unless it is heard in time.
struct Unheard {
    by: Millis,
    /// Since when.
    at: Timestamp,
    /// Why the line is lost; `None` while Twitch has only not accepted everything yet.
    trouble: Option<Trouble>,
}

/// Something that ran beside the loop.
enum Work {
    Opened(
        SocketId,
        Result<BoxStream<'static, (SocketId, Frame)>, (Trouble, bool)>,
        oneshot::Sender<()>,
    ),
    Created(String, Subscription, Created),
    Listed {
        session: Option<String>,
        settled: bool,
        listed: Result<(Vec<Told>, Bill), PlatformError>,
    },
    Deleted(Result<(), PlatformError>),
}

impl Line {
    pub(super) fn new(
        around: Surroundings,
        identity: Identity,
        socket_number: usize,
        wanted: watch::Receiver<Vec<Subscription>>,
    ) -> Self {
        let clocks = Clocks::new(around.twitch.clock.now(), around.pace);
        Self {
            around,
            name: format!("{identity}#{socket_number}"),
            identity,
            socket_number,
            wanted,
            state: State::new(0),
            roster: Roster::default(),
            clocks,
            frames: SelectAll::new(),
            closers: HashMap::new(),
            works: FuturesUnordered::new(),
            told: BTreeMap::new(),
            unheard: None,
            fresh: BTreeSet::new(),
            fresh_since: None,
            sessions: Vec::new(),
            past_sessions: Vec::new(),
            session_since: 0,
            next_beat: BEAT,
            next_suspicion: LONGEST_NAP,
            next_compare: None,
            comparing: false,
            last_error: None,
            was_up: false,
            dirty: true,
        }
    }

    /// Runs until `stop`, then closes and tells so.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.desire();
        while self.state.phase != Phase::Stopped {
            let nap = self.nap();
            tokio::select! {
                () = stop.cancelled() => self.step(Input::Stop),
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.desire(),
                    Err(_) => self.step(Input::Stop),
                },
                Some((socket, frame)) = self.frames.next(), if !self.frames.is_empty() => self.frame(socket, frame),
                Some(work) = self.works.next(), if !self.works.is_empty() => self.worked(work),
                () = tokio::time::sleep(nap) => {}
            }
            self.tend();
        }
        // Polite closes take a moment, and what is still said counts.
        while let Some((socket, frame)) = self.frames.next().await {
            self.frame(socket, frame);
        }
        self.around.hub.note_sessions(&self.name, &[]);
        self.around.hub.note_line(&self.name, None);
    }

    fn now(&self) -> Millis {
        self.clocks.now()
    }

    /// The present in Twitch's time.
    fn twitch_now(&self) -> Timestamp {
        self.clocks
            .theirs(self.around.twitch.clock.now(), &self.around.twitch.skew)
    }

    /// How long to sleep when nothing happens.
    fn nap(&self) -> Duration {
        let now = self.now();
        let in_session = self.state.session().is_some();
        let deadlines = [
            self.state.deadline(),
            self.roster.deadline().filter(|_| in_session),
            self.unheard.as_ref().map(|unheard| unheard.by),
            self.fresh_since.map(|since| since + GATHER),
            self.next_compare,
            Some(self.next_beat),
            Some(now + LONGEST_NAP),
        ];
        let next = deadlines.into_iter().flatten().min().unwrap_or(now);
        // Never zero: what is due but cannot be done yet must not spin.
        let wait = next.saturating_sub(now).max(5);
        Duration::from_millis(wait) / self.around.pace
    }

    /// Does everything that time or the last event made due.
    fn tend(&mut self) {
        let now = self.now();
        self.notice_jump();
        if self.is_due(now) {
            // Where we were held up ourselves, what lies ready is heard before silence is judged.
            self.hear_what_is_ready();
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
        self.tell_unheard(now);
        self.ask_for_looks(now);
        if self.next_beat <= now {
            self.beat(now);
        }
        if self.next_suspicion <= now {
            self.next_suspicion = now + LONGEST_NAP;
            self.suspect_silence();
        }
        self.publish();
    }

    fn is_due(&self, now: Millis) -> bool {
        self.state.deadline().is_some_and(|deadline| deadline <= now)
    }

    fn hear_what_is_ready(&mut self) {
        for _ in 0..AT_ONCE {
            match self.frames.next().now_or_never() {
                Some(Some((socket, frame))) => self.frame(socket, frame),
                _ => return,
            }
        }
    }

    /// Notices that this machine slept or that its clock was set.
    fn notice_jump(&mut self) {
        if !self.around.watch_clock {
            return;
        }
        if let Some(apart_ms) = self.clocks.jumped(self.around.twitch.clock.now()) {
            info!(line = self.name, apart_ms, "The clock jumped; connecting afresh");
            self.step(Input::Jumped);
        }
    }

    /// Lets the machine decide and does what it says.
    fn step(&mut self, input: Input) {
        let dice = self.around.twitch.helix.chance.fraction();
        let state = std::mem::replace(&mut self.state, State::new(0));
        let before = state.phase.clone();
        let (state, effects) = machine::next(state, input, self.now(), dice);
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
            // Dropping the sender closes it; an opening one is closed when it turns up.
            Effect::Close(socket) => drop(self.closers.remove(&socket)),
            Effect::Subscribe { session } => {
                debug!(line = self.name, "Welcomed");
                self.sessions.clear();
                self.adopt(&session);
                let now = self.now();
                self.roster.start_over(now);
                self.next_compare = Some(now + COMPARE);
            }
            Effect::Moved { session } => {
                info!(line = self.name, "Moved to another address of Twitch's");
                self.adopt(&session);
                self.next_compare = Some(self.now() + COMPARE_AFTER_MOVE);
            }
            Effect::Up => self.up(),
            Effect::Down(trouble) => self.down(trouble),
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
        self.around.hub.note_sessions(&self.name, &self.sessions);
    }

    fn open(&mut self, id: SocketId, url: Option<String>) {
        let (around, identity) = (self.around.clone(), self.identity.clone());
        let (close, closed) = oneshot::channel();
        self.works.push(Box::pin(async move {
            let opened = async {
                let url = if let Some(url) = url {
                    url
                } else {
                    // A session is lost if nothing is subscribed within ten seconds, so the token comes first.
                    let access = around.twitch.auth.access(&identity, &Meter::silent()).await;
                    access.map_err(|error| not_authorised(&error))?;
                    around.twitch.options.eventsub_ws_url.to_string()
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
            Work::Opened(socket, Err((trouble, hopeless)), _) => self.step(Input::NotOpened {
                socket,
                trouble,
                hopeless,
            }),
            Work::Created(session, subscription, created) => self.created(&session, &subscription, created),
            Work::Listed {
                session,
                settled,
                listed,
            } => self.listed(session.as_deref(), settled, listed),
            Work::Deleted(Ok(())) => self.roster.room_was_made(self.clocks.now()),
            Work::Deleted(Err(error)) => {
                debug!(
                    line = self.name,
                    error = &error as &dyn std::error::Error,
                    "A subscription was not deleted"
                );
            }
        }
    }

    fn frame(&mut self, socket: SocketId, frame: Frame) {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Ended(code) => {
                self.closers.remove(&socket);
                return self.step(Input::Closed { socket, code });
            }
        };
        let Some(message) = wire::read(&text) else {
            self.around.hub.unknown();
            return self.step(Input::Heard(socket));
        };
        match message.body {
            Body::Welcome {
                session,
                keepalive_secs,
            } => {
                if let Some(theirs) = message.at {
                    self.clocks.welcomed(theirs, self.around.twitch.clock.now());
                }
                self.step(Input::Welcome {
                    socket,
                    session,
                    keepalive_secs,
                });
            }
            Body::Reconnect { url } => self.step(Input::Reconnect { socket, url }),
            Body::Notification { kind, event } => {
                self.step(Input::Heard(socket));
                let now = self.twitch_now();
                self.around
                    .hub
                    .notified(&message.id, &kind, event.get(), message.at, now);
            }
            Body::Revocation(told) => {
                self.step(Input::Heard(socket));
                let current = self.state.uses(socket);
                self.revoked(&told, current);
            }
            Body::Keepalive => self.step(Input::Heard(socket)),
            Body::Unknown(kind) => {
                debug!(line = self.name, kind, "A message of an unknown type");
                self.around.hub.unknown();
                self.step(Input::Heard(socket));
            }
        }
    }
}

fn not_authorised(error: &PlatformError) -> (Trouble, bool) {
    let info = error.error_info();
    let refused = matches!(error.link_state(), LinkState::Refused { .. });
    let trouble = Trouble {
        code: info.code,
        reason: info.message,
        refused,
    };
    (trouble, refused)
}
