//! `bitbrat watch` as a person runs it: a process of its own with a simulator of its own.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Home;
use crate::support::process::{Process, Sim, metric, page, toml, until, watch, world};

fn items(body: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(body).unwrap();
    value["items"].as_array().unwrap().clone()
}

#[test]
fn daemon_runs_until_sigterm_and_stores_disconnected() {
    let (_sim, home) = world();
    let (mut daemon, address) = watch(&home);
    until(&address, "/readyz", |status, _| status == 200);
    let known = |body: &str| {
        let items = items(body);
        let of = |key: &str, field: &str| {
            items
                .iter()
                .find(|item| item["key"] == key)
                .map(|item| item[field].clone())
        };
        of("twitch:777001", "streamStatus") == Some("ONLINE".into())
            && of("twitch:777001", "status") == Some("CONNECTED".into())
            && of("kick:888001", "status") == Some("CONNECTED".into())
            && of("discord:888001", "status") == Some("CONNECTED".into())
            && of("twitch:777010", "status") == Some("ERROR".into())
    };
    until(&address, "/api/v1/sources", |status, body| {
        status == 200 && known(body)
    });
    let one = page(&address, "/api/v1/sources/twitch:777001").unwrap();
    assert!(one.0 == 200 && one.1.contains("\"history\""), "{one:?}");

    let second = home.run(&["watch", "--set", "web.listen=off"]).exits(1);
    second
        .names_account("another `bitbrat watch`")
        .names_account("BITBRAT_STATE_DIR");

    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
    let status = home.run(&["sources", "status", "-o", "json"]);
    assert_eq!(status.item("key", "twitch:777001")["status"], "DISCONNECTED");
    assert_eq!(status.item("key", "twitch:777001")["streamStatus"], "ONLINE");
    assert_eq!(status.item("key", "twitch:777010")["status"], "ERROR");
}

#[test]
fn watch_once_probes_stores_and_exits() {
    let (_sim, home) = world();
    // Two of its sources do not exist.
    home.run(&["watch", "--once"]).exits(3).never_panics();
    let status = home.run(&["sources", "status", "-o", "json"]);
    assert_eq!(status.item("key", "twitch:777001")["status"], "CONNECTED");
    assert_eq!(status.item("key", "twitch:777001")["viewerCount"], 12_847);
    assert_eq!(status.item("key", "twitch:777002")["streamStatus"], "OFFLINE");
}

#[test]
fn a_changed_configuration_is_taken_over_and_a_bad_one_refused() {
    let (_sim, home) = world();
    let home = home.file("bitbrat.toml", &toml(&["twitch:777001"]));
    let (mut daemon, address) = watch(&home);
    until(&address, "/metrics", |_, body| {
        body.contains("bitbrat_sources_monitored 1\n")
    });
    let home = home.file("bitbrat.toml", "[schedule]\nstream = \"often\"\n");
    daemon.signal("-HUP");
    daemon.says("is refused and the old one stays");
    let home = home.file("bitbrat.toml", &toml(&["twitch:777001", "twitch:777002"]));
    daemon.signal("-HUP");
    daemon.says("The configuration was read again");
    until(&address, "/metrics", |_, body| {
        body.contains("bitbrat_sources_monitored 2\n")
    });
    until(&address, "/api/v1/sources", |_, body| items(body).len() == 2);
    daemon.signal("-INT");
    assert_eq!(daemon.ends(), 130);
    drop(home);
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    Home::new()
        .run(&["watch", "--set", "web.listen=127.0.0.1:0"])
        .exits(6)
        .names_account("no source is configured")
        .never_panics();
    let home = Home::new().env("BITBRAT_SOURCES", "twitch:1");
    home.run(&["watch", "--role", "persist", "--set", "web.listen=off"])
        .exits(2)
        .names_account("belong to one process");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("web.listen={}", taken.local_addr().unwrap());
    home.run(&["watch", "--set", &listen])
        .exits(1)
        .names_account("cannot listen at");
    home.run(&["watch", "--set", "web.listen=0.0.0.0:0"])
        .exits(6)
        .names_account("BITBRAT_WEB_TOKEN");
}

/// Probes once a second and as soon as a second begins.
const EAGER: &str = "[schedule]\nstream = \"* * * * * *\"\nconnection = \"* * * * * *\"\njitter = \"0s\"\n";

fn eager(sources: &[&str]) -> String {
    format!("{EAGER}{}", toml(sources))
}

fn field(body: &str, key: &str, field: &str) -> Value {
    let items = items(body);
    let item = items.iter().find(|item| item["key"] == key);
    item.map_or(Value::Null, |item| item[field].clone())
}

#[test]
fn two_daemons_with_states_of_their_own_converge_on_one_store() {
    let sim = Sim::start();
    let sources = ["twitch:777001", "twitch:777002"];
    // The one that stays reports it with its next heartbeat, which is half a minute away by default.
    let settings = format!("[store]\nheartbeat = \"1s\"\n{}", eager(&sources));
    let home = sim.home(&sources).file("bitbrat.toml", &settings);
    let store = format!("sqlite:{}", home.work().join("shared.db").display());
    let home = home.env("BITBRAT_STORE__URL", &store);
    let start = |state: &str| {
        let mut command = home.command(&["watch", "--color", "never"]);
        command.env("BITBRAT_STATE_DIR", home.work().join(state));
        let mut daemon = Process::spawn(&mut command);
        let address = daemon.address();
        (daemon, address)
    };
    let ((mut first, one), (mut second, two)) = (start("one"), start("two"));
    for address in [&one, &two] {
        until(address, "/api/v1/sources", |_, body| {
            field(body, "twitch:777001", "streamStatus") == "ONLINE"
                && field(body, "twitch:777002", "streamStatus") == "OFFLINE"
        });
    }
    sim.order(
        "/__sim/twitch/stream_up",
        &json!({"id": "777002", "stream_id": "5550001", "lag_ms": 0}),
    );
    until(&one, "/api/v1/sources", |_, body| {
        field(body, "twitch:777002", "streamStatus") == "ONLINE"
    });
    // Both have probed since, so both have published their evidence.
    for address in [&one, &two] {
        let probe_counts = metric(
            address,
            "bitbrat_probes_total{platform=\"twitch\",poller=\"quick\"}",
        );
        until(address, "/metrics", |_, _| {
            metric(
                address,
                "bitbrat_probes_total{platform=\"twitch\",poller=\"quick\"}",
            ) > probe_counts + 1.0
        });
    }
    // One of them ends and reports it; the other one continues, and its observations apply.
    first.signal("-TERM");
    assert_eq!(first.ends(), 0, "{}", first.said());
    until(&two, "/api/v1/sources", |_, body| {
        field(body, "twitch:777001", "status") == "CONNECTED"
            && field(body, "twitch:777002", "status") == "CONNECTED"
    });
    let transitions = home
        .run(&["sources", "history", "twitch:777002", "-o", "json"])
        .json();
    let entries = transitions["items"].as_array().unwrap();
    let announced = entries
        .iter()
        .filter(|entry| entry["facet"] == "stream" && entry["to"] == "ONLINE");
    assert_eq!(announced.count(), 1, "{transitions:#}");
    second.signal("-TERM");
    assert_eq!(second.ends(), 0, "{}", second.said());
    let status = home.run(&["sources", "status", "-o", "json"]);
    assert_eq!(status.item("key", "twitch:777002")["streamStatus"], "ONLINE");
    assert_eq!(status.item("key", "twitch:777002")["status"], "DISCONNECTED");
}

/// A store that accepts connections and never answers.
fn mute_store() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn second_signal_or_grace_period_forces_exit() {
    let sim = Sim::start();
    for (grace, signals, reason) in [("300s", 2, "second signal"), ("1s", 1, "grace period")] {
        let (_store, address) = mute_store();
        let home = sim
            .home(&["twitch:777001"])
            .env("FIRESTORE_EMULATOR_HOST", &address)
            .env("BITBRAT_STORE__URL", "firestore:nowhere")
            .env("BITBRAT_WATCH__GRACE", grace);
        let (mut daemon, _) = watch(&home);
        // From now on there is something to store, and that is not possible.
        daemon.says("stream unknown → ONLINE");
        daemon.signal("-TERM");
        daemon.says("Stopping");
        if signals == 2 {
            daemon.signal("-TERM");
        }
        // Five minutes would be too long for the test.
        assert_eq!(daemon.ends(), 1, "{}", daemon.said());
        assert!(daemon.said().contains(reason), "{}", daemon.said());
    }
}

#[test]
fn failed_task_stops_the_daemon_and_is_named() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001", "twitch:777002"]);
    let home = home.file("bitbrat.toml", &eager(&["twitch:777001", "twitch:777002"]));
    let (mut daemon, address) = watch(&home);
    until(&address, "/api/v1/sources", |_, body| {
        field(body, "twitch:777002", "streamStatus") == "OFFLINE"
    });
    let file = rusqlite::Connection::open(home.state().join("bitbrat.db")).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    file.execute_batch("DROP TABLE history").unwrap();
    sim.order("/__sim/twitch/stream_up", &json!({"id": "777002", "lag_ms": 0}));
    assert_eq!(daemon.ends(), 1);
    let said = daemon.said();
    assert!(
        said.contains("task `writer` failed") && !said.contains("panicked"),
        "{said}"
    );
    // The other tasks end without being aborted.
    assert!(!said.contains("Cutting off"), "{said}");
}

#[test]
fn slow_http_client_does_not_delay_shutdown() {
    use std::io::Write as _;
    let sim = Sim::start();
    // Held to the end: it contains the tokens.
    let home = sim.home(&["twitch:777001"]);
    let (mut daemon, address) = watch(&home);
    until(&address, "/readyz", |status, _| status == 200);
    let mut slow = std::net::TcpStream::connect(&address).unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.").unwrap();
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
}

#[test]
fn nothing_is_logged_as_long_as_nothing_changes() {
    let sim = Sim::start();
    let sources = ["twitch:777001", "twitch:777002", "kick:888001"];
    let home = sim.home(&sources).file("bitbrat.toml", &eager(&sources));
    let (mut daemon, address) = watch(&home);
    let probe_counts = "bitbrat_probes_total{platform=\"twitch\",poller=\"quick\"}";
    daemon.says_all(&["Checked 3 of 3 sources", "Listening to Twitch"]);
    let more = |count: f64| {
        let target = metric(&address, probe_counts) + count;
        until(&address, "/metrics", |_, _| {
            metric(&address, probe_counts) >= target
        });
    };
    more(2.0);
    let before = daemon.said();
    more(5.0);
    let after = daemon.said();
    // On a busy machine a probe may take longer than the second between two of them, which is worth a line.
    let updates = after[before.len()..].lines();
    let updates: Vec<_> = updates
        .filter(|line| !line.is_empty() && !line.contains("takes longer than its interval"))
        .collect();
    assert_eq!(updates, Vec::<&str>::new(), "a quiet day");
    sim.order("/__sim/twitch/stream_up", &json!({"id": "777002", "lag_ms": 0}));
    daemon.says("`twitch:777002`: stream OFFLINE → ONLINE");
    let figures = page(&address, "/metrics").unwrap().1;
    assert!(figures.contains("bitbrat_store_writes_total "), "{figures}");
    // In a file, what confirms many sources is one row.
    assert!(
        !figures.contains("bitbrat_store_expected_writes_per_second "),
        "{figures}"
    );
    daemon.signal("-TERM");
    daemon.says("Stopped");
    assert_eq!(daemon.ends(), 0);
}

#[test]
fn others_may_wait_for_what_the_daemon_finds_out() {
    let sim = Sim::start();
    let home = sim
        .home(&["twitch:777002"])
        .file("bitbrat.toml", &eager(&["twitch:777002"]));
    let (_daemon, address) = watch(&home);
    until(&address, "/api/v1/sources", |_, body| {
        field(body, "twitch:777002", "streamStatus") == "OFFLINE"
    });
    let words = ["sources", "wait", "twitch:777002", "--for", "live", "--timeout"];
    home.run(&[words.as_slice(), &["1s"]].concat()).exits(124);
    let mut waiting = Process::start(&home, &[words.as_slice(), &["60s"]].concat());
    sim.order("/__sim/twitch/stream_up", &json!({"id": "777002", "lag_ms": 0}));
    assert_eq!(waiting.ends(), 0, "{}", waiting.said());
    let live = items(&page(&address, "/api/v1/sources").unwrap().1);
    assert_eq!(
        (live[0]["streamStatus"].as_str(), live[0]["configured"].as_bool()),
        (Some("ONLINE"), Some(true))
    );
    let mut watching = Process::start(&home, &["sources", "status", "--watch=1s"]);
    watching.says("ONLINE");
    watching.signal("-INT");
    assert_eq!(watching.ends(), 130, "{}", watching.said());
}

#[test]
fn single_round_over_refused_sources_does_not_exit_0() {
    let sim = Sim::start();
    sim.home(&["twitch:777010"]).run(&["watch", "--once"]).exits(3);
    sim.home(&["twitch:777001"]).run(&["watch", "--once"]).exits(0);
}

#[test]
fn pages_can_be_served_by_a_process_that_does_nothing_else() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001"]);
    home.run(&["watch", "--once"]).exits(0);
    let mut pages = Process::start(&home, &["watch", "--role", "web", "--color", "never"]);
    let address = pages.address();
    until(&address, "/readyz", |status, _| status == 200);
    let body = until(&address, "/api/v1/sources/twitch:777001", |status, _| {
        status == 200
    });
    assert!(body.contains("ONLINE"));
    let (_, eventsub) = page(&address, "/_debug/twitch/eventsub").unwrap();
    assert!(eventsub.contains("\"enabled\":false"), "{eventsub}");
    pages.signal("-TERM");
    assert_eq!(pages.ends(), 0);
}

#[test]
fn a_daemon_that_is_still_starting_can_be_stopped() {
    // Names have to be looked up first, and there is no response.
    let (mute, address) = mute_store();
    let home = Home::new()
        .env("TWITCH_CHANNELS", "ratcaster")
        .env("TWITCH_CLIENT_ID", "client")
        .env("BITBRAT_TWITCH__BOT_ACCESS_TOKEN", "token")
        .env("BITBRAT_TWITCH__HELIX_URL", &format!("http://{address}/helix"))
        .env("BITBRAT_TWITCH__AUTH_URL", &format!("http://{address}/oauth2"));
    let mut daemon = Process::start(&home, &["watch", "--set", "web.listen=off"]);
    let _asked = mute.accept().unwrap();
    daemon.signal("-INT");
    // If it had waited for the response, it would have ended with a failure.
    assert_eq!(daemon.ends(), 130, "{}", daemon.said());
}

#[test]
fn the_demo_shows_a_world_that_moves() {
    let home = Home::new();
    let words = [
        "--demo",
        "watch",
        "--color",
        "never",
        "--set",
        "web.listen=127.0.0.1:0",
    ];
    let mut daemon = Process::start(&home, &words);
    daemon.says("Watching");
    // By push: polls alone need more than a minute to detect the end of a stream.
    for change in [
        "`twitch:777006`: stream OFFLINE → ONLINE",
        "`twitch:777005`: stream ONLINE → OFFLINE",
    ] {
        let line = daemon.says(change);
        assert!(line.contains("stream.push"), "{line}");
    }
    daemon.signal("-INT");
    assert_eq!(daemon.ends(), 130);
}

#[test]
fn the_first_watch_after_a_probe_publishes_nothing_known() {
    let (_sim, home) = world();
    let home = home.file("bitbrat.toml", &eager(&["twitch:777001", "twitch:777002"]));
    home.run(&["probe"]).exits(0);
    let (mut daemon, address) = watch(&home);
    until(&address, "/metrics", |_, _| {
        metric(
            &address,
            "bitbrat_probes_total{platform=\"twitch\",poller=\"quick\"}",
        ) >= 6.0
    });
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
    let events = home.run(&["events", "tail", "--since", "1h", "--for", "10s", "-o", "ndjson"]);
    let transitions: Vec<Value> = events
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // What the probe itself published was new.
    let kinds: Vec<&str> = transitions
        .iter()
        .filter(|event| event["event"]["payload"]["initial"] != true)
        .filter_map(|event| event["event"]["type"].as_str())
        .collect();
    assert!(!kinds.is_empty(), "the stop is published");
    assert!(
        kinds.iter().all(|kind| *kind == "system.source.status"),
        "{kinds:?}"
    );
    let online = home
        .run(&["sources", "history", "twitch:777001", "-o", "json"])
        .json();
    let starts = online.to_string().matches("\"to\":\"ONLINE\"").count();
    assert_eq!(starts, 1, "{online:#}");
}

#[test]
fn a_revoked_bot_is_one_error_and_makes_unready() {
    let (sim, home) = world();
    let sources: Vec<String> = (777_001..=777_006).map(|id| format!("twitch:{id}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let auth = "[schedule]\nauth = \"* * * * * *\"\njitter = \"0s\"\n";
    let home = home.file("bitbrat.toml", &format!("{auth}{}", toml(&sources)));
    let (mut daemon, address) = watch(&home);
    until(&address, "/metrics", |_, body| {
        body.contains("bitbrat_token_state{account=\"twitch/bot\",state=\"valid\"} 1")
    });
    sim.order("/__sim/twitch/disconnect", &json!({"user_id": "777100"}));
    let unready = until(&address, "/readyz", |status, body| {
        status == 503 && body.contains("account twitch/bot is REVOKED")
    });
    assert!(unready.contains("bitbrat auth login twitch"), "{unready}");
    until(&address, "/metrics", |_, body| {
        body.contains("bitbrat_token_state{account=\"twitch/bot\",state=\"revoked\"} 1")
    });
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
    let log = daemon.said();
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Z ERROR ") && line.contains("twitch/bot"))
        .collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(
        errors[0].contains("6 sources") && errors[0].contains("bitbrat auth login twitch"),
        "{}",
        errors[0]
    );
}
