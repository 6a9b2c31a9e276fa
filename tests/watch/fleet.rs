//! Four members of a fleet on one host, killed at random while streams start and end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitbrat::clock::Chance;
use bitbrat::core::facet::Facet;
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::transition::Transition;
use bitbrat::sim::twitch::{ChannelSpec, TokenSpec};
use bitbrat::sim::{Sim, SimOptions};
use bitbrat::store::SourceStore as _;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::Value;

use crate::support::{Home, Run};

const CLIENT: &str = "fleetclient0simulated0000000000";
const SECRET: &str = "fleetsecret0simulated0000000000";
const BOT: &str = "900100";
const MEMBERS: usize = 4;
const SOURCES: usize = 400;
const TTL: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(120);
/// Members killed, one after the other.
const KILLS: usize = 4;
/// Streams that start while a member is dead.
const CHANGES: usize = 12;

/// A daemon with a state directory of its own; store and leases are shared.
struct MemberProcess {
    home: Home,
    child: Option<Child>,
}

impl MemberProcess {
    fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.log())
            .unwrap();
        let mut command = self.home.command(&["watch", "--color", "never"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn log(&self) -> PathBuf {
        self.home.work().join("daemon.log")
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    fn end(&mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        let status = self.child.take().unwrap().wait().unwrap();
        status.code()
    }
}

impl Drop for MemberProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(30).collect();
            #[expect(clippy::print_stderr, reason = "the log of a member says why a test failed")]
            {
                eprintln!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

struct Fleet {
    _runtime: tokio::runtime::Runtime,
    sim: Sim,
    shared: tempfile::TempDir,
    members: Vec<MemberProcess>,
}

fn channels() -> Vec<String> {
    (0..SOURCES).map(|index| (910_000 + index).to_string()).collect()
}

fn populate(sim: &Sim) -> String {
    let twitch = &sim.twitch;
    twitch.add_client(CLIENT, Some(SECRET));
    for id in channels().iter().map(String::as_str).chain([BOT]) {
        twitch.put_channel(ChannelSpec {
            id: id.to_owned(),
            login: Some(format!("channel_{id}")),
            name: Some(format!("Channel_{id}")),
            ..ChannelSpec::default()
        });
    }
    let pair = twitch.issue_token(TokenSpec {
        client_id: CLIENT.to_owned(),
        user_id: Some(BOT.to_owned()),
        scopes: ["user:read:chat".to_owned()].into(),
        expires_in: Some(86_400),
        access: None,
        refresh: None,
    });
    format!("{}\n{}\n", pair.access, pair.refresh.unwrap_or_default())
}

fn configuration(sim: &Sim, shared: &Path) -> String {
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut set = |path: &str, value: &str| {
        let (section, key) = path.split_once('.').unwrap();
        let lines = sections.entry(section.to_owned()).or_default();
        lines.push(format!("{key} = {value:?}"));
    };
    for (path, value) in sim.addresses(PlatformName::Twitch) {
        set(path, &value);
    }
    let store = format!("sqlite:{}", shared.join("bitbrat.db").display());
    let tokens = format!("file:{}", shared.join("tokens.json").display());
    for (path, value) in [
        ("twitch.client_id", CLIENT),
        ("twitch.bot_user_id", BOT),
        ("schedule.connection", "*/3 * * * * *"),
        ("schedule.stream", "*/3 * * * * *"),
        ("schedule.viewers", "off"),
        ("schedule.permissions", "off"),
        ("schedule.jitter", "0s"),
        ("store.url", &store),
        ("tokens.url", &tokens),
        ("fleet.name", "tests"),
        ("fleet.ttl", "6s"),
        ("web.listen", "off"),
    ] {
        set(path, value);
    }
    let mut text = String::new();
    for (section, lines) in sections {
        writeln!(text, "[{section}]\n{}\n", lines.join("\n")).unwrap();
    }
    text = text.replacen("[twitch]\n", "[twitch]\neventsub = false\n", 1);
    for id in channels() {
        writeln!(text, "[[source]]\nplatform = \"twitch\"\nid = \"{id}\"").unwrap();
    }
    text
}

impl Fleet {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let options = SimOptions {
            chance: Chance::seeded(46),
            ..SimOptions::default()
        };
        let sim = runtime.block_on(Sim::start(options)).unwrap();
        let token = populate(&sim);
        let shared = tempfile::tempdir().unwrap();
        let text = configuration(&sim, shared.path());
        let members = (0..MEMBERS).map(|_| MemberProcess {
            home: Home::new()
                .file("bitbrat.toml", &text)
                .env("TWITCH_CLIENT_SECRET", SECRET),
            child: None,
        });
        let mut fleet = Self {
            _runtime: runtime,
            sim,
            shared,
            members: members.collect(),
        };
        fleet.log_in(&token);
        fleet.members.iter_mut().for_each(MemberProcess::start);
        fleet
    }

    fn log_in(&self, token: &str) {
        let words = ["auth", "login", "twitch", "--with-token"];
        self.members[0].home.run_with(&words, token).exits(0);
    }

    fn status(&self) -> Vec<Value> {
        let run: Run = self.members[0].home.run(&["fleet", "status", "-o", "json"]);
        let json: Value = serde_json::from_str(&run.stdout).unwrap_or_default();
        json["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until this number of members have divided all sources, and returns how long that took.
    fn covers(&self, members: usize) -> Duration {
        let begun = Instant::now();
        loop {
            let status = self.status();
            let sources: u64 = status.iter().filter_map(|item| item["sources"].as_u64()).sum();
            let shards: u64 = status.iter().filter_map(|item| item["shards"].as_u64()).sum();
            let active = status.iter().filter(|item| item["state"] == "active").count();
            if active == members && status.len() == members && sources == SOURCES as u64 && shards == 1024 {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "{status:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The starts (`true`) and ends of each source's streams, in order.
    fn histories(&self) -> BTreeMap<String, Vec<(bool, Option<String>)>> {
        let streams = |history: Vec<Transition>| {
            let changes = history.into_iter().filter(|transition| !transition.initial);
            changes
                .map(|transition| (transition.to.as_deref() == Some("ONLINE"), transition.stream_id))
                .collect()
        };
        let all = self.transitions().into_iter();
        all.map(|(id, history)| (id, streams(history))).collect()
    }

    /// Waits until each source has been checked once.
    fn has_checked_all(&self) {
        let begun = Instant::now();
        while self.transitions().values().any(Vec::is_empty) {
            assert!(begun.elapsed() < PATIENCE, "some sources are never checked");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The changes of each source's stream in the history, oldest first.
    fn transitions(&self) -> BTreeMap<String, Vec<Transition>> {
        let path = self.shared.path().join("bitbrat.db");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = SqliteStore::open_read_only(&path, SqliteOptions::default())
                .await
                .unwrap();
            let mut all = BTreeMap::new();
            for id in channels() {
                let key: SourceKey = format!("twitch:{id}").parse().unwrap();
                let mut history = store.history(&key, 1_000).await.unwrap();
                history.reverse();
                let streams = history
                    .into_iter()
                    .map(|entry| entry.transition)
                    .filter(|transition| transition.facet == Facet::Stream);
                all.insert(id, streams.collect());
            }
            all
        })
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "shown when it is run by hand")]
fn killed_members_of_a_fleet_lose_and_repeat_no_transition() {
    let mut fleet = Fleet::start();
    fleet.covers(MEMBERS);
    fleet.has_checked_all();
    let mut chance = fastrand::Rng::with_seed(15);
    let ids = channels();
    let mut started: BTreeMap<String, String> = BTreeMap::new();
    let mut ended: BTreeSet<String> = BTreeSet::new();
    for round in 0..KILLS {
        let victim = chance.usize(..MEMBERS);
        fleet.members[victim].end("-KILL");
        let earlier: Vec<String> = started.keys().cloned().collect();
        for _ in 0..CHANGES {
            let id = &ids[chance.usize(..SOURCES)];
            if !started.contains_key(id) {
                let stream = fleet.sim.twitch.go_live(id).unwrap();
                started.insert(id.clone(), stream.id);
            }
        }
        if round == 1 {
            // Those of the first round, while a member is dead.
            ended = earlier.into_iter().take(CHANGES / 2).collect();
            for id in &ended {
                fleet.sim.twitch.end_stream(id).unwrap();
            }
        }
        let covered = fleet.covers(MEMBERS - 1);
        eprintln!("round {round}: covered again after {covered:?}, with leases of {TTL:?}");
        fleet.members[victim].start();
        fleet.covers(MEMBERS);
        // A stream that ends before any member has asked about it leaves no trace.
        fleet.has_recorded(&started, &ended);
    }
    // One leaves in an orderly way: the others take over without waiting for its lease.
    assert_eq!(fleet.members[1].end("-TERM"), Some(0));
    let handed_over = fleet.covers(MEMBERS - 1);
    eprintln!("drained: covered again after {handed_over:?}");
    fleet.has_recorded(&started, &ended);
}

impl Fleet {
    /// Waits until every start and end is recorded, and checks that none is recorded twice.
    fn has_recorded(&self, started: &BTreeMap<String, String>, ended: &BTreeSet<String>) {
        let begun = Instant::now();
        loop {
            let mut missing = Vec::new();
            for (id, recorded) in self.histories() {
                let starts: Vec<_> = recorded.iter().filter(|(is_start, _)| *is_start).collect();
                let ends = recorded.len() - starts.len();
                assert!(starts.len() <= 1 && ends <= 1, "{id}: {recorded:?}");
                let stream = starts.first().and_then(|(_, stream)| stream.as_ref());
                assert!(
                    stream.is_none() || stream == started.get(&id),
                    "{id}: {recorded:?}"
                );
                // The first check of a source that was live by then is no transition.
                if stream != started.get(&id) || (ends == 1) != ended.contains(&id) {
                    missing.push((id, recorded));
                }
            }
            if missing.is_empty() {
                return;
            }
            // A stream that polls miss has ended after a minute.
            assert!(begun.elapsed() < PATIENCE, "{missing:#?}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
