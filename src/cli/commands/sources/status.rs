//! `sources status`: what the store knows now, how old that is, and what of it counts for the exit code.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;

use crate::app::Access;
use crate::cli::commands::sources::known::{self, Known};
use crate::cli::context::Context;
use crate::cli::output::{Format, Report as _, offer, render};
use crate::cli::reports::sources::{Show, SourceRow, SourcesReport};
use crate::config::parse_duration;
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::failure::{ExitCode, Failure};
use crate::store::Stored;

/// Show what is known of the sources, and how old that is
///
/// Reads the store; nothing is asked of the platforms unless --probe is given. What is older than three times its interval
/// is marked as stale. The exit code tells the worst of what is shown; see `bitbrat help exit-codes`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources status
  bitbrat sources status --probe
  bitbrat sources status twitch:123456 kick:987 -o json
  bitbrat sources status --watch=5s
  bitbrat sources status --fail-on auth,error     for a monitor that should not mind restarts")]
pub struct StatusArgs {
    /// Sources to show, as platform:id; all when none are given
    #[arg(value_name = "ID")]
    ids: Vec<SourceKey>,
    /// Look at the platforms first
    #[arg(long)]
    probe: bool,
    /// Draw again after every change, and at least this often
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = parse_duration
    )]
    watch: Option<Duration>,
    /// What counts for the exit code
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        value_delimiter = ',',
        default_value = "auth,down,unknown,stale"
    )]
    fail_on: Vec<FailOn>,
}

/// Something that counts for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum FailOn {
    /// An authorisation is expired, revoked or missing (exit 4)
    Auth,
    /// A source is disconnected, or refused by its platform (exit 3)
    Down,
    /// A source is refused by its platform (exit 3)
    Error,
    /// A stream is not live (exit 3)
    Offline,
    /// Nothing is known of a source, or its document cannot be used (exit 8)
    Unknown,
    /// What is known of a source is too old (exit 8)
    Stale,
    /// Nothing; the exit code is 0 whatever is shown
    Never,
}

/// Runs the command.
pub async fn run(cx: &Context, args: &StatusArgs) -> Result<ExitCode, Failure> {
    if let Some(interval) = args.watch {
        return watch(cx, args, interval.max(Duration::from_millis(200))).await;
    }
    let known = known::load(cx, &args.ids, args.probe).await?;
    let fail_on: BTreeSet<FailOn> = args.fail_on.iter().copied().collect();
    let exit = exit_code(&known, &fail_on);
    cx.output.print(&report(cx, known))?;
    Ok(exit)
}

fn report(cx: &Context, known: Known) -> SourcesReport {
    SourcesReport {
        as_of: cx.app.clock.now(),
        rows: known.rows,
        unusable: known.unusable,
        problems: known.problems,
        show: Show::Status,
    }
}

/// Returns the worst of what is shown and counts.
fn exit_code(known: &Known, fail_on: &BTreeSet<FailOn>) -> ExitCode {
    if fail_on.contains(&FailOn::Never) {
        return ExitCode::Healthy;
    }
    let counts = |what: FailOn| fail_on.contains(&what);
    let of_row = |row: &SourceRow| {
        let found = row.findings;
        let offline = row.summary.stream_status == StreamStatus::Offline;
        if found.auth && counts(FailOn::Auth) {
            ExitCode::Unauthorised
        } else if (found.refused && (counts(FailOn::Down) || counts(FailOn::Error)))
            || (found.disconnected && counts(FailOn::Down))
            || (offline && counts(FailOn::Offline))
        {
            ExitCode::Down
        } else if (found.unknown && counts(FailOn::Unknown)) || (found.stale && counts(FailOn::Stale)) {
            ExitCode::NoEvidence
        } else {
            ExitCode::Healthy
        }
    };
    // Where there is nothing at all, nothing is known to be well.
    let unclear = known.rows.is_empty() || !known.unusable.is_empty();
    let others = if unclear && counts(FailOn::Unknown) {
        ExitCode::NoEvidence
    } else {
        ExitCode::Healthy
    };
    known.rows.iter().map(of_row).fold(others, ExitCode::worse)
}

/// Draws again and again until interrupted: on a terminal in place, elsewhere one report after the other. The store tells
/// its news by itself; in between only ages change, and nothing is read.
async fn watch(cx: &Context, args: &StatusArgs, interval: Duration) -> Result<ExitCode, Failure> {
    let store = cx.app.store(Access::Read).await?;
    let mut news = store.watch().await?;
    let mut stored = Vec::new();
    let (mut problems, mut trouble) = (Vec::new(), None);
    let in_place = cx.output.is_terminal && matches!(cx.output.format, Format::Table | Format::Wide);
    let mut lines_before = 0;
    let looks = args.probe || cx.app.is_store_temporary();
    let mut look_at = cx.app.clock.now();
    let between_looks = cx.app.look_interval().max(interval);
    let mut first = true;
    loop {
        let now = cx.app.clock.now();
        if looks && now >= look_at {
            look_at = now.plus_millis(i64::try_from(between_looks.as_millis()).unwrap_or(i64::MAX));
            problems = known::load(cx, &args.ids, true).await?.problems;
        }
        tokio::select! {
            biased;
            told = news.next() => match told.expect("a store tells its news for as long as it is asked") {
                Ok(all) => (stored, trouble) = (all.into_iter().map(Stored::in_short).collect(), None),
                Err(error) if first => return Err(error.into()),
                Err(error) => trouble = Some(format!("{error}; what is shown is older")),
            },
            () = tokio::time::sleep(interval), if !first => {}
        }
        first = false;
        let mut known = known::among(cx, &args.ids, &cx.app.sources(), stored.clone())?;
        known.problems = problems.iter().cloned().chain(trouble.clone()).collect();
        let report = report(cx, known);
        let read = if in_place {
            let mut text = render(&report, cx.output.format, cx.output.out)?;
            if !cx.output.quiet {
                text.push_str(&cx.output.text_of(&report.notes(), cx.output.out));
            }
            let frame = frame(&text, lines_before);
            lines_before = text.lines().count();
            offer(&frame)?
        } else {
            cx.output.offer(&report)?
        };
        if !read {
            return Ok(ExitCode::Healthy);
        }
    }
}

/// Returns what draws `text` over the frame before it, which had so many lines.
fn frame(text: &str, lines_before: usize) -> String {
    // Lines that are too long are cut for the moment: a wrapped one would be two, and the count wrong.
    let mut frame = String::from("\u{1b}[?7l");
    if lines_before > 0 {
        let _ = write!(frame, "\u{1b}[{lines_before}A\r");
    }
    // Each line is erased as it is written, so that nothing flickers.
    for line in text.lines() {
        frame.push_str(line);
        frame.push_str("\u{1b}[K\n");
    }
    frame.push_str("\u{1b}[J\u{1b}[?7h");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::reports::tests::Story;
    use crate::cli::reports::tests::{gone, guild, old_knowledge, ratcaster, revoked};

    fn exit(stories: &[Story], fail_on: &[FailOn]) -> u8 {
        let known = Known {
            rows: stories.iter().map(Story::row).collect(),
            ..Known::default()
        };
        exit_code(&known, &fail_on.iter().copied().collect()).number()
    }

    #[test]
    fn the_worst_of_what_is_shown_decides_and_offline_is_no_failure() {
        use FailOn::{Auth, Down, Stale, Unknown};
        let usual = [Auth, Down, Unknown, Stale];
        for (stories, expected) in [
            (vec![], 8),
            (vec![ratcaster()], 0),
            (vec![ratcaster(), old_knowledge()], 8),
            (vec![Story::of("kick:1"), ratcaster()], 8),
            (vec![old_knowledge(), guild()], 3),
            (vec![gone(), revoked(), guild(), old_knowledge()], 4),
        ] {
            let names: Vec<_> = stories.iter().map(|story| story.key).collect();
            assert_eq!(exit(&stories, &usual), expected, "{names:?}");
        }
    }

    #[test]
    fn what_counts_can_be_chosen() {
        for (stories, fail_on, expected) in [
            (vec![guild()], vec![FailOn::Error], 0),
            (vec![gone()], vec![FailOn::Error], 3),
            (vec![revoked()], vec![FailOn::Down], 3),
            (vec![revoked()], vec![FailOn::Offline], 3),
            (vec![ratcaster()], vec![FailOn::Offline], 0),
            (vec![old_knowledge()], vec![FailOn::Unknown], 0),
            (vec![revoked(), gone()], vec![FailOn::Never, FailOn::Auth], 0),
        ] {
            let names: Vec<_> = stories.iter().map(|story| story.key).collect();
            assert_eq!(exit(&stories, &fail_on), expected, "{names:?} {fail_on:?}");
        }
    }

    #[test]
    fn a_frame_is_drawn_over_the_one_before_it() {
        assert_eq!(
            frame("a\nb\n", 0),
            "\u{1b}[?7la\u{1b}[K\nb\u{1b}[K\n\u{1b}[J\u{1b}[?7h"
        );
        assert!(frame("a\n", 7).starts_with("\u{1b}[?7l\u{1b}[7A\ra"));
    }
}
