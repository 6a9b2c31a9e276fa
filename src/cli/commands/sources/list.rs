//! `sources list`: what is configured, and what is only stored.

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::commands::sources::{known, status};
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::filters::{ColumnArgs, FilterArgs, OrderArgs};
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::sources::Show;
use crate::cli::source_arg::{self, SourceSelector};
use crate::failure::{ExitCode, Failure};

/// List the configured sources, and those that are only stored
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources list
  bitbrat sources list -o name
  bitbrat sources list 'discord:*' --sort name --columns source,name,stored
  bitbrat sources list --failing -o name
  bitbrat sources list -o json | jq -r '.items[] | select(.configured) | .key'")]
pub struct ListArgs {
    /// Sources to list: platform:id, platform:name, names, channels' addresses, or quoted globs; all when none are given
    #[arg(value_name = "SOURCE", add = ArgValueCompleter::new(complete::sources))]
    ids: Vec<SourceSelector>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    columns: ColumnArgs,
}

pub async fn run(cx: &Context, args: &ListArgs) -> Result<ExitCode, Failure> {
    let columns = args.columns.chosen(&cx.output)?;
    let selection = source_arg::select(cx, &args.ids, false).await?;
    let mut known = known::stored(cx, &selection, None).await?;
    args.filter.apply(&mut known);
    args.order.sort(&mut known.rows, |row| row);
    let report = status::report_of(cx, known, Show::List, &args.filter, &args.order, columns);
    cx.output.print(&report)?;
    let merged = cx.app.sources.all().merged;
    let notes: Vec<Note> = merged
        .iter()
        .map(|merged| Note::hint(Tone::Warn, merged.to_string(), None))
        .collect();
    cx.note(&notes)?;
    Ok(ExitCode::Healthy)
}
