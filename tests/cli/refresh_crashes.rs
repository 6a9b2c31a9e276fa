//! Refreshes of the whole program that are interrupted at each step, and that many processes attempt at once.

use std::path::Path;
use std::process::Stdio;

use bitbrat::sim::Fault;
use bitbrat::sim::twitch::TokenSpec;
use serde_json::{Value, json};

use super::login::{BOT, RUNTIME, Rig};
use crate::contract::store::worlds::{emulator, execute, postgres_url};
use crate::contract::tokens::worlds::Platform;
use crate::support::process::Process;
use crate::support::{ReservedPort, Run, mode};

/// Every point of `fault_point`, in the order of a refresh: before and after each of its effects.
const POINTS: [&str; 9] = ["F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9"];
const TOKEN: &str = "/oauth2/token";
const REFRESH: [&str; 3] = ["auth", "refresh", "twitch"];

/// Simulated platforms, and a home in which the bot is logged in.
fn logged_in(is_public: bool) -> (Rig, String) {
    let (rig, access, refresh) = authorized(is_public);
    let input = format!("{access}\n{refresh}\n");
    rig.home
        .run_with(&["auth", "login", "twitch", "--with-token"], &input)
        .exits(0);
    (rig, access)
}

/// Simulated platforms, and a home in which the bot's token is in the platform's document.
fn logged_in_at_platform(renews: bool) -> (Rig, Platform) {
    let (mut rig, access, refresh) = authorized(true);
    let platform = RUNTIME.block_on(async {
        let platform = Platform::new().await;
        let document = json!({ "accessToken": access, "refreshToken": refresh, "userId": BOT });
        platform.put("twitch/bot", document).await;
        platform
    });
    rig.home = rig
        .home
        .env("FIRESTORE_EMULATOR_HOST", &emulator())
        .env(
            "BITBRAT_TOKENS__URL",
            &format!("firestore:{}", platform.project()),
        )
        .env("BITBRAT_TOKENS__REFRESH", &renews.to_string());
    // The end of the token is not in the document; now it is known.
    rig.home.run(&["auth", "status", "twitch"]).exits(0);
    (rig, platform)
}

/// Simulated platforms, and a home in which the bot's token is in the platform's row in a PostgreSQL database of its own.
fn logged_in_at_database() -> (Rig, String) {
    let (mut rig, access, refresh) = authorized(true);
    let name = format!("tokens_{}", uuid::Uuid::new_v4().simple());
    let server = postgres_url();
    let url = server.replace("/postgres?", &format!("/{name}?"));
    let row = json!({ "accessToken": access, "refreshToken": refresh, "userId": BOT }).to_string();
    RUNTIME.block_on(async {
        execute(&server, &format!("CREATE DATABASE {name}"), &[]).await;
        let table = "CREATE TABLE twitch_tokens (id varchar(255) PRIMARY KEY, data jsonb NOT NULL, \
                     created_at timestamp DEFAULT now(), updated_at timestamp DEFAULT now())";
        execute(&url, table, &[]).await;
        let insert = "INSERT INTO twitch_tokens (id, data) VALUES ('twitch:bot', $1::text::jsonb)";
        execute(&url, insert, &[&row]).await;
    });
    rig.home = rig
        .home
        .env("BITBRAT_TOKENS__URL", &url)
        .env("BITBRAT_TOKENS__REFRESH", "true");
    // The end of the token is not in the row; now it is known.
    rig.home.run(&["auth", "status", "twitch"]).exits(0);
    (rig, url)
}

/// Simulated platforms, and a token of the bot.
fn authorized(is_public: bool) -> (Rig, String, String) {
    let left_out: &[&str] = match is_public {
        true => &["twitch.client_secret", "twitch.client_id"],
        false => &[],
    };
    let mut rig = Rig::without(left_out);
    let client_id = match is_public {
        true => "public0client".to_owned(),
        false => rig.client_id(),
    };
    if is_public {
        rig.sim.twitch.add_client(&client_id, None);
        rig.home = rig.home.env("TWITCH_CLIENT_ID", &client_id);
    }
    let pair = rig.sim.twitch.issue_token(TokenSpec {
        client_id,
        user_id: Some(BOT.to_owned()),
        scopes: vec!["user:read:chat".to_owned()],
        ..TokenSpec::default()
    });
    (rig, pair.access, pair.refresh.unwrap())
}

/// Refreshes the token in a process that is aborted at `point`.
fn crash(rig: &Rig, point: &str) {
    let status = rig
        .home
        .command(&REFRESH)
        .env("BITBRAT_TEST_FAULT", format!("refresh.{point}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), None, "{point}: the process is aborted");
}

fn status(rig: &Rig) -> Value {
    let run: Run = rig.home.run(&["auth", "status", "twitch", "-o", "json"]);
    run.item("identity", "twitch/bot")
}

/// How many requests to the token endpoint were answered with 400: that is the answer to a token that is spent.
fn refused(rig: &Rig) -> u64 {
    let journal = rig.sim.twitch.host().journal().to_json();
    let counts = journal["counts"].as_array().unwrap();
    let count = counts.iter().find(|count| count["path"] == TOKEN);
    count
        .and_then(|count| count["statuses"]["400"].as_u64())
        .unwrap_or(0)
}

fn survives(point: &str, is_public: bool, (rig, _): (Rig, impl Sized)) {
    crash(&rig, point);
    let journal = rig.home.state().join("tokens.json.twitch-bot.journal");
    assert_eq!(journal.exists(), ["F7", "F8", "F9"].contains(&point), "{point}");
    if journal.exists() {
        assert_eq!(mode(&journal), 0o600);
    }
    let sent = u64::from(!["F1", "F2", "F3", "F4"].contains(&point));
    assert_eq!(rig.requests(TOKEN), sent, "{point}");
    let after = status(&rig);
    // The answer was received and is nowhere: for the platform the same as an answer that never arrived.
    let is_lost = is_public && ["F5", "F6"].contains(&point);
    if is_lost {
        assert_eq!(after["status"], "EXPIRED", "{point}: {after:#}");
        let reason = after["reason"].to_string();
        assert!(reason.contains("refresh_response_lost"), "{point}: {after:#}");
        rig.home
            .run(&REFRESH)
            .exits(4)
            .names_account("refresh_response_lost")
            .names_account("bitbrat auth login twitch");
        assert_eq!(rig.requests(TOKEN), 1, "{point}: it is not sent again");
    } else {
        assert_eq!(after["status"], "VALID", "{point}: {after:#}");
        if sent == 1 {
            assert!(!journal.exists(), "{point}: the pair is stored");
        }
        rig.home.run(&REFRESH).exits(0);
        assert_eq!(status(&rig)["status"], "VALID", "{point}");
    }
    assert_eq!(refused(&rig), 0, "{point}: a token was sent twice");
}

fn survive_all<T>(is_public: bool, rig: fn(bool) -> (Rig, T)) {
    std::thread::scope(|scope| {
        for point in POINTS {
            scope.spawn(move || survives(point, is_public, rig(is_public)));
        }
    });
}

#[test]
fn one_time_token_survives_a_crash_at_every_step() {
    survive_all(true, logged_in);
}

#[test]
fn reusable_token_survives_a_crash_at_every_step() {
    survive_all(false, logged_in);
}

#[test]
fn one_time_token_in_firestore_survives_a_crash_at_every_step() {
    survive_all(true, |_| logged_in_at_platform(true));
}

/// The status of the bot on another machine, which has a state directory of its own.
fn status_on(rig: &Rig, machine: &Path) -> Value {
    let output = rig
        .home
        .command(&["auth", "status", "twitch", "-o", "json"])
        .env("BITBRAT_STATE_DIR", machine)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut items = report["items"].as_array().unwrap().iter();
    items
        .find(|item| item["identity"] == "twitch/bot")
        .unwrap()
        .clone()
}

/// Machine A is killed at `point`, and machine B goes on once A's refresh counts as interrupted.
fn continues_elsewhere(point: &str) {
    let (rig, platform) = logged_in_at_platform(true);
    let machine_b = tempfile::tempdir().unwrap();
    let machine_b = machine_b.path().join("state");
    crash(&rig, point);
    let sent = rig.requests(TOKEN);
    RUNTIME.block_on(platform.pass_deadline("twitch-bot"));
    let refresh = || {
        let mut command = rig.home.command(&REFRESH);
        command.env("BITBRAT_STATE_DIR", &machine_b).output().unwrap()
    };
    let code = refresh().status.code();
    let there = status_on(&rig, &machine_b);
    match point {
        // Nothing was sent, or the pair was stored.
        "F1" | "F2" | "F3" | "F4" | "F9" => {
            assert_eq!(
                (code, &there["status"]),
                (Some(0), &json!("VALID")),
                "{point}: {there:#}"
            );
            assert_eq!(rig.requests(TOKEN), sent + 1, "{point}");
        }
        // The pair is on machine A only, or nowhere.
        _ => {
            assert_eq!(
                (code, &there["status"]),
                (Some(4), &json!("EXPIRED")),
                "{point}: {there:#}"
            );
            assert!(
                there["reason"].to_string().contains("refresh_response_lost"),
                "{point}: {there:#}"
            );
            assert_eq!(rig.requests(TOKEN), 1, "{point}: it is not sent again");
        }
    }
    let here = status(&rig);
    if ["F7", "F8"].contains(&point) {
        // A is back, with the pair in its journal.
        assert_eq!(here["status"], "VALID", "{point}: {here:#}");
        assert_eq!(status_on(&rig, &machine_b)["status"], "VALID", "{point}");
    } else {
        assert_eq!(here["status"], there["status"], "{point}: {here:#}");
    }
    assert_eq!(refused(&rig), 0, "{point}: a token was sent twice");
}

#[test]
fn another_machine_goes_on_after_a_crash_at_every_step() {
    std::thread::scope(|scope| {
        for point in POINTS {
            scope.spawn(move || continues_elsewhere(point));
        }
    });
}

#[test]
fn one_time_token_in_postgres_survives_a_crash_at_every_step() {
    survive_all(true, |_| logged_in_at_database());
}

#[test]
fn token_that_the_platform_manages_is_only_read() {
    let (rig, platform) = logged_in_at_platform(false);
    let before = RUNTIME.block_on(platform.document("twitch/bot"));
    assert_eq!(status(&rig)["status"], "VALID");
    let doctor = rig.home.run(&["doctor", "tokens"]).exits(0);
    assert!(
        doctor.stdout.contains("only read (tokens.refresh = false)"),
        "{}",
        doctor.stdout
    );
    for change in [["auth", "login", "twitch"], ["auth", "logout", "twitch"]] {
        rig.home
            .run(&change)
            .exits(1)
            .names_account("oauth/twitch/bot/token")
            .names_account("tokens.refresh = true");
    }
    let refresh = rig.home.run(&REFRESH);
    assert!(refresh.code != 0);
    refresh.names_account("another program refreshes this token");
    for path in [TOKEN, "/oauth2/device", "/oauth2/revoke"] {
        assert_eq!(rig.requests(path), 0, "{path}");
    }
    assert_eq!(RUNTIME.block_on(platform.document("twitch/bot")), before);
}

#[test]
fn unreachable_token_store_fails_doctor_with_a_next_step() {
    let (rig, _) = logged_in(true);
    let port = ReservedPort::new();
    let home = rig
        .home
        .env("FIRESTORE_EMULATOR_HOST", &format!("127.0.0.1:{}", port.number))
        .env("BITBRAT_TOKENS__URL", "firestore:nowhere");
    let doctor = home.run(&["doctor", "tokens"]);
    assert!(
        doctor.code != 0 && doctor.stdout.contains("firestore:nowhere"),
        "{}",
        doctor.stdout
    );
}

#[test]
fn revocation_after_a_repaired_outage_is_called_one() {
    let (rig, _) = logged_in(true);
    rig.fault(Fault::status(500).on(TOKEN));
    rig.home.run(&REFRESH).exits(8);
    rig.calm();
    assert_eq!(status(&rig)["status"], "VALID");
    assert!(rig.stored("twitch/bot")["intent"].is_null());
    rig.sim.twitch.disconnect(BOT);
    let after = status(&rig);
    assert_eq!(after["status"], "REVOKED", "{after:#}");
}

#[test]
fn fifty_processes_refresh_a_one_time_token_once() {
    let (rig, access) = logged_in(true);
    assert!(rig.sim.twitch.expire_token(&access));
    let start = |_| Process::start(&rig.home, &["auth", "status", "twitch", "-o", "json"]);
    let processes: Vec<_> = (0..50).map(start).collect();
    for mut process in processes {
        let code = process.ends();
        let said = process.said();
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("\"VALID\""), "{said}");
    }
    assert_eq!(rig.requests(TOKEN), 1);
    assert_eq!(refused(&rig), 0);
    assert_ne!(rig.stored("twitch/bot")["token"]["accessToken"], access.as_str());
}
