//! The simulated platforms: real sockets on loopback, responses written by hand from the platforms' documentation.
//!
//! No code is shared with `platforms/`: with types used on both sides, a mistake could remain undetected. Every
//! simulation owns its state, so one process can host any number of them. `docs/simulator.md` lists the controls.

pub mod clock;
mod control;
pub mod directory;
pub mod discord;
pub mod faults;
pub mod host;
pub mod journal;
pub mod kick;
pub mod kit;
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
pub use kit::PlatformSim;
pub use twitch::TwitchSim;

/// Addresses, clock and randomness of the platforms.
#[derive(Clone)]
pub struct SimOptions {
    /// The clock on which the simulated one is based.
    pub clock: Arc<dyn Clock>,
    /// Source of tokens, ids and jitter; a seeded one makes them reproducible.
    pub chance: Chance,
    /// Address of Twitch; port 0 selects a free one.
    pub twitch: SocketAddr,
    /// Address of Discord; port 0 selects a free one.
    pub discord: SocketAddr,
    /// Address of Kick; port 0 selects a free one.
    pub kick: SocketAddr,
}

impl Default for SimOptions {
    /// Real time, seeded randomness, free ports on loopback.
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
    /// The simulated Twitch, empty at first.
    pub twitch: TwitchSim,
    /// The simulated Discord, empty at first.
    pub discord: DiscordSim,
    /// The simulated Kick, empty at first.
    pub kick: KickSim,
    _servers: Vec<Server>,
}

impl Sim {
    /// Starts every platform with an empty world.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let clock = SimClock::new(options.clock);
        let host = Host::new(Arc::clone(&clock), options.chance);
        let (twitch, twitch_server) = TwitchSim::start(host.beside(), options.twitch).await?;
        let (discord, discord_server) = DiscordSim::start(host.beside(), options.discord).await?;
        let (kick, kick_server) = KickSim::start(host.beside(), options.kick).await?;
        Ok(Self {
            clock,
            twitch,
            discord,
            kick,
            _servers: vec![twitch_server, discord_server, kick_server],
        })
    }
}
