//! Checks an account: queries `validate`, falls back to Helix if the result is inconclusive, and refreshes the token if possible.
//!
//! In one probe run an account is checked once, and once more if Twitch then rejects the token in a call. Concurrent calls that
//! need the same check share it, across runs too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::MutexGuard;
use tokio::sync::OnceCell;

use super::auth::{Access, Auth, no_token, refused, unusable_store};
use super::oauth::is_about_token;
use super::options::{APP, BOT, broadcaster_of};
use super::token_status::Validation;
use super::wire::Validated;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::is_same;
use crate::platforms::kit::token_check::{Refresh, TokenCheck, TokenStatus, after_refusal};
use crate::tokens::{StoredToken, TokenKind};

/// Twitch's answer about an access token.
enum TokenAnswer {
    /// The token is valid; these are its details.
    Accepted(Validated),
    /// The token is invalid, with its details if `validate` still returned them.
    Refused(Option<Validated>),
    /// The answer proves neither.
    Unclear(PlatformError),
}

impl Auth {
    /// Checks the account `identity` and refreshes its token if necessary.
    ///
    /// Returns an error if there is no answer about the account: no token, an unusable token store, or a token of another
    /// account.
    pub(super) async fn check(
        &self,
        identity: &Identity,
        meter: &Meter<'_>,
    ) -> Result<TokenCheck, PlatformError> {
        let mut account = meter.checks.account(identity).await;
        if let Some(known) = &account.check {
            return Ok(known.clone());
        }
        let check = self.shared_check(identity, None, meter).await?;
        meter.checks.note(identity, &check);
        account.check = Some(check.clone());
        Ok(check)
    }

    /// Checks the account `identity` after Helix has rejected its token with `words`.
    pub(super) async fn check_refused(
        &self,
        identity: &Identity,
        words: &str,
        meter: &Meter<'_>,
    ) -> Result<TokenCheck, PlatformError> {
        let mut account = meter.checks.account(identity).await;
        let settled = |check: &TokenCheck| {
            account.after_refusal || !matches!(check.status, TokenStatus::Valid | TokenStatus::Unknown(_))
        };
        if let Some(known) = account.check.as_ref().filter(|check| settled(check)) {
            return Ok(known.clone());
        }
        let check = self.shared_check(identity, Some(words), meter).await?;
        meter.checks.note(identity, &check);
        account.check = Some(check.clone());
        account.after_refusal = true;
        Ok(check)
    }

    /// Checks the account, or waits for the check in progress.
    async fn shared_check(
        &self,
        identity: &Identity,
        words: Option<&str>,
        meter: &Meter<'_>,
    ) -> Result<TokenCheck, PlatformError> {
        let cell = Arc::clone(self.lock_under_way().entry(identity.clone()).or_default());
        let outcome = cell
            .get_or_try_init(|| self.check_now(identity, words, meter))
            .await
            .cloned();
        let mut in_progress = self.lock_under_way();
        if in_progress
            .get(identity)
            .is_some_and(|current| Arc::ptr_eq(current, &cell))
        {
            in_progress.remove(identity);
        }
        outcome
    }

    fn lock_under_way(&self) -> MutexGuard<'_, HashMap<Identity, Arc<OnceCell<TokenCheck>>>> {
        self.in_progress.lock()
    }

    async fn check_now(
        &self,
        identity: &Identity,
        words: Option<&str>,
        meter: &Meter<'_>,
    ) -> Result<TokenCheck, PlatformError> {
        self.store_unsaved(identity).await?;
        let stored = self.store.load(identity).await.map_err(unusable_store)?;
        let mut token = match stored {
            Some(token) => token,
            None if identity.as_str() == APP => {
                let now = self.clock.now();
                let lasting = |token: &StoredToken| self.is_lasting_app_token(token, now);
                let request = self.request_app_token(meter);
                self.tokens().app_token(identity, lasting, request).await?
            }
            None => return Err(no_token(identity)),
        };
        let completed = |status: TokenStatus, token: StoredToken, error: Option<PlatformError>| {
            let at = self.oauth.skew.correct(self.clock.now());
            Ok(TokenCheck {
                at,
                status,
                token,
                error,
            })
        };
        // At most two passes: a rejection is followed by a refresh, or by finding that another process has refreshed the token.
        let mut words = words;
        let mut refreshed = false;
        loop {
            match self.ask_twitch(identity, &token, words.take(), meter).await {
                TokenAnswer::Accepted(validated) => {
                    let token = self.update(identity, token, validated).await?;
                    return completed(TokenStatus::Valid, token, None);
                }
                TokenAnswer::Refused(_) if refreshed => {
                    let reason = "Twitch refuses a token that it has just issued".to_owned();
                    let error = refused(reason.clone());
                    return completed(TokenStatus::Unknown(reason), token, Some(error));
                }
                TokenAnswer::Refused(described) => {
                    if let Some(described) = described {
                        token = self.update(identity, token, described).await?;
                    }
                    let lease = self.store.lease(identity).await.map_err(unusable_store)?;
                    let mut record = lease.load().await.map_err(unusable_store)?;
                    let current = record.token.clone().ok_or_else(|| no_token(identity))?;
                    refreshed = true;
                    if !is_same(&current.access, &token.access) {
                        token = current;
                        continue;
                    }
                    let refresh = self
                        .renew(identity, lease.as_ref(), &mut record, Validation::Refused, meter)
                        .await?;
                    let status = after_refusal(&refresh, &token, None, self.clock.now());
                    token = record.token.unwrap_or(token);
                    if refresh != Refresh::Done {
                        return completed(status, token, None);
                    }
                }
                // A granted refresh is sufficient proof when validating the new token fails for another reason.
                TokenAnswer::Unclear(_) if refreshed => return completed(TokenStatus::Valid, token, None),
                TokenAnswer::Unclear(error) => {
                    return completed(TokenStatus::Unknown(error.to_string()), token, Some(error));
                }
            }
        }
    }

    /// Validates an access token with Twitch. `words` is the reason with which Helix has already rejected it.
    ///
    /// `validate` decides. If it describes an expired token, or rejects the token in a format that is not Twitch's own, Helix
    /// decides: the official mock server does both (<https://dev.twitch.tv/docs/cli/mock-api-command/>).
    async fn ask_twitch(
        &self,
        identity: &Identity,
        token: &StoredToken,
        words: Option<&str>,
        meter: &Meter<'_>,
    ) -> TokenAnswer {
        let helix_refused = words.is_some_and(is_about_token);
        let helix_says_expired = words.is_some_and(|words| words.to_ascii_lowercase().contains("expired"));
        match self.oauth.validate(&token.access, meter).await {
            Ok(validated) if helix_says_expired => TokenAnswer::Refused(Some(validated)),
            Ok(validated) if validated.expires_in.is_some_and(|seconds| seconds < 0) => {
                let client_id = Some(validated.client_id.clone());
                match self.helix_accepts(identity, token, client_id, meter).await {
                    // Helix accepts the token, so the negative expiry is wrong; when the token expires is unknown.
                    Some(true) => TokenAnswer::Accepted(Validated {
                        expires_in: None,
                        ..validated
                    }),
                    Some(false) => TokenAnswer::Refused(Some(validated)),
                    None => TokenAnswer::Unclear(PlatformError::Unreadable {
                        platform: PlatformName::Twitch,
                        operation: "the validation of a token",
                        reason: "the answer accepts the token and reports it as expired".to_owned(),
                    }),
                }
            }
            Ok(validated) => TokenAnswer::Accepted(validated),
            Err(PlatformError::Unauthorized { .. }) => TokenAnswer::Refused(None),
            // Helix itself has rejected the token; that something else answers for `validate` changes nothing.
            Err(PlatformError::Unreadable { .. }) if helix_refused => TokenAnswer::Refused(None),
            Err(error @ PlatformError::Unreadable { .. }) => {
                match self.helix_accepts(identity, token, None, meter).await {
                    Some(false) => TokenAnswer::Refused(None),
                    Some(true) | None => TokenAnswer::Unclear(error),
                }
            }
            Err(error) => TokenAnswer::Unclear(error),
        }
    }

    /// Checks whether Helix accepts a token; `None` if the answer is not Helix's own.
    async fn helix_accepts(
        &self,
        identity: &Identity,
        token: &StoredToken,
        client_id: Option<String>,
        meter: &Meter<'_>,
    ) -> Option<bool> {
        let access = Access {
            identity: identity.clone(),
            token: token.access.clone(),
            client_id: client_id
                .or_else(|| token.client_id.clone())
                .or_else(|| self.client_id.clone())?,
            user_id: token.user_id.clone(),
            scopes: token.scopes.clone(),
            scopes_known: self.has_known_scopes(identity),
        };
        let known = token.user_id.as_deref().or(self.bot_user_id.as_deref());
        let id = broadcaster_of(identity).or(known).unwrap_or("1");
        self.helix.accepts(&access, id, meter).await
    }

    /// Stores what `validate` returned, after checking that the token belongs to the expected account.
    async fn update(
        &self,
        identity: &Identity,
        token: StoredToken,
        validated: Validated,
    ) -> Result<StoredToken, PlatformError> {
        let reported = validated.user_id.filter(|id| !id.is_empty());
        self.require_owner(identity, reported.as_deref(), token.user_id.as_deref())?;
        let now = self.clock.now();
        let scopes_listed = validated.scopes.is_some();
        let kind = if reported.is_some() {
            TokenKind::User
        } else {
            TokenKind::App
        };
        // 0 means a token that never expires; a negative value means that it has expired.
        let expires_at = validated
            .expires_in
            .filter(|seconds| *seconds != 0)
            .map(|seconds| now.plus_secs(seconds));
        let ends_elsewhere = match (token.expires_at, expires_at) {
            (Some(known), Some(reported)) => known.millis_since(reported).abs() > 60_000,
            (known, reported) => known != reported,
        };
        let mut evidence_update = token.clone();
        evidence_update.kind = kind;
        evidence_update.client_id = Some(validated.client_id);
        evidence_update.user_id = reported;
        evidence_update.login = validated.login.filter(|login| !login.is_empty());
        evidence_update.scopes = match validated.scopes {
            Some(scopes) => scopes.into_iter().collect(),
            // An answer without a user's scopes removes none.
            None if kind == TokenKind::User => evidence_update.scopes,
            None => BTreeSet::new(),
        };
        self.note_accepted(identity);
        self.note_scopes(
            identity,
            kind == TokenKind::App || scopes_listed || !evidence_update.scopes.is_empty(),
        );
        if ends_elsewhere {
            evidence_update.expires_at = expires_at;
        }
        let has_changed = ends_elsewhere
            || (
                evidence_update.kind,
                &evidence_update.client_id,
                &evidence_update.user_id,
            ) != (token.kind, &token.client_id, &token.user_id)
            || (&evidence_update.login, &evidence_update.scopes) != (&token.login, &token.scopes);
        if has_changed {
            self.tokens().amend(identity, &evidence_update).await?;
        }
        Ok(evidence_update)
    }

    /// Fails when a token does not belong to the account of `identity`. Such a token is never used: the bot would act as another
    /// user, and the results would be about that user.
    pub(super) fn require_owner(
        &self,
        identity: &Identity,
        reported: Option<&str>,
        known: Option<&str>,
    ) -> Result<(), PlatformError> {
        let meant = match identity.as_str() {
            BOT => self.bot_user_id.as_deref(),
            _ => broadcaster_of(identity),
        };
        let Some(meant) = meant.or(known) else {
            return Ok(());
        };
        if reported == Some(meant) {
            return Ok(());
        }
        let owner = reported.map_or_else(|| "the application itself".to_owned(), |id| format!("user {id}"));
        Err(PlatformError::OtherAccount {
            platform: PlatformName::Twitch,
            what: format!("a token of user {meant} for `{identity}`, but the one at hand belongs to {owner}"),
        })
    }
}
