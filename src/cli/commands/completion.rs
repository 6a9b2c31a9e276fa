//! `completion` and `man`: files that a package installs beside the program.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::complete;
use crate::cli::output::write_out;
use crate::failure::{ExitCode, Failure};

/// Print completions for a shell
///
/// They complete the ids and names of configured and stored sources, platforms, actions and the names of schemas: the shell asks this
/// program, which must be in PATH.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat completion bash > ~/.local/share/bash-completion/completions/bitbrat
  bitbrat completion zsh > ~/.zfunc/_bitbrat
  bitbrat completion fish > ~/.config/fish/completions/bitbrat.fish")]
pub struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Print a manual page, or write all of them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat man | man -l -
  bitbrat man sources status > bitbrat-sources-status.1
  bitbrat man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// The command that the page is about; the whole program when none is given
    command: Vec<String>,
    /// Write the pages of all commands into this directory, which is created where necessary
    #[arg(long, value_name = "DIR", conflicts_with = "command", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
}

/// Prints the script by which a shell requests completions from this program.
pub fn completion(args: &CompletionArgs) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(ExitCode::Failed, "cannot write the completions").because(&error)
    };
    let shell = args.shell.to_string();
    let Some(writer) = complete::SHELLS.completer(&shell) else {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("there are no completions for {shell}"),
        ));
    };
    let mut text = Vec::new();
    let written = writer.write_registration(complete::VARIABLE, "bitbrat", "bitbrat", "bitbrat", &mut text);
    written.map_err(failed)?;
    if args.shell == Shell::Zsh {
        // Loaded from a directory of `fpath`, the file is the function: the first completion has to be answered, too.
        text.extend_from_slice(
            b"if [ \"$funcstack[1]\" = _bitbrat ]; then _clap_dynamic_completer_bitbrat \"$@\"; fi\n",
        );
    }
    print(&text)
}

/// Prints a manual page of `root`, or writes all of them.
pub fn man(args: &ManArgs, mut root: clap::Command) -> Result<ExitCode, Failure> {
    root.build();
    if let Some(directory) = &args.out {
        let failed = |error: std::io::Error| {
            let what = format!("cannot write the manual pages to {}", directory.display());
            Failure::new(ExitCode::Failed, what).because(&error)
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let written = write_pages(&root, directory).map_err(failed)?;
        write_out(&format!("{written} manual pages in {}\n", directory.display()))?;
        return Ok(ExitCode::Healthy);
    }
    let mut command = &root;
    for name in &args.command {
        command = command.find_subcommand(name).ok_or_else(|| {
            Failure::new(
                ExitCode::Usage,
                format!("there is no command `{}`", args.command.join(" ")),
            )
            .hint("run `bitbrat help` to see every command")
        })?;
    }
    let text = page(command)
        .map_err(|error| Failure::new(ExitCode::Failed, "cannot write the manual page").because(&error))?;
    print(&text)
}

/// Writes the page of `command` and those of all commands below it. Returns how many these were.
fn write_pages(command: &clap::Command, directory: &Path) -> std::io::Result<usize> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    crate::files::write_output(&directory.join(format!("{name}.1")), &page(command)?)?;
    let mut written = 1;
    for sub in command.get_subcommands() {
        // `help` repeats every command, and hidden commands have no page of their own here.
        if sub.get_name() != "help" && !sub.is_hide_set() {
            written += write_pages(sub, directory)?;
        }
    }
    Ok(written)
}

/// Returns a manual page with the sections that every command shares.
fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    if command.get_after_help().is_some() {
        man.render_extra_section(&mut text)?;
    }
    shared_sections().to_writer(&mut text)?;
    if command.get_version().is_some() {
        man.render_version_section(&mut text)?;
    }
    Ok(text)
}

fn shared_sections() -> Roff {
    let mut roff = Roff::default();
    let mut list = |title: &str, entries: &[(String, &str)]| {
        roff.control("SH", [title]);
        for (name, meaning) in entries {
            roff.control("TP", []);
            roff.text([bold(name.as_str())]);
            roff.text([roman(*meaning)]);
        }
    };
    let codes = ExitCode::ALL.map(|code| (code.number().to_string(), code.meaning()));
    list("EXIT STATUS", &codes);
    let owned = |entries: &[(&str, &'static str)]| {
        let entries = entries
            .iter()
            .map(|(name, meaning)| ((*name).to_owned(), *meaning));
        entries.collect::<Vec<_>>()
    };
    list(
        "ENVIRONMENT",
        &owned(&[
            (
                "BITBRAT_*",
                "Every key of the configuration in upper case, with __ between levels: BITBRAT_STORE__URL is store.url. \
                 The names of the BitBrat platform are read too; bitbrat config show lists what is in force.",
            ),
            (
                "NO_COLOR, CLICOLOR, CLICOLOR_FORCE",
                "Whether color is used, unless --color decides.",
            ),
            ("COLUMNS", "The width that tables and text are fitted to."),
            (
                "LC_ALL, LC_CTYPE, LANG",
                "Symbols beyond ASCII are used in a UTF-8 locale.",
            ),
            (
                "XDG_CONFIG_HOME, XDG_STATE_HOME",
                "Where the user's configuration and state are.",
            ),
        ]),
    );
    list(
        "FILES",
        &owned(&[
            (
                "./bitbrat.toml",
                "The configuration; --config names another file.",
            ),
            ("./.env", "Variables, for secrets; --env-file names another file."),
            (
                "$XDG_CONFIG_HOME/bitbrat/config.toml",
                "The configuration of the user, below the other in rank.",
            ),
            (
                "$XDG_STATE_HOME/bitbrat/",
                "The store, tokens (mode 0600), resolved names and the lock of bitbrat watch.",
            ),
        ]),
    );
    roff
}

fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    write_out(&String::from_utf8_lossy(text))?;
    Ok(ExitCode::Healthy)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn every_command_has_a_page_with_the_shared_sections() {
        let directory = tempfile::tempdir().unwrap();
        let mut root = Cli::command();
        root.build();
        let written = write_pages(&root, directory.path()).unwrap();
        let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(files.len(), written);
        for name in [
            "bitbrat.1",
            "bitbrat-sources-status.1",
            "bitbrat-auth-login.1",
            "bitbrat-man.1",
        ] {
            let text = std::fs::read_to_string(directory.path().join(name)).unwrap();
            for title in ["EXIT STATUS", "ENVIRONMENT", "FILES"] {
                assert!(
                    text.contains(&format!(".SH \"{title}\"")) || text.contains(&format!(".SH {title}")),
                    "{name}: {text}"
                );
            }
        }
        assert!(!directory.path().join("bitbrat-help.1").exists());
    }
}
