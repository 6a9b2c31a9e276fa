//! Under a service manager: the messages that it receives, and whether the units that we ship agree with the program.

use std::os::unix::net::UnixDatagram;

use crate::support::process::{PATIENCE, Process, Sim, toml};

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    /// Waits for a message that contains `text`.
    #[track_caller]
    fn hears(&self, text: &str) -> String {
        let mut message = [0; 4096];
        loop {
            let length = self
                .0
                .recv(&mut message)
                .unwrap_or_else(|error| panic!("{text} was never told: {error}"));
            let said = String::from_utf8_lossy(&message[..length]).into_owned();
            if said.contains(text) {
                return said;
            }
        }
    }
}

#[test]
fn service_manager_receives_ready_watchdog_reload_and_stopping() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001"]);
    let path = home.work().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let manager = Manager(socket);
    let mut command = home.command(&["watch", "--color", "never"]);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "6000000");
    let mut daemon = Process::spawn(&mut command);
    assert!(manager.hears("READY=1").contains("STATUS=watching 1 source\n"));
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
    let _home = home.file("bitbrat.toml", &toml(&["twitch:777001", "twitch:777002"]));
    daemon.signal("-HUP");
    manager.hears("STATUS=watching 2 sources");
    daemon.signal("-TERM");
    manager.hears("STOPPING=1");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
}

#[test]
fn systemd_units_start_watch_and_use_notify() {
    for unit in [
        include_str!("../../scripts/systemd/bitbrat-watch.service"),
        include_str!("../../scripts/systemd/bitbrat-watch-user.service"),
    ] {
        let value = |key: &str| {
            let line = unit
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {key}"))
        };
        assert_eq!(value("Type"), "notify");
        assert!(value("ExecStart").ends_with("watch"));
        // Minimal systems have a shell, whose `kill` is a part of it, but no program of that name.
        assert_eq!(value("ExecReload"), "/bin/sh -c 'kill -HUP ${MAINPID}'");
        let seconds: u32 = value("WatchdogSec").parse().unwrap();
        assert!(seconds >= 30, "a busy machine is not a dead daemon");
        let stop: u32 = value("TimeoutStopSec").parse().unwrap();
        assert!(stop > 10, "longer than the grace period");
    }
}

#[test]
fn containerfile_copies_existing_files_and_stubs_all_targets() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (manifest, container) = (
        include_str!("../../Cargo.toml"),
        include_str!("../../Containerfile"),
    );
    let copied = container
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--from"));
    for line in copied {
        let words: Vec<&str> = line.split(' ').collect();
        for file in &words[..words.len() - 1] {
            assert!(root.join(file).exists(), "{file}");
        }
    }
    // Cargo rejects a manifest of which a target is missing, so the layer of dependencies needs them all.
    let benches = manifest.split("[[bench]]\nname = \"").skip(1);
    let benches = benches.filter_map(|rest| Some(format!("benches/{}.rs", rest.split('"').next()?)));
    let paths = manifest.lines().filter_map(|line| line.strip_prefix("path = \""));
    let paths = paths.map(|path| path.trim_end_matches('"').to_owned());
    let targets: Vec<String> = benches.chain(paths).collect();
    assert!(targets.len() > 3, "{targets:?}");
    for target in targets {
        assert!(container.contains(&target), "{target} has no stand-in");
    }
}
