//! Logins of one platform, for the commands that manage accounts.

use async_trait::async_trait;
use url::Url;

use super::manager::{TokenManager, no_token};
use super::provider::{Client, CodeRequest, DeviceCode, Grant, GrantError, Granted, Provider, Validation};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::{Refresh, TokenCheck};
use crate::tokens::{RefreshToken, StoredToken, TokenKind, login_command};

/// What the accounts of a platform with OAuth allow. Except for [`Accounts::refresh_now`] nothing here touches the token store.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Returns the configured application.
    fn client(&self) -> &Client;

    /// Returns whether an authorization code needs the proof of PKCE.
    fn uses_pkce(&self) -> bool;

    /// Returns the id of the user that a token of `identity` must belong to, as far as its name or the configuration determines it.
    fn owner_of(&self, identity: &Identity) -> Option<String>;

    /// Returns the address at which a user consents in a browser.
    fn consent_page(&self, request: &CodeRequest<'_>) -> Option<Url>;

    /// Requests a code that a user confirms on any device; `None` if the platform has no such login.
    async fn start_device(&self, scopes: &str) -> Option<Result<DeviceCode, GrantError>>;

    /// Exchanges the code of a login for a token. Nothing but the token itself has to be as documented: the code is spent.
    async fn redeem(&self, grant: Grant<'_>) -> Result<StoredToken, GrantError>;

    /// Completes a token with the data that the platform returns about it: its user, application, scopes and expiry.
    async fn describe(&self, identity: &Identity, token: &StoredToken) -> Result<StoredToken, Undescribed>;

    /// Refreshes the stored token of `identity` now, and checks the result.
    async fn refresh_now(&self, identity: &Identity) -> Result<(Refresh, TokenCheck), PlatformError>;

    /// Revokes a token at the platform. Returns what stays valid there, if anything does.
    async fn revoke(&self, token: &StoredToken) -> Result<Option<&'static str>, PlatformError>;
}

/// Says what became of a token that was granted and is not kept, from the result of its revocation.
pub fn fate_of(platform: PlatformName, revoked: Result<Option<&'static str>, PlatformError>) -> String {
    match revoked {
        Ok(None) => format!("the token was revoked at {platform}"),
        Ok(Some(rest)) => format!("the access token was revoked at {platform}; not revoked: {rest}"),
        Err(error) => format!("the token was not revoked, and is valid until it expires: {error}"),
    }
}

/// Says what became of a token of another user that was found in the place of `identity`, and what to do.
pub fn left_alone(identity: &Identity) -> String {
    let command = login_command(identity.as_str());
    format!("it is not used, and was not revoked: run `{command}`")
}

/// Builds the error for a token of `owner` in the place of `identity`, which is of the user `expected`.
pub(super) fn of_other_account<P: Provider>(
    identity: &Identity,
    expected: &str,
    owner: &str,
) -> PlatformError {
    PlatformError::OtherAccount {
        platform: P::PLATFORM,
        what: format!(
            "a token of user {expected} for `{identity}`, but the one at hand belongs to {owner}; {} as user {expected}",
            left_alone(identity)
        ),
    }
}

/// Why a token could not be described.
#[derive(Debug)]
pub enum Undescribed {
    /// The platform rejects it.
    Refused,
    /// There was no conclusive answer.
    Unclear(PlatformError),
}

#[async_trait]
impl<P: Provider> Accounts for TokenManager<P> {
    fn client(&self) -> &Client {
        self.provider.client()
    }

    fn uses_pkce(&self) -> bool {
        P::PKCE
    }

    fn owner_of(&self, identity: &Identity) -> Option<String> {
        self.provider.owner_of(identity)
    }

    fn consent_page(&self, request: &CodeRequest<'_>) -> Option<Url> {
        self.provider.consent_page(request)
    }

    async fn start_device(&self, scopes: &str) -> Option<Result<DeviceCode, GrantError>> {
        let Some(client) = self.provider.client().credentials() else {
            return Some(Err(GrantError::NoEffect(self.provider.no_client())));
        };
        self.provider.start_device(client, scopes, &Meter::silent()).await
    }

    async fn redeem(&self, grant: Grant<'_>) -> Result<StoredToken, GrantError> {
        let client = self.provider.client().credentials();
        let client = client.ok_or_else(|| GrantError::NoEffect(self.provider.no_client()))?;
        let granted = self.exchange(client, grant, &Meter::silent()).await?;
        Ok(first_token(granted, client.id, self.clock.now()))
    }

    async fn describe(&self, identity: &Identity, token: &StoredToken) -> Result<StoredToken, Undescribed> {
        let meter = Meter::silent();
        let mut token = match self.provider.validate(identity, token, None, &meter).await {
            Validation::Accepted(described) => described.token,
            Validation::Refused(_) => return Err(Undescribed::Refused),
            Validation::Unclear(error) => return Err(Undescribed::Unclear(error)),
        };
        if token.user_id.is_none() && token.kind == TokenKind::User {
            let looked_up = self.look_up_owner(&mut token, &meter).await;
            looked_up.map_err(Undescribed::Unclear)?;
        }
        Ok(token)
    }

    async fn refresh_now(&self, identity: &Identity) -> Result<(Refresh, TokenCheck), PlatformError> {
        let meter = Meter::silent();
        let stored = self.stored(identity).await?;
        let refresh = if identity.as_str() == P::APP {
            let dead = stored.as_ref().map(|token| &token.access);
            self.app_token(dead, &meter).await.map(|_| Refresh::Done)?
        } else {
            let stored = stored.ok_or_else(|| no_token::<P>(identity))?;
            self.refresh(identity, &stored, false, &meter).await?.1
        };
        Ok((refresh, self.check(identity, &meter).await?))
    }

    async fn revoke(&self, token: &StoredToken) -> Result<Option<&'static str>, PlatformError> {
        let client = self.provider.client().of(token);
        let client = client.ok_or_else(|| self.provider.no_client())?;
        self.provider.revoke(client, token, &Meter::silent()).await
    }
}

/// Returns the first token of a login as it is stored.
fn first_token(granted: Granted, client_id: &str, now: Timestamp) -> StoredToken {
    StoredToken {
        expires_at: granted.expires_at(now),
        refresh: Some(granted.refresh_token)
            .filter(|text| !text.is_empty())
            .map(RefreshToken::fresh),
        client_id: Some(client_id.to_owned()),
        scopes: granted.scope.unwrap_or_default(),
        ..StoredToken::unproven(granted.access_token, now)
    }
}
