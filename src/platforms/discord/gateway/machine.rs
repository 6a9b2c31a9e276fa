//! The life cycle of a gateway connection as states and a pure transition: an input advances the state and yields orders.
//!
//! Time is milliseconds on a monotonic clock, randomness a fraction that is passed with each input. The loop in
//! [`super::listener`] feeds inputs and executes orders; it decides nothing.

mod model;

use super::close::{self, After};
use crate::core::code::Code;
use crate::core::source::PlatformName;
pub use model::{GatewayReport, Input, Kind, Order, Pace, Phase, Session};

/// Guilds, voice states, messages and scheduled events: all that concerns a source. None is privileged.
pub const INTENTS_ALL: u64 = 66_177;
/// Guilds and messages: the minimum when no stream is mapped.
pub const MINIMUM_INTENTS: u64 = 513;

/// Attempts to resume a session before it is abandoned.
const RESUMES: u32 = 5;
/// How long a session must last before earlier failures are cleared (ms).
const PROVEN: u64 = 60_000;
/// Timeouts for Hello, and then for READY or RESUMED (ms). No figure is documented.
const ENTRY: (u64, u64) = (20_000, 60_000);
/// A delay of more than this fraction of the wait (one in so many) means that the process was suspended, so that missing
/// answers prove nothing.
const SLEPT: u64 = 4;

/// The heartbeat of an open socket.
#[derive(Debug, Clone, PartialEq)]
struct Heartbeat {
    interval: u64,
    due: u64,
    /// When the oldest unanswered heartbeat was sent.
    unanswered: Option<u64>,
    /// Whether the process was suspended or did not read since then.
    blurred: bool,
}

/// A gateway connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    phase: Phase,
    session: Option<Session>,
    /// Address at which a session is begun.
    general: String,
    /// Whether to resume the session there too, because its own address was unreachable.
    detour: bool,
    heartbeat: Option<Heartbeat>,
    intents: u64,
    pace: Pace,
    /// Failures since a session last proved stable.
    failures: u32,
    sockets: u64,
}

impl Machine {
    /// Creates a connection that is not opened yet.
    pub fn new(intents: u64, pace: Pace) -> Self {
        Self {
            phase: Phase::Idle,
            session: None,
            general: String::new(),
            detour: false,
            heartbeat: None,
            intents,
            pace,
            failures: 0,
            sockets: 0,
        }
    }

    /// Resumes a session that an earlier process has left, instead of beginning one.
    pub fn restore_session(&mut self, session: Session) {
        self.session = Some(session);
    }

    /// Returns the session, if there is one that can be resumed.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    pub fn intents(&self) -> u64 {
        self.intents
    }

    /// Returns when [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Greeting { by } | Phase::Entering { by } => Some(by),
            _ => None,
        };
        let send_heartbeat = self.heartbeat.as_ref().map(|heartbeat| heartbeat.due);
        phase.into_iter().chain(send_heartbeat).min()
    }

    /// Advances the state. `jitter` is a fraction in `[0, 1)`.
    pub fn next(&mut self, now: u64, input: Input, jitter: f64) -> Vec<Order> {
        match input {
            Input::Stop => {
                self.heartbeat = None;
                self.session = None;
                self.phase = Phase::Idle;
                // 1000 ends the session and shows the bot as offline, as intended for a final shutdown.
                vec![Order::Hangup(1000), Order::Report(GatewayReport::Closed)]
            }
            // `Refused` is left only by starting again.
            Input::Start if matches!(self.phase, Phase::Idle | Phase::Refused) => self.go_on(),
            Input::TokenRejected if self.phase != Phase::Refused => {
                self.heartbeat = None;
                self.session = None;
                self.phase = Phase::Refused;
                vec![Order::Hangup(1000), Order::Report(GatewayReport::TokenRejected)]
            }
            _ if matches!(self.phase, Phase::Idle | Phase::Refused) => Vec::new(),
            Input::Start | Input::TokenRejected => Vec::new(),
            // Late inputs, and inputs out of order, change nothing.
            Input::Permitted(_) | Input::AskFailed { .. } | Input::TokenWorks
                if self.phase != Phase::Asking =>
            {
                Vec::new()
            }
            Input::Opened | Input::OpenFailed { .. } if self.phase != Phase::Connecting => Vec::new(),
            Input::Received(_) | Input::Closed(_) if !self.has_socket() => Vec::new(),
            Input::Permitted(url) => {
                self.phase = Phase::Connecting;
                self.general.clone_from(&url);
                vec![Order::Connect(url)]
            }
            Input::Denied {
                retry_in,
                code,
                message,
            } => {
                let mut orders = self.hangup();
                self.session = None;
                self.phase = Phase::Waiting {
                    until: now + retry_in,
                };
                orders.push(Order::Report(GatewayReport::Down { code, message }));
                orders
            }
            Input::AskFailed { code, message } => self.lose(now, jitter, code, &message),
            Input::TokenWorks => {
                self.session = None;
                let code = Code::DiscordGatewayRefused;
                let message = "the gateway refuses the token, although Discord accepts it elsewhere";
                self.lose(now, jitter, code, message)
            }
            Input::Opened => {
                self.phase = Phase::Greeting { by: now + ENTRY.0 };
                self.sockets += 1;
                if self.sockets > 1 {
                    vec![Order::Report(GatewayReport::Reconnected)]
                } else {
                    Vec::new()
                }
            }
            Input::OpenFailed { code, message } => {
                self.detour = !self.detour && !self.general.is_empty();
                self.lose(now, jitter, code, &message)
            }
            Input::Received(kind) => self.received(now, kind, jitter),
            Input::Closed(code) => self.closed(now, code, jitter),
            Input::Tick { caught_up } => self.tick(now, caught_up, jitter),
        }
    }

    fn received(&mut self, now: u64, kind: Kind, jitter: f64) -> Vec<Order> {
        match kind {
            Kind::Hello(interval) => self.greeted(now, interval, jitter),
            Kind::Ack => self.acknowledged(now).into_iter().collect(),
            Kind::HeartbeatRequested => self.send_heartbeat(now),
            Kind::Reconnect => self.close_and_back_off(
                now,
                jitter,
                Code::DiscordReconnectRequested,
                "Discord asked for another connection",
            ),
            Kind::Invalid(true) => self.close_and_back_off(
                now,
                jitter,
                Code::SessionEnded(PlatformName::Discord),
                "Discord requested that the session is resumed",
            ),
            Kind::Invalid(false) => {
                self.session = None;
                self.close_and_back_off(
                    now,
                    jitter,
                    Code::SessionEnded(PlatformName::Discord),
                    "Discord has ended the session",
                )
            }
            Kind::Ready { .. } | Kind::Resumed { .. } if !matches!(self.phase, Phase::Entering { .. }) => {
                Vec::new()
            }
            Kind::Ready { session_id, url, seq } => {
                let general = self.general.clone();
                self.detour = false;
                self.session = Some(Session {
                    id: session_id,
                    url: if url.is_empty() { general } else { url },
                    seq,
                });
                self.phase = Phase::Live { since: now };
                Vec::new()
            }
            Kind::Resumed { seq } => {
                self.saw(seq);
                self.phase = Phase::Live { since: now };
                vec![Order::Report(GatewayReport::Resumed)]
            }
            Kind::Event { seq } => {
                self.saw(seq);
                Vec::new()
            }
            Kind::Other => Vec::new(),
        }
    }

    fn greeted(&mut self, now: u64, interval: u64, jitter: f64) -> Vec<Order> {
        if !matches!(self.phase, Phase::Greeting { .. }) {
            return Vec::new();
        }
        let interval = interval.clamp(50, 600_000);
        self.heartbeat = Some(Heartbeat {
            interval,
            // Discord requires a random part of the interval first, so that clients do not send heartbeats at the same time.
            due: now + part(interval, jitter),
            unanswered: None,
            blurred: false,
        });
        self.phase = Phase::Entering { by: now + ENTRY.1 };
        vec![match &self.session {
            Some(session) => Order::Resume(session.clone()),
            None => Order::Identify {
                intents: self.intents,
            },
        }]
    }

    fn acknowledged(&mut self, now: u64) -> Option<Order> {
        let heartbeat = self.heartbeat.as_mut()?;
        let sent = heartbeat.unanswered.take()?;
        // Reading it only after the next heartbeat was due means that the process was suspended and has measured that delay.
        let measured = !std::mem::take(&mut heartbeat.blurred) && now <= heartbeat.due;
        Some(Order::Report(GatewayReport::HeartbeatAcknowledged(
            measured.then(|| now.saturating_sub(sent)),
        )))
    }

    fn send_heartbeat(&mut self, now: u64) -> Vec<Order> {
        let Some(heartbeat) = self.heartbeat.as_mut() else {
            return Vec::new();
        };
        heartbeat.unanswered.get_or_insert(now);
        vec![Order::Heartbeat(self.session.as_ref().map(|session| session.seq))]
    }

    fn saw(&mut self, seq: u64) {
        if let Some(session) = &mut self.session {
            session.seq = session.seq.max(seq);
        }
    }

    fn closed(&mut self, now: u64, code: Option<u16>, jitter: f64) -> Vec<Order> {
        self.heartbeat = None;
        let words = code.map_or_else(
            || "the gateway connection broke".to_owned(),
            |code| format!("Discord closed the gateway connection with code {code}"),
        );
        match close::after(code) {
            After::Resume => self.lose(now, jitter, Code::ConnectionClosed(PlatformName::Discord), &words),
            After::Identify => {
                self.session = None;
                self.lose(now, jitter, Code::ConnectionClosed(PlatformName::Discord), &words)
            }
            After::TokenRefused => {
                self.session = None;
                self.phase = Phase::Asking;
                vec![Order::ConfirmToken]
            }
            After::FewerIntents(refusal) if self.intents != MINIMUM_INTENTS => {
                self.intents = MINIMUM_INTENTS;
                self.session = None;
                self.lose(now, jitter, refusal.code, refusal.message)
            }
            After::FewerIntents(refusal) | After::GiveUp(refusal) => {
                self.session = None;
                self.phase = Phase::Refused;
                vec![Order::Report(GatewayReport::Refused {
                    code: refusal.code,
                    message: refusal.message.to_owned(),
                })]
            }
        }
    }

    fn tick(&mut self, now: u64, caught_up: bool, jitter: f64) -> Vec<Order> {
        if let Some(heartbeat) = self.heartbeat.as_mut().filter(|heartbeat| heartbeat.due <= now) {
            let awake = caught_up && now - heartbeat.due <= heartbeat.interval / SLEPT;
            if heartbeat.unanswered.is_some() && awake {
                return self.close_and_back_off(
                    now,
                    jitter,
                    Code::KeepaliveTimeout(PlatformName::Discord),
                    "Discord did not acknowledge a heartbeat in time",
                );
            }
            heartbeat.blurred = !awake;
            heartbeat.due = now + heartbeat.interval;
            return self.send_heartbeat(now);
        }
        match self.phase {
            Phase::Waiting { until } if until <= now => self.go_on(),
            Phase::Greeting { by } if by <= now => self.on_entry_timeout(now, caught_up, by, ENTRY.0, jitter),
            Phase::Entering { by } if by <= now => self.on_entry_timeout(now, caught_up, by, ENTRY.1, jitter),
            _ => Vec::new(),
        }
    }

    /// READY or RESUMED is overdue: a timeout of the server, unless our process was suspended meanwhile.
    fn on_entry_timeout(
        &mut self,
        now: u64,
        caught_up: bool,
        by: u64,
        patience: u64,
        jitter: f64,
    ) -> Vec<Order> {
        if caught_up && now - by <= patience / SLEPT {
            return self.close_and_back_off(
                now,
                jitter,
                Code::NoWelcome(PlatformName::Discord),
                "Discord opened a connection but never welcomed us",
            );
        }
        if let Phase::Greeting { by } | Phase::Entering { by } = &mut self.phase {
            *by = now + patience;
        }
        Vec::new()
    }

    /// Resumes the session, or asks whether one may be begun.
    fn go_on(&mut self) -> Vec<Order> {
        let Some(session) = &self.session else {
            self.phase = Phase::Asking;
            return vec![Order::Ask];
        };
        self.phase = Phase::Connecting;
        let url = if self.detour { &self.general } else { &session.url };
        vec![Order::Connect(url.clone())]
    }

    fn has_socket(&self) -> bool {
        matches!(
            self.phase,
            Phase::Greeting { .. } | Phase::Entering { .. } | Phase::Live { .. }
        )
    }

    fn hangup(&mut self) -> Vec<Order> {
        self.heartbeat = None;
        if self.has_socket() {
            // Never 1000 or 1001, which would end the session.
            vec![Order::Hangup(4000)]
        } else {
            Vec::new()
        }
    }

    fn close_and_back_off(&mut self, now: u64, jitter: f64, code: Code, message: &str) -> Vec<Order> {
        let mut orders = self.hangup();
        orders.extend(self.lose(now, jitter, code, message));
        orders
    }

    /// Waits for the next attempt. The first loss of a stable session is not reported when the session can be resumed: that
    /// takes a moment and happens every few hours.
    fn lose(&mut self, now: u64, jitter: f64, code: Code, message: &str) -> Vec<Order> {
        self.heartbeat = None;
        let live_since = match self.phase {
            Phase::Live { since } => Some(since),
            _ => None,
        };
        if live_since.is_some_and(|since| now.saturating_sub(since) >= PROVEN) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures > RESUMES {
            self.session = None;
        }
        let resumable = self.session.is_some();
        let spent = !resumable && matches!(self.phase, Phase::Entering { .. } | Phase::Live { .. });
        let quiet = resumable && live_since.is_some() && self.failures == 1;
        let wait = if quiet {
            part(self.pace.free.0, jitter)
        } else {
            let (first, longest) = if spent { self.pace.identify } else { self.pace.free };
            let doubled = first
                .saturating_mul(1 << (self.failures - 1).min(20))
                .min(longest);
            // At least half of the backoff, so that jitter never reduces the wait to zero.
            doubled / 2 + part(doubled / 2, jitter)
        };
        self.phase = Phase::Waiting { until: now + wait };
        if quiet {
            return Vec::new();
        }
        vec![Order::Report(GatewayReport::Down {
            code,
            message: message.to_owned(),
        })]
    }
}

/// Returns a fraction of `whole`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "spans are minutes at most, the fraction is in [0, 1)"
)]
fn part(whole: u64, fraction: f64) -> u64 {
    (whole as f64 * fraction) as u64
}

#[cfg(test)]
mod tests;
