//! Token status of an identity: Kick's introspection of a token, its owner, and what follows when it is no longer
//! active.

use std::collections::BTreeSet;

use secrecy::SecretString;
use serde_json::Value;

use super::super::account_check::Checked;
use super::super::client::Call;
use super::super::meter::Meter;
use super::super::options::{APP, BOT, broadcaster_of};
use super::super::token_status::of_inactive;
use super::super::wire::{Envelope, Introspected, User, items};
use super::{Auth, no_identity, not_ours, read, unreadable, unusable_store};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::token_check::{Refresh, TokenStatus};
use crate::tokens::{StoredToken, TokenKind};

impl Auth {
    /// Returns the result of a check of `identity` at most `max_age_ms` ago, or checks it.
    pub(in super::super) async fn checked_within(
        &self,
        max_age_ms: i64,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Checked, PlatformError> {
        match self
            .last_check(identity)
            .filter(|checked| checked.at.is_recent(max_age_ms, self.clock.now()))
        {
            Some(checked) => Ok(checked),
            None => self.check(identity, meter).await,
        }
    }

    /// Returns the last check of `identity` by this process.
    pub(in super::super) fn last_check(&self, identity: &Identity) -> Option<Checked> {
        let recent = self.recent.lock();
        recent.get(identity).cloned()
    }

    /// Checks the token status of `identity`, refreshing its token where necessary.
    pub(in super::super) async fn check(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Checked, PlatformError> {
        let access = self.access(identity, meter).await;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let Some(token) = stored else {
            // The application has no token, and none could be obtained.
            let Err(error) = access else {
                return Err(no_identity());
            };
            return Err(error);
        };
        // The scopes of a token that belongs to another user do not matter.
        if let Err(
            error @ (PlatformError::NotConfigured { .. }
            | PlatformError::OtherAccount { .. }
            | PlatformError::TokenStore { .. }),
        ) = access
        {
            return Err(error);
        }
        let (status, token, known, app_refused) = match self.introspect(&token.access, meter).await {
            Ok(Some(introspected)) => {
                let before = token.scopes.clone();
                let is_over = introspected.ends_at().is_some_and(|end| self.kick_time() >= end);
                let token = self.update(identity, token, introspected).await?;
                let lost = before.difference(&token.scopes).cloned().collect();
                if is_over {
                    let (token, status, app_refused) = self.of_expired_active(identity, token, meter).await?;
                    (status, token, lost, app_refused)
                } else {
                    (TokenStatus::Valid, token, lost, false)
                }
            }
            Ok(None) => {
                let (token, status, app_refused) = self.of_inactive(identity, token, meter).await?;
                (status, token, BTreeSet::new(), app_refused)
            }
            Err(error) => (
                TokenStatus::Unknown(error.to_string()),
                token,
                BTreeSet::new(),
                false,
            ),
        };
        let checked = Checked {
            at: self.clock.now(),
            status,
            user_id: token.user_id.as_ref().and_then(|id| id.parse().ok()),
            renewed_at: (token.kind == TokenKind::User && token.refresh.is_some())
                .then_some(token.obtained_at),
            token,
            lost_scopes: known,
            app_refused,
        };
        meter.checked(identity, checked.clone());
        let mut recent = self.recent.lock();
        recent.insert(identity.clone(), checked.clone());
        Ok(checked)
    }

    /// Determines the status of a token that introspection calls active although its expiry is in the past. Either may be wrong,
    /// so the API decides: a token that it accepts is valid, with an unknown expiry; one that it refuses is not active.
    async fn of_expired_active(
        &self,
        identity: &Identity,
        token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, TokenStatus, bool), PlatformError> {
        if identity.as_str() == APP {
            return self.of_inactive(identity, token, meter).await;
        }
        let tried = self.client.exchange(&own_user(&token.access), &meter.calls).await;
        match tried {
            Ok(_) | Err(PlatformError::Forbidden { .. }) => {
                let token = StoredToken {
                    expires_at: None,
                    ..token
                };
                self.tokens().amend(identity, &token).await?;
                Ok((token, TokenStatus::Valid, false))
            }
            Err(PlatformError::Unauthorized { .. }) => self.of_inactive(identity, token, meter).await,
            Err(error) => {
                let reason = format!("Kick calls the token active and expired at once, and {error}");
                Ok((token, TokenStatus::Unknown(reason), false))
            }
        }
    }

    /// Returns the current time by Kick's clock, as far as that is known.
    fn kick_time(&self) -> Timestamp {
        self.client.skew.correct(self.clock.now())
    }

    async fn of_inactive(
        &self,
        identity: &Identity,
        token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, TokenStatus, bool), PlatformError> {
        if identity.as_str() == APP {
            return match self.new_app_token(Some(&token.access), meter).await {
                Ok(token) => Ok((token, TokenStatus::Valid, false)),
                Err(error) => {
                    let refused = matches!(error, PlatformError::ClientRejected { .. });
                    Ok((token, TokenStatus::Unknown(error.to_string()), refused))
                }
            };
        }
        let (current, refresh) = self.renew(identity, &token, meter).await?;
        let now = self.clock.now();
        let status = of_inactive(&refresh, &token, now);
        Ok((current, status, matches!(refresh, Refresh::AppRefused(_))))
    }

    /// Requests whether `token` is active; `None` when it is not. Kick responds with 200 or with 401, both in the envelope of its
    /// API; without it the response is another server's.
    async fn introspect(
        &self,
        token: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Option<Introspected>, PlatformError> {
        let call = Call {
            token: Some(token),
            ..Call::introspection("the examination of a token")
        };
        match self.client.exchange(&call, &meter.calls).await {
            Ok(answer) => {
                let introspected: Envelope<Value> = read(&answer, call.operation)?;
                let introspected =
                    Introspected::of(introspected).map_err(|reason| unreadable(call.operation, reason))?;
                match introspected.active {
                    Some(active) => Ok(Some(introspected).filter(|_| active)),
                    None => Err(unreadable(
                        call.operation,
                        "the answer does not contain whether the token is active".to_owned(),
                    )),
                }
            }
            Err(PlatformError::Unauthorized { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores the result of introspection, after checking that the token belongs to this application.
    async fn update(
        &self,
        identity: &Identity,
        token: StoredToken,
        introspected: Introspected,
    ) -> Result<StoredToken, PlatformError> {
        let end = introspected.ends_at();
        let reported_client = introspected.client_id.filter(|id| !id.is_empty());
        if let (Some(introspected), Some(ours)) = (&reported_client, &self.client_id)
            && introspected != ours
        {
            return Err(not_ours(identity, "another application"));
        }
        let of_app = introspected
            .token_type
            .as_deref()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("app"));
        if of_app && identity.as_str() != APP {
            return Err(not_ours(identity, "the application itself"));
        }
        let mut evidence_update = token.clone();
        evidence_update.client_id = reported_client.or(evidence_update.client_id);
        // Missing scopes in the response do not remove any.
        evidence_update.scopes = introspected.scope.unwrap_or(evidence_update.scopes);
        evidence_update.expires_at = end.or(evidence_update.expires_at);
        let has_changed = (
            &evidence_update.client_id,
            &evidence_update.scopes,
            evidence_update.expires_at,
        ) != (&token.client_id, &token.scopes, token.expires_at);
        if has_changed {
            self.tokens().amend(identity, &evidence_update).await?;
        }
        Ok(evidence_update)
    }

    /// Determines the owner of a user token, which introspection does not return. A token of another user is never used.
    pub(super) async fn prove_owner(
        &self,
        identity: &Identity,
        mut token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let call = own_user(&token.access);
        let answer = match self.client.exchange(&call, &meter.calls).await {
            Ok(answer) => answer,
            // An invalid token, or one without `user:read`: its owner stays unknown, and its use will show which.
            Err(PlatformError::Unauthorized { .. } | PlatformError::Forbidden { .. }) => return Ok(token),
            Err(error) => return Err(error),
        };
        let introspected: Envelope<Value> = read(&answer, call.operation)?;
        let Some(user) = items(introspected).into_iter().flatten().next() else {
            return Ok(token);
        };
        let user: User =
            serde_json::from_value(user).map_err(|error| unreadable(call.operation, error.to_string()))?;
        let meant = match identity.as_str() {
            BOT => self.bot_user_id,
            _ => broadcaster_of(identity),
        };
        if meant.is_some_and(|meant| meant != user.user_id) {
            return Err(not_ours(identity, &format!("user {}", user.user_id)));
        }
        token.user_id = Some(user.user_id.to_string());
        token.login = Some(user.name).filter(|name| !name.is_empty());
        self.tokens().amend(identity, &token).await?;
        Ok(token)
    }
}

/// Builds the request for the user that `token` belongs to.
fn own_user(token: &SecretString) -> Call<'_> {
    Call {
        token: Some(token),
        ..Call::get("/public/v1/users", &[], "the token's own user")
    }
}
