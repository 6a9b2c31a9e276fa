//! The life cycle of one EventSub connection: a pure function from a state and an input to the next state and its effects.
//!
//! A connection is a session with Twitch that has two sockets while it moves. The loop in `connection` performs the effects and
//! decides nothing. Time is a count of milliseconds on a monotonic clock. Rules without a mark are Twitch's:
//! <https://dev.twitch.tv/docs/eventsub/handling-websocket-events/>. Those marked *ours* are decisions.

use std::time::Duration;

use super::close::{self, Blame};
use crate::clock::Backoff;
use crate::core::code::Code;
use crate::core::source::PlatformName;

/// Milliseconds since an arbitrary moment, by a monotonic clock.
pub(super) type Millis = u64;

/// Identifies a socket within a connection; never reused.
pub(super) type SocketId = u32;

const SECOND: Millis = 1000;
/// *Ours*: how long opening a socket may take.
const OPENING: Millis = 15 * SECOND;
/// *Ours*: how long to wait for the welcome.
const WELCOME: Millis = 10 * SECOND;
/// Twitch closes a session without a subscription after ten seconds.
const UNUSED: Millis = 10 * SECOND;
/// Twitch allows thirty seconds for a move; *ours*: give up five seconds earlier.
const MOVE: Millis = 25 * SECOND;
/// *Ours*: bounds of the backoff between connection attempts; it doubles with each failure, with full jitter.
const CONNECTION_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_mins(2),
};
/// *Ours*: the minimum backoff after a failure whose cause a reconnect does not remove.
pub(super) const PERMANENT_FAILURE_BACKOFF: Millis = 60 * SECOND;

/// A session that Twitch has welcomed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) socket: SocketId,
    pub(super) id: String,
    /// The keepalive interval: Twitch sends a message at least this often.
    pub(super) keepalive: Millis,
    /// When the last message was received.
    pub(super) received: Millis,
    /// Whether a subscription was accepted. Only then does the connection count as up.
    pub(super) proven: bool,
    /// By when a subscription must be accepted.
    pub(super) unused_at: Millis,
}

impl Session {
    /// *Ours*: the connection counts as dead after 1.5 times the keepalive interval, but at least five seconds more than it.
    fn dead_at(&self) -> Millis {
        self.received + (self.keepalive * 3 / 2).max(self.keepalive + 5 * SECOND)
    }

    fn deadline(&self) -> Millis {
        if self.proven {
            self.dead_at()
        } else {
            self.dead_at().min(self.unused_at)
        }
    }
}

/// The phase of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not connected; waiting before the next attempt.
    BackingOff { until: Millis },
    /// A socket is being opened.
    Opening { socket: SocketId, by: Millis },
    /// The socket is open; the welcome is due.
    Greeting { socket: SocketId, by: Millis },
    /// Welcomed; up once a subscription is accepted.
    Open(Session),
    /// Asked to move: the old socket is read until the new one is welcomed. The old one may have ended already.
    Moving {
        old: Session,
        old_gone: bool,
        new: SocketId,
        by: Millis,
    },
    /// Stopped by us, for good.
    Stopped,
}

/// The state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// Failures since a subscription was last accepted.
    pub(super) failures: u32,
    last_socket: SocketId,
}

/// An event in the life of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Time has passed.
    Tick,
    /// A socket was opened.
    Opened(SocketId),
    /// A socket could not be opened. `permanent`: another attempt will fail too.
    NotOpened {
        socket: SocketId,
        failure: Failure,
        permanent: bool,
    },
    /// `session_welcome`.
    Welcome {
        socket: SocketId,
        session: String,
        keepalive_secs: u64,
    },
    /// `session_reconnect`.
    Reconnect { socket: SocketId, url: String },
    /// Any other message, of a known type or not.
    Received(SocketId),
    /// A socket ended, with this close code if there was one.
    Closed { socket: SocketId, code: Option<u16> },
    /// A socket ended because of a message received over it.
    Broken { socket: SocketId, failure: Failure },
    /// Twitch accepted a subscription of this session.
    Accepted(String),
    /// Twitch will accept no subscription of this session, at least for this long.
    NothingAccepted {
        session: String,
        failure: Failure,
        backoff: Millis,
    },
    /// Twitch reports that the session no longer exists.
    SessionGone(String),
    /// The machine was suspended, or its clock was set: messages may have been missed.
    Jumped,
    /// A new session is required, because this one does not deliver events that polls observe.
    Refresh,
    /// Stop the connection.
    Stop,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Open a socket to this address, or to the default one.
    Open { socket: SocketId, url: Option<String> },
    /// Close a socket gracefully; messages still received over it are ignored.
    Close(SocketId),
    /// Create the desired subscriptions on this session, which has none.
    Subscribe { session: String },
    /// The subscriptions moved to this session.
    Moved { session: String },
    /// The connection is up; earlier events may have been missed.
    Up,
    /// The connection is down.
    Down(Failure),
    /// The connection was closed by us.
    Ended,
}

/// Why a connection is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    /// The message for users.
    pub(super) reason: String,
    /// Whether it needs attention.
    pub(super) refused: bool,
}

impl Failure {
    pub(super) fn transient(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            refused: false,
        }
    }
}

impl State {
    /// Returns a connection that connects at `now`.
    pub(super) fn new(now: Millis) -> Self {
        Self {
            phase: Phase::BackingOff { until: now },
            failures: 0,
            last_socket: 0,
        }
    }

    /// Returns the time of the next timeout.
    pub(super) fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::BackingOff { until } => Some(*until),
            Phase::Opening { by, .. } | Phase::Greeting { by, .. } | Phase::Moving { by, .. } => Some(*by),
            Phase::Open(session) => Some(session.deadline()),
            Phase::Stopped => None,
        }
    }

    /// Returns the session of the subscriptions, if there is one.
    pub(super) fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Open(session) | Phase::Moving { old: session, .. } => Some(session),
            _ => None,
        }
    }

    /// Returns whether the connection is up.
    pub(super) fn is_up(&self) -> bool {
        self.session().is_some_and(|session| session.proven)
    }

    /// Returns whether a socket is in use and not abandoned.
    pub(super) fn uses(&self, socket: SocketId) -> bool {
        self.sockets().contains(&socket)
    }

    fn sockets(&self) -> Vec<SocketId> {
        match &self.phase {
            Phase::Opening { socket, .. } | Phase::Greeting { socket, .. } => vec![*socket],
            Phase::Open(session) => vec![session.socket],
            Phase::Moving {
                old, old_gone, new, ..
            } => {
                let old = (!old_gone).then_some(old.socket);
                old.into_iter().chain([*new]).collect()
            }
            Phase::BackingOff { .. } | Phase::Stopped => Vec::new(),
        }
    }

    fn open(mut self, now: Millis) -> (Self, Vec<Effect>) {
        self.last_socket += 1;
        let socket = self.last_socket;
        self.phase = Phase::Opening {
            socket,
            by: now + OPENING,
        };
        (self, vec![Effect::Open { socket, url: None }])
    }

    /// Drops all sockets and backs off before the next attempt.
    fn fail(mut self, now: Millis, failure: Failure, least: Millis, chance: f64) -> (Self, Vec<Effect>) {
        let mut effects: Vec<_> = self.sockets().into_iter().map(Effect::Close).collect();
        let backoff = backoff(self.failures, chance).max(least);
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::BackingOff { until: now + backoff };
        effects.push(Effect::Down(failure));
        (self, effects)
    }

    fn stay(self) -> (Self, Vec<Effect>) {
        (self, Vec::new())
    }
}

/// Draws the backoff after this many failures: full jitter over a range that doubles.
fn backoff(failures: u32, chance: f64) -> Millis {
    let wait = CONNECTION_BACKOFF.ceiling(failures).mul_f64(chance);
    Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX)
}

/// Returns the next state and effects for `input` at the time `now`. `chance` is a random fraction for the jitter.
pub(super) fn next(state: State, input: Input, now: Millis, chance: f64) -> (State, Vec<Effect>) {
    match input {
        Input::Tick => tick(state, now, chance),
        Input::Opened(socket) => opened(state, socket, now),
        Input::NotOpened {
            socket,
            failure,
            permanent,
        } => not_opened(state, socket, failure, permanent, now, chance),
        Input::Welcome {
            socket,
            session,
            keepalive_secs,
        } => welcome(state, socket, session, keepalive_secs, now),
        Input::Reconnect { socket, url } => reconnect(state, socket, url, now),
        Input::Received(socket) => received(state, socket, now),
        Input::Closed { socket, code } => {
            let meaning = close::meaning(code);
            let least = match meaning.blame {
                // An unused session is our failure, whatever prevented subscribing.
                Blame::Us if !state.is_up() => 10 * SECOND,
                Blame::Us | Blame::Them => 0,
            };
            let failure = Failure::transient(meaning.code, meaning.reason);
            closed(state, socket, failure, least, now, chance)
        }
        Input::Broken { socket, failure } => closed(state, socket, failure, 0, now, chance),
        Input::Accepted(session) => accepted(state, &session),
        Input::NothingAccepted {
            session,
            failure,
            backoff,
        } => match state.session() {
            Some(ours) if ours.id == session && !ours.proven => state.fail(now, failure, backoff, chance),
            _ => state.stay(),
        },
        Input::SessionGone(session) => match state.session() {
            // During a move, the session that is left may have ended already.
            _ if matches!(state.phase, Phase::Moving { .. }) => state.stay(),
            Some(ours) if ours.id == session => {
                let failure = Failure::transient(
                    Code::SessionEnded(PlatformName::Twitch),
                    "Twitch has ended the session",
                );
                state.fail(now, failure, 0, chance)
            }
            _ => state.stay(),
        },
        Input::Jumped => match state.phase {
            Phase::Stopped | Phase::BackingOff { .. } => state.stay(),
            _ => {
                let reason = "the clock jumped; this machine may have been suspended";
                state.fail(now, Failure::transient(Code::TwitchClockJump, reason), 0, 0.0)
            }
        },
        Input::Refresh => match state.phase {
            Phase::Open(_) => {
                let reason = "the session does not deliver events that polls find";
                state.fail(
                    now,
                    Failure::transient(Code::PushSilent(PlatformName::Twitch), reason),
                    0,
                    chance,
                )
            }
            _ => state.stay(),
        },
        Input::Stop => stop(state),
    }
}

fn tick(state: State, now: Millis, chance: f64) -> (State, Vec<Effect>) {
    if state.deadline().is_none_or(|deadline| now < deadline) {
        return state.stay();
    }
    match &state.phase {
        Phase::BackingOff { .. } => state.open(now),
        Phase::Opening { .. } => {
            let failure = Failure::transient(Code::NetworkTimeout, "the websocket did not open in time");
            state.fail(now, failure, 0, chance)
        }
        Phase::Greeting { .. } => {
            let failure =
                Failure::transient(Code::NoWelcome(PlatformName::Twitch), "no welcome came in time");
            state.fail(now, failure, 0, chance)
        }
        Phase::Open(session) if !session.proven && now >= session.unused_at => {
            let reason = "no subscription was accepted in time";
            let failure = Failure::transient(Code::TwitchSessionUnused, reason);
            state.fail(now, failure, 0, chance)
        }
        Phase::Open(_) => {
            let reason = "keepalive timeout";
            let failure = Failure::transient(Code::KeepaliveTimeout(PlatformName::Twitch), reason);
            state.fail(now, failure, 0, chance)
        }
        Phase::Moving { .. } => {
            let reason = "the new socket was not welcomed in time";
            let failure = Failure::transient(Code::TwitchReconnectFailed, reason);
            state.fail(now, failure, 0, chance)
        }
        Phase::Stopped => state.stay(),
    }
}

fn opened(mut state: State, socket: SocketId, now: Millis) -> (State, Vec<Effect>) {
    // A socket that opens during a move waits for its welcome under the deadline of the move.
    if matches!(state.phase, Phase::Opening { socket: ours, .. } if ours == socket) {
        state.phase = Phase::Greeting {
            socket,
            by: now + WELCOME,
        };
    } else if !state.uses(socket) {
        return (state, vec![Effect::Close(socket)]);
    }
    state.stay()
}

fn not_opened(
    state: State,
    socket: SocketId,
    failure: Failure,
    permanent: bool,
    now: Millis,
    chance: f64,
) -> (State, Vec<Effect>) {
    let least = if permanent { PERMANENT_FAILURE_BACKOFF } else { 0 };
    match &state.phase {
        Phase::Opening { socket: ours, .. } if *ours == socket => state.fail(now, failure, least, chance),
        Phase::Moving { new, .. } if *new == socket => {
            let reason = format!("the address to move to does not answer: {}", failure.reason);
            let failure = Failure::transient(Code::TwitchReconnectFailed, reason);
            state.fail(now, failure, 0, chance)
        }
        _ => state.stay(),
    }
}

fn welcome(
    mut state: State,
    socket: SocketId,
    id: String,
    keepalive_secs: u64,
    now: Millis,
) -> (State, Vec<Effect>) {
    let mut session = Session {
        socket,
        id: id.clone(),
        keepalive: keepalive_secs.clamp(1, 600) * SECOND,
        received: now,
        proven: false,
        unused_at: now + UNUSED,
    };
    match &state.phase {
        Phase::Greeting { socket: ours, .. } | Phase::Opening { socket: ours, .. } if *ours == socket => {
            state.phase = Phase::Open(session);
            (state, vec![Effect::Subscribe { session: id }])
        }
        Phase::Moving {
            old, old_gone, new, ..
        } if *new == socket => {
            // The subscriptions have moved too. Those that were still being created have not, so a session without an accepted
            // subscription starts over.
            session.proven = old.proven;
            let mut effects = Vec::new();
            if !old_gone {
                effects.push(Effect::Close(old.socket));
            }
            effects.push(if session.proven {
                Effect::Moved { session: id }
            } else {
                Effect::Subscribe { session: id }
            });
            state.phase = Phase::Open(session);
            (state, effects)
        }
        _ => received(state, socket, now),
    }
}

fn reconnect(mut state: State, socket: SocketId, url: String, now: Millis) -> (State, Vec<Effect>) {
    let (old, replaced) = match &state.phase {
        Phase::Open(session) if session.socket == socket => (session.clone(), None),
        // Another reconnect message during a move: the newest address counts.
        Phase::Moving { old, new, .. } if old.socket == socket => (old.clone(), Some(*new)),
        _ => return state.stay(),
    };
    state.last_socket += 1;
    let new = state.last_socket;
    state.phase = Phase::Moving {
        old: Session { received: now, ..old },
        old_gone: false,
        new,
        by: now + MOVE,
    };
    let mut effects: Vec<_> = replaced.into_iter().map(Effect::Close).collect();
    effects.push(Effect::Open {
        socket: new,
        url: Some(url),
    });
    (state, effects)
}

fn received(mut state: State, socket: SocketId, now: Millis) -> (State, Vec<Effect>) {
    match &mut state.phase {
        Phase::Open(session) | Phase::Moving { old: session, .. } if session.socket == socket => {
            session.received = now;
        }
        _ => {}
    }
    state.stay()
}

fn closed(
    mut state: State,
    socket: SocketId,
    failure: Failure,
    least: Millis,
    now: Millis,
    chance: f64,
) -> (State, Vec<Effect>) {
    if !state.uses(socket) {
        return state.stay();
    }
    if let Phase::Moving { old, old_gone, .. } = &mut state.phase
        && old.socket == socket
    {
        // Only the new socket matters now; its welcome is still due.
        *old_gone = true;
        return state.stay();
    }
    state.fail(now, failure, least, chance)
}

fn accepted(mut state: State, session_id: &str) -> (State, Vec<Effect>) {
    let session = match &mut state.phase {
        Phase::Open(session) | Phase::Moving { old: session, .. } if session.id == session_id => session,
        _ => return state.stay(),
    };
    if session.proven {
        return state.stay();
    }
    session.proven = true;
    state.failures = 0;
    (state, vec![Effect::Up])
}

fn stop(mut state: State) -> (State, Vec<Effect>) {
    if state.phase == Phase::Stopped {
        return state.stay();
    }
    let mut effects: Vec<_> = state.sockets().into_iter().map(Effect::Close).collect();
    effects.push(Effect::Ended);
    state.phase = Phase::Stopped;
    (state, effects)
}

#[cfg(test)]
mod tests;
