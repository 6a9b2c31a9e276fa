//! Passwords in unexpected places and forms.

use crate::support::Home;

/// What must never be printed.
const HIDDEN: &str = "hunter2";

#[test]
fn passwords_in_unusual_addresses_are_never_shown() {
    for (name, value) in [
        ("NATS_URL", "nats://bot:hunter2@10.0.0.1:4222"),
        ("NATS_URL", "nats://bot:hunter2,ter2@10.0.0.1:4222"),
        ("NATS_URL", "nats://bot:hun,hunter2@10.0.0.1:4222"),
        ("NATS_URL", "nats://bot:123,hunter2@10.0.0.1:4222"),
        ("NATS_URL", "nats://bot:hunter2"),
        ("NATS_URL", "bot:hunter2"),
        ("NATS_URL", "bot:hunter2,10.0.0.1:4222"),
        ("NATS_URL", "nats://10.0.0.1:4222,nats://bot:hunter2"),
        ("NATS_URL", "nats://bot:hunter2\u{ff20}10.0.0.1:4222"),
        ("NATS_URL", "bot:hunter2\u{ff20}10.0.0.1:4222"),
        ("BITBRAT_BUS__URL", "nats://bot:hunter2"),
        ("BITBRAT_BUS__URL", "nats://bot:hun,hunter2@host"),
        ("BITBRAT_BUS__URL", "bot:hunter2"),
        ("MESSAGE_BUS", "bot:hunter2"),
        ("BITBRAT_TWITCH__HELIX_URL", "https://bot:hunter2"),
        (
            "BITBRAT_TWITCH__HELIX_URL",
            "https://bot:hunter2\u{ff20}example.com/",
        ),
        ("BITBRAT_STORE__URL", "postgres://bot:hunter2"),
        ("NATS_URL", "bot:hunter2@10.0.0.1:4222"),
        ("NATS_URL", "//bot:hunter2@10.0.0.1:4222"),
        ("NATS_URL", "nats://one:4222,bot:hunter2@two:4222"),
        ("NATS_URL", "nats://bot:p,hunter2@one:4222;nats://c:hunter2@two"),
        ("NATS_URL", "nats://bot:hunter2/x@one:4222"),
        ("NATS_URL", "wss://nats.example/?token=hunter2&x=1"),
        ("BITBRAT_BUS__URL", "nats//bot:hunter2@10.0.0.1:4222"),
        ("BITBRAT_BUS__URL", "https://bot:hunter2@10.0.0.1:4222"),
        ("BITBRAT_BUS__URL", "bot:hunter2@10.0.0.1"),
        ("BITBRAT_TWITCH__HELIX_URL", "ftp://bot:hunter2@example.com"),
        (
            "BITBRAT_TWITCH__HELIX_URL",
            "https://example.com/?client_secret=hunter2",
        ),
        ("BITBRAT_KICK__API_URL", "https://bot:hunter2@"),
        ("BITBRAT_STORE__URL", "postgres://bot:hunter2@db/bitbrat"),
        ("BITBRAT_TOKENS__URL", "postgres://bot:hunter2@db/bitbrat"),
        ("BITBRAT_WEB__LISTEN", "http://bot:hunter2@127.0.0.1:8787"),
        ("PUBSUB_EMULATOR_HOST", "http://bot:hunter2@127.0.0.1"),
        ("NATS_URL", "hunter2@10.0.0.1:4222"),
        ("NATS_URL", "nats://10.0.0.1:4222#hunter2"),
        ("NATS_URL", "nats://10.0.0.1:4222?hunter2"),
        ("NATS_URL", "one:4222,hunter2@two:4222"),
        ("BITBRAT_BUS__URL", "hunter2@10.0.0.1"),
        ("BITBRAT_BUS__URL", "nats://10.0.0.1#token=hunter2"),
        ("BITBRAT_TWITCH__HELIX_URL", "https://api.example/#hunter2"),
        ("BITBRAT_KICK__API_URL", "https://api.example/#/hunter2"),
        ("BITBRAT_STORE__URL", "hunter2@db:5432/bitbrat"),
        ("LOG_LEVEL", "oauth:hunter2"),
        ("TWITCH_CHANNELS", "oauth:hunter2"),
        ("TWITCH_BOT_USER_ID", "oauth:hunter2"),
        ("TWITCH_CLIENT_ID", "oauth:hunter2"),
        ("BITBRAT_SOURCES", "twitch:hunter2a1b2c3d4e5f6g7h8i9j0k1l2m3"),
        ("BITBRAT_SOURCES", "hunter2a1b2c3d4e5f6g7h8i9j0k1l2m3:1"),
        ("BITBRAT_SCHEDULE__STREAM", "hunter2a1b2c3d4e5f6g7h8i9j0k1l2m3"),
        (
            "GOOGLE_APPLICATION_CREDENTIALS",
            "{\"type\":\"service_account\",\"private_key\":\"-----BEGIN PRIVATE KEY-----\\nhunter2hunter2\\n\"}",
        ),
    ] {
        let home = Home::new()
            .env("BITBRAT_SOURCES", "twitch:1")
            .env("MESSAGE_BUS_DRIVER", "nats")
            .env(name, value);
        for words in [
            &["config", "show"][..],
            &["config", "show", "-o", "json"],
            &["config", "check"],
            &["config", "check", "-o", "json"],
            &["sources", "status"],
            &["doctor", "config", "bus"],
        ] {
            let run = home.run(words).never_panics();
            let all = format!("{}{}", run.stdout, run.stderr);
            assert!(!all.contains(HIDDEN), "{name}={value}: {words:?}:\n{all}");
        }
    }
}

#[test]
fn text_of_a_key_file_in_place_of_its_path_is_never_shown() {
    const TEXTS: [&str; 5] = [
        "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.hunter2hunter2hunter2\n\
         ------END NATS USER JWT------\n-----BEGIN USER NKEY SEED-----\nSUAhunter2hunter2\n------END USER NKEY SEED------",
        "-----BEGIN PRIVATE KEY-----\nMIGHhunter2hunter2AgEAMBMG\nQchunter2Q\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\nMIGHhunter2hunter2AgEAMBMG\\n-----END PRIVATE KEY-----",
        "{\"access_token\":\"hunter2hunter2hunter2\"}",
        "hunter2-line-1\nhunter2-line-2",
    ];
    for name in [
        "NATS_CREDS",
        "NATS_NKEY",
        "NATS_CA",
        "NATS_CERT",
        "NATS_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "BITBRAT_STATE_DIR",
        "SSL_CERT_FILE",
    ] {
        for text in TEXTS {
            let home = Home::new()
                .env("MESSAGE_BUS_DRIVER", "nats")
                .env("NATS_URL", "nats://127.0.0.1:9")
                .env(name, text);
            for words in [
                &["config", "show"][..],
                &["config", "check", "-o", "json"],
                &["doctor", "config", "bus", "state"],
                &["status", "-o", "yaml"],
            ] {
                let run = home.run(words).never_panics();
                let all = format!("{}{}", run.stdout, run.stderr);
                assert!(!all.contains(HIDDEN), "{name}={text}: {words:?}:\n{all}");
            }
            if name != "SSL_CERT_FILE" {
                let check = home.run(&["config", "check"]);
                let all = format!("{}{}", check.stdout, check.stderr);
                assert!(all.contains("the path of"), "{name}: {all}");
                // Without Firestore and Pub/Sub, it is not used.
                let is_used = name != "GOOGLE_APPLICATION_CREDENTIALS";
                assert_eq!(check.code, if is_used { 6 } else { 0 }, "{name}: {all}");
            }
        }
    }
    for flag in ["--config", "--env-file"] {
        for text in TEXTS {
            let joined = format!("{flag}={text}");
            let run = Home::new()
                .run(&[joined.as_str(), "status"])
                .never_panics()
                .exits(2);
            let all = format!("{}{}", run.stdout, run.stderr);
            assert!(
                !all.contains(HIDDEN) && all.contains("the path of"),
                "{flag}: {all}"
            );
            let run = Home::new().run(&[flag, text, "status"]).never_panics().exits(2);
            let all = format!("{}{}", run.stdout, run.stderr);
            assert!(!all.contains(HIDDEN), "{flag}: {all}");
        }
    }
}

#[test]
fn lists_and_files_of_addresses_show_no_password() {
    let home = Home::new().file(
        "bitbrat.toml",
        "[bus]\nurl = \"nats\"\nnats_url = [\"nats://bot:hunter2@one\", \"c:hunter2@two\"]\n",
    );
    for words in [["config", "show"], ["config", "check"]] {
        let run = home.run(&words);
        let all = format!("{}{}", run.stdout, run.stderr);
        assert!(!all.contains(HIDDEN), "{words:?}:\n{all}");
    }
}

#[test]
fn a_secret_in_place_of_a_toml_key_is_not_shown() {
    for toml in [
        "[twitch.client_secret]\nhunter2 = 1\n",
        "[twitch]\nclient_secret.hunter2 = \"x\"\n",
        "[twitch]\nclient_secrt = { hunter2 = 1 }\n",
        "[twitch.bot_access_tokn]\n\"hunter2\" = 1\n",
        "[twitch]\n\"oauth:hunter2\" = 1\n",
        "[twitch]\nhunter2a1b2c3d4e5f6g7h8 = 1\n",
        "[bus.url]\nhunter2 = 1\n",
        "[twitch]\nclient_secret = hunter2\n",
        "[twitch]\nclient_secret = 'hunter2\n",
        "[twitch]\nhunter2a1b2c3d4e5f6g7h8 = 1\nhunter2a1b2c3d4e5f6g7h8 = 2\n",
        "[twitch]\nclient_secret = \"a\"\n[twitch.client_secret]\nhunter2 = 1\n",
        "[[source]]\nplatform = \"twitch\"\nid = \"1\"\ntoken.hunter2 = 1\n",
        "[[source]]\nplatform = \"twitch\"\nid = \"oauth:hunter2\"\n",
        "[[source]]\nplatform = \"oauth:hunter2\"\nid = \"1\"\n",
        "[discord]\nchannels = [\"oauth:hunter2\"]\nguild_id = \"1\"\n",
        "[web]\nlisten = \"oauth:hunter2\"\n",
    ] {
        let home = Home::new().file("bitbrat.toml", toml);
        for words in [
            &["config", "show"][..],
            &["config", "check"],
            &["config", "check", "-o", "json"],
            &["sources", "list"],
            &["sources", "add", "twitch:2"],
            &["doctor", "config"],
        ] {
            let run = home.run(words).never_panics();
            let all = format!("{}{}", run.stdout, run.stderr);
            assert!(!all.contains(HIDDEN), "{toml}: {words:?}:\n{all}");
        }
    }
}

#[test]
fn a_mistyped_command_line_repeats_no_secret() {
    let home = Home::new();
    for words in [
        &["--set", "web.token hunter2hunter2"][..],
        &["--set", "nats://bot:hunter2@host", "probe"],
        &["auth", "login", "twitch", "oauth:hunter2"],
        &[
            "auth",
            "status",
            "--client-secret=hunter2",
            "nats://bot:hunter2@host",
        ],
        &["completion", "bot:hunter2@nats:4222"],
        &["-o", "hunter2-0a1b2c3d4e5f6g7h", "probe"],
        &["MTE3hunter2.GaBc12.x-y_z01234"],
        &["--set", "twitch.client_secrt=hunter2", "sources", "status"],
        &["--set", "twitch.client_secret=hunter2", "sources", "status"],
        &["--set", "client_secret=hunter2", "sources", "status"],
        &["--set", "hunter2", "sources", "status"],
        &["--set", "https://h/?token=hunter2", "sources", "status"],
        &[
            "--set",
            "bus.url=hunter2@nats:4222",
            "sources",
            "status",
            "nobody",
        ],
        &["--set", "store.url=oauth:hunter2", "sources", "status"],
        &["auth", "login", "twitch", "--as", "hunter2", "--with-token"],
        &["auth", "login", "twitch", "--as", "oauth:hunter2", "--with-token"],
        &["auth", "login", "twitch", "--as=twitch/hunter2", "--with-token"],
        &[
            "auth",
            "login",
            "kick",
            "--as",
            "broadcaster:oauth:hunter2",
            "--with-token",
        ],
        &["auth", "login", "twitch", "--with-token=hunter2"],
        &["auth", "login", "twitch", "--with-token", "hunter2"],
        &["auth", "login", "hunter2", "--with-token"],
        &["auth", "login", "twitch", "--token=hunter2"],
        &["auth", "logout", "twitch", "--as", "hunter2"],
        &["auth", "status", "hunter2"],
        &["-o", "json", "auth", "login", "hunter2", "--with-token"],
        &["sources", "is-live", "oauth:hunter2"],
        &["sources", "is-live", "hunter2a1b2c3d4e5f6g7h8i9j0k1l2m3"],
        &["sources", "describe", "twitch:hunter2a1b2c3d4e5f6g7h8i9j0k1l2m3"],
        &["sources", "add", "https://bot:hunter2@example.com/x"],
        &["sources", "history", "twitch:1", "--since", "oauth:hunter2"],
        &["store", "migrate", "postgres://bot:hunter2@db/x", "sqlite"],
        &["store", "migrate", "sqlite", "hunter2@db:5432"],
        &["doctor", "oauth:hunter2"],
    ] {
        let run = home.run(words).never_panics();
        let all = format!("{}{}", run.stdout, run.stderr);
        assert!(run.code != 0 && !all.contains(HIDDEN), "{words:?}:\n{all}");
    }
    // Ordinary mistakes are still repeated.
    home.run(&["sorces"]).exits(2).names_account("sorces");
}

#[test]
fn nothing_in_the_repository_replaces_the_rules_of_a_project() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [
        "firebase.json",
        ".firebaserc",
        "firestore.rules",
        "firestore.indexes.json",
    ] {
        assert!(!root.join(name).exists(), "`firebase deploy` would take {name}");
    }
    let ours = std::fs::read_to_string(root.join("examples/firestore/indexes.json")).unwrap();
    let ours: serde_json::Value = serde_json::from_str(&ours).unwrap();
    for exemption in ours["fieldOverrides"].as_array().unwrap() {
        let group = exemption["collectionGroup"].as_str().unwrap();
        assert!(["sources", "history"].contains(&group), "{exemption}");
    }
}
