//! The known state of each source, and its changes. Pure apart from its memory: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::account_watch::{AccountState, AccountWatch};
use super::observations::{Input, Tally};
use crate::core::compact::{CompactDocument, Interner};
use crate::core::document::SourceDocument;
use crate::core::evidence::{Knowledge, LinkNow, named_stream};
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::{Transition, transitions};
use crate::core::verdict::{NOTHING_PROVEN, Status, Verdict};
use crate::persist::write_policy::{Burst, Presentation};
use crate::store::sqlite::confirmations::{BLOCKS, ConfirmedBlock, ConfirmedState, block_of};
use crate::store::{HistoryEntry, Version, Versioned, Write};

/// Minimum time between two early writes because of changed names, titles or categories, after a few in a row (ms).
const EARLY_INTERVAL_MS: i64 = 60_000;

/// How long after the first observation of a source its name, title and viewers are a part of the baseline (ms).
const BASELINE_MS: i64 = 120_000;

/// The known state of every source.
#[derive(Debug, Default)]
pub struct Tracker {
    /// Name under which this process stores its totals; a command counts nothing.
    writer: Option<String>,
    sources: HashMap<SourceKey, SourceState>,
    interner: Interner,
    accounts: AccountWatch,
    live: BTreeSet<SourceKey>,
    by_status: BTreeMap<(PlatformName, Status), usize>,
    /// Whether a source's first name, title and viewer count are published before its regular heartbeat.
    pub publishes_baseline: bool,
    /// By how much our clock seems to be behind (ms): observations may be dated this far ahead of it.
    pub behind_by: i64,
    /// Sources that are due only to complete their baseline.
    completed: HashSet<SourceKey>,
    /// The number of the period in which each block of confirmed states was last due.
    block_turns: Vec<i64>,
}

#[derive(Debug)]
struct SourceState {
    document: CompactDocument,
    live: bool,
    status: Status,
    /// Version of the stored document on which this one is based; `None` if there is none.
    version: Option<Version>,
    pending: Pending,
}

impl SourceState {
    /// Whether the state can be written as a confirmation of the stored document.
    fn is_confirmable(&self) -> bool {
        self.version.is_some() && !self.pending.is_blocked && !self.pending.is_rewritten
    }
}

/// What of a source is not written or published yet.
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    /// Whether the stored document must not be replaced, because it cannot be used.
    is_blocked: bool,
    /// Whether totals have grown since the document was last written.
    counted: bool,
    /// Whether the state is not, or may not be, the stored document: a block of confirmed states must contain it.
    is_newer: bool,
    /// Whether the document must be written: merging the state into the stored one would not give it, because dates were moved back.
    is_rewritten: bool,
    to_file: Confirmation,
    to_sink: Confirmation,
    /// When it was first observed, if that was in this run.
    since: Option<Timestamp>,
}

impl Pending {
    /// Marks the state to be written to the file.
    fn moved_in_file(&mut self) {
        self.is_newer = true;
        self.to_file.moved = true;
    }
}

/// Where changes that are no transitions are written periodically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The document in the file.
    File,
    /// The bus, or the remote store.
    Sink,
}

/// When a source is written again without a transition.
#[derive(Debug, Clone, Copy, Default)]
struct Confirmation {
    /// Whether something was observed since the source was last written.
    moved: bool,
    /// Whether the name, title or category has changed since then.
    renamed: bool,
    /// Whether they became known as a part of the baseline.
    named: bool,
    next: Option<Timestamp>,
    /// Limits how often such changes cause an early write.
    early: Burst,
}

impl Confirmation {
    /// Returns whether the source is to be written now, and marks it as written. It is due once per `period`, at its own `phase`;
    /// the first time is within a period after its first observation. With `eager`, it is due at once, within limits.
    fn take(&mut self, now: Timestamp, period: i64, phase: impl Fn() -> i64, eager: bool) -> bool {
        // A clock that was set back must not delay a source for longer than a period.
        let ahead = self.next.is_some_and(|next| next.millis_since(now) > period);
        let reached = self.next.is_some_and(|next| next <= now);
        if self.next.is_none() || ahead || (reached && self.moved) {
            let since = (now.as_millis() - phase()).rem_euclid(period);
            self.next = Some(now.plus_millis(period - since));
        }
        let early = eager && !(reached || ahead) && self.early.take(now, period.min(EARLY_INTERVAL_MS));
        let due = self.moved && (reached || ahead || early);
        if due {
            self.mark_written();
        }
        due
    }

    fn mark_written(&mut self) {
        (self.moved, self.renamed, self.named) = (false, false, false);
    }
}

/// The changes of one source by a batch.
#[derive(Debug)]
pub struct Change {
    pub source: SourceKey,
    /// The source before the batch.
    pub before: CompactDocument,
    /// The changes of its verdicts, step by step; there is at least one.
    pub steps: Vec<Step>,
}

impl Change {
    /// Returns the write of the new document and its history.
    fn write(&self, base: Option<Version>, now: Timestamp) -> Option<Write> {
        Some(Write {
            document: self.steps.last()?.after.clone(),
            base,
            history: self.history(now),
        })
    }

    /// Returns the transitions to record. A status before any evidence of the connection is none.
    pub fn transitions(&self) -> impl Iterator<Item = &Transition> {
        let changes = self.steps.iter().flat_map(|step| &step.changes);
        changes.filter(|change| !(change.initial && change.rule == NOTHING_PROVEN))
    }

    fn history(&self, now: Timestamp) -> Vec<HistoryEntry> {
        self.transitions()
            .map(|change| HistoryEntry::new(&self.source, now, change.clone()))
            .collect()
    }
}

/// One observation that changed a verdict.
#[derive(Debug)]
pub struct Step {
    /// The source after the observation.
    pub after: SourceDocument,
    pub changes: Vec<Transition>,
    /// The origin of the observation.
    pub by: String,
    /// Whether nothing was known before.
    pub first: bool,
    /// Whether nothing had been claimed about the connection before, or we had closed it ourselves.
    pub unproven_before: bool,
}

impl Step {
    /// Joins `more` and returns the step, if it changes the verdict since `before`.
    fn of(document: &mut SourceDocument, before: Option<Verdict>, more: Knowledge, by: &str) -> Option<Self> {
        let before = before.unwrap_or_else(|| document.verdict.clone());
        document.join(more);
        let changes = transitions(&before, &document.verdict);
        (!changes.is_empty()).then(|| Self {
            first: nothing_known(&before),
            unproven_before: matches!(before.status.rule, "status.nothing-proven" | "status.closed"),
            after: document.clone(),
            changes,
            by: by.to_owned(),
        })
    }
}

impl Tracker {
    /// Creates an empty tracker. `writer` is the name under which this process stores its totals.
    pub fn new(writer: &str) -> Self {
        Self {
            writer: Some(writer.to_owned()),
            publishes_baseline: true,
            ..Self::default()
        }
    }

    /// Creates an empty tracker for a command, which merges a few hundred sources at a time and counts nothing.
    pub fn of_command() -> Self {
        Self {
            interner: Interner::of_whole_documents(),
            publishes_baseline: true,
            ..Self::default()
        }
    }

    pub fn clear(&mut self) {
        self.sources.clear();
        self.live.clear();
        self.by_status.clear();
        self.completed.clear();
    }

    pub fn restore(&mut self, stored: Versioned<SourceDocument>) {
        self.accounts.restore(&stored.value.knowledge);
        let source = stored.value.key.clone();
        // The document may contain confirmed evidence already.
        let pending = Pending {
            is_newer: true,
            ..Pending::default()
        };
        let state = self.state(stored.value, Some(stored.version), pending);
        self.insert(source, state);
    }

    /// Restores a source from its stored document, of which a part was dropped.
    pub fn restore_healed(&mut self, stored: Versioned<SourceDocument>) {
        let source = stored.value.key.clone();
        self.restore(stored);
        if let Some(state) = self.sources.get_mut(&source) {
            state.pending.is_rewritten = true;
        }
    }

    /// Keeps the stored document of `source`, which cannot be used, from being replaced. Returns whether it was not yet known.
    pub fn block(&mut self, source: &SourceKey) -> bool {
        if let Some(state) = self.sources.get_mut(source) {
            return !std::mem::replace(&mut state.pending.is_blocked, true);
        }
        let pending = Pending {
            is_blocked: true,
            ..Pending::default()
        };
        let state = self.state(SourceDocument::new(source.clone()), None, pending);
        self.insert(source.clone(), state);
        true
    }

    /// Merges a remote store's state of a source from before this process started, without a transition: the process that stored
    /// it has recorded its changes. With `publish`, a source that was not restored is due at once, because it may never have been
    /// published. Returns whether a restored verdict has changed.
    pub fn merge_stored(&mut self, source: &SourceKey, stored: &Knowledge, publish: bool) -> bool {
        self.accounts.restore(stored);
        let before = self.document(source);
        let restored = before.is_some();
        let mut document = before.unwrap_or_else(|| SourceDocument::new(source.clone()));
        let (known, verdict) = (document.knowledge.clone(), document.verdict.clone());
        document.join(stored.clone());
        let changed = restored && !transitions(&verdict, &document.verdict).is_empty();
        let is_behind = document.knowledge != *stored;
        if document.knowledge != known {
            let (version, mut pending) = self.kept(source);
            pending.to_sink.moved = is_behind || (publish && !restored);
            pending.to_sink.renamed = publish && !restored;
            pending.moved_in_file();
            let state = self.state(document, version, pending);
            self.insert(source.clone(), state);
        }
        changed
    }

    /// Merges what was published about a source, which is evidence of our own. Returns the document.
    pub fn merge_published(&mut self, source: &SourceKey, published: Knowledge) -> SourceDocument {
        let mut document = self
            .document(source)
            .unwrap_or_else(|| SourceDocument::new(source.clone()));
        let known = document.knowledge.clone();
        document.join(published);
        if document.knowledge != known {
            let (version, mut pending) = self.kept(source);
            pending.moved_in_file();
            let state = self.state(document.clone(), version, pending);
            self.insert(source.clone(), state);
        }
        document
    }

    /// Moves evidence that is dated ahead of `latest` to it, after our clock was set back, and marks its sources to be written at
    /// once: their ages would be wrong until they are observed again.
    pub fn settle(&mut self, latest: Timestamp) {
        let sources: Vec<SourceKey> = self.sources.keys().cloned().collect();
        for source in sources {
            let Some(mut document) = self.document(&source) else {
                continue;
            };
            if document.settle_future(latest) {
                let (version, mut pending) = self.kept(&source);
                pending.is_rewritten = true;
                for confirmation in [&mut pending.to_file, &mut pending.to_sink] {
                    (confirmation.moved, confirmation.renamed) = (true, true);
                }
                let state = self.state(document, version, pending);
                self.insert(source, state);
            }
        }
    }

    /// Moves `source` onto the document that another process has stored since, with the steps that were not committed. Returns the
    /// change that remains: what the other process has recorded is none.
    pub fn rebase(
        &mut self,
        source: &SourceKey,
        steps: Vec<Step>,
        stored: Option<Versioned<SourceDocument>>,
    ) -> Change {
        let (mut document, version) = match stored {
            Some(stored) => (stored.value, Some(stored.version)),
            None => (SourceDocument::new(source.clone()), None),
        };
        self.accounts.restore(&document.knowledge);
        let before = self.interner.document(document.clone());
        let mut rebased: Vec<Step> = steps
            .into_iter()
            .filter_map(|step| Step::of(&mut document, None, step.after.knowledge, &step.by))
            .collect();
        if let Some(ours) = self.document(source) {
            rebased.extend(Step::of(&mut document, None, ours.knowledge, "bitbrat.watch"));
        }
        if let Some(last) = rebased.last_mut() {
            last.after.clone_from(&document);
        }
        let (_, mut pending) = self.kept(source);
        pending.is_blocked = false;
        pending.is_rewritten = true;
        // At once: what was confirmed of the document that this one has replaced does not count any more.
        (pending.to_file.moved, pending.to_file.renamed) = (true, true);
        pending.to_sink.moved = true;
        let state = self.state(document, version, pending);
        self.insert(source.clone(), state);
        Change {
            source: source.clone(),
            before,
            steps: rebased,
        }
    }

    /// Records that the document of `source` is stored as it is now.
    pub fn mark_stored(&mut self, source: &SourceKey, version: Version) {
        if let Some(state) = self.sources.get_mut(source) {
            state.version = Some(version);
            let pending = &mut state.pending;
            pending.to_file.mark_written();
            (pending.counted, pending.is_newer, pending.is_rewritten) = (false, false, false);
        }
    }

    /// Processes inputs and returns the sources with changed verdicts, in the order of their first input.
    pub fn take(&mut self, inputs: Vec<Input>, now: Timestamp) -> Vec<Change> {
        let mut order: Vec<(SourceKey, Vec<Input>)> = Vec::new();
        let mut places: HashMap<SourceKey, usize> = HashMap::new();
        for input in inputs {
            let place = *places.entry(input.source().clone()).or_insert_with(|| {
                order.push((input.source().clone(), Vec::new()));
                order.len() - 1
            });
            order[place].1.push(input);
        }
        let changes = order
            .into_iter()
            .filter_map(|(source, inputs)| self.take_one(source, inputs, now));
        changes.collect()
    }

    fn take_one(&mut self, source: SourceKey, mut inputs: Vec<Input>, now: Timestamp) -> Option<Change> {
        // Inputs that only describe a source come first: the event of a change then includes the title, category, viewers and
        // name that the same answer reported. The result of a merge does not depend on the order.
        inputs.sort_by_key(|input| !describes(input));
        let known = self.document(&source);
        let (version, mut pending) = self.kept(&source);
        if known.is_none() {
            pending.since = Some(now);
        }
        let mut document = known.unwrap_or_else(|| SourceDocument::new(source.clone()));
        // All of it was dated by this machine's clock, which may have been set back since.
        let unsettled = document.verdict.clone();
        let latest = now.plus_millis(self.behind_by);
        let mut unsettled = document.settle_future(latest).then_some(unsettled);
        pending.is_rewritten |= unsettled.is_some();
        pending.is_newer = true;
        let presented = Presentation::of(&document.knowledge);
        let was_refused = document.knowledge.evidence.is_refused();
        let mut steps = Vec::new();
        let mut tally = Tally::default();
        let only_describes = inputs.iter().all(describes);
        for input in inputs {
            match input {
                Input::Counted(_, more) => add(&mut tally, more),
                Input::Observed(observation) if describes_source(&observation) => {
                    let observation = document.knowledge.receive(observation, latest);
                    document.join_description(Knowledge::from(&observation));
                }
                Input::Observed(observation) => {
                    let mut observation = document.knowledge.receive(observation, latest);
                    document.knowledge.name_end(&mut observation);
                    name_start(&document.verdict, &mut observation);
                    add(&mut tally, counted(&document, &observation));
                    self.accounts.observe(&observation);
                    let more = Knowledge::from(&observation);
                    steps.extend(Step::of(&mut document, unsettled.take(), more, &observation.by));
                }
            }
        }
        if only_describes || unsettled.is_some() {
            steps.extend(Step::of(
                &mut document,
                unsettled.take(),
                Knowledge::default(),
                "bitbrat.watch",
            ));
        }
        if let Some(writer) = self.writer.as_ref().filter(|_| tally != Tally::default()) {
            let totals = document.knowledge.counters.entry(writer.clone()).or_default();
            totals.messages_in += tally.messages_in;
            totals.messages_out += tally.messages_out;
            totals.errors += tally.errors;
            totals.reconnects += tally.reconnects;
            totals.at = Some(now);
            for step in &mut steps {
                step.after
                    .knowledge
                    .counters
                    .clone_from(&document.knowledge.counters);
            }
        }
        if let Some(last) = steps.last_mut() {
            // The inputs after the last change belong to its event: a refusal that came with a revocation must not be unknown to
            // a writer that finds the account valid again.
            last.after.clone_from(&document);
        }
        let presents = Presentation::of(&document.knowledge);
        let differs = presented != presents;
        let is_baseline = pending
            .since
            .is_some_and(|since| now.millis_since(since).abs() < BASELINE_MS);
        let completes = differs && is_baseline && presents.completes(&presented);
        // Written at once although the status is an error already, as after a revocation: a login that another process stores
        // meanwhile would otherwise be followed by this older refusal, as if it were a new error.
        let is_newly_refused = document.knowledge.evidence.is_refused() && !was_refused;
        for confirmation in [&mut pending.to_file, &mut pending.to_sink] {
            confirmation.moved = true;
            confirmation.renamed |= is_newly_refused || (differs && !completes);
            confirmation.named |= completes;
        }
        pending.counted |= tally != Tally::default();
        if steps
            .iter()
            .flat_map(|step| &step.changes)
            .any(|change| !change.initial)
        {
            // What becomes known from now on is no part of the baseline any more.
            pending.since = None;
            let sent = &mut pending.to_sink;
            sent.renamed |= std::mem::take(&mut sent.named);
            self.completed.remove(&source);
        }
        let state = self.state(document, version, pending);
        let old = self.insert(source.clone(), state);
        (!steps.is_empty()).then(|| Change {
            before: old.unwrap_or_else(|| self.interner.document(SourceDocument::new(source.clone()))),
            source,
            steps,
        })
    }

    /// Returns what a new state of `source` takes over from the old one.
    fn kept(&self, source: &SourceKey) -> (Option<Version>, Pending) {
        let old = self.sources.get(source);
        old.map_or_else(Default::default, |old| (old.version.clone(), old.pending))
    }

    fn state(&mut self, document: SourceDocument, version: Option<Version>, pending: Pending) -> SourceState {
        SourceState {
            live: document.verdict.stream.value == StreamStatus::Online,
            status: document.verdict.status.value,
            document: self.interner.document(document),
            version,
            pending,
        }
    }

    /// Sets the state of a source. Returns its document before.
    fn insert(&mut self, source: SourceKey, state: SourceState) -> Option<CompactDocument> {
        let (platform, live, status) = (source.platform(), state.live, state.status);
        let before = self.sources.insert(source.clone(), state);
        *self.by_status.entry((platform, status)).or_default() += 1;
        if let Some(before) = &before
            && let Some(count) = self.by_status.get_mut(&(platform, before.status))
        {
            *count -= 1;
        }
        self.by_status.retain(|_, count| *count > 0);
        if live {
            self.live.insert(source);
        } else if before.as_ref().is_some_and(|before| before.live) {
            self.live.remove(&source);
        }
        before.map(|before| before.document)
    }

    /// Returns whether anything is known about a source.
    pub fn knows(&self, source: &SourceKey) -> bool {
        self.sources.contains_key(source)
    }

    /// Returns the known document of a source in its compact form.
    pub fn compact(&self, source: &SourceKey) -> Option<CompactDocument> {
        self.sources.get(source).map(|state| state.document.clone())
    }

    /// Returns the document that follows from the known state; `None` if nothing is known.
    pub fn document(&self, source: &SourceKey) -> Option<SourceDocument> {
        Some(self.sources.get(source)?.document.document(source))
    }

    /// Returns whether the stored document of a source cannot be used, and thus is not replaced.
    pub fn is_blocked(&self, source: &SourceKey) -> bool {
        self.sources
            .get(source)
            .is_some_and(|state| state.pending.is_blocked)
    }

    /// Returns the write of a change; `None` if the stored document must not be replaced.
    pub fn write_of(&self, change: &Change, now: Timestamp) -> Option<Write> {
        let state = self.sources.get(&change.source)?;
        (!state.pending.is_blocked).then(|| change.write(state.version.clone(), now))?
    }

    /// Returns the write of the current document with this history; `None` if the stored one must not be replaced.
    pub fn write(&self, source: &SourceKey, history: Vec<HistoryEntry>) -> Option<Write> {
        let state = self.sources.get(source)?;
        (!state.pending.is_blocked).then(|| Write {
            document: state.document.document(source),
            base: state.version.clone(),
            history,
        })
    }

    /// Returns those of `sources` whose totals have grown: totals that others have received must not be lost.
    pub fn uncounted(&self, sources: &[SourceKey]) -> Vec<SourceKey> {
        let has_grown = |source: &&SourceKey| {
            let state = self.sources.get(*source);
            state.is_some_and(|state| state.pending.counted)
        };
        sources.iter().filter(has_grown).cloned().collect()
    }

    /// Returns at most `limit` sources whose documents are to be written without a transition, and marks them as written: those with
    /// a changed name, title or category at once, within limits, and those whose state cannot be confirmed once per `period`.
    pub fn due_documents(&mut self, now: Timestamp, period: i64, limit: usize) -> Vec<SourceKey> {
        let due = self.sources.iter_mut().filter_map(|(source, state)| {
            let is_confirmable = state.is_confirmable();
            let confirmation = &mut state.pending.to_file;
            let is_eager = confirmation.renamed || confirmation.named;
            if is_confirmable && !is_eager {
                return None;
            }
            let is_due = confirmation.take(now, period, || phase_of(source, period), is_eager);
            is_due.then(|| source.clone())
        });
        due.take(limit).collect()
    }

    /// Returns the blocks of confirmed states that are due, and marks them as written. Each is due once per `period`, at a time of its
    /// own, if something of it was observed since.
    pub fn due_blocks(&mut self, now: Timestamp, period: i64) -> Vec<ConfirmedBlock> {
        let is_first = self.block_turns.is_empty();
        self.block_turns.resize(BLOCKS.into(), 0);
        let mut due = BTreeSet::new();
        for (number, turn) in (0..BLOCKS).zip(&mut self.block_turns) {
            let phase = period * i64::from(number) / i64::from(BLOCKS);
            let current = (now.as_millis() - phase).div_euclid(period.max(1));
            if std::mem::replace(turn, current) != current && !is_first {
                due.insert(number);
            }
        }
        if due.is_empty() {
            return Vec::new();
        }
        self.blocks(|number| due.contains(&number))
    }

    /// Returns all blocks of confirmed states with something that is not written yet, and marks them as written.
    pub fn all_blocks(&mut self) -> Vec<ConfirmedBlock> {
        self.blocks(|_| true)
    }

    fn blocks(&mut self, is_due: impl Fn(u8) -> bool) -> Vec<ConfirmedBlock> {
        let mut members: BTreeMap<u8, Vec<SourceKey>> = BTreeMap::new();
        let mut moved = BTreeSet::new();
        for (source, state) in &mut self.sources {
            let number = block_of(&source.to_string());
            if state.pending.is_newer && state.is_confirmable() && is_due(number) {
                members.entry(number).or_default().push(source.clone());
                if state.pending.to_file.moved {
                    moved.insert(number);
                }
            }
        }
        members.retain(|number, _| moved.contains(number));
        let mut blocks = Vec::with_capacity(members.len());
        for (number, sources) in members {
            let states = sources.into_iter().filter_map(|source| self.confirmed(source));
            blocks.push(ConfirmedBlock {
                number,
                states: states.collect(),
            });
        }
        blocks
    }

    fn confirmed(&mut self, source: SourceKey) -> Option<ConfirmedState> {
        let state = self.sources.get_mut(&source)?;
        state.pending.to_file.mark_written();
        let document = state.document.document(&source);
        Some(ConfirmedState {
            summary: SourceSummary::of(&document).to_bytes(),
            knowledge: match &state.document {
                CompactDocument::Ours(knowledge) => knowledge.clone(),
                CompactDocument::WithForeign(_) | CompactDocument::Whole(_) => {
                    self.interner.compact(document.knowledge)
                }
            },
            base: state.version.clone()?,
            source,
        })
    }

    /// Undoes the marks of blocks that could not be written: they are due again at once.
    pub fn mark_unconfirmed(&mut self, blocks: &[ConfirmedBlock]) {
        for block in blocks {
            if let Some(turn) = self.block_turns.get_mut(usize::from(block.number)) {
                *turn = 0;
            }
            for state in &block.states {
                if let Some(state) = self.sources.get_mut(&state.source) {
                    state.pending.to_file.moved = true;
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
            let confirmation = &mut state.pending.to_sink;
            let is_named = confirmation.named && self.publishes_baseline;
            let completes = is_named && !confirmation.renamed;
            let is_eager = is_named || confirmation.renamed;
            if confirmation.take(now, period, || phase_of(source, period), is_eager) {
                if completes {
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
                let confirmation = &mut state.pending.to_sink;
                (confirmation.moved, confirmation.renamed) = (true, true);
            }
        }
    }

    /// Returns every source that has changes since it was last written to `destination`, and marks it as written.
    pub fn take_dirty(&mut self, destination: Destination) -> Vec<SourceKey> {
        let mut dirty = Vec::new();
        for (source, state) in &mut self.sources {
            let confirmation = match destination {
                Destination::File => &mut state.pending.to_file,
                Destination::Sink => &mut state.pending.to_sink,
            };
            if confirmation.moved {
                confirmation.mark_written();
                dirty.push(source.clone());
            }
        }
        dirty
    }

    /// Returns the newest check of every account.
    pub fn accounts(&self) -> Vec<AccountState> {
        self.accounts.states()
    }

    /// Logs the accounts whose state has changed, once for all sources that need them.
    pub fn report_accounts(&mut self) {
        let sources = &self.sources;
        self.accounts.report(|identity| {
            let needs = |(source, state): &(&SourceKey, &SourceState)| {
                let known = state.document.document(source).knowledge;
                known.evidence.auth.contains_key(identity)
            };
            sources.iter().filter(needs).count()
        });
    }

    pub fn live(&self) -> &BTreeSet<SourceKey> {
        &self.live
    }

    /// Returns how many sources there are by platform and status.
    pub fn by_status(&self) -> &BTreeMap<(PlatformName, Status), usize> {
        &self.by_status
    }

    /// Returns the inputs to process when the daemon stops: for every transport that is up, that it was closed.
    pub fn shutdown(&self, now: Timestamp) -> Vec<Input> {
        let mut inputs = Vec::new();
        for source in self.sources.keys() {
            let Some(document) = self.document(source) else {
                continue;
            };
            for (transport, link) in &document.knowledge.evidence.connection {
                if matches!(link.now(), LinkNow::Up) {
                    let fact = Fact::Connection {
                        transport: *transport,
                        state: LinkState::Closed,
                    };
                    // Never before the observation that it ends, even if the platform's clock is ahead of ours.
                    let at = now.max(link.newest().map_or(now, |newest| newest.plus_millis(1)));
                    inputs.push(Input::Observed(Observation::new(
                        source,
                        at,
                        "bitbrat.watch",
                        fact,
                    )));
                }
            }
        }
        inputs
    }
}

/// Whether an input describes a source without causing a change of status, stream, authorization or permissions.
fn describes(input: &Input) -> bool {
    match input {
        Input::Counted(..) => true,
        Input::Observed(observation) => describes_source(observation),
    }
}

fn describes_source(observation: &Observation) -> bool {
    matches!(
        *observation.fact,
        Fact::Profile { .. } | Fact::Viewers { .. } | Fact::Latency { .. } | Fact::Counters { .. }
    )
}

/// Whether a verdict has no evidence: the first observation of a source is no change of it.
fn nothing_known(verdict: &Verdict) -> bool {
    verdict.status.at.is_none() && verdict.stream.at.is_none() && verdict.auth.is_none()
}

/// A time within the period, the same for a source at every start.
fn phase_of(source: &SourceKey, period: i64) -> i64 {
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, source.to_string().as_bytes());
    i64::try_from(id.as_u64_pair().0 >> 1)
        .unwrap_or(0)
        .rem_euclid(period.max(1))
}

fn add(to: &mut Tally, more: Tally) {
    to.messages_in += more.messages_in;
    to.messages_out += more.messages_out;
    to.errors += more.errors;
    to.reconnects += more.reconnects;
}

/// What an observation adds to the totals of its source: each failed probe is an error, and a gateway that is up again after a
/// failure is a reconnect. EventSub's listener counts what only it observes.
fn counted(before: &SourceDocument, observation: &Observation) -> Tally {
    let mut tally = Tally::default();
    match &*observation.fact {
        Fact::NoSuchSource { .. } | Fact::Unanswered { .. } | Fact::Problem { .. } => tally.errors = 1,
        Fact::Connection { transport, .. } if *transport == Transport::EventSub => {}
        Fact::Connection { transport, state } => match state {
            LinkState::Down { .. } | LinkState::Refused { .. } => tally.errors = 1,
            LinkState::Up if *transport == Transport::Gateway => {
                let link = before.knowledge.evidence.connection.get(transport);
                let was_failing = link.is_some_and(|link| matches!(link.now(), LinkNow::LinkFailure(_)));
                tally.reconnects = u64::from(was_failing);
            }
            LinkState::Up | LinkState::Answered | LinkState::Closed => {}
        },
        _ => {}
    }
    tally
}

/// Sets the stream id of a start without one if it cannot be distinguished from the live stream: with an id of its own it would
/// count as a newer stream and hide the one that polls list.
fn name_start(live: &Verdict, observation: &mut Observation) {
    let Fact::StreamPush {
        live: true,
        stream_id,
        started_at,
    } = observation.fact_mut()
    else {
        return;
    };
    let session = live
        .session
        .as_ref()
        .filter(|_| live.stream.value == StreamStatus::Online);
    let Some(session) = session else { return };
    let is_named = stream_id.clone().and_then(named_stream).is_some();
    let start = started_at.and_then(Timestamp::known);
    if !is_named && (start.is_none() || start == session.started_at) {
        *stream_id = Some(session.stream_id.clone());
        *started_at = session.started_at;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::core::code::Code;
    use crate::core::compact::Compact;
    use crate::core::facet::Facet;
    use crate::core::laws;
    use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Identity};

    fn key(id: u32) -> SourceKey {
        format!("twitch:{id}").parse().unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    fn seen(id: u32, seconds: i64, fact: Fact) -> Input {
        Input::Observed(Observation::new(&key(id), at(seconds), "test", fact))
    }

    fn link(transport: Transport, state: LinkState) -> Fact {
        Fact::Connection { transport, state }
    }

    fn down() -> LinkState {
        LinkState::Down {
            error: ErrorInfo::new(Code::NetworkTimeout, "no answer"),
        }
    }

    fn stored(document: &SourceDocument) -> Versioned<SourceDocument> {
        Versioned {
            value: document.clone(),
            version: Version("1".to_owned()),
        }
    }

    fn facets(change: &Change) -> Vec<(Facet, String)> {
        let changes = change.steps.iter().flat_map(|step| &step.changes);
        changes
            .map(|change| (change.facet, change.to.clone().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn event_of_a_revocation_contains_the_refusal_that_came_with_it() {
        let checked = |result| Fact::Auth {
            identity: Identity::named("twitch/bot"),
            check: AuthCheck::of(result).into(),
        };
        let refused = LinkState::Refused {
            error: ErrorInfo::new(Code::NetworkTimeout, "the token is refused"),
        };
        let mut tracker = Tracker::new("w");
        let proven = [link(Transport::Api, LinkState::Up), checked(AuthResult::Valid)];
        tracker.take(proven.map(|fact| seen(1, 0, fact)).into(), at(0));
        let refusal = [checked(AuthResult::Revoked), link(Transport::Api, refused)];
        let changes = tracker.take(refusal.map(|fact| seen(1, 5, fact)).into(), at(5));
        let [step] = changes[0].steps.as_slice() else {
            panic!("{:?}", changes[0].steps)
        };
        assert_eq!(step.after.verdict.status.rule, "status.grant-revoked");
        // A login that another process stores does not end the refusal, which only the next response does.
        let mut stored = step.after.clone();
        let login = Observation::new(&key(1), at(6), "test", checked(AuthResult::Valid));
        stored.join(Knowledge::from(&login));
        assert_eq!(stored.verdict.status.rule, "status.refused");
    }

    #[test]
    fn start_without_id_and_time_is_about_the_stream_that_is_live() {
        let start = |id: Option<&str>, started_at| Fact::StreamPush {
            live: true,
            stream_id: id.map(str::to_owned),
            started_at,
        };
        let zero = Timestamp::from_millis(-62_135_596_800_000);
        for (id, started_at, is_current) in [
            (None, None, true),
            (None, Some(zero), true),
            (Some(""), None, true),
            (None, Some(at(0)), true),
            (None, Some(at(95)), false),
            (Some("40900006"), None, false),
        ] {
            let mut tracker = Tracker::new("w");
            let listed = Fact::StreamSeen {
                stream_id: "40900005".to_owned(),
                started_at: Some(at(0)),
            };
            tracker.take(vec![seen(1, 60, listed)], at(60));
            let changes = tracker.take(vec![seen(1, 100, start(id, started_at))], at(100));
            assert_eq!(changes.is_empty(), is_current, "{id:?} {started_at:?}");
            let session = tracker.document(&key(1)).unwrap().verdict.session.unwrap();
            assert_eq!(
                session.stream_id == "40900005",
                is_current,
                "{id:?} {started_at:?}"
            );
            if is_current {
                assert_eq!(session.started_at, Some(at(0)));
            }
        }
        let mut tracker = Tracker::new("w");
        let changes = tracker.take(vec![seen(1, 100, start(None, None))], at(100));
        assert_eq!(facets(&changes[0]), [(Facet::Stream, "ONLINE".into())]);
    }

    #[test]
    fn event_keeps_its_time_while_our_clock_is_behind() {
        for (behind_by, second) in [(0, 10), (3_600_000, 3_610)] {
            let mut tracker = Tracker::new("w");
            tracker.take(vec![seen(1, 3_600, Fact::StreamAbsent)], at(3_600));
            tracker.behind_by = behind_by;
            let start = Fact::StreamPush {
                live: true,
                stream_id: Some("77".to_owned()),
                started_at: Some(at(3_609)),
            };
            tracker.take(vec![seen(1, 3_610, start)], at(10));
            let known = tracker.document(&key(1)).unwrap();
            assert_eq!(known.verdict.stream.value, StreamStatus::Online);
            // Unless our clock is known to be behind, the evidence counts as dated ahead until now.
            assert_eq!(known.verdict.stream.at, Some(at(second)), "{behind_by}");
        }
    }

    #[test]
    fn what_becomes_known_after_a_change_is_no_part_of_the_baseline() {
        let title = |title: &str| Fact::Profile {
            fields: [("title".to_owned(), title.to_owned())].into(),
        };
        let listed = || Fact::StreamSeen {
            stream_id: "77".to_owned(),
            started_at: None,
        };
        for changes_first in [false, true] {
            let mut tracker = Tracker::new("w");
            tracker.take(vec![seen(1, 0, Fact::StreamAbsent)], at(0));
            if changes_first {
                tracker.take(vec![seen(1, 10, listed())], at(10));
            }
            tracker.take(vec![seen(1, 20, title("Chess"))], at(20));
            assert_eq!(tracker.due_for_sink(at(20), 900_000, 10), [key(1)]);
            assert_eq!(tracker.completes_baseline(&key(1)), !changes_first);
        }
    }

    #[test]
    fn start_without_id_is_announced_once() {
        let start = Fact::StreamPush {
            live: true,
            stream_id: None,
            started_at: None,
        };
        let listed = Fact::StreamSeen {
            stream_id: "40900005".to_owned(),
            started_at: Some(at(95)),
        };
        let mut tracker = Tracker::new("w");
        tracker.take(vec![seen(1, 60, Fact::StreamAbsent)], at(60));
        let announced = tracker.take(vec![seen(1, 100, start)], at(100));
        assert_eq!(facets(&announced[0]), [(Facet::Stream, "ONLINE".into())]);
        assert!(tracker.take(vec![seen(1, 130, listed)], at(130)).is_empty());
        let session = tracker.document(&key(1)).unwrap().verdict.session.unwrap();
        assert_eq!(
            (session.stream_id.as_str(), session.started_at),
            ("40900005", Some(at(95)))
        );
        let end = Fact::StreamPush {
            live: false,
            stream_id: None,
            started_at: None,
        };
        let ended = tracker.take(vec![seen(1, 200, end)], at(200));
        assert_eq!(facets(&ended[0]), [(Facet::Stream, "OFFLINE".into())]);
    }

    #[test]
    fn a_restart_announces_nothing_that_was_announced() {
        let mut tracker = Tracker::new("w");
        let inputs = vec![
            seen(1, 0, link(Transport::Api, LinkState::Up)),
            seen(1, 0, Fact::StreamAbsent),
        ];
        let changes = tracker.take(inputs.clone(), at(0));
        assert_eq!(
            facets(&changes[0]),
            [
                (Facet::Status, "CONNECTED".into()),
                (Facet::Stream, "OFFLINE".into())
            ]
        );
        assert!(changes[0].steps[0].first && !changes[0].steps[1].first);
        let mut again = Tracker::new("w");
        again.restore(stored(&changes[0].steps.last().unwrap().after));
        let later = vec![
            seen(1, 60, link(Transport::Api, LinkState::Up)),
            seen(1, 60, Fact::StreamAbsent),
        ];
        assert!(again.take(later, at(60)).is_empty());
        assert!(again.take(inputs, at(61)).is_empty());
    }

    #[test]
    fn totals_go_on_after_a_restart_and_count_errors_and_reconnects() {
        let mut tracker = Tracker::new("w");
        let one = Tally {
            messages_in: 5,
            ..Tally::default()
        };
        tracker.take(vec![Input::Counted(key(1), one)], at(0));
        let mut again = Tracker::new("w");
        again.restore(stored(&tracker.document(&key(1)).unwrap()));
        let inputs = vec![
            seen(1, 1, link(Transport::Gateway, down())),
            seen(1, 2, link(Transport::Gateway, LinkState::Up)),
            seen(1, 3, link(Transport::Gateway, LinkState::Up)),
            seen(1, 3, link(Transport::EventSub, down())),
            Input::Counted(key(1), one),
        ];
        again.take(inputs, at(3));
        let totals = again.document(&key(1)).unwrap().knowledge.counters["w"];
        assert_eq!((totals.messages_in, totals.errors, totals.reconnects), (10, 1, 1));
    }

    #[test]
    fn each_source_is_due_once_a_period_and_only_when_changed() {
        let mut tracker = Tracker::new("w");
        let all: Vec<Input> = (1..=100).map(|id| seen(id, 0, Fact::StreamAbsent)).collect();
        tracker.take(all.clone(), at(0));
        assert!(
            tracker.due_for_sink(at(0), 30_000, 1000).is_empty(),
            "not all at once"
        );
        let mut spread = Vec::new();
        for second in 1..=31 {
            tracker.take(all.clone(), at(second));
            spread.push(tracker.due_for_sink(at(second), 30_000, 1000).len());
        }
        let total: usize = spread.iter().sum();
        assert!((100..=110).contains(&total), "{spread:?}");
        assert!(spread.iter().all(|count| *count < 20), "{spread:?}");
    }

    #[test]
    fn clock_that_returns_settles_every_source_at_once() {
        const DAY: i64 = 86_400;
        let mut tracker = Tracker::new("w");
        let up = |id| seen(id, DAY, link(Transport::Api, LinkState::Up));
        tracker.take(vec![up(1), up(2)], at(DAY));
        tracker.settle(at(5));
        for id in [1, 2] {
            assert_eq!(tracker.document(&key(id)).unwrap().verdict.status.at, Some(at(5)));
        }
        tracker.due_documents(at(5), 30_000, 10);
        tracker.settle(at(6));
        assert_eq!(tracker.due_documents(at(6), 30_000, 10), [] as [SourceKey; 0]);
    }

    #[test]
    fn clock_set_back_does_not_suppress_due_sources() {
        let mut tracker = Tracker::new("w");
        tracker.take(vec![seen(1, 0, Fact::StreamAbsent)], at(0));
        tracker.due_for_sink(at(0), 30_000, 10);
        assert_eq!(tracker.due_for_sink(at(-900), 30_000, 10).len(), 1);
    }

    #[test]
    fn what_is_up_is_closed_at_the_end_and_nothing_else() {
        let mut tracker = Tracker::new("w");
        let inputs = vec![
            seen(1, 0, link(Transport::Api, LinkState::Up)),
            seen(1, 5, link(Transport::EventSub, LinkState::Up)),
            seen(2, 0, link(Transport::Api, down())),
        ];
        tracker.take(inputs, at(0));
        let shutdown = tracker.shutdown(at(1));
        assert_eq!(shutdown.len(), 2);
        let changes = tracker.take(shutdown, at(1));
        assert_eq!(facets(&changes[0]), [(Facet::Status, "DISCONNECTED".into())]);
        assert!(tracker.shutdown(at(2)).is_empty());
    }

    fn titled(id: u32, seconds: i64, title: &str) -> Input {
        let fields = BTreeMap::from([("title".to_owned(), title.to_owned())]);
        seen(id, seconds, Fact::Profile { fields })
    }

    #[test]
    fn online_carries_what_the_same_answer_reported() {
        let mut tracker = Tracker::new("w");
        let started = Fact::StreamSeen {
            stream_id: "77".to_owned(),
            started_at: None,
        };
        let viewers = Fact::Viewers {
            count: 77,
            stream_id: Some("77".to_owned()),
        };
        let inputs = vec![seen(1, 0, started), titled(1, 0, "Chess"), seen(1, 0, viewers)];
        let changes = tracker.take(inputs, at(0));
        let record = changes[0].steps[0].after.record();
        assert_eq!(record.viewer_count, Some(77));
        assert_eq!(record.metadata["title"], "Chess");
    }

    #[test]
    fn a_changed_title_has_its_turn_at_once_but_not_without_limit() {
        let mut tracker = Tracker::new("w");
        tracker.take(vec![titled(1, 0, "one")], at(0));
        let first =
            tracker.due_for_sink(at(0), 900_000, 10).len() + tracker.due_for_sink(at(1), 900_000, 10).len();
        assert_eq!(first, 1);
        tracker.take(vec![titled(1, 2, "one")], at(2));
        assert!(
            tracker.due_for_sink(at(3), 900_000, 10).is_empty(),
            "nothing changed"
        );
        let mut turns = 0;
        for second in 4..64 {
            tracker.take(vec![titled(1, second, &second.to_string())], at(second));
            turns += tracker.due_for_sink(at(second), 900_000, 10).len();
        }
        assert!((2..=6).contains(&turns), "{turns}");
    }

    #[test]
    fn published_state_is_known_although_the_document_is_unusable() {
        let mut tracker = Tracker::new("w");
        let online = |second| {
            let started = Fact::StreamSeen {
                stream_id: "77".to_owned(),
                started_at: None,
            };
            vec![
                seen(1, second, link(Transport::Api, LinkState::Up)),
                seen(1, second, started),
            ]
        };
        tracker.take(online(0), at(0));
        let published = tracker.document(&key(1)).unwrap();
        let mut restarted = Tracker::new("w");
        restarted.block(&key(1));
        let merged = restarted.merge_published(&key(1), published.knowledge.clone());
        assert_eq!(transitions(&published.verdict, &merged.verdict), []);
        assert!(restarted.take(online(30), at(30)).is_empty());
        assert!(restarted.is_blocked(&key(1)));
    }

    #[test]
    fn stored_state_is_merged_without_a_transition() {
        let mut other = Tracker::new("probe");
        let started = Fact::StreamSeen {
            stream_id: "77".to_owned(),
            started_at: None,
        };
        other.take(
            vec![
                seen(1, 0, link(Transport::Api, LinkState::Up)),
                seen(1, 0, started),
            ],
            at(0),
        );
        let stored = other.document(&key(1)).unwrap().knowledge;
        let mut tracker = Tracker::new("w");
        assert!(
            !tracker.merge_stored(&key(1), &stored, true),
            "nothing was restored"
        );
        assert!(tracker.live().contains(&key(1)));
        assert_eq!(
            tracker.due_for_sink(at(0), 900_000, 10),
            [key(1)],
            "its state is published at once"
        );
        let same = vec![seen(1, 30, link(Transport::Api, LinkState::Up))];
        assert!(tracker.take(same, at(30)).is_empty());
        let absent = |seconds| vec![seen(1, seconds, Fact::StreamAbsent)];
        tracker.take(absent(60), at(60));
        let ended = tracker.take(absent(120), at(120));
        assert_eq!(facets(&ended[0]), [(Facet::Stream, "OFFLINE".into())]);
        assert!(!ended[0].steps[0].changes[0].initial);

        let mut restarted = Tracker::new("w");
        restarted.restore(super::tests::stored(&SourceDocument::new(key(1))));
        assert!(restarted.merge_stored(&key(1), &stored, true));
        assert!(!restarted.merge_stored(&key(1), &stored, true));
    }

    /// One process with a shared store: `watch`, or `probe`.
    #[derive(Debug, Clone)]
    struct Run {
        watches: bool,
        observations: Vec<Observation>,
    }

    fn runs() -> impl Strategy<Value = Vec<Run>> {
        let run = (any::<bool>(), vec(laws::observation(), 0..12));
        vec(
            run.prop_map(|(watches, observations)| Run {
                watches,
                observations,
            }),
            1..8,
        )
    }

    proptest! {
        #[test]
        fn document_and_confirmed_state_make_the_known_state(
            observations in vec(laws::observation(), 1..30), written_after in 0_usize..30
        ) {
            let key = laws::key();
            let mut tracker = Tracker::new("w");
            let mut stored = SourceDocument::new(key.clone());
            for (number, observation) in observations.into_iter().enumerate() {
                let changes = tracker.take(vec![Input::Observed(observation)], at(1_000_000));
                if number == 0 || number == written_after || !changes.is_empty() {
                    stored = tracker.document(&key).unwrap();
                    tracker.mark_stored(&key, Version(number.to_string()));
                }
            }
            let mut confirmed: Vec<_> = tracker.all_blocks().into_iter().flat_map(|block| block.states).collect();
            prop_assert!(tracker.take_dirty(Destination::File).is_empty());
            let known = tracker.document(&key).unwrap();
            if let Some(state) = confirmed.pop() {
                let (own, shared) = state.knowledge.texts();
                stored.join(Compact::parse(own, shared).unwrap());
                prop_assert_eq!(SourceSummary::from_bytes(&state.summary), Some(SourceSummary::of(&known)));
            }
            prop_assert_eq!(stored, known);
        }

        #[test]
        fn histories_join_across_probes_and_restarts(runs in runs()) {
            let key = laws::key();
            let mut stored = SourceDocument::new(key.clone());
            let mut history: Vec<Transition> = Vec::new();
            for run in runs {
                if !run.watches {
                    for observation in &run.observations {
                        let before = stored.verdict.clone();
                        stored.join(Knowledge::from(observation));
                        history.extend(transitions(&before, &stored.verdict));
                    }
                    continue;
                }
                let mut tracker = Tracker::new("w");
                tracker.restore(super::tests::stored(&stored));
                for observation in run.observations {
                    let changes = tracker.take(vec![Input::Observed(observation)], at(1_000_000));
                    history.extend(changes.into_iter().flat_map(|change| change.steps).flat_map(|step| step.changes));
                }
                stored = tracker.document(&key).unwrap();
            }
            let mut last: BTreeMap<Facet, Option<String>> = BTreeMap::new();
            for change in history {
                let before = last.insert(change.facet, change.to.clone());
                if change.initial {
                    prop_assert_eq!(&change.from, &None, "{:?}", change);
                } else if let Some(before) = before {
                    prop_assert_eq!(&before, &change.from, "{:?}", change);
                }
            }
        }
    }
}
