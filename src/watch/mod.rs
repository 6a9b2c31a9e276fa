//! The daemon: schedules and listeners on one side, what is known, told and kept on the other.
//!
//! ```text
//!  cron ─► ticks ─► lanes ─► Platform::probe ─┐
//!  listeners ─────────────────────────────────┴► intake ─► recorder ─► ledger (known + outbox, one transaction)
//!                                                              │             │
//!                                             news, now and then│             ▼
//!                                                              └► keeper   dispatcher ─► outlet (bus | persister)
//! ```
//!
//! It knows ports, never adapters; `app` puts them together.

pub mod attended;
pub mod dispatcher;
pub mod engine;
pub mod intake;
pub mod jumps;
pub mod lanes;
pub mod ledger;
pub mod listening;
pub mod lock;
pub mod outlets;
pub mod overview;
pub mod queue;
pub mod recorder;
pub mod room;
#[cfg(test)]
mod tests;
pub mod ticks;
pub mod told;
pub mod tracker;
pub mod volume;
