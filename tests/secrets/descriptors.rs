//! Clients that hold connections and send nothing, against a daemon with few descriptors.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::json;

use crate::support::process::{Process, metric, page, until, world};

#[test]
fn idle_connections_never_delay_a_probe() {
    for limit in [128, 160, 256] {
        holds_with(limit);
    }
}

/// Holds connections to a daemon that may have `limit` descriptors.
fn holds_with(limit: u32) {
    let (sim, home) = world();
    let eager = "[schedule]\nstream = \"* * * * * *\"\nconnection = \"* * * * * *\"\njitter = \"0s\"\n";
    let sources: Vec<&str> = sim.sources.iter().map(String::as_str).collect();
    let toml = format!("{eager}{}", crate::support::process::toml(&sources));
    let home = home.file("bitbrat.toml", &toml);
    // Far fewer than the connections below.
    let line = format!("ulimit -n {limit}; exec \"$@\"");
    let starter = ["bash", "-c", &line, "bash"];
    let mut daemon = Process::spawn(
        home.command_through(&starter, &["watch", "--color", "never"])
            .env("PATH", std::env::var_os("PATH").unwrap_or_default()),
    );
    let address = daemon.address();
    until(&address, "/readyz", |status, _| status == 200);
    // Some send nothing, some half of a request, some send a request and do not read.
    let held: Vec<TcpStream> = (0..600)
        .filter_map(|n| {
            let mut socket = TcpStream::connect(&address).ok()?;
            let sent: &[u8] = match n % 3 {
                0 => b"",
                1 => b"GET /healthz HTTP/1.1\r\nHost: 127",
                _ => b"POST /webhooks/kick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n{",
            };
            let _ = socket.write_all(sent);
            Some(socket)
        })
        .collect();
    assert!(held.len() > 300, "{}", held.len());
    assert_eq!(page(&address, "/healthz").map(|(status, _)| status), Some(200));
    // Changes on the platforms are detected while they are held.
    sim.order("/__sim/twitch/stream_up", &json!({"id": "777002", "lag_ms": 0}));
    let transitions = metric(&address, "bitbrat_transitions_total");
    until(&address, "/api/v1/sources/twitch:777002", |status, body| {
        status == 200 && body.contains("\"ONLINE\"")
    });
    assert!(metric(&address, "bitbrat_transitions_total") >= transitions);
    let body = page(&address, "/api/v1/sources").unwrap().1;
    assert!(
        !body.contains("too_many_files") && !body.contains("network."),
        "{limit}: {body}"
    );
    drop(held);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
    let said = daemon.said();
    assert!(!said.contains("Too many open files"), "{limit}: {said}");
}
