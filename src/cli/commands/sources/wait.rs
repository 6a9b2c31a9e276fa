//! `sources wait`: block until a condition holds.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;
use futures_util::StreamExt as _;

use crate::app::StoreAccess;
use crate::cli::commands::sources::known::{self, Ask, FoundSources};
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::predicate::AnswerReport;
use crate::cli::selection::Selection;
use crate::cli::source_arg::{self, SourceSelector};
use crate::config::parse_duration;
use crate::core::document::SourceDocument;
use crate::core::freshness::Field;
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::{Status, explain};
use crate::failure::{ExitCode, Failure};
use crate::view::answer::{Answer, AnswerItem};
use crate::view::envelope::UnusableKind;
use crate::view::found::Found;
use crate::view::health::Health;

/// How often the condition is checked: evidence ages even when nothing changes.
const TICK: Duration = Duration::from_secs(1);

/// Wait until sources reach a state
///
/// Only fresh evidence counts. /// 0: every source has it at the same time, or with --any one of them. 124: the time ran out. Follows the store, which must be
/// kept up to date by `bitbrat watch`, or by this command itself with --probe. A glob stands for the sources that it matches at
/// the start.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat wait twitch:123456 --for live --timeout 10m && start-recording
  bitbrat wait twitch:123456 --for healthy --probe
  bitbrat wait 'twitch:*' --for offline && restart-bot
  bitbrat wait twitch:123456 kick:ratcaster --any --for live
  bitbrat wait kick:987 --for offline && stop-recording")]
pub struct WaitArgs {
    /// The sources: platform:id, platform:name, names, channels' addresses, or quoted globs
    #[arg(value_name = "SOURCE", required = true, add = ArgValueCompleter::new(complete::sources))]
    ids: Vec<SourceSelector>,
    /// Wait for one of the sources instead of all
    #[arg(long)]
    any: bool,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    what: WaitFor,
    /// How long to wait; without end when not given
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Check the platforms, as often as the schedule of streams
    #[arg(long)]
    probe: bool,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitFor {
    /// The stream is live
    Live,
    /// The stream is not live
    Offline,
    /// The bot is connected
    Connected,
    /// Connected and authorized
    Healthy,
}

impl WaitFor {
    fn name(self) -> String {
        let value = self.to_possible_value().expect("every condition can be given");
        value.get_name().to_owned()
    }

    /// Judges a source: only fresh evidence counts.
    fn judge(self, found: &Found) -> Answer {
        let verdict = &found.document.verdict;
        let decided = |is: bool, stale: bool| match (is, stale) {
            (_, true) => Answer::Unknown,
            (true, false) => Answer::Yes,
            (false, false) => Answer::No,
        };
        let stream = |wanted| match verdict.stream.value {
            StreamStatus::Unknown => Answer::Unknown,
            is => decided(is == wanted, found.row.freshness.is_stale(Field::StreamStatus)),
        };
        match self {
            Self::Live => stream(StreamStatus::Online),
            Self::Offline => stream(StreamStatus::Offline),
            Self::Connected => decided(
                verdict.status.value == Status::Connected,
                found.row.freshness.is_stale(Field::Status),
            ),
            Self::Healthy => match found.row.findings.worst() {
                Health::Ok => Answer::Yes,
                Health::Unknown => Answer::Unknown,
                Health::Down | Health::Auth => Answer::No,
            },
        }
    }
}

pub async fn run(cx: &Context, args: &WaitArgs) -> Result<ExitCode, Failure> {
    let probe = args.probe || cx.app.is_store_temporary();
    let selection = source_arg::select(cx, &args.ids, probe).await?;
    // What was found last, for the report after a time-out.
    let mut latest = FoundSources::default();
    let waiting = follow(cx, args, &selection, probe, &mut latest);
    let ended = match args.timeout {
        Some(timeout) => tokio::time::timeout(timeout, waiting).await,
        None => Ok(waiting.await),
    };
    let in_time = match ended {
        Ok(result) => result.map(|()| true)?,
        Err(_) => false,
    };
    if !in_time && latest.found.is_empty() {
        latest = unchecked(cx, &selection).await?;
    }
    let now = cx.app.clock.now();
    for found in &mut latest.found {
        judge_again(found, cx, now);
    }
    let answers = latest.found.iter();
    let answers: Vec<AnswerItem> = answers.map(|found| item(args.what, found, in_time)).collect();
    cx.output.print(&AnswerReport {
        as_of: now,
        answers,
        unusable: latest.unusable,
        hints: Vec::new(),
    })?;
    Ok(if in_time {
        ExitCode::Healthy
    } else {
        ExitCode::TimedOut
    })
}

/// Returns the sources as they are stored, where the time ran out before the end of the first check.
async fn unchecked(cx: &Context, selection: &Selection) -> Result<FoundSources, Failure> {
    let keys = if selection.has_globs() {
        selection.among(&source_arg::known_names(cx).await?)
    } else {
        selection.keys()
    };
    let mut several = known::stored_in_full(cx, &keys, None).await?;
    let nothing = several.unknown.drain(..).map(SourceDocument::new);
    let nothing = nothing.map(|document| Found::new(document, &cx.app.intervals(), cx.app.clock.now()));
    several.found.extend(nothing);
    Ok(several)
}

/// Judges a document by the present time; evidence ages.
fn judge_again(found: &mut Found, cx: &Context, now: Timestamp) {
    let (configured, stored) = (found.row.configured.take(), found.row.stored);
    found.row = Found::new(found.document.clone(), &cx.app.intervals(), now).row;
    (found.row.configured, found.row.stored) = (configured, stored);
}

/// Returns once the condition holds, with what it was judged by in `latest`.
async fn follow(
    cx: &Context,
    args: &WaitArgs,
    selection: &Selection,
    probe: bool,
    latest: &mut FoundSources,
) -> Result<(), Failure> {
    let ask = Ask { probe, max_age: None };
    *latest = known::in_full(cx, selection, ask).await?;
    known::note_problems(cx, &latest.found)?;
    if holds(args, latest) {
        return Ok(());
    }
    if !probe && latest.found.iter().any(|found| found.row.findings.stale) {
        let what = "data is stale and no `bitbrat watch` seems to be running; start it, or wait with --probe";
        cx.note(&[Note::hint(Tone::Warn, what, None)])?;
    }
    // From here on it is about the same sources, whatever a glob would match later.
    let found = latest.found.iter().map(|found| found.document.key.clone());
    let unusable = latest.unusable.iter().filter_map(|item| item.id.parse().ok());
    let keys: Vec<SourceKey> = found.chain(unusable).collect();
    let mut same = Selection::default();
    let mut unresolved = Vec::new();
    if keys.is_empty() {
        // Names without an id, which the next check may find.
        same = selection.clone();
    } else {
        for key in &keys {
            same.add_key(key.clone());
        }
        unresolved.clone_from(&latest.unusable);
        unresolved.retain(|item| item.what == UnusableKind::Name);
    }
    let store = cx.app.store(StoreAccess::Read).await?;
    let mut changes = store.watch().await?;
    let probe_every = cx.app.probe_interval();
    let mut probed_at = cx.app.clock.now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            Some(_) = changes.next() => {}
        }
        let now = cx.app.clock.now();
        let is_due = probe && now.since(probed_at) >= probe_every;
        let mut next = if is_due {
            probed_at = now;
            known::in_full(cx, &same, ask).await?
        } else {
            let mut stored = known::stored_in_full(cx, &keys, None).await?;
            // Nothing is stored of a source that is neither configured nor stored: its last check counts, as long as it is fresh.
            let gone: BTreeSet<SourceKey> = stored.unknown.drain(..).collect();
            if let Some(gone) = gone.first().filter(|_| !probe) {
                return Err(known::no_such_source(gone));
            }
            let before = std::mem::take(&mut latest.found).into_iter();
            let before = before.filter(|found| gone.contains(&found.document.key));
            stored.found.extend(before.map(|mut found| {
                judge_again(&mut found, cx, now);
                found
            }));
            stored
        };
        next.unusable.extend(unresolved.iter().cloned());
        *latest = next;
        if holds(args, latest) {
            return Ok(());
        }
    }
}

/// Whether the condition holds for all sources, or for any if that is enough. What cannot be used satisfies no condition.
fn holds(args: &WaitArgs, several: &FoundSources) -> bool {
    let is_so = |found: &Found| args.what.judge(found) == Answer::Yes;
    if args.any {
        several.found.iter().any(is_so)
    } else {
        several.unusable.is_empty() && !several.found.is_empty() && several.found.iter().all(is_so)
    }
}

fn item(what: WaitFor, found: &Found, in_time: bool) -> AnswerItem {
    let verdict = &found.document.verdict;
    let (rule, value, age) = match what {
        WaitFor::Live | WaitFor::Offline => (
            verdict.stream.rule,
            verdict.stream.value.to_string(),
            found.row.freshness.stream_age_ms,
        ),
        WaitFor::Connected | WaitFor::Healthy => (
            verdict.status.rule,
            verdict.status.value.to_string(),
            found.row.freshness.status_age_ms,
        ),
    };
    let answer = what.judge(found);
    let because = match answer {
        Answer::No | Answer::Unknown if !in_time => {
            format!("the time ran out; it is {value}: {}", explain(rule))
        }
        _ => format!("{value}: {}", explain(rule)),
    };
    AnswerItem {
        rule: Some(rule.to_owned()),
        age_ms: age,
        ..found.answer(what.name(), answer, because)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::envelope::UnusableItem;
    use crate::view::tests::{Story, guild, old_knowledge, ratcaster, revoked};

    #[test]
    fn all_sources_must_satisfy_the_condition_or_one_with_any() {
        let args = |any| WaitArgs {
            ids: Vec::new(),
            any,
            what: WaitFor::Live,
            timeout: None,
            probe: false,
        };
        let several = |stories: &[Story], unusable: &[&str]| FoundSources {
            found: stories.iter().map(Story::found).collect(),
            unusable: unusable
                .iter()
                .map(|id| UnusableItem {
                    what: UnusableKind::Document,
                    id: (*id).to_owned(),
                    reason: "it is broken".to_owned(),
                })
                .collect(),
            unknown: Vec::new(),
        };
        for (stories, unusable, all, any) in [
            (vec![ratcaster()], &[][..], true, true),
            (vec![ratcaster(), ratcaster()], &[][..], true, true),
            (vec![ratcaster(), revoked()], &[][..], false, true),
            (vec![ratcaster(), old_knowledge()], &[][..], false, true),
            (vec![revoked(), old_knowledge()], &[][..], false, false),
            (vec![ratcaster()], &["twitch:5"][..], false, true),
            (vec![], &["twitch:5"][..], false, false),
        ] {
            let several = several(&stories, unusable);
            assert_eq!(holds(&args(false), &several), all, "{several:?}");
            assert_eq!(holds(&args(true), &several), any, "{several:?}");
        }
    }

    #[test]
    fn waiting_ends_only_on_fresh_evidence() {
        use Answer::{No, Unknown, Yes};
        use WaitFor::{Connected, Healthy, Live, Offline};
        for (story, what, expected) in [
            (ratcaster(), Live, Yes),
            (ratcaster(), Offline, No),
            (ratcaster(), Connected, Yes),
            (ratcaster(), Healthy, Yes),
            (old_knowledge(), Live, Unknown),
            (old_knowledge(), Healthy, Unknown),
            (revoked(), Offline, Yes),
            (revoked(), Healthy, No),
            (guild(), Connected, No),
            (Story::of("kick:1"), Offline, Unknown),
        ] {
            assert_eq!(what.judge(&story.found()), expected, "{} {what:?}", story.key);
        }
    }
}
