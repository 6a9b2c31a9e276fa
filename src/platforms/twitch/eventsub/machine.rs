//! The life of one EventSub line: a pure function from a state and an input to the next state and what to do.
//!
//! A line is a session with Twitch and, while it moves, two sockets. The loop in `line` obeys; nothing is decided there.
//! Time is a count of milliseconds on a clock that never jumps. Rules without a mark are Twitch's:
//! <https://dev.twitch.tv/docs/eventsub/handling-websocket-events/>. Those marked *ours* are decisions.

use super::close::{self, Blame};

/// Milliseconds since some moment, by a monotonic clock.
pub(super) type Millis = u64;

/// Names a socket within a line, never used twice.
pub(super) type SocketId = u32;

const SECOND: Millis = 1000;
/// *Ours*: how long opening a socket may take.
const OPENING: Millis = 15 * SECOND;
/// *Ours*: how long to wait for the welcome.
const WELCOME: Millis = 10 * SECOND;
/// Twitch closes a session without a subscription after ten seconds.
const UNUSED: Millis = 10 * SECOND;
/// Twitch gives thirty seconds to move; *ours*: give up five earlier.
const MOVE: Millis = 25 * SECOND;
/// *Ours*: bounds of the pause between connects; it doubles with each failure, and is drawn from the whole range.
const FIRST_PAUSE: Millis = SECOND;
const LONGEST_PAUSE: Millis = 120 * SECOND;
/// *Ours*: the least pause after a failure whose cause another connect does not remove.
pub(super) const HOPELESS_PAUSE: Millis = 60 * SECOND;

/// A session as Twitch welcomed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) socket: SocketId,
    pub(super) id: String,
    /// How long Twitch is silent at most.
    pub(super) keepalive: Millis,
    /// When the last message came.
    pub(super) heard: Millis,
    /// Whether a subscription was accepted. Only then is the line proven.
    pub(super) proven: bool,
    /// By when a subscription must be accepted.
    pub(super) unused_at: Millis,
}

impl Session {
    /// *Ours*: half as long again as Twitch promises, at least five seconds more, and the line counts as dead.
    fn dead_at(&self) -> Millis {
        self.heard + (self.keepalive * 3 / 2).max(self.keepalive + 5 * SECOND)
    }

    fn deadline(&self) -> Millis {
        if self.proven {
            self.dead_at()
        } else {
            self.dead_at().min(self.unused_at)
        }
    }
}

/// Where a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not connected, waiting to try.
    Resting { until: Millis },
    /// A socket is being opened.
    Opening { socket: SocketId, by: Millis },
    /// Opened; the welcome is due.
    Greeting { socket: SocketId, by: Millis },
    /// Welcomed, and live once proven.
    Open(Session),
    /// Told to move: the old socket is read on until the new one is welcomed. The old one may be gone already.
    Moving {
        old: Session,
        old_gone: bool,
        new: SocketId,
        by: Millis,
    },
    /// Ended by us, for good.
    Stopped,
}

/// A line's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// Failures since a session was last proven.
    pub(super) failures: u32,
    last_socket: SocketId,
}

/// What happens to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Time has passed.
    Tick,
    /// A socket is open.
    Opened(SocketId),
    /// A socket could not be opened. `hopeless`: another try will not help.
    NotOpened {
        socket: SocketId,
        trouble: Trouble,
        hopeless: bool,
    },
    /// `session_welcome`.
    Welcome {
        socket: SocketId,
        session: String,
        keepalive_secs: u64,
    },
    /// `session_reconnect`.
    Reconnect { socket: SocketId, url: String },
    /// Any other message, of known type or not.
    Heard(SocketId),
    /// A socket ended, with this close code if there was one.
    Closed { socket: SocketId, code: Option<u16> },
    /// Twitch accepted a subscription of this session.
    Accepted(String),
    /// Twitch will accept none of the subscriptions of this session, at least for so long.
    NothingAccepted {
        session: String,
        trouble: Trouble,
        pause: Millis,
    },
    /// Twitch says that the session does not exist any more.
    SessionGone(String),
    /// The machine slept, or its clock was set: what the sockets missed is unknown.
    Jumped,
    /// We want a fresh session, because this one has gone silent about what polls see.
    Refresh,
    /// We end.
    Stop,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Open a socket, to this address or to the usual one.
    Open { socket: SocketId, url: Option<String> },
    /// Close a socket politely; what it still says is not heard.
    Close(SocketId),
    /// Create what is desired on this session, starting from nothing.
    Subscribe { session: String },
    /// The subscriptions moved along to this session.
    Moved { session: String },
    /// The line is proven; whatever happened before was not heard.
    Up,
    /// The line is down.
    Down(Trouble),
    /// The line was closed by us.
    Ended,
}

/// Why a line is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Stable, dotted.
    pub(super) code: String,
    /// For people.
    pub(super) reason: String,
    /// Whether a person must act.
    pub(super) refused: bool,
}

impl Trouble {
    pub(super) fn passing(code: &str, reason: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            reason: reason.into(),
            refused: false,
        }
    }
}

impl State {
    /// A line that connects at `now`.
    pub(super) fn new(now: Millis) -> Self {
        Self {
            phase: Phase::Resting { until: now },
            failures: 0,
            last_socket: 0,
        }
    }

    /// Returns when time itself changes something.
    pub(super) fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Resting { until } => Some(*until),
            Phase::Opening { by, .. } | Phase::Greeting { by, .. } | Phase::Moving { by, .. } => Some(*by),
            Phase::Open(session) => Some(session.deadline()),
            Phase::Stopped => None,
        }
    }

    /// Returns the session that subscriptions belong to, if there is one.
    pub(super) fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Open(session) | Phase::Moving { old: session, .. } => Some(session),
            _ => None,
        }
    }

    /// Returns whether the line is proven.
    pub(super) fn is_up(&self) -> bool {
        self.session().is_some_and(|session| session.proven)
    }

    /// Returns whether a socket is one that we use, and not one that we have left.
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
            Phase::Resting { .. } | Phase::Stopped => Vec::new(),
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

    /// Drops everything and waits before the next try.
    fn fail(mut self, now: Millis, trouble: Trouble, least: Millis, dice: f64) -> (Self, Vec<Effect>) {
        let mut effects: Vec<_> = self.sockets().into_iter().map(Effect::Close).collect();
        let pause = pause(self.failures, dice).max(least);
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Resting { until: now + pause };
        effects.push(Effect::Down(trouble));
        (self, effects)
    }

    fn stay(self) -> (Self, Vec<Effect>) {
        (self, Vec::new())
    }
}

/// Draws the pause after so many failures: full jitter over a range that doubles.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the range is far below 2^53 and not negative"
)]
fn pause(failures: u32, dice: f64) -> Millis {
    let range = FIRST_PAUSE
        .saturating_mul(1 << failures.min(20))
        .min(LONGEST_PAUSE);
    (range as f64 * dice) as Millis
}

/// Decides what follows from `input` at the moment `now`. `dice` is a random fraction, for the pause that may follow.
pub(super) fn next(state: State, input: Input, now: Millis, dice: f64) -> (State, Vec<Effect>) {
    match input {
        Input::Tick => tick(state, now, dice),
        Input::Opened(socket) => opened(state, socket, now),
        Input::NotOpened {
            socket,
            trouble,
            hopeless,
        } => not_opened(state, socket, trouble, hopeless, now, dice),
        Input::Welcome {
            socket,
            session,
            keepalive_secs,
        } => welcome(state, socket, session, keepalive_secs, now),
        Input::Reconnect { socket, url } => reconnect(state, socket, url, now),
        Input::Heard(socket) => heard(state, socket, now),
        Input::Closed { socket, code } => closed(state, socket, code, now, dice),
        Input::Accepted(session) => accepted(state, &session),
        Input::NothingAccepted {
            session,
            trouble,
            pause,
        } => match state.session() {
            Some(ours) if ours.id == session && !ours.proven => state.fail(now, trouble, pause, dice),
            _ => state.stay(),
        },
        Input::SessionGone(session) => match state.session() {
            // While we move, the session that we leave may be gone already.
            _ if matches!(state.phase, Phase::Moving { .. }) => state.stay(),
            Some(ours) if ours.id == session => {
                let trouble =
                    Trouble::passing("twitch.eventsub.session_gone", "Twitch has ended the session");
                state.fail(now, trouble, 0, dice)
            }
            _ => state.stay(),
        },
        Input::Jumped => match state.phase {
            Phase::Stopped | Phase::Resting { .. } => state.stay(),
            _ => {
                let reason = "this machine's clock has jumped, so it may have slept";
                state.fail(
                    now,
                    Trouble::passing("twitch.eventsub.clock_jump", reason),
                    0,
                    0.0,
                )
            }
        },
        Input::Refresh => match state.phase {
            Phase::Open(_) => {
                let reason = "the session is silent about what polls see";
                state.fail(now, Trouble::passing("twitch.eventsub.silent", reason), 0, dice)
            }
            _ => state.stay(),
        },
        Input::Stop => stop(state),
    }
}

fn tick(state: State, now: Millis, dice: f64) -> (State, Vec<Effect>) {
    if state.deadline().is_none_or(|deadline| now < deadline) {
        return state.stay();
    }
    match &state.phase {
        Phase::Resting { .. } => state.open(now),
        Phase::Opening { .. } => {
            let trouble = Trouble::passing("network.timeout", "the websocket did not open in time");
            state.fail(now, trouble, 0, dice)
        }
        Phase::Greeting { .. } => {
            let trouble = Trouble::passing("twitch.eventsub.no_welcome", "no welcome came in time");
            state.fail(now, trouble, 0, dice)
        }
        Phase::Open(session) if !session.proven && now >= session.unused_at => {
            let reason = "no subscription was accepted in time";
            let trouble = Trouble::passing("twitch.eventsub.unused", reason);
            state.fail(now, trouble, 0, dice)
        }
        Phase::Open(_) => {
            let reason = "nothing was heard for longer than Twitch is ever silent";
            let trouble = Trouble::passing("twitch.eventsub.keepalive", reason);
            state.fail(now, trouble, 0, dice)
        }
        Phase::Moving { .. } => {
            let reason = "the new socket was not welcomed in time";
            let trouble = Trouble::passing("twitch.eventsub.move_failed", reason);
            state.fail(now, trouble, 0, dice)
        }
        Phase::Stopped => state.stay(),
    }
}

fn opened(mut state: State, socket: SocketId, now: Millis) -> (State, Vec<Effect>) {
    // A socket that opens while we move waits for its welcome under the deadline of the move.
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
    trouble: Trouble,
    hopeless: bool,
    now: Millis,
    dice: f64,
) -> (State, Vec<Effect>) {
    let least = if hopeless { HOPELESS_PAUSE } else { 0 };
    match &state.phase {
        Phase::Opening { socket: ours, .. } if *ours == socket => state.fail(now, trouble, least, dice),
        Phase::Moving { new, .. } if *new == socket => {
            let reason = format!("the address to move to does not answer: {}", trouble.reason);
            let trouble = Trouble::passing("twitch.eventsub.move_failed", reason);
            state.fail(now, trouble, 0, dice)
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
        heard: now,
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
            // The subscriptions have moved along. Those that were still being created have not, so an unproven session
            // starts over.
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
        _ => heard(state, socket, now),
    }
}

fn reconnect(mut state: State, socket: SocketId, url: String, now: Millis) -> (State, Vec<Effect>) {
    let (old, replaced) = match &state.phase {
        Phase::Open(session) if session.socket == socket => (session.clone(), None),
        // Told again while moving: the newest address counts.
        Phase::Moving { old, new, .. } if old.socket == socket => (old.clone(), Some(*new)),
        _ => return state.stay(),
    };
    state.last_socket += 1;
    let new = state.last_socket;
    state.phase = Phase::Moving {
        old: Session { heard: now, ..old },
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

fn heard(mut state: State, socket: SocketId, now: Millis) -> (State, Vec<Effect>) {
    match &mut state.phase {
        Phase::Open(session) | Phase::Moving { old: session, .. } if session.socket == socket => {
            session.heard = now;
        }
        _ => {}
    }
    state.stay()
}

fn closed(
    mut state: State,
    socket: SocketId,
    code: Option<u16>,
    now: Millis,
    dice: f64,
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
    let meaning = close::meaning(code);
    let least = match meaning.blame {
        // A session that nobody used is our failure, whatever it was that kept us from subscribing.
        Blame::Us if !state.is_up() => 10 * SECOND,
        Blame::Us | Blame::Them => 0,
    };
    let trouble = Trouble::passing(&meaning.code, meaning.reason);
    state.fail(now, trouble, least, dice)
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
