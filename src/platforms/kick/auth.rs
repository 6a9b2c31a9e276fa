//! Token handling of this platform: a usable token for each call, and what to do when Kick refuses it.
//!
//! The rules are in `token_status`; this module defines the order of effects. [`check`] determines the token status,
//! [`grants`] obtains new tokens.

mod check;
mod grants;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use secrecy::SecretString;
use serde::Deserialize;

use super::account_check::Checked;
use super::client::Client;
use super::meter::Meter;
use super::options::{APP, BOT, KickOptions};
use super::token_status::is_due;
use crate::clock::Clock;
use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::http::Answer;
use crate::platforms::PlatformError;
use crate::platforms::kit::oauth::{StoredTokens, can_refresh, is_lasting_app_token, is_same};
use crate::platforms::kit::token_check::{Refresh, TokenStatus};
use crate::tokens::{StoredToken, TokenError, TokenKind, TokenStore};

/// A token for a call.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) identity: Identity,
    pub(super) token: SecretString,
}

/// What to do after Kick has refused a token.
pub(super) enum Refused {
    /// Retry with this token.
    Better(Access),
    /// The token is valid; the refusal had another reason.
    NotTheToken,
    /// There is no usable token.
    Hopeless,
}

/// Keeps this platform's tokens usable.
pub(super) struct Auth {
    client: Arc<Client>,
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    bot_user_id: Option<u64>,
    app_refused_at: Mutex<Option<Timestamp>>,
    recent: Mutex<HashMap<Identity, Checked>>,
}

impl Auth {
    pub(super) fn new(
        client: Arc<Client>,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        options: &KickOptions,
    ) -> Self {
        Self {
            client,
            store,
            clock,
            client_id: options.client_id.clone().filter(|id| !id.is_empty()),
            client_secret: options.client_secret.clone(),
            bot_user_id: options.bot_user_id,
            app_refused_at: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// Returns the identities that can be checked, the application first.
    pub(super) async fn identities(&self) -> Result<Vec<Identity>, PlatformError> {
        let mut identities = self.tokens().identities(BOT).await?;
        identities.retain(|identity| identity.as_str() != APP);
        if self.can_be_app() {
            identities.insert(0, Identity::named(APP));
        }
        Ok(identities)
    }

    fn tokens(&self) -> StoredTokens<'_> {
        StoredTokens::new(PlatformName::Kick, self.store.as_ref())
    }

    /// Returns whether a token for the application itself can be obtained.
    fn can_be_app(&self) -> bool {
        self.client_id.is_some() && self.client_secret.is_some()
    }

    /// Returns a token for reading public data: the application's, else the bot's, else any broadcaster's.
    pub(super) async fn reader(&self, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        let identity = self
            .identities()
            .await?
            .into_iter()
            .next()
            .ok_or_else(no_identity)?;
        self.access(&identity, meter).await
    }

    /// Returns the application's token.
    pub(super) async fn app(&self, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        self.access(&Identity::named(APP), meter).await
    }

    /// Returns a usable token of `identity`, refreshed where it is due.
    async fn access(&self, identity: &Identity, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        let now = self.clock.now();
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let token = if identity.as_str() == APP {
            match stored.filter(|token| self.is_lasting_app_token(token, now)) {
                Some(token) => token,
                None => self.new_app_token(None, meter).await?,
            }
        } else {
            let mut token = stored.ok_or_else(no_identity)?;
            if is_due(token.expires_at, now) && can_refresh(&token) {
                // A failure here is not reported: the token may still be valid, and if not, its refusal is examined.
                if let Ok((renewed, Refresh::Done)) = self.renew(identity, &token, meter).await {
                    token = renewed;
                }
            }
            if token.user_id.is_none() {
                token = self.prove_owner(identity, token, meter).await?;
            }
            token
        };
        Ok(Access {
            identity: identity.clone(),
            token: token.access,
        })
    }

    fn is_lasting_app_token(&self, token: &StoredToken, now: Timestamp) -> bool {
        token.kind == TokenKind::App
            && token.client_id == self.client_id
            && is_lasting_app_token(token, self.client_id.as_deref(), now)
    }

    /// Examines a token that Kick has refused with 401. That alone proves little: it may be of the wrong kind or lack a
    /// scope. App tokens have been observed to become invalid early, and are simply replaced once.
    pub(super) async fn after_refusal(
        &self,
        used: &Access,
        meter: &Meter<'_>,
    ) -> Result<Refused, PlatformError> {
        let better = |token: SecretString| Access {
            identity: used.identity.clone(),
            token,
        };
        if used.identity.as_str() == APP {
            let token = self.new_app_token(Some(&used.token), meter).await?;
            return Ok(Refused::Better(better(token.access)));
        }
        let checked = self.check(&used.identity, meter).await?;
        match checked.status {
            TokenStatus::Valid => {
                let stored = self.store.load(&used.identity).await.map_err(unusable_store)?;
                let token = stored.ok_or_else(no_identity)?.access;
                Ok(if is_same(&token, &used.token) {
                    Refused::NotTheToken
                } else {
                    Refused::Better(better(token))
                })
            }
            TokenStatus::Unknown(reason) => Err(PlatformError::Unavailable {
                platform: PlatformName::Kick,
                operation: "the examination of a refused token",
                reason,
                code: Code::TokenUnchecked(PlatformName::Kick),
            }),
            TokenStatus::Expired(_)
            | TokenStatus::ClientRejected(_)
            | TokenStatus::Rejected(_)
            | TokenStatus::Revoked(_) => Ok(Refused::Hopeless),
        }
    }
}

/// Parses a response body.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    answer: &Answer,
    operation: &'static str,
) -> Result<T, PlatformError> {
    answer.object().map_err(|reason| unreadable(operation, reason))
}

/// Builds the error for a response that does not match Kick's documentation.
pub(super) fn unreadable(operation: &'static str, reason: String) -> PlatformError {
    super::answer::asked(operation).unreadable(reason)
}

fn no_identity() -> PlatformError {
    PlatformError::NotConfigured {
        platform: PlatformName::Kick,
        what: "a client id and secret (`kick.client_id`, `kick.client_secret`), or a token of the bot"
            .to_owned(),
    }
}

fn not_ours(identity: &Identity, owner: &str) -> PlatformError {
    PlatformError::OtherAccount {
        platform: PlatformName::Kick,
        what: format!("its own token for `{identity}`, but the one at hand belongs to {owner}"),
    }
}

fn app_refusal() -> PlatformError {
    PlatformError::ClientRejected {
        platform: PlatformName::Kick,
        reason: "invalid_client; check `kick.client_id` and `kick.client_secret`".to_owned(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn unusable_store(error: TokenError) -> PlatformError {
    PlatformError::of_token_store(PlatformName::Kick, &error)
}
