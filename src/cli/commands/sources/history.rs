//! `sources history`: what changed about one source.

use clap::Args;

use crate::app::Access;
use crate::cli::commands::sources::known;
use crate::cli::context::Context;
use crate::cli::reports::history::HistoryReport;
use crate::core::source::SourceKey;
use crate::failure::{ExitCode, Failure};
use crate::store::HistoryEntry;

/// Show what changed about one source, newest first
///
/// Each change is shown with how long the state before it had lasted: of a stream that ended, its length.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources history twitch:123456
  bitbrat sources history twitch:123456 --limit 500 -o csv > history.csv")]
pub struct HistoryArgs {
    /// The source, as platform:id
    #[arg(value_name = "ID")]
    id: SourceKey,
    /// Changes to show at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Runs the command.
pub async fn run(cx: &Context, args: &HistoryArgs) -> Result<ExitCode, Failure> {
    known::one(cx, &args.id, false).await?;
    let store = cx.app.store(Access::Read).await?;
    let report = HistoryReport {
        as_of: cx.app.clock.now(),
        key: args.id.clone(),
        entries: HistoryEntry::told_once(store.history(&args.id, args.limit as usize).await?),
    };
    cx.output.print(&report)?;
    Ok(ExitCode::Healthy)
}
