//! A connection's reports: what it publishes about each source's link, and which probes it requests.

use tracing::{debug, info, warn};

use super::super::kinds::{Kind, Subscription};
use super::super::machine::{Failure, Input, Millis, Phase};
use super::super::status::{ConnectionStatus, SubscriptionState};
use super::super::subscription_set::{COST, Coverage, Stand, is_no_failure};
use super::{Connection, GATHER, HEARTBEAT, LinkReport, Unaccepted};
use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, Fact, Grants, LinkState, Transport};
use crate::core::permission;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::Probe;

/// An interruption shorter than this is not reported.
const DOWN_GRACE: Millis = 5_000;
/// How long a subscription may take to be accepted before its source is reported as not covered.
const PENDING_GRACE: Millis = 30_000;
/// This many sources are probed without waiting for more.
const GATHERED: usize = 100;
/// Number of sources with missed events at the same time that makes the whole connection suspect.
const MISSING_TO_RECONNECT: usize = 3;

impl Connection {
    /// Handles an accepted subscription.
    pub(super) fn received(&mut self, subscription: &Subscription) {
        let Some(source) = source_of(subscription) else {
            return;
        };
        if subscription.kind == Kind::Chat {
            // Twitch does not let banned users read the chat.
            self.report_ban(&source, false);
        }
        let at = self.twitch_now();
        self.cx.hub.accepted(&source, subscription.kind, at);
        let whole = self.subscriptions.coverage(source.id()) == Coverage::Whole;
        if subscription.kind.is_of_stream() && whole {
            self.cx
                .hub
                .missed_events(|missed_events| missed_events.covered(&source, at));
            self.report_link(&source, LinkState::Up, at);
            self.link_reports.insert(source.clone(), LinkReport::Up);
            self.fresh.insert(source);
            self.fresh_since = self.fresh_since.or(Some(self.now()));
        }
    }

    /// Handles a subscription that is not accepted and will not be for a while.
    pub(super) fn not_accepted(&mut self, subscription: &Subscription, code: Code, reason: &str) {
        let Some(source) = source_of(subscription) else {
            return;
        };
        let at = self.twitch_now();
        self.cx.hub.failed(&source, subscription.kind, at);
        if is_no_failure(code) {
            info!(
                source.key = %source, subscription = subscription.kind.name(), %code, reason,
                "{} of `{source}` is polled instead", subscription.kind.name()
            );
            if subscription.kind.is_of_stream() {
                self.withdraw_link(&source, at);
            }
            if code == COST {
                self.cx.hub.forget_cost(&subscription.channel);
                self.compare(true);
            }
            return;
        }
        let name = subscription.kind.name();
        if self.cx.hub.is_new_cause(&code.text(), at) {
            warn!(
                source.key = %source, subscription = name, %code, reason,
                "Cannot subscribe to {name} of `{source}`; others with this cause are logged at debug level"
            );
        } else {
            debug!(source.key = %source, subscription = name, %code, reason, "Cannot subscribe to {name} of `{source}`");
        }
        let error = ErrorInfo::new(code, format!("{}: {reason}", subscription.kind.name()));
        if subscription.kind.is_of_stream() {
            self.report_link(&source, LinkState::Refused { error }, at);
            self.link_reports.insert(source.clone(), LinkReport::Failure);
            self.cx
                .hub
                .missed_events(|missed_events| missed_events.uncovered(&source));
        } else {
            self.cx.hub.observe(&source, at, Fact::Problem { error });
        }
    }

    /// Withdraws the report about a source's link.
    fn withdraw_link(&mut self, source: &SourceKey, at: Timestamp) {
        if let Some(report) = self.link_reports.get_mut(source)
            && std::mem::replace(report, LinkReport::Nothing) != LinkReport::Nothing
        {
            self.report_link(source, LinkState::Closed, at);
        }
        self.cx
            .hub
            .missed_events(|missed_events| missed_events.uncovered(source));
    }

    pub(super) fn report_ban(&self, source: &SourceKey, banned: bool) {
        let mut grants = Grants::default();
        let set = if banned {
            &mut grants.granted
        } else {
            &mut grants.denied
        };
        set.insert(permission::BANNED.to_owned());
        let method = "twitch.chat".to_owned();
        let fact = Fact::Permissions { method, grants };
        self.cx.hub.observe(source, self.twitch_now(), fact);
    }

    pub(super) fn request_token_check(&self) {
        let sources = self.link_reports.keys().cloned();
        self.cx.hub.missed(sources, [Probe::Auth].into());
    }

    pub(super) fn up(&mut self) {
        if self.was_up {
            self.cx.hub.reconnected(self.link_reports.keys());
        }
        self.was_up = true;
        self.last_error = None;
        info!(connection = self.name, "Listening to Twitch");
        let now = self.now();
        match &mut self.unaccepted {
            // Other subscriptions that were active before the gap get the same time to be accepted again.
            Some(unaccepted) if unaccepted.failure.is_some() => unaccepted.by = now + DOWN_GRACE,
            _ => self.expect(now),
        }
    }

    pub(super) fn down(&mut self, mut failure: Failure) {
        // An unused session is only the consequence; the reason that nothing was accepted is the cause.
        let unused = failure.code == Code::TwitchSessionUnused;
        if let (true, Some(delay)) = (unused, self.subscriptions.delayed()) {
            failure.reason = format!("{}: {}", failure.reason, delay.reason);
            if delay.code != COST {
                failure.code = delay.code;
            }
        }
        let (now, at) = (self.now(), self.twitch_now());
        self.sessions.clear();
        self.cx.hub.note_sessions(&self.name, &[]);
        self.comparing = false;
        self.next_compare = None;
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
        for source in self.link_reports.keys() {
            self.cx
                .hub
                .missed_events(|missed_events| missed_events.uncovered(source));
        }
        let by = if failure.refused { now } else { now + DOWN_GRACE };
        // A subscription that was only pending is now lost.
        let first = self
            .unaccepted
            .take()
            .filter(|unaccepted| unaccepted.failure.is_some());
        self.unaccepted = Some(Unaccepted {
            by: first.as_ref().map_or(by, |first| first.by.min(by)),
            at: first.map_or(at, |first| first.at),
            failure: Some(failure),
        });
    }

    /// Starts the deadline by which the desired subscriptions must be accepted.
    pub(super) fn expect(&mut self, now: Millis) {
        let at = self.twitch_now();
        self.unaccepted.get_or_insert(Unaccepted {
            by: now + PENDING_GRACE,
            at,
            failure: None,
        });
    }

    /// Reports the sources that should be covered by now and are not. Refusals by Twitch were reported when they occurred.
    pub(super) fn report_unaccepted(&mut self, now: Millis) {
        let Some(unaccepted) = self.unaccepted.take_if(|unaccepted| unaccepted.by <= now) else {
            return;
        };
        let in_session = self.state.session().is_some();
        let delay = self.subscriptions.delayed();
        let failure = match (unaccepted.failure, delay) {
            // The session is lost and there is a new one: what prevents subscribing on it is the cause now.
            (Some(failure), Some(delay)) if in_session && !failure.refused && delay.code != COST => {
                Failure::passing(delay.code, &delay.reason)
            }
            (Some(failure), _) => failure,
            (None, Some(delay)) if delay.code != COST => Failure::passing(delay.code, &delay.reason),
            (None, delay) => {
                let why = delay.map_or("the subscription is not accepted yet", |delay| &delay.reason);
                Failure::passing(Code::TwitchSubscriptionPending, why)
            }
        };
        let error = ErrorInfo::new(failure.code, &failure.reason);
        let state = match &failure {
            failure if failure.refused => LinkState::Refused { error },
            // An exhausted cost limit is no failure: those channels are polled, and nothing is claimed about this transport to
            // them.
            failure if is_no_failure(failure.code) => LinkState::Closed,
            _ => LinkState::Down { error },
        };
        for (source, report) in std::mem::take(&mut self.link_reports) {
            let unreported = match self.subscriptions.coverage(source.id()) {
                Coverage::Refused => false,
                Coverage::Whole => !in_session,
                Coverage::Pending => true,
            };
            let unclaimed = report == LinkReport::Nothing && state == LinkState::Closed;
            if !unreported {
                self.link_reports.insert(source, report);
                continue;
            }
            if !unclaimed {
                self.report_link(&source, state.clone(), unaccepted.at);
            }
            let report = if state == LinkState::Closed {
                LinkReport::Nothing
            } else {
                LinkReport::Failure
            };
            self.link_reports.insert(source, report);
        }
    }

    pub(super) fn ended(&mut self) {
        let at = self.twitch_now();
        self.unaccepted = None;
        for (source, report) in std::mem::take(&mut self.link_reports) {
            if report != LinkReport::Nothing {
                self.report_link(&source, LinkState::Closed, at);
            }
            self.cx
                .hub
                .missed_events(|missed_events| missed_events.uncovered(&source));
        }
        self.closers.clear();
    }

    /// Requests a probe after every gap, once the sources are covered again, to find what was missed.
    pub(super) fn request_probes(&mut self, now: Millis) {
        let waited = self.fresh_since.is_some_and(|since| since + GATHER <= now);
        if self.fresh.is_empty()
            || !(waited || self.fresh.len() >= GATHERED || self.subscriptions.is_settled())
        {
            return;
        }
        let sources = std::mem::take(&mut self.fresh);
        self.fresh_since = None;
        self.cx.hub.missed(sources, [Probe::Stream].into());
    }

    /// Repeats the observations of all links that are up.
    pub(super) fn heartbeat(&mut self, now: Millis) {
        self.next_heartbeat = now + HEARTBEAT;
        // While the receiver does not read, repeating them is pointless.
        if !self.state.is_up() || self.cx.hub.has_pending() {
            return;
        }
        let at = self.twitch_now();
        for (source, report) in &self.link_reports {
            if *report == LinkReport::Up && self.subscriptions.coverage(source.id()) == Coverage::Whole {
                self.report_link(source, LinkState::Up, at);
            }
        }
    }

    /// Resubscribes a connection that is alive but does not deliver events that polls observe.
    pub(super) fn detect_missed_events(&mut self) {
        let now = self.cx.twitch.skew.correct(self.cx.twitch.clock.now());
        let ours = &self.link_reports;
        let suspects = self
            .cx
            .hub
            .missed_events(|missed_events| missed_events.suspects(now, |source| ours.contains_key(source)));
        if suspects.is_empty() {
            return;
        }
        let at = self.twitch_now();
        for source in &suspects {
            warn!(source.key = %source, "Twitch pushes nothing about `{source}` although polls see changes");
            let error = ErrorInfo::new(
                Code::PushSilent(PlatformName::Twitch),
                "polls see changes that were not pushed; subscribing anew",
            );
            self.cx.hub.observe(source, at, Fact::Problem { error });
        }
        if suspects.len() >= MISSING_TO_RECONNECT {
            return self.step(Input::Refresh);
        }
        let now = self.now();
        for source in suspects {
            self.subscriptions.renew(source.id(), now);
        }
        self.expect(now);
    }

    pub(super) fn report_link(&self, source: &SourceKey, state: LinkState, at: Timestamp) {
        let fact = Fact::Connection {
            transport: Transport::EventSub,
            state,
        };
        self.cx.hub.observe(source, at, fact);
    }

    /// Publishes the connection's status if it has changed.
    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let state = match &self.state.phase {
            Phase::BackingOff { .. } => "RESTING",
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

pub(super) fn source_of(subscription: &Subscription) -> Option<SourceKey> {
    SourceKey::new(PlatformName::Twitch, &subscription.channel).ok()
}
