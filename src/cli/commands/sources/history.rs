//! `sources history`: what changed about sources.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::commands::sources::known::{self, Ask, FoundSources};
use crate::cli::commands::sources::past;
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::filters::{FilterArgs, at_least_one};
use crate::cli::reports::history::HistoryReport;
use crate::cli::reports::sessions::SessionsReport;
use crate::cli::source_arg::{self, SourceSelector};
use crate::core::source::SourceKey;
use crate::failure::{ExitCode, Failure};
use crate::store::HistoryEntry;
use crate::view;
use crate::view::since::Since;

/// Show what changed about sources, newest first
///
/// Each change is shown with how long the state before it had lasted: of a stream that ended, its length. The changes of several
/// sources are merged by time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources history twitch:123456
  bitbrat sources history twitch:pixelmeadow --since 24h
  bitbrat sources history 'twitch:*' 'kick:*' --since 7d
  bitbrat sources history --failing --since 1h
  bitbrat sources history twitch:pixelmeadow --sessions --since 7d
  bitbrat sources history twitch:123456 --limit 500 -o csv > history.csv")]
pub struct HistoryArgs {
    /// The sources: platform:id, platform:name, names, channels' addresses, or quoted globs; with a filter all when none are given
    #[arg(
        value_name = "SOURCE",
        required_unless_present_any = ["platform", "live", "failing"],
        add = ArgValueCompleter::new(complete::sources)
    )]
    ids: Vec<SourceSelector>,
    /// Changes or streams to show at most, of all sources together
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
    limit: u32,
    /// Only changes, or streams that were live, since then: 24h, 7d, or a time as 2026-11-20T10:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    /// Show streams with start, end and length instead of changes
    ///
    /// An end that no running `bitbrat watch` noticed is shown as the time between which it lies.
    #[arg(long)]
    sessions: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

pub async fn run(cx: &Context, args: &HistoryArgs) -> Result<ExitCode, Failure> {
    let selection = source_arg::select(cx, &args.ids, cx.app.is_store_temporary()).await?;
    let selection = selection.on(&args.filter.platform);
    let mut several = known::in_full(cx, &selection, Ask::STORED).await?;
    let without_answer = BTreeSet::new();
    several
        .found
        .retain(|found| args.filter.keeps(&found.row, &without_answer));
    several.unusable.retain(|item| args.filter.keeps_unusable(item));
    if args.sessions {
        return sessions(cx, args, several).await;
    }
    let keys: Vec<SourceKey> = several
        .found
        .into_iter()
        .map(|found| found.document.key)
        .collect();
    let limit = args.limit as usize;
    let mut histories = past::histories(cx, keys.clone(), limit).await?;
    for (_, entries) in &mut histories {
        *entries = HistoryEntry::without_repeats(std::mem::take(entries));
    }
    let now = cx.app.clock.now();
    let since = args.since.map(|since| since.before(now));
    let mut entries = merged(histories);
    entries.retain(|(_, entry)| since.is_none_or(|since| entry.transition.at >= since));
    entries.truncate(limit);
    cx.output.print(&HistoryReport {
        as_of: now,
        keys,
        entries,
        unusable: several.unusable,
        since,
    })?;
    Ok(ExitCode::Healthy)
}

/// Shows streams instead of changes.
async fn sessions(cx: &Context, args: &HistoryArgs, several: FoundSources) -> Result<ExitCode, Failure> {
    let keys = several.found.iter().map(|found| found.document.key.clone());
    let histories = past::histories(cx, keys, past::ALL).await?;
    let (runs, now) = (past::runs(cx).await, cx.app.clock.now());
    let since = args.since.map(|since| since.before(now));
    let mut sessions = Vec::new();
    for (found, (key, history)) in several.found.iter().zip(histories) {
        let entries = HistoryEntry::without_repeats(history);
        let streams = view::past::sessions_of(&found.document, &entries, &runs);
        sessions.extend(streams.into_iter().map(|session| (key.clone(), session)));
    }
    sessions.retain(|(_, session)| since.is_none_or(|since| session.last_seen() >= since));
    sessions.sort_by_key(|(_, session)| Reverse(session.last_seen()));
    let total = sessions.len();
    sessions.truncate(args.limit as usize);
    cx.output.print(&SessionsReport {
        as_of: now,
        sessions,
        total,
        unusable: several.unusable,
    })?;
    Ok(ExitCode::Healthy)
}

/// Merges the histories of sources, each of which is newest first, by the time of the changes.
fn merged(histories: Vec<(SourceKey, Vec<HistoryEntry>)>) -> Vec<(SourceKey, HistoryEntry)> {
    let mut entries: Vec<_> = histories
        .into_iter()
        .flat_map(|(key, entries)| entries.into_iter().map(move |entry| (key.clone(), entry)))
        .collect();
    // A stable sort: changes of one source at the same time stay in the order of its history.
    entries.sort_by_key(|(_, entry)| Reverse(entry.transition.at));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::facet::Facet;
    use crate::core::time::Timestamp;
    use crate::core::transition::Transition;

    #[test]
    fn changes_of_several_sources_are_merged_by_time() {
        let history = |key: &str, seconds: &[i64]| {
            let key: SourceKey = key.parse().unwrap();
            let entry = |second: &i64| {
                let at = Timestamp::EPOCH.plus_secs(*second);
                let transition = Transition {
                    facet: Facet::Status,
                    from: None,
                    to: Some(second.to_string()),
                    at,
                    rule: "rule".into(),
                    stream_id: None,
                    initial: false,
                };
                HistoryEntry::new(&key, at, transition)
            };
            (key.clone(), seconds.iter().map(entry).collect())
        };
        let merged = merged(vec![
            history("kick:1", &[9, 5, 5, 1]),
            history("twitch:2", &[7, 5]),
        ]);
        let shown: Vec<_> = merged
            .iter()
            .map(|(key, entry)| format!("{} {}", key.platform(), entry.transition.to.as_deref().unwrap()))
            .collect();
        assert_eq!(
            shown,
            ["kick 9", "twitch 7", "kick 5", "kick 5", "twitch 5", "kick 1"]
        );
    }
}
