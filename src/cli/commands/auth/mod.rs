//! `auth`: authorizations of the bot and of broadcasters.

mod account;
mod change;
mod invite;
pub mod login;
mod with_token;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use crate::app::Untried;
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::login::Keyboard;
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::auth::{
    AuthReport, AuthState, ForecastItem, IdentityItem, MissingScope, stops_soon,
};
use crate::cli::run_probe;
use crate::config::TokenTarget;
use crate::core::code::Code;
use crate::core::forecast::Forecast;
use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState};
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::platforms::{Platform, Probe, ProbeSet, Problem, Subject};
use crate::tokens::{CLIENT_REJECTED, RefreshState, StoredToken, login_command};

/// Accounts of the bot and of broadcasters.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat auth login twitch
  bitbrat auth status")]
#[expect(missing_docs, reason = "each command is documented where its arguments are")]
pub enum AuthCommand {
    Status(StatusArgs),
    Login(login::LoginArgs),
    Invite(invite::InviteArgs),
    Refresh(change::RefreshArgs),
    Logout(change::LogoutArgs),
    Token(change::TokenArgs),
}

/// Show every account and check its token with its platform
///
/// Expired tokens are refreshed where that is possible. Exit code 4: a token is expired, revoked or missing, or a client id or
/// secret is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth status
  bitbrat auth status twitch --offline
  bitbrat auth status -o json | jq '.items[] | {identity, status, expiresAt}'")]
pub struct StatusArgs {
    /// Only this platform
    #[arg(value_name = "PLATFORM", value_parser = platform, add = ArgValueCompleter::new(complete::platforms))]
    platform: Option<PlatformName>,
    /// Check nothing; show what is stored
    #[arg(long)]
    offline: bool,
}

pub fn platform(text: &str) -> Result<PlatformName, String> {
    text.parse()
        .map_err(|error: crate::core::source::InvalidSourceKey| error.to_string())
}

/// Runs the command.
pub async fn run(cx: &Context, command: &AuthCommand) -> Result<ExitCode, Failure> {
    match command {
        AuthCommand::Status(args) => status(cx, args).await,
        AuthCommand::Login(args) => login::run(cx, args, &mut Keyboard::open()).await,
        AuthCommand::Invite(args) => invite::run(cx, args).await,
        AuthCommand::Refresh(args) => change::refresh(cx, args).await,
        AuthCommand::Logout(args) => change::logout(cx, args).await,
        AuthCommand::Token(args) => change::reveal(cx, args).await,
    }
}

async fn status(cx: &Context, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let Identities {
        mut items,
        mut problems,
        pending,
    } = identities(cx, args.platform, !args.offline).await?;
    if !args.offline {
        for platform in PlatformName::ALL {
            if args.platform.is_none_or(|only| only == platform) {
                check_application(cx, platform, &mut items, &mut problems).await;
            }
        }
    }
    // Of a login that is not finished it is not known whether it will do.
    let start = match pending.is_empty() {
        true => ExitCode::Healthy,
        false => ExitCode::NoEvidence,
    };
    let exit = items
        .iter()
        .map(|item| exit_code(item.status))
        .fold(start, ExitCode::worse);
    let others = problems.iter().filter(|problem| !names_account(&items, problem));
    let notes = others.map(|problem| Note::hint(Tone::Warn, &problem.text, None));
    let notes = notes.chain(pending.iter().map(unfinished)).collect();
    cx.output.print(&AuthReport {
        as_of: cx.app.clock.now(),
        items,
        notes,
    })?;
    Ok(exit)
}

/// Returns the note about a login that is stored and whose owner is not known yet.
fn unfinished(account: &Identity) -> Note {
    let what = format!(
        "a login of {account} is not finished: it is stored, but not used until it is known whose it is"
    );
    Note::hint(Tone::Warn, what, Some(&login_command(account.as_str())))
}

/// Checks the client id and secret of a platform that is in use, and reports refused ones as the application's entry. A stored
/// token of the application stays valid for weeks after they were refused, but then nothing can be renewed.
async fn check_application(
    cx: &Context,
    platform: PlatformName,
    items: &mut Vec<IdentityItem>,
    problems: &mut Vec<Problem>,
) {
    let app = Identity::named(format!("{platform}/app"));
    let is_of_platform = |item: &IdentityItem| item.identity.starts_with(&format!("{platform}/"));
    let mut sources = cx.app.settings.sources.iter();
    let in_use = sources.any(|spec| spec.platform == platform) || items.iter().any(is_of_platform);
    if !in_use {
        return;
    }
    let reason = match cx.app.platforms.try_application(platform).await {
        None | Some(Ok(())) => return,
        Some(Err(Untried::NotAsked(reason))) => {
            let text = format!("`{app}`: the client id and secret could not be tried: {reason}");
            problems.push(Problem::of_account(&app, text));
            return;
        }
        Some(Err(Untried::Refused(reason))) => reason,
    };
    let refused = AuthCheck {
        result: AuthResult::Expired,
        expires_at: None,
        scopes: BTreeSet::new(),
        rejected: true,
        client_rejected: true,
        reason: Some(format!(
            "{CLIENT_REJECTED}: {reason}; correct `{platform}.client_id` or `{platform}.client_secret`"
        )),
    };
    let item = item(cx, &app, None, Some(&refused));
    match items.iter_mut().find(|known| known.identity == item.identity) {
        // A reason that the check of the account has already found names what else was refused.
        Some(known) if known.status == AuthState::Rejected && known.reason.is_some() => {}
        Some(known) => *known = item,
        None => {
            items.push(item);
            items.sort_by(|one, other| one.identity.cmp(&other.identity));
        }
    }
}

/// Whether an entry of `items` itself reports the problem. An entry without new evidence has no reason.
pub fn names_account(items: &[IdentityItem], problem: &Problem) -> bool {
    let Subject::Account(identity) = &problem.about else {
        return false;
    };
    let mut known = items.iter().filter(|item| item.status != AuthState::Unknown);
    known.any(|item| item.identity == identity.as_str())
}

/// Identities and how they are authorized.
#[derive(Debug)]
pub struct Identities {
    /// The identities, sorted.
    pub items: Vec<IdentityItem>,
    /// Problems of the checks.
    pub problems: Vec<Problem>,
    /// The accounts with a login that is not finished.
    pub pending: Vec<Identity>,
}

/// Returns the identities that are stored or needed, of one platform or all. With `online`, they are checked.
pub async fn identities(
    cx: &Context,
    only: Option<PlatformName>,
    online: bool,
) -> Result<Identities, Failure> {
    cx.app.platforms.seed_tokens().await?;
    let mut all = cx.app.tokens().identities().await?;
    all.extend(cx.app.platforms.needed_identities());
    all.sort();
    all.dedup();
    all.retain(|identity| platform_of(identity).is_some_and(|of| only.is_none_or(|only| only == of)));
    let mut answers = Answers::default();
    for platform in PlatformName::ALL.into_iter().filter(|_| online) {
        let of = all
            .iter()
            .filter(|identity| platform_of(identity) == Some(platform));
        let of: Vec<Identity> = of.cloned().collect();
        if !of.is_empty() {
            let adapter = cx.app.platforms.get(platform).await?;
            answers.extend(ask(cx, &adapter, &of).await);
            // Where there is a bot, no source uses the application's account, so no probe checks it.
            for identity in of
                .iter()
                .filter(|identity| !answers.checks.contains_key(*identity))
                .cloned()
                .collect::<Vec<_>>()
            {
                match adapter.check_account(&identity).await {
                    Some(Ok(check)) => {
                        answers.checks.insert(identity, check);
                    }
                    Some(Err(error)) => {
                        let text = format!("`{identity}`: {error}");
                        answers.problems.push(Problem::of_account(&identity, text));
                    }
                    None => {}
                }
            }
        }
    }
    // A probe may have obtained an application token.
    all.extend(answers.checks.keys().cloned());
    all.sort();
    all.dedup();
    let mut items = Vec::new();
    for identity in &all {
        let stored = cx.app.tokens().load(identity).await?;
        let mut item = item(cx, identity, stored.as_ref(), answers.checks.get(identity));
        // A bot's token does not contain its account, which is not stored either.
        if online
            && item.login.is_none()
            && item.status == AuthState::Valid
            && let Some(platform) = platform_of(identity)
        {
            item.login = cx.app.platforms.get(platform).await?.account_name(identity).await;
        }
        items.push(item);
    }
    if online {
        run_probe::save_accounts(cx, &answers.checks).await;
    }
    let mut pending = cx.app.tokens().pending().await?;
    pending.retain(|identity| platform_of(identity).is_some_and(|of| only.is_none_or(|only| only == of)));
    Ok(Identities {
        items,
        problems: answers.problems,
        pending,
    })
}

/// Returns notes about the accounts that stop working within a day. Only a token file is read: any other store costs requests.
pub async fn expiring(cx: &Context) -> Vec<Note> {
    if !matches!(cx.app.settings.tokens.target, TokenTarget::File(_)) {
        return Vec::new();
    }
    // A file that cannot be read is reported by every command that needs it.
    let forecasts = cx.app.platforms.forecasts().await.unwrap_or_default();
    let now = cx.app.clock.now();
    let soon = forecasts.iter().filter_map(|(identity, forecast)| {
        let what = stops_soon(identity.as_str(), &ForecastItem::of(forecast, now))?;
        Some(Note::hint(
            Tone::Warn,
            what,
            Some(&login_command(identity.as_str())),
        ))
    });
    soon.collect()
}

fn exit_code(status: AuthState) -> ExitCode {
    match status {
        AuthState::Valid => ExitCode::Healthy,
        AuthState::Unknown => ExitCode::NoEvidence,
        AuthState::Expired | AuthState::Revoked | AuthState::Rejected | AuthState::Missing => {
            ExitCode::Unauthorized
        }
    }
}

/// Results of the checks.
#[derive(Default)]
struct Answers {
    checks: BTreeMap<Identity, AuthCheck>,
    /// What went wrong.
    problems: Vec<Problem>,
    /// Errors of the sources that were probed, each once.
    errors: Vec<ErrorInfo>,
}

impl Answers {
    fn extend(&mut self, other: Self) {
        self.checks.extend(other.checks);
        self.problems.extend(other.problems);
        self.errors.extend(other.errors);
    }
}

/// Checks identities at a platform. Each is checked through a source that needs it.
async fn ask(cx: &Context, platform: &Arc<dyn Platform>, identities: &[Identity]) -> Answers {
    let mut keys: Vec<SourceKey> = identities
        .iter()
        .filter_map(|identity| source_of(platform.name(), identity))
        .collect();
    keys.sort();
    keys.dedup();
    let probes = ProbeSet::from([Probe::Auth]);
    let looked = run_probe::run_probe(cx, std::slice::from_ref(platform), &probes, &keys).await;
    let mut answers = Answers {
        problems: looked
            .platforms
            .into_iter()
            .flat_map(|run_probe| run_probe.problems)
            .collect(),
        ..Answers::default()
    };
    for observation in looked.observations {
        match Arc::unwrap_or_clone(observation.fact) {
            Fact::Auth { identity, check } => {
                answers.checks.insert(identity, Arc::unwrap_or_clone(check));
            }
            Fact::Problem { error }
            | Fact::Unanswered { error, .. }
            | Fact::Connection {
                state: LinkState::Down { error } | LinkState::Refused { error },
                ..
            } if !answers.errors.iter().any(|known| known.message == error.message) => {
                answers.errors.push(error);
            }
            _ => {}
        }
    }
    answers
}

/// Whether an error is about an account that has no token.
fn is_of_missing_account(error: &ErrorInfo) -> bool {
    matches!(error.code.known(), Some(Code::NotConfigured(_)))
}

/// Whether an error means that a token belongs to another account.
fn is_of_other_account(error: &ErrorInfo) -> bool {
    matches!(error.code.known(), Some(Code::OtherAccount(_)))
}

/// A broadcaster's identity is needed by its own channel, the bot of one guild by that; the others by any.
fn source_of(platform: PlatformName, identity: &Identity) -> Option<SourceKey> {
    let name = identity.as_str().split_once('/').map_or("", |(_, name)| name);
    let id = name.split_once(':').map_or("1", |(_, id)| id);
    SourceKey::new(platform, id).ok()
}

fn platform_of(identity: &Identity) -> Option<PlatformName> {
    identity.as_str().split_once('/')?.0.parse().ok()
}

fn item(
    cx: &Context,
    identity: &Identity,
    stored: Option<&StoredToken>,
    check: Option<&AuthCheck>,
) -> IdentityItem {
    let now = cx.app.clock.now();
    let status = match (check.map(|check| check.result), stored) {
        _ if check.is_some_and(|check| check.rejected) => AuthState::Rejected,
        (Some(AuthResult::Valid), _) => AuthState::Valid,
        (Some(AuthResult::Expired), _) => AuthState::Expired,
        (Some(AuthResult::Revoked), _) => AuthState::Revoked,
        (None, None) => AuthState::Missing,
        (None, Some(_)) => AuthState::Unknown,
    };
    let expires_at = check
        .and_then(|check| check.expires_at)
        .or(stored.and_then(|token| token.expires_at));
    let scopes: BTreeSet<String> = check
        .map(|check| &check.scopes)
        .or(stored.map(|token| &token.scopes))
        .cloned()
        .unwrap_or_default();
    let is_usable = matches!(status, AuthState::Valid | AuthState::Unknown);
    let forecast = stored.filter(|_| is_usable).map(|token| Forecast {
        access_until: expires_at,
        ..cx.app.platforms.forecast(identity, token)
    });
    IdentityItem {
        forecast: forecast.map(|forecast| ForecastItem::of(&forecast, now)),
        missing_scopes: missing_scopes(cx, identity, status, &scopes),
        client_rejected: check.is_some_and(|check| check.client_rejected),
        identity: identity.to_string(),
        status,
        login: stored.and_then(|token| token.login.clone()),
        user_id: stored.and_then(|token| token.user_id.clone()),
        expires_at,
        expires_in_ms: expires_at.map(|at| at.millis_since(now)),
        can_renew: stored
            .and_then(|token| token.refresh.as_ref())
            .is_some_and(|refresh| !matches!(refresh.state, RefreshState::Refused { .. })),
        refreshed_at: stored.and_then(|token| token.refreshed_at),
        refreshed_ago_ms: stored
            .and_then(|token| token.refreshed_at)
            .map(|at| now.millis_since(at).max(0)),
        scopes: scopes.into_iter().collect(),
        reason: check.and_then(|check| check.reason.clone()),
    }
}

/// Returns which scopes a usable token lacks. An empty list may be one that the platform does not return, so it proves nothing.
fn missing_scopes(
    cx: &Context,
    identity: &Identity,
    status: AuthState,
    granted: &BTreeSet<String>,
) -> Vec<MissingScope> {
    let is_known = matches!(status, AuthState::Valid | AuthState::Unknown) && !granted.is_empty();
    let Some(platform) = platform_of(identity).filter(|_| is_known) else {
        return Vec::new();
    };
    let wanted = cx.app.platforms.scopes(platform, identity).into_iter();
    wanted
        .filter(|scope| !granted.contains(&scope.name))
        .map(|scope| MissingScope {
            scope: scope.name,
            without: scope.without,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_their_codes() {
        let platform = PlatformName::Twitch;
        let what = String::new();
        let other = crate::platforms::PlatformError::OtherAccount {
            platform,
            what: what.clone(),
        };
        let missing = crate::platforms::PlatformError::NotConfigured { platform, what };
        for (error, is_other, is_missing) in [
            (other.error_info(), true, false),
            (
                ErrorInfo::new(Code::OtherAccount(PlatformName::Kick), "x"),
                true,
                false,
            ),
            (missing.error_info(), false, true),
            (
                ErrorInfo::new(Code::NotConfigured(PlatformName::Kick), "belongs to"),
                false,
                true,
            ),
            (ErrorInfo::new(Code::NetworkTimeout, "belongs to"), false, false),
        ] {
            assert_eq!(is_of_other_account(&error), is_other, "{error:?}");
            assert_eq!(is_of_missing_account(&error), is_missing, "{error:?}");
        }
    }

    #[test]
    fn bot_of_one_guild_is_asked_about_through_it() {
        let own = Identity::named("discord/bot:900200");
        assert_eq!(
            source_of(PlatformName::Discord, &own).unwrap().to_string(),
            "discord:900200"
        );
    }

    #[test]
    fn a_broadcaster_is_asked_about_through_its_own_channel() {
        let key = |name: &str| {
            source_of(PlatformName::Twitch, &Identity::named(name))
                .unwrap()
                .to_string()
        };
        assert_eq!(key("twitch/broadcaster:900200"), "twitch:900200");
        assert_eq!(key("twitch/bot"), "twitch:1");
    }
}
