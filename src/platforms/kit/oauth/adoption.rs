//! Granted pairs: from the journal into the store, once it is known whose they are.

use super::accounts::of_other_account;
use super::manager::{TokenManager, is_same, unusable_store};
use super::provider::{Provider, Validation};
use super::renewal::CONFLICTS;
use crate::core::observation::Identity;
use crate::fault::fault_point;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::tokens::{GrantedPair, Snapshot, StoredToken, TokenError, TokenKind};

/// Whose a granted pair is.
enum Ownership {
    /// The account's; with what the platform returned about the token.
    Own(Box<StoredToken>),
    Other(String),
    Unclear(PlatformError),
}

impl<P: Provider> TokenManager<P> {
    /// Stores a granted pair that is in the journal, as after a crash or while the store could not be written.
    pub(super) async fn adopt(&self, identity: &Identity, meter: &Meter<'_>) -> Result<(), PlatformError> {
        let _lock = self.store.lock(identity).await.map_err(unusable_store::<P>)?;
        self.adopt_locked(identity, meter).await.map(|_| ())
    }

    /// As [`Self::adopt`], under the account's lock. Returns why the pair could not be stored yet, if so; it stays in the journal then.
    /// Fails if it belongs to another account.
    pub(super) async fn adopt_locked(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Option<String>, PlatformError> {
        let journal = self.store.journal();
        journal.tidy(identity).await;
        for _ in 0..=CONFLICTS {
            let pair = journal.get(identity).await.map_err(unusable_store::<P>)?;
            let Some(mut pair) = pair else {
                return Ok(None);
            };
            let snapshot = self.read(identity).await?;
            match self.is_wanted(identity, &snapshot, &pair, meter).await {
                Ok(true) => {}
                Ok(false) => {
                    journal.remove(identity).await.map_err(unusable_store::<P>)?;
                    return Ok(None);
                }
                Err(unclear) => return Ok(Some(unclear)),
            }
            let expected = self.expected_owner(identity, snapshot.record.token.as_ref());
            let ownership = match &pair.other_owner {
                Some(owner) => Ownership::Other(owner.clone()),
                None => {
                    self.owner_of_granted(identity, expected.as_deref(), &pair.token, meter)
                        .await
                }
            };
            let token = match ownership {
                Ownership::Own(token) => *token,
                Ownership::Unclear(error) => {
                    return Ok(Some(format!(
                        "it cannot be checked whose the new token is: {error}"
                    )));
                }
                Ownership::Other(owner) => {
                    pair.other_owner = Some(owner.clone());
                    let kept = journal.put(identity, &pair).await;
                    kept.map_err(unusable_store::<P>)?;
                    let expected = expected.unwrap_or_default();
                    return Err(of_other_account::<P>(identity, &expected, &owner));
                }
            };
            let mut record = snapshot.record;
            record.replace_token(Some(token));
            fault_point("refresh.F8");
            match self.store.write(identity, &record, &snapshot.version).await {
                Ok(_) => {
                    fault_point("refresh.F9");
                    self.refusals.lock().forget(identity);
                    journal.remove(identity).await.map_err(unusable_store::<P>)?;
                    return Ok(None);
                }
                Err(TokenError::Conflict { .. }) => {}
                Err(error) => return Err(unusable_store::<P>(error)),
            }
        }
        let identity = identity.clone();
        Err(unusable_store::<P>(TokenError::Conflict { identity }))
    }

    /// Returns whether a granted pair is to replace the stored token: it is the result of the refresh that is recorded, or the token that
    /// replaced it meanwhile does not work and is older. `Err` contains why that is not known.
    async fn is_wanted(
        &self,
        identity: &Identity,
        snapshot: &Snapshot,
        pair: &GrantedPair,
        meter: &Meter<'_>,
    ) -> Result<bool, String> {
        let record = &snapshot.record;
        let intent = record.intent.as_ref();
        if record.generation == pair.generation && intent.is_some_and(|intent| intent.id == pair.intent) {
            return Ok(true);
        }
        // After a logout, and where it is stored already.
        let Some(stored) = &record.token else {
            return Ok(false);
        };
        if is_same(&stored.access, &pair.token.access)
            || pair.other_owner.is_some()
            || stored.obtained_at >= pair.token.obtained_at
            || stored.user_id != pair.token.user_id
        {
            return Ok(false);
        }
        match self.provider.validate(identity, stored, None, meter).await {
            Validation::Accepted(_) => Ok(false),
            Validation::Refused(_) => Ok(true),
            Validation::Unclear(error) => Err(error.to_string()),
        }
    }

    /// Returns the id of the user that a token of `identity` must belong to, as far as it is known.
    fn expected_owner(&self, identity: &Identity, stored: Option<&StoredToken>) -> Option<String> {
        let known = || stored.and_then(|token| token.user_id.clone());
        self.provider.owner_of(identity).or_else(known)
    }

    /// Finds out whose a granted pair is. A platform grants the pair of the account that the refresh token is of; a token store that
    /// several programs write may still have had another account's in this place.
    async fn owner_of_granted(
        &self,
        identity: &Identity,
        expected: Option<&str>,
        token: &StoredToken,
        meter: &Meter<'_>,
    ) -> Ownership {
        let own = |token: &StoredToken| Ownership::Own(Box::new(token.clone()));
        let Some(expected) = expected else {
            return own(token);
        };
        if !P::VALIDATION_NAMES_OWNER {
            return match self.provider.owner(&token.access, meter).await {
                Ok(Some(owner)) if owner.user_id == expected => own(&StoredToken {
                    user_id: Some(owner.user_id),
                    login: owner.login.or_else(|| token.login.clone()),
                    ..token.clone()
                }),
                Ok(Some(owner)) => Ownership::Other(format!("user {}", owner.user_id)),
                // Without the scope for it, no owner is named.
                Ok(None) => own(token),
                Err(error) => Ownership::Unclear(error),
            };
        }
        match self.provider.validate(identity, token, None, meter).await {
            Validation::Accepted(described) => {
                let described_token = described.token;
                match &described_token.user_id {
                    Some(owner) if owner == expected => {
                        let now = self.clock.now();
                        self.account(identity, &described_token, |account| {
                            account.accepted_at = Some(now);
                            account.scopes_unknown = !described.scopes_known;
                        });
                        own(&described_token)
                    }
                    Some(owner) => Ownership::Other(format!("user {owner}")),
                    None if described_token.kind == TokenKind::App => {
                        Ownership::Other("the application itself".to_owned())
                    }
                    None => own(token),
                }
            }
            // A rejected token has no owner; the next refresh has to show whose it is.
            Validation::Refused(_) => own(token),
            Validation::Unclear(error) => Ownership::Unclear(error),
        }
    }
}
