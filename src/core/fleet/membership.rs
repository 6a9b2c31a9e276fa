//! What one member of a fleet may do, as a state machine without I/O.
//!
//! A member acts on a shard only while
//!
//! - its lease holds (the caller checks that, at every effect),
//! - the newest view that it has seen names it, in this incarnation, as the owner, and
//! - for a shard that it gains: every other member whose lease is live has acknowledged this view. A member acknowledges a view
//!   after it has stopped everything that the view takes from it; one that does not answer loses its lease instead.
//!
//! Only the engine decides that a member is gone: its lease is not listed any more.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shards::ShardSet;
use super::view::{Incompatible, Member, View};

/// What a member writes beside its lease, for the others and for `bitbrat fleet status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Note {
    /// Newest epoch whose losses this member has stopped.
    pub acked: u64,
    /// Whether it is about to leave.
    pub draining: bool,
    /// Number of sources that it monitors now.
    pub sources: u64,
    /// Number of shards that it acts on now.
    pub shards: u64,
    /// Start of the process, as text for people.
    pub started_at: String,
    /// Version of the program.
    pub version: String,
    /// Accounts whose sockets and tokens it owns.
    pub accounts: Vec<String>,
}

/// A live lease of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSeen {
    /// Id of the member, which is the name of the lease.
    pub id: String,
    /// Which of the member's acquisitions it is.
    pub incarnation: String,
    /// Number of that acquisition.
    pub fence: u64,
    /// What the member has written beside it.
    pub note: Note,
}

/// What the engine shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// By the clock of the member, since any fixed moment.
    pub now: Duration,
    /// The live leases.
    pub leases: Vec<LeaseSeen>,
    /// The fleet's view; `None` if there is none.
    pub view: Option<View>,
}

/// One member.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Its id, incarnation and fence.
    me: Member,
    /// How long to wait before acting on shards of a member that has disappeared.
    margin: Duration,
    view: Option<View>,
    /// Highest epoch that was seen, also of a view that is lost.
    highest: u64,
    acked: u64,
    acting: ShardSet,
    assigned: ShardSet,
    /// When a member that disappeared without draining cannot act any more.
    wait_until: Duration,
}

impl Membership {
    /// Starts with an acquired lease. `highest` is the highest epoch that this process has seen before.
    pub fn new(me: Member, margin: Duration, highest: u64) -> Self {
        Self {
            me,
            margin,
            view: None,
            highest,
            acked: 0,
            acting: ShardSet::default(),
            assigned: ShardSet::default(),
            wait_until: Duration::ZERO,
        }
    }

    /// Processes what the engine shows, and returns a view to propose: with the version of the view that was observed as a
    /// precondition, so that of several members that propose, one succeeds.
    ///
    /// Afterwards stop what is not in [`Membership::acting`] any more, then call [`Membership::stopped`].
    pub fn observe(&mut self, observed: &Observed) -> Result<Option<View>, Incompatible> {
        if let Some(view) = &observed.view {
            view.check()?;
        }
        let is_current = observed
            .view
            .as_ref()
            .is_some_and(|view| view.epoch >= self.highest);
        match observed.view.as_ref().filter(|_| is_current) {
            Some(view) if self.view.as_ref() != Some(view) => self.adopt(view, observed),
            Some(_) => {}
            // The engine has lost its records, or shows an old state. What others do is unknown.
            None => self.stand_down(),
        }
        self.gain(observed);
        let members = Self::members_of(&observed.leases);
        let is_listed = members.iter().any(|member| self.is_me(member));
        // No member proposes a fleet without itself: its own lease may have been lost meanwhile.
        if !is_listed || self.view.as_ref().is_some_and(|view| view.members == members) {
            return Ok(None);
        }
        Ok(Some(View::new(self.highest + 1, members)))
    }

    fn members_of(leases: &[LeaseSeen]) -> Vec<Member> {
        let member = |lease: &LeaseSeen| Member {
            id: lease.id.clone(),
            incarnation: lease.incarnation.clone(),
            fence: lease.fence,
            draining: lease.note.draining,
        };
        View::new(0, leases.iter().map(member).collect()).members
    }

    fn is_me(&self, member: &Member) -> bool {
        member.id == self.me.id && member.incarnation == self.me.incarnation
    }

    fn adopt(&mut self, view: &View, observed: &Observed) {
        let has_left = |old: &Member| {
            !old.draining
                && !self.is_me(old)
                && !view
                    .members
                    .iter()
                    .any(|new| new.id == old.id && new.incarnation == old.incarnation)
        };
        // Without an earlier view it is unknown which members have left.
        let is_surprise = match &self.view {
            Some(before) => before.members.iter().any(has_left),
            None => true,
        };
        if is_surprise {
            self.wait_until = observed.now + self.margin;
        }
        let is_member = view.members.iter().any(|member| self.is_me(member));
        self.assigned = match is_member {
            true => view.shards_of(&self.me.id),
            false => ShardSet::default(),
        };
        self.acting = self.acting.intersection(&self.assigned);
        self.highest = view.epoch;
        self.view = Some(view.clone());
    }

    fn stand_down(&mut self) {
        self.view = None;
        self.assigned = ShardSet::default();
        self.acting = ShardSet::default();
    }

    /// Begins to act on gained shards, if everybody else has stopped.
    fn gain(&mut self, observed: &Observed) {
        let Some(view) = &self.view else {
            return;
        };
        let mut others = observed
            .leases
            .iter()
            .filter(|lease| lease.id != self.me.id || lease.incarnation != self.me.incarnation);
        let have_stopped = self.acked >= view.epoch && others.all(|lease| lease.note.acked >= view.epoch);
        if have_stopped && observed.now >= self.wait_until {
            self.acting = self.assigned.clone();
        }
    }

    /// Records that everything outside of [`Membership::acting`] has stopped, its results included.
    pub fn stopped(&mut self) {
        self.acked = self.view.as_ref().map_or(self.acked, |view| view.epoch);
    }

    /// The shards that this member acts on now, as far as its lease holds.
    pub fn acting(&self) -> &ShardSet {
        &self.acting
    }

    /// The newest epoch whose losses have stopped.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// The highest epoch that was seen.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// The view that counts.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Whether nothing is expected to change: it acts on everything that is assigned to it.
    pub fn is_settled(&self) -> bool {
        self.view.is_some() && self.acting == self.assigned
    }
}

#[cfg(test)]
mod tests;
