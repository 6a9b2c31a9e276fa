//! Several sources, globs, filters, order, limit and columns.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::process::Sim;
use crate::support::{Home, Run};

/// Runs a command in a demo world that does not change.
fn demo(words: &[&str]) -> Run {
    Home::new().run(&[&["--demo", "--still"], words].concat())
}

/// Returns the lines of standard output.
fn lines(run: &Run) -> Vec<&str> {
    run.stdout.lines().collect()
}

#[test]
fn globs_select_sources_by_id_and_by_name() {
    for (globs, expected, exit) in [
        (&["*:pixel*"][..], &["twitch:777001"][..], 0),
        (&["TWITCH:*MEADOW"], &["twitch:777001"], 0),
        (&["discord:88800[12]"], &["discord:888001", "discord:888002"], 0),
        (&["*:雪?庭"], &["twitch:777007", "discord:888004"], 0),
        (
            &["kick:88800?", "twitch:777001"],
            &["twitch:777001", "kick:888001", "kick:888002", "kick:888003"],
            0,
        ),
        (&["twitch:7770*9", "twitch:paper*"], &["twitch:777009"], 4),
    ] {
        let run = demo(&[&["status", "-q", "-o", "name"], globs].concat()).exits(exit);
        assert_eq!(lines(&run), expected, "{globs:?}");
    }
}

#[test]
fn glob_without_match_is_exit_5_in_every_command() {
    for words in [
        &["status", "kick:no*"][..],
        &["describe", "kick:no*"],
        &["history", "kick:no*"],
        &["is-live", "twitch:777001", "kick:no*"],
        &["can", "kick:no*", "send-chat"],
        &["wait", "kick:no*", "--for", "live"],
        &["sources", "list", "kick:no*"],
        &["probe", "kick:no*"],
    ] {
        demo(words)
            .exits(5)
            .names_account("no source matches the glob `kick:no*`")
            .names_account("matched against platform:id and platform:name");
    }
    demo(&["status", "pixel*"])
        .exits(5)
        .names_account("did you mean `'*:pixel*'`?");
}

#[test]
fn predicate_about_several_sources_is_true_if_all_are() {
    let run = demo(&["is-live", "twitch:777001", "twitch:777004", "kick:marblefalcon"]).exits(0);
    assert_eq!(lines(&run).len(), 3, "{}", run.stdout);
    // One that is certainly not live decides, whatever is unknown of others.
    demo(&["is-live", "twitch:*"]).exits(1).shows("no  twitch:777002");
    demo(&["is-live", "twitch:777001", "twitch:777010"]).exits(8);
    let run = demo(&["is-live", "kick:*", "-o", "json"]).exits(1);
    assert_eq!(run.item("key", "kick:888002")["answer"], "no");
    assert_eq!(run.item("key", "kick:888003")["answer"], "yes");

    demo(&["can", "kick:888001", "twitch:777002", "send-chat"]).exits(0);
    let run = demo(&["can", "discord:88800[12]", "SEND_MESSAGES"]).exits(1);
    assert!(run.stdout.contains("missing: SEND_MESSAGES"), "{}", run.stdout);
    demo(&["can", "twitch:777002", "twitch:777009", "send-chat"]).exits(8);
    demo(&["can", "twitch:*", "help"]).exits(0).shows("shoutout");
    demo(&["can", "twitch:777001", "kick:888001", "help"])
        .exits(2)
        .names_account("several platforms");
}

#[test]
fn wait_is_about_all_sources_or_any() {
    let wait = |more: &[&str]| {
        let words = ["wait", "twitch:777001", "twitch:777002", "--for", "live"];
        demo(&[&words, more].concat())
    };
    let run = wait(&["--timeout", "3s"]).exits(124).shows("the time ran out");
    assert_eq!(lines(&run).len(), 2, "{}", run.stdout);
    wait(&["--any"]).exits(0).shows("yes");
    demo(&["wait", "*:pixel*", "kick:88800[13]", "--for", "live"]).exits(0);
}

#[test]
fn histories_of_several_sources_are_merged_by_time() {
    let run = demo(&["history", "kick:*", "twitch:777001", "-o", "json"]).exits(0);
    let json = run.json();
    let items = json["items"].as_array().unwrap();
    let at = |item: &Value| item["at"].as_str().unwrap().to_owned();
    assert!(
        items.is_sorted_by(|newer, older| at(newer) >= at(older)),
        "{json:#}"
    );
    for key in ["kick:888001", "kick:888003", "twitch:777001"] {
        run.item("key", key);
    }
    let table = demo(&["history", "kick:*", "--limit", "3"])
        .exits(0)
        .shows("SOURCE");
    assert_eq!(lines(&table).len(), 4, "{}", table.stdout);
    let one = demo(&["history", "kick:888001"]).exits(0);
    assert!(!one.stdout.contains("SOURCE"), "{}", one.stdout);
}

#[test]
fn filters_select_by_platform_and_state() {
    let live = demo(&["status", "--live", "-q", "-o", "name"]).exits(0);
    let expected = [
        "twitch:777001",
        "twitch:777003",
        "twitch:777004",
        "twitch:777005",
        "twitch:777007",
        "kick:888001",
        "kick:888003",
    ];
    assert_eq!(lines(&live), expected);
    let failing = [
        "twitch:777009",
        "twitch:777010",
        "discord:888005",
        "discord:888006",
    ];
    for words in [
        &["status", "--failing", "-q", "-o", "name"][..],
        &["status", "--failing", "--probe", "-q", "-o", "name"],
        &["describe", "--failing", "-o", "name"],
    ] {
        let run = demo(words);
        assert_eq!(lines(&run), failing, "{words:?}");
        assert_eq!(run.code, if words[0] == "status" { 4 } else { 0 });
    }
    let platforms = ["--platform", "kick", "--platform", "discord", "-o", "name"];
    let run = demo(&[&["status", "-q"][..], &platforms].concat()).exits(4);
    assert_eq!(lines(&run).len(), 9);
    // Nothing of Kick needs attention.
    demo(&["status", "--failing", "--platform", "kick"])
        .exits(0)
        .names_account("none of 19 sources match --platform kick --failing");
    let run = demo(&["history", "--failing", "--platform", "twitch", "-o", "json"]).exits(0);
    run.item("key", "twitch:777009");
    assert!(!run.stdout.contains("777001"), "{}", run.stdout);
}

#[test]
fn limit_changes_what_is_shown_and_not_the_exit_code() {
    let words = ["status", "--sort", "-viewers", "--limit", "2"];
    let run = demo(&words)
        .exits(4)
        .names_account("17 more sources are not shown (--limit 2)");
    run.names_account("19 sources");
    let run = demo(&[&words[..], &["-o", "name"]].concat()).exits(4);
    assert_eq!(lines(&run), ["twitch:777001", "kick:888001"]);
    for format in ["json", "yaml", "ndjson", "csv"] {
        demo(&[&words[..], &["-o", format]].concat())
            .exits(4)
            .names_account("17 more sources are not shown");
    }
    let json = demo(&[&words[..], &["-o", "json"]].concat()).json();
    assert_eq!(json["items"].as_array().unwrap().len(), 2);
    assert_eq!(json["total"], 19);
    let json = demo(&["status", "--live", "--limit", "2", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(json["total"], 7);
    let run = demo(&[
        "describe", "kick:*", "--sort", "-id", "--limit", "1", "-o", "json",
    ])
    .exits(0);
    assert_eq!(run.json()["items"][0]["key"], "kick:888003");
    assert_eq!(run.json()["total"], 3);
    let run = demo(&[
        "sources",
        "list",
        "--sort",
        "-platform,-id",
        "--limit",
        "1",
        "-o",
        "name",
    ]);
    assert_eq!(lines(&run.exits(0)), ["discord:888006"]);
}

#[test]
fn columns_are_chosen_for_tables_and_csv() {
    let status = ["status", "twitch:777001", "kick:888001", "-q", "--columns"];
    let run = demo(&[&status[..], &["viewers,name,title"]].concat()).exits(0);
    let titles: Vec<&str> = lines(&run)[0].split_whitespace().collect();
    assert_eq!(titles, ["VIEWERS", "NAME", "TITLE"]);
    assert_eq!(lines(&run).len(), 3);
    let run = demo(&[&status[..], &["source,viewers,in", "-o", "csv"]].concat()).exits(0);
    assert_eq!(
        lines(&run),
        [
            "key,viewerCount,metrics.messagesIn",
            "twitch:777001,12847,0",
            "kick:888001,381,0"
        ]
    );
    let listed = ["sources", "list", "kick:*", "--columns", "ID,stored"];
    let run = demo(&listed).exits(0);
    assert_eq!(
        lines(&run)[0].split_whitespace().collect::<Vec<_>>(),
        ["ID", "STORED"]
    );
}

#[test]
fn bad_selection_is_a_usage_error_with_a_next_step() {
    let home = Home::new().file("bitbrat.toml", "[[source]]\nplatform = \"twitch\"\nid = \"1\"\n");
    for (words, next) in [
        (&["status", "--sort", "nonsense"][..], "use id, name, platform"),
        (&["status", "--sort", "-viewrs"], "did you mean `viewers`?"),
        (&["status", "--sort", ""], "use id, name, platform"),
        (&["status", "--limit", "0"], "--help"),
        (&["describe", "twitch:1", "--limit", "none"], "--help"),
        (&["status", "--columns", ""], "possible values: source, platform"),
        (&["status", "--columns", "viewrs"], "'viewers'"),
        (
            &["sources", "list", "--columns", "name,"],
            "possible values: source, platform",
        ),
        (
            &["status", "--columns", "name", "-o", "json"],
            "pick the fields from -o json",
        ),
        (
            &["status", "--platform", "tvitch"],
            "use one of twitch, kick, discord",
        ),
        (&["status", "twitch:[7"], "write a set as `[0-9]`"),
        (&["is-live", "discord:[7"], "write a set as `[0-9]`"),
        (&["history", "*:[a-"], "write a set as `[0-9]`"),
        (
            &["wait", "tvitch:*", "--for", "live"],
            "use one of twitch, kick, discord",
        ),
        (&["describe"], "--help"),
        (&["can", "send-chat"], "--help"),
    ] {
        home.run(words).never_panics().exits(2).names_account(next);
    }
}

#[test]
fn only_the_selected_sources_are_checked() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001", "twitch:777002", "kick:888001"]);
    let checked = || -> Vec<String> {
        let json = home.run(&["status", "-o", "json"]).json();
        let items = json["items"].as_array().unwrap().iter();
        let checked = items.filter(|item| item["status"].is_string());
        checked
            .map(|item| item["key"].as_str().unwrap().to_owned())
            .collect()
    };
    home.run(&["status", "--platform", "kick", "--probe"]).exits(0);
    assert_eq!(checked(), ["kick:888001"]);
    // The names of sources that were never checked are not known yet.
    home.run(&["status", "*:pixel*"]).exits(5);
    let run = home
        .run(&["status", "*:pixel*", "--probe", "-o", "name"])
        .exits(0);
    assert_eq!(lines(&run), ["twitch:777001"]);
    home.run(&["is-live", "*:pixel*"]).exits(0);
    let run = home.run(&["status", "--live", "--probe", "-o", "name"]).exits(0);
    assert_eq!(lines(&run), ["twitch:777001", "kick:888001"]);
    assert_eq!(checked().len(), 3);
}

#[test]
fn watched_status_shows_what_filters_select() {
    let home = Home::new();
    let words = "--demo --still status --live --sort -viewers --limit 2 --watch=200ms -q -o name";
    let mut child = home
        .command(&words.split(' ').collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let reader = BufReader::new(child.stdout.take().unwrap());
    let shown: Vec<String> = reader.lines().take(4).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        shown,
        ["twitch:777001", "kick:888001", "twitch:777001", "kick:888001"]
    );
}
