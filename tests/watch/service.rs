//! Under a service manager: what it is told, and whether the units that we ship agree with the program.

use std::os::unix::net::UnixDatagram;

use crate::support::process::{PATIENCE, Process, Sim};

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
fn the_service_manager_hears_that_it_is_ready_alive_and_stopping() {
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
    assert!(manager.hears("READY=1").contains("STATUS=watching 1 source"));
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
    daemon.signal("-TERM");
    manager.hears("STOPPING=1");
    assert_eq!(daemon.ends(), 0, "{}", daemon.said());
}

#[test]
fn the_units_start_a_command_that_exists_and_are_ready_when_it_says_so() {
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
        assert!(value("ExecReload").contains("-HUP"));
        let seconds: u32 = value("WatchdogSec").parse().unwrap();
        assert!(seconds >= 30, "a busy machine is not a dead daemon");
        let stop: u32 = value("TimeoutStopSec").parse().unwrap();
        assert!(stop > 10, "longer than the grace period");
    }
}
