//! Invalid arguments and configuration, and their messages.

use crate::support::Home;

#[test]
fn malformed_id_is_a_usage_error_with_explanation() {
    let home = Home::new();
    for (id, reason) in [
        ("twitch:9.87e17", "has lost digits"),
        ("https://example.com/ratcaster", "not the address of a channel"),
        ("myspace:1", "is not a platform"),
        ("twitch:", "not a numeric id"),
        ("twitch:007", "not a numeric id"),
    ] {
        for command in ["status", "describe", "history", "is-live"] {
            home.run(&["sources", command, id])
                .never_panics()
                .exits(2)
                .names_account(reason);
        }
        home.run(&["probe", id]).exits(2);
    }
}

#[test]
fn unknown_name_is_exit_5_with_the_name_that_was_meant() {
    let sources = "[[source]]\nplatform = \"twitch\"\nid = \"1\"\n";
    let home = Home::new().file("bitbrat.toml", sources);
    for name in ["ratcaster", "twitch:ratcaster", "https://kick.com/ratcaster"] {
        for command in ["status", "describe", "history", "is-live"] {
            home.run(&["sources", command, name])
                .never_panics()
                .exits(5)
                .names_account("there is no source named")
                .names_account("--probe");
        }
    }
    home.run(&["sources", "describe", "1"]).exits(0).shows("twitch:1");
}

#[test]
fn float_as_an_id_is_refused_wherever_an_id_stands() {
    for toml in [
        "[[source]]\nplatform = \"discord\"\nid = 9.87e17\n",
        "[[source]]\nplatform = \"discord\"\nid = \"9.87e17\"\n",
        "sources = [\"discord:9.87e17\"]\n",
        "[[source]]\nplatform = \"discord\"\nid = \"1\"\nchannels = [\"9.87e17\"]\n",
    ] {
        let home = Home::new().file("bitbrat.toml", toml);
        home.run(&["sources", "list"])
            .exits(6)
            .names_account("has lost digits");
    }
    for (name, value) in [
        ("BITBRAT_SOURCES", "discord:9.87e17"),
        ("BITBRAT_SOURCES", "kick:9e17"),
        ("DISCORD_GUILD_ID", "9.87e17"),
    ] {
        let home = Home::new().env(name, value);
        home.run(&["sources", "list"])
            .exits(6)
            .names_account("has lost digits");
    }
}

#[test]
fn failure_is_json_with_a_code_where_json_was_asked_for() {
    let broken = Home::new().file("bitbrat.toml", "= 1\n");
    let home = Home::new().env("BITBRAT_SOURCES", "twitch:1");
    for (home, words, code, exit) in [
        (
            &home,
            &["sources", "is-live", "twitch:2"][..],
            "no_such_source",
            5,
        ),
        (&home, &["sources", "describe", "nobody"][..], "no_such_source", 5),
        (&home, &["sources", "can", "twitch:1", "fly"][..], "usage", 2),
        (&home, &["sources", "states"][..], "usage", 2),
        (&home, &["man", "nothing"][..], "usage", 2),
        (&home, &["schema", "weather"][..], "usage", 2),
        (&home, &["config", "init", "/proc/nowhere/x"][..], "failed", 1),
        (&broken, &["probe"][..], "configuration_invalid", 6),
        (&broken, &["watch"][..], "configuration_invalid", 6),
        (&broken, &["auth", "status"][..], "configuration_invalid", 6),
        (&broken, &["events", "tail"][..], "configuration_invalid", 6),
        (
            &broken,
            &["store", "migrate", "sqlite:a", "sqlite:b"][..],
            "configuration_invalid",
            6,
        ),
    ] {
        for format in ["json", "ndjson", "yaml"] {
            let run = home.run(&[words, &["-o", format]].concat()).exits(exit);
            let last = run.stderr.lines().last().unwrap_or_default();
            let error: serde_json::Value = serde_json::from_str(last)
                .unwrap_or_else(|error| panic!("{words:?}: {error}: {}", run.stderr));
            assert_eq!(error["kind"], "Error", "{words:?}");
            assert_eq!(error["code"], code, "{words:?}: {error:#}");
            assert_eq!(error["exitCode"], exit, "{words:?}");
            super::schemas::is_valid("error", &error);
        }
    }
}

#[test]
fn advice_repeats_the_options_that_chose_the_world() {
    let home = Home::new()
        .file("my.toml", "[[source]]\nplatform = \"twitch\"\nid = \"1\"\n")
        .file("my.env", "");
    let globals = [
        "--config",
        "my.toml",
        "--env-file",
        "my.env",
        "--set",
        "store.url=sqlite:x.db",
    ];
    let run = home
        .run(&[&globals[..], &["sources", "status"]].concat())
        .exits(8);
    run.names_account(
        "bitbrat --config my.toml --env-file my.env --set store.url=sqlite:x.db sources status --probe",
    );
    home.run(&[&globals[..], &["sources", "is-live", "twitch:2"]].concat())
        .exits(5)
        .names_account(
            "run `bitbrat --config my.toml --env-file my.env --set store.url=sqlite:x.db sources list`",
        );
}

#[test]
fn unknown_source_exits_5_with_a_hint_to_add_it() {
    let home = Home::new();
    for words in [
        vec!["sources", "status", "twitch:123456"],
        vec!["sources", "describe", "twitch:123456"],
        vec!["sources", "history", "twitch:123456"],
        vec!["sources", "is-live", "twitch:123456"],
        vec!["sources", "can", "twitch:123456", "ban"],
        vec!["sources", "wait", "twitch:123456", "--for", "live"],
        vec!["probe", "twitch:123456"],
    ] {
        home.run(&words)
            .never_panics()
            .exits(5)
            .names_account("there is no source `twitch:123456`")
            .names_account("[[source]]");
    }
}

#[test]
fn an_empty_configuration_is_answered_with_a_way_to_begin() {
    let home = Home::new();
    let run = home
        .run(&["sources", "status"])
        .exits(8)
        .names_account("no sources are configured")
        .names_account("--demo");
    assert_eq!(run.stdout, "");
    home.run(&["sources", "list"])
        .exits(0)
        .names_account("bitbrat init");
    let json = home.run(&["sources", "status", "-o", "json"]).exits(8).json();
    assert_eq!(json["items"], serde_json::json!([]));
    assert!(!home.state().exists(), "reading creates nothing");
    home.run(&["probe"])
        .exits(8)
        .names_account("no sources are configured");
}

#[test]
fn broken_toml_is_exit_6_with_the_place() {
    let home = Home::new().file("bitbrat.toml", "[store]\nurl = sqlite\n");
    home.run(&["sources", "status"])
        .exits(6)
        .names_account("bitbrat.toml")
        .names_account("line 2")
        .names_account("hint: correct that line, then run `bitbrat config check`");
    home.run(&["config", "check"]).exits(6).shows("bitbrat.toml");
    home.run(&["doctor"]).exits(6).shows("SKIPPED");
    home.run(&["config", "show"])
        .exits(0)
        .names_account("bitbrat config check");
}

#[test]
fn doctor_does_not_deny_a_file_that_it_cannot_read() {
    let home = Home::new().file("bitbrat.toml", "[store]\nurl = sqlite\n");
    let run = home.run(&["doctor", "configuration", "-o", "json"]).exits(6);
    assert_eq!(run.item("name", "files")["outcome"], "WARN", "{}", run.stdout);
    assert_eq!(
        run.item("name", "sources")["outcome"],
        "SKIPPED",
        "{}",
        run.stdout
    );
}

#[test]
fn every_problem_of_a_configuration_comes_with_a_next_step() {
    for toml in [
        "[store]\nurl = \"floppy\"\n",
        "[schedule]\nstream = \"* * *\"\n",
        "= 1\n",
        "\u{0}",
    ] {
        let home = Home::new().file("bitbrat.toml", toml);
        home.run(&["sources", "status"])
            .never_panics()
            .exits(6)
            .names_account("  hint: ");
    }
}

#[test]
fn all_configuration_problems_are_reported_at_once() {
    let toml = "[store]\nulr = \"sqlite\"\n[schedule]\nstream = \"* * *\"\n[[source]]\nplatform = \"myspace\"\nid = \"1\"\n";
    let home = Home::new().file("bitbrat.toml", toml);
    let run = home.run(&["config", "check", "-o", "json"]).exits(6);
    let problems = run.json()["items"].as_array().unwrap().len();
    assert!(problems >= 3, "{}", run.stdout);
    home.run(&["sources", "list"])
        .exits(6)
        .names_account("store.ulr")
        .names_account("schedule.stream")
        .names_account("myspace");
}

#[test]
fn a_configuration_file_that_is_named_must_exist() {
    let home = Home::new();
    home.run(&["--config", "absent.toml", "sources", "status"])
        .exits(6)
        .names_account("absent.toml");
    home.run(&["--env-file", "absent.env", "sources", "status"])
        .exits(6)
        .names_account("absent.env");
}

#[test]
fn a_flag_sets_what_is_there_to_be_set_and_never_a_secret() {
    let home = Home::new();
    home.run(&["--set", "store.ulr=sqlite", "sources", "list"])
        .exits(2)
        .names_account("no key `store.ulr`");
    home.run(&["--set", "twitch.bot_access_token=abc", "sources", "list"])
        .exits(2)
        .names_account("secret");
    home.run(&["--set", "store.url=floppy", "sources", "list"])
        .exits(6)
        .names_account("--set");
    home.run(&["--set", "nonsense", "sources", "list"])
        .exits(2)
        .names_account("KEY=VALUE");
}

#[test]
fn commands_and_options_that_do_not_exist_are_usage_errors() {
    let home = Home::new();
    for words in [
        vec![],
        vec!["source"],
        vec!["sources", "states"],
        vec!["sources", "status", "--fail-on", "rain"],
        vec!["sources", "status", "--watch=soon"],
        vec!["sources", "wait", "twitch:1", "--for", "rain"],
        vec!["probe", "streams"],
        vec!["-o", "xml", "sources", "list"],
        vec!["schema", "weather"],
        vec!["auth", "login", "myspace", "--with-token"],
        vec!["store", "migrate", "sqlite", "floppy"],
        vec!["man", "nothing"],
    ] {
        home.run(&words).never_panics().exits(2);
    }
}

#[test]
fn unknown_action_lists_the_available_actions() {
    let home = Home::new().env("BITBRAT_SOURCES", "twitch:1");
    home.run(&["sources", "can", "twitch:1", "fly"])
        .exits(2)
        .names_account("send-chat");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new();
    for words in [
        "--demo sources status -o json",
        "schema sources",
        "--help",
        "man",
        "completion zsh",
    ] {
        let line = format!(
            "{} {words} | true; echo ${{PIPESTATUS[0]}}",
            env!("CARGO_BIN_EXE_bitbrat")
        );
        let output = home.shell(&line);
        let code = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let reported = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(code.as_str(), "0" | "4"), "{words}: {code} {reported}");
        assert!(
            !reported.contains("panicked") && !reported.contains("Broken pipe"),
            "{words}: {reported}"
        );
    }
}

#[test]
fn a_table_that_is_drawn_again_and_again_ends_with_its_reader() {
    let home = Home::new().env("BITBRAT_SOURCES", "twitch:1");
    for format in ["table", "ndjson"] {
        let line = format!(
            "timeout 60 {} -q sources status --watch=200ms -o {format} | head -1; echo ${{PIPESTATUS[0]}}",
            env!("CARGO_BIN_EXE_bitbrat")
        );
        let output = home.shell(&line);
        let reported = String::from_utf8_lossy(&output.stdout);
        assert_eq!(reported.lines().last(), Some("0"), "{format}: {reported}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{format}");
    }
}

#[test]
fn token_file_readable_by_others_is_not_missing_authorization() {
    let home = Home::new()
        .env("BITBRAT_SOURCES", "twitch:1")
        .env("BITBRAT_TWITCH__AUTH_URL", "http://127.0.0.1:1/oauth2")
        .env("BITBRAT_TWITCH__HELIX_URL", "http://127.0.0.1:1/helix");
    std::fs::create_dir_all(home.state()).unwrap();
    let file = home.state().join("tokens.json");
    let text = r#"{"version":1,"identities":{}}"#;
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let run = home
        .run(&["sources", "status", "--probe"])
        .never_panics()
        .exits(3)
        .names_account("can be read by others")
        .names_account("chmod 600");
    assert!(!run.stderr.contains("is missing"), "{}", run.stderr);
    assert!(!run.stderr.contains("auth login"), "{}", run.stderr);
    home.run(&["auth", "status"]).exits(1).names_account("chmod 600");
    home.run(&["doctor", "tokens"]).exits(1).shows("FAIL");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

/// Answers every request in the same way, until the test ends.
fn server_that_only_says(answer: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut stream, &mut request);
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_web_server_that_is_not_twitch_does_not_pass_for_it() {
    const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const BROKEN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (answer, outcome, code) in [(NOT_FOUND, "FAIL", 1), (BROKEN, "FAIL", 1), (REFUSED, "WARN", 0)] {
        let url = server_that_only_says(answer);
        let home = Home::new()
            .env("BITBRAT_SOURCES", "twitch:1")
            .env("BITBRAT_TWITCH__AUTH_URL", &url)
            .env("BITBRAT_TWITCH__HELIX_URL", &url)
            .env("BITBRAT_TWITCH__EVENTSUB", "false")
            .env("TWITCH_BOT_ACCESS_TOKEN", "abc");
        let run = home.run(&["doctor", "twitch", "-o", "json"]);
        for check in ["authorization", "api"] {
            assert_eq!(run.item("name", check)["outcome"], outcome, "{}", run.stdout);
        }
        assert_eq!(
            run.item("name", "rate limit")["outcome"],
            "SKIPPED",
            "{}",
            run.stdout
        );
        run.exits(code);
    }
}

#[test]
fn a_store_of_a_newer_program_is_refused_and_left_alone() {
    let home = Home::new().env("BITBRAT_SOURCES", "twitch:1");
    let path = home.work().join("newer.db");
    let url = format!("store.url=sqlite:{}", path.display());
    home.run(&["--demo", "--set", &url, "probe", "twitch:777001"])
        .exits(0);
    let database = rusqlite::Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    home.run(&["--set", &url, "sources", "status"])
        .never_panics()
        .exits(1)
        .names_account("99")
        .names_account("upgrade bitbrat");
    home.run(&["--set", &url, "doctor", "store"])
        .exits(1)
        .shows("FAIL");
}

#[test]
fn non_database_file_is_reported_by_name() {
    let home = Home::new().file(
        "bitbrat.db",
        "once upon a time there was a file that was no database at all",
    );
    home.run(&["--set", "store.url=sqlite:bitbrat.db", "sources", "status"])
        .never_panics()
        .exits(1)
        .names_account("bitbrat.db");
}

#[test]
fn unusable_document_is_shown_with_reason_beside_the_others() {
    let home = Home::new();
    let path = home.work().join("odd.db");
    let url = format!("store.url=sqlite:{}", path.display());
    home.run(&["--demo", "--set", &url, "probe", "twitch:777001", "twitch:777002"])
        .exits(0);
    let database = rusqlite::Connection::open(&path).unwrap();
    let changed = database
        .execute(
            "UPDATE sources SET document = '{\"schemaVersion\":99}' WHERE id = 'twitch:777001'",
            [],
        )
        .unwrap();
    assert_eq!(changed, 1);
    drop(database);
    let run = home
        .run(&["--set", &url, "sources", "status"])
        .exits(8)
        .shows("unusable")
        .shows("schemaVersion 99");
    run.shows("QuietHarbor").names_account("cannot be used");
    let json = home
        .run(&["--set", &url, "sources", "status", "-o", "json"])
        .exits(8)
        .json();
    assert_eq!(json["items"].as_array().unwrap().len(), 1);
    assert_eq!(json["unusable"][0]["id"], "twitch:777001");
    home.run(&["--set", &url, "sources", "describe", "twitch:777001"])
        .exits(8)
        .names_account("schemaVersion 99");
}

#[test]
fn probe_reports_why_nothing_was_stored() {
    let home = Home::new();
    let path = home.work().join("newer.db");
    let url = format!("store.url=sqlite:{}", path.display());
    home.run(&["--demo", "--set", &url, "probe", "twitch:777001", "twitch:777002"])
        .exits(0);
    let database = rusqlite::Connection::open(&path).unwrap();
    let newer = "UPDATE sources SET document = '{\"schemaVersion\":99}' WHERE id = 'twitch:777001'";
    assert_eq!(database.execute(newer, []).unwrap(), 1);
    drop(database);
    for sources in [&["twitch:777001"][..], &["twitch:777001", "twitch:777002"]] {
        let words = [&["--demo", "--set", &url, "probe"], sources].concat();
        let run = home
            .run(&words)
            .exits(1)
            .names_account("nothing was stored for twitch:777001");
        run.names_account("schemaVersion 99");
    }
}

#[test]
fn hint_of_a_check_repeats_its_options_and_not_itself() {
    let home = Home::new().file("bad.toml", "x = \n");
    let check = home.run(&["--config", "bad.toml", "config", "check"]).exits(6);
    let all = format!("{}{}", check.stdout, check.stderr);
    assert!(
        all.contains("correct that line") && !all.contains("config check"),
        "{all}"
    );
    let status = home.run(&["--config", "bad.toml", "status"]).exits(6);
    status.names_account("`bitbrat --config bad.toml config check`");
}

#[test]
fn token_that_powershell_wrote_is_read() {
    let home = Home::new()
        .env("TWITCH_CLIENT_ID", "abc")
        .env("BITBRAT_TWITCH__HELIX_URL", "http://127.0.0.1:9/helix")
        .env("BITBRAT_TWITCH__AUTH_URL", "http://127.0.0.1:9/oauth2");
    let token = "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5\r\n";
    let utf16: Vec<u8> = format!("\u{feff}{token}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let path = home.work().join("token.txt");
    let login = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let mut command = home.command(&["auth", "login", "twitch", "--with-token"]);
        let output = command
            .stdin(std::fs::File::open(&path).unwrap())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // It gets as far as asking the server, which does not answer.
    for bytes in [utf16.as_slice(), token.as_bytes()] {
        let error = login(bytes);
        assert!(!error.contains("standard input"), "{error}");
    }
    let broken = login(&[0xff, 0xfe, 0x61]);
    assert!(broken.contains("UTF-16"), "{broken}");
}
