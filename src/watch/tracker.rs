//! The known state of each source, and its changes. Pure apart from its memory: no I/O, no clock.

use std::collections::HashMap;

use self::status_index::{IndexedStatus, StatusIndex};
use self::write_schedule::{DueGroup, Merged, WriteSchedule, WriteState};
use super::account_reports::{AccountState, AccountWatch};
use super::observations::{CountDelta, Input};
use crate::core::compact::{CompactDocument, Interner};
use crate::core::document::SourceDocument;
use crate::core::evidence::{Knowledge, LinkNow, named_stream};
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::transitions;
use crate::core::verdict::Verdict;
use crate::persist::write_policy::Presentation;
use crate::store::sqlite::confirmations::{ConfirmedGroup, ConfirmedState};
use crate::store::{HistoryEntry, Version, Versioned, Write};

mod change;
mod status_index;
#[cfg(test)]
mod tests;
mod write_schedule;

pub use change::{Change, Step};
pub use status_index::Confirmed;
pub use write_schedule::Destination;

/// The known state of every source.
#[derive(Debug, Default)]
pub struct Tracker {
    /// Name under which this process stores its totals; a command counts nothing.
    instance: Option<String>,
    sources: HashMap<SourceKey, SourceState>,
    /// What is not written yet of the same sources.
    pub writes: WriteSchedule,
    pub index: StatusIndex,
    interner: Interner,
    accounts: AccountWatch,
    /// By how much our clock seems to be behind (ms): observations may be dated this far ahead of it.
    pub behind_by: i64,
}

#[derive(Debug)]
struct SourceState {
    document: CompactDocument,
    listed: IndexedStatus,
}

impl Tracker {
    /// Creates an empty tracker. `instance` is the name under which this process stores its totals.
    pub fn new(instance: &str) -> Self {
        let mut tracker = Self {
            instance: Some(instance.to_owned()),
            ..Self::default()
        };
        tracker.writes.publishes_baseline = true;
        tracker
    }

    /// Creates an empty tracker for a command, which merges a few hundred sources at a time and counts nothing.
    pub fn of_command() -> Self {
        Self {
            interner: Interner::of_whole_documents(),
            ..Self::default()
        }
    }

    pub fn clear(&mut self) {
        self.sources.clear();
        self.writes.clear();
        self.index.clear();
    }

    pub fn restore(&mut self, stored: Versioned<SourceDocument>) {
        self.accounts.restore(&stored.value.knowledge);
        let source = stored.value.key.clone();
        let state = WriteState::restored(stored.version);
        self.writes.set(source.clone(), state);
        self.insert(&source, stored.value);
    }

    /// Restores a source from its stored document, of which a part was dropped.
    pub fn restore_healed(&mut self, stored: Versioned<SourceDocument>) {
        let source = stored.value.key.clone();
        self.restore(stored);
        self.writes.entry(&source).is_rewritten = true;
    }

    /// Keeps the stored document of `source`, which cannot be used, from being replaced. Returns whether it was not yet known.
    pub fn protect(&mut self, source: &SourceKey) -> bool {
        let was_protected = std::mem::replace(&mut self.writes.entry(source).is_protected, true);
        if !self.knows(source) {
            self.insert(source, SourceDocument::new(source.clone()));
        }
        !was_protected
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
            let writes = self.writes.entry(source);
            writes.mark_newer();
            if publish && !restored {
                writes.to_sink.mark_eager();
            } else if is_behind {
                writes.to_sink.mark_dirty();
            }
            self.insert(source, document);
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
            self.writes.entry(source).mark_newer();
            self.insert(source, document.clone());
        }
        document
    }

    /// Moves evidence that is dated ahead of `latest` to it, after our clock was set back, and marks its sources to be written at
    /// once: their ages would be wrong until they are observed again.
    pub fn redate_future(&mut self, latest: Timestamp) {
        let sources: Vec<SourceKey> = self.sources.keys().cloned().collect();
        for source in sources {
            let Some(mut document) = self.document(&source) else {
                continue;
            };
            if document.redate_future(latest) {
                let writes = self.writes.entry(&source);
                writes.is_rewritten = true;
                writes.to_file.mark_eager();
                writes.to_sink.mark_eager();
                self.insert(&source, document);
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
        let writes = self.writes.entry(source);
        writes.version = version;
        writes.is_protected = false;
        writes.is_rewritten = true;
        // At once: what was confirmed of the document that this one has replaced does not count any more.
        writes.to_file.mark_eager();
        writes.to_sink.mark_dirty();
        self.insert(source, document);
        Change {
            source: source.clone(),
            before,
            steps: rebased,
        }
    }

    /// Processes inputs and returns the sources with changed verdicts, in the order of their first input.
    pub fn merge(&mut self, inputs: Vec<Input>, now: Timestamp) -> Vec<Change> {
        let mut order: Vec<(SourceKey, Vec<Input>)> = Vec::new();
        let mut places: HashMap<SourceKey, usize> = HashMap::new();
        for input in inputs {
            if let Input::Stored(source, stored) = &input {
                self.merge_stored(source, &stored.knowledge(), false);
                continue;
            }
            let place = *places.entry(input.source().clone()).or_insert_with(|| {
                order.push((input.source().clone(), Vec::new()));
                order.len() - 1
            });
            order[place].1.push(input);
        }
        let changes = order
            .into_iter()
            .filter_map(|(source, inputs)| self.merge_inputs(source, inputs, now));
        changes.collect()
    }

    fn merge_inputs(&mut self, source: SourceKey, mut inputs: Vec<Input>, now: Timestamp) -> Option<Change> {
        // Inputs that only describe a source come first: the event of a change then includes the title, category, viewers and
        // name that the same answer reported. The result of a merge does not depend on the order.
        inputs.sort_by_key(|input| !describes(input));
        let known = self.document(&source);
        let is_first = known.is_none();
        let mut document = known.unwrap_or_else(|| SourceDocument::new(source.clone()));
        // All of it was dated by this machine's clock, which may have been set back since.
        let before_redating = document.verdict.clone();
        let latest = now.plus_millis(self.behind_by);
        let mut before_redating = document.redate_future(latest).then_some(before_redating);
        let is_redated = before_redating.is_some();
        let presented = Presentation::of(&document.knowledge);
        let was_refused = document.knowledge.evidence.is_refused();
        let mut steps = Vec::new();
        let mut delta = CountDelta::default();
        let only_describes = inputs.iter().all(describes);
        for input in inputs {
            match input {
                Input::Counted(_, more) => delta += more,
                // Merged before.
                Input::Stored(..) => {}
                Input::Observed(observation) if describes_source(&observation) => {
                    let observation = document.knowledge.receive(observation, latest);
                    document.join_description(Knowledge::from(&observation));
                }
                Input::Observed(observation) => {
                    let mut observation = document.knowledge.receive(observation, latest);
                    document.knowledge.name_end(&mut observation);
                    name_start(&document.verdict, &mut observation);
                    delta += counted(&document, &observation);
                    self.accounts.observe(&observation);
                    let more = Knowledge::from(&observation);
                    steps.extend(Step::of(
                        &mut document,
                        before_redating.take(),
                        more,
                        &observation.by,
                    ));
                }
            }
        }
        if only_describes || before_redating.is_some() {
            steps.extend(Step::of(
                &mut document,
                before_redating.take(),
                Knowledge::default(),
                "bitbrat.watch",
            ));
        }
        if let Some(instance) = self.instance.as_ref().filter(|_| delta != CountDelta::default()) {
            let totals = document.knowledge.counters.entry(instance.clone()).or_default();
            totals.messages_in += delta.messages_in;
            totals.messages_out += delta.messages_out;
            totals.errors += delta.errors;
            totals.reconnects += delta.reconnects;
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
        let mut changes = steps.iter().flat_map(|step| &step.changes);
        let merged = Merged {
            is_first,
            is_redated,
            before: presented,
            after: Presentation::of(&document.knowledge),
            is_newly_refused: document.knowledge.evidence.is_refused() && !was_refused,
            has_counted: delta != CountDelta::default(),
            has_changed: changes.any(|change| !change.initial),
        };
        self.writes.record(&source, &merged, now);
        let old = self.insert(&source, document);
        (!steps.is_empty()).then(|| Change {
            before: old.unwrap_or_else(|| self.interner.document(SourceDocument::new(source.clone()))),
            source,
            steps,
        })
    }

    /// Sets the document of a source. Returns the one before.
    fn insert(&mut self, source: &SourceKey, document: SourceDocument) -> Option<CompactDocument> {
        let listed = IndexedStatus::of(&document.verdict);
        let document = self.interner.document(document);
        let before = self
            .sources
            .insert(source.clone(), SourceState { document, listed });
        self.index
            .replace(source, before.as_ref().map(|before| before.listed), listed);
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

    /// Returns the write of a change; `None` if the stored document must not be replaced.
    pub fn write_of(&self, change: &Change, now: Timestamp) -> Option<Write> {
        let writes = self.writes.unprotected(&change.source)?;
        change.write(writes.version.clone(), now)
    }

    /// Returns the write of the current document with this history; `None` if the stored one must not be replaced.
    pub fn write(&self, source: &SourceKey, history: Vec<HistoryEntry>) -> Option<Write> {
        Some(Write {
            document: self.document(source)?,
            base: self.writes.unprotected(source)?.version.clone(),
            history,
        })
    }

    /// Returns the groups of confirmed states that are due, and marks them as written.
    pub fn due_groups(&mut self, now: Timestamp, period: i64) -> Vec<ConfirmedGroup> {
        let due = self.writes.due_groups(now, period);
        self.confirmed(due)
    }

    /// Returns all groups of confirmed states with something that is not written yet, and marks them as written.
    pub fn all_groups(&mut self) -> Vec<ConfirmedGroup> {
        let due = self.writes.dirty_groups(|_| true);
        self.confirmed(due)
    }

    fn confirmed(&mut self, due: Vec<DueGroup>) -> Vec<ConfirmedGroup> {
        let mut groups = Vec::with_capacity(due.len());
        for DueGroup { number, sources } in due {
            let states = sources
                .into_iter()
                .filter_map(|(source, base)| self.confirmed_state(source, base));
            groups.push(ConfirmedGroup {
                number,
                states: states.collect(),
            });
        }
        groups
    }

    fn confirmed_state(&mut self, source: SourceKey, base: Version) -> Option<ConfirmedState> {
        let state = self.sources.get(&source)?;
        let document = state.document.document(&source);
        Some(ConfirmedState {
            summary: SourceSummary::of(&document).to_bytes(),
            knowledge: match &state.document {
                CompactDocument::Ours(knowledge) => knowledge.clone(),
                CompactDocument::WithForeign(_) | CompactDocument::Whole(_) => {
                    self.interner.compact(document.knowledge)
                }
            },
            base,
            source,
        })
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
        Input::Counted(..) | Input::Stored(..) => true,
        Input::Observed(observation) => describes_source(observation),
    }
}

fn describes_source(observation: &Observation) -> bool {
    matches!(
        *observation.fact,
        Fact::Profile { .. } | Fact::Viewers { .. } | Fact::Latency { .. } | Fact::Counters { .. }
    )
}

/// What an observation adds to the totals of its source: each failed probe is an error, and a gateway that is up again after a
/// failure is a reconnect. EventSub's listener counts what only it observes.
fn counted(before: &SourceDocument, observation: &Observation) -> CountDelta {
    let mut delta = CountDelta::default();
    match &*observation.fact {
        Fact::NoSuchSource { .. } | Fact::Unanswered { .. } | Fact::Problem { .. } => delta.errors = 1,
        Fact::Connection { transport, .. } if *transport == Transport::EventSub => {}
        Fact::Connection { transport, state } => match state {
            LinkState::Down { .. } | LinkState::Refused { .. } => delta.errors = 1,
            LinkState::Up if *transport == Transport::Gateway => {
                let link = before.knowledge.evidence.connection.get(transport);
                let was_failing = link.is_some_and(|link| matches!(link.now(), LinkNow::LinkFailure(_)));
                delta.reconnects = u64::from(was_failing);
            }
            LinkState::Up | LinkState::Answered | LinkState::Closed => {}
        },
        _ => {}
    }
    delta
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
    let broadcast = live
        .broadcast
        .as_ref()
        .filter(|_| live.stream.value == StreamStatus::Online);
    let Some(broadcast) = broadcast else { return };
    let is_named = stream_id.clone().and_then(named_stream).is_some();
    let start = started_at.and_then(Timestamp::known);
    if !is_named && (start.is_none() || start == broadcast.started_at) {
        *stream_id = Some(broadcast.stream_id.clone());
        *started_at = broadcast.started_at;
    }
}
