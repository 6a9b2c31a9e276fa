//! Dates facts about guilds and queues them for the sink.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::super::connection::Connection;
use super::super::guilds::{GuildFacts, Guilds};
use super::super::replay_times::Replay;
use crate::core::observation::{Fact, Observation};
use crate::core::permission::GUILD_METHOD;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Origin of observations received over the gateway.
const BY: &str = "discord.gateway";
/// Observations that may be queued for the sink before reading stops.
const BACKLOG: usize = 50_000;

/// The monitored guilds with the observations about them that the sink has not received.
pub(super) struct Emitter {
    connection: Arc<Connection>,
    targets: BTreeMap<u64, SourceKey>,
    pending: VecDeque<Observation>,
    /// When something was last emitted for a guild.
    emitted_at: BTreeMap<u64, Timestamp>,
}

impl Emitter {
    pub(super) fn new(connection: Arc<Connection>, targets: BTreeMap<u64, SourceKey>) -> Self {
        Self {
            connection,
            targets,
            pending: VecDeque::new(),
            emitted_at: BTreeMap::new(),
        }
    }

    pub(super) fn targets(&self) -> &BTreeMap<u64, SourceKey> {
        &self.targets
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether nothing more should be read before the sink has received something.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= BACKLOG
    }

    /// Returns the oldest observation that was not taken yet.
    pub(super) fn take(&mut self) -> Option<Observation> {
        self.pending.pop_front()
    }

    /// Emits facts about all guilds.
    pub(super) fn emit_all(&mut self, at: Timestamp, facts: &[Fact]) {
        for id in self.targets.keys().copied().collect::<Vec<_>>() {
            self.emit_at(id, at, facts.to_vec());
        }
    }

    /// Emits facts that are observed now.
    pub(super) fn emit(&mut self, facts: GuildFacts) {
        let now = self.connection.rest.clock.now();
        let mut by_guild: BTreeMap<u64, Vec<Fact>> = BTreeMap::new();
        for (id, fact) in facts {
            by_guild.entry(id).or_default().push(fact);
        }
        for (id, facts) in by_guild {
            self.emit_at(id, now, facts);
        }
    }

    /// Emits facts that an earlier process has already stored under the time that they had then: the same evidence again changes
    /// nothing and is published under the same id. Returns the other facts.
    pub(super) fn emit_replayed(
        &mut self,
        facts: GuildFacts,
        replay: &mut Replay,
        now: Timestamp,
    ) -> GuildFacts {
        let mut new = Vec::new();
        for (guild, fact) in facts {
            let Some(at) = replay.time_of(guild, &fact, now) else {
                new.push((guild, fact));
                continue;
            };
            if let Some(key) = self.targets.get(&guild) {
                self.pending.push_back(Observation::new(key, at, BY, fact));
            }
        }
        new
    }

    /// Emits facts that were observed together. Two events of one millisecond must not tie, because the order in which they were
    /// received is known only here; the later one is dated a millisecond later.
    fn emit_at(&mut self, guild: u64, at: Timestamp, facts: Vec<Fact>) {
        const DRIFT: i64 = 1_000;
        let Some(key) = self.targets.get(&guild) else {
            return;
        };
        let at = self.connection.rest.skew.correct(at);
        let last = self.emitted_at.get(&guild).copied();
        let behind = last.filter(|last| (0..DRIFT).contains(&last.millis_since(at)));
        let at = behind.map_or(at, |last| last.plus_millis(1));
        self.emitted_at.insert(guild, at);
        let observations = facts.into_iter().map(|fact| Observation::new(key, at, BY, fact));
        self.pending.extend(observations);
    }

    /// Shares exactly known facts with probes over REST, so that they do not report less exact ones in between. `live`: the
    /// session is up.
    pub(super) fn share(&self, facts: &GuildFacts, guilds: &Guilds, live: bool) {
        let mut shared = self.connection.emitted.lock();
        if !shared.is_empty() {
            let exact: BTreeSet<_> = guilds.exact().filter(|_| live).collect();
            shared.retain(|guild, _| exact.contains(guild));
        }
        for (guild, fact) in facts.iter().filter(|_| live) {
            match fact {
                // The guild's result comes first; what follows belongs to it.
                Fact::Permissions { method, .. } if method == GUILD_METHOD => {
                    shared.insert(*guild, vec![fact.clone()]);
                }
                Fact::Permissions { .. } => shared.entry(*guild).or_default().push(fact.clone()),
                Fact::Profile { fields } if fields.contains_key("permissionScope") => {
                    shared.entry(*guild).or_default().push(fact.clone());
                }
                _ => {}
            }
        }
    }
}
