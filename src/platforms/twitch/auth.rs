//! Tokens as this platform needs them: usable ones for calls, and how each identity's authorisation stands.
//!
//! The rules are in `standing`, and how a token is renewed is in `renewal`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use secrecy::{ExposeSecret, SecretString};

use super::oauth::OAuth;
use super::options::{APP, BOT, broadcaster_of};
use super::standing::{Renewal, Standing, Validation, after_refusal, is_due};
use super::wire::Validated;
use crate::clock::Clock;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::meter::Meter;
use crate::tokens::{StoredToken, TokenError, TokenKind, TokenRecord, TokenStore};

/// Application tokens live about 60 days and are simply fetched again in their last one.
const APP_TOKEN_MARGIN_SECS: i64 = 86_400;

/// Everything a call needs to be authorised.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) identity: Identity,
    pub(super) token: SecretString,
    pub(super) client_id: String,
    pub(super) user_id: Option<String>,
    pub(super) scopes: std::collections::BTreeSet<String>,
}

impl Access {
    /// Returns the name of the rate-limit bucket that calls with this token draw from.
    pub(super) fn bucket(&self) -> String {
        let user = self.user_id.as_deref().unwrap_or("app");
        format!("{}/{user}", self.client_id)
    }

    /// Returns whether one of `scopes` was granted.
    pub(super) fn has_scope(&self, scopes: &[&str]) -> bool {
        scopes.iter().any(|scope| self.scopes.contains(*scope))
    }
}

/// The outcome of looking at an identity's authorisation.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) standing: Standing,
    /// The token as it is kept now.
    pub(super) token: StoredToken,
    /// Why nothing is known, where that is so.
    pub(super) error: Option<PlatformError>,
}

/// Keeps this platform's tokens usable.
pub(super) struct Auth {
    pub(super) oauth: OAuth,
    pub(super) store: Arc<dyn TokenStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<SecretString>,
    pub(super) bot_user_id: Option<String>,
    /// Pairs that were granted but could not be kept yet. They are not used before they are.
    pub(super) unsaved: Mutex<HashMap<Identity, Unsaved>>,
    /// When renewing ahead of time was last tried.
    pub(super) tried_early: Mutex<HashMap<Identity, Timestamp>>,
}

pub(super) struct Unsaved {
    pub(super) replaces: SecretString,
    pub(super) record: TokenRecord,
}

impl Auth {
    pub(super) fn new(
        oauth: OAuth,
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        options: &super::TwitchOptions,
    ) -> Self {
        Self {
            oauth,
            store,
            clock,
            client_id: options.client_id.clone(),
            client_secret: options.client_secret.clone(),
            bot_user_id: options.bot_user_id.clone(),
            unsaved: Mutex::default(),
            tried_early: Mutex::default(),
        }
    }

    /// Returns this platform's identities that have a token, the bot first.
    pub(super) async fn identities(&self) -> Result<Vec<Identity>, PlatformError> {
        let mut identities = self.store.identities().await.map_err(unusable_store)?;
        identities.retain(|identity| identity.as_str().starts_with("twitch/"));
        identities.sort_by_key(|identity| (identity.as_str() != BOT, identity.clone()));
        Ok(identities)
    }

    /// Returns whether a token for the application itself can be had.
    pub(super) fn can_be_app(&self) -> bool {
        self.client_id.is_some() && self.client_secret.is_some()
    }

    /// Returns a usable token of `identity`, renewed where it is due. What is not known yet about it is asked for.
    pub(super) async fn access(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Access, PlatformError> {
        self.keep_unsaved(identity).await?;
        let now = self.clock.now();
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        if identity.as_str() == APP {
            let lasting = |token: &StoredToken| self.is_lasting_app_token(token, now);
            if let Some(token) = stored.filter(lasting) {
                return self.as_access(identity, token);
            }
            let lease = self.store.lease(identity).await.map_err(unusable_store)?;
            let current = lease.load().await.map_err(unusable_store)?.token;
            let token = match current.filter(lasting) {
                Some(fetched_meanwhile) => fetched_meanwhile,
                None => self.fetch_app_token(lease.as_ref(), meter).await?,
            };
            return self.as_access(identity, token);
        }
        let mut token = stored.ok_or_else(|| no_token(identity))?;
        if token.refresh.is_some()
            && self.store.renews()
            && is_due(token.obtained_at, token.expires_at, now)
            && self.may_try_early(identity, now)
        {
            // A failure here is no news: the token may still be good, and if not, its refusal is examined.
            token = self.renew_early(identity, token, meter).await?;
        }
        let proven = token.client_id.is_some() && (token.user_id.is_some() || token.kind == TokenKind::App);
        if !proven {
            let checked = self.check(identity, meter).await?;
            match (checked.standing, checked.error) {
                (Standing::Valid, _) => token = checked.token,
                (_, Some(error)) => return Err(error),
                (Standing::Expired(reason) | Standing::Revoked(reason) | Standing::Unknown(reason), None) => {
                    return Err(refused(reason));
                }
            }
        }
        self.as_access(identity, token)
    }

    /// Returns a better token after Twitch refused `used`: the one that somebody else has stored meanwhile, or a renewed
    /// one. `None` when `validate` says that `used` is good, so the refusal was about something else.
    pub(super) async fn after_refusal(
        &self,
        used: &Access,
        meter: &Meter<'_>,
    ) -> Result<Option<Access>, PlatformError> {
        let identity = &used.identity;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let stored = stored.ok_or_else(|| no_token(identity))?;
        if !same(&stored.access, &used.token) {
            return self.as_access(identity, stored).map(Some);
        }
        let checked = self.check(identity, meter).await?;
        match (checked.standing, checked.error) {
            (Standing::Valid, _) if same(&checked.token.access, &used.token) => Ok(None),
            (Standing::Valid, _) => self.as_access(identity, checked.token).map(Some),
            (_, Some(error)) => Err(error),
            (Standing::Expired(reason) | Standing::Revoked(reason) | Standing::Unknown(reason), None) => {
                Err(refused(reason))
            }
        }
    }

    /// Looks how the authorisation of `identity` stands, renewing its token where that is what it takes.
    ///
    /// The error is for what is no answer about the authorisation: no token, an unusable token store, a token of
    /// somebody else.
    pub(super) async fn check(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<Checked, PlatformError> {
        self.keep_unsaved(identity).await?;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let mut token = match stored {
            Some(token) => token,
            None if identity.as_str() == APP => {
                let lease = self.store.lease(identity).await.map_err(unusable_store)?;
                self.fetch_app_token(lease.as_ref(), meter).await?
            }
            None => return Err(no_token(identity)),
        };
        // Twice at most: a refusal is answered by a renewal, or by finding that another process has renewed.
        let mut renewed = false;
        loop {
            match self.oauth.validate(&token.access, meter).await {
                Ok(validated) => {
                    let token = self.learn(identity, token, validated).await?;
                    return Ok(Checked {
                        standing: Standing::Valid,
                        token,
                        error: None,
                    });
                }
                Err(PlatformError::Unauthorized { reason, .. }) if renewed => {
                    let standing =
                        Standing::Unknown(format!("a token that was just issued is refused: {reason}"));
                    return Ok(Checked {
                        standing,
                        token,
                        error: Some(refused(reason)),
                    });
                }
                Err(PlatformError::Unauthorized { .. }) => {
                    let lease = self.store.lease(identity).await.map_err(unusable_store)?;
                    let mut record = lease.load().await.map_err(unusable_store)?;
                    let current = record.token.clone().ok_or_else(|| no_token(identity))?;
                    renewed = true;
                    if !same(&current.access, &token.access) {
                        token = current;
                        continue;
                    }
                    let renewal = self
                        .renew(identity, lease.as_ref(), &mut record, Validation::Refused, meter)
                        .await?;
                    let standing = after_refusal(&renewal, token.expires_at, self.clock.now());
                    token = record.token.unwrap_or(token);
                    if renewal != Renewal::Renewed {
                        return Ok(Checked {
                            standing,
                            token,
                            error: None,
                        });
                    }
                }
                // A refresh that Twitch granted is proof enough when validating it fails for another reason.
                Err(error) => {
                    let standing = if renewed {
                        Standing::Valid
                    } else {
                        Standing::Unknown(error.to_string())
                    };
                    let error = (!renewed).then_some(error);
                    return Ok(Checked {
                        standing,
                        token,
                        error,
                    });
                }
            }
        }
    }

    /// Takes what `validate` told into the store, after checking that the token is whose it should be.
    async fn learn(
        &self,
        identity: &Identity,
        token: StoredToken,
        validated: Validated,
    ) -> Result<StoredToken, PlatformError> {
        let told = validated.user_id.filter(|id| !id.is_empty());
        self.refuse_strangers(identity, told.as_deref(), token.user_id.as_deref())?;
        let now = self.clock.now();
        let kind = if told.is_some() {
            TokenKind::User
        } else {
            TokenKind::App
        };
        // 0 stands for a token that never ends; a negative figure is a server's that does not check ends.
        let expires_at = validated
            .expires_in
            .filter(|seconds| *seconds > 0)
            .map(|seconds| now.plus_secs(seconds));
        let ends_elsewhere = match (token.expires_at, expires_at) {
            (Some(known), Some(told)) => known.millis_since(told).abs() > 60_000,
            (known, told) => known != told,
        };
        let mut learnt = token.clone();
        learnt.kind = kind;
        learnt.client_id = Some(validated.client_id);
        learnt.user_id = told;
        learnt.login = validated.login.filter(|login| !login.is_empty());
        learnt.scopes = validated.scopes.into_iter().flatten().collect();
        if ends_elsewhere {
            learnt.expires_at = expires_at;
        }
        let news = ends_elsewhere
            || (learnt.kind, &learnt.client_id, &learnt.user_id)
                != (token.kind, &token.client_id, &token.user_id)
            || (&learnt.login, &learnt.scopes) != (&token.login, &token.scopes);
        if news {
            let lease = self.store.lease(identity).await.map_err(unusable_store)?;
            let mut record = lease.load().await.map_err(unusable_store)?;
            if let Some(current) = record
                .token
                .as_mut()
                .filter(|current| same(&current.access, &learnt.access))
            {
                let refresh = current.refresh.take();
                *current = StoredToken {
                    refresh,
                    ..learnt.clone()
                };
                lease.save(&record).await.map_err(unusable_store)?;
            }
        }
        Ok(learnt)
    }

    /// Fails when a token is not of the account that `identity` stands for. Such a token is never used: the bot would
    /// act, and be judged, as somebody else.
    fn refuse_strangers(
        &self,
        identity: &Identity,
        told: Option<&str>,
        known: Option<&str>,
    ) -> Result<(), PlatformError> {
        let meant = match identity.as_str() {
            BOT => self.bot_user_id.as_deref(),
            _ => broadcaster_of(identity),
        };
        let Some(meant) = meant.or(known) else {
            return Ok(());
        };
        if told == Some(meant) {
            return Ok(());
        }
        let owner = told.map_or_else(|| "the application itself".to_owned(), |id| format!("user {id}"));
        Err(PlatformError::NotConfigured {
            platform: PlatformName::Twitch,
            what: format!("a token of user {meant} for `{identity}`, but the one at hand belongs to {owner}"),
        })
    }

    fn as_access(&self, identity: &Identity, token: StoredToken) -> Result<Access, PlatformError> {
        if token.kind == TokenKind::User {
            self.refuse_strangers(identity, token.user_id.as_deref(), None)?;
        }
        let client_id = token.client_id.or_else(|| self.client_id.clone());
        Ok(Access {
            identity: identity.clone(),
            token: token.access,
            client_id: client_id.ok_or_else(no_client_id)?,
            user_id: token.user_id,
            scopes: token.scopes,
        })
    }

    fn is_lasting_app_token(&self, token: &StoredToken, now: Timestamp) -> bool {
        let lasting = token
            .expires_at
            .is_none_or(|end| now < end.plus_secs(-APP_TOKEN_MARGIN_SECS));
        lasting && (self.client_id.is_none() || token.client_id == self.client_id)
    }
}

pub(super) fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
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
    let cause = std::error::Error::source(&error)
        .map(|cause| format!(" ({cause})"))
        .unwrap_or_default();
    PlatformError::TokenStore {
        platform: PlatformName::Twitch,
        reason: format!("{error}{cause}; {}", error.hint()),
    }
}
