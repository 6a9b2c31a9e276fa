//! The steps of one story, decided by its seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bitbrat::core::source::PlatformName;
use bitbrat::sim::discord::GatewayAct;
use bitbrat::sim::kick::KickStreamSpec;
use bitbrat::sim::twitch::{EndSpec, Reconnect, Role, SocketAct, StreamSpec};
use bitbrat::sim::{Fault, FaultBody, WireFault};

use super::check;
use super::cluster::{CHANNELS, Cluster, paths, sources, stage_of};

/// Number of steps in one story.
const STEPS: u32 = 24;
/// How long it may take until the state after all faults is reported correctly, while simulated time passes 60 times as fast.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long logins are repeated after all faults: a platform that comes up again may refuse the first.
const LOGIN: Duration = Duration::from_secs(60);
/// How long the clock stands still, at most, for the slowest schedule to bring everything up to date.
const STANDSTILL: Duration = Duration::from_secs(25);

pub struct Story {
    pub cluster: Cluster,
    chance: fastrand::Rng,
    /// All streams so far, by source, oldest first.
    pub streams: BTreeMap<String, Vec<String>>,
    /// The stream of each source that is live, with its viewers.
    pub live: BTreeMap<String, (String, u64)>,
    revoked: Vec<PlatformName>,
    events: Vec<String>,
    start: Instant,
}

/// Runs one story; the error is its report.
pub fn run(seed: u64) -> Result<(), String> {
    let mut story = Story {
        cluster: Cluster::new(seed),
        chance: fastrand::Rng::with_seed(seed),
        streams: BTreeMap::new(),
        live: BTreeMap::new(),
        revoked: Vec::new(),
        events: Vec::new(),
        start: Instant::now(),
    };
    story.cluster.log_in_all();
    story.cluster.start_daemon();
    story.pause(2_000, 4_000);
    for _ in 0..STEPS {
        story.step();
        story.pause(50, 1_500);
    }
    story.heal();
    let problems = story.rest();
    if problems.is_empty() {
        return Ok(());
    }
    let mut report = format!("seed {seed}:\n");
    for problem in &problems {
        writeln!(report, "  {problem}").unwrap();
    }
    writeln!(report, " story:\n  {}", story.events.join("\n  ")).unwrap();
    let log = story.cluster.log();
    let lines: Vec<_> = log.lines().collect();
    let tail = &lines[lines.len().saturating_sub(40)..];
    writeln!(report, " end of the log:\n  {}", tail.join("\n  ")).unwrap();
    if let Some(directory) = std::env::var_os("BITBRAT_CAMPAIGN_LOGS") {
        let path = std::path::Path::new(&directory).join(format!("seed-{seed}.log"));
        let _ = std::fs::write(&path, format!("{report}\n{log}"));
    }
    Err(report)
}

impl Story {
    fn note(&mut self, text: impl Into<String>) {
        let at = self.start.elapsed().as_secs_f32();
        self.events.push(format!("{at:6.2} {}", text.into()));
    }

    fn pause(&mut self, least: u64, most: u64) {
        std::thread::sleep(Duration::from_millis(self.chance.u64(least..most)));
    }

    fn platform(&mut self) -> PlatformName {
        *self.chance.choice(&PlatformName::ALL).unwrap()
    }

    fn step(&mut self) {
        match self.chance.u8(0..40) {
            0..14 => self.change_a_stream(),
            14..16 => self.change_viewers(),
            16 => self.change_a_role(),
            17..22 => self.fault(),
            22..24 => self.outage(),
            24..26 => self.kill(),
            26 => self.stop(),
            27 => self.freeze(),
            28..31 => self.wrong_clock(),
            31 => self.probe(),
            32 => self.probe_with_a_wrong_clock(),
            33..35 => self.revoke_or_log_in(),
            35..37 => self.disturb_the_gateway(),
            37..39 => self.disturb_the_sockets(),
            _ => self.lock_the_store(),
        }
    }

    fn change_a_stream(&mut self) {
        let all = sources();
        let source = self.chance.choice(&all).unwrap().clone();
        let silent = self.chance.u8(0..3) == 0;
        let lag_ms = Some(self.chance.i64(0..4_000));
        let viewers = self.chance.u64(1..500);
        let (platform, id) = source.split_once(':').unwrap();
        let number: u64 = id.parse().unwrap();
        let end = self.live.remove(&source).is_some();
        if platform == "kick" && !end {
            // Kick identifies a stream by the second in which it started; two in one second would be one stream.
            std::thread::sleep(Duration::from_millis(1_100));
        }
        let sim = &self.cluster.sim;
        let started = match (platform, end) {
            ("twitch", true) => {
                sim.twitch.end_stream_with(id, &EndSpec { lag_ms, silent });
                None
            }
            ("twitch", false) => {
                let spec = StreamSpec {
                    viewers: Some(viewers),
                    lag_ms,
                    silent,
                    ..StreamSpec::default()
                };
                sim.twitch.go_live_with(id, &spec).map(|stream| stream.id)
            }
            ("kick", true) => {
                sim.kick.end_stream_with(number, lag_ms, silent);
                None
            }
            ("kick", false) => {
                let spec = KickStreamSpec {
                    viewers: Some(viewers),
                    lag_ms,
                    silent,
                    ..KickStreamSpec::default()
                };
                sim.kick.go_live_with(number, &spec)
            }
            (_, true) => {
                sim.discord.set_stage(stage_of(number), None);
                None
            }
            (_, false) => sim
                .discord
                .set_stage(stage_of(number), Some("Open stage"))
                .map(|id| id.to_string()),
        };
        let how = if silent { ", not pushed" } else { "" };
        if let Some(stream) = started {
            self.note(format!("{source} goes live with {stream}{how}"));
            self.streams
                .entry(source.clone())
                .or_default()
                .push(stream.clone());
            self.live.insert(source, (stream, viewers));
        } else {
            self.note(format!("{source} ends{how}"));
        }
    }

    fn change_viewers(&mut self) {
        let viewers = self.chance.u64(1..500);
        let all: Vec<String> = self.live.keys().cloned().collect();
        let Some(source) = self.chance.choice(&all).cloned() else {
            return;
        };
        let (platform, id) = source.split_once(':').unwrap();
        match platform {
            "twitch" => self.cluster.sim.twitch.set_viewers(id, viewers),
            "kick" => self.cluster.sim.kick.set_viewers(id.parse().unwrap(), viewers),
            _ => return,
        }
        self.live.get_mut(&source).unwrap().1 = viewers;
        self.note(format!("{source} has {viewers} viewers"));
    }

    fn change_a_role(&mut self) {
        let held = self.chance.bool();
        let channel = *self.chance.choice(&CHANNELS).unwrap();
        self.cluster
            .sim
            .twitch
            .set_role(channel, "900100", Role::Moderator, held);
        self.note(format!("moderator of twitch:{channel}: {held}"));
    }

    fn fault(&mut self) {
        let platform = self.platform();
        let status = *self.chance.choice(&[401, 403, 404, 429, 500, 502, 503]).unwrap();
        let mut fault = match self.chance.u8(0..10) {
            0..5 => Fault::status(status),
            5 => Fault::body(FaultBody::Garbage),
            6 => Fault::status(status).with_body(FaultBody::Html),
            7 => Fault::body(FaultBody::Truncated),
            8 => Fault::wire(WireFault::Reset),
            _ => Fault::body(FaultBody::CutOff),
        };
        if self.chance.bool() {
            fault.chance = Some(self.chance.f64());
        }
        if status == 429 {
            fault = fault.header("Retry-After", "1");
        }
        let fault = fault.on(self.chance.choice(paths(platform)).unwrap());
        self.note(format!("{platform} fails: {fault:?}"));
        let id = self.cluster.host(platform).faults().add(fault);
        self.pause(500, 6_000);
        if self.chance.u8(0..4) > 0 {
            self.cluster.host(platform).faults().remove(id);
            self.note(format!("{platform} answers again"));
        }
    }

    fn outage(&mut self) {
        let platform = self.platform();
        self.note(format!("{platform} is off the network"));
        self.cluster.host(platform).go_down();
        self.pause(500, 6_000);
        if self.chance.bool() {
            self.change_a_stream();
        }
        self.cluster.host(platform).come_up();
        self.note(format!("{platform} is back"));
    }

    fn kill(&mut self) {
        self.note("killed");
        self.cluster.end_daemon("-KILL");
        self.away();
    }

    fn stop(&mut self) {
        self.note("stopped");
        self.cluster.end_daemon("-TERM");
        self.away();
    }

    fn away(&mut self) {
        for _ in 0..self.chance.u8(0..3) {
            self.change_a_stream();
        }
        self.pause(0, 2_000);
        self.note("started");
        self.cluster.start_daemon();
    }

    fn freeze(&mut self) {
        self.note("paused");
        self.cluster.signal("-STOP");
        if self.chance.bool() {
            self.change_a_stream();
        }
        self.pause(500, 4_000);
        self.cluster.signal("-CONT");
        self.note("continued");
    }

    fn wrong_clock(&mut self) {
        let seconds = *self
            .chance
            .choice(&[-3_600, -900, -20, 20, 120, 900, 3_600, 86_400])
            .unwrap();
        self.note(format!("the clock is off by {seconds} s"));
        self.cluster.set_clock_error(seconds);
        self.pause(1_000, 6_000);
        if self.chance.bool() {
            self.change_a_stream();
            self.pause(500, 2_500);
        }
        self.cluster.set_clock_error(0);
        self.note("the clock is right");
    }

    fn probe(&mut self) {
        let run = self.cluster.run(&["probe"], "");
        self.note(format!("a probe exits {}", run.code));
    }

    fn probe_with_a_wrong_clock(&mut self) {
        let seconds = *self.chance.choice(&[-3_600, 3_600, 86_400]).unwrap();
        // The daemon shares the machine and thus the clock; it is stopped in the meantime.
        self.cluster.end_daemon("-TERM");
        self.cluster.set_clock_error(seconds);
        let run = self.cluster.run(&["probe"], "");
        self.note(format!(
            "a probe with a clock off by {seconds} s exits {}",
            run.code
        ));
        self.cluster.set_clock_error(0);
        self.away();
    }

    fn revoke_or_log_in(&mut self) {
        if let Some(platform) = self.revoked.pop() {
            self.log_in(platform);
        } else {
            let platform = self.platform();
            self.cluster.revoke(platform);
            self.note(format!("{platform} revokes the bot's token"));
            self.revoked.push(platform);
        }
    }

    fn log_in(&mut self, platform: PlatformName) {
        let run = self.cluster.log_in(platform);
        self.note(format!("auth login {platform} exits {}", run.code));
        if run.code != 0 {
            self.revoked.push(platform);
        }
    }

    fn disturb_the_gateway(&mut self) {
        let act = match self.chance.u8(0..6) {
            0 => GatewayAct::Reset,
            1 => GatewayAct::Reconnect,
            2 => GatewayAct::Invalid(true),
            3 => GatewayAct::Invalid(false),
            4 => GatewayAct::Freeze,
            _ => GatewayAct::Close(4000),
        };
        self.note(format!("gateway: {act:?}"));
        self.cluster.sim.discord.gateway(&act);
    }

    fn disturb_the_sockets(&mut self) {
        let act = match self.chance.u8(0..5) {
            0 => SocketAct::Reset,
            1 => SocketAct::Close(4000),
            2 => SocketAct::Freeze,
            3 => SocketAct::UnknownMessage,
            _ => {
                self.note("EventSub asks to reconnect");
                let how = Reconnect::default();
                self.cluster.sim.twitch.reconnect_sockets("", &how);
                return;
            }
        };
        self.note(format!("EventSub: {act:?}"));
        self.cluster.sim.twitch.spoil_sockets("", &act);
    }

    fn lock_the_store(&mut self) {
        let path = self.cluster.state().join("bitbrat.db");
        let Ok(database) = rusqlite::Connection::open(path) else {
            return;
        };
        if database.execute_batch("BEGIN IMMEDIATE").is_ok() {
            self.note("the store is locked");
            self.pause(200, 3_000);
            let _ = database.execute_batch("ROLLBACK");
            self.note("the store is free");
        }
    }

    /// Ends every fault: remaining errors must recover without intervention.
    fn heal(&mut self) {
        self.note("everything is healed");
        for platform in PlatformName::ALL {
            self.cluster.host(platform).faults().clear();
            self.cluster.host(platform).come_up();
        }
        self.cluster.set_clock_error(0);
        self.cluster.start_daemon();
        let until = Instant::now() + LOGIN;
        while !self.revoked.is_empty() && Instant::now() < until {
            for platform in std::mem::take(&mut self.revoked) {
                self.log_in(platform);
            }
        }
    }

    /// Lets time pass until every document matches the simulator; returns the remaining differences.
    fn rest(&mut self) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        // Longer than the delay of any rule: a pushed start outranks polls for five minutes, a pushed end for fifteen.
        for _ in 0..11 {
            self.cluster.advance(100);
            std::thread::sleep(Duration::from_millis(2_200));
        }
        loop {
            let problems = self.differences();
            if problems.is_empty() || Instant::now() > until {
                let mut problems = problems;
                problems.extend(check::histories(self));
                return problems;
            }
            self.cluster.advance(60);
        }
    }

    /// Returns what differs from the simulator once the clock stands long enough for every poller to have run: what was fresh
    /// before it was advanced is stale until then.
    fn differences(&self) -> Vec<String> {
        let until = Instant::now() + STANDSTILL;
        loop {
            let problems = check::states(self);
            if problems.is_empty() || Instant::now() > until {
                return problems;
            }
            std::thread::sleep(Duration::from_millis(1_000));
        }
    }
}
