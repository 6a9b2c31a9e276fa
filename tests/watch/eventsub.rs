//! Twitch's EventSub through the whole program: what is pushed is stored at once, and a killed process announces nothing
//! twice.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Home;

const PATIENCE: Duration = Duration::from_secs(60);
const SOURCE: &str = "twitch:777002";

/// Only the source of interest, and no poll but those that a listener asks for.
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

/// A child process that is ended with the test.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    fn start(home: &Home, words: &[&str]) -> Self {
        let mut command = home.command(words);
        let command = command.stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that contains `text`.
    #[track_caller]
    fn says(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("`{text}` was never said:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Sends it a signal, waits for its end, and returns its exit code and everything that it has said.
    #[track_caller]
    fn end(mut self, signal: &str) -> (Option<i32>, Vec<String>) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                let rest: Vec<_> = self.lines.iter().collect();
                self.seen.extend(rest);
                return (status.code(), std::mem::take(&mut self.seen));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end:\n{}", self.seen.join("\n"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A simulator of its own.
struct Sim {
    _process: Process,
    /// What a client has to be told, as lines of `.env`.
    env: String,
    /// Where its Twitch is.
    twitch: String,
}

impl Sim {
    fn start() -> Self {
        let mut process = Process::start(&Home::new(), &["sim", "--port", "0", "--env"]);
        process.says("BITBRAT_SOURCES=");
        let lines = process.seen.iter();
        let settings =
            lines.filter(|line| line.contains('=') && !line.contains(' ') && !line.contains("SOURCES"));
        let env: String = settings.map(|line| format!("{line}\n")).collect();
        let helix = env
            .lines()
            .find_map(|line| line.strip_prefix("BITBRAT_TWITCH__HELIX_URL="));
        let twitch = helix.unwrap().split('/').nth(2).unwrap().to_owned();
        Self {
            _process: process,
            env,
            twitch,
        }
    }

    fn home(&self) -> Home {
        Home::new().file(".env", &self.env).file("bitbrat.toml", QUIET)
    }

    /// Gives its Twitch an order.
    #[track_caller]
    fn order(&self, order: &str, fields: &Value) {
        let body = fields.to_string();
        let head = format!("POST /__sim/twitch/{order} HTTP/1.1\r\nContent-Type: application/json");
        let (status, answer) = ask(&self.twitch, &head, &body).unwrap();
        assert!((200..300).contains(&status), "{order}: {answer}");
    }
}

/// Asks a server by hand.
fn ask(address: &str, head: &str, body: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = body.len();
    let request =
        format!("{head}\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Asks for a page until `good` says so.
#[track_caller]
fn until(address: &str, path: &str, good: impl Fn(u16, &str) -> bool) -> String {
    let until = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < until {
        if let Some((status, body)) = ask(address, &format!("GET {path} HTTP/1.1"), "") {
            if good(status, &body) {
                return body;
            }
            last = Some(body);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{path} never became good; last: {last:?}");
}

/// Starts the daemon and returns it with the address of its pages.
fn watch(home: &Home) -> (Process, String) {
    let mut daemon = Process::start(home, &["watch", "--color", "never"]);
    let line = daemon.says("Serving pages at");
    let address = line.split('/').nth(2).unwrap().to_owned();
    (daemon, address)
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

fn changes(lines: &[String]) -> Vec<&str> {
    let of_stream = lines
        .iter()
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
fn a_pushed_stream_is_stored_at_once_and_announced_once_although_the_process_is_killed() {
    let sim = Sim::start();
    let home = sim.home();
    let (daemon, address) = ready(&home);
    document(&address, |item| item["streamStatus"] == "OFFLINE");

    sim.order(
        "stream_up",
        &json!({"id": "777002", "stream_id": "4711", "lag_ms": 600_000}),
    );
    let live = document(&address, |item| item["streamStatus"] == "ONLINE");
    assert_eq!(live["verdicts"]["stream"]["rule"], "stream.pushed-start");
    assert_eq!(live["status"], "CONNECTED");
    assert_eq!(live["metadata"]["session"]["streamId"], "4711");
    sim.order("chat", &json!({"id": "777002", "count": 5}));
    document(&address, |item| item["metrics"]["messagesIn"] == 5);

    let (_, said) = daemon.end("-KILL");
    assert_eq!(changes(&said), ["ONLINE"]);

    let (again, address) = ready(&home);
    let still = document(&address, |_| true);
    assert_eq!(
        (&still["streamStatus"], &still["status"]),
        (&json!("ONLINE"), &json!("CONNECTED"))
    );
    sim.order("stream_down", &json!({"id": "777002"}));
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
        (&json!("777002"), &json!("enabled"))
    );
    assert_eq!(
        (&offline["eventCount"], &offline["errorCount"]),
        (&json!(1), &json!(0))
    );
    assert!(offline["createdAt"].is_string() && offline["lastEventAt"].is_string());

    let (code, said) = again.end("-TERM");
    assert_eq!(code, Some(0));
    // The restart announced nothing that had been announced before it.
    assert_eq!(changes(&said), ["OFFLINE"]);
    let stored = home.run(&["sources", "describe", SOURCE, "-o", "json"]).exits(0);
    let stored = stored.item("key", SOURCE);
    assert_eq!(stored["status"], "DISCONNECTED");
    assert_eq!(stored["listening"]["way"], "pushed");
    assert_eq!(stored["listening"]["cost"], 3);
}

#[test]
fn a_listener_that_cannot_connect_keeps_the_process_from_being_ready_and_says_why() {
    let sim = Sim::start();
    let home = sim
        .home()
        .env("BITBRAT_TWITCH__EVENTSUB_WS_URL", "ws://127.0.0.1:9/");
    let (_daemon, address) = watch(&home);
    let told = until(&address, "/readyz", |status, body| {
        status == 503 && body.contains("network")
    });
    assert!(told.contains("twitch-eventsub"), "{told}");
    // Polls go on.
    document(&address, |item| {
        item["status"] == "DISCONNECTED" && item["streamStatus"] == "OFFLINE"
    });
}
