//! Checks an account: validates its token, and refreshes it if it is due or refused.
//!
//! In one probe run an account is checked once, and once more if the platform then rejects the token in a call. Concurrent calls
//! that need the same check share it, across runs too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::manager::{TokenManager, is_same};
use super::provider::{Described, Provider, Validation};
use crate::core::observation::Identity;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::{Refresh, TokenCheck, TokenStatus};
use crate::tokens::{StoredToken, TokenKind};

impl<P: Provider> TokenManager<P> {
    /// Checks the account `identity` and refreshes its token if necessary.
    ///
    /// Returns an error if there is no answer about the account: no token, an unusable token store, or a token of another
    /// account.
    pub async fn check(&self, identity: &Identity, meter: &Meter<'_>) -> Result<TokenCheck, PlatformError> {
        self.check_once(identity, None, meter).await
    }

    /// Returns the result of a check less than `max_age` ago of the token that is stored now, or checks it.
    pub async fn checked_within(
        &self,
        max_age: Duration,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<TokenCheck, PlatformError> {
        let recent = self.last_check(identity);
        if let Some(check) = recent.filter(|check| check.at.is_recent(max_age, self.clock.now()))
            && let Some(stored) = self.stored(identity).await?
            && is_same(&stored.access, &check.token.access)
        {
            return Ok(check);
        }
        self.check(identity, meter).await
    }

    /// Checks the account `identity` unless this run has done so. `refusal` is the reason with which the platform has rejected its
    /// token in a call: an earlier check does not answer that, unless it found the token unusable.
    pub(super) async fn check_once(
        &self,
        identity: &Identity,
        refusal: Option<&str>,
        meter: &Meter<'_>,
    ) -> Result<TokenCheck, PlatformError> {
        let mut account = meter.checks.account(identity).await;
        let is_conclusive = |check: &&TokenCheck| {
            let is_unusable = !matches!(check.status, TokenStatus::Valid | TokenStatus::Unknown(_));
            refusal.is_none() || account.after_refusal || is_unusable
        };
        if let Some(known) = account.check.as_ref().filter(is_conclusive) {
            return Ok(known.clone());
        }
        let check = self.shared_check(identity, refusal, meter).await?;
        meter.checks.note(identity, &check);
        account.check = Some(check.clone());
        account.after_refusal |= refusal.is_some();
        Ok(check)
    }

    /// Checks the account, or waits for the check in progress.
    async fn shared_check(
        &self,
        identity: &Identity,
        refusal: Option<&str>,
        meter: &Meter<'_>,
    ) -> Result<TokenCheck, PlatformError> {
        let cell = Arc::clone(self.in_progress.lock().entry(identity.clone()).or_default());
        let outcome = cell
            .get_or_try_init(|| self.check_now(identity, refusal, meter))
            .await
            .cloned();
        let mut in_progress = self.in_progress.lock();
        let current = in_progress.get(identity);
        if current.is_some_and(|current| Arc::ptr_eq(current, &cell)) {
            in_progress.remove(identity);
        }
        outcome
    }

    async fn check_now(
        &self,
        identity: &Identity,
        mut refusal: Option<&str>,
        meter: &Meter<'_>,
    ) -> Result<TokenCheck, PlatformError> {
        let start = self.clock.now();
        let (mut token, mut failed) = self.current(identity, meter).await?;
        let mut lost_scopes = BTreeSet::new();
        let mut client_rejected = false;
        // At most two passes: a rejection is followed by a refresh, or by finding that another process has refreshed the token.
        let mut refreshed = false;
        let (status, error) = loop {
            // The owner of a refreshed token was checked before it was stored.
            if refreshed
                && self.account(identity, &token, |account| {
                    account.accepted_at.is_some_and(|at| at >= start)
                })
            {
                break (TokenStatus::Valid, None);
            }
            let validation = self
                .provider
                .validate(identity, &token, refusal.take(), meter)
                .await;
            match validation {
                Validation::Accepted(described) => {
                    token = self
                        .update(identity, &token, described, true, &mut lost_scopes, meter)
                        .await?;
                    self.forget_lost_refresh(identity, &token, meter).await?;
                    break (TokenStatus::Valid, None);
                }
                Validation::Refused(_) if refreshed => {
                    let reason = format!("{} refuses a token that it has just issued", P::PLATFORM);
                    let error = PlatformError::Unauthorized {
                        platform: P::PLATFORM,
                        reason: reason.clone(),
                    };
                    break (TokenStatus::Unknown(reason), Some(error));
                }
                Validation::Refused(described) => {
                    if let Some(described) = described {
                        token = self
                            .update(identity, &token, described, false, &mut lost_scopes, meter)
                            .await?;
                    }
                    refreshed = true;
                    if identity.as_str() == P::APP {
                        token = self.app_token(Some(&token.access), meter).await?;
                        continue;
                    }
                    // What was due has just been tried.
                    let (current, refresh) = match failed.take() {
                        Some(refresh) => (token.clone(), refresh),
                        None => self.refresh(identity, &token, true, meter).await?,
                    };
                    let refused = std::mem::replace(&mut token, current);
                    if refresh != Refresh::Done {
                        let is_configured = self.provider.client().id.is_some();
                        client_rejected = is_configured && matches!(refresh, Refresh::ClientRejected(_));
                        // The later of both clocks: a token that may have expired by one of them is not called revoked.
                        let now = self.clock.now();
                        let now = now.max(self.provider.platform_time(now));
                        break (self.provider.status_after(&refresh, &refused, now), None);
                    }
                    lost_scopes.extend(refused.scopes.difference(&token.scopes).cloned());
                }
                Validation::Unclear(error @ PlatformError::OtherAccount { .. }) => return Err(error),
                // A granted refresh is sufficient proof when validating the new token fails for another reason.
                Validation::Unclear(_) if refreshed => break (TokenStatus::Valid, None),
                Validation::Unclear(error) => break (TokenStatus::Unknown(error.to_string()), Some(error)),
            }
        };
        let check = TokenCheck {
            at: self.clock.now(),
            status,
            token,
            error,
            lost_scopes,
            client_rejected,
        };
        self.account(identity, &check.token, |account| {
            account.last_check = Some(check.clone());
        });
        Ok(check)
    }

    /// Stores what validation returned, after checking that the token belongs to the expected account.
    async fn update(
        &self,
        identity: &Identity,
        token: &StoredToken,
        described: Described,
        accepted: bool,
        lost_scopes: &mut BTreeSet<String>,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let Described {
            token: mut known,
            scopes_known,
        } = described;
        if accepted && !P::VALIDATION_NAMES_OWNER && known.kind == TokenKind::User && known.user_id.is_none()
        {
            // Without an answer the owner stays unknown, and is looked up before the token is used.
            let _ = self.look_up_owner(&mut known, meter).await;
        }
        self.require_owner(identity, &known, token.user_id.as_deref())?;
        let now = self.clock.now();
        self.account(identity, token, |account| {
            account.scopes_unknown = !scopes_known;
            if accepted {
                account.accepted_at = Some(now);
            }
        });
        lost_scopes.extend(token.scopes.difference(&known.scopes).cloned());
        let is_same = (known.kind, &known.client_id, &known.user_id)
            == (token.kind, &token.client_id, &token.user_id)
            && (&known.login, &known.scopes, known.expires_at)
                == (&token.login, &token.scopes, token.expires_at);
        if !is_same {
            self.amend(identity, &known).await?;
        }
        Ok(known)
    }
}
