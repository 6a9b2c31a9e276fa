//! A line's voice: what it tells of each source's link, and which looks it asks for.

use tracing::{debug, info, warn};

use super::super::kinds::{Kind, Subscription};
use super::super::machine::{Input, Millis, Phase, Trouble};
use super::super::roster::{COST, Hearing, Stand, is_no_trouble};
use super::super::status::LineStatus;
use super::{BEAT, GATHER, Line, Telling, Unheard};
use crate::core::observation::{ErrorInfo, Fact, Grants, LinkState, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::Probe;

/// A line that is back so soon was never worth telling of.
const DOWN_GRACE: Millis = 5_000;
/// How long a subscription may take to be accepted before it is told that it is not.
const PENDING_GRACE: Millis = 30_000;
/// So many sources are looked at without waiting for more.
const GATHERED: usize = 100;
/// Sources found silent at a time from which on the whole line is suspected.
const SILENT_LINE: usize = 3;

impl Line {
    /// A subscription is heard.
    pub(super) fn heard(&mut self, subscription: &Subscription) {
        let Some(source) = source_of(subscription) else {
            return;
        };
        if subscription.kind == Kind::Chat {
            // Twitch lets nobody read who is banned.
            self.tell_ban(&source, false);
        }
        let at = self.twitch_now();
        self.around.hub.accepted(&source, subscription.kind, at);
        let whole = self.roster.hearing(source.id()) == Hearing::Whole;
        if subscription.kind.is_of_stream() && whole {
            self.around.hub.silence(|silence| silence.listening(&source, at));
            self.tell_link(&source, LinkState::Up, at);
            self.told.insert(source.clone(), Telling::Up);
            self.fresh.insert(source);
            self.fresh_since = self.fresh_since.or(Some(self.now()));
        }
    }

    /// A subscription is not heard, and will not be for a while.
    pub(super) fn not_heard(&mut self, subscription: &Subscription, code: &str, reason: &str) {
        let Some(source) = source_of(subscription) else {
            return;
        };
        let at = self.twitch_now();
        self.around.hub.failed(&source, subscription.kind, at);
        if is_no_trouble(code) {
            info!(
                source.key = %source, subscription = subscription.kind.name(), code, reason,
                "{} of `{source}` is polled instead", subscription.kind.name()
            );
            if subscription.kind.is_of_stream() {
                self.unclaim(&source, at);
            }
            if code == COST {
                self.around.hub.forget_cost(&subscription.channel);
                self.compare(true);
            }
            return;
        }
        warn!(
            source.key = %source, subscription = subscription.kind.name(), code, reason,
            "Twitch does not let us hear {} of `{source}`", subscription.kind.name()
        );
        let error = ErrorInfo::new(code, format!("{}: {reason}", subscription.kind.name()));
        if subscription.kind.is_of_stream() {
            self.tell_link(&source, LinkState::Refused { error }, at);
            self.told.insert(source.clone(), Telling::Trouble);
            self.around.hub.silence(|silence| silence.deaf(&source));
        } else {
            self.around.hub.observe(&source, at, Fact::Problem { error });
        }
    }

    /// Claims nothing any more of a source's link.
    fn unclaim(&mut self, source: &SourceKey, at: Timestamp) {
        if let Some(telling) = self.told.get_mut(source)
            && std::mem::replace(telling, Telling::Nothing) != Telling::Nothing
        {
            self.tell_link(source, LinkState::Closed, at);
        }
        self.around.hub.silence(|silence| silence.deaf(source));
    }

    pub(super) fn tell_ban(&self, source: &SourceKey, banned: bool) {
        let mut grants = Grants::default();
        let set = if banned {
            &mut grants.granted
        } else {
            &mut grants.denied
        };
        set.insert("BANNED".to_owned());
        let method = "twitch.chat".to_owned();
        let fact = Fact::Permissions { method, grants };
        self.around.hub.observe(source, self.twitch_now(), fact);
    }

    pub(super) fn ask_about_authorisation(&self) {
        let sources = self.told.keys().cloned();
        self.around.hub.missed(sources, [Probe::Auth].into());
    }

    pub(super) fn up(&mut self) {
        if self.was_up {
            self.around.hub.reconnected(self.told.keys());
        }
        self.was_up = true;
        self.last_error = None;
        info!(line = self.name, "Listening to Twitch");
        let now = self.now();
        match &mut self.unheard {
            // What else was heard before the gap gets as long again to be accepted.
            Some(unheard) if unheard.trouble.is_some() => unheard.by = now + DOWN_GRACE,
            _ => self.expect(now),
        }
    }

    pub(super) fn down(&mut self, mut trouble: Trouble) {
        // A session that went unused is the consequence; why nothing was accepted is the cause.
        let unused = ["twitch.eventsub.unused", "twitch.eventsub.4003"].contains(&trouble.code.as_str());
        if let (true, Some(why)) = (unused, self.roster.delayed()) {
            trouble.reason = format!("{}: {why}", trouble.reason);
        }
        let (now, at) = (self.now(), self.twitch_now());
        self.sessions.clear();
        self.around.hub.note_sessions(&self.name, &[]);
        self.comparing = false;
        self.next_compare = None;
        self.last_error = Some(ErrorInfo::new(&trouble.code, &trouble.reason));
        if self.state.failures <= 1 {
            warn!(
                line = self.name,
                code = trouble.code,
                reason = trouble.reason,
                "Not listening to Twitch"
            );
        } else {
            debug!(
                line = self.name,
                code = trouble.code,
                attempt = self.state.failures,
                "Still not listening to Twitch"
            );
        }
        for source in self.told.keys() {
            self.around.hub.silence(|silence| silence.deaf(source));
        }
        let by = if trouble.refused { now } else { now + DOWN_GRACE };
        // What was only pending is lost now.
        let first = self.unheard.take().filter(|unheard| unheard.trouble.is_some());
        self.unheard = Some(Unheard {
            by: first.as_ref().map_or(by, |first| first.by.min(by)),
            at: first.map_or(at, |first| first.at),
            trouble: Some(trouble),
        });
    }

    /// From now on what is wanted should be accepted soon, or it is told that it is not heard.
    pub(super) fn expect(&mut self, now: Millis) {
        let at = self.twitch_now();
        self.unheard.get_or_insert(Unheard {
            by: now + PENDING_GRACE,
            at,
            trouble: None,
        });
    }

    /// Tells of the sources that should be heard by now and are not. Those that Twitch refused were told when it did.
    pub(super) fn tell_unheard(&mut self, now: Millis) {
        let Some(unheard) = self.unheard.take_if(|unheard| unheard.by <= now) else {
            return;
        };
        let trouble = unheard.trouble.unwrap_or_else(|| {
            let why = self
                .roster
                .delayed()
                .unwrap_or("the subscription is not accepted yet");
            Trouble::passing("twitch.eventsub.pending", why)
        });
        let error = ErrorInfo::new(&trouble.code, &trouble.reason);
        let state = match &trouble {
            trouble if trouble.refused => LinkState::Refused { error },
            // Want of points is no trouble: those channels are polled, and nothing is claimed of this way to them.
            trouble if is_no_trouble(&trouble.code) => LinkState::Closed,
            _ => LinkState::Down { error },
        };
        let in_session = self.state.session().is_some();
        for (source, telling) in std::mem::take(&mut self.told) {
            let untold = match self.roster.hearing(source.id()) {
                Hearing::Refused => false,
                Hearing::Whole => !in_session,
                Hearing::Pending => true,
            };
            let unclaimed = telling == Telling::Nothing && state == LinkState::Closed;
            if !untold {
                self.told.insert(source, telling);
                continue;
            }
            if !unclaimed {
                self.tell_link(&source, state.clone(), unheard.at);
            }
            let telling = if state == LinkState::Closed {
                Telling::Nothing
            } else {
                Telling::Trouble
            };
            self.told.insert(source, telling);
        }
    }

    pub(super) fn ended(&mut self) {
        let at = self.twitch_now();
        self.unheard = None;
        for (source, telling) in std::mem::take(&mut self.told) {
            if telling != Telling::Nothing {
                self.tell_link(&source, LinkState::Closed, at);
            }
            self.around.hub.silence(|silence| silence.deaf(&source));
        }
        self.closers.clear();
    }

    /// After every gap a poll tells what was missed, once the sources are heard again.
    pub(super) fn ask_for_looks(&mut self, now: Millis) {
        let waited = self.fresh_since.is_some_and(|since| since + GATHER <= now);
        if self.fresh.is_empty() || !(waited || self.fresh.len() >= GATHERED || self.roster.is_settled()) {
            return;
        }
        let sources = std::mem::take(&mut self.fresh);
        self.fresh_since = None;
        self.around.hub.missed(sources, [Probe::Stream].into());
    }

    /// Says again that what is up is up.
    pub(super) fn beat(&mut self, now: Millis) {
        self.next_beat = now + BEAT;
        // While nobody reads, there is no point in repeating it.
        if !self.state.is_up() || self.around.hub.has_something_to_tell() {
            return;
        }
        let at = self.twitch_now();
        for (source, telling) in &self.told {
            if *telling == Telling::Up && self.roster.hearing(source.id()) == Hearing::Whole {
                self.tell_link(source, LinkState::Up, at);
            }
        }
    }

    /// A line that is alive and does not tell what polls see is subscribed anew.
    pub(super) fn suspect_silence(&mut self) {
        let now = self.around.twitch.skew.correct(self.around.twitch.clock.now());
        let ours = &self.told;
        let suspects = self
            .around
            .hub
            .silence(|silence| silence.suspects(now, |source| ours.contains_key(source)));
        if suspects.is_empty() {
            return;
        }
        let at = self.twitch_now();
        for source in &suspects {
            warn!(source.key = %source, "Twitch pushes nothing about `{source}` although polls see changes");
            let error = ErrorInfo::new(
                "twitch.eventsub.silent",
                "polls see changes that were not pushed; subscribing anew",
            );
            self.around.hub.observe(source, at, Fact::Problem { error });
        }
        if suspects.len() >= SILENT_LINE {
            return self.step(Input::Refresh);
        }
        let now = self.now();
        for source in suspects {
            self.roster.renew(source.id(), now);
        }
        self.expect(now);
    }

    pub(super) fn tell_link(&self, source: &SourceKey, state: LinkState, at: Timestamp) {
        let fact = Fact::Connection {
            transport: Transport::EventSub,
            state,
        };
        self.around.hub.observe(source, at, fact);
    }

    /// Shows how the line stands, if that has changed.
    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let state = match &self.state.phase {
            Phase::Resting { .. } => "RESTING",
            Phase::Opening { .. } | Phase::Greeting { .. } => "CONNECTING",
            Phase::Open(session) if session.proven => "CONNECTED",
            Phase::Open(_) => "WELCOMED",
            Phase::Moving { .. } => "MOVING",
            Phase::Stopped => "STOPPED",
        };
        let status = LineStatus {
            identity: self.identity.to_string(),
            socket: self.socket_number,
            state,
            session: self.state.session().map(|session| session.id.clone()),
            failures: self.state.failures,
            last_error: self.last_error.clone(),
        };
        let subscriptions = self.roster.stands().map(|(subscription, stand)| {
            let status = match stand {
                Stand::Enabled { .. } => "enabled".to_owned(),
                Stand::Due { .. } | Stand::Creating { .. } => match self.roster.delayed() {
                    Some(why) => format!("pending: {why}"),
                    None => "pending".to_owned(),
                },
                Stand::Refused { reason, .. } => format!("refused: {reason}"),
            };
            (subscription.clone(), status)
        });
        let subscriptions = subscriptions.collect();
        self.around
            .hub
            .note_line(&self.name, Some((status, subscriptions)));
    }
}

pub(super) fn source_of(subscription: &Subscription) -> Option<SourceKey> {
    SourceKey::new(PlatformName::Twitch, &subscription.channel).ok()
}
