//! `top` on a pseudo terminal: it draws, answers keys, and restores the terminal however it ends.

use std::process::Command;

use crate::support::Home;
use crate::support::pty::Pty;

/// Takes the alternate screen.
const ENTER: &str = "\u{1b}[?1049h";
/// Leaves it.
const LEAVE: &str = "\u{1b}[?1049l";
/// The demo that does not change by itself.
const TOP: &str = "bitbrat --demo --still top";
/// Prints what shows that the terminal is as it was before.
const AFTER: &str =
    "echo \"code $?\"; stty -a | tr ' ;' '\\n\\n' | grep -x -e -*icanon -e -*echo; echo after";

/// Waits for `text` on the screen: only the cells that change are written.
#[track_caller]
fn draws(terminal: &mut Pty, text: &str) {
    terminal.waits_until(text, |written| {
        let mut screen = vt100::Parser::new(50, 120, 0);
        screen.process(written);
        screen.screen().contents().contains(text)
    });
}

/// Starts `top`, and waits until its first check is shown.
fn start(home: &Home, command: &str) -> Pty {
    let mut terminal = Pty::start(home, command);
    terminal.shows(ENTER);
    draws(&mut terminal, "REVOKED");
    terminal
}

/// Waits for the end, and checks that the screen was left and that the shell's terminal works as before.
#[track_caller]
fn is_restored(mut terminal: Pty, code: i32) {
    terminal.shows(LEAVE);
    let shown = terminal.shows("after\r\n");
    assert!(shown.contains(&format!("code {code}\r\n")), "{shown}");
    assert!(shown.contains("\r\nicanon\r\necho\r\n"), "{shown}");
    assert!(terminal.said().contains("\u{1b}[?25h"), "the cursor is hidden");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn top_quits_by_key_with_the_terminal_restored() {
    for (keys, code) in [("q", 0), ("\u{1b}", 0), ("\u{3}", 130)] {
        let home = Home::new();
        let mut terminal = start(&home, &format!("{TOP}; {AFTER}"));
        terminal.types(keys);
        is_restored(terminal, code);
    }
}

#[test]
fn top_quits_by_signal_with_the_terminal_restored() {
    for (signal, code) in [("-TERM", 143), ("-HUP", 129), ("-INT", 130), ("-QUIT", 131)] {
        let home = Home::new();
        let program = env!("CARGO_BIN_EXE_bitbrat");
        let exec = format!("bash -c 'echo $$ > id; exec {program} --demo --still top'; {AFTER}");
        let terminal = start(&home, &exec);
        send(&home, signal);
        is_restored(terminal, code);
    }
}

/// Sends a signal to the process whose id was written to the file `id`.
fn send(home: &Home, signal: &str) {
    let id = std::fs::read_to_string(home.work().join("id")).unwrap();
    let sent = Command::new("kill").args([signal, id.trim()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn top_stopped_by_another_process_draws_again_in_raw_mode() {
    let program = env!("CARGO_BIN_EXE_bitbrat");
    for (signal, leaves) in [("-TSTP", true), ("-STOP", false)] {
        let home = Home::new();
        let line = format!(
            "set -m; bash -c 'echo $$ > id; exec {program} --demo --still top'; stty -a | grep -o -e '-*icanon'; \
             stty sane; echo stopped; fg; {AFTER}"
        );
        let mut terminal = start(&home, &line);
        send(&home, signal);
        if leaves {
            terminal.shows(LEAVE);
            terminal.shows("\r\nicanon\r\n");
        }
        terminal.shows("stopped");
        terminal.shows(ENTER);
        draws(&mut terminal, "REVOKED");
        // Without raw mode, a key has no effect before Enter.
        terminal.types("q");
        is_restored(terminal, 0);
    }
}

#[test]
fn stop_without_job_control_leaves_top_running() {
    let home = Home::new();
    let mut terminal = start(&home, &format!("{TOP}; {AFTER}"));
    terminal.types("\u{1a}");
    terminal.shows(LEAVE);
    terminal.shows(ENTER);
    draws(&mut terminal, "REVOKED");
    terminal.types("q");
    is_restored(terminal, 0);
}

#[test]
fn top_ends_when_its_terminal_is_gone() {
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_bitbrat");
    let exec = format!("bash -c 'echo $$ > id; exec {program} --demo --still top 2> errors'");
    drop(start(&home, &exec));
    let id = std::fs::read_to_string(home.work().join("id")).unwrap();
    let exists = || std::path::Path::new("/proc").join(id.trim()).exists();
    let until = std::time::Instant::now() + crate::support::process::PATIENCE;
    while exists() && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(!exists());
    let errors = std::fs::read_to_string(home.work().join("errors")).unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn suspended_top_gives_the_terminal_back_and_draws_again() {
    let home = Home::new();
    let line = format!("set -m; {TOP}; stty -a | grep -o -e ' icanon'; echo suspended; fg; {AFTER}");
    let mut terminal = start(&home, &line);
    terminal.types("\u{1a}");
    terminal.shows(LEAVE);
    terminal.shows(" icanon");
    terminal.shows("suspended");
    terminal.shows(ENTER);
    draws(&mut terminal, "REVOKED");
    terminal.types("q");
    is_restored(terminal, 0);
}

#[test]
fn keys_of_top_check_describe_and_filter() {
    let home = Home::new();
    let mut terminal = start(&home, &format!("{TOP}; {AFTER}"));
    terminal.types("/777001\r");
    draws(&mut terminal, "filter: 777001");
    terminal.types("p");
    draws(&mut terminal, "checked twitch:777001");
    terminal.types("\r");
    draws(&mut terminal, "Description of twitch:777001");
    draws(&mut terminal, "PERMISSIONS");
    terminal.types("h");
    draws(&mut terminal, "initially CONNECTED");
    terminal.types("?");
    draws(&mut terminal, "Ctrl-Z");
    terminal.types("q");
    is_restored(terminal, 0);
}

#[test]
fn top_without_a_terminal_points_to_status_watch() {
    let home = Home::new();
    home.run(&["--demo", "top"])
        .exits(2)
        .names_account("bitbrat --demo status --watch");
    let mut terminal = Pty::start(&home, "bitbrat --demo top | cat; echo \"code ${PIPESTATUS[0]}\"");
    terminal.shows("status --watch");
    terminal.shows("code 2");
    let mut terminal = Pty::start(&home, "bitbrat --demo top -o json; echo \"code $?\"");
    terminal.shows("no other output formats");
    terminal.shows("code 2");
    let mut terminal = Pty::start(&home.env("TERM", "dumb"), "bitbrat --demo top; echo \"code $?\"");
    terminal.shows("this one cannot move its cursor (TERM=dumb)");
    terminal.shows("code 2");
    assert!(!terminal.said().contains(ENTER));
}
