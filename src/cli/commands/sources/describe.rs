//! `sources describe`: sources in full.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::app::{self, StoreAccess};
use crate::cli::commands::sources::is_live::check_failed;
use crate::cli::commands::sources::known::{self, Ask};
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::filters::{FilterArgs, OrderArgs};
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::source::SourceReport;
use crate::cli::reports::sources::left_out;
use crate::cli::source_arg::SourceSelector;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::store::HistoryEntry;
use crate::view::detail::SourceInFull;
use crate::view::found::{Check, Found};
use crate::view::listening::Listening;

/// History entries shown with a description.
const RECENT: usize = 10;

/// Show the evidence and reason of each status
///
/// With --probe a check that fails is exit 3 (platform unreachable, or the bot's token rejected) or 8 (no answer to a question)
/// unless --max-age accepts what is stored. Of several codes the first of 3, 8, 0 counts, whatever --limit leaves out. Otherwise
/// the exit code does not depend on what is shown; see `sources status` for that.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources describe twitch:123456
  bitbrat sources describe twitch:123456 --probe
  bitbrat sources describe twitch:123456 --probe --max-age 10m
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
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    order: OrderArgs,
}

pub async fn run(cx: &Context, args: &DescribeArgs) -> Result<ExitCode, Failure> {
    let mut several = known::asked(cx, &args.ids, &args.filter.platform, args.ask).await?;
    known::note_problems(cx, &several.found)?;
    let considered = several.found.len();
    let checks = several.found.iter();
    let without_answer = checks.filter(|found| found.check.as_ref().is_some_and(Check::has_no_answer));
    let without_answer: BTreeSet<_> = without_answer.map(|found| found.document.key.clone()).collect();
    several
        .found
        .retain(|found| args.filter.keeps(&found.row, &without_answer));
    several.unusable.retain(|item| args.filter.keeps_unusable(item));
    args.order.sort(&mut several.found, |found| &found.row);
    let total = several.found.len();
    let mut notes: Vec<Note> = left_out(total, args.order.limit()).into_iter().collect();
    if let Some(filters) = args.filter.typed().filter(|_| total == 0) {
        let what = match considered {
            1 => format!("the one source does not match {filters}"),
            _ => format!("none of {considered} sources match {filters}"),
        };
        notes.push(Note::hint(Tone::Dim, what, None));
    }
    let mut exit = ExitCode::Healthy;
    for found in several.found.iter().filter(|_| args.ask.probe) {
        if let Some(failed) = failure(found, args.ask.max_age) {
            exit = exit.worse(failed);
            let hint = check_failed(found);
            if !notes.contains(&hint) {
                notes.push(hint);
            }
        }
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
    Ok(exit)
}

/// Returns the exit code of a check that failed, unless an age was given and what is stored is at most that old.
fn failure(found: &Found, max_age: Option<Duration>) -> Option<ExitCode> {
    let failed = found.check.as_ref().and_then(Check::any_unanswered)?;
    let is_accepted = max_age.is_some() && !found.row.findings.unknown && !found.row.is_stale();
    (!is_accepted).then_some(failed.exit)
}

/// Adds what a description shows beside the document.
pub async fn in_full(cx: &Context, found: Found) -> Result<SourceInFull, Failure> {
    let key = &found.document.key;
    let history = cx
        .app
        .store(StoreAccess::Read)
        .await?
        .history(key, RECENT)
        .await?;
    let listening = match key.platform() {
        PlatformName::Twitch => Listening::of(&app::eventsub_plan_by_memory(&cx.app).await?, key),
        _ => None,
    };
    Ok(SourceInFull {
        as_of: cx.app.clock.now(),
        row: found.row,
        document: found.document,
        listening,
        history: HistoryEntry::without_repeats(history),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::facet::Facet;
    use crate::core::observation::{ErrorInfo, Fact, LinkState, Transport};
    use crate::view::tests::{Story, checked, ratcaster};

    #[test]
    fn failed_probe_is_the_exit_code_unless_the_cache_is_accepted() {
        let error = || ErrorInfo::new(Code::NetworkTimeout, "no answer within 10 s");
        let link = |state| Fact::Connection {
            transport: Transport::Api,
            state,
        };
        let without_answer = Fact::Unanswered {
            facet: Facet::Permissions,
            error: error(),
        };
        for (facts, problems, exit) in [
            (vec![link(LinkState::Down { error: error() })], &[][..], Some(3)),
            (vec![link(LinkState::Refused { error: error() })], &[], Some(3)),
            (vec![link(LinkState::Up), without_answer], &[], Some(8)),
            (vec![], &["the rate limit is used up"], Some(8)),
            (
                vec![link(LinkState::Up)],
                &["another channel does not exist"],
                None,
            ),
            (vec![Fact::NoSuchSource { error: error() }], &[], None),
        ] {
            let found = checked(ratcaster().found(), facts.clone(), problems);
            let code = |max_age| failure(&found, max_age).map(ExitCode::number);
            assert_eq!(code(None), exit, "{facts:?}");
            assert_eq!(code(Some(Duration::from_secs(3600))), None, "{facts:?}");
            let never_seen = checked(Story::of("twitch:1").found(), facts, problems);
            let code = failure(&never_seen, Some(Duration::from_secs(3600)));
            assert_eq!(code.map(ExitCode::number), exit);
        }
    }
}
