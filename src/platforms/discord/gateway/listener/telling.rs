//! What the gateway listener tells the sources: each piece of news as the facts that follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{debug, warn};

use super::super::super::facts;
use super::super::machine::{News, Phase};
use super::GatewayListener;
use crate::core::observation::{ErrorInfo, Fact, LinkState, Observation, Transport};
use crate::core::time::Timestamp;

/// Who tells what was learnt over the gateway.
const BY: &str = "discord.gateway";
/// Weight of the newest heartbeat in the smoothed latency.
const SMOOTHING: f64 = 0.3;

impl GatewayListener {
    pub(super) fn announce(&mut self, news: News) {
        match news {
            News::Resumed => {
                debug!(platform = "discord", "The session with Discord's gateway goes on");
                self.options.board.write(|status| status.resumes += 1);
                self.tell_all(|_| vec![facts::auth(true, None)]);
                if self.caught_up() {
                    // The session is another process's; what it had told is true again.
                    let told = self.guilds.retell(self.now());
                    self.timeout_ends = self.guilds.next_timeout_end(self.now());
                    self.tell(told);
                } else {
                    let available: Vec<_> = self.guilds.available().collect();
                    self.tell_up(&available, None);
                }
            }
            News::Beat(millis) => {
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
                self.tell_up(&available, smoothed);
            }
            News::Down { code, message } => {
                warn!(platform = "discord", code, "Discord's gateway is lost: {message}");
                self.blame(&code, &message);
                let attended: Vec<_> = self.guilds.attended().collect();
                self.counts.failed(attended.iter().copied());
                let fact = facts::down(Transport::Gateway, &code, &message);
                self.tell(attended.into_iter().map(|id| (id, fact.clone())).collect());
            }
            News::Refused { code, message } => {
                warn!(platform = "discord", code, "Discord's gateway refuses: {message}");
                self.blame(&code, &message);
                self.counts.failed(self.targets.keys().copied());
                self.tell_all(|_| vec![facts::refused(Transport::Gateway, &code, &message)]);
            }
            News::TokenDead => {
                warn!(platform = "discord", "Discord refuses the bot token");
                self.blame("discord.token_invalid", facts::TOKEN_REFUSED);
                self.token_died = true;
                let at = self.connection.rest.dead_since();
                self.tell_all_at(at.unwrap_or_else(|| self.now()), |_| {
                    vec![facts::auth(
                        false,
                        Some("the gateway or the API refused the token"),
                    )]
                });
                let refused =
                    facts::refused(Transport::Gateway, "discord.token_invalid", facts::TOKEN_REFUSED);
                self.tell_all(|_| vec![refused.clone()]);
            }
            News::Reconnected => {
                let attended: Vec<_> = self.guilds.attended().collect();
                self.counts.reconnected(attended.into_iter());
            }
            News::Ended => {
                self.connection.told().clear();
                let attended: Vec<_> = self.guilds.attended().collect();
                let fact = facts::link(Transport::Gateway, LinkState::Closed);
                self.tell(attended.into_iter().map(|id| (id, fact.clone())).collect());
            }
        }
    }

    fn tell_up(&mut self, guilds: &[u64], latency: Option<f64>) {
        let up = facts::link(Transport::Gateway, LinkState::Up);
        let millis = latency.map(rounded);
        let told = guilds.iter().flat_map(|id| {
            let latency = millis.map(|millis| (*id, Fact::Latency { millis }));
            [(*id, up.clone())].into_iter().chain(latency)
        });
        self.tell(told.collect());
    }

    pub(super) fn flush(&mut self) {
        let now = self.now();
        let writer = self.options.writer.clone();
        let changes = self.counts.take_changes(now);
        let told = changes.into_iter().map(|(guild, totals)| {
            let writer = writer.clone();
            (guild, Fact::Counters { writer, totals })
        });
        self.tell(told.collect());
    }

    pub(super) fn tell_all(&mut self, facts: impl Fn(u64) -> Vec<Fact>) {
        self.tell_all_at(self.now(), facts);
    }

    fn tell_all_at(&mut self, at: Timestamp, facts: impl Fn(u64) -> Vec<Fact>) {
        for id in self.targets.keys().copied().collect::<Vec<_>>() {
            self.tell_at(id, at, facts(id));
        }
    }

    pub(super) fn tell(&mut self, told: Vec<(u64, Fact)>) {
        self.share(&told);
        if told.is_empty() {
            return;
        }
        let available = self.guilds.available().count();
        self.options.board.write(|status| status.available = available);
        let now = self.now();
        let mut by_guild: BTreeMap<u64, Vec<Fact>> = BTreeMap::new();
        for (id, fact) in told {
            by_guild.entry(id).or_default().push(fact);
        }
        for (id, facts) in by_guild {
            self.tell_at(id, now, facts);
        }
    }

    /// Tells facts that were learnt together. Two events of one millisecond must not tie, because the order in which they
    /// came is known here and nowhere else; the later one is dated a millisecond later.
    fn tell_at(&mut self, guild: u64, at: Timestamp, facts: Vec<Fact>) {
        const DRIFT: i64 = 1_000;
        let Some(key) = self.targets.get(&guild) else {
            return;
        };
        let last = self.told_at.get(&guild).copied();
        let behind = last.filter(|last| (0..DRIFT).contains(&last.millis_since(at)));
        let at = behind.map_or(at, |last| last.plus_millis(1));
        self.told_at.insert(guild, at);
        let observations = facts.into_iter().map(|fact| Observation::new(key, at, BY, fact));
        self.pending.extend(observations);
    }

    /// Lets looks over REST know what is known exactly, so that they do not tell less exact things in between.
    fn share(&self, told: &[(u64, Fact)]) {
        let mut shared = self.connection.told();
        let live = matches!(self.machine.phase(), Phase::Live { .. } | Phase::Entering { .. });
        if !shared.is_empty() {
            let exact: BTreeSet<_> = self.guilds.exact().filter(|_| live).collect();
            shared.retain(|guild, _| exact.contains(guild));
        }
        for (guild, fact) in told.iter().filter(|_| live) {
            match fact {
                Fact::Permissions { .. } => {
                    shared.insert(*guild, vec![fact.clone()]);
                }
                Fact::Profile { fields } if fields.contains_key("permissionScope") => {
                    shared.entry(*guild).or_default().push(fact.clone());
                }
                _ => {}
            }
        }
    }

    /// Shows on the board why the connection is down.
    fn blame(&self, code: &str, message: &str) {
        self.connection.told().clear();
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
