//! Writer, outbox and dispatcher together, on paused time, with a sink that can be made to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use super::dispatcher::{Dispatched, Dispatcher, SendError, Sink};
use super::lock::StateLock;
use super::observations::ObservationSender;
use super::state_file::{Commit, StateFile, StateFileOptions};
use super::tracker::Tracker;
use super::writer::{CHECKPOINT, Committer, Heartbeats, PendingCommits, Writer, WriterStats};
use crate::clock::{Chance, Clock};
use crate::core::code::Code;
use crate::core::document::SourceDocument;
use crate::core::event::read::{Reading, Side, read};
use crate::core::event::{Event, EventKind, InitialEvents};
use crate::core::evidence::Knowledge;
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::transitions;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Lifecycle;
use crate::os::Signal;
use crate::platforms::ProbeSink;
use crate::store::retention::Retention;
use crate::store::{HistoryEntry, Write};

/// How the fake bus treats events.
#[derive(Debug, Clone, Default, PartialEq)]
enum BusMode {
    /// It accepts everything.
    #[default]
    Fine,
    /// It accepts nothing.
    Down,
    /// It permanently rejects events of one source.
    Refuses(SourceKey),
    /// Sends fail temporarily for one source.
    Fails(SourceKey),
    /// Events of this source are blocked until someone acts.
    Blocks(SourceKey),
}

/// A bus that merges the events that it accepts into documents, as the persister does.
#[derive(Default)]
struct FakeBus {
    mode: Mutex<BusMode>,
    taken: Mutex<Vec<Event>>,
    documents: Mutex<BTreeMap<SourceKey, SourceDocument>>,
}

impl FakeBus {
    fn mode(&self, mode: BusMode) {
        *self.mode.lock() = mode;
    }

    /// The kinds of the events that published a change.
    fn kinds(&self, source: &SourceKey) -> Vec<EventKind> {
        let taken = self.taken.lock();
        taken
            .iter()
            .filter(|event| event.source == *source && event.urgent)
            .map(|event| event.kind)
            .collect()
    }

    /// The bodies of the events about `source`.
    fn bodies(&self, source: &SourceKey) -> Vec<serde_json::Value> {
        let taken = self.taken.lock();
        let own = taken.iter().filter(|event| event.source == *source);
        own.map(|event| serde_json::from_str(&event.body).unwrap())
            .collect()
    }

    fn stored(&self, source: &SourceKey) -> Option<SourceDocument> {
        self.documents.lock().get(source).cloned()
    }
}

#[async_trait]
impl Sink for FakeBus {
    fn describe(&self) -> String {
        "fake".to_owned()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), SendError>> {
        let mode = self.mode.lock().clone();
        let sources: BTreeSet<_> = events.iter().map(|event| &event.source).collect();
        assert_eq!(sources.len(), events.len(), "one event a source");
        events
            .iter()
            .map(|event| match &mode {
                BusMode::Down => Err(SendError::Transient("down".into())),
                BusMode::Refuses(source) if *source == event.source => {
                    Err(SendError::Permanent("too large".into()))
                }
                BusMode::Blocks(source) if *source == event.source => {
                    Err(SendError::Blocked("schemaVersion 99".into()))
                }
                BusMode::Fails(source) if *source == event.source => {
                    Err(SendError::Transient("no answer".into()))
                }
                _ => {
                    let body = event.body.as_bytes();
                    let Reading::SourceUpdate(evidence_update) =
                        read(Side::Ingress, &BTreeMap::new(), body, event.at)
                    else {
                        panic!("our own event is not understood: {}", event.body);
                    };
                    let mut documents = self.documents.lock();
                    documents
                        .entry(event.source.clone())
                        .or_insert_with(|| SourceDocument::new(event.source.clone()))
                        .join(evidence_update.knowledge);
                    self.taken.lock().push(event.clone());
                    Ok(())
                }
            })
            .collect()
    }
}

/// A clock that follows tokio's time, so that it moves with a paused runtime.
#[derive(Debug)]
struct RuntimeClock {
    start: Timestamp,
    since: tokio::time::Instant,
}

impl RuntimeClock {
    /// Starts a clock at `start` that moves as `tokio::time` does.
    fn starting_at(start: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            start,
            since: tokio::time::Instant::now(),
        })
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.start.plus_millis(elapsed)
    }
}

/// The daemon's writer, outbox and dispatcher, without platforms.
struct World {
    dir: tempfile::TempDir,
    bus: Arc<FakeBus>,
    clock: Arc<RuntimeClock>,
    pace: Option<NonZeroU32>,
    bound: usize,
    confirm_every: i64,
    heartbeats: Option<Heartbeats>,
    initial_events: InitialEvents,
    running: Option<Running>,
}

struct Running {
    observations: ObservationSender,
    state_file: Arc<StateFile>,
    stats: Arc<WriterStats>,
    dispatched: Arc<Dispatched>,
    signals: mpsc::Sender<Signal>,
    done: tokio::task::JoinHandle<Result<ExitCode, Failure>>,
}

fn options(bound: usize) -> StateFileOptions {
    StateFileOptions {
        instance: "w".to_owned(),
        bound,
        has_sink: true,
        has_alerts: false,
        history: Some(Retention::default()),
    }
}

fn key(id: u32) -> SourceKey {
    format!("twitch:{id}").parse().unwrap()
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            bus: Arc::default(),
            clock: RuntimeClock::starting_at(Timestamp::from_millis(1_780_000_000_000)),
            pace: None,
            bound: 1000,
            confirm_every: CHECKPOINT,
            heartbeats: None,
            initial_events: InitialEvents::Flag,
            running: None,
        }
    }

    fn start(mut self) -> Self {
        let state_file =
            Arc::new(StateFile::open(&self.dir.path().join("watch.db"), options(self.bound)).unwrap());
        let mut tracker = Tracker::new("w");
        state_file
            .restore(&(1..=300).map(key).collect::<Vec<_>>(), |_, stored| {
                tracker.restore(stored.unwrap());
            })
            .unwrap();
        let (observations, inputs) = ObservationSender::new();
        let wake = Arc::new(Notify::new());
        let (closing, closed) = watch::channel(false);
        let stats = Arc::new(WriterStats::since(self.clock.now()));
        let dispatched = Arc::new(Dispatched::default());
        let writer = Writer {
            tracker,
            committer: Committer::new(
                Arc::clone(&state_file),
                Arc::clone(&wake),
                Arc::clone(&stats),
                PendingCommits::default(),
            ),
            inputs,
            confirm_every: self.confirm_every,
            heartbeats: self
                .heartbeats
                .take()
                .or(Some(Heartbeats::Publish { period: 900_000 })),
            clock: self.clock.clone(),
            closing,
            shutdown: true,
            initial_events: self.initial_events,
            last_turn: None,
            results: None,
        };
        let sender = Dispatcher {
            state_file: Arc::clone(&state_file),
            sink: self.bus.clone(),
            pace: self.pace,
            wake,
            closing: closed,
            counts: Arc::clone(&dispatched),
            chance: Chance::seeded(1),
        };
        let (signals, receiver) = mpsc::channel(4);
        let lifecycle = Lifecycle::with_signals(receiver);
        lifecycle.tasks().spawn("writer", |stop| writer.run(stop));
        lifecycle.tasks().spawn("dispatcher", |stop| sender.run(stop));
        let done = lifecycle.run(Duration::from_secs(10));
        #[expect(clippy::disallowed_methods, reason = "the test owns this one")]
        let done = tokio::spawn(done);
        self.running = Some(Running {
            observations,
            state_file,
            stats,
            dispatched,
            signals,
            done,
        });
        self
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Stops as after a signal.
    async fn stop(mut self) -> Self {
        let running = self.running.take().unwrap();
        drop(running.observations);
        running.signals.send(Signal::Terminate).await.unwrap();
        running.done.await.unwrap().unwrap();
        self
    }

    /// Ends as after `kill -9`: nothing is drained or published.
    async fn kill(mut self) -> Self {
        let running = self.running.take().unwrap();
        running.signals.send(Signal::Terminate).await.unwrap();
        running.signals.send(Signal::Terminate).await.unwrap();
        running.done.await.unwrap().unwrap_err();
        // A commit that had started on another thread ends before the next process could open the file.
        while Arc::strong_count(&running.state_file) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self
    }

    fn send_fact(&self, source: &SourceKey, fact: Fact) {
        let observation = Observation::new(source, self.clock.now(), "twitch.eventsub", fact);
        self.running().observations.observe(observation);
    }

    fn up(&self, source: &SourceKey) {
        let state = LinkState::Up;
        self.send_fact(
            source,
            Fact::Connection {
                transport: Transport::Api,
                state,
            },
        );
    }

    fn live(&self, source: &SourceKey, stream: &str) {
        self.send_fact(
            source,
            Fact::StreamPush {
                live: true,
                stream_id: Some(stream.to_owned()),
                started_at: Some(self.clock.now()),
            },
        );
    }

    fn ended(&self, source: &SourceKey, stream: &str) {
        self.send_fact(
            source,
            Fact::StreamPush {
                live: false,
                stream_id: Some(stream.to_owned()),
                started_at: None,
            },
        );
    }

    /// Waits until the outbox is empty, at most this long.
    async fn drained(&self, within: Duration) -> bool {
        tokio::time::timeout(within, async {
            // The first poll comes after everything published before it has been processed.
            tokio::time::sleep(Duration::from_millis(20)).await;
            while self.running().state_file.depth().events > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .is_ok()
    }

    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

const SOON: Duration = Duration::from_mins(1);
use EventKind::{SourceStatus, StreamOffline, StreamOnline};

#[tokio::test(start_paused = true)]
async fn repeated_observations_publish_stream_once() {
    let world = World::new().start();
    let a = key(1);
    for _ in 0..3 {
        world.up(&a);
        world.live(&a, "77");
        world.pass(1).await;
    }
    world.ended(&a, "77");
    world.ended(&a, "77");
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.kinds(&a), [SourceStatus, StreamOnline, StreamOffline]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn clean_stop_publishes_disconnected_and_restart_no_duplicates() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    world.live(&a, "77");
    assert!(world.drained(SOON).await);
    let world = world.stop().await;
    assert_eq!(world.bus.kinds(&a), [SourceStatus, StreamOnline, SourceStatus]);
    let record = world.bus.stored(&a).unwrap().record();
    assert_eq!(
        (record.status.to_string(), record.stream_status.to_string()),
        ("DISCONNECTED".into(), "ONLINE".into())
    );
    let world = world.start();
    world.live(&a, "77");
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.kinds(&a).len(), 3);
    world.up(&a);
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.kinds(&a).len(), 4);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_blocked_source_does_not_make_the_daemon_unready() {
    let world = World::new().start();
    let (blocked, fine) = (key(1), key(2));
    world.bus.mode(BusMode::Blocks(blocked.clone()));
    world.up(&blocked);
    world.pass(5).await;
    assert!(!world.running().dispatched.pending.load(Ordering::Relaxed));
    world.up(&fine);
    world.pass(2).await;
    assert_eq!(world.bus.kinds(&fine), [SourceStatus]);
    assert_eq!(world.running().state_file.depth().events, 1, "it waits");
    world.bus.mode(BusMode::Fine);
    world.pass(60).await;
    assert_eq!(world.bus.kinds(&blocked), [SourceStatus]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stop_does_not_wait_for_a_blocked_source() {
    let mut world = World::new();
    let (sender, _receiver) = mpsc::channel(1);
    world.heartbeats = Some(Heartbeats::Store {
        period: 900_000,
        store_queue: sender,
    });
    let world = world.start();
    world.bus.mode(BusMode::Blocks(key(1)));
    world.up(&key(1));
    world.up(&key(2));
    world.pass(2).await;
    let before = world.clock.now();
    let world = world.stop().await;
    assert!(world.clock.now().millis_since(before) < 5_000);
    assert_eq!(
        world.bus.kinds(&key(2)),
        [SourceStatus, SourceStatus],
        "also that it is closed"
    );
}

#[tokio::test(start_paused = true)]
async fn events_wait_in_order_during_bus_outage_and_survive_kill() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    assert!(world.drained(SOON).await);
    world.bus.mode(BusMode::Down);
    for stream in ["1", "2", "3"] {
        world.live(&a, stream);
        world.pass(60).await;
        world.ended(&a, stream);
        world.pass(60).await;
    }
    let depth = world.running().state_file.depth();
    assert_eq!(depth.events - depth.heartbeats, 6);
    assert!(world.running().dispatched.pending.load(Ordering::Relaxed));
    let world = world.kill().await;
    let world = world.start();
    world.bus.mode(BusMode::Fine);
    assert!(world.drained(SOON).await);
    let expected = [
        SourceStatus,
        StreamOnline,
        StreamOffline,
        StreamOnline,
        StreamOffline,
        StreamOnline,
        StreamOffline,
    ];
    assert_eq!(world.bus.kinds(&a), expected);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_failing_source_does_not_delay_the_others() {
    let world = World::new().start();
    let (a, b) = (key(1), key(2));
    world.bus.mode(BusMode::Fails(a.clone()));
    world.live(&a, "1");
    world.live(&b, "2");
    world.pass(5).await;
    assert_eq!((world.bus.kinds(&a).len(), world.bus.kinds(&b).len()), (0, 1));
    world.bus.mode(BusMode::Fine);
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.kinds(&a), [StreamOnline]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_sent_is_put_aside_and_the_rest_goes_on() {
    let world = World::new().start();
    let (a, b) = (key(1), key(2));
    world.bus.mode(BusMode::Refuses(a.clone()));
    world.live(&a, "1");
    world.live(&b, "2");
    assert!(world.drained(SOON).await);
    assert_eq!(world.running().dispatched.rejected.load(Ordering::Relaxed), 1);
    assert_eq!(world.bus.kinds(&b), [StreamOnline]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn startup_events_are_paced_but_stream_starts_are_not() {
    let mut world = World::new();
    world.pace = NonZeroU32::new(5);
    let world = world.start();
    for id in 1..=100 {
        world.up(&key(id));
    }
    world.live(&key(200), "1");
    world.pass(2).await;
    assert_eq!(world.bus.kinds(&key(200)), [StreamOnline]);
    let sent = world.bus.taken.lock().len();
    assert!((5..=16).contains(&sent), "{sent} after 2 s");
    assert!(world.drained(Duration::from_secs(25)).await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_periodic_and_superseded_while_unsent() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    assert!(world.drained(SOON).await);
    world.bus.mode(BusMode::Down);
    for _ in 0..120 {
        world.up(&a);
        world.pass(60).await;
    }
    let depth = world.running().state_file.depth();
    assert_eq!((depth.events, depth.heartbeats), (1, 1));
    world.bus.mode(BusMode::Fine);
    assert!(world.drained(SOON).await);
    for _ in 0..60 {
        world.up(&a);
        world.pass(60).await;
    }
    let taken = world.bus.taken.lock().len();
    assert!((5..=7).contains(&taken), "{taken}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn full_outbox_drops_heartbeats_and_defers_transitions() {
    let mut world = World::new();
    world.bound = 10;
    let world = world.start();
    for id in 1..=8 {
        world.up(&key(id));
    }
    assert!(world.drained(SOON).await);
    world.bus.mode(BusMode::Down);
    for _ in 0..20 {
        (1..=8).for_each(|id| world.up(&key(id)));
        world.pass(60).await;
    }
    assert_eq!(world.running().state_file.depth().heartbeats, 8);
    for stream in ["1", "2", "3"] {
        for id in 1..=8 {
            world.live(&key(id), stream);
            world.pass(1).await;
            world.ended(&key(id), stream);
            world.pass(1).await;
        }
    }
    for id in 1..=8 {
        world.live(&key(id), "4");
        world.pass(1).await;
    }
    let running = world.running();
    assert_eq!(
        (
            running.state_file.depth().events,
            running.state_file.depth().heartbeats
        ),
        (10, 0)
    );
    assert!(running.stats.deferred.load(Ordering::Relaxed) > 0);
    world.bus.mode(BusMode::Fine);
    world.pass(60).await;
    assert!(world.drained(SOON).await);
    assert_eq!(world.running().stats.deferred.load(Ordering::Relaxed), 0);
    for id in 1..=8 {
        let record = world.bus.stored(&key(id)).unwrap().record();
        assert_eq!(record.stream_status.to_string(), "ONLINE", "{id}");
        assert_eq!(record.metadata["session"]["streamId"], "4", "{id}");
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_holds_changes_back_and_loses_none() {
    let world = World::new().start();
    world.up(&key(1));
    assert!(world.drained(SOON).await);
    world.running().state_file.limit_pages(1);
    for id in 1..=60 {
        world.live(&key(id), "1");
        world.pass(1).await;
    }
    assert!(world.running().stats.commits_failing.load(Ordering::Relaxed));
    assert!(
        world.bus.kinds(&key(60)).is_empty(),
        "nothing is published that is not on disk"
    );
    world.ended(&key(60), "1");
    world.pass(10).await;
    world.running().state_file.limit_pages(0);
    world.pass(3).await;
    assert!(world.drained(SOON).await);
    assert!(!world.running().stats.commits_failing.load(Ordering::Relaxed));
    for id in 2..=59 {
        assert_eq!(world.bus.kinds(&key(id)), [StreamOnline], "{id}");
    }
    assert_eq!(world.bus.kinds(&key(60)), [StreamOnline, StreamOffline]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failed_commit_to_broken_outbox_stops_the_daemon() {
    let mut world = World::new().start();
    world.up(&key(1));
    assert!(world.drained(SOON).await);
    let file = rusqlite::Connection::open(world.dir.path().join("watch.db")).unwrap();
    file.execute_batch(
        "CREATE TRIGGER broken BEFORE INSERT ON outbox BEGIN SELECT RAISE(FAIL, 'no longer as it was made'); END",
    )
    .unwrap();
    world.live(&key(1), "1");
    let running = world.running.take().unwrap();
    let ended = tokio::time::timeout(SOON, running.done).await.expect("it ends");
    let failure = ended.unwrap().expect_err("somebody must look at the file");
    assert!(failure.what.contains("writer"), "{failure:?}");
    assert_eq!(
        world.bus.kinds(&key(1)),
        [SourceStatus],
        "nothing is published that is not on disk"
    );
}

#[tokio::test(start_paused = true)]
async fn store_confirmations_never_overtake_pending_changes() {
    let (store_queue, mut kept) = mpsc::channel(1);
    let mut world = World::new();
    world.heartbeats = Some(Heartbeats::Store {
        period: 10_000,
        store_queue,
    });
    let world = world.start();
    world.up(&key(1));
    world.up(&key(2));
    assert!(world.drained(SOON).await);
    world.bus.mode(BusMode::Fails(key(1)));
    world.live(&key(1), "1");
    world.pass(1).await;
    while kept.try_recv().is_ok() {}
    let mut handed_on = BTreeSet::new();
    for _ in 0..40 {
        world.up(&key(1));
        world.up(&key(2));
        world.pass(1).await;
        if let Ok(batch) = kept.try_recv() {
            handed_on.extend(batch.into_iter().map(|(source, _)| source));
        }
    }
    assert_eq!(
        handed_on,
        BTreeSet::from([key(2)]),
        "of the first one a start still waits"
    );
    world.ended(&key(1), "1");
    world.bus.mode(BusMode::Fine);
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.kinds(&key(1))[1..], [StreamOnline, StreamOffline]);
    for _ in 0..20 {
        world.up(&key(1));
        world.pass(1).await;
        if let Ok(batch) = kept.try_recv() {
            handed_on.extend(batch.into_iter().map(|(source, _)| source));
        }
    }
    assert!(handed_on.contains(&key(1)));
    drop(kept);
    world.stop().await;
}

#[test]
fn state_directory_stays_locked_until_last_commit() {
    let dir = tempfile::tempdir().unwrap();
    let lock = StateLock::acquire(dir.path()).unwrap();
    let state_file = Arc::new(
        StateFile::open(&dir.path().join("watch.db"), options(10))
            .unwrap()
            .holding(lock),
    );
    // What a thread holds that is still running when its daemon is killed.
    let committing = Arc::clone(&state_file);
    drop(state_file);
    StateLock::acquire(dir.path()).unwrap_err();
    drop(committing);
    StateLock::acquire(dir.path()).unwrap();
}

impl World {
    fn seen(&self, source: &SourceKey, stream: &str) {
        self.send_fact(
            source,
            Fact::StreamSeen {
                stream_id: stream.to_owned(),
                started_at: Some(self.clock.now()),
            },
        );
    }

    fn permission(&self, source: &SourceKey, method: &str, permission: &str) {
        let grants = crate::core::observation::Grants {
            granted: [permission.to_owned()].into(),
            ..Default::default()
        };
        let method = method.to_owned();
        self.send_fact(
            source,
            Fact::Permissions {
                method,
                grants: grants.into(),
            },
        );
    }

    fn named(&self, source: &SourceKey, name: &str) {
        let fields = [("displayName".to_owned(), name.to_owned())].into();
        self.send_fact(source, Fact::Profile { fields });
    }

    fn link(&self, source: &SourceKey, transport: Transport, state: LinkState) {
        self.send_fact(source, Fact::Connection { transport, state });
    }
}

#[tokio::test(start_paused = true)]
async fn first_observations_are_published_as_initial() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    world.seen(&a, "77");
    assert!(world.drained(SOON).await);
    world.ended(&a, "77");
    assert!(world.drained(SOON).await);
    let initial: Vec<_> = world
        .bus
        .bodies(&a)
        .iter()
        .map(|body| (body["type"].clone(), body["payload"].get("initial").cloned()))
        .collect();
    assert_eq!(
        initial,
        [
            (SourceStatus.as_str().into(), Some(true.into())),
            (StreamOnline.as_str().into(), Some(true.into())),
            (StreamOffline.as_str().into(), None),
        ]
    );
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_initial_events_no_baseline_is_published() {
    let mut world = World::new();
    world.initial_events = InitialEvents::Off;
    let world = world.start();
    let a = key(1);
    world.up(&a);
    world.permission(&a, "twitch.token", "scope:user:bot");
    world.named(&a, "Ratcaster");
    world.seen(&a, "77");
    world.permission(&a, "twitch.moderated-channels", "MODERATOR");
    world.pass(5).await;
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.bodies(&a), [] as [serde_json::Value; 0]);
    world.ended(&a, "77");
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.kinds(&a), [StreamOffline]);
    let record = world.bus.stored(&a).unwrap().record();
    assert_eq!(
        (record.status.as_str(), record.stream_status.as_str()),
        ("CONNECTED", "OFFLINE"),
        "the first change carries everything along"
    );
    assert_eq!(record.held(), ["MODERATOR", "scope:user:bot"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_part_of_a_baseline_is_flagged_initial() {
    let world = World::new().start();
    let a = key(1);
    world.permission(&a, "twitch.token", "scope:user:bot");
    world.pass(2).await;
    world.up(&a);
    world.seen(&a, "77");
    world.pass(2).await;
    world.permission(&a, "twitch.moderated-channels", "MODERATOR");
    world.named(&a, "Ratcaster");
    world.pass(2).await;
    let error = crate::core::observation::ErrorInfo::new(Code::NetworkConnect, "no connection");
    world.link(&a, Transport::EventSub, LinkState::Down { error });
    world.pass(5).await;
    assert!(world.drained(SOON).await);
    let world = world.kill().await.start();
    // The daemon is killed before all of its probes are made.
    world.permission(&a, "twitch.banned", "VIP");
    assert!(world.drained(SOON).await);
    let bodies = world.bus.bodies(&a);
    assert!(bodies.len() >= 6, "{bodies:#?}");
    for body in &bodies {
        assert_eq!(body["payload"]["initial"], true, "{body:#}");
        let changes = body["payload"]["transitions"].as_array();
        for change in changes.into_iter().flatten() {
            assert!(change.get("from").is_none(), "{change:#}");
        }
        if body["type"] == SourceStatus.as_str() {
            let transitions = &body["payload"]["transitions"];
            let proven = transitions.is_null() || transitions != &serde_json::json!([]);
            assert!(proven, "{body:#}");
        }
    }
    let claims: Vec<_> = bodies
        .iter()
        .filter_map(|body| body["payload"]["status"].as_str())
        .collect();
    assert_eq!(
        claims.first(),
        Some(&"CONNECTED"),
        "no status before the connection was asked for"
    );
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_publishes_no_recovery_that_did_not_happen() {
    let error = || crate::core::observation::ErrorInfo::new(Code::NetworkConnect, "nothing listens there");
    let world = World::new().start();
    let (refused, erroneous, fine) = (key(1), key(2), key(3));
    for source in [&refused, &erroneous, &fine] {
        world.up(source);
    }
    world.link(&refused, Transport::EventSub, LinkState::Down { error: error() });
    world.link(
        &erroneous,
        Transport::EventSub,
        LinkState::Refused { error: error() },
    );
    world.link(&fine, Transport::EventSub, LinkState::Up);
    assert!(world.drained(SOON).await);
    let before = [&refused, &erroneous].map(|source| world.bus.kinds(source).len());
    let running = world.running();
    running.signals.send(Signal::Terminate).await.unwrap();
    world.pass(1).await;
    // The listener ends after the stop was requested, and reports that it closed its connections.
    for source in [&refused, &erroneous, &fine] {
        world.link(source, Transport::EventSub, LinkState::Closed);
    }
    let mut world = world;
    let running = world.running.take().unwrap();
    drop(running.observations);
    running.done.await.unwrap().unwrap();
    let after = [&refused, &erroneous].map(|source| world.bus.kinds(source).len());
    assert_eq!(before, after);
    let last = world.bus.bodies(&fine).pop().unwrap();
    let change = &last["payload"]["transitions"][0];
    assert_eq!(
        (&change["from"], &change["to"]),
        (&"CONNECTED".into(), &"DISCONNECTED".into())
    );
}

/// A command that stores what it observes in the daemon's file.
fn store_beside(world: &World, fact: Fact, source: &SourceKey) {
    let state_file = StateFile::open(&world.dir.path().join("watch.db"), options(10)).unwrap();
    let stored = state_file.document(source).unwrap().map(Result::unwrap);
    let (mut document, base) = stored.map_or_else(
        || (SourceDocument::new(source.clone()), None),
        |stored| (stored.value, Some(stored.version)),
    );
    let before = document.verdict.clone();
    let now = world.clock.now();
    document.join(Knowledge::from(&Observation::new(
        source,
        now,
        "bitbrat.probe",
        fact,
    )));
    let changes = transitions(&before, &document.verdict).into_iter();
    let write = Write {
        history: changes
            .map(|change| HistoryEntry::new(source, now, change))
            .collect(),
        document,
        base,
    };
    let commit = Commit {
        documents: vec![write],
        events: Vec::new(),
    };
    assert!(state_file.commit(&commit).unwrap().conflicts.is_empty());
}

fn stored(world: &World, source: &SourceKey) -> SourceDocument {
    world
        .running()
        .state_file
        .document(source)
        .unwrap()
        .unwrap()
        .unwrap()
        .value
}

#[tokio::test(start_paused = true)]
async fn change_is_moved_onto_the_document_of_another_process() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    assert!(world.drained(SOON).await);
    let title = [("title".to_owned(), "Chess".to_owned())].into();
    store_beside(&world, Fact::Profile { fields: title }, &a);
    world.live(&a, "77");
    world.ended(&a, "77");
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.kinds(&a), [SourceStatus, StreamOnline, StreamOffline]);
    let record = stored(&world, &a).record();
    assert_eq!(record.metadata["title"], "Chess");
    assert_eq!(record.stream_status.to_string(), "OFFLINE");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn change_that_another_process_has_recorded_is_none() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    assert!(world.drained(SOON).await);
    let seen = Fact::StreamSeen {
        stream_id: "77".to_owned(),
        started_at: None,
    };
    store_beside(&world, seen.clone(), &a);
    let transitions = || world.running().stats.transitions.load(Ordering::Relaxed);
    let before = transitions();
    world.send_fact(&a, seen);
    world.pass(1).await;
    assert_eq!(transitions(), before);
    assert_eq!(world.running().stats.store().conflicts, 1);
    assert_eq!(stored(&world, &a).record().stream_status.to_string(), "ONLINE");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deleted_document_is_written_again_in_full() {
    let mut world = World::new();
    world.confirm_every = 10_000;
    let world = world.start();
    let a = key(1);
    world.up(&a);
    world.live(&a, "77");
    assert!(world.drained(SOON).await);
    let file = rusqlite::Connection::open(world.dir.path().join("watch.db")).unwrap();
    file.execute_batch("DELETE FROM sources").unwrap();
    world.up(&a);
    world.pass(21).await;
    assert_eq!(stored(&world, &a).record().stream_status.to_string(), "ONLINE");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn unusable_document_stays_and_its_source_is_published() {
    let mut world = World::new();
    world.confirm_every = 10_000;
    let world = world.start();
    let (a, b) = (key(1), key(2));
    let file = rusqlite::Connection::open(world.dir.path().join("watch.db")).unwrap();
    let newer = r#"{"schemaVersion": 99}"#;
    file.execute("INSERT INTO sources VALUES ('twitch:1', 7, ?1, NULL)", [newer])
        .unwrap();
    for source in [&a, &b] {
        world.live(source, "77");
    }
    assert!(world.drained(SOON).await);
    for source in [&a, &b] {
        assert_eq!(world.bus.kinds(source), [StreamOnline]);
    }
    let text = || {
        file.query_row("SELECT document FROM sources WHERE id = 'twitch:1'", [], |row| {
            row.get::<_, String>(0)
        })
    };
    assert_eq!(text().unwrap(), newer);
    file.execute_batch("DELETE FROM sources WHERE id = 'twitch:1'")
        .unwrap();
    world.up(&a);
    world.pass(21).await;
    assert_eq!(stored(&world, &a).record().stream_status.to_string(), "ONLINE");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn newer_schema_stops_writes_and_changes_wait_until_it_fits() {
    let mut world = World::new();
    world.confirm_every = 10_000;
    let world = world.start();
    let (a, b) = (key(1), key(2));
    world.up(&a);
    assert!(world.drained(SOON).await);
    let file = rusqlite::Connection::open(world.dir.path().join("watch.db")).unwrap();
    let documents = || -> Vec<String> {
        let mut rows = file.prepare("SELECT document FROM sources ORDER BY id").unwrap();
        let rows = rows.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    };
    let known: i64 = file
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    let before = documents();
    file.pragma_update(None, "user_version", 99).unwrap();
    world.live(&a, "77");
    world.up(&b);
    world.pass(30).await;
    assert!(world.running().stats.commits_failing.load(Ordering::Relaxed));
    assert_eq!(documents(), before, "nothing is written into the newer file");
    assert!(!world.bus.kinds(&a).contains(&StreamOnline));
    file.pragma_update(None, "user_version", known).unwrap();
    world.pass(61).await;
    assert!(world.drained(SOON).await);
    assert!(!world.running().stats.commits_failing.load(Ordering::Relaxed));
    assert!(world.bus.kinds(&a).contains(&StreamOnline));
    assert_eq!(stored(&world, &a).record().stream_status.to_string(), "ONLINE");
    assert_eq!(documents().len(), 2);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn confirmations_are_written_once_a_period_without_documents() {
    let mut world = World::new();
    world.confirm_every = 30_000;
    let world = world.start();
    let sources = [key(1), key(2)];
    let pass = async |seconds| {
        for _ in 0..seconds {
            for source in &sources {
                world.up(source);
            }
            world.pass(1).await;
        }
    };
    pass(1).await;
    let before = world.running().stats.store();
    pass(300).await;
    let after = world.running().stats.store();
    assert_eq!(after.documents, before.documents);
    let rows = after.writes - before.writes;
    assert!((10..=22).contains(&rows), "{rows} rows for one or two blocks");
    for source in &sources {
        let confirmed = stored(&world, source).verdict.status.at.unwrap();
        assert!(world.clock.now().since(confirmed) <= Duration::from_secs(31));
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_confirmed_survives_a_kill() {
    let mut world = World::new();
    world.confirm_every = 10_000;
    let world = world.start();
    let a = key(1);
    world.up(&a);
    world.pass(60).await;
    world.up(&a);
    let observed = world.clock.now();
    world.pass(15).await;
    let world = world.kill().await.start();
    // The restored state is confirmed again together with what is observed later.
    world.up(&key(2));
    world.pass(15).await;
    assert_eq!(stored(&world, &a).verdict.status.at, Some(observed));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn change_that_waited_for_the_disk_survives_a_conflict() {
    let world = World::new().start();
    world.up(&key(60));
    assert!(world.drained(SOON).await);
    world.running().state_file.limit_pages(1);
    for id in 1..=60 {
        world.live(&key(id), "1");
        world.pass(1).await;
    }
    world.ended(&key(60), "1");
    world.pass(2).await;
    assert!(world.running().stats.commits_failing.load(Ordering::Relaxed));
    let title = [("title".to_owned(), "Chess".to_owned())].into();
    store_beside(&world, Fact::Profile { fields: title }, &key(60));
    world.running().state_file.limit_pages(0);
    world.pass(5).await;
    assert!(world.drained(SOON).await);
    assert_eq!(
        world.bus.kinds(&key(60)),
        [SourceStatus, StreamOnline, StreamOffline]
    );
    let record = stored(&world, &key(60)).record();
    assert_eq!(record.metadata["title"], "Chess");
    assert_eq!(record.stream_status.to_string(), "OFFLINE");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn events_of_a_daemon_that_no_longer_runs_are_adopted() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    assert!(world.drained(SOON).await);
    world.bus.mode(BusMode::Down);
    world.live(&a, "77");
    world.pass(2).await;
    let world = world.kill().await;
    let file = world.dir.path().join("watch.db");
    let open = |instance: &str| {
        let options = StateFileOptions {
            instance: instance.to_owned(),
            ..options(10)
        };
        StateFile::open(&file, options).unwrap()
    };
    let (running, other) = (open("w"), open("other"));
    let now = world.clock.now();
    running.adopt(now).unwrap();
    other.adopt(now.plus_secs(200)).unwrap();
    assert_eq!((running.depth().events, other.depth().events), (1, 0));
    other.adopt(now.plus_secs(400)).unwrap();
    assert_eq!(other.depth().events, 1);
    assert_eq!(other.next(9, 9, &|_| false).unwrap()[0].event.kind, StreamOnline);
}

#[tokio::test(start_paused = true)]
async fn document_edited_by_hand_is_not_replaced() {
    let mut world = World::new();
    world.confirm_every = 10_000;
    let world = world.start();
    let a = key(1);
    world.live(&a, "77");
    assert!(world.drained(SOON).await);
    let file = rusqlite::Connection::open(world.dir.path().join("watch.db")).unwrap();
    let newer = r#"{"schemaVersion": 99}"#;
    file.execute("UPDATE sources SET document = ?1", [newer]).unwrap();
    world.up(&a);
    world.pass(30).await;
    let text = file.query_row("SELECT document FROM sources", [], |row| row.get::<_, String>(0));
    assert_eq!(text.unwrap(), newer);
    world.stop().await;
}
