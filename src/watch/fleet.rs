//! A member of a fleet: takes its lease, agrees with the others on a view, and monitors its share of the sources.
//!
//! The rules are in [`Membership`], which has no I/O. This module feeds it with what the lease engine shows, and applies what it
//! decides ([`Work`]). Two connections are used: one renews the lease, the other reads what the others do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock::Chance;
use crate::core::fleet::{LeaseSeen, Member, Membership, Note, Observed, ShardSet, View, shard_of};
use crate::lease::{
    BootClock, Fence, FenceRegister, Guard, Holder, Keeper, LeaseEngine, LeaseError, LeaseName, LeaseRecord,
    LeaseState, Terms,
};
use crate::lifecycle::{Stop, Tasks};

/// Time between two looks at the fleet while it is at rest, as a part of the lease's duration.
const CALM_PER_TTL: u32 = 6;
/// The same while members join, leave or acknowledge a view.
const BUSY_PER_TTL: u32 = 15;
/// How long a stop may take to hand the work over, before the lease is released in any case.
const HANDOVER: Duration = Duration::from_secs(4);
/// Longest random delay before the first look, in parts of the lease's duration: members that start together propose one by one.
const START_PER_TTL: f64 = 8.0;

/// What this member owns now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owned {
    shards: ShardSet,
    /// Number of members that divide what all of them share; 0 before the first view.
    members: u32,
}

impl Owned {
    /// Whether it owns a source, by its key, or an account, by `account:` and its name.
    pub fn contains(&self, id: &str) -> bool {
        self.shards.contains(shard_of(id))
    }

    /// The number of members among which rate limits are divided. While shares change, the larger one.
    pub fn members(&self) -> u32 {
        self.members
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }
}

/// The right to act on what is owned. Cheap to clone.
#[derive(Clone)]
pub struct Ownership {
    guard: Guard,
    owned: watch::Receiver<Owned>,
}

impl Ownership {
    /// Whether this member may act on a source or an account now. Ask before every effect outside the process.
    pub fn may_act_on(&self, id: &str) -> bool {
        self.guard.check().is_some() && self.owned.borrow().contains(id)
    }
}

/// What a member works on, and what is written about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    pub sources: u64,
    pub accounts: Vec<String>,
}

/// Applies a changed ownership.
#[async_trait]
pub trait Work: Send + Sync {
    /// Stops the work on what is not owned any more, and waits until it has no further effect.
    async fn stop_others(&self, owned: &Owned) -> Load;

    /// Starts the work on everything that is owned, after reading what previous owners have stored.
    async fn start(&self, owned: &Owned) -> Load;
}

/// The state of a member, for pages, metrics and readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// Name of the fleet.
    pub name: String,
    /// Name of this member.
    pub member: String,
    /// Where the leases are.
    pub engine: String,
    /// Epoch of the view that counts; 0 without one.
    pub epoch: u64,
    /// Number of members that own something.
    pub members: usize,
    /// Number of shards that this member acts on.
    pub shards: usize,
    /// Number of sources that it monitors.
    pub sources: u64,
    /// Whether it acts on everything that is assigned to it.
    pub settled: bool,
    /// Why it does not act; absent if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a member is made of.
pub struct FleetParts {
    pub fleet: LeaseName,
    pub member: LeaseName,
    /// Reads the leases and the view.
    pub engine: Arc<dyn LeaseEngine>,
    /// Renews the lease, on a connection of its own.
    pub renewing: Arc<dyn LeaseEngine>,
    pub terms: Terms,
    pub clock: Arc<dyn BootClock>,
    pub chance: Chance,
    /// Start of the process, for people.
    pub started_at: String,
}

/// A member that has not started yet.
pub struct FleetMember {
    parts: FleetParts,
    guard: Guard,
    owned: watch::Sender<Owned>,
    status: watch::Sender<FleetStatus>,
}

impl FleetMember {
    /// Creates a member that owns nothing yet.
    pub fn new(parts: FleetParts) -> Self {
        let status = FleetStatus {
            name: parts.fleet.to_string(),
            member: parts.member.to_string(),
            engine: parts.engine.location(),
            epoch: 0,
            members: 0,
            shards: 0,
            sources: 0,
            settled: false,
            problem: Some("it has not joined yet".to_owned()),
        };
        Self {
            guard: Guard::new(Arc::clone(&parts.clock)),
            owned: watch::Sender::default(),
            status: watch::Sender::new(status),
            parts,
        }
    }

    /// Returns the right to act on what is owned.
    pub fn ownership(&self) -> Ownership {
        Ownership {
            guard: self.guard.clone(),
            owned: self.owned.subscribe(),
        }
    }

    /// Follows the state of the member.
    pub fn status(&self) -> watch::Receiver<FleetStatus> {
        self.status.subscribe()
    }

    /// Starts the tasks of the member. After a stop it hands its work over, and releases its lease last.
    pub fn start(self, work: Arc<dyn Work>, tasks: &Tasks) {
        let (note, notes) = watch::channel(String::new());
        let (state, states) = watch::channel(LeaseState::Waiting("it has not joined yet".to_owned()));
        let done = CancellationToken::new();
        let keeper = Keeper {
            engine: Arc::clone(&self.parts.renewing),
            name: self.parts.member.clone(),
            member: self.parts.member.clone(),
            terms: self.parts.terms,
            clock: Arc::clone(&self.parts.clock),
            chance: self.parts.chance.clone(),
            guard: self.guard.clone(),
            note: notes,
            state,
            register: FenceRegister::default(),
        };
        let released = done.clone();
        tasks.spawn_finite("fleet-lease", |_| keeper.run(released));
        let running = Running {
            member: self,
            work,
            note,
            states,
            done,
            machine: None,
            highest: 0,
            load: Load::default(),
            checked: Duration::ZERO,
            problem: None,
        };
        tasks.spawn("fleet", |stop| running.run(stop));
    }
}

struct Running {
    member: FleetMember,
    work: Arc<dyn Work>,
    note: watch::Sender<String>,
    states: watch::Receiver<LeaseState>,
    done: CancellationToken,
    /// With the holder that it belongs to.
    machine: Option<(Holder, Membership)>,
    /// Highest epoch that was seen, across losses of the lease.
    highest: u64,
    load: Load,
    /// When the fleet was last seen, by the member's clock, before the request.
    checked: Duration,
    problem: Option<String>,
}

impl Running {
    async fn run(mut self, stop: Stop) {
        let terms = self.member.parts.terms;
        let jitter = terms
            .ttl
            .mul_f64(self.member.parts.chance.fraction() / START_PER_TTL);
        self.write_note(false);
        if stop.sleep(jitter).await {
            while !stop.is_requested() {
                self.turn(false).await;
                let parts = if self.is_settled() {
                    CALM_PER_TTL
                } else {
                    BUSY_PER_TTL
                };
                tokio::select! {
                    () = sleep(terms.ttl / parts) => {}
                    () = stop.requested() => {}
                    // A lost or new lease has effects at once.
                    Ok(()) = self.states.changed() => {}
                }
            }
        }
        self.leave().await;
    }

    fn is_settled(&self) -> bool {
        self.machine
            .as_ref()
            .is_some_and(|(_, machine)| machine.is_settled())
    }

    /// Looks at the fleet once, and applies what follows.
    async fn turn(&mut self, draining: bool) {
        self.follow_lease();
        let asked = self.member.parts.clock.now();
        if self.machine.is_some() {
            match self.look().await {
                Ok((observed, version)) => {
                    self.checked = asked;
                    self.problem = None;
                    self.apply(&observed, version.as_deref(), draining).await;
                }
                Err(error) => self.problem = Some(error.to_string()),
            }
        }
        // Without the newest view it is not known whether shards have been given to others.
        let is_blind =
            self.member.parts.clock.now().saturating_sub(self.checked) >= self.member.parts.terms.right();
        let mut owned = Owned::default();
        if let Some((_, machine)) = &self.machine
            && !is_blind
            && !draining
        {
            owned.shards = machine.acting().clone();
            let members = machine.view().map_or(0, View::size);
            owned.members = u32::try_from(members).unwrap_or(u32::MAX);
        }
        let before = self.member.owned.borrow().members;
        // What a member that has left may still send counts until everybody has acknowledged that.
        if owned.members == 0 || !self.is_settled() {
            owned.members = owned.members.max(before);
        }
        self.own(owned, draining).await;
        self.report();
    }

    /// Begins anew with each acquisition of the lease.
    fn follow_lease(&mut self) {
        let state = self.states.borrow_and_update().clone();
        match state {
            LeaseState::Held { holder, fence } => {
                if self.machine.as_ref().is_none_or(|(known, _)| *known != holder) {
                    let me = Member {
                        id: holder.member.to_string(),
                        incarnation: holder.incarnation.clone(),
                        fence: fence.0,
                        draining: false,
                    };
                    let margin = self.member.parts.terms.margin();
                    self.machine = Some((holder, Membership::new(me, margin, self.highest)));
                }
            }
            LeaseState::Waiting(reason) => {
                self.machine = None;
                self.problem = Some(reason);
            }
            LeaseState::Released => self.machine = None,
        }
    }

    /// Reads the leases and the view.
    async fn look(&self) -> Result<(Observed, Option<String>), LeaseError> {
        let engine = &self.member.parts.engine;
        let patience = self.member.parts.terms.patience();
        let late = |_| LeaseError::Unavailable {
            location: engine.location(),
            reason: "it did not answer in time".to_owned(),
        };
        let leases = timeout(patience, engine.list()).await.map_err(late)??;
        let shared = timeout(patience, engine.view()).await.map_err(late)??;
        let version = shared.as_ref().map(|shared| shared.version.clone());
        // One that cannot be read is replaced.
        let view: Option<View> = shared.and_then(|shared| serde_json::from_str(&shared.text).ok());
        let observed = Observed {
            now: self.member.parts.clock.now(),
            leases: leases.iter().map(seen).collect(),
            view,
        };
        Ok((observed, version))
    }

    /// Decides by what was seen: stops what was lost, acknowledges it, and proposes a changed view.
    async fn apply(&mut self, observed: &Observed, version: Option<&str>, draining: bool) {
        let Some((_, machine)) = &mut self.machine else {
            return;
        };
        let proposed = match machine.observe(observed) {
            Ok(proposed) => proposed,
            Err(error) => {
                warn!(%error, "Cannot take part in the fleet");
                self.problem = Some(error.to_string());
                self.machine = None;
                return;
            }
        };
        self.highest = machine.highest();
        let shrunk = Owned {
            shards: machine.acting().intersection(&self.member.owned.borrow().shards),
            members: self.member.owned.borrow().members,
        };
        if shrunk != *self.member.owned.borrow() {
            self.member.owned.send_replace(shrunk.clone());
            self.load = self.work.stop_others(&shrunk).await;
        }
        machine.stopped();
        self.write_note(draining);
        let Some(view) = proposed else {
            return;
        };
        let text = serde_json::to_string(&view).expect("it has texts and numbers");
        let engine = &self.member.parts.engine;
        let replaced = timeout(
            self.member.parts.terms.patience(),
            engine.replace_view(version, &text),
        )
        .await;
        match replaced {
            Ok(Ok(true)) => info!(
                epoch = view.epoch,
                members = view.members.len(),
                "The fleet has changed"
            ),
            // Another member was faster.
            Ok(Ok(false)) => {}
            Ok(Err(error)) => debug!(%error, "The view of the fleet could not be replaced"),
            Err(_) => debug!("The view of the fleet could not be replaced in time"),
        }
    }

    /// Applies what is owned.
    async fn own(&mut self, owned: Owned, draining: bool) {
        let before = self.member.owned.borrow().clone();
        if before == owned {
            return;
        }
        let kept = Owned {
            shards: owned.shards.intersection(&before.shards),
            members: owned.members.max(before.members),
        };
        if kept != before {
            self.member.owned.send_replace(kept.clone());
            self.load = self.work.stop_others(&kept).await;
        }
        if kept != owned {
            self.member.owned.send_replace(owned.clone());
            self.load = self.work.start(&owned).await;
        }
        info!(
            shards = owned.shards(),
            sources = self.load.sources,
            "This member's share has changed"
        );
        self.write_note(draining);
    }

    /// Hands the work over: draining first, then everything stopped and acknowledged, then the lease.
    async fn leave(&mut self) {
        let terms = self.member.parts.terms;
        self.member.owned.send_replace(Owned::default());
        self.load = self.work.stop_others(&Owned::default()).await;
        self.write_note(true);
        let handed_over = async {
            loop {
                self.turn(true).await;
                let has_left = match &self.machine {
                    Some((holder, machine)) => machine.view().is_none_or(|view| {
                        let mut members = view.members.iter();
                        !members.any(|member| member.incarnation == holder.incarnation && !member.draining)
                    }),
                    None => true,
                };
                if has_left {
                    return;
                }
                sleep(terms.ttl / BUSY_PER_TTL).await;
            }
        };
        // The others take over in any case, when the lease is gone.
        let _ = timeout(terms.renewal().min(HANDOVER), handed_over).await;
        self.done.cancel();
        let released = self.states.wait_for(|state| *state == LeaseState::Released);
        let _ = timeout(terms.patience().min(HANDOVER), released).await;
    }

    fn write_note(&self, draining: bool) {
        let acked = self.machine.as_ref().map_or(0, |(_, machine)| machine.acked());
        let note = Note {
            acked,
            draining,
            sources: self.load.sources,
            shards: self.member.owned.borrow().shards() as u64,
            started_at: self.member.parts.started_at.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            accounts: self.load.accounts.clone(),
        };
        let text = serde_json::to_string(&note).expect("it has texts and numbers");
        self.note.send_if_modified(|now| {
            let differs = *now != text;
            *now = text;
            differs
        });
    }

    fn report(&self) {
        let view = self.machine.as_ref().and_then(|(_, machine)| machine.view());
        let (epoch, members) = view.map_or((0, 0), |view| (view.epoch, view.size()));
        let settled = self.is_settled();
        let problem = self.problem.clone().or_else(|| {
            let is_waiting = self.machine.is_none() || view.is_none();
            is_waiting.then(|| "it waits for the fleet".to_owned())
        });
        self.member.status.send_modify(|status| {
            status.epoch = epoch;
            status.members = members;
            status.shards = self.member.owned.borrow().shards();
            status.sources = self.load.sources;
            status.settled = settled;
            status.problem = problem;
        });
    }
}

/// Parses a live lease.
pub fn seen(record: &LeaseRecord) -> LeaseSeen {
    let Fence(fence) = record.fence;
    LeaseSeen {
        id: record.holder.member.to_string(),
        incarnation: record.holder.incarnation.clone(),
        fence,
        // A member whose note cannot be read has acknowledged nothing.
        note: serde_json::from_str::<Note>(&record.note).unwrap_or_default(),
    }
}
