//! `sources status`: the stored status of the sources, its age, and the exit code that follows from it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;
use futures_util::StreamExt as _;

use crate::app::StoreAccess;
use crate::cli::commands::auth;
use crate::cli::commands::sources::known::{self, Ask, Known};
use crate::cli::commands::sources::past;
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::filters::{ColumnArgs, FilterArgs, OrderArgs};
use crate::cli::output::{Format, Note, Output, Report as _, offer, render};
use crate::cli::reports::columns::SourceColumn;
use crate::cli::reports::sources::{Choice, Show, SourcesReport};
use crate::cli::selection::Selection;
use crate::cli::source_arg::{self, SourceSelector};
use crate::config::parse_duration;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::platforms::Problem;
use crate::store::{StoreError, Stored};
use crate::view::since::Since;
use crate::view::source_row::SourceRow;

/// Show the status of sources, and its age
///
/// Reads the store; nothing is asked of the platforms unless --probe is given. What is older than three times its interval
/// is marked as stale. The exit code is that of the worst source that the arguments and filters select, whatever --limit
/// leaves out; with --live or --failing, 0 when none is selected. See `bitbrat help exit-codes`. A glob is matched against
/// platform:id and platform:name, regardless of case: `*`, `?` and `[0-9]`. Quote it, because shells expand globs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources status
  bitbrat sources status --probe
  bitbrat sources status twitch:123456 kick:ratcaster -o json
  bitbrat sources status 'twitch:*' '*:pixel*'    quoted, because shells expand globs
  bitbrat sources status --live --sort -viewers --limit 10
  bitbrat sources status --failing --platform twitch --platform kick
  bitbrat sources status --columns name,stream,viewers,title -o csv
  bitbrat sources status --max-age 5m
  bitbrat sources status --watch=5s --failing
  bitbrat sources status --at 2h                  what was known two hours ago
  bitbrat sources status --fail-on auth,error     for a monitor that should not mind restarts")]
pub struct StatusArgs {
    /// Sources to show: platform:id, platform:name, names, channels' addresses, or globs; all when none are given
    #[arg(value_name = "SOURCE", add = ArgValueCompleter::new(complete::sources))]
    ids: Vec<SourceSelector>,
    /// Check the platforms first
    #[arg(long)]
    probe: bool,
    /// Treat evidence that is older as stale, and what is at most this old as fresh (default: three intervals)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,
    /// Show what was known at this time: 2h, 7d, or a time as 2026-11-20T10:00:00Z
    ///
    /// Read from the history, which has connection, stream, authorization and permissions, and no viewers, errors or latency.
    /// What was not known then is unknown, and what no running `bitbrat watch` confirmed then is as old as its last proof.
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["probe", "watch", "max_age"])]
    at: Option<Since>,
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
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    columns: ColumnArgs,
}

/// Something that counts for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum FailOn {
    /// An authorization is expired, revoked or missing (exit 4)
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

pub async fn run(cx: &Context, args: &StatusArgs) -> Result<ExitCode, Failure> {
    args.columns.chosen(&cx.output)?;
    if let Some(at) = args.at {
        return in_the_past(cx, args, past::moment(cx, at)?).await;
    }
    if let Some(interval) = args.watch {
        return watch(cx, args, interval.max(Duration::from_millis(200))).await;
    }
    let selection = select(cx, args).await?;
    let ask = Ask {
        probe: args.probe,
        max_age: args.max_age,
    };
    let mut known = known::load(cx, &selection, ask).await?;
    if args.max_age.is_some() {
        // Stored evidence is accepted within its allowed age.
        known.unanswered.clear();
    }
    args.filter.apply(&mut known);
    args.order.sort(&mut known.rows, |row| row);
    let fail_on: BTreeSet<FailOn> = args.fail_on.iter().copied().collect();
    let exit = exit_code(&known, &fail_on);
    cx.output.print(&report(cx, args, known))?;
    cx.output.note(&auth::expiring(cx).await)?;
    Ok(exit)
}

/// Shows what was known at a time. The exit code is that of then.
async fn in_the_past(cx: &Context, args: &StatusArgs, at: Timestamp) -> Result<ExitCode, Failure> {
    let selection = source_arg::select(cx, &args.ids, false).await?;
    let selection = selection.on(&args.filter.platform);
    let mut known = known::stored(cx, &selection, None).await?;
    known.rows = past::rows_at(cx, known.rows, at).await?;
    args.filter.apply(&mut known);
    args.order.sort(&mut known.rows, |row| row);
    let fail_on: BTreeSet<FailOn> = args.fail_on.iter().copied().collect();
    let exit = exit_code(&known, &fail_on);
    let columns = args.columns.chosen(&cx.output)?;
    cx.output.print(&SourcesReport {
        as_of: at,
        ..report_of(cx, known, Show::Past, &args.filter, &args.order, columns)
    })?;
    Ok(exit)
}

/// Checks every source and shows its status, as a part of another command.
pub async fn probed(cx: &Context) -> Result<(), Failure> {
    let selection = source_arg::select(cx, &[], true).await?;
    let ask = Ask {
        probe: true,
        max_age: None,
    };
    let known = known::load(cx, &selection, ask).await?;
    let (filter, order) = (FilterArgs::default(), OrderArgs::default());
    let report = report_of(cx, known, Show::Status, &filter, &order, None);
    Ok(cx.output.print(&report)?)
}

/// Returns what is meant. What a check asks for does not depend on filters by state, which are applied to its answers.
async fn select(cx: &Context, args: &StatusArgs) -> Result<Selection, Failure> {
    let selection = source_arg::select(cx, &args.ids, asks_platforms(cx, args)).await?;
    Ok(selection.on(&args.filter.platform))
}

/// Whether the platforms are checked: on request, and in a demo whose own store is empty before.
fn asks_platforms(cx: &Context, args: &StatusArgs) -> bool {
    args.probe || cx.app.is_store_temporary()
}

fn report(cx: &Context, args: &StatusArgs, known: Known) -> SourcesReport {
    let columns = args.columns.chosen(&cx.output).ok().flatten();
    report_of(cx, known, Show::Status, &args.filter, &args.order, columns)
}

/// Returns the report of what the options leave of the sources.
pub fn report_of(
    cx: &Context,
    known: Known,
    show: Show,
    filter: &FilterArgs,
    order: &OrderArgs,
    columns: Option<Vec<SourceColumn>>,
) -> SourcesReport {
    SourcesReport {
        as_of: cx.app.clock.now(),
        rows: known.rows,
        unusable: known.unusable,
        problems: known.problems,
        show,
        choice: Choice {
            limit: order.limit(),
            columns,
            filters: filter.typed(),
            considered: known.considered,
        },
    }
}

/// Returns the exit code of `rows` with the default of `--fail-on`.
pub fn usual_exit(rows: Vec<SourceRow>) -> ExitCode {
    let known = Known {
        rows,
        ..Known::default()
    };
    let usual = [FailOn::Auth, FailOn::Down, FailOn::Unknown, FailOn::Stale];
    exit_code(&known, &usual.into_iter().collect())
}

/// Returns the worst of the conditions that count.
fn exit_code(known: &Known, fail_on: &BTreeSet<FailOn>) -> ExitCode {
    if fail_on.contains(&FailOn::Never) {
        return ExitCode::Healthy;
    }
    let counts = |what: FailOn| fail_on.contains(&what);
    let of_row = |row: &SourceRow| {
        let found = row.findings;
        let offline = row.summary.stream_status == StreamStatus::Offline;
        if found.auth && counts(FailOn::Auth) {
            ExitCode::Unauthorized
        } else if (found.refused && (counts(FailOn::Down) || counts(FailOn::Error)))
            || (found.disconnected && counts(FailOn::Down))
            || (known.unanswered.contains(&row.summary.key) && counts(FailOn::Down))
            || (offline && counts(FailOn::Offline))
        {
            ExitCode::Down
        } else if (found.unknown && counts(FailOn::Unknown)) || (found.stale && counts(FailOn::Stale)) {
            ExitCode::NoEvidence
        } else {
            ExitCode::Healthy
        }
    };
    // Without any source, nothing proves that all is well. Where a filter by state leaves none, there are others.
    let is_without = known.rows.is_empty() && known.filtered_out == 0;
    let unclear = is_without || !known.unusable.is_empty();
    let others = if unclear && counts(FailOn::Unknown) {
        ExitCode::NoEvidence
    } else {
        ExitCode::Healthy
    };
    known.rows.iter().map(of_row).fold(others, ExitCode::worse)
}

/// Redraws until interrupted: on a terminal in place, elsewhere one report after the other. The store notifies of changes; in
/// between only ages change, and nothing is read.
async fn watch(cx: &Context, args: &StatusArgs, interval: Duration) -> Result<ExitCode, Failure> {
    let store = cx.app.store(StoreAccess::Read).await?;
    let mut updates = store.watch().await?;
    let mut stored = Vec::new();
    let (mut problems, mut trouble) = (Vec::new(), None);
    let mut unanswered = BTreeSet::new();
    let in_place = cx.output.is_terminal && matches!(cx.output.format, Format::Table | Format::Wide);
    let mut lines_before = 0;
    let looks = asks_platforms(cx, args);
    let selection = select(cx, args).await?;
    let ask = Ask {
        probe: true,
        max_age: args.max_age,
    };
    let mut look_at = cx.app.clock.now();
    let probe_every = cx.app.probe_interval().max(interval);
    let mut first = true;
    let mut resized = crate::os::Resizes::new()
        .map_err(|error| Failure::new(ExitCode::Failed, "cannot receive signals").because(&error))?;
    let mut size = terminal_size::terminal_size();
    loop {
        let now = cx.app.clock.now();
        if looks && now >= look_at {
            look_at = now.plus_millis(i64::try_from(probe_every.as_millis()).unwrap_or(i64::MAX));
            let checked = known::load(cx, &selection, ask).await?;
            (problems, unanswered) = (checked.problems, checked.unanswered);
        }
        tokio::select! {
            biased;
            change = updates.next() => match change.expect("the stream of a store's changes does not end") {
                Ok(all) => (stored, trouble) = (all.into_iter().map(Stored::to_summary).collect(), None),
                Err(error) if first => return Err(error.into()),
                Err(error) => trouble = Some(shown_is_older(&error)),
            },
            () = resized.recv(), if in_place => {}
            () = tokio::time::sleep(interval), if !first => {}
        }
        first = false;
        let mut known = known::among(
            cx,
            &selection,
            &cx.app.sources.all(),
            stored.clone(),
            args.max_age,
        )?;
        known.problems = problems.iter().cloned().chain(trouble.clone()).collect();
        if args.max_age.is_none() {
            known.unanswered.clone_from(&unanswered);
        }
        args.filter.apply(&mut known);
        if in_place {
            // What needs attention is on the screen however many sources there are.
            known.rows.sort_by_key(SourceRow::urgency);
        }
        args.order.sort(&mut known.rows, |row| row);
        let report = report(cx, args, known);
        let read = if in_place {
            let output = Output {
                out: cx.output.out.measured_again(),
                ..cx.output
            };
            let before = std::mem::replace(&mut size, terminal_size::terminal_size());
            let text = screen(&output, &report)?;
            // A terminal whose size changed has wrapped the lines of the previous frame again, so their number is unknown.
            let frame = if before == size {
                frame(&text, lines_before)
            } else {
                format!("\u{1b}[H\u{1b}[2J{}", frame(&text, 0))
            };
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

/// Returns the problem of a store whose changes do not arrive.
pub fn shown_is_older(error: &StoreError) -> Problem {
    Problem::of_platform(format!("{error}; what is shown is older"))
}

/// Returns what fits on the screen: the summary and the titles always, then the sources, and as many hints as fit.
fn screen(output: &Output, report: &SourcesReport) -> Result<String, Failure> {
    let notes = report.notes();
    let (summary, hints): (Vec<Note>, Vec<Note>) = notes
        .into_iter()
        .partition(|note| matches!(note, Note::Summary(_)));
    let table = render(report, output.format, output.out)?;
    let lines = |notes: &[Note]| output.text_of(notes, output.out);
    let height = terminal_size::terminal_size().map_or(24, |(_, height)| usize::from(height.0));
    let hints = if output.quiet {
        String::new()
    } else {
        lines(&hints)
    };
    Ok(compose(lines(&summary).trim_start(), &table, &hints, height))
}

/// Composes a screen of at most `height` lines, the last of which stays empty for the cursor.
fn compose(summary: &str, table: &str, hints: &str, height: usize) -> String {
    /// Rows that hints never displace.
    const ROWS: usize = 6;
    let rows: Vec<&str> = table.lines().collect();
    let (titles, rows) = rows
        .split_first()
        .map_or(("", &[][..]), |(titles, rows)| (*titles, rows));
    let ready = height.saturating_sub(summary.lines().count() + 3).max(1);
    let shown = rows.len().min(ready);
    let for_hints = (ready - shown).max(ready.saturating_sub(ROWS.max(ready * 2 / 3)));
    let hints: Vec<&str> = hints.lines().take(for_hints).collect();
    let for_rows = ready - hints.len();
    let mut text = format!("{}\n\n{titles}\n", summary.trim_end());
    let left = if rows.len() > for_rows {
        for_rows.saturating_sub(1)
    } else {
        rows.len()
    };
    for row in &rows[..left] {
        text.push_str(row);
        text.push('\n');
    }
    if left < rows.len() {
        let _ = writeln!(text, "+{} more", rows.len() - left);
    }
    for hint in hints {
        text.push_str(hint);
        text.push('\n');
    }
    text
}

/// Returns what draws `text` over the previous frame of `lines_before` lines.
fn frame(text: &str, lines_before: usize) -> String {
    // Line wrapping is off for the moment: a wrapped line would be two, and the count wrong.
    let mut frame = String::from("\u{1b}[?7l");
    if lines_before > 0 {
        let _ = write!(frame, "\u{1b}[{lines_before}A\r");
    }
    // Each line is erased right before it is written, which avoids flicker; erasing afterwards would delete the last letter of a
    // line as wide as the terminal.
    for line in text.lines() {
        frame.push_str("\u{1b}[K");
        frame.push_str(line);
        frame.push('\n');
    }
    frame.push_str("\u{1b}[J\u{1b}[?7h");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::Story;
    use crate::view::tests::{gone, guild, old_knowledge, ratcaster, revoked};

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
    fn nothing_that_a_filter_by_state_selects_is_healthy() {
        let usual = BTreeSet::from([FailOn::Unknown]);
        let mut known = Known {
            rows: vec![ratcaster().row()],
            ..Known::default()
        };
        let failing = FilterArgs {
            failing: true,
            ..FilterArgs::default()
        };
        failing.apply(&mut known);
        assert_eq!(exit_code(&known, &usual).number(), 0);
        failing.apply(&mut known);
        assert_eq!(exit_code(&known, &usual).number(), 8, "there is no source at all");
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
    fn screen_never_outgrows_the_terminal() {
        let table = |rows: usize| {
            let rows: Vec<String> = (0..rows).map(|row| format!("row {row}")).collect();
            format!("SOURCE\n{}\n", rows.join("\n"))
        };
        let hints = "! one\n  -> do\n".repeat(8);
        for height in [8, 10, 24, 50] {
            for rows in [1, 5, 16, 22, 300] {
                let text = compose("300 sources", &table(rows), &hints, height);
                assert!(text.lines().count() < height, "{height} {rows}:\n{text}");
                assert!(text.starts_with("300 sources\n\nSOURCE\nrow 0\n"), "{text}");
                let shown = text.lines().filter(|line| line.starts_with("row ")).count();
                let more = format!("+{} more", rows - shown);
                assert_eq!(text.lines().any(|line| line == more), shown < rows, "{text}");
            }
        }
        let text = compose("3 sources", &table(3), &hints, 24);
        assert!(text.contains("row 2\n! one\n"), "{text}");
    }

    #[test]
    fn sources_that_need_attention_come_first() {
        let mut rows: Vec<_> = [ratcaster(), old_knowledge(), guild(), revoked()]
            .iter()
            .map(Story::row)
            .collect();
        rows.sort_by_key(SourceRow::urgency);
        let keys: Vec<_> = rows.iter().map(|row| row.summary.key.to_string()).collect();
        let expected = [revoked(), guild(), old_knowledge(), ratcaster()];
        assert_eq!(keys, expected.map(|story| story.key.to_owned()));
    }

    #[test]
    fn a_frame_is_drawn_over_the_one_before_it() {
        assert_eq!(
            frame("a\nb\n", 0),
            "\u{1b}[?7l\u{1b}[Ka\n\u{1b}[Kb\n\u{1b}[J\u{1b}[?7h"
        );
        assert!(frame("a\n", 7).starts_with("\u{1b}[?7l\u{1b}[7A\r\u{1b}[Ka"));
    }
}
