//! `watch --record` and `sim --replay`: what was recorded of a fault brings a second daemon to the same states.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::process::{Process, Sim, ask, page, until};
use crate::support::{Home, ReservedPort, mode};

const TWITCH: [&str; 3] = ["twitch:777001", "twitch:777002", "twitch:777004"];
/// Streams are polled every second, so that the polls of two runs are alike; everything else at the start only.
const SCHEDULE: &str = "[schedule]\nstream = \"* * * * * *\"\nconnection = \"0 0 0 1 1 *\"\nviewers = \"0 0 0 1 1 *\"\n\
    auth = \"0 0 0 1 1 *\"\npermissions = \"0 0 0 1 1 *\"\njitter = \"0s\"\n[store]\nheartbeat = \"1s\"\n";
/// What a viewer writes.
const CHAT: &str = "zz9 what a viewer wrote";

fn home(sim: &Sim, sources: &[&str], listen: &str) -> Home {
    let toml = crate::support::process::toml(sources).replace("127.0.0.1:0", listen);
    sim.home(sources)
        .file("bitbrat.toml", &format!("{SCHEDULE}{toml}"))
}

fn start(home: &Home, more: &[&str]) -> (Process, String) {
    let words = [&["watch", "--color", "never"][..], more].concat();
    let mut daemon = Process::start(home, &words);
    let address = daemon.address();
    (daemon, address)
}

fn replay(home: &Home, more: &[&str]) -> Sim {
    let file = home.work().join("fault.jsonl").display().to_string();
    Sim::start_with(&[&["--replay", &file][..], more].concat())
}

/// Status, stream, authorization and last error of each source.
type States = BTreeMap<String, [String; 4]>;

fn states(body: &str) -> States {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = value["items"].as_array().into_iter().flatten();
    let state = |item: &Value| {
        ["status", "streamStatus", "authStatus"]
            .map(|field| text(&item[field]))
            .into_iter()
            .chain([text(&item["lastError"]["code"])])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    };
    items.map(|item| (text(&item["key"]), state(item))).collect()
}

/// Whether a source has this text at a place of its state.
fn has(states: &States, key: &str, place: usize, text: &str) -> bool {
    states.get(key).is_some_and(|state| state[place] == text)
}

/// Waits until all sources are in a state, and returns the states.
#[track_caller]
fn wait_for(address: &str, is_reached: impl Fn(&States) -> bool) -> States {
    let body = until(address, "/api/v1/sources", |status, body| {
        status == 200 && is_reached(&states(body))
    });
    states(&body)
}

/// What each facet of each source became, newest first.
fn transitions(home: &Home, sources: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in sources {
        let history = home
            .run(&["history", key, "--limit", "1000", "-o", "json"])
            .json();
        let entries = history["items"].as_array().cloned().unwrap_or_default();
        for entry in entries {
            let facet = format!("{key} {}", entry["facet"]);
            let change = entry["to"].as_str().unwrap_or_default();
            found.entry(facet).or_default().push(change.to_owned());
        }
    }
    found
}

/// Checks that two runs tell the same story. What a run knows before its first write is one entry of the history, however many
/// answers that took, so one of two runs may have more entries at the beginning.
#[track_caller]
fn changed_alike(one: &BTreeMap<String, Vec<String>>, other: &BTreeMap<String, Vec<String>>) {
    assert!(one.keys().eq(other.keys()), "{one:?}\n{other:?}");
    for (facet, changes) in one {
        let both = changes.iter().zip(&other[facet]);
        assert!(
            both.clone().count() > 0 && both.clone().all(|(one, other)| one == other),
            "{facet}: {one:?}\n{other:?}"
        );
    }
}

/// The address of the simulated Kick.
fn kick(sim: &Sim) -> String {
    let mut lines = sim.env.lines();
    let address = lines.find_map(|line| line.strip_prefix("BITBRAT_KICK__API_URL=http://"));
    address.unwrap().to_owned()
}

/// Sends a request to a control of the simulated Kick.
#[track_caller]
fn kick_order(sim: &Sim, path: &str, fields: &Value) {
    let headers = "Content-Type: application/json\r\n";
    let (status, body) = ask(&kick(sim), "POST", path, headers, &fields.to_string()).unwrap();
    assert!((200..300).contains(&status), "{path}: {status} {body}");
}

/// The steps of the story in which Twitch fails and the bot is revoked; `cause` makes each happen in the simulator.
fn follow_fault(address: &str, cause: impl Fn(&str)) -> States {
    until(address, "/readyz", |status, _| status == 200);
    // What is first known of a stream is no change, so each must be known before the story begins.
    wait_for(address, |states| {
        states.len() == TWITCH.len() && states.values().all(|state| state[1] != "UNKNOWN")
    });
    cause("stream");
    wait_for(address, |states| has(states, "twitch:777002", 1, "ONLINE"));
    cause("failure");
    // A replay does not wait for who watches it: the revocation may follow before the failure was looked at.
    wait_for(address, |states| {
        has(states, "twitch:777001", 3, "http.500") || has(states, "twitch:777001", 2, "REVOKED")
    });
    cause("revocation");
    wait_for(address, |states| {
        states.values().all(|state| state[2] == "REVOKED")
    })
}

#[test]
fn recorded_fault_replays_to_the_same_states() {
    let sim = Sim::start_with(&["--still"]);
    let recorded = home(&sim, &TWITCH, "127.0.0.1:0");
    let (mut daemon, address) = start(&recorded, &["--record", "fault.jsonl"]);
    let first = follow_fault(&address, |step| match step {
        "stream" => {
            let stream = json!({"id": "777002", "stream_id": "5550002", "lag_ms": 0});
            sim.order("/__sim/twitch/stream_up", &stream);
            sim.order(
                "/__sim/twitch/chat",
                &json!({"id": "777001", "text": CHAT, "user_id": "777900"}),
            );
        }
        "failure" => {
            let fault = json!({"path": "/helix/streams", "status": 500, "times": 9});
            sim.order("/__sim/faults", &fault);
        }
        _ => sim.order("/__sim/twitch/disconnect", &json!({"user_id": "777100"})),
    });
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());

    let file = recorded.work().join("fault.jsonl");
    assert_eq!(mode(&file), 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let secrets = sim.env.lines().filter_map(|line| line.split_once('='));
    for (name, secret) in secrets.filter(|(name, _)| name.contains("TOKEN") || name.contains("SECRET")) {
        assert!(!text.contains(secret), "{name} is in the recording");
    }
    assert!(!text.contains(CHAT), "chat is in the recording");
    assert!(
        text.contains("quietharbor"),
        "the channel's name is not in the recording"
    );
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["end"], "stopped");

    let replayed = replay(&recorded, &[]);
    let keys: BTreeSet<&str> = replayed.sources.iter().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(TWITCH));
    let other = home(&replayed, &TWITCH, "127.0.0.1:0");
    let (mut daemon, address) = start(&other, &[]);
    let second = follow_fault(&address, |_| {});
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
    assert_eq!(first, second);
    changed_alike(&transitions(&recorded, &TWITCH), &transitions(&other, &TWITCH));
}

#[test]
fn pushes_of_all_platforms_replay_to_the_same_states() {
    let sim = Sim::start_with(&["--still"]);
    let sources: Vec<&str> = sim.sources.iter().map(String::as_str).collect();
    let port = ReservedPort::new();
    let listen = format!("127.0.0.1:{}", port.number);
    let pushed = |home: Home| {
        home.env("BITBRAT_DISCORD__GATEWAY", "true")
            .env("BITBRAT_KICK__WEBHOOK", "true")
    };
    let recorded = pushed(home(&sim, &sources, &listen));
    let hook = format!("http://{listen}/webhooks/kick");
    // The demo world delivers no webhooks.
    kick_order(&sim, "/__sim/kick/knobs", &json!({"webhooks": {"drop": false}}));
    kick_order(&sim, "/__sim/kick/webhook", &json!({"url": hook}));
    let (mut daemon, address) = start(&recorded, &["--record", "fault.jsonl"]);
    until(&address, "/readyz", |status, _| status == 200);
    until(&kick(&sim), "/__sim/kick/subscriptions", |_, body| {
        body.contains("888002")
    });
    sim.order(
        "/__sim/trigger",
        &json!({"event": "MESSAGE_CREATE", "source": "discord:888001", "fields": {"content": CHAT}}),
    );
    sim.order(
        "/__sim/trigger",
        &json!({"event": "stream.online", "source": "kick:888002", "fields": {"lag_ms": "600000"}}),
    );
    let is_pushed = |address: &str| {
        let counted = |key: &str| {
            let (_, body) = page(address, &format!("/api/v1/sources/{key}")).unwrap_or_default();
            let value: Value = serde_json::from_str(&body).unwrap_or_default();
            value["items"][0]["metrics"]["messagesIn"].as_u64() == Some(1)
        };
        wait_for(address, |states| {
            let is_checked =
                states.len() == sources.len() && states.values().all(|state| state[2] == "VALID");
            is_checked && has(states, "kick:888002", 1, "ONLINE") && counted("discord:888001")
        })
    };
    let first = is_pushed(&address);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
    let text = std::fs::read_to_string(recorded.work().join("fault.jsonl")).unwrap();
    assert!(!text.contains(CHAT), "chat is in the recording");
    for entry in ["\"webhook\":", "MESSAGE_CREATE", "session_welcome"] {
        assert!(text.contains(entry), "{entry} is not in the recording");
    }

    let replayed = replay(&recorded, &["--webhooks", &hook]);
    let other = pushed(home(&replayed, &sources, &listen))
        .env("KICK_CLIENT_ID", "another-application")
        .env("KICK_CLIENT_SECRET", "another-secret")
        .env("TWITCH_CLIENT_ID", "another-application")
        .env("TWITCH_CLIENT_SECRET", "another-secret");
    let (mut daemon, address) = start(&other, &[]);
    let second = is_pushed(&address);
    // Which probes precede the first push differs between two runs, and what was not recorded is an error.
    let lasting = |states: &States| {
        states
            .iter()
            .map(|(key, state)| (key.clone(), state[..3].to_vec()))
            .collect::<Vec<_>>()
    };
    assert_eq!(lasting(&first), lasting(&second));
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
}

#[test]
fn recording_replaces_a_file_only_on_request() {
    let home = Home::new()
        .file("fault.jsonl", "precious")
        .file("bitbrat.toml", "[web]\nlisten = \"off\"\n");
    let refused = home.run(&["watch", "--record", "fault.jsonl"]).exits(2);
    refused
        .names_account("cannot record in fault.jsonl")
        .names_account("--overwrite");
    let text = || std::fs::read_to_string(home.work().join("fault.jsonl")).unwrap();
    assert_eq!(text(), "precious");
    // A file to which nothing was written is removed.
    home.run(&["watch", "--record", "new.jsonl"]).exits(6);
    assert!(!home.work().join("new.jsonl").exists());
    home.run(&[
        "--demo",
        "watch",
        "--once",
        "--record",
        "fault.jsonl",
        "--overwrite",
    ])
    .never_panics();
    assert!(text().contains("\"bitbrat-traffic\""), "{}", text());
    for (words, reason) in [
        (&["--record", "."][..], "cannot record in ."),
        (
            &["--record", "none/fault.jsonl"],
            "cannot record in none/fault.jsonl",
        ),
        (&["--record", "a.jsonl", "--role", "web"], "ingest"),
        (&["--record", "a.jsonl", "--plan"], "--plan"),
        (&["--overwrite"], "--record"),
    ] {
        let words = [&["watch"][..], words].concat();
        home.run(&words).exits(2).names_account(reason);
    }
}

#[test]
fn file_that_is_no_recording_is_not_replayed() {
    let header = json!({"format": "bitbrat-traffic", "version": 1, "program": "1.0.0",
        "startedAt": "2026-06-01T11:00:00.000Z", "platforms": []})
    .to_string();
    let other = header.replace("\"version\":1", "\"version\":9");
    let home = Home::new()
        .file("empty.jsonl", "")
        .file("text.jsonl", "hello\n")
        .file("other.jsonl", &other)
        .file("cut.jsonl", &format!("{header}\n{{\"at\":1,\"end\":\"sto"));
    for (file, reason) in [
        ("none.jsonl", "cannot replay none.jsonl"),
        (".", "directory"),
        ("empty.jsonl", "the file is empty"),
        ("text.jsonl", "line 1"),
        ("other.jsonl", "version 9"),
        ("cut.jsonl", "line 2 ends early"),
    ] {
        home.run(&["sim", "--port", "0", "--replay", file])
            .exits(2)
            .names_account(reason);
    }
    home.run(&["sim", "--speed", "2"])
        .exits(2)
        .names_account("--replay");
}

#[test]
fn request_without_a_recorded_answer_is_reported() {
    let header = json!({"format": "bitbrat-traffic", "version": 1, "program": "1.0.0",
        "startedAt": "2026-06-01T11:00:00.000Z", "platforms": [
            {"platform": "twitch", "sources": ["twitch:1"], "accounts": ["twitch/bot"], "application": true}]});
    let home = Home::new().file("fault.jsonl", &header.to_string());
    let words = ["sim", "--replay", "fault.jsonl", "--port", "0", "--env"];
    let mut replay = Process::start(&home, &words);
    let line = replay.says("BITBRAT_TWITCH__HELIX_URL=http://");
    let address = line.split('/').nth(2).unwrap().to_owned();
    let (status, body) = ask(&address, "GET", "/helix/games?name=b&id=1", "", "").unwrap();
    assert_eq!(status, 404);
    let message = "no answer was recorded for GET /helix/games?id=1&name=b";
    assert!(body.contains(message), "{body}");
    replay.says(message);
    // Any application gets a token.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let grant = "client_id=any&client_secret=any&grant_type=client_credentials";
    let (status, body) = ask(&address, "POST", "/oauth2/token", form, grant).unwrap();
    assert!(status == 200 && body.contains("access_token"), "{status} {body}");
}
