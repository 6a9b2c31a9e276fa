//! The session that outlives the process: resumed from an earlier one, stored for the next.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::super::counts::Counts;
use super::super::guilds::Guilds;
use super::super::machine::{Machine, Session};
use super::super::replay_times::Replay;
use super::super::resume::{Claim, ResumeStore};
use crate::core::counters::Counters;
use crate::core::stream::evidence::StreamEvidence;
use crate::core::time::Timestamp;

/// How long after RESUMED the replay of an earlier process's session counts as over. The documentation does not say whether the
/// RESUMED of an earlier resume is replayed, too; then events of the replay follow it. Facts of that time are reported all the same.
const REPLAY_TAIL: Duration = Duration::from_secs(1);

/// The stored session, and the replay of what came after it.
pub(super) struct Resumption {
    resume_store: ResumeStore,
    /// The stored totals, while those of an earlier process's session catch up with them.
    stored: Option<BTreeMap<u64, Counters>>,
    pub(super) replay: Replay,
    /// When the replay of an earlier process's session counts as over.
    replay_ends_at: Option<Instant>,
}

impl Resumption {
    /// Stores sessions in `dir`, or not at all. `streams`: the stored evidence of the guilds' streams.
    pub(super) fn new(dir: Option<&Path>, streams: BTreeMap<u64, StreamEvidence>) -> Self {
        Self {
            resume_store: ResumeStore::new(dir),
            stored: None,
            replay: Replay::new(streams),
            replay_ends_at: None,
        }
    }

    /// Loads the session of an earlier process that was not ended, with the state of its guilds and its totals.
    pub(super) fn recall(
        &mut self,
        claim: &Claim<'_>,
        now: Timestamp,
        guilds: &mut Guilds,
        counts: &mut Counts,
    ) -> Option<Session> {
        let resume_state = self.resume_store.recall(claim, now)?;
        if !guilds.recall(resume_state.guilds) {
            return None;
        }
        self.replay.begin(resume_state.at);
        self.stored = Some(counts.replace_totals(resume_state.totals));
        Some(resume_state.session)
    }

    /// When [`Resumption::ends_replay`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.replay_ends_at
    }

    /// Records that Discord has resumed a session; returns whether it was one of this process. What an earlier process had
    /// reported becomes valid when the replay is over.
    pub(super) fn resumed(&mut self) -> bool {
        self.replay.resumed();
        if self.stored.is_some() {
            self.replay_ends_at = Some(Instant::now() + REPLAY_TAIL);
        }
        self.stored.is_none()
    }

    /// Records that the connection is lost.
    pub(super) fn lost(&mut self, at: Timestamp) {
        self.replay_ends_at = None;
        self.replay.lost(at);
    }

    /// Returns whether the replay is over: not while received frames are still to be read.
    pub(super) fn ends_replay(&mut self, now: Instant, caught_up: bool) -> bool {
        if self.replay_ends_at.is_none_or(|at| at > now) {
            return false;
        }
        if !caught_up {
            self.replay_ends_at = Some(now + REPLAY_TAIL);
        }
        caught_up
    }

    /// Ends the replay. Counting continues from the higher totals: the stored ones, or those of the resumed session.
    pub(super) fn end_replay(&mut self, counts: &mut Counts) {
        self.replay.end();
        self.replay_ends_at = None;
        if let Some(stored) = self.stored.take() {
            counts.totals.raise(&stored);
        }
    }

    /// Whether the session may be stored at `elapsed`, by the machine's clock.
    pub(super) fn may_keep(&self, elapsed: u64) -> bool {
        self.resume_store.is_rested(elapsed)
    }

    /// Stores the session for the next process, or deletes it when it has ended.
    pub(super) fn keep(
        &mut self,
        claim: &Claim<'_>,
        machine: &Machine,
        guilds: &Guilds,
        counts: &Counts,
        when: (Timestamp, u64),
    ) {
        let Some(session) = machine.session() else {
            return self.resume_store.forget();
        };
        let kept = self
            .resume_store
            .keep(claim, session, counts.totals.all(), guilds.image(), when);
        if let Err(error) = kept {
            debug!(
                error = &error as &dyn std::error::Error,
                "The session with Discord's gateway cannot be stored"
            );
        }
    }

    /// Deletes the stored session: it has ended.
    pub(super) fn forget(&mut self) {
        self.resume_store.forget();
    }
}
