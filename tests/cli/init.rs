//! `init`, with flags and on a terminal, against simulated platforms.

use std::path::Path;
use std::time::{Duration, Instant};

use bitbrat::sim::kit::oauth::DeviceState;

use super::login::{BOT, Rig};
use crate::support::process::Process;
use crate::support::pty::Pty;
use crate::support::{Home, ReservedPort, mode};

const APPLICATION: [&str; 2] = ["twitch.client_id", "twitch.client_secret"];

/// Simulated platforms, and a home in which nothing is configured but their addresses.
fn rig(left_out: &[&str]) -> Rig {
    let mut rig = Rig::without(left_out);
    let home = std::mem::replace(&mut rig.home, Home::new());
    rig.home = home
        .env("BITBRAT_SOURCES", "")
        .env("BITBRAT_TWITCH__BOT_USER_ID", "")
        .env("BITBRAT_WEB__LISTEN", "off");
    rig
}

/// Returns the names of the files in the working directory.
fn files(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.work()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Returns the last command that was advised below a note.
fn advised(said: &str) -> String {
    let mut commands = said.lines().filter_map(|line| line.trim().strip_prefix("→ "));
    commands.next_back().unwrap().trim().to_owned()
}

#[test]
fn init_without_a_terminal_names_the_flags() {
    let home = Home::new();
    home.run(&["init"])
        .exits(2)
        .names_account("no terminal: use `init --yes --channel twitch:NAME`");
    home.run(&["init", "--yes"])
        .exits(2)
        .names_account("--channel twitch:NAME");
    home.run(&["init", "--yes", "--channel", "pixelmeadow"])
        .exits(2)
        .names_account("name its platform");
    for (name, value) in [("TERM", "dumb"), ("CI", "true")] {
        let mut terminal = Pty::start(&Home::new().env(name, value), "bitbrat init");
        terminal.shows("no terminal: use");
        assert_eq!(terminal.ends(), 2, "{name}");
    }
    assert!(files(&home).is_empty());
}

#[test]
fn init_with_flags_writes_a_short_file_and_shows_the_table() {
    let rig = rig(&[]);
    let words = ["init", "--yes", "--channel", "twitch:PixelMeadow", "--channel"];
    let run = rig
        .home
        .run(&[&words[..], &["https://kick.com/marblefalcon"]].concat())
        .exits(0)
        .shows("PixelMeadow")
        .shows("MarbleFalcon")
        .names_account("bitbrat auth login twitch")
        .names_account("bitbrat watch");
    let text = read(&rig.home.work().join("bitbrat.toml"));
    assert!(text.lines().count() <= 12, "{text}");
    assert!(
        text.contains("login = \"pixelmeadow\"") && text.contains("slug = \"marblefalcon\""),
        "{text}"
    );
    assert!(run.stdout.contains("ONLINE"), "{}", run.stdout);
    assert_eq!(files(&rig.home), ["bitbrat.toml"]);
    rig.home.run(&["config", "check"]).exits(0);
}

#[test]
fn misspelled_channel_is_found_before_anything_is_written() {
    let rig = rig(&[]);
    rig.home
        .run(&["init", "--yes", "--channel", "twitch:nobodyofthisname"])
        .exits(5)
        .names_account("no channel on Twitch is called `nobodyofthisname`");
    assert!(files(&rig.home).is_empty());
}

#[test]
fn existing_configuration_is_kept() {
    let rig = rig(&[]);
    let home = &rig.home;
    let path = home.work().join("bitbrat.toml");
    std::fs::write(&path, "# mine\n").unwrap();
    let words = ["init", "--yes", "--channel", "twitch:pixelmeadow"];
    home.run(&words)
        .exits(1)
        .names_account("bitbrat.toml, which was left as it is")
        .names_account("bitbrat sources add twitch:NAME")
        .names_account("bitbrat init --force");
    assert_eq!(read(&path), "# mine\n");
    let force = [&words[..], &["--force"]].concat();
    home.run(&force).exits(0).names_account("bitbrat.toml.bak");
    home.run(&force).exits(0).names_account("bitbrat.toml.bak1");
    assert_eq!(read(&home.work().join("bitbrat.toml.bak")), "# mine\n");
    assert!(read(&path).contains("pixelmeadow"));
}

#[test]
fn init_writes_the_file_that_config_names() {
    let rig = rig(&[]);
    let words = ["--config", "bot.toml", "init", "--yes", "--service"];
    rig.home
        .run(&[&words[..], &["--channel", "twitch:pixelmeadow"]].concat())
        .exits(0)
        .shows("PixelMeadow")
        .names_account("systemctl --user enable --now");
    assert_eq!(files(&rig.home), ["bitbrat-watch.service", "bot.toml"]);
    let unit = read(&rig.home.work().join("bitbrat-watch.service"));
    assert!(unit.contains("/bot.toml watch\n"), "{unit}");
}

#[test]
fn demo_sets_up_and_logs_in_without_files() {
    let home = Home::new();
    let port = ReservedPort::new();
    let port = format!("auth.redirect_port={}", port.number);
    let words = ["--demo", "--set", &port, "init", "--yes"];
    let run = home
        .run(
            &[
                &words[..],
                &[
                    "--channel",
                    "twitch:pixelmeadow",
                    "--channel",
                    "kick:marblefalcon",
                ],
            ]
            .concat(),
        )
        .exits(0)
        .shows("PixelMeadow")
        .names_account("The demo writes no file")
        .names_account("twitch/bot is now authorized as bitbrat_bot (777100)")
        .names_account("kick/bot is now authorized as BitBrat_Bot (888100)");
    assert!(!run.stdout.contains("SunriseForge"), "{}", run.stdout);
    assert!(files(&home).is_empty());
}

#[test]
fn first_five_minutes_take_three_commands() {
    let rig = rig(&APPLICATION);
    let begun = Instant::now();
    let help = rig.home.run(&[]).stderr;
    let first = help.lines().find(|line| line.contains("bitbrat init")).unwrap();
    let command = first
        .split("  ")
        .find(|part| part.contains("init"))
        .unwrap()
        .trim();
    let mut terminal = Pty::start(&rig.home, command);
    terminal.answers("Twitch channels (--channel twitch:NAME): ", "pixelmeadow");
    terminal.answers("Kick channels (--channel kick:NAME): ", "");
    terminal.answers("Discord guilds (--channel discord:ID): ", "");
    terminal.shows(&format!("http://localhost:{}/callback", rig.port.number));
    terminal.answers("(--client-id twitch:ID): ", &rig.twitch.client_id);
    terminal.answers(
        "TWITCH_CLIENT_SECRET; it is not shown, and is written to .env): ",
        &rig.twitch.client_secret,
    );
    terminal.answers("Log in as the bot now, to Twitch (--login)? [Y/n] ", "");
    // Where systemd runs, `init` offers a unit.
    if Path::new("/run/systemd/system").exists() {
        terminal.answers("(--service)? [y/N] ", "");
    }
    terminal.shows("Code: ");
    let code = terminal.shows(" (until");
    let code = code.trim_end_matches(" (until").to_owned();
    let granted = DeviceState::Granted(BOT.to_owned());
    assert_eq!(rig.sim.twitch.decide_device(&code, &granted), 1);
    terminal.answers("Is this the account for twitch/bot? [Y/n] ", "");
    terminal.shows("twitch/bot is now authorized as bitbrat_bot (777100)");
    terminal.shows("PixelMeadow");
    terminal.shows("ONLINE");
    assert_eq!(terminal.ends(), 0, "{}", terminal.said());
    let said = terminal.said();
    assert!(!said.contains(&rig.twitch.client_secret), "{said}");
    let toml = read(&rig.home.work().join("bitbrat.toml"));
    assert!(
        toml.contains(&rig.twitch.client_id) && !toml.contains(&rig.twitch.client_secret),
        "{toml}"
    );
    assert!(toml.lines().count() <= 12, "{toml}");
    assert_eq!(mode(&rig.home.work().join(".env")), 0o600);
    let next = advised(&said);
    assert_eq!(next, "bitbrat watch");
    let words: Vec<&str> = next.split(' ').skip(1).collect();
    let mut daemon = Process::start(&rig.home, &words);
    daemon.says("Checked 1 of 1 source: 1 live");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(rig.status("twitch/bot"), "VALID");
}

#[test]
fn demo_of_init_asks_the_same_questions() {
    let home = Home::new();
    let mut terminal = Pty::start(&home, "bitbrat --demo init");
    terminal.answers(
        "Twitch channels (--channel twitch:NAME): ",
        "pixelmeado quietharbor",
    );
    terminal.answers("Kick channels (--channel kick:NAME): ", "rat!");
    terminal.answers("Kick channels (--channel kick:NAME): ", "");
    terminal.answers("Discord guilds (--channel discord:ID): ", "");
    terminal.shows("is called `pixelmeado`");
    terminal.answers("Another one, or Enter to leave it out: ", "pixelmeadow");
    terminal.answers("Log in as the bot now, to Twitch (--login)? [Y/n] ", "");
    terminal.shows("is now authorized as bitbrat_bot");
    terminal.shows("PixelMeadow");
    terminal.shows("QuietHarbor");
    terminal.shows("→ bitbrat --demo watch");
    assert_eq!(terminal.ends(), 0);
    assert!(files(&home).is_empty());
}

#[test]
fn interrupted_init_leaves_nothing_behind() {
    let rig = rig(&APPLICATION);
    let mut terminal = Pty::start(&rig.home, "bitbrat init; echo \"code $?\"; stty -a");
    terminal.answers("Twitch channels (--channel twitch:NAME): ", "pixelmeadow");
    terminal.answers("Kick channels (--channel kick:NAME): ", "");
    terminal.answers("Discord guilds (--channel discord:ID): ", "");
    terminal.answers("(--client-id twitch:ID): ", "abcdef");
    terminal.shows("written to .env): ");
    // In the middle of a secret, while nothing that is typed is shown.
    terminal.types("half a sec\x03");
    terminal.shows("code 130");
    terminal.shows(" echo ");
    terminal.ends();
    let said = terminal.said();
    assert!(
        !said.contains("half a sec") && !said.contains("\u{1b}[?25l"),
        "{said:?}"
    );
    assert!(files(&rig.home).is_empty());
}

#[test]
fn init_with_a_wrong_secret_is_not_complete() {
    let rig = rig(&APPLICATION);
    let id = format!("twitch:{}", rig.twitch.client_id);
    let (_sim, home) = (rig.sim, rig.home);
    let home = home.file(".env", "TWITCH_CLIENT_SECRET=a-secret-of-another-application\n");
    let words = ["init", "--yes", "--login", "--channel", "twitch:pixelmeadow"];
    let run = home
        .run(&[&words[..], &["--client-id", &id]].concat())
        .exits(4)
        .names_account("Twitch rejects the application: invalid client secret")
        .names_account("twitch.client_secret")
        .names_account("the set-up is not complete; what was entered is kept")
        .names_account("bitbrat doctor twitch");
    assert!(
        !run.stderr.contains("set up; keep it monitored"),
        "{}",
        run.stderr
    );
    assert_eq!(advised(&run.stderr), "bitbrat doctor twitch");
    assert_eq!(files(&home), [".env", "bitbrat.toml"]);
}

/// Starts `init` on a terminal and returns it at the question for the secret, with its process id.
fn at_the_secret(rig: &Rig) -> (Pty, String) {
    let program = env!("CARGO_BIN_EXE_bitbrat");
    let line = format!("sh -c 'echo \"pid $$.\"; exec {program} init'; echo \"code $?\"; stty -a");
    let mut terminal = Pty::start(&rig.home, &line);
    terminal.shows("pid ");
    let id = terminal.shows(".").trim_end_matches('.').to_owned();
    terminal.answers("Twitch channels (--channel twitch:NAME): ", "pixelmeadow");
    terminal.answers("Kick channels (--channel kick:NAME): ", "");
    terminal.answers("Discord guilds (--channel discord:ID): ", "");
    terminal.answers("(--client-id twitch:ID): ", &rig.twitch.client_id);
    terminal.shows("written to .env): ");
    (terminal, id)
}

#[test]
fn signal_at_a_secret_prompt_restores_the_terminal() {
    for (signal, code) in [("-TERM", "code 143"), ("-HUP", "code 129")] {
        let rig = rig(&APPLICATION);
        let (mut terminal, id) = at_the_secret(&rig);
        let sent = std::process::Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
        terminal.shows("nothing was written");
        terminal.shows(code);
        terminal.shows(" echo ");
        terminal.ends();
        assert!(files(&rig.home).is_empty());
    }
}

#[test]
fn interrupted_login_of_init_says_what_is_stored() {
    let rig = rig(&APPLICATION);
    let (mut terminal, _) = at_the_secret(&rig);
    terminal.types(&format!("{}\n", rig.twitch.client_secret));
    terminal.answers("Log in as the bot now, to Twitch (--login)? [Y/n] ", "");
    if Path::new("/run/systemd/system").exists() {
        terminal.answers("(--service)? [y/N] ", "");
    }
    terminal.shows("Code: ");
    terminal.types("\x03");
    terminal.shows("stopped; stored so far:");
    terminal.shows("bitbrat auth login twitch");
    terminal.shows("code 130");
    terminal.ends();
    assert!(terminal.said().contains("bitbrat.toml"), "{}", terminal.said());
    assert_eq!(files(&rig.home), [".env", "bitbrat.toml"]);
}
