//! How an identity's authorisation stands: Kick's own word about a token, whose it is, and what follows when it is no longer
//! active.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use secrecy::SecretString;
use serde_json::Value;

use super::super::client::Call;
use super::super::meter::Meter;
use super::super::options::{APP, BOT, broadcaster_of};
use super::super::standing::{Renewal, Standing, of_inactive};
use super::super::wire::{Envelope, Enveloped, Introspected, User, items};
use super::{Auth, Checked, is_app_refusal, no_identity, not_ours, read, same, unreadable, unusable_store};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::tokens::{StoredToken, TokenKind};

impl Auth {
    /// Returns how `identity` was found at most `max_age_ms` ago, else looks.
    pub(in super::super) async fn checked_within(
        &self,
        max_age_ms: i64,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Checked, PlatformError> {
        let recent = self
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(identity)
            .cloned();
        match recent.filter(|checked| self.clock.now().millis_since(checked.at) <= max_age_ms) {
            Some(checked) => Ok(checked),
            None => self.check(identity, meter).await,
        }
    }

    /// Looks how the authorisation of `identity` stands, renewing its token where that is what it takes.
    pub(in super::super) async fn check(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Checked, PlatformError> {
        let access = self.access(identity, meter).await;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let Some(token) = stored else {
            // There is no token of the application, and none could be had.
            let Err(error) = access else {
                return Err(no_identity());
            };
            return Err(error);
        };
        // What a token that is somebody else's may do is not of interest.
        if let Err(error @ (PlatformError::NotConfigured { .. } | PlatformError::TokenStore { .. })) = access
        {
            return Err(error);
        }
        let (standing, token, known, app_refused) = match self.introspect(&token.access, meter).await {
            Ok(Some(told)) => {
                let before = token.scopes.clone();
                let token = self.learn(identity, token, told).await?;
                let lost = before.difference(&token.scopes).cloned().collect();
                (Standing::Valid, token, lost, false)
            }
            Ok(None) => {
                let (token, standing, app_refused) = self.of_inactive(identity, token, meter).await?;
                (standing, token, BTreeSet::new(), app_refused)
            }
            Err(error) => (
                Standing::Unknown(error.to_string()),
                token,
                BTreeSet::new(),
                false,
            ),
        };
        let checked = Checked {
            at: self.clock.now(),
            standing,
            expires_at: token.expires_at,
            scopes: token.scopes,
            user_id: token.user_id.and_then(|id| id.parse().ok()),
            renewed_at: (token.kind == TokenKind::User && token.refresh.is_some())
                .then_some(token.obtained_at),
            lost_scopes: known,
            app_refused,
        };
        meter.checked(identity, checked.clone());
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.insert(identity.clone(), checked.clone());
        Ok(checked)
    }

    async fn of_inactive(
        &self,
        identity: &Identity,
        token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, Standing, bool), PlatformError> {
        if identity.as_str() == APP {
            return match self.new_app_token(Some(&token.access), meter).await {
                Ok(token) => Ok((token, Standing::Valid, false)),
                Err(error) => {
                    let refused = is_app_refusal(&error);
                    Ok((token, Standing::Unknown(error.to_string()), refused))
                }
            };
        }
        let (current, renewal) = self.renew(identity, &token, meter).await?;
        let now = self.clock.now();
        let standing = of_inactive(&renewal, token.expires_at, token.obtained_at, now);
        Ok((current, standing, renewal == Renewal::InvalidClient))
    }

    /// Asks whether `token` is active; `None` when it is not. Kick says so with 200 or with 401.
    async fn introspect(
        &self,
        token: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Option<Introspected>, PlatformError> {
        let call = Call {
            token: Some(token),
            ..Call::oauth("/oauth/token/introspect", "the examination of a token")
        };
        match self.client.exchange(&call, &meter.calls).await {
            Ok(answer) => {
                let told: Enveloped<Introspected> = read(&answer, call.operation)?;
                let told = told.open();
                match told.active {
                    Some(active) => Ok(Some(told).filter(|_| active)),
                    None => Err(unreadable(
                        call.operation,
                        "it does not say whether the token is active".to_owned(),
                    )),
                }
            }
            Err(PlatformError::Unauthorized { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes what introspection told into the store, after checking that the token belongs to this application.
    async fn learn(
        &self,
        identity: &Identity,
        token: StoredToken,
        told: Introspected,
    ) -> Result<StoredToken, PlatformError> {
        let told_client = told.client_id.filter(|id| !id.is_empty());
        if let (Some(told), Some(ours)) = (&told_client, &self.client_id)
            && told != ours
        {
            return Err(not_ours(identity, "another application"));
        }
        if told.token_type.as_deref() == Some("app") && identity.as_str() != APP {
            return Err(not_ours(identity, "the application itself"));
        }
        let mut learnt = token.clone();
        learnt.client_id = told_client.or(learnt.client_id);
        // Silence about scopes does not take any away.
        learnt.scopes = told.scope.unwrap_or(learnt.scopes);
        // Unix seconds; anything that is no plausible end is not believed.
        let end = told.exp.filter(|exp| *exp > 1_000_000_000);
        learnt.expires_at = end
            .map(|exp| Timestamp::from_millis(exp.saturating_mul(1000)))
            .or(learnt.expires_at);
        let news = (&learnt.client_id, &learnt.scopes, learnt.expires_at)
            != (&token.client_id, &token.scopes, token.expires_at);
        if news {
            self.amend(identity, &learnt).await?;
        }
        Ok(learnt)
    }

    /// Keeps what was learnt of a token, unless there is another one by now.
    async fn amend(&self, identity: &Identity, learnt: &StoredToken) -> Result<(), PlatformError> {
        let lease = self.store.lease(identity).await.map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let current = record.token.as_mut();
        if let Some(current) = current.filter(|current| same(&current.access, &learnt.access)) {
            let refresh = current.refresh.take();
            *current = StoredToken {
                refresh,
                ..learnt.clone()
            };
            lease.save(&record).await.map_err(unusable_store)?;
        }
        Ok(())
    }

    /// Finds out whose a user token is, which introspection does not tell. A token of somebody else is never used.
    pub(super) async fn prove_owner(
        &self,
        identity: &Identity,
        mut token: StoredToken,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let call = Call {
            token: Some(&token.access),
            ..Call::get("/public/v1/users", &[], "the token's own user")
        };
        let answer = match self.client.exchange(&call, &meter.calls).await {
            Ok(answer) => answer,
            // A dead token, or one without `user:read`: whose it is stays open, and its use will show which.
            Err(PlatformError::Unauthorized { .. } | PlatformError::Forbidden { .. }) => return Ok(token),
            Err(error) => return Err(error),
        };
        let told: Envelope<Value> = read(&answer, call.operation)?;
        let Some(user) = items(told).into_iter().flatten().next() else {
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
        self.amend(identity, &token).await?;
        Ok(token)
    }
}
