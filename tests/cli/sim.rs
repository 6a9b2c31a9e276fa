//! `sim` and `sim trigger`: output at the start, and events triggered from another process.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::schemas::is_valid;
use crate::support::process::{PATIENCE, Sim, ask, page};
use crate::support::{Home, ReservedPort};

/// Returns the port of a simulated platform's address.
fn port(sim: &Sim) -> String {
    sim.twitch.rsplit(':').next().unwrap().to_owned()
}

/// Returns whether a channel of the simulated Twitch is live.
fn is_live(sim: &Sim, id: &str) -> bool {
    let (_, text) = page(&sim.twitch, "/__sim/twitch/world").unwrap();
    let world: Value = serde_json::from_str(&text).unwrap();
    let channels = world["channels"].as_array().unwrap();
    let channel = channels.iter().find(|channel| channel["id"] == id).unwrap();
    !channel["stream"].is_null()
}

fn advance(sim: &Sim, ms: i64) {
    let headers = "Content-Type: application/json\r\n";
    let order = json!({"advance_ms": ms}).to_string();
    let (status, _) = ask(&sim.twitch, "POST", "/__sim/clock", headers, &order).unwrap();
    assert_eq!(status, 200);
}

#[test]
fn a_trigger_reaches_the_running_simulator() {
    let sim = Sim::start();
    let home = Home::new();
    let port = port(&sim);
    assert!(!is_live(&sim, "777002"));
    let run = home.run(&[
        "sim",
        "trigger",
        "stream.online",
        "quietharbor",
        "-f",
        "viewers=40",
        "--port",
        &port,
        "-o",
        "json",
    ]);
    let json = run.exits(0).json();
    is_valid("sim-trigger", &json);
    assert_eq!(json["items"][0]["source"], "twitch:777002");
    assert!(is_live(&sim, "777002"));
    let again = [
        "sim",
        "--port",
        &port,
        "trigger",
        "stream.offline",
        "twitch:777002",
    ];
    home.run(&again)
        .exits(0)
        .shows("stream.offline")
        .names_account("no client has subscribed");
    assert!(!is_live(&sim, "777002"));
}

#[test]
fn a_trigger_without_an_event_lists_all() {
    let sim = Sim::start();
    let home = Home::new();
    let port = port(&sim);
    let json = home
        .run(&["sim", "trigger", "--port", &port, "-o", "json"])
        .exits(0)
        .json();
    is_valid("sim-events", &json);
    let shown = home.run(&["sim", "trigger", "--port", &port]).exits(0);
    for event in json["items"].as_array().unwrap() {
        assert!(shown.stdout.contains(event["event"].as_str().unwrap()), "{event}");
    }
}

#[test]
fn failed_trigger_prints_a_hint() {
    let sim = Sim::start();
    let home = Home::new();
    let port = port(&sim);
    let trigger = |words: &[&str]| {
        let all = [&["sim", "trigger", "--port", &port][..], words].concat();
        home.run(&all)
    };
    trigger(&["stream.onlien", "twitch:777002"])
        .exits(1)
        .names_account("stream.online");
    trigger(&["stream.online", "twitch:1"])
        .exits(1)
        .names_account("777002");
    trigger(&["stream.online"]).exits(2).names_account("which one?");
    trigger(&["stream.online", "twitch:777002", "-f", "viewers"]).exits(2);
    let nobody = ReservedPort::new();
    home.run(&["sim", "trigger", "--port", &nobody.number.to_string()])
        .exits(1)
        .names_account("bitbrat sim")
        .names_account("--port");
}

#[test]
fn the_start_prints_the_demo_logins_with_their_tokens() {
    let mut process = crate::support::process::Process::start(&Home::new(), &["sim", "--port", "0"]);
    process.says("BITBRAT_SOURCES=");
    let text = process.seen.join("\n");
    for shown in [
        "twitch/bot",
        "twitch/broadcaster:777005",
        "kick/bot",
        "discord/bot",
        "demotoken.bitbrat.simulator",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
}

#[test]
fn a_still_demo_world_does_not_change_by_itself() {
    let still = Sim::start_with(&["--still"]);
    let unchanged = || !is_live(&still, "777006") && is_live(&still, "777005");
    assert!(unchanged());
    for _ in 0..4 {
        advance(&still, 30_000);
    }
    assert!(unchanged());
    // The other one changes eight seconds after its start, perhaps before the first request.
    let moving = Sim::start();
    for (id, live) in [("777006", true), ("777005", false)] {
        advance(&moving, 30_000);
        // The timeline is a task of its own: it processes the jump of the clock a moment later.
        let until = Instant::now() + PATIENCE;
        while is_live(&moving, id) != live {
            assert!(Instant::now() < until, "{id} does not change");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn still_without_a_demo_world_is_a_usage_error() {
    Home::new()
        .run(&["--still", "sources", "status"])
        .exits(2)
        .names_account("--demo");
}
