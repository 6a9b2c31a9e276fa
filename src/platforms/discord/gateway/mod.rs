//! Discord's gateway, for `watch` only: one socket over which Discord tells what changes.
//!
//! [`machine`] decides, [`guilds`] and [`counts`] learn, [`listener`] obeys, [`kept`] outlives the process. Identifies are rationed: 1,000 a day end every
//! session of the bot and reset its token, so each is asked for, put on record, and refused long before that.

mod close;
mod counts;
mod frames;
mod guilds;
mod jobs;
mod kept;
mod listener;
mod machine;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::counters::Counters;
use crate::core::source::SourceKey;

pub use listener::{Ending, GatewayListener};
pub use machine::Pace;
pub use status::{Board, Status};

/// How to listen.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The guilds to follow.
    pub sources: Vec<SourceKey>,
    /// The name under which totals are kept.
    pub writer: String,
    /// The totals that this writer had stored.
    pub restored: BTreeMap<SourceKey, Counters>,
    /// Whether messages of other bots and of webhooks count.
    pub count_bots: bool,
    /// Identifies a day that we allow ourselves, of the 1,000 that all programs with this token have together.
    pub identify_cap: usize,
    /// Session starts that Discord must have left, or we leave them to others.
    pub identify_reserve: u64,
    /// The shortest time between two Identifies; Discord refuses more than one in 5 s.
    pub identify_spacing: Duration,
    /// How long to wait between attempts to connect.
    pub pace: Pace,
    /// Where it is written how the listener stands.
    pub board: Arc<Board>,
    /// How long changed totals are held back to be told together.
    pub flush: Duration,
    /// How long after READY a guild may stay untold before it counts as suffering an outage.
    pub settle: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            writer: "bitbrat".to_owned(),
            restored: BTreeMap::new(),
            count_bots: false,
            identify_cap: 50,
            identify_reserve: 200,
            identify_spacing: Duration::from_millis(5_500),
            pace: Pace::default(),
            board: Arc::default(),
            flush: Duration::from_secs(5),
            settle: Duration::from_secs(20),
        }
    }
}
