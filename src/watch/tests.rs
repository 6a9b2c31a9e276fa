//! Recorder, ledger and dispatcher together, on paused time, with an outlet that can be told to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};

use super::dispatcher::{Dispatched, Dispatcher, Outlet, Unsent};
use super::intake::Intake;
use super::ledger::Ledger;
use super::lock::StateLock;
use super::recorder::{Beat, Recorded, Recorder, Stuck};
use super::tracker::Tracker;
use crate::clock::{Chance, Clock, RuntimeClock};
use crate::core::document::SourceDocument;
use crate::core::event::read::{Reading, Side, read};
use crate::core::event::{Event, EventKind};
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::{Lifecycle, Signal};
use crate::platforms::ProbeSink;

/// What the fake bus does with events.
#[derive(Debug, Clone, Default, PartialEq)]
enum Mood {
    /// It takes everything.
    #[default]
    Fine,
    /// It takes nothing.
    Down,
    /// It never takes events of one source.
    Refuses(SourceKey),
    /// It has no answer for one source now.
    Fails(SourceKey),
}

/// A bus that joins what it takes into documents, as the persister does.
#[derive(Default)]
struct FakeBus {
    mood: Mutex<Mood>,
    taken: Mutex<Vec<Event>>,
    documents: Mutex<BTreeMap<SourceKey, SourceDocument>>,
}

impl FakeBus {
    fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// The kinds of the events that told a change.
    fn kinds(&self, source: &SourceKey) -> Vec<EventKind> {
        let taken = self.taken.lock().unwrap();
        taken
            .iter()
            .filter(|event| event.source == *source && event.urgent)
            .map(|event| event.kind)
            .collect()
    }

    fn stored(&self, source: &SourceKey) -> Option<SourceDocument> {
        self.documents.lock().unwrap().get(source).cloned()
    }
}

#[async_trait]
impl Outlet for FakeBus {
    fn describe(&self) -> String {
        "fake".to_owned()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), Unsent>> {
        let mood = self.mood.lock().unwrap().clone();
        let sources: BTreeSet<_> = events.iter().map(|event| &event.source).collect();
        assert_eq!(sources.len(), events.len(), "one event a source");
        events
            .iter()
            .map(|event| match &mood {
                Mood::Down => Err(Unsent::Later("down".into())),
                Mood::Refuses(source) if *source == event.source => Err(Unsent::Never("too large".into())),
                Mood::Fails(source) if *source == event.source => Err(Unsent::Later("no answer".into())),
                _ => {
                    let body = event.body.as_bytes();
                    let Reading::Learnt(learnt) = read(Side::Ingress, &BTreeMap::new(), body, event.at)
                    else {
                        panic!("our own event is not understood: {}", event.body);
                    };
                    let mut documents = self.documents.lock().unwrap();
                    documents
                        .entry(event.source.clone())
                        .or_insert_with(|| SourceDocument::new(event.source.clone()))
                        .join(learnt.knowledge);
                    self.taken.lock().unwrap().push(event.clone());
                    Ok(())
                }
            })
            .collect()
    }
}

/// The daemon's memory and mouth, without platforms.
struct World {
    dir: tempfile::TempDir,
    bus: Arc<FakeBus>,
    clock: Arc<RuntimeClock>,
    pace: Option<NonZeroU32>,
    bound: usize,
    beat: Option<Beat>,
    running: Option<Running>,
}

struct Running {
    intake: Intake,
    ledger: Arc<Ledger>,
    recorded: Arc<Recorded>,
    dispatched: Arc<Dispatched>,
    signals: mpsc::Sender<Signal>,
    done: tokio::task::JoinHandle<Result<ExitCode, Failure>>,
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
            beat: None,
            running: None,
        }
    }

    fn start(mut self) -> Self {
        let ledger = Arc::new(Ledger::open(self.dir.path(), self.bound).unwrap());
        let mut tracker = Tracker::new("w");
        ledger
            .restore(|source, known| tracker.restore(source, known))
            .unwrap();
        let (intake, inputs) = Intake::new();
        let bell = Arc::new(Notify::new());
        let (closing, closed) = watch::channel(false);
        let recorded = Arc::new(Recorded::default());
        let dispatched = Arc::new(Dispatched::default());
        let writer = Recorder {
            tracker,
            ledger: Arc::clone(&ledger),
            inputs,
            beat: self.beat.take().unwrap_or(Beat::Publish { period: 900_000 }),
            clock: self.clock.clone(),
            bell: Arc::clone(&bell),
            closing,
            counts: Arc::clone(&recorded),
            farewell: true,
            stuck: Stuck::default(),
        };
        let sender = Dispatcher {
            ledger: Arc::clone(&ledger),
            outlet: self.bus.clone(),
            pace: self.pace,
            bell,
            closing: closed,
            counts: Arc::clone(&dispatched),
            chance: Chance::seeded(1),
        };
        let lifecycle = Lifecycle::new();
        let (signals, receiver) = mpsc::channel(4);
        lifecycle.tasks().spawn("recorder", |stop| writer.run(stop));
        lifecycle.tasks().spawn("dispatcher", |stop| sender.run(stop));
        let done = lifecycle.run_with(receiver, Duration::from_secs(10));
        #[expect(clippy::disallowed_methods, reason = "the test owns this one")]
        let done = tokio::spawn(done);
        self.running = Some(Running {
            intake,
            ledger,
            recorded,
            dispatched,
            signals,
            done,
        });
        self
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Ends as after a signal.
    async fn stop(mut self) -> Self {
        let running = self.running.take().unwrap();
        drop(running.intake);
        running.signals.send(Signal::Terminate).await.unwrap();
        running.done.await.unwrap().unwrap();
        self
    }

    /// Ends as after `kill -9`: nothing is drained, nothing is said.
    async fn kill(mut self) -> Self {
        let running = self.running.take().unwrap();
        running.signals.send(Signal::Terminate).await.unwrap();
        running.signals.send(Signal::Terminate).await.unwrap();
        running.done.await.unwrap().unwrap_err();
        // A commit that had begun on another thread ends before the next process could open the file.
        while Arc::strong_count(&running.ledger) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self
    }

    fn tell(&self, source: &SourceKey, fact: Fact) {
        let observation = Observation::new(source, self.clock.now(), "twitch.eventsub", fact);
        self.running().intake.observe(observation);
    }

    fn up(&self, source: &SourceKey) {
        let state = LinkState::Up;
        self.tell(
            source,
            Fact::Connection {
                transport: Transport::Api,
                state,
            },
        );
    }

    fn live(&self, source: &SourceKey, stream: &str) {
        self.tell(
            source,
            Fact::StreamPush {
                live: true,
                stream_id: Some(stream.to_owned()),
                started_at: Some(self.clock.now()),
            },
        );
    }

    fn ended(&self, source: &SourceKey, stream: &str) {
        self.tell(
            source,
            Fact::StreamPush {
                live: false,
                stream_id: Some(stream.to_owned()),
                started_at: None,
            },
        );
    }

    /// Waits until the outbox is empty, at most so long.
    async fn drained(&self, within: Duration) -> bool {
        tokio::time::timeout(within, async {
            // The first look comes after everything that was told before it has been taken in.
            tokio::time::sleep(Duration::from_millis(20)).await;
            while self.running().ledger.depth().events > 0 {
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
async fn a_broadcast_is_announced_once_however_often_it_is_told() {
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
async fn a_clean_stop_says_disconnected_and_the_next_start_says_nothing_twice() {
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
async fn what_the_bus_does_not_take_waits_in_order_and_survives_a_kill() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    assert!(world.drained(SOON).await);
    world.bus.mood(Mood::Down);
    for stream in ["1", "2", "3"] {
        world.live(&a, stream);
        world.pass(60).await;
        world.ended(&a, stream);
        world.pass(60).await;
    }
    let depth = world.running().ledger.depth();
    assert_eq!(depth.events - depth.heartbeats, 6);
    assert!(world.running().dispatched.stuck.load(Ordering::Relaxed));
    let world = world.kill().await;
    let world = world.start();
    world.bus.mood(Mood::Fine);
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
async fn one_source_in_trouble_does_not_hold_up_the_others() {
    let world = World::new().start();
    let (a, b) = (key(1), key(2));
    world.bus.mood(Mood::Fails(a.clone()));
    world.live(&a, "1");
    world.live(&b, "2");
    world.pass(5).await;
    assert_eq!((world.bus.kinds(&a).len(), world.bus.kinds(&b).len()), (0, 1));
    world.bus.mood(Mood::Fine);
    assert!(world.drained(SOON).await);
    assert_eq!(world.bus.kinds(&a), [StreamOnline]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_sent_is_put_aside_and_the_rest_goes_on() {
    let world = World::new().start();
    let (a, b) = (key(1), key(2));
    world.bus.mood(Mood::Refuses(a.clone()));
    world.live(&a, "1");
    world.live(&b, "2");
    assert!(world.drained(SOON).await);
    assert_eq!(world.running().dispatched.refused.load(Ordering::Relaxed), 1);
    assert_eq!(world.bus.kinds(&b), [StreamOnline]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_with_many_sources_is_spread_but_a_stream_that_starts_is_not() {
    let mut world = World::new();
    world.pace = NonZeroU32::new(5);
    let world = world.start();
    for id in 1..=100 {
        world.up(&key(id));
    }
    world.live(&key(200), "1");
    world.pass(2).await;
    assert_eq!(world.bus.kinds(&key(200)), [StreamOnline]);
    let sent = world.bus.taken.lock().unwrap().len();
    assert!((5..=16).contains(&sent), "{sent} after 2 s");
    assert!(world.drained(Duration::from_secs(25)).await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_once_a_period_and_are_superseded_while_nobody_takes_them() {
    let world = World::new().start();
    let a = key(1);
    world.up(&a);
    assert!(world.drained(SOON).await);
    world.bus.mood(Mood::Down);
    for _ in 0..120 {
        world.up(&a);
        world.pass(60).await;
    }
    let depth = world.running().ledger.depth();
    assert_eq!((depth.events, depth.heartbeats), (1, 1));
    world.bus.mood(Mood::Fine);
    assert!(world.drained(SOON).await);
    for _ in 0..60 {
        world.up(&a);
        world.pass(60).await;
    }
    let taken = world.bus.taken.lock().unwrap().len();
    assert!((5..=7).contains(&taken), "{taken}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_drops_heartbeats_first_and_owes_what_found_no_room() {
    let mut world = World::new();
    world.bound = 10;
    let world = world.start();
    for id in 1..=8 {
        world.up(&key(id));
    }
    assert!(world.drained(SOON).await);
    world.bus.mood(Mood::Down);
    for _ in 0..20 {
        (1..=8).for_each(|id| world.up(&key(id)));
        world.pass(60).await;
    }
    assert_eq!(world.running().ledger.depth().heartbeats, 8);
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
        (running.ledger.depth().events, running.ledger.depth().heartbeats),
        (10, 0)
    );
    assert!(running.recorded.owed.load(Ordering::Relaxed) > 0);
    world.bus.mood(Mood::Fine);
    world.pass(60).await;
    assert!(world.drained(SOON).await);
    assert_eq!(world.running().recorded.owed.load(Ordering::Relaxed), 0);
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
    world.running().ledger.limit_pages(1);
    for id in 1..=60 {
        world.live(&key(id), "1");
        world.pass(1).await;
    }
    assert!(world.running().recorded.blocked.load(Ordering::Relaxed));
    assert!(
        world.bus.kinds(&key(60)).is_empty(),
        "nothing is told that is not on disk"
    );
    world.ended(&key(60), "1");
    world.pass(10).await;
    world.running().ledger.limit_pages(0);
    world.pass(3).await;
    assert!(world.drained(SOON).await);
    assert!(!world.running().recorded.blocked.load(Ordering::Relaxed));
    for id in 2..=59 {
        assert_eq!(world.bus.kinds(&key(id)), [StreamOnline], "{id}");
    }
    assert_eq!(world.bus.kinds(&key(60)), [StreamOnline, StreamOffline]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_ends_the_daemon_even_when_only_the_commit_notices() {
    let mut world = World::new().start();
    world.up(&key(1));
    assert!(world.drained(SOON).await);
    let file = rusqlite::Connection::open(world.dir.path().join("watch.db")).unwrap();
    file.execute_batch(
        "CREATE TRIGGER broken BEFORE INSERT ON source BEGIN SELECT RAISE(FAIL, 'no longer as it was made'); END",
    )
    .unwrap();
    world.live(&key(1), "1");
    let running = world.running.take().unwrap();
    let ended = tokio::time::timeout(SOON, running.done).await.expect("it ends");
    let failure = ended.unwrap().expect_err("somebody must look at the file");
    assert!(failure.what.contains("recorder"), "{failure:?}");
    assert_eq!(
        world.bus.kinds(&key(1)),
        [SourceStatus],
        "nothing is told that is not on disk"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_on_as_a_whole_never_overtakes_changes_that_wait() {
    let (keeper, mut kept) = mpsc::channel(1);
    let mut world = World::new();
    world.beat = Some(Beat::Keep {
        period: 10_000,
        keeper,
    });
    let world = world.start();
    world.up(&key(1));
    world.up(&key(2));
    assert!(world.drained(SOON).await);
    world.bus.mood(Mood::Fails(key(1)));
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
    world.bus.mood(Mood::Fine);
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
fn the_state_directory_stays_locked_until_the_last_commit_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let lock = StateLock::take(dir.path()).unwrap();
    let ledger = Arc::new(Ledger::open(dir.path(), 10).unwrap().holding(lock));
    // What a thread holds that is still at work when its daemon is cut off.
    let committing = Arc::clone(&ledger);
    drop(ledger);
    StateLock::take(dir.path()).unwrap_err();
    drop(committing);
    StateLock::take(dir.path()).unwrap();
}
