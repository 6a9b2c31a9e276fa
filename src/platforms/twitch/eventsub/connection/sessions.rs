//! The sessions of a connection: which subscriptions in Twitch's list are its own, and when that list is requested.

use std::collections::BTreeMap;

use super::super::hub::Hub;
use super::super::kinds::Subscription;
use super::super::machine::Millis;
use super::super::messages::SubscriptionInfo;

/// How often Twitch's list of subscriptions is compared with ours.
const COMPARE: Millis = 10 * 60_000;
/// After a move to another socket the list is compared soon: nothing else reports subscriptions that were lost in the move.
const COMPARE_AFTER_MOVE: Millis = 15_000;
/// A session of this age has outlived all leftovers of its predecessor at Twitch.
const ENTRY_LIFETIME: Millis = 120_000;
/// Number of sessions remembered. Twitch removes dead ones within minutes.
const MAX_REMEMBERED: usize = 20;

#[derive(Default)]
pub(super) struct Sessions {
    /// The session, and those that it moved from, oldest first. Empty while there is none.
    current: Vec<String>,
    past: Vec<String>,
    since: Millis,
    next_compare: Option<Millis>,
    comparing: bool,
}

/// The subscriptions of a list that belong to a connection.
#[derive(Default)]
pub(super) struct OwnSubscriptions {
    /// Those on the current session: id and cost.
    pub(super) current: BTreeMap<Subscription, (String, u32)>,
    /// Ids of those on dead sessions. They count toward the limits until Twitch removes them.
    pub(super) dead: Vec<String>,
    /// The cost of all that belong to this program.
    pub(super) cost: u32,
}

impl Sessions {
    /// Begins a session without a predecessor.
    pub(super) fn begin(&mut self, session: &str, now: Millis) {
        self.current.clear();
        self.add(session, now);
        self.next_compare = Some(now + COMPARE);
    }

    /// Records that the session has moved and goes on as `session`.
    pub(super) fn moved_to(&mut self, session: &str, now: Millis) {
        self.add(session, now);
        self.next_compare = Some(now + COMPARE_AFTER_MOVE);
    }

    fn add(&mut self, session: &str, now: Millis) {
        for sessions in [&mut self.current, &mut self.past] {
            sessions.retain(|known| *known != session);
            if sessions.len() == MAX_REMEMBERED {
                sessions.remove(0);
            }
            sessions.push(session.to_owned());
        }
        self.since = now;
    }

    /// Records that the session is lost.
    pub(super) fn end(&mut self) {
        self.current.clear();
        self.comparing = false;
        self.next_compare = None;
    }

    pub(super) fn current(&self) -> &[String] {
        &self.current
    }

    pub(super) fn is_current(&self, session: &str) -> bool {
        self.current.iter().any(|known| known == session)
    }

    /// Whether subscriptions that count at Twitch and are not ours belong to others, not to our earlier sessions.
    pub(super) fn has_outlasted_earlier(&self, now: Millis) -> bool {
        now.saturating_sub(self.since) >= ENTRY_LIFETIME
    }

    /// When the list is to be requested.
    pub(super) fn next_compare(&self) -> Option<Millis> {
        self.next_compare
    }

    /// Returns whether to request the list now: not while it is being requested.
    pub(super) fn begin_compare(&mut self, in_session: bool, now: Millis) -> bool {
        self.next_compare = in_session.then_some(now + COMPARE);
        !std::mem::replace(&mut self.comparing, true)
    }

    pub(super) fn end_compare(&mut self) {
        self.comparing = false;
    }

    /// Finds our subscriptions in Twitch's list.
    pub(super) fn own(&self, listed: &[SubscriptionInfo], hub: &Hub) -> OwnSubscriptions {
        let mut own = OwnSubscriptions::default();
        for info in listed {
            let session = &info.transport.session_id;
            let enabled = info.status == "enabled";
            let is_own = hub.is_own_session(session);
            if enabled && is_own {
                own.cost += info.cost;
            }
            let Some(subscription) = Subscription::from_info(info) else {
                continue;
            };
            if enabled && self.is_current(session) {
                own.current.insert(subscription, (info.id.clone(), info.cost));
            } else if !is_own && self.past.contains(session) {
                own.dead.push(info.id.clone());
            }
        }
        own
    }
}
