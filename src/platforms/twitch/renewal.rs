//! Renews tokens: the order of effects ensures that no crash, no second process and no full disk loses a pair or sends a one-time
//! token twice. A new pair is stored before it is used, and a refresh token is marked before it is sent.

use std::collections::HashMap;

use parking_lot::MutexGuard;
use secrecy::SecretString;

use super::auth::{Auth, Unsaved, no_client_id, no_token, refused, unusable_store};
use super::options::APP;
use super::token_status::Validation;
use super::wire::Granted;
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::{GrantError, expires_at, granted_app_token, is_same};
use crate::platforms::kit::token_check::Refresh;
use crate::tokens::{RefreshState, RefreshToken, StoredToken, TokenLease, TokenRecord};

/// Time between attempts at an early renewal.
const EARLY_RETRY_MS: i64 = 60_000;

impl Auth {
    /// Returns whether an early renewal may be attempted now, and records the attempt.
    pub(super) fn may_try_early(&self, identity: &Identity, now: Timestamp) -> bool {
        let mut tried = self.early_attempts.lock();
        let again = tried
            .get(identity)
            .is_none_or(|last| now.millis_since(*last).abs() >= EARLY_RETRY_MS);
        if again {
            tried.insert(identity.clone(), now);
        }
        again
    }

    pub(super) async fn renew_early(
        &self,
        identity: &Identity,
        token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let lease = self.store.lease(identity).await.map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let current = record.token.clone().ok_or_else(|| no_token(identity))?;
        if is_same(&current.access, &token.access) {
            self.renew(identity, lease.as_ref(), &mut record, Validation::Unknown, meter)
                .await?;
        }
        Ok(record.token.unwrap_or(token))
    }

    /// Exchanges the refresh token in `record` for a new pair and stores it.
    pub(super) async fn renew(
        &self,
        identity: &Identity,
        lease: &dyn TokenLease,
        record: &mut TokenRecord,
        validation: Validation,
        meter: &Meter<'_>,
    ) -> Result<Refresh, PlatformError> {
        if identity.as_str() == APP {
            record.token = Some(self.request_app_token(meter).await?);
            lease.save(record).await.map_err(unusable_store)?;
            return Ok(Refresh::Done);
        }
        let Some(token) = record.token.as_ref() else {
            return Ok(Refresh::Impossible);
        };
        let Some(refresh) = token.refresh.clone() else {
            return Ok(Refresh::Impossible);
        };
        if !self.store.renews() {
            return Ok(Refresh::LeftToOthers);
        }
        let Some(client_id) = token.client_id.clone().or_else(|| self.client_id.clone()) else {
            return Ok(Refresh::AppRefused("no client id is configured".to_owned()));
        };
        let client_secret = self
            .client_secret
            .as_ref()
            .filter(|_| self.client_id.as_ref().is_none_or(|own| *own == client_id));
        let one_time = client_secret.is_none();
        let now = self.clock.now();
        let (since, tries) = match &refresh.state {
            RefreshState::Refused { reason, .. } => return Ok(Refresh::GrantGone(reason.clone())),
            RefreshState::InUse { since, tries } if one_time => {
                match self.was_spent(token, *tries, validation, now, meter).await {
                    Spent::No => (now, 0),
                    Spent::Perhaps => (*since, *tries),
                    Spent::Likely => return Ok(Refresh::Withheld),
                    Spent::Unclear(reason) => return Ok(Refresh::NoAnswer(reason)),
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
        // What a later check finds if this one changed nothing.
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
                Ok(Refresh::Done)
            }
            Err(failure) => {
                let refresh = failure.as_refresh();
                match failure {
                    GrantError::Gone(reason) => {
                        let at = self.clock.now();
                        self.settle(lease, record, RefreshState::Refused { at, reason })
                            .await?;
                    }
                    // The mark stays: a later check uses the old access token to find out whether the refresh was processed.
                    GrantError::Lost(_) if one_time => {}
                    GrantError::Misconfigured(_)
                    | GrantError::NoEffect(_)
                    | GrantError::Lost(_)
                    | GrantError::Foreign(_) => self.settle(lease, record, untouched).await?,
                }
                Ok(refresh)
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

    /// Determines whether a one-time refresh token that was sent before without an answer is spent. A completed refresh
    /// invalidates the old access token, so that token's validity is the evidence.
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
            // It expired on its own, so nothing is proven either way: exactly one more attempt.
            _ if ended && tries <= 1 => Spent::Perhaps,
            _ => Spent::Likely,
        }
    }

    /// Requests a token of the application, which the caller stores before it is used.
    pub(super) async fn request_app_token(&self, meter: &Meter<'_>) -> Result<StoredToken, PlatformError> {
        let (Some(client_id), Some(secret)) = (&self.client_id, &self.client_secret) else {
            return Err(no_client_id());
        };
        let granted = match self.oauth.client_credentials(client_id, secret, meter).await {
            Ok(granted) => granted,
            Err(GrantError::Gone(reason) | GrantError::Misconfigured(reason)) => {
                return Err(refused(format!(
                    "the client id and secret were refused: {reason}"
                )));
            }
            Err(GrantError::NoEffect(error) | GrantError::Lost(error) | GrantError::Foreign(error)) => {
                return Err(error);
            }
        };
        Ok(granted_app_token(
            Some(client_id.as_str()),
            granted.access_token,
            granted.expires_in,
            self.clock.now(),
        ))
    }

    /// Stores a pair that was granted but could not be stored at the time.
    pub(super) async fn store_unsaved(&self, identity: &Identity) -> Result<(), PlatformError> {
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
            .is_some_and(|token| is_same(&token.access, &unsaved.replaces));
        if !still_old {
            return Ok(());
        }
        if let Err(error) = lease.save(&unsaved.record).await {
            self.lock_unsaved().insert(identity.clone(), unsaved);
            return Err(unusable_store(error));
        }
        Ok(())
    }

    fn lock_unsaved(&self) -> MutexGuard<'_, HashMap<Identity, Unsaved>> {
        self.unsaved.lock()
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
    token.expires_at = expires_at(now, granted.expires_in);
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
