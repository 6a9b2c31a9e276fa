//! Converts reports of the gateway listener into facts for the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::super::super::facts;
use super::super::machine::{GatewayReport, Phase};
use super::{GatewayListener, REPLAY_TAIL};
use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, Fact, LinkState, Observation, Transport};
use crate::core::permission::GUILD_METHOD;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;

/// Origin of observations received over the gateway.
const BY: &str = "discord.gateway";
/// Weight of the newest heartbeat in the smoothed latency.
const SMOOTHING: f64 = 0.3;

impl GatewayListener {
    pub(super) fn announce(&mut self, report: GatewayReport) {
        match report {
            GatewayReport::Resumed => {
                debug!(platform = "discord", "The session with Discord's gateway goes on");
                self.options.board.write(|status| status.resumes += 1);
                self.replay.resumed();
                self.emit_all(|_| vec![facts::auth(true, None)]);
                if self.stored.is_some() {
                    self.replay_ends_at = Some(Instant::now() + REPLAY_TAIL);
                } else {
                    let available: Vec<_> = self.guilds.available().collect();
                    self.emit_up(&available, None);
                }
            }
            GatewayReport::HeartbeatAcknowledged(millis) => {
                let newest = millis.map(|millis| Duration::from_millis(millis).as_secs_f64() * 1_000.0);
                let smoothed = newest.map(|newest| {
                    self.latency
                        .map_or(newest, |old| old + SMOOTHING * (newest - old))
                });
                self.latency = smoothed.or(self.latency);
                let (now, latency) = (self.now(), self.latency.map(rounded));
                self.options.board.write(|status| {
                    status.last_heartbeat = Some(now);
                    status.latency_ms = latency;
                });
                let available: Vec<_> = self.guilds.available().collect();
                self.emit_up(&available, smoothed);
            }
            GatewayReport::Down { code, message } => {
                warn!(platform = "discord", %code, "Discord's gateway is lost: {message}");
                self.replay_ends_at = None;
                let lost_at = self.discord_now();
                self.replay.lost(lost_at);
                self.blame(code, &message);
                let monitored: Vec<_> = self.guilds.monitored().collect();
                self.counts.failed(monitored.iter().copied());
                let fact = facts::down(Transport::Gateway, code, &message);
                self.emit(monitored.into_iter().map(|id| (id, fact.clone())).collect());
            }
            GatewayReport::Refused { code, message } => {
                warn!(platform = "discord", %code, "Discord's gateway refuses: {message}");
                self.blame(code, &message);
                self.counts.failed(self.targets.keys().copied());
                self.emit_all(|_| vec![facts::refused(Transport::Gateway, code, &message)]);
            }
            GatewayReport::TokenDead => {
                warn!(platform = "discord", "Discord refuses the bot token");
                self.blame(Code::Unauthorized(PlatformName::Discord), facts::TOKEN_REFUSED);
                self.token_died = true;
                let at = self.connection.rest.dead_since();
                let mut fact = facts::auth(false, Some("the gateway or the API refused the token"));
                if let Fact::Auth { check, .. } = &mut fact {
                    check.rejected = !self.connection.rest.was_accepted();
                }
                self.emit_all_at(at.unwrap_or_else(|| self.now()), |_| vec![fact.clone()]);
                let refused = facts::refused(
                    Transport::Gateway,
                    Code::Unauthorized(PlatformName::Discord),
                    facts::TOKEN_REFUSED,
                );
                self.emit_all(|_| vec![refused.clone()]);
            }
            GatewayReport::Reconnected => {
                self.replay.resumed();
                let monitored: Vec<_> = self.guilds.monitored().collect();
                self.counts.reconnected(monitored.into_iter());
            }
            GatewayReport::Closed => {
                self.connection.emitted().clear();
                let monitored: Vec<_> = self.guilds.monitored().collect();
                let fact = facts::link(Transport::Gateway, LinkState::Closed);
                self.emit(monitored.into_iter().map(|id| (id, fact.clone())).collect());
            }
        }
    }

    /// Ends the replay of an earlier process's session: what that process had reported is valid again.
    pub(super) fn take_over(&mut self) {
        self.caught_up();
        let facts = self.guilds.republish(self.discord_now());
        self.timeout_end = self.guilds.next_timeout_end(self.discord_now());
        self.emit(facts);
    }

    fn emit_up(&mut self, guilds: &[u64], latency: Option<f64>) {
        let up = facts::link(Transport::Gateway, LinkState::Up);
        let millis = latency.map(rounded);
        let facts = guilds.iter().flat_map(|id| {
            let latency = millis.map(|millis| (*id, Fact::Latency { millis }));
            [(*id, up.clone())].into_iter().chain(latency)
        });
        self.emit(facts.collect());
    }

    pub(super) fn flush(&mut self) {
        let now = self.now();
        let writer = self.options.writer.clone();
        let changes = self.counts.take_changes(now);
        let facts = changes.into_iter().map(|(guild, totals)| {
            let writer = writer.clone();
            (guild, Fact::Counters { writer, totals })
        });
        self.emit(facts.collect());
    }

    pub(super) fn emit_all(&mut self, facts: impl Fn(u64) -> Vec<Fact>) {
        self.emit_all_at(self.now(), facts);
    }

    fn emit_all_at(&mut self, at: Timestamp, facts: impl Fn(u64) -> Vec<Fact>) {
        for id in self.targets.keys().copied().collect::<Vec<_>>() {
            self.emit_at(id, at, facts(id));
        }
    }

    pub(super) fn emit(&mut self, facts: Vec<(u64, Fact)>) {
        self.share(&facts);
        if facts.is_empty() {
            return;
        }
        let available = self.guilds.available().count();
        self.options.board.write(|status| status.available = available);
        let now = self.now();
        let mut by_guild: BTreeMap<u64, Vec<Fact>> = BTreeMap::new();
        for (id, fact) in facts {
            by_guild.entry(id).or_default().push(fact);
        }
        for (id, facts) in by_guild {
            self.emit_at(id, now, facts);
        }
    }

    /// Emits what follows from an event. While a session of an earlier process is replayed, facts that it has already stored
    /// keep their time: the same evidence again changes nothing and is published under the same id.
    pub(super) fn emit_replayed(&mut self, facts: Vec<(u64, Fact)>) {
        let (mut dated, mut new) = (Vec::new(), Vec::new());
        let now = self.discord_now();
        for (guild, fact) in facts {
            match self.replay.time_of(guild, &fact, now) {
                Some(at) => dated.push((guild, at, fact)),
                None => new.push((guild, fact)),
            }
        }
        for (guild, at, fact) in dated {
            if let Some(key) = self.targets.get(&guild) {
                self.pending.push_back(Observation::new(key, at, BY, fact));
            }
        }
        self.emit(new);
    }

    /// Emits facts that were observed together. Two events of one millisecond must not tie, because the order in which they were
    /// received is known only here; the later one is dated a millisecond later.
    fn emit_at(&mut self, guild: u64, at: Timestamp, facts: Vec<Fact>) {
        const DRIFT: i64 = 1_000;
        let Some(key) = self.targets.get(&guild) else {
            return;
        };
        let at = self.connection.rest.skew().correct(at);
        let last = self.emitted_at.get(&guild).copied();
        let behind = last.filter(|last| (0..DRIFT).contains(&last.millis_since(at)));
        let at = behind.map_or(at, |last| last.plus_millis(1));
        self.emitted_at.insert(guild, at);
        let observations = facts.into_iter().map(|fact| Observation::new(key, at, BY, fact));
        self.pending.extend(observations);
    }

    /// Shares exactly known facts with probes over REST, so that they do not report less exact ones in between.
    fn share(&self, facts: &[(u64, Fact)]) {
        let mut shared = self.connection.emitted();
        let live = matches!(self.machine.phase(), Phase::Live { .. } | Phase::Entering { .. });
        if !shared.is_empty() {
            let exact: BTreeSet<_> = self.guilds.exact().filter(|_| live).collect();
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

    /// Shows on the status board why the connection is down.
    fn blame(&self, code: Code, message: &str) {
        self.connection.emitted().clear();
        let error = ErrorInfo::new(code, message);
        self.options.board.write(|status| status.last_error = Some(error));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a heartbeat takes no longer than its interval"
)]
fn rounded(millis: f64) -> u64 {
    millis.round() as u64
}
