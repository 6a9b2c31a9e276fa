use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::{debug, error, info, warn};

use super::*;
use crate::telemetry::recorded;

/// 2026-11-30T01:44:37Z, the time of every record unless a test moves it.
const START: i64 = 1_796_003_077_000;

const PLAIN: Style = Style {
    width: None,
    color: false,
    unicode: true,
};

fn invocation(words: &[&str]) -> &'static Invocation {
    use clap::Parser as _;
    let line = ["bitbrat"].iter().chain(words);
    let cli = crate::cli::args::Cli::try_parse_from(line).unwrap();
    let words = words.iter().map(|&word| word.to_owned());
    Box::leak(Box::new(Invocation::new(&cli.global, words)))
}

fn lines_of(style: Style, verbose: bool, columns: Option<usize>) -> LogLines {
    LogLines::new(
        style,
        verbose,
        TimeZone::UTC,
        move || columns,
        invocation(&["watch"]),
    )
}

/// Adds what `act` logs, each event a second after the one before.
fn add(lines: &mut LogLines, start: i64, act: impl FnOnce()) {
    for (second, record) in (0..).zip(recorded(act)) {
        let at = Timestamp::from_millis(start).plus_secs(second);
        lines.add(Record { at, ..record });
    }
}

/// The lines of what `act` logs within the time in which lines are merged.
fn shown(act: impl FnOnce()) -> String {
    let mut lines = lines_of(PLAIN, false, None);
    add(&mut lines, START, act);
    lines.take()
}

fn stream(key: &str, name: Option<&str>, from: &str, to: &str, by: &str, lasted_s: Option<u64>) {
    info!(
        name: names::TRANSITION, { source.key = key, display_name = name, facet = "stream", from, to, lasted_s,
        rule = "stream.pushed-start", by }, "a text that no line is made from"
    );
}

fn status(key: &str, name: &str, from: &str, to: &str, reason: Option<&str>) {
    info!(
        name: names::TRANSITION, { source.key = key, display_name = name, facet = "status", from, to, reason,
        rule = "status.transport-down", by = "twitch.helix" }, "status"
    );
}

fn found_first(key: &str, name: &str, facet: &str, to: &str, reason: Option<&str>, rule: &str) {
    info!(
        name: names::TRANSITION, { source.key = key, display_name = name, facet, from = "unknown", to, initial = true, reason,
        rule, by = "twitch.helix" }, "initial"
    );
}

#[test]
fn stream_goes_live_and_ends() {
    let text = shown(|| {
        stream(
            "twitch:777006",
            Some("CobaltLantern"),
            "OFFLINE",
            "ONLINE",
            "twitch.eventsub",
            None,
        );
        stream(
            "twitch:777006",
            Some("CobaltLantern"),
            "ONLINE",
            "OFFLINE",
            "twitch.eventsub",
            Some(325),
        );
        stream("kick:888001", None, "OFFLINE", "ONLINE", "kick.api", None);
        stream("kick:888001", None, "ONLINE", "ONLINE", "kick.webhook", None);
        stream("kick:888001", None, "ONLINE", "UNKNOWN", "kick.api", None);
    });
    assert_eq!(
        text,
        "01:44:37 ► CobaltLantern went live (twitch:777006, EventSub)\n\
         01:44:38 ■ CobaltLantern ended after 5 min (twitch:777006, EventSub)\n\
         01:44:39 ► kick:888001 went live (poll)\n\
         01:44:40 ► kick:888001 went live again (webhook)\n\
         01:44:41 ? kick:888001: it is unknown whether the stream is live (poll)\n"
    );
}

#[test]
fn lost_connection_and_recovery_have_cause_and_duration() {
    let mut lines = lines_of(PLAIN, false, None);
    let ratcaster = |from, to, reason| status("twitch:1", "RatCaster", from, to, reason);
    add(&mut lines, START, || {
        ratcaster("CONNECTED", "DISCONNECTED", Some("no answer within 10 s"));
    });
    add(&mut lines, START + 125_000, || {
        ratcaster("DISCONNECTED", "CONNECTED", None);
    });
    add(&mut lines, START + 200_000, || {
        ratcaster("CONNECTED", "ERROR", Some("no such channel on Twitch"));
    });
    assert_eq!(
        lines.take(),
        "01:44:37 ○ RatCaster lost its connection: no answer within 10 s (twitch:1)\n\
         01:46:42 ● RatCaster is connected again after 2 min (twitch:1)\n\
         01:47:57 ✗ RatCaster needs attention: no such channel on Twitch (twitch:1)\n"
    );
}

#[test]
fn sources_with_one_cause_are_one_line() {
    let text = shown(|| {
        for (key, name) in [
            ("twitch:1", "A"),
            ("twitch:2", "B"),
            ("twitch:3", "C"),
            ("twitch:4", "D"),
        ] {
            status(key, name, "CONNECTED", "DISCONNECTED", Some("no answer"));
        }
        status("kick:5", "E", "CONNECTED", "DISCONNECTED", Some("no answer"));
        status("kick:6", "F", "CONNECTED", "DISCONNECTED", Some("no answer"));
    });
    assert_eq!(
        text,
        "01:44:37 ○ 4 Twitch sources lost their connection: no answer (A, B, C and 1 more)\n\
         01:44:41 ○ 2 Kick sources lost their connection: no answer (E, F)\n"
    );
}

#[test]
fn changes_of_one_source_keep_their_order() {
    let text = shown(|| {
        status("twitch:1", "A", "CONNECTED", "DISCONNECTED", Some("no answer"));
        status("twitch:1", "A", "DISCONNECTED", "CONNECTED", None);
        status("twitch:1", "A", "CONNECTED", "DISCONNECTED", Some("no answer"));
    });
    assert_eq!(
        text,
        "01:44:37 ○ A lost its connection: no answer (twitch:1)\n\
         01:44:38 ● A is connected again after 1 s (twitch:1)\n\
         01:44:39 ○ A lost its connection: no answer (twitch:1)\n"
    );
}

#[test]
fn revoked_account_is_one_line_with_its_command() {
    let revoked = || {
        error!(
            name: names::ACCOUNT, account = "twitch/bot", state = "REVOKED", sources = 10,
            command = "bitbrat auth login twitch --as bot", "Account `twitch/bot` is REVOKED"
        );
        info!(
            name: names::TRANSITION, { source.key = "twitch:1", facet = "status", from = "CONNECTED", to = "ERROR",
            rule = "status.grant-revoked", reason = "the authorization was revoked" }, "status"
        );
        info!(
            name: names::TRANSITION, { source.key = "twitch:1", facet = "auth", from = "VALID", to = "REVOKED",
            rule = "auth.revoked" }, "auth"
        );
        info!(name: names::ACCOUNT, account = "twitch/bot", state = "VALID", "authorized again");
    };
    assert_eq!(
        shown(revoked),
        "01:44:37 ✗ twitch/bot was revoked: run `bitbrat auth login twitch --as bot` (10 sources)\n\
         01:44:40 ✓ twitch/bot is authorized again\n"
    );
    // A login would be lost with the demo.
    let mut lines = LogLines::new(
        PLAIN,
        false,
        TimeZone::UTC,
        || None,
        invocation(&["--demo", "watch"]),
    );
    add(&mut lines, START, revoked);
    assert!(
        lines
            .take()
            .starts_with("01:44:37 ✗ twitch/bot was revoked (10 sources)\n")
    );
}

#[test]
fn permissions_are_named_and_scopes_counted() {
    let text = shown(|| {
        info!(
            name: names::TRANSITION, { source.key = "twitch:1", display_name = "A", facet = "permissions",
            gained = "MODERATOR scope:a scope:b", unproven = "" }, "changed"
        );
        info!(
            name: names::TRANSITION, { source.key = "twitch:1", display_name = "A", facet = "permissions",
            gained = "unknown", unproven = "MODERATOR" }, "changed"
        );
    });
    assert_eq!(
        text,
        "01:44:37 ✓ Permissions in A: gained MODERATOR, 2 scopes (twitch:1)\n\
         01:44:38 ! Permissions in A: no longer proven: MODERATOR (twitch:1)\n"
    );
}

fn start() {
    info!(
        name: names::WATCHING, sources = 19, platforms = "10 on Twitch, 3 on Kick, 6 on Discord", roles = "ingest, persist, web",
        store = "sqlite:/var/lib/bitbrat/bitbrat.db", bus = "local", web = "http://127.0.0.1:8787/", "Watching"
    );
    info!(name: names::SERVING, address = "127.0.0.1:8787", "Serving pages at http://127.0.0.1:8787/");
}

#[test]
fn start_first_check_and_stop_are_summaries() {
    let text = shown(|| {
        start();
        found_first("twitch:1", "A", "stream", "ONLINE", None, "stream.seen-in-poll");
        found_first(
            "twitch:2",
            "B",
            "status",
            "ERROR",
            Some("no such channel"),
            "status.no-such-source",
        );
        found_first(
            "twitch:3",
            "C",
            "status",
            "ERROR",
            Some("no such channel"),
            "status.no-such-source",
        );
        found_first(
            "twitch:4",
            "D",
            "status",
            "ERROR",
            Some("revoked"),
            "status.grant-revoked",
        );
        info!(
            name: names::CHECKED, checked = 19, sources = 19, live = 7, attention = 3, disconnected = 0, "Checked"
        );
        info!(name: names::STOPPING, signal = ?"x", "Stopping");
        info!(name: names::STOPPED, ran_s = 3_720, clean = true, writes = 174, failures = 0, "Stopped");
    });
    assert_eq!(
        text,
        "01:44:37 ● Watching 19 sources: 10 on Twitch, 3 on Kick, 6 on Discord\n           \
                    store sqlite:/var/lib/bitbrat/bitbrat.db\n           \
                    bus   local\n           \
                    web   http://127.0.0.1:8787/\n\
         01:44:43 ! Checked 19 of 19 sources: 7 live, 3 need attention\n\
         01:44:43 ✗ 2 Twitch sources need attention: no such channel (B, C)\n\
         01:44:44   Stopping\n\
         01:44:45 ■ Stopped after 1 h 2 min; 174 writes to the store\n"
    );
}

#[test]
fn platform_that_is_down_at_the_start_is_in_the_summary() {
    let text = shown(|| {
        info!(name: names::CHECKING, checked = 120, sources = 500, "Checked");
        info!(
            name: names::CHECKED, checked = 500, sources = 500, live = 0, attention = 1, disconnected = 499,
            reason = "connection refused", "Checked"
        );
    });
    assert_eq!(
        text,
        "01:44:37   Checked 120 of 500 sources so far\n\
         01:44:38 ! Checked 500 of 500 sources: 0 live, 499 not connected, 1 needs attention (connection refused)\n"
    );
}

#[test]
fn baseline_of_a_source_that_is_added_later_shows_only_problems() {
    let mut lines = lines_of(PLAIN, false, None);
    add(&mut lines, START, || {
        info!(name: names::CHECKED, checked = 1, sources = 1, live = 0, attention = 0, disconnected = 0, "Checked");
    });
    assert_eq!(lines.take(), "01:44:37 ✓ Checked 1 of 1 source: 0 live\n");
    add(&mut lines, START, || {
        found_first("twitch:5", "E", "stream", "ONLINE", None, "stream.seen-in-poll");
        found_first(
            "twitch:6",
            "F",
            "status",
            "ERROR",
            Some("no such channel"),
            "status.no-such-source",
        );
    });
    assert_eq!(
        lines.take(),
        "01:44:38 ✗ F needs attention: no such channel (twitch:6)\n"
    );
}

#[test]
fn warnings_and_errors_keep_text_cause_and_next_step() {
    let text = shown(|| {
        warn!(
            bus = "nats://x",
            error = "timed out",
            hint = "run `bitbrat doctor bus`",
            "Messages cannot be read"
        );
        warn!(reason = "disk full", "Cannot write: disk full");
        error!("The disk still refuses");
        warn!(
            connection = "twitch/bot#0",
            reason = "closed",
            "Not listening to Twitch"
        );
        warn!(
            connection = "twitch/bot#1",
            reason = "closed",
            "Not listening to Twitch"
        );
        warn!("The clock jumped");
        warn!("The clock jumped");
    });
    assert_eq!(
        text,
        "01:44:37 ! Messages cannot be read: timed out; run `bitbrat doctor bus` (nats://x)\n\
         01:44:38 ! Cannot write: disk full\n\
         01:44:39 ✗ The disk still refuses\n\
         01:44:40 ! Not listening to Twitch: closed (2 connections)\n\
         01:44:42 ! The clock jumped (2×)\n"
    );
}

#[test]
fn verbose_lines_are_single_and_have_fields() {
    let mut lines = lines_of(PLAIN, true, None);
    add(&mut lines, START, || {
        for key in ["twitch:1", "twitch:2"] {
            debug!(
                name: names::TRANSITION, { source.key = key, facet = "status", from = "unknown", to = "CONNECTED",
                initial = true, rule = "status.proven" }, "status"
            );
        }
        debug!(reason = "two words", "Unexpected refusal");
    });
    assert_eq!(
        lines.take(),
        "01:44:37 ● twitch:1 is connected source.key=twitch:1 facet=status from=unknown to=CONNECTED initial=true \
         rule=status.proven\n\
         01:44:38 ● twitch:2 is connected source.key=twitch:2 facet=status from=unknown to=CONNECTED initial=true \
         rule=status.proven\n\
         01:44:39   Unexpected refusal: two words reason=\"two words\"\n"
    );
}

#[test]
fn lines_wrap_at_words_and_keep_commands_whole() {
    let act = || {
        error!(
            name: names::ACCOUNT, account = "twitch/broadcaster:777009", state = "REVOKED", sources = 1,
            command = "bitbrat auth login twitch --as broadcaster:777009", "x"
        );
        start();
    };
    let wrapped = |columns| {
        let mut lines = lines_of(PLAIN, false, Some(columns));
        add(&mut lines, START, act);
        lines.take()
    };
    assert_eq!(
        wrapped(72),
        "01:44:37 ✗ twitch/broadcaster:777009 was revoked: run\n           \
                    `bitbrat auth login twitch --as broadcaster:777009`\n           \
                    (1 source)\n\
         01:44:38 ● Watching 19 sources: 10 on Twitch, 3 on Kick, 6 on Discord\n           \
                    store sqlite:/var/lib/bitbrat/bitbrat.db\n           \
                    bus   local\n           \
                    web   http://127.0.0.1:8787/\n"
    );
    assert_eq!(
        wrapped(40),
        "01:44:37 ✗ twitch/broadcaster:777009 was\n  revoked: run `bitbrat auth login\n  \
         twitch --as broadcaster:777009`\n  (1 source)\n\
         01:44:38 ● Watching 19 sources: 10 on\n  Twitch, 3 on Kick, 6 on Discord\n  \
         store sqlite:/var/lib/bitbrat/bitbrat.db\n  bus   local\n  web   http://127.0.0.1:8787/\n"
    );
    for columns in 30..130 {
        let longest = wrapped(columns).lines().map(super::super::wrap::width).max();
        assert!(longest <= Some(columns.max(52)), "{columns}: {longest:?}");
    }
}

#[test]
fn ascii_locale_and_color_are_respected() {
    let act = || {
        stream(
            "twitch:1",
            Some("A"),
            "OFFLINE",
            "ONLINE",
            "twitch.eventsub",
            None,
        );
        stream(
            "twitch:1",
            Some("A"),
            "ONLINE",
            "OFFLINE",
            "twitch.eventsub",
            Some(60),
        );
    };
    let ascii = Style {
        unicode: false,
        ..PLAIN
    };
    let mut lines = lines_of(ascii, false, None);
    add(&mut lines, START, act);
    assert_eq!(
        lines.take(),
        "01:44:37 > A went live (twitch:1, EventSub)\n01:44:38 - A ended after 1 min (twitch:1, EventSub)\n"
    );
    let color = Style { color: true, ..PLAIN };
    let mut lines = lines_of(color, false, None);
    add(&mut lines, START, act);
    assert_eq!(
        lines.take().lines().next().unwrap(),
        "\u{1b}[2m01:44:37\u{1b}[0m \u{1b}[1;35m►\u{1b}[0m \u{1b}[1;35mA went live\u{1b}[0m \
         \u{1b}[2m(twitch:1, EventSub)\u{1b}[0m"
    );
}

#[test]
fn name_cannot_control_the_terminal() {
    let text = shown(|| {
        stream(
            "twitch:1",
            Some("A\u{1b}[2J\nB"),
            "OFFLINE",
            "ONLINE",
            "twitch.helix",
            None,
        );
    });
    assert_eq!(text, "01:44:37 ► A [2J B went live (twitch:1, poll)\n");
}

#[test]
fn local_time_and_a_new_day_are_shown() {
    let zone = TimeZone::fixed(jiff::tz::offset(-3));
    let mut lines = LogLines::new(PLAIN, false, zone, || None, invocation(&["watch"]));
    let first = || stream("twitch:1", None, "OFFLINE", "ONLINE", "twitch.helix", None);
    add(&mut lines, START, first);
    add(&mut lines, START + 3_600_000 * 2, first);
    assert_eq!(
        lines.take(),
        "22:44:37 ► twitch:1 went live (poll)\n── Mon, 30 Nov 2026\n00:44:37 ► twitch:1 went live (poll)\n"
    );
}

#[test]
fn width_is_determined_for_each_line() {
    let columns = Arc::new(AtomicUsize::new(200));
    let now = Arc::clone(&columns);
    let width = move || Some(now.load(Ordering::Relaxed));
    let mut lines = LogLines::new(PLAIN, false, TimeZone::UTC, width, invocation(&["watch"]));
    let long = || warn!("{}", "word ".repeat(20).trim_end());
    add(&mut lines, START, long);
    assert_eq!(lines.take().lines().count(), 1);
    columns.store(60, Ordering::Relaxed);
    add(&mut lines, START, long);
    assert_eq!(lines.take().lines().count(), 2);
}
