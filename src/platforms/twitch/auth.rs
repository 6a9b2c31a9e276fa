//! Tokens as this platform needs them: usable ones for calls, and how each identity's authorisation stands.
//!
//! The rules are in `standing`; here is the order of effects. A new pair is kept before it is used, a refresh token is
//! marked before it is sent, and both happen under the identity's lease, so that neither another task nor another
//! process sends the same one-time token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

use super::meter::Meter;
use super::oauth::{GrantFailure, OAuth};
use super::options::{APP, BOT, broadcaster_of};
use super::standing::{Renewal, Standing, Validation, after_refusal, is_due};
use super::wire::{Granted, Validated};
use crate::clock::Clock;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::tokens::{
    RefreshState, RefreshToken, StoredToken, TokenError, TokenKind, TokenLease, TokenRecord, TokenStore,
};

/// Application tokens live about 60 days and are simply fetched again in their last one.
const APP_TOKEN_MARGIN_SECS: i64 = 86_400;

/// Pause between attempts to renew ahead of time.
const EARLY_PAUSE_MS: i64 = 60_000;

/// Everything a call needs to be authorised.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) identity: Identity,
    pub(super) token: SecretString,
    pub(super) client_id: String,
    pub(super) user_id: Option<String>,
    pub(super) scopes: std::collections::BTreeSet<String>,
}

impl Access {
    /// Returns the name of the rate-limit bucket that calls with this token draw from.
    pub(super) fn bucket(&self) -> String {
        let user = self.user_id.as_deref().unwrap_or("app");
        format!("{}/{user}", self.client_id)
    }

    /// Returns whether one of `scopes` was granted.
    pub(super) fn has_scope(&self, scopes: &[&str]) -> bool {
        scopes.iter().any(|scope| self.scopes.contains(*scope))
    }
}

/// The outcome of looking at an identity's authorisation.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) standing: Standing,
    /// The token as it is kept now.
    pub(super) token: StoredToken,
    /// Why nothing is known, where that is so.
    pub(super) error: Option<PlatformError>,
}

/// Keeps this platform's tokens usable.
pub(super) struct Auth {
    pub(super) oauth: OAuth,
    pub(super) store: Arc<dyn TokenStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<SecretString>,
    pub(super) bot_user_id: Option<String>,
    /// Pairs that were granted but could not be kept yet. They are not used before they are.
    unsaved: Mutex<HashMap<Identity, Unsaved>>,
    /// When renewing ahead of time was last tried.
    tried_early: Mutex<HashMap<Identity, Timestamp>>,
}

struct Unsaved {
    replaces: SecretString,
    record: TokenRecord,
}

impl Auth {
    pub(super) fn new(
        oauth: OAuth,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        options: &super::TwitchOptions,
    ) -> Self {
        Self {
            oauth,
            store,
            clock,
            client_id: options.client_id.clone(),
            client_secret: options.client_secret.clone(),
            bot_user_id: options.bot_user_id.clone(),
            unsaved: Mutex::default(),
            tried_early: Mutex::default(),
        }
    }

    /// Returns this platform's identities that have a token, the bot first.
    pub(super) async fn identities(&self) -> Result<Vec<Identity>, PlatformError> {
        let mut identities = self.store.identities().await.map_err(unusable_store)?;
        identities.retain(|identity| identity.as_str().starts_with("twitch/"));
        identities.sort_by_key(|identity| (identity.as_str() != BOT, identity.clone()));
        Ok(identities)
    }

    /// Returns whether a token for the application itself can be had.
    pub(super) fn can_be_app(&self) -> bool {
        self.client_id.is_some() && self.client_secret.is_some()
    }

    /// Returns a usable token of `identity`, renewed where it is due. What is not known yet about it is asked for.
    pub(super) async fn access(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Access, PlatformError> {
        self.keep_unsaved(identity).await?;
        let now = self.clock.now();
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        if identity.as_str() == APP {
            let lasting = |token: &StoredToken| self.is_lasting_app_token(token, now);
            if let Some(token) = stored.filter(lasting) {
                return self.as_access(identity, token);
            }
            let lease = self.store.lease(identity).await.map_err(unusable_store)?;
            let current = lease.load().await.map_err(unusable_store)?.token;
            let token = match current.filter(lasting) {
                Some(fetched_meanwhile) => fetched_meanwhile,
                None => self.fetch_app_token(lease.as_ref(), meter).await?,
            };
            return self.as_access(identity, token);
        }
        let mut token = stored.ok_or_else(|| no_token(identity))?;
        if token.refresh.is_some()
            && is_due(token.obtained_at, token.expires_at, now)
            && self.may_try_early(identity, now)
        {
            // A failure here is no news: the token may still be good, and if not, its refusal is examined.
            token = self.renew_early(identity, token, meter).await?;
        }
        let proven = token.client_id.is_some() && (token.user_id.is_some() || token.kind == TokenKind::App);
        if !proven {
            let checked = self.check(identity, meter).await?;
            match (checked.standing, checked.error) {
                (Standing::Valid, _) => token = checked.token,
                (_, Some(error)) => return Err(error),
                (Standing::Expired(reason) | Standing::Revoked(reason) | Standing::Unknown(reason), None) => {
                    return Err(refused(reason));
                }
            }
        }
        self.as_access(identity, token)
    }

    /// Returns a better token after Twitch refused `used`: the one that somebody else has stored meanwhile, or a renewed
    /// one. `None` when `validate` says that `used` is good, so the refusal was about something else.
    pub(super) async fn after_refusal(
        &self,
        used: &Access,
        meter: &Meter<'_>,
    ) -> Result<Option<Access>, PlatformError> {
        let identity = &used.identity;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let stored = stored.ok_or_else(|| no_token(identity))?;
        if !same(&stored.access, &used.token) {
            return self.as_access(identity, stored).map(Some);
        }
        let checked = self.check(identity, meter).await?;
        match (checked.standing, checked.error) {
            (Standing::Valid, _) if same(&checked.token.access, &used.token) => Ok(None),
            (Standing::Valid, _) => self.as_access(identity, checked.token).map(Some),
            (_, Some(error)) => Err(error),
            (Standing::Expired(reason) | Standing::Revoked(reason) | Standing::Unknown(reason), None) => {
                Err(refused(reason))
            }
        }
    }

    /// Looks how the authorisation of `identity` stands, renewing its token where that is what it takes.
    ///
    /// The error is for what is no answer about the authorisation: no token, an unusable token store, a token of
    /// somebody else.
    pub(super) async fn check(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Checked, PlatformError> {
        self.keep_unsaved(identity).await?;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let mut token = match stored {
            Some(token) => token,
            None if identity.as_str() == APP => {
                let lease = self.store.lease(identity).await.map_err(unusable_store)?;
                self.fetch_app_token(lease.as_ref(), meter).await?
            }
            None => return Err(no_token(identity)),
        };
        // Twice at most: a refusal is answered by a renewal, or by finding that another process has renewed.
        let mut renewed = false;
        loop {
            match self.oauth.validate(&token.access, meter).await {
                Ok(validated) => {
                    let token = self.learn(identity, token, validated).await?;
                    return Ok(Checked {
                        standing: Standing::Valid,
                        token,
                        error: None,
                    });
                }
                Err(PlatformError::Unauthorized { reason, .. }) if renewed => {
                    let standing =
                        Standing::Unknown(format!("a token that was just issued is refused: {reason}"));
                    return Ok(Checked {
                        standing,
                        token,
                        error: Some(refused(reason)),
                    });
                }
                Err(PlatformError::Unauthorized { .. }) => {
                    let lease = self.store.lease(identity).await.map_err(unusable_store)?;
                    let mut record = lease.load().await.map_err(unusable_store)?;
                    let current = record.token.clone().ok_or_else(|| no_token(identity))?;
                    renewed = true;
                    if !same(&current.access, &token.access) {
                        token = current;
                        continue;
                    }
                    let renewal = self
                        .renew(identity, lease.as_ref(), &mut record, Validation::Refused, meter)
                        .await?;
                    let standing = after_refusal(&renewal, token.expires_at, self.clock.now());
                    token = record.token.unwrap_or(token);
                    if renewal != Renewal::Renewed {
                        return Ok(Checked {
                            standing,
                            token,
                            error: None,
                        });
                    }
                }
                // A refresh that Twitch granted is proof enough when validating it fails for another reason.
                Err(error) => {
                    let standing = if renewed {
                        Standing::Valid
                    } else {
                        Standing::Unknown(error.to_string())
                    };
                    let error = (!renewed).then_some(error);
                    return Ok(Checked {
                        standing,
                        token,
                        error,
                    });
                }
            }
        }
    }

    /// Takes what `validate` told into the store, after checking that the token is whose it should be.
    async fn learn(
        &self,
        identity: &Identity,
        token: StoredToken,
        validated: Validated,
    ) -> Result<StoredToken, PlatformError> {
        let told = validated.user_id.filter(|id| !id.is_empty());
        self.refuse_strangers(identity, told.as_deref(), token.user_id.as_deref())?;
        let now = self.clock.now();
        let kind = if told.is_some() {
            TokenKind::User
        } else {
            TokenKind::App
        };
        // 0 stands for a token that never ends; a negative figure is a server's that does not check ends.
        let expires_at = validated
            .expires_in
            .filter(|seconds| *seconds > 0)
            .map(|seconds| now.plus_secs(seconds));
        let ends_elsewhere = match (token.expires_at, expires_at) {
            (Some(known), Some(told)) => known.millis_since(told).abs() > 60_000,
            (known, told) => known != told,
        };
        let mut learnt = token.clone();
        learnt.kind = kind;
        learnt.client_id = Some(validated.client_id);
        learnt.user_id = told;
        learnt.login = validated.login.filter(|login| !login.is_empty());
        learnt.scopes = validated.scopes.into_iter().collect();
        if ends_elsewhere {
            learnt.expires_at = expires_at;
        }
        let news = ends_elsewhere
            || (learnt.kind, &learnt.client_id, &learnt.user_id)
                != (token.kind, &token.client_id, &token.user_id)
            || (&learnt.login, &learnt.scopes) != (&token.login, &token.scopes);
        if news {
            let lease = self.store.lease(identity).await.map_err(unusable_store)?;
            let mut record = lease.load().await.map_err(unusable_store)?;
            if let Some(current) = record
                .token
                .as_mut()
                .filter(|current| same(&current.access, &learnt.access))
            {
                let refresh = current.refresh.take();
                *current = StoredToken {
                    refresh,
                    ..learnt.clone()
                };
                lease.save(&record).await.map_err(unusable_store)?;
            }
        }
        Ok(learnt)
    }

    /// Fails when a token is not of the account that `identity` stands for. Such a token is never used: the bot would
    /// act, and be judged, as somebody else.
    fn refuse_strangers(
        &self,
        identity: &Identity,
        told: Option<&str>,
        known: Option<&str>,
    ) -> Result<(), PlatformError> {
        let meant = match identity.as_str() {
            BOT => self.bot_user_id.as_deref(),
            _ => broadcaster_of(identity),
        };
        let Some(meant) = meant.or(known) else {
            return Ok(());
        };
        if told == Some(meant) {
            return Ok(());
        }
        let owner = told.map_or_else(|| "the application itself".to_owned(), |id| format!("user {id}"));
        Err(PlatformError::NotConfigured {
            platform: PlatformName::Twitch,
            what: format!("a token of user {meant} for `{identity}`, but the stored one belongs to {owner}"),
        })
    }

    fn as_access(&self, identity: &Identity, token: StoredToken) -> Result<Access, PlatformError> {
        if token.kind == TokenKind::User {
            self.refuse_strangers(identity, token.user_id.as_deref(), None)?;
        }
        let client_id = token.client_id.or_else(|| self.client_id.clone());
        Ok(Access {
            identity: identity.clone(),
            token: token.access,
            client_id: client_id.ok_or_else(no_client_id)?,
            user_id: token.user_id,
            scopes: token.scopes,
        })
    }

    fn is_lasting_app_token(&self, token: &StoredToken, now: Timestamp) -> bool {
        let lasting = token
            .expires_at
            .is_none_or(|end| now < end.plus_secs(-APP_TOKEN_MARGIN_SECS));
        lasting && (self.client_id.is_none() || token.client_id == self.client_id)
    }

    /// Says whether renewing ahead of time may be tried now, and notes that it is.
    fn may_try_early(&self, identity: &Identity, now: Timestamp) -> bool {
        let mut tried = self.tried_early.lock().unwrap_or_else(PoisonError::into_inner);
        let again = tried
            .get(identity)
            .is_none_or(|last| now.millis_since(*last).abs() >= EARLY_PAUSE_MS);
        if again {
            tried.insert(identity.clone(), now);
        }
        again
    }

    async fn renew_early(
        &self,
        identity: &Identity,
        token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let lease = self.store.lease(identity).await.map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let current = record.token.clone().ok_or_else(|| no_token(identity))?;
        if same(&current.access, &token.access) {
            self.renew(identity, lease.as_ref(), &mut record, Validation::Unknown, meter)
                .await?;
        }
        Ok(record.token.unwrap_or(token))
    }

    /// Exchanges the refresh token in `record` for a new pair and keeps it.
    async fn renew(
        &self,
        identity: &Identity,
        lease: &dyn TokenLease,
        record: &mut TokenRecord,
        validation: Validation,
        meter: &Meter<'_>,
    ) -> Result<Renewal, PlatformError> {
        if identity.as_str() == APP {
            record.token = Some(self.fetch_app_token(lease, meter).await?);
            return Ok(Renewal::Renewed);
        }
        let Some(token) = record.token.as_ref() else {
            return Ok(Renewal::NoRefreshToken);
        };
        let Some(refresh) = token.refresh.clone() else {
            return Ok(Renewal::NoRefreshToken);
        };
        let Some(client_id) = token.client_id.clone().or_else(|| self.client_id.clone()) else {
            return Ok(Renewal::Misconfigured("no client id is configured".to_owned()));
        };
        let client_secret = self
            .client_secret
            .as_ref()
            .filter(|_| self.client_id.as_ref().is_none_or(|own| *own == client_id));
        let one_time = client_secret.is_none();
        let now = self.clock.now();
        let (since, tries) = match &refresh.state {
            RefreshState::Refused { reason, .. } => return Ok(Renewal::GrantGone(reason.clone())),
            RefreshState::InUse { since, tries } if one_time => {
                match self.was_spent(token, *tries, validation, now, meter).await {
                    Spent::No => (now, 0),
                    Spent::Perhaps => (*since, *tries),
                    Spent::Likely => return Ok(Renewal::Withheld),
                    Spent::Unclear(reason) => return Ok(Renewal::NoAnswer(reason)),
                }
            }
            RefreshState::InUse { .. } | RefreshState::Ready => (now, 0),
        };
        let mark = RefreshState::InUse {
            since,
            tries: tries + 1,
        };
        set_state(record, mark);
        lease.save(record).await.map_err(unusable_store)?;
        let outcome = self
            .oauth
            .refresh(&client_id, client_secret, &refresh.secret, meter)
            .await;
        // What a later look finds when this one changed nothing.
        let untouched = if tries == 0 {
            RefreshState::Ready
        } else {
            refresh.state
        };
        match outcome {
            Ok(granted) => {
                let old = take_granted(record, granted, &client_id, self.clock.now());
                if let Err(error) = lease.save(record).await {
                    self.lock_unsaved().insert(
                        identity.clone(),
                        Unsaved {
                            replaces: old,
                            record: record.clone(),
                        },
                    );
                    return Err(unusable_store(error));
                }
                Ok(Renewal::Renewed)
            }
            Err(GrantFailure::Gone(reason)) => {
                let state = RefreshState::Refused {
                    at: self.clock.now(),
                    reason: reason.clone(),
                };
                self.settle(lease, record, state).await?;
                Ok(Renewal::GrantGone(reason))
            }
            Err(GrantFailure::Misconfigured(reason)) => {
                self.settle(lease, record, untouched).await?;
                Ok(Renewal::Misconfigured(reason))
            }
            // The mark stays: a later look asks the old access token what became of this.
            Err(GrantFailure::Lost(error)) if one_time => Ok(Renewal::NoAnswer(error.to_string())),
            Err(GrantFailure::NoEffect(error) | GrantFailure::Lost(error)) => {
                self.settle(lease, record, untouched).await?;
                Ok(Renewal::NoAnswer(error.to_string()))
            }
        }
    }

    async fn settle(
        &self,
        lease: &dyn TokenLease,
        record: &mut TokenRecord,
        state: RefreshState,
    ) -> Result<(), PlatformError> {
        set_state(record, state);
        lease.save(record).await.map_err(unusable_store)
    }

    /// Tells whether a one-time refresh token that was sent before without an answer is spent. A refresh that was carried
    /// out ends the old access token, so that one is the witness.
    async fn was_spent(
        &self,
        token: &StoredToken,
        tries: u32,
        validation: Validation,
        now: Timestamp,
        meter: &Meter<'_>,
    ) -> Spent {
        let validation = match validation {
            Validation::Unknown => match self.oauth.validate(&token.access, meter).await {
                Ok(_) => Validation::Accepted,
                Err(PlatformError::Unauthorized { .. }) => Validation::Refused,
                Err(error) => return Spent::Unclear(error.to_string()),
            },
            known => known,
        };
        let ended = token.expires_at.is_none_or(|end| now >= end);
        match validation {
            Validation::Accepted => Spent::No,
            // Ended by itself, so nothing is proven either way: one more try, and only one.
            _ if ended && tries <= 1 => Spent::Perhaps,
            _ => Spent::Likely,
        }
    }

    async fn fetch_app_token(
        &self,
        lease: &dyn TokenLease,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let (Some(client_id), Some(secret)) = (&self.client_id, &self.client_secret) else {
            return Err(no_client_id());
        };
        let granted = match self.oauth.client_credentials(client_id, secret, meter).await {
            Ok(granted) => granted,
            Err(GrantFailure::Gone(reason) | GrantFailure::Misconfigured(reason)) => {
                return Err(refused(format!(
                    "the client id and secret were refused: {reason}"
                )));
            }
            Err(GrantFailure::NoEffect(error) | GrantFailure::Lost(error)) => return Err(error),
        };
        let now = self.clock.now();
        let mut record = lease.load().await.map_err(unusable_store)?;
        let token = StoredToken {
            kind: TokenKind::App,
            client_id: Some(client_id.clone()),
            expires_at: ends_at(now, granted.expires_in),
            ..StoredToken::unproven(granted.access_token, now)
        };
        record.token = Some(token.clone());
        lease.save(&record).await.map_err(unusable_store)?;
        Ok(token)
    }

    /// Keeps a pair that was granted but could not be kept at the time.
    async fn keep_unsaved(&self, identity: &Identity) -> Result<(), PlatformError> {
        if !self.lock_unsaved().contains_key(identity) {
            return Ok(());
        }
        let lease = self.store.lease(identity).await.map_err(unusable_store)?;
        let current = lease.load().await.map_err(unusable_store)?;
        let Some(unsaved) = self.lock_unsaved().remove(identity) else {
            return Ok(());
        };
        let still_old = current
            .token
            .is_some_and(|token| same(&token.access, &unsaved.replaces));
        if !still_old {
            return Ok(());
        }
        if let Err(error) = lease.save(&unsaved.record).await {
            self.lock_unsaved().insert(identity.clone(), unsaved);
            return Err(unusable_store(error));
        }
        Ok(())
    }

    fn lock_unsaved(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Unsaved>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a one-time refresh token is spent.
enum Spent {
    No,
    Perhaps,
    Likely,
    Unclear(String),
}

fn set_state(record: &mut TokenRecord, state: RefreshState) {
    if let Some(refresh) = record.token.as_mut().and_then(|token| token.refresh.as_mut()) {
        refresh.state = state;
    }
}

/// Puts a granted pair into the record and returns the access token that it replaces.
fn take_granted(record: &mut TokenRecord, granted: Granted, client_id: &str, now: Timestamp) -> SecretString {
    let token = record
        .token
        .get_or_insert_with(|| StoredToken::unproven(String::new(), now));
    let old = std::mem::replace(&mut token.access, granted.access_token.into());
    token.client_id = Some(client_id.to_owned());
    token.obtained_at = now;
    token.expires_at = ends_at(now, granted.expires_in);
    if let Some(scopes) = granted.scope {
        token.scopes = scopes.into_iter().collect();
    }
    if granted.refresh_token.is_empty() {
        set_state(record, RefreshState::Ready);
    } else {
        token.refresh = Some(RefreshToken::fresh(granted.refresh_token));
    }
    old
}

fn ends_at(now: Timestamp, expires_in: Option<i64>) -> Option<Timestamp> {
    expires_in
        .filter(|seconds| *seconds > 0)
        .map(|seconds| now.plus_secs(seconds))
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

fn refused(reason: String) -> PlatformError {
    PlatformError::Unauthorized {
        platform: PlatformName::Twitch,
        reason,
    }
}

fn no_token(identity: &Identity) -> PlatformError {
    PlatformError::NotConfigured {
        platform: PlatformName::Twitch,
        what: format!("a token for `{identity}`: run `bitbrat auth login twitch`"),
    }
}

fn no_client_id() -> PlatformError {
    PlatformError::NotConfigured {
        platform: PlatformName::Twitch,
        what: "a client id (`twitch.client_id`), and its secret to ask as the application itself".to_owned(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn unusable_store(error: TokenError) -> PlatformError {
    let cause = std::error::Error::source(&error)
        .map(|cause| format!(" ({cause})"))
        .unwrap_or_default();
    PlatformError::NotConfigured {
        platform: PlatformName::Twitch,
        what: format!("a usable token store: {error}{cause}; {}", error.hint()),
    }
}
