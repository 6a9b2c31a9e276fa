//! The first commands of a new user.

use crate::support::Home;

#[test]
fn every_source_of_the_demo_is_shown_in_its_true_state() {
    let run = Home::new()
        .run(&["--demo", "sources", "status", "--probe", "-o", "json"])
        .exits(4);
    for (key, status, stream, auth) in [
        ("twitch:777001", "CONNECTED", "ONLINE", "VALID"),
        ("twitch:777002", "CONNECTED", "OFFLINE", "VALID"),
        ("twitch:777003", "CONNECTED", "ONLINE", "VALID"),
        ("twitch:777004", "CONNECTED", "ONLINE", "VALID"),
        ("twitch:777005", "CONNECTED", "ONLINE", "VALID"),
        ("twitch:777006", "CONNECTED", "OFFLINE", "VALID"),
        ("twitch:777007", "CONNECTED", "ONLINE", "VALID"),
        ("twitch:777008", "CONNECTED", "OFFLINE", "VALID"),
        ("twitch:777009", "ERROR", "OFFLINE", "REVOKED"),
        ("twitch:777010", "ERROR", "UNKNOWN", "VALID"),
        ("kick:888001", "CONNECTED", "ONLINE", "VALID"),
        ("kick:888002", "CONNECTED", "OFFLINE", "VALID"),
        ("discord:888001", "CONNECTED", "UNKNOWN", "VALID"),
        ("discord:888002", "CONNECTED", "UNKNOWN", "VALID"),
        ("discord:888005", "ERROR", "UNKNOWN", "VALID"),
        ("discord:888006", "ERROR", "UNKNOWN", "REVOKED"),
    ] {
        let item = run.item("key", key);
        assert_eq!(
            (&item["status"], &item["streamStatus"]),
            (&status.into(), &stream.into()),
            "{item:#}"
        );
        assert_eq!(item["authStatus"], auth, "{item:#}");
        assert_eq!(item["stale"], serde_json::json!([]), "{item:#}");
    }
    let permissions = |key: &str| run.item("key", key)["permissions"].to_string();
    assert!(permissions("twitch:777004").contains("MODERATOR"));
    assert!(permissions("twitch:777005").contains("VIP"));
    assert_eq!(run.item("key", "twitch:777001")["viewerCount"], 12_847);
    assert_eq!(run.item("key", "twitch:777007")["displayName"], "雪の庭");
}

#[test]
fn pushed_stream_missing_from_polls_is_live_with_its_rule() {
    let run = Home::new()
        .run(&["--demo", "sources", "describe", "twitch:777003", "-o", "json"])
        .exits(0);
    let item = run.item("key", "twitch:777003");
    assert_eq!(item["verdicts"]["stream"]["rule"], "stream.push-beats-poll");
    assert_eq!(item["streamStatus"], "ONLINE");
    assert!(
        item.get("viewerCount").is_none(),
        "nobody has counted yet: {item:#}"
    );
}

#[test]
fn demo_probes_automatically_with_a_new_store() {
    let home = Home::new();
    home.run(&["--demo", "sources", "is-live", "twitch:777001"])
        .exits(0)
        .shows("yes");
    home.run(&["--demo", "sources", "is-live", "twitch:777002"])
        .exits(1)
        .shows("no");
    home.run(&["--demo", "sources", "is-live", "twitch:777010"])
        .exits(8)
        .shows("unknown");
    home.run(&["--demo", "sources", "can", "twitch:777002", "MODERATOR"])
        .exits(0);
    home.run(&["--demo", "sources", "can", "twitch:777001", "MODERATOR"])
        .exits(1);
    home.run(&["--demo", "sources", "can", "twitch:777001", "VIP"])
        .exits(8)
        .shows("broadcaster");
}

#[test]
fn the_demo_leaves_nothing_behind() {
    let home = Home::new();
    home.run(&["--demo", "sources", "status"]).exits(4);
    assert!(!home.state().exists());
    let left: Vec<_> = std::fs::read_dir(home.work().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["work"]);
}

#[test]
fn a_store_that_is_set_explicitly_counts_in_the_demo_too() {
    let home = Home::new();
    let store = home.work().join("kept.db");
    let url = format!("store.url=sqlite:{}", store.display());
    home.run(&["--demo", "--set", &url, "probe"]).exits(4);
    let kept = home.run(&["--set", &url, "sources", "status", "-o", "json"]);
    assert_eq!(kept.item("key", "twitch:777001")["displayName"], "PixelMeadow");
}

#[test]
fn piped_table_is_plain_and_summary_goes_to_stderr() {
    let run = Home::new().run(&["--demo", "sources", "status"]).exits(4);
    assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'));
    assert_eq!(run.stdout.lines().count(), 20);
    let run = run
        .shows("► ONLINE")
        .names_account("19 sources")
        .names_account("4 need attention");
    // A login is advised in the demo world, and never outside it.
    assert!(!run.stderr.contains("bitbrat auth login"), "{}", run.stderr);
    run.names_account("bitbrat --demo sources describe twitch:777010");
}

#[test]
fn without_a_utf8_locale_there_is_ascii_only_but_for_names() {
    let run = Home::new()
        .env("LC_ALL", "C")
        .run(&["--demo", "sources", "status", "twitch:777001"])
        .exits(0)
        .shows("> ONLINE");
    assert!(
        run.stdout.is_ascii() && run.stderr.is_ascii(),
        "{}{}",
        run.stdout,
        run.stderr
    );
}

#[test]
fn doctor_checks_the_demo_and_finds_the_two_revoked_grants() {
    let run = Home::new().run(&["--demo", "doctor", "-o", "json"]).exits(4);
    assert_eq!(run.item("name", "identity twitch/bot")["outcome"], "OK");
    let revoked = run.item("name", "identity twitch/broadcaster:777009");
    assert_eq!(revoked["outcome"], "FAIL");
    assert!(revoked["next"].as_str().unwrap().contains("auth login"));
    let reset = run.item("name", "identity discord/bot:888006");
    assert_eq!(reset["outcome"], "FAIL");
    assert_eq!(run.item("name", "reachable")["outcome"], "OK");
    assert_eq!(run.item("name", "identity kick/bot")["outcome"], "OK");
    assert_eq!(run.item("name", "identity discord/bot")["outcome"], "OK");
    let listed = run.json();
    let rate_limits = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["name"] == "rate limit");
    let reported: Vec<_> = rate_limits
        .map(|check| {
            (
                check["area"].as_str().unwrap(),
                check["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(reported, [("twitch", "OK"), ("kick", "OK"), ("discord", "OK")]);
}

#[test]
fn wait_returns_at_once_if_met_and_times_out_otherwise() {
    let home = Home::new();
    home.run(&["--demo", "sources", "wait", "twitch:777001", "--for", "live"])
        .exits(0)
        .shows("yes");
    let words = [
        "--demo",
        "sources",
        "wait",
        "twitch:777001",
        "--for",
        "offline",
        "--timeout",
        "1s",
    ];
    home.run(&words).exits(124).shows("the time ran out");
}

#[test]
fn first_probe_reports_its_transitions() {
    let run = Home::new()
        .run(&["--demo", "probe", "twitch:777001", "-o", "json"])
        .exits(0);
    let changes = run.item("key", "twitch:777001")["transitions"].clone();
    let changes: Vec<_> = changes
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["to"].as_str().unwrap_or(""))
        .collect();
    assert!(
        changes.contains(&"ONLINE") && changes.contains(&"CONNECTED"),
        "{changes:?}"
    );
}

#[test]
fn can_answers_on_all_platforms_with_missing_permissions() {
    let can = |id: &str, what: &str| Home::new().run(&["--demo", "sources", "can", id, what]);
    can("twitch:777002", "MODERATOR").exits(0);
    can("kick:888001", "send-chat").exits(0);
    can("kick:888001", "ban")
        .exits(1)
        .shows("missing: scope:moderation:ban");
    can("kick:888001", "badge:moderator").exits(8);
    can("discord:888001", "SEND_MESSAGES").exits(0);
    can("discord:888002", "SEND_MESSAGES")
        .exits(1)
        .shows("missing: SEND_MESSAGES")
        .names_account("https://discord.com/oauth2/authorize?client_id=888100&scope=bot&permissions=68608&guild_id=888002");
    can("discord:888003", "SEND_MESSAGES").exits(1);
    can("discord:888004", "BAN_MEMBERS")
        .exits(0)
        .shows("in the guild as a whole");
}

#[test]
fn revoked_or_absent_source_is_never_a_yes() {
    let can = |id: &str, what: &str| Home::new().run(&["--demo", "sources", "can", id, what, "--probe"]);
    for what in ["send-chat", "MODERATOR"] {
        can("twitch:777010", what).exits(1).shows("does not exist");
    }
    can("discord:888005", "SEND_MESSAGES").exits(1).shows("not in it");
    can("discord:888006", "SEND_MESSAGES")
        .exits(1)
        .shows("discord/bot:888006, which is REJECTED");
    let run = can("twitch:777009", "send-chat")
        .exits(8)
        .shows("twitch/broadcaster:777009 is REVOKED");
    run.names_account("bitbrat --demo auth login twitch --as");
}

#[test]
fn demo_login_is_answered_with_advice_that_works_there() {
    let home = Home::new();
    let status = home.run(&["--demo", "auth", "status"]).exits(4).shows("REVOKED");
    assert!(!status.stderr.contains("bitbrat auth login"), "{}", status.stderr);
    for input in ["", "no-token-of-this-world\n"] {
        let run = home
            .run_with(&["--demo", "auth", "login", "twitch", "--with-token"], input)
            .never_panics()
            .names_account("leave out --demo to log in");
        assert!(
            run.code != 0 && !run.stderr.contains("bitbrat auth login"),
            "{run:?}"
        );
    }
}

#[test]
fn name_or_address_stands_wherever_an_id_does() {
    let home = Home::new();
    for source in [
        "twitch:pixelmeadow",
        "PixelMeadow",
        "https://www.twitch.tv/pixelmeadow",
        "777001",
    ] {
        home.run(&["--demo", "sources", "is-live", source])
            .exits(0)
            .shows("twitch:777001");
    }
    home.run(&["--demo", "sources", "status", "twitch:pixelmeadow", "-o", "name"])
        .exits(0)
        .shows("twitch:777001");
    home.run(&["--demo", "probe", "stream", "twitch:pixelmeadow", "--dry-run"])
        .exits(0)
        .shows("twitch:777001");
    home.run(&["--demo", "sources", "can", "twitch:pixelmeadow", "send-chat"])
        .exits(0)
        .shows("not covered: followers-only");
    home.run(&["--demo", "sources", "is-live", "nobody-at-all"])
        .exits(5)
        .names_account("no source named `nobody-at-all`");
}

#[test]
fn actions_of_a_platform_are_listed_on_request() {
    for (source, action) in [
        ("twitch:777001", "shoutout"),
        ("kick:888001", "edit-title"),
        ("discord:888001", "manage-roles"),
    ] {
        Home::new()
            .run(&["--demo", "sources", "can", source, "help"])
            .exits(0)
            .shows(action);
    }
}
