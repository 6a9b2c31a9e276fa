//! Provides tokens for this platform: usable ones for calls, and the status of each account.
//!
//! `check` checks an account, `renewal` refreshes its token, and [`crate::platforms::kit::token_check`] derives the status.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::sync::OnceCell;

use super::helix::Helix;
use super::oauth::OAuth;
use super::options::{APP, BOT};
use super::token_status::is_due;
use crate::clock::Clock;
use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::{StoredTokens, is_lasting_app_token, is_same};
use crate::platforms::kit::token_check::{TokenCheck, TokenStatus};
use crate::tokens::{StoredToken, TokenError, TokenKind, TokenRecord, TokenStore};

/// The credentials of a call.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) identity: Identity,
    pub(super) token: SecretString,
    pub(super) client_id: String,
    pub(super) user_id: Option<String>,
    pub(super) scopes: BTreeSet<String>,
    /// Whether Twitch has listed the scopes. If not, none is known to be missing.
    pub(super) scopes_known: bool,
}

impl Access {
    /// Returns the name of the rate-limit bucket that calls with this token draw from.
    pub(super) fn bucket(&self) -> String {
        let user = self.user_id.as_deref().unwrap_or("app");
        format!("{}/{user}", self.client_id)
    }

    /// Returns whether one of `scopes` was granted, as far as the scopes are known.
    pub(super) fn has_scope(&self, scopes: &[&str]) -> bool {
        !self.scopes_known || scopes.iter().any(|scope| self.scopes.contains(*scope))
    }
}

/// Keeps this platform's tokens usable.
pub(super) struct Auth {
    pub(super) oauth: OAuth,
    /// Used when the answer of `validate` is inconclusive.
    pub(super) helix: Arc<Helix>,
    pub(super) store: Arc<dyn TokenStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<SecretString>,
    pub(super) bot_user_id: Option<String>,
    /// Token pairs that were granted but could not be stored yet. They are not used before they are stored.
    pub(super) unsaved: Mutex<HashMap<Identity, Unsaved>>,
    /// When an early renewal was last attempted.
    pub(super) early_attempts: Mutex<HashMap<Identity, Timestamp>>,
    /// Checks in progress; concurrent callers of the same check wait for its result.
    pub(super) in_progress: Mutex<HashMap<Identity, Arc<OnceCell<TokenCheck>>>>,
    /// Accounts whose scopes `validate` has not listed.
    scopeless: Mutex<BTreeSet<Identity>>,
    /// When Twitch last accepted the token of each account.
    accepted_at: Mutex<HashMap<Identity, Timestamp>>,
}

pub(super) struct Unsaved {
    pub(super) replaces: SecretString,
    pub(super) record: TokenRecord,
}

impl Auth {
    pub(super) fn new(
        oauth: OAuth,
        helix: Arc<Helix>,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        options: &super::TwitchOptions,
    ) -> Self {
        Self {
            oauth,
            helix,
            store,
            clock,
            client_id: options.client_id.clone(),
            client_secret: options.client_secret.clone(),
            bot_user_id: options.bot_user_id.clone(),
            unsaved: Mutex::default(),
            early_attempts: Mutex::default(),
            in_progress: Mutex::default(),
            scopeless: Mutex::default(),
            accepted_at: Mutex::default(),
        }
    }

    /// Returns this platform's identities that have a token, the bot first.
    pub(super) async fn identities(&self) -> Result<Vec<Identity>, PlatformError> {
        self.tokens().identities(BOT).await
    }

    pub(super) fn tokens(&self) -> StoredTokens<'_> {
        StoredTokens::new(PlatformName::Twitch, self.store.as_ref())
    }

    /// Records whether the scopes of an account are known.
    pub(super) fn note_scopes(&self, identity: &Identity, known: bool) {
        let mut scopeless = self.scopeless.lock();
        if known {
            scopeless.remove(identity);
        } else {
            scopeless.insert(identity.clone());
        }
    }

    /// Returns whether the scopes of an account are known.
    pub(super) fn has_known_scopes(&self, identity: &Identity) -> bool {
        let scopeless = self.scopeless.lock();
        !scopeless.contains(identity)
    }

    /// Records that Twitch has just accepted the token of an account.
    pub(super) fn note_accepted(&self, identity: &Identity) {
        let now = self.clock.now();
        self.accepted_at.lock().insert(identity.clone(), now);
    }

    /// Returns whether Twitch has accepted the token of an account since `start`.
    pub(super) fn was_accepted_since(&self, identity: &Identity, start: Timestamp) -> bool {
        let accepted_at = self.accepted_at.lock();
        accepted_at.get(identity).is_some_and(|at| *at >= start)
    }

    /// Returns whether an application token can be obtained.
    pub(super) fn can_be_app(&self) -> bool {
        self.client_id.is_some() && self.client_secret.is_some()
    }

    /// Returns a usable token of `identity`, renewed if due. Missing account details are requested first.
    pub(super) async fn access(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Access, PlatformError> {
        self.store_unsaved(identity).await?;
        let now = self.clock.now();
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        if identity.as_str() == APP {
            let lasting = |token: &StoredToken| self.is_lasting_app_token(token, now);
            if let Some(token) = stored.filter(lasting) {
                return self.as_access(identity, token);
            }
            let request = self.request_app_token(meter);
            let token = self.tokens().app_token(identity, lasting, request).await?;
            return self.as_access(identity, token);
        }
        let mut token = stored.ok_or_else(|| no_token(identity))?;
        if token.refresh.is_some()
            && self.store.renews()
            && is_due(token.obtained_at, token.expires_at, now)
            && self.may_try_early(identity, now)
        {
            // A failure here changes nothing: the token may still be valid, and if it is not, the rejection triggers a check.
            token = self.renew_early(identity, token, meter).await?;
        }
        let proven = token.client_id.is_some() && (token.user_id.is_some() || token.kind == TokenKind::App);
        if !proven {
            token = accepted(self.check(identity, meter).await?)?;
        }
        self.as_access(identity, token)
    }

    /// Returns a better token after Twitch rejected `used` with `words`: one that another process has stored meanwhile, or a
    /// refreshed one. `None` when `validate` accepts `used`, so the rejection had another cause.
    pub(super) async fn after_refusal(
        &self,
        used: &Access,
        words: &str,
        meter: &Meter<'_>,
    ) -> Result<Option<Access>, PlatformError> {
        let identity = &used.identity;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let stored = stored.ok_or_else(|| no_token(identity))?;
        if !is_same(&stored.access, &used.token) {
            return self.as_access(identity, stored).map(Some);
        }
        let token = accepted(self.check_refused(identity, words, meter).await?)?;
        if is_same(&token.access, &used.token) {
            return Ok(None);
        }
        self.as_access(identity, token).map(Some)
    }

    fn as_access(&self, identity: &Identity, token: StoredToken) -> Result<Access, PlatformError> {
        if token.kind == TokenKind::User {
            self.require_owner(identity, token.user_id.as_deref(), None)?;
        }
        let client_id = token.client_id.or_else(|| self.client_id.clone());
        Ok(Access {
            identity: identity.clone(),
            token: token.access,
            client_id: client_id.ok_or_else(no_client_id)?,
            user_id: token.user_id,
            scopes: token.scopes,
            scopes_known: self.has_known_scopes(identity),
        })
    }

    pub(super) fn is_lasting_app_token(&self, token: &StoredToken, now: Timestamp) -> bool {
        is_lasting_app_token(token, self.client_id.as_deref(), now)
    }
}

/// Returns the token of an account whose check found it valid.
fn accepted(check: TokenCheck) -> Result<StoredToken, PlatformError> {
    match (check.status, check.error) {
        (TokenStatus::Valid, _) => Ok(check.token),
        (_, Some(error)) => Err(error),
        // The refresh was not answered. That is transient, so it is no rejection of the credentials.
        (TokenStatus::Unknown(reason), None) => Err(PlatformError::Unavailable {
            platform: PlatformName::Twitch,
            operation: "a usable token",
            reason,
            code: Code::TokenUnchecked(PlatformName::Twitch),
        }),
        (status, None) => Err(refused(status.reason().unwrap_or_default().to_owned())),
    }
}

pub(super) fn refused(reason: String) -> PlatformError {
    PlatformError::Unauthorized {
        platform: PlatformName::Twitch,
        reason,
    }
}

pub(super) fn no_token(identity: &Identity) -> PlatformError {
    let whose = match identity.as_str() {
        BOT => String::new(),
        other => format!(" --as {}", other.trim_start_matches("twitch/")),
    };
    PlatformError::NotConfigured {
        platform: PlatformName::Twitch,
        what: format!("a token for `{identity}`: run `bitbrat auth login twitch{whose} --with-token`"),
    }
}

pub(super) fn no_client_id() -> PlatformError {
    PlatformError::NotConfigured {
        platform: PlatformName::Twitch,
        what: "a client id (`twitch.client_id`), and its secret to ask as the application itself".to_owned(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(super) fn unusable_store(error: TokenError) -> PlatformError {
    PlatformError::of_token_store(PlatformName::Twitch, &error)
}
