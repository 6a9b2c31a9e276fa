//! Help that belongs to no single command.

use std::fmt::Write as _;

use crate::failure::ExitCode;

/// The text below the list of commands.
pub const ROOT: &str = "\
Examples:
  bitbrat --demo status --probe   try it without any credentials
  bitbrat init                    set up: name channels, log in, see the status
  bitbrat status                  the status of every source, and how old it is
  bitbrat status --failing        what needs attention or is down
  bitbrat is-live 'twitch:*'      whether all of them are live, as the exit code
  bitbrat doctor                  check everything, with the next command to run
  bitbrat preflight --until 23:00 will it all work until the end of the show?

`bitbrat help exit-codes` describes the exit codes, `bitbrat help errors` the error codes.";

/// The commands of the top level by what they are for.
pub const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Everyday",
        &[
            "status", "top", "describe", "is-live", "can", "wait", "history", "diff", "sources", "probe",
        ],
    ),
    (
        "Set up",
        &["init", "config", "auth", "doctor", "preflight", "support"],
    ),
    ("Run", &["watch", "fleet", "mcp", "events", "alert", "store"]),
    ("Develop", &["sim", "schema", "completion", "man", "help"]),
];

/// Returns the template of the top-level help: the subcommands of `commands` in groups, which clap has no option
/// for.
pub fn root_template(commands: &clap::Command) -> String {
    let width = GROUPS
        .iter()
        .flat_map(|(_, names)| names.iter())
        .map(|name| name.len())
        .max();
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (title, names) in GROUPS {
        let _ = write!(text, "\n{title}:\n");
        for name in names {
            let about = summary(commands, name);
            let _ = writeln!(text, "  {name:width$}  {about}", width = width.unwrap_or(0));
        }
    }
    text + "\nGlobal options:\n{options}{after-help}"
}

/// The first line of a command's help.
fn summary(commands: &clap::Command, name: &str) -> String {
    let about = commands
        .find_subcommand(name)
        .and_then(|command| command.get_about().cloned());
    about.map_or_else(
        || "Print this message or the help of a command".to_owned(),
        |about| about.to_string(),
    )
}

pub fn exit_codes() -> String {
    let mut text = String::from("What the exit codes mean:\n\n");
    for code in ExitCode::ALL {
        let _ = writeln!(text, "  {:>3}  {}", code.number(), code.meaning());
    }
    text.push_str(
        "\nWhen several apply to what was selected, the first of 4, 3, 8, 0 counts. A stream that is OFFLINE is not a failure.\n\
         `sources status --fail-on` chooses what counts. Of several answers of `is-live` or `can` one certain no makes it 1.",
    );
    text
}
