//! The platform against the simulated Discord, over real sockets.

mod bots;
mod faults;
mod gateway;
mod limits;
mod probes;
mod sessions;
mod worlds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::SecretString;

use super::{DiscordOptions, DiscordPlatform, GuildOptions};
use crate::clock::{Chance, Clock, OffsetClock, SystemClock};
use crate::core::document::{SourceDocument, SourceRecord};
use crate::core::evidence::Knowledge;
use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::{Platform, Probe, ProbeSet, ProbeSink, ProbeSummary};
use crate::sim::discord::{ChannelSpec, GuildSpec};
use crate::sim::{DiscordSim, Fault, Sim, SimOptions};

/// The bot, its token, and the guild that most tests are about.
pub(super) const BOT: u64 = 4001;
pub(super) const TOKEN: &str = "MTIz.secret-part.rest";
pub(super) const GUILD: u64 = 9_001;

/// A simulated Discord, a clock that can jump, and a state directory that processes share.
pub(super) struct Rig {
    pub(super) sim: Sim,
    pub(super) clock: Arc<OffsetClock>,
    pub(super) state: tempfile::TempDir,
}

impl Rig {
    /// Starts with one guild that has one text channel.
    pub(super) async fn start() -> Self {
        let rig = Self::empty().await;
        rig.discord().put_guild(&GuildSpec {
            id: GUILD,
            name: Some("Lab".into()),
            ..GuildSpec::default()
        });
        rig.discord().put_channel(&ChannelSpec {
            guild: GUILD,
            id: 9_200,
            ..ChannelSpec::default()
        });
        rig
    }

    /// Starts with the bot and no guild.
    pub(super) async fn empty() -> Self {
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        sim.discord.add_bot(BOT, "bitbrat", TOKEN, 0);
        Self {
            sim,
            clock: OffsetClock::new(Arc::new(SystemClock)),
            state: tempfile::tempdir().unwrap(),
        }
    }

    /// Advances the time here and at the platform. Where only our clock moves, responses are dated by `Date` headers to half a
    /// second, which may be before an observation made just now.
    pub(super) fn pass(&self, millis: i64) {
        self.clock.advance(millis);
        self.sim.clock.advance(millis);
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.discord().host().faults().add(fault);
    }

    pub(super) fn discord(&self) -> &DiscordSim {
        &self.sim.discord
    }

    pub(super) fn options(&self) -> DiscordOptions {
        DiscordOptions {
            api_url: self.discord().api_url(),
            bot_token: Some(SecretString::from(TOKEN)),
            state_dir: Some(self.state.path().to_owned()),
            timeout: Duration::from_secs(5),
            requests_per_second: 1_000,
            ..DiscordOptions::default()
        }
    }

    /// Returns the platform as another process would create it.
    pub(super) fn platform(&self, change: impl FnOnce(&mut DiscordOptions)) -> DiscordPlatform {
        let mut options = self.options();
        change(&mut options);
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        DiscordPlatform::new(options, clock, Chance::seeded(5)).unwrap()
    }

    /// Runs one probe, in a process of its own.
    pub(super) async fn probe_once(&self, probes: &[Probe], guilds: &[u64]) -> Seen {
        probe(&self.platform(|_| {}), probes, guilds).await
    }

    /// Runs one probe with these channels configured for the usual guild.
    pub(super) async fn probe_channels(&self, channels: &[u64]) -> Seen {
        let platform = self.platform(|options| {
            options.guilds.insert(
                GUILD,
                GuildOptions {
                    channels: channels.to_vec(),
                },
            );
        });
        probe(&platform, &[Probe::Permissions], &[GUILD]).await
    }

    pub(super) fn calls(&self, path: &str) -> u64 {
        self.discord()
            .host()
            .journal()
            .count("GET", &format!("/api/v10/{path}"))
    }

    pub(super) fn total_calls(&self) -> u64 {
        self.discord().host().journal().total()
    }
}

/// The observations of a probe.
pub(super) struct Seen {
    pub(super) summary: ProbeSummary,
    pub(super) observations: Vec<Observation>,
}

impl Seen {
    /// Returns the record of a guild, previously unknown, after the probe.
    pub(super) fn record(&self, guild: u64) -> SourceRecord {
        self.record_after(guild, &[])
    }

    /// Returns the record of a guild after earlier probes and this one.
    pub(super) fn record_after(&self, guild: u64, earlier: &[&Self]) -> SourceRecord {
        let key = key(guild);
        let all = earlier.iter().flat_map(|seen| &seen.observations);
        let of_guild = all
            .chain(&self.observations)
            .filter(|reported| reported.source == key);
        SourceDocument::from_knowledge(key.clone(), Knowledge::of(of_guild)).record()
    }

    pub(super) fn error_code(&self, guild: u64) -> Option<String> {
        self.record(guild).last_error.map(|error| error.code.to_string())
    }

    /// Returns whether this method of checking permissions gave a result.
    pub(super) fn answers(&self, name: &str) -> bool {
        let mut facts = self.observations.iter().map(|reported| &*reported.fact);
        facts.any(|fact| matches!(fact, Fact::Permissions { method, .. } if method == name))
    }

    /// Returns whether anything was observed about streams or permissions.
    pub(super) fn claims(&self) -> bool {
        self.observations.iter().any(|reported| {
            matches!(
                *reported.fact,
                Fact::Permissions { .. }
                    | Fact::StreamSeen { .. }
                    | Fact::StreamAbsent
                    | Fact::Viewers { .. }
            )
        })
    }
}

#[derive(Default)]
struct Collect {
    observations: Mutex<Vec<Observation>>,
    progress: Mutex<Vec<(usize, usize)>>,
}

impl ProbeSink for Collect {
    fn observe(&self, observation: Observation) {
        self.observations.lock().push(observation);
    }

    fn progress(&self, platform: PlatformName, done: usize, expected: usize) {
        assert_eq!(platform, PlatformName::Discord);
        assert!(done <= expected);
        self.progress.lock().push((done, expected));
    }
}

pub(super) fn key(guild: u64) -> SourceKey {
    SourceKey::new(PlatformName::Discord, &guild.to_string()).unwrap()
}

pub(super) async fn probe(platform: &DiscordPlatform, probes: &[Probe], guilds: &[u64]) -> Seen {
    let sink = Collect::default();
    let probes: ProbeSet = probes.iter().copied().collect();
    let sources: Vec<_> = guilds.iter().map(|id| key(*id)).collect();
    let summary = platform.probe(&probes, &sources, &sink).await;
    let observations = sink.observations.into_inner();
    let shown = format!("{summary:?}{observations:?}");
    assert!(!shown.contains("secret-part"), "the token shows: {shown}");
    Seen {
        summary,
        observations,
    }
}

pub(super) fn guild_options(options: GuildOptions) -> BTreeMap<u64, GuildOptions> {
    BTreeMap::from([(GUILD, options)])
}
