//! The simulated platforms: real sockets on loopback, answers written by hand from the platforms' documentation.
//!
//! Nothing here is shared with `platforms/`: types used on both sides would let one mistake cancel itself out. Every
//! simulation owns its state, so one process can host as many as it likes. `docs/simulator.md` lists the controls.

pub mod clock;
mod control;
pub mod faults;
pub mod host;
pub mod journal;
pub mod wire;

pub use clock::SimClock;
pub use faults::{Fault, FaultBody, WireFault};
pub use host::{Host, Server};

#[cfg(test)]
mod tests;
