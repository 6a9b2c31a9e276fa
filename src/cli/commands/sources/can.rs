//! `sources can`: may the bot do this here, and why? By exit code.

use clap::Args;

use crate::cli::commands::sources::is_live::{exit_code, look_first};
use crate::cli::commands::sources::known;
use crate::cli::context::Context;
use crate::cli::reports::predicate::{Answer, AnswerItem, AnswerReport};
use crate::cli::reports::sources::SourceRow;
use crate::core::freshness::{Field, age_ms};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::core::verdict::{Holding, holdings};
use crate::failure::{ExitCode, Failure};

/// Tell by the exit code whether the bot may do something, and why
///
/// 0: it may. 1: it may not. 8: not known. ACTION is a permission as the platform names it (MODERATOR, SEND_MESSAGES; upper
/// or lower case), or one of send, moderate, delete, timeout, ban, kick, manage.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources can twitch:123456 moderate
  bitbrat sources can discord:987654321 manage_messages
  bitbrat sources can twitch:123456 vip --probe -o json")]
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

/// What an action needs: any one of these.
const ACTIONS: &[(PlatformName, &str, &[&str])] = &[
    (PlatformName::Twitch, "moderate", &["BROADCASTER", "MODERATOR"]),
    (PlatformName::Twitch, "delete", &["BROADCASTER", "MODERATOR"]),
    (PlatformName::Twitch, "timeout", &["BROADCASTER", "MODERATOR"]),
    (PlatformName::Twitch, "ban", &["BROADCASTER", "MODERATOR"]),
    (PlatformName::Twitch, "manage", &["BROADCASTER", "EDITOR"]),
    (PlatformName::Kick, "moderate", &["BROADCASTER", "MODERATOR"]),
    (PlatformName::Kick, "delete", &["BROADCASTER", "MODERATOR"]),
    (PlatformName::Kick, "timeout", &["BROADCASTER", "MODERATOR"]),
    (PlatformName::Kick, "ban", &["BROADCASTER", "MODERATOR"]),
    (PlatformName::Discord, "send", &["SEND_MESSAGES"]),
    (PlatformName::Discord, "moderate", &["MODERATE_MEMBERS"]),
    (PlatformName::Discord, "delete", &["MANAGE_MESSAGES"]),
    (PlatformName::Discord, "timeout", &["MODERATE_MEMBERS"]),
    (PlatformName::Discord, "ban", &["BAN_MEMBERS"]),
    (PlatformName::Discord, "kick", &["KICK_MEMBERS"]),
    (PlatformName::Discord, "manage", &["MANAGE_GUILD"]),
];

/// Runs the command.
pub async fn run(cx: &Context, args: &CanArgs) -> Result<ExitCode, Failure> {
    let row = known::one(cx, &args.id, args.probe).await?;
    let now = cx.app.clock.now();
    let answer = judge(&row, &args.action, now);
    let exit = exit_code(answer.answer);
    let hints = match answer.answer {
        Answer::Unknown if !args.probe => vec![look_first(&format!("can {} {}", args.id, args.action))],
        _ => Vec::new(),
    };
    cx.output.print(&AnswerReport {
        as_of: now,
        answer,
        hints,
    })?;
    Ok(exit)
}

/// Returns the permissions of which any one allows `action`.
fn needed(platform: PlatformName, action: &str) -> Vec<String> {
    let wanted = action.to_ascii_lowercase();
    ACTIONS
        .iter()
        .find(|(of, name, _)| *of == platform && *name == wanted)
        .map_or_else(
            || vec![action.to_ascii_uppercase().replace('-', "_")],
            |(.., permissions)| permissions.iter().map(|name| (*name).to_owned()).collect(),
        )
}

fn judge(row: &SourceRow, action: &str, now: Timestamp) -> AnswerItem {
    let key = &row.document.key;
    let needed = needed(key.platform(), action);
    let known = holdings(&row.document.knowledge.evidence);
    let found: Vec<(&String, Holding, Option<Timestamp>)> = needed
        .iter()
        .map(|name| {
            let (holding, at) = known.get(name).cloned().unwrap_or((Holding::Unknown(None), None));
            (name, holding, at)
        })
        .collect();
    let stale = row.freshness.is_stale(Field::Permissions);
    let yes = found.iter().find(|(_, holding, _)| *holding == Holding::Yes);
    let unclear = found.iter().find(|(_, holding, _)| matches!(holding, Holding::Unknown(_)));
    let (answer, because, at) = match (yes, unclear) {
        (Some((name, _, at)), _) => (Answer::Yes, format!("the bot has {name}"), *at),
        (None, Some((name, Holding::Unknown(Some(reason)), at))) => {
            (Answer::Unknown, format!("{name} is not known: {reason}"), *at)
        }
        (None, Some((name, ..))) if known.is_empty() => {
            (Answer::Unknown, format!("nothing was ever asked about {name}"), None)
        }
        (None, Some((name, ..))) => (
            Answer::Unknown,
            format!(
                "no method tells about {name}; known here: {}",
                known.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            ),
            None,
        ),
        (None, None) => (
            Answer::No,
            match needed.as_slice() {
                [one] => format!("the bot does not have {one}"),
                many => format!("the bot has none of {}", many.join(", ")),
            },
            found.iter().filter_map(|(.., at)| *at).max(),
        ),
    };
    let (answer, because) = match answer {
        Answer::Yes | Answer::No if stale => (
            Answer::Unknown,
            format!("it was so that {because}, but that is too old to rely on"),
        ),
        other => (other, because),
    };
    AnswerItem {
        key: key.to_string(),
        display_name: row.document.display_name().map(str::to_owned),
        question: format!("can:{action}"),
        answer,
        because,
        rule: None,
        age_ms: at.map(|at| age_ms(at, now)),
        missing: if answer == Answer::No { needed } else { Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::reports::tests::{Story, now, ratcaster};

    #[test]
    fn an_action_is_allowed_by_any_permission_that_suffices() {
        let story = ratcaster();
        for (action, expected, word) in [
            ("moderate", Answer::Yes, "MODERATOR"),
            ("Moderator", Answer::Yes, "MODERATOR"),
            ("editor", Answer::No, "not have EDITOR"),
            ("vip", Answer::Unknown, "needs the broadcaster's authorisation"),
            ("manage", Answer::Unknown, "BROADCASTER"),
            ("fly", Answer::Unknown, "no method tells about FLY"),
        ] {
            let item = judge(&story.row(), action, now());
            assert_eq!(item.answer, expected, "{action}: {}", item.because);
            assert!(item.because.contains(word), "{action}: {}", item.because);
        }
    }

    #[test]
    fn a_source_that_nobody_looked_at_is_not_said_to_deny_anything() {
        let item = judge(&Story::of("twitch:1").row(), "moderate", now());
        assert_eq!(item.answer, Answer::Unknown);
        assert!(item.because.contains("nothing was ever asked"), "{}", item.because);
    }
}
