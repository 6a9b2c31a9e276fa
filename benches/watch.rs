//! What `bitbrat watch` costs at rest, and how fast a pushed event is stored. `scripts/bench.sh idle` and
//! `scripts/bench.sh push` run it.
//!
//! The simulated Twitch lives in this process, the daemon is a process of its own with the configuration that it ships
//! with, so that nothing but the daemon is measured. Figures are read where an operator reads them: `/proc` and `/metrics`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitbrat::sim::twitch::{StreamSpec, TokenSpec, TwitchSim};
use bitbrat::sim::{Sim, SimOptions};

const BOT: u32 = 900_100;
/// The first channel.
const FIRST: u32 = 1_000_001;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let sim = runtime
        .block_on(Sim::start(SimOptions::default()))
        .expect("loopback is there");
    match std::env::var("BENCH").as_deref() {
        Ok("push") => push(&sim.twitch),
        _ => idle(&sim.twitch),
    }
}

fn setting(name: &str, usual: u32) -> u32 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A daemon at work, with a home of its own.
struct Daemon {
    child: Child,
    address: String,
    home: tempfile::TempDir,
}

impl Daemon {
    /// Fills the simulated Twitch with `channels` and starts a daemon that watches all of them.
    fn start(twitch: &TwitchSim, channels: u32, more: &str) -> Self {
        twitch.add_client("app", Some("hush-secret"));
        twitch.add_channel(&BOT.to_string(), "bitbrat_bot");
        let mut toml = format!("[web]\nlisten = \"127.0.0.1:0\"\n{more}");
        for id in FIRST..FIRST + channels {
            twitch.add_channel(&id.to_string(), &format!("rat{id}"));
            toml += &format!("[[source]]\nplatform = \"twitch\"\nid = \"{id}\"\n");
        }
        let scopes = ["user:read:chat", "user:bot", "user:read:moderated_channels"];
        let bot = twitch.issue_token(TokenSpec {
            client_id: "app".to_owned(),
            user_id: Some(BOT.to_string()),
            scopes: scopes.map(str::to_owned).to_vec(),
            ..TokenSpec::default()
        });
        let home = tempfile::tempdir().expect("a home can be made");
        std::fs::write(home.path().join("bitbrat.toml"), toml).expect("it can be written");
        let urls = twitch.urls();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bitbrat"))
            .arg("watch")
            .current_dir(home.path())
            .env_clear()
            .env("HOME", home.path())
            .env("BITBRAT_STATE_DIR", home.path().join("state"))
            .env("BITBRAT_TWITCH__AUTH_URL", urls.auth)
            .env("BITBRAT_TWITCH__HELIX_URL", urls.helix)
            .env("BITBRAT_TWITCH__EVENTSUB_REST_URL", urls.eventsub_rest)
            .env("BITBRAT_TWITCH__EVENTSUB_WS_URL", urls.eventsub_ws)
            .env("BITBRAT_TWITCH__CLIENT_ID", "app")
            .env("BITBRAT_TWITCH__CLIENT_SECRET", "hush-secret")
            .env("BITBRAT_TWITCH__BOT_ACCESS_TOKEN", bot.access)
            .env(
                "BITBRAT_TWITCH__BOT_REFRESH_TOKEN",
                bot.refresh.unwrap_or_default(),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon can be started");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = loop {
            let line = lines
                .next()
                .expect("it says where its pages are")
                .expect("in words");
            if let Some((_, rest)) = line.split_once("Serving pages at http://") {
                break rest.split('/').next().unwrap_or_default().to_owned();
            }
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, address, home }
    }

    /// Reads a page.
    fn page(&self, path: &str) -> String {
        let ask = || {
            let mut socket = TcpStream::connect(&self.address)?;
            write!(
                socket,
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        ask().unwrap_or_default()
    }

    /// Returns the sum of a metric over its labels.
    fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics");
        let lines = page.lines().filter_map(|line| line.strip_prefix(name));
        let values = lines
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter_map(|rest| rest.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }

    /// Processor time used so far, in seconds.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = text
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |place: usize| {
            fields
                .get(place)
                .and_then(|text| text.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        // utime and stime, in clock ticks of 10 ms on Linux.
        (ticks(11) + ticks(12)) / 100.0
    }

    /// A line of `/proc/PID/status`, in MiB.
    fn memory(&self, name: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default();
        let kib: f64 = line
            .trim_matches([':', '\t', ' ', 'k', 'B'])
            .parse()
            .unwrap_or(0.0);
        kib / 1024.0
    }

    fn until(&self, what: &str, good: impl Fn(&Self) -> bool) {
        let patience = Instant::now() + Duration::from_secs(300);
        while !good(self) {
            assert!(
                Instant::now() < patience,
                "{what} never happened:\n{}",
                self.page("/metrics")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn idle(twitch: &TwitchSim) {
    let (channels, seconds) = (setting("BENCH_SOURCES", 10_000), setting("BENCH_SECONDS", 300));
    let started = Instant::now();
    let daemon = Daemon::start(twitch, channels, "");
    for id in (FIRST..FIRST + channels).step_by(20) {
        let spec = StreamSpec {
            lag_ms: Some(0),
            ..StreamSpec::default()
        };
        twitch.go_live_with(&id.to_string(), &spec);
    }
    daemon.until("the first look", |daemon| {
        daemon.metric("bitbrat_sources") >= f64::from(channels) && daemon.metric("bitbrat_sources_live") > 0.0
    });
    // The first look is over in all lanes and nothing of it waits anywhere: for ten seconds nothing new is told.
    let mut rest = (0.0, Instant::now());
    while rest.1.elapsed() < Duration::from_secs(10) {
        let reported = daemon.metric("bitbrat_events_sent_total");
        let waiting = daemon.metric("bitbrat_outbox_events") + daemon.metric("bitbrat_observations_waiting");
        if reported > rest.0 || waiting > 0.0 {
            rest = (reported, Instant::now());
        }
        assert!(
            started.elapsed() < Duration::from_secs(600),
            "it never came to rest"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    let rested = started.elapsed().as_secs_f64() - 10.0;
    let before = (
        daemon.cpu(),
        daemon.metric("bitbrat_probe_requests_total"),
        daemon.metric("bitbrat_store_writes_total"),
    );
    let begun = Instant::now();
    let mut resting: Vec<f64> = Vec::new();
    let (mut last, mut peak) = (daemon.cpu(), 0.0_f64);
    while begun.elapsed().as_secs() < u64::from(seconds) {
        std::thread::sleep(Duration::from_secs(1));
        let now = daemon.cpu();
        resting.push((now - last) * 100.0);
        last = now;
        peak = peak.max(daemon.memory("VmRSS"));
    }
    let passed = begun.elapsed().as_secs_f64();
    let per_hour = 3_600.0 / passed;
    let (cpu, calls, writes) = (
        daemon.cpu() - before.0,
        daemon.metric("bitbrat_probe_requests_total") - before.1,
        daemon.metric("bitbrat_store_writes_total") - before.2,
    );
    resting.sort_by(f64::total_cmp);
    println!(
        "watch at rest: {channels} simulated Twitch channels (one in twenty live), schedules as shipped, SQLite; {passed:.0} s \
         after everything was told for the first time"
    );
    println!(
        "  resident memory      {:>9.1} MiB at the end, {peak:.1} at most while resting, {:.1} ever",
        daemon.memory("VmRSS"),
        daemon.memory("VmHWM")
    );
    println!(
        "  processor            {:>9.1} % of a core on average, {:.1} % in the median second, {:.1} % in the busiest",
        cpu / passed * 100.0,
        resting[resting.len() / 2],
        resting[resting.len() - 1]
    );
    println!("  calls to the platform{:>9.1} a minute", calls / passed * 60.0);
    println!(
        "  documents written    {:>9.0} an hour ({:.2} a source and minute)",
        writes * per_hour,
        writes / passed * 60.0 / f64::from(channels)
    );
    println!("  everything told after{rested:>9.1} s");
    println!(
        "  ticks skipped        {:>9}",
        daemon.metric("bitbrat_ticks_skipped_total")
    );
}

/// What is stored of each source, read as another program would.
fn stored(database: &rusqlite::Connection, id: &str) -> String {
    let mut row = database
        .prepare_cached("SELECT document FROM sources WHERE id = ?1")
        .expect("the table is there");
    row.query_row([format!("twitch:{id}")], |row| row.get(0))
        .unwrap_or_default()
}

fn open(path: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    rusqlite::Connection::open_with_flags(path, flags).expect("the store is there")
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn push(twitch: &TwitchSim) {
    // As many as an account may listen to without the broadcasters' consent: two subscriptions each, ten in all.
    const CHANNELS: u32 = 5;
    let events = setting("BENCH_EVENTS", 1_000);
    let daemon = Daemon::start(
        twitch,
        CHANNELS,
        "[schedule]\nstream = \"0 0 * * * *\"\nviewers = \"off\"\n",
    );
    daemon.until("listening", |_| {
        let state = twitch.eventsub_state().to_string();
        state.matches("\"stream.online\"").count() >= CHANNELS as usize
            && state.matches("\"stream.offline\"").count() >= CHANNELS as usize
    });
    daemon.until("everything told", |daemon| {
        daemon.metric("bitbrat_sources") >= f64::from(CHANNELS)
            && daemon.metric("bitbrat_outbox_events") == 0.0
    });
    let database = open(&daemon.home.path().join("state/bitbrat.db"));
    let mut taken: Vec<Duration> = Vec::new();
    let mut streams: BTreeMap<u32, u32> = BTreeMap::new();
    for event in 0..events {
        let id = FIRST + event % CHANNELS;
        let count = streams.entry(id).or_default();
        let live = count.is_multiple_of(2);
        *count += 1;
        let stream = format!("7{id}{:05}", *count);
        let begun = Instant::now();
        if live {
            let spec = StreamSpec {
                stream_id: Some(stream.clone()),
                ..StreamSpec::default()
            };
            twitch.go_live_with(&id.to_string(), &spec);
        } else {
            twitch.end_stream(&id.to_string());
        }
        let wanted = if live {
            "\"streamStatus\":\"ONLINE\""
        } else {
            "\"streamStatus\":\"OFFLINE\""
        };
        loop {
            let document = stored(&database, &id.to_string());
            if document.contains(wanted) && (!live || document.contains(&stream)) {
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "event {event} was never stored: {document}"
            );
            std::thread::sleep(Duration::from_micros(200));
        }
        taken.push(begun.elapsed());
        // A pause of its own length, so that no rhythm of the daemon is met again and again.
        std::thread::sleep(Duration::from_micros(u64::from(event * 7_919 % 23_000)));
    }
    taken.sort_unstable();
    let at = |percent: usize| taken[(taken.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!(
        "push to stored: {events} stream.online and stream.offline events over {CHANNELS} channels, from the moment that the \
         simulated Twitch sends one over its websocket until another connection reads the changed document in SQLite"
    );
    println!(
        "  p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}
