//! The desired and actual subscriptions of one session. Pure.
//!
//! They are stored separately: a lost session takes its subscriptions with it, and whatever is desired is created again. What
//! Twitch refuses is not retried for a while instead of being requested in a loop.

use crate::core::code::Code;
use crate::core::source::PlatformName;
use std::collections::{BTreeMap, BTreeSet};

use super::kinds::Subscription;
use super::machine::{Millis, PERMANENT_FAILURE_BACKOFF};
use super::rest::Created;

/// How long a refusal is considered valid.
const REFUSED_FOR: Millis = 10 * 60_000;
/// Maximum number of concurrent creations once the first was accepted. Until then one at a time: if the first is refused, the
/// others need not be tried.
const AT_A_TIME: usize = 10;
/// How long exhausted points or sockets may be in use by our own dead session.
const CROWDED_FOR: [Millis; 3] = [10_000, 25_000, 60_000];

/// *Ours*: the first backoff after a creation that failed temporarily, as long as nothing is accepted; it doubles with each
/// failure.
const FIRST_RETRY: Millis = 1_000;

/// The code for an account that holds too many sockets.
pub(super) const TOO_MANY_SOCKETS: Code = Code::TwitchTooManySockets;
/// The code for a limit whose answer specifies how long it lasts.
const RATE_LIMITED: Code = Code::RateLimited(PlatformName::Twitch);
/// The code for a refusal because of the cost limit.
pub(super) const COST: Code = Code::TwitchSubscriptionLimit;
/// The code for a refusal because a similar subscription exists that is not in the list of this session.
const CONFLICT: Code = Code::TwitchDuplicateSubscription;

/// Returns whether a refusal is no failure of the channel: such a channel is polled, and nothing is claimed.
pub(super) fn is_no_failure(code: Code) -> bool {
    [COST, CONFLICT, Code::TwitchSubscriptionWithdrawn].contains(&code)
}

/// The state of one desired subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stand {
    /// To be created at this time.
    Due { from: Millis, tries: usize },
    /// Being created. A refusal says nothing about a token that has changed since.
    Creating { tries: usize, token_changed: bool },
    /// Accepted.
    Enabled { id: String, cost: u32 },
    /// Refused; to be retried later.
    Refused {
        code: Code,
        reason: String,
        until: Millis,
    },
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CreateOutcome {
    Accepted,
    /// Still pending.
    Waiting,
    NotAccepted {
        code: Code,
        reason: String,
    },
    /// The list must be compared: something exists already, or a dead subscription is in the way.
    CompareList,
    /// The session no longer exists.
    SessionGone,
    /// The account holds too many sockets.
    TooManySockets(String),
    /// The token is not valid, for this or any other subscription.
    Unauthorized(String),
}

#[derive(Debug, Default)]
pub(super) struct SubscriptionSet {
    /// In order of priority.
    order: Vec<Subscription>,
    stands: BTreeMap<Subscription, Stand>,
    /// Exist at Twitch and are no longer desired: ids to be deleted.
    surplus: BTreeSet<String>,
    /// Why Twitch last delayed a subscription.
    delayed: Option<Delay>,
}

/// Why a subscription is not accepted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delay {
    pub(super) code: Code,
    pub(super) reason: String,
}

impl SubscriptionSet {
    /// Sets what is desired. Accepted subscriptions stay; those that are no longer desired become surplus.
    pub(super) fn desire(&mut self, wanted: Vec<Subscription>, now: Millis) {
        let set: BTreeSet<_> = wanted.iter().cloned().collect();
        for (subscription, stand) in &self.stands {
            if let (false, Stand::Enabled { id, .. }) = (set.contains(subscription), stand) {
                self.surplus.insert(id.clone());
            }
        }
        self.stands.retain(|subscription, _| set.contains(subscription));
        for subscription in &wanted {
            self.stands
                .entry(subscription.clone())
                .or_insert(Stand::Due { from: now, tries: 0 });
        }
        self.order = wanted;
    }

    /// Starts over on a new session without subscriptions. Refusals remain until they expire, unless there is nothing else to
    /// request; subscriptions that wait for points or sockets continue to wait.
    pub(super) fn start_over(&mut self, now: Millis) {
        self.surplus.clear();
        let nothing_else = self.all_refused().is_some();
        for stand in self.stands.values_mut() {
            *stand = match stand {
                Stand::Refused { .. } if !nothing_else => continue,
                Stand::Due { from, tries } => Stand::Due {
                    from: now.max(*from),
                    tries: *tries,
                },
                _ => Stand::Due { from: now, tries: 0 },
            };
        }
    }

    /// Returns when the next creation is due, if none is in progress.
    pub(super) fn idle_until(&self) -> Option<Millis> {
        let creating = self.count(|stand| matches!(stand, Stand::Creating { .. })) > 0;
        self.deadline().filter(|_| !creating)
    }

    /// Takes what is to be created now.
    pub(super) fn take_due(&mut self, now: Millis) -> Vec<Subscription> {
        let creating = self.count(|stand| matches!(stand, Stand::Creating { .. }));
        let proven = self.is_proven();
        let places = if proven { AT_A_TIME } else { 1 }.saturating_sub(creating);
        let mut taken = Vec::new();
        for subscription in &self.order {
            if taken.len() == places {
                break;
            }
            let Some(stand) = self.stands.get_mut(subscription) else {
                continue;
            };
            let tries = match stand {
                Stand::Due { from, tries } if *from <= now => *tries,
                Stand::Refused { until, .. } if *until <= now => 0,
                _ => continue,
            };
            *stand = Stand::Creating {
                tries,
                token_changed: false,
            };
            taken.push(subscription.clone());
        }
        taken
    }

    /// Takes the ids to be deleted now.
    pub(super) fn take_surplus(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.surplus)
    }

    /// Applies the result of a creation.
    pub(super) fn created(
        &mut self,
        subscription: &Subscription,
        created: Created,
        now: Millis,
    ) -> CreateOutcome {
        let proven = self.is_proven();
        let Some(stand) = self.stands.get_mut(subscription) else {
            // It is no longer desired since the creation started.
            if let Created::Enabled { id, .. } = created {
                self.surplus.insert(id);
            }
            return CreateOutcome::Waiting;
        };
        let tries = match stand {
            Stand::Creating {
                token_changed: true, ..
            } if matches!(created, Created::Refused { .. } | Created::Unauthorized { .. }) => {
                *stand = Stand::Due { from: now, tries: 0 };
                return CreateOutcome::Waiting;
            }
            Stand::Creating { tries, .. } => *tries,
            // An answer for a session that no longer exists.
            _ => return CreateOutcome::Waiting,
        };
        let due_in = |wait: Millis| Stand::Due {
            from: now + wait,
            tries: tries + 1,
        };
        let backoff = FIRST_RETRY
            .saturating_mul(1 << tries.min(10))
            .min(PERMANENT_FAILURE_BACKOFF);
        let because = |code: Code, reason: &str| {
            Some(Delay {
                code,
                reason: reason.to_owned(),
            })
        };
        match &created {
            Created::Later { code, reason, .. } => self.delayed = because(*code, reason),
            Created::Unclear { reason } => {
                self.delayed = because(Code::Unreadable(PlatformName::Twitch), reason);
            }
            Created::Crowded { reason, sockets } => {
                self.delayed = because(if *sockets { TOO_MANY_SOCKETS } else { COST }, reason);
            }
            Created::Enabled { .. } | Created::CostExceeded => self.delayed = None,
            _ => {}
        }
        let refused = |code: Code, reason: String| Stand::Refused {
            code,
            reason,
            until: now + REFUSED_FOR,
        };
        let for_now = matches!(created, Created::Later { .. } | Created::Unclear { .. });
        let (next, verdict) = match created {
            Created::Enabled { id, cost, .. } => (Stand::Enabled { id, cost }, CreateOutcome::Accepted),
            Created::Refused { code, reason } => (
                refused(code, reason.clone()),
                CreateOutcome::NotAccepted { code, reason },
            ),
            Created::Exists { .. } if tries < 2 => (due_in(1_000), CreateOutcome::CompareList),
            Created::Exists { .. } => {
                not_accepted(CONFLICT, "duplicate subscription of another connection", refused)
            }
            Created::CostExceeded | Created::Crowded { sockets: false, .. } => match CROWDED_FOR.get(tries) {
                Some(wait) => (due_in(*wait), CreateOutcome::CompareList),
                None => not_accepted(COST, "Twitch's points or places for it are used up", refused),
            },
            Created::Crowded { reason, .. } => (
                due_in(PERMANENT_FAILURE_BACKOFF),
                CreateOutcome::TooManySockets(reason),
            ),
            Created::Unclear { .. } if tries < 2 => (due_in(backoff), CreateOutcome::CompareList),
            Created::Unclear { .. } => (due_in(backoff), CreateOutcome::Waiting),
            Created::Later { after, code, .. } => {
                let asked = u64::try_from(after.as_millis()).unwrap_or(REFUSED_FOR);
                let asked = asked.clamp(250, PERMANENT_FAILURE_BACKOFF);
                // A rate limit specifies how long it lasts. Other failures are retried with a backoff: as long as nothing is
                // accepted, the session has ten seconds.
                let wait = if proven || code == RATE_LIMITED {
                    asked
                } else {
                    backoff
                };
                (due_in(wait), CreateOutcome::Waiting)
            }
            Created::SessionGone => (due_in(0), CreateOutcome::SessionGone),
            Created::Unauthorized { reason } => (
                due_in(PERMANENT_FAILURE_BACKOFF),
                CreateOutcome::Unauthorized(reason),
            ),
        };
        let failed_for_now = for_now && !proven;
        let until = match &next {
            Stand::Due { from, .. } if failed_for_now => Some(*from),
            _ => None,
        };
        *stand = next;
        // What prevents the creation of the first one prevents the others as well.
        if let Some(until) = until {
            for stand in self.stands.values_mut() {
                if let Stand::Due { from, .. } = stand {
                    *from = until.max(*from);
                }
            }
        }
        verdict
    }

    /// Applies Twitch's list of this session, by id. Returns what is newly accepted and what is no longer accepted.
    pub(super) fn compare(
        &mut self,
        listed: &BTreeMap<Subscription, (String, u32)>,
        foreign_ids: &[String],
        now: Millis,
    ) -> (Vec<Subscription>, Vec<Subscription>) {
        let (mut incoming, mut lost) = (Vec::new(), Vec::new());
        for (subscription, stand) in &mut self.stands {
            match (listed.get(subscription), &*stand) {
                (Some((id, cost)), Stand::Due { .. } | Stand::Refused { .. }) => {
                    *stand = Stand::Enabled {
                        id: id.clone(),
                        cost: *cost,
                    };
                    incoming.push(subscription.clone());
                }
                (None, Stand::Enabled { .. }) => {
                    *stand = Stand::Due { from: now, tries: 0 };
                    lost.push(subscription.clone());
                }
                _ => {}
            }
        }
        let unwanted = listed
            .iter()
            .filter(|(subscription, _)| !self.stands.contains_key(subscription))
            .map(|(_, (id, _))| id);
        self.surplus.extend(unwanted.chain(foreign_ids).cloned());
        (incoming, lost)
    }

    /// Twitch revoked the subscription with this id, which may be requested again after a while. Returns `false` if another one has
    /// replaced it: a message that arrives late says nothing about that one.
    pub(super) fn revoked(
        &mut self,
        subscription: &Subscription,
        revoked_id: &str,
        code: Code,
        reason: &str,
        again_after: Millis,
        now: Millis,
    ) -> bool {
        let Some(stand) = self.stands.get_mut(subscription) else {
            return true;
        };
        if matches!(stand, Stand::Enabled { id, .. } if id != revoked_id) {
            return false;
        }
        *stand = Stand::Refused {
            code,
            reason: reason.to_owned(),
            until: now + again_after,
        };
        true
    }

    /// A token has changed: whatever was refused with the old one is due again.
    pub(super) fn retry_refused(&mut self, now: Millis) {
        for stand in self.stands.values_mut() {
            match stand {
                Stand::Refused { until, .. } => *until = now.min(*until),
                Stand::Creating { token_changed, .. } => *token_changed = true,
                Stand::Due { .. } | Stand::Enabled { .. } => {}
            }
        }
    }

    /// Something was deleted: subscriptions that wait for points or sockets may now succeed.
    pub(super) fn capacity_freed(&mut self, now: Millis) {
        for stand in self.stands.values_mut() {
            if let Stand::Due { from, tries: 1.. } = stand {
                *from = now.min(*from);
            }
        }
    }

    /// Recreates the subscriptions of a channel: the existing ones become surplus.
    pub(super) fn renew(&mut self, channel: &str, now: Millis) {
        for (subscription, stand) in &mut self.stands {
            if subscription.channel != channel {
                continue;
            }
            if let Stand::Enabled { id, .. } = stand {
                self.surplus.insert(id.clone());
                *stand = Stand::Due { from: now, tries: 0 };
            }
        }
    }

    /// Returns when something becomes due.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.stands
            .values()
            .filter_map(|stand| match stand {
                Stand::Due { from, .. } => Some(*from),
                Stand::Refused { until, .. } => Some(*until),
                _ => None,
            })
            .min()
    }

    /// Returns whether everything desired is accepted or refused.
    pub(super) fn is_complete(&self) -> bool {
        self.count(|stand| matches!(stand, Stand::Due { .. } | Stand::Creating { .. })) == 0
    }

    /// Returns the first refusal when everything desired is refused.
    pub(super) fn all_refused(&self) -> Option<(Code, String)> {
        let refusals: Option<Vec<_>> = self
            .order
            .iter()
            .map(|subscription| match self.stands.get(subscription) {
                Some(Stand::Refused { code, reason, .. }) => Some((*code, reason.clone())),
                _ => None,
            })
            .collect();
        refusals.and_then(|refusals| refusals.into_iter().next())
    }

    /// Returns whether a channel's streams are covered: both starts and ends.
    pub(super) fn coverage(&self, channel: &str) -> Coverage {
        let of_stream = self
            .stands
            .iter()
            .filter(|(one, _)| one.channel == channel && one.kind.is_of_stream());
        let mut coverage = Coverage::Whole;
        for (_, stand) in of_stream {
            match stand {
                Stand::Refused { .. } => return Coverage::Refused,
                Stand::Due { .. } | Stand::Creating { .. } => coverage = Coverage::Pending,
                Stand::Enabled { .. } => {}
            }
        }
        coverage
    }

    /// Returns whether Twitch has a subscription of ours with this id.
    pub(super) fn knows(&self, wanted: &str) -> bool {
        let mut stands = self.stands.values();
        stands.any(|stand| matches!(stand, Stand::Enabled { id, .. } if id == wanted))
    }

    /// Returns why Twitch last delayed a subscription, if it gave a reason.
    pub(super) fn delayed(&self) -> Option<&Delay> {
        self.delayed.as_ref()
    }

    /// Returns every desired subscription with its state, in order of priority.
    pub(super) fn stands(&self) -> impl Iterator<Item = (&Subscription, &Stand)> {
        self.order
            .iter()
            .filter_map(|subscription| Some((subscription, self.stands.get(subscription)?)))
    }

    fn is_proven(&self) -> bool {
        self.count(|stand| matches!(stand, Stand::Enabled { .. })) > 0
    }

    fn count(&self, chosen: impl Fn(&Stand) -> bool) -> usize {
        self.stands.values().filter(|stand| chosen(stand)).count()
    }
}

/// Whether a channel's streams are covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// Starts and ends.
    Whole,
    /// Something is not accepted yet.
    Pending,
    /// Something was refused.
    Refused,
}

fn not_accepted(code: Code, reason: &str, refused: impl Fn(Code, String) -> Stand) -> (Stand, CreateOutcome) {
    let reason = reason.to_owned();
    (
        refused(code, reason.clone()),
        CreateOutcome::NotAccepted { code, reason },
    )
}

#[cfg(test)]
mod tests;
