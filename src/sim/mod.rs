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
pub mod replay;
pub mod tcp_faults;
pub mod twitch;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::clock::{Chance, Clock, SystemClock};
use crate::core::platform::{PlatformName, for_each_platform};

pub use clock::SimClock;
pub use discord::DiscordSim;
pub use faults::{Fault, FaultBody, WireFault};
pub use host::{Host, Server};
pub use kick::KickSim;
pub use kit::{DemoLogin, DemoPlatform, PlatformSim, Setting};
pub use twitch::TwitchSim;

macro_rules! simulated {
    ($($name:ident $module:ident $about:literal;)*) => {
        /// Addresses, clock and randomness of the platforms.
        #[derive(Clone)]
        pub struct SimOptions {
            /// The clock on which the simulated one is based.
            pub clock: Arc<dyn Clock>,
            /// Source of tokens, ids and jitter; a seeded one makes them reproducible.
            pub chance: Chance,
            $(#[doc = concat!("Address of ", stringify!($name), "; port 0 selects a free one.")] pub $module: SocketAddr,)*
        }

        impl SimOptions {
            /// Returns options with consecutive ports on loopback, the first for the first platform; 0 selects free ones.
            pub fn on_ports(first: u16) -> Self {
                let at = |platform: PlatformName| {
                    let port = if first == 0 { 0 } else { first + platform as u16 };
                    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
                };
                Self {
                    clock: Arc::new(SystemClock),
                    chance: Chance::seeded(1),
                    $($module: at(PlatformName::$name),)*
                }
            }
        }

        /// All simulated platforms, sharing one clock. They stop when this is dropped.
        pub struct Sim {
            /// The time of the simulation.
            pub clock: Arc<SimClock>,
            $(#[doc = concat!("The simulated ", stringify!($name), ", empty at first.")] pub $module: PlatformSim<$module::World>,)*
            _servers: Vec<Server>,
        }

        impl Sim {
            /// Starts every platform with an empty world.
            pub async fn start(options: SimOptions) -> io::Result<Self> {
                let clock = SimClock::new(options.clock);
                let host = Host::new(Arc::clone(&clock), options.chance);
                let mut servers = Vec::new();
                $(
                    let (sim, server) = PlatformSim::start(host.beside(), options.$module).await?;
                    servers.push(server);
                    let $module = sim;
                )*
                Ok(Self {
                    clock,
                    $($module,)*
                    _servers: servers,
                })
            }

            /// Returns a client's settings with the addresses of a platform.
            pub fn addresses(&self, platform: PlatformName) -> Vec<Setting> {
                match platform {
                    $(PlatformName::$name => self.$module.addresses(),)*
                }
            }

            /// Returns faults, journal and outages of a platform.
            pub fn host(&self, platform: PlatformName) -> &Host {
                match platform {
                    $(PlatformName::$name => self.$module.host(),)*
                }
            }

            /// Returns the base address of a platform; its control endpoints are below it.
            pub fn base(&self, platform: PlatformName) -> String {
                match platform {
                    $(PlatformName::$name => self.$module.http(),)*
                }
            }
        }

        /// The demo worlds of all platforms.
        pub struct DemoWorlds {
            $(#[doc = concat!("That of ", stringify!($name), ".")] pub $module: $module::demo::DemoWorld,)*
        }

        impl DemoWorlds {
            /// Fills the simulated platforms.
            pub fn populate(sim: &Sim) -> Self {
                Self {
                    $($module: $module::demo::populate(&sim.$module),)*
                }
            }

            /// Returns the world of one platform.
            pub fn of(&self, platform: PlatformName) -> &dyn DemoPlatform {
                match platform {
                    $(PlatformName::$name => &self.$module,)*
                }
            }
        }
    };
}
for_each_platform!(simulated);

impl Default for SimOptions {
    /// Real time, seeded randomness, free ports on loopback.
    fn default() -> Self {
        Self::on_ports(0)
    }
}
