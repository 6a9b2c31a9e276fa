//! What a newcomer sees first.

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
fn a_stream_that_was_pushed_and_is_not_yet_in_the_polls_is_live_and_said_why() {
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
fn the_demo_looks_by_itself_because_its_store_is_new() {
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
fn the_table_is_plain_in_a_pipe_and_the_summary_stands_beside_it() {
    let run = Home::new().run(&["--demo", "sources", "status"]).exits(4);
    assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'));
    assert_eq!(run.stdout.lines().count(), 20);
    let run = run.shows("► ONLINE").tells("19 sources").tells("4 need you");
    run.tells("bitbrat --demo auth login twitch --as twitch/broadcaster:777009 --with-token");
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
    let budgets = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["name"] == "budget");
    let told: Vec<_> = budgets
        .map(|check| {
            (
                check["area"].as_str().unwrap(),
                check["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [("twitch", "OK"), ("kick", "OK"), ("discord", "OK")]);
}

#[test]
fn waiting_for_what_is_so_already_ends_at_once_and_for_what_is_not_in_time() {
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
fn history_tells_the_story_of_the_first_look() {
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
fn what_the_bot_may_do_is_answered_on_all_three_platforms_with_what_is_missing() {
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
        .tells("https://discord.com/oauth2/authorize?client_id=888100&scope=bot&permissions=68608&guild_id=888002");
    can("discord:888003", "SEND_MESSAGES").exits(1);
    can("discord:888004", "BAN_MEMBERS")
        .exits(0)
        .shows("in the guild as a whole");
    can("discord:888005", "SEND_MESSAGES").exits(8);
}
