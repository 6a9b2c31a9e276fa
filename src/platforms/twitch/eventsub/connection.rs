//! One EventSub connection: the loop that runs `machine` and `subscription_set` and reads the sockets.
//!
//! The loop only parses and forwards. Calls to Twitch run concurrently, so a slow answer never delays a pong.

mod calls;
mod clocks;
mod reports;
mod sessions;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{BoxStream, SelectAll, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::calls::{Calls, Completed};
use self::clocks::Clocks;
use self::reports::{Reports, Revocation, source_of};
use self::sessions::Sessions;
use super::super::TwitchPlatform;
use super::hub::{Hub, Notification, Present};
use super::kinds::Subscription;
use super::machine::{
    self, Effect, Failure, Input, Millis, PERMANENT_FAILURE_BACKOFF, Phase, SocketId, State,
};
use super::messages::{self, Body, SubscriptionInfo};
use super::rest::{Bill, Created};
use super::socket::{End, Frame};
use super::status::{ConnectionStatus, SubscriptionState};
use super::subscription_set::{
    COST, Coverage, CreateOutcome, Stand, SubscriptionSet, TOO_MANY_SOCKETS, is_no_failure,
};
use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, Identity};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;

/// The loop checks the clocks at least this often.
const LONGEST_SLEEP: Millis = 5_000;
/// Maximum number of messages read at once.
const MAX_FRAMES_AT_ONCE: usize = 1_000;
/// Number of sources with missed events at the same time that makes the whole connection suspect.
const MISSING_TO_RECONNECT: usize = 3;

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
    calls: Calls,
    reports: Reports,
    sessions: Sessions,
    next_missed_check: Millis,
    last_error: Option<ErrorInfo>,
    /// Whether the status has changed since it was published.
    dirty: bool,
}

/// Returns the name that identifies a connection.
pub(super) fn connection_name(identity: &Identity, socket_number: usize) -> String {
    format!("{identity}#{socket_number}")
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
        let calls = Calls::new(cx.clone(), identity.clone());
        let reports = Reports::new(Arc::clone(&cx.hub));
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
            calls,
            reports,
            sessions: Sessions::default(),
            next_missed_check: LONGEST_SLEEP,
            last_error: None,
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
                Some(completed) = self.calls.next(), if !self.calls.is_empty() => self.completed(completed),
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
            self.sessions.next_compare(),
            Some(self.reports.deadline()),
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
            if self.sessions.next_compare().is_some_and(|at| at <= now) {
                self.compare(self.state.is_up() && self.sessions.has_outlasted_earlier(now));
            }
        }
        let at = self.twitch_now();
        let in_session = self.state.session().is_some();
        self.reports
            .report_unaccepted(now, in_session, &self.subscriptions);
        self.reports.request_probes(now, self.subscriptions.is_complete());
        self.reports
            .heartbeat(now, self.state.is_up(), &self.subscriptions, at);
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
        for _ in 0..MAX_FRAMES_AT_ONCE {
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
            Effect::Open { socket, url } => self.calls.open(socket, url),
            // Dropping the sender closes the socket; one that is still opening is closed when it opens.
            Effect::Close(socket) => drop(self.closers.remove(&socket)),
            Effect::Subscribe { session } => {
                debug!(connection = self.name, "Welcomed");
                let now = self.now();
                self.sessions.begin(&session, now);
                self.cx.hub.note_sessions(&self.name, self.sessions.current());
                self.subscriptions.start_over(now);
            }
            Effect::Moved { session } => {
                info!(connection = self.name, "Moved to another address of Twitch's");
                self.sessions.moved_to(&session, self.now());
                self.cx.hub.note_sessions(&self.name, self.sessions.current());
            }
            Effect::Up => {
                info!(connection = self.name, "Listening to Twitch");
                self.last_error = None;
                self.reports.up(self.now(), self.twitch_now());
            }
            Effect::Down(failure) => self.down(failure),
            Effect::Ended => {
                self.reports.close_all(self.twitch_now());
                self.closers.clear();
            }
        }
    }

    fn down(&mut self, mut failure: Failure) {
        // An unused session is only the consequence; the reason that nothing was accepted is the cause.
        let unused = failure.code == Code::TwitchSessionUnused;
        if let (true, Some(delay)) = (unused, self.subscriptions.delayed()) {
            failure.reason = format!("{}: {}", failure.reason, delay.reason);
            if delay.code != COST {
                failure.code = delay.code;
            }
        }
        let (now, at) = (self.now(), self.twitch_now());
        self.sessions.end();
        self.cx.hub.note_sessions(&self.name, &[]);
        self.last_error = Some(ErrorInfo::new(failure.code, &failure.reason));
        // What keeps the connection down may differ from what ended it.
        let is_new = self.cx.hub.is_new_cause(&format!("down {}", failure.code), at);
        if is_new || self.state.failures <= 1 {
            warn!(
                connection = self.name,
                code = %failure.code,
                reason = failure.reason,
                "Not listening to Twitch"
            );
        } else {
            debug!(
                connection = self.name,
                code = %failure.code,
                attempt = self.state.failures,
                "Still not listening to Twitch"
            );
        }
        self.reports.down(failure, now, at);
    }

    fn completed(&mut self, completed: Completed) {
        match completed {
            Completed::Opened(id, Ok(frames), close) => {
                self.closers.insert(id, close);
                self.frames.push(frames);
                self.step(Input::Opened(id));
            }
            Completed::Opened(socket, Err((failure, permanent)), _) => self.step(Input::NotOpened {
                socket,
                failure,
                permanent,
            }),
            Completed::Created(session, subscription, created) => {
                self.created(&session, &subscription, created);
            }
            Completed::Listed {
                session,
                without_earlier,
                listed,
            } => self.listed(session.as_deref(), without_earlier, listed),
            Completed::Deleted(Ok(())) => self.subscriptions.capacity_freed(self.clocks.now()),
            Completed::Deleted(Err(error)) => {
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
        let Some(message) = messages::read(&text) else {
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

    /// Applies the subscriptions that are desired now.
    fn desire(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let (now, at) = (self.now(), self.twitch_now());
        let of_streams = wanted
            .iter()
            .filter(|subscription| subscription.kind.is_of_stream());
        self.reports
            .set_sources(of_streams.filter_map(source_of).collect(), at);
        self.subscriptions.desire(wanted, now);
        self.reports.expect(now, at);
        self.dirty = true;
    }

    fn create_due(&mut self) {
        let Some(session) = self.state.session().map(|session| session.id.clone()) else {
            return;
        };
        for subscription in self.subscriptions.take_due(self.now()) {
            self.calls.create(session.clone(), subscription);
        }
    }

    fn delete_surplus(&mut self) {
        for id in self.subscriptions.take_surplus() {
            self.calls.delete(id);
        }
    }

    fn created(&mut self, session: &str, subscription: &Subscription, created: Created) {
        self.dirty = true;
        let current = self.state.session().map(|current| current.id.clone());
        let ours = self.sessions.is_current(session);
        let Some(session) = current.filter(|_| ours) else {
            // It was created on a session that no longer exists, and is gone with it.
            return;
        };
        // If a move was faster, the subscription has moved too; the list that is requested after a move is authoritative.
        if let Created::Enabled { cost, bill, .. } = &created {
            self.cx.hub.record_cost(subscription, *cost, *bill);
        }
        let now = self.now();
        match self.subscriptions.created(subscription, created, now) {
            CreateOutcome::Accepted => {
                self.step(Input::Accepted(session));
                self.accepted(subscription);
            }
            CreateOutcome::Waiting => {
                self.note_delay();
                self.leave_if_idle(session);
            }
            CreateOutcome::CompareList => {
                self.note_delay();
                self.compare(false);
                self.leave_if_idle(session);
            }
            CreateOutcome::SessionGone => self.step(Input::SessionGone(session)),
            CreateOutcome::NotAccepted { code, reason } => {
                self.not_accepted(subscription, code, &reason);
                if let Some((code, reason)) = self.subscriptions.all_refused() {
                    let refused = !is_no_failure(code);
                    let failure = Failure {
                        code,
                        reason,
                        refused,
                    };
                    self.nothing_accepted(session, failure, PERMANENT_FAILURE_BACKOFF);
                }
            }
            CreateOutcome::TooManySockets(reason) => {
                let failure = Failure::transient(TOO_MANY_SOCKETS, reason);
                self.nothing_accepted(session, failure, PERMANENT_FAILURE_BACKOFF);
            }
            CreateOutcome::Unauthorized(reason) => {
                let failure = Failure {
                    code: Code::Unauthorized(PlatformName::Twitch),
                    reason,
                    refused: true,
                };
                self.reports.request_token_check();
                self.nothing_accepted(session, failure, PERMANENT_FAILURE_BACKOFF);
            }
        }
    }

    fn accepted(&mut self, subscription: &Subscription) {
        let whole = self.subscriptions.coverage(&subscription.channel) == Coverage::Whole;
        let (now, at) = (self.now(), self.twitch_now());
        self.reports.accepted(subscription, whole, now, at);
    }

    fn not_accepted(&mut self, subscription: &Subscription, code: Code, reason: &str) {
        self.reports
            .not_accepted(subscription, code, reason, self.twitch_now());
        if code == COST {
            self.cx.hub.forget_cost(&subscription.channel);
            self.compare(true);
        }
    }

    /// Records why nothing is accepted on a session, which is more specific than that an earlier one was lost.
    fn note_delay(&mut self) {
        if let Some(delay) = self.subscriptions.delayed().filter(|_| !self.state.is_up()) {
            self.last_error = Some(ErrorInfo::new(delay.code, &delay.reason));
        }
    }

    fn nothing_accepted(&mut self, session: String, failure: Failure, backoff: Millis) {
        self.step(Input::NothingAccepted {
            session,
            failure,
            backoff,
        });
    }

    /// Twitch ends a session on which no subscription was accepted within ten seconds. If the next attempt is later than that,
    /// the connection backs off until then instead.
    fn leave_if_idle(&mut self, session: String) {
        let now = self.now();
        let unused_at = self
            .state
            .session()
            .filter(|session| !session.proven)
            .map(|session| session.unused_at);
        if let (Some(unused_at), Some(due)) = (unused_at, self.subscriptions.idle_until())
            && due + 1_000 > unused_at
        {
            let failure = match self.subscriptions.delayed() {
                Some(delay) if delay.code != COST => Failure::transient(delay.code, &delay.reason),
                _ => Failure::transient(COST, "Twitch's points or places are used up for now"),
            };
            self.nothing_accepted(session, failure, due.saturating_sub(now));
        }
    }

    /// Requests Twitch's list. `without_earlier`: subscriptions that count there and are not ours belong to others, not to our earlier
    /// sessions.
    fn compare(&mut self, without_earlier: bool) {
        let session = self.state.session().map(|session| session.id.clone());
        if self.sessions.begin_compare(session.is_some(), self.now()) {
            self.calls.list(session, without_earlier);
        }
    }

    /// Compares Twitch's list with ours.
    fn listed(
        &mut self,
        session: Option<&str>,
        without_earlier: bool,
        listed: Result<(Vec<SubscriptionInfo>, Bill), PlatformError>,
    ) {
        self.sessions.end_compare();
        let (listed, bill) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                debug!(
                    connection = self.name,
                    error = &error as &dyn std::error::Error,
                    "The subscriptions cannot be listed"
                );
                return;
            }
        };
        let own = self.sessions.own(&listed, &self.cx.hub);
        if let Some(total) = bill.total.filter(|_| without_earlier) {
            self.cx
                .hub
                .record_cost_of_others(total.saturating_sub(own.cost), bill.max);
        }
        let current = self.state.session().map(|session| session.id.as_str());
        let Some(session) = session.filter(|session| current == Some(session)) else {
            return;
        };
        let now = self.now();
        let (accepted, lost) = self.subscriptions.compare(&own.current, &own.dead, now);
        self.dirty |= !accepted.is_empty() || !lost.is_empty();
        if !lost.is_empty() {
            self.reports.expect(now, self.twitch_now());
        }
        for subscription in accepted {
            self.step(Input::Accepted(session.to_owned()));
            self.accepted(&subscription);
        }
        for subscription in lost {
            debug!(
                connection = self.name,
                subscription = subscription.kind.name(),
                "A subscription was lost; creating it again"
            );
        }
    }

    /// Handles a subscription that Twitch revoked. `current`: the message came over a socket that is in use.
    fn revoked(&mut self, info: &SubscriptionInfo, current: bool) {
        if !current && !self.subscriptions.knows(&info.id) {
            // It belonged to a session that is no longer in use.
            return;
        }
        let Some(subscription) = Subscription::from_info(info) else {
            return self.cx.hub.unknown();
        };
        let Some(source) = source_of(&subscription) else {
            return;
        };
        let (now, at) = (self.now(), self.twitch_now());
        let revocation = Revocation::of(&info.status);
        // A revocation that needs attention is retried occasionally; the others may be transient.
        let again_after = if revocation.is_lasting() {
            30 * 60_000
        } else {
            60_000
        };
        let is_current = self.subscriptions.revoked(
            &subscription,
            &info.id,
            revocation.code,
            revocation.reason,
            again_after,
            now,
        );
        if !is_current {
            return;
        }
        self.reports.revoked(source, &subscription, &revocation, at);
        self.dirty = true;
    }

    /// Resubscribes a connection that is alive but does not deliver events that polls observe.
    fn detect_missed_events(&mut self) {
        let (now, at) = (self.now(), self.twitch_now());
        let polled = self.cx.twitch.skew.correct(self.cx.twitch.clock.now());
        let suspects = self.reports.report_missed_events(polled, at);
        if suspects.len() >= MISSING_TO_RECONNECT {
            return self.step(Input::Refresh);
        }
        for source in &suspects {
            self.subscriptions.renew(source.id(), now);
        }
        if !suspects.is_empty() {
            self.reports.expect(now, at);
        }
    }

    /// Publishes the connection's status if it has changed.
    fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let state = match &self.state.phase {
            Phase::BackingOff { .. } => "BACKING_OFF",
            Phase::Opening { .. } | Phase::Greeting { .. } => "CONNECTING",
            Phase::Open(session) if session.proven => "CONNECTED",
            Phase::Open(_) => "WELCOMED",
            Phase::Moving { .. } => "MOVING",
            Phase::Stopped => "STOPPED",
        };
        let status = ConnectionStatus {
            identity: self.identity.to_string(),
            socket: self.socket_number,
            state,
            session: self.state.session().map(|session| session.id.clone()),
            failures: self.state.failures,
            last_error: self.last_error.clone(),
        };
        let subscriptions = self.subscriptions.stands().map(|(subscription, stand)| {
            let state = match stand {
                Stand::Enabled { .. } => SubscriptionState::Enabled,
                Stand::Due { .. } | Stand::Creating { .. } => {
                    let delay = self.subscriptions.delayed();
                    SubscriptionState::Pending(delay.map(|delay| delay.reason.clone()))
                }
                Stand::Refused { reason, .. } => SubscriptionState::Refused(reason.clone()),
            };
            (subscription.clone(), state)
        });
        let subscriptions = subscriptions.collect();
        self.cx
            .hub
            .note_connection(&self.name, Some((status, subscriptions)));
    }
}
