//! Refreshes tokens: the order of effects ensures that no crash, no second process and no full disk loses a pair or sends a
//! one-time token twice. A new pair is stored before it is used, and a refresh token is marked before it is sent.

use super::manager::{TokenManager, Unsaved, is_same, no_token, unusable_store};
use super::provider::{Grant, GrantError, Granted, Provider, Validation};
use crate::core::observation::Identity;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::Refresh;
use crate::tokens::{RefreshState, RefreshToken, StoredToken, TokenLease, TokenRecord};

/// Whether a one-time refresh token is spent.
enum Spent {
    No,
    Perhaps,
    Likely,
    Unclear(String),
}

impl<P: Provider> TokenManager<P> {
    /// Refreshes the token of `identity`, unless another task or process has replaced `seen` meanwhile. Returns the token as it is
    /// stored then. `refused` means that the platform has rejected the access token.
    pub(super) async fn refresh(
        &self,
        identity: &Identity,
        seen: &StoredToken,
        refused: bool,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, Refresh), PlatformError> {
        let (lease, mut record) = self.lease(identity).await?;
        let current = record.token.clone().ok_or_else(|| no_token::<P>(identity))?;
        if !is_same(&current.access, &seen.access) {
            return Ok((current, Refresh::Done));
        }
        let refresh = self
            .renew(identity, lease.as_ref(), &mut record, refused, meter)
            .await?;
        Ok((record.token.unwrap_or(current), refresh))
    }

    /// Exchanges the refresh token in `record` for a new pair and stores it.
    async fn renew(
        &self,
        identity: &Identity,
        lease: &dyn TokenLease,
        record: &mut TokenRecord,
        refused: bool,
        meter: &Meter<'_>,
    ) -> Result<Refresh, PlatformError> {
        let Some(token) = record.token.clone() else {
            return Ok(Refresh::Impossible);
        };
        let Some(refresh) = token.refresh.clone() else {
            return Ok(Refresh::Impossible);
        };
        if !self.store.renews() {
            return Ok(Refresh::LeftToOthers);
        }
        let Some(client) = self.provider.client().of(&token) else {
            return Ok(Refresh::ClientRejected("no client id is configured".to_owned()));
        };
        let one_time = self.provider.is_one_time(client);
        let now = self.clock.now();
        let (since, tries) = match &refresh.state {
            RefreshState::Refused { reason, .. } => return Ok(Refresh::GrantGone(reason.clone())),
            RefreshState::InUse { since, tries } if one_time => {
                match self.was_spent(identity, &token, *tries, refused, meter).await {
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
        store_refresh_state::<P>(lease, record, mark).await?;
        let grant = Grant::RefreshToken(&refresh.secret);
        let failure = match self.exchange(client, grant, meter).await {
            Ok(granted) => {
                self.take_granted(identity, record, granted, client.id);
                if let Err(error) = lease.save(record).await {
                    let unsaved = Unsaved {
                        replaces: token.access.clone(),
                        record: record.clone(),
                    };
                    self.unsaved.lock().insert(identity.clone(), unsaved);
                    return Err(unusable_store::<P>(error));
                }
                return Ok(Refresh::Done);
            }
            Err(failure) => failure,
        };
        let result = failure.as_refresh();
        match failure {
            GrantError::Gone(reason) => {
                let at = self.clock.now();
                store_refresh_state::<P>(lease, record, RefreshState::Refused { at, reason }).await?;
            }
            // The mark stays: a later check uses the old access token to find out whether the refresh was processed.
            GrantError::Lost(_) if one_time => {}
            GrantError::ClientRejected(_)
            | GrantError::NotGranted(_)
            | GrantError::NoEffect(_)
            | GrantError::Lost(_)
            | GrantError::Foreign(_) => {
                // A later refresh continues as if this one had not been attempted.
                let untouched = if tries == 0 {
                    RefreshState::Ready
                } else {
                    refresh.state.clone()
                };
                store_refresh_state::<P>(lease, record, untouched).await?;
            }
        }
        Ok(result)
    }

    /// Determines whether a one-time refresh token that was sent before without an answer is spent. A completed refresh
    /// invalidates the old access token, so that token's validity is the evidence.
    async fn was_spent(
        &self,
        identity: &Identity,
        token: &StoredToken,
        tries: u32,
        refused: bool,
        meter: &Meter<'_>,
    ) -> Spent {
        if !refused {
            match self.provider.validate(identity, token, None, meter).await {
                Validation::Accepted(_) => return Spent::No,
                Validation::Refused(_) => {}
                Validation::Unclear(error) => return Spent::Unclear(error.to_string()),
            }
        }
        let now = self.clock.now();
        if token.expires_at.is_none_or(|end| now >= end) && tries <= 1 {
            // It expired on its own, so nothing is proven either way: exactly one more attempt.
            Spent::Perhaps
        } else {
            Spent::Likely
        }
    }

    /// Puts a granted pair into the record.
    fn take_granted(&self, identity: &Identity, record: &mut TokenRecord, granted: Granted, client_id: &str) {
        let now = self.clock.now();
        let Some(token) = record.token.as_mut() else {
            return;
        };
        let scopes_unknown = self.account(identity, token, |account| account.scopes_unknown);
        token.expires_at = granted.expires_at(now);
        token.access = StoredToken::unproven(granted.access_token, now).access;
        token.client_id = Some(client_id.to_owned());
        token.obtained_at = now;
        let scopes_unknown = scopes_unknown && granted.scope.is_none();
        if let Some(scopes) = granted.scope {
            token.scopes = scopes;
        }
        if !granted.refresh_token.is_empty() {
            token.refresh = Some(RefreshToken::fresh(granted.refresh_token));
        } else if let Some(refresh) = token.refresh.as_mut() {
            refresh.state = RefreshState::Ready;
        }
        // Where validation does not name the owner, the new token's is looked up before its use.
        let expected_owner = if P::VALIDATION_NAMES_OWNER {
            None
        } else {
            token.user_id.take()
        };
        self.account(identity, token, |account| {
            account.scopes_unknown = scopes_unknown;
            account.expected_owner = expected_owner;
        });
    }

    /// Stores a pair that was granted but could not be stored at the time.
    pub(super) async fn store_unsaved(&self, identity: &Identity) -> Result<(), PlatformError> {
        if !self.unsaved.lock().contains_key(identity) {
            return Ok(());
        }
        let (lease, current) = self.lease(identity).await?;
        let Some(unsaved) = self.unsaved.lock().remove(identity) else {
            return Ok(());
        };
        let is_old = |token: StoredToken| is_same(&token.access, &unsaved.replaces);
        if !current.token.is_some_and(is_old) {
            return Ok(());
        }
        if let Err(error) = lease.save(&unsaved.record).await {
            self.unsaved.lock().insert(identity.clone(), unsaved);
            return Err(unusable_store::<P>(error));
        }
        Ok(())
    }
}

/// Stores the state of a refresh token.
async fn store_refresh_state<P: Provider>(
    lease: &dyn TokenLease,
    record: &mut TokenRecord,
    state: RefreshState,
) -> Result<(), PlatformError> {
    if let Some(refresh) = record.token.as_mut().and_then(|token| token.refresh.as_mut()) {
        refresh.state = state;
    }
    lease.save(record).await.map_err(unusable_store::<P>)
}
