//! Tokens as this platform needs them: a usable one for each call, and what to do when Kick refuses it.
//!
//! The rules are in `standing`; here is the order of effects. [`check`] finds out how an authorisation stands, [`grants`] gets
//! new tokens.

mod check;
mod grants;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::client::Client;
use super::meter::Meter;
use super::options::{APP, BOT, KickOptions};
use super::standing::{Renewal, Standing, is_due};
use crate::clock::Clock;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::http::Answer;
use crate::platforms::PlatformError;
use crate::tokens::{RefreshState, StoredToken, TokenError, TokenKind, TokenStore};

/// An app token is replaced in its last day.
const APP_MARGIN_SECS: i64 = 86_400;
/// The operation in the error that says that the application itself is refused.
pub(super) const APP_REFUSED: &str = "a token for this client id and secret";

/// A token to call with.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) identity: Identity,
    pub(super) token: SecretString,
}

/// How an identity's authorisation was found.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) at: Timestamp,
    pub(super) standing: Standing,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) scopes: BTreeSet<String>,
    pub(super) user_id: Option<u64>,
    /// When the grant was last renewed; `None` for the application, which needs no grant.
    pub(super) renewed_at: Option<Timestamp>,
    /// Scopes that it had when it was last looked at.
    pub(super) lost_scopes: BTreeSet<String>,
    /// Whether the application itself is refused.
    pub(super) app_refused: bool,
}

/// What is to be done after Kick has refused a token.
pub(super) enum Refused {
    /// Try with this one.
    Better(Access),
    /// The token is good; the refusal was about something else.
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

    /// Returns the identities that can be looked at, the application first.
    pub(super) async fn identities(&self) -> Result<Vec<Identity>, PlatformError> {
        let mut identities = self.store.identities().await.map_err(unusable_store)?;
        identities.retain(|identity| identity.as_str().starts_with("kick/") && identity.as_str() != APP);
        identities.sort_by_key(|identity| (identity.as_str() != BOT, identity.clone()));
        if self.can_be_app() {
            identities.insert(0, Identity::named(APP));
        }
        Ok(identities)
    }

    /// Returns whether a token for the application itself can be had.
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

    /// Returns a usable token of `identity`, renewed where it is due.
    async fn access(&self, identity: &Identity, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        let now = self.clock.now();
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let token = if identity.as_str() == APP {
            let margin = |end: Timestamp| now >= end.plus_secs(-APP_MARGIN_SECS);
            match stored.filter(|token| self.is_ours(token) && !token.expires_at.is_some_and(margin)) {
                Some(token) => token,
                None => self.new_app_token(None, meter).await?,
            }
        } else {
            let mut token = stored.ok_or_else(no_identity)?;
            if is_due(token.expires_at, now) && can_refresh(&token) {
                // A failure here is no news: the token may still be good, and if not, its refusal is examined.
                if let Ok((renewed, Renewal::Renewed)) = self.renew(identity, &token, meter).await {
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

    fn is_ours(&self, token: &StoredToken) -> bool {
        token.kind == TokenKind::App && token.client_id == self.client_id
    }

    /// Examines a token that Kick has refused with 401. That alone means little: it may be of the wrong kind or lack a
    /// scope. App tokens have been seen to die early, and are simply replaced once.
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
        match checked.standing {
            Standing::Valid => {
                let stored = self.store.load(&used.identity).await.map_err(unusable_store)?;
                let token = stored.ok_or_else(no_identity)?.access;
                Ok(if same(&token, &used.token) {
                    Refused::NotTheToken
                } else {
                    Refused::Better(better(token))
                })
            }
            Standing::Unknown(reason) => Err(PlatformError::Unavailable {
                platform: PlatformName::Kick,
                operation: "the examination of a refused token",
                reason,
                code: "kick.introspect".to_owned(),
            }),
            Standing::Expired(_) | Standing::Revoked(_) => Ok(Refused::Hopeless),
        }
    }
}

fn can_refresh(token: &StoredToken) -> bool {
    let refresh = token.refresh.as_ref();
    refresh.is_some_and(|refresh| !matches!(refresh.state, RefreshState::Refused { .. }))
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Reads an answer's body.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    answer: &Answer,
    operation: &'static str,
) -> Result<T, PlatformError> {
    answer.json().map_err(|reason| unreadable(operation, reason))
}

/// Builds the error for an answer that is not what Kick documents.
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
    PlatformError::NotConfigured {
        platform: PlatformName::Kick,
        what: format!("its own token for `{identity}`, but the one at hand belongs to {owner}"),
    }
}

fn app_refusal() -> PlatformError {
    PlatformError::Rejected {
        platform: PlatformName::Kick,
        operation: APP_REFUSED,
        status: 401,
        reason: "invalid_client; check `kick.client_id` and `kick.client_secret`".to_owned(),
    }
}

/// Returns whether an error says that the application itself is refused.
pub(super) fn is_app_refusal(error: &PlatformError) -> bool {
    matches!(error, PlatformError::Rejected { operation, .. } if *operation == APP_REFUSED)
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn unusable_store(error: TokenError) -> PlatformError {
    PlatformError::TokenStore {
        platform: PlatformName::Kick,
        reason: format!("{error}; {}", error.hint()),
    }
}
