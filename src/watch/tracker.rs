//! What is known of each source, and what changed. Pure apart from its memory: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::intake::{Input, Tally};
use crate::core::document::SourceDocument;
use crate::core::evidence::{Knowledge, LinkNow};
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::resting::{Resting, Shelf};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::transition::{Transition, transitions};
use crate::core::verdict::{Status, Verdict};

/// What is known of every source.
#[derive(Debug, Default)]
pub struct Tracker {
    writer: String,
    sources: HashMap<SourceKey, Entry>,
    shelf: Shelf,
    live: BTreeSet<SourceKey>,
    by_status: BTreeMap<(PlatformName, Status), usize>,
}

#[derive(Debug)]
struct Entry {
    known: Resting,
    live: bool,
    status: Status,
    /// Whether something was learnt since it was last handed on.
    moved: bool,
    /// Whether totals grew since they were last written down.
    counted: bool,
    /// When it was last written down.
    saved_at: Timestamp,
    next_beat: Option<Timestamp>,
}

/// What a batch changed about one source.
#[derive(Debug)]
pub struct Change {
    /// The source.
    pub source: SourceKey,
    /// What is known by now, as JSON.
    pub known: Box<str>,
    /// The changes of its verdicts, step by step.
    pub steps: Vec<Step>,
}

/// One observation that changed a verdict.
#[derive(Debug)]
pub struct Step {
    /// The source after it.
    pub after: SourceDocument,
    /// What changed.
    pub changes: Vec<Transition>,
    /// Who told us.
    pub by: String,
    /// Whether nothing had been known before.
    pub first: bool,
    /// Whether nothing had been claimed of the connection before, or we had ended it ourselves.
    pub quiet_before: bool,
}

impl Tracker {
    /// Starts knowing nothing. `writer` is the name under which this process counts.
    pub fn new(writer: &str) -> Self {
        Self {
            writer: writer.to_owned(),
            ..Self::default()
        }
    }

    /// Takes over what was known of a source before this process started.
    pub fn restore(&mut self, source: SourceKey, knowledge: Knowledge) {
        let entry = self.entry(SourceDocument::from_knowledge(source.clone(), knowledge));
        self.insert(source, entry);
    }

    /// Takes in what was learnt and returns the sources with changed verdicts, in the order of their first input.
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

    fn take_one(&mut self, source: SourceKey, inputs: Vec<Input>, now: Timestamp) -> Option<Change> {
        let mut document = self
            .document(&source)
            .unwrap_or_else(|| SourceDocument::new(source.clone()));
        let mut steps = Vec::new();
        let mut tally = Tally::default();
        for input in inputs {
            match input {
                Input::Counted(_, more) => add(&mut tally, more),
                Input::Observed(observation) => {
                    add(&mut tally, counted(&document, &observation));
                    let before = document.verdict.clone();
                    document.join(Knowledge::from(&observation));
                    let changes = transitions(&before, &document.verdict);
                    if !changes.is_empty() {
                        steps.push(Step {
                            first: nothing_known(&before),
                            quiet_before: matches!(
                                before.status.rule,
                                "status.nothing-proven" | "status.closed"
                            ),
                            after: document.clone(),
                            changes,
                            by: observation.by,
                        });
                    }
                }
            }
        }
        if tally != Tally::default() {
            let totals = document
                .knowledge
                .counters
                .entry(self.writer.clone())
                .or_default();
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
        let mut entry = self.entry(document);
        if let Some(old) = self.sources.get(&source) {
            entry.next_beat = old.next_beat;
            entry.saved_at = old.saved_at;
            entry.counted = old.counted;
        }
        entry.moved = true;
        entry.counted |= tally != Tally::default();
        let change = (!steps.is_empty()).then(|| {
            // It is written down together with the events that tell the steps.
            entry.saved_at = now;
            entry.counted = false;
            Change {
                source: source.clone(),
                known: entry.known.to_json().into(),
                steps,
            }
        });
        self.insert(source, entry);
        change
    }

    /// Puts a document to rest.
    fn entry(&mut self, document: SourceDocument) -> Entry {
        Entry {
            live: document.verdict.stream.value == StreamStatus::Online,
            status: document.verdict.status.value,
            known: self.shelf.rest(document.knowledge),
            moved: false,
            counted: false,
            saved_at: Timestamp::EPOCH,
            next_beat: None,
        }
    }

    fn insert(&mut self, source: SourceKey, entry: Entry) {
        let (platform, live, status) = (source.platform(), entry.live, entry.status);
        let before = self.sources.insert(source.clone(), entry);
        *self.by_status.entry((platform, status)).or_default() += 1;
        if let Some(before) = &before
            && let Some(count) = self.by_status.get_mut(&(platform, before.status))
        {
            *count -= 1;
        }
        self.by_status.retain(|_, count| *count > 0);
        if live {
            self.live.insert(source);
        } else if before.is_some_and(|before| before.live) {
            self.live.remove(&source);
        }
    }

    /// Returns what is known of a source, at rest.
    pub fn known(&self, source: &SourceKey) -> Option<Resting> {
        self.sources.get(source).map(|entry| entry.known.clone())
    }

    /// Returns what should be written down of these sources before it is handed on: totals that grew, because none that
    /// others have seen may be forgotten, and what was not written down for `at_most` milliseconds.
    pub fn unsaved(
        &mut self,
        sources: &[SourceKey],
        now: Timestamp,
        at_most: i64,
    ) -> Vec<(SourceKey, Box<str>)> {
        let mut unsaved = Vec::new();
        for source in sources {
            let Some(entry) = self.sources.get_mut(source) else {
                continue;
            };
            if entry.counted || now.millis_since(entry.saved_at).abs() >= at_most {
                entry.counted = false;
                entry.saved_at = now;
                unsaved.push((source.clone(), entry.known.to_json().into()));
            }
        }
        unsaved
    }

    /// Returns the document that follows from what is known; `None` when nothing is.
    pub fn document(&self, source: &SourceKey) -> Option<SourceDocument> {
        let entry = self.sources.get(source)?;
        Some(SourceDocument::from_knowledge(
            source.clone(),
            entry.known.knowledge(),
        ))
    }

    /// Returns the sources that have news since they were last handed on and whose turn it is, at most `limit`, and counts
    /// them as handed on. Each source has its turn once a `period`, at a moment of its own; the first one comes within a
    /// period after it was first heard of.
    pub fn due(&mut self, now: Timestamp, period: i64, limit: usize) -> Vec<SourceKey> {
        let mut due = Vec::new();
        for (source, entry) in &mut self.sources {
            if due.len() == limit {
                break;
            }
            // A clock that was set back must not silence anyone for longer than a period.
            let ahead = entry
                .next_beat
                .is_some_and(|next| next.millis_since(now) > period);
            let reached = entry.next_beat.is_some_and(|next| next <= now);
            if entry.next_beat.is_none() || ahead || (reached && entry.moved) {
                let since = (now.as_millis() - phase_of(source, period)).rem_euclid(period);
                entry.next_beat = Some(now.plus_millis(period - since));
            }
            if entry.moved && (reached || ahead) {
                entry.moved = false;
                due.push(source.clone());
            }
        }
        due
    }

    /// Takes back that sources were handed on: they have their turn again a period later.
    pub fn not_handed_on(&mut self, sources: &[SourceKey]) {
        for source in sources {
            if let Some(entry) = self.sources.get_mut(source) {
                entry.moved = true;
            }
        }
    }

    /// Returns every source that has news since it was last handed on, and counts it as handed on.
    pub fn all_moved(&mut self) -> Vec<SourceKey> {
        let moved = self.sources.iter_mut().filter(|(_, entry)| entry.moved);
        moved
            .map(|(source, entry)| {
                entry.moved = false;
                source.clone()
            })
            .collect()
    }

    /// Returns which sources are live.
    pub fn live(&self) -> &BTreeSet<SourceKey> {
        &self.live
    }

    /// Returns how many sources there are by platform and status.
    pub fn by_status(&self) -> &BTreeMap<(PlatformName, Status), usize> {
        &self.by_status
    }

    /// Returns what is to be said when the daemon stops: of every transport that is up, that we close it.
    pub fn farewell(&self, now: Timestamp) -> Vec<Input> {
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
                    // Never before what it ends, even when the platform's clock is ahead of ours.
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

/// Whether a verdict rests on nothing: the first word about a source is no change of it.
fn nothing_known(verdict: &Verdict) -> bool {
    verdict.status.at.is_none() && verdict.stream.at.is_none() && verdict.auth.is_none()
}

/// A moment within the period, the same for a source at every start.
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

/// What an observation adds to the totals of its source: each failed look is an error, and a gateway that comes back after
/// trouble is a reconnect. EventSub's listener counts for itself what it alone can see.
fn counted(before: &SourceDocument, observation: &Observation) -> Tally {
    let mut tally = Tally::default();
    match &observation.fact {
        Fact::Unanswered { .. } | Fact::Problem { .. } => tally.errors = 1,
        Fact::Connection { transport, .. } if *transport == Transport::EventSub => {}
        Fact::Connection { transport, state } => match state {
            LinkState::Down { .. } | LinkState::Refused { .. } => tally.errors = 1,
            LinkState::Up if *transport == Transport::Gateway => {
                let link = before.knowledge.evidence.connection.get(transport);
                let was_in_trouble = link.is_some_and(|link| matches!(link.now(), LinkNow::Trouble(_)));
                tally.reconnects = u64::from(was_in_trouble);
            }
            LinkState::Up | LinkState::Answered | LinkState::Closed => {}
        },
        _ => {}
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::facet::Facet;
    use crate::core::observation::ErrorInfo;

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
            error: ErrorInfo::new("network.timeout", "no answer"),
        }
    }

    fn facets(change: &Change) -> Vec<(Facet, String)> {
        let changes = change.steps.iter().flat_map(|step| &step.changes);
        changes
            .map(|change| (change.facet, change.to.clone().unwrap_or_default()))
            .collect()
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
        again.restore(key(1), serde_json::from_str(&changes[0].known).unwrap());
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
        let known = tracker.known(&key(1)).unwrap();
        let mut again = Tracker::new("w");
        again.restore(key(1), known.knowledge());
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
    fn each_source_has_its_turn_once_a_period_and_only_with_news() {
        let mut tracker = Tracker::new("w");
        let all: Vec<Input> = (1..=100).map(|id| seen(id, 0, Fact::StreamAbsent)).collect();
        tracker.take(all.clone(), at(0));
        assert!(tracker.due(at(0), 30_000, 1000).is_empty(), "not all at once");
        let mut spread = Vec::new();
        for second in 1..=31 {
            tracker.take(all.clone(), at(second));
            spread.push(tracker.due(at(second), 30_000, 1000).len());
        }
        let total: usize = spread.iter().sum();
        assert!((100..=110).contains(&total), "{spread:?}");
        assert!(spread.iter().all(|count| *count < 20), "{spread:?}");
    }

    #[test]
    fn a_clock_set_back_silences_nobody_for_long() {
        let mut tracker = Tracker::new("w");
        tracker.take(vec![seen(1, 0, Fact::StreamAbsent)], at(0));
        tracker.due(at(0), 30_000, 10);
        assert_eq!(tracker.due(at(-900), 30_000, 10).len(), 1);
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
        let farewell = tracker.farewell(at(1));
        assert_eq!(farewell.len(), 2);
        let changes = tracker.take(farewell, at(1));
        assert_eq!(facets(&changes[0]), [(Facet::Status, "DISCONNECTED".into())]);
        assert!(tracker.farewell(at(2)).is_empty());
    }
}
