//! The daily work of an operator, against a simulated Twitch that outlives one command.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bitbrat::sim::twitch::demo::{DemoWorld, populate};
use bitbrat::sim::{Fault, Sim, SimOptions};
use tokio::runtime::Runtime;

use crate::support::process::{PATIENCE, Process};
use crate::support::{Home, mode};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Runtime::new().unwrap()
});

/// A simulated Twitch and a home that is configured for it by the environment.
struct Operator {
    sim: Sim,
    world: DemoWorld,
    home: Home,
}

impl Operator {
    fn new(sources: &str) -> Self {
        let sim = RUNTIME.block_on(Sim::start(SimOptions::default())).unwrap();
        let world = RUNTIME.block_on(async { populate(&sim.twitch) });
        let urls = sim.twitch.urls();
        let home = Home::new()
            .env("BITBRAT_TWITCH__AUTH_URL", &urls.auth)
            .env("BITBRAT_TWITCH__HELIX_URL", &urls.helix)
            .env("BITBRAT_TWITCH__EVENTSUB_WS_URL", &urls.eventsub_ws)
            .env("TWITCH_CLIENT_ID", &world.client_id)
            .env("TWITCH_CLIENT_SECRET", &world.client_secret)
            .env("BITBRAT_SOURCES", sources);
        Self { sim, world, home }
    }

    fn with_token(mut self) -> Self {
        self.home = self
            .home
            .env("TWITCH_BOT_ACCESS_TOKEN", &self.world.bot.access)
            .env("TWITCH_BOT_REFRESH_TOKEN", &self.world.bot.refresh);
        self
    }

    fn fault(&self, fault: Fault) {
        RUNTIME.block_on(async { self.sim.twitch.host().faults().add(fault) });
    }

    fn calm(&self) {
        RUNTIME.block_on(async { self.sim.twitch.host().faults().clear() });
    }
}

#[test]
fn probe_result_is_visible_to_later_commands() {
    let operator = Operator::new("twitch:777001 twitch:777002").with_token();
    let home = &operator.home;
    home.run(&["sources", "status"])
        .exits(8)
        .names_account("2 sources were not checked yet");
    home.run(&["sources", "list"])
        .exits(0)
        .shows("not yet")
        .shows("$BITBRAT_SOURCES");
    home.run(&["probe"]).exits(0).names_account("kept in sqlite:");
    let run = home.run(&["sources", "status", "-o", "json"]).exits(0);
    assert_eq!(run.item("key", "twitch:777001")["streamStatus"], "ONLINE");
    assert_eq!(run.item("key", "twitch:777001")["configured"], true);
    home.run(&["sources", "is-live", "twitch:777001"]).exits(0);
    let history = home
        .run(&["sources", "history", "twitch:777001", "-o", "json"])
        .exits(0);
    assert_eq!(history.item("facet", "stream")["to"], "ONLINE");
    assert_eq!(mode(&home.state()), 0o700);
}

#[test]
fn a_name_is_resolved_once_and_remembered() {
    let operator = Operator::new("twitch:quietharbor twitch:nobodyhere").with_token();
    let home = &operator.home;
    home.run(&["sources", "status"]).exits(8).shows("unresolved");
    let run = home.run(&["sources", "status", "--probe", "-o", "json"]).exits(8);
    assert_eq!(run.item("key", "twitch:777002")["displayName"], "QuietHarbor");
    assert_eq!(run.json()["unusable"][0]["id"], "twitch:nobodyhere");
    operator.fault(Fault::status(500));
    home.run(&["sources", "describe", "twitch:777002"])
        .exits(0)
        .shows("QuietHarbor");
}

#[test]
fn failed_probes_change_only_the_connection_verdict() {
    let operator = Operator::new("twitch:777001 twitch:777002").with_token();
    let home = &operator.home;
    home.run(&["probe"]).exits(0);
    for fault in [
        Fault::status(500),
        Fault::status(403),
        Fault::body(bitbrat::sim::FaultBody::Garbage),
        Fault::body(bitbrat::sim::FaultBody::Html),
        Fault::body(bitbrat::sim::FaultBody::Empty),
    ] {
        operator.fault(fault.on("/helix/"));
        let run = home.run(&["--no-progress", "probe", "-o", "json"]).never_panics();
        let live = run.item("key", "twitch:777001");
        assert_eq!(
            (&live["streamStatus"], &live["authStatus"]),
            (&"ONLINE".into(), &"VALID".into()),
            "{live:#}"
        );
        assert_ne!(live["status"], "CONNECTED", "{live:#}");
        assert_eq!(run.code, 3);
        operator.calm();
    }
    home.run(&["probe"]).exits(0);
}

#[test]
fn a_429_on_every_question_leaves_the_connection_and_exits_3() {
    let operator = Operator::new("twitch:777001 twitch:777002").with_token();
    let home = &operator.home;
    home.run(&["probe"]).exits(0);
    operator.fault(Fault::status(429).on("/helix/"));
    let run = home.run(&["--no-progress", "probe", "-o", "json"]).never_panics();
    let live = run.item("key", "twitch:777001");
    assert_eq!(
        (&live["streamStatus"], &live["status"]),
        (&"ONLINE".into(), &"CONNECTED".into()),
        "{live:#}"
    );
    assert_eq!(run.code, 3);
}

#[test]
fn failed_stream_request_is_degraded_but_connected() {
    let operator = Operator::new("twitch:777001 twitch:777002").with_token();
    let home = &operator.home;
    home.run(&["probe"]).exits(0);
    operator.fault(Fault::status(503).on("/helix/streams"));
    let run = home
        .run(&["probe", "-o", "json"])
        .exits(3)
        .names_account("answered the list of streams with status 503");
    let live = run.item("key", "twitch:777001");
    assert_eq!(
        (&live["status"], &live["streamStatus"], &live["lastError"]["code"]),
        (&"CONNECTED".into(), &"ONLINE".into(), &"http.503".into()),
        "{live:#}"
    );
    // Where only streams are probed, no other probe shows the state of the connection.
    let run = home.run(&["probe", "stream", "-o", "json"]).exits(3);
    assert_eq!(run.item("key", "twitch:777002")["status"], "DISCONNECTED");
    operator.calm();
    let run = home.run(&["probe", "stream", "-o", "json"]).exits(0);
    for key in ["twitch:777001", "twitch:777002"] {
        assert_eq!(run.item("key", key)["status"], "CONNECTED", "{key}");
    }
}

#[test]
fn unreachable_platform_is_disconnected_not_stream_offline() {
    let home = Home::new()
        .env("BITBRAT_TWITCH__AUTH_URL", "http://127.0.0.1:1/oauth2")
        .env("BITBRAT_TWITCH__HELIX_URL", "http://127.0.0.1:1/helix")
        .env("TWITCH_CLIENT_ID", "abc")
        .env("TWITCH_BOT_ACCESS_TOKEN", "def")
        .env("BITBRAT_SOURCES", "twitch:1");
    let run = home.run(&["probe", "-o", "json"]).never_panics().exits(3);
    let item = run.item("key", "twitch:1");
    assert_eq!(
        (&item["status"], &item["streamStatus"]),
        (&"DISCONNECTED".into(), &"UNKNOWN".into())
    );
    assert!(item.get("authStatus").is_none(), "{item:#}");
    home.run(&["doctor", "twitch", "-o", "json"])
        .never_panics()
        .exits(1)
        .shows("network.connect");
}

#[test]
fn doctor_does_not_condemn_a_platform_for_a_single_failure() {
    let operator = Operator::new("twitch:777001").with_token();
    let unwell = |header: &str| {
        Fault::status(503)
            .header("Retry-After", header)
            .on("/helix/users")
    };
    operator.fault(unwell("1").times(1));
    let run = operator.home.run(&["doctor", "twitch", "-o", "json"]).exits(0);
    let check = run.item("name", "api");
    assert_eq!(check["outcome"], "OK", "{check:#}");
    assert!(
        check["detail"].as_str().unwrap().contains("status 503"),
        "{check:#}"
    );
    // A server that requests a longer wait than that counts as unavailable.
    operator.fault(unwell("30").times(1));
    let run = operator.home.run(&["doctor", "twitch", "-o", "json"]);
    assert_eq!(run.item("name", "api")["outcome"], "FAIL", "{}", run.stdout);
}

#[test]
fn missing_token_error_hints_at_auth_login() {
    let home = Home::new()
        .env("BITBRAT_SOURCES", "twitch:777001")
        .env("TWITCH_CLIENT_ID", "abc");
    home.run(&["auth", "status"])
        .exits(4)
        .shows("MISSING")
        .names_account("bitbrat auth login twitch");
    home.run(&["sources", "status", "--probe"])
        .exits(4)
        .names_account("bitbrat auth login twitch");
}

#[test]
fn token_is_stored_only_if_accepted_and_never_printed() {
    let operator = Operator::new("twitch:777001");
    let home = &operator.home;
    let tokens = home.state().join("tokens.json");
    home.run_with(&["auth", "login", "twitch", "--with-token"], "")
        .exits(2)
        .names_account("no token on standard input");
    home.run_with(&["auth", "login", "twitch", "--with-token"], "two words\n")
        .exits(2)
        .names_account("contains blanks or line breaks");
    home.run_with(&["auth", "login", "twitch", "--with-token"], "wrongtoken123\n")
        .exits(4)
        .names_account("nothing was stored");
    assert!(!tokens.exists());
    let input = format!(
        "oauth:{}\n{}\n",
        operator.world.bot.access, operator.world.bot.refresh
    );
    let run = home
        .run_with(&["auth", "login", "twitch", "--with-token", "-o", "json"], &input)
        .exits(0);
    assert_eq!(run.item("identity", "twitch/bot")["login"], "bitbrat_bot");
    super::schemas::is_valid("auth", &run.json());
    assert_eq!(mode(&tokens), 0o600);
    for words in [
        vec!["auth", "status", "-o", "json"],
        vec!["auth", "status", "-o", "wide"],
        vec!["-vv", "probe"],
        vec!["config", "show"],
    ] {
        let run = home.run(&words).exits(0);
        for secret in [
            &operator.world.bot.access,
            &operator.world.bot.refresh,
            &operator.world.client_secret,
        ] {
            assert!(
                !run.stdout.contains(secret.as_str()) && !run.stderr.contains(secret.as_str()),
                "{words:?}"
            );
        }
    }
    home.run(&["auth", "logout", "twitch"])
        .exits(0)
        .names_account("deleted here");
    home.run(&["auth", "logout", "twitch"])
        .exits(0)
        .names_account("had no token");
}

#[test]
fn token_of_another_user_is_rejected_without_mentioning_bot() {
    let operator = Operator::new("twitch:777001").with_token();
    let home = &operator.home;
    let input = format!("{}\n", operator.world.broadcasters[0].access);
    let login = |whose: &str| {
        home.run_with(
            &["auth", "login", "twitch", "--as", whose, "--with-token"],
            &input,
        )
    };
    let run = login("broadcaster:777001")
        .exits(4)
        .names_account("does not belong to twitch/broadcaster:777001; nothing was stored")
        .names_account("belongs to user 777005")
        .names_account("was not revoked: run `bitbrat auth login twitch --as twitch/broadcaster:777001`");
    assert!(!run.stderr.contains("twitch/bot"), "{}", run.stderr);
    let run = login("broadcaster:777005").exits(0);
    assert!(!run.stderr.contains("twitch/bot"), "{}", run.stderr);
}

#[test]
fn login_checks_token_store_before_using_refresh_token() {
    let operator = Operator::new("twitch:777001");
    let lock = operator.home.state().join("tokens.json.twitch-bot.lock");
    std::fs::create_dir_all(&lock).unwrap();
    let input = format!("ended123\n{}\n", operator.world.bot.refresh);
    operator
        .home
        .run_with(&["auth", "login", "twitch", "--with-token"], &input)
        .exits(1)
        .names_account("the token store cannot be used");
    let journal = operator.sim.twitch.host().journal();
    assert_eq!(journal.count("POST", "/oauth2/token"), 0);
}

#[test]
fn failed_refresh_explains_unknown_token_status() {
    let operator = Operator::new("twitch:777001").with_token();
    operator.home.run(&["auth", "status"]).exits(0);
    operator.sim.twitch.expire_token(&operator.world.bot.access);
    operator.fault(Fault::status(503).on("/oauth2/token"));
    operator
        .home
        .run(&["auth", "status"])
        .exits(8)
        .names_account("nothing new is known about `twitch/bot`: refreshing it failed");
    operator
        .home
        .run(&["doctor", "twitch"])
        .shows("refreshing it failed");
}

#[test]
fn auth_status_of_a_healthy_setup_exits_0() {
    let operator = Operator::new("twitch:777001").with_token();
    let home = &operator.home;
    home.run(&["probe"]).exits(0);
    // The first poll with an expired bot token fetches the application's, which then stays in the store.
    operator.sim.twitch.expire_token(&operator.world.bot.access);
    operator.fault(Fault::status(503).on("/oauth2/token").times(3));
    home.run(&["probe", "stream"]);
    operator.calm();
    home.run(&["probe", "stream"]);
    let run = home.run(&["auth", "status", "-o", "json"]).exits(0);
    for item in run.json()["items"].as_array().unwrap() {
        assert_eq!(item["status"], "VALID", "{item:#}");
    }
}

#[test]
fn stored_app_token_is_checked_and_a_wrong_secret_shown() {
    let operator = Operator::new("twitch:777001");
    // Without a bot the application reads, and its token is stored.
    operator.home.run(&["probe", "stream"]).exits(0);
    let operator = operator.with_token();
    let run = operator.home.run(&["auth", "status", "-o", "json"]).exits(0);
    assert_eq!(run.item("identity", "twitch/app")["status"], "VALID");
    assert_eq!(run.item("identity", "twitch/bot")["status"], "VALID");
    operator.sim.twitch.expire_token(&app_token(&operator));
    let home = operator.home.env("TWITCH_CLIENT_SECRET", "wrong");
    let run = home.run(&["auth", "status", "-o", "json"]).exits(4);
    let app = run.item("identity", "twitch/app");
    assert_eq!(app["status"], "REJECTED", "{app:#}");
    assert!(app["reason"].to_string().contains("secret"), "{app:#}");
}

#[test]
fn refused_application_is_a_row_of_auth_status() {
    let operator = Operator::new("twitch:777001").with_token();
    let home = operator.home.env("TWITCH_CLIENT_SECRET", "wrong");
    let run = home.run(&["auth", "status", "-o", "json"]).exits(4);
    let app = run.item("identity", "twitch/app");
    assert_eq!(app["status"], "REJECTED", "{app:#}");
    assert!(app["reason"].to_string().contains("secret"), "{app:#}");
    assert_eq!(run.item("identity", "twitch/bot")["status"], "VALID");
    // Nothing is asked, so nothing is known about the application.
    home.run(&["auth", "status", "--offline"]);
}

#[test]
fn refused_application_is_shown_beside_its_stored_token() {
    let operator = Operator::new("twitch:777001");
    operator.home.run(&["probe", "stream"]).exits(0);
    let operator = operator.with_token();
    let home = operator.home.env("TWITCH_CLIENT_SECRET", "wrong");
    let run = home.run(&["auth", "status", "-o", "json"]).exits(4);
    assert_eq!(run.item("identity", "twitch/app")["status"], "REJECTED");
}

fn app_token(operator: &Operator) -> String {
    let file = std::fs::read_to_string(operator.home.state().join("tokens.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    let token = &file["identities"]["twitch/app"]["token"]["accessToken"];
    token.as_str().unwrap().to_owned()
}

#[test]
fn revoked_account_concerns_sources_that_were_not_probed() {
    let operator = Operator::new("twitch:777001 twitch:777002 twitch:777010").with_token();
    let home = &operator.home;
    home.run(&["probe"]);
    let auth =
        |key: &str| home.run(&["sources", "status", "-o", "json"]).item("key", key)["authStatus"].clone();
    operator.sim.twitch.disconnect("777100");
    home.run(&["probe", "twitch:777001"]).exits(4);
    for key in ["twitch:777001", "twitch:777002", "twitch:777010"] {
        assert_eq!(auth(key), "REVOKED", "{key}");
    }
    // A login fixes them all, without a daemon.
    let pair = operator.sim.twitch.issue_token(bitbrat::sim::twitch::TokenSpec {
        client_id: operator.world.client_id.clone(),
        user_id: Some("777100".to_owned()),
        ..Default::default()
    });
    home.run_with(
        &["auth", "login", "twitch", "--with-token"],
        &format!("{}\n", pair.access),
    )
    .exits(0);
    for key in ["twitch:777001", "twitch:777002", "twitch:777010"] {
        assert_eq!(auth(key), "VALID", "{key}");
    }
}

#[test]
fn nonsense_token_is_shown_as_rejected() {
    let operator = Operator::new("twitch:777001");
    let home = operator.home.env("TWITCH_BOT_ACCESS_TOKEN", "nonsense");
    let run = home.run(&["auth", "status", "-o", "json"]).exits(4);
    assert_eq!(run.item("identity", "twitch/bot")["status"], "REJECTED");
}

#[test]
fn a_token_of_another_application_is_marked_as_such() {
    let operator = Operator::new("twitch:777001").with_token();
    let home = operator.home.env("TWITCH_CLIENT_ID", "someotherapplication");
    // The secret is not that of this client id either, so the application is refused.
    let run = home.run(&["auth", "status", "-o", "json"]).exits(4);
    let reason = run.item("identity", "twitch/bot")["reason"].to_string();
    assert!(
        reason.contains("twitch.client_id is someotherapplication"),
        "{reason}"
    );
    let run = home.run(&["doctor", "twitch", "-o", "json"]);
    assert_eq!(
        run.item("name", "identity twitch/bot")["outcome"],
        "WARN",
        "{}",
        run.stdout
    );
}

#[test]
fn a_login_while_the_platform_is_away_keeps_nothing() {
    let operator = Operator::new("twitch:777001");
    operator.fault(Fault::status(503).on("/oauth2/"));
    let input = format!("{}\n", operator.world.bot.access);
    operator
        .home
        .run_with(&["auth", "login", "twitch", "--with-token"], &input)
        .exits(8)
        .names_account("nothing was stored");
    assert!(!operator.home.state().join("tokens.json").exists());
}

#[test]
fn a_dry_run_writes_nothing() {
    let operator = Operator::new("twitch:777001").with_token();
    let run = operator.home.run(&["probe", "--dry-run", "-o", "json"]).exits(0);
    assert_eq!(run.item("key", "twitch:777001")["streamStatus"], "ONLINE");
    assert!(!operator.home.state().join("bitbrat.db").exists());
}

#[test]
fn a_store_is_copied_once_and_then_nothing_changes() {
    let operator = Operator::new("twitch:777001 twitch:777002").with_token();
    let home = &operator.home;
    home.run(&["store", "migrate", "sqlite", "sqlite:copy.db"])
        .exits(2)
        .names_account("there is no store");
    home.run(&["probe"]).exits(0);
    home.run(&["store", "migrate", "sqlite", "sqlite:copy.db", "--dry-run"])
        .exits(0)
        .names_account("2 of 2 documents would be copied");
    assert!(!home.work().join("copy.db").exists());
    let words = ["store", "migrate", "sqlite", "sqlite:copy.db", "-o", "json"];
    assert_eq!(
        home.run(&words).exits(0).item("key", "twitch:777001")["copied"],
        "new"
    );
    assert_eq!(
        home.run(&words).exits(0).item("key", "twitch:777001")["copied"],
        "unchanged"
    );
    let original = home
        .run(&["sources", "history", "twitch:777001", "-o", "csv"])
        .exits(0);
    let copy = home
        .run(&[
            "--set",
            "store.url=sqlite:copy.db",
            "sources",
            "history",
            "twitch:777001",
            "-o",
            "csv",
        ])
        .exits(0);
    assert_eq!(original.stdout, copy.stdout);
    home.run(&["store", "migrate", "sqlite", "sqlite"])
        .exits(2)
        .names_account("to itself");
}

#[test]
fn orphans_are_pruned_only_with_confirmation() {
    let operator = Operator::new("twitch:777001").with_token();
    let home = &operator.home;
    home.run(&["probe"]).exits(0);
    let database = rusqlite::Connection::open(home.state().join("bitbrat.db")).unwrap();
    database
        .execute(
            "INSERT INTO sources (id, version, document) VALUES ('twitch:lost', 1, '{\"streamStatus\":\"ONLINE\"}')",
            [],
        )
        .unwrap();
    drop(database);
    home.run(&["doctor", "store"])
        .exits(0)
        .shows("twitch:lost")
        .names_account("bitbrat sources prune");
    home.run(&["sources", "prune", "--dry-run"])
        .exits(0)
        .shows("would be removed");
    home.run(&["sources", "prune"]).exits(2).names_account("--yes");
    home.run(&["sources", "prune", "--yes"]).exits(0).shows("removed");
    home.run(&["sources", "prune", "--yes"])
        .exits(0)
        .names_account("nothing to remove");
    home.run(&["sources", "status"]).exits(0).shows("PixelMeadow");
}

#[test]
fn damaged_document_is_copied_and_written_anew() {
    let operator = Operator::new("twitch:777001").with_token();
    let home = &operator.home;
    home.run(&["probe"]).exits(0);
    let history = || home.run(&["history", "twitch:777001", "-o", "name"]).stdout;
    let before = history();
    let database = rusqlite::Connection::open(home.state().join("bitbrat.db")).unwrap();
    let set = |document: &str| {
        let update = "UPDATE sources SET document = ?1 WHERE id = 'twitch:777001'";
        assert_eq!(database.execute(update, [document]).unwrap(), 1);
    };
    // What a newer bitbrat wrote is no damage.
    set(r#"{"schemaVersion":99}"#);
    home.run(&["sources", "prune", "--damaged", "--yes"])
        .exits(0)
        .names_account("nothing to remove");
    let damaged = r#"{"evidence":"lost"}"#;
    set(damaged);
    home.run(&["doctor", "store"])
        .shows("evidence cannot be read")
        .names_account("bitbrat sources prune --damaged");
    home.run(&["sources", "prune", "--yes"])
        .exits(0)
        .names_account("nothing to remove");
    let pruned = home
        .run(&["sources", "prune", "--damaged", "--yes", "-o", "json"])
        .exits(0);
    let item = pruned.item("documentId", "twitch:777001");
    assert_eq!(item["removed"], true);
    let copy = std::path::PathBuf::from(item["copiedTo"].as_str().unwrap());
    assert!(copy.starts_with(home.state().join("damaged")));
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), damaged);
    assert_eq!(crate::support::mode(&copy), 0o600);
    assert_eq!(history(), before, "the history stays");
    home.run(&["probe"]).exits(0);
    home.run(&["sources", "status"]).exits(0).shows("PixelMeadow");
}

#[test]
fn kind_of_a_store_alone_means_the_configured_one() {
    let operator = Operator::new("twitch:777001");
    let home = &operator.home;
    home.run(&["store", "migrate", "sqlite", "postgres"])
        .exits(2)
        .names_account("none is configured")
        .names_account("postgres://HOST:PORT/DATABASE");
    let unused = crate::support::ReservedPort::new();
    let url = format!("store.url=postgres://rat@127.0.0.1:{}/x", unused.number);
    home.run(&["--set", "store.url=sqlite", "probe"]);
    let run = home
        .run(&["--set", &url, "store", "migrate", "sqlite", "postgres"])
        .exits(1);
    run.names_account(&format!("127.0.0.1:{}", unused.number))
        .names_account("see that the server runs");
    home.run(&["--set", &url, "doctor", "store"])
        .exits(1)
        .names_account("see that the server runs, that host and port in `store.url` are its own");
}

#[test]
fn simulator_prints_client_environment() {
    use std::io::{BufRead as _, BufReader};
    let home = Home::new();
    let mut child = home
        .command(&["sim", "--port", "0", "--env"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let text: Vec<String> = lines
        .take_while(|line| !line.starts_with("BITBRAT_SOURCES"))
        .collect();
    let client = Home::new()
        .file("sim.env", &text.join("\n"))
        .env("BITBRAT_SOURCES", "twitch:777001 discord:888001");
    let run = client.run(&[
        "--env-file",
        "sim.env",
        "sources",
        "status",
        "--probe",
        "-o",
        "json",
    ]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        run.item("key", "twitch:777001")["streamStatus"],
        "ONLINE",
        "{text:?}"
    );
}

#[test]
fn an_interrupt_is_exit_130() {
    let operator = Operator::new("twitch:777001").with_token();
    let words = ["sources", "wait", "twitch:777001", "--for", "offline", "--probe"];
    let mut waiting = Process::start(&operator.home, &words);
    let journal = operator.sim.twitch.host().journal();
    let deadline = Instant::now() + PATIENCE;
    while journal.count("GET", "/helix/streams") == 0 {
        assert!(Instant::now() < deadline, "{}", waiting.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    waiting.signal("-INT");
    assert_eq!(waiting.ends(), 130, "{}", waiting.said());
}

#[test]
fn a_watched_status_shows_what_another_process_has_seen() {
    use std::io::{BufRead as _, BufReader};
    let operator = Operator::new("twitch:777001").with_token();
    let home = &operator.home;
    home.run(&["probe"]).exits(0);
    // Redrawn once an hour, so that any change shown comes from the store's notification.
    let mut child = home
        .command(&["sources", "status", "--watch=1h", "-o", "ndjson"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut shown =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = shown();
    assert_eq!(first["streamStatus"], "ONLINE");
    assert_eq!(first["viewerCount"], 12_847);
    operator.sim.twitch.set_viewers("777001", 9);
    home.run(&["probe", "viewers"]).exits(0);
    while shown()["viewerCount"] != 9 {}
    child.kill().unwrap();
    child.wait().unwrap();
}
