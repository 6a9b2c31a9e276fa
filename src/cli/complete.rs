//! Completions. The shell runs this program, so ids and names are those of the configuration and the store; file names are
//! offered only where an argument is a file.

mod known;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap_complete::env::{CompleteEnv, Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use crate::config;
use crate::core::code::Code;
use crate::core::event::EventKind;
use crate::core::permission;
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::Probe;

/// The variable by which a shell's script requests completions. Not clap's own `COMPLETE`, which others may set.
pub const VARIABLE: &str = "BITBRAT_COMPLETE";

/// The shells that completions are written for.
pub const SHELLS: Shells<'static> = Shells(&[&Bash, &Elvish, &Fish, &Powershell, &Zsh]);

/// Answers a shell that requests completions of `root`. Returns whether one did.
pub fn answer(words: &[OsString], root: fn() -> clap::Command) -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let directory = std::env::current_dir().ok();
    let answered = CompleteEnv::with_factory(|| command(root, is_option(words)))
        .var(VARIABLE)
        .shells(SHELLS)
        .try_complete(words.iter().cloned(), directory.as_deref());
    // A shell cannot show an error in the middle of a command line; the answer is then empty.
    answered.unwrap_or(true)
}

/// Returns the arguments of the shell's request.
fn typed() -> Vec<String> {
    let words = std::env::args_os();
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Whether the argument that is completed begins like an option.
fn is_option(words: &[OsString]) -> bool {
    let line = words.split(|word| word == "--").nth(1).unwrap_or_default();
    // The command line may continue after the argument; zsh passes its index.
    let index = std::env::var("_CLAP_COMPLETE_INDEX").ok();
    let index = index.and_then(|index| index.parse().ok());
    let current = line.get(index.unwrap_or(line.len().saturating_sub(1)));
    current.is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"))
}

/// Returns the command line to complete. Twenty options that fit everywhere would hide the ids, so options are offered once a
/// hyphen is typed, and where there is nothing else.
fn command(root: fn() -> clap::Command, options: bool) -> clap::Command {
    fn hide(command: clap::Command) -> clap::Command {
        let command = command.mut_args(|argument| {
            let positional = argument.is_positional();
            argument.hide(!positional)
        });
        command.mut_subcommands(hide)
    }
    let of_root = ArgValueCompleter::new(move |current: &OsStr| commands(current, &root()));
    let mut command = root().mut_subcommand("man", |man| man.mut_arg("command", |words| words.add(of_root)));
    if !options {
        // First, because what it adds (`--help`) is an option, too.
        command.build();
        // The built-in `help` accepts names of commands only; `help errors` has an argument all the same.
        let code = command
            .find_subcommand("errors")
            .and_then(|errors| errors.get_positionals().next());
        if let Some(code) = code.cloned() {
            command = command.mut_subcommand("help", |help| {
                help.mut_subcommand("errors", |errors| errors.arg(code))
            });
        }
        command = hide(command);
    }
    command
}

/// Offers the sources that are configured or stored, by id and by name.
pub fn sources(current: &OsStr) -> Vec<CompletionCandidate> {
    among_sources(current, &known::Sources::load())
}

fn among_sources(current: &OsStr, known: &known::Sources) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy().to_lowercase();
    let begins = |word: &str| word.to_lowercase().starts_with(&typed);
    let mut offered: BTreeMap<String, &str> = BTreeMap::new();
    for (key, called) in &known.ids {
        if begins(key) {
            offered.insert(key.clone(), called);
        }
    }
    for (platform, name, key) in &known.names {
        let full = format!("{platform}:{name}");
        if begins(&full) {
            offered.entry(full).or_insert(key);
        } else if !typed.is_empty() && begins(name) {
            offered.entry(name.clone()).or_insert(key);
        }
    }
    offered
        .into_iter()
        .map(|(word, help)| candidate(word, help))
        .collect()
}

fn candidate(word: impl Into<OsString>, help: &str) -> CompletionCandidate {
    CompletionCandidate::new(word).help((!help.is_empty()).then(|| help.to_owned().into()))
}

/// Offers what `probe` takes: what to check, and sources.
pub fn probe_targets(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut words: Vec<&str> = Probe::ALL.iter().map(|probe| probe.as_str()).collect();
    words.push("all");
    let mut offered = among(current, words.into_iter().map(|word| (word, "")));
    offered.extend(sources(current));
    offered
}

pub fn platforms(current: &OsStr) -> Vec<CompletionCandidate> {
    among(
        current,
        PlatformName::ALL.iter().map(|platform| (platform.as_str(), "")),
    )
}

/// Offers the actions of the platform of the source argument before it, or of all.
pub fn actions(current: &OsStr) -> Vec<CompletionCandidate> {
    let words = typed();
    let named = PlatformName::ALL.into_iter().find(|platform| {
        let prefix = format!("{platform}:");
        words.iter().any(|word| word.starts_with(&prefix))
    });
    let platforms = named.map_or_else(|| PlatformName::ALL.to_vec(), |platform| vec![platform]);
    let mut all: BTreeMap<&str, &str> = BTreeMap::from([("help", "list the actions")]);
    for platform in platforms {
        all.extend(
            permission::actions(platform)
                .iter()
                .map(|action| (action.name, action.about)),
        );
    }
    among(current, all.into_iter())
}

/// Offers sources, and once there is one the actions of its platform: the shell cannot distinguish the last source from the
/// action.
pub fn sources_or_actions(current: &OsStr) -> Vec<CompletionCandidate> {
    let words = typed();
    let line = words.iter().rev().skip(1);
    let before = line.take_while(|word| *word != "can");
    // The option's value before the action is no source either, but the actions do no harm there.
    let has_source = before.filter(|word| !word.starts_with('-')).count() > 0;
    let mut offered = sources(current);
    if has_source {
        offered.extend(actions(current));
    }
    offered
}

/// Offers the accounts: the bot, and the broadcaster (on Discord the guild) of each known source.
pub fn identities(current: &OsStr) -> Vec<CompletionCandidate> {
    let words = typed();
    let platform = words.iter().find_map(|word| word.parse::<PlatformName>().ok());
    among_identities(current, platform, &known::Sources::load())
}

fn among_identities(
    current: &OsStr,
    platform: Option<PlatformName>,
    known: &known::Sources,
) -> Vec<CompletionCandidate> {
    let mut offered = vec![("bot".to_owned(), "")];
    for (key, called) in &known.ids {
        let Ok(key) = key.parse::<SourceKey>() else {
            continue;
        };
        if platform.is_none_or(|platform| platform == key.platform()) {
            let role = key.platform().rules().source_account.role;
            offered.push((format!("{role}:{}", key.id()), called));
        }
    }
    among(current, offered.iter().map(|(word, help)| (word.as_str(), *help)))
}

/// Offers the types of our own events.
pub fn event_types(current: &OsStr) -> Vec<CompletionCandidate> {
    among(current, EventKind::ALL.iter().map(|kind| (kind.as_str(), "")))
}

/// Offers the keys that `--set` takes.
pub fn settings(current: &OsStr) -> Vec<CompletionCandidate> {
    let keys = config::keys();
    let keys = keys.filter(|key| !key.secret);
    let words: Vec<String> = keys.map(|key| format!("{}=", key.path)).collect();
    among(current, words.iter().map(|word| (word.as_str(), "")))
}

pub fn error_codes(current: &OsStr) -> Vec<CompletionCandidate> {
    let codes: Vec<_> = Code::all().map(|code| (code.text(), code.meaning())).collect();
    among(current, codes.iter().map(|(code, meaning)| (&**code, *meaning)))
}

/// Offers the commands that have a manual page, below those that were typed before.
fn commands(current: &OsStr, root: &clap::Command) -> Vec<CompletionCandidate> {
    let words = typed();
    let before = words.iter().skip_while(|word| *word != "man").skip(1);
    let mut command = root;
    for word in before {
        match command.find_subcommand(word) {
            Some(found) => command = found,
            None => break,
        }
    }
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    among(current, shown.map(|sub| (sub.get_name(), "")))
}

/// Offers those of `words` that begin with what is typed.
pub fn among<'a>(
    current: &OsStr,
    words: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let begins = words.filter(|(word, _)| word.starts_with(&*typed));
    begins.map(|(word, help)| candidate(word, help)).collect()
}

/// Completions for bash. It splits words at colons, which every id contains, and replaces only what follows the last of them; so
/// the words are joined again before they are completed.
struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        _name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn std::io::Write,
    ) -> std::io::Result<()> {
        let script = include_str!("complete.bash")
            .replace("VARIABLE", var)
            .replace("COMPLETER", completer)
            .replace("PROGRAM", bin);
        buf.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        buf: &mut dyn std::io::Write,
    ) -> std::io::Result<()> {
        let index = words.len().saturating_sub(1);
        for candidate in clap_complete::engine::complete(command, words, index, directory)? {
            writeln!(buf, "{}", candidate.get_value().to_string_lossy())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;
    use crate::cli::commands::schema::schemas;
    use crate::cli::filters::sort_fields;

    fn offered(complete: fn(&OsStr) -> Vec<CompletionCandidate>, typed: &str) -> Vec<String> {
        words(complete(OsStr::new(typed)))
    }

    #[test]
    fn completions_match_the_typed_prefix() {
        assert_eq!(offered(platforms, "tw"), ["twitch"]);
        assert_eq!(offered(schemas, "his"), ["history"]);
        assert!(offered(actions, "").contains(&"help".to_owned()));
        assert!(offered(actions, "send").contains(&"send-chat".to_owned()));
        assert!(offered(probe_targets, "per").contains(&"permissions".to_owned()));
        assert_eq!(offered(sort_fields, "vi"), ["viewers"]);
        assert_eq!(offered(sort_fields, "-st"), ["-status", "-stream"]);
    }

    fn words(candidates: Vec<CompletionCandidate>) -> Vec<String> {
        let values = candidates.into_iter();
        values
            .map(|candidate| candidate.get_value().to_string_lossy().into_owned())
            .collect()
    }

    fn sources_known() -> known::Sources {
        known::Sources {
            ids: BTreeMap::from([
                ("twitch:777001".to_owned(), "PixelMeadow".to_owned()),
                ("discord:888001".to_owned(), "The Rat Pack".to_owned()),
            ]),
            names: vec![(
                PlatformName::Twitch,
                "pixelmeadow".to_owned(),
                "twitch:777001".to_owned(),
            )],
        }
    }

    #[test]
    fn sources_are_offered_by_id_and_by_name() {
        let offered = |typed: &str| words(among_sources(OsStr::new(typed), &sources_known()));
        for (typed, expected) in [
            (
                "",
                &["discord:888001", "twitch:777001", "twitch:pixelmeadow"] as &[&str],
            ),
            ("twitch:", &["twitch:777001", "twitch:pixelmeadow"]),
            ("twitch:7", &["twitch:777001"]),
            ("Pix", &["pixelmeadow"]),
            ("kick", &[]),
        ] {
            assert_eq!(offered(typed), expected, "`{typed}`");
        }
    }

    #[test]
    fn identities_of_the_platform_are_offered() {
        let offered = |platform| words(among_identities(OsStr::new(""), platform, &sources_known()));
        assert_eq!(offered(Some(PlatformName::Twitch)), ["bot", "broadcaster:777001"]);
        assert_eq!(offered(Some(PlatformName::Discord)), ["bot", "bot:888001"]);
        assert_eq!(offered(Some(PlatformName::Kick)), ["bot"]);
    }

    fn completed(line: &[&str]) -> Vec<String> {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        let mut asked = vec![OsString::from("bitbrat"), OsString::from("--")];
        asked.extend(line.iter().cloned());
        let mut command = command(Cli::command, is_option(&asked));
        let index = line.len() - 1;
        words(clap_complete::engine::complete(&mut command, line, index, None).unwrap())
    }

    #[test]
    fn options_are_offered_once_a_hyphen_is_typed() {
        let platforms = completed(&["bitbrat", "auth", "status", ""]);
        assert_eq!(platforms, PlatformName::ALL.map(PlatformName::as_str));
        let options = completed(&["bitbrat", "auth", "status", "--of"]);
        assert_eq!(options, ["--offline"]);
        let more = completed(&["bitbrat", "auth", "status", "twitch", ""]);
        assert!(more.contains(&"--offline".to_owned()), "{more:?}");
    }

    #[test]
    fn error_codes_are_offered_behind_help_errors() {
        for line in [
            &["bitbrat", "help", "errors", "kick.push_si"][..],
            &["bitbrat", "errors", "kick.push_si"],
        ] {
            assert_eq!(completed(line), ["kick.push_silent"], "{line:?}");
        }
        assert!(completed(&["bitbrat", "help", "stat"]).contains(&"status".to_owned()));
    }

    #[test]
    fn values_of_filters_are_offered() {
        for (typed, expected) in [
            (&["status", "--platform", "tw"][..], &["twitch"][..]),
            (&["sources", "list", "--columns", "name,vi"], &["name,viewers"]),
            (&["history", "--platform", "twitch,ki"], &["twitch,kick"]),
            (&["describe", "--sort", "name,lat"], &["name,latency"]),
            (&["status", "--sort", "-vi"], &["-viewers"]),
            (&["status", "--fai"], &["--fail-on", "--failing"]),
        ] {
            let line = [&["bitbrat"][..], typed].concat();
            let mut offered = completed(&line);
            offered.sort();
            assert_eq!(offered, expected, "{typed:?}");
        }
    }

    #[test]
    fn files_are_offered_only_where_one_is_meant() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("sources.toml"), "").unwrap();
        let here = |line: &[&str]| {
            let line: Vec<OsString> = line.iter().map(OsString::from).collect();
            let index = line.len() - 1;
            let mut command = command(Cli::command, false);
            let offered = clap_complete::engine::complete(&mut command, line, index, Some(directory.path()));
            words(offered.unwrap())
        };
        assert!(here(&["bitbrat", "--config", ""]).contains(&"sources.toml".to_owned()));
        assert_eq!(here(&["bitbrat", "events", "publish", "s"]), ["sources.toml"]);
        for line in [
            ["bitbrat", "auth", "status", ""],
            ["bitbrat", "auth", "login", ""],
            ["bitbrat", "schema", "", ""],
            ["bitbrat", "doctor", "", ""],
            ["bitbrat", "man", "", ""],
            ["bitbrat", "completion", "", ""],
            ["bitbrat", "sources", "", ""],
        ] {
            let offered = here(&line);
            assert!(
                !offered.contains(&"sources.toml".to_owned()),
                "{line:?}: {offered:?}"
            );
        }
    }
}
