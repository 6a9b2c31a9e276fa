//! The same tales over a real bus with Firestore behind: told in order, shuffled and repeated, and by two at once to two
//! persisters. The documents must be those that follow from the evidence alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitbrat::bus::{EventBus, Outgoing};
use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::event::{Event, Told, heartbeat};
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::Observation;
use bitbrat::core::transition::transitions;
use bitbrat::lifecycle::{Lifecycle, Tasks};
use bitbrat::persist::Persister;
use bitbrat::persist::consumer::{Consumer, Counts, subscription};
use bitbrat::persist::economy::Economy;
use bitbrat::store::retention::Retention;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::contract::store::worlds::{FirestoreWorld, World};
use crate::stories::telling::{Tale, expected, history};

/// Tells every tale over `$bus`.
macro_rules! travelled {
    ($($module:ident $bus:ident;)*) => {
        $(travelled!(@tales $module $bus:
            a_stream_goes_live_drops_for_forty_seconds_resumes_and_ends
            a_token_expires_is_refreshed_and_revoked
            a_connection_is_lost_heals_and_is_refused
            a_second_stream_follows_the_first_without_a_pause
            a_discord_guild_is_attended_without_streams
        );)*
    };
    (@tales $module:ident $bus:ident: $($tale:ident)*) => {
        mod $module {
            use crate::persist::world;
            use crate::stories::tales;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $tale() {
                    super::in_order(world::$bus().await, tales::$tale()).await;
                    super::shuffled_and_repeated(world::$bus().await, tales::$tale()).await;
                    super::by_two(world::$bus().await, tales::$tale()).await;
                }
            )*
        }
    };
}
travelled! {
    over_nats nats;
    over_pubsub pubsub;
}

/// What one process knows, and what it has told.
struct Teller {
    known: SourceDocument,
    told: SourceDocument,
}

impl Teller {
    fn of(tale: &[Observation]) -> Self {
        let nothing = SourceDocument::new(tale[0].source.clone());
        Self {
            known: nothing.clone(),
            told: nothing,
        }
    }

    /// Returns the events that tell what changed, as the daemon's recorder does.
    fn hears(&mut self, seen: &Observation) -> Vec<Event> {
        let before = self.known.verdict.clone();
        self.known.join(Knowledge::from(seen));
        let told = Told {
            before: &self.told,
            after: &self.known,
            by: &seen.by,
            observed_at: seen.at,
        };
        let events = told.events(&transitions(&before, &self.known.verdict));
        if !events.is_empty() {
            self.told = self.known.clone();
        }
        events
    }

    /// Tells everything, and how things are in the end.
    fn tells(observations: &[Observation]) -> Vec<Event> {
        let mut teller = Self::of(observations);
        let mut events: Vec<_> = observations.iter().flat_map(|seen| teller.hears(seen)).collect();
        events.push(heartbeat(&teller.known, observations[observations.len() - 1].at));
        events
    }
}

/// Persisters on a bus, each with a connection of its own to one Firestore.
struct Persisters {
    world: FirestoreWorld,
    tasks: Tasks,
    running: JoinSet<()>,
}

impl Persisters {
    async fn start(count: u64, bus: &Arc<dyn EventBus>) -> Self {
        // These tales happened long ago.
        let retention = Retention {
            age: Duration::from_hours(24 * 365 * 20),
            ..Retention::default()
        };
        let world = FirestoreWorld::with(retention).await;
        drop(bus.subscribe(&subscription(SystemClock.now())).await.unwrap());
        let lifecycle = Lifecycle::new();
        let tasks = lifecycle.tasks();
        for number in 0..count {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let economy = Economy::every(Duration::from_millis(200));
            let persister =
                Persister::new(world.open().await, clock.clone(), economy, Chance::seeded(number));
            let consumer = Consumer {
                bus: bus.clone(),
                persister: Arc::new(persister),
                clock,
                chance: Chance::seeded(number),
                counts: Arc::new(Counts::default()),
                coalesce: true,
                listener: None,
            };
            tasks.spawn(format!("persister-{number}"), |stop| consumer.run(stop));
        }
        let mut running = JoinSet::new();
        running.spawn(async move {
            let (_signals, received) = tokio::sync::mpsc::channel(1);
            let _ = lifecycle.run_with(received, Duration::from_secs(5)).await;
        });
        Self {
            world,
            tasks,
            running,
        }
    }

    /// Waits until the document is the one that follows from everything that was seen.
    async fn settle(&self, tale: &Tale, how: &str) {
        let (expected, id) = (
            expected(&tale.observations),
            tale.observations[0].source.to_string(),
        );
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let stored: Option<Value> = self.world.raw(&id).await;
            if stored.as_ref() == Some(&expected) {
                return;
            }
            if Instant::now() > deadline {
                assert_eq!(stored.as_ref(), Some(&expected), "{how}");
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn stop(self) {
        self.tasks.request_stop();
        self.running.join_all().await;
    }
}

async fn send(bus: &Arc<dyn EventBus>, events: Vec<Event>) {
    let results = bus
        .publish_many(events.into_iter().map(Outgoing::from).collect())
        .await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

async fn in_order(bus: Arc<dyn EventBus>, tale: Tale) {
    let persisters = Persisters::start(1, &bus).await;
    for event in Teller::tells(&tale.observations) {
        send(&bus, vec![event]).await;
    }
    persisters.settle(&tale, "in order").await;
    // Whatever the order in which a bus delivers, the history is what was told.
    assert_eq!(history(&persisters.world.open().await, &tale).await, tale.history);
    persisters.stop().await;
}

async fn shuffled_and_repeated(bus: Arc<dyn EventBus>, tale: Tale) {
    let persisters = Persisters::start(2, &bus).await;
    let mut chance = fastrand::Rng::with_seed(11);
    let mut seen: Vec<_> = tale
        .observations
        .iter()
        .chain(&tale.observations)
        .cloned()
        .collect();
    chance.shuffle(&mut seen);
    let mut events = Teller::tells(&seen);
    events.extend(events.clone());
    chance.shuffle(&mut events);
    send(&bus, events).await;
    persisters.settle(&tale, "shuffled and repeated").await;
    persisters.stop().await;
}

async fn by_two(bus: Arc<dyn EventBus>, tale: Tale) {
    let persisters = Persisters::start(2, &bus).await;
    let half = |rest: usize| {
        let indexed = tale.observations.iter().enumerate();
        let mine = indexed.filter(|(index, _)| index % 2 == rest);
        mine.map(|(_, seen)| seen.clone()).collect::<Vec<_>>()
    };
    let (one, other) = (Teller::tells(&half(0)), Teller::tells(&half(1)));
    futures_util::future::join(send(&bus, one), send(&bus, other)).await;
    persisters.settle(&tale, "by two").await;
    persisters.stop().await;
}
