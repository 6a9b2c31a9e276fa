//! A gateway that repeats each request in its response, in every form that gateways, mocks and debugging proxies use.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

use crate::support::Home;
use crate::support::process::{PATIENCE, Process, page};

/// Each contains its own name, so that a failure identifies which one leaked; none resembles ordinary text.
const SENTINELS: [(&str, &str); 7] = [
    ("TWITCH_CLIENT_SECRET", "s3ntinel+twitch/client=secret0001"),
    ("TWITCH_BOT_ACCESS_TOKEN", "s3ntineltwitchaccess00000002"),
    ("TWITCH_BOT_REFRESH_TOKEN", "s3ntinel-twitch&refresh%000003"),
    ("KICK_CLIENT_SECRET", "s3ntinelkickclientsecret000004"),
    ("KICK_BOT_ACCESS_TOKEN", "S3NTINELKICKACCESS0000000005"),
    ("KICK_BOT_REFRESH_TOKEN", "S3NTINELKICKREFRESH000000006"),
    ("DISCORD_BOT_TOKEN", "MTE3NzE3.s3ntin.discord_token-000007"),
];

/// A server that repeats requests, each time in the next form.
struct Echo {
    address: String,
    answered: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answered: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&answered);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                std::thread::spawn(move || while answer(&socket, &count).is_some() {});
            }
        });
        Self { address, answered }
    }

    fn home(&self) -> Home {
        let base = format!("http://{}", self.address);
        let mut env = format!(
            "TWITCH_CLIENT_ID=echo\nKICK_CLIENT_ID=echo\nBITBRAT_TWITCH__AUTH_URL={base}/oauth2\n\
             BITBRAT_TWITCH__HELIX_URL={base}/helix\nBITBRAT_TWITCH__EVENTSUB_WS_URL=ws://{}/ws\n\
             BITBRAT_KICK__AUTH_URL={base}/kick\nBITBRAT_KICK__API_URL={base}/kick\n\
             BITBRAT_DISCORD__API_URL={base}/api/v10\n\
             BITBRAT_SOURCES=\"twitch:777001 kick:888001 discord:888001\"\n",
            self.address
        );
        for (name, value) in SENTINELS {
            let _ = writeln!(env, "{name}='{value}'");
        }
        let schedule = "connection = \"* * * * * *\"\nstream = \"* * * * * *\"\nauth = \"* * * * * *\"\n\
                        viewers = \"* * * * * *\"\npermissions = \"* * * * * *\"\njitter = \"0s\"\n";
        let toml = format!("[web]\nlisten = \"127.0.0.1:0\"\n[schedule]\n{schedule}");
        Home::new().file(".env", &env).file("bitbrat.toml", &toml)
    }
}

/// Answers one request; `None` when the client has closed the connection.
fn answer(mut socket: &TcpStream, count: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = format!("{head}\r\n{}", String::from_utf8_lossy(&body));
    let (status, kind, text) = form(count.fetch_add(1, Ordering::Relaxed), &request);
    let one_line = request.replace(['\r', '\n'], " ");
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nX-Ratelimit-Bucket: {one_line}\r\nX-Request: {one_line}\r\n\
         Retry-After: 0\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    socket.write_all(answer.as_bytes()).ok()
}

/// The request in the `n`th form of a response.
fn form(n: usize, request: &str) -> (u16, &'static str, String) {
    let json = "application/json";
    let encoded: String = url::form_urlencoded::byte_serialize(request.as_bytes()).collect();
    let nested = json!({"request": request, "inner": json!({"again": request}).to_string()}).to_string();
    // What is left of it by a server's own limit.
    let cut: String = request
        .chars()
        .rev()
        .take(60)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    let credential = request
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("authorization"))
        .and_then(|line| line.rsplit(' ').next())
        .unwrap_or_default();
    let status = [400, 401, 403, 404, 429, 500, 502][n % 7];
    match n % 11 {
        0 => (
            status,
            json,
            json!({"message": request, "error": request, "code": 0}).to_string(),
        ),
        1 => (
            status,
            json,
            json!({"message": encoded, "code": 50001}).to_string(),
        ),
        2 => (status, json, json!({"message": nested, "code": 0}).to_string()),
        3 => (
            status,
            json,
            json!({"error": STANDARD.encode(request), "code": 0}).to_string(),
        ),
        4 => (
            status,
            json,
            json!({"message": URL_SAFE.encode(request), "error": request}).to_string(),
        ),
        5 => (
            status,
            "text/html",
            format!("<html><body>{request}</body></html>"),
        ),
        6 => (status, "text/plain", request.to_owned()),
        7 => (
            200,
            json,
            json!({"data": [{"id": request, "user_id": "777001", "title": request}], "message": request})
                .to_string(),
        ),
        8 => (
            status,
            json,
            json!({"message": credential.to_uppercase(), "code": 0}).to_string(),
        ),
        9 => (
            status,
            json,
            json!({"message": format!("bad {}", STANDARD.encode(format!("x:{credential}")))}).to_string(),
        ),
        _ => (
            status,
            json,
            json!({"message": cut, "error_description": request, "code": 10003}).to_string(),
        ),
    }
}

/// Returns each sentinel that `text` contains in some encoding.
fn leaks(text: &str) -> Vec<&'static str> {
    let lower = text.to_ascii_lowercase();
    let decoded = percent_decoded(&lower);
    SENTINELS
        .iter()
        .filter(|(_, secret)| {
            // Most of a secret is as bad as all of it.
            let middle = &secret[4..secret.len() - 4];
            let base64 = (0..3).flat_map(|shift| {
                let bytes = [&vec![b'x'; shift][..], middle.as_bytes()].concat();
                [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)]
                    .map(|text| text[4..text.len() - 4].to_owned())
            });
            let forms = base64.chain([middle.to_owned()]);
            forms
                .map(|form| form.to_ascii_lowercase())
                .any(|form| lower.contains(&form) || decoded.contains(&form))
        })
        .map(|(name, _)| *name)
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let pair = format!("v={}", text.replace(['&', '+'], " "));
    url::form_urlencoded::parse(pair.as_bytes())
        .map(|(_, value)| value.into_owned())
        .collect()
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    let found = leaks(text);
    let at = |name: &str| {
        let secret = SENTINELS
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, secret)| secret);
        text.lines()
            .find(|line| line.contains(&secret[4..secret.len() - 4]))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        found.is_empty(),
        "{what} holds {found:?}, as in: {}",
        at(found[0])
    );
}

/// Reads every file below `folder` except those that are meant to contain tokens.
pub(super) fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path));
        } else if name != ".env" && name != "tokens.json" && !name.ends_with(".journal") {
            let bytes = std::fs::read(&path).unwrap_or_default();
            found.push((
                path.display().to_string(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
    }
    found
}

#[test]
fn the_search_for_leaks_finds_each_encoding() {
    for (name, secret) in SENTINELS {
        let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        for text in [
            secret.to_owned(),
            format!("x={encoded}"),
            STANDARD.encode(format!("ab:{secret}")),
            STANDARD.encode(format!("a:{secret}")),
            STANDARD.encode(format!("abc:{secret}")),
        ] {
            assert_eq!(leaks(&text), [name], "{text}");
        }
    }
}

#[test]
fn a_server_that_echoes_requests_reveals_no_secret_to_commands() {
    let echo = Echo::start();
    let home = echo.home();
    for verbosity in ["-q", "--no-progress", "-v", "-vv"] {
        for words in [
            &["probe", "-o", "json"][..],
            &["sources", "status", "--probe"],
            &["sources", "status", "-o", "yaml"],
            &["sources", "describe", "twitch:777001"],
            &["sources", "describe", "kick:888001", "-o", "json"],
            &["sources", "describe", "discord:888001", "-o", "json"],
            &["auth", "status"],
            &["doctor"],
            &["config", "show"],
        ] {
            let words = [words, &[verbosity]].concat();
            let run = home.run(&words).never_panics();
            assert_clean(&format!("stdout of {words:?}"), &run.stdout);
            assert_clean(&format!("stderr of {words:?}"), &run.stderr);
        }
    }
    assert!(echo.answered.load(Ordering::Relaxed) > 50);
    for (file, text) in files(home.work().parent().unwrap()) {
        assert_clean(&file, &text);
    }
}

#[test]
fn a_server_that_echoes_requests_reveals_no_secret_to_a_daemon() {
    let echo = Echo::start();
    let home = echo.home().env("BITBRAT_LOG__FORMAT", "json");
    let mut daemon = Process::start(&home, &["watch", "-vv", "--record", "traffic.jsonl"]);
    let address = daemon.address();
    let until = Instant::now() + PATIENCE;
    // Each form was sent several times, and the results were stored.
    let mut pages = String::new();
    while echo.answered.load(Ordering::Relaxed) < 150 || !pages.contains("lastError") {
        assert!(
            Instant::now() < until,
            "{} answers; {pages}",
            echo.answered.load(Ordering::Relaxed)
        );
        std::thread::sleep(Duration::from_millis(100));
        for path in [
            "/api/v1/sources",
            "/api/v1/sources/twitch:777001",
            "/api/v1/sources/kick:888001",
            "/api/v1/sources/discord:888001",
            "/_debug/sources",
            "/_debug/twitch",
            "/_debug/kick",
            "/_debug/discord",
            "/_debug/twitch/eventsub",
            "/_debug/discord/gateway",
            "/readyz",
            "/metrics",
        ] {
            let (_, body) = page(&address, path).unwrap_or_default();
            assert_clean(path, &body);
            pages.push_str(&body);
        }
    }
    let events = home.run(&["events", "tail", "--since", "1h", "--for", "1s"]);
    assert_clean("the events", &events.stdout);
    let body: Value = serde_json::from_str(&page(&address, "/_debug/sources").unwrap().1).unwrap();
    assert!(body["sources"]["twitch:777001"].is_object(), "{body}");
    daemon.signal("-TERM");
    daemon.ends();
    let log = daemon.said();
    assert_clean("the log", &log);
    // What was echoed was quoted, and masked.
    assert!(pages.contains("***") || log.contains("***"), "{log}");
    // Among them the outbox, which contains the events that were published, and the recording of all that was echoed.
    let recording = std::fs::read_to_string(home.work().join("traffic.jsonl")).unwrap();
    assert!(recording.lines().count() > 150, "{recording}");
    for (file, text) in files(home.work().parent().unwrap()) {
        assert_clean(&file, &text);
    }
}
