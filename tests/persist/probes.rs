//! One-shot probes with a bus: what they find is published once, by themselves or by the daemon that runs.

use serde_json::{Value, json};

use crate::contract::bus::servers::{self, NatsServer};
use crate::support::Home;
use crate::support::process::{Process, Sim};

const SOURCE: &str = "twitch:777002";

/// A simulator, and a home with a bus in which nothing is checked by schedule.
fn world(nats: &str) -> (Sim, Home) {
    let sim = Sim::start();
    let rarely =
        "[schedule]\nstream = \"0 0 0 1 1 *\"\nconnection = \"0 0 0 1 1 *\"\nviewers = \"0 0 0 1 1 *\"\n";
    let sources = format!("{rarely}[[source]]\nid = \"{SOURCE}\"\n");
    let home = sim.home(&[SOURCE]).file("bitbrat.toml", &sources);
    let home = home.env("BITBRAT_BUS__URL", nats).env("BUS_PREFIX", "probes.");
    (sim, home)
}

/// Returns the published starts of streams, waiting for the first.
fn starts(home: &Home) -> Vec<Value> {
    let tail = |limit: &str, patience: &str| {
        let words = [
            "events",
            "tail",
            "--topic",
            "ingress",
            "--since",
            "10m",
            "--type",
            "system.stream.online",
            "--limit",
            limit,
            "--for",
            patience,
            "-o",
            "ndjson",
        ];
        let run = home.run(&words).exits(0);
        run.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>()
    };
    assert_eq!(tail("1", "60s").len(), 1);
    tail("3", "2s")
}

fn recorded_starts(home: &Home) -> usize {
    let history = home.run(&["history", SOURCE, "-o", "json"]).exits(0).stdout;
    history.matches("\"to\": \"ONLINE\"").count() + history.matches("\"to\":\"ONLINE\"").count()
}

async fn with_nats(test: fn(&str)) {
    let server = NatsServer::start().await;
    servers::create_stream_on(&server.url(), "PROBES", &["probes.>"]).await;
    tokio::task::block_in_place(|| test(&server.url()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe_publishes_its_transitions_when_no_daemon_runs() {
    with_nats(|nats| {
        let (sim, home) = world(nats);
        let first = home.run(&["probe"]).exits(0);
        assert!(!first.stderr.contains("wait in the outbox"), "{}", first.stderr);
        sim.order("/__sim/twitch/stream_up", &json!({"id": "777002", "lag_ms": 0}));
        home.run(&["probe"]).exits(0);
        home.run(&["probe"]).exits(0);
        let starts = starts(&home);
        assert_eq!(starts.len(), 1, "{starts:#?}");
        assert!(
            starts[0]["event"]["payload"].get("initial").is_none(),
            "{starts:#?}"
        );
        assert_eq!(recorded_starts(&home), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe_beside_watch_publishes_once_through_the_daemon() {
    with_nats(|nats| {
        let (sim, home) = world(nats);
        home.run(&["probe"]).exits(0);
        let mut daemon = Process::start(&home, &["watch", "--role", "ingest", "--color", "never"]);
        daemon.says("Watching");
        sim.order("/__sim/twitch/stream_up", &json!({"id": "777002", "lag_ms": 0}));
        home.run(&["probe"]).exits(0);
        let starts = starts(&home);
        daemon.signal("-TERM");
        assert_eq!(daemon.ends(), 0);
        assert_eq!(starts.len(), 1, "{starts:#?}");
        assert_eq!(recorded_starts(&home), 1);
        let stored = home.run(&["status", SOURCE, "-o", "json"]).json();
        assert_eq!(stored["items"][0]["streamStatus"], "ONLINE");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe_without_a_bus_server_leaves_its_events_for_the_next() {
    let server = NatsServer::start().await;
    let url = server.url();
    drop(server);
    tokio::task::block_in_place(|| {
        let (_sim, home) = world(&url);
        home.run(&["probe"]).exits(0).names_account("wait in the outbox");
        let stored = home.run(&["status", SOURCE, "-o", "json"]).json();
        assert_eq!(stored["items"][0]["status"], "CONNECTED");
    });
}
