//! The daemon: schedules and listeners produce observations; the writer stores documents and events; the dispatcher sends events.
//!
//! ```text
//!  cron ─► ticks ─► pollers ─► Platform::probe ─┐
//!  listeners ───────────────────────────────────┴► observations ─► writer ─► state file (documents + history + outbox;
//!                                                                    │         │      one transaction)
//!                          remote store: states without transitions  │         ▼
//!                                                                    │       dispatcher ─► sink (bus | remote store)
//!                                                                    └───────────────────► persister of the remote store
//! ```
//!
//! With SQLite and no bus there is neither a dispatcher nor a sink.
//!
//! It depends on ports, never on adapters; `app` connects them.

pub mod account_checks;
pub mod account_reports;
pub mod admission;
pub mod clock_jumps;
pub mod delays;
pub mod dispatcher;
pub mod engine;
pub mod fleet;
pub mod instance;
pub mod listener_context;
pub mod lock;
pub mod monitored;
pub mod observations;
pub mod overview;
pub mod pollers;
pub mod queue;
pub mod runs;
pub mod sent_events;
pub mod sinks;
pub mod state_file;
#[cfg(test)]
mod tests;
pub mod ticks;
pub mod tracker;
pub mod viewers;
pub mod volume;
pub mod writer;
