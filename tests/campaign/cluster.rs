//! One simulated internet, one home directory and one daemon in it, each with a clock that can be set.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitbrat::clock::Chance;
use bitbrat::core::source::PlatformName;
use bitbrat::sim::discord::{ChannelSpec as DiscordChannel, GuildSpec};
use bitbrat::sim::kick::{KickChannelSpec, KickTokenSpec};
use bitbrat::sim::twitch::{ChannelSpec, Role, TokenSpec};
use bitbrat::sim::{Host, Sim, SimOptions};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{Home, ReservedPort, Run};

const TWITCH_CLIENT: &str = "campaignclient0simulated000000";
const TWITCH_BOT: &str = "900100";
pub const KICK_CLIENT: &str = "01CAMPAIGN0KICK0APP0SIMUL0";
pub const KICK_BOT: u64 = 900_100;
pub const DISCORD_BOT: u64 = 900_100;
const SECRET: &str = "campaignsecret0simulated000000";

/// Twitch channels; the first two have authorized the application, so that their starts and ends are pushed.
pub const CHANNELS: [&str; 4] = ["900001", "900002", "900003", "900004"];
pub const KICKS: [u64; 2] = [900_201, 900_202];
pub const GUILDS: [u64; 2] = [900_301, 900_302];

/// Returns the stage channel of a guild.
pub fn stage_of(guild: u64) -> u64 {
    guild * 10 + 1
}

/// The parts of one story.
pub struct Cluster {
    /// Runs the simulated platforms.
    _runtime: Runtime,
    pub sim: Sim,
    home: Home,
    daemon: Option<Child>,
    preload: PathBuf,
    /// How far simulated time has been moved ahead, in seconds.
    moved: i64,
    /// How far the daemon's clock is off, in seconds.
    pub clock_error: i64,
    /// Standard error of the daemons of this story.
    log: PathBuf,
    _port: ReservedPort,
}

impl Cluster {
    pub fn new(seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let options = SimOptions {
            chance: Chance::seeded(seed),
            ..SimOptions::default()
        };
        let sim = runtime.block_on(Sim::start(options)).unwrap();
        let port = ReservedPort::new();
        populate(&sim, port.number);
        let home = configure(&sim, port.number);
        let log = home.work().join("daemon.log");
        let cluster = Self {
            _runtime: runtime,
            sim,
            home,
            daemon: None,
            preload: libfaketime(),
            moved: 0,
            clock_error: 0,
            log,
            _port: port,
        };
        cluster.set_clock_file();
        cluster
    }

    pub fn host(&self, platform: PlatformName) -> &Host {
        self.sim.host(platform)
    }

    pub fn state(&self) -> PathBuf {
        self.home.state()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Moves time ahead for the platforms and the daemon alike.
    pub fn advance(&mut self, seconds: i64) {
        self.moved += seconds;
        // The daemon first: if it were behind for a moment, a platform's responses would be from its future.
        self.set_clock_file();
        self.sim.clock.advance(seconds * 1_000);
    }

    /// Sets how far the clock of the daemon's machine is off.
    pub fn set_clock_error(&mut self, seconds: i64) {
        self.clock_error = seconds;
        self.set_clock_file();
    }

    fn set_clock_file(&self) {
        let path = self.clock_path();
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, format!("{:+}\n", self.moved + self.clock_error)).unwrap();
        std::fs::rename(fresh, path).unwrap();
    }

    fn clock_path(&self) -> PathBuf {
        self.home.work().join("clock")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.home.command(words);
        command
            .env("LD_PRELOAD", &self.preload)
            .env("FAKETIME_TIMESTAMP_FILE", self.clock_path())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }

    /// Runs a command to its end, for a minute at most.
    pub fn run(&self, words: &[&str], input: &str) -> Run {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input may have exited already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let id = child.id().to_string();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let guard = std::thread::spawn(move || {
            if receiver.recv_timeout(Duration::from_secs(60)).is_err() {
                let _ = Command::new("kill").args(["-9", &id]).status();
            }
        });
        let output = child.wait_with_output().unwrap();
        let _ = sender.send(());
        guard.join().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Returns the items of a JSON report, or why there are none.
    pub fn items(&self, words: &[&str]) -> Result<Vec<Value>, String> {
        let run = self.run(&[words, &["-o", "json"]].concat(), "");
        let json: Value = serde_json::from_str(&run.stdout).map_err(|error| {
            format!(
                "{words:?} exits {} without JSON ({error}): {}",
                run.code, run.stderr
            )
        })?;
        Ok(json["items"].as_array().cloned().unwrap_or_default())
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.daemon.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    pub fn start_daemon(&mut self) {
        if self.is_running() {
            return;
        }
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log)
            .unwrap();
        let child = self
            .command(&["watch", "--color", "never"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
    }

    pub fn signal(&self, name: &str) {
        if let Some(daemon) = &self.daemon {
            let _ = Command::new("kill")
                .args([name, &daemon.id().to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// Ends the daemon: with `-TERM` as an operator does, with `-KILL` as a crash does.
    pub fn end_daemon(&mut self, signal: &str) {
        self.signal(signal);
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if daemon.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
    }

    /// Logs in the bot of a platform with a new token, as an operator does.
    pub fn log_in(&self, platform: PlatformName) -> Run {
        let token = match platform {
            PlatformName::Twitch => twitch_token(
                &self.sim,
                TWITCH_BOT,
                &["user:read:chat", "user:read:moderated_channels"],
            ),
            PlatformName::Kick => kick_token(&self.sim),
            PlatformName::Discord => self.sim.discord.reset_token(DISCORD_BOT, true).unwrap(),
        };
        self.run(&["auth", "login", platform.as_str(), "--with-token"], &token)
    }

    /// Logs in everything that the story starts with.
    pub fn log_in_all(&self) {
        for platform in PlatformName::ALL {
            self.log_in(platform).exits(0);
        }
    }

    pub fn revoke(&self, platform: PlatformName) {
        match platform {
            PlatformName::Twitch => self.sim.twitch.disconnect(TWITCH_BOT),
            PlatformName::Kick => self.sim.kick.disconnect(Some(KICK_BOT)),
            PlatformName::Discord => {
                self.sim.discord.reset_token(DISCORD_BOT, true);
            }
        }
    }
}

/// Returns paths of requests that may fail.
pub fn paths(platform: PlatformName) -> &'static [&'static str] {
    match platform {
        PlatformName::Twitch => &[
            "/helix",
            "/oauth2",
            "/helix/streams",
            "/helix/users",
            "/helix/eventsub",
        ],
        PlatformName::Kick => &[
            "/public",
            "/oauth",
            "/public/v1/livestreams",
            "/public/v1/channels",
        ],
        PlatformName::Discord => &["/api", "/api/v10/users/@me", "/api/v10/guilds"],
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn populate(sim: &Sim, port: u16) {
    let twitch = &sim.twitch;
    twitch.add_client(TWITCH_CLIENT, Some(SECRET));
    for id in CHANNELS.iter().chain([&TWITCH_BOT]) {
        twitch.put_channel(ChannelSpec {
            id: (*id).to_owned(),
            login: Some(format!("channel_{id}")),
            name: Some(format!("Channel_{id}")),
            ..ChannelSpec::default()
        });
    }
    twitch.set_role(CHANNELS[0], TWITCH_BOT, Role::Moderator, true);
    for id in &CHANNELS[..2] {
        // Having authorized the application makes subscriptions to a channel free of cost.
        twitch_token(sim, id, &["channel:bot"]);
    }
    let kick = &sim.kick;
    kick.add_app(KICK_CLIENT, SECRET);
    for id in KICKS.iter().chain([&KICK_BOT]) {
        kick.put_channel(KickChannelSpec {
            id: *id,
            slug: Some(format!("kick-{id}")),
            name: Some(format!("Kick_{id}")),
            ..KickChannelSpec::default()
        });
    }
    kick.set_webhook_url(Some(&format!("http://127.0.0.1:{port}/webhooks/kick")));
    let discord = &sim.discord;
    discord.add_bot(DISCORD_BOT, "campaign", "campaign.first.token", 565_248);
    discord.knobs(|knobs| knobs.heartbeat_interval_ms = 3_000);
    for id in GUILDS {
        discord.put_guild(&GuildSpec {
            id,
            name: Some(format!("Guild {id}")),
            ..GuildSpec::default()
        });
        discord.put_channel(&DiscordChannel {
            guild: id,
            id: stage_of(id),
            name: Some("stage".to_owned()),
            kind: 13,
            ..DiscordChannel::default()
        });
    }
}

fn twitch_token(sim: &Sim, user: &str, scopes: &[&str]) -> String {
    let pair = sim.twitch.issue_token(TokenSpec {
        client_id: TWITCH_CLIENT.to_owned(),
        user_id: Some(user.to_owned()),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_in: Some(86_400),
        access: None,
        refresh: None,
    });
    format!("{}\n{}\n", pair.access, pair.refresh.unwrap_or_default())
}

fn kick_token(sim: &Sim) -> String {
    let pair = sim.kick.issue_token(KickTokenSpec {
        client_id: KICK_CLIENT.to_owned(),
        user_id: Some(KICK_BOT),
        scopes: ["user:read", "channel:read", "events:subscribe"]
            .map(str::to_owned)
            .into(),
        expires_in: Some(86_400),
        ..KickTokenSpec::default()
    });
    format!("{}\n{}\n", pair.access, pair.refresh.unwrap_or_default())
}

fn configure(sim: &Sim, port: u16) -> Home {
    let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut set = |path: &'static str, value: &str| {
        let (section, key) = path.split_once('.').unwrap();
        sections
            .entry(section)
            .or_default()
            .push(format!("{key} = {value}"));
    };
    for platform in PlatformName::ALL {
        for (path, value) in sim.addresses(platform) {
            set(path, &format!("{value:?}"));
        }
    }
    for (path, value) in [
        ("twitch.client_id", TWITCH_CLIENT),
        ("twitch.bot_user_id", TWITCH_BOT),
        ("kick.client_id", KICK_CLIENT),
        ("discord.stream_from", "stage"),
        ("schedule.connection", "*/3 * * * * *"),
        ("schedule.stream", "*/2 * * * * *"),
        ("schedule.viewers", "*/2 * * * * *"),
        ("schedule.auth", "*/10 * * * * *"),
        ("schedule.permissions", "*/10 * * * * *"),
        ("schedule.jitter", "0s"),
        ("store.heartbeat", "1s"),
    ] {
        set(path, &format!("{value:?}"));
    }
    set("kick.bot_user_id", &format!("\"{KICK_BOT}\""));
    set("kick.webhook", "true");
    set("kick.requests_per_minute", "100");
    set("discord.gateway", "true");
    set("web.listen", &format!("\"127.0.0.1:{port}\""));
    let mut text = String::new();
    for (section, lines) in sections {
        writeln!(text, "[{section}]\n{}\n", lines.join("\n")).unwrap();
    }
    for source in sources() {
        let (platform, id) = source.split_once(':').unwrap();
        writeln!(text, "[[source]]\nplatform = \"{platform}\"\nid = \"{id}\"").unwrap();
    }
    Home::new()
        .file("bitbrat.toml", &text)
        .env("TWITCH_CLIENT_SECRET", SECRET)
        .env("KICK_CLIENT_SECRET", SECRET)
}

/// Returns every source by its id.
pub fn sources() -> Vec<String> {
    let twitch = CHANNELS.iter().map(|id| format!("twitch:{id}"));
    let kick = KICKS.iter().map(|id| format!("kick:{id}"));
    let discord = GUILDS.iter().map(|id| format!("discord:{id}"));
    twitch.chain(kick).chain(discord).collect()
}

/// Returns the library that gives one process another wall clock.
fn libfaketime() -> PathBuf {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
        "/usr/lib64/faketime/libfaketime.so.1",
    ];
    let chosen = std::env::var_os("BITBRAT_TEST_LIBFAKETIME").map(PathBuf::from);
    let found = chosen
        .into_iter()
        .chain(places.map(PathBuf::from))
        .find(|place| Path::exists(place));
    found.expect(
        "libfaketime is missing: install Debian's `faketime` (scripts/test.sh does as root), or name the library in \
         BITBRAT_TEST_LIBFAKETIME",
    )
}
