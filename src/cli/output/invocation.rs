//! The command line that was run, as far as the advice of further commands depends on it.

use crate::cli::global::Global;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Options that choose the world a command works in, in the form in which advice repeats them.
    globals: Vec<String>,
    /// The arguments without any global option: the command, its arguments and its own options.
    words: Vec<String>,
}

/// Global options that are followed by a value.
const WITH_VALUE: [&str; 6] = ["--config", "--env-file", "--set", "--output", "-o", "--color"];
/// Global options without a value.
const ALONE: [&str; 9] = [
    "--demo",
    "--still",
    "--no-progress",
    "--quiet",
    "--verbose",
    "-q",
    "-qq",
    "-v",
    "-vv",
];

impl Invocation {
    /// Parses the command line.
    pub fn new(global: &Global, words: impl IntoIterator<Item = String>) -> Self {
        let mut globals = Vec::new();
        for (name, given) in [("--demo", global.demo), ("--still", global.still)] {
            if given {
                globals.push(name.to_owned());
            }
        }
        for (name, file) in [("--config", &global.config), ("--env-file", &global.env_file)] {
            // The text of a file in place of its path is rejected; repeating it would only show it once more.
            let file = file.as_ref().map(|file| file.display().to_string());
            if let Some(file) = file.filter(|file| crate::config::check_path(file).is_ok()) {
                globals.extend([name.to_owned(), quoted(&file)]);
            }
        }
        for (key, value) in &global.set {
            // An unknown key or a secret is rejected; repeating it would only show it once more.
            if let Some(known) = crate::config::key(key).filter(|known| !known.secret) {
                let setting = format!("{key}={}", known.shown(value));
                globals.extend(["--set".to_owned(), quoted(&setting)]);
            }
        }
        Self {
            globals,
            words: commands(words),
        }
    }

    /// Returns the argument that `is_meant` holds for as it was typed, quoted for a shell where that is necessary.
    pub fn typed(&self, is_meant: impl Fn(&str) -> bool) -> Option<String> {
        self.words
            .iter()
            .find(|word| is_meant(word))
            .map(|word| quoted(word))
    }

    /// Whether the command works in the demo world.
    pub fn is_demo(&self) -> bool {
        self.globals.iter().any(|option| option == "--demo")
    }

    /// Returns the command that is advised, with the options that were given, or `None` when it is the command that was just run:
    /// running it again changes nothing.
    pub fn advise(&self, command: &str) -> Option<String> {
        let Some(rest) = command.strip_prefix("bitbrat ") else {
            return Some(command.to_owned());
        };
        let advised = commands(rest.split_whitespace().map(str::to_owned));
        let words = advised.iter().map(String::as_str).collect::<Vec<_>>();
        // The demo has no file to change: the effects of these commands end with it.
        let is_lasting = matches!(
            words[..],
            ["auth", "logout", ..] | ["sources", "add" | "remove", ..] | ["config", "init", ..]
        );
        // Another process has a demo world of its own, so a login there changes nothing for a daemon.
        let is_elsewhere = matches!(words[..], ["auth", "login", ..])
            && self.words.first().is_some_and(|command| command == "watch");
        if self.is_demo() && (is_lasting || is_elsewhere) {
            return None;
        }
        let is_same = !self.words.is_empty() && advised.iter().all(|word| self.words.contains(word));
        if is_same {
            return None;
        }
        let missing = self.globals.chunk_by(|_, value| !value.starts_with("--"));
        let missing: Vec<String> = missing
            .map(|option| option.join(" "))
            .filter(|option| !command.contains(option.as_str()))
            .collect();
        if missing.is_empty() {
            return Some(command.to_owned());
        }
        Some(format!("bitbrat {} {rest}", missing.join(" ")))
    }

    /// Returns `text` with the commands in backquotes as they are advised.
    pub fn advise_in(&self, text: &str) -> String {
        const COMMAND: &str = "`bitbrat ";
        let mut advised = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(COMMAND) {
            let (before, command) = rest.split_at(start);
            advised.push_str(before);
            let Some(end) = command[1..].find('`').map(|end| end + 1) else {
                break;
            };
            let whole = self.advise(&command[1..end]);
            advised.push('`');
            advised.push_str(whole.as_deref().unwrap_or(&command[1..end]));
            advised.push('`');
            rest = &command[end + 1..];
        }
        advised.push_str(rest);
        advised
    }

    /// Returns a hint as it is given here: its commands repeat the options that were given, and a clause that only advises the
    /// command that was just run is left out. `None` when nothing else is left.
    pub fn hint(&self, hint: &str) -> Option<String> {
        const CLAUSES: [&str; 3] = [", then run `", "; then run `", ", and run `"];
        if self.is_pointless(hint) {
            return None;
        }
        let mut text = hint.to_owned();
        for clause in CLAUSES {
            let Some(start) = text.find(clause) else { continue };
            let command = start + clause.len();
            let Some(end) = text[command..].find('`').map(|end| command + end) else {
                continue;
            };
            if self.advise(&text[command..end]).is_none() {
                text.replace_range(start..=end, "");
            }
        }
        Some(self.advise_in(&text))
    }

    /// Whether a hint does nothing but advise the command that was just run.
    pub fn is_pointless(&self, hint: &str) -> bool {
        let command = hint.strip_prefix("run `").and_then(|rest| rest.split('`').next());
        command.is_some_and(|command| self.advise(command).is_none())
    }
}

/// Commands of `sources` that stand at the top level too.
const SHORT_FORMS: [&str; 6] = ["status", "describe", "is-live", "can", "wait", "history"];

/// Leaves out global options.
fn commands(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut words = words.into_iter();
    let mut left = Vec::new();
    while let Some(word) = words.next() {
        let name = word.split('=').next().unwrap_or_default();
        if WITH_VALUE.contains(&word.as_str()) {
            words.next();
        } else if !ALONE.contains(&word.as_str()) && !WITH_VALUE.contains(&name) {
            left.push(word);
        }
    }
    // `status` is short for `sources status`: the same command.
    if left
        .first()
        .is_some_and(|first| SHORT_FORMS.contains(&first.as_str()))
    {
        left.insert(0, "sources".to_owned());
    }
    left
}

/// Quotes a word for a shell where that is necessary. Every argument of a suggested command that may contain foreign text goes
/// through this.
pub fn quoted(word: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_safe) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::Cli;

    fn ran(line: &str) -> Invocation {
        let words = line.split_whitespace().map(str::to_owned);
        let cli = Cli::parse_from(std::iter::once("bitbrat".to_owned()).chain(words.clone()));
        Invocation::new(&cli.global, words)
    }

    #[test]
    fn advised_command_repeats_the_global_options() {
        let ran =
            ran("--config a.toml sources status --env-file=b.env --set store.url=sqlite:x --demo -o json");
        assert_eq!(
            ran.advise("bitbrat doctor twitch").unwrap(),
            "bitbrat --demo --config a.toml --env-file b.env --set store.url=sqlite:x doctor twitch"
        );
        assert_eq!(
            ran.advise_in("run `bitbrat doctor` to see, or `bitbrat probe`"),
            "run `bitbrat --demo --config a.toml --env-file b.env --set store.url=sqlite:x doctor` to see, or `bitbrat \
             --demo --config a.toml --env-file b.env --set store.url=sqlite:x probe`"
        );
        assert_eq!(ran.advise("https://example.com").unwrap(), "https://example.com");
    }

    #[test]
    fn typed_argument_keeps_its_case_and_is_quoted() {
        let words = ["is-live", "Lantern Lab", "twitch:1", "It's; Rats"].map(str::to_owned);
        let cli = Cli::parse_from(["bitbrat", "sources", "list"]);
        let invocation = Invocation::new(&cli.global, words);
        for (wanted, expected) in [
            ("lantern lab", "'Lantern Lab'"),
            ("twitch:1", "twitch:1"),
            ("it's; rats", r"'It'\''s; Rats'"),
        ] {
            let typed = invocation.typed(|word| word.to_lowercase() == wanted);
            assert_eq!(typed.as_deref(), Some(expected));
        }
    }

    #[test]
    fn secret_in_a_setting_is_not_repeated() {
        for setting in [
            "store.url=postgres://me:hunter2@db/x",
            "twitch.client_secrt=hunter2",
            "twitch.client_secret=hunter2",
            "client_secret=hunter2",
            "hunter2=1",
            "bus.url=hunter2@nats:4222",
            "bus.url=nats://nats:4222#hunter2",
            "watch.instance=oauth:hunter2",
        ] {
            let advised = ran(&format!("--set {setting} sources list")).advise("bitbrat doctor");
            assert!(!advised.unwrap().contains("hunter2"), "{setting}");
        }
    }

    #[test]
    fn demo_advises_its_own_login_and_nothing_that_lasts() {
        let demo = ran("--demo auth status");
        assert_eq!(
            demo.advise("bitbrat auth login twitch").unwrap(),
            "bitbrat --demo auth login twitch"
        );
        assert_eq!(demo.advise("bitbrat auth logout twitch"), None);
        assert_eq!(ran("--demo watch").advise("bitbrat auth login twitch"), None);
        assert!(demo.is_pointless("run `bitbrat config init` to begin"));
        assert!(demo.advise("bitbrat sources describe twitch:777009").is_some());
        assert!(ran("auth status").advise("bitbrat auth logout twitch").is_some());
    }

    #[test]
    fn still_demo_is_repeated_in_hints() {
        let ran = ran("--demo --still --set web.listen=off sources status");
        assert_eq!(
            ran.advise("bitbrat sources list").unwrap(),
            "bitbrat --demo --still --set web.listen=off sources list"
        );
        assert_eq!(ran.advise("bitbrat sources status"), None);
        assert_eq!(ran.advise("bitbrat status"), None, "its short form");
    }

    #[test]
    fn clause_that_advises_the_command_just_run_is_left_out_of_a_hint() {
        let hint = "correct that line, then run `bitbrat config check`; text must be in quotes";
        assert_eq!(
            ran("--config a.toml config check").hint(hint).unwrap(),
            "correct that line; text must be in quotes"
        );
        assert_eq!(
            ran("--config a.toml status").hint(hint).unwrap(),
            "correct that line, then run `bitbrat --config a.toml config check`; text must be in quotes"
        );
        assert_eq!(
            ran("config show").hint("run `bitbrat config show` to see every key"),
            None
        );
        assert_eq!(
            ran("config show").hint("did you mean `a`?").unwrap(),
            "did you mean `a`?"
        );
    }

    #[test]
    fn command_that_was_just_run_is_never_advised() {
        for (line, command, advised) in [
            ("sources status --probe", "bitbrat sources status --probe", false),
            (
                "sources status --probe --demo",
                "bitbrat sources status --probe",
                false,
            ),
            (
                "sources status --probe twitch:1",
                "bitbrat sources status --probe",
                false,
            ),
            ("sources status", "bitbrat sources status --probe", true),
            ("doctor", "bitbrat doctor", false),
            ("doctor", "bitbrat doctor twitch", true),
            ("sources list -o json", "bitbrat sources list", false),
        ] {
            assert_eq!(ran(line).advise(command).is_some(), advised, "{line}: {command}");
        }
        assert!(ran("sources list").is_pointless("run `bitbrat sources list` to see them"));
        assert!(!ran("sources status").is_pointless("run `bitbrat sources list` to see them"));
    }
}
