//! The program as processes: a simulator, a daemon, and their output and pages.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Home;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Prepares to start this same test binary again for one ignored test, which is part of another: a process of its own.
pub fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored"]);
    command
}

/// A child process that is ended with the test.
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    pub seen: Vec<String>,
}

impl Process {
    pub fn start(home: &Home, words: &[&str]) -> Self {
        Self::spawn(&mut home.command(words))
    }

    pub fn spawn(command: &mut Command) -> Self {
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
    pub fn says(&mut self, text: &str) -> String {
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

    /// Waits for lines that contain these texts, in any order.
    #[track_caller]
    pub fn says_all(&mut self, texts: &[&str]) {
        for text in texts {
            if !self.seen.iter().any(|line| line.contains(text)) {
                self.says(text);
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the address of its pages.
    #[track_caller]
    pub fn address(&mut self) -> String {
        let line = self.says("Serving pages at");
        let address = line.split("http://").nth(1).unwrap();
        address.split('/').next().unwrap().to_owned()
    }

    /// All output so far, including lines that were waited for.
    pub fn said(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the exit, and for the last line of output before it, and returns the exit code.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.seen.extend(self.lines.iter());
                return status.code().unwrap_or(-1);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end:\n{}", self.said());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A simulator for one test, and access to its controls.
pub struct Sim {
    _process: Process,
    /// A client's settings, as lines of `.env`.
    pub env: String,
    pub sources: Vec<String>,
    /// Address of the simulated Twitch.
    pub twitch: String,
}

impl Sim {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(more: &[&str]) -> Self {
        let words = [&["sim", "--port", "0", "--env"][..], more].concat();
        let mut process = Process::start(&Home::new(), &words);
        let last = process.says("BITBRAT_SOURCES=");
        let lines = process.seen.iter();
        let env: String = lines
            .filter(|line| **line != last && line.contains('=') && !line.contains(' '))
            .map(|line| format!("{line}\n"))
            .collect();
        let sources = last
            .trim_start_matches("BITBRAT_SOURCES=")
            .trim_matches('"')
            .split(' ')
            .map(str::to_owned)
            .collect();
        let helix = env
            .lines()
            .find(|line| line.starts_with("BITBRAT_TWITCH__HELIX_URL="));
        let twitch = helix
            .unwrap()
            .split("://")
            .nth(1)
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        Self {
            twitch: twitch.to_owned(),
            _process: process,
            env,
            sources,
        }
    }

    /// A home that is configured for it, with these sources.
    pub fn home(&self, sources: &[&str]) -> Home {
        Home::new()
            .file(".env", &self.env)
            .file("bitbrat.toml", &toml(sources))
    }

    /// Sends a request to a control.
    #[track_caller]
    pub fn order(&self, path: &str, fields: &Value) {
        let status = Wire::to(&self.twitch).post(path, fields);
        assert!((200..300).contains(&status), "{path}: {status}");
    }
}

/// One connection that stays open: the simulator keeps it open when it goes off the network.
pub struct Wire(BufReader<TcpStream>);

impl Wire {
    pub fn to(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(BufReader::new(socket))
    }

    /// Posts JSON and returns the status.
    #[track_caller]
    pub fn post(&mut self, path: &str, fields: &Value) -> u16 {
        let body = fields.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0
            .get_mut()
            .write_all(format!("{head}{body}").as_bytes())
            .unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length:") {
                length = rest.trim().parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        std::io::copy(&mut self.0.by_ref().take(length), &mut std::io::sink()).unwrap();
        status
    }
}

/// Starts a simulator and a home that is configured for all of it.
pub fn world() -> (Sim, Home) {
    let sim = Sim::start();
    let sources: Vec<&str> = sim.sources.iter().map(String::as_str).collect();
    let home = sim.home(&sources);
    (sim, home)
}

pub fn toml(sources: &[&str]) -> String {
    let tables = sources.iter().map(|source| {
        let (platform, id) = source.split_once(':').unwrap();
        format!("[[source]]\nplatform = \"{platform}\"\nid = \"{id}\"\n")
    });
    format!("[web]\nlisten = \"127.0.0.1:0\"\n{}", tables.collect::<String>())
}

/// Starts the daemon and returns it with the address of its pages.
pub fn watch(home: &Home) -> (Process, String) {
    let mut daemon = Process::start(home, &["watch", "--color", "never"]);
    let address = daemon.address();
    (daemon, address)
}

/// Requests a page with plain HTTP.
pub fn page(address: &str, path: &str) -> Option<(u16, String)> {
    ask(address, "GET", path, "", "")
}

/// Sends a plain HTTP request; `more` are further headers, each with its line end.
pub fn ask(address: &str, method: &str, path: &str, more: &str, body: &str) -> Option<(u16, String)> {
    let mut socket = std::net::TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Requests a page until `good` returns true.
#[track_caller]
pub fn until(address: &str, path: &str, good: impl Fn(u16, &str) -> bool) -> String {
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

/// Returns a value from the metrics; 0 when it is missing.
pub fn metric(address: &str, name: &str) -> f64 {
    let text = page(address, "/metrics")
        .map(|(_, text)| text)
        .unwrap_or_default();
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.unwrap_or(0.0)
}
