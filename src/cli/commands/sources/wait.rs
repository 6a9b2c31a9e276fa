//! `sources wait`: block until something is so.

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;

use crate::app::Access;
use crate::cli::commands::sources::known::{self, Found};
use crate::cli::context::Context;
use crate::cli::health::Health;
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::predicate::{Answer, AnswerItem, AnswerReport};
use crate::config::parse_duration;
use crate::core::freshness::Field;
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::verdict::{Status, explain};
use crate::failure::{ExitCode, Failure};

/// How often the clock is looked at: knowledge ages even when nothing changes.
const TICK: Duration = Duration::from_secs(1);

/// Wait until something is so, by fresh evidence
///
/// 0: it is so. 124: the time ran out. Follows the store, which somebody must keep up to date: `bitbrat watch`, or this
/// command itself with --probe.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources wait twitch:123456 --for live --timeout 10m && start-recording
  bitbrat sources wait twitch:123456 --for healthy --probe
  bitbrat sources wait kick:987 --for offline && stop-recording")]
pub struct WaitArgs {
    /// The source, as platform:id
    #[arg(value_name = "ID")]
    id: SourceKey,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    what: WaitFor,
    /// How long to wait; without end when not given
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Look at the platform, as often as the schedule of streams says
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
    /// Connected and authorised
    Healthy,
}

impl WaitFor {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Offline => "offline",
            Self::Connected => "connected",
            Self::Healthy => "healthy",
        }
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

/// Runs the command.
pub async fn run(cx: &Context, args: &WaitArgs) -> Result<ExitCode, Failure> {
    let waiting = follow(cx, args);
    let result = match args.timeout {
        Some(timeout) => tokio::time::timeout(timeout, waiting).await,
        None => Ok(waiting.await),
    };
    let Ok(found) = result else {
        let found = known::stored_one(cx, &args.id).await?;
        let answer = args.what.judge(&found);
        cx.output.print(&report(cx, args, &found, answer))?;
        return Ok(ExitCode::TimedOut);
    };
    let found = found?;
    cx.output.print(&report(cx, args, &found, Answer::Yes))?;
    Ok(ExitCode::Healthy)
}

/// Returns once it is so.
async fn follow(cx: &Context, args: &WaitArgs) -> Result<Found, Failure> {
    let probe = args.probe || cx.app.is_store_temporary();
    let found = known::one(cx, &args.id, probe).await?;
    if args.what.judge(&found) == Answer::Yes {
        return Ok(found);
    }
    if !probe && found.row.findings.stale {
        let what =
            "what is known is old, and nobody seems to look; run `bitbrat watch`, or wait with --probe";
        cx.note(&[Note::hint(Tone::Warn, what, None)])?;
    }
    let store = cx.app.store(Access::Read).await?;
    let mut changes = store.watch().await?;
    let between_looks = cx.app.look_interval();
    let mut looked_at = cx.app.clock.now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            Some(_) = changes.next() => {}
        }
        let now = cx.app.clock.now();
        let due = probe && now.since(looked_at) >= between_looks;
        if due {
            looked_at = now;
        }
        let found = if due {
            known::one(cx, &args.id, true).await?
        } else {
            known::stored_one(cx, &args.id).await?
        };
        if args.what.judge(&found) == Answer::Yes {
            return Ok(found);
        }
    }
}

fn report(cx: &Context, args: &WaitArgs, found: &Found, answer: Answer) -> AnswerReport {
    let verdict = &found.document.verdict;
    let (rule, value, age) = match args.what {
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
    let because = match answer {
        Answer::Yes => format!("{value}: {}", explain(rule)),
        Answer::No | Answer::Unknown => format!("the time ran out; it is {value}: {}", explain(rule)),
    };
    AnswerReport {
        as_of: cx.app.clock.now(),
        answer: AnswerItem {
            key: args.id.to_string(),
            display_name: found.document.display_name().map(str::to_owned),
            question: args.what.name().to_owned(),
            answer,
            because,
            rule: Some(rule.to_owned()),
            age_ms: age,
            missing: Vec::new(),
        },
        hints: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::reports::tests::{Story, guild, old_knowledge, ratcaster, revoked};

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
