//! A line's voice: what it tells of each source's link, and which looks it asks for.

use tracing::{debug, info, warn};

use super::super::kinds::{Kind, Subscription};
use super::super::machine::{Input, Millis, Phase, Trouble};
use super::super::roster::{COST, Stand, is_no_trouble};
use super::super::status::LineStatus;
use super::{BEAT, GATHER, Line, PendingDown, Telling};
use crate::core::observation::{ErrorInfo, Fact, Grants, LinkState, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::Probe;

/// A line that is back so soon was never worth telling of.
const DOWN_GRACE: Millis = 5_000;
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
        let whole = self.roster.hears(source.id()).of_stream == 2;
        if subscription.kind.is_of_stream() && whole {
            let at = self.twitch_now();
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
        self.pending_down = None;
        self.last_error = None;
        info!(line = self.name, "Listening to Twitch");
    }

    pub(super) fn down(&mut self, trouble: Trouble) {
        let (now, at) = (self.now(), self.twitch_now());
        self.around.hub.note_session(&self.name, None);
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
        let first = self.pending_down.take();
        self.pending_down = Some(PendingDown {
            by: first.as_ref().map_or(by, |first| first.by.min(by)),
            at: first.map_or(at, |first| first.at),
            trouble,
        });
    }

    pub(super) fn tell_pending_down(&mut self, now: Millis) {
        let Some(down) = self.pending_down.take_if(|down| down.by <= now) else {
            return;
        };
        let error = ErrorInfo::new(&down.trouble.code, &down.trouble.reason);
        let state = match &down.trouble {
            trouble if trouble.refused => LinkState::Refused { error },
            // Want of points is no trouble: those channels are polled, and nothing is claimed of this way to them.
            trouble if is_no_trouble(&trouble.code) => LinkState::Closed,
            _ => LinkState::Down { error },
        };
        for (source, telling) in std::mem::take(&mut self.told) {
            let unclaimed = telling == Telling::Nothing && state == LinkState::Closed;
            if !unclaimed {
                self.tell_link(&source, state.clone(), down.at);
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
        self.pending_down = None;
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
        let up = self.told.iter().filter(|(_, telling)| **telling == Telling::Up);
        for (source, _) in up {
            self.tell_link(source, LinkState::Up, at);
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
                Stand::Due { .. } | Stand::Creating { .. } => "pending".to_owned(),
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
