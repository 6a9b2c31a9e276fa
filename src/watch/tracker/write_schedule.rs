//! What of each source is not written yet, and when it is written although no verdict has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::persist::write_policy::{Burst, Presentation};
use crate::store::Version;
use crate::store::sqlite::confirmations::{ConfirmedGroup, GROUPS, group_of};

/// Minimum time between two early writes because of changed names, titles or categories, after a few in a row (ms).
const EARLY_INTERVAL_MS: i64 = 60_000;

/// How long after the first observation of a source its name, title and viewers are a part of the baseline (ms).
const BASELINE_MS: i64 = 120_000;

/// Where changes that are no transitions are written periodically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The document in the file.
    File,
    /// The bus, or the remote store.
    Sink,
}

/// The writes of all sources to both destinations.
#[derive(Debug, Default)]
pub struct WriteSchedule {
    sources: HashMap<SourceKey, WriteState>,
    /// Whether a source's first name, title and viewer count are published before its regular heartbeat.
    pub publishes_baseline: bool,
    /// Sources that are due only to complete their baseline.
    completed: HashSet<SourceKey>,
    /// The number of the period in which each group of confirmed states was last due.
    group_turns: Vec<i64>,
}

/// What of a source is not written or published yet.
#[derive(Debug, Default)]
pub(super) struct WriteState {
    /// Version of the stored document on which the known one is based; `None` if there is none.
    pub(super) version: Option<Version>,
    /// Whether the stored document must not be replaced, because it cannot be used.
    pub(super) is_protected: bool,
    /// Whether totals have grown since the document was last written.
    counted: bool,
    /// Whether the state is not, or may not be, the stored document: a group of confirmed states must contain it.
    pub(super) is_newer: bool,
    /// Whether the document must be written: merging the state into the stored one would not give it, because dates were moved back.
    pub(super) is_rewritten: bool,
    pub(super) to_file: PeriodicWrite,
    pub(super) to_sink: PeriodicWrite,
    /// When it was first observed, if that was in this run.
    since: Option<Timestamp>,
}

/// When a source is written to one destination without a transition.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PeriodicWrite {
    /// Whether something was observed since the source was last written.
    is_dirty: bool,
    /// Whether the source is written before its time, for example because its title has changed since then.
    is_eager: bool,
    /// Whether its name, title or category became known since then, as a part of the baseline.
    completes_baseline: bool,
    next: Option<Timestamp>,
    /// Limits the early writes.
    early: Burst,
}

impl PeriodicWrite {
    /// Returns whether the source is to be written now, and marks it as written. It is due once per `period`, at its own `phase`;
    /// the first time is within a period after its first observation. With `eager`, it is due at once, within limits.
    fn mark_if_due(&mut self, now: Timestamp, period: i64, phase: impl Fn() -> i64, eager: bool) -> bool {
        // A clock that was set back must not delay a source for longer than a period.
        let ahead = self.next.is_some_and(|next| next.millis_since(now) > period);
        let reached = self.next.is_some_and(|next| next <= now);
        if self.next.is_none() || ahead || (reached && self.is_dirty) {
            let since = (now.as_millis() - phase()).rem_euclid(period);
            self.next = Some(now.plus_millis(period - since));
        }
        let early = eager && !(reached || ahead) && self.early.acquire(now, period.min(EARLY_INTERVAL_MS));
        let due = self.is_dirty && (reached || ahead || early);
        if due {
            self.mark_written();
        }
        due
    }

    pub(super) fn mark_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// Makes the source due at once, within limits.
    pub(super) fn mark_eager(&mut self) {
        (self.is_dirty, self.is_eager) = (true, true);
    }

    fn mark_written(&mut self) {
        (self.is_dirty, self.is_eager, self.completes_baseline) = (false, false, false);
    }
}

/// What a batch of inputs has changed of a source.
pub(super) struct Merged {
    /// Whether nothing was known of it before.
    pub(super) is_first: bool,
    /// Whether known evidence was dated in the future.
    pub(super) is_redated: bool,
    pub(super) before: Presentation,
    pub(super) after: Presentation,
    /// Whether the platform refuses requests since.
    pub(super) is_newly_refused: bool,
    pub(super) has_counted: bool,
    /// Whether a verdict has changed that was known.
    pub(super) has_changed: bool,
}

/// The sources of a group of confirmed states that is due, with the versions of their documents.
#[derive(Debug)]
pub(super) struct DueGroup {
    pub(super) number: u8,
    pub(super) sources: Vec<(SourceKey, Version)>,
}

impl WriteState {
    /// Returns the state of a source whose document was read. The document may contain confirmed evidence already.
    pub(super) fn restored(version: Version) -> Self {
        Self {
            version: Some(version),
            is_newer: true,
            ..Self::default()
        }
    }

    /// Marks the state to be written to the file.
    pub(super) fn mark_newer(&mut self) {
        self.is_newer = true;
        self.to_file.mark_dirty();
    }

    /// Whether the state can be written as a confirmation of the stored document.
    fn is_confirmable(&self) -> bool {
        self.version.is_some() && !self.is_protected && !self.is_rewritten
    }

    fn is_in_baseline(&self, now: Timestamp) -> bool {
        self.since
            .is_some_and(|since| now.millis_since(since).abs() < BASELINE_MS)
    }
}

impl WriteSchedule {
    pub(super) fn clear(&mut self) {
        self.sources.clear();
        self.completed.clear();
    }

    /// Replaces the state of a source.
    pub(super) fn set(&mut self, source: SourceKey, state: WriteState) {
        self.sources.insert(source, state);
    }

    /// Returns the state of a source; `None` if its stored document must not be replaced, or nothing is known of it.
    pub(super) fn unprotected(&self, source: &SourceKey) -> Option<&WriteState> {
        self.sources.get(source).filter(|state| !state.is_protected)
    }

    pub(super) fn entry(&mut self, source: &SourceKey) -> &mut WriteState {
        self.sources.entry(source.clone()).or_default()
    }

    /// Records what a batch of inputs has changed of a source.
    pub(super) fn record(&mut self, source: &SourceKey, merged: &Merged, now: Timestamp) {
        let state = self.sources.entry(source.clone()).or_default();
        if merged.is_first {
            state.since = Some(now);
        }
        state.is_rewritten |= merged.is_redated;
        state.is_newer = true;
        let differs = merged.before != merged.after;
        let completes = differs && state.is_in_baseline(now) && merged.after.completes(&merged.before);
        for write in [&mut state.to_file, &mut state.to_sink] {
            write.is_dirty = true;
            // A refusal is written at once although the status is an error already, as after a revocation: a login that another
            // process stores meanwhile would otherwise be followed by this older refusal, as if it were a new error.
            write.is_eager |= merged.is_newly_refused || (differs && !completes);
            write.completes_baseline |= completes;
        }
        state.counted |= merged.has_counted;
        if merged.has_changed {
            // What becomes known from now on is no part of the baseline any more.
            state.since = None;
            let sent = &mut state.to_sink;
            sent.is_eager |= std::mem::take(&mut sent.completes_baseline);
            self.completed.remove(source);
        }
    }

    /// Records that the document of `source` is stored as it is now.
    pub fn mark_stored(&mut self, source: &SourceKey, version: Version) {
        if let Some(state) = self.sources.get_mut(source) {
            state.version = Some(version);
            state.to_file.mark_written();
            (state.counted, state.is_newer, state.is_rewritten) = (false, false, false);
        }
    }

    /// Returns whether the stored document of a source cannot be used, and thus is not replaced.
    pub fn is_protected(&self, source: &SourceKey) -> bool {
        self.sources.get(source).is_some_and(|state| state.is_protected)
    }

    /// Returns those of `sources` whose totals have grown: totals that others have received must not be lost.
    pub fn uncounted(&self, sources: &[SourceKey]) -> Vec<SourceKey> {
        let has_grown = |source: &&SourceKey| self.sources.get(*source).is_some_and(|state| state.counted);
        sources.iter().filter(has_grown).cloned().collect()
    }

    /// Returns at most `limit` sources whose documents are to be written without a transition, and marks them as written: those with
    /// a changed name, title or category at once, within limits, and those whose state cannot be confirmed once per `period`.
    pub fn due_documents(&mut self, now: Timestamp, period: i64, limit: usize) -> Vec<SourceKey> {
        let due = self.sources.iter_mut().filter_map(|(source, state)| {
            let is_confirmable = state.is_confirmable();
            let write = &mut state.to_file;
            let is_eager = write.is_eager || write.completes_baseline;
            if is_confirmable && !is_eager {
                return None;
            }
            let is_due = write.mark_if_due(now, period, || phase_of(source, period), is_eager);
            is_due.then(|| source.clone())
        });
        due.take(limit).collect()
    }

    /// Returns the groups of confirmed states that are due, and marks them as written. Each is due once per `period`, at a time of its
    /// own, if something of it was observed since.
    pub(super) fn due_groups(&mut self, now: Timestamp, period: i64) -> Vec<DueGroup> {
        let is_first = self.group_turns.is_empty();
        self.group_turns.resize(GROUPS.into(), 0);
        let mut due = BTreeSet::new();
        for (number, turn) in (0..GROUPS).zip(&mut self.group_turns) {
            let phase = period * i64::from(number) / i64::from(GROUPS);
            let current = (now.as_millis() - phase).div_euclid(period.max(1));
            if std::mem::replace(turn, current) != current && !is_first {
                due.insert(number);
            }
        }
        if due.is_empty() {
            return Vec::new();
        }
        self.dirty_groups(|number| due.contains(&number))
    }

    /// Returns the groups of confirmed states with something that is not written yet, and marks them as written.
    pub(super) fn dirty_groups(&mut self, is_due: impl Fn(u8) -> bool) -> Vec<DueGroup> {
        let mut members: BTreeMap<u8, Vec<(SourceKey, Version)>> = BTreeMap::new();
        let mut dirty = BTreeSet::new();
        for (source, state) in &self.sources {
            let number = group_of(&source.to_string());
            if state.is_newer
                && state.is_confirmable()
                && is_due(number)
                && let Some(version) = &state.version
            {
                let group = members.entry(number).or_default();
                group.push((source.clone(), version.clone()));
                if state.to_file.is_dirty {
                    dirty.insert(number);
                }
            }
        }
        members.retain(|number, _| dirty.contains(number));
        for (source, _) in members.values().flatten() {
            if let Some(state) = self.sources.get_mut(source) {
                state.to_file.mark_written();
            }
        }
        let groups = members.into_iter();
        groups
            .map(|(number, sources)| DueGroup { number, sources })
            .collect()
    }

    /// Undoes the marks of groups that could not be written: they are due again at once.
    pub fn mark_unconfirmed(&mut self, groups: &[ConfirmedGroup]) {
        for group in groups {
            if let Some(turn) = self.group_turns.get_mut(usize::from(group.number)) {
                *turn = 0;
            }
            for state in &group.states {
                if let Some(state) = self.sources.get_mut(&state.source) {
                    state.to_file.mark_dirty();
                }
            }
        }
    }

    /// Returns at most `limit` sources that have changes since they were last written to the sink and are due, and marks them as
    /// written. A changed name, title or category makes a source due at once, within limits.
    pub fn due_for_sink(&mut self, now: Timestamp, period: i64, limit: usize) -> Vec<SourceKey> {
        let mut due = Vec::new();
        for (source, state) in &mut self.sources {
            if due.len() == limit {
                break;
            }
            let write = &mut state.to_sink;
            let completes = write.completes_baseline && self.publishes_baseline;
            let (is_eager, only_completes) = (completes || write.is_eager, completes && !write.is_eager);
            if write.mark_if_due(now, period, || phase_of(source, period), is_eager) {
                if only_completes {
                    self.completed.insert(source.clone());
                }
                due.push(source.clone());
            }
        }
        due
    }

    /// Returns whether a source that is due only completes its baseline, and clears that mark.
    pub fn completes_baseline(&mut self, source: &SourceKey) -> bool {
        self.completed.remove(source)
    }

    /// Undoes the mark that sources were written to the sink: they are due again at once.
    pub fn mark_due(&mut self, sources: &[SourceKey]) {
        for source in sources {
            self.completed.remove(source);
            if let Some(state) = self.sources.get_mut(source) {
                state.to_sink.mark_eager();
            }
        }
    }

    /// Returns every source that has changes since it was last written to `destination`, and marks it as written.
    pub fn take_dirty(&mut self, destination: Destination) -> Vec<SourceKey> {
        let mut dirty = Vec::new();
        for (source, state) in &mut self.sources {
            let write = match destination {
                Destination::File => &mut state.to_file,
                Destination::Sink => &mut state.to_sink,
            };
            if write.is_dirty {
                write.mark_written();
                dirty.push(source.clone());
            }
        }
        dirty
    }
}

/// A time within the period, the same for a source at every start.
fn phase_of(source: &SourceKey, period: i64) -> i64 {
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, source.to_string().as_bytes());
    i64::try_from(id.as_u64_pair().0 >> 1)
        .unwrap_or(0)
        .rem_euclid(period.max(1))
}
