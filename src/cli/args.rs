//! The command line arguments. The doc comments are the help pages.

use clap::{Parser, Subcommand};

use crate::cli::commands::sources::{SourcesCommand, can, describe, history, is_live, status, wait};
use crate::cli::commands::{
    alert, auth, completion, config, diff, doctor, errors, events, fleet, init, mcp, preflight, probe,
    schema, sim, sources, store, support, top, watch,
};
use crate::cli::global::Global;
use crate::cli::help;

/// Monitor the sources of a streaming bot: connection, authorization, stream, permissions
///
/// Is it connected, is its authorization valid, is the stream live and for how many viewers, what may the bot do there, and what
/// is that based on? bitbrat probes platforms, listens to push connections and keeps one document per source. No evidence, no claim.
#[derive(Debug, Parser)]
#[command(
    name = "bitbrat",
    version,
    after_help = help::ROOT,
    help_template = help::root_template(&commands()),
    arg_required_else_help = true,
    max_term_width = 110
)]
pub struct Cli {
    /// What counts for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    Status(status::StatusArgs),
    Describe(describe::DescribeArgs),
    IsLive(is_live::IsLiveArgs),
    Can(can::CanArgs),
    Wait(wait::WaitArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    /// Show, wait for and configure sources
    #[command(subcommand)]
    Sources(sources::SourcesCommand),
    Probe(probe::ProbeArgs),
    Top(top::TopArgs),
    Watch(watch::WatchArgs),
    Init(init::InitArgs),
    /// Manage accounts of the bot and broadcasters
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    Preflight(preflight::PreflightArgs),
    Doctor(doctor::DoctorArgs),
    /// Follow and publish bus events
    #[command(subcommand)]
    Events(events::EventsCommand),
    Mcp(mcp::McpArgs),
    /// Show the daemons that share the sources
    #[command(subcommand)]
    Fleet(fleet::FleetCommand),
    /// List, test and mute alerts
    #[command(subcommand)]
    Alert(alert::AlertCommand),
    Sim(sim::SimArgs),
    /// Manage the document store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Collect what explains a problem in one file
    #[command(subcommand)]
    Support(support::SupportCommand),
    /// Show, check and create the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Schema(schema::SchemaArgs),
    Completion(completion::CompletionArgs),
    Man(completion::ManArgs),
    #[command(name = "errors", hide = true)]
    Errors(errors::ErrorsArgs),
    /// Describe the exit codes
    #[command(
        name = "exit-codes",
        hide = true,
        long_about = help::exit_codes(),
        help_template = "{about-with-newline}"
    )]
    ExitCodes,
}

impl Command {
    /// Returns the command that this one is a short form of, else itself.
    #[must_use]
    pub fn spelled_out(self) -> Self {
        Self::Sources(match self {
            Self::Status(args) => SourcesCommand::Status(args),
            Self::Describe(args) => SourcesCommand::Describe(args),
            Self::IsLive(args) => SourcesCommand::IsLive(args),
            Self::Can(args) => SourcesCommand::Can(args),
            Self::Wait(args) => SourcesCommand::Wait(args),
            Self::History(args) => SourcesCommand::History(args),
            other => return other,
        })
    }
}

/// Returns the commands without the program's own options.
fn commands() -> clap::Command {
    Command::augment_subcommands(clap::Command::new("bitbrat"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn top_level_help_lists_each_command_once_with_its_summary() {
        let listed: Vec<_> = help::GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        let command = Cli::command();
        let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
        let mut names: Vec<_> = visible.map(|command| command.get_name().to_owned()).collect();
        names.push("help".to_owned());
        names.sort_unstable();
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, names);
        let page = Cli::command().render_help().to_string();
        for sub in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(
                page.contains(&format!("{about}\n")),
                "{}: {about}\n{page}",
                sub.get_name()
            );
        }
    }

    #[test]
    fn list_of_commands_fits_sixty_columns() {
        let template = help::root_template(&commands());
        for line in template.lines() {
            assert!(line.chars().count() <= 60, "{line}");
        }
    }

    #[test]
    fn short_forms_run_the_command_of_sources() {
        for line in [
            "status",
            "describe a",
            "is-live a",
            "can a ban",
            "wait a --for live",
            "history a",
        ] {
            let of_sources = format!("bitbrat sources {line}");
            let parse = |line: &str| {
                Cli::try_parse_from(line.split(' '))
                    .unwrap()
                    .command
                    .spelled_out()
            };
            let (short, long) = (parse(&format!("bitbrat {line}")), parse(&of_sources));
            assert_eq!(format!("{short:?}"), format!("{long:?}"));
        }
    }

    #[test]
    fn every_command_has_examples_and_a_summary_without_period() {
        fn check(command: &clap::Command, path: &str) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.ends_with('.'), "{path}: `{about}`");
            if command.get_name() != "exit-codes" {
                let after = command
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(after.contains("Examples:"), "{path} has no examples");
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "bitbrat");
    }
}
