//! `config show|check|init`: the configuration, the origin of its values, and its problems.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::context::Setup;
use crate::cli::output::{Listing, write_out};
use crate::cli::reports::config::{CheckReport, ConfigReport, InitItem, ProblemItem};
use crate::config;
use crate::failure::{ExitCode, Failure};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat config init
  bitbrat config check
  bitbrat config show")]
pub enum ConfigCommand {
    Show(ShowArgs),
    Check(CheckArgs),
    Init(InitArgs),
}

/// Show every key, its value, and where the value came from
///
/// Secrets are shown as `***`. Works with a broken configuration too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat config show
  bitbrat config show -o wide          with what each key is for
  bitbrat config show -o json | jq '.items[] | select(.origin != \"default\")'")]
pub struct ShowArgs {}

/// Check the configuration and report every problem at once
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat config check
  bitbrat --config staging.toml config check -o json")]
pub struct CheckArgs {}

/// Write a configuration to begin with
///
/// About a dozen lines, or with --full every key with its description and default. An existing file is never overwritten.
/// `bitbrat init` asks what belongs into it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat config init
  bitbrat config init --full
  bitbrat config init ~/.config/bitbrat/config.toml
  bitbrat config init --env > .env     the variables instead, on standard output")]
pub struct InitArgs {
    /// The file to write
    #[arg(default_value = "bitbrat.toml")]
    path: PathBuf,
    /// Write every key, with its description and default
    #[arg(long)]
    full: bool,
    /// Print the environment variables as a `.env` file instead
    #[arg(long, conflicts_with_all = ["path", "full"])]
    env: bool,
}

pub fn run(setup: &Setup, command: &ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Show(_) => show(setup),
        ConfigCommand::Check(_) => check(setup),
        ConfigCommand::Init(args) => init(setup, args),
    }
}

fn show(setup: &Setup) -> Result<ExitCode, Failure> {
    let configuration = setup.configuration();
    let report = ConfigReport {
        as_of: setup.clock.now(),
        keys: config::shown(&configuration),
        sources: configuration.settings.sources.clone(),
        problems: configuration.problems.len(),
    };
    setup.output.print(&report)?;
    Ok(ExitCode::Healthy)
}

fn check(setup: &Setup) -> Result<ExitCode, Failure> {
    let configuration = setup.configuration();
    let exit = if configuration.problems.is_empty() {
        ExitCode::Healthy
    } else {
        ExitCode::Configuration
    };
    let problems = configuration
        .problems
        .iter()
        .map(|problem| ProblemItem::new(problem, "error", setup.output.invocation));
    let warnings = configuration
        .warnings
        .iter()
        .map(|problem| ProblemItem::new(problem, "warning", setup.output.invocation));
    let report = CheckReport {
        as_of: setup.clock.now(),
        problems: problems.chain(warnings).collect(),
        files: configuration.files.clone(),
        sources: configuration.settings.sources.len(),
    };
    setup.output.print(&report)?;
    Ok(exit)
}

fn init(setup: &Setup, args: &InitArgs) -> Result<ExitCode, Failure> {
    if args.env {
        write_out(&config::env_example())?;
        return Ok(ExitCode::Healthy);
    }
    let text = if args.full {
        config::toml_template()
    } else {
        config::short_template()
    };
    let path = config::init(&args.path, &text)?.display().to_string();
    setup
        .output
        .print(&Listing::new(setup.clock.now(), vec![InitItem { path }]))?;
    Ok(ExitCode::Healthy)
}
