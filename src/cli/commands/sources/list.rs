//! `sources list`: what is configured, and what is only stored.

use clap::Args;

use crate::cli::commands::sources::known;
use crate::cli::context::Context;
use crate::cli::reports::sources::{Show, SourcesReport};
use crate::failure::{ExitCode, Failure};

/// List the configured sources, and those that are only stored
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources list
  bitbrat sources list -o name
  bitbrat sources list -o json | jq -r '.items[] | select(.configured) | .key'")]
pub struct ListArgs {}

/// Runs the command.
pub async fn run(cx: &Context, _args: &ListArgs) -> Result<ExitCode, Failure> {
    let known = known::stored(cx, &[]).await?;
    let report = SourcesReport {
        as_of: cx.app.clock.now(),
        rows: known.rows,
        unusable: known.unusable,
        problems: Vec::new(),
        show: Show::List,
    };
    cx.output.print(&report)?;
    Ok(ExitCode::Healthy)
}
