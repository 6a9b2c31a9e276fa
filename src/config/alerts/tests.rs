//! What is read of alerts, hooks and maintenance windows, and what is refused.

use super::super::{ConfigInputs, Configuration, load};

fn loaded(toml: &str, variables: &[(&str, &str)]) -> Configuration {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bitbrat.toml"), toml).unwrap();
    let own = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let inputs = ConfigInputs {
        environment: own.collect(),
        work_dir: dir.path().to_owned(),
        ..ConfigInputs::default()
    };
    load(&inputs, "2026-05-01T18:00:00Z".parse().unwrap())
}

#[test]
fn alerts_hooks_and_windows_are_read() {
    let toml = r#"
            [[alert]]
            name = "ops"
            type = "discord"
            url_env = "OPS_WEBHOOK"
            on = ["auth.revoked", "source.down>2m"]
            sources = ["twitch:*"]
            recover_after = "90s"

            [[alert]]
            name = "own"
            type = "webhook"
            url = "http://10.0.0.7/alerts"
            allow_private = true
            secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
            on = ["platform.outage"]

            [[hook]]
            name = "lights"
            command = ["/usr/local/bin/lights", "on"]
            on = ["stream.online"]

            [[maintenance]]
            name = "nightly"
            days = ["sun"]
            start = "03:00"
            end = "04:30"
            timezone = "Europe/Berlin"
        "#;
    let address = "https://discord.com/api/webhooks/1/not-to-be-shown-abc";
    let configuration = loaded(toml, &[("OPS_WEBHOOK", address)]);
    assert!(configuration.problems.is_empty(), "{:?}", configuration.problems);
    let alerts = &configuration.settings.alerts;
    assert_eq!(
        (alerts.alerts.len(), alerts.hooks.len(), alerts.windows.len()),
        (2, 1, 1)
    );
    assert_eq!(alerts.alerts[0].receiver.url.as_str(), address);
    assert_eq!(alerts.alerts[0].recover_after.as_secs(), 90);
    let key = alerts.alerts[1].receiver.signing_key.as_deref();
    assert_eq!(key, Some(&b"012345678901234567890123"[..]));
    assert_eq!(crate::secrets::mask(address), "***");
    let written = alerts
        .written
        .iter()
        .map(|field| format!("{} = {}", field.key, field.value));
    let written: Vec<_> = written.collect();
    for line in [
        "alert.ops.url_env = OPS_WEBHOOK",
        "alert.own.url = ***",
        "alert.own.secret = ***",
        "alert.own.on = platform.outage",
        "hook.lights.command = /usr/local/bin/lights and 1 argument",
        "maintenance.nightly.timezone = Europe/Berlin",
    ] {
        assert!(written.iter().any(|found| found == line), "{line}: {written:?}");
    }
}

#[test]
fn every_problem_is_reported_at_once_without_the_address() {
    let toml = r#"
            [[alert]]
            name = "a b"
            type = "pager"
            url = "http://hooks.example.com/hush-hush-hush"
            on = ["source.dwon"]
            sources = ["twitch:[1"]
            recover_after = "soon"
            urll = "x"

            [[alert]]
            name = "two"
            type = "slack"
            url = "https://192.168.1.4/hush-hush-hush"
            secret = "hush-hush-hush"
            on = []

            [[alert]]
            name = "two"
            type = "ntfy"
            url_env = "MISSING"
            on = ["stream.online"]
            template = "{nmae}"

            [[hook]]
            name = "h"
            command = "rm -rf"
            on = ["platform.outage"]
            at_most = 0

            [[maintenance]]
            name = "m"
            days = ["someday"]
            start = "25:00"
            end = "04:00"
            timezone = "Middle/Earth"
        "#;
    let configuration = loaded(toml, &[]);
    let text: Vec<_> = configuration.problems.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    for part in [
        "alert #1: urll",
        "alert #1: name",
        "alert #1: type",
        "alert #1: on",
        "alert #1: sources",
        "alert #1: recover_after",
        "alert #1: url",
        "alert #2: url",
        "alert #2: secret",
        "alert #3: name",
        "alert #3: url_env",
        "alert #3: template",
        "hook #1: command",
        "hook #1: on",
        "hook #1: at_most",
        "maintenance #1: days",
        "maintenance #1: start",
        "maintenance #1: timezone",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.contains("hush"), "{text}");
}
