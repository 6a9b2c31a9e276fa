//! `sources is-live`: answers by exit code whether streams are live.

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::commands::sources::known::{self, Ask};
use crate::cli::commands::sources::past;
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::output::view::Tone;
use crate::cli::output::{Note, quoted};
use crate::cli::reports::predicate::AnswerReport;
use crate::cli::source_arg::{self, SourceSelector};
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::view::answer::{Answer, AnswerItem};
use crate::view::envelope::UnusableItem;
use crate::view::found::{Found, Unanswered};
use crate::view::is_live::{judge, judge_past};
use crate::view::since::Since;

/// Check whether streams are live (exit code)
///
/// 0: they are, every one. 1: at least one is certainly not. 8: not known of at least one, or what is known is too old to rely
/// on. With --probe a source need not be configured, and a check that fails is exit 3 (platform unreachable) or 8 (no answer
/// about the stream) unless --max-age accepts what is stored. Of several codes the first of 1, 3, 8, 0 counts. `-q` leaves out
/// the hints, and `> /dev/null` the answers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat is-live twitch:123456 && start-recording
  bitbrat is-live twitch:pixelmeadow --probe -o json
  bitbrat is-live twitch:pixelmeadow --at 2h
  bitbrat is-live 'twitch:*' kick:ratcaster    every one of them?
  bitbrat is-live https://kick.com/ratcaster --probe --max-age 2m")]
pub struct IsLiveArgs {
    /// The sources: platform:id, platform:name, names, channels' addresses, or quoted globs
    #[arg(value_name = "SOURCE", required = true, add = ArgValueCompleter::new(complete::sources))]
    ids: Vec<SourceSelector>,
    #[command(flatten)]
    ask: Ask,
    /// Answer for this time: 2h, 7d, or a time as 2026-11-20T10:00:00Z. What was not proven then is unknown (exit 8)
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["probe", "max_age"])]
    at: Option<Since>,
}

pub async fn run(cx: &Context, args: &IsLiveArgs) -> Result<ExitCode, Failure> {
    if let Some(at) = args.at {
        return in_the_past(cx, args, past::moment(cx, at)?).await;
    }
    let several = known::asked(cx, &args.ids, &[], args.ask).await?;
    known::note_problems(cx, &several.found)?;
    let mut all = Answers::new(several.unusable);
    let mut is_unclear = false;
    for found in &several.found {
        let (answer, failed) = judge(found, args.ask.max_age);
        if failed.is_some() && answer.answer == Answer::Unknown {
            all.hint(check_failed(found));
        } else {
            is_unclear |= answer.answer == Answer::Unknown;
        }
        all.add(answer, failed);
    }
    if is_unclear && !args.ask.probe {
        all.hint(probe_first(&format!("is-live {}", typed(cx, &args.ids))));
    }
    all.print(cx)
}

async fn in_the_past(cx: &Context, args: &IsLiveArgs, at: Timestamp) -> Result<ExitCode, Failure> {
    let selection = source_arg::select(cx, &args.ids, false).await?;
    let known = known::stored(cx, &selection, None).await?;
    let mut all = Answers::new(known.unusable);
    all.as_of = Some(at);
    for row in past::rows_at(cx, known.rows, at).await? {
        all.add(judge_past(&row, at), None);
    }
    all.print(cx)
}

/// The answers to a question about several sources, and the exit code that follows from them.
pub struct Answers {
    answers: Vec<AnswerItem>,
    unusable: Vec<UnusableItem>,
    hints: Vec<Note>,
    exit: ExitCode,
    /// The time that is asked about, unless it is now.
    as_of: Option<Timestamp>,
}

impl Answers {
    /// Begins with what can have no answer.
    pub fn new(unusable: Vec<UnusableItem>) -> Self {
        Self {
            exit: if unusable.is_empty() {
                ExitCode::Healthy
            } else {
                ExitCode::NoEvidence
            },
            answers: Vec::new(),
            unusable,
            hints: Vec::new(),
            as_of: None,
        }
    }

    /// Adds an answer, and the failure of a check that it would otherwise conceal. One certain no makes the whole no, whatever
    /// else is unknown.
    pub fn add(&mut self, answer: AnswerItem, failed: Option<Unanswered>) {
        let exit = failed.map_or(exit_code(answer.answer), |failed| failed.exit);
        self.exit = self.exit.worse(exit);
        self.answers.push(answer);
    }

    /// Adds advice, unless it was given for another source.
    pub fn hint(&mut self, hint: Note) {
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
    }

    pub fn print(self, cx: &Context) -> Result<ExitCode, Failure> {
        cx.output.print(&AnswerReport {
            as_of: self.as_of.unwrap_or_else(|| cx.app.clock.now()),
            answers: self.answers,
            unusable: self.unusable,
            hints: self.hints,
        })?;
        Ok(self.exit)
    }
}

/// Returns the sources as they were typed, as arguments for a shell.
pub fn typed(cx: &Context, ids: &[SourceSelector]) -> String {
    let spelled = |id: &SourceSelector| {
        let typed = cx.output.invocation.typed(|word| word.parse().as_ref() == Ok(id));
        typed.unwrap_or_else(|| match id {
            SourceSelector::One(arg) => quoted(&arg.to_string()),
            SourceSelector::Glob(_) => id.to_string(),
        })
    };
    ids.iter().map(spelled).collect::<Vec<_>>().join(" ")
}

pub fn exit_code(answer: Answer) -> ExitCode {
    match answer {
        Answer::Yes => ExitCode::Healthy,
        Answer::No => ExitCode::Failed,
        Answer::Unknown => ExitCode::NoEvidence,
    }
}

pub fn probe_first(command: &str) -> Note {
    Note::hint(
        Tone::Warn,
        "there is not enough fresh evidence; check with --probe, or keep `bitbrat watch` running",
        Some(&format!("bitbrat sources {command} --probe")),
    )
}

/// Returns the advice for a check that got no answer.
pub fn check_failed(found: &Found) -> Note {
    let platform = found.document.key.platform();
    Note::hint(
        Tone::Warn,
        "the check failed; give --max-age to accept older evidence",
        Some(&format!("bitbrat doctor {platform}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::observation::{ErrorInfo, Fact, LinkState, Transport};
    use crate::view::envelope::UnusableKind;
    use crate::view::tests::{Story, checked, gone, old_knowledge, ratcaster, revoked};

    #[test]
    fn live_is_claimed_only_on_fresh_evidence() {
        for (story, expected) in [
            (ratcaster(), 0),
            (revoked(), 1),
            (gone(), 8),
            (old_knowledge(), 8),
            (Story::of("kick:1"), 8),
        ] {
            let code = exit_code(judge(&story.found(), None).0.answer);
            assert_eq!(code.number(), expected, "{}", story.key);
        }
    }

    #[test]
    fn several_answers_are_yes_only_if_every_one_is() {
        let exit = |stories: &[Story], unusable: bool| {
            let item = UnusableItem {
                what: UnusableKind::Document,
                id: "twitch:5".into(),
                reason: "it is broken".into(),
            };
            let mut all = Answers::new(unusable.then_some(item).into_iter().collect());
            for story in stories {
                let (answer, failed) = judge(&story.found(), None);
                all.add(answer, failed);
            }
            all.exit.number()
        };
        assert_eq!(exit(&[ratcaster(), ratcaster()], false), 0);
        assert_eq!(exit(&[ratcaster(), revoked(), gone()], false), 1);
        assert_eq!(exit(&[gone(), ratcaster()], false), 8);
        assert_eq!(exit(&[ratcaster()], true), 8);
        assert_eq!(exit(&[revoked()], true), 1);
        let down = [Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Down { error: error() },
        }];
        let mut all = Answers::new(Vec::new());
        for found in [gone().found(), checked(ratcaster().found(), down.to_vec(), &[])] {
            let (answer, failed) = judge(&found, None);
            all.add(answer, failed);
        }
        assert_eq!(
            all.exit.number(),
            3,
            "an unreachable platform before missing evidence"
        );
    }

    fn error() -> ErrorInfo {
        ErrorInfo::new(Code::NetworkTimeout, "no answer within 10 s")
    }
}
