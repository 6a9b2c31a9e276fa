//! A connection's subscriptions: which are desired, accepted, refused, listed and revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{debug, warn};

use super::super::kinds::Subscription;
use super::super::machine::{Failure, Input, Millis, PERMANENT_FAILURE_BACKOFF};
use super::super::rest::{self, Bill, Created};
use super::super::subscription_set::{COST, TOO_MANY_SOCKETS, Verdict, is_no_failure};
use super::super::wire::SubscriptionInfo;
use super::reporting::source_of;
use super::{COMPARE, Connection, LinkReport, Work};
use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, Fact, LinkState};
use crate::core::source::PlatformName;
use crate::platforms::{PlatformError, Probe, ProbeSet};

impl Connection {
    /// Applies the subscriptions that are desired now.
    pub(super) fn desire(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let now = self.now();
        let sources: BTreeSet<_> = wanted
            .iter()
            .filter(|subscription| subscription.kind.is_of_stream())
            .filter_map(source_of)
            .collect();
        self.subscriptions.desire(wanted, now);
        let gone: Vec<_> = self
            .link_reports
            .keys()
            .filter(|source| !sources.contains(*source))
            .cloned()
            .collect();
        for source in gone {
            if self.link_reports.remove(&source) != Some(LinkReport::Nothing) {
                self.report_link(&source, LinkState::Closed, self.twitch_now());
            }
            self.cx
                .hub
                .missed_events(|missed_events| missed_events.uncovered(&source));
        }
        for source in sources {
            self.link_reports.entry(source).or_insert(LinkReport::Nothing);
        }
        self.expect(now);
        self.dirty = true;
    }

    pub(super) fn create_due(&mut self) {
        let Some(session) = self.state.session().map(|session| session.id.clone()) else {
            return;
        };
        for subscription in self.subscriptions.take_due(self.now()) {
            let (cx, identity, session) = (self.cx.clone(), self.identity.clone(), session.clone());
            self.works.push(Box::pin(async move {
                let created = rest::create(&cx.twitch, &identity, &session, &subscription).await;
                Work::Created(session, subscription, created)
            }));
        }
    }

    pub(super) fn delete_surplus(&mut self) {
        for id in self.subscriptions.take_surplus() {
            let (cx, identity) = (self.cx.clone(), self.identity.clone());
            self.works.push(Box::pin(async move {
                Work::Deleted(rest::delete(&cx.twitch, &identity, &id).await)
            }));
        }
    }

    pub(super) fn created(&mut self, session: &str, subscription: &Subscription, created: Created) {
        self.dirty = true;
        let current = self.state.session().map(|current| current.id.clone());
        let ours = self.sessions.iter().any(|known| known == session);
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
            Verdict::Accepted => {
                self.step(Input::Accepted(session));
                self.received(subscription);
            }
            Verdict::Waiting => {
                self.note_delay();
                self.leave_if_idle(session);
            }
            Verdict::ProbeRun => {
                self.note_delay();
                self.compare(false);
                self.leave_if_idle(session);
            }
            Verdict::SessionGone => self.step(Input::SessionGone(session)),
            Verdict::NotAccepted { code, reason } => {
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
            Verdict::TooManySockets(reason) => {
                let failure = Failure::passing(TOO_MANY_SOCKETS, reason);
                self.nothing_accepted(session, failure, PERMANENT_FAILURE_BACKOFF);
            }
            Verdict::Unauthorized(reason) => {
                let failure = Failure {
                    code: Code::Unauthorized(PlatformName::Twitch),
                    reason,
                    refused: true,
                };
                self.request_token_check();
                self.nothing_accepted(session, failure, PERMANENT_FAILURE_BACKOFF);
            }
        }
    }

    /// Records why nothing is accepted on a session, which is more specific than that an earlier one was lost.
    fn note_delay(&mut self) {
        if let Some(delay) = self.subscriptions.delayed().filter(|_| !self.state.is_up()) {
            self.last_error = Some(ErrorInfo::new(delay.code, &delay.reason));
        }
    }

    pub(super) fn nothing_accepted(&mut self, session: String, failure: Failure, backoff: Millis) {
        self.step(Input::NothingAccepted {
            session,
            failure,
            backoff,
        });
    }

    /// Twitch ends a session on which no subscription was accepted within ten seconds. If the next attempt is later than that,
    /// the connection backs off until then instead.
    pub(super) fn leave_if_idle(&mut self, session: String) {
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
                Some(delay) if delay.code != COST => Failure::passing(delay.code, &delay.reason),
                _ => Failure::passing(COST, "Twitch's points or places are used up for now"),
            };
            self.nothing_accepted(session, failure, due.saturating_sub(now));
        }
    }

    pub(super) fn settled_for(&self, time: Millis) -> bool {
        self.state.is_up() && self.now().saturating_sub(self.session_since) >= time
    }

    /// Requests Twitch's list. `settled`: subscriptions that count there and are not ours belong to others, not to our earlier
    /// sessions.
    pub(super) fn compare(&mut self, settled: bool) {
        let session = self.state.session().map(|session| session.id.clone());
        self.next_compare = session.is_some().then_some(self.now() + COMPARE);
        if std::mem::replace(&mut self.comparing, true) {
            return;
        }
        let (cx, identity) = (self.cx.clone(), self.identity.clone());
        self.works.push(Box::pin(async move {
            let listed = rest::list(&cx.twitch, &identity).await;
            Work::Listed {
                session,
                settled,
                listed,
            }
        }));
    }

    /// Compares Twitch's list with ours.
    pub(super) fn listed(
        &mut self,
        session: Option<&str>,
        settled: bool,
        listed: Result<(Vec<SubscriptionInfo>, Bill), PlatformError>,
    ) {
        self.comparing = false;
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
        let hub = Arc::clone(&self.cx.hub);
        let ours = |id: &String| self.sessions.contains(id);
        let (mut on_this, mut dead, mut our_cost) = (BTreeMap::new(), Vec::new(), 0);
        for info in &listed {
            let enabled = info.status == "enabled";
            let own = hub.is_own_session(&info.transport.session_id);
            if enabled && own {
                our_cost += info.cost;
            }
            let Some(subscription) = Subscription::from_info(info) else {
                continue;
            };
            if enabled && ours(&info.transport.session_id) {
                on_this.insert(subscription, (info.id.clone(), info.cost));
            } else if !own && self.past_sessions.contains(&info.transport.session_id) {
                // Ours, on a dead session: it counts toward the limits until Twitch removes it.
                dead.push(info.id.clone());
            }
        }
        if let Some(total) = bill.total.filter(|_| settled) {
            hub.record_cost_of_others(total.saturating_sub(our_cost), bill.max);
        }
        let current = self.state.session().map(|session| session.id.as_str());
        let Some(session) = session.filter(|session| current == Some(session)) else {
            return;
        };
        let now = self.now();
        let (received, lost) = self.subscriptions.compare(&on_this, &dead, now);
        self.dirty |= !received.is_empty() || !lost.is_empty();
        if !lost.is_empty() {
            self.expect(now);
        }
        for subscription in received {
            self.step(Input::Accepted(session.to_owned()));
            self.received(&subscription);
        }
        for subscription in lost {
            debug!(
                connection = self.name,
                subscription = subscription.kind.name(),
                "A subscription got lost; making it again"
            );
        }
    }

    /// Handles a subscription that Twitch revoked. `current`: the message came over a socket that is in use.
    pub(super) fn revoked(&mut self, info: &SubscriptionInfo, current: bool) {
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
        let status = info.status.as_str();
        let (code, reason) = revocation(status);
        let name = subscription.kind.name();
        if self.cx.hub.is_new_cause(status, at) {
            warn!(
                source.key = %source, subscription = name, status,
                "Twitch ended {name} of `{source}`: {reason}; others with this cause are logged at debug level"
            );
        } else {
            debug!(source.key = %source, subscription = name, status, "Twitch ended {name} of `{source}`: {reason}");
        }
        // A revocation that needs attention is retried occasionally; the others may be transient.
        let again_after = if is_lasting(status) { 30 * 60_000 } else { 60_000 };
        self.subscriptions
            .revoked(&subscription, code, reason, again_after, now);
        self.cx.hub.failed(&source, subscription.kind, at);
        self.dirty = true;
        let error = ErrorInfo::new(code, format!("{}: {reason}", subscription.kind.name()));
        if subscription.kind.is_of_stream() {
            let state = if is_lasting(status) {
                LinkState::Refused { error }
            } else {
                LinkState::Down { error }
            };
            self.report_link(&source, state, at);
            self.link_reports.insert(source.clone(), LinkReport::Failure);
            self.cx
                .hub
                .missed_events(|missed_events| missed_events.uncovered(&source));
        } else {
            self.cx.hub.observe(&source, at, Fact::Problem { error });
        }
        if status == "chat_user_banned" {
            self.report_ban(&source, true);
        }
        // A probe finds out what it means beyond this subscription.
        let probes: ProbeSet = match status {
            "authorization_revoked" => [Probe::Auth, Probe::Stream].into(),
            "moderator_removed" => [Probe::Permissions].into(),
            _ => [Probe::Connection, Probe::Stream].into(),
        };
        self.cx.hub.missed([source], probes);
    }
}

/// Whether a revocation is permanent until someone acts on it.
fn is_lasting(status: &str) -> bool {
    matches!(
        status,
        "authorization_revoked"
            | "user_removed"
            | "version_removed"
            | "chat_user_banned"
            | "moderator_removed"
    )
}

fn revocation(status: &str) -> (Code, &'static str) {
    match status {
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
    }
}
