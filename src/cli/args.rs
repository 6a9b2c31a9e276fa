//! The command line as it is typed. The doc comments are the help pages.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::cli::commands::{
    auth, completion, config, doctor, events, probe, schema, sim, sources, store, watch,
};
use crate::cli::help;
use crate::cli::output::{ColorChoice, Format};

/// One trustworthy answer per source of a streaming bot
///
/// Is it connected, is its authorisation good, is the stream live and for how many, what may the bot do there, and how do
/// we know? bitbrat looks, listens, and keeps one document a source. No evidence, no claim.
#[derive(Debug, Parser)]
#[command(name = "bitbrat", version, after_help = help::ROOT, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    /// What counts for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Use simulated platforms and a temporary store; no credentials needed
    #[arg(long, global = true)]
    pub demo: bool,
    /// Read this file instead of ./bitbrat.toml and the one in your configuration directory
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read this file instead of ./.env
    #[arg(long, global = true, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Set a key of the configuration, over environment and files
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = setting, action = ArgAction::Append)]
    pub set: Vec<(String, String)>,
    /// How to print the result
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        hide_default_value = true
    )]
    pub color: ColorChoice,
    /// Show no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Say only what was asked for; twice, no warnings either
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub quiet: u8,
    /// Log more; twice, everything
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

/// A command.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each command is documented where its arguments are")]
pub enum Command {
    /// What is known of the sources
    #[command(subcommand)]
    Sources(sources::SourcesCommand),
    Probe(probe::ProbeArgs),
    Watch(watch::WatchArgs),
    /// Authorisations of the bot and of broadcasters
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    Doctor(doctor::DoctorArgs),
    /// What is told on the bus
    #[command(subcommand)]
    Events(events::EventsCommand),
    Sim(sim::SimArgs),
    /// The store of documents
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// The configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Schema(schema::SchemaArgs),
    Completion(completion::CompletionArgs),
    Man(completion::ManArgs),
    /// What the exit codes mean
    #[command(
        name = "exit-codes",
        hide = true,
        long_about = help::exit_codes(),
        help_template = "{about-with-newline}"
    )]
    ExitCodes,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write KEY=VALUE, for example store.url=sqlite")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
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
    fn every_command_shows_examples_and_begins_its_help_with_a_verb_without_a_full_stop() {
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
