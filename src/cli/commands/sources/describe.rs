//! `sources describe`: sources in full.

use std::collections::BTreeSet;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::app::Access;
use crate::cli::commands::sources::known::{self, Ask, Found};
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::filters::{FilterArgs, OrderArgs};
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::plan::Listening;
use crate::cli::reports::source::{SourceInFull, SourceReport};
use crate::cli::reports::sources::left_out;
use crate::cli::source_arg::{self, SourceSelector};
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::store::HistoryEntry;

/// History entries shown with a description.
const RECENT: usize = 10;

/// Show sources with their evidence, and why each verdict is what it is
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources describe twitch:123456
  bitbrat sources describe twitch:123456 --probe
  bitbrat sources describe --failing
  bitbrat sources describe 'kick:*' --sort -viewers --limit 3
  bitbrat sources describe discord:987654321 -o json | jq '.items[0].verdicts'")]
pub struct DescribeArgs {
    /// The sources: platform:id, platform:name, names, channels' addresses, or quoted globs; with a filter all when none are given
    #[arg(
        value_name = "SOURCE",
        required_unless_present_any = ["platform", "live", "failing"],
        add = ArgValueCompleter::new(complete::sources)
    )]
    ids: Vec<SourceSelector>,
    /// Check the platforms first
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    order: OrderArgs,
}

/// Runs the command.
pub async fn run(cx: &Context, args: &DescribeArgs) -> Result<ExitCode, Failure> {
    let ask = Ask {
        probe: args.probe,
        max_age: None,
    };
    let online = ask.probe || cx.app.is_store_temporary();
    let selection = source_arg::select(cx, &args.ids, online).await?;
    let selection = selection.on(&args.filter.platform);
    let mut several = known::in_full(cx, &selection, ask).await?;
    known::note_problems(cx, &several.found)?;
    let considered = several.found.len();
    let checks = several.found.iter();
    let without_answer = checks.filter(|found| found.check.as_ref().is_some_and(known::Check::has_no_answer));
    let without_answer: BTreeSet<_> = without_answer.map(|found| found.document.key.clone()).collect();
    several
        .found
        .retain(|found| args.filter.keeps(&found.row, &without_answer));
    several.unusable.retain(|item| args.filter.keeps_unusable(item));
    args.order.sort(&mut several.found, |found| &found.row);
    let total = several.found.len();
    let mut notes: Vec<Note> = left_out(total, args.order.limit()).into_iter().collect();
    if let Some(filters) = args.filter.typed().filter(|_| total == 0) {
        let what = format!("none of {considered} sources match {filters}");
        notes.push(Note::hint(Tone::Dim, what, None));
    }
    several.found.truncate(args.order.limit().unwrap_or(usize::MAX));
    let mut sources = Vec::with_capacity(several.found.len());
    for found in several.found {
        sources.push(in_full(cx, found).await?);
    }
    cx.output.print(&SourceReport {
        as_of: cx.app.clock.now(),
        sources,
        unusable: several.unusable,
        total,
        notes,
    })?;
    Ok(ExitCode::Healthy)
}

async fn in_full(cx: &Context, found: Found) -> Result<SourceInFull, Failure> {
    let key = &found.document.key;
    let history = cx.app.store(Access::Read).await?.history(key, RECENT).await?;
    let listening = match key.platform() {
        PlatformName::Twitch => Listening::of(&cx.app.eventsub_plan_by_memory().await, key),
        PlatformName::Kick | PlatformName::Discord => None,
    };
    Ok(SourceInFull {
        as_of: cx.app.clock.now(),
        row: found.row,
        document: found.document,
        listening,
        history: HistoryEntry::without_repeats(history),
    })
}
