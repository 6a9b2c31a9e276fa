//! `auth login`.

use std::collections::BTreeMap;

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::{account, item, with_token};
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::interruption;
use crate::cli::login::{self, Keyboard, Login};
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::reports::auth::{AuthReport, IdentityItem};
use crate::cli::run_probe;
use crate::core::observation::{AuthCheck, AuthResult, Identity};
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::platforms::Platform;
use crate::platforms::discord::permissions::{NEEDED, invite_link};
use crate::platforms::kit::oauth::{Accounts, Undescribed, fate_of};
use crate::platforms::kit::token_check::LOST;
use crate::platforms::kit::token_check::Refresh;
use crate::secrets;
use crate::tokens::{StoredToken, TokenLease, TokenRecord, TokenStore, TokenStoreExt as _, login_command};

/// Log in to an account
///
/// On Twitch a code is shown, which you confirm on any device; with --browser, and on Kick, a page on this machine's browser comes
/// back to this command. On Discord the bot's token is read from standard input or typed in. With --with-token a token that you
/// already have is read from standard input: the access token on the first line, its refresh token on the second where there is one.
///
/// The token is stored once it has proven to belong to the account.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth login twitch
  bitbrat auth login twitch --as broadcaster
  bitbrat auth login twitch --as broadcaster:pixelmeadow --qr
  bitbrat auth login kick
  bitbrat auth login discord < token.txt
  pass show twitch/bot | bitbrat auth login twitch --with-token")]
pub struct LoginArgs {
    /// The platform
    #[arg(value_name = "PLATFORM", value_parser = super::platform, add = ArgValueCompleter::new(complete::platforms))]
    platform: PlatformName,
    /// The account: bot, broadcaster, or broadcaster:ID (or its name); on Discord bot:ID for the bot of one guild
    #[arg(long = "as", value_name = "IDENTITY", default_value = "bot", add = ArgValueCompleter::new(complete::identities))]
    identity: String,
    /// Read a token from standard input
    #[arg(long, conflicts_with_all = ["browser", "qr"])]
    with_token: bool,
    /// Consent in a browser of this machine; needs the application's secret
    #[arg(long)]
    browser: bool,
    /// Show the address as a QR code too
    #[arg(long, conflicts_with = "browser")]
    qr: bool,
    /// Do not ask whether a new account is the right one
    #[arg(short, long)]
    yes: bool,
    /// The login is a part of another command, whose result is on standard output.
    #[arg(skip)]
    is_part: bool,
}

impl LoginArgs {
    /// The platform.
    pub(super) fn platform(&self) -> PlatformName {
        self.platform
    }

    /// Sets what is reported if a signal ends the login. As a part of another command, it is that one's to say.
    fn leaves(&self, what: &str, place: &Identity) {
        if !self.is_part {
            let command = login_command(place.as_str());
            interruption::leaves(vec![Note::hint(Tone::Warn, what, Some(&command))]);
        }
    }

    /// Prints the account that was logged in to.
    pub(super) fn print(&self, cx: &Context, item: IdentityItem, notes: Vec<Note>) -> Result<(), Failure> {
        if self.is_part {
            return cx.note(&notes);
        }
        Ok(cx.output.print(&AuthReport {
            as_of: cx.app.clock.now(),
            items: vec![item],
            notes,
        })?)
    }
}

/// The account to log in to.
enum Target {
    Known(Identity),
    /// A broadcaster whose id follows from the login.
    NewBroadcaster(PlatformName),
}

impl Target {
    async fn of(cx: &Context, args: &LoginArgs) -> Result<Self, Failure> {
        let platform = args.platform;
        let name = args.identity.strip_prefix(&format!("{platform}/"));
        if name.unwrap_or(&args.identity) == "broadcaster" && platform != PlatformName::Discord {
            return Ok(Self::NewBroadcaster(platform));
        }
        account::identity_of(cx, platform, &args.identity)
            .await
            .map(Self::Known)
    }

    /// Returns the record in which a login waits until its owner is known.
    fn waiting_place(&self) -> Identity {
        match self {
            Self::Known(identity) => identity.clone(),
            Self::NewBroadcaster(platform) => Identity::named(format!("{platform}/broadcaster")),
        }
    }

    /// Returns the account that a token with this owner is of.
    fn identity(&self, user_id: &str) -> Identity {
        match self {
            Self::Known(identity) => identity.clone(),
            Self::NewBroadcaster(platform) => Identity::named(format!("{platform}/broadcaster:{user_id}")),
        }
    }
}

/// Logs in to the bot's account, as a part of another command.
pub async fn bot(cx: &Context, platform: PlatformName, keyboard: &mut Keyboard) -> Result<ExitCode, Failure> {
    let args = LoginArgs {
        platform,
        identity: "bot".to_owned(),
        with_token: false,
        browser: false,
        qr: false,
        yes: false,
        is_part: true,
    };
    run(cx, &args, keyboard).await
}

/// Runs the command.
pub(super) async fn run(
    cx: &Context,
    args: &LoginArgs,
    keyboard: &mut Keyboard,
) -> Result<ExitCode, Failure> {
    cx.warn_of_exposed_secrets()?;
    // A configured token that was never stored would replace the one of this login at the next start.
    cx.app.platforms.seed_tokens().await?;
    if args.platform == PlatformName::Discord && (args.browser || args.qr) {
        let what = "Discord has no login of bots in a browser or by code: a bot has one token, from the Developer Portal";
        return Err(Failure::new(ExitCode::Usage, what)
            .hint("run `bitbrat auth login discord`, and type the token or send it to standard input"));
    }
    let target = Target::of(cx, args).await?;
    let adapter = cx.app.platforms.get(args.platform).await;
    if args.platform == PlatformName::Discord {
        return discord(cx, args, target.waiting_place(), keyboard).await;
    }
    let adapter = adapter?;
    let Some(accounts) = adapter.accounts() else {
        let token = with_token::read_token(cx, args.platform, keyboard).await?;
        return with_token::login(cx, args, target.waiting_place(), token).await;
    };
    if args.with_token {
        let token = with_token::read_token(cx, args.platform, keyboard).await?;
        let identity = match &target {
            Target::Known(identity) => identity.clone(),
            Target::NewBroadcaster(_) => match accounts.describe(&target.waiting_place(), &token).await {
                Ok(StoredToken {
                    user_id: Some(id), ..
                }) => target.identity(&id),
                Ok(_) | Err(Undescribed::Refused) => {
                    let what = format!("{} rejects this token; nothing was stored", args.platform);
                    return Err(Failure::new(ExitCode::Unauthorized, what)
                        .hint("get a new token of a user, and try again"));
                }
                Err(Undescribed::Unclear(error)) => {
                    let what = format!(
                        "{} did not answer whose token this is; nothing was stored",
                        args.platform
                    );
                    return Err(Failure::new(ExitCode::NoEvidence, what).because(&error));
                }
            },
        };
        return with_token::login(cx, args, identity, token).await;
    }
    with_consent(cx, args, &target, adapter.as_ref(), accounts, keyboard).await
}

/// Stores the token of a bot of Discord, and shows how the bot gets into guilds.
async fn discord(
    cx: &Context,
    args: &LoginArgs,
    identity: Identity,
    keyboard: &mut Keyboard,
) -> Result<ExitCode, Failure> {
    let token = if !args.with_token && keyboard.is_there() {
        let question = "Token of the bot (Developer Portal, Bot, Reset Token; it is not shown): ";
        let typed = keyboard.asks_hidden(question).await?;
        let text = crate::config::token(&typed).map_err(|(what, hint)| {
            Failure::new(ExitCode::Usage, format!("what was typed in {what}")).hint(hint)
        })?;
        StoredToken::unproven(secrets::secret(text), cx.app.clock.now())
    } else {
        with_token::read_token(cx, args.platform, keyboard).await?
    };
    let guild = identity.as_str().split_once(':').map(|(_, id)| id.to_owned());
    let exit = with_token::login(cx, args, identity, token).await?;
    let key = SourceKey::new(PlatformName::Discord, guild.as_deref().unwrap_or("1")).ok();
    if let Some(key) = key
        && let Some(application) = crate::app::discord_application(&cx.app, &key).await
    {
        let link = invite_link(&application, guild.as_deref(), NEEDED);
        let what = format!(
            "a user with the permission Manage Server invites the bot, with {}, at {link}",
            NEEDED.names().join(", ")
        );
        cx.note(&[Note::hint(Tone::Good, what, None)])?;
    }
    Ok(exit)
}

/// Obtains a token with the consent of the account's owner, and stores it.
async fn with_consent(
    cx: &Context,
    args: &LoginArgs,
    target: &Target,
    adapter: &dyn Platform,
    accounts: &dyn Accounts,
    keyboard: &mut Keyboard,
) -> Result<ExitCode, Failure> {
    let platform = args.platform;
    if accounts.client().id.is_none() {
        let what = format!(
            "a login needs the client id of your {} application",
            platform.rules().title
        );
        return Err(Failure::new(ExitCode::Configuration, what).hint(format!(
            "register an application and set {platform}.client_id (in the environment {}_CLIENT_ID); docs/{platform}.md shows how",
            platform.as_str().to_ascii_uppercase()
        )));
    }
    let place = target.waiting_place();
    let stored = {
        // The store must be able to keep what the user is asked for.
        let lease = cx.app.tokens().lease(&place).await?;
        let record = lease.load().await?;
        lease.save(&record).await?;
        record
    };
    if stored.pending.is_some() {
        let what = format!("an earlier login of {place} is stored and was not checked yet; checking it now");
        cx.note(&[Note::hint(Tone::Warn, what, None)])?;
        return finish(cx, args, target, adapter, accounts, keyboard).await;
    }
    if let Some(demo) = &cx.app.demo {
        demo.consent_as(place.as_str().split_once(':').map(|(_, id)| id));
    }
    let login = Login {
        cx,
        platform,
        accounts,
        account: place.to_string(),
        scopes: scopes(cx, platform, target, stored.token.as_ref()).join(" "),
    };
    let in_browser = args.browser || platform == PlatformName::Kick;
    args.leaves(&format!("stopped; no login of {place} was stored"), &place);
    let obtained = if in_browser {
        login::browser::obtain(&login, keyboard).await?
    } else {
        login::device::obtain(&login, args.qr, keyboard).await?
    };
    let token = obtained.ok_or_else(|| {
        Failure::new(ExitCode::Usage, format!("{platform} has no such login")).hint("use --with-token")
    })?;
    // Stored before anything is asked about it: the code is spent.
    let lease = cx.app.tokens().lease(&place).await?;
    let mut record = lease.load().await?;
    record.pending = Some(token);
    lease.save(&record).await?;
    drop(lease);
    args.leaves(
        &format!("stopped; the login of {place} is stored, but not used until it is known whose it is"),
        &place,
    );
    tracing::debug!(account = %place, "The token of the login is stored; asking whose it is");
    finish(cx, args, target, adapter, accounts, keyboard).await
}

/// Returns the scopes to request. A new token has only those of its own login, so those that the account has are among them.
fn scopes(
    cx: &Context,
    platform: PlatformName,
    target: &Target,
    stored: Option<&StoredToken>,
) -> Vec<String> {
    let mut scopes: Vec<String> = cx
        .app
        .platforms
        .scopes(platform, &target.identity("0"))
        .into_iter()
        .map(|scope| scope.name)
        .collect();
    for scope in stored.iter().flat_map(|token| &token.scopes) {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    scopes
}

/// Finds out whose the waiting token is, and makes it the account's.
async fn finish(
    cx: &Context,
    args: &LoginArgs,
    target: &Target,
    adapter: &dyn Platform,
    accounts: &dyn Accounts,
    keyboard: &mut Keyboard,
) -> Result<ExitCode, Failure> {
    let (platform, place) = (args.platform, target.waiting_place());
    let lease = cx.app.tokens().lease(&place).await?;
    let mut record = lease.load().await?;
    let Some(pending) = record.pending.clone() else {
        return Err(Failure::new(
            ExitCode::Failed,
            "another command has finished this login",
        ));
    };
    let mut token = match accounts.describe(&place, &pending).await {
        Ok(token) => token,
        Err(Undescribed::Refused) => {
            discard(&lease, &mut record).await?;
            let what = format!("{platform} rejects the token of this login; it was deleted");
            return Err(Failure::new(ExitCode::Unauthorized, what).hint("run the command again"));
        }
        Err(Undescribed::Unclear(error)) => {
            let what = format!(
                "the login is stored, but {platform} did not answer whose it is, so it is not used yet"
            );
            return Err(Failure::new(ExitCode::NoEvidence, what)
                .because(&error)
                .hint("run the command again to finish it"));
        }
    };
    let Some(user_id) = token.user_id.clone() else {
        discard(&lease, &mut record).await?;
        let what = format!("{platform} does not return whose this login is; it was deleted");
        return Err(Failure::new(ExitCode::Unauthorized, what));
    };
    let identity = target.identity(&user_id);
    tracing::debug!(account = %identity, user_id, "The owner of the login is known");
    let owner = account::named(adapter, &user_id, token.login.clone()).await;
    let known = cx.app.tokens().load(&identity).await?;
    let known_id = known.as_ref().and_then(|token| token.user_id.clone());
    match accounts.owner_of(&identity).or(known_id) {
        Some(expected) if expected != user_id => {
            discard(&lease, &mut record).await?;
            let fate = fate_of(platform, accounts.revoke(&pending).await);
            let is_stored = known.is_some();
            let login = known.and_then(|token| token.login);
            let expected = account::named(adapter, &expected, login).await;
            let failure = wrong_account(platform, &identity, &owner, &expected, is_stored);
            return Err(failure.cause(fate));
        }
        Some(_) => {}
        None if args.yes => {}
        None => {
            let question = format!("You are logged in as {owner}. Is this the account for {identity}?");
            if keyboard.confirms(&question, true).await? == Some(false) {
                discard(&lease, &mut record).await?;
                let fate = fate_of(platform, accounts.revoke(&pending).await);
                let what = format!("{owner} was not stored as {identity}; {fate}");
                return Err(Failure::new(ExitCode::Failed, what)
                    .hint("log in again with the right account, in a private window of the browser"));
            }
        }
    }
    token.refresh = pending.refresh;
    record.pending = None;
    if identity == place {
        record.replace_token(Some(token));
        lease.save(&record).await?;
    } else {
        let own = cx.app.tokens().lease(&identity).await?;
        let mut own_record = own.load().await?;
        own_record.replace_token(Some(token));
        own.save(&own_record).await?;
        drop(own);
        lease.save(&record).await?;
    }
    drop(lease);
    tracing::debug!(account = %identity, "The login is stored; trying its first refresh");
    report(cx, args, &identity, &owner, accounts).await
}

async fn discard(lease: &TokenLease<'_, dyn TokenStore>, record: &mut TokenRecord) -> Result<(), Failure> {
    record.pending = None;
    Ok(lease.save(record).await?)
}

fn wrong_account(
    platform: PlatformName,
    identity: &Identity,
    owner: &str,
    expected: &str,
    is_stored: bool,
) -> Failure {
    let what = format!("you are logged in as {owner}, but {identity} is {expected}; nothing was changed");
    let failure = Failure::new(ExitCode::Unauthorized, what).hint(format!(
        "run the command again, open the page in a private window, and log in to {} as {expected}",
        platform.rules().title
    ));
    let failure = if identity.as_str().ends_with("/bot") {
        failure.hint("if the broadcaster was meant: --as broadcaster")
    } else {
        failure
    };
    if is_stored {
        failure.hint(format!(
            "if {identity} is to become another user: run `bitbrat auth logout {identity}` first"
        ))
    } else {
        failure
    }
}

/// Reports a login that is stored. Its first refresh is tried at once: otherwise a wrong secret would show only in some hours.
async fn report(
    cx: &Context,
    args: &LoginArgs,
    identity: &Identity,
    owner: &str,
    accounts: &dyn Accounts,
) -> Result<ExitCode, Failure> {
    let platform = args.platform;
    let mut notes = vec![Note::hint(
        Tone::Good,
        format!("{identity} is now authorized as {owner}"),
        None,
    )];
    let mut exit = ExitCode::Healthy;
    let can_renew = |token: &Option<StoredToken>| token.as_ref().is_some_and(|token| token.refresh.is_some());
    if can_renew(&cx.app.tokens().load(identity).await?) {
        let problem = match accounts.refresh_now(identity).await {
            Ok((refresh, _)) => problem_of(platform, &refresh),
            Err(error) => Some((Tone::Warn, error.to_string())),
        };
        if let Some((tone, why)) = problem {
            if tone == Tone::Bad {
                exit = ExitCode::Unauthorized;
            }
            let what = format!("the login works, but its first refresh did not: {why}");
            notes.push(Note::hint(tone, what, None));
        }
    }
    let stored = cx.app.tokens().load(identity).await?;
    let check = stored.as_ref().map(|token| AuthCheck {
        result: AuthResult::Valid,
        expires_at: token.expires_at,
        scopes: token.scopes.clone(),
        rejected: false,
        client_rejected: false,
        reason: None,
    });
    if let Some(check) = &check {
        run_probe::save_accounts(cx, &BTreeMap::from([(identity.clone(), check.clone())])).await;
    }
    let item: IdentityItem = item(cx, identity, stored.as_ref(), check.as_ref());
    if !item.scopes.is_empty() {
        let what = format!("granted: {}", item.scopes.join(", "));
        notes.push(Note::hint(Tone::Good, what, None));
    }
    if cx.app.demo.is_some() {
        notes.push(Note::hint(
            Tone::Warn,
            "the demo forgets this login when it ends",
            None,
        ));
    }
    args.print(cx, item, notes)?;
    Ok(exit)
}

/// Returns what is wrong with a refresh, if anything is. A platform that does not answer proves nothing about the login.
pub(super) fn problem_of(platform: PlatformName, refresh: &Refresh) -> Option<(Tone, String)> {
    match refresh {
        Refresh::Done => None,
        Refresh::ClientRejected(words) => Some((
            Tone::Bad,
            format!("{words}: {}", login::application_advice(platform, words)),
        )),
        Refresh::GrantGone(words) => Some((
            Tone::Bad,
            format!("{platform} refuses the refresh token: {words}"),
        )),
        Refresh::NoAnswer(why) | Refresh::Unclear(why) => Some((Tone::Warn, why.clone())),
        Refresh::Lost => Some((Tone::Bad, LOST.to_owned())),
        Refresh::LeftToOthers => Some((
            Tone::Warn,
            "another program refreshes this token, and here it is only read; tokens.refresh = true changes that, if no other program does it"
                .to_owned(),
        )),
        Refresh::Impossible => Some((Tone::Bad, "there is no usable refresh token".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_account_is_refused_with_both_names() {
        let bot = Identity::named("twitch/bot");
        let failure = wrong_account(PlatformName::Twitch, &bot, "ratcaster (7)", "rat_bot (8)", true);
        assert!(failure.what.contains("ratcaster (7)") && failure.what.contains("rat_bot (8)"));
        assert!(failure.hints[0].contains("private window"));
        assert!(failure.hints[1].contains("--as broadcaster"));
        assert!(failure.hints[2].contains("bitbrat auth logout twitch/bot"));
    }

    #[test]
    fn failed_first_refresh_is_bad_only_if_proven() {
        let tone = |refresh: Refresh| problem_of(PlatformName::Twitch, &refresh).map(|(tone, _)| tone);
        assert_eq!(tone(Refresh::Done), None);
        assert_eq!(
            tone(Refresh::ClientRejected("missing client secret".to_owned())),
            Some(Tone::Bad)
        );
        assert_eq!(tone(Refresh::NoAnswer("timeout".to_owned())), Some(Tone::Warn));
        assert_eq!(tone(Refresh::Unclear("status 403".to_owned())), Some(Tone::Warn));
    }
}
