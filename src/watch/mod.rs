//! The daemon: schedules and listeners produce observations; the writer stores state and publishes transitions.
//!
//! ```text
//!  cron ─► ticks ─► pollers ─► Platform::probe ─┐
//!  listeners ───────────────────────────────────┴► observations ─► writer ─► outbox (state + queue, one transaction)
//!                                                                    │             │
//!                                      periodic, without transitions │             ▼
//!                                                                    └► persister  dispatcher ─► sink (bus | persister)
//! ```
//!
//! It depends on ports, never on adapters; `app` connects them.

pub mod account_watch;
pub mod accounts;
pub mod admission;
pub mod clock_jumps;
pub mod dispatcher;
pub mod engine;
pub mod instance;
pub mod listeners;
pub mod lock;
pub mod monitored;
pub mod observations;
pub mod outbox;
pub mod outbox_tail;
pub mod overview;
pub mod pollers;
pub mod queue;
pub mod sinks;
#[cfg(test)]
mod tests;
pub mod ticks;
pub mod tracker;
pub mod volume;
pub mod writer;
