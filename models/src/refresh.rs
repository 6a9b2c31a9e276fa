//! The refresh of a one-time token: an intent is stored before the request, a granted pair goes into the journal before anything else,
//! and replaces the stored pair if the record is still as it was read.
//!
//! Pairs are numbered. The refresh token of pair n works once and grants pair n + 1, which invalidates the access token of pair n.

use stateright::{Model, Property};

/// A spent token is never sent, except the one attempt after its access token had expired and the answer was lost.
pub const NO_REPLAY: &str = "no spent token is sent, except once after a lost answer";
/// A token is never sent whose granted pair the machine that sends has received; with [`Refresh::is_strict`], any machine.
pub const NOT_AFTER_RECEIPT: &str = "no token is sent whose pair was received";
/// The newest pair is stored, in a journal or on its way, unless the network or a crash before the journal has lost it.
pub const NO_PAIR_LOST: &str = "no received pair is lost";
/// LOST is recorded only of a token that is spent, or whose one more attempt was interrupted, too; with [`Refresh::is_strict`], only if
/// it is spent.
pub const LOST_IS_PROVEN: &str = "an unspent token is never recorded as lost";
/// The platform revokes nothing in this model.
pub const NOT_REVOKED: &str = "no account is reported as revoked";

/// Where the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// They share a lock and a journal.
    OneMachine,
    /// They share only the token store.
    TwoMachines,
}

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// No intent is stored before the request.
    NoIntent,
    /// After an interruption the token is sent again without a check of the access token.
    SentUnchecked,
    /// The one more attempt is repeated.
    RetriedAgain,
    /// A granted pair is not put into the journal.
    NoJournal,
    /// The journal is emptied before the pair is stored.
    JournalEmptiedFirst,
    /// The intent of another machine does not count.
    OthersIgnored,
    /// Two processes of a machine refresh at the same time.
    NoLock,
    /// A record is written without comparing it with what was read.
    WrittenUnchecked,
    /// A rejected access token proves a loss, whether or not it had expired on its own.
    ExpiryIgnored,
    /// A machine is paused between its intent and its request for longer than others wait. Not excluded by the protocol.
    Paused,
}

/// The model with its bounds.
#[derive(Clone, Debug)]
pub struct Refresh {
    pub place: Place,
    /// Number of the last pair that the platform grants.
    pub pairs: u8,
    /// How often a process ends, or a request or answer gets lost.
    pub faults: u8,
    /// Whether the two known limits of the protocol count as violations.
    pub is_strict: bool,
    pub mistake: Option<Mistake>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Planned,
    Sent,
    Retried,
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Intent {
    id: u8,
    machine: u8,
    phase: Phase,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Record {
    pair: u8,
    generation: u8,
    intent: Option<Intent>,
    is_refused: bool,
}

/// A granted pair, and the refresh that it is the result of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Granted {
    pair: u8,
    intent: u8,
    generation: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Idle,
    /// A refresh was interrupted: whether the access token still works shows the result.
    Checking(Record),
    /// Stores an intent in this phase; with the id of the one that was planned.
    Recording(Record, Phase, Option<u8>),
    GivingUp(Record),
    /// The intent is stored; what was recorded before it.
    Requesting(Record, Option<Intent>),
    /// The answer is on its way: the granted pair, or a refusal.
    Waiting(Record, Option<u8>),
    Failing(Record),
    Received(Granted),
    Adopting(Granted),
    Storing(Record, Granted),
    Emptying(Option<(Record, Granted)>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    record: Record,
    /// Whether the deadline of the recorded intent has passed.
    is_overdue: bool,
    journals: [Option<Granted>; 2],
    steps: [Step; 2],
    ids: u8,
    faults: u8,
    /// The pair that the platform accepts, and the pairs whose access token has expired on its own.
    granted: u8,
    expired: Vec<u8>,
    /// How often each token was sent, those for which one more attempt was recorded, and the machines that have received the pair
    /// which a token has granted.
    uses: Vec<u8>,
    attempted_again: Vec<u8>,
    received: Vec<(u8, u8)>,
    was_replayed: bool,
    was_sent_after_receipt: bool,
    /// The network, or a crash before the journal, has lost a granted pair.
    is_loss_excused: bool,
    was_retried: bool,
    was_recovered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads journal and record, and decides what to do.
    Begin(u8),
    /// One step of its own.
    Continue(u8),
    LoseRequest(u8),
    LoseAnswer(u8),
    /// The platform is known not to have received the request.
    Unreachable(u8),
    Crash(u8),
    Expire,
    Overdue,
}

impl Refresh {
    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn machine(&self, process: u8) -> u8 {
        if self.place == Place::OneMachine {
            0
        } else {
            process
        }
    }

    /// Reads journal and record, and decides. `None`: nothing is to be done.
    fn begin(&self, state: &State, process: u8) -> Option<Step> {
        let machine = self.machine(process);
        if let Some(granted) = &state.journals[usize::from(machine)] {
            return Some(Step::Adopting(granted.clone()));
        }
        let record = state.record.clone();
        if record.is_refused || record.pair >= self.pairs {
            return None;
        }
        let Some(intent) = record.intent.clone() else {
            return Some(Step::Recording(record, Phase::Planned, None));
        };
        if intent.machine != machine && !state.is_overdue && !self.has(Mistake::OthersIgnored) {
            return None;
        }
        match intent.phase {
            Phase::Lost => None,
            Phase::Planned => Some(Step::Recording(record, Phase::Sent, None)),
            _ if self.has(Mistake::SentUnchecked) => Some(Step::Recording(record, Phase::Sent, None)),
            Phase::Sent | Phase::Retried => Some(Step::Checking(record)),
        }
    }

    /// Decides about an interrupted refresh with the access token.
    fn check(&self, state: &State, record: Record) -> Step {
        let phase = record.intent.as_ref().map(|intent| intent.phase);
        let is_expired = state.expired.contains(&record.pair);
        if record.pair == state.granted && !is_expired {
            Step::Recording(record, Phase::Sent, None)
        } else if is_expired
            && (phase == Some(Phase::Sent) || self.has(Mistake::RetriedAgain))
            && !self.has(Mistake::ExpiryIgnored)
        {
            Step::Recording(record, Phase::Retried, None)
        } else {
            Step::GivingUp(record)
        }
    }

    /// Writes a record if it is as it was read; returns whether it was written.
    fn write(&self, state: &mut State, read: &Record, record: Record) -> bool {
        if state.record != *read && !self.has(Mistake::WrittenUnchecked) {
            return false;
        }
        let id = |record: &Record| record.intent.as_ref().map(|intent| intent.id);
        if id(&state.record) != id(&record) {
            state.is_overdue = false;
        }
        state.record = record;
        true
    }

    fn record_intent(
        &self,
        state: &mut State,
        process: u8,
        read: Record,
        phase: Phase,
        id: Option<u8>,
    ) -> Step {
        if self.has(Mistake::NoIntent) {
            return Step::Requesting(read, None);
        }
        let before = read.intent.clone();
        let id = id.unwrap_or_else(|| {
            state.ids += 1;
            state.ids
        });
        let machine = self.machine(process);
        let record = Record {
            intent: Some(Intent { id, machine, phase }),
            ..read.clone()
        };
        if !self.write(state, &read, record.clone()) {
            Step::Idle
        } else if phase == Phase::Planned {
            Step::Recording(record, Phase::Sent, Some(id))
        } else {
            if phase == Phase::Retried && !state.attempted_again.contains(&record.pair) {
                state.attempted_again.push(record.pair);
            }
            let before = before.filter(|before| before.phase != Phase::Planned);
            Step::Requesting(record, before)
        }
    }

    /// The platform processes a request with the refresh token of the record's pair.
    fn platform(&self, state: &mut State, process: u8, record: &Record) -> Option<u8> {
        let token = record.pair;
        state.uses[usize::from(token)] += 1;
        let counts = |machine: u8| self.is_strict || machine == self.machine(process);
        let is_received = |(machine, received): &(u8, u8)| *received == token && counts(*machine);
        state.was_sent_after_receipt |= state.received.iter().any(is_received);
        if token == state.granted {
            state.granted += 1;
            return Some(state.granted);
        }
        let retried = record
            .intent
            .as_ref()
            .is_some_and(|intent| intent.phase == Phase::Retried);
        let is_allowed = retried && state.expired.contains(&token) && state.uses[usize::from(token)] <= 2;
        state.was_replayed |= !is_allowed;
        state.was_retried |= is_allowed;
        None
    }

    fn fail(&self, state: &mut State, process: u8, asked: &Record) {
        let read = state.record.clone();
        let (Some(ours), Some(found)) = (&asked.intent, &read.intent) else {
            return;
        };
        if ours.id != found.id {
            return;
        }
        let mut record = read.clone();
        if ours.phase == Phase::Retried {
            let machine = self.machine(process);
            record.intent = Some(Intent {
                phase: Phase::Lost,
                machine,
                ..ours.clone()
            });
        } else {
            record.intent = None;
            record.is_refused = true;
        }
        self.write(state, &read, record);
    }

    /// Decides whether a pair of the journal is to replace the stored one.
    fn adopt(&self, state: &State, granted: Granted) -> Step {
        let record = state.record.clone();
        let is_recorded = record.generation == granted.generation
            && (record
                .intent
                .as_ref()
                .is_some_and(|intent| intent.id == granted.intent)
                || self.has(Mistake::NoIntent));
        let stored_works = record.pair == state.granted && !state.expired.contains(&record.pair);
        if !is_recorded && (record.pair >= granted.pair || stored_works) {
            Step::Emptying(None)
        } else if self.has(Mistake::JournalEmptiedFirst) {
            Step::Emptying(Some((record, granted)))
        } else {
            Step::Storing(record, granted)
        }
    }

    fn store(&self, state: &mut State, process: u8, read: &Record, granted: Granted) -> Step {
        let record = Record {
            pair: granted.pair,
            generation: read.generation + 1,
            intent: None,
            is_refused: false,
        };
        if self.write(state, read, record) {
            Self::note_receipt(state, self.machine(process), &granted);
            Step::Emptying(None)
        } else {
            Step::Adopting(granted)
        }
    }

    fn note_receipt(state: &mut State, machine: u8, granted: &Granted) {
        state.received.push((machine, granted.pair - 1));
        state.received.sort_unstable();
        state.received.dedup();
    }

    fn go_on(&self, state: &mut State, process: u8) -> Step {
        let journal = usize::from(self.machine(process));
        match std::mem::take(&mut state.steps[usize::from(process)]) {
            Step::Idle => Step::Idle,
            Step::Checking(record) => self.check(state, record),
            Step::Recording(read, phase, id) => self.record_intent(state, process, read, phase, id),
            Step::GivingUp(read) => {
                let mut record = read.clone();
                if let Some(intent) = record.intent.as_mut() {
                    intent.phase = Phase::Lost;
                }
                self.write(state, &read, record);
                Step::Idle
            }
            Step::Requesting(record, _) => {
                let answer = self.platform(state, process, &record);
                Step::Waiting(record, answer)
            }
            Step::Waiting(record, None) => Step::Failing(record),
            Step::Failing(record) => {
                self.fail(state, process, &record);
                Step::Idle
            }
            Step::Waiting(record, Some(pair)) => Step::Received(Granted {
                pair,
                intent: record.intent.as_ref().map_or(0, |intent| intent.id),
                generation: record.generation,
            }),
            Step::Received(granted) => {
                if !self.has(Mistake::NoJournal) {
                    Self::note_receipt(state, self.machine(process), &granted);
                    state.journals[journal] = Some(granted.clone());
                }
                Step::Adopting(granted)
            }
            Step::Adopting(granted) => self.adopt(state, granted),
            Step::Storing(read, granted) => self.store(state, process, &read, granted),
            Step::Emptying(next) => {
                state.journals[journal] = None;
                next.map_or(Step::Idle, |(read, granted)| Step::Storing(read, granted))
            }
        }
    }

    fn crash(state: &mut State, process: u8) {
        let step = std::mem::take(&mut state.steps[usize::from(process)]);
        state.is_loss_excused |= matches!(step, Step::Waiting(_, Some(_)) | Step::Received(_));
    }
}

impl Model for Refresh {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            record: Record::default(),
            is_overdue: false,
            journals: [None, None],
            steps: Default::default(),
            ids: 0,
            faults: self.faults,
            granted: 0,
            expired: Vec::new(),
            uses: vec![0; usize::from(self.pairs) + 1],
            attempted_again: Vec::new(),
            received: Vec::new(),
            was_replayed: false,
            was_sent_after_receipt: false,
            is_loss_excused: false,
            was_retried: false,
            was_recovered: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let newest = state.record.pair;
        if newest < self.pairs && !state.expired.contains(&newest) {
            actions.push(Action::Expire);
        }
        if let Some(intent) = &state.record.intent {
            // A refresh that runs ends before its deadline, unless its process is paused.
            let is_active = |process: u8| {
                self.machine(process) == intent.machine && state.steps[usize::from(process)] != Step::Idle
            };
            let runs = (0..2).any(is_active) && !self.has(Mistake::Paused);
            if self.place == Place::TwoMachines && !state.is_overdue && !runs {
                actions.push(Action::Overdue);
            }
        }
        for (process, step) in (0..).zip(&state.steps) {
            if *step == Step::Idle {
                let other = &state.steps[usize::from(1 - process)];
                let is_locked =
                    self.place == Place::OneMachine && *other != Step::Idle && !self.has(Mistake::NoLock);
                if !is_locked && self.begin(state, process).is_some() {
                    actions.push(Action::Begin(process));
                }
                continue;
            }
            actions.push(Action::Continue(process));
            if state.faults > 0 {
                actions.push(Action::Crash(process));
                match step {
                    Step::Requesting(..) => {
                        actions.extend([Action::LoseRequest(process), Action::Unreachable(process)]);
                    }
                    Step::Waiting(..) => actions.push(Action::LoseAnswer(process)),
                    _ => {}
                }
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Begin(process) => {
                let step = self.begin(&state, process)?;
                state.was_recovered |= matches!(step, Step::Adopting(_));
                state.steps[usize::from(process)] = step;
            }
            Action::Continue(process) => {
                let step = self.go_on(&mut state, process);
                state.steps[usize::from(process)] = step;
            }
            Action::LoseRequest(process) | Action::LoseAnswer(process) | Action::Crash(process) => {
                state.faults -= 1;
                Self::crash(&mut state, process);
            }
            Action::Unreachable(process) => {
                state.faults -= 1;
                let step = std::mem::take(&mut state.steps[usize::from(process)]);
                if let Step::Requesting(read, intent) = step {
                    let record = Record {
                        intent,
                        ..read.clone()
                    };
                    self.write(&mut state, &read, record);
                }
            }
            Action::Expire => {
                state.expired.push(state.record.pair);
                state.expired.sort_unstable();
            }
            Action::Overdue => state.is_overdue = true,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_REPLAY, |_, state: &State| !state.was_replayed),
            Property::always(NOT_AFTER_RECEIPT, |_, state: &State| {
                !state.was_sent_after_receipt
            }),
            Property::always(NO_PAIR_LOST, |_, state: &State| {
                let newest = state.granted;
                state.is_loss_excused
                    || state.record.pair == newest
                    || state
                        .journals
                        .iter()
                        .flatten()
                        .any(|granted| granted.pair == newest)
                    || state.steps.iter().any(|step| match step {
                        Step::Waiting(_, Some(pair)) => *pair == newest,
                        Step::Received(granted) | Step::Adopting(granted) | Step::Storing(_, granted) => {
                            granted.pair == newest
                        }
                        Step::Emptying(Some((_, granted))) => granted.pair == newest,
                        _ => false,
                    })
            }),
            Property::always(LOST_IS_PROVEN, |model: &Self, state: &State| {
                let pair = state.record.pair;
                let is_lost = state
                    .record
                    .intent
                    .as_ref()
                    .is_some_and(|intent| intent.phase == Phase::Lost);
                !is_lost
                    || pair != state.granted
                    || (!model.is_strict && state.attempted_again.contains(&pair))
            }),
            Property::always(NOT_REVOKED, |_, state: &State| !state.record.is_refused),
            Property::sometimes("every pair is stored", |model: &Self, state: &State| {
                state.record.pair == model.pairs
            }),
            Property::sometimes("a pair is taken out of the journal", |_, state: &State| {
                state.was_recovered && state.record.intent.is_none()
            }),
            Property::sometimes("a token is sent once more", |_, state: &State| state.was_retried),
            Property::sometimes("an answer is lost for good", |_, state: &State| {
                state
                    .record
                    .intent
                    .as_ref()
                    .is_some_and(|intent| intent.phase == Phase::Lost)
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counterexample, search};

    fn refresh(place: Place) -> Refresh {
        Refresh {
            place,
            pairs: 2,
            faults: 3,
            is_strict: false,
            mistake: None,
        }
    }

    fn strict(place: Place) -> Refresh {
        Refresh {
            is_strict: true,
            ..refresh(place)
        }
    }

    fn broken(place: Place, mistake: Mistake) -> Refresh {
        Refresh {
            mistake: Some(mistake),
            ..refresh(place)
        }
    }

    #[test]
    fn processes_of_one_machine_replay_and_lose_nothing() {
        search("refresh, one machine", refresh(Place::OneMachine));
    }

    #[test]
    fn two_machines_replay_and_lose_nothing() {
        search("refresh, two machines", refresh(Place::TwoMachines));
    }

    #[test]
    fn refresh_without_intent_replays_after_a_crash() {
        counterexample(broken(Place::OneMachine, Mistake::NoIntent), NO_REPLAY);
    }

    #[test]
    fn interrupted_refresh_sent_unchecked_is_a_replay() {
        counterexample(broken(Place::OneMachine, Mistake::SentUnchecked), NO_REPLAY);
        counterexample(broken(Place::OneMachine, Mistake::SentUnchecked), NOT_REVOKED);
    }

    #[test]
    fn second_attempt_that_is_repeated_is_a_replay() {
        counterexample(broken(Place::OneMachine, Mistake::RetriedAgain), NO_REPLAY);
    }

    #[test]
    fn refresh_without_journal_loses_a_pair_in_a_crash() {
        counterexample(broken(Place::OneMachine, Mistake::NoJournal), NO_PAIR_LOST);
    }

    #[test]
    fn journal_emptied_before_the_pair_is_stored_loses_it() {
        let model = || broken(Place::OneMachine, Mistake::JournalEmptiedFirst);
        counterexample(model(), NO_PAIR_LOST);
        counterexample(model(), NOT_AFTER_RECEIPT);
    }

    #[test]
    fn refresh_beside_the_intent_of_another_machine_is_found() {
        counterexample(broken(Place::TwoMachines, Mistake::OthersIgnored), NO_REPLAY);
    }

    #[test]
    fn refresh_without_lock_replays_on_one_machine() {
        counterexample(broken(Place::OneMachine, Mistake::NoLock), NO_REPLAY);
    }

    #[test]
    fn write_without_comparison_lets_two_machines_send_a_token() {
        counterexample(broken(Place::TwoMachines, Mistake::WrittenUnchecked), NO_REPLAY);
    }

    #[test]
    fn expired_access_token_taken_as_proof_is_found() {
        counterexample(broken(Place::OneMachine, Mistake::ExpiryIgnored), LOST_IS_PROVEN);
    }

    #[test]
    fn machine_paused_before_its_request_replays() {
        counterexample(broken(Place::TwoMachines, Mistake::Paused), NO_REPLAY);
    }

    #[test]
    fn token_may_be_sent_whose_pair_is_in_another_machines_journal() {
        counterexample(strict(Place::TwoMachines), NOT_AFTER_RECEIPT);
    }

    #[test]
    fn unspent_token_may_count_as_lost_after_two_interruptions() {
        counterexample(strict(Place::OneMachine), LOST_IS_PROVEN);
    }
}
