//! The support bundle contains what explains a problem, and no secret.

use std::io::Read as _;
use std::process::Command;

use crate::support::Home;
use crate::support::pty::Pty;

/// What must not be in a bundle.
const HIDDEN: [&str; 5] = [
    "hunter2hunter2",
    "zz9sentinelclientsecret0123456789",
    "zz9sentinelbottoken0123456789abcd",
    "zz9sentinellogtoken0123456789abcd",
    "zz9-sentinel-webhook",
];

fn home() -> Home {
    Home::new()
        .env("BITBRAT_SOURCES", "twitch:1")
        .env("TWITCH_CLIENT_ID", "zz9clientid")
        .env("TWITCH_CLIENT_SECRET", HIDDEN[1])
        .env("TWITCH_BOT_ACCESS_TOKEN", HIDDEN[2])
        .env("NATS_URL", &format!("nats://bot:{}@127.0.0.1:1", HIDDEN[0]))
        .env("MESSAGE_BUS_DRIVER", "nats")
        .env("BITBRAT_TWITCH__HELIX_URL", "http://127.0.0.1:1")
        .env("BITBRAT_TWITCH__AUTH_URL", "http://127.0.0.1:1")
        .file(
            "bitbrat.toml",
            &format!(
                "[[alert]]\nname = \"ops\"\ntype = \"slack\"\nurl = \"https://hooks.example/{}\"\non = [\"auth.revoked\"]\n",
                HIDDEN[4]
            ),
        )
        .file(
            "watch.log",
            &format!(
                "first\nrequest failed: Bearer {}\n{} again\n",
                HIDDEN[3], HIDDEN[1]
            ),
        )
}

/// Returns the names of the files in an archive, and all of their text.
fn content(archive: &std::path::Path) -> (Vec<String>, String) {
    let list = Command::new("tar").arg("tzf").arg(archive).output().unwrap();
    let text = Command::new("tar").arg("xzOf").arg(archive).output().unwrap();
    assert!(list.status.success() && text.status.success());
    let names = String::from_utf8(list.stdout).unwrap();
    let names = names.lines().map(str::to_owned).collect();
    (names, String::from_utf8(text.stdout).unwrap())
}

#[test]
fn support_bundle_contains_no_secret() {
    let home = home();
    let run = home.run(&[
        "support",
        "bundle",
        "--yes",
        "--file",
        "b.tar.gz",
        "--log",
        "watch.log",
    ]);
    let run = run.exits(0).shows("b.tar.gz").names_account("doctor.json");
    let (names, text) = content(&home.work().join("b.tar.gz"));
    for name in [
        "versions.txt",
        "configuration.json",
        "log.txt",
        "doctor.json",
        "sources.json",
        "runs.txt",
    ] {
        assert!(names.contains(&format!("bitbrat-support/{name}")), "{names:?}");
    }
    for hidden in HIDDEN {
        assert!(!text.contains(hidden), "{hidden} is in the bundle");
        assert!(
            !run.stdout.contains(hidden) && !run.stderr.contains(hidden),
            "{hidden}"
        );
    }
    assert!(text.contains("request failed"), "the log is there");
    assert!(text.contains("alert.ops.on"), "the alerts are there");
    assert!(
        text.contains("twitch:1") && text.contains(env!("CARGO_PKG_VERSION")),
        "{text}"
    );
    #[cfg(unix)]
    assert_eq!(crate::support::mode(&home.work().join("b.tar.gz")), 0o600);
    let mut bytes = Vec::new();
    std::fs::File::open(home.work().join("b.tar.gz"))
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    let again = home.run(&["support", "bundle", "--yes", "--file", "b.tar.gz"]);
    again.exits(2).names_account("exists already");
    assert_eq!(std::fs::read(home.work().join("b.tar.gz")).unwrap(), bytes);
}

#[test]
fn support_bundle_of_a_broken_configuration_is_written() {
    let home = home().env("BITBRAT_SCHEDULE__STREAM", "now and then");
    home.run(&["support", "bundle", "--yes", "--file", "b.tar.gz"])
        .exits(0);
    let (names, text) = content(&home.work().join("b.tar.gz"));
    assert!(!names.contains(&"bitbrat-support/sources.json".to_owned()));
    assert!(text.contains("the configuration is invalid"), "{text}");
}

#[test]
fn support_bundle_is_written_only_after_a_confirmation() {
    let home = home();
    let run = home.run(&["support", "bundle", "--file", "b.tar.gz"]);
    run.exits(2).names_account("--yes");
    for (answer, is_written) in [("n", false), ("y", true)] {
        let mut terminal = Pty::start(&home, "bitbrat support bundle --file b.tar.gz; echo over");
        terminal.shows("configuration.json");
        terminal.answers("Write it? [y/N]", answer);
        terminal.shows("over");
        assert_eq!(home.work().join("b.tar.gz").exists(), is_written, "{answer}");
    }
}
