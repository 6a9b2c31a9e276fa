//! A virtual week in minutes: hundreds of channels of the simulated Twitch, probed over real sockets and pushed, with random
//! faults and restarts, clean and unclean. At its end every document matches the simulator, every broadcast was announced exactly
//! once, and memory has stopped growing.
//!
//! The clock is moved: from one event to the next at once. By default the week has 60 sources, a quarter of a minute of processor
//! time in a debug build; `scripts/soak.sh` runs it with 500, and with other seeds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::core::verdict::Status;
use bitbrat::sim::twitch::{EndSpec, StreamSpec};
use bitbrat::sim::{Fault, FaultBody, WireFault};

use super::truth::Truth;
use super::world::{START, World, pushed};

/// Seconds between two probes.
const LOOK: u32 = 3_600;
/// By how much the least memory in use in the last third of the week may exceed the most in the first third, in KiB. Usually it is
/// less than that. Ten bytes that each observation of 500 sources leaves behind are too much.
const GROWTH: usize = 2 * 1024;

/// The week so far.
struct Week {
    world: World,
    truth: Truth,
    chance: fastrand::Rng,
    /// Pushes in transit: when they arrive, and their observation.
    pushes: BTreeMap<(Timestamp, u64), Observation>,
    /// How often the start of a stream was received as a push.
    received: BTreeMap<String, u32>,
    /// The faults, and when each began.
    injected_faults: Vec<(Timestamp, &'static str)>,
}

impl Week {
    async fn new(sources: u32, days: u32, seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let start = Timestamp::from_millis(START);
        let truth = Truth::invent(start, sources, i64::from(days), &mut chance);
        Self {
            world: World::new(truth.keys()).await,
            truth,
            chance,
            pushes: BTreeMap::new(),
            received: BTreeMap::new(),
            injected_faults: Vec::new(),
        }
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// Lets time pass without faults, so that no probe may fail.
    async fn rest(&mut self, seconds: i64, probe_every: i64) {
        let failed = self.world.failed_probes();
        self.pass(seconds, probe_every).await;
        assert_eq!(
            self.world.failed_probes(),
            failed,
            "a look failed without a reason: {}, after {:?}",
            self.world.last_problems(),
            self.injected_faults.last()
        );
    }

    /// Lets time pass: streams start and end at their times, probes happen at theirs. At its end nothing is in progress.
    async fn pass(&mut self, seconds: i64, probe_every: i64) {
        let end = self.now().plus_secs(seconds);
        let mut look_at = self.now().plus_secs(probe_every);
        loop {
            let now = self.now();
            let change = self.truth.next_change(now);
            let push = self.pushes.first_key_value().map(|((at, _), _)| *at);
            let next = [Some(end), Some(look_at), change, push]
                .into_iter()
                .flatten()
                .min()
                .unwrap();
            self.world.sim.clock.advance(next.millis_since(now).max(0));
            for (source, stream, live) in self.truth.changes_at(next).collect::<Vec<_>>() {
                self.change(&source, &stream, live, next);
            }
            self.deliver(next);
            if next == look_at {
                self.world.probe().await;
                look_at = look_at.plus_secs(probe_every);
            }
            if next == end {
                self.world.settle().await;
                return;
            }
        }
    }

    /// Starts or ends a stream. Polls lag behind; its push arrives at once, late, twice or never.
    fn change(&mut self, source: &SourceKey, stream: &str, live: bool, at: Timestamp) {
        let lag_ms = Some(self.chance.i64(0..180_000));
        let twitch = &self.world.sim.twitch;
        if live {
            let spec = StreamSpec {
                stream_id: Some(stream.to_owned()),
                lag_ms,
                ..StreamSpec::default()
            };
            twitch.go_live_with(source.id(), &spec).unwrap();
        } else {
            let spec = EndSpec {
                lag_ms,
                ..EndSpec::default()
            };
            twitch.end_stream_with(source.id(), &spec).unwrap();
        }
        let push = pushed(source, stream, live, at);
        for _ in 0..[0, 1, 1, 1, 1, 1, 1, 2][self.chance.usize(0..8)] {
            let late = match self.chance.u8(0..10) {
                0 => self.chance.i64(1_000..120_000),
                _ => 0,
            };
            let order = self.chance.u64(..);
            self.pushes.insert((at.plus_millis(late), order), push.clone());
        }
    }

    /// Delivers pushes that are due; they are lost while the daemon is not running.
    fn deliver(&mut self, now: Timestamp) {
        let later = self.pushes.split_off(&(now.plus_millis(1), 0));
        for (_, push) in std::mem::replace(&mut self.pushes, later) {
            let started = match &*push.fact {
                Fact::StreamPush { stream_id, .. } => stream_id.clone(),
                _ => None,
            };
            if self.world.push(push) {
                *self.received.entry(started.unwrap_or_default()).or_default() += 1;
            }
        }
    }

    /// Injects a random fault.
    async fn failure(&mut self) {
        let seconds = self.chance.i64(60..1_800);
        let kind = self.chance.u8(0..9);
        let name = [
            "503",
            "garbage",
            "resets",
            "every second call fails",
            "off the network",
            "no store",
            "killed",
            "stopped",
            "stopped",
        ][usize::from(kind)];
        self.injected_faults.push((self.now(), name));
        match kind {
            0 => self.fault(Fault::status(503), seconds).await,
            1 => self.fault(Fault::body(FaultBody::Garbage), seconds).await,
            2 => self.fault(Fault::wire(WireFault::Reset), seconds).await,
            3 => {
                let fault = Fault {
                    chance: Some(0.5),
                    ..Fault::status(500)
                };
                self.fault(fault, seconds).await;
            }
            4 => {
                self.world.sim.twitch.host().go_down();
                self.world.probe().await;
                self.pass(seconds, i64::from(LOOK)).await;
                self.world.come_up().await;
            }
            5 => self.without_store(seconds).await,
            6 => {
                self.kill().await;
                self.away(seconds / 2).await;
            }
            _ => {
                self.world.stop().await;
                self.away(seconds / 2).await;
            }
        }
    }

    /// Twitch fails in some way.
    async fn fault(&mut self, fault: Fault, seconds: i64) {
        let host = self.world.sim.twitch.host().clone();
        let fault = host.faults().add(fault.on("/helix"));
        self.world.probe().await;
        self.pass(seconds, i64::from(LOOK)).await;
        host.faults().remove(fault);
    }

    /// The store is unavailable; half of the times the daemon ends before it is back.
    async fn without_store(&mut self, seconds: i64) {
        self.world.set_store_away(true);
        self.pass(seconds, seconds / 2).await;
        if self.chance.bool() {
            self.kill().await;
            self.world.start().await;
        }
        self.world.set_store_away(false);
        // Its next attempts are up to half a minute away.
        self.pass(60, i64::from(LOOK)).await;
    }

    /// Kills the daemon in the middle of a probe.
    async fn kill(&mut self) {
        self.world.ask();
        tokio::time::sleep(Duration::from_millis(self.chance.u64(0..150))).await;
        self.world.kill().await;
    }

    /// The daemon is not running for a while. A daemon that starts probes everything.
    async fn away(&mut self, seconds: i64) {
        self.pass(seconds, i64::from(LOOK)).await;
        self.world.start().await;
        self.world.probe().await;
    }

    /// Compares documents and history with the simulator.
    async fn compare(&self) {
        let now = self.now();
        let mut problems = Vec::new();
        let truth = live_streams(&self.world.sim.twitch.truth());
        for source in self.truth.keys() {
            let document = self.world.document(&source).await;
            let live = truth.get(source.id()).cloned();
            let planned = self.truth.at(&source, now).map(|broadcast| broadcast.id.clone());
            assert_eq!(live, planned, "the simulator did as it was told");
            let expected = match live {
                Some(_) => StreamStatus::Online,
                None => StreamStatus::Offline,
            };
            let verdict = &document.verdict;
            if (verdict.stream.value, verdict.status.value) != (expected, Status::Connected) {
                problems.push(format!(
                    "{source}: {:?} {:?}, truth {live:?}",
                    verdict.stream, verdict.status
                ));
            }
            let session = verdict
                .broadcast
                .as_ref()
                .map(|session| session.stream_id.clone());
            if live.is_some() && session != live {
                problems.push(format!("{source}: stream {session:?}, truth {live:?}"));
            }
            problems.extend(self.history(&source, now).await);
        }
        assert!(
            problems.is_empty(),
            "{} problems:\n{}\ntroubles: {:?}",
            problems.len(),
            problems.join("\n"),
            self.injected_faults
        );
    }

    /// Each broadcast was announced, once, not before it began, and none that never existed.
    async fn history(&self, source: &SourceKey, now: Timestamp) -> Vec<String> {
        let mut announced: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
        for transition in self.world.transitions(source).await {
            if transition.to.as_deref() == Some("ONLINE") {
                let stream = transition.stream_id.unwrap_or_default();
                announced.entry(stream).or_default().push(transition.at);
            }
        }
        let mut problems = Vec::new();
        for broadcast in self.truth.broadcasts[source]
            .iter()
            .filter(|broadcast| broadcast.start <= now)
        {
            let received = self.received.get(&broadcast.id).unwrap_or(&0);
            let problem = match announced.remove(&broadcast.id).as_deref() {
                None => "was never announced".to_owned(),
                Some([at]) if *at < broadcast.start => format!("was announced at {at}, before it began"),
                Some([_]) => continue,
                Some(times) => format!("was announced at {times:?}"),
            };
            problems.push(format!(
                "{source}: {broadcast:?}, its start heard {received} times, {problem}"
            ));
        }
        problems.extend(
            announced
                .keys()
                .map(|stream| format!("{source}: stream {stream} was announced and never was")),
        );
        problems
    }
}

/// The live channels and their streams, from the simulator.
fn live_streams(truth: &serde_json::Value) -> BTreeMap<String, String> {
    let channels = truth["channels"].as_array().unwrap().iter();
    let live = channels.filter_map(|channel| {
        let stream = channel["stream"]["id"].as_str()?;
        Some((channel["id"].as_str()?.to_owned(), stream.to_owned()))
    });
    live.collect()
}

/// Memory in use by this process, simulator included, without the program itself and SQLite's, in KiB. What the allocator keeps
/// in reserve, which varies by some MiB, does not count.
fn memory() -> usize {
    let stats = crate::ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated) / 1_024
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

fn setting(name: &str, usual: u32) -> u32 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

#[tokio::test]
async fn after_a_virtual_week_of_faults_every_document_is_the_truth() {
    let (sources, days) = (
        setting("BITBRAT_SOAK_SOURCES", 60),
        setting("BITBRAT_SOAK_DAYS", 7),
    );
    let probe = i64::from(setting("BITBRAT_SOAK_LOOK", LOOK));
    let begun = Instant::now();
    let mut week = Week::new(sources, days, u64::from(setting("BITBRAT_SOAK_SEED", 7))).await;
    let start = week.now();
    let end = start.plus_secs(i64::from(days) * 86_400);
    let third = i64::from(days) * 86_400 / 3;
    week.world.start().await;
    week.world.probe().await;
    let (mut early, mut late) = (0, usize::MAX);
    while week.now() < end {
        let quiet = week.chance.i64(3_600..6 * 3_600);
        week.rest(quiet, probe).await;
        week.failure().await;
        if week.now() < start.plus_secs(third) {
            early = early.max(memory());
        } else if week.now() > end.plus_secs(-third) {
            late = late.min(memory());
        }
    }
    // Time enough for the slowest rule: an end that only polls show, from a cache that lags.
    week.truth.cut(week.now());
    week.rest(1_200, 300).await;
    week.compare().await;
    assert!(late < early + GROWTH, "memory grew from {early} to {late} KiB");
    let outbox = size(&week.world.directory.path().join("watch.db"));
    // The documents and the published state of all sources, and as much space as the outbox needed once.
    assert!(outbox < 24 << 20, "watch.db has {outbox} bytes");
    week.world.stop().await;
    for source in week.truth.keys() {
        let status = week.world.document(&source).await.verdict.status.value;
        assert_eq!(status, Status::Disconnected, "{source} after a clean stop");
    }
    let broadcasts: usize = week.truth.broadcasts.values().map(Vec::len).sum();
    let (probe_counts, seconds) = (week.world.probe_counts(), begun.elapsed().as_secs());
    #[expect(clippy::print_stderr, reason = "whoever runs it by hand wants to know")]
    {
        eprintln!(
            "{days} days of {sources} sources in {seconds} s: {broadcasts} broadcasts, {probe_counts} looks, {} troubles, \
             {} starts, at most {early} KiB in the first third, at least {late} KiB in the last, {outbox} bytes of ledger",
            week.injected_faults.len(),
            week.world.starts
        );
    }
}
