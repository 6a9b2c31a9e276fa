//! The contract of [`bitbrat::bus::EventBus`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitbrat::bus::names::{EGRESS, INGRESS};
use bitbrat::bus::{
    BusError, Deliveries, Delivery, EventBus, Filter, Message, Outgoing, Start, Subscription,
};
use bitbrat::clock::{Clock, SystemClock};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A bus of this test alone, and the capabilities of its kind.
pub struct World {
    pub bus: Arc<dyn EventBus>,
    pub max_body: Option<usize>,
    pub recognizes_repetition: bool,
    pub counts_deliveries: bool,
    pub remembers_before_subscription: bool,
    /// Delivers no more to a consumer than it requested, so that another one gets its share.
    pub hands_out_what_is_asked_for: bool,
}

/// A message that has not arrived by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// A message that arrives later than this was delivered only after the bus had timed out its former consumer (20 s on Pub/Sub, 60
/// s on NATS).
const AT_ONCE: Duration = Duration::from_secs(15);

/// As [`AT_ONCE`], for this bus: a loaded machine may need longer than that for two hundred messages, and NATS allows it.
pub fn at_once(bus: &dyn EventBus) -> Duration {
    if bus.location().starts_with("nats:") {
        Duration::from_secs(45)
    } else {
        AT_ONCE
    }
}

/// How long to wait for what must not arrive, where no later message could prove that it did not.
const SILENCE: Duration = Duration::from_millis(700);
/// Messages from this number on only show that a consumer is connected.
const WARM_UP: usize = 1000;

pub fn subscription(queue: &str) -> Subscription {
    Subscription {
        queue: queue.to_owned(),
        filter: Filter::ingress(),
        from: Start::Since(SystemClock.now().plus_secs(-600)),
        in_flight: 64,
    }
}

pub fn message(n: usize) -> Outgoing {
    let id = format!("id-{n}");
    Outgoing {
        topic: INGRESS.to_owned(),
        attributes: BTreeMap::from([
            ("correlationId".to_owned(), id.clone()),
            ("type".to_owned(), "system.source.status".to_owned()),
        ]),
        id,
        data: format!("{{\"n\":{n}}}").into(),
    }
}

pub async fn next(deliveries: &mut Deliveries) -> Delivery {
    let next = timeout(PATIENCE, deliveries.next()).await;
    next.expect("a message comes in time")
        .expect("the stream goes on")
        .expect("the stream is fine")
}

pub async fn bodies(deliveries: &mut Deliveries, count: usize) -> BTreeSet<String> {
    let mut bodies = BTreeSet::new();
    while bodies.len() < count {
        let delivery = next(deliveries).await;
        bodies.insert(String::from_utf8_lossy(&delivery.message.data).into_owned());
        delivery.ack().await;
    }
    bodies
}

/// Checks that nothing else was in transit: what is published now arrives next.
async fn assert_nothing_before(marker: Outgoing, world: &World, deliveries: &mut Deliveries) {
    let (topic, data) = (marker.topic.clone(), marker.data.clone());
    world.bus.publish(marker).await.unwrap();
    let delivery = next(deliveries).await;
    assert_eq!((&delivery.message.topic, &delivery.message.data), (&topic, &data));
    delivery.ack().await;
}

/// Publishes until `begun`, as some buses begin to deliver only when a consumer first reads, and returns the number of messages.
async fn warm_up(world: &World, begun: impl Fn() -> bool) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    while !begun() {
        assert!(Instant::now() < deadline, "nobody reads");
        world.bus.publish(message(WARM_UP + sent)).await.unwrap();
        sent += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sent
}

fn is_warm_up(message: &Message) -> bool {
    let body: serde_json::Value = serde_json::from_slice(&message.data).unwrap();
    body["n"].as_u64().unwrap() >= WARM_UP as u64
}

/// Publishes, first subscribing where the bus keeps nothing for a subscription that does not exist yet.
async fn subscribed(world: &World, queue: &str) -> Deliveries {
    world.bus.subscribe(&subscription(queue)).await.unwrap()
}

pub async fn what_is_published_arrives_as_it_was_sent(world: World) {
    let mut deliveries = subscribed(&world, "one").await;
    let before = SystemClock.now();
    let accepted = world.bus.publish(message(1)).await.unwrap();
    assert!(!accepted.duplicate);
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message.topic, INGRESS);
    assert_eq!(delivery.message.data, message(1).data);
    // The platform's services write header names in all cases, so readers get one.
    assert_eq!(delivery.message.attributes["correlationid"], "id-1");
    assert_eq!(delivery.message.attributes["type"], "system.source.status");
    assert_eq!(delivery.message.deliveries, 1);
    assert!(!delivery.message.transport_id.is_empty());
    let published = delivery.message.published_at.unwrap();
    // Whether it is this time at all, and in this unit: a loaded machine may need seconds for a publish.
    assert!(published.millis_since(before).abs() < 60_000, "{published}");
    delivery.ack().await;
    if world.recognizes_repetition {
        assert!(world.bus.publish(message(1)).await.unwrap().duplicate);
        assert_nothing_before(message(2), &world, &mut deliveries).await;
    }
}

pub async fn every_name_sees_every_message_and_one_name_sees_it_once(world: World) {
    let mut one = subscribed(&world, "one").await;
    let mut two = subscribed(&world, "two").await;
    for n in 0..5 {
        world.bus.publish(message(n)).await.unwrap();
    }
    assert_eq!(bodies(&mut one, 5).await.len(), 5);
    assert_eq!(bodies(&mut two, 5).await.len(), 5);
    assert_nothing_before(message(5), &world, &mut one).await;
    assert_eq!(
        bodies(&mut two, 1).await,
        BTreeSet::from(["{\"n\":5}".to_owned()])
    );
    if world.remembers_before_subscription {
        let mut late = subscribed(&world, "late").await;
        assert_eq!(bodies(&mut late, 6).await.len(), 6);
        let now = Subscription {
            from: Start::Now,
            ..subscription("now")
        };
        let mut now = world.bus.subscribe(&now).await.unwrap();
        assert_nothing_before(message(6), &world, &mut now).await;
    }
}

pub async fn consumers_of_one_name_share_the_work(world: World) {
    let few = Subscription {
        in_flight: 4,
        ..subscription("one")
    };
    let (done, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
    let mut consumers = JoinSet::new();
    for number in 0..2 {
        let mut deliveries = world.bus.subscribe(&few).await.unwrap();
        let (done, seen) = (done.clone(), seen.clone());
        consumers.spawn(async move {
            while let Some(Some(Ok(delivery))) = done.run_until_cancelled(deliveries.next()).await {
                seen.lock().push((number, delivery.message.clone()));
                // As long as a write to a store takes, so that the other one gets messages.
                tokio::time::sleep(Duration::from_millis(2)).await;
                delivery.ack().await;
            }
        });
    }
    let by = |number| seen.lock().iter().any(|(by, _)| *by == number);
    warm_up(&world, || by(0) && by(1)).await;
    let results = world.bus.publish_many((0..200).map(message).collect()).await;
    assert!(results.iter().all(Result::is_ok));
    let seen = || {
        let seen = seen.lock();
        let seen = seen.iter().filter(|(_, message)| !is_warm_up(message));
        seen.map(|(number, message)| (*number, message.data.clone()))
            .collect::<Vec<_>>()
    };
    let different = || seen().into_iter().map(|(_, data)| data).collect::<BTreeSet<_>>();
    let deadline = Instant::now() + PATIENCE;
    while different().len() < 200 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done.cancel();
    consumers.join_all().await;
    assert_eq!(different().len(), 200);
    let seen = seen();
    assert_eq!(seen.len(), 200, "nothing goes to both");
    let by_first = seen.iter().filter(|(number, _)| *number == 0).count();
    assert!(
        !world.hands_out_what_is_asked_for || (10..=190).contains(&by_first),
        "{by_first} of 200 went to the first"
    );
}

pub async fn a_name_keeps_its_place_while_nobody_consumes(world: World) {
    let mut deliveries = subscribed(&world, "one").await;
    world.bus.publish(message(1)).await.unwrap();
    // The acknowledgement is sent without being waited for, and yet nothing that was acknowledged is delivered again.
    next(&mut deliveries).await.ack().await;
    drop(deliveries);
    world.bus.publish(message(2)).await.unwrap();
    let mut again = subscribed(&world, "one").await;
    let bodies = bodies(&mut again, 1).await;
    assert_eq!(bodies, BTreeSet::from(["{\"n\":2}".to_owned()]));
}

pub async fn what_is_refused_comes_back_but_not_before_its_time(world: World) {
    let mut deliveries = subscribed(&world, "one").await;
    world.bus.publish(message(1)).await.unwrap();
    let asked = Instant::now();
    next(&mut deliveries).await.nak(Duration::from_millis(400)).await;
    let again = next(&mut deliveries).await;
    assert!(
        asked.elapsed() >= Duration::from_millis(380),
        "after {:?}",
        asked.elapsed()
    );
    assert_eq!(again.message.data, message(1).data);
    if world.counts_deliveries {
        assert_eq!(again.message.deliveries, 2);
    }
    again.ack().await;
    assert_nothing_before(message(2), &world, &mut deliveries).await;
}

pub async fn what_is_given_up_never_comes_back(world: World) {
    let mut deliveries = subscribed(&world, "one").await;
    world.bus.publish(message(1)).await.unwrap();
    next(&mut deliveries).await.term().await;
    world.bus.publish(message(2)).await.unwrap();
    assert_eq!(
        bodies(&mut deliveries, 1).await,
        BTreeSet::from(["{\"n\":2}".to_owned()])
    );
    assert_nothing_before(message(3), &world, &mut deliveries).await;
}

pub async fn what_is_dropped_unsettled_comes_back(world: World) {
    let mut deliveries = subscribed(&world, "one").await;
    world.bus.publish(message(1)).await.unwrap();
    drop(next(&mut deliveries).await);
    assert_eq!(bodies(&mut deliveries, 1).await.len(), 1);
}

pub async fn what_a_reader_that_leaves_had_not_looked_at_goes_to_the_next_at_once(world: World) {
    let mut deliveries = subscribed(&world, "one").await;
    world.bus.publish(message(WARM_UP)).await.unwrap();
    next(&mut deliveries).await.ack().await;
    // More than the consumer reads: the bus delivers some of the rest in advance.
    let results = world.bus.publish_many((0..200).map(message).collect()).await;
    assert!(results.iter().all(Result::is_ok));
    drop(deliveries);
    let mut again = subscribed(&world, "one").await;
    let all = timeout(at_once(world.bus.as_ref()), bodies(&mut again, 200)).await;
    assert_eq!(all.expect("nothing waits for a reader that is gone").len(), 200);
}

pub async fn a_thousand_messages_in_one_pipeline_all_arrive(world: World) {
    let mut deliveries = subscribed(&world, "one").await;
    let results = world.bus.publish_many((0..1000).map(message).collect()).await;
    assert_eq!(results.len(), 1000);
    assert!(
        results.iter().all(Result::is_ok),
        "{:?}",
        results.iter().find(|result| result.is_err())
    );
    assert_eq!(bodies(&mut deliveries, 1000).await.len(), 1000);
}

pub async fn one_too_large_does_not_stop_its_neighbors(world: World) {
    let Some(limit) = world.max_body else {
        return;
    };
    let mut deliveries = subscribed(&world, "one").await;
    // Connected, so that the server's limit is known.
    world.bus.publish(message(0)).await.unwrap();
    let huge = Outgoing {
        data: vec![b'x'; limit + limit / 4].into(),
        ..message(2)
    };
    let results = world.bus.publish_many(vec![message(1), huge, message(3)]).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(
        matches!(results[1], Err(BusError::TooLarge { .. })),
        "{:?}",
        results[1]
    );
    assert_eq!(bodies(&mut deliveries, 3).await.len(), 3);
}

pub async fn a_tail_takes_nothing_away_from_anybody(world: World) {
    let mut deliveries = subscribed(&world, "one").await;
    let mut tail = world.bus.tail(&Filter::ingress(), None).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut reader = JoinSet::new();
    reader.spawn({
        let seen = seen.clone();
        async move {
            while let Some(Ok(message)) = tail.next().await {
                seen.lock().push(message);
            }
        }
    });
    let warm_ups = warm_up(&world, || !seen.lock().is_empty()).await;
    for n in 0..3 {
        world.bus.publish(message(n)).await.unwrap();
    }
    let tailed = || {
        let seen = seen.lock();
        let seen = seen.iter().filter(|message| !is_warm_up(message));
        seen.map(|message| message.data.clone()).collect::<BTreeSet<_>>()
    };
    let deadline = Instant::now() + PATIENCE;
    while tailed().len() < 3 {
        assert!(Instant::now() < deadline, "{:?}", tailed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bodies(&mut deliveries, warm_ups + 3).await.len(), warm_ups + 3);
    if world.remembers_before_subscription {
        let long_ago = SystemClock.now().plus_secs(-600);
        let past = world.bus.tail(&Filter::ingress(), Some(long_ago)).await.unwrap();
        let past: Vec<_> = timeout(PATIENCE, past.take(3).collect()).await.unwrap();
        assert_eq!(past.len(), 3);
        let mut future = world
            .bus
            .tail(&Filter::ingress(), Some(SystemClock.now().plus_secs(600)))
            .await
            .unwrap();
        // Nothing that is published before then could come first: absence takes time.
        assert!(timeout(SILENCE, future.next()).await.is_err());
    }
}

pub async fn a_filter_for_many_topics_gets_them_all(world: World) {
    let to = |topic: &str, n: usize| Outgoing {
        topic: topic.to_owned(),
        ..message(n)
    };
    let topics = [format!("{EGRESS}.v1"), format!("{EGRESS}.v1.instance-7")];
    for (n, topic) in topics.iter().enumerate() {
        world.bus.publish(to(topic, 100 + n)).await.unwrap();
    }
    let all = Subscription {
        filter: Filter::egress(),
        from: Start::Now,
        ..subscription("one")
    };
    let mut deliveries = world.bus.subscribe(&all).await.unwrap();
    for (n, topic) in topics.iter().enumerate() {
        world.bus.publish(to(topic, n)).await.unwrap();
    }
    world.bus.publish(message(7)).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < topics.len() {
        let delivery = next(&mut deliveries).await;
        seen.insert(delivery.message.topic.clone());
        delivery.ack().await;
    }
    assert_eq!(seen, topics.iter().cloned().collect());
    assert_nothing_before(to(&topics[1], 8), &world, &mut deliveries).await;
}

pub async fn a_look_at_the_bus_tells_about_the_subscription(world: World) {
    let deliveries = subscribed(&world, "one").await;
    world.bus.publish(message(1)).await.unwrap();
    drop(deliveries);
    let report = world.bus.inspect(&subscription("one")).await.unwrap();
    assert!(
        report
            .findings
            .iter()
            .all(|finding| finding.level < bitbrat::core::finding::Level::Fail),
        "{report:#?}"
    );
    assert!(!report.location.is_empty());
    if let Some(waiting) = report.waiting {
        assert!(waiting + report.unsettled.unwrap_or(0) >= 1, "{report:#?}");
    }
}
