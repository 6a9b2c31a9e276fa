//! `auth status|login|logout`: authorisations of the bot and of broadcasters.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::sync::Arc;

use clap::{Args, Subcommand};

use crate::cli::context::Context;
use crate::cli::look;
use crate::cli::output::view::Tone;
use crate::cli::output::{Note, write_err};
use crate::cli::reports::auth::{AuthReport, AuthState, IdentityItem};
use crate::core::observation::{AuthCheck, AuthResult, Fact, Identity};
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::platforms::{Platform, Probe, ProbeSet, discord};
use crate::tokens::{MemoryTokenStore, RefreshState, RefreshToken, StoredToken, TokenRecord, TokenStore};

/// What to do with authorisations.
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

/// Show every identity and ask its platform whether it is still authorised
///
/// Tokens that have ended are renewed on the way, where they can be. 4: one is expired, revoked or missing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth status
  bitbrat auth status twitch --offline
  bitbrat auth status -o json | jq '.items[] | {identity, status, expiresAt}'")]
pub struct StatusArgs {
    /// Only this platform
    #[arg(value_name = "PLATFORM", value_parser = platform)]
    platform: Option<PlatformName>,
    /// Ask nobody; show what is stored
    #[arg(long)]
    offline: bool,
}

/// Give an identity an authorisation
///
/// The token is read from standard input: the access token on the first line, its refresh token on the second where there
/// is one. It is kept only after the platform has accepted it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth login twitch --with-token < token.txt
  pass show twitch/bot | bitbrat auth login twitch --with-token
  bitbrat auth login twitch --as broadcaster:123456 --with-token < token.txt")]
pub struct LoginArgs {
    /// The platform
    #[arg(value_name = "PLATFORM", value_parser = platform)]
    platform: PlatformName,
    /// Whose authorisation it is: bot, or broadcaster:ID; on Discord bot:ID for the bot of one guild
    #[arg(long = "as", value_name = "IDENTITY", default_value = "bot")]
    identity: String,
    /// Read a token from standard input
    #[arg(long, required = true)]
    with_token: bool,
}

/// Forget an identity's tokens on this machine
///
/// The platform is not told; to end the grant itself, disconnect the application in the account's settings there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth logout twitch
  bitbrat auth logout twitch --as broadcaster:123456")]
pub struct LogoutArgs {
    /// The platform
    #[arg(value_name = "PLATFORM", value_parser = platform)]
    platform: PlatformName,
    /// Whose authorisation it is: bot, or broadcaster:ID; on Discord bot:ID for the bot of one guild
    #[arg(long = "as", value_name = "IDENTITY", default_value = "bot")]
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
    let Identities { items, problems } = identities(cx, args.platform, !args.offline).await?;
    let exit = items
        .iter()
        .map(|item| exit_code(item.status))
        .fold(ExitCode::Healthy, ExitCode::worse);
    let others = problems.iter().filter(|problem| !tells(&items, problem));
    let notes = others
        .map(|problem| Note::hint(Tone::Warn, problem, None))
        .collect();
    cx.output.print(&AuthReport {
        as_of: cx.app.clock.now(),
        items,
        notes,
    })?;
    Ok(exit)
}

/// Whether an identity's own line tells what is wrong with it. Where nothing new is known of one, it tells no reason.
pub fn tells(items: &[IdentityItem], problem: &str) -> bool {
    items.iter().any(|item| {
        let known = item.status != AuthState::Unknown;
        known && problem.contains(&item.identity)
    })
}

/// Identities and how they are authorised.
#[derive(Debug)]
pub struct Identities {
    /// The identities, sorted.
    pub items: Vec<IdentityItem>,
    /// What went wrong while asking.
    pub problems: Vec<String>,
}

/// Returns the identities that are stored or needed, of one platform or all. With `online`, the platforms are asked.
pub async fn identities(
    cx: &Context,
    only: Option<PlatformName>,
    online: bool,
) -> Result<Identities, Failure> {
    cx.app.seed_tokens().await?;
    let mut all = cx.app.tokens().identities().await?;
    all.extend(cx.app.needed_identities());
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
            let adapter = cx.app.platform(platform).await?;
            answers.extend(ask(cx, &adapter, &of).await);
        }
    }
    // An application's token may have been got on the way.
    all.extend(answers.checks.keys().cloned());
    all.sort();
    all.dedup();
    let mut items = Vec::new();
    for identity in &all {
        let stored = cx.app.tokens().load(identity).await?;
        let mut item = item(cx, identity, stored.as_ref(), answers.checks.get(identity));
        // A bot's token does not tell whose it is, and nothing is kept of that.
        if online && item.login.is_none() && *identity == discord::bot() && item.status == AuthState::Valid {
            item.login = cx.app.discord_name().await;
        }
        items.push(item);
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
        AuthState::Expired | AuthState::Revoked | AuthState::Missing => ExitCode::Unauthorised,
    }
}

/// What the platforms said.
#[derive(Default)]
struct Answers {
    checks: BTreeMap<Identity, AuthCheck>,
    problems: Vec<String>,
}

impl Answers {
    fn extend(&mut self, other: Self) {
        self.checks.extend(other.checks);
        self.problems.extend(other.problems);
    }
}

/// Asks a platform about identities. Each is asked about through a source that needs it.
async fn ask(cx: &Context, platform: &Arc<dyn Platform>, identities: &[Identity]) -> Answers {
    let mut keys: Vec<SourceKey> = identities
        .iter()
        .filter_map(|identity| source_of(platform.name(), identity))
        .collect();
    keys.sort();
    keys.dedup();
    let probes = ProbeSet::from([Probe::Auth]);
    let looked = look::look(cx, std::slice::from_ref(platform), &probes, &keys).await;
    let mut answers = Answers {
        problems: looked
            .platforms
            .into_iter()
            .flat_map(|look| look.problems)
            .collect(),
        ..Answers::default()
    };
    for observation in looked.observations {
        if let Fact::Auth { identity, check } = observation.fact {
            answers.checks.insert(identity, check);
        }
    }
    answers
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

/// Returns the identity that was meant by `text`, which may leave out the platform.
fn identity(platform: PlatformName, text: &str) -> Result<Identity, Failure> {
    let name = text.strip_prefix(&format!("{platform}/")).unwrap_or(text);
    let valid = match name.split_once(':') {
        None => matches!(name, "bot" | "app"),
        Some(("broadcaster", id)) if platform != PlatformName::Discord => {
            SourceKey::new(platform, id).is_ok()
        }
        Some(("bot", id)) if platform == PlatformName::Discord => SourceKey::new(platform, id).is_ok(),
        Some(_) => false,
    };
    if !valid {
        let what = format!("`{text}` is not an identity of {platform}");
        return Err(Failure::new(ExitCode::Usage, what).hint(match platform {
            PlatformName::Discord => "use bot, or bot:ID for the bot of one guild",
            _ => "use bot, or broadcaster:ID with the broadcaster's user id",
        }));
    }
    Ok(Identity::named(format!("{platform}/{name}")))
}

async fn login(cx: &Context, args: &LoginArgs) -> Result<ExitCode, Failure> {
    let identity = identity(args.platform, &args.identity)?;
    let token = read_token(cx)?;
    // Whoever tries a token may have to renew it, which spends it: there must be room for its successor.
    if token.refresh.is_some() {
        let room = cx.app.tokens().lease(&identity).await?;
        room.save(&room.load().await?).await?;
    }
    // Tried beside the store: a token that turns out to be no good never replaces one that is.
    let beside: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::default());
    beside
        .lease(&identity)
        .await?
        .save(&TokenRecord {
            token: Some(token),
            ..TokenRecord::default()
        })
        .await?;
    let platform = cx.app.platform_with(args.platform, Arc::clone(&beside)).await?;
    let mut answers = ask(cx, &platform, std::slice::from_ref(&identity)).await;
    // The look had this one token only: that others are missing there says nothing about the store.
    let of_others = |problem: &String| problem.contains(&format!("`{}/", args.platform));
    let (about, others): (Vec<_>, Vec<_>) = std::mem::take(&mut answers.problems)
        .into_iter()
        .partition(|problem| problem.contains(&format!("`{identity}`")));
    let is_anothers = about.iter().any(|problem| problem.contains("belongs to"));
    answers.problems = about
        .into_iter()
        .chain(others.into_iter().filter(|problem| !of_others(problem)))
        .collect();
    let reason = answers.problems.first().cloned();
    match answers.checks.get(&identity).map(|check| check.result) {
        Some(AuthResult::Valid) => {}
        Some(AuthResult::Expired | AuthResult::Revoked) => {
            let why = answers.checks[&identity].reason.clone().or(reason);
            let what = format!("{} refuses this token; nothing was kept", args.platform);
            return Err(
                told(Failure::new(ExitCode::Unauthorised, what), why).hint("get a new token, and try again")
            );
        }
        None if is_anothers => {
            let what = format!("this token is not one for {identity}; nothing was kept");
            return Err(told(Failure::new(ExitCode::Unauthorised, what), reason)
                .hint("log in with that account's own token, or name its owner with --as"));
        }
        None => {
            let what = format!(
                "{} did not say whether this token is good; nothing was kept",
                args.platform
            );
            return Err(told(Failure::new(ExitCode::NoEvidence, what), reason)
                .hint("run `bitbrat doctor`, and try again"));
        }
    }
    let proven = beside.load(&identity).await?;
    let lease = cx.app.tokens().lease(&identity).await?;
    let mut record = lease.load().await?;
    record.token = proven;
    lease.save(&record).await?;
    let item = item(
        cx,
        &identity,
        record.token.as_ref(),
        answers.checks.get(&identity),
    );
    let kept = match (&item.login, &item.user_id) {
        (Some(login), Some(id)) => format!("{identity} is now authorised as {login} ({id})"),
        _ => format!("{identity} is now authorised"),
    };
    let mut notes = vec![Note::hint(Tone::Good, kept, None)];
    notes.extend(
        answers
            .problems
            .iter()
            .map(|problem| Note::hint(Tone::Warn, problem, None)),
    );
    cx.output.print(&AuthReport {
        as_of: cx.app.clock.now(),
        items: vec![item],
        notes,
    })?;
    Ok(ExitCode::Healthy)
}

fn told(mut failure: Failure, why: Option<String>) -> Failure {
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
    let mut text = String::new();
    std::io::stdin()
        .take(64 * 1024)
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::new(ExitCode::Usage, "cannot read the token from standard input").because(&error)
        })?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let Some(access) = lines.next() else {
        return Err(
            Failure::new(ExitCode::Usage, "there is no token on standard input")
                .hint("bitbrat auth login twitch --with-token < token.txt"),
        );
    };
    let access = access.strip_prefix("oauth:").unwrap_or(access);
    let refresh = lines.next();
    let odd = |text: &str| text.chars().any(|c| c.is_whitespace() || c.is_control());
    if odd(access) || refresh.is_some_and(odd) || lines.next().is_some() {
        return Err(Failure::new(ExitCode::Usage, "what is on standard input is not a token")
            .hint("the access token belongs on the first line, its refresh token on the second, and nothing else"));
    }
    let mut token = StoredToken::unproven(access.to_owned(), cx.app.clock.now());
    token.refresh = refresh.map(|refresh| RefreshToken::fresh(refresh.to_owned()));
    Ok(token)
}

async fn logout(cx: &Context, args: &LogoutArgs) -> Result<ExitCode, Failure> {
    let identity = identity(args.platform, &args.identity)?;
    let lease = cx.app.tokens().lease(&identity).await?;
    let mut record = lease.load().await?;
    let had_token = record.token.take().is_some();
    if had_token {
        lease.save(&record).await?;
    }
    let what = if had_token {
        format!("the tokens of {identity} were forgotten; the platform still honours the grant")
    } else {
        format!("{identity} had no token")
    };
    let mut notes = vec![Note::hint(Tone::Good, what, None)];
    if cx.app.is_seeded(&identity) {
        notes.push(Note::hint(
            Tone::Warn,
            "the configuration still brings an access token, which is taken again at the next start",
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
