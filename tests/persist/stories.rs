//! Results of persisters for messages of a bus, in any order of delivery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bitbrat::bus::names::{DEAD_LETTERS, INGRESS};
use bitbrat::bus::{EventBus, Filter, Outgoing};
use bitbrat::core::event::Event;
use bitbrat::core::observation::{ErrorInfo, Fact, LinkState, Transport};
use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::world::{self, Ingester, Persisters, now, outgoing};

macro_rules! on_every_bus {
    ($($story:ident)*) => {
        on_every_bus!(@bus local: $($story)*);
        on_every_bus!(@bus nats: $($story)*);
        on_every_bus!(@bus pubsub: $($story)*);
    };
    (@bus $bus:ident: $($story:ident)*) => {
        mod $bus {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    super::$story(super::world::$bus().await).await;
                }
            )*
        }
    };
}

on_every_bus! {
    six_alternating_events_of_a_hundred_sources_end_right_in_any_order
    poison_between_good_messages_is_reported_and_stops_nothing
    a_store_that_is_away_for_a_while_loses_nothing
    the_platforms_own_events_are_stored_and_forged_ones_are_not
}

fn key(n: u32) -> SourceKey {
    format!("twitch:{}", 900_000 + n).parse().unwrap()
}

fn push(live: bool, session: u32, at: Timestamp) -> Fact {
    Fact::StreamPush {
        live,
        stream_id: live.then(|| format!("4{session:09}")),
        started_at: live.then_some(at),
    }
}

/// Six alternating events for each source, sent as fast as possible and in random order.
async fn six_alternating_events_of_a_hundred_sources_end_right_in_any_order(bus: Arc<dyn EventBus>) {
    let persisters = Persisters::start(2, &bus).await;
    let mut ingester = Ingester::default();
    let mut events: Vec<Event> = Vec::new();
    let start = now().plus_secs(-3600);
    for session in 0..3 {
        for n in 0..100 {
            let at = start.plus_secs(i64::from(session * 600 + n));
            events.extend(ingester.observes(&key(n), at, push(true, session * 1000 + n, at)));
            events.extend(ingester.observes(&key(n), at.plus_secs(300), push(false, session, at)));
        }
    }
    assert_eq!(events.len(), 600);
    fastrand::Rng::with_seed(54).shuffle(&mut events);
    let results = bus.publish_many(outgoing(events)).await;
    assert!(results.iter().all(Result::is_ok));
    persisters.settle(&ingester.documents).await;
    let wrong = ingester
        .documents
        .values()
        .filter(|document| document.verdict.stream.value != StreamStatus::Offline);
    assert_eq!(wrong.count(), 0);
    persisters.stop().await;
}

fn raw(id: &str, data: impl Into<Vec<u8>>) -> Outgoing {
    Outgoing {
        topic: INGRESS.to_owned(),
        id: id.to_owned(),
        attributes: BTreeMap::from([("type".to_owned(), "system.source.status".to_owned())]),
        data: data.into().into(),
    }
}

async fn poison_between_good_messages_is_reported_and_stops_nothing(bus: Arc<dyn EventBus>) {
    let mut letters = bus
        .tail(&Filter::Topic(DEAD_LETTERS.to_owned()), None)
        .await
        .unwrap();
    let persisters = Persisters::start(1, &bus).await;
    // A NATS server rejects two MiB before they are sent; other buses accept them.
    let travels = bus.publish(raw("huge", vec![b'x'; 2 << 20])).await.is_ok();
    let kinds = 6 + usize::from(travels);
    let mut reported = JoinSet::new();
    reported.spawn(async move {
        let mut seen = BTreeMap::new();
        while seen.len() < kinds {
            let letter = letters.next().await.unwrap().unwrap();
            let body: Value = serde_json::from_slice(&letter.data).unwrap();
            seen.insert(
                body["payload"]["error"]["code"].as_str().unwrap().to_owned(),
                body,
            );
        }
        seen
    });
    let poison = [
        raw("p1", "not json at all"),
        raw("p2", "[[1],[2]]"),
        raw("p3", json!({"type": "system.stream.online", "correlationId": "__x__", "payload": {"platform": "twitch", "id": "1", "streamId": "__x__"}}).to_string()),
        raw("p4", json!({"type": "system.source.status", "correlationId": "theirs", "payload": {"platform": "twitch", "id": "a/b"}}).to_string()),
        raw("p5", json!({"type": "system.source.status", "payload": {"platform": "twitch", "id": "1", "evidence": {"auth": {"": [[1]]}}}}).to_string()),
        raw("p6", json!({"type": 7}).to_string()),
        raw("p7", "{\"type\":\"system.source.status\",\"payload\":".repeat(200)),
    ];
    let mut ingester = Ingester::default();
    let at = now().plus_secs(-60);
    let mut messages = Vec::new();
    for (n, bad) in (0..).zip(poison) {
        messages.extend(outgoing(ingester.observes(&key(n), at, push(true, n, at))));
        messages.push(bad);
    }
    let results = bus.publish_many(messages).await;
    assert!(results.iter().all(Result::is_ok));
    persisters.settle(&ingester.documents).await;
    let seen = tokio::time::timeout(Duration::from_secs(30), reported.join_next())
        .await
        .expect("every poison is reported")
        .unwrap()
        .unwrap();
    let mut codes: BTreeSet<_> = seen.keys().map(String::as_str).collect();
    assert_eq!(codes.remove("body.too_large"), travels);
    let expected = [
        "evidence.unreadable",
        "json.invalid",
        "json.not_an_object",
        "source.id",
        "stream.id",
        "type.not_text",
    ];
    assert_eq!(codes, expected.into_iter().collect());
    let named = &seen["source.id"];
    assert_eq!(named["payload"]["originalCorrelationId"], "theirs");
    assert_ne!(named["correlationId"], "theirs");
    // A dead letter is published before it is counted.
    let dead = || persisters.sum(|counts| counts.dead.load(Ordering::Relaxed));
    let expected = 7 + u64::from(travels);
    let deadline = Instant::now() + Duration::from_secs(60);
    while dead() < expected && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(dead(), expected);
    persisters.stop().await;
}

async fn a_store_that_is_away_for_a_while_loses_nothing(bus: Arc<dyn EventBus>) {
    let persisters = Persisters::start(2, &bus).await;
    persisters.store.away.store(true, Ordering::SeqCst);
    let mut ingester = Ingester::default();
    let at = now().plus_secs(-60);
    let events: Vec<_> = (0..40)
        .flat_map(|n| ingester.observes(&key(n), at, push(true, n, at)))
        .collect();
    assert!(bus.publish_many(outgoing(events)).await.iter().all(Result::is_ok));
    let deadline = Instant::now() + Duration::from_secs(30);
    while persisters.sum(|counts| counts.postponed.load(Ordering::Relaxed)) < 20 {
        assert!(Instant::now() < deadline, "nothing was postponed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        persisters.sum(|counts| counts.stored.load(Ordering::Relaxed)),
        0,
        "nothing is acknowledged before it is stored"
    );
    persisters.store.away.store(false, Ordering::SeqCst);
    persisters.settle(&ingester.documents).await;
    assert_eq!(persisters.sum(|counts| counts.dead.load(Ordering::Relaxed)), 0);
    persisters.stop().await;
}

async fn the_platforms_own_events_are_stored_and_forged_ones_are_not(bus: Arc<dyn EventBus>) {
    let persisters = Persisters::start(1, &bus).await;
    let event = |source: &str, broadcaster: &str| {
        json!({
            "v": "2", "type": "system.stream.online", "correlationId": format!("random-{broadcaster}"),
            "ingress": {"ingressAt": now().to_string(), "source": source, "connector": "twitch"},
            "externalEvent": {
                "id": "40999888777", "source": "twitch.eventsub", "kind": "stream.online", "createdAt": now().plus_secs(-5).to_string(),
                "metadata": {"id": "40999888777", "broadcasterId": broadcaster, "startedAt": now().plus_secs(-5).to_string()}
            }
        })
        .to_string()
    };
    bus.publish(raw("forged", event("api-gateway", "66")))
        .await
        .unwrap();
    bus.publish(raw("real", event("ingress.twitch.eventsub", "777001")))
        .await
        .unwrap();
    let source: SourceKey = "twitch:777001".parse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let stored = loop {
        if let Some(stored) = persisters.store.document(&source) {
            break stored;
        }
        assert!(Instant::now() < deadline, "the connector's event was not stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        (&stored["streamStatus"], &stored["id"]),
        (&json!("ONLINE"), &json!("777001"))
    );
    assert_eq!(persisters.store.document(&"twitch:66".parse().unwrap()), None);
    // The defect of the connectors leaves no orphan under the stream's id.
    assert_eq!(
        persisters.store.document(&"twitch:40999888777".parse().unwrap()),
        None
    );
    assert_eq!(persisters.sum(|counts| counts.foreign.load(Ordering::Relaxed)), 1);
    persisters.stop().await;
}

/// What cannot be used where it is stored is reported, and other sources are not affected.
#[tokio::test]
async fn newer_document_version_blocks_only_its_own_source() {
    let bus = world::local().await;
    let mut letters = bus
        .tail(&Filter::Topic(DEAD_LETTERS.to_owned()), None)
        .await
        .unwrap();
    let persisters = Persisters::start(1, &bus).await;
    persisters
        .store
        .inner
        .put_raw(&key(1).to_string(), json!({"schemaVersion": 99}));
    let mut ingester = Ingester::default();
    let at = now().plus_secs(-60);
    for n in [1, 2] {
        bus.publish_many(outgoing(ingester.observes(&key(n), at, push(true, n, at))))
            .await;
    }
    let blocked = ingester.documents.remove(&key(1)).unwrap();
    persisters.settle(&ingester.documents).await;
    let letter = tokio::time::timeout(Duration::from_secs(10), letters.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let body: Value = serde_json::from_slice(&letter.data).unwrap();
    assert_eq!(body["payload"]["error"]["code"], "store.blocked");
    assert_eq!(
        persisters.store.document(&blocked.key),
        Some(json!({"schemaVersion": 99}))
    );
    persisters.stop().await;
}

/// A rejection by the platform is published, stored and read back with its reason.
#[tokio::test]
async fn a_refused_connection_arrives_with_its_reason() {
    let bus = world::local().await;
    let persisters = Persisters::start(1, &bus).await;
    let mut ingester = Ingester::default();
    let error = ErrorInfo::foreign("twitch.banned", "the channel was banned");
    let refused = Fact::Connection {
        transport: Transport::Api,
        state: LinkState::Refused { error },
    };
    bus.publish_many(outgoing(ingester.observes(&key(1), now(), refused)))
        .await;
    persisters.settle(&ingester.documents).await;
    let stored = persisters.store.document(&key(1)).unwrap();
    assert_eq!(stored["status"], "ERROR");
    assert_eq!(stored["lastError"]["code"], "twitch.banned");
    persisters.stop().await;
}
