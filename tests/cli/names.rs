//! Sources by their names, with and without a configuration.

use serde_json::{Value, json};

use crate::support::process::{Sim, ask};

#[test]
fn stream_is_checked_by_name_without_any_configured_source() {
    let sim = Sim::start();
    let home = sim.home(&[]);
    home.run(&["sources", "is-live", "twitch:pixelmeadow", "--probe"])
        .exits(0)
        .shows("twitch:777001");
    home.run(&["sources", "is-live", "twitch:777002", "--probe"])
        .exits(1);
    home.run(&["sources", "can", "twitch:pixelmeadow", "send-chat", "--probe"])
        .exits(0);
    home.run(&["sources", "is-live", "twitch:nobody_of_this_name", "--probe"])
        .exits(5)
        .names_account("there is no source named");
    home.run(&["sources", "is-live", "twitch:999999999", "--probe"])
        .exits(5)
        .names_account("there is no source `twitch:999999999`");
    // A query stores nothing.
    let listed = home.run(&["sources", "list", "-o", "json"]).exits(0).json();
    assert_eq!(listed["items"], json!([]));
}

#[test]
fn id_in_a_list_of_names_is_pointed_out() {
    let sim = Sim::start();
    let home = sim
        .home(&[])
        .file("bitbrat.toml", "[twitch]\nchannels = [\"777001\"]\n");
    let run = home.run(&["probe"]);
    assert!(
        run.stderr.contains("set it as `id = \"777001\"` of a [[source]]"),
        "{run:?}"
    );
}

#[test]
fn failed_probe_is_not_answered_from_the_cache() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001"]);
    home.run(&["probe"]).exits(0);
    sim.order("/__sim/server", &json!({"down_for_ms": 600_000}));
    home.run(&["sources", "is-live", "twitch:777001"]).exits(0);
    let run = home
        .run(&["sources", "is-live", "twitch:777001", "--probe"])
        .shows("the check failed");
    assert!(matches!(run.code, 3 | 8), "{run:?}");
    home.run(&[
        "sources",
        "is-live",
        "twitch:777001",
        "--probe",
        "--max-age",
        "1h",
    ])
    .exits(0)
    .shows("yes");
    let run = home
        .run(&["sources", "can", "twitch:777001", "send-chat", "--probe"])
        .shows("unknown");
    assert!(matches!(run.code, 3 | 8), "{run:?}");
    home.run(&["sources", "is-live", "twitch:777001", "--max-age", "0s"])
        .exits(8)
        .shows("too old");
}

#[test]
fn sources_are_added_and_removed_without_touching_comments() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001"]);
    let file = home.work().join("bitbrat.toml");
    let before = format!("# mine\n{}", std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, &before).unwrap();
    home.run(&["sources", "add", "https://kick.com/ratcaster", "discord:888001"])
        .exits(0)
        .shows("added to");
    home.run(&["sources", "add", "discord:888001"])
        .exits(0)
        .shows("already in");
    let listed = home.run(&["sources", "list", "-o", "name"]).exits(0);
    assert!(listed.stdout.contains("discord:888001"), "{}", listed.stdout);
    home.run(&["sources", "remove", "kick:ratcaster", "discord:888001"])
        .exits(0)
        .shows("removed from");
    let after = std::fs::read_to_string(&file).unwrap();
    assert_eq!(after.trim_end(), before.trim_end());
    home.run(&["sources", "remove", "kick:ratcaster"]).exits(5);
}

#[test]
fn source_in_another_spelling_is_not_added_again() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001"]);
    let file = home.work().join("bitbrat.toml");
    let before = std::fs::read(&file).unwrap();
    for known in [
        "twitch:pixelmeadow",
        "https://www.twitch.tv/PixelMeadow",
        "PixelMeadow",
        "twitch:777001",
    ] {
        home.run(&["sources", "add", known]).exits(0).shows("already in");
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);
    home.run(&["sources", "add", "twitch:quietharbor"])
        .exits(0)
        .shows("added to");
    home.run(&["sources", "add", "twitch:777002"])
        .exits(0)
        .shows("already in");
    // A platform that does not answer prevents no source from being added.
    sim.order("/__sim/server", &json!({"down_for_ms": 600_000}));
    home.run(&["sources", "add", "twitch:sunriseforge"])
        .exits(0)
        .shows("added to");
}

#[test]
fn added_source_keeps_line_ends_and_byte_order_mark() {
    let home = crate::support::Home::new().file("bitbrat.toml", "\u{feff}# mine\r\n# [store]\r\n");
    home.run(&["sources", "add", "twitch:1"]).exits(0);
    let text = std::fs::read_to_string(home.work().join("bitbrat.toml")).unwrap();
    assert_eq!(
        text,
        "\u{feff}# mine\r\n# [store]\r\n\r\n[[source]]\r\nplatform = \"twitch\"\r\nid = \"1\"\r\n"
    );
}

#[test]
fn broadcaster_logs_in_and_out_by_name() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001"]);
    let mut lines = sim.env.lines();
    let client = lines.find_map(|line| line.strip_prefix("TWITCH_CLIENT_ID="));
    let order = json!({
        "client_id": client.unwrap().trim_matches('"'), "user_id": "777001", "scopes": ["channel:bot"],
    });
    let kind = "Content-Type: application/json\r\n";
    let path = "/__sim/twitch/token";
    let (status, body) = ask(&sim.twitch, "POST", path, kind, &order.to_string()).unwrap();
    assert_eq!(status, 200, "{body}");
    let pair: Value = serde_json::from_str(&body).unwrap();
    let token = format!("{}\n", pair["access_token"].as_str().unwrap());
    let login = |name: &str| {
        let identity = format!("broadcaster:{name}");
        let words = [
            "auth",
            "login",
            "twitch",
            "--as",
            &identity,
            "--with-token",
            "-o",
            "json",
        ];
        home.run_with(&words, &token)
    };
    let run = login("PixelMeadow").exits(0);
    assert_eq!(run.json()["items"][0]["identity"], "twitch/broadcaster:777001");
    login("nobody_of_this_name")
        .exits(5)
        .names_account("there is no source named");
    // Another account's token is rejected for the given one.
    login("quietharbor").exits(4);
    home.run(&["auth", "logout", "twitch", "--as", "broadcaster:pixelmeadow"])
        .exits(0)
        .names_account("twitch/broadcaster:777001 were deleted");
}
