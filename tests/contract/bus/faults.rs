//! Faults of a bus, each reported as what it is.

use std::time::{Duration, Instant};

use bitbrat::bus::nats::{NatsBus, NatsOptions};
use bitbrat::bus::pubsub::{PubsubBus, PubsubOptions};
use bitbrat::bus::{BusError, EventBus, Recovery};

use super::servers::{self, NatsServer};
use super::suite::{at_once, bodies, message, next, subscription};

async fn bus_at(url: &str, prefix: &str) -> NatsBus {
    NatsBus::connect(&NatsOptions::new(url, prefix)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_or_mismatched_stream_is_reported_and_not_created() {
    let server = NatsServer::start().await;
    let bus = bus_at(&server.url(), "here.").await;
    let missing = bus.publish(message(1)).await.unwrap_err();
    assert!(
        matches!(&missing, BusError::NoTopic { topic, .. } if topic == "here.internal.ingress.v1"),
        "{missing:?}"
    );
    assert_eq!(missing.recovery(), Recovery::RetrySlowly);
    servers::create_stream_on(&server.url(), "BITBRAT", &["elsewhere.>"]).await;
    let wrong = bus.publish(message(1)).await.unwrap_err();
    assert!(matches!(wrong, BusError::NoTopic { .. }), "{wrong:?}");
    let wrong = bus.subscribe(&subscription("one")).await.err().unwrap();
    assert!(matches!(wrong, BusError::NoTopic { .. }), "{wrong:?}");
    // Once the stream was created, everything works without a restart.
    servers::create_stream_on(&server.url(), "HERE", &["here.>"]).await;
    bus.publish(message(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_fails_on_server_without_jetstream() {
    let server = NatsServer::start_without_jetstream().await;
    let bus = bus_at(&server.url(), "here.").await;
    let error = bus.publish(message(1)).await.unwrap_err();
    assert_ne!(error.recovery(), Recovery::GiveUp, "{error:?}");
    assert!(bus.inspect(&subscription("one")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_server_loses_no_message_resent_with_its_id() {
    let mut server = NatsServer::start().await;
    servers::create_stream(&server.url(), "here.").await;
    let bus = bus_at(&server.url(), "here.").await;
    let mut deliveries = bus.subscribe(&subscription("one")).await.unwrap();
    bus.publish(message(0)).await.unwrap();
    next(&mut deliveries).await.ack().await;
    server.kill().await;
    let failed = bus.publish(message(1)).await.unwrap_err();
    assert_eq!(failed.recovery(), Recovery::Retry, "{failed:?}");
    server.run().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = bus.publish(message(1)).await {
        assert_eq!(error.recovery(), Recovery::Retry, "{error:?}");
        assert!(Instant::now() < deadline, "{error}");
    }
    bus.publish(message(2)).await.unwrap();
    // The consumer continues without a restart, and the message that was sent twice arrived once.
    let mut seen = Vec::new();
    while seen.last() != Some(&message(2).data) {
        let delivery = next(&mut deliveries).await;
        if delivery.message.deliveries == 1 {
            seen.push(delivery.message.data.clone());
        }
        delivery.ack().await;
    }
    seen.retain(|data| *data != message(0).data);
    assert_eq!(seen, [message(1).data, message(2).data]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_server_fails_in_time_and_is_used_once_available() {
    let mut server = NatsServer::start().await;
    servers::create_stream(&server.url(), "here.").await;
    server.kill().await;
    let bus = bus_at(&server.url(), "here.").await;
    let error = refused(&bus).await;
    assert_eq!(error.recovery(), Recovery::Retry);
    server.run().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while bus.publish(message(1)).await.is_err() {
        assert!(Instant::now() < deadline);
    }
}

/// Time is skipped, as nothing but time passes here.
#[tokio::test(start_paused = true)]
async fn pubsub_that_does_not_answer_fails_in_time() {
    // Accepts the connection and never sends anything.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = PubsubOptions {
        project: "demo".to_owned(),
        prefix: "local.".to_owned(),
        emulator: Some(silent.local_addr().unwrap().to_string()),
        key: None,
    };
    let bus = PubsubBus::connect(&options).await.unwrap();
    let error = refused(&bus).await;
    assert_eq!(error.recovery(), Recovery::Retry, "{error:?}");
}

/// A publish that fails without a timeout of the test.
async fn refused(bus: &dyn EventBus) -> BusError {
    let published = tokio::time::timeout(Duration::from_secs(60), bus.publish(message(1))).await;
    published
        .expect("whoever publishes is not kept waiting for ever")
        .unwrap_err()
}

/// Reads some of two hundred messages, settles none, and ends in a runtime that ends with it, as a process does; the next one
/// must not have to wait for the messages delivered to this one.
async fn ends_in_order<B: EventBus + 'static>(
    connect: impl AsyncFn() -> B + Copy + Send + 'static,
    read: usize,
) {
    let first = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let bus = connect().await;
            let mut deliveries = bus.subscribe(&subscription("one")).await.unwrap();
            bus.publish(message(200)).await.unwrap();
            next(&mut deliveries).await.ack().await;
            let results = bus.publish_many((0..200).map(message).collect()).await;
            assert!(results.iter().all(Result::is_ok));
            let mut held = Vec::new();
            while held.len() < read {
                held.push(next(&mut deliveries).await);
            }
            drop(deliveries);
            bus.close().await;
            drop(held);
        });
        runtime.shutdown_background();
    });
    first.await.unwrap();
    let bus = connect().await;
    let mut deliveries = bus.subscribe(&subscription("one")).await.unwrap();
    let all = tokio::time::timeout(at_once(&bus), bodies(&mut deliveries, 200)).await;
    assert_eq!(all.expect("nothing waits for a process that is gone").len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_exit_leaves_no_pending_messages_on_nats() {
    let (url, prefix) = (servers::nats_url(), servers::prefix());
    servers::create_stream(&url, &prefix).await;
    let (url, prefix): (&'static str, &'static str) = (url.leak(), prefix.leak());
    // All are delivered, and none is read.
    ends_in_order(move || bus_at(url, prefix), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_exit_leaves_no_pending_messages_on_pubsub() {
    let host: &'static str = servers::pubsub_host().leak();
    let project: &'static str = format!("bitbrat-{}", servers::prefix().trim_end_matches('.')).leak();
    let connect = move || async move {
        let options = PubsubOptions {
            project: project.to_owned(),
            prefix: "local.".to_owned(),
            emulator: Some(host.to_owned()),
            key: None,
        };
        PubsubBus::connect(&options).await.unwrap()
    };
    // All of them, as a loaded emulator may take longer over the next hundred than a consumer waits at its end.
    ends_in_order(connect, 200).await;
}
