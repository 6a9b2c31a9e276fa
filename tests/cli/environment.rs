//! Environments of the program: without certificates, behind proxies, with variables of other programs, on full disks, with a bus
//! that requires credentials.

use std::net::SocketAddr;
use std::sync::LazyLock;

use tokio::runtime::Runtime;

use crate::contract::bus::servers::NatsServer;
use crate::support::certificates::Certificates;
use crate::support::process::{Process, Sim};
use crate::support::proxy::{Proxy, tls_in_front_of};
use crate::support::{Home, ReservedPort, Run};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

const CHANNEL: &str = "twitch:777001";

/// A simulator and a home that is configured for one Twitch channel of it.
fn world() -> (Sim, Home) {
    let sim = Sim::start();
    let home = sim.home(&[CHANNEL]);
    (sim, home)
}

/// Returns a setting of the simulator's `.env`.
fn setting(sim: &Sim, name: &str) -> String {
    let prefix = format!("{name}=");
    let found = sim.env.lines().find_map(|line| line.strip_prefix(&prefix));
    found
        .unwrap_or_else(|| panic!("no {name} in\n{}", sim.env))
        .trim_matches('"')
        .to_owned()
}

/// Returns the address in a setting, and the same address under another host.
fn elsewhere(sim: &Sim, name: &str, scheme: &str, host: &str) -> (SocketAddr, String) {
    let url = setting(sim, name);
    let rest = url.split_once("://").unwrap().1;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    (authority.parse().unwrap(), format!("{scheme}://{host}/{path}"))
}

/// Runs `doctor` and returns outcome and detail of one check.
#[track_caller]
fn check(home: &Home, area: &str, name: &str) -> (String, String) {
    let run = home.run(&["doctor", area, "-o", "json"]).never_panics();
    outcome(&run, name)
}

#[track_caller]
fn outcome(run: &Run, name: &str) -> (String, String) {
    let item = run.item("name", name);
    let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("detail"))
}

#[test]
fn plain_http_needs_no_ca_certificates() {
    let (_sim, home) = world();
    std::fs::write(home.work().join("empty.pem"), "").unwrap();
    std::fs::write(home.work().join("garbage.pem"), "hello\n").unwrap();
    let mut home = home;
    for (variable, value) in [
        ("SSL_CERT_FILE", "/nonexistent.pem"),
        ("SSL_CERT_FILE", "empty.pem"),
        ("SSL_CERT_FILE", "garbage.pem"),
        ("SSL_CERT_FILE", ""),
        ("SSL_CERT_DIR", "/nonexistent"),
    ] {
        home = home.env(variable, value);
        home.run(&["probe"]).never_panics().exits(0);
    }
}

#[test]
fn https_without_ca_certificates_is_a_clear_error() {
    let (_sim, home) = world();
    let home = home
        .env("SSL_CERT_FILE", "/nonexistent.pem")
        .env("BITBRAT_TWITCH__HELIX_URL", "https://127.0.0.1:1/helix")
        .env("BITBRAT_TWITCH__EVENTSUB_WS_URL", "wss://127.0.0.1:1/ws");
    let run = home.run(&["doctor", "-o", "json"]).never_panics();
    for name in ["api", "eventsub"] {
        let (outcome, detail) = outcome(&run, name);
        assert_eq!(outcome, "FAIL", "{detail}");
        assert!(detail.contains("SSL_CERT_FILE is /nonexistent.pem"), "{detail}");
    }
    assert_eq!(run.item("area", "store")["outcome"], "OK");
    // Google's libraries would panic.
    for (name, value) in [
        ("BITBRAT_BUS__URL", "pubsub:p1"),
        ("BITBRAT_STORE__URL", "firestore:p1"),
    ] {
        let home = Home::new()
            .env("SSL_CERT_FILE", "/nonexistent.pem")
            .env(name, value);
        let run = home.run(&["doctor", "bus", "store", "-o", "json"]).never_panics();
        assert!(run.stdout.contains("/nonexistent.pem"), "{}", run.stdout);
    }
}

#[test]
fn foreign_variables_do_not_stop_a_start() {
    let (_sim, home) = world();
    let home = home
        .env("BITBRAT_WEB_PORT", "tcp://10.0.0.9:80")
        .env("BITBRAT_WEB_SERVICE_HOST", "10.0.0.9")
        .env("BITBRAT_WEB_PORT_80_TCP_ADDR", "10.0.0.9")
        .env("BITBRAT_API_TOKEN", "s3cr3t")
        .env("BITBRAT_ENV", "production")
        .env("LOG_LEVEL", "verbose")
        .env("RUST_LOG", "bitbrat=loud");
    home.run(&["probe"]).exits(0);
    home.run(&["config", "check"]).exits(0);
}

#[test]
fn doctor_names_a_wrong_client_secret() {
    let (_sim, home) = world();
    let (outcome, detail) = check(&home, "twitch", "identity twitch/app");
    assert_eq!(outcome, "OK", "{detail}");
    let home = home.env("TWITCH_CLIENT_SECRET", "wrongsecret");
    let run = home.run(&["doctor", "twitch", "-o", "json"]).exits(4);
    let first = &run.json()["items"][0];
    assert_eq!(first["outcome"], "FAIL", "failures are printed first: {first}");
    let detail = run.item("name", "identity twitch/app")["detail"].to_string();
    assert!(
        detail.contains("refuses the client id or the client secret"),
        "{detail}"
    );
    assert!(!run.stdout.contains("wrongsecret"));
}

#[test]
fn wrong_client_secret_is_no_revoked_token() {
    let (_sim, home) = world();
    let home = home.env("TWITCH_CLIENT_SECRET", "wrongsecret");
    let run = home.run(&["auth", "status", "twitch"]).exits(4);
    assert!(!run.stderr.contains("revoked"), "{}", run.stderr);
    run.names_account("twitch/app cannot be used: the platform rejects the client id or secret")
        .names_account("bitbrat doctor twitch");
}

#[test]
fn doctor_opens_the_websocket_that_watch_opens() {
    let (_sim, home) = world();
    assert_eq!(check(&home, "twitch", "eventsub").0, "OK");
    let nobody = ReservedPort::new();
    let url = format!("ws://127.0.0.1:{}/ws", nobody.number);
    let home = home.env("BITBRAT_TWITCH__EVENTSUB_WS_URL", &url);
    let (outcome, detail) = check(&home, "twitch", "eventsub");
    assert_eq!(outcome, "FAIL");
    assert!(detail.contains("connection refused"), "{detail}");
}

#[test]
fn doctor_names_a_state_directory_that_cannot_be_used() {
    let home = Home::new().env("BITBRAT_STATE_DIR", "/proc/bitbrat/state");
    let run = home.run(&["doctor", "state", "-o", "json"]).exits(1);
    let (outcome_, detail) = outcome(&run, "directory");
    assert_eq!(outcome_, "FAIL");
    assert!(detail.contains("cannot be made"), "{detail}");

    let home = Home::new().env("BITBRAT_TOKENS__URL", "file:/proc/bitbrat/tokens.json");
    let (outcome_, detail) = check(&home, "tokens", "token store");
    assert_eq!(outcome_, "FAIL");
    assert!(detail.contains("no renewed token can be kept"), "{detail}");

    // No file may grow beyond 100 KiB, as on a disk that is full.
    let home = Home::new();
    let line = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
    let output = home
        .command_through(&["bash", "-c", line], &["doctor", "state", "-o", "json"])
        .output()
        .unwrap();
    let reported = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{reported}");
    assert!(
        reported.contains("cannot be written") && reported.contains("df -h"),
        "{reported}"
    );
    let (outcome, detail) = check(&home, "state", "directory");
    assert_eq!(outcome, "OK", "{detail}");
    assert_eq!(
        std::fs::read_dir(home.state()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn doctor_names_a_port_that_another_program_has() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let home = Home::new().env("BITBRAT_WEB__LISTEN", &address);
    // The process that uses the address closes every connection at once.
    std::thread::spawn(move || other.incoming().for_each(drop));
    let (outcome, detail) = check(&home, "web", "address");
    assert_eq!(outcome, "FAIL");
    assert!(detail.contains(&address), "{detail}");
}

#[test]
fn refused_nats_credentials_are_named_by_every_command() {
    let server = RUNTIME.block_on(NatsServer::start_as(
        "authorization { user: bot, password: hunter2 }",
    ));
    let url = server.url().replace("nats://", "nats://bot:wr0ng@");
    let (_sim, home) = world();
    let home = home.env("BITBRAT_BUS__URL", &url).env("BUS_PREFIX", "here.");
    let refused = "refuses our credentials";
    let (outcome, detail) = check(&home, "bus", "reachable");
    assert_eq!(outcome, "FAIL");
    assert!(detail.contains(refused), "{detail}");
    let run = home.run(&["events", "tail", "--no-progress"]).never_panics();
    assert!(run.code != 0 && run.stderr.contains(refused), "{run:?}");
    let mut daemon = Process::start(&home, &["watch", "--color", "never"]);
    let line = daemon.says(refused);
    assert!(line.contains("ERROR"), "{line}");
    assert!(!daemon.said().contains("wr0ng"));
}

#[test]
fn websockets_and_requests_go_through_the_same_proxy() {
    let (sim, home) = world();
    let (socket, socket_url) = elsewhere(&sim, "BITBRAT_TWITCH__EVENTSUB_WS_URL", "ws", "eventsub.invalid");
    let (helix, helix_url) = elsewhere(&sim, "BITBRAT_TWITCH__HELIX_URL", "http", "helix.invalid");
    let proxy = Proxy::start(
        &[("eventsub.invalid", socket), ("helix.invalid", helix)],
        Some("rat:p@ss"),
    );
    let home = home
        .env("BITBRAT_TWITCH__EVENTSUB_WS_URL", &socket_url)
        .env("BITBRAT_TWITCH__HELIX_URL", &helix_url);
    let at = proxy.address();
    let home = home.env("HTTP_PROXY", &format!("http://rat:p%40ss@{at}"));
    let run = home.run(&["doctor", "twitch", "-o", "json"]).never_panics();
    for name in ["api", "eventsub"] {
        let (outcome, detail) = outcome(&run, name);
        assert_eq!(outcome, "OK", "{name}: {detail}");
    }
    assert!(
        proxy.seen().contains(&"CONNECT eventsub.invalid:80".to_owned()),
        "{:?}",
        proxy.seen()
    );
    // The daemon opens its sockets the same way.
    let before = proxy.seen().len();
    let daemon = Process::start(&home, &["watch", "--color", "never"]);
    let until = std::time::Instant::now() + crate::support::process::PATIENCE;
    while !proxy.seen()[before..]
        .iter()
        .any(|seen| seen.starts_with("CONNECT eventsub.invalid"))
    {
        assert!(std::time::Instant::now() < until, "{:?}", proxy.seen());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(daemon);

    let home = home.env("HTTP_PROXY", &format!("http://rat:wrong@{at}"));
    let run = home.run(&["doctor", "twitch", "-o", "json"]).never_panics();
    for name in ["api", "eventsub"] {
        let (outcome, detail) = outcome(&run, name);
        assert_eq!(outcome, "FAIL");
        let named = format!("the proxy {at} requires a user and a password");
        assert!(detail.contains(&named) && !detail.contains("wrong"), "{detail}");
    }

    let before = proxy.seen().len();
    let home = home.env("NO_PROXY", "eventsub.invalid,helix.invalid");
    assert_eq!(check(&home, "twitch", "eventsub").0, "FAIL");
    assert_eq!(proxy.seen().len(), before, "what is excepted passes the proxy by");
}

#[test]
fn unreachable_proxy_is_named_without_its_password() {
    let (sim, home) = world();
    let (_, helix_url) = elsewhere(&sim, "BITBRAT_TWITCH__HELIX_URL", "http", "helix.invalid");
    let nobody = ReservedPort::new();
    let at = format!("127.0.0.1:{}", nobody.number);
    let home = home
        .env("BITBRAT_TWITCH__HELIX_URL", &helix_url)
        .env("HTTP_PROXY", &format!("http://rat:hush-proxy-1@{at}"));
    let run = home.run(&["doctor", "twitch", "-o", "json"]).never_panics();
    let (outcome, detail) = outcome(&run, "api");
    assert_eq!(outcome, "FAIL");
    assert!(
        detail.contains(&format!("the proxy {at} cannot be reached")),
        "{detail}"
    );
    assert!(detail.contains("network.proxy"), "{detail}");
    assert!(
        run.stdout.contains(&format!("curl -v -x {at} ")),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("hush-proxy-1") && !run.stderr.contains("hush-proxy-1"));
}

#[test]
fn websockets_and_requests_go_through_a_socks_proxy() {
    let (sim, home) = world();
    let (socket, socket_url) = elsewhere(&sim, "BITBRAT_TWITCH__EVENTSUB_WS_URL", "ws", "eventsub.invalid");
    let (helix, helix_url) = elsewhere(&sim, "BITBRAT_TWITCH__HELIX_URL", "http", "helix.invalid");
    let proxy = Proxy::start(&[("eventsub.invalid", socket), ("helix.invalid", helix)], None);
    let home = home
        .env("BITBRAT_TWITCH__EVENTSUB_WS_URL", &socket_url)
        .env("BITBRAT_TWITCH__HELIX_URL", &helix_url)
        .env("ALL_PROXY", &format!("socks5h://{}", proxy.address()));
    let run = home.run(&["doctor", "twitch", "-o", "json"]).never_panics();
    for name in ["api", "eventsub"] {
        let (outcome, detail) = outcome(&run, name);
        assert_eq!(outcome, "OK", "{name}: {detail}");
    }
    for host in ["SOCKS eventsub.invalid:80", "SOCKS helix.invalid:80"] {
        assert!(proxy.seen().contains(&host.to_owned()), "{:?}", proxy.seen());
    }
}

#[test]
fn certificate_errors_of_websockets_are_named_as_such() {
    let (sim, home) = world();
    let certificates = Certificates::new(&["eventsub.invalid"]);
    let (socket, socket_url) = elsewhere(&sim, "BITBRAT_TWITCH__EVENTSUB_WS_URL", "wss", "eventsub.invalid");
    let (_, other_url) = elsewhere(&sim, "BITBRAT_TWITCH__EVENTSUB_WS_URL", "wss", "other.invalid");
    let front = tls_in_front_of(socket, &certificates);
    let proxy = Proxy::start(&[("eventsub.invalid", front), ("other.invalid", front)], None);
    let trusted = certificates.path("ca.pem").display().to_string();
    let foreign = Certificates::new(&[]).path("ca.pem").display().to_string();
    let untrusted = Certificates::new(&[]);
    let mut home = home.env("HTTPS_PROXY", &format!("http://{}", proxy.address()));
    for (url, roots, expected, said) in [
        (&socket_url, trusted.clone(), "OK", "is open"),
        (
            &socket_url,
            untrusted.path("ca.pem").display().to_string(),
            "FAIL",
            "no secure connection",
        ),
        (&other_url, trusted.clone(), "FAIL", "another host"),
        (&socket_url, foreign, "FAIL", "no CA certificates could be loaded"),
    ] {
        home = home
            .env("SSL_CERT_FILE", &roots)
            .env("BITBRAT_TWITCH__EVENTSUB_WS_URL", url);
        let (outcome, detail) = check(&home, "twitch", "eventsub");
        assert_eq!(outcome, expected, "{detail}");
        assert!(detail.contains(said), "{detail}");
        assert!(expected == "OK" || detail.contains("network.tls"), "{detail}");
    }
}
