//! Messages with headers that no client library can parse, published without one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bitbrat::bus::names::INGRESS;
use bitbrat::bus::nats::{NatsBus, NatsOptions};
use bitbrat::bus::{EventBus as _, Filter};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::contract::bus::servers::{self, NatsServer};
use crate::contract::bus::suite::{message, next, subscription};

const MALFORMED: [&[u8]; 5] = [
    b"NATS/1.0\r\nno colon here\r\n\r\n",
    b"NATS/1.0\r\nname: caf\xe9\r\n\r\n",
    b"NATS/1.0\r\nbad name: x\r\n\r\n",
    b"NATS/1.0 abc\r\n\r\n",
    // Taken for a heartbeat of the server, this one breaks nothing and would be delivered again forever.
    b"NATS/1.0 100\r\n\r\n",
];

/// Publishes with raw headers, and waits until the server has accepted them.
fn publish_raw(url: &str, subject: &str, headers: &[u8], body: &str) {
    let mut socket = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
    let total = headers.len() + body.len();
    let mut text = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
    text.extend(format!("HPUB {subject} {} {total}\r\n", headers.len()).into_bytes());
    text.extend(headers);
    text.extend(format!("{body}\r\nPING\r\n").into_bytes());
    socket.write_all(&text).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut lines = BufReader::new(socket).lines();
    let pong = lines.find(|line| {
        line.as_ref()
            .is_ok_and(|line| line.starts_with("PONG") || line.starts_with("-ERR"))
    });
    assert_eq!(pong.unwrap().unwrap(), "PONG");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_nats_header_is_delivered_once_and_given_up() {
    let server = NatsServer::start().await;
    servers::create_stream(&server.url(), "here.").await;
    let options = NatsOptions {
        ack_wait: Duration::from_secs(2),
        ..NatsOptions::new(server.url(), "here.")
    };
    let bus = NatsBus::connect(&options).await.unwrap();
    let mut deliveries = bus.subscribe(&subscription("one")).await.unwrap();
    bus.publish(message(0)).await.unwrap();
    next(&mut deliveries).await.ack().await;
    let subject = format!("here.{INGRESS}");
    for headers in MALFORMED {
        publish_raw(&server.url(), &subject, headers, "{\"n\":7}");
        let delivery = next(&mut deliveries).await;
        let message = &delivery.message;
        assert!(
            message.unreadable.is_some() && message.attributes.is_empty(),
            "{message:?}"
        );
        assert_eq!(&message.data[..], b"{\"n\":7}");
        delivery.term().await;
    }
    // Later messages arrive, and nothing is left that would be delivered again.
    loop {
        if bus.publish(message(1)).await.is_ok() {
            break;
        }
    }
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message.unreadable, None);
    delivery.ack().await;
    let settled = async {
        while bus
            .inspect(&subscription("one"))
            .await
            .ok()
            .and_then(|report| report.unsettled)
            != Some(0)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), settled)
        .await
        .expect("all is settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_behind_a_malformed_nats_header() {
    let server = NatsServer::start().await;
    servers::create_stream(&server.url(), "here.").await;
    let bus = NatsBus::connect(&NatsOptions::new(server.url(), "here."))
        .await
        .unwrap();
    let mut tail = bus.tail(&Filter::ingress(), None).await.unwrap();
    publish_raw(&server.url(), &format!("here.{INGRESS}"), MALFORMED[0], "one");
    let first = timeout(Duration::from_secs(60), tail.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(first.unreadable.is_some(), "{first:?}");
    loop {
        if bus.publish(message(2)).await.is_ok() {
            break;
        }
    }
    let second = timeout(Duration::from_secs(60), tail.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!((&second.data[..], second.unreadable), (&b"{\"n\":2}"[..], None));
}

/// Passes connections on to the server at `url`, and counts them.
fn counted(url: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("nats://{}", listener.local_addr().unwrap());
    let server = url.trim_start_matches("nats://").to_owned();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            let Ok(server) = TcpStream::connect(&server) else {
                continue;
            };
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (address, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_of_malformed_headers_costs_few_connections() {
    const RUN: usize = 20;
    let server = NatsServer::start().await;
    servers::create_stream(&server.url(), "here.").await;
    let (url, connections) = counted(&server.url());
    let options = NatsOptions {
        ack_wait: Duration::from_secs(2),
        ..NatsOptions::new(url, "here.")
    };
    let bus = NatsBus::connect(&options).await.unwrap();
    let subject = format!("here.{INGRESS}");
    for n in 0..RUN {
        publish_raw(&server.url(), &subject, MALFORMED[0], &format!("{{\"n\":{n}}}"));
    }
    let mut deliveries = bus.subscribe(&subscription("one")).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < RUN {
        let delivery = next(&mut deliveries).await;
        assert!(delivery.message.unreadable.is_some());
        seen.insert(delivery.message.data.clone());
        delivery.term().await;
    }
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections <= 4, "{connections} connections for one run of {RUN}");
}
