//! `bitbrat watch` as a person runs it: a process of its own beside a simulator of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Home;

const PATIENCE: Duration = Duration::from_secs(60);

/// A child process that is ended with the test.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    fn start(home: &Home, words: &[&str]) -> Self {
        let mut command = home.command(words);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
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

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the end and returns the exit code.
    #[track_caller]
    fn ends(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
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

/// Starts a simulator and a home that is configured for it.
fn world() -> (Process, Home) {
    let mut sim = Process::start(&Home::new(), &["sim", "--port", "0", "--env"]);
    let last = sim.says("BITBRAT_SOURCES=");
    let mut text = String::new();
    for line in sim
        .seen
        .iter()
        .filter(|line| **line != last && line.contains('=') && !line.contains(' '))
    {
        text.push_str(line);
        text.push('\n');
    }
    let sources: Vec<&str> = last
        .trim_start_matches("BITBRAT_SOURCES=")
        .trim_matches('"')
        .split(' ')
        .collect();
    let home = Home::new()
        .file(".env", &text)
        .file("bitbrat.toml", &toml(&sources));
    (sim, home)
}

fn toml(sources: &[&str]) -> String {
    let tables = sources.iter().map(|source| {
        let (platform, id) = source.split_once(':').unwrap();
        format!("[[source]]\nplatform = \"{platform}\"\nid = \"{id}\"\n")
    });
    format!("[web]\nlisten = \"127.0.0.1:0\"\n{}", tables.collect::<String>())
}

/// Starts the daemon and returns it with the address of its pages.
fn watch(home: &Home) -> (Process, String) {
    let mut daemon = Process::start(home, &["watch", "--color", "never"]);
    let line = daemon.says("Serving pages at");
    let address = line
        .split("http://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    (daemon, address)
}

/// Asks for a page by hand.
fn page(address: &str, path: &str) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
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
        if let Some((status, body)) = page(address, path) {
            if good(status, &body) {
                return body;
            }
            last = Some(body);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{path} never became good; last: {last:?}");
}

fn items(body: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(body).unwrap();
    value["items"].as_array().unwrap().clone()
}

#[test]
fn it_watches_until_it_is_told_to_stop_and_says_goodbye() {
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
    second.tells("another `bitbrat watch`").tells("BITBRAT_STATE_DIR");

    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
    let status = home.run(&["sources", "status", "-o", "json"]);
    assert_eq!(status.item("key", "twitch:777001")["status"], "DISCONNECTED");
    assert_eq!(status.item("key", "twitch:777001")["streamStatus"], "ONLINE");
    assert_eq!(status.item("key", "twitch:777010")["status"], "ERROR");
}

#[test]
fn one_round_is_looked_at_stored_and_over() {
    let (_sim, home) = world();
    home.run(&["watch", "--once"]).exits(0).never_panics();
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
        body.contains("bitbrat_sources_attended 1\n")
    });
    let home = home.file("bitbrat.toml", "[schedule]\nstream = \"often\"\n");
    daemon.signal("-HUP");
    daemon.says("is refused and the old one stays");
    let home = home.file("bitbrat.toml", &toml(&["twitch:777001", "twitch:777002"]));
    daemon.signal("-HUP");
    daemon.says("The configuration was read again");
    until(&address, "/metrics", |_, body| {
        body.contains("bitbrat_sources_attended 2\n")
    });
    until(&address, "/api/v1/sources", |_, body| items(body).len() == 2);
    daemon.signal("-INT");
    assert_eq!(daemon.ends(), 130);
    drop(home);
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    Home::new()
        .run(&["watch"])
        .exits(6)
        .tells("no source is configured")
        .never_panics();
    let home = Home::new().env("BITBRAT_SOURCES", "twitch:1");
    home.run(&["watch", "--role", "persist"])
        .exits(2)
        .tells("belong to one process");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("web.listen={}", taken.local_addr().unwrap());
    home.run(&["watch", "--set", &listen])
        .exits(1)
        .tells("cannot listen at");
    home.run(&["watch", "--set", "web.listen=0.0.0.0:0"])
        .exits(6)
        .tells("BITBRAT_WEB_TOKEN");
}
