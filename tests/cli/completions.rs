//! Completions, requested as the shells' scripts do.

use std::path::Path;

use crate::support::Home;
use crate::support::process::Sim;

/// Returns the candidates that fish offers for the last word of a line, with the descriptions.
fn offered(home: &Home, line: &[&str]) -> Vec<(String, String)> {
    let mut words = vec!["--", "bitbrat"];
    words.extend(line);
    let output = home
        .command(&words)
        .env("BITBRAT_COMPLETE", "fish")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines();
    lines
        .map(|line| {
            let (word, help) = line.split_once('\t').unwrap_or((line, ""));
            (word.to_owned(), help.to_owned())
        })
        .collect()
}

fn words(home: &Home, line: &[&str]) -> Vec<String> {
    offered(home, line).into_iter().map(|(word, _)| word).collect()
}

#[test]
fn completions_offer_known_ids_names_and_what_belongs_there() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001", "kick:888002"]);
    std::fs::write(home.work().join("a-file"), "").unwrap();
    let before = words(&home, &["sources", "status", ""]);
    assert_eq!(before, ["kick:888002", "twitch:777001"]);
    home.run(&["probe"]).exits(0);
    let called = offered(&home, &["sources", "status", "twitch:7"]);
    assert_eq!(called, [("twitch:777001".to_owned(), "PixelMeadow".to_owned())]);
    let by_name = offered(&home, &["sources", "can", "Pixel"]);
    assert_eq!(by_name, [("pixelmeadow".to_owned(), "twitch:777001".to_owned())]);
    for (line, expected) in [
        (
            &["sources", "can", "twitch:777001", "send"] as &[&str],
            "send-chat",
        ),
        (
            &["events", "tail", "--source", "twitch:777001,kick:8"],
            "twitch:777001,kick:888002",
        ),
        (&["events", "tail", "--type", "system.so"], "system.source.status"),
        (
            &["auth", "login", "twitch", "--as", "broad"],
            "broadcaster:777001",
        ),
        (&["auth", "status", "tw"], "twitch"),
        (&["status", "--platform", "tw"], "twitch"),
        (&["status", "--sort", "name,vie"], "name,viewers"),
        (&["status", "--columns", "name,vie"], "name,viewers"),
        (&["can", "kick:888002", "twitch:77"], "twitch:777001"),
        (&["can", "kick:888002", "twitch:777001", "send"], "send-chat"),
        (&["schema", "hist"], "history"),
        (&["doctor", "sto"], "store"),
        (&["man", "sources", "desc"], "describe"),
        (&["--set", "store.u"], "store.url="),
        (&["probe", "twitch:777"], "twitch:777001"),
        (&["--demo", "sources", "status", "twitch:777003"], "twitch:777003"),
    ] {
        assert_eq!(words(&home, line), [expected], "{line:?}");
    }
    let actions = words(&home, &["sources", "can", "kick:888002", ""]);
    assert!(!actions.contains(&"kick-member".to_owned()), "{actions:?}");
    for line in [
        &["sources", "status", "a"] as &[&str],
        &["probe", "a-"],
        &["schema", "a-"],
        &["auth", "status", "a"],
        &["sources", "can", "twitch:777001", "a-"],
    ] {
        assert!(!words(&home, line).contains(&"a-file".to_owned()), "{line:?}");
    }
    assert_eq!(words(&home, &["events", "publish", "a"]), ["a-file"]);
}

#[test]
fn completions_are_quiet_where_the_configuration_is_broken() {
    let home = Home::new().file("bitbrat.toml", "[[source]\nnonsense");
    assert_eq!(words(&home, &["sources", "status", "t"]), [""; 0]);
    assert_eq!(words(&home, &["sources", "stat"]), ["status"]);
    // Completion creates nothing.
    assert!(!home.state().exists());
}

#[test]
fn bash_completes_ids_after_colon_word_breaks() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001", "twitch:777002"]);
    let program = Path::new(env!("CARGO_BIN_EXE_bitbrat"));
    let directory = program.parent().unwrap().display();
    let complete = |broken: &str| {
        let line = format!(
            "PATH={directory}:$PATH; source <(bitbrat completion bash); COMP_WORDBREAKS=$' \\t\\n:='; \
             COMP_WORDS=({broken}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _bitbrat; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = home.shell(&line);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        complete("bitbrat sources status twitch"),
        ["twitch:777001", "twitch:777002"]
    );
    assert_eq!(complete("bitbrat sources status twitch :"), ["777001", "777002"]);
    assert_eq!(complete("bitbrat sources status twitch : 777002"), ["777002"]);
    assert_eq!(
        complete("bitbrat events tail --source = twitch : 777002"),
        ["777002"]
    );
    assert_eq!(complete("bitbrat sources list --output = nd"), ["ndjson"]);
    assert_eq!(complete("bitbrat sources stat"), ["status"]);
}
