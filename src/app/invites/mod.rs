//! Invitations: links with which the owner of a channel, a different person, consents to the application.
//!
//! What the platform sends back arrives at the web server of `watch` (`callback.rs`), minutes or hours after `auth invite` has ended,
//! so the random state and the proof of the request are in a file (`file.rs`). Unless more was requested than leave to be in the
//! channel, only the consent is recorded: an unused token can only leak.

pub mod callback;
mod file;

use secrecy::{ExposeSecret as _, SecretString};
use tracing::{info, warn};

pub use file::{Invite, InviteFile, LIFETIME_SECS, Outcome, Person};
use file::{Verifier, hash};

use super::App;
use crate::blocking::blocking;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::platforms::Platform;
use crate::platforms::descriptor::descriptor;
use crate::platforms::kit::oauth::{Accounts, CodeRequest, Grant, Undescribed, fate_of, pkce};
use crate::secrets;
use crate::tokens::{StoredToken, TokenStoreExt as _};

/// Returns the scopes of an invitation: the consent that the platform needs, and what else is wanted.
pub fn scopes(platform: PlatformName, more: &[String]) -> Vec<String> {
    let mut scopes: Vec<String> = descriptor(platform)
        .invited()
        .iter()
        .map(|&scope| scope.to_owned())
        .collect();
    for scope in more {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    scopes
}

/// Whether a token with these scopes is of use to the program.
fn is_kept(platform: PlatformName, scopes: &[String]) -> bool {
    let consent = descriptor(platform).invited();
    scopes.iter().any(|scope| !consent.contains(&scope.as_str()))
}

/// Creates a link, and returns it.
pub fn create(
    app: &App,
    accounts: &dyn Accounts,
    platform: PlatformName,
    scopes: Vec<String>,
    expected: Option<Person>,
    redirect_uri: String,
) -> Result<(Invite, url::Url), Failure> {
    let title = platform.rules().title;
    let Some(client) = accounts.client().confidential() else {
        let what = format!("a link needs the client id and the secret of the {title} application");
        let upper = platform.as_str().to_ascii_uppercase();
        return Err(Failure::new(ExitCode::Configuration, what).hint(format!(
            "set {upper}_CLIENT_ID and {upper}_CLIENT_SECRET in the environment or in `.env`"
        )));
    };
    let no_random = |_| Failure::new(ExitCode::Failed, "the system returns no random numbers");
    let state = pkce::random().map_err(no_random)?;
    let verifier = match accounts.uses_pkce() {
        true => Some(pkce::random().map_err(no_random)?),
        false => None,
    };
    let challenge = verifier
        .clone()
        .map(|text| pkce::challenge(&secrets::secret(text)));
    let words = scopes.join(" ");
    let request = CodeRequest {
        client_id: client.id,
        redirect_uri: &redirect_uri,
        scopes: &words,
        state: &state,
        challenge: challenge.as_deref(),
    };
    let link = accounts
        .consent_page(&request)
        .ok_or_else(|| Failure::new(ExitCode::Usage, format!("{title} has no page for a consent")))?;
    let now = app.clock.now();
    let invite = Invite {
        platform,
        scopes,
        expected,
        state_hash: Some(hash(&state)),
        verifier: verifier.map(Verifier),
        redirect_uri,
        created_at: now,
        expires_at: now.plus_secs(LIFETIME_SECS),
        outcome: None,
        last_failure: None,
    };
    file(app).add(invite.clone(), now)?;
    Ok((invite, link))
}

/// Returns the invitations of this configuration.
pub fn file(app: &App) -> InviteFile {
    InviteFile::of(&app.settings.state_dir)
}

/// What a browser is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Consented,
    /// The link stays valid.
    Declined,
    /// The link is unknown, used or expired.
    Unknown,
    /// Another account was expected.
    OtherAccount,
    /// The platform did not confirm the consent. The link stays valid.
    Unconfirmed,
    /// Nothing could be stored.
    Failed,
}

/// Receives the result of a consent, as the query of the redirect address.
pub async fn receive(app: &App, state: &str, result: Result<SecretString, String>) -> Received {
    let received = try_receive(app, state, result).await;
    received.unwrap_or_else(|failure| {
        warn!(error = %failure, "A consent arrived, and could not be recorded");
        Received::Failed
    })
}

async fn try_receive(
    app: &App,
    state: &str,
    result: Result<SecretString, String>,
) -> Result<Received, Failure> {
    let (file, now) = (file(app), app.clock.now());
    let (own, text) = (file.clone(), state.to_owned());
    let Ok(code) = result else {
        let found = blocking(move || own.find(&text, now)).await?;
        return Ok(found.map_or(Received::Unknown, |_| Received::Declined));
    };
    let Some(invite) = blocking(move || own.take(&text, now)).await? else {
        return Ok(Received::Unknown);
    };
    secrets::register(code.expose_secret());
    let adapter = app.platforms.get(invite.platform).await?;
    let judged = redeem(app, adapter.as_ref(), &invite, &code).await;
    let outcome = match judged {
        Ok(Judged::Decided(outcome)) => outcome,
        Ok(Judged::Unanswered(reason)) => {
            warn!(platform = %invite.platform, reason, "A consent was not confirmed; its link stays valid");
            let reason = secrets::mask_foreign(&reason).into_owned();
            blocking(move || file.give_back(&invite, reason)).await?;
            return Ok(Received::Unconfirmed);
        }
        Err(failure) => {
            let reason = failure.to_string();
            blocking(move || file.give_back(&invite, reason)).await?;
            return Err(failure);
        }
    };
    let received = match &outcome {
        Outcome::Consented { person, kept, .. } => {
            info!(platform = %invite.platform, user = %person, kept, "An invitation was accepted");
            Received::Consented
        }
        Outcome::Refused { reason, .. } => {
            warn!(platform = %invite.platform, reason, "A consent was refused; nothing was stored");
            if reason.starts_with(OTHER_ACCOUNT) {
                Received::OtherAccount
            } else {
                Received::Failed
            }
        }
    };
    blocking(move || file.finish(&invite, outcome)).await?;
    Ok(received)
}

/// Exchanges the code of a consent, and decides about the token.
async fn redeem(
    app: &App,
    adapter: &dyn Platform,
    invite: &Invite,
    code: &SecretString,
) -> Result<Judged, Failure> {
    let Some(accounts) = adapter.accounts() else {
        return Ok(Judged::Decided(refused(app, "the platform has no accounts")));
    };
    let verifier = invite.verifier.as_ref();
    let verifier = verifier.map(|verifier| secrets::secret(&*verifier.0));
    let grant = Grant::Code {
        code,
        redirect_uri: &invite.redirect_uri,
        verifier: verifier.as_ref(),
    };
    match accounts.redeem(grant).await {
        Ok(token) => judge(app, adapter, invite, token).await,
        // The code is spent, but the page of the link issues another one.
        Err(error) => Ok(Judged::Unanswered(format!(
            "{} issued no token: {error}",
            invite.platform
        ))),
    }
}

/// What follows from the use of an invitation.
pub enum Judged {
    /// It is used.
    Decided(Outcome),
    /// The platform did not answer, for this reason: the same person may try again.
    Unanswered(String),
}

/// Begins the reason for the consent of another account.
const OTHER_ACCOUNT: &str = "the consent is of ";

fn refused(app: &App, reason: &str) -> Outcome {
    Outcome::Refused {
        at: app.clock.now(),
        reason: secrets::mask_foreign(reason).into_owned(),
    }
}

/// Decides about a token with a consent: whose it is, whether that is who was invited, and whether it is kept.
pub async fn judge(
    app: &App,
    adapter: &dyn Platform,
    invite: &Invite,
    pending: StoredToken,
) -> Result<Judged, Failure> {
    let platform = invite.platform;
    let refused = |reason: &str| Ok(Judged::Decided(refused(app, reason)));
    let Some(accounts) = adapter.accounts() else {
        return refused("the platform has no accounts");
    };
    let place = Identity::named(format!("{platform}/broadcaster"));
    let token = match accounts.describe(&place, &pending).await {
        Ok(token) => token,
        Err(Undescribed::Refused) => {
            return refused(&format!("{platform} rejects the token of this consent"));
        }
        Err(Undescribed::Unclear(error)) => {
            let fate = fate_of(platform, accounts.revoke(&pending).await);
            return Ok(Judged::Unanswered(format!(
                "{platform} did not answer whose consent this is: {error}; {fate}"
            )));
        }
    };
    let Some(id) = token.user_id.clone() else {
        return refused(&format!("{platform} does not return whose consent this is"));
    };
    let login = match token.login.clone() {
        Some(login) => Some(login),
        None => adapter.user_name(&id).await,
    };
    let person = Person {
        id: Some(id.clone()),
        login,
    };
    if let Some(expected) = invite
        .expected
        .as_ref()
        .filter(|expected| !is_same(expected, &person))
    {
        let fate = fate_of(platform, accounts.revoke(&pending).await);
        return refused(&format!(
            "{OTHER_ACCOUNT}{person}, and {expected} was invited; {fate}"
        ));
    }
    let lacks = |scope: &&String| !token.scopes.is_empty() && !token.scopes.contains(*scope);
    if let Some(missing) = invite.scopes.iter().find(lacks) {
        let fate = fate_of(platform, accounts.revoke(&pending).await);
        return refused(&format!("{person} did not agree to {missing}; {fate}"));
    }
    let kept = is_kept(platform, &invite.scopes);
    if kept {
        let identity = Identity::named(format!("{platform}/broadcaster:{id}"));
        let lease = app.tokens().lease(&identity).await?;
        let mut record = lease.load().await?;
        record.token = Some(StoredToken {
            refresh: pending.refresh,
            ..token
        });
        record.pending = None;
        lease.save(&record).await?;
    }
    Ok(Judged::Decided(Outcome::Consented {
        at: app.clock.now(),
        person,
        kept,
    }))
}

fn is_same(expected: &Person, person: &Person) -> bool {
    match (&expected.id, &person.id) {
        (Some(expected), Some(id)) => expected == id,
        _ => match (&expected.login, &person.login) {
            (Some(expected), Some(login)) => expected.eq_ignore_ascii_case(login),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_scopes_are_requested_and_only_more_are_kept() {
        assert_eq!(scopes(PlatformName::Twitch, &[]), ["channel:bot"]);
        let more = scopes(
            PlatformName::Twitch,
            &["moderation:read".to_owned(), "channel:bot".to_owned()],
        );
        assert_eq!(more, ["channel:bot", "moderation:read"]);
        assert!(!is_kept(PlatformName::Twitch, &scopes(PlatformName::Twitch, &[])));
        assert!(is_kept(PlatformName::Twitch, &more));
        assert!(!is_kept(PlatformName::Kick, &scopes(PlatformName::Kick, &[])));
    }

    #[test]
    fn invited_person_is_compared_by_id_where_it_is_known() {
        let person = |id: Option<&str>, login: &str| Person {
            id: id.map(str::to_owned),
            login: Some(login.to_owned()),
        };
        let came = person(Some("7"), "RatCaster");
        for (expected, same) in [
            (person(Some("7"), "old_name"), true),
            (person(Some("8"), "ratcaster"), false),
            (person(None, "ratcaster"), true),
            (person(None, "other"), false),
        ] {
            assert_eq!(is_same(&expected, &came), same, "{expected}");
        }
    }
}
