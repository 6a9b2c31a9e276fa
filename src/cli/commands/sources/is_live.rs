//! `sources is-live`: is the stream live? By exit code.

use clap::Args;

use crate::cli::commands::sources::known::{self, Found};
use crate::cli::context::Context;
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::predicate::{Answer, AnswerItem, AnswerReport};
use crate::core::freshness::Field;
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::verdict::explain;
use crate::failure::{ExitCode, Failure};

/// Tell by the exit code whether a stream is live
///
/// 0: it is. 1: it is not. 8: not known, or what is known is too old to rely on. `-q` leaves out the hints, and
/// `> /dev/null` the answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources is-live twitch:123456 && start-recording
  bitbrat sources is-live twitch:123456 --probe -o json")]
pub struct IsLiveArgs {
    /// The source, as platform:id
    #[arg(value_name = "ID")]
    id: SourceKey,
    /// Look at the platform first
    #[arg(long)]
    probe: bool,
}

/// Runs the command.
pub async fn run(cx: &Context, args: &IsLiveArgs) -> Result<ExitCode, Failure> {
    let found = known::one(cx, &args.id, args.probe).await?;
    let answer = judge(&found);
    let exit = exit_code(answer.answer);
    let hints = match answer.answer {
        Answer::Unknown if !args.probe => vec![look_first(&format!("is-live {}", args.id))],
        _ => Vec::new(),
    };
    cx.output.print(&AnswerReport {
        as_of: cx.app.clock.now(),
        answer,
        hints,
    })?;
    Ok(exit)
}

/// Returns the exit code of a predicate.
pub fn exit_code(answer: Answer) -> ExitCode {
    match answer {
        Answer::Yes => ExitCode::Healthy,
        Answer::No => ExitCode::Failed,
        Answer::Unknown => ExitCode::NoEvidence,
    }
}

/// Advises to look.
pub fn look_first(command: &str) -> Note {
    Note::hint(
        Tone::Warn,
        "there is not enough fresh evidence; look first, or keep `bitbrat watch` running",
        Some(&format!("bitbrat sources {command} --probe")),
    )
}

fn judge(found: &Found) -> AnswerItem {
    let stream = &found.document.verdict.stream;
    let stale = found.row.freshness.is_stale(Field::StreamStatus);
    let answer = match stream.value {
        _ if stale => Answer::Unknown,
        StreamStatus::Online => Answer::Yes,
        StreamStatus::Offline => Answer::No,
        StreamStatus::Unknown => Answer::Unknown,
    };
    let because = if stale {
        format!("it was {}, but that is too old to rely on", stream.value)
    } else {
        explain(stream.rule).to_owned()
    };
    AnswerItem {
        key: found.document.key.to_string(),
        display_name: found.document.display_name().map(str::to_owned),
        question: "live".into(),
        answer,
        because,
        rule: Some(stream.rule.to_owned()),
        age_ms: found.row.freshness.stream_age_ms,
        missing: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::reports::tests::{Story, gone, old_knowledge, ratcaster, revoked};

    #[test]
    fn live_is_claimed_only_on_fresh_evidence() {
        for (story, expected) in [
            (ratcaster(), 0),
            (revoked(), 1),
            (gone(), 8),
            (old_knowledge(), 8),
            (Story::of("kick:1"), 8),
        ] {
            let code = exit_code(judge(&story.found()).answer);
            assert_eq!(code.number(), expected, "{}", story.key);
        }
    }
}
