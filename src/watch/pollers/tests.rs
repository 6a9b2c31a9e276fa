//! Pollers on paused time, with a platform whose answers take a configured time.

use async_trait::async_trait;
use tokio::sync::watch;

use super::*;
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{ErrorInfo, Fact, LinkState, Observation, Transport};
use crate::core::schedule::Schedule;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Lifecycle;
use crate::platforms::{PlatformError, ProbeSink, ProbeSummary, RateLimit};
use crate::watch::ticks::{self, Timetable};

#[derive(Debug, Clone, PartialEq)]
struct Begun {
    probes: Vec<Probe>,
    sources: usize,
    second: u64,
}

struct SlowPlatform {
    takes: Duration,
    since: Instant,
    begun: Arc<Mutex<Vec<Begun>>>,
    observed: Arc<Mutex<Vec<(i64, Fact)>>>,
}

#[async_trait]
impl Platform for SlowPlatform {
    fn name(&self) -> PlatformName {
        PlatformName::Twitch
    }

    fn rate_limits(&self) -> Vec<RateLimit> {
        Vec::new()
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError> {
        Ok(vec![None; names.len()])
    }

    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary {
        self.begun.lock().push(Begun {
            probes: probes.iter().copied().collect(),
            sources: sources.len(),
            second: self.since.elapsed().as_secs(),
        });
        tokio::time::sleep(self.takes).await;
        for (second, fact) in self.observed.lock().iter().cloned() {
            let at = Timestamp::EPOCH.plus_secs(second);
            sink.observe(Observation::new(&sources[0], at, "test", fact));
        }
        ProbeSummary::default()
    }
}

struct World {
    pollers: Arc<Pollers>,
    begun: Arc<Mutex<Vec<Begun>>>,
    observed: Arc<Mutex<Vec<(i64, Fact)>>>,
    tasks: Tasks,
    running: tokio::task::JoinHandle<Result<ExitCode, Failure>>,
    _receiver: super::super::observations::ObservationReceiver,
}

/// Ten sources, the first two of which are live, of a platform whose probes take this many seconds.
fn world(takes: u64) -> World {
    let key = |id: u32| -> SourceKey { format!("twitch:{id}").parse().unwrap() };
    let begun: Arc<Mutex<Vec<Begun>>> = Arc::default();
    let observed: Arc<Mutex<Vec<(i64, Fact)>>> = Arc::default();
    let platform: Arc<dyn Platform> = Arc::new(SlowPlatform {
        takes: Duration::from_secs(takes),
        since: Instant::now(),
        begun: Arc::clone(&begun),
        observed: Arc::clone(&observed),
    });
    let pollers = Pollers::new(
        &[platform],
        MonitoredSources::new((1..=10).map(|id| key(id).into()).collect()),
        Arc::new(move || BTreeSet::from([key(1), key(2), key(99)])),
        Duration::ZERO,
        Chance::seeded(1),
    );
    let lifecycle = Lifecycle::new();
    let tasks = lifecycle.tasks();
    let (observations, inputs) = ObservationSender::new();
    pollers.start(&tasks, &observations);
    #[expect(clippy::disallowed_methods, reason = "the test owns this one")]
    let running = tokio::spawn(lifecycle.run(Duration::from_secs(10)));
    World {
        pollers,
        begun,
        observed,
        tasks,
        running,
        _receiver: inputs,
    }
}

impl World {
    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn begun(&self) -> Vec<Begun> {
        std::mem::take(&mut *self.begun.lock())
    }

    fn skipped(&self) -> u64 {
        self.pollers.report().iter().map(|poller| poller.skipped).sum()
    }

    async fn stop(self) {
        self.tasks.request_stop();
        assert_eq!(self.running.await.unwrap(), Ok(ExitCode::Healthy));
    }
}

#[tokio::test(start_paused = true)]
async fn one_run_per_schedule_is_active_and_late_ones_are_skipped() {
    let world = world(25);
    for _ in 0..6 {
        world.pollers.tick(Probe::Stream);
        world.pass(10).await;
    }
    let seconds: Vec<u64> = world.begun().iter().map(|probe| probe.second).collect();
    assert_eq!(seconds, [0, 30]);
    assert_eq!(world.skipped(), 4);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn requested_probe_is_not_skipped_and_schedules_take_turns() {
    let world = world(25);
    world.pollers.tick(Probe::Stream);
    world.pass(10).await;
    world.pollers.ask(&ProbeSet::from([Probe::Stream]));
    world.pollers.tick(Probe::Connection);
    world.pollers.tick(Probe::Auth);
    world.pass(30).await;
    let runs: Vec<_> = world
        .begun()
        .into_iter()
        .map(|probe| (probe.second, probe.probes))
        .collect();
    assert_eq!(
        runs,
        [
            (0, vec![Probe::Stream]),
            (10, vec![Probe::Auth]),
            (25, vec![Probe::Connection, Probe::Stream])
        ]
    );
    assert_eq!(world.skipped(), 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn viewers_are_asked_only_of_sources_that_are_live() {
    let world = world(0);
    world.pollers.tick(Probe::Viewers);
    world.pass(1).await;
    assert_eq!(world.begun()[0].sources, 2, "those that are live and monitored");
    world.pollers.tick(Probe::Viewers);
    world.pollers.tick(Probe::Stream);
    world.pass(1).await;
    let together = world.begun();
    assert_eq!(
        together.len(),
        1,
        "who is live is asked of all, and brings its viewers along"
    );
    assert_eq!(together[0].sources, 10);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn unexpected_rejection_checks_tokens_once_a_minute_at_most() {
    let world = world(0);
    for _ in 0..12 {
        world.pollers.check_tokens(PlatformName::Twitch);
        world.pollers.check_tokens(PlatformName::Kick);
        world.pass(10).await;
    }
    let runs = world.begun();
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().all(|probe| probe.probes == [Probe::Auth]));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_evidence_counts_as_the_success_of_a_check() {
    let world = world(0);
    let failed = || Fact::Unanswered {
        facet: Facet::Stream,
        error: ErrorInfo::new(Code::NetworkTimeout, "no answer"),
    };
    let down = Fact::Connection {
        transport: Transport::Api,
        state: LinkState::Down {
            error: ErrorInfo::new(Code::NetworkTimeout, "no answer"),
        },
    };
    let evidence = || world.pollers.report()[0].evidence.clone();
    for (observed, expected) in [
        (vec![(5, failed()), (5, down)], BTreeMap::new()),
        (
            vec![(7, Fact::StreamAbsent)],
            BTreeMap::from([(Probe::Stream, Timestamp::EPOCH.plus_secs(7))]),
        ),
        (
            vec![(9, failed()), (6, Fact::StreamAbsent)],
            BTreeMap::from([(Probe::Stream, Timestamp::EPOCH.plus_secs(7))]),
        ),
    ] {
        *world.observed.lock() = observed;
        world.pollers.tick(Probe::Stream);
        world.pass(1).await;
        assert_eq!(evidence(), expected);
    }
    world.stop().await;
}

#[test]
fn only_refusals_of_credentials_are_suspicious() {
    for (code, expected) in [
        (Code::Http(401), true),
        (Code::Unauthorized(PlatformName::Twitch), true),
        (Code::TokenUnchecked(PlatformName::Kick), false),
        (Code::Http(503), false),
        (Code::NetworkTimeout, false),
        (Code::NotFound(PlatformName::Twitch), false),
    ] {
        let fact = Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Down {
                error: ErrorInfo::new(code, "no"),
            },
        };
        let source = "twitch:1".parse().unwrap();
        let observation = Observation::new(&source, crate::core::time::Timestamp::EPOCH, "test", fact);
        assert_eq!(
            crate::watch::engine::is_unauthorized(&observation),
            expected,
            "{code}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn clock_jump_probes_everything_again() {
    let world = world(0);
    // Far in the future: the expression triggers no probe during the test.
    let schedule = Schedule::parse("0 0 0 1 1 *").unwrap();
    let timetable: Timetable = [(Probe::Stream, schedule.clone()), (Probe::Auth, schedule)].into();
    let (sender, receiver) = watch::channel(timetable);
    let (jump, jumps) = watch::channel(0);
    let pollers = Arc::clone(&world.pollers);
    world
        .tasks
        .spawn("ticks", |stop| ticks::run(receiver, jumps, pollers, stop));
    world.pass(5).await;
    assert_eq!(world.begun().len(), 2, "at the start");
    world.pass(3600).await;
    assert_eq!(world.begun().len(), 0);
    jump.send_modify(|count| *count += 1);
    world.pass(5).await;
    assert_eq!(world.begun().len(), 2);
    sender.send_modify(|timetable| drop(timetable.remove(&Probe::Auth)));
    world.pass(5).await;
    assert_eq!(world.begun().len(), 1, "with the new timetable");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn single_round_does_not_wait_for_a_platform_that_hangs() {
    let world = world(3_600);
    let (observations, _inputs) = ObservationSender::new();
    let (begun, patience) = (Instant::now(), Duration::from_secs(25));
    let probes = Probe::ALL.into_iter().collect();
    let finished = world
        .pollers
        .probe_once(&probes, &observations, patience, &Stop::never())
        .await;
    assert!(!finished);
    assert_eq!(begun.elapsed().as_secs(), 25);
    world.stop().await;
}
