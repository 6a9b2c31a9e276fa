//! `bitbrat watch` as a process with a simulated Kick and Discord that push: pushes are stored without a poll, forged ones are
//! rejected, and the next process resumes a killed process's session.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use bitbrat::sim::discord::{ChannelSpec, GuildSpec, MessageSpec};
use bitbrat::sim::kick::{KickChatSpec, KickStreamSpec};
use bitbrat::sim::{Sim, SimOptions};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{Home, process};

const PATIENCE: Duration = Duration::from_secs(90);
const CHANNEL: u64 = 7_001;
const GUILD: u64 = 9_001;
const OTHER_GUILD: u64 = 9_002;
const TOKEN: &str = "watched.secret-part.token";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Runtime::new().unwrap()
});

/// A simulated Kick and Discord, and a home that monitors them.
struct World {
    sim: Sim,
    home: Home,
}

impl World {
    fn new() -> Self {
        let _in_runtime = RUNTIME.enter();
        let sim = RUNTIME.block_on(Sim::start(SimOptions::default())).unwrap();
        sim.kick.add_app("app", "kick-secret-part");
        sim.kick.add_channel(CHANNEL, "ada");
        sim.discord.add_bot(4_001, "bitbrat", TOKEN, 0);
        // This test is about two starts within seconds.
        sim.discord.knobs(|knobs| knobs.identify_window_ms = 0);
        for id in [GUILD, OTHER_GUILD] {
            sim.discord.put_guild(&GuildSpec {
                id,
                ..GuildSpec::default()
            });
            sim.discord.put_channel(&ChannelSpec {
                guild: id,
                id: id * 10,
                ..ChannelSpec::default()
            });
        }
        let kick = sim.kick.urls();
        // Once a year: after the probes at the start, every change was pushed.
        let seldom = "0 0 0 1 1 *";
        let toml = format!(
            "[web]\nlisten = \"127.0.0.1:0\"\n[store]\nheartbeat = \"1s\"\n[schedule]\nstream = \"{seldom}\"\nviewers = \"{seldom}\"\nauth = \"{seldom}\"\n\
             connection = \"{seldom}\"\npermissions = \"{seldom}\"\n\
             [[source]]\nplatform = \"kick\"\nid = \"{CHANNEL}\"\n\
             [[source]]\nplatform = \"discord\"\nid = \"{GUILD}\"\n\
             [[source]]\nplatform = \"discord\"\nid = \"{OTHER_GUILD}\"\n"
        );
        let home = Home::new()
            .env("BITBRAT_KICK__AUTH_URL", &kick.auth)
            .env("BITBRAT_KICK__API_URL", &kick.api)
            .env("KICK_CLIENT_ID", "app")
            .env("KICK_CLIENT_SECRET", "kick-secret-part")
            .env("BITBRAT_KICK__WEBHOOK", "true")
            .env("BITBRAT_DISCORD__API_URL", &sim.discord.api_url())
            .env("DISCORD_BOT_TOKEN", TOKEN)
            .env("BITBRAT_DISCORD__GATEWAY", "true")
            .file("bitbrat.toml", &toml);
        Self { sim, home }
    }

    /// Starts the daemon and waits until both listeners have proof that they receive events.
    fn watch(&self) -> Daemon {
        let daemon = Daemon::start(&self.home);
        let _in_runtime = RUNTIME.enter();
        let url = format!("http://{}/webhooks/kick", daemon.address);
        self.sim.kick.set_webhook_url(Some(&url));
        daemon.until("/readyz", |status, _| status == 200);
        daemon
    }
}

/// The daemon, killed with the test.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(home: &Home) -> Self {
        let mut child = home
            .command(&["watch", "--color", "never"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                assert!(!line.contains("secret-part"), "a secret is told: {line}");
                // Output is not read any more once the address is known.
                let _ = sender.send(line);
            }
        });
        let until = Instant::now() + PATIENCE;
        let address = loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(left).expect("it tells where it serves pages");
            if let Some((_, address)) = line.split_once("Serving pages at http://") {
                break address.split('/').next().unwrap().to_owned();
            }
        };
        Self { child, address }
    }

    fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> Option<(u16, String)> {
        process::ask(&self.address, method, path, more, body)
    }

    /// Requests a page until `good` returns true.
    #[track_caller]
    fn until(&self, path: &str, good: impl Fn(u16, &str) -> bool) -> String {
        process::until(&self.address, path, good)
    }

    /// Waits until a source shows this.
    #[track_caller]
    fn shows(&self, key: &str, good: impl Fn(&Value) -> bool) -> Value {
        let find = |body: &str| source(body, key);
        let body = self.until("/api/v1/sources", |status, body| {
            status == 200 && find(body).is_some_and(|source| good(&source))
        });
        find(&body).unwrap()
    }

    fn listener(&self, platform: &str, name: &str) -> Value {
        let (_, body) = self
            .ask("GET", &format!("/_debug/{platform}/{name}"), "", "")
            .unwrap();
        serde_json::from_str(&body).unwrap()
    }

    fn end(mut self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds a source on the page of all sources.
fn source(body: &str, key: &str) -> Option<Value> {
    let page: Value = serde_json::from_str(body).ok()?;
    let items = page["items"].as_array()?;
    items.iter().find(|item| item["key"] == key).cloned()
}

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn signed_kick_webhook_is_stored_and_forged_one_is_not() {
    let world = World::new();
    let daemon = world.watch();
    let kick = &world.sim.kick;
    let key = "kick:7001";
    daemon.shows(key, |source| source["streamStatus"] == "OFFLINE");
    assert_eq!(
        kick.subscriptions().as_array().unwrap().len(),
        3,
        "reconciled at the start"
    );

    // The list of live streams lags by ten minutes, so that no poll can have shown it.
    let lag_ms = Some(600_000);
    let stream = KickStreamSpec {
        lag_ms,
        ..KickStreamSpec::default()
    };
    let started = RUNTIME
        .block_on(async { kick.go_live_with(CHANNEL, &stream) })
        .unwrap();
    let online = daemon.shows(key, |source| source["streamStatus"] == "ONLINE");
    // Kick writes whole seconds, the document milliseconds.
    let start = started.trim_end_matches('Z');
    assert!(online.to_string().contains(start), "{online}");
    RUNTIME.block_on(async { kick.chat(CHANNEL, &KickChatSpec::default()) });
    daemon.shows(key, |source| source["metrics"]["messagesIn"] == 1);

    let forge = || {
        RUNTIME.block_on(async {
            kick.knobs(|knobs| knobs.webhooks.bad_signature = true);
            kick.end_stream_with(CHANNEL, lag_ms, false);
        });
    };
    forge();
    eventually("the forged one was delivered", || {
        daemon.listener("kick", "webhook")["forged"] == 1
    });
    let by_hand = daemon.ask(
        "POST",
        "/webhooks/kick",
        "Kick-Event-Type: livestream.status.updated\r\n",
        "{\"is_live\":false}",
    );
    assert_eq!(by_hand.unwrap().0, 401);
    let after = daemon.shows(key, |_| true);
    assert_eq!(after["streamStatus"], "ONLINE", "nothing is stored of it");
    assert_eq!(daemon.listener("kick", "webhook")["forged"], 2);
    // The daemon counts it before the simulator has the response.
    eventually("the simulator was refused", || {
        let deliveries = kick.deliveries();
        deliveries.last().unwrap().status == Some(401)
    });

    daemon.end("-TERM");
    let status = world.home.run(&["sources", "status", "-o", "json"]);
    let stored = status.item("key", key);
    assert_eq!(stored["streamStatus"], "ONLINE");
    assert_eq!(stored["metrics"]["messagesIn"], 1);
    assert_eq!(stored["status"], "DISCONNECTED", "it said goodbye");
}

#[test]
fn discord_gateway_pushes_and_session_survives_a_kill() {
    let world = World::new();
    let discord = &world.sim.discord;
    let (guild, other) = ("discord:9001", "discord:9002");
    let say = |count| {
        RUNTIME.block_on(async {
            discord.send_messages(&MessageSpec {
                channel: GUILD * 10,
                count,
                ..MessageSpec::default()
            })
        });
    };
    let daemon = world.watch();
    for key in [guild, other] {
        daemon.shows(key, |source| {
            source["status"] == "CONNECTED" && source["authStatus"] == "VALID"
        });
    }
    daemon.until("/_debug/discord/gateway", |_, body| {
        body.contains("\"state\":\"CONNECTED\"") && body.contains("\"available\":2")
    });

    RUNTIME.block_on(async { discord.remove_guild(OTHER_GUILD) });
    daemon.shows(other, |source| {
        source["status"] == "ERROR" && source["lastError"]["code"] == "discord.not_found"
    });
    RUNTIME.block_on(async { discord.set_outage(GUILD, true) });
    daemon.shows(guild, |source| {
        source["status"] == "DISCONNECTED" && source["lastError"]["code"] == "discord.guild_unavailable"
    });
    RUNTIME.block_on(async { discord.set_outage(GUILD, false) });
    daemon.shows(guild, |source| source["status"] == "CONNECTED");
    say(3);
    daemon.shows(guild, |source| source["metrics"]["messagesIn"] == 3);
    let kept = world.home.state().join("discord-session.json");
    eventually("the session is kept", || kept.exists());

    daemon.end("-KILL");
    eventually("the socket is gone", || discord.live_sessions() == 0);
    say(2);
    let daemon = world.watch();
    daemon.shows(guild, |source| {
        source["status"] == "CONNECTED" && source["metrics"]["messagesIn"] == 5
    });
    let counts = discord.gateway_counts();
    assert_eq!(
        (counts.identifies, counts.resumes),
        (1, 1),
        "taken up, not begun anew"
    );
    assert_eq!(daemon.listener("discord", "gateway")["resumes"], 1);

    RUNTIME.block_on(async { discord.reset_token(4_001, true) });
    daemon.shows(guild, |source| {
        source["authStatus"] == "REVOKED" && source["status"] == "ERROR"
    });
    let unready = daemon.until("/readyz", |status, _| status == 503);
    assert!(unready.contains("discord-gateway"), "{unready}");
    let calls = discord.host().journal().total();
    world.home.run(&["probe", guild]).exits(4);
    assert_eq!(
        discord.host().journal().total(),
        calls,
        "another process knows that the token is dead"
    );
}

#[test]
fn one_shot_commands_open_no_socket() {
    let world = World::new();
    let home = &world.home;
    for words in [
        &["watch", "--once"][..],
        &["probe"],
        &["sources", "status", "--probe"],
        &["sources", "can", "discord:9001", "SEND_MESSAGES"],
        &[
            "sources",
            "wait",
            "discord:9001",
            "--for",
            "connected",
            "--timeout",
            "30s",
        ],
        &["auth", "status"],
    ] {
        home.run(words).never_panics();
    }
    let counts = world.sim.discord.gateway_counts();
    assert_eq!((counts.connections, counts.identifies), (0, 0));
    // `doctor` opens the same connections as the daemon, and uses up no session.
    let run = home.run(&["doctor", "discord", "-o", "json"]).never_panics();
    assert_eq!(run.item("name", "gateway")["outcome"], "OK", "{}", run.stdout);
    assert_eq!(world.sim.discord.gateway_counts().identifies, 0);
    assert!(world.sim.discord.host().journal().total() > 0, "they did look");
    assert_eq!(world.sim.kick.subscriptions().as_array().unwrap().len(), 0);
}
