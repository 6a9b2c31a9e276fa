//! Discord's gateway, for `watch` only: one socket over which Discord sends changes.
//!
//! [`machine`] decides, [`guilds`] and [`counts`] apply events, [`listener`] executes, [`resume`] outlives the process.
//! Identifies are limited: 1,000 a day end every session of the bot and reset its token, so each is requested, recorded, and
//! refused long before that.

mod close;
mod counts;
pub(super) mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guilds;
mod jobs;
mod listener;
mod machine;
mod replay_times;
mod resume;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::counters::Counters;
use crate::core::source::SourceKey;
use crate::core::stream::evidence::StreamEvidence;

pub use listener::{GatewayListener, Shutdown};
pub use machine::Pace;
pub use status::{Board, Status};

/// Configuration of a listener.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The guilds to monitor.
    pub sources: Vec<SourceKey>,
    /// The name under which totals are stored.
    pub writer: String,
    /// The totals that this writer had stored.
    pub restored: BTreeMap<SourceKey, Counters>,
    /// What was stored of their streams, by which replayed events are recognized.
    pub streams: BTreeMap<SourceKey, StreamEvidence>,
    /// Identifies per day that this program may use, of the 1,000 shared by all programs with this token.
    pub identify_cap: usize,
    /// Session starts that must remain of Discord's limit, to leave them to other programs.
    pub identify_reserve: u64,
    /// The shortest time between two Identifies; Discord refuses more than one in 5 s.
    pub identify_spacing: Duration,
    /// Backoff between attempts to connect.
    pub pace: Pace,
    /// The board where the listener publishes its status.
    pub board: Arc<Board>,
    /// How long changed totals are collected before they are published together.
    pub flush: Duration,
    /// How long after READY a guild may be missing before it counts as having an outage.
    pub guild_patience: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            writer: "bitbrat".to_owned(),
            restored: BTreeMap::new(),
            streams: BTreeMap::new(),
            identify_cap: 50,
            identify_reserve: 200,
            identify_spacing: Duration::from_millis(5_500),
            pace: Pace::default(),
            board: Arc::default(),
            flush: Duration::from_secs(5),
            guild_patience: Duration::from_secs(20),
        }
    }
}
