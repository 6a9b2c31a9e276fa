//! The daemon under faults, as a process, against the simulator over real sockets: nothing wrong is stored, nothing is lost,
//! everything is published once.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::Home;
use crate::support::process::{Process, Sim, Wire, metric, page, toml, until, watch};

const SCHEDULE: &str = "[schedule]\nstream = \"* * * * * *\"\nconnection = \"* * * * * *\"\njitter = \"0s\"\n[store]\nheartbeat = \"1s\"\n";
const LOOKS: &str = "bitbrat_probes_total{platform=\"twitch\",poller=\"quick\"}";

fn home(sim: &Sim, sources: &[&str]) -> Home {
    sim.home(sources)
        .file("bitbrat.toml", &format!("{SCHEDULE}{}", toml(sources)))
}

/// The API's response for each source: status and stream.
fn states(body: &str) -> Vec<(String, String, String)> {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let items = value["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| {
            (
                text(item, "key"),
                text(item, "status"),
                text(item, "streamStatus"),
            )
        })
        .collect()
}

fn state(body: &str, key: &str) -> (String, String) {
    let found = states(body).into_iter().find(|(found, ..)| found == key);
    found.map_or_else(Default::default, |(_, status, stream)| (status, stream))
}

fn is(status: &str, stream: &str) -> (String, String) {
    (status.to_owned(), stream.to_owned())
}

/// The streams of a source that were announced, oldest first.
fn announced(home: &Home, key: &str) -> Vec<String> {
    let transitions = home
        .run(&["sources", "history", key, "--limit", "10000", "-o", "json"])
        .json();
    let mut streams: Vec<String> = transitions["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["facet"] == "stream" && entry["to"] == "ONLINE")
        .map(|entry| entry["streamId"].as_str().unwrap_or_default().to_owned())
        .collect();
    streams.sort();
    streams
}

fn go_live(sim: &Sim, id: &str, stream: u32) {
    sim.order(
        "/__sim/twitch/stream_up",
        &json!({"id": id, "stream_id": stream.to_string(), "lag_ms": 0}),
    );
}

#[test]
fn ninety_second_platform_outage_ends_no_stream() {
    let sim = Sim::start();
    let sources = ["twitch:777001", "twitch:777002", "twitch:777004"];
    let home = home(&sim, &sources);
    let (mut daemon, address) = watch(&home);
    let all = |status: &str, streams: [&str; 3]| {
        let expected: Vec<_> = sources
            .iter()
            .zip(streams)
            .map(|(key, stream)| ((*key).to_owned(), status.to_owned(), stream.to_owned()))
            .collect();
        until(&address, "/api/v1/sources", |_, body| states(body) == expected);
    };
    all("CONNECTED", ["ONLINE", "OFFLINE", "ONLINE"]);
    // The connection with the request is not affected by the outage.
    let mut wire = Wire::to(&sim.twitch);
    assert_eq!(wire.post("/__sim/server", &json!({"down_for_ms": 90_000})), 204);
    all("DISCONNECTED", ["ONLINE", "OFFLINE", "ONLINE"]);
    let probe_counts = metric(&address, LOOKS);
    until(&address, "/metrics", |_, _| {
        metric(&address, LOOKS) >= probe_counts + 3.0
    });
    all("DISCONNECTED", ["ONLINE", "OFFLINE", "ONLINE"]);
    // Meanwhile one stream starts, and another one ends and starts anew.
    for (order, fields) in [
        (
            "stream_up",
            json!({"id": "777002", "stream_id": "5550002", "lag_ms": 0}),
        ),
        ("stream_down", json!({"id": "777004", "lag_ms": 0})),
        (
            "stream_up",
            json!({"id": "777004", "stream_id": "5550004", "lag_ms": 0}),
        ),
    ] {
        wire.post(&format!("/__sim/twitch/{order}"), &fields);
    }
    assert_eq!(wire.post("/__sim/clock", &json!({"advance_ms": 90_000})), 200);
    all("CONNECTED", ["ONLINE", "ONLINE", "ONLINE"]);
    until(&address, "/api/v1/sources/twitch:777004", |_, body| {
        body.contains("5550004")
    });
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
    assert_eq!(announced(&home, "twitch:777001").len(), 1);
    assert_eq!(announced(&home, "twitch:777002"), ["5550002"]);
    let again = announced(&home, "twitch:777004");
    assert_eq!(again.len(), 2, "{again:?}");
    assert!(again.contains(&"5550004".to_owned()), "{again:?}");
}

/// A full disk, as a limit of the process: no file of it may grow beyond its beginning.
fn file_limit(process: &Process, limit: &str) {
    let id = process.id().to_string();
    let limit = format!("--fsize={limit}:unlimited");
    let status = Command::new("prlimit").args(["--pid", &id, &limit]).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "prlimit, of util-linux, is needed"
    );
}

#[test]
fn full_disk_holds_changes_back_and_loses_none() {
    let sim = Sim::start();
    let sources = ["twitch:777001", "twitch:777002"];
    let home = home(&sim, &sources);
    // A write beyond the limit then fails, as on a full disk, and does not kill.
    let ignoring = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
    let mut daemon = Process::spawn(&mut home.command_through(&ignoring, &["watch", "--color", "never"]));
    let address = daemon.address();
    until(&address, "/api/v1/sources", |_, body| {
        state(body, "twitch:777001") == is("CONNECTED", "ONLINE")
            && state(body, "twitch:777002") == is("CONNECTED", "OFFLINE")
    });
    file_limit(&daemon, "0");
    go_live(&sim, "777002", 5_550_002);
    // An earlier event may be on its way into the store and fail there first.
    until(&address, "/readyz", |status, body| {
        status == 503 && body.contains("changes cannot be stored")
    });
    // More happens, none of which is on disk; so none of it is published.
    sim.order("/__sim/twitch/stream_down", &json!({"id": "777001", "lag_ms": 0}));
    go_live(&sim, "777001", 5_550_001);
    let probe_counts = metric(&address, LOOKS);
    until(&address, "/metrics", |_, _| {
        metric(&address, LOOKS) >= probe_counts + 2.0
    });
    let (_, body) = page(&address, "/api/v1/sources").unwrap();
    assert_eq!(state(&body, "twitch:777002").1, "OFFLINE");
    file_limit(&daemon, "unlimited");
    until(&address, "/readyz", |status, _| status == 200);
    until(&address, "/api/v1/sources", |_, body| {
        state(body, "twitch:777002") == is("CONNECTED", "ONLINE")
    });
    until(&address, "/api/v1/sources/twitch:777001", |_, body| {
        body.contains("5550001")
    });
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
    assert_eq!(announced(&home, "twitch:777002"), ["5550002"]);
    assert_eq!(announced(&home, "twitch:777001").len(), 2);
}

/// A connection to a server that can be cut.
struct Line {
    address: String,
    open: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self {
            address: listener.local_addr().unwrap().to_string(),
            open: Arc::new(AtomicBool::new(true)),
            sockets: Arc::default(),
        };
        let (open, sockets) = (Arc::clone(&line.open), Arc::clone(&line.sockets));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Some(far) = open.load(Ordering::SeqCst).then(|| TcpStream::connect(&server)) else {
                    continue;
                };
                let far = far.unwrap();
                for (mut from, mut to) in [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far.try_clone().unwrap(), near.try_clone().unwrap()),
                ] {
                    std::thread::spawn(move || {
                        let mut buffer = [0; 16_384];
                        while let Ok(count @ 1..) = from.read(&mut buffer) {
                            if to.write_all(&buffer[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                sockets.lock().extend([near, far]);
            }
        });
        line
    }

    fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for socket in self.sockets.lock().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

/// Ten minutes without a store differ from a few seconds only in the backoff, which the virtual week covers; here it is a real
/// store behind a real connection.
#[test]
fn a_firestore_that_is_away_gets_every_change_when_it_is_back() {
    let emulator = std::env::var("FIRESTORE_EMULATOR_HOST")
        .expect("a Firestore emulator is needed: run `scripts/services.sh up` and set its variables");
    let line = Line::to(emulator);
    let project = format!("firestore:away-{}", std::process::id());
    store_that_is_away(&line, |home| {
        home.env("FIRESTORE_EMULATOR_HOST", &line.address)
            .env("BITBRAT_STORE__URL", &project)
    });
}

#[test]
fn a_postgres_that_is_away_gets_every_change_when_it_is_back() {
    let url = crate::contract::store::worlds::postgres_url();
    let (login, rest) = url.split_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let line = Line::to(server.to_owned());
    let url = format!("{login}@{}/{database}", line.address);
    let schema = format!("away_{}", std::process::id());
    store_that_is_away(&line, |home| {
        home.env("BITBRAT_STORE__URL", &url)
            .env("BITBRAT_STORE__SCHEMA", &schema)
    });
}

fn store_that_is_away(line: &Line, of_store: impl Fn(Home) -> Home) {
    let sim = Sim::start();
    let sources = ["twitch:777001", "twitch:777002"];
    let home = of_store(home(&sim, &sources));
    let (mut daemon, address) = watch(&home);
    until(&address, "/api/v1/sources", |_, body| {
        state(body, "twitch:777001") == is("CONNECTED", "ONLINE")
            && state(body, "twitch:777002") == is("CONNECTED", "OFFLINE")
    });
    line.cut();
    go_live(&sim, "777002", 5_550_002);
    daemon.says("`twitch:777002`: stream OFFLINE → ONLINE");
    until(&address, "/readyz", |status, _| status == 503);
    sim.order("/__sim/twitch/stream_down", &json!({"id": "777001", "lag_ms": 0}));
    go_live(&sim, "777001", 5_550_001);
    // By push or by poll, as one change or as two.
    until(&address, "/metrics", |_, _| {
        metric(&address, "bitbrat_outbox_events") >= 2.0
    });
    // A restart in between loses nothing either.
    daemon.signal("-KILL");
    daemon.ends();
    let (mut daemon, address) = watch(&home);
    line.mend();
    until(&address, "/api/v1/sources", |_, body| {
        state(body, "twitch:777002") == is("CONNECTED", "ONLINE")
    });
    until(&address, "/api/v1/sources/twitch:777001", |_, body| {
        body.contains("5550001")
    });
    until(&address, "/readyz", |status, _| status == 200);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
    assert_eq!(announced(&home, "twitch:777002"), ["5550002"]);
    assert_eq!(announced(&home, "twitch:777001").len(), 2);
}

/// The whole program, killed at any time, its start included: four worlds concurrently, because most of the time is spent waiting
/// for a daemon that is just starting.
#[test]
fn daemon_killed_200_times_announces_every_stream_once() {
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || killed_again_and_again(50, seed));
        }
    });
}

fn killed_again_and_again(kills: u32, seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let sim = Sim::start();
    let ids = ["777001", "777002", "777003", "777004"];
    let sources = ids.map(|id| format!("twitch:{id}"));
    let home = home(&sim, &sources.each_ref().map(String::as_str));
    let mut truth: Vec<Vec<String>> = vec![Vec::new(); ids.len()];
    let mut next = 5_550_000;
    for life in 0..kills {
        if life % 10 == 0 {
            // New streams; a process is allowed to run until they were observed, so that they have to be announced.
            for (place, id) in ids.iter().enumerate() {
                next += 1;
                let mut wire = Wire::to(&sim.twitch);
                // Not every channel is live at first.
                wire.post("/__sim/twitch/stream_down", &json!({"id": id, "lag_ms": 0}));
                go_live(&sim, id, next);
                truth[place].push(next.to_string());
            }
        }
        let mut command = home.command(&["watch", "--color", "never"]);
        let mut daemon = Process::spawn(&mut command);
        if life % 10 == 9 {
            let address = daemon.address();
            for (source, streams) in sources.iter().zip(&truth) {
                let newest = streams.last().unwrap().clone();
                until(&address, &format!("/api/v1/sources/{source}"), |_, body| {
                    body.contains(&newest)
                });
            }
        } else {
            std::thread::sleep(Duration::from_millis(chance.u64(0..600)));
        }
        daemon.signal("-KILL");
        daemon.ends();
    }
    let (mut daemon, address) = watch(&home);
    until(&address, "/metrics", |_, _| metric(&address, LOOKS) >= 3.0);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
    for (source, streams) in sources.iter().zip(&truth) {
        let mut transitions = announced(&home, source);
        // What was live before the first process may have been observed or not.
        transitions.retain(|stream| stream.starts_with("555"));
        assert_eq!(transitions, *streams, "{source}");
        let status = home.run(&["sources", "status", "-o", "json"]);
        assert_eq!(status.item("key", source)["streamStatus"], "ONLINE");
    }
}

#[test]
fn unusable_document_of_others_is_reported_and_stays_ready() {
    let sim = Sim::start();
    let home = home(&sim, &["twitch:777001"]);
    home.run(&["doctor", "store"]).exits(0);
    let database = rusqlite::Connection::open(home.state().join("bitbrat.db")).unwrap();
    // The first is the document that readiness reads.
    for id in ["twitch:1", "twitch:lost"] {
        let insert = "INSERT INTO sources (id, version, document) VALUES (?1, 1, '{\"evidence\":\"lost\"}')";
        database.execute(insert, [id]).unwrap();
    }
    let (mut daemon, address) = watch(&home);
    daemon
        .says_all(&["Stored documents cannot be used and are left as they are; run `bitbrat doctor store`"]);
    until(&address, "/metrics", |_, body| {
        body.contains("bitbrat_store_unusable_documents 2\n")
    });
    until(&address, "/readyz", |status, _| status == 200);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
    assert_eq!(daemon.said().matches("cannot be used").count(), 1);
}

#[test]
fn store_that_becomes_newer_is_named_and_waited_for() {
    let sim = Sim::start();
    let home = home(&sim, &["twitch:777001"]);
    let (mut daemon, address) = watch(&home);
    until(&address, "/readyz", |status, _| status == 200);
    let database = rusqlite::Connection::open(home.state().join("bitbrat.db")).unwrap();
    let known: i64 = database
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    daemon.says("has schema version 99");
    let body = until(&address, "/readyz", |status, _| status == 503);
    assert!(body.contains("bitbrat.db"), "{body}");
    database.pragma_update(None, "user_version", known).unwrap();
    until(&address, "/readyz", |status, _| status == 200);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
}
