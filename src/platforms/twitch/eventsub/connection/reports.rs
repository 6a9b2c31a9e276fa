//! What a connection reports about its sources: their links, refused subscriptions, and which probes are due after a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::super::super::map;
use super::super::hub::Hub;
use super::super::kinds::{Kind, Subscription};
use super::super::machine::{Failure, Millis};
use super::super::subscription_set::{COST, Coverage, SubscriptionSet, is_no_failure};
use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, Fact, LinkState, Transport};
use crate::core::permission;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::{Probe, ProbeSet};

/// How often a connection that is up repeats its observation.
const HEARTBEAT: Millis = 60_000;
/// An interruption shorter than this is not reported.
const DOWN_GRACE: Millis = 5_000;
/// How long a subscription may take to be accepted before its source is reported as not covered.
const PENDING_GRACE: Millis = 30_000;
/// How long sources wait so that they are probed together with others.
const GATHER: Millis = 2_000;
/// This many sources are probed without waiting for more.
const GATHERED: usize = 100;

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

/// The sources of a connection with the last report about each of them.
pub(in super::super) struct Reports {
    hub: Arc<Hub>,
    links: BTreeMap<SourceKey, LinkReport>,
    unaccepted: Option<Unaccepted>,
    /// Sources that are covered again and have not been probed since.
    fresh: BTreeSet<SourceKey>,
    fresh_since: Option<Millis>,
    next_heartbeat: Millis,
    was_up: bool,
}

impl Reports {
    pub(in super::super) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            links: BTreeMap::new(),
            unaccepted: None,
            fresh: BTreeSet::new(),
            fresh_since: None,
            next_heartbeat: HEARTBEAT,
            was_up: false,
        }
    }

    /// When the next report is due, unless something happens.
    pub(in super::super) fn deadline(&self) -> Millis {
        let unaccepted = self.unaccepted.as_ref().map(|unaccepted| unaccepted.by);
        let fresh = self.fresh_since.map(|since| since + GATHER);
        [unaccepted, fresh]
            .into_iter()
            .flatten()
            .fold(self.next_heartbeat, Millis::min)
    }

    /// Sets the sources that the connection covers. The links of others are closed.
    pub(in super::super) fn set_sources(&mut self, sources: BTreeSet<SourceKey>, at: Timestamp) {
        let gone = self.links.extract_if(.., |source, _| !sources.contains(source));
        for (source, report) in gone.collect::<Vec<_>>() {
            self.close(&source, report, at);
        }
        for source in sources {
            self.links.entry(source).or_insert(LinkReport::Nothing);
        }
    }

    /// Reports an accepted subscription. `whole`: nothing else is missing to cover its source's streams.
    pub(in super::super) fn accepted(
        &mut self,
        subscription: &Subscription,
        whole: bool,
        now: Millis,
        at: Timestamp,
    ) {
        let Some(source) = source_of(subscription) else {
            return;
        };
        if subscription.kind == Kind::Chat {
            // Twitch does not let banned users read the chat.
            self.report_ban(&source, false, at);
        }
        self.hub.accepted(&source, subscription.kind, at);
        if subscription.kind.is_of_stream() && whole {
            self.hub
                .missed_events(|missed_events| missed_events.covered(&source, at));
            self.report_link(&source, LinkState::Up, at);
            self.links.insert(source.clone(), LinkReport::Up);
            self.fresh.insert(source);
            self.fresh_since = self.fresh_since.or(Some(now));
        }
    }

    /// Reports a subscription that is not accepted and will not be for a while.
    pub(in super::super) fn not_accepted(
        &mut self,
        subscription: &Subscription,
        code: Code,
        reason: &str,
        at: Timestamp,
    ) {
        let Some(source) = source_of(subscription) else {
            return;
        };
        self.hub.failed(&source, subscription.kind, at);
        let name = subscription.kind.name();
        if is_no_failure(code) {
            info!(source.key = %source, subscription = name, %code, reason, "{name} of `{source}` is polled instead");
            if subscription.kind.is_of_stream() {
                self.withdraw_link(&source, at);
            }
            return;
        }
        if self.hub.is_new_cause(&code.text(), at) {
            warn!(
                source.key = %source, subscription = name, %code, reason,
                "Cannot subscribe to {name} of `{source}`; others with this cause are logged at debug level"
            );
        } else {
            debug!(source.key = %source, subscription = name, %code, reason, "Cannot subscribe to {name} of `{source}`");
        }
        let error = ErrorInfo::new(code, format!("{name}: {reason}"));
        if subscription.kind.is_of_stream() {
            self.report_failure(source, LinkState::Refused { error }, at);
        } else {
            self.hub.observe(&source, at, Fact::Problem { error });
        }
    }

    /// Reports a subscription that Twitch revoked, and requests a probe of what it means beyond this subscription.
    pub(in super::super) fn revoked(
        &mut self,
        source: SourceKey,
        subscription: &Subscription,
        revocation: &Revocation<'_>,
        at: Timestamp,
    ) {
        let Revocation { status, code, reason } = *revocation;
        let name = subscription.kind.name();
        if self.hub.is_new_cause(status, at) {
            warn!(
                source.key = %source, subscription = name, status,
                "Twitch ended {name} of `{source}`: {reason}; others with this cause are logged at debug level"
            );
        } else {
            debug!(source.key = %source, subscription = name, status, "Twitch ended {name} of `{source}`: {reason}");
        }
        self.hub.failed(&source, subscription.kind, at);
        let error = ErrorInfo::new(code, format!("{name}: {reason}"));
        if subscription.kind.is_of_stream() {
            let state = if revocation.is_lasting() {
                LinkState::Refused { error }
            } else {
                LinkState::Down { error }
            };
            self.report_failure(source.clone(), state, at);
        } else {
            self.hub.observe(&source, at, Fact::Problem { error });
        }
        if status == "chat_user_banned" {
            self.report_ban(&source, true, at);
        }
        let probes: ProbeSet = match status {
            "authorization_revoked" => [Probe::Auth, Probe::Stream].into(),
            "moderator_removed" => [Probe::Permissions].into(),
            _ => [Probe::Connection, Probe::Stream].into(),
        };
        self.hub.missed([source], probes);
    }

    fn report_failure(&mut self, source: SourceKey, state: LinkState, at: Timestamp) {
        self.report_link(&source, state, at);
        self.uncovered(&source);
        self.links.insert(source, LinkReport::Failure);
    }

    /// Withdraws the report about a source's link.
    fn withdraw_link(&mut self, source: &SourceKey, at: Timestamp) {
        let report = self.links.get_mut(source).map_or(LinkReport::Nothing, |report| {
            std::mem::replace(report, LinkReport::Nothing)
        });
        self.close(source, report, at);
    }

    /// Reports a link as closed if it was reported otherwise before.
    fn close(&self, source: &SourceKey, reported: LinkReport, at: Timestamp) {
        if reported != LinkReport::Nothing {
            self.report_link(source, LinkState::Closed, at);
        }
        self.uncovered(source);
    }

    fn uncovered(&self, source: &SourceKey) {
        self.hub
            .missed_events(|missed_events| missed_events.uncovered(source));
    }

    fn report_ban(&self, source: &SourceKey, banned: bool, at: Timestamp) {
        let grants = map::one(permission::BANNED, Ok(banned));
        let method = "twitch.chat".to_owned();
        self.hub.observe(
            source,
            at,
            Fact::Permissions {
                method,
                grants: grants.into(),
            },
        );
    }

    /// Requests a check of the token that every source needs.
    pub(in super::super) fn request_token_check(&self) {
        self.hub.missed(self.links.keys().cloned(), [Probe::Auth].into());
    }

    /// Records that the connection is up.
    pub(in super::super) fn up(&mut self, now: Millis, at: Timestamp) {
        if self.was_up {
            self.hub.reconnected(self.links.keys());
        }
        self.was_up = true;
        match &mut self.unaccepted {
            // Other subscriptions that were active before the gap get the same time to be accepted again.
            Some(unaccepted) if unaccepted.failure.is_some() => unaccepted.by = now + DOWN_GRACE,
            _ => self.expect(now, at),
        }
    }

    /// Records that the connection is lost, which is reported unless it is back soon.
    pub(in super::super) fn down(&mut self, failure: Failure, now: Millis, at: Timestamp) {
        for source in self.links.keys() {
            self.uncovered(source);
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
    pub(in super::super) fn expect(&mut self, now: Millis, at: Timestamp) {
        self.unaccepted.get_or_insert(Unaccepted {
            by: now + PENDING_GRACE,
            at,
            failure: None,
        });
    }

    /// Reports the sources that should be covered by now and are not. Refusals by Twitch were reported when they occurred.
    pub(in super::super) fn report_unaccepted(
        &mut self,
        now: Millis,
        in_session: bool,
        subscriptions: &SubscriptionSet,
    ) {
        let Some(unaccepted) = self.unaccepted.take_if(|unaccepted| unaccepted.by <= now) else {
            return;
        };
        let delay = subscriptions.delayed();
        let failure = match (unaccepted.failure, delay) {
            // The session is lost and there is a new one: what prevents subscribing on it is the cause now.
            (Some(failure), Some(delay)) if in_session && !failure.refused && delay.code != COST => {
                Failure::transient(delay.code, &delay.reason)
            }
            (Some(failure), _) => failure,
            (None, Some(delay)) if delay.code != COST => Failure::transient(delay.code, &delay.reason),
            (None, delay) => {
                let why = delay.map_or("the subscription is not accepted yet", |delay| &delay.reason);
                Failure::transient(Code::TwitchSubscriptionPending, why)
            }
        };
        let error = ErrorInfo::new(failure.code, &failure.reason);
        let (state, report) = if failure.refused {
            (LinkState::Refused { error }, LinkReport::Failure)
        } else if is_no_failure(failure.code) {
            // An exhausted cost limit is no failure: those channels are polled, and nothing is claimed about this transport to
            // them.
            (LinkState::Closed, LinkReport::Nothing)
        } else {
            (LinkState::Down { error }, LinkReport::Failure)
        };
        for (source, reported) in &mut self.links {
            let unreported = match subscriptions.coverage(source.id()) {
                Coverage::Refused => false,
                Coverage::Whole => !in_session,
                Coverage::Pending => true,
            };
            if !unreported {
                continue;
            }
            let unclaimed = *reported == LinkReport::Nothing && report == LinkReport::Nothing;
            if !unclaimed {
                observe_link(&self.hub, source, state.clone(), unaccepted.at);
            }
            *reported = report;
        }
    }

    /// Reports all links as closed.
    pub(in super::super) fn close_all(&mut self, at: Timestamp) {
        self.unaccepted = None;
        for (source, report) in std::mem::take(&mut self.links) {
            self.close(&source, report, at);
        }
    }

    /// Requests a probe after every gap, once the sources are covered again, to find what was missed. `is_complete`: no other
    /// source is about to be covered.
    pub(in super::super) fn request_probes(&mut self, now: Millis, is_complete: bool) {
        let waited = self.fresh_since.is_some_and(|since| since + GATHER <= now);
        if self.fresh.is_empty() || !(waited || self.fresh.len() >= GATHERED || is_complete) {
            return;
        }
        let sources = std::mem::take(&mut self.fresh);
        self.fresh_since = None;
        self.hub.missed(sources, [Probe::Stream].into());
    }

    /// Repeats the observations of all links that are up, when that is due.
    pub(in super::super) fn heartbeat(
        &mut self,
        now: Millis,
        is_up: bool,
        subscriptions: &SubscriptionSet,
        at: Timestamp,
    ) {
        if now < self.next_heartbeat {
            return;
        }
        self.next_heartbeat = now + HEARTBEAT;
        // While the receiver does not read, repeating them is pointless.
        if !is_up || self.hub.has_pending() {
            return;
        }
        for (source, report) in &self.links {
            if *report == LinkReport::Up && subscriptions.coverage(source.id()) == Coverage::Whole {
                self.report_link(source, LinkState::Up, at);
            }
        }
    }

    /// Reports the sources about which nothing is pushed although polls observe events, and returns them. `now`: by the clock
    /// that dates polls; `at`: by Twitch's.
    pub(in super::super) fn report_missed_events(&self, now: Timestamp, at: Timestamp) -> Vec<SourceKey> {
        let is_ours = |source: &SourceKey| self.links.contains_key(source);
        let suspects = self
            .hub
            .missed_events(|missed_events| missed_events.suspects(now, is_ours));
        for source in &suspects {
            warn!(source.key = %source, "Twitch pushes nothing about `{source}` although polls see changes");
            let error = ErrorInfo::new(
                Code::PushSilent(PlatformName::Twitch),
                "polls see changes that were not pushed; subscribing anew",
            );
            self.hub.observe(source, at, Fact::Problem { error });
        }
        suspects
    }

    fn report_link(&self, source: &SourceKey, state: LinkState, at: Timestamp) {
        observe_link(&self.hub, source, state, at);
    }
}

fn observe_link(hub: &Hub, source: &SourceKey, state: LinkState, at: Timestamp) {
    let transport = Transport::EventSub;
    hub.observe(source, at, Fact::Connection { transport, state });
}

pub(in super::super) fn source_of(subscription: &Subscription) -> Option<SourceKey> {
    SourceKey::new(PlatformName::Twitch, &subscription.channel).ok()
}

/// Why Twitch revoked a subscription.
pub(in super::super) struct Revocation<'a> {
    status: &'a str,
    pub(in super::super) code: Code,
    pub(in super::super) reason: &'static str,
}

impl<'a> Revocation<'a> {
    /// Interprets the `status` of a revoked subscription.
    pub(in super::super) fn of(status: &'a str) -> Self {
        let (code, reason) = match status {
            "authorization_revoked" => (
                Code::TwitchAuthorizationRevoked,
                "the authorization was withdrawn, or the password changed",
            ),
            "user_removed" => (Code::TwitchUserRemoved, "the user no longer exists"),
            "version_removed" => (
                Code::TwitchVersionRemoved,
                "Twitch no longer offers it in this version",
            ),
            "moderator_removed" => (Code::TwitchModeratorRemoved, "the bot is no longer moderator"),
            "chat_user_banned" => (Code::TwitchChatUserBanned, "the bot is banned from the chat"),
            _ => (Code::TwitchSubscriptionRevoked, "Twitch ended it"),
        };
        Self { status, code, reason }
    }

    /// How long to wait before it is requested again. One that needs attention is retried occasionally; the others may be
    /// transient.
    pub(in super::super) fn again_after(&self) -> Millis {
        if self.is_lasting() { 30 * 60_000 } else { 60_000 }
    }

    /// Whether it is permanent until someone acts on it.
    pub(in super::super) fn is_lasting(&self) -> bool {
        self.code != Code::TwitchSubscriptionRevoked
    }
}
