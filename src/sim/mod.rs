//! The simulated platforms: real sockets on loopback, answers written by hand from the platforms' documentation.
//!
//! Nothing here is shared with `platforms/`: types used on both sides would let one mistake cancel itself out. Every
//! simulation owns its state, so one process can host as many as it likes. `docs/simulator.md` lists the controls.

pub mod clock;
mod control;
pub mod discord;
pub mod faults;
pub mod host;
pub mod journal;
pub mod kick;
pub mod twitch;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::clock::{Chance, Clock, SystemClock};

pub use clock::SimClock;
pub use discord::DiscordSim;
pub use faults::{Fault, FaultBody, WireFault};
pub use host::{Host, Server};
pub use kick::KickSim;
pub use twitch::TwitchSim;

/// Where and by which time the platforms run.
#[derive(Clone)]
pub struct SimOptions {
    /// The clock under the simulated one.
    pub clock: Arc<dyn Clock>,
    /// Where tokens, ids and jitter come from; a seeded one makes them repeatable.
    pub chance: Chance,
    /// Where Twitch listens; port 0 picks a free one.
    pub twitch: SocketAddr,
    /// Where Discord listens; port 0 picks a free one.
    pub discord: SocketAddr,
    /// Where Kick listens; port 0 picks a free one.
    pub kick: SocketAddr,
}

impl Default for SimOptions {
    /// Real time, fixed chance, free ports on loopback.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            chance: Chance::seeded(1),
            twitch: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            discord: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            kick: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        }
    }
}

/// All simulated platforms, sharing one clock. They stop when this is dropped.
pub struct Sim {
    /// The time of the simulation.
    pub clock: Arc<SimClock>,
    /// The simulated Twitch, empty until told otherwise.
    pub twitch: TwitchSim,
    /// The simulated Discord, empty until told otherwise.
    pub discord: DiscordSim,
    /// The simulated Kick, empty until told otherwise.
    pub kick: KickSim,
    _servers: Vec<Server>,
}

impl Sim {
    /// Starts every platform with an empty world.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let clock = SimClock::new(options.clock);
        let host = || Host::new(Arc::clone(&clock), options.chance.clone());
        let (twitch, twitch_server) = TwitchSim::start(host(), options.twitch).await?;
        let (discord, discord_server) = DiscordSim::start(host(), options.discord).await?;
        let (kick, kick_server) = KickSim::start(host(), options.kick).await?;
        Ok(Self {
            clock,
            twitch,
            discord,
            kick,
            _servers: vec![twitch_server, discord_server, kick_server],
        })
    }
}
