//! `diff`: what changed about sources since a time.

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::commands::sources::known;
use crate::cli::commands::sources::past;
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::filters::FilterArgs;
use crate::cli::reports::diff::{ChangedFacet, DiffReport};
use crate::cli::source_arg::{self, SourceSelector};
use crate::failure::{ExitCode, Failure};
use crate::store::HistoryEntry;
use crate::view::past::differences;
use crate::view::since::Since;

/// Show what changed about sources since a time
///
/// Compares what was known then with the last recorded state: one line per changed part of a source, with the number of changes in
/// between. A source that was unknown then shows what was found first. The changes one by one are in `bitbrat history`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat diff --since 2h
  bitbrat diff --since 2026-11-20T10:00:00Z 'twitch:*'
  bitbrat diff --since 1d --failing
  bitbrat diff --since 12h -o json | jq '.items[] | select(.facet == \"auth\")'")]
pub struct DiffArgs {
    /// The sources: platform:id, platform:name, names, channels' addresses, or quoted globs; all when none are given
    #[arg(value_name = "SOURCE", add = ArgValueCompleter::new(complete::sources))]
    ids: Vec<SourceSelector>,
    /// The time to compare with: 2h, 7d, or a time as 2026-11-20T10:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Since,
    #[command(flatten)]
    filter: FilterArgs,
}

pub async fn run(cx: &Context, args: &DiffArgs) -> Result<ExitCode, Failure> {
    let since = past::moment(cx, args.since)?;
    let selection = source_arg::select(cx, &args.ids, false).await?;
    let mut known = known::stored(cx, &selection, None).await?;
    args.filter.apply(&mut known);
    let keys = known.rows.iter().map(|row| row.summary.key.clone());
    let histories = past::histories(cx, keys, past::ALL).await?;
    let mut changed = Vec::new();
    for (row, (key, history)) in known.rows.iter().zip(histories) {
        let entries = HistoryEntry::without_repeats(history);
        changed.extend(
            differences(&entries, since)
                .into_iter()
                .map(|difference| ChangedFacet {
                    key: key.clone(),
                    name: row.summary.display_name.as_deref().map(str::to_owned),
                    difference,
                }),
        );
    }
    cx.output.print(&DiffReport {
        as_of: cx.app.clock.now(),
        since,
        compared: known.rows.len(),
        differences: changed,
        unusable: known.unusable,
    })?;
    Ok(ExitCode::Healthy)
}
