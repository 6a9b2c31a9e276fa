//! The options that every command has.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use clap_complete::ArgValueCompleter;

use crate::cli::complete;
use crate::cli::output::{ColorChoice, Format};

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Use simulated platforms and a temporary store; no credentials needed
    #[arg(long, global = true)]
    pub demo: bool,
    /// With --demo or sim: nothing in the demo world changes by itself
    #[arg(long, global = true)]
    pub still: bool,
    /// Read this file instead of ./bitbrat.toml and the one in your configuration directory
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read this file instead of ./.env
    #[arg(long, global = true, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Set a key of the configuration, over environment and files
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = setting, action = ArgAction::Append, add = ArgValueCompleter::new(complete::settings))]
    pub set: Vec<(String, String)>,
    /// Output format
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// When to use color
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
    /// Print only results; -qq also hides warnings
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub quiet: u8,
    /// Log more; -vv logs everything
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write KEY=VALUE, for example store.url=sqlite")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
