//! What one session should hear and what it does hear. Pure.
//!
//! The desired and the actual are kept apart: a lost session takes its subscriptions with it, and whatever is desired is
//! made again. What Twitch refuses is left alone for a while instead of being asked for in a loop.

use std::collections::{BTreeMap, BTreeSet};

use super::kinds::Subscription;
use super::machine::{HOPELESS_PAUSE, Millis};
use super::rest::Created;

/// How long a refusal is believed.
const REFUSED_FOR: Millis = 10 * 60_000;
/// Creations under way at most, once the first was accepted. Until then one at a time: should the first be refused, the
/// others need not be tried.
const AT_A_TIME: usize = 10;
/// How long points or places that are taken may be those of our own dead session.
const CROWDED_FOR: [Millis; 3] = [10_000, 25_000, 60_000];

/// The code of a refusal for want of points.
pub(super) const COST: &str = "twitch.eventsub.cost";
/// The code of a refusal because something like it exists, which the list does not show on this session.
const CONFLICT: &str = "twitch.eventsub.conflict";

/// Returns whether a refusal is no trouble of the channel's: such a channel is polled, and nothing is claimed.
pub(super) fn is_no_trouble(code: &str) -> bool {
    [COST, CONFLICT, "twitch.eventsub.withdrawn"].contains(&code)
}

/// How one desired subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stand {
    /// To be created, once this moment has come.
    Due { from: Millis, tries: usize },
    /// Being created.
    Creating { tries: usize },
    /// Heard.
    Enabled { id: String, cost: u32 },
    /// Refused; to be tried again some day.
    Refused {
        code: String,
        reason: String,
        until: Millis,
    },
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is heard now.
    Heard,
    /// Not yet.
    Waiting,
    /// It is not heard, and here is why.
    NotHeard { code: String, reason: String },
    /// The list must tell: something exists already, or something dead is in the way.
    Look,
    /// The session is gone.
    SessionGone,
    /// The account holds too many sockets.
    TooManySockets(String),
    /// The token is not good, for this or any other subscription.
    Unauthorized(String),
}

/// One session's subscriptions.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// In the order in which they are wanted.
    order: Vec<Subscription>,
    stands: BTreeMap<Subscription, Stand>,
    /// Known to Twitch and no longer wanted: ids to be deleted.
    surplus: BTreeSet<String>,
    /// Why Twitch last took its time.
    delayed: Option<String>,
}

impl Roster {
    /// Sets what is desired. What is heard already stays; what is no longer desired becomes surplus.
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

    /// Starts over on a fresh session: nothing is heard. Refusals stay refusals until their time is over, unless there is
    /// nothing else to ask for; and what was to wait for points or places waits on.
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

    /// Returns when the next creation is due, if none is under way.
    pub(super) fn idle_until(&self) -> Option<Millis> {
        let creating = self.count(|stand| matches!(stand, Stand::Creating { .. })) > 0;
        self.deadline().filter(|_| !creating)
    }

    /// Takes what is to be created now.
    pub(super) fn take_due(&mut self, now: Millis) -> Vec<Subscription> {
        let creating = self.count(|stand| matches!(stand, Stand::Creating { .. }));
        let proven = self.count(|stand| matches!(stand, Stand::Enabled { .. })) > 0;
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
            *stand = Stand::Creating { tries };
            taken.push(subscription.clone());
        }
        taken
    }

    /// Takes the ids to be deleted now.
    pub(super) fn take_surplus(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.surplus)
    }

    /// Notes what came of a creation.
    pub(super) fn created(&mut self, subscription: &Subscription, created: Created, now: Millis) -> Verdict {
        let Some(stand) = self.stands.get_mut(subscription) else {
            // No longer wanted while it was being created.
            if let Created::Enabled { id, .. } = created {
                self.surplus.insert(id);
            }
            return Verdict::Waiting;
        };
        let tries = match stand {
            Stand::Creating { tries } => *tries,
            // An answer for a session that is gone.
            _ => return Verdict::Waiting,
        };
        let due_in = |wait: Millis| Stand::Due {
            from: now + wait,
            tries: tries + 1,
        };
        match &created {
            Created::Later { reason, .. } | Created::Crowded { reason, .. } => {
                self.delayed = Some(reason.clone());
            }
            Created::Enabled { .. } => self.delayed = None,
            _ => {}
        }
        let refused = |code: String, reason: String| Stand::Refused {
            code,
            reason,
            until: now + REFUSED_FOR,
        };
        let (next, verdict) = match created {
            Created::Enabled { id, cost, .. } => (Stand::Enabled { id, cost }, Verdict::Heard),
            Created::Refused { code, reason } => (
                refused(code.clone(), reason.clone()),
                Verdict::NotHeard { code, reason },
            ),
            Created::Exists if tries < 2 => (due_in(1_000), Verdict::Look),
            Created::Exists => not_heard(
                CONFLICT,
                "Twitch says that it exists, but not on this session",
                refused,
            ),
            Created::CostExceeded | Created::Crowded { sockets: false, .. } => match CROWDED_FOR.get(tries) {
                Some(wait) => (due_in(*wait), Verdict::Look),
                None => not_heard(COST, "Twitch's points or places for it are used up", refused),
            },
            Created::Crowded { reason, .. } => (due_in(HOPELESS_PAUSE), Verdict::TooManySockets(reason)),
            Created::Later { after, .. } => {
                let wait = u64::try_from(after.as_millis()).unwrap_or(REFUSED_FOR);
                (due_in(wait.clamp(250, 60_000)), Verdict::Waiting)
            }
            Created::SessionGone => (due_in(0), Verdict::SessionGone),
            Created::Unauthorized { reason } => (due_in(HOPELESS_PAUSE), Verdict::Unauthorized(reason)),
        };
        *stand = next;
        verdict
    }

    /// Takes in what Twitch lists for this session, by id. Returns what is heard that was not, and what is no longer heard.
    pub(super) fn compare(
        &mut self,
        listed: &BTreeMap<Subscription, (String, u32)>,
        foreign_ids: &[String],
        now: Millis,
    ) -> (Vec<Subscription>, Vec<Subscription>) {
        let (mut heard, mut lost) = (Vec::new(), Vec::new());
        for (subscription, stand) in &mut self.stands {
            match (listed.get(subscription), &*stand) {
                (Some((id, cost)), Stand::Due { .. } | Stand::Refused { .. }) => {
                    *stand = Stand::Enabled {
                        id: id.clone(),
                        cost: *cost,
                    };
                    heard.push(subscription.clone());
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
        (heard, lost)
    }

    /// Twitch ended a subscription. `again`: it may be asked for once more, after a while.
    pub(super) fn revoked(
        &mut self,
        subscription: &Subscription,
        code: &str,
        reason: &str,
        again_after: Millis,
        now: Millis,
    ) {
        if let Some(stand) = self.stands.get_mut(subscription) {
            *stand = Stand::Refused {
                code: code.to_owned(),
                reason: reason.to_owned(),
                until: now + again_after,
            };
        }
    }

    /// Something was deleted: what waits for points or places may find them now.
    pub(super) fn room_was_made(&mut self, now: Millis) {
        for stand in self.stands.values_mut() {
            if let Stand::Due { from, tries: 1.. } = stand {
                *from = now.min(*from);
            }
        }
    }

    /// Makes the subscriptions of a channel anew: what there is becomes surplus.
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

    /// Returns whether everything desired is heard or refused.
    pub(super) fn is_settled(&self) -> bool {
        self.count(|stand| matches!(stand, Stand::Due { .. } | Stand::Creating { .. })) == 0
    }

    /// Returns the first refusal when everything desired is refused.
    pub(super) fn all_refused(&self) -> Option<(String, String)> {
        let refusals: Option<Vec<_>> = self
            .order
            .iter()
            .map(|subscription| match self.stands.get(subscription) {
                Some(Stand::Refused { code, reason, .. }) => Some((code.clone(), reason.clone())),
                _ => None,
            })
            .collect();
        refusals.and_then(|refusals| refusals.into_iter().next())
    }

    /// Returns whether it is heard who is live on a channel: both the starts and the ends.
    pub(super) fn hearing(&self, channel: &str) -> Hearing {
        let of_stream = self
            .stands
            .iter()
            .filter(|(one, _)| one.channel == channel && one.kind.is_of_stream());
        let mut hearing = Hearing::Whole;
        for (_, stand) in of_stream {
            match stand {
                Stand::Refused { .. } => return Hearing::Refused,
                Stand::Due { .. } | Stand::Creating { .. } => hearing = Hearing::Pending,
                Stand::Enabled { .. } => {}
            }
        }
        hearing
    }

    /// Returns whether Twitch knows a subscription of ours by this id.
    pub(super) fn knows(&self, wanted: &str) -> bool {
        let mut stands = self.stands.values();
        stands.any(|stand| matches!(stand, Stand::Enabled { id, .. } if id == wanted))
    }

    /// Says why Twitch last took its time, where it said so.
    pub(super) fn delayed(&self) -> Option<&str> {
        self.delayed.as_deref()
    }

    /// Returns every desired subscription with how it stands, in the order in which they are wanted.
    pub(super) fn stands(&self) -> impl Iterator<Item = (&Subscription, &Stand)> {
        self.order
            .iter()
            .filter_map(|subscription| Some((subscription, self.stands.get(subscription)?)))
    }

    fn count(&self, chosen: impl Fn(&Stand) -> bool) -> usize {
        self.stands.values().filter(|stand| chosen(stand)).count()
    }
}

/// Whether it is heard who is live on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// Starts and ends.
    Whole,
    /// Something is still to be accepted.
    Pending,
    /// Something was refused.
    Refused,
}

fn not_heard(code: &str, reason: &str, refused: impl Fn(String, String) -> Stand) -> (Stand, Verdict) {
    let (code, reason) = (code.to_owned(), reason.to_owned());
    (
        refused(code.clone(), reason.clone()),
        Verdict::NotHeard { code, reason },
    )
}

#[cfg(test)]
mod tests;
