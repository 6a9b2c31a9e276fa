//! Twitch's EventSub through the whole program: what is pushed is stored at once, and a killed process announces nothing twice.

use serde_json::{Value, json};

use crate::support::Home;
use crate::support::process::{Process, Sim, until, watch};

const SOURCE: &str = "twitch:777002";

/// Only the source of interest, and no poll except those that a listener requests.
const QUIET: &str = r#"
[store]
heartbeat = "1s"
[web]
listen = "127.0.0.1:0"
[schedule]
connection = "0 0 0 1 1 *"
stream = "0 0 0 1 1 *"
viewers = "0 0 0 1 1 *"
[[source]]
platform = "twitch"
id = "777002"
"#;

/// A home that is configured for the simulator, without its polls.
fn quiet(sim: &Sim) -> Home {
    sim.home(&[]).file("bitbrat.toml", QUIET)
}

/// Waits until the stored document of the source is as wanted, and returns it.
#[track_caller]
fn document(address: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/v1/sources/{SOURCE}");
    let item = |body: &str| serde_json::from_str::<Value>(body).map(|json| json["items"][0].clone());
    let body = until(address, &path, |status, body| {
        status == 200 && item(body).is_ok_and(|item| wanted(&item))
    });
    item(&body).unwrap()
}

fn ready(home: &Home) -> (Process, String) {
    let (daemon, address) = watch(home);
    until(&address, "/readyz", |status, _| status == 200);
    until(&address, "/_debug/twitch/eventsub", |_, body| {
        body.contains("\"activeSubscriptions\":4")
    });
    (daemon, address)
}

fn changes(said: &str) -> Vec<&str> {
    let of_stream = said
        .lines()
        .filter(|line| line.contains(&format!("`{SOURCE}`: stream ")));
    of_stream
        .map(|line| {
            if line.contains("→ ONLINE") {
                "ONLINE"
            } else {
                "OFFLINE"
            }
        })
        .collect()
}

#[test]
fn pushed_stream_is_stored_and_announced_once_despite_kill() {
    let sim = Sim::start();
    let home = quiet(&sim);
    let (mut daemon, address) = ready(&home);
    document(&address, |item| item["streamStatus"] == "OFFLINE");

    sim.order(
        "/__sim/twitch/stream_up",
        &json!({"id": "777002", "stream_id": "4711", "lag_ms": 600_000}),
    );
    let live = document(&address, |item| item["streamStatus"] == "ONLINE");
    assert_eq!(live["verdicts"]["stream"]["rule"], "stream.pushed-start");
    assert_eq!(live["status"], "CONNECTED");
    assert_eq!(live["metadata"]["session"]["streamId"], "4711");
    sim.order("/__sim/twitch/chat", &json!({"id": "777002", "count": 5}));
    document(&address, |item| item["metrics"]["messagesIn"] == 5);

    daemon.signal("-KILL");
    daemon.ends();
    assert_eq!(changes(&daemon.said()), ["ONLINE"]);

    let (mut again, address) = ready(&home);
    let still = document(&address, |_| true);
    assert_eq!(
        (&still["streamStatus"], &still["status"]),
        (&json!("ONLINE"), &json!("CONNECTED"))
    );
    sim.order("/__sim/twitch/stream_down", &json!({"id": "777002"}));
    let ended = document(&address, |item| item["streamStatus"] == "OFFLINE");
    assert_eq!(ended["verdicts"]["stream"]["rule"], "stream.pushed-end");
    let starts = ended["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["to"] == "ONLINE");
    assert_eq!(starts.count(), 1, "{ended:#}");

    let shown = until(&address, "/_debug/twitch/eventsub", |status, _| status == 200);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["enabled"], &shown["subscriptionCount"]),
        (&json!(true), &json!(4))
    );
    let offline = shown["subscriptions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["eventType"] == "stream.offline");
    let offline = offline.unwrap();
    assert_eq!(
        (&offline["channel"], &offline["status"]),
        (&ended["metadata"]["login"], &json!("active"))
    );
    assert_eq!(
        (&offline["eventCount"], &offline["errorCount"]),
        (&json!(1), &json!(0))
    );
    assert!(offline["createdAt"].is_string() && offline["lastEventAt"].is_string());

    again.signal("-TERM");
    assert_eq!(again.ends(), 0);
    // The restart announced nothing that had been announced before it.
    assert_eq!(changes(&again.said()), ["OFFLINE"]);
    let stored = home.run(&["sources", "describe", SOURCE, "-o", "json"]).exits(0);
    let stored = stored.item("key", SOURCE);
    assert_eq!(stored["status"], "DISCONNECTED");
    assert_eq!(stored["listening"]["way"], "pushed");
    assert_eq!(stored["listening"]["cost"], 3);
}

#[test]
fn unreachable_websocket_makes_readyz_fail_with_reason() {
    let sim = Sim::start();
    let home = quiet(&sim).env("BITBRAT_TWITCH__EVENTSUB_WS_URL", "ws://127.0.0.1:9/");
    let (_daemon, address) = watch(&home);
    let transitions = until(&address, "/readyz", |status, body| {
        status == 503 && body.contains("network")
    });
    assert!(transitions.contains("twitch-eventsub"), "{transitions}");
    // Polls continue.
    document(&address, |item| {
        item["status"] == "DISCONNECTED" && item["streamStatus"] == "OFFLINE"
    });
}
