//! `completion` and `man`: what a package installs beside the program.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::args::Cli;
use crate::cli::output::write_out;
use crate::failure::{ExitCode, Failure};

/// Print completions for a shell
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

/// Print the manual page
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat man | man -l -
  bitbrat man sources status > bitbrat-sources-status.1")]
pub struct ManArgs {
    /// The command that the page is about; the whole program when none is given
    command: Vec<String>,
}

/// Prints completions.
pub fn completion(args: &CompletionArgs) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bitbrat", &mut text);
    print(&text)
}

/// Prints a manual page.
pub fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    let mut root = Cli::command();
    root.build();
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
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut text)
        .map_err(|error| Failure::new(ExitCode::Failed, "cannot write the manual page").because(&error))?;
    print(&text)
}

fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    write_out(&String::from_utf8_lossy(text))?;
    Ok(ExitCode::Healthy)
}
