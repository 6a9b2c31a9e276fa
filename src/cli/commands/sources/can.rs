//! `sources can`: may the bot do this here, and why? By exit code.

use clap::Args;

use crate::cli::commands::sources::is_live::{exit_code, look_first};
use crate::cli::commands::sources::known::{self, Found};
use crate::cli::context::Context;
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::predicate::{Answer, AnswerItem, AnswerReport};
use crate::core::freshness::{Field, age_ms};
use crate::core::permission::{self, Action, Allowed};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::core::verdict::{Holding, holding};
use crate::failure::{ExitCode, Failure};
use crate::platforms::discord::permissions::{NEEDED, Permissions, invite_link};

/// Tell by the exit code whether the bot may do something, and why
///
/// 0: it may. 1: it may not. 8: not known. ACTION is an action (send-chat, ban, moderate, …; `bitbrat sources can ID help`
/// lists them) or a permission as the platform names it (`MODERATOR`, `SEND_MESSAGES`, `badge:moderator`). What a bot lacks
/// on Discord is told with a link that gives it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources can twitch:123456 moderate
  bitbrat sources can discord:987654321 MANAGE_MESSAGES
  bitbrat sources can twitch:123456 send-chat --probe -o json")]
pub struct CanArgs {
    /// The source, as platform:id
    #[arg(value_name = "ID")]
    id: SourceKey,
    /// What the bot would do
    action: String,
    /// Look at the platform first
    #[arg(long)]
    probe: bool,
}

/// What was asked.
#[derive(Debug)]
enum Question {
    Action(&'static Action),
    Permission(String),
}

/// Runs the command.
pub async fn run(cx: &Context, args: &CanArgs) -> Result<ExitCode, Failure> {
    let question = question(args.id.platform(), &args.action)?;
    let found = known::one(cx, &args.id, args.probe).await?;
    let now = cx.app.clock.now();
    let answer = judge(&found, &question, now);
    let exit = exit_code(answer.answer);
    let hints = match answer.answer {
        Answer::Unknown if !args.probe => vec![look_first(&format!("can {} {}", args.id, args.action))],
        Answer::No if args.id.platform() == PlatformName::Discord => {
            invitation(cx, &found, &answer.missing, args.probe)
                .await
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    };
    cx.output.print(&AnswerReport {
        as_of: now,
        answer,
        hints,
    })?;
    Ok(exit)
}

/// Tells where whoever administers a guild gives the bot what it lacks. The application's id is asked for only by those who
/// look anyway.
async fn invitation(cx: &Context, found: &Found, missing: &[String], online: bool) -> Option<Note> {
    let metadata = found.document.record().metadata;
    let known = metadata.get("applicationId").and_then(|id| id.as_str());
    let application = match known {
        Some(id) => id.to_owned(),
        None if online => cx.app.discord_application(&found.document.key).await?,
        None => return None,
    };
    let words = missing.iter().flat_map(|names| names.split_whitespace());
    let wanted = words
        .filter_map(Permissions::named)
        .fold(NEEDED, |all, one| all | one);
    let link = invite_link(&application, found.document.key.id(), wanted);
    let advice = format!(
        "whoever manages the guild gives it with {link}, unless a channel or a timeout takes it away again"
    );
    Some(Note::hint(Tone::Dim, advice, None))
}

/// Permissions are written in capitals, actions in small letters; a word that is neither is refused with a list.
fn question(platform: PlatformName, text: &str) -> Result<Question, Failure> {
    if let Some(action) = permission::action(platform, &text.to_ascii_lowercase().replace('_', "-")) {
        return Ok(Question::Action(action));
    }
    let is_permission = text.starts_with("scope:")
        || text.starts_with("badge:")
        || (!text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_' || byte.is_ascii_digit()));
    if is_permission {
        return Ok(Question::Permission(text.to_owned()));
    }
    let width = permission::actions(platform)
        .iter()
        .map(|action| action.name.len())
        .max()
        .unwrap_or(0);
    let list: Vec<_> = permission::actions(platform)
        .iter()
        .map(|action| format!("{:width$}  {}", action.name, action.about))
        .collect();
    Err(Failure::new(
        ExitCode::Usage,
        format!("`{text}` is not something that a bot does on {platform}"),
    )
    .hint(format!("use one of\n{}", list.join("\n")))
    .hint(match platform {
        PlatformName::Twitch => "or a permission as the platform names it, in capitals: MODERATOR",
        PlatformName::Kick => "or a permission as observed: scope:chat:write, badge:moderator",
        PlatformName::Discord => "or a permission as the platform names it, in capitals: SEND_MESSAGES",
    }))
}

fn judge(found: &Found, question: &Question, now: Timestamp) -> AnswerItem {
    let evidence = &found.document.knowledge.evidence;
    let (allowed, because, missing, at) = match question {
        Question::Action(action) => {
            let answer = permission::can(evidence, action);
            let because = match answer.allowed {
                Allowed::Yes => format!("allowed: {}", action.about),
                Allowed::No => format!("not allowed: {}", action.about),
                Allowed::Unknown => answer.unknown.join("; "),
            };
            (answer.allowed, because, answer.missing, answer.as_of)
        }
        Question::Permission(name) => match holding(evidence, name) {
            (Holding::Yes, at) => (Allowed::Yes, format!("the bot has {name}"), Vec::new(), at),
            (Holding::No, at) => (
                Allowed::No,
                format!("the bot does not have {name}"),
                vec![name.clone()],
                at,
            ),
            (Holding::Unknown(Some(reason)), at) => {
                (Allowed::Unknown, format!("{name}: {reason}"), Vec::new(), at)
            }
            (Holding::Unknown(None), _) => (
                Allowed::Unknown,
                format!("{name}: no method that was asked tells about it"),
                Vec::new(),
                None,
            ),
        },
    };
    // What a channel takes away was not looked at where none is configured.
    let metadata = found.document.record().metadata;
    let whole_guild = metadata
        .get("permissionScope")
        .is_some_and(|scope| scope == "guild");
    let because = if whole_guild && allowed == Allowed::Yes {
        format!("{because}, in the guild as a whole")
    } else {
        because
    };
    let stale = found.row.freshness.is_stale(Field::Permissions);
    let (answer, because) = match allowed {
        Allowed::Unknown => (Answer::Unknown, because),
        _ if stale => (
            Answer::Unknown,
            format!("{because}, but that is too old to rely on"),
        ),
        Allowed::Yes => (Answer::Yes, because),
        Allowed::No => (Answer::No, because),
    };
    let name = match question {
        Question::Action(action) => action.name,
        Question::Permission(name) => name,
    };
    AnswerItem {
        key: found.document.key.to_string(),
        display_name: found.document.display_name().map(str::to_owned),
        question: format!("can:{name}"),
        answer,
        because,
        rule: None,
        age_ms: at.map(|at| age_ms(at, now)),
        missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::reports::tests::{Story, now, ratcaster};

    fn asked(story: &Story, text: &str) -> AnswerItem {
        judge(
            &story.found(),
            &question(PlatformName::Twitch, text).unwrap(),
            now(),
        )
    }

    #[test]
    fn actions_and_permissions_are_answered_by_evidence() {
        for (text, expected, word) in [
            ("read-chatters", Answer::Yes, "list who is in the chat"),
            ("MODERATOR", Answer::Yes, "has MODERATOR"),
            ("EDITOR", Answer::No, "not have EDITOR"),
            ("VIP", Answer::Unknown, "needs the broadcaster's authorisation"),
            ("SUBSCRIBER", Answer::Unknown, "no method"),
            ("ban", Answer::Unknown, "scope:moderator:manage:banned_users"),
        ] {
            let item = asked(&ratcaster(), text);
            assert_eq!(item.answer, expected, "{text}: {}", item.because);
            assert!(item.because.contains(word), "{text}: {}", item.because);
        }
    }

    #[test]
    fn a_source_that_nobody_looked_at_is_not_said_to_deny_anything() {
        assert_eq!(asked(&Story::of("twitch:1"), "moderate").answer, Answer::Unknown);
    }

    #[test]
    fn a_word_that_means_nothing_is_answered_with_those_that_do() {
        let failure = question(PlatformName::Twitch, "fly").unwrap_err();
        assert_eq!(failure.exit, ExitCode::Usage);
        assert!(failure.to_string().contains("send-chat"), "{failure}");
    }
}
