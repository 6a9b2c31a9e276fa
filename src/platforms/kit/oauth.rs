//! OAuth tokens in the token store: what managing them takes on every platform. How a platform validates a token, and what its
//! answers mean, is the adapter's; the status that follows is in [`token_check`](super::token_check).
//!
//! Tokens are changed under the account's lease only, which one task of one process holds at a time, and stored before they are
//! used.

use secrecy::{ExposeSecret, SecretString};

use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::token_check::Refresh;
use crate::tokens::{RefreshState, StoredToken, TokenError, TokenKind, TokenStore};

/// Application tokens live for weeks; a new one is requested on the last day.
const APP_TOKEN_MARGIN_SECS: i64 = 86_400;

/// Why a grant was not exchanged for a token.
#[derive(Debug)]
pub enum GrantError {
    /// The refresh token is no longer honored.
    Gone(String),
    /// The application is rejected: a wrong or missing secret, or an unknown client id.
    Misconfigured(String),
    /// The request certainly had no effect.
    NoEffect(PlatformError),
    /// The request may have been processed, but its answer is lost.
    Lost(PlatformError),
    /// A refusal that is not the platform's own: the request had no effect and the answer proves nothing.
    Foreign(PlatformError),
}

impl GrantError {
    /// Returns what the failure means for a refresh.
    pub fn as_refresh(&self) -> Refresh {
        match self {
            Self::Gone(reason) => Refresh::GrantGone(reason.clone()),
            Self::Misconfigured(reason) => Refresh::AppRefused(reason.clone()),
            Self::Foreign(error) => Refresh::Unclear(error.to_string()),
            // The answer did not come from the platform's token endpoint.
            Self::Lost(error) if is_foreign(error) => Refresh::Unclear(error.to_string()),
            Self::NoEffect(error) | Self::Lost(error) => Refresh::NoAnswer(error.to_string()),
        }
    }
}

fn is_foreign(error: &PlatformError) -> bool {
    match error {
        PlatformError::Unreadable { .. } => true,
        PlatformError::Unavailable { code, .. } => *code == Code::HttpWebPage,
        _ => false,
    }
}

/// Returns whether both are the same token.
pub fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Returns when a token that was granted at `now` expires. Platforms send zero or nothing for one without a known expiry.
pub fn expires_at(now: Timestamp, expires_in_secs: Option<i64>) -> Option<Timestamp> {
    expires_in_secs
        .filter(|seconds| *seconds > 0)
        .map(|seconds| now.plus_secs(seconds))
}

/// Returns whether a refresh of the token may succeed: its refresh token was not refused.
pub fn can_refresh(token: &StoredToken) -> bool {
    let refresh = token.refresh.as_ref();
    refresh.is_some_and(|refresh| !matches!(refresh.state, RefreshState::Refused { .. }))
}

/// Returns whether a token of the application can be used for a while: it is of this client id and not in its last day.
pub fn is_lasting_app_token(token: &StoredToken, client_id: Option<&str>, now: Timestamp) -> bool {
    let lasting = |end: Timestamp| now < end.plus_secs(-APP_TOKEN_MARGIN_SECS);
    token.expires_at.is_none_or(lasting) && (client_id.is_none() || token.client_id.as_deref() == client_id)
}

/// Returns the token that the application was granted at `now`.
pub fn granted_app_token(
    client_id: Option<&str>,
    access: String,
    expires_in_secs: Option<i64>,
    now: Timestamp,
) -> StoredToken {
    StoredToken {
        kind: TokenKind::App,
        client_id: client_id.map(str::to_owned),
        expires_at: expires_at(now, expires_in_secs),
        ..StoredToken::unproven(access, now)
    }
}

/// The stored tokens of one platform.
#[derive(Clone, Copy)]
pub struct StoredTokens<'a> {
    platform: PlatformName,
    store: &'a dyn TokenStore,
}

impl<'a> StoredTokens<'a> {
    /// Uses `store` for the accounts of `platform`.
    pub fn new(platform: PlatformName, store: &'a dyn TokenStore) -> Self {
        Self { platform, store }
    }

    /// Returns this platform's accounts that have a token, `first` first.
    pub async fn identities(&self, first: &str) -> Result<Vec<Identity>, PlatformError> {
        let mut identities = self
            .store
            .identities()
            .await
            .map_err(|error| self.unusable(&error))?;
        identities.retain(|identity| {
            let platform = identity.as_str().split_once('/').map(|(platform, _)| platform);
            platform == Some(self.platform.as_str())
        });
        identities.sort_by_key(|identity| (identity.as_str() != first, identity.clone()));
        Ok(identities)
    }

    /// Returns a token of the application: the stored one if it is usable, also if another task or process stored it just now,
    /// else the result of `request`, which is stored first.
    pub async fn app_token(
        &self,
        identity: &Identity,
        is_usable: impl Fn(&StoredToken) -> bool,
        request: impl Future<Output = Result<StoredToken, PlatformError>>,
    ) -> Result<StoredToken, PlatformError> {
        let lease = self
            .store
            .lease(identity)
            .await
            .map_err(|error| self.unusable(&error))?;
        let mut record = lease.load().await.map_err(|error| self.unusable(&error))?;
        if let Some(token) = record.token.as_ref().filter(|token| is_usable(token)) {
            return Ok(token.clone());
        }
        let token = request.await?;
        record.token = Some(token.clone());
        lease.save(&record).await.map_err(|error| self.unusable(&error))?;
        Ok(token)
    }

    /// Stores what is known about a token, unless it was replaced meanwhile. The refresh token stays as it is stored.
    pub async fn amend(&self, identity: &Identity, known: &StoredToken) -> Result<(), PlatformError> {
        let lease = self
            .store
            .lease(identity)
            .await
            .map_err(|error| self.unusable(&error))?;
        let mut record = lease.load().await.map_err(|error| self.unusable(&error))?;
        let current = record.token.as_mut();
        if let Some(current) = current.filter(|current| is_same(&current.access, &known.access)) {
            let refresh = current.refresh.take();
            *current = StoredToken {
                refresh,
                ..known.clone()
            };
            lease.save(&record).await.map_err(|error| self.unusable(&error))?;
        }
        Ok(())
    }

    fn unusable(&self, error: &TokenError) -> PlatformError {
        PlatformError::of_token_store(self.platform, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{MemoryTokenStore, RefreshToken, TokenRecord};

    fn identity() -> Identity {
        Identity::named("kick/app")
    }

    async fn put(store: &MemoryTokenStore, identity: &Identity, token: StoredToken) {
        let record = TokenRecord {
            token: Some(token),
            ..TokenRecord::default()
        };
        store.lease(identity).await.unwrap().save(&record).await.unwrap();
    }

    #[test]
    fn app_token_lasts_until_its_last_day_and_for_its_client() {
        let token = granted_app_token(
            Some("client"),
            "access".to_owned(),
            Some(2 * 86_400),
            Timestamp::EPOCH,
        );
        let lasts = |client, second| is_lasting_app_token(&token, client, Timestamp::EPOCH.plus_secs(second));
        assert!(lasts(Some("client"), 86_399) && lasts(None, 0));
        assert!(!lasts(Some("client"), 86_400) && !lasts(Some("other"), 0));
        assert_eq!(expires_at(Timestamp::EPOCH, Some(0)), None);
    }

    #[tokio::test]
    async fn app_token_is_requested_only_if_none_is_usable() {
        let store = MemoryTokenStore::default();
        let tokens = StoredTokens::new(PlatformName::Kick, &store);
        let token = |access: &str| StoredToken::unproven(access, Timestamp::EPOCH);
        for (is_usable, granted, expected) in
            [(true, "one", "one"), (true, "two", "one"), (false, "two", "two")]
        {
            let request = async { Ok(token(granted)) };
            let found = tokens.app_token(&identity(), |_| is_usable, request).await;
            assert_eq!(found.unwrap().access.expose_secret(), expected);
        }
        let stored = store.load(&identity()).await.unwrap().unwrap();
        assert_eq!(stored.access.expose_secret(), "two");
    }

    #[tokio::test]
    async fn replaced_token_is_not_amended() {
        let store = MemoryTokenStore::default();
        let tokens = StoredTokens::new(PlatformName::Kick, &store);
        let stored = StoredToken {
            refresh: Some(RefreshToken::fresh("refresh".to_owned())),
            ..StoredToken::unproven("new", Timestamp::EPOCH)
        };
        put(&store, &identity(), stored).await;
        for (access, login) in [("old", None), ("new", Some("ada"))] {
            let known = StoredToken {
                login: Some("ada".to_owned()),
                ..StoredToken::unproven(access, Timestamp::EPOCH)
            };
            tokens.amend(&identity(), &known).await.unwrap();
            let stored = store.load(&identity()).await.unwrap().unwrap();
            assert_eq!(stored.login.as_deref(), login);
            assert!(can_refresh(&stored));
        }
    }

    #[tokio::test]
    async fn identities_are_those_of_the_platform_bot_first() {
        let store = MemoryTokenStore::default();
        for name in ["kick/app", "kick/bot", "kicker/bot", "twitch/bot"] {
            let token = StoredToken::unproven("access", Timestamp::EPOCH);
            put(&store, &Identity::named(name), token).await;
        }
        let tokens = StoredTokens::new(PlatformName::Kick, &store);
        let names = tokens.identities("kick/bot").await.unwrap();
        assert_eq!(names, ["kick/bot", "kick/app"].map(Identity::named));
    }
}
