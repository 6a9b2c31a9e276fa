//! `bitbrat watch` split into its roles as a person would run them: separate processes, a NATS server between them, and a
//! simulator as the platforms.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::contract::bus::servers::{self, NatsServer};
use crate::support::Home;
use crate::support::process::{Process, Sim, page};

const PATIENCE: Duration = Duration::from_secs(90);

/// Repeats a query until it succeeds.
#[track_caller]
fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(good) => return good,
            Err(last) if Instant::now() > deadline => panic!("{what}: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn status(home: &Home, field: &str, wanted: &str) -> Result<(), String> {
    let item = home
        .run(&["sources", "status", "twitch:777001", "-o", "json"])
        .json();
    let item = &item["items"][0];
    if item[field] == wanted {
        Ok(())
    } else {
        Err(item.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_one_process_sees_and_another_stores_and_counts() {
    let server = NatsServer::start().await;
    servers::create_stream_on(&server.url(), "HERE", &["here.>"]).await;
    tokio::task::block_in_place(|| split(&server.url()));
}

fn split(nats: &str) {
    let sim = Sim::start();
    let sources: Vec<&str> = sim.sources.iter().map(String::as_str).collect();
    let shared = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", shared.path().join("store.db").display());
    let home = || {
        sim.home(&sources)
            .env("BITBRAT_STORE__URL", &store)
            .env("BITBRAT_BUS__URL", nats)
            .env("BITBRAT_BUS__STATE_MUTATIONS", "true")
            .env("BUS_PREFIX", "here.")
    };
    let (seeing, storing) = (home(), home());
    let words = [
        "watch",
        "--role",
        "persist,web",
        "--set",
        "web.listen=127.0.0.1:0",
        "--color",
        "never",
    ];
    let mut persister = Process::start(&storing, &words);
    let address = persister.address();
    let mut ingester = Process::start(&seeing, &["watch", "--role", "ingest", "--color", "never"]);
    ingester.says("Watching");
    until("it is stored", || status(&storing, "status", "CONNECTED"));
    until("it is live", || status(&storing, "streamStatus", "ONLINE"));

    // The bus has it, and the state engine received it.
    let tail = |topic: &str| {
        let words = [
            "events", "tail", "--topic", topic, "--since", "10m", "--limit", "1", "--for", "30s",
        ];
        let run = seeing.run(&words).exits(0);
        serde_json::from_str::<Value>(&run.stdout).unwrap_or_default()
    };
    assert_eq!(tail("ingress")["meaning"], "source");
    let order = tail("mutations");
    assert!(
        order["event"]["key"]
            .as_str()
            .is_some_and(|key| key.starts_with("stream.")),
        "{order:#}"
    );

    // Chat of BitBrat's own connector is counted, once a message.
    let said = json!({
        "v": "2", "type": "chat.message.v1", "correlationId": "m1",
        "ingress": {"source": "ingress.twitch", "connector": "twitch", "channel": "#pixelmeadow"},
        "message": {"text": "hi", "rawPlatformPayload": {"roomId": "777001"}}
    });
    for _ in 0..2 {
        seeing
            .run_with(&["events", "publish", "-"], &said.to_string())
            .exits(0);
    }
    let counted = until("chat is counted and events are stored", || {
        let page = page(&address, "/_debug/bus")
            .map(|(_, body)| body)
            .unwrap_or_default();
        let json: Value = serde_json::from_str(&page).unwrap_or_default();
        let stored = json["stored"].as_u64().unwrap_or_default();
        if json["chat"]["counted"] == 1 && stored > 10 {
            Ok(json)
        } else {
            Err(page)
        }
    });
    assert_eq!(counted["chat"]["sources"]["twitch:777001"]["messagesIn"], 1);
    let (_, metrics) = page(&address, "/metrics").unwrap();
    assert!(metrics.contains("bitbrat_chat_messages_total 1"), "{metrics}");
    assert!(
        metrics.contains("bitbrat_bus_messages_total{outcome=\"stored\"}"),
        "{metrics}"
    );

    let doctor = seeing.run(&["doctor", "bus", "-o", "json"]);
    for check in ["reachable", "stream", "consumer", "chat in", "chat out"] {
        assert_eq!(
            doctor.item("name", check)["outcome"],
            "OK",
            "{check}: {}",
            doctor.stdout
        );
    }

    ingester.signal("-TERM");
    assert_eq!(ingester.ends(), 0);
    until("its goodbye is stored", || {
        status(&storing, "status", "DISCONNECTED")
    });
    persister.signal("-TERM");
    assert_eq!(persister.ends(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persist_is_ready_only_while_its_stream_can_be_read() {
    let mut server = NatsServer::start().await;
    let sim = Sim::start();
    let home = sim
        .home(&["twitch:777001"])
        .env("BITBRAT_BUS__URL", &server.url())
        .env("BUS_PREFIX", "late.");
    let words = [
        "watch",
        "--role",
        "persist,web",
        "--set",
        "web.listen=127.0.0.1:0",
        "--color",
        "never",
    ];
    let (process, address) = tokio::task::block_in_place(|| {
        let mut process = Process::start(&home, &words);
        let address = process.address();
        (process, address)
    });
    let ready = |wanted: u16, why: &str| {
        tokio::task::block_in_place(|| {
            until(&format!("readiness {wanted}: {why}"), || {
                match page(&address, "/readyz") {
                    Some((status, body)) if status == wanted && body.contains(why) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        });
    };
    ready(503, "are not read, or not stored");
    servers::create_stream_on(&server.url(), "LATE", &["late.>"]).await;
    ready(200, "");
    server.kill().await;
    ready(503, "no connection to");
    server.run().await;
    ready(200, "");
    drop(process);
}
