//! A bot on one platform: probes it, and derives the state of its sources from everything that was observed.

use std::time::Duration;

use bitbrat::clock::Clock;
use bitbrat::core::document::{SourceDocument, SourceRecord};
use bitbrat::core::evidence::{Evidence, Knowledge};
use bitbrat::core::observation::{AuthResult, Fact, LinkState, Observation};
use bitbrat::core::permission::{self, Allowed, Facts};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::core::verdict::{Status, Verdict};
use bitbrat::platforms::{Platform, Probe, ProbeSet, ProbeSink, ProbeSummary, Subject};
use parking_lot::Mutex;

use super::worlds::PlatformWorld;

/// How long a response may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A world, an adapter in it, and all observations so far.
pub struct Scenario<W> {
    pub world: W,
    platform: Box<dyn Platform>,
    observations: Vec<Observation>,
}

/// What is reported about a source, except times and details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub status: Status,
    pub stream: StreamStatus,
    pub auth: Option<AuthResult>,
    pub permissions: Option<Vec<String>>,
}

impl<W: PlatformWorld> Scenario<W> {
    pub async fn start() -> Self {
        let world = W::start().await;
        Self {
            platform: world.adapter(PATIENCE),
            world,
            observations: Vec::new(),
        }
    }

    /// Starts with a live source at place 0, where the bot has its role, and a source at place 1 that is not live. Both were
    /// probed.
    pub async fn live() -> Self {
        let mut scenario = Self::start().await;
        scenario.world.set_role(0, true).await;
        scenario.world.go_live(0);
        let probed = scenario.probe_all(&[0, 1]).await;
        assert_eq!(scenario.state(0).stream, StreamStatus::Online, "{probed:?}");
        scenario
    }

    /// Continues with the adapter of another process.
    pub fn restart(&mut self) {
        self.restart_with_timeout(PATIENCE);
    }

    /// Continues with the adapter of another process, which waits no longer than `timeout` for a response.
    pub fn restart_with_timeout(&mut self, timeout: Duration) {
        self.platform = self.world.adapter(timeout);
    }

    pub fn platform(&self) -> &dyn Platform {
        self.platform.as_ref()
    }

    pub fn now(&self) -> Timestamp {
        self.world.sim().clock.now()
    }

    /// Advances the time here and at the platform.
    pub fn pass(&self, seconds: i64) {
        self.world.sim().clock.advance(seconds * 1_000);
    }

    /// Returns how many requests have reached the platform.
    pub fn requests(&self) -> u64 {
        self.world.host().journal().total()
    }

    /// Waits until a fault has affected a request.
    pub async fn request_failed(&self) {
        while self.world.failed_requests() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn probe_all(&mut self, places: &[usize]) -> Probed {
        self.probe(&Probe::ALL, places).await
    }

    /// Probes and remembers the observations.
    pub async fn probe(&mut self, probes: &[Probe], places: &[usize]) -> Probed {
        let probed = self.run(probes, places).await;
        self.remember(&probed.observations);
        probed
    }

    /// Probes without remembering the observations.
    pub async fn run(&self, probes: &[Probe], places: &[usize]) -> Probed {
        let sink = Recorder::default();
        let summary = self.run_into(&sink, probes, places).await;
        let probed = Probed {
            observations: sink.observations.into_inner(),
            progress: sink.progress.into_inner(),
            summary,
        };
        let shown = format!("{probed:?}");
        for secret in self.world.secrets() {
            assert!(!shown.contains(&secret), "a secret is exposed: {shown}");
        }
        probed
    }

    pub async fn run_into(&self, sink: &Recorder, probes: &[Probe], places: &[usize]) -> ProbeSummary {
        let probes: ProbeSet = probes.iter().copied().collect();
        let keys: Vec<_> = places.iter().map(|place| W::key(*place)).collect();
        self.platform.probe(&probes, &keys, sink).await
    }

    /// Receives observations as `watch` does.
    pub fn remember(&mut self, observations: &[Observation]) {
        let now = self.now();
        let received = observations.iter().map(|one| one.clone().received(now));
        self.observations.extend(received);
    }

    fn knowledge(&self, place: usize) -> Knowledge {
        let key = W::key(place);
        Knowledge::of(self.observations.iter().filter(|one| one.source == key))
    }

    pub fn evidence(&self, place: usize) -> Evidence {
        self.knowledge(place).evidence
    }

    pub fn record(&self, place: usize) -> SourceRecord {
        SourceDocument::from_knowledge(W::key(place), self.knowledge(place)).record()
    }

    pub fn state(&self, place: usize) -> State {
        let record = self.record(place);
        State {
            status: record.status,
            stream: record.stream_status,
            auth: record.auth_status,
            permissions: record.permissions,
        }
    }

    /// Returns a part of a source's verdict after each observation, without repetitions.
    pub fn history<T: PartialEq>(&self, place: usize, part: impl Fn(&Verdict) -> T) -> Vec<T> {
        let key = W::key(place);
        let mut document = SourceDocument::new(key.clone());
        let mut parts = Vec::new();
        for observation in self.observations.iter().filter(|one| one.source == key) {
            document.join(Knowledge::from(observation));
            parts.push(part(&document.verdict));
        }
        parts.dedup();
        parts
    }

    /// Returns the actions that the bot may perform at a source.
    pub fn allowed(&self, place: usize) -> Vec<&'static str> {
        let evidence = self.evidence(place);
        let facts = Facts {
            platform: W::NAME,
            evidence: &evidence,
            now: Some(self.now()),
        };
        let actions = permission::actions(W::NAME).iter();
        actions
            .filter(|action| permission::can(facts, action).allowed == Allowed::Yes)
            .map(|action| action.name)
            .collect()
    }

    pub fn holds_role(&self, place: usize) -> bool {
        self.record(place).held().iter().any(|name| name == W::PERMISSION)
    }
}

/// Stores what a probe reports, and checks its progress.
#[derive(Default)]
pub struct Recorder {
    pub observations: Mutex<Vec<Observation>>,
    progress: Mutex<Vec<(usize, usize)>>,
}

impl ProbeSink for Recorder {
    fn observe(&self, observation: Observation) {
        self.observations.lock().push(observation);
    }

    fn progress(&self, _platform: PlatformName, done: usize, expected: usize) {
        assert!(done <= expected, "{done} of {expected}");
        self.progress.lock().push((done, expected));
    }
}

/// The result of one probe run.
#[derive(Debug)]
pub struct Probed {
    pub observations: Vec<Observation>,
    /// Completed and expected calls.
    pub progress: Vec<(usize, usize)>,
    pub summary: ProbeSummary,
}

impl Probed {
    pub fn facts_about<'a>(&'a self, source: &'a SourceKey) -> impl Iterator<Item = &'a Fact> {
        let about = self.observations.iter().filter(move |one| one.source == *source);
        about.map(|one| &*one.fact)
    }

    /// Returns the observations that only an answer of the API justifies, whatever it says.
    pub fn claims(&self) -> Vec<&Observation> {
        let needs_an_answer = |one: &&Observation| match &*one.fact {
            Fact::StreamSeen { .. }
            | Fact::StreamAbsent
            | Fact::StreamPush { .. }
            | Fact::Viewers { .. }
            | Fact::ViewersHidden { .. }
            | Fact::Exists
            | Fact::NoSuchSource { .. } => true,
            Fact::Connection { state, .. } => matches!(state, LinkState::Up | LinkState::Answered),
            Fact::Auth { check, .. } => check.result != AuthResult::Valid,
            _ => false,
        };
        self.observations.iter().filter(needs_an_answer).collect()
    }

    /// Returns the subjects of the problems that users read.
    pub fn subjects(&self) -> Vec<Subject> {
        let problems = self.summary.problems.iter();
        problems.map(|problem| problem.about.clone()).collect()
    }
}
