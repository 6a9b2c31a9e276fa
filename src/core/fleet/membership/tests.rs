//! The laws of a fleet, in random interleavings of members and an engine.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::shards::SHARDS;
use super::*;

const MARGIN: Duration = Duration::from_secs(3);
const TTL: u64 = 15;

/// An engine, and members that act in any order; each may be paused for any time.
#[derive(Default)]
struct Fleet {
    now: u64,
    view: Option<View>,
    members: BTreeMap<usize, Running>,
    /// Leases by name: live until a time.
    leases: BTreeMap<String, (LeaseSeen, u64)>,
    incarnations: u64,
}

struct Running {
    machine: Membership,
    /// Its right to act ends here, before its lease does.
    until: u64,
    draining: bool,
}

impl Fleet {
    fn id(index: usize) -> String {
        format!("watch-{index}")
    }

    fn live(&self) -> Vec<LeaseSeen> {
        let live = self.leases.values().filter(|(_, until)| self.now < *until);
        live.map(|(lease, _)| lease.clone()).collect()
    }

    fn join(&mut self, index: usize) {
        let id = Self::id(index);
        if self.members.contains_key(&index)
            || self.leases.get(&id).is_some_and(|(_, until)| self.now < *until)
        {
            return;
        }
        self.incarnations += 1;
        let me = Member {
            id: id.clone(),
            incarnation: self.incarnations.to_string(),
            fence: self.incarnations,
            draining: false,
        };
        let lease = LeaseSeen {
            id: id.clone(),
            incarnation: me.incarnation.clone(),
            fence: me.fence,
            note: Note::default(),
        };
        self.leases.insert(id, (lease, self.now + TTL));
        let running = Running {
            machine: Membership::new(me, MARGIN, 0),
            until: self.now + TTL - MARGIN.as_secs(),
            draining: false,
        };
        self.members.insert(index, running);
    }

    /// A member renews its lease, reads what the engine shows, stops what it lost, and proposes.
    fn step(&mut self, index: usize) {
        let Some(running) = self.members.get_mut(&index) else {
            return;
        };
        if self.now >= running.until {
            // Its right has ended: it stops everything and joins anew.
            self.members.remove(&index);
            return;
        }
        let id = Self::id(index);
        if let Some((lease, until)) = self.leases.get_mut(&id) {
            *until = self.now + TTL;
            lease.note.acked = running.machine.acked();
            lease.note.draining = running.draining;
        }
        running.until = self.now + TTL - MARGIN.as_secs();
        let observed = Observed {
            now: Duration::from_secs(self.now),
            leases: self.live(),
            view: self.view.clone(),
        };
        let running = self.members.get_mut(&index).unwrap();
        let proposed = running.machine.observe(&observed).unwrap();
        running.machine.stopped();
        if let Some(view) = proposed {
            assert!(view.epoch > self.view.as_ref().map_or(0, |view| view.epoch));
            self.view = Some(view);
        }
    }

    fn leave(&mut self, index: usize) {
        if self.members.remove(&index).is_some()
            && let Some((_, until)) = self.leases.get_mut(&Self::id(index))
        {
            *until = (*until).min(self.now);
        }
    }

    /// The members that act on a shard now.
    fn acting(&self, shard: u16) -> Vec<usize> {
        let acting = self
            .members
            .iter()
            .filter(|(_, running)| self.now < running.until && running.machine.acting().contains(shard));
        acting.map(|(index, _)| *index).collect()
    }

    fn settle(&mut self) {
        for _ in 0..40 {
            self.now += 1;
            for index in 0..5 {
                self.step(index);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Join(usize),
    Step(usize),
    Drain(usize),
    /// It ends, and its lease is released.
    Leave(usize),
    /// It ends without a word.
    Die(usize),
    /// The engine loses its records.
    Wipe,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let member = 0..5_usize;
    let event = prop_oneof![
        3 => (1..5_u64).prop_map(Event::Pass),
        2 => member.clone().prop_map(Event::Join),
        10 => member.clone().prop_map(Event::Step),
        1 => member.clone().prop_map(Event::Drain),
        1 => member.clone().prop_map(Event::Leave),
        1 => member.prop_map(Event::Die),
    ];
    proptest::collection::vec(event, 1..150)
}

fn apply(fleet: &mut Fleet, event: &Event) {
    match event {
        Event::Pass(seconds) => fleet.now += seconds,
        Event::Join(index) => fleet.join(*index),
        Event::Step(index) => fleet.step(*index),
        Event::Drain(index) => {
            if let Some(running) = fleet.members.get_mut(index) {
                running.draining = true;
            }
        }
        Event::Leave(index) => fleet.leave(*index),
        Event::Die(index) => drop(fleet.members.remove(index)),
        Event::Wipe => {
            fleet.view = None;
            fleet.leases.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_member_acts_on_a_shard(events in events()) {
        let mut fleet = Fleet::default();
        for event in &events {
            apply(&mut fleet, event);
            for shard in (0..SHARDS).step_by(37) {
                let acting = fleet.acting(shard);
                prop_assert!(acting.len() <= 1, "{shard}: {acting:?} after {event:?}");
            }
        }
    }

    #[test]
    fn every_shard_is_covered_once_the_fleet_is_at_rest(events in events()) {
        let mut fleet = Fleet::default();
        for event in &events {
            apply(&mut fleet, event);
        }
        fleet.join(0);
        fleet.members.values_mut().for_each(|running| running.draining = false);
        fleet.settle();
        // One whose right had ended meanwhile.
        fleet.join(0);
        fleet.settle();
        for shard in 0..SHARDS {
            prop_assert_eq!(fleet.acting(shard).len(), 1, "{}", shard);
        }
        let views: Vec<_> = fleet.members.values().map(|running| running.machine.view()).collect();
        prop_assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "all members agree");
    }
}

fn fleet_of(count: usize) -> Fleet {
    let mut fleet = Fleet::default();
    (0..count).for_each(|index| fleet.join(index));
    fleet.settle();
    fleet
}

#[test]
fn draining_member_owns_nothing_before_it_leaves() {
    let mut fleet = fleet_of(3);
    fleet.members.get_mut(&1).unwrap().draining = true;
    fleet.settle();
    assert!(fleet.members[&1].machine.acting().is_empty());
    for shard in 0..SHARDS {
        assert_eq!(fleet.acting(shard).len(), 1, "{shard}");
    }
    let epoch = fleet.view.as_ref().unwrap().epoch;
    fleet.leave(1);
    fleet.settle();
    let view = fleet.view.as_ref().unwrap();
    assert_eq!((view.members.len(), view.epoch), (2, epoch + 1));
}

#[test]
fn gained_shard_waits_until_every_live_member_has_acknowledged() {
    let mut fleet = fleet_of(2);
    fleet.join(2);
    let mut new = 0;
    for _ in 0..5 {
        fleet.now += 1;
        // The first member is paused.
        fleet.step(1);
        fleet.step(2);
        new = fleet.members[&2].machine.acting().len();
    }
    assert_eq!(new, 0, "the paused member may still act");
    fleet.settle();
    assert!(fleet.members[&2].machine.acting().len() > 200);
}

#[test]
fn lost_view_is_replaced_with_a_higher_epoch() {
    let mut fleet = fleet_of(2);
    let epoch = fleet.view.as_ref().unwrap().epoch;
    apply(&mut fleet, &Event::Wipe);
    for index in 0..2 {
        let running = &fleet.members[&index].machine;
        let observed = Observed {
            now: Duration::from_secs(fleet.now),
            leases: Vec::new(),
            view: None,
        };
        let mut machine = running.clone();
        assert_eq!(machine.observe(&observed), Ok(None), "its lease is gone, too");
        assert!(machine.acting().is_empty());
    }
    // Their leases are taken again; the epoch goes on.
    let survivor = fleet.members[&0].machine.clone();
    let lease = LeaseSeen {
        id: survivor.me.id.clone(),
        incarnation: survivor.me.incarnation.clone(),
        fence: 9,
        note: Note::default(),
    };
    let observed = Observed {
        now: Duration::from_secs(fleet.now),
        leases: vec![lease],
        view: None,
    };
    let proposed = survivor.clone().observe(&observed).unwrap().unwrap();
    assert_eq!(proposed.epoch, epoch + 1);
}

#[test]
fn view_of_another_division_is_refused() {
    let mut fleet = fleet_of(1);
    let mut view = fleet.view.clone().unwrap();
    view.shards = 4096;
    let observed = Observed {
        now: Duration::ZERO,
        leases: fleet.live(),
        view: Some(view),
    };
    let error = fleet
        .members
        .get_mut(&0)
        .unwrap()
        .machine
        .observe(&observed)
        .unwrap_err();
    assert!(error.to_string().contains("4096 shards"), "{error}");
}
