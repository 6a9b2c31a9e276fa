//! The outbox: two processes commit changes of one source, with their events, to one file; dispatchers send the events to a bus.
//!
//! A fact is numbered by when it happened; newer facts win, and each is a verdict of its own. Documents of different sources are
//! independent, so one source is enough.

use stateright::{Model, Property};

/// A committed transition waits in the outbox, or is on the bus.
pub const NOTHING_LOST: &str = "no committed transition is lost";
/// A transition has one id on the bus, however often it is sent.
pub const ONE_ID: &str = "no transition is published under two ids";
/// The first deliveries of events are in the order of the facts, and each begins where the last one ended.
pub const IN_ORDER: &str = "events of a source are published in order";
/// The history begins at the first state, and each entry begins where the last one ended.
pub const JOINED: &str = "the history has no gap and no repetition";
/// When nothing can happen any more, everything was sent.
pub const NOTHING_LEFT: &str = "nothing stays in the outbox";

/// The number under which a command leaves events for any daemon.
const ANY_DAEMON: u8 = 9;

/// What the second process is. The first one is a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// A one-shot command, whose events the daemon sends.
    Command,
    /// A daemon that sends its own events, and may take over those of the other one.
    Daemon,
}

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Document and events are committed in two transactions.
    TwoTransactions,
    /// The version of the document is not compared.
    VersionIgnored,
    /// After a conflict the same steps are committed again, on the new version.
    NotRebased,
    /// An event is removed when it is sent, not when it is acknowledged.
    RemovedWhenSent,
    /// Each attempt has an id of its own.
    RandomIds,
    /// Two events of a source are in flight at a time.
    TwoInFlight,
    /// Events of commands are added behind those that already wait.
    QueueNotSorted,
    /// The numbers of an emptied outbox begin again.
    NumbersReused,
}

/// The model with its bounds.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub second: Second,
    /// How many facts happen.
    pub facts: u8,
    /// How often a process is killed, or the power fails.
    pub crashes: u8,
    /// Whether the order of the events of two daemons counts, which is not promised.
    pub is_strict: bool,
    pub mistake: Option<Mistake>,
}

/// A change of the verdict, as one process has found it. Its id is `to` and `by`: in the worst case, ids of two processes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Event {
    from: u8,
    to: u8,
    by: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    seq: u8,
    writer: u8,
    event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The newest fact.
    happened: u8,
    file: File,
    /// First deliveries, in order, with what is added to the id of the attempt.
    bus: Vec<(Event, u8)>,
    processes: [Process; 2],
    crashes: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct File {
    version: u8,
    fact: u8,
    history: Vec<Event>,
    outbox: Vec<Row>,
    last_seq: u8,
    /// Removed rows that a power failure brings back: removing does not wait for the disk.
    removed: Vec<Row>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    is_running: bool,
    /// The version on which its document is based, and its newest fact.
    base: u8,
    fact: u8,
    /// Steps that are not committed.
    steps: Vec<Event>,
    /// With [`Mistake::TwoTransactions`]: events of a document that is committed.
    unlisted: Vec<Event>,
    /// Numbers of the waiting events that it sends, and the newest one that it has read of those of commands.
    queue: Vec<u8>,
    seen: u8,
    in_flight: Vec<InFlight>,
    acknowledged: Vec<u8>,
    attempt: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    seq: u8,
    event: Event,
    has_arrived: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Happen,
    /// A process observes a fact, perhaps late.
    Observe(u8, u8),
    Commit(u8),
    ListEvents(u8),
    Rebase(u8),
    Send(u8),
    Arrive(u8, u8),
    Acknowledge(u8, u8),
    /// No answer: the event may have arrived.
    Fail(u8, u8),
    Remove(u8),
    Adopt(u8),
    Start(u8),
    Kill(u8),
    PowerFailure,
}

impl Outbox {
    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn is_ordered(&self) -> bool {
        self.second == Second::Command || self.is_strict
    }

    fn is_command(&self, index: u8) -> bool {
        index == 1 && self.second == Second::Command
    }

    fn writer(&self, index: u8) -> u8 {
        if self.is_command(index) { ANY_DAEMON } else { index }
    }

    fn insert(&self, file: &mut File, writer: u8, events: Vec<Event>) -> Vec<u8> {
        let mut numbers = Vec::new();
        for event in events {
            let newest = file.outbox.iter().map(|row| row.seq).max().unwrap_or(0);
            let last = if self.has(Mistake::NumbersReused) {
                newest
            } else {
                file.last_seq
            };
            file.last_seq = last + 1;
            let seq = file.last_seq;
            file.outbox.push(Row { seq, writer, event });
            numbers.push(seq);
        }
        // A commit with events waits for the disk, with everything before it.
        file.removed.clear();
        numbers
    }

    fn push(&self, queue: &mut Vec<u8>, seq: u8) {
        queue.push(seq);
        if !self.has(Mistake::QueueNotSorted) {
            queue.sort_unstable();
        }
    }

    fn commit(&self, state: &mut State, index: u8) {
        let (file, process) = (&mut state.file, &mut state.processes[usize::from(index)]);
        let steps = std::mem::take(&mut process.steps);
        file.version += 1;
        file.fact = process.fact;
        file.history.extend(&steps);
        process.base = file.version;
        if self.has(Mistake::TwoTransactions) {
            process.unlisted.extend(steps);
            return;
        }
        self.list(state, index, steps);
    }

    fn list(&self, state: &mut State, index: u8, events: Vec<Event>) {
        let numbers = self.insert(&mut state.file, self.writer(index), events);
        if !self.is_command(index) {
            for seq in numbers {
                self.push(&mut state.processes[usize::from(index)].queue, seq);
            }
        }
    }

    /// Reads the file as at a start, or after taking over events.
    fn read_queue(&self, file: &File, process: &mut Process, index: u8) {
        let mine = |row: &&Row| row.writer == index || row.writer == ANY_DAEMON;
        process.queue = file.outbox.iter().filter(mine).map(|row| row.seq).collect();
        process.seen = process.queue.last().copied().unwrap_or(0);
    }

    /// Merges the uncommitted steps into the document of the other process.
    fn rebase(&self, state: &mut State, index: u8) {
        let (file, process) = (&state.file, &mut state.processes[usize::from(index)]);
        process.base = file.version;
        if self.has(Mistake::NotRebased) {
            return;
        }
        let mut fact = file.fact;
        let steps = std::mem::take(&mut process.steps);
        for step in steps.into_iter().filter(|step| step.to > file.fact) {
            process.steps.push(Event { from: fact, ..step });
            fact = step.to;
        }
        process.fact = fact;
    }

    /// Sends the first waiting event.
    fn send(&self, state: &mut State, index: u8) -> Option<()> {
        let (file, process) = (&mut state.file, &mut state.processes[usize::from(index)]);
        let left = |row: &&Row| row.writer == ANY_DAEMON && row.seq > process.seen;
        let received: Vec<u8> = file.outbox.iter().filter(left).map(|row| row.seq).collect();
        for seq in received {
            process.seen = seq;
            self.push(&mut process.queue, seq);
        }
        let is_idle = |seq: &&u8| process.in_flight.iter().all(|event| event.seq != **seq);
        let seq = *process.queue.iter().find(is_idle)?;
        let Some(row) = file.outbox.iter().find(|row| row.seq == seq) else {
            process.queue.retain(|waiting| *waiting != seq);
            return Some(());
        };
        let event = row.event;
        process.in_flight.push(InFlight {
            seq,
            event,
            has_arrived: false,
        });
        if self.has(Mistake::RemovedWhenSent) {
            file.outbox.retain(|row| row.seq != seq);
        }
        Some(())
    }

    fn publish(&self, bus: &mut Vec<(Event, u8)>, event: Event, attempt: u8) {
        let attempt = if self.has(Mistake::RandomIds) { attempt } else { 0 };
        let is_known =
            |known: &(Event, u8)| known.0.to == event.to && known.0.by == event.by && known.1 == attempt;
        if !bus.iter().any(is_known) {
            bus.push((event, attempt));
        }
    }

    fn remove(state: &mut State, index: u8) {
        let (file, process) = (&mut state.file, &mut state.processes[usize::from(index)]);
        for seq in process.acknowledged.drain(..) {
            let (gone, left): (Vec<Row>, Vec<Row>) = file.outbox.drain(..).partition(|row| row.seq == seq);
            file.outbox = left;
            file.removed.extend(gone);
            process.queue.retain(|waiting| *waiting != seq);
        }
    }
}

impl Model for Outbox {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let process = Process {
            is_running: true,
            ..Process::default()
        };
        vec![State {
            happened: 0,
            file: File::default(),
            bus: Vec::new(),
            processes: [process.clone(), process],
            crashes: self.crashes,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.happened < self.facts {
            actions.push(Action::Happen);
        }
        if state.crashes > 0 {
            actions.push(Action::PowerFailure);
        }
        for (index, process) in (0..).zip(&state.processes) {
            if !process.is_running {
                actions.push(Action::Start(index));
                continue;
            }
            if state.crashes > 0 {
                actions.push(Action::Kill(index));
            }
            actions.extend((process.fact + 1..=state.happened).map(|fact| Action::Observe(index, fact)));
            if !process.unlisted.is_empty() {
                actions.push(Action::ListEvents(index));
            } else if !process.steps.is_empty() {
                let is_current = process.base == state.file.version || self.has(Mistake::VersionIgnored);
                actions.push(if is_current {
                    Action::Commit(index)
                } else {
                    Action::Rebase(index)
                });
            }
            if self.is_command(index) {
                continue;
            }
            let most = if self.has(Mistake::TwoInFlight) { 2 } else { 1 };
            let any_left = |row: &Row| row.writer == ANY_DAEMON && row.seq > process.seen;
            let waits =
                process.queue.len() > process.in_flight.len() || state.file.outbox.iter().any(any_left);
            if process.in_flight.len() < most && process.acknowledged.is_empty() && waits {
                actions.push(Action::Send(index));
            }
            for (place, event) in (0..).zip(&process.in_flight) {
                actions.push(if event.has_arrived {
                    Action::Acknowledge(index, place)
                } else {
                    Action::Arrive(index, place)
                });
                actions.push(Action::Fail(index, place));
            }
            if !process.acknowledged.is_empty() {
                actions.push(Action::Remove(index));
            }
            if self.second == Second::Daemon && state.file.outbox.iter().any(|row| row.writer != index) {
                actions.push(Action::Adopt(index));
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Happen => state.happened += 1,
            Action::Observe(index, fact) => {
                let process = &mut state.processes[usize::from(index)];
                let from = process.fact;
                process.steps.push(Event {
                    from,
                    to: fact,
                    by: index,
                });
                process.fact = fact;
            }
            Action::Commit(index) => self.commit(&mut state, index),
            Action::ListEvents(index) => {
                let events = std::mem::take(&mut state.processes[usize::from(index)].unlisted);
                self.list(&mut state, index, events);
            }
            Action::Rebase(index) => self.rebase(&mut state, index),
            Action::Send(index) => self.send(&mut state, index)?,
            Action::Arrive(index, place) => {
                let process = &mut state.processes[usize::from(index)];
                let event = &mut process.in_flight[usize::from(place)];
                event.has_arrived = true;
                let (event, attempt) = (event.event, process.attempt);
                self.publish(&mut state.bus, event, attempt);
            }
            Action::Acknowledge(index, place) => {
                let process = &mut state.processes[usize::from(index)];
                let event = process.in_flight.remove(usize::from(place));
                process.acknowledged.push(event.seq);
            }
            Action::Fail(index, place) => {
                let process = &mut state.processes[usize::from(index)];
                let event = process.in_flight.remove(usize::from(place));
                if self.has(Mistake::RandomIds) {
                    process.attempt = 1;
                }
                if self.has(Mistake::RemovedWhenSent) {
                    process.queue.retain(|waiting| *waiting != event.seq);
                }
            }
            Action::Remove(index) => Self::remove(&mut state, index),
            Action::Adopt(index) => {
                for row in &mut state.file.outbox {
                    row.writer = index;
                }
                let process = &mut state.processes[usize::from(index)];
                self.read_queue(&state.file, process, index);
            }
            Action::Start(index) => {
                let mut process = Process {
                    is_running: true,
                    base: state.file.version,
                    fact: state.file.fact,
                    ..Process::default()
                };
                if !self.is_command(index) {
                    self.read_queue(&state.file, &mut process, index);
                }
                state.processes[usize::from(index)] = process;
            }
            Action::Kill(index) => {
                state.crashes -= 1;
                state.processes[usize::from(index)] = Process::default();
            }
            Action::PowerFailure => {
                state.crashes -= 1;
                state.processes = Default::default();
                let back = std::mem::take(&mut state.file.removed);
                state.file.outbox.extend(back);
                state.file.outbox.sort_by_key(|row| row.seq);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_LOST, |_, state: &State| {
                state.file.history.iter().all(|event| {
                    state.file.outbox.iter().any(|row| row.event == *event)
                        || state.bus.iter().any(|(sent, _)| sent == event)
                        || state
                            .processes
                            .iter()
                            .any(|process| process.unlisted.contains(event))
                        || state
                            .processes
                            .iter()
                            .any(|process| process.in_flight.iter().any(|sent| sent.event == *event))
                })
            }),
            Property::always(ONE_ID, |_, state: &State| {
                let bus = &state.bus;
                (0..bus.len()).all(|one| (0..one).all(|other| bus[one].0.to != bus[other].0.to))
            }),
            Property::always(JOINED, |_, state: &State| is_joined(state.file.history.iter())),
            Property::always(IN_ORDER, |model: &Self, state: &State| {
                !model.is_ordered() || is_joined(state.bus.iter().map(|(event, _)| event))
            }),
            Property::always(NOTHING_LEFT, |model: &Self, state: &State| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                !actions.is_empty() || (state.file.outbox.is_empty() && state.file.fact == state.happened)
            }),
            Property::sometimes("both processes have committed", |_, state: &State| {
                let by = |index| state.file.history.iter().any(|event| event.by == index);
                by(0) && by(1)
            }),
            Property::sometimes("a commit conflicts", |_, state: &State| {
                let version = state.file.version;
                state
                    .processes
                    .iter()
                    .any(|process| !process.steps.is_empty() && process.base != version)
            }),
            Property::sometimes(
                "everything is published and nothing can happen",
                |model: &Self, state: &State| {
                    let mut actions = Vec::new();
                    model.actions(state, &mut actions);
                    actions.is_empty() && state.happened == model.facts
                },
            ),
        ]
    }
}

fn is_joined<'a>(events: impl Iterator<Item = &'a Event>) -> bool {
    let mut last = 0;
    for event in events {
        if event.from != last || event.to <= event.from {
            return false;
        }
        last = event.to;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counterexample, search};

    fn outbox(second: Second) -> Outbox {
        Outbox {
            second,
            facts: 2,
            crashes: 2,
            is_strict: false,
            mistake: None,
        }
    }

    fn broken(mistake: Mistake) -> Outbox {
        Outbox {
            mistake: Some(mistake),
            ..outbox(Second::Command)
        }
    }

    #[test]
    fn daemon_and_command_lose_repeat_and_reorder_nothing() {
        search("outbox, daemon and command", outbox(Second::Command));
    }

    #[test]
    fn two_daemons_on_one_file_lose_and_repeat_nothing() {
        search("outbox, two daemons", outbox(Second::Daemon));
    }

    #[test]
    fn two_daemons_on_one_file_may_publish_out_of_order() {
        let is_strict = true;
        let model = Outbox {
            is_strict,
            ..outbox(Second::Daemon)
        };
        counterexample(model, IN_ORDER);
    }

    #[test]
    fn two_transactions_lose_a_transition_in_a_crash() {
        counterexample(broken(Mistake::TwoTransactions), NOTHING_LOST);
    }

    #[test]
    fn write_without_version_repeats_a_transition_under_another_id() {
        counterexample(broken(Mistake::VersionIgnored), ONE_ID);
        counterexample(broken(Mistake::VersionIgnored), JOINED);
    }

    #[test]
    fn conflict_without_rebase_repeats_a_transition() {
        counterexample(broken(Mistake::NotRebased), ONE_ID);
    }

    #[test]
    fn removal_before_the_acknowledgement_loses_a_transition() {
        counterexample(broken(Mistake::RemovedWhenSent), NOTHING_LOST);
    }

    #[test]
    fn random_ids_repeat_a_transition_after_a_lost_answer() {
        counterexample(broken(Mistake::RandomIds), ONE_ID);
    }

    #[test]
    fn two_events_of_a_source_in_flight_arrive_out_of_order() {
        counterexample(broken(Mistake::TwoInFlight), IN_ORDER);
    }

    #[test]
    fn unsorted_queue_sends_the_events_of_a_command_too_late() {
        counterexample(broken(Mistake::QueueNotSorted), IN_ORDER);
    }

    #[test]
    fn reused_numbers_leave_an_event_in_the_outbox() {
        counterexample(broken(Mistake::NumbersReused), NOTHING_LEFT);
    }
}
