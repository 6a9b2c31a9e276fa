//! The status of an account's token, derived from the platform's answer and from the attempt to refresh the token. Pure, and the
//! same for all platforms that issue OAuth tokens.
//!
//! Platforms answer expired, revoked and unknown tokens alike, so the refresh attempt and the token's own expiry decide
//! (<https://dev.twitch.tv/docs/authentication/validate-tokens/>). An answer that is not the platform's own proves nothing about
//! a token, and a token that no platform ever accepted is rejected rather than expired.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::core::observation::{AuthCheck, AuthResult, Identity};
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::tokens::{CLIENT_REJECTED, StoredToken};

/// The status of an account's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenStatus {
    /// The platform accepts it.
    Valid,
    /// The access token has expired and was not refreshed.
    Expired(String),
    /// The access token cannot be refreshed, because the platform rejects the client id and secret.
    ClientRejected(String),
    /// The platform rejects a token that was never proven valid.
    Rejected(String),
    /// The grant is revoked; the user must log in again.
    Revoked(String),
    /// The check produced no evidence.
    Unknown(String),
}

impl TokenStatus {
    /// Returns why the token is not valid.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Valid => None,
            Self::Expired(reason)
            | Self::ClientRejected(reason)
            | Self::Rejected(reason)
            | Self::Revoked(reason)
            | Self::Unknown(reason) => Some(reason),
        }
    }

    /// Returns the status as evidence about the account that `token` belongs to; `None` if the status is unknown.
    ///
    /// Documents have only three values, so a rejected token is EXPIRED there, with a separate marker: whether it was ever valid
    /// cannot be determined.
    pub fn evidence(&self, token: &StoredToken) -> Option<AuthCheck> {
        let result = match self {
            Self::Valid => AuthResult::Valid,
            Self::Expired(_) | Self::ClientRejected(_) | Self::Rejected(_) => AuthResult::Expired,
            Self::Revoked(_) => AuthResult::Revoked,
            Self::Unknown(_) => return None,
        };
        Some(AuthCheck {
            result,
            expires_at: token.expires_at,
            scopes: token.scopes.clone(),
            rejected: matches!(self, Self::Rejected(_)),
            client_rejected: matches!(self, Self::ClientRejected(_)),
            reason: self.reason().map(str::to_owned),
        })
    }
}

/// The result of the attempt to refresh a token that the platform rejects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// A new token was issued and stored.
    Done,
    /// The platform no longer honors the grant, with its reason.
    GrantGone(String),
    /// The platform rejects the application, not the grant.
    ClientRejected(String),
    /// The network or the platform failed.
    NoAnswer(String),
    /// An answer was received that proves nothing: it was not the platform's own.
    Unclear(String),
    /// The answer to an earlier refresh is lost, and its one-time refresh token is spent.
    Lost,
    /// Another program refreshes this token.
    LeftToOthers,
    /// There is no usable refresh token.
    Impossible,
}

/// Why a login is needed after [`Refresh::Lost`]. The authorization itself is not revoked.
pub const LOST: &str = "login needed, refresh_response_lost: a refresh was interrupted before its answer was stored, and its one-time \
                        refresh token is not sent twice";

/// Tolerance when comparing the local clock with a token's expiry.
const EXPIRY_SLACK_SECS: i64 = 60;

/// Decides the status of `token` after the platform rejected it, from the result of the refresh and, if known, the lifetime (in
/// milliseconds) of an unused refresh token on this platform.
pub fn after_refusal(
    refresh: &Refresh,
    token: &StoredToken,
    grant_lifetime_ms: Option<i64>,
    now: Timestamp,
) -> TokenStatus {
    use TokenStatus::{ClientRejected, Expired, Rejected, Revoked, Unknown, Valid};
    let expired = token.expires_at.is_some_and(|expiry| now >= expiry);
    let aged_out = grant_lifetime_ms.is_some_and(|lifetime| now.millis_since(token.obtained_at) > lifetime);
    match refresh {
        Refresh::Done => Valid,
        Refresh::GrantGone(reason) if !token.was_accepted() => Rejected(format!(
            "the platform rejects both tokens, and nothing shows that they were ever valid: {reason}"
        )),
        Refresh::GrantGone(_) if aged_out => {
            Expired("the refresh token was not used for a month and has expired too; log in again".to_owned())
        }
        Refresh::GrantGone(reason) => Revoked(format!("the refresh token was refused: {reason}")),
        Refresh::ClientRejected(reason) => ClientRejected(format!(
            "{CLIENT_REJECTED}: {reason}; correct `client_id` or `client_secret`"
        )),
        Refresh::NoAnswer(reason) if expired => Expired(format!("refreshing it failed: {reason}")),
        Refresh::NoAnswer(reason) => Unknown(format!("refreshing it failed: {reason}")),
        Refresh::Unclear(reason) => Unknown(format!("refreshing it brought no usable answer: {reason}")),
        Refresh::Lost => Expired(LOST.to_owned()),
        // It can be refreshed, whether it expired or was replaced by the program that refreshes it.
        Refresh::LeftToOthers => {
            Expired("the program that manages these tokens has yet to refresh it".to_owned())
        }
        Refresh::Impossible => match token.expires_at {
            None if !token.was_accepted() => Rejected(
                "the platform rejects this token. It may be mistyped, expired or revoked; get a new one"
                    .to_owned(),
            ),
            None => Expired(
                "the platform refuses it; without a known expiry or a refresh token it counts as expired"
                    .to_owned(),
            ),
            Some(expiry) if now >= expiry.plus_secs(-EXPIRY_SLACK_SECS) => {
                Expired("it has expired and has no usable refresh token".to_owned())
            }
            Some(expiry) => Revoked(format!(
                "rejected although it should not expire until {expiry}; probably revoked (password change or \
                 disconnected app)"
            )),
        },
    }
}

/// A completed check of an account.
#[derive(Debug, Clone)]
pub struct TokenCheck {
    /// When the check was completed.
    pub at: Timestamp,
    /// The resulting status.
    pub status: TokenStatus,
    /// The token as it is stored now.
    pub token: StoredToken,
    /// Why the status is unknown, if it is.
    pub error: Option<PlatformError>,
    /// Scopes that it had before the check and no longer has.
    pub lost_scopes: BTreeSet<String>,
    /// Whether the platform refused to refresh it because it rejects the application.
    pub client_rejected: bool,
}

/// The checks of one probe run: each account is checked once, and the result is evidence of this run whatever caused the check.
#[derive(Debug, Default)]
pub struct TokenChecks {
    accounts: Mutex<BTreeMap<Identity, Arc<AsyncMutex<Account>>>>,
    unpublished: Mutex<BTreeMap<Identity, TokenCheck>>,
}

/// What a probe run has found out about an account.
#[derive(Debug, Default)]
pub struct Account {
    /// The newest check.
    pub check: Option<TokenCheck>,
    /// Whether that check came after the platform had rejected the token in a call.
    pub after_refusal: bool,
}

impl TokenChecks {
    /// Waits until no other call of this run checks `identity` and returns its current state; the holder of the guard may run a
    /// check.
    pub async fn account(&self, identity: &Identity) -> OwnedMutexGuard<Account> {
        let account = Arc::clone(self.accounts.lock().entry(identity.clone()).or_default());
        account.lock_owned().await
    }

    /// Records a check, for [`Self::take`].
    pub fn note(&self, identity: &Identity, check: &TokenCheck) {
        self.unpublished.lock().insert(identity.clone(), check.clone());
    }

    /// Discards the recorded check of `identity`.
    pub fn forget(&self, identity: &Identity) {
        self.unpublished.lock().remove(identity);
    }

    /// Takes the checks that were recorded since the last call.
    pub fn take(&self) -> BTreeMap<Identity, TokenCheck> {
        std::mem::take(&mut self.unpublished.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn token(expires_at: Option<Timestamp>, accepted: bool) -> StoredToken {
        StoredToken {
            expires_at,
            client_id: accepted.then(|| "client".to_owned()),
            ..StoredToken::unproven("access", Timestamp::EPOCH)
        }
    }

    fn name(status: &TokenStatus) -> &'static str {
        match status {
            TokenStatus::Valid => "valid",
            TokenStatus::Expired(_) => "expired",
            TokenStatus::ClientRejected(_) => "client rejected",
            TokenStatus::Rejected(_) => "rejected",
            TokenStatus::Revoked(_) => "revoked",
            TokenStatus::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn decision_table_of_a_refused_token() {
        let expiry = Timestamp::EPOCH.plus_secs(1000);
        let (before, after) = (Timestamp::EPOCH, expiry);
        let text = || "words".to_owned();
        for (refresh, expires_at, now, expected) in [
            (Refresh::Done, Some(expiry), before, "valid"),
            (Refresh::GrantGone(text()), Some(expiry), before, "revoked"),
            (Refresh::GrantGone(text()), Some(expiry), after, "revoked"),
            (Refresh::GrantGone(text()), None, after, "revoked"),
            (
                Refresh::ClientRejected(text()),
                Some(expiry),
                before,
                "client rejected",
            ),
            (
                Refresh::ClientRejected(text()),
                Some(expiry),
                after,
                "client rejected",
            ),
            (Refresh::NoAnswer(text()), Some(expiry), before, "unknown"),
            (Refresh::NoAnswer(text()), None, before, "unknown"),
            (Refresh::NoAnswer(text()), Some(expiry), after, "expired"),
            (Refresh::Unclear(text()), Some(expiry), before, "unknown"),
            (Refresh::Unclear(text()), Some(expiry), after, "unknown"),
            (Refresh::Lost, Some(expiry), before, "expired"),
            (Refresh::Lost, Some(expiry), after, "expired"),
            (Refresh::LeftToOthers, Some(expiry), before, "expired"),
            (Refresh::LeftToOthers, Some(expiry), after, "expired"),
            (Refresh::Impossible, Some(expiry), before, "revoked"),
            (
                Refresh::Impossible,
                Some(expiry),
                expiry.plus_secs(-59),
                "expired",
            ),
            (Refresh::Impossible, Some(expiry), after, "expired"),
            (Refresh::Impossible, None, before, "expired"),
        ] {
            let status = after_refusal(&refresh, &token(expires_at, true), None, now);
            assert_eq!(name(&status), expected, "{refresh:?} {expires_at:?} {now}");
        }
    }

    #[test]
    fn token_that_was_never_accepted_is_rejected() {
        let text = || "words".to_owned();
        let nonsense = token(None, false);
        for (refresh, expected) in [
            (Refresh::Impossible, "rejected"),
            (Refresh::GrantGone(text()), "rejected"),
            (Refresh::NoAnswer(text()), "unknown"),
            (Refresh::Unclear(text()), "unknown"),
            (Refresh::ClientRejected(text()), "client rejected"),
            (Refresh::Done, "valid"),
        ] {
            let status = after_refusal(&refresh, &nonsense, None, Timestamp::EPOCH);
            assert_eq!(name(&status), expected, "{refresh:?}");
        }
        let status = after_refusal(&Refresh::Impossible, &nonsense, None, Timestamp::EPOCH);
        let evidence = status.evidence(&nonsense).unwrap();
        assert_eq!((evidence.result, evidence.rejected), (AuthResult::Expired, true));
    }

    #[test]
    fn token_older_than_refresh_lifetime_is_expired() {
        let token = token(Some(Timestamp::EPOCH.plus_secs(7_200)), true);
        let gone = Refresh::GrantGone("invalid_grant".to_owned());
        for (days, expected) in [(1, "revoked"), (29, "revoked"), (30, "expired")] {
            let now = Timestamp::from_millis(days * DAY_MS);
            let status = after_refusal(&gone, &token, Some(29 * DAY_MS), now);
            assert_eq!(name(&status), expected, "{days}");
        }
    }

    #[tokio::test]
    async fn check_of_a_run_is_published_once() {
        let (checks, identity) = (TokenChecks::default(), Identity::named("twitch/bot"));
        let check = TokenCheck {
            at: Timestamp::EPOCH,
            status: TokenStatus::Valid,
            token: token(None, true),
            error: None,
            lost_scopes: BTreeSet::new(),
            client_rejected: false,
        };
        checks.account(&identity).await.check = Some(check.clone());
        checks.note(&identity, &check);
        assert_eq!(checks.take().len(), 1);
        assert!(checks.take().is_empty());
        assert!(checks.account(&identity).await.check.is_some());
    }
}
