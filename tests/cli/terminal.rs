//! `watch` on a pseudo terminal, which `script` of util-linux provides.

use std::process::Command;

use unicode_width::UnicodeWidthStr as _;

use crate::support::Home;
use crate::support::process::Process;

/// `bitbrat` on a terminal.
struct Terminal {
    home: Home,
    process: Process,
}

impl Terminal {
    /// Starts `bitbrat` with `options` on a terminal of 80 columns.
    fn start(home: Home, options: &str) -> Self {
        // The shell becomes the program, so the number is the program's.
        let line = format!(
            "script --quiet --return --command 'stty cols 80 rows 24 && echo $$ > id && exec '$0' {options}' /dev/null"
        );
        let mut command = home.command_through(&["bash", "-c", &line], &[]);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let process = Process::spawn(&mut command);
        Self { home, process }
    }

    /// Stops the program and returns its exit code and all lines.
    fn stop(mut self) -> (i32, Vec<String>) {
        let id = std::fs::read_to_string(self.home.work().join("id")).unwrap();
        let sent = Command::new("kill").args(["-TERM", id.trim()]).status().unwrap();
        assert!(sent.success());
        let code = self.process.ends();
        let said = self.process.said();
        (
            code,
            said.lines().map(|line| line.trim_end().to_owned()).collect(),
        )
    }
}

/// Whether a line starts with a time of day.
fn has_time(line: &str) -> bool {
    let digits = |place: &[usize]| {
        place
            .iter()
            .all(|at| line.as_bytes().get(*at).is_some_and(u8::is_ascii_digit))
    };
    digits(&[0, 1, 3, 4, 6, 7]) && line.get(2..3) == Some(":") && line.get(5..6) == Some(":")
}

#[test]
fn watch_prints_changes_for_people_on_a_terminal() {
    let options = "--demo watch --color never --set web.listen=127.0.0.1:0";
    let mut terminal = Terminal::start(Home::new(), options);
    terminal
        .process
        .says("► CobaltLantern went live (twitch:777006, EventSub)");
    terminal
        .process
        .says_all(&["■ ", "777009 was revoked", "Checked 19 of 19"]);
    let (code, lines) = terminal.stop();
    let text = lines.join("\n");
    assert_eq!(code, 0, "{text}");
    for expected in [
        "● Watching 19 sources: 10 on Twitch, 3 on Kick, 6 on Discord",
        "           web   http://127.0.0.1:",
        // How many are live and in error depends on the checks of that moment.
        "Checked 19 of 19 sources: ",
        "✗ twitch/broadcaster:777009 was revoked (1 source)",
        "  Stopping (SIGTERM)",
        "■ Stopped after ",
    ] {
        assert!(text.contains(expected), "`{expected}` is missing:\n{text}");
    }
    for unexpected in [
        "source.key=",
        " INFO ",
        "\u{1b}",
        "PixelMeadow went live",
        "Serving pages",
    ] {
        assert!(!text.contains(unexpected), "`{unexpected}` in:\n{text}");
    }
    for line in &lines {
        assert!(
            // A line with the date precedes the first one of a day.
            has_time(line) || line.starts_with("           ") || line.starts_with("──"),
            "{line:?} in:\n{text}"
        );
        assert!(
            line.width() <= 80 || !line.chars().skip(11).any(|c| c == ' '),
            "{line:?} is too wide"
        );
    }
}

#[test]
fn quiet_watch_prints_only_warnings_and_errors_on_a_terminal() {
    let home = Home::new().env("LC_ALL", "C");
    let mut terminal = Terminal::start(home, "--demo watch -q --set web.listen=off");
    // In which order accounts are checked is not determined.
    terminal
        .process
        .says_all(&["777009 was revoked", "discord/bot:888006 was"]);
    let (code, lines) = terminal.stop();
    let text = lines.join("\n");
    assert_eq!(code, 0, "{text}");
    assert!(text.is_ascii(), "{text}");
    assert!(
        text.contains("x\u{1b}[0m \u{1b}[1;31mtwitch/broadcaster:777009 was revoked"),
        "{text}"
    );
    assert!(
        !text.contains("Watching") && !text.contains("went live"),
        "{text}"
    );
}
