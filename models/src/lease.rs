//! The lease of a fleet: members take it from an engine, renew it, and act under its fence.
//!
//! Time is counted in ticks. The engine's clock is the reference; a member's clock may be slow or fast by a bounded number of ticks.
//! Any step may be delayed, as by a paused member, a slow network or a partition.

use stateright::{Model, Property};

/// Duration of a lease in ticks.
const TTL: u8 = 3;
/// How much earlier than the engine the holder stops, and how long a new holder waits.
const MARGIN: u8 = 1;

/// Only one holder ever acts under a fence.
pub const ONE_HOLDER: &str = "one holder acts under a fence";
/// The store accepts no write of an older fence than it has seen.
pub const FORWARD: &str = "accepted fences never go back";
/// No two members may act at the same time, unless the engine has lost its record or a member is paused after its check.
pub const EXCLUSIVE: &str = "one member at a time passes the guard";

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The holder counts from the answer instead of from before the request.
    CountsFromAnswer,
    /// The holder acts until the engine's expiry, and a new holder does not wait.
    NoMargin,
    /// A takeover keeps the fence.
    FenceKept,
    /// A release deletes the record, so that its fence begins again.
    DeletedOnRelease,
    /// The engine renews without comparing holder and fence.
    RenewedUnchecked,
    /// The engine grants the lease to every member that asks.
    TakenEarly,
}

/// What the store compares before it accepts a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceCheck {
    /// Nothing.
    Missing,
    /// The fence is not lower than the highest one.
    NotLower,
    /// The fence is higher, or is the highest one and was registered by the same holder.
    HigherOrOwn,
}

/// The model with its bounds.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Last tick of the engine's clock.
    pub horizon: u8,
    /// By how many ticks the clock of each member may deviate.
    pub drift: u8,
    /// How often a member ends without releasing, or a call times out.
    pub faults: u8,
    /// How often the engine loses its record.
    pub wipes: u8,
    pub check: FenceCheck,
    pub mistake: Option<Mistake>,
}

/// A member and its incarnation: a restarted member is another holder.
pub type Holder = (u8, u8);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    now: u8,
    record: Record,
    /// Highest fence that the store has accepted, and of whom.
    stored: (u8, Holder),
    /// Who has acted under which fence.
    acted: Vec<(u8, Holder)>,
    went_back: bool,
    members: [Member; 2],
    /// Requests whose sender no longer waits for them.
    strays: [Option<Request>; 2],
    faults: u8,
    wipes: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Record {
    holder: Option<Holder>,
    fence: u8,
    expires: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Member {
    clock: u8,
    drifted: u8,
    incarnation: u8,
    call: Option<Call>,
    held: Option<Held>,
    /// The fence with which it passed its guard and is about to write.
    armed: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    fence: u8,
    from: u8,
    until: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    holder: Holder,
    /// The fence to renew; `None` to acquire.
    renew: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    request: Request,
    sent_at: u8,
    /// Outer: whether the engine has answered; inner: the fence, or a refusal.
    answer: Option<Option<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Tick,
    TickSlow(u8),
    TickFast(u8),
    Ask(u8),
    Arrive(u8),
    Receive(u8),
    TimeOut(u8),
    StrayArrives(u8),
    /// After a timeout: the member reads whether it has the lease after all.
    Read(u8),
    PassGuard(u8),
    Write(u8),
    Release(u8),
    Crash(u8),
    Wipe,
}

impl Member {
    fn guard(&self) -> Option<u8> {
        let held = self.held.as_ref()?;
        (held.from <= self.clock && self.clock < held.until).then_some(held.fence)
    }
}

impl Lease {
    fn margin(&self) -> u8 {
        if self.mistake == Some(Mistake::NoMargin) {
            0
        } else {
            MARGIN
        }
    }

    /// The engine's side of a request: one atomic step.
    fn engine(&self, state: &mut State, request: &Request) -> Option<u8> {
        let now = state.now;
        let record = &mut state.record;
        let is_expired = record.expires <= now;
        let is_granted = match request.renew {
            None => is_expired || self.mistake == Some(Mistake::TakenEarly),
            Some(fence) => {
                let is_holder = record.holder == Some(request.holder) && record.fence == fence;
                (is_holder && !is_expired) || self.mistake == Some(Mistake::RenewedUnchecked)
            }
        };
        if !is_granted {
            return None;
        }
        record.expires = now + TTL;
        if request.renew.is_none() {
            record.holder = Some(request.holder);
            if self.mistake != Some(Mistake::FenceKept) || record.fence == 0 {
                record.fence += 1;
            }
        }
        Some(request.renew.unwrap_or(record.fence))
    }

    fn receive(&self, member: &mut Member, call: &Call) {
        let Some(Some(fence)) = call.answer else {
            member.held = None;
            return;
        };
        let counted = if self.mistake == Some(Mistake::CountsFromAnswer) {
            member.clock
        } else {
            call.sent_at
        };
        let from = match (&member.held, call.request.renew) {
            (Some(held), Some(_)) => held.from,
            _ => member.clock + self.margin(),
        };
        let until = counted + TTL - self.margin();
        member.held = Some(Held { fence, from, until });
    }

    fn write(&self, state: &mut State, holder: Holder, fence: u8) {
        let (highest, by) = state.stored;
        let is_accepted = match self.check {
            FenceCheck::Missing => true,
            FenceCheck::NotLower => fence >= highest,
            FenceCheck::HigherOrOwn => fence > highest || (fence == highest && by == holder),
        };
        if !is_accepted {
            // The failed write shows the member that it has been replaced.
            state.members[usize::from(holder.0)].held = None;
            return;
        }
        state.went_back |= fence < highest;
        state.stored = (fence.max(highest), holder);
        if !state.acted.contains(&(fence, holder)) {
            state.acted.push((fence, holder));
            state.acted.sort_unstable();
        }
    }

    fn tick(state: &mut State, slow: Option<u8>, fast: Option<u8>) {
        state.now += 1;
        for (index, member) in (0..).zip(&mut state.members) {
            member.clock += 1 + u8::from(fast == Some(index)) - u8::from(slow == Some(index));
            member.drifted += u8::from(fast == Some(index) || slow == Some(index));
        }
    }
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            record: Record::default(),
            stored: (0, (0, 0)),
            acted: Vec::new(),
            went_back: false,
            members: Default::default(),
            strays: Default::default(),
            faults: self.faults,
            wipes: self.wipes,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.horizon {
            actions.push(Action::Tick);
        }
        if state.wipes > 0 && state.record.fence > 0 {
            actions.push(Action::Wipe);
        }
        for (index, member) in (0..).zip(&state.members) {
            if state.now < self.horizon && member.drifted < self.drift {
                actions.extend([Action::TickSlow(index), Action::TickFast(index)]);
            }
            match &member.call {
                None => actions.push(Action::Ask(index)),
                Some(call) if call.answer.is_none() => actions.push(Action::Arrive(index)),
                Some(_) => actions.push(Action::Receive(index)),
            }
            if member.call.is_none() && member.held.is_none() {
                actions.push(Action::Read(index));
            }
            if state.strays[usize::from(index)].is_some() {
                actions.push(Action::StrayArrives(index));
            }
            if member.armed.is_some() {
                actions.push(Action::Write(index));
            } else if member.guard().is_some() {
                actions.push(Action::PassGuard(index));
            }
            if member.held.is_some() && member.armed.is_none() && member.call.is_none() {
                actions.push(Action::Release(index));
            }
            if state.faults > 0 && member.call.is_some() {
                actions.push(Action::TimeOut(index));
            }
            if state.faults > 0 && member.held.is_some() {
                actions.push(Action::Crash(index));
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Tick => Self::tick(&mut state, None, None),
            Action::TickSlow(index) => Self::tick(&mut state, Some(index), None),
            Action::TickFast(index) => Self::tick(&mut state, None, Some(index)),
            Action::Wipe => {
                state.wipes -= 1;
                state.record = Record::default();
            }
            Action::Ask(index) => {
                let member = &mut state.members[usize::from(index)];
                member.call = Some(Call {
                    request: Request {
                        holder: (index, member.incarnation),
                        renew: member.held.as_ref().map(|held| held.fence),
                    },
                    sent_at: member.clock,
                    answer: None,
                });
            }
            Action::Arrive(index) => {
                let request = state.members[usize::from(index)].call.as_ref()?.request.clone();
                let answer = self.engine(&mut state, &request);
                state.members[usize::from(index)].call.as_mut()?.answer = Some(answer);
            }
            Action::Receive(index) => {
                let member = &mut state.members[usize::from(index)];
                let call = member.call.take()?;
                self.receive(member, &call);
            }
            Action::TimeOut(index) => {
                state.faults -= 1;
                let call = state.members[usize::from(index)].call.take()?;
                state.strays[usize::from(index)] = call.answer.is_none().then_some(call.request);
            }
            Action::StrayArrives(index) => {
                let request = state.strays[usize::from(index)].take()?;
                self.engine(&mut state, &request);
            }
            Action::Read(index) => {
                let member = &mut state.members[usize::from(index)];
                if state.record.holder != Some((index, member.incarnation))
                    || state.record.expires <= state.now
                {
                    return None;
                }
                // Nothing may be done under it until a renewal has succeeded.
                let from = member.clock + self.margin();
                let fence = state.record.fence;
                member.held = Some(Held {
                    fence,
                    from,
                    until: 0,
                });
            }
            Action::PassGuard(index) => {
                let member = &mut state.members[usize::from(index)];
                member.armed = member.guard();
            }
            Action::Write(index) => {
                let member = &mut state.members[usize::from(index)];
                let (fence, holder) = (member.armed.take()?, (index, member.incarnation));
                self.write(&mut state, holder, fence);
            }
            Action::Release(index) => {
                let member = &mut state.members[usize::from(index)];
                let (held, holder) = (member.held.take()?, (index, member.incarnation));
                if state.record.holder == Some(holder) && state.record.fence == held.fence {
                    state.record.expires = state.record.expires.min(state.now);
                    if self.mistake == Some(Mistake::DeletedOnRelease) {
                        state.record = Record::default();
                    }
                }
            }
            Action::Crash(index) => {
                state.faults -= 1;
                let member = &mut state.members[usize::from(index)];
                let call = member.call.take();
                *member = Member {
                    clock: member.clock,
                    drifted: member.drifted,
                    incarnation: member.incarnation + 1,
                    ..Member::default()
                };
                let unanswered = call.filter(|call| call.answer.is_none());
                state.strays[usize::from(index)] = unanswered.map(|call| call.request);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOLDER, |_, state: &State| {
                state.acted.windows(2).all(|pair| pair[0].0 != pair[1].0)
            }),
            Property::always(FORWARD, |_, state: &State| !state.went_back),
            Property::always(EXCLUSIVE, |model: &Self, state: &State| {
                let passing = state.members.iter().filter(|member| member.guard().is_some());
                model.wipes > 0 || passing.count() < 2
            }),
            Property::sometimes("both members have acted", |_, state: &State| {
                state.acted.iter().any(|(_, by)| by.0 == 0) && state.acted.iter().any(|(_, by)| by.0 == 1)
            }),
            Property::sometimes(
                "a member passes its guard with an old fence",
                |_, state: &State| {
                    let old = |member: &Member| member.armed.is_some_and(|fence| fence < state.stored.0);
                    state.members.iter().any(old)
                },
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counterexample, search};

    fn lease() -> Lease {
        Lease {
            horizon: 6,
            drift: 1,
            faults: 1,
            wipes: 0,
            check: FenceCheck::NotLower,
            mistake: None,
        }
    }

    fn broken(mistake: Mistake) -> Lease {
        Lease {
            mistake: Some(mistake),
            ..lease()
        }
    }

    #[test]
    #[ignore = "the search does not end within a minute"]
    fn lease_never_has_two_holders_under_one_fence() {
        search("lease", lease());
    }

    #[test]
    #[ignore = "the search does not end within a minute"]
    fn fence_of_an_emptied_engine_is_refused_by_the_store() {
        let check = FenceCheck::HigherOrOwn;
        search(
            "lease, engine emptied",
            Lease {
                drift: 0,
                wipes: 1,
                check,
                ..lease()
            },
        );
    }

    #[test]
    #[ignore = "takes most of a minute"]
    fn refusing_only_lower_fences_fails_with_an_emptied_engine() {
        let model = Lease { wipes: 1, ..lease() };
        let actions = counterexample(model, ONE_HOLDER);
        assert!(actions.contains(&Action::Wipe));
    }

    #[test]
    #[ignore = "the search does not end within a minute"]
    fn store_without_fence_accepts_writes_of_a_paused_member() {
        let check = FenceCheck::Missing;
        counterexample(Lease { check, ..lease() }, FORWARD);
    }

    #[test]
    fn clocks_beyond_the_bound_let_two_members_pass_the_guard() {
        let drift = 2 * MARGIN + 1;
        counterexample(Lease { drift, ..lease() }, EXCLUSIVE);
    }

    #[test]
    fn counting_from_the_answer_lets_two_members_pass_the_guard() {
        counterexample(broken(Mistake::CountsFromAnswer), EXCLUSIVE);
    }

    #[test]
    fn no_margin_lets_two_members_pass_the_guard() {
        counterexample(broken(Mistake::NoMargin), EXCLUSIVE);
    }

    #[test]
    #[ignore = "takes most of a minute"]
    fn takeover_that_keeps_the_fence_is_found() {
        counterexample(broken(Mistake::FenceKept), ONE_HOLDER);
    }

    #[test]
    #[ignore = "takes most of a minute"]
    fn release_that_deletes_the_record_is_found() {
        counterexample(broken(Mistake::DeletedOnRelease), ONE_HOLDER);
    }

    #[test]
    #[ignore = "takes most of a minute"]
    fn renewal_without_comparison_is_found() {
        counterexample(broken(Mistake::RenewedUnchecked), EXCLUSIVE);
    }

    #[test]
    fn takeover_before_the_expiry_is_found() {
        counterexample(broken(Mistake::TakenEarly), EXCLUSIVE);
    }
}
