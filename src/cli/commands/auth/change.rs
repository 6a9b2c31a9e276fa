//! `auth refresh`, `auth logout` and `auth token`.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use secrecy::ExposeSecret as _;

use super::account::AccountArgs;
use super::item;
use super::login::problem_of;
use crate::cli::context::Context;
use crate::cli::login::Keyboard;
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::auth::AuthReport;
use crate::cli::run_probe;
use crate::core::observation::{AuthCheck, AuthResult, Identity};
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::platforms::kit::token_check::Refresh;
use crate::tokens::{StoredToken, TokenKind, TokenStoreExt as _, login_command, remedy};

/// Refresh the token of an account now
///
/// Tokens are refreshed before they expire without this command. It shows whether that works.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth refresh twitch
  bitbrat auth refresh twitch/broadcaster:123456")]
pub struct RefreshArgs {
    #[command(flatten)]
    account: AccountArgs,
}

/// Delete an account's tokens, and revoke them where the platform allows it
///
/// On Twitch and Kick the tokens are revoked. A bot token of Discord stays valid until it is reset in the Developer Portal. Exit code 1:
/// the tokens were deleted here, but the platform did not revoke them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth logout twitch
  bitbrat auth logout twitch --as broadcaster:123456
  bitbrat auth logout kick/bot")]
pub struct LogoutArgs {
    #[command(flatten)]
    account: AccountArgs,
}

/// Show the access token of an account
///
/// It is shown on a terminal only, and only after you confirm it: anyone who sees it can act as the account.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth token twitch/bot --reveal")]
pub struct TokenArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// Show the token itself
    #[arg(long, required = true)]
    reveal: bool,
}

async fn stored(cx: &Context, identity: &Identity) -> Result<StoredToken, Failure> {
    cx.app.platforms.seed_tokens().await?;
    cx.app.tokens().load(identity).await?.ok_or_else(|| {
        Failure::new(ExitCode::Unauthorized, format!("{identity} has no token"))
            .hint(format!("run `{}`", login_command(identity.as_str())))
    })
}

/// Runs `auth refresh`.
pub(super) async fn refresh(cx: &Context, args: &RefreshArgs) -> Result<ExitCode, Failure> {
    let (platform, identity) = args.account.resolve(cx).await?;
    let token = stored(cx, &identity).await?;
    let adapter = cx.app.platforms.get(platform).await?;
    let Some(accounts) = adapter.accounts() else {
        let what = format!(
            "tokens of {} do not expire, so there is nothing to refresh",
            platform.rules().title
        );
        return Err(Failure::new(ExitCode::Usage, what));
    };
    if token.refresh.is_none() && token.kind == TokenKind::User {
        let what = format!("{identity} has no refresh token; it works until it expires");
        return Err(Failure::new(ExitCode::Unauthorized, what)
            .hint(format!("run `{}` for one", login_command(identity.as_str()))));
    }
    let (outcome, check) = accounts.refresh_now(&identity).await?;
    let evidence = check.status.evidence(&check.token);
    if let Some(evidence) = &evidence {
        run_probe::save_accounts(cx, &BTreeMap::from([(identity.clone(), evidence.clone())])).await;
    }
    let (exit, note) = match problem_of(platform, &outcome) {
        None => {
            let what = format!("the token of {identity} was refreshed");
            (ExitCode::Healthy, Note::hint(Tone::Good, what, None))
        }
        Some((tone, why)) => {
            let is_proven = !matches!(outcome, Refresh::NoAnswer(_) | Refresh::Unclear(_));
            let exit = if is_proven {
                ExitCode::Unauthorized
            } else {
                ExitCode::NoEvidence
            };
            let next = if is_proven {
                remedy(identity.as_str(), matches!(outcome, Refresh::ClientRejected(_)))
            } else {
                format!("bitbrat doctor {platform}")
            };
            let what = format!("the token of {identity} was not refreshed: {why}");
            (exit, Note::hint(tone, what, Some(&next)))
        }
    };
    let token = cx.app.tokens().load(&identity).await?;
    cx.output.print(&AuthReport {
        as_of: cx.app.clock.now(),
        items: vec![item(cx, &identity, token.as_ref(), evidence.as_ref())],
        notes: vec![note],
    })?;
    Ok(exit)
}

/// Runs `auth logout`.
pub(super) async fn logout(cx: &Context, args: &LogoutArgs) -> Result<ExitCode, Failure> {
    let (platform, identity) = args.account.resolve(cx).await?;
    // A configured token that was never stored is a token of the account, too: it is revoked, and not stored at the next start.
    cx.app.platforms.seed_tokens().await?;
    let store = cx.app.tokens();
    let lease = store.lease(&identity).await?;
    let journal = store.journal();
    journal.tidy(&identity).await;
    let mut record = lease.load().await?;
    if record.token.is_some() || record.pending.is_some() {
        // What cannot be deleted here is not revoked either.
        lease.save(&record).await?;
    }
    let mut tokens: Vec<StoredToken> = record
        .token
        .take()
        .into_iter()
        .chain(record.pending.take())
        .collect();
    // Granted and not stored yet, or of another owner.
    let granted = journal.get(&identity).await?.map(|pair| pair.token);
    let is_new = |granted: &StoredToken| {
        let granted = granted.access.expose_secret();
        tokens.iter().all(|token| token.access.expose_secret() != granted)
    };
    let granted = granted.filter(is_new);
    tokens.extend(granted);
    let mut notes = Vec::new();
    let mut revocations = Vec::new();
    for token in &tokens {
        let (revocation, note) = revoke(cx, platform, token).await;
        revocations.push(revocation);
        notes.push(note);
    }
    let what = match tokens.is_empty() {
        true => format!("{identity} had no token"),
        false => {
            record.replace_token(None);
            lease.save(&record).await?;
            journal.remove(&identity).await?;
            format!("the tokens of {identity} were deleted here")
        }
    };
    notes.insert(0, Note::hint(Tone::Good, what, None));
    if revocations.contains(&Revocation::Done) {
        // Otherwise the sources would count as authorized until their evidence is stale.
        let check = AuthCheck {
            reason: Some("logged out".to_owned()),
            ..AuthCheck::of(AuthResult::Revoked)
        };
        run_probe::save_accounts(cx, &BTreeMap::from([(identity.clone(), check)])).await;
    }
    if cx.app.platforms.is_seeded(&identity) {
        let what = format!(
            "the configuration still contains a token of {identity}, which is not used again after this logout; remove it"
        );
        notes.push(Note::hint(Tone::Warn, what, Some("bitbrat config show")));
    }
    cx.output.print(&AuthReport {
        as_of: cx.app.clock.now(),
        items: vec![item(cx, &identity, None, None)],
        notes,
    })?;
    Ok(match revocations.contains(&Revocation::Failed) {
        true => ExitCode::Failed,
        false => ExitCode::Healthy,
    })
}

/// What became of a token at its platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Revocation {
    Done,
    /// The platform has none.
    Impossible,
    Failed,
}

/// Revokes a token at its platform. The tokens are deleted here in either case, so after a failure only the account's owner can do it.
async fn revoke(cx: &Context, platform: PlatformName, token: &StoredToken) -> (Revocation, Note) {
    let title = platform.rules().title;
    let failed = |why: String| {
        let page = match platform {
            PlatformName::Twitch => "https://www.twitch.tv/settings/connections",
            PlatformName::Kick => "https://kick.com, in the settings of the account",
            PlatformName::Discord => "https://discord.com/developers/applications",
        };
        let what = format!(
            "not revoked at {title}: {why}; the token is valid there until it expires or the account's owner disconnects the \
             application at {page}"
        );
        (Revocation::Failed, Note::hint(Tone::Warn, what, None))
    };
    let adapter = match cx.app.platforms.get(platform).await {
        Ok(adapter) => adapter,
        Err(failure) => return failed(failure.what),
    };
    let Some(accounts) = adapter.accounts() else {
        let what =
            format!("not revoked at {title}: a bot token is valid until it is reset in the Developer Portal");
        return (Revocation::Impossible, Note::hint(Tone::Warn, what, None));
    };
    match accounts.revoke(token).await {
        Ok(None) => {
            let note = Note::hint(Tone::Good, format!("revoked at {title}"), None);
            (Revocation::Done, note)
        }
        Ok(Some(rest)) => {
            let what = format!("the access token was revoked at {title}; not revoked: {rest}");
            (Revocation::Done, Note::hint(Tone::Good, what, None))
        }
        Err(error) => failed(error.to_string()),
    }
}

/// Runs `auth token`.
pub(super) async fn reveal(cx: &Context, args: &TokenArgs) -> Result<ExitCode, Failure> {
    let (_, identity) = args.account.resolve(cx).await?;
    if cx.output.is_chosen {
        return Err(
            Failure::new(ExitCode::Usage, "a token is shown as plain text only")
                .hint("leave out -o: programs read the token store, not the terminal"),
        );
    }
    let mut keyboard = Keyboard::open();
    if !(keyboard.is_there() && std::io::stdout().is_terminal()) {
        return Err(
            Failure::new(ExitCode::Usage, "a token is shown on a terminal only")
                .hint("run the command without pipes; programs read the token store"),
        );
    }
    let token = stored(cx, &identity).await?;
    let question = format!("Anyone who sees this token can act as {identity}. Show it?");
    if keyboard.confirms(&question, false).await? != Some(true) {
        return Err(Failure::new(ExitCode::Failed, "the token was not shown"));
    }
    // Every other output masks it.
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", token.access.expose_secret())?;
    out.flush()?;
    Ok(ExitCode::Healthy)
}
