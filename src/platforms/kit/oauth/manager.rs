//! Provides tokens for calls, and another one after a refusal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OnceCell;

use super::accounts::of_other_account;
use super::incident::Refusals;
use super::provider::{Access, Credentials, Grant, GrantError, Granted, Provider};
use crate::clock::{Chance, Clock};
use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::{Refresh, TokenCheck, TokenStatus};
use crate::tokens::{
    RefreshState, Snapshot, StoredToken, TokenError, TokenKind, TokenStore, TokenStoreExt as _, login_command,
};

/// Application tokens live for weeks; a new one is requested on the last day.
const APP_TOKEN_MARGIN_SECS: i64 = 86_400;
/// Time between attempts to refresh a token before it expires.
const EARLY_RETRY_MS: i64 = 60_000;
/// By which part of the margin before its expiry a token is refreshed earlier at most, so that several machines do not do it at once.
const JITTER: f64 = 0.1;
/// How long a refused client id or secret is not tried again: it needs attention first.
const REJECTED_CLIENT_PAUSE: Duration = Duration::from_mins(10);

/// Keeps the tokens of one platform usable.
pub struct TokenManager<P> {
    pub(super) provider: P,
    pub(super) store: Arc<dyn TokenStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) chance: Chance,
    accounts: Mutex<HashMap<Identity, Account>>,
    /// Refused refresh tokens that may be an incident of the platform.
    pub(super) refusals: Mutex<Refusals>,
    /// Checks in progress; concurrent callers of the same check wait for its result.
    pub(super) in_progress: Mutex<HashMap<Identity, Arc<OnceCell<TokenCheck>>>>,
    /// Client ids that the platform rejected: when, and its reason.
    rejected_clients: Mutex<HashMap<String, (Timestamp, String)>>,
}

/// What this process has found out about an access token.
#[derive(Debug)]
pub(super) struct Account {
    access: SecretString,
    /// When the platform last accepted it.
    pub(super) accepted_at: Option<Timestamp>,
    /// When a refresh before its expiry was last attempted.
    early_attempt: Option<Timestamp>,
    /// When a granted pair was last tried to be stored.
    adoption_attempt: Option<Timestamp>,
    /// How much earlier than it has to be the token is refreshed, in parts of [`JITTER`].
    jitter: f64,
    /// Whether the platform has accepted it without listing its scopes.
    pub(super) scopes_unknown: bool,
    pub(super) last_check: Option<TokenCheck>,
}

impl Account {
    fn of(access: &SecretString, jitter: f64) -> Self {
        Self {
            access: access.clone(),
            accepted_at: None,
            early_attempt: None,
            adoption_attempt: None,
            jitter,
            scopes_unknown: false,
            last_check: None,
        }
    }
}

impl<P: Provider> TokenManager<P> {
    /// Manages the tokens in `store`.
    pub fn new(provider: P, store: Arc<dyn TokenStore>, clock: Arc<dyn Clock>, chance: Chance) -> Self {
        Self {
            provider,
            store,
            clock,
            chance,
            accounts: Mutex::default(),
            refusals: Mutex::default(),
            in_progress: Mutex::default(),
            rejected_clients: Mutex::default(),
        }
    }

    /// Returns the platform's accounts that have a token, the bot's first.
    pub async fn identities(&self) -> Result<Vec<Identity>, PlatformError> {
        let mut identities = self.store.identities().await.map_err(unusable_store::<P>)?;
        identities.retain(|identity| {
            let platform = identity.as_str().split_once('/').map(|(platform, _)| platform);
            platform == Some(P::PLATFORM.as_str())
        });
        identities.sort_by_key(|identity| (identity.as_str() != P::BOT, identity.clone()));
        Ok(identities)
    }

    /// Returns whether a token of the application itself can be obtained.
    pub fn can_be_app(&self) -> bool {
        self.provider.client().confidential().is_some()
    }

    /// Returns the stored token of `identity`, usable or not.
    pub async fn stored(&self, identity: &Identity) -> Result<Option<StoredToken>, PlatformError> {
        self.store.load(identity).await.map_err(unusable_store::<P>)
    }

    /// Returns a usable token of `identity`, refreshed if due. Missing account details are requested first.
    pub async fn access(&self, identity: &Identity, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        let (mut token, _) = self.current(identity, meter).await?;
        let of_known_owner = token.user_id.is_some() || token.kind == TokenKind::App;
        if P::VALIDATION_NAMES_OWNER {
            if !of_known_owner || token.client_id.is_none() {
                token = usable::<P>(self.check(identity, meter).await?)?;
            }
        } else if !of_known_owner {
            self.look_up_owner(&mut token, meter).await?;
            self.require_owner(identity, &token, None)?;
            if token.user_id.is_some() {
                self.amend(identity, &token).await?;
            }
        }
        self.as_access(identity, token)
    }

    /// Returns a better token after the platform rejected `used` with `reason`: one that another task or process has stored
    /// meanwhile, or a refreshed one. `None` when validation accepts `used`, so the rejection had another cause.
    pub async fn after_refusal(
        &self,
        used: &Access,
        reason: &str,
        meter: &Meter<'_>,
    ) -> Result<Option<Access>, PlatformError> {
        let identity = &used.identity;
        if P::REPLACES_REFUSED_APP_TOKEN && identity.as_str() == P::APP {
            let token = self.app_token(Some(&used.token), meter).await?;
            return self.as_access(identity, token).map(Some);
        }
        let stored = self
            .stored(identity)
            .await?
            .ok_or_else(|| no_token::<P>(identity))?;
        if !is_same(&stored.access, &used.token) {
            return self.as_access(identity, stored).map(Some);
        }
        let mut check = self.check_once(identity, Some(reason), meter).await?;
        // The failure is the validation's, not that of the call whose token was refused.
        check.error = check.error.filter(|error| {
            !matches!(
                error,
                PlatformError::Unavailable { .. }
                    | PlatformError::Unreadable { .. }
                    | PlatformError::RateLimited { .. }
            )
        });
        let token = usable::<P>(check)?;
        if is_same(&token.access, &used.token) {
            return Ok(None);
        }
        self.as_access(identity, token).map(Some)
    }

    /// Records that the platform has just accepted a token in a call.
    pub fn note_accepted(&self, used: &Access) {
        let now = self.clock.now();
        let mut accounts = self.accounts.lock();
        let account = accounts.get_mut(&used.identity);
        if let Some(account) = account.filter(|account| is_same(&account.access, &used.token)) {
            account.accepted_at = Some(now);
        }
    }

    /// Returns whether the platform has accepted the token of an account since `start`.
    pub fn was_accepted_since(&self, identity: &Identity, start: Timestamp) -> bool {
        let accounts = self.accounts.lock();
        let accepted_at = accounts.get(identity).and_then(|account| account.accepted_at);
        accepted_at.is_some_and(|at| at >= start)
    }

    /// Returns which required scopes the token of a user lacks, with their purposes.
    pub fn missing_scopes(
        &self,
        identity: &Identity,
        token: &StoredToken,
    ) -> Vec<(&'static str, &'static str)> {
        if token.user_id.is_none() || self.account(identity, token, |account| account.scopes_unknown) {
            return Vec::new();
        }
        let required = self.provider.required_scopes(identity).iter().copied();
        required
            .filter(|(scope, _)| !token.scopes.contains(*scope))
            .collect()
    }

    /// Returns the current token of `identity`: the application's is requested if none lasts, a user's is refreshed if due. If
    /// that refresh failed, its result is returned too; the token may still be valid.
    pub(super) async fn current(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, Option<Refresh>), PlatformError> {
        let now = self.clock.now();
        let mut stored = self.stored(identity).await?;
        if let Some(token) = &stored
            && self
                .store
                .journal()
                .get(identity)
                .await
                .map_err(unusable_store::<P>)?
                .is_some()
            && self.account(identity, token, |account| {
                is_time(&mut account.adoption_attempt, now)
            })
        {
            self.adopt(identity, meter).await?;
            stored = self.stored(identity).await?;
        }
        if identity.as_str() == P::APP {
            let token = match stored.filter(|token| self.is_lasting(token)) {
                Some(token) => token,
                None => self.app_token(None, meter).await?,
            };
            return Ok((token, None));
        }
        let token = stored.ok_or_else(|| no_token::<P>(identity))?;
        let jitter = self.account(identity, &token, |account| account.jitter);
        let is_due = is_due(&token, jitter, now) && can_refresh(&token) && self.store.renews(identity);
        if !is_due
            || !self.account(identity, &token, |account| {
                is_time(&mut account.early_attempt, now)
            })
        {
            return Ok((token, None));
        }
        let (token, refresh) = self.refresh(identity, &token, false, meter).await?;
        Ok((token, Some(refresh).filter(|refresh| *refresh != Refresh::Done)))
    }

    /// Returns a token of the application: the stored one if it is usable, also if another task or process stored it just now,
    /// else a new one. `rejected` was rejected by the platform and is never returned.
    pub(super) async fn app_token(
        &self,
        rejected: Option<&SecretString>,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let lease = self.store.lease(&Identity::named(P::APP)).await;
        let lease = lease.map_err(unusable_store::<P>)?;
        let mut record = lease.load().await.map_err(unusable_store::<P>)?;
        let is_other =
            |token: &&StoredToken| rejected.is_none_or(|rejected| !is_same(rejected, &token.access));
        let stored = record.token.as_ref().filter(is_other);
        if let Some(token) = stored.filter(|token| self.is_lasting(token)) {
            return Ok(token.clone());
        }
        let credentials = self.provider.client().confidential();
        let client = credentials.ok_or_else(|| self.provider.no_client())?;
        let granted = match self.exchange(client, Grant::ClientCredentials, meter).await {
            Ok(granted) => granted,
            Err(GrantError::ClientRejected(reason)) => return Err(self.provider.client_rejected(reason)),
            // An error about a user's grant, which this request does not have, is no answer to it.
            Err(GrantError::Gone(reason) | GrantError::NotGranted(reason)) => {
                return Err(PlatformError::Unreadable {
                    platform: P::PLATFORM,
                    operation: "a token",
                    reason: format!("a request without a refresh token was refused for it: {reason}"),
                });
            }
            Err(GrantError::NoEffect(error) | GrantError::Lost(error) | GrantError::Foreign(error)) => {
                return Err(error);
            }
        };
        let now = self.clock.now();
        let token = StoredToken {
            kind: TokenKind::App,
            client_id: Some(client.id.to_owned()),
            expires_at: granted.expires_at(now),
            ..StoredToken::unproven(granted.access_token, now)
        };
        record.replace_token(Some(token.clone()));
        lease.save(&record).await.map_err(unusable_store::<P>)?;
        Ok(token)
    }

    /// Exchanges a grant, unless the platform has just rejected the application.
    pub(super) async fn exchange(
        &self,
        client: Credentials<'_>,
        grant: Grant<'_>,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantError> {
        let now = self.clock.now();
        let refused = self.rejected_clients.lock().get(client.id).cloned();
        if let Some((at, reason)) = refused
            && at.is_recent(REJECTED_CLIENT_PAUSE, now)
        {
            return Err(GrantError::ClientRejected(reason));
        }
        let outcome = self.provider.exchange(client, grant, meter).await;
        let mut refused = self.rejected_clients.lock();
        match &outcome {
            Err(GrantError::ClientRejected(reason)) => {
                refused.insert(client.id.to_owned(), (now, reason.clone()));
            }
            _ => drop(refused.remove(client.id)),
        }
        outcome
    }

    /// Changes what is known about the token of an account, which was just read from the store. After a login or a refresh,
    /// by any process, nothing that was found out about the previous token applies.
    pub(super) fn account<T>(
        &self,
        identity: &Identity,
        token: &StoredToken,
        change: impl FnOnce(&mut Account) -> T,
    ) -> T {
        let mut accounts = self.accounts.lock();
        let account = accounts
            .entry(identity.clone())
            .or_insert_with(|| Account::of(&token.access, self.chance.fraction()));
        if !is_same(&account.access, &token.access) {
            *account = Account::of(&token.access, self.chance.fraction());
        }
        change(account)
    }

    /// Returns the last check of `identity` by this process.
    pub fn last_check(&self, identity: &Identity) -> Option<TokenCheck> {
        self.accounts.lock().get(identity)?.last_check.clone()
    }

    pub(super) async fn read(&self, identity: &Identity) -> Result<Snapshot, PlatformError> {
        self.store.read(identity).await.map_err(unusable_store::<P>)
    }

    /// Stores what is known about a token, unless it was replaced meanwhile. The refresh token stays as it is stored.
    pub(super) async fn amend(&self, identity: &Identity, known: &StoredToken) -> Result<(), PlatformError> {
        let lease = self.store.lease(identity).await.map_err(unusable_store::<P>)?;
        let mut record = lease.load().await.map_err(unusable_store::<P>)?;
        if !self.store.renews(identity) {
            return Ok(());
        }
        let current = record.token.as_mut();
        if let Some(current) = current.filter(|current| is_same(&current.access, &known.access)) {
            let refresh = current.refresh.take();
            *current = StoredToken {
                refresh,
                ..known.clone()
            };
            lease.save(&record).await.map_err(unusable_store::<P>)?;
        }
        Ok(())
    }

    /// Completes a token with the user that it belongs to, if the platform returns it.
    pub(super) async fn look_up_owner(
        &self,
        token: &mut StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(), PlatformError> {
        if let Some(owner) = self.provider.owner(&token.access, meter).await? {
            token.user_id = Some(owner.user_id);
            token.login = owner.login;
        }
        Ok(())
    }

    /// Fails when a token does not belong to the account of `identity`. Such a token is never used: the bot would act as another
    /// user, and the results would be about that user. `known` is the owner so far.
    pub(super) fn require_owner(
        &self,
        identity: &Identity,
        token: &StoredToken,
        known: Option<&str>,
    ) -> Result<(), PlatformError> {
        let expected = self
            .provider
            .owner_of(identity)
            .or_else(|| known.map(str::to_owned));
        let Some(expected) = expected else {
            return Ok(());
        };
        let owner = match &token.user_id {
            Some(id) if *id == expected => return Ok(()),
            Some(id) => format!("user {id}"),
            None if token.kind == TokenKind::App => "the application itself".to_owned(),
            None => return Ok(()),
        };
        Err(of_other_account::<P>(identity, &expected, &owner))
    }

    fn as_access(&self, identity: &Identity, token: StoredToken) -> Result<Access, PlatformError> {
        if token.kind == TokenKind::User {
            self.require_owner(identity, &token, None)?;
        }
        let scopes_unknown = self.account(identity, &token, |account| account.scopes_unknown);
        Ok(Access {
            identity: identity.clone(),
            token: token.access,
            client_id: token.client_id.or_else(|| self.provider.client().id.clone()),
            user_id: token.user_id,
            scopes: token.scopes,
            scopes_known: !scopes_unknown,
        })
    }

    /// Returns whether a token of the application can be used for a while: it is of this client id and not in its last day.
    fn is_lasting(&self, token: &StoredToken) -> bool {
        let now = self.clock.now();
        let lasts = |end: Timestamp| now < end.plus_secs(-APP_TOKEN_MARGIN_SECS);
        let client_id = &self.provider.client().id;
        token.expires_at.is_none_or(lasts) && (client_id.is_none() || token.client_id == *client_id)
    }
}

/// Returns whether both are the same token.
pub(super) fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Returns whether a token should be refreshed before it is rejected: in the last tenth of its lifetime, at least in the last five
/// minutes, and a little earlier by `jitter`, which is between 0 and 1.
pub(super) fn is_due(token: &StoredToken, jitter: f64, now: Timestamp) -> bool {
    token.expires_at.is_some_and(|end| {
        let margin = (end.millis_since(token.obtained_at) / 10).max(5 * 60_000);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "a part of some minutes"
        )]
        let earlier = (margin as f64 * JITTER * jitter) as i64;
        now >= end.plus_millis(-margin - earlier)
    })
}

/// Returns whether the last attempt was long enough ago for another one, which is noted.
fn is_time(last: &mut Option<Timestamp>, now: Timestamp) -> bool {
    let is_recent = last.is_some_and(|last| now.millis_since(last).abs() < EARLY_RETRY_MS);
    if !is_recent {
        *last = Some(now);
    }
    !is_recent
}

/// Returns whether a refresh of the token may succeed: its refresh token was not refused.
fn can_refresh(token: &StoredToken) -> bool {
    let refresh = token.refresh.as_ref();
    refresh.is_some_and(|refresh| !matches!(refresh.state, RefreshState::Refused { .. }))
}

/// Returns the token of an account whose check found it valid.
fn usable<P: Provider>(check: TokenCheck) -> Result<StoredToken, PlatformError> {
    match (check.status, check.error) {
        (TokenStatus::Valid, _) => Ok(check.token),
        (_, Some(error)) => Err(error),
        // The check or the refresh was not answered. That is transient, so it is no rejection of the credentials.
        (TokenStatus::Unknown(reason), None) => Err(PlatformError::Unavailable {
            platform: P::PLATFORM,
            operation: "a usable token",
            reason,
            code: Code::TokenUnchecked(P::PLATFORM),
        }),
        (status, None) => Err(PlatformError::Unauthorized {
            platform: P::PLATFORM,
            reason: status.reason().unwrap_or_default().to_owned(),
        }),
    }
}

pub(super) fn no_token<P: Provider>(identity: &Identity) -> PlatformError {
    let command = login_command(identity.as_str());
    PlatformError::NotConfigured {
        platform: P::PLATFORM,
        what: format!("a token for `{identity}`: run `{command}`"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(super) fn unusable_store<P: Provider>(error: TokenError) -> PlatformError {
    PlatformError::of_token_store(P::PLATFORM, &error)
}
