//! Getting tokens: a user's by renewal, the application's by its secret. A new one is kept before it is used, and under the
//! identity's lease, so that tasks and processes get it once together.

use std::sync::PoisonError;

use secrecy::{ExposeSecret, SecretString};

use super::super::client::Call;
use super::super::meter::Meter;
use super::super::options::APP;
use super::super::standing::Renewal;
use super::super::wire::Granted;
use super::{APP_MARGIN_SECS, Auth, app_refusal, can_refresh, no_identity, same, unreadable, unusable_store};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::tokens::{RefreshState, RefreshToken, StoredToken, TokenKind};

/// How long a refused client id or secret is not tried again (ms): a person has to act first.
const REFUSED_APP_PAUSE_MS: i64 = 600_000;

/// Why there is no token.
enum GrantFailure {
    InvalidGrant,
    InvalidClient,
    NoAnswer(PlatformError),
}

impl Auth {
    /// Renews a user's token, unless somebody else has meanwhile.
    pub(super) async fn renew(
        &self,
        identity: &Identity,
        seen: &StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, Renewal), PlatformError> {
        let lease = self.store.lease(identity).await.map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let Some(current) = record.token.clone() else {
            return Err(no_identity());
        };
        if !same(&current.access, &seen.access) {
            return Ok((current, Renewal::Renewed));
        }
        let Some(refresh) = current.refresh.as_ref().filter(|_| can_refresh(&current)) else {
            let refused = current.refresh.is_some();
            let renewal = if refused {
                Renewal::InvalidGrant
            } else {
                Renewal::Impossible
            };
            return Ok((current, renewal));
        };
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.secret.expose_secret()),
        ];
        let now = self.clock.now();
        match self.grant(&form, meter).await {
            Ok(granted) => {
                let token = StoredToken {
                    refresh: granted
                        .refresh_token
                        .filter(|text| !text.is_empty())
                        .map(RefreshToken::fresh)
                        .or_else(|| current.refresh.clone()),
                    client_id: self.client_id.clone(),
                    // Proven again with the new token.
                    user_id: None,
                    scopes: granted.scope.unwrap_or(current.scopes),
                    expires_at: ends_at(now, granted.expires_in),
                    ..StoredToken::unproven(granted.access_token, now)
                };
                record.token = Some(token.clone());
                lease.save(&record).await.map_err(unusable_store)?;
                Ok((token, Renewal::Renewed))
            }
            Err(GrantFailure::InvalidGrant) => {
                let state = RefreshState::Refused {
                    at: now,
                    reason: "invalid_grant".to_owned(),
                };
                if let Some(refresh) = record.token.as_mut().and_then(|token| token.refresh.as_mut()) {
                    refresh.state = state;
                }
                lease.save(&record).await.map_err(unusable_store)?;
                Ok((record.token.unwrap_or(current), Renewal::InvalidGrant))
            }
            Err(GrantFailure::InvalidClient) => Ok((current, Renewal::InvalidClient)),
            Err(GrantFailure::NoAnswer(error)) => Ok((current, Renewal::NoAnswer(error.to_string()))),
        }
    }

    /// Gets a token for the application, unless somebody else has meanwhile. `dead` is the one not to be given again.
    pub(super) async fn new_app_token(
        &self,
        dead: Option<&SecretString>,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let lease = self
            .store
            .lease(&Identity::named(APP))
            .await
            .map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let now = self.clock.now();
        if let Some(token) = &record.token {
            let fresh = token
                .expires_at
                .is_none_or(|end| now < end.plus_secs(-APP_MARGIN_SECS));
            let other = dead.is_none_or(|dead| !same(dead, &token.access));
            if self.is_ours(token) && fresh && other {
                return Ok(token.clone());
            }
        }
        let granted = match self.grant(&[("grant_type", "client_credentials")], meter).await {
            Ok(granted) => granted,
            Err(GrantFailure::InvalidGrant | GrantFailure::InvalidClient) => return Err(app_refusal()),
            Err(GrantFailure::NoAnswer(error)) => return Err(error),
        };
        let token = StoredToken {
            kind: TokenKind::App,
            client_id: self.client_id.clone(),
            expires_at: ends_at(now, granted.expires_in),
            ..StoredToken::unproven(granted.access_token, now)
        };
        record.token = Some(token.clone());
        lease.save(&record).await.map_err(unusable_store)?;
        Ok(token)
    }

    async fn grant(
        &self,
        fields: &[(&'static str, &str)],
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantFailure> {
        let (Some(client_id), Some(secret)) = (&self.client_id, &self.client_secret) else {
            return Err(GrantFailure::NoAnswer(no_identity()));
        };
        let now = self.clock.now();
        let refused_at = *self.app_refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.is_some_and(|at| now.millis_since(at) < REFUSED_APP_PAUSE_MS) {
            return Err(GrantFailure::InvalidClient);
        }
        let mut form = vec![
            ("client_id", client_id.as_str()),
            ("client_secret", secret.expose_secret()),
        ];
        form.extend_from_slice(fields);
        let call = Call {
            form: Some(&form),
            ..Call::oauth("/oauth/token", "a token")
        };
        let failure = match self.client.exchange(&call, &meter.calls).await {
            Ok(answer) => match answer.json::<Granted>() {
                Ok(granted) if !granted.access_token.is_empty() => return Ok(granted),
                Ok(_) => GrantFailure::NoAnswer(unreadable(call.operation, "the token is empty".to_owned())),
                Err(reason) => GrantFailure::NoAnswer(unreadable(call.operation, reason)),
            },
            Err(error) => of_grant_error(error),
        };
        if matches!(failure, GrantFailure::InvalidClient) {
            *self.app_refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        Err(failure)
    }
}

/// Tells the three failures of a grant apart. The status of each is not documented, so the error's name decides, which
/// [`crate::platforms::answer::reason`] passes on.
fn of_grant_error(error: PlatformError) -> GrantFailure {
    let words = match &error {
        PlatformError::Unauthorized { reason, .. } | PlatformError::Rejected { reason, .. } => {
            reason.as_str()
        }
        _ => "",
    };
    match words {
        "invalid_grant" => GrantFailure::InvalidGrant,
        "invalid_client" | "unauthorized_client" => GrantFailure::InvalidClient,
        _ => GrantFailure::NoAnswer(error),
    }
}

fn ends_at(now: Timestamp, expires_in: Option<i64>) -> Option<Timestamp> {
    expires_in
        .filter(|seconds| *seconds > 0)
        .map(|seconds| now.plus_secs(seconds))
}
