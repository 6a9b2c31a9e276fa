//! Chat on the bus, counted per source.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bitbrat::bus::names::{EGRESS, INGRESS};
use bitbrat::bus::{EventBus, Outgoing};
use bitbrat::clock::{Chance, SystemClock};
use bitbrat::core::event::read::Side;
use bitbrat::core::observation::Fact;
use bitbrat::core::source::SourceKey;
use bitbrat::lifecycle::{Lifecycle, Tasks};
use bitbrat::persist::Persister;
use bitbrat::persist::chat::{ChatCounter, Counts, Roster, Tally, subscription};
use bitbrat::persist::economy::Economy;
use bitbrat::store::SourceStore;
use bitbrat::store::memory::MemoryStore;
use serde_json::json;
use tokio::task::JoinSet;

use super::world::{self, now};

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
        for side in [Side::Ingress, Side::Egress] {
            drop(bus.subscribe(&subscription(side)).await.unwrap());
        }
        let lifecycle = Lifecycle::new();
        let tasks = lifecycle.tasks();
        let counts = Arc::new(Counts::default());
        let economy = Economy::every(Duration::from_millis(200));
        let chance = Chance::seeded(1);
        let store: Arc<dyn SourceStore> = Arc::new(store.clone());
        let persister = Arc::new(Persister::new(
            store.clone(),
            Arc::new(SystemClock),
            economy,
            chance.clone(),
        ));
        let counter = ChatCounter {
            bus: bus.clone(),
            persister: persister.clone(),
            store,
            tally: Arc::new(Tally::open(&state.join("chat.db")).unwrap()),
            writer: "chat-one".to_owned(),
            roster: Arc::new(Roster::default()),
            clock: Arc::new(SystemClock),
            chance,
            counts: counts.clone(),
            elsewhere: Default::default(),
        };
        tasks.spawn("chat", |stop| async move {
            counter.run(stop).await;
            persister.flush().await;
        });
        let mut running = JoinSet::new();
        running.spawn(async move {
            let (_signals, received) = tokio::sync::mpsc::channel(1);
            let _ = lifecycle.run_with(received, Duration::from_secs(5)).await;
        });
        Self {
            counts,
            tasks,
            running,
        }
    }

    async fn counted(&self, wanted: u64) {
        let deadline = Instant::now() + Duration::from_secs(30);
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

async fn totals_survive_repetition_and_restarts(bus: Arc<dyn EventBus>) {
    let state = tempfile::tempdir().unwrap();
    let store = MemoryStore::default();
    // Somebody told of the source and its login before.
    let mut ingester = world::Ingester::default();
    let fields = BTreeMap::from([("login".to_owned(), "streamer".to_owned())]);
    ingester.learns(&key(), now(), Fact::Profile { fields });
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
    // The same message under another transport id, what is derived from chat, and what anybody could have sent.
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
    let stored = || store.raw(&key().to_string()).unwrap();
    assert_eq!(stored()["metrics"]["messagesIn"], 30);

    // What was said while nobody counted is counted afterwards.
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
    assert_eq!(
        (
            &stored()["metrics"]["messagesIn"],
            &stored()["metrics"]["messagesOut"]
        ),
        (&json!(31), &json!(1))
    );

    // The state directory is lost; the store still knows.
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
    totals_survive_repetition_and_restarts(world::nats().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_survive_repetition_and_restarts_within_the_process() {
    totals_survive_repetition_and_restarts(world::local().await).await;
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
    assert_eq!(store.raw(&key().to_string()), None);
}
