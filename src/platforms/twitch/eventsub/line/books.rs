//! A line's books: what is wanted of Twitch, what it accepted, refused, lists and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{debug, warn};

use super::super::kinds::Subscription;
use super::super::machine::{HOPELESS_PAUSE, Input, Millis, Trouble};
use super::super::rest::{self, Bill, Created};
use super::super::roster::{COST, Verdict, is_no_trouble};
use super::super::wire::Told;
use super::voice::source_of;
use super::{COMPARE, Line, Telling, Work};
use crate::core::observation::{ErrorInfo, Fact, LinkState};
use crate::platforms::{PlatformError, Probe, ProbeSet};

impl Line {
    /// Takes in what is wanted now.
    pub(super) fn desire(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let now = self.now();
        let sources: BTreeSet<_> = wanted
            .iter()
            .filter(|subscription| subscription.kind.is_of_stream())
            .filter_map(source_of)
            .collect();
        self.roster.desire(wanted, now);
        let gone: Vec<_> = self
            .told
            .keys()
            .filter(|source| !sources.contains(*source))
            .cloned()
            .collect();
        for source in gone {
            if self.told.remove(&source) != Some(Telling::Nothing) {
                self.tell_link(&source, LinkState::Closed, self.twitch_now());
            }
            self.around.hub.silence(|silence| silence.deaf(&source));
        }
        for source in sources {
            self.told.entry(source).or_insert(Telling::Nothing);
        }
        self.expect(now);
        self.dirty = true;
    }

    pub(super) fn create_due(&mut self) {
        let Some(session) = self.state.session().map(|session| session.id.clone()) else {
            return;
        };
        for subscription in self.roster.take_due(self.now()) {
            let (around, identity, session) = (self.around.clone(), self.identity.clone(), session.clone());
            self.works.push(Box::pin(async move {
                let created = rest::create(&around.twitch, &identity, &session, &subscription).await;
                Work::Created(session, subscription, created)
            }));
        }
    }

    pub(super) fn delete_surplus(&mut self) {
        for id in self.roster.take_surplus() {
            let (around, identity) = (self.around.clone(), self.identity.clone());
            self.works.push(Box::pin(async move {
                Work::Deleted(rest::delete(&around.twitch, &identity, &id).await)
            }));
        }
    }

    pub(super) fn created(&mut self, session: &str, subscription: &Subscription, created: Created) {
        self.dirty = true;
        let current = self.state.session().map(|current| current.id.clone());
        let ours = self.sessions.iter().any(|known| known == session);
        let Some(session) = current.filter(|_| ours) else {
            // Made on a session that is gone, and gone with it.
            return;
        };
        // Where a move was faster, it has moved along; the list that is asked for after a move knows better.
        if let Created::Enabled { cost, bill, .. } = &created {
            self.around.hub.learn_cost(subscription, *cost, *bill);
        }
        let now = self.now();
        match self.roster.created(subscription, created, now) {
            Verdict::Heard => {
                self.step(Input::Accepted(session));
                self.heard(subscription);
            }
            Verdict::Waiting => self.leave_if_idle(session),
            Verdict::Look => {
                self.compare(false);
                self.leave_if_idle(session);
            }
            Verdict::SessionGone => self.step(Input::SessionGone(session)),
            Verdict::NotHeard { code, reason } => {
                self.not_heard(subscription, &code, &reason);
                if let Some((code, reason)) = self.roster.all_refused() {
                    let refused = !is_no_trouble(&code);
                    let trouble = Trouble {
                        code,
                        reason,
                        refused,
                    };
                    self.nothing_accepted(session, trouble, HOPELESS_PAUSE);
                }
            }
            Verdict::TooManySockets(reason) => {
                let trouble = Trouble::passing("twitch.eventsub.too_many_sockets", reason);
                self.nothing_accepted(session, trouble, HOPELESS_PAUSE);
            }
            Verdict::Unauthorized(reason) => {
                let trouble = Trouble {
                    code: "twitch.unauthorized".to_owned(),
                    reason,
                    refused: true,
                };
                self.ask_about_authorisation();
                self.nothing_accepted(session, trouble, HOPELESS_PAUSE);
            }
        }
    }

    pub(super) fn nothing_accepted(&mut self, session: String, trouble: Trouble, pause: Millis) {
        self.step(Input::NothingAccepted {
            session,
            trouble,
            pause,
        });
    }

    /// Twitch ends a session that nothing was accepted on within ten seconds. Where the next try is later than that, the
    /// line rests until then instead.
    pub(super) fn leave_if_idle(&mut self, session: String) {
        let now = self.now();
        let unused_at = self
            .state
            .session()
            .filter(|session| !session.proven)
            .map(|session| session.unused_at);
        if let (Some(unused_at), Some(due)) = (unused_at, self.roster.idle_until())
            && due + 1_000 > unused_at
        {
            let trouble = Trouble::passing(COST, "Twitch's points or places are used up for now");
            self.nothing_accepted(session, trouble, due.saturating_sub(now));
        }
    }

    pub(super) fn settled_for(&self, time: Millis) -> bool {
        self.state.is_up() && self.now().saturating_sub(self.session_since) >= time
    }

    /// Asks for Twitch's list. `settled`: whatever counts there and is not ours is of others, and not of our own past.
    pub(super) fn compare(&mut self, settled: bool) {
        let session = self.state.session().map(|session| session.id.clone());
        self.next_compare = session.is_some().then_some(self.now() + COMPARE);
        if std::mem::replace(&mut self.comparing, true) {
            return;
        }
        let (around, identity) = (self.around.clone(), self.identity.clone());
        self.works.push(Box::pin(async move {
            let listed = rest::list(&around.twitch, &identity).await;
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
        listed: Result<(Vec<Told>, Bill), PlatformError>,
    ) {
        self.comparing = false;
        let (listed, bill) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                debug!(
                    line = self.name,
                    error = &error as &dyn std::error::Error,
                    "The subscriptions cannot be listed"
                );
                return;
            }
        };
        let hub = Arc::clone(&self.around.hub);
        let ours = |id: &String| self.sessions.contains(id);
        let (mut on_this, mut dead, mut our_cost) = (BTreeMap::new(), Vec::new(), 0);
        for told in &listed {
            let enabled = told.status == "enabled";
            let own = hub.is_own_session(&told.transport.session_id);
            if enabled && own {
                our_cost += told.cost;
            }
            let Some(subscription) = Subscription::told(told) else {
                continue;
            };
            if enabled && ours(&told.transport.session_id) {
                on_this.insert(subscription, (told.id.clone(), told.cost));
            } else if !own && self.past_sessions.contains(&told.transport.session_id) {
                // Ours, on a session that is dead: it still counts until it is gone.
                dead.push(told.id.clone());
            }
        }
        if let Some(total) = bill.total.filter(|_| settled) {
            hub.learn_others(total.saturating_sub(our_cost), bill.max);
        }
        let current = self.state.session().map(|session| session.id.as_str());
        let Some(session) = session.filter(|session| current == Some(session)) else {
            return;
        };
        let now = self.now();
        let (heard, lost) = self.roster.compare(&on_this, &dead, now);
        self.dirty |= !heard.is_empty() || !lost.is_empty();
        if !lost.is_empty() {
            self.expect(now);
        }
        for subscription in heard {
            self.step(Input::Accepted(session.to_owned()));
            self.heard(&subscription);
        }
        for subscription in lost {
            debug!(
                line = self.name,
                subscription = subscription.kind.name(),
                "A subscription got lost; making it again"
            );
        }
    }

    /// Twitch ended a subscription. `current`: it said so on a socket that we use.
    pub(super) fn revoked(&mut self, told: &Told, current: bool) {
        if !current && !self.roster.knows(&told.id) {
            // The end of something on a session that we have left.
            return;
        }
        let Some(subscription) = Subscription::told(told) else {
            return self.around.hub.unknown();
        };
        let Some(source) = source_of(&subscription) else {
            return;
        };
        let (now, at) = (self.now(), self.twitch_now());
        let status = told.status.as_str();
        let code = format!("twitch.eventsub.{}", plain(status));
        let reason = revocation_reason(status);
        warn!(
            source.key = %source, subscription = subscription.kind.name(), status,
            "Twitch ended {} of `{source}`: {reason}", subscription.kind.name()
        );
        // What a person must mend is tried again now and then; the rest may heal by itself.
        let again_after = if is_lasting(status) { 30 * 60_000 } else { 60_000 };
        self.roster
            .revoked(&subscription, &code, reason, again_after, now);
        self.around.hub.failed(&source, subscription.kind, at);
        self.dirty = true;
        let error = ErrorInfo::new(&code, format!("{}: {reason}", subscription.kind.name()));
        if subscription.kind.is_of_stream() {
            let state = if is_lasting(status) {
                LinkState::Refused { error }
            } else {
                LinkState::Down { error }
            };
            self.tell_link(&source, state, at);
            self.told.insert(source.clone(), Telling::Trouble);
            self.around.hub.silence(|silence| silence.deaf(&source));
        } else {
            self.around.hub.observe(&source, at, Fact::Problem { error });
        }
        if status == "chat_user_banned" {
            self.tell_ban(&source, true);
        }
        // What it means beyond this subscription is for a look to find out.
        let probes: ProbeSet = match status {
            "authorization_revoked" => [Probe::Auth, Probe::Stream].into(),
            "moderator_removed" => [Probe::Permissions].into(),
            _ => [Probe::Connection, Probe::Stream].into(),
        };
        self.around.hub.missed([source], probes);
    }
}

/// Whether a revocation is for good until a person acts.
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

fn revocation_reason(status: &str) -> &'static str {
    match status {
        "authorization_revoked" => "the authorisation was withdrawn, or the password changed",
        "user_removed" => "the user no longer exists",
        "version_removed" => "Twitch no longer offers it in this version",
        "moderator_removed" => "the bot is no longer moderator",
        "chat_user_banned" => "the bot is banned from the chat",
        _ => "Twitch ended it",
    }
}

/// A status as part of a code: letters, digits and underscores.
fn plain(status: &str) -> String {
    let plain: String = status
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .take(40)
        .collect();
    if plain.is_empty() {
        "ended".to_owned()
    } else {
        plain
    }
}
