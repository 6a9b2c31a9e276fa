//! Logins with an existing token. It is checked before it is stored, so an invalid one never replaces a valid one.

use std::io::Read as _;
use std::sync::Arc;

use secrecy::ExposeSecret as _;

use super::account::named;
use super::login::LoginArgs;
use super::{ask, is_of_missing_account, is_of_other_account, item};
use crate::blocking::blocking;
use crate::cli::context::Context;
use crate::cli::login::Keyboard;
use crate::cli::output::Note;
use crate::cli::output::view::Tone;
use crate::cli::run_probe;
use crate::core::observation::{AuthResult, ErrorInfo, Identity};
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::platforms::Platform;
use crate::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenStore, TokenStoreExt as _};

/// Stores `token` for `identity` once the platform has accepted it.
pub(super) async fn login(
    cx: &Context,
    args: &LoginArgs,
    identity: Identity,
    token: StoredToken,
) -> Result<ExitCode, Failure> {
    let platform_name = args.platform();
    let refresh_token = looks_like_refresh_token(platform_name, &token);
    // Checking a token may renew it, which invalidates it: the store must be able to keep its successor.
    if token.refresh.is_some() {
        let ready = cx.app.tokens().lease(&identity).await?;
        ready.save(&ready.load().await?).await?;
    }
    // Checked outside the store: an invalid token never replaces a valid one.
    let beside: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::default());
    beside.set_token(&identity, Some(token.clone())).await?;
    let platform = cx
        .app
        .platforms
        .build_with(platform_name, Arc::clone(&beside))
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
            let what = format!("{platform_name} rejects this token; nothing was stored");
            let failure = reported(Failure::new(ExitCode::Unauthorized, what), why);
            return Err(if refresh_token {
                failure.hint(
                    "the first line has the form of a refresh token: the access token belongs there, and the refresh token below it",
                )
            } else {
                failure.hint(advice(cx, "get a new token, and try again"))
            });
        }
        None if other_account.is_some() => {
            let what = format!("this token does not belong to {identity}; nothing was stored");
            let mut failure = reported(Failure::new(ExitCode::Unauthorized, what), reason);
            failure
                .causes
                .extend(owners(cx, &platform, &identity, &token).await);
            return Err(failure.hint(advice(
                cx,
                "log in with that account's own token, or name its owner with --as",
            )));
        }
        None => {
            let what =
                format!("{platform_name} did not answer whether this token is valid; nothing was stored");
            return Err(reported(Failure::new(ExitCode::NoEvidence, what), reason)
                .hint("run `bitbrat doctor`, and try again"));
        }
    }
    let proven = beside.load(&identity).await?;
    reject_other_application(cx, &platform, platform_name, proven.as_ref())?;
    let lease = cx.app.tokens().lease(&identity).await?;
    let mut record = lease.load().await?;
    reject_other_owner(&identity, record.token.as_ref(), proven.as_ref())?;
    record.replace_token(proven);
    lease.save(&record).await?;
    // Sources that were REVOKED for lack of this token are not any more, with or without a daemon.
    answers.checks.retain(|checked, _| *checked == identity);
    run_probe::save_accounts(cx, &answers.checks).await;
    let mut item = item(
        cx,
        &identity,
        record.token.as_ref(),
        answers.checks.get(&identity),
    );
    // A bot's token does not contain its name, which may change.
    if item.login.is_none() {
        item.login = platform.account_name(&identity).await;
    }
    let kept = match (&item.login, &item.user_id) {
        (Some(login), Some(id)) => format!("{identity} is now authorized as {login} ({id})"),
        (Some(login), None) => format!("{identity} is now authorized as {login}"),
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
    args.print(cx, item, notes)?;
    Ok(ExitCode::Healthy)
}

/// Rejects a token of another application than the configured one: it could not be refreshed with that one's secret.
fn reject_other_application(
    cx: &Context,
    platform: &Arc<dyn Platform>,
    name: PlatformName,
    proven: Option<&StoredToken>,
) -> Result<(), Failure> {
    let configured = platform
        .accounts()
        .and_then(|accounts| accounts.client().id.clone());
    let found = proven.and_then(|token| token.client_id.as_ref());
    match (configured, found) {
        (Some(configured), Some(found)) if configured != *found => {
            let what = format!(
                "this token belongs to the application {found}, but {name}.client_id is {configured}; nothing was stored"
            );
            let real = format!(
                "get a token of the application {configured}, or set {name}.client_id and {name}.client_secret to those of {found}"
            );
            Err(Failure::new(ExitCode::Unauthorized, what).hint(advice(cx, &real)))
        }
        _ => Ok(()),
    }
}

/// Rejects a token of another user than the one whose token is stored.
fn reject_other_owner(
    identity: &Identity,
    stored: Option<&StoredToken>,
    proven: Option<&StoredToken>,
) -> Result<(), Failure> {
    let owner = |token: Option<&StoredToken>| token.and_then(|token| token.user_id.clone());
    match (owner(stored), owner(proven)) {
        (Some(stored), Some(new)) if stored != new => {
            let what = format!(
                "this token belongs to user {new}, and {identity} is user {stored}; nothing was stored, and the token was not revoked"
            );
            let advice = format!(
                "log in with that account's own token, or run `bitbrat auth logout {identity}` first"
            );
            Err(Failure::new(ExitCode::Unauthorized, what).hint(advice))
        }
        _ => Ok(()),
    }
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

/// Returns who owns a token, and who should, by name.
async fn owners(
    cx: &Context,
    platform: &Arc<dyn Platform>,
    identity: &Identity,
    token: &StoredToken,
) -> Option<String> {
    let accounts = platform.accounts()?;
    let found = accounts.describe(identity, token).await.ok()?;
    let stored = cx.app.tokens().load(identity).await.ok().flatten();
    let expected = accounts
        .owner_of(identity)
        .or_else(|| stored.as_ref()?.user_id.clone())?;
    let expected = named(platform.as_ref(), &expected, stored.and_then(|token| token.login)).await;
    let owner = named(platform.as_ref(), &found.user_id?, found.login).await;
    Some(format!("it belongs to {owner}, and {identity} is {expected}"))
}

/// Returns whether a token has the form of the platform's refresh tokens. The form is not documented, so this is only advice.
fn looks_like_refresh_token(platform: PlatformName, token: &StoredToken) -> bool {
    platform == PlatformName::Twitch && token.access.expose_secret().len() == 50
}

/// Removes the quotation marks around a token that was copied with them.
fn unquoted(line: &str) -> &str {
    let inner = ['"', '\'', '`']
        .iter()
        .find_map(|mark| line.strip_prefix(*mark)?.strip_suffix(*mark));
    inner.unwrap_or(line)
}

/// Reads the access token, and its refresh token if there is a second line.
pub(super) async fn read_token(
    cx: &Context,
    platform: PlatformName,
    keyboard: &mut Keyboard,
) -> Result<StoredToken, Failure> {
    let cannot = || Failure::new(ExitCode::Usage, "cannot read the token from standard input");
    let mut bytes = Vec::new();
    if keyboard.is_there() {
        let access = keyboard.asks_hidden("Access token (it is not shown): ").await?;
        let refresh = keyboard.asks_hidden("Refresh token, if there is one: ").await?;
        bytes.extend([access, refresh].join("\n").into_bytes());
    } else {
        // A read that waits for ever must not keep signals from being handled.
        let read = blocking(|| {
            let mut bytes = Vec::new();
            std::io::stdin().take(64 * 1024).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        });
        bytes = read.await.map_err(|error| cannot().because(&error))?;
    }
    // PowerShell writes UTF-16, and editors a byte order mark.
    let text = crate::config::decode_text(&bytes).map_err(|reason| cannot().hint(reason))?;
    let lines = text.split(['\n', '\r']).map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty());
    let Some(access) = lines.next() else {
        return Err(
            Failure::new(ExitCode::Usage, "there is no token on standard input").hint(advice(
                cx,
                &format!("bitbrat auth login {platform} --with-token < token.txt"),
            )),
        );
    };
    let no_token = |what: String| {
        Failure::new(ExitCode::Usage, what).hint(
            "the access token belongs on the first line, its refresh token on the second, and nothing else",
        )
    };
    let read = |line| {
        crate::config::token(unquoted(line))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotation_marks_around_a_token_are_removed_in_pairs() {
        for (line, expected) in [
            ("\"abc\"", "abc"),
            ("'abc'", "abc"),
            ("abc", "abc"),
            ("\"abc", "\"abc"),
            ("\"", "\""),
        ] {
            assert_eq!(unquoted(line), expected, "{line}");
        }
    }
}
