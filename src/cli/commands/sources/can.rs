//! `sources can`: answers by exit code whether the bot may do something, and why.

use std::collections::BTreeSet;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::app;
use crate::cli::commands::sources::is_live::{Answers, check_failed, probe_first, typed};
use crate::cli::commands::sources::known::{self, Ask};
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::output::view::Tone;
use crate::cli::output::{Listing, Note, quoted};
use crate::cli::source_arg::{self, SourceSelector};
use crate::config::SourceArg;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::platforms::discord::permissions::{NEEDED, Permissions, invite_link};
use crate::view::actions::actions;
use crate::view::answer::Answer;
use crate::view::can::{Limits, judge, question};
use crate::view::found::Found;

/// Check what the bot may do (exit code)
///
/// 0: it may, in every source. 1: in at least one it certainly may not. 8: not known of at least one. The authorization, existence and connection of the source come first, then
/// permissions: nothing is allowed with a token that was revoked or in a channel that is gone. ACTION is an action (send-chat,
/// ban, moderate, …; `bitbrat can ID help` lists them) or a permission as the platform names it (`MODERATOR`,
/// `SEND_MESSAGES`, `badge:moderator`). With --probe a check that fails is exit 3 or 8 unless --max-age accepts what is stored.
/// Of several codes the first of 1, 3, 8, 0 counts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat can twitch:123456 moderate
  bitbrat can 'twitch:*' kick:ratcaster send-chat    in every one of them?
  bitbrat can twitch:pixelmeadow help
  bitbrat can discord:987654321 MANAGE_MESSAGES
  bitbrat can twitch:123456 send-chat --probe -o json")]
pub struct CanArgs {
    /// The sources: platform:id, platform:name, names, channels' addresses, or quoted globs
    #[arg(value_name = "SOURCE", required = true, add = ArgValueCompleter::new(complete::sources_or_actions))]
    ids: Vec<SourceSelector>,
    /// What the bot would do; `help` lists the actions
    #[arg(required = true, add = ArgValueCompleter::new(complete::actions))]
    action: String,
    #[command(flatten)]
    ask: Ask,
}

pub async fn run(cx: &Context, args: &CanArgs) -> Result<ExitCode, Failure> {
    if args.action == "help" {
        return help(cx, &args.ids).await;
    }
    // A permission that no platform has is rejected before any request.
    for id in &args.ids {
        if let SourceSelector::One(SourceArg::Key(key)) = id {
            question(key.platform(), &args.action)?;
        }
    }
    let several = known::asked(cx, &args.ids, &[], args.ask).await?;
    for found in &several.found {
        question(found.document.key.platform(), &args.action)?;
    }
    known::note_problems(cx, &several.found)?;
    let limits = Limits {
        intervals: cx.app.intervals().within(args.ask.max_age),
        now: cx.app.clock.now(),
    };
    let mut all = Answers::new(several.unusable);
    let mut is_unclear = false;
    for found in &several.found {
        let platform = found.document.key.platform();
        let (answer, failed) = judge(found, &question(platform, &args.action)?, limits);
        if let Some(fix) = &answer.fix {
            // Where the command is not advised, as a change of files in the demo world, there is nothing to introduce.
            if cx.output.advises(fix) {
                all.hint(Note::hint(Tone::Warn, "to change that", Some(fix)));
            }
        } else if failed.is_some() {
            all.hint(check_failed(found));
        } else if answer.answer == Answer::Unknown && !args.ask.probe {
            is_unclear = true;
        } else if answer.answer == Answer::No && platform == PlatformName::Discord {
            let invitation = invitation(cx, found, &answer.missing, args.ask.probe).await;
            if let Some(invitation) = invitation {
                all.hint(invitation);
            }
        }
        all.add(answer, failed);
    }
    if is_unclear {
        all.hint(probe_first(&format!(
            "can {} {}",
            typed(cx, &args.ids),
            quoted(&args.action)
        )));
    }
    all.print(cx)
}

/// Lists the actions of the sources' platform.
async fn help(cx: &Context, ids: &[SourceSelector]) -> Result<ExitCode, Failure> {
    let mut platforms = BTreeSet::new();
    for id in ids {
        match id {
            SourceSelector::One(SourceArg::Name {
                platform: Some(platform),
                ..
            }) => drop(platforms.insert(*platform)),
            SourceSelector::One(SourceArg::Key(key)) => drop(platforms.insert(key.platform())),
            unknown => {
                let keys = source_arg::select_keys(cx, std::slice::from_ref(unknown), false).await?;
                platforms.extend(keys.iter().map(SourceKey::platform));
            }
        }
    }
    let mut platforms = platforms.into_iter();
    let (Some(platform), None) = (platforms.next(), platforms.next()) else {
        return Err(
            Failure::new(ExitCode::Usage, "these sources are of several platforms")
                .hint("list the actions of one platform at a time: `bitbrat sources can 'twitch:*' help`"),
        );
    };
    cx.output
        .print(&Listing::new(cx.app.clock.now(), actions(platform)))?;
    Ok(ExitCode::Healthy)
}

/// Returns the link by which an administrator of a guild grants the bot what it lacks. The application's id is requested only
/// with --probe.
async fn invitation(cx: &Context, found: &Found, missing: &[String], online: bool) -> Option<Note> {
    let metadata = found.document.record().metadata;
    let known = metadata.get("applicationId").and_then(|id| id.as_str());
    let application = match known {
        Some(id) => id.to_owned(),
        None if online => app::discord_application(&cx.app, &found.document.key).await?,
        None => return None,
    };
    let words = missing.iter().flat_map(|names| names.split_whitespace());
    let wanted = words
        .filter_map(Permissions::named)
        .fold(NEEDED, |all, one| all | one);
    let link = invite_link(&application, Some(found.document.key.id()), wanted);
    let advice = format!(
        "a user with the permission Manage Server grants it with {link}, unless a channel or a timeout takes it away again"
    );
    Some(Note::hint(Tone::Dim, advice, None))
}
