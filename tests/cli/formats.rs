//! Every form of output, help included.

use crate::support::Home;
use crate::support::process::Sim;

#[test]
fn every_form_prints_every_source() {
    let home = Home::new();
    for (form, first) in [
        ("table", "SOURCE"),
        ("wide", "SOURCE"),
        ("json", "{"),
        ("ndjson", "{\"key\":\"twitch:777001\""),
        ("yaml", "apiVersion: bitbrat/v1"),
        ("csv", "key,platform,id,displayName,status,streamStatus"),
        ("name", "twitch:777001"),
    ] {
        let run = home
            .run(&["--demo", "sources", "status", "-q", "-o", form])
            .exits(4);
        assert!(run.stdout.starts_with(first), "{form}: {}", run.stdout);
        assert!(run.stdout.contains("777010"), "{form}: {}", run.stdout);
        assert_eq!(run.stderr, "", "{form}");
    }
}

#[test]
fn color_can_be_forced_and_disabled() {
    let home = Home::new();
    let words = |color| ["--demo", "sources", "status", "--color", color];
    assert!(home.run(&words("always")).stdout.contains("\u{1b}[32m"));
    assert!(!home.run(&words("never")).stdout.contains('\u{1b}'));
    let forced = Home::new().env("CLICOLOR_FORCE", "1");
    assert!(forced.run(&words("auto")).stdout.contains('\u{1b}'));
    let refused = Home::new().env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1");
    assert!(!refused.run(&words("auto")).stdout.contains('\u{1b}'));
}

#[test]
fn a_narrow_screen_keeps_what_matters_most() {
    let narrow = Home::new().env("COLUMNS", "64");
    let run = narrow.run(&["--demo", "sources", "status"]).exits(4);
    let header = run.stdout.lines().next().unwrap();
    assert_eq!(
        header.split_whitespace().collect::<Vec<_>>()[..4],
        ["SOURCE", "NAME", "STATUS", "STREAM"]
    );
    assert!(
        run.stdout.lines().all(|line| line.chars().count() <= 64),
        "{}",
        run.stdout
    );
}

#[test]
fn every_command_has_help_with_examples() {
    let home = Home::new();
    for words in [
        vec!["sources"],
        vec!["sources", "status"],
        vec!["sources", "list"],
        vec!["sources", "describe"],
        vec!["sources", "history"],
        vec!["sources", "is-live"],
        vec!["sources", "can"],
        vec!["sources", "wait"],
        vec!["sources", "prune"],
        vec!["probe"],
        vec!["auth", "status"],
        vec!["auth", "login"],
        vec!["auth", "logout"],
        vec!["doctor"],
        vec!["preflight"],
        vec!["mcp"],
        vec!["sim"],
        vec!["sim", "trigger"],
        vec!["store", "migrate"],
        vec!["config", "show"],
        vec!["config", "check"],
        vec!["config", "init"],
        vec!["schema"],
        vec!["completion"],
        vec!["man"],
    ] {
        let with_flag = [words.clone(), vec!["--help"]].concat();
        home.run(&with_flag)
            .exits(0)
            .shows("Examples:")
            .shows("Usage: bitbrat");
        let as_topic = [vec!["help"], words].concat();
        home.run(&as_topic).exits(0).shows("Examples:");
    }
}

#[test]
fn the_exit_codes_have_a_page() {
    let home = Home::new();
    for words in [
        vec!["help", "exit-codes"],
        vec!["exit-codes"],
        vec!["exit-codes", "--help"],
    ] {
        let run = home
            .run(&words)
            .exits(0)
            .shows("124  `wait` timed out")
            .shows("4, 3, 8, 0");
        assert!(!run.stdout.contains("--demo"), "{}", run.stdout);
    }
}

#[test]
fn error_codes_have_a_page_and_each_an_entry() {
    let home = Home::new();
    home.run(&["help", "errors"])
        .exits(0)
        .shows("Any platform")
        .shows("<platform>.not_found")
        .shows("network.timeout");
    home.run(&["help", "errors", "kick.not_found"])
        .exits(0)
        .shows("There is no such source")
        .shows("What to do: Check the id");
    home.run(&["help", "errors", "http.503"]).exits(0).shows("5xx");
    home.run(&["help", "errors", "--markdown"])
        .exits(0)
        .shows("| `<platform>.not_found` |");
    let mistyped = home.run(&["help", "errors", "twich.not_fond"]).exits(2);
    assert!(
        mistyped.stderr.contains("did you mean `twitch.not_found`?"),
        "{mistyped:?}"
    );
}

#[test]
fn log_lines_in_a_pipe_are_never_broken() {
    let sim = Sim::start();
    let home = sim.home(&["twitch:777001"]).env("COLUMNS", "60");
    let run = home.run(&["watch", "--once"]).exits(0);
    let watching = run.stderr.lines().find(|line| line.contains("Watching"));
    let watching = watching.unwrap_or_else(|| panic!("{run:?}"));
    assert!(watching.len() > 80 && watching.contains("roles="), "{watching}");
}

#[test]
fn completions_and_manual_pages_are_written() {
    let home = Home::new();
    for (shell, word) in [
        ("bash", "_bitbrat"),
        ("zsh", "#compdef bitbrat"),
        ("fish", "--command bitbrat"),
    ] {
        home.run(&["completion", shell]).exits(0).shows(word);
    }
    home.run(&["man"]).exits(0).shows(".TH bitbrat");
    home.run(&["man", "sources", "status"])
        .exits(0)
        .shows("Show the status of sources");
}

#[test]
fn a_configuration_is_written_once_and_is_valid() {
    let home = Home::new();
    home.run(&["config", "init"]).exits(0).shows("bitbrat.toml");
    home.run(&["config", "init"])
        .exits(1)
        .names_account("is there already");
    home.run(&["config", "check"]).exits(0).shows("valid");
    home.run(&["config", "init", "made/on/the/way.toml"]).exits(0);
    home.run(&["--config", "made/on/the/way.toml", "config", "check"])
        .exits(0)
        .shows("valid");
    home.run(&["config", "init", "--env"])
        .exits(0)
        .shows("TWITCH_CLIENT_ID");
    let shown = home.run(&["config", "show", "-o", "json"]).exits(0);
    assert_eq!(shown.item("key", "store.url")["value"], "sqlite");
    assert_eq!(shown.item("key", "store.url")["origin"], "default");
    let set = home
        .run(&["--set", "store.url=memory", "config", "show", "-o", "json"])
        .exits(0);
    assert_eq!(set.item("key", "store.url")["origin"], "--set");
}
