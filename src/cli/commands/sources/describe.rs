//! `sources describe`: one source in full.

use clap::Args;

use crate::app::Access;
use crate::cli::commands::sources::known;
use crate::cli::context::Context;
use crate::cli::reports::plan::Listening;
use crate::cli::reports::source::SourceReport;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::store::HistoryEntry;

/// History entries shown with a description.
const RECENT: usize = 10;

/// Show one source with its evidence, and why each verdict is what it is
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources describe twitch:123456
  bitbrat sources describe twitch:123456 --probe
  bitbrat sources describe discord:987654321 -o json | jq '.items[0].verdicts'")]
pub struct DescribeArgs {
    /// The source, as platform:id
    #[arg(value_name = "ID")]
    id: SourceKey,
    /// Look at the platform first
    #[arg(long)]
    probe: bool,
}

/// Runs the command.
pub async fn run(cx: &Context, args: &DescribeArgs) -> Result<ExitCode, Failure> {
    let found = known::one(cx, &args.id, args.probe).await?;
    let history = cx
        .app
        .store(Access::Read)
        .await?
        .history(&args.id, RECENT)
        .await?;
    let listening = match args.id.platform() {
        PlatformName::Twitch => Listening::of(&cx.app.eventsub_plan_by_memory().await, &args.id),
        PlatformName::Kick | PlatformName::Discord => None,
    };
    let report = SourceReport {
        as_of: cx.app.clock.now(),
        row: found.row,
        document: found.document,
        listening,
        history: HistoryEntry::told_once(history),
    };
    cx.output.print(&report)?;
    Ok(ExitCode::Healthy)
}
