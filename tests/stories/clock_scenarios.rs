//! The same scenarios over a real bus with Firestore or PostgreSQL behind it: published in order, shuffled and repeated, and by two writers at
//! once to two persisters. The documents must be those that follow from the evidence alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitbrat::bus::{EventBus, Outgoing};
use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::event::{Event, EventBuilder, heartbeat};
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::Observation;
use bitbrat::core::transition::transitions;
use bitbrat::lifecycle::{Lifecycle, Tasks};
use bitbrat::persist::Persister;
use bitbrat::persist::consumer::{Consumer, Counts, subscription};
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::retention::Retention;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::contract::store::worlds::World;
use crate::stories::publishing::{Scenario, expected, history};

/// Runs every scenario over `$bus`.
macro_rules! travelled {
    ($($module:ident $bus:ident $world:ident;)*) => {
        $(travelled!(@scenarios $module $bus $world:
            a_stream_goes_live_drops_for_forty_seconds_resumes_and_ends
            a_token_expires_is_refreshed_and_revoked
            a_connection_is_lost_heals_and_is_refused
            a_second_stream_follows_the_first_without_a_pause
            a_discord_guild_is_attended_without_streams
        );)*
    };
    (@scenarios $module:ident $bus:ident $world:ident: $($scenario:ident)*) => {
        mod $module {
            use crate::contract::store::worlds::$world;
            use crate::persist::world;
            use crate::stories::scenarios;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    super::in_order::<$world>(world::$bus().await, scenarios::$scenario()).await;
                    super::shuffled_and_repeated::<$world>(world::$bus().await, scenarios::$scenario()).await;
                    super::by_two::<$world>(world::$bus().await, scenarios::$scenario()).await;
                }
            )*
        }
    };
}
travelled! {
    over_nats nats FirestoreWorld;
    over_pubsub pubsub FirestoreWorld;
    over_nats_to_postgres nats PostgresWorld;
}

/// The evidence of one process, and what it has published.
struct Teller {
    known: SourceDocument,
    reported: SourceDocument,
}

impl Teller {
    fn of(scenario: &[Observation]) -> Self {
        let nothing = SourceDocument::new(scenario[0].source.clone());
        Self {
            known: nothing.clone(),
            reported: nothing,
        }
    }

    /// Returns the events for what changed, as the daemon's writer does.
    fn hears(&mut self, seen: &Observation) -> Vec<Event> {
        let before = self.known.verdict.clone();
        self.known.join(Knowledge::from(seen));
        let reported = EventBuilder {
            before: &self.reported,
            after: &self.known,
            by: &seen.by,
            observed_at: seen.at,
        };
        let events = reported.events(&transitions(&before, &self.known.verdict));
        if !events.is_empty() {
            self.reported = self.known.clone();
        }
        events
    }

    /// Publishes everything, and the final state.
    fn names_account(observations: &[Observation]) -> Vec<Event> {
        let mut teller = Self::of(observations);
        let mut events: Vec<_> = observations.iter().flat_map(|seen| teller.hears(seen)).collect();
        events.push(heartbeat(&teller.known, observations[observations.len() - 1].at));
        events
    }
}

/// Persisters on a bus, each with a connection of its own to one store.
struct Persisters<W> {
    world: W,
    tasks: Tasks,
    running: JoinSet<()>,
}

impl<W: World> Persisters<W> {
    async fn start(count: u64, bus: &Arc<dyn EventBus>) -> Self {
        // These scenarios are dated long ago.
        let retention = Retention {
            age: Duration::from_hours(24 * 365 * 20),
            ..Retention::default()
        };
        let world = W::with(retention).await;
        drop(bus.subscribe(&subscription(SystemClock.now())).await.unwrap());
        let lifecycle = Lifecycle::new();
        let tasks = lifecycle.tasks();
        for number in 0..count {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let write_policy = WritePolicy::every(Duration::from_millis(200));
            let persister = Persister::new(
                world.open().await,
                clock.clone(),
                write_policy,
                Chance::seeded(number),
            );
            let consumer = Consumer {
                bus: bus.clone(),
                persister: Arc::new(persister),
                clock,
                chance: Chance::seeded(number),
                counts: Arc::new(Counts::default()),
                coalesce: true,
                on_update: None,
            };
            tasks.spawn(format!("persister-{number}"), |stop| consumer.run(stop));
        }
        let mut running = JoinSet::new();
        running.spawn(async move {
            let _ = lifecycle.run(Duration::from_secs(5)).await;
        });
        Self {
            world,
            tasks,
            running,
        }
    }

    /// Waits until the document is the one that follows from all observations.
    async fn settle(&self, scenario: &Scenario, how: &str) {
        let (expected, id) = (
            expected(&scenario.observations),
            scenario.observations[0].source.to_string(),
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

async fn in_order<W: World>(bus: Arc<dyn EventBus>, scenario: Scenario) {
    let persisters = Persisters::<W>::start(1, &bus).await;
    for event in Teller::names_account(&scenario.observations) {
        send(&bus, vec![event]).await;
    }
    persisters.settle(&scenario, "in order").await;
    // Whatever the order in which a bus delivers, the history matches what was published.
    assert_eq!(
        history(&persisters.world.open().await, &scenario).await,
        scenario.history
    );
    persisters.stop().await;
}

async fn shuffled_and_repeated<W: World>(bus: Arc<dyn EventBus>, scenario: Scenario) {
    let persisters = Persisters::<W>::start(2, &bus).await;
    let mut chance = fastrand::Rng::with_seed(11);
    let mut seen: Vec<_> = scenario
        .observations
        .iter()
        .chain(&scenario.observations)
        .cloned()
        .collect();
    chance.shuffle(&mut seen);
    let mut events = Teller::names_account(&seen);
    events.extend(events.clone());
    chance.shuffle(&mut events);
    send(&bus, events).await;
    persisters.settle(&scenario, "shuffled and repeated").await;
    persisters.stop().await;
}

async fn by_two<W: World>(bus: Arc<dyn EventBus>, scenario: Scenario) {
    let persisters = Persisters::<W>::start(2, &bus).await;
    let half = |rest: usize| {
        let indexed = scenario.observations.iter().enumerate();
        let mine = indexed.filter(|(index, _)| index % 2 == rest);
        mine.map(|(_, seen)| seen.clone()).collect::<Vec<_>>()
    };
    let (one, other) = (Teller::names_account(&half(0)), Teller::names_account(&half(1)));
    futures_util::future::join(send(&bus, one), send(&bus, other)).await;
    persisters.settle(&scenario, "by two").await;
    persisters.stop().await;
}
