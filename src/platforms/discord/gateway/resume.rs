//! The session as stored for the next process: a killed process leaves its session alive, and resuming it costs no Identify.
//!
//! What is stored is one consistent snapshot: the sequence number of the last event, what followed from the events up to it, and
//! the totals counted up to it. Discord replays what came after, so a slightly old snapshot misses nothing and counts nothing
//! twice.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guilds::Image;
use super::machine::Session;
use crate::core::counters::Counters;
use crate::core::time::Timestamp;
use crate::files::{self, Durability, FileAccess};

/// The file in the state directory.
const FILE: &str = "discord-session.json";
/// Format version of the file; other versions are ignored.
const VERSION: u32 = 1;
/// Sessions stay alive for minutes after a loss, Discord documents no figure; an attempt that is too late costs a few seconds.
const MAX_AGE: Duration = Duration::from_mins(10);
/// Minimum interval between writes of the file (ms), longer for a larger file: a snapshot may be old.
const MIN_WRITE_INTERVAL: u64 = 5_000;
/// Bytes that may be written in a millisecond, on average.
const BYTES_A_MILLISECOND: u64 = 8;

/// The stored session. `I` is the state of the guilds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResumeState<I = Image> {
    pub(super) version: u32,
    /// Fingerprint of the token that the session belongs to.
    pub(super) token: String,
    /// Time of the snapshot.
    pub(super) at: Timestamp,
    pub(super) intents: u64,
    pub(super) session: Session,
    /// The name that the totals are counted under.
    pub(super) writer: String,
    pub(super) totals: BTreeMap<u64, Counters>,
    pub(super) guilds: I,
}

/// Identity of the process that requests a session.
#[derive(Debug, Clone)]
pub(super) struct Claim<'a> {
    pub(super) token: &'a str,
    pub(super) intents: u64,
    pub(super) writer: &'a str,
}

/// Storage of a session.
#[derive(Debug)]
pub(super) struct ResumeStore {
    path: Option<PathBuf>,
    /// The snapshot that was written last.
    written: Option<(Session, BTreeMap<u64, Counters>)>,
    /// Milliseconds, by the caller's clock, before which nothing is written again.
    rests_until: u64,
}

impl ResumeStore {
    /// Stores sessions in `dir`, or not at all.
    pub(super) fn new(dir: Option<&Path>) -> Self {
        Self {
            path: dir.map(|dir| dir.join(FILE)),
            written: None,
            rests_until: 0,
        }
    }

    /// Returns the session that an earlier process has left, if it may still be alive and matches the one that would be begun
    /// now.
    pub(super) fn recall(&self, claim: &Claim<'_>, now: Timestamp) -> Option<ResumeState> {
        let bytes = files::read_input(self.path.as_ref()?, files::LARGE).ok()?;
        let resume_state: ResumeState = serde_json::from_slice(&bytes).ok()?;
        let same = resume_state.version == VERSION
            && resume_state.token == claim.token
            && resume_state.intents == claim.intents
            && resume_state.writer == claim.writer;
        let is_recent = resume_state.at <= now && now.since(resume_state.at) < MAX_AGE;
        (same && is_recent).then_some(resume_state)
    }

    /// Returns whether something may be written at `elapsed`.
    pub(super) fn is_rested(&self, elapsed: u64) -> bool {
        self.path.is_some() && elapsed >= self.rests_until
    }

    /// Stores a snapshot, unless nothing has changed since the last one.
    pub(super) fn keep(
        &mut self,
        claim: &Claim<'_>,
        session: &Session,
        totals: &BTreeMap<u64, Counters>,
        guilds: Image<impl Serialize>,
        (now, elapsed): (Timestamp, u64),
    ) -> io::Result<()> {
        let same = |(old, counted): &(Session, BTreeMap<u64, Counters>)| old == session && counted == totals;
        let Some(path) = self
            .path
            .as_ref()
            .filter(|_| !self.written.as_ref().is_some_and(same))
        else {
            return Ok(());
        };
        let resume_state = ResumeState {
            version: VERSION,
            token: claim.token.to_owned(),
            at: now,
            intents: claim.intents,
            session: session.clone(),
            writer: claim.writer.to_owned(),
            totals: totals.clone(),
            guilds,
        };
        let bytes = serde_json::to_vec(&resume_state)?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.rests_until = elapsed.saturating_add(MIN_WRITE_INTERVAL.max(size / BYTES_A_MILLISECOND));
        let dir = path.parent().unwrap_or(Path::new("."));
        files::make_private_dir(dir)?;
        let durability = Durability::Volatile {
            because: "no session survives a power failure",
        };
        files::write(path, FileAccess::Owner, durability, |file| file.write_all(&bytes))?;
        self.written = Some((session.clone(), totals.clone()));
        Ok(())
    }

    /// Deletes the session: it has ended.
    pub(super) fn forget(&mut self) {
        self.written = None;
        if let Some(path) = &self.path {
            // If it cannot be removed, the next process finds that the session has ended.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::GuildOptions;
    use super::super::guilds::Guilds;
    use super::*;

    const CLAIM: Claim<'static> = Claim {
        token: "aa",
        intents: 513,
        writer: "one",
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    fn session(seq: u64) -> Session {
        Session {
            id: "a1".into(),
            url: "wss://resume".into(),
            seq,
        }
    }

    fn guilds() -> Guilds {
        Guilds::new([(9_001, GuildOptions::default())], None)
    }

    fn keep(resume_store: &mut ResumeStore, seq: u64, elapsed: u64) {
        let totals = BTreeMap::from([(9_001, Counters::default())]);
        let image = guilds();
        let when = (at(0), elapsed);
        resume_store
            .keep(&CLAIM, &session(seq), &totals, image.image(), when)
            .unwrap();
    }

    #[test]
    fn session_resumes_only_for_its_owner_while_valid() {
        let dir = tempfile::tempdir().unwrap();
        let mut resume_store = ResumeStore::new(Some(dir.path()));
        assert!(resume_store.recall(&CLAIM, at(0)).is_none(), "none was kept");
        keep(&mut resume_store, 7, 0);
        let recalled =
            |claim: &Claim<'_>, seconds| ResumeStore::new(Some(dir.path())).recall(claim, at(seconds));
        let resume_state = recalled(&CLAIM, 599).unwrap();
        assert_eq!(resume_state.session, session(7));
        assert!(guilds().recall(resume_state.guilds));
        for (what, claim, seconds) in [
            ("too late", CLAIM, 600),
            ("from the future", CLAIM, -1),
            ("another token", Claim { token: "bb", ..CLAIM }, 1),
            ("other intents", Claim { intents: 1, ..CLAIM }, 1),
            (
                "another name",
                Claim {
                    writer: "two",
                    ..CLAIM
                },
                1,
            ),
        ] {
            assert!(recalled(&claim, seconds).is_none(), "{what}");
        }
        resume_store.forget();
        assert!(recalled(&CLAIM, 1).is_none());
    }

    #[test]
    fn broken_file_or_missing_directory_yields_no_resume_state() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"version\":1,").unwrap();
        assert!(ResumeStore::new(Some(dir.path())).recall(&CLAIM, at(0)).is_none());
        let mut nowhere = ResumeStore::new(None);
        keep(&mut nowhere, 7, 0);
        assert!(!nowhere.is_rested(u64::MAX) && nowhere.recall(&CLAIM, at(0)).is_none());
    }

    #[test]
    fn writing_rests_in_between_and_longer_the_more_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut resume_store = ResumeStore::new(Some(dir.path()));
        keep(&mut resume_store, 7, 0);
        assert!(
            !resume_store.is_rested(MIN_WRITE_INTERVAL - 1) && resume_store.is_rested(MIN_WRITE_INTERVAL)
        );
        keep(&mut resume_store, 7, MIN_WRITE_INTERVAL);
        assert!(
            resume_store.is_rested(MIN_WRITE_INTERVAL),
            "nothing had changed, so nothing was written"
        );
        let many = Guilds::new((0..5_000).map(|id| (id, GuildOptions::default())), None);
        let when = (at(0), 0);
        resume_store
            .keep(&CLAIM, &session(8), &BTreeMap::new(), many.image(), when)
            .unwrap();
        assert!(!resume_store.is_rested(MIN_WRITE_INTERVAL));
    }

    #[test]
    fn guilds_that_were_not_known_before_are_not_taken_up() {
        let image = |guilds: &Guilds| serde_json::to_value(guilds.image()).unwrap();
        let resume_state = image(&guilds());
        let mut more = Guilds::new([1, 9_001].map(|id| (id, GuildOptions::default())), None);
        assert!(!more.recall(serde_json::from_value(resume_state).unwrap()));
    }
}
