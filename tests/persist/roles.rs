//! `bitbrat watch` split into its roles as a person would run them: processes of their own, a NATS server between them, and a
//! simulator that is the world.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::contract::bus::servers::{self, NatsServer};
use crate::support::Home;

const PATIENCE: Duration = Duration::from_secs(90);

/// A process that ends with the test.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    fn start(home: &Home, words: &[&str]) -> Self {
        let mut command = home.command(words);
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
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

    fn terminate(mut self) {
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(asked.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until the answer is good.
#[track_caller]
fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(good) => return good,
            Err(last) if Instant::now() > deadline => panic!("{what}: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Asks for a page by hand.
fn page(address: &str, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

fn status(home: &Home, field: &str, wanted: &str) -> Result<(), String> {
    let item = home
        .run(&["sources", "status", "twitch:777001", "-o", "json"])
        .json();
    let item = &item["items"][0];
    if item[field] == wanted {
        Ok(())
    } else {
        Err(item.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_one_process_sees_and_another_stores_and_counts() {
    let server = NatsServer::start().await;
    servers::create_stream_on(&server.url(), "HERE", &["here.>"]).await;
    tokio::task::block_in_place(|| split(&server.url()));
}

/// What a simulator says that a client of it must know, as a `.env` file.
fn world_of(sim: &mut Process) -> String {
    let last = sim.says("BITBRAT_SOURCES=");
    let variables = |line: &&String| line.contains('=') && !line.contains(' ');
    let lines = sim.seen.iter().filter(variables);
    let mut text: String = lines.flat_map(|line| [line.as_str(), "\n"]).collect();
    if !text.contains("BITBRAT_SOURCES") {
        text.push_str(&last);
    }
    text
}

fn split(nats: &str) {
    let mut sim = Process::start(&Home::new(), &["sim", "--port", "0", "--env"]);
    let text = world_of(&mut sim);
    let shared = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", shared.path().join("store.db").display());
    let home = || {
        Home::new()
            .file(".env", &text)
            .env("BITBRAT_STORE__URL", &store)
            .env("BITBRAT_BUS__URL", nats)
            .env("BITBRAT_BUS__STATE_MUTATIONS", "true")
            .env("BUS_PREFIX", "here.")
    };
    let (seeing, storing) = (home(), home());
    let words = [
        "watch",
        "--role",
        "persist,web",
        "--set",
        "web.listen=127.0.0.1:0",
        "--color",
        "never",
    ];
    let mut persister = Process::start(&storing, &words);
    let line = persister.says("Serving pages at");
    let address = line
        .split("http://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let mut ingester = Process::start(&seeing, &["watch", "--role", "ingest", "--color", "never"]);
    ingester.says("Watching");
    until("it is stored", || status(&storing, "status", "CONNECTED"));
    until("it is live", || status(&storing, "streamStatus", "ONLINE"));

    // The bus shows it, and the state engine was told.
    let tail = |topic: &str| {
        let words = [
            "events", "tail", "--topic", topic, "--since", "10m", "--limit", "1", "--for", "30s",
        ];
        let run = seeing.run(&words).exits(0);
        serde_json::from_str::<Value>(&run.stdout).unwrap_or_default()
    };
    assert_eq!(tail("ingress")["meaning"], "source");
    let order = tail("mutations");
    assert!(
        order["event"]["key"]
            .as_str()
            .is_some_and(|key| key.starts_with("stream.")),
        "{order:#}"
    );

    // Chat of BitBrat's own connector is counted, once a message.
    let said = json!({
        "v": "2", "type": "chat.message.v1", "correlationId": "m1",
        "ingress": {"source": "ingress.twitch", "connector": "twitch", "channel": "#pixelmeadow"},
        "message": {"text": "hi", "rawPlatformPayload": {"roomId": "777001"}}
    });
    for _ in 0..2 {
        seeing
            .run_with(&["events", "publish", "-"], &said.to_string())
            .exits(0);
    }
    let counted = until("chat is counted", || {
        let page = page(&address, "/_debug/bus").unwrap_or_default();
        let json: Value = serde_json::from_str(&page).unwrap_or_default();
        if json["chat"]["counted"] == 1 {
            Ok(json)
        } else {
            Err(page)
        }
    });
    assert_eq!(counted["chat"]["sources"]["twitch:777001"]["messagesIn"], 1);
    assert!(counted["stored"].as_u64().unwrap() > 10, "{counted:#}");
    let metrics = page(&address, "/metrics").unwrap();
    assert!(metrics.contains("bitbrat_chat_messages_total 1"), "{metrics}");
    assert!(
        metrics.contains("bitbrat_bus_messages_total{outcome=\"stored\"}"),
        "{metrics}"
    );

    let doctor = seeing.run(&["doctor", "bus", "-o", "json"]);
    for check in ["reachable", "stream", "consumer", "chat in", "chat out"] {
        assert_eq!(
            doctor.item("name", check)["outcome"],
            "OK",
            "{check}: {}",
            doctor.stdout
        );
    }

    ingester.terminate();
    until("its goodbye is stored", || {
        status(&storing, "status", "DISCONNECTED")
    });
    persister.terminate();
}
