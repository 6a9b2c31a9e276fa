//! Chat on the bus, counted per source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bitbrat::bus::names::{EGRESS, INGRESS};
use bitbrat::bus::nats::{NatsBus, NatsOptions};
use bitbrat::bus::{EventBus, Outgoing};
use bitbrat::clock::{Chance, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::event::chat::Direction;
use bitbrat::core::event::read::Side;
use bitbrat::core::observation::Fact;
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::lifecycle::{Lifecycle, Tasks};
use bitbrat::persist::Persister;
use bitbrat::persist::chat::{Channels, ChatCounter, Counts, Tally, subscription};
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::SourceStore;
use bitbrat::store::memory::MemoryStore;
use serde_json::json;
use tokio::task::JoinSet;

use super::world::{self, now};
use crate::contract::bus::servers::{self, NatsServer};

fn key() -> SourceKey {
    "twitch:777001".parse().unwrap()
}

/// A counter in a process of its own, with the store and the state directory that outlive it.
struct Counting {
    counts: Arc<Counts>,
    tasks: Tasks,
    running: JoinSet<()>,
}

impl Counting {
    async fn start(bus: &Arc<dyn EventBus>, store: &MemoryStore, state: &Path) -> Self {
        Self::start_beside(bus, store, state, BTreeSet::new()).await
    }

    async fn start_beside(
        bus: &Arc<dyn EventBus>,
        store: &MemoryStore,
        state: &Path,
        elsewhere: BTreeSet<(PlatformName, Direction)>,
    ) -> Self {
        for side in [Side::Ingress, Side::Egress] {
            drop(bus.subscribe(&subscription(side)).await.unwrap());
        }
        let lifecycle = Lifecycle::new();
        let tasks = lifecycle.tasks();
        let counts = Arc::new(Counts::default());
        let write_policy = WritePolicy::every(Duration::from_millis(200));
        let chance = Chance::seeded(1);
        let store: Arc<dyn SourceStore> = Arc::new(store.clone());
        let persister = Arc::new(Persister::new(
            store.clone(),
            Arc::new(SystemClock),
            write_policy,
            chance.clone(),
        ));
        let counter = ChatCounter {
            bus: bus.clone(),
            persister: persister.clone(),
            store,
            tally: Arc::new(Tally::open(&state.join("chat.db")).unwrap()),
            writer: "chat-one".to_owned(),
            channels: Arc::new(Channels::default()),
            clock: Arc::new(SystemClock),
            chance,
            counts: counts.clone(),
            elsewhere,
        };
        tasks.spawn("chat", |stop| async move {
            counter.run(stop).await;
            persister.flush().await;
        });
        let mut running = JoinSet::new();
        running.spawn(async move {
            // As long as a loaded machine may need: what is cut off leaves totals unwritten.
            let _ = lifecycle.run(Duration::from_secs(60)).await;
        });
        Self {
            counts,
            tasks,
            running,
        }
    }

    async fn counted(&self, wanted: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.counts.counted.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "{:?}", self.counts);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        self.tasks.request_stop();
        self.running.join_all().await;
    }
}

fn message(topic: &str, transport: &str, event: &serde_json::Value) -> Outgoing {
    let kind = event["type"].as_str().unwrap().to_owned();
    Outgoing {
        topic: topic.to_owned(),
        id: transport.to_owned(),
        // As the platform's services write it.
        attributes: BTreeMap::from([("type".to_owned(), kind)]),
        data: event.to_string().into(),
    }
}

fn said(id: &str) -> serde_json::Value {
    json!({
        "v": "2", "type": "chat.message.v1", "correlationId": id,
        "ingress": {"source": "ingress.twitch", "connector": "twitch", "channel": "#streamer"},
        "message": {"text": "hi", "rawPlatformPayload": {"roomId": "777001"}}
    })
}

fn answered(id: &str) -> serde_json::Value {
    json!({
        "v": "2", "type": "egress.deliver.v1", "correlationId": id, "ingress": {"connector": "system"},
        "egress": {"connector": "twitch", "channel": "#streamer", "destination": "x"}, "candidates": [{"text": "hello"}]
    })
}

/// Every run of the counter has a connection of its own, as a process has.
async fn totals_survive_repetition_and_restarts(connect: impl AsyncFn() -> Arc<dyn EventBus>) {
    let bus = connect().await;
    let state = tempfile::tempdir().unwrap();
    let store = MemoryStore::default();
    // The source and its login were published before.
    let mut ingester = world::Ingester::default();
    let fields = BTreeMap::from([("login".to_owned(), "streamer".to_owned())]);
    ingester.observes(&key(), now(), Fact::Profile { fields });
    let document = ingester.documents[&key()].to_stored();
    store.put_raw(&key().to_string(), document.into());

    let counting = Counting::start(&bus, &store, state.path()).await;
    let egress = format!("{EGRESS}.v1");
    bus.publish(message(
        &egress,
        "warm-up",
        &json!({"type": "system.stream.online"}),
    ))
    .await
    .unwrap();
    let mut messages = Vec::new();
    for n in 0..30 {
        messages.push(message(INGRESS, &format!("in-{n}"), &said(&format!("m{n}"))));
    }
    // The same message under another transport id, an event derived from chat, and an event that any publisher could have sent.
    messages.push(message(INGRESS, "again", &said("m3")));
    let mut derived = said("m100");
    derived["type"] = "chat.progress.v1".into();
    messages.push(message(INGRESS, "derived", &derived));
    let mut forged = said("m101");
    forged["ingress"]["source"] = "api-gateway".into();
    messages.push(message(INGRESS, "forged", &forged));
    let accepted = bus.publish_many(messages).await;
    assert!(accepted.iter().all(Result::is_ok));
    counting.counted(30).await;
    counting.stop().await;
    bus.close().await;
    let bus = connect().await;
    let stored = || store.get_raw(&key().to_string()).unwrap();
    assert_eq!(stored()["metrics"]["messagesIn"], 30);

    // Chat from the time without a counter is counted afterwards.
    bus.publish(message(INGRESS, "late", &said("m200")))
        .await
        .unwrap();
    let counting = Counting::start(&bus, &store, state.path()).await;
    counting.counted(1).await;
    bus.publish(message(&egress, "out-1", &answered("m1")))
        .await
        .unwrap();
    counting.counted(2).await;
    counting.stop().await;
    bus.close().await;
    let bus = connect().await;
    assert_eq!(
        (
            &stored()["metrics"]["messagesIn"],
            &stored()["metrics"]["messagesOut"]
        ),
        (&json!(31), &json!(1))
    );

    // The state directory is lost; the store still has the totals.
    let fresh = tempfile::tempdir().unwrap();
    let counting = Counting::start(&bus, &store, fresh.path()).await;
    bus.publish(message(INGRESS, "last", &said("m300")))
        .await
        .unwrap();
    counting.counted(1).await;
    counting.stop().await;
    assert_eq!(stored()["metrics"]["messagesIn"], 32);
    assert_eq!(stored()["counters"]["chat-one"]["messagesIn"], 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_survive_repetition_and_restarts_on_nats() {
    let prefix = servers::prefix();
    servers::create_stream(&servers::nats_url(), &prefix).await;
    totals_survive_repetition_and_restarts(async || world::nats_of(&prefix).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_survive_repetition_and_restarts_within_the_process() {
    let bus = world::local().await;
    totals_survive_repetition_and_restarts(async || bus.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_survive_repetition_and_restarts_on_pubsub() {
    let prefix = servers::prefix();
    let project = prefix.trim_end_matches('.');
    let bus = world::pubsub_of(project).await;
    // Topics of instances are listed periodically; these exist from the start.
    for topic in [INGRESS.to_owned(), format!("{EGRESS}.v1")] {
        let first = message(&topic, "first", &json!({"type": "system.stream.online"}));
        bus.publish(first).await.unwrap();
    }
    totals_survive_repetition_and_restarts(async || world::pubsub_of(project).await).await;
}

/// Publishes until the bus accepts it, always under the same id.
async fn insist(bus: &Arc<dyn EventBus>, message: Outgoing) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = bus.publish(message.clone()).await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_never_decrease_across_nats_and_counter_restarts() {
    let mut server = NatsServer::start().await;
    servers::create_stream(&server.url(), "here.").await;
    let bus = NatsBus::connect(&NatsOptions::new(server.url(), "here."))
        .await
        .unwrap();
    let bus: Arc<dyn EventBus> = Arc::new(bus);
    let state = tempfile::tempdir().unwrap();
    let store = MemoryStore::default();
    let source = SourceDocument::new(key()).to_stored();
    store.put_raw(&key().to_string(), source.into());
    let read = || {
        store.get_raw(&key().to_string()).unwrap()["metrics"]["messagesIn"]
            .as_u64()
            .unwrap_or(0)
    };
    let chat = |n: u32| message(INGRESS, &format!("transport-{n}"), &said(&format!("m{n}")));

    let counting = Counting::start(&bus, &store, state.path()).await;
    for n in 0..10 {
        insist(&bus, chat(n)).await;
    }
    counting.counted(10).await;
    server.kill().await;
    // Chat from the outage is published again when the bus is back, under the same id.
    assert!(bus.publish(chat(10)).await.is_err());
    counting.stop().await;
    assert_eq!(read(), 10);
    server.run().await;
    for n in 0..20 {
        insist(&bus, chat(n)).await;
    }
    let counting = Counting::start(&bus, &store, state.path()).await;
    counting.counted(10).await;
    counting.stop().await;
    assert_eq!(read(), 20);
}

#[tokio::test]
async fn what_a_listener_counts_is_left_aside_on_the_bus() {
    let bus = world::local().await;
    let state = tempfile::tempdir().unwrap();
    let store = MemoryStore::default();
    let elsewhere = BTreeSet::from([(PlatformName::Twitch, Direction::In)]);
    let counting = Counting::start_beside(&bus, &store, state.path(), elsewhere).await;
    let egress = format!("{EGRESS}.v1");
    bus.publish(message(INGRESS, "one", &said("m1"))).await.unwrap();
    let mut answer = answered("m2");
    answer["egress"]["channel"] = "#nobody".into();
    answer["message"] = json!({"rawPlatformPayload": {"roomId": "777001"}});
    answer["ingress"] = json!({"connector": "twitch", "channel": "#nobody"});
    bus.publish(message(&egress, "two", &answer)).await.unwrap();
    counting.counted(1).await;
    let counts = counting.counts.clone();
    counting.stop().await;
    assert_eq!(counts.counted.load(Ordering::Relaxed), 1, "the answer alone");
}

#[tokio::test]
async fn chatting_alone_makes_no_source() {
    let bus = world::local().await;
    let state = tempfile::tempdir().unwrap();
    let store = MemoryStore::default();
    let counting = Counting::start(&bus, &store, state.path()).await;
    bus.publish(message(INGRESS, "one", &said("m1"))).await.unwrap();
    counting.counted(1).await;
    counting.stop().await;
    assert_eq!(store.get_raw(&key().to_string()), None);
}
