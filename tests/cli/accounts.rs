//! Configured accounts and sources: what is wrong with them is reported with the command that corrects it.

use std::os::unix::fs::PermissionsExt as _;

use bitbrat::sim::twitch::TokenSpec;

use super::login::{BOT, DEVICE, Rig};
use crate::support::Home;

/// Simulated platforms, and a home with these sources.
fn with_sources(rig: &mut Rig, sources: &str) {
    let home = std::mem::replace(&mut rig.home, Home::new());
    rig.home = home.env("BITBRAT_SOURCES", sources);
}

#[test]
fn doctor_of_a_platform_without_source_checks_its_accounts() {
    let mut rig = Rig::new();
    with_sources(&mut rig, "");
    let run = rig.home.run(&["doctor", "twitch", "-o", "json"]).exits(0);
    assert_eq!(run.item("name", "identity twitch/app")["outcome"], "OK");
    let account = run.item("name", "account twitch/bot");
    assert_eq!(account["outcome"], "WARN", "{account}");
    assert_eq!(account["next"], "bitbrat auth login twitch");
    rig.granted(&DEVICE, BOT);
    let run = rig.home.run(&["doctor", "twitch", "-o", "json"]).exits(0);
    assert_eq!(run.item("name", "identity twitch/bot")["outcome"], "OK");
    let secret = rig
        .home
        .env("BITBRAT_TWITCH__CLIENT_SECRET", "wrong-secret-of-another");
    let run = secret.run(&["doctor", "twitch", "-o", "json"]).exits(4);
    assert_eq!(run.item("name", "identity twitch/app")["outcome"], "FAIL");
}

#[test]
fn doctor_of_an_unused_platform_names_the_login() {
    let run = Home::new()
        .env("BITBRAT_KICK__AUTH_URL", "http://127.0.0.1:1")
        .env("BITBRAT_KICK__API_URL", "http://127.0.0.1:1")
        .run(&["doctor", "kick", "-o", "json"])
        .never_panics();
    let all = run.item("name", "all");
    assert_eq!(all["outcome"], "SKIPPED", "{all}");
    assert_eq!(all["next"], "bitbrat auth login kick");
}

#[test]
fn env_file_that_others_can_read_causes_a_warning() {
    let mut rig = Rig::without(&["twitch.client_secret"]);
    let line = format!("TWITCH_CLIENT_SECRET={}\n", rig.client_secret());
    let home = std::mem::replace(&mut rig.home, Home::new());
    rig.home = home.file(".env", &line);
    let path = rig.home.work().join(".env");
    let chmod = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o644);
    let warning = "can be read by others (mode 644)";
    let (code, said) = rig.granted(&DEVICE, BOT);
    assert!(
        code == 0 && said.contains(warning) && said.contains("chmod 600 "),
        "{said}"
    );
    for command in ["doctor", "preflight"] {
        let run = rig.home.run(&[command, "-o", "json"]).never_panics();
        let item = run.item("name", "secrets");
        assert_eq!(item["outcome"], "WARN", "{command}: {item}");
        assert!(item["next"].as_str().unwrap().starts_with("chmod 600 "), "{item}");
    }
    chmod(0o600);
    let run = rig.home.run(&["doctor", "-o", "json"]).never_panics();
    assert!(!run.stdout.contains(warning), "{}", run.stdout);
    // Nothing in it is secret.
    std::fs::write(&path, "LOG_LEVEL=info\n").unwrap();
    chmod(0o644);
    let run = rig.home.run(&["doctor", "-o", "json"]).never_panics();
    assert!(!run.stdout.contains(warning), "{}", run.stdout);
}

#[test]
fn configured_token_that_was_never_stored_is_revoked_too() {
    let rig = Rig::new();
    let home = rig.home.env("TWITCH_BOT_ACCESS_TOKEN", &rig.twitch.bot.access);
    home.run(&["auth", "logout", "twitch"])
        .exits(0)
        .names_account("was revoked at Twitch")
        .names_account("the configuration still contains a token of twitch/bot");
    for _ in 0..2 {
        let run = home.run(&["auth", "status", "-o", "json"]).exits(0);
        assert!(!run.stdout.contains("twitch/bot"), "{}", run.stdout);
    }
    // What was configured anew is used.
    let other = rig.sim.twitch.issue_token(TokenSpec {
        client_id: rig.twitch.client_id.clone(),
        user_id: Some(BOT.to_owned()),
        ..TokenSpec::default()
    });
    let home = home.env("TWITCH_BOT_ACCESS_TOKEN", &other.access);
    let run = home.run(&["auth", "status", "-o", "json"]).exits(0);
    assert_eq!(run.item("identity", "twitch/bot")["status"], "VALID");
}

#[test]
fn channel_configured_by_id_and_name_counts_once_with_a_note() {
    let mut rig = Rig::new();
    with_sources(&mut rig, "twitch:pixelmeadow twitch:777001");
    rig.granted(&DEVICE, BOT);
    rig.home.run(&["probe"]).exits(0);
    let run = rig.home.run(&["sources", "list", "-o", "json"]).exits(0);
    assert_eq!(run.json()["items"].as_array().unwrap().len(), 1, "{}", run.stdout);
    let words: Vec<&str> = run.stderr.split_whitespace().collect();
    assert!(
        words.join(" ").contains("are the same source, which counts once"),
        "{}",
        run.stderr
    );
    let run = rig
        .home
        .run(&["doctor", "configuration", "-o", "json"])
        .never_panics();
    assert_eq!(run.item("name", "duplicate")["outcome"], "WARN");
}

#[test]
fn login_that_is_not_finished_is_no_success() {
    let rig = Rig::new();
    rig.fault(bitbrat::sim::Fault::status(500).on("/oauth2/validate"));
    let words = ["auth", "login", "twitch", "--as", "broadcaster"];
    let (code, said) = rig.granted(&words, super::login::BROADCASTER);
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("with status 500"), "{said}");
    rig.calm();
    rig.granted(&DEVICE, BOT);
    rig.home
        .run(&["auth", "status"])
        .exits(8)
        .names_account("is not finished");
}
