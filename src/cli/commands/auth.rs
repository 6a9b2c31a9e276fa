//! `auth status|login|logout`: authorizations of the bot and of broadcasters.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Read as _};
use std::sync::Arc;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use crate::app::Untried;
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::output::view::Tone;
use crate::cli::output::{Note, write_err};
use crate::cli::reports::auth::{AuthReport, AuthState, IdentityItem};
use crate::cli::run_probe;
use crate::cli::source_arg::{self, SourceArg};
use crate::core::code::Code;
use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState};
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::platforms::{Platform, Probe, ProbeSet, Problem, Subject};
use crate::tokens::{
    APP_REFUSED, MemoryTokenStore, RefreshState, RefreshToken, StoredToken, TokenRecord, TokenStore,
};

/// Accounts of the bot and of broadcasters.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat auth status
  bitbrat auth login twitch --with-token < token.txt")]
#[expect(missing_docs, reason = "each command is documented where its arguments are")]
pub enum AuthCommand {
    Status(StatusArgs),
    Login(LoginArgs),
    Logout(LogoutArgs),
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

/// Log in, or store a token for an account
///
/// The token is read from standard input: the access token on the first line, its refresh token on the second where there
/// is one. It is kept only after the platform has accepted it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth login twitch --with-token < token.txt
  pass show twitch/bot | bitbrat auth login twitch --with-token
  bitbrat auth login twitch --as broadcaster:123456 --with-token < token.txt
  bitbrat auth login twitch --as broadcaster:pixelmeadow --with-token < token.txt")]
pub struct LoginArgs {
    /// The platform
    #[arg(value_name = "PLATFORM", value_parser = platform, add = ArgValueCompleter::new(complete::platforms))]
    platform: PlatformName,
    /// The account: bot, or broadcaster:ID (or its name); on Discord bot:ID for the bot of one guild
    #[arg(long = "as", value_name = "IDENTITY", default_value = "bot", add = ArgValueCompleter::new(complete::identities))]
    identity: String,
    /// Read a token from standard input
    #[arg(long, required = true)]
    with_token: bool,
}

/// Delete an account's tokens from the token store
///
/// The platform is not notified; to revoke the grant itself, disconnect the application in the account's settings there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth logout twitch
  bitbrat auth logout twitch --as broadcaster:123456")]
pub struct LogoutArgs {
    /// The platform
    #[arg(value_name = "PLATFORM", value_parser = platform, add = ArgValueCompleter::new(complete::platforms))]
    platform: PlatformName,
    /// The account: bot, or broadcaster:ID (or its name); on Discord bot:ID for the bot of one guild
    #[arg(long = "as", value_name = "IDENTITY", default_value = "bot", add = ArgValueCompleter::new(complete::identities))]
    identity: String,
}

fn platform(text: &str) -> Result<PlatformName, String> {
    text.parse()
        .map_err(|error: crate::core::source::InvalidSourceKey| error.to_string())
}

/// Runs the command.
pub async fn run(cx: &Context, command: &AuthCommand) -> Result<ExitCode, Failure> {
    match command {
        AuthCommand::Status(args) => status(cx, args).await,
        AuthCommand::Login(args) => login(cx, args).await,
        AuthCommand::Logout(args) => logout(cx, args).await,
    }
}

async fn status(cx: &Context, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let Identities {
        mut items,
        mut problems,
    } = identities(cx, args.platform, !args.offline).await?;
    if !args.offline {
        for platform in PlatformName::ALL {
            if args.platform.is_none_or(|only| only == platform) {
                check_application(cx, platform, &mut items, &mut problems).await;
            }
        }
    }
    let exit = items
        .iter()
        .map(|item| exit_code(item.status))
        .fold(ExitCode::Healthy, ExitCode::worse);
    let others = problems.iter().filter(|problem| !names_account(&items, problem));
    let notes = others
        .map(|problem| Note::hint(Tone::Warn, &problem.text, None))
        .collect();
    cx.output.print(&AuthReport {
        as_of: cx.app.clock.now(),
        items,
        notes,
    })?;
    Ok(exit)
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
            "{APP_REFUSED}: {reason}; correct `{platform}.client_id` or `{platform}.client_secret`"
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
    Ok(Identities {
        items,
        problems: answers.problems,
    })
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
    let probed = run_probe::run_probe(cx, std::slice::from_ref(platform), &probes, &keys).await;
    let mut answers = Answers {
        problems: probed
            .platforms
            .into_iter()
            .flat_map(|run_probe| run_probe.problems)
            .collect(),
        ..Answers::default()
    };
    for observation in probed.observations {
        match Arc::unwrap_or_clone(observation.fact) {
            Fact::Auth { identity, check } => {
                answers.checks.insert(identity, check);
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
    IdentityItem {
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
        scopes: check
            .map(|check| check.scopes.iter().cloned().collect())
            .or_else(|| stored.map(|token| token.scopes.iter().cloned().collect()))
            .unwrap_or_default(),
        reason: check.and_then(|check| check.reason.clone()),
    }
}

/// Parses an identity; `text` may leave out the platform.
fn identity(platform: PlatformName, text: &str) -> Result<Identity, Failure> {
    let account = &platform.rules().source_account;
    let name = text.strip_prefix(&format!("{platform}/")).unwrap_or(text);
    let valid = match name.split_once(':') {
        None => matches!(name, "bot" | "app"),
        Some((role, id)) => role == account.role && SourceKey::new(platform, id).is_ok(),
    };
    if !valid {
        // Not repeated: a token that was pasted after the wrong option would be in it.
        let what = format!("--as does not name an account of {platform}");
        return Err(Failure::new(ExitCode::Usage, what).hint(account.hint));
    }
    Ok(Identity::named(format!("{platform}/{name}")))
}

/// As [`identity`], which also accepts a name in place of the id.
async fn identity_of(cx: &Context, platform: PlatformName, text: &str) -> Result<Identity, Failure> {
    let Some((role, arg)) = by_name(platform, text) else {
        return identity(platform, text);
    };
    let key = source_arg::resolve(cx, &arg, true)
        .await
        .map_err(|failure| failure.hint(format!("or write the user id: --as {role}:ID")))?;
    identity(platform, &format!("{role}:{}", key.id()))
}

/// Returns the role and the source of an identity whose owner is named, instead of given by id.
fn by_name(platform: PlatformName, text: &str) -> Option<(&'static str, SourceArg)> {
    let role = platform.rules().source_account.role;
    let name = text.strip_prefix(&format!("{platform}/")).unwrap_or(text);
    let owner = name.strip_prefix(role)?.strip_prefix(':')?;
    // The address of a channel contains its platform; anything else belongs to the platform argument before it.
    let arg = format!("{platform}:{owner}").parse().or_else(|_| owner.parse());
    match arg {
        Ok(arg @ SourceArg::Name { platform: of, .. }) => (of == Some(platform)).then_some((role, arg)),
        Ok(SourceArg::Key(_)) | Err(_) => None,
    }
}

async fn login(cx: &Context, args: &LoginArgs) -> Result<ExitCode, Failure> {
    let identity = identity_of(cx, args.platform, &args.identity).await?;
    let token = read_token(cx)?;
    // Checking a token may renew it, which invalidates it: the store must be able to keep its successor.
    if token.refresh.is_some() {
        let ready = cx.app.tokens().lease(&identity).await?;
        ready.save(&ready.load().await?).await?;
    }
    // Checked outside the store: an invalid token never replaces a valid one.
    let beside: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::default());
    beside
        .lease(&identity)
        .await?
        .save(&TokenRecord {
            token: Some(token),
            ..TokenRecord::default()
        })
        .await?;
    let platform = cx
        .app
        .platforms
        .build_with(args.platform, Arc::clone(&beside))
        .await?;
    let mut answers = ask(cx, &platform, std::slice::from_ref(&identity)).await;
    // The probe had only this token: that others are missing there does not concern this account.
    let errors = std::mem::take(&mut answers.errors);
    let about_this: Vec<&ErrorInfo> = errors
        .iter()
        .filter(|error| !is_of_missing_account(error))
        .collect();
    let other_account = errors.iter().find(|error| is_of_other_account(error));
    let reason = other_account.or(about_this.first().copied()).or(errors.first());
    let reason = reason.map(|error| error.message.clone());
    match answers.checks.get(&identity).map(|check| check.result) {
        Some(AuthResult::Valid) => {}
        Some(AuthResult::Expired | AuthResult::Revoked) => {
            let why = answers.checks[&identity].reason.clone().or(reason);
            let what = format!("{} rejects this token; nothing was stored", args.platform);
            return Err(reported(Failure::new(ExitCode::Unauthorized, what), why)
                .hint(advice(cx, "get a new token, and try again")));
        }
        None if other_account.is_some() => {
            let what = format!("this token does not belong to {identity}; nothing was stored");
            return Err(
                reported(Failure::new(ExitCode::Unauthorized, what), reason).hint(advice(
                    cx,
                    "log in with that account's own token, or name its owner with --as",
                )),
            );
        }
        None => {
            let what = format!(
                "{} did not answer whether this token is valid; nothing was stored",
                args.platform
            );
            return Err(reported(Failure::new(ExitCode::NoEvidence, what), reason)
                .hint("run `bitbrat doctor`, and try again"));
        }
    }
    let proven = beside.load(&identity).await?;
    let lease = cx.app.tokens().lease(&identity).await?;
    let mut record = lease.load().await?;
    record.token = proven;
    lease.save(&record).await?;
    // Sources that were REVOKED for lack of this token are not any more, with or without a daemon.
    answers.checks.retain(|checked, _| *checked == identity);
    run_probe::save_accounts(cx, &answers.checks).await;
    let item = item(
        cx,
        &identity,
        record.token.as_ref(),
        answers.checks.get(&identity),
    );
    let kept = match (&item.login, &item.user_id) {
        (Some(login), Some(id)) => format!("{identity} is now authorized as {login} ({id})"),
        _ => format!("{identity} is now authorized"),
    };
    let mut notes = vec![Note::hint(Tone::Good, kept, None)];
    if cx.output.invocation.is_demo() {
        notes.push(Note::hint(
            Tone::Warn,
            "the demo forgets this login when it ends",
            None,
        ));
    }
    notes.extend(
        (item.reason.iter())
            .chain(about_this.iter().map(|error| &error.message))
            .map(|problem| Note::hint(Tone::Warn, problem, None)),
    );
    cx.output.print(&AuthReport {
        as_of: cx.app.clock.now(),
        items: vec![item],
        notes,
    })?;
    Ok(ExitCode::Healthy)
}

/// Returns `real`, or in the demo what can be done about a token there.
fn advice(cx: &Context, real: &str) -> String {
    if cx.output.invocation.is_demo() {
        "the demo accepts only the tokens of its own world, and forgets a login when it ends; leave out --demo to log in".to_owned()
    } else {
        real.to_owned()
    }
}

fn reported(mut failure: Failure, why: Option<String>) -> Failure {
    failure.causes.extend(why);
    failure
}

/// Reads the access token, and its refresh token if there is a second line.
fn read_token(cx: &Context) -> Result<StoredToken, Failure> {
    if std::io::stdin().is_terminal() {
        write_err(
            "Paste the access token, then its refresh token on a line of its own if there is one, then Ctrl-D:\n",
        )?;
    }
    let mut bytes = Vec::new();
    let cannot = || Failure::new(ExitCode::Usage, "cannot read the token from standard input");
    std::io::stdin()
        .take(64 * 1024)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot().because(&error))?;
    // PowerShell writes UTF-16, and editors a byte order mark.
    let text = crate::config::decode_text(&bytes).map_err(|reason| cannot().hint(reason))?;
    let lines = text.split(['\n', '\r']).map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty());
    let Some(access) = lines.next() else {
        return Err(
            Failure::new(ExitCode::Usage, "there is no token on standard input")
                .hint(advice(cx, "bitbrat auth login twitch --with-token < token.txt")),
        );
    };
    let no_token = |what: String| {
        Failure::new(ExitCode::Usage, what).hint(
            "the access token belongs on the first line, its refresh token on the second, and nothing else",
        )
    };
    let read = |line| {
        crate::config::token(line)
            .map_err(|(what, hint)| no_token(format!("what is on standard input {what}")).hint(hint))
    };
    let access = read(access)?;
    let refresh = lines.next().map(read).transpose()?;
    if lines.next().is_some() {
        return Err(no_token("what is on standard input is not a token".to_owned()));
    }
    let mut token = StoredToken::unproven(access.to_owned(), cx.app.clock.now());
    token.refresh = refresh.map(|refresh| RefreshToken::fresh(refresh.to_owned()));
    Ok(token)
}

async fn logout(cx: &Context, args: &LogoutArgs) -> Result<ExitCode, Failure> {
    let identity = identity_of(cx, args.platform, &args.identity).await?;
    let lease = cx.app.tokens().lease(&identity).await?;
    let mut record = lease.load().await?;
    let had_token = record.token.take().is_some();
    if had_token {
        lease.save(&record).await?;
    }
    let what = if had_token {
        format!("the tokens of {identity} were deleted here; the grant on the platform stays valid")
    } else {
        format!("{identity} had no token")
    };
    let mut notes = vec![Note::hint(Tone::Good, what, None)];
    if cx.app.platforms.is_seeded(&identity) {
        notes.push(Note::hint(
            Tone::Warn,
            "the configuration still contains an access token, which is stored again at the next start",
            None,
        ));
    }
    cx.output.print(&AuthReport {
        as_of: cx.app.clock.now(),
        items: vec![item(cx, &identity, None, None)],
        notes,
    })?;
    Ok(ExitCode::Healthy)
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
    fn an_identity_may_be_written_with_or_without_its_platform() {
        for (text, expected) in [
            ("bot", Some("twitch/bot")),
            ("twitch/bot", Some("twitch/bot")),
            ("broadcaster:900200", Some("twitch/broadcaster:900200")),
            ("twitch/broadcaster:900200", Some("twitch/broadcaster:900200")),
            ("broadcaster:ratcaster", None),
            ("broadcaster", None),
            ("kick/bot", None),
            ("", None),
        ] {
            let found = identity(PlatformName::Twitch, text).ok();
            assert_eq!(found.as_ref().map(Identity::as_str), expected, "{text}");
        }
    }

    #[test]
    fn broadcaster_may_be_given_by_name_or_address() {
        let named = |platform, text: &str| by_name(platform, text).map(|(role, arg)| format!("{role} {arg}"));
        for (platform, text, expected) in [
            (
                PlatformName::Twitch,
                "broadcaster:PixelMeadow",
                Some("broadcaster twitch:pixelmeadow"),
            ),
            (
                PlatformName::Twitch,
                "twitch/broadcaster:pixelmeadow",
                Some("broadcaster twitch:pixelmeadow"),
            ),
            (
                PlatformName::Kick,
                "broadcaster:https://kick.com/big-rat",
                Some("broadcaster kick:big-rat"),
            ),
            (
                PlatformName::Discord,
                "bot:The Rat Pack",
                Some("bot discord:the rat pack"),
            ),
            (PlatformName::Twitch, "broadcaster:https://kick.com/big-rat", None),
            (PlatformName::Twitch, "broadcaster:900200", None),
            (PlatformName::Twitch, "broadcaster:", None),
            (PlatformName::Twitch, "bot", None),
            (PlatformName::Twitch, "moderator:pixelmeadow", None),
        ] {
            assert_eq!(named(platform, text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_guild_may_have_a_bot_of_its_own_and_is_asked_about_it() {
        let own = identity(PlatformName::Discord, "bot:900200").unwrap();
        assert_eq!(own.as_str(), "discord/bot:900200");
        assert_eq!(
            source_of(PlatformName::Discord, &own).unwrap().to_string(),
            "discord:900200"
        );
        assert!(identity(PlatformName::Discord, "broadcaster:900200").is_err());
        assert!(identity(PlatformName::Twitch, "bot:900200").is_err());
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
