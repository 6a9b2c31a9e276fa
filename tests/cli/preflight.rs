//! `preflight` and the warnings before an account stops working, against simulated platforms.

use std::time::{Duration, Instant};

use bitbrat::sim::twitch::TokenSpec;
use bitbrat::sim::{Fault, WireFault};

use super::login::{BOT, DEVICE, RUNTIME, Rig};
use crate::support::process::{until, watch};
use crate::support::{Home, Run};

const SCOPES: [&str; 4] = [
    "user:read:chat",
    "user:write:chat",
    "user:bot",
    "user:read:moderated_channels",
];

/// Simulated platforms, and a home whose bot has an access token without a refresh token.
fn unrefreshable(expires_in: i64, scopes: &[&str]) -> Rig {
    let rig = Rig::new();
    let pair = rig.sim.twitch.issue_token(TokenSpec {
        client_id: rig.client_id(),
        user_id: Some(BOT.to_owned()),
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        expires_in: Some(expires_in),
        ..TokenSpec::default()
    });
    rig.home
        .run_with(
            &["auth", "login", "twitch", "--with-token"],
            &format!("{}\n", pair.access),
        )
        .exits(0);
    rig
}

fn preflight(home: &Home, until: &str) -> Run {
    home.run(&["preflight", "--until", until, "-o", "json"])
        .never_panics()
}

#[test]
fn account_that_is_refreshed_outlives_the_show() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    let run = preflight(&rig.home, "12h").exits(0);
    for name in [
        "identity twitch/bot",
        "expiry twitch/bot",
        "reachable",
        "directory",
        "clock",
        "eventsub",
        "rate limit",
    ] {
        assert_eq!(run.item("name", name)["outcome"], "OK", "{name}\n{}", run.stdout);
    }
    assert!(!run.stdout.contains("UNKNOWN"), "{}", run.stdout);
}

#[test]
fn first_preflight_resolves_names_and_ends_with_its_result() {
    let mut rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    rig.home = rig.home.env("BITBRAT_SOURCES", "twitch:pixelmeadow");
    let run = preflight(&rig.home, "12h").exits(0);
    assert!(!run.stdout.contains("UNKNOWN"), "{}", run.stdout);
    let plan = run.item("name", "push plan");
    assert_eq!(plan["outcome"], "OK", "{plan}");
    let last = |run: &Run| {
        run.stderr
            .trim()
            .lines()
            .next_back()
            .unwrap_or_default()
            .to_owned()
    };
    let run = rig.home.run(&["preflight", "--until", "12h"]).exits(0);
    assert!(last(&run).contains("ready for a show until"), "{}", run.stderr);
    rig.home = rig
        .home
        .env("BITBRAT_STORE__URL", "sqlite:/proc/bitbrat/store.db");
    let run = rig.home.run(&["preflight", "--until", "12h"]).exits(3);
    let line = last(&run);
    assert!(
        line.contains("not ready") && line.contains("1 failed"),
        "{}",
        run.stderr
    );
}

#[test]
fn channels_beyond_the_points_of_eventsub_cause_a_warning() {
    let mut rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    let ids: Vec<String> = (777_001..777_009).map(|id| format!("twitch:{id}")).collect();
    rig.home = rig
        .home
        .env("BITBRAT_SOURCES", &ids.join(" "))
        .env("BITBRAT_TWITCH__TRANSPORT", "websocket");
    let run = preflight(&rig.home, "1h").never_panics();
    let plan = run.item("name", "push plan");
    assert_eq!(plan["outcome"], "WARN", "{plan}");
    assert_eq!(plan["next"], "bitbrat watch --plan");
    assert!(
        plan["detail"]
            .as_str()
            .unwrap()
            .contains("of 8 channels are pushed"),
        "{plan}"
    );
}

#[test]
fn token_that_ends_during_the_show_fails_with_its_command() {
    let rig = unrefreshable(3600, &SCOPES);
    let run = preflight(&rig.home, "2h").exits(4);
    let expiry = run.item("name", "expiry twitch/bot");
    assert_eq!(expiry["outcome"], "FAIL", "{expiry}");
    assert_eq!(expiry["next"], "bitbrat auth login twitch");
    assert_eq!(run.item("name", "identity twitch/bot")["outcome"], "OK");
    preflight(&rig.home, "10m").exits(0);
}

#[test]
fn account_that_ends_soon_needs_attention_everywhere() {
    let rig = unrefreshable(3600, &SCOPES);
    rig.home.run(&["probe"]).never_panics();
    for words in [&["auth", "status", "--offline"][..], &["status"]] {
        rig.home
            .run(words)
            .names_account("twitch/bot stops working in")
            .names_account("bitbrat auth login twitch");
    }
    let run = rig.home.run(&["auth", "status", "-o", "json"]).exits(0);
    let forecast = run.item("identity", "twitch/bot")["forecast"].clone();
    assert_eq!(forecast["renewal"], "impossible", "{forecast}");
    assert!(forecast["worksUntil"].is_string(), "{forecast}");
    let text = forecast["text"].as_str().unwrap();
    assert!(
        text.starts_with("valid ") && text.ends_with(", cannot be refreshed"),
        "{text}"
    );
}

#[test]
fn missing_scope_is_an_authorization_problem() {
    let rig = unrefreshable(14_400, &SCOPES[1..]);
    let run = preflight(&rig.home, "1h").exits(4);
    let scopes = run.item("name", "scopes twitch/bot");
    assert_eq!(scopes["outcome"], "FAIL", "{scopes}");
    assert!(
        scopes["detail"].as_str().unwrap().contains("user:read:chat"),
        "{scopes}"
    );
}

#[test]
fn store_that_cannot_be_written_is_no_authorization_problem() {
    let mut rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    rig.home = rig
        .home
        .env("BITBRAT_STORE__URL", "sqlite:/proc/bitbrat/store.db");
    let run = preflight(&rig.home, "1h").exits(3);
    let json = run.json();
    let store = json["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["area"] == "store");
    assert_eq!(store.unwrap()["outcome"], "FAIL", "{json}");
}

#[test]
fn hanging_platform_is_unknown_within_the_time_limit() {
    let rig = Rig::new();
    rig.granted(&DEVICE, BOT);
    RUNTIME.block_on(async { rig.sim.twitch.host().faults().add(Fault::wire(WireFault::Hang)) });
    let started = Instant::now();
    let run = preflight(&rig.home, "1h").exits(3);
    // Three seconds on a machine that is not busy with other tests.
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    for name in ["identity twitch/bot", "api", "permissions", "rate limit"] {
        let item = run.item("name", name);
        assert_eq!(item["outcome"], "UNKNOWN", "{item}");
        assert_eq!(item["next"], "bitbrat doctor twitch", "{item}");
    }
    // What is stored still counts.
    assert_eq!(run.item("name", "expiry twitch/bot")["outcome"], "OK");
    assert_eq!(run.item("name", "directory")["outcome"], "OK");
}

#[test]
fn end_of_the_show_in_the_past_is_a_mistake() {
    let home = Home::new();
    home.run(&["preflight", "--until", "2020-01-01T00:00:00Z"])
        .exits(2)
        .names_account("in the past");
    home.run(&["preflight", "--until", "later"])
        .exits(2)
        .names_account("23:00");
}

#[test]
fn demo_shows_its_revoked_accounts() {
    let run = Home::new().run(&["--demo", "preflight", "-o", "json"]).exits(4);
    assert_eq!(
        run.item("name", "identity twitch/broadcaster:777009")["outcome"],
        "FAIL"
    );
    assert_eq!(run.item("name", "identity kick/bot")["outcome"], "OK");
}

#[test]
fn expiry_warning_is_given_once_across_two_restarts() {
    let mut rig = unrefreshable(7200, &SCOPES);
    rig.home = rig.home.env("BITBRAT_WEB__LISTEN", "127.0.0.1:0");
    for start in 0..3 {
        let (mut daemon, address) = watch(&rig.home);
        until(&address, "/metrics", |status, text| {
            status == 200 && text.contains("bitbrat_account_expiry_timestamp_seconds{account=\"twitch/bot\"}")
        });
        daemon.signal("-TERM");
        assert_eq!(daemon.ends(), 0);
        let said = daemon.said();
        let warnings = said.matches("stops working in less than 1 day").count();
        assert_eq!(warnings, usize::from(start == 0), "start {start}:\n{said}");
    }
    let file = std::fs::read_to_string(rig.home.state().join("account-warnings.json")).unwrap();
    assert!(file.contains("\"lead\":\"1d\""), "{file}");
}
