//! FIFOs, devices, directories and links in place of files: nothing waits for them, reads them without end, or writes through them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Home;

/// How long a command may take, with a margin for a busy machine.
const PATIENCE: Duration = Duration::from_secs(50);

/// Places something that is no regular file at `path`.
fn place(kind: &str, path: &Path) {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).unwrap();
    }
    match kind {
        "fifo" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "directory" => std::fs::create_dir(path).unwrap(),
        _ => symlink("/dev/zero", path).unwrap(),
    }
}

/// Runs a command that has to end; returns its output.
fn ends(home: &Home, words: &[&str]) -> String {
    let (out, err) = (home.work().join("out"), home.work().join("err"));
    let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
    let mut child = home
        .command(words)
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{words:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait().unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let all = read(&out) + &read(&err);
    assert!(!all.contains("panicked"), "{words:?}: {all}");
    all
}

#[test]
fn what_is_no_regular_file_in_place_of_one_is_refused() {
    for kind in ["fifo", "directory", "device"] {
        for (name, words) in [
            ("tokens.json", &["auth", "status"][..]),
            ("tokens.json", &["doctor", "tokens"]),
            ("bitbrat.db", &["status"]),
            ("bitbrat.db", &["doctor", "store"]),
            ("bitbrat.db-wal", &["status"]),
        ] {
            let home = Home::new()
                .env("BITBRAT_SOURCES", "twitch:1")
                .env("TWITCH_CLIENT_ID", "abc")
                .env("BITBRAT_TWITCH__HELIX_URL", "http://127.0.0.1:9/helix")
                .env("BITBRAT_TWITCH__AUTH_URL", "http://127.0.0.1:9/oauth2");
            place(kind, &home.state().join(name));
            let all = ends(&home, words);
            assert!(
                all.contains("not a regular file"),
                "{kind} {name} {words:?}: {all}"
            );
            assert!(!all.contains("chmod 600"), "{kind} {name} {words:?}: {all}");
        }
        for name in [".env", "bitbrat.toml"] {
            let home = Home::new();
            place(kind, &home.work().join(name));
            let all = ends(&home, &["config", "check"]);
            assert!(all.contains("not a regular file"), "{kind} {name}: {all}");
        }
    }
}

#[test]
fn damaged_name_cache_of_another_kind_only_means_asking_again() {
    for kind in ["fifo", "directory", "device"] {
        let home = Home::new()
            .env("BITBRAT_SOURCES", "twitch:ratcaster")
            .env("BITBRAT_TWITCH__HELIX_URL", "http://127.0.0.1:9/helix")
            .env("BITBRAT_TWITCH__AUTH_URL", "http://127.0.0.1:9/oauth2");
        place(kind, &home.state().join("names.json"));
        ends(&home, &["status"]);
    }
}

#[test]
fn keys_and_certificates_for_nats_are_regular_files() {
    for kind in ["fifo", "device"] {
        for variable in ["NATS_CREDS", "NATS_CA", "NATS_NKEY"] {
            let home = Home::new();
            let path = home.work().join("key");
            place(kind, &path);
            let home = home
                .env("MESSAGE_BUS_DRIVER", "nats")
                .env("NATS_URL", "nats://127.0.0.1:9")
                .env(variable, path.to_str().unwrap());
            let all = ends(&home, &["doctor", "bus"]);
            assert!(all.contains("not a regular file"), "{kind} {variable}: {all}");
            assert!(all.contains(variable), "{kind} {variable}: {all}");
        }
    }
}

#[test]
fn fifo_in_place_of_trusted_certificates_delays_nothing() {
    let home = Home::new();
    let path = home.work().join("ca.pem");
    place("fifo", &path);
    let home = home
        .env("SSL_CERT_FILE", path.to_str().unwrap())
        .env("BITBRAT_SOURCES", "twitch:1")
        .env("TWITCH_CLIENT_ID", "abc")
        .env("TWITCH_CLIENT_SECRET", "s3cret-s3cret-0123")
        .env("BITBRAT_TWITCH__HELIX_URL", "http://127.0.0.1:9/helix")
        .env("BITBRAT_TWITCH__AUTH_URL", "http://127.0.0.1:9/oauth2");
    ends(&home, &["probe", "connection"]);
    let all = ends(&home, &["doctor", "twitch"]);
    assert!(!all.contains("does not end"), "{all}");
}

#[test]
fn dangling_link_in_place_of_the_store_creates_no_file() {
    let home = Home::new().env("BITBRAT_SOURCES", "twitch:1");
    let elsewhere = home.work().join("elsewhere");
    std::fs::create_dir_all(home.state()).unwrap();
    symlink(&elsewhere, home.state().join("bitbrat.db")).unwrap();
    let all = ends(&home, &["status"]) + &ends(&home, &["probe", "connection"]);
    assert!(all.contains("symbolic link"), "{all}");
    assert!(!elsewhere.exists());
}

#[test]
fn manual_pages_replace_a_link_and_leave_its_target() {
    let home = Home::new().file("precious", "precious");
    let pages = home.work().join("man");
    std::fs::create_dir(&pages).unwrap();
    symlink(home.work().join("precious"), pages.join("bitbrat.1")).unwrap();
    home.run(&["man", "--out", "man"]).exits(0);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&home.work().join("precious")), "precious");
    assert!(read(&pages.join("bitbrat.1")).contains("bitbrat"));
}

#[test]
fn files_of_process_substitutions_are_read() {
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_bitbrat");
    let line = format!(
        "{program} --config <(printf '[[source]]\\nplatform = \"twitch\"\\nid = \"7\"\\n') --env-file <(printf 'LOG_LEVEL=debug\\n') \
         sources list -o name"
    );
    let mut command = home.command_through(&["bash", "-c", &line], &[]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = command.env("PATH", path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "twitch:7\n", "{}", String::from_utf8_lossy(&output.stderr));
}
