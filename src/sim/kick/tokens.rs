//! Applications, their tokens, and the state of these.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::{Value, json};

use super::texts;
use crate::clock::Chance;
use crate::core::time::Timestamp;

/// Lifetime of a user token in seconds.
const USER_TOKEN_SECS: i64 = 7_200;
/// Lifetime of an app token in seconds.
const APP_TOKEN_SECS: i64 = 5_184_000;
/// Lifetime of a refresh token after its last use in milliseconds; reported by operators, not documented.
const REFRESH_MS: i64 = 30 * 86_400_000;
/// Lifetime of an authorization code in milliseconds.
const CODE_MS: i64 = 600_000;

/// An application registered with Kick.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) secret: String,
}

/// Data of an access token.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) client_id: String,
    /// The user, or `None` for an app token.
    pub(super) user_id: Option<u64>,
    pub(super) scopes: BTreeSet<String>,
    pub(super) expires_at: Timestamp,
    revoked: bool,
}

#[derive(Debug, Clone)]
struct Refresh {
    client_id: String,
    user_id: u64,
    scopes: BTreeSet<String>,
    expires_at: Timestamp,
    revoked: bool,
}

/// A consent of the user for which the application has not fetched a token yet.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) client_id: String,
    pub(super) user_id: u64,
    pub(super) scopes: BTreeSet<String>,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    expires_at: Timestamp,
}

/// An access token and its refresh token as issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KickTokens {
    /// The access token.
    pub access: String,
    /// The refresh token; app tokens have none.
    pub refresh: Option<String>,
    /// Seconds until the access token expires.
    pub expires_in: i64,
    /// The scopes granted.
    pub scopes: Vec<String>,
}

impl KickTokens {
    /// Returns the response of the command that issues a token.
    pub(super) fn to_json(&self) -> Value {
        json!({"access_token": self.access, "refresh_token": self.refresh, "expires_in": self.expires_in})
    }
}

/// Description of a token to issue.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KickTokenSpec {
    /// The application.
    pub client_id: String,
    /// The user, or `None` for an app token.
    pub user_id: Option<u64>,
    /// The scopes granted.
    pub scopes: Vec<String>,
    /// Seconds until it expires (negative: already expired); the platform's usual lifetime when `None`.
    pub expires_in: Option<i64>,
    /// The access token's text; random when `None`.
    #[serde(rename = "access_token")]
    pub access: Option<String>,
    /// The refresh token's text; random for user tokens when `None`.
    #[serde(rename = "refresh_token")]
    pub refresh: Option<String>,
}

/// All applications and tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) apps: BTreeMap<String, App>,
    access: HashMap<String, Token>,
    refresh: HashMap<String, Refresh>,
    codes: HashMap<String, Code>,
}

impl Tokens {
    /// Returns whether `secret` is that of the application `client_id`.
    pub(super) fn knows(&self, client_id: &str, secret: &str) -> bool {
        self.apps.get(client_id).is_some_and(|app| app.secret == secret)
    }

    /// Returns the data of the token `text`, while it is active.
    pub(super) fn check(&self, text: &str, now: Timestamp) -> Option<&Token> {
        self.access
            .get(text)
            .filter(|token| !token.revoked && now < token.expires_at)
    }

    pub(super) fn issue(&mut self, spec: KickTokenSpec, now: Timestamp, chance: &Chance) -> KickTokens {
        let usual = if spec.user_id.is_some() {
            USER_TOKEN_SECS
        } else {
            APP_TOKEN_SECS
        };
        let expires_in = spec.expires_in.unwrap_or(usual);
        let access = spec.access.unwrap_or_else(|| texts::token(chance));
        let scopes: BTreeSet<String> = spec.scopes.iter().cloned().collect();
        self.access.insert(
            access.clone(),
            Token {
                client_id: spec.client_id.clone(),
                user_id: spec.user_id,
                scopes: scopes.clone(),
                expires_at: now.plus_secs(expires_in),
                revoked: false,
            },
        );
        let refresh = spec.user_id.map(|user_id| {
            let text = spec.refresh.unwrap_or_else(|| texts::token(chance));
            let refresh = Refresh {
                client_id: spec.client_id,
                user_id,
                scopes,
                expires_at: now.plus_millis(REFRESH_MS),
                revoked: false,
            };
            self.refresh.insert(text.clone(), refresh);
            text
        });
        KickTokens {
            access,
            refresh,
            expires_in,
            scopes: spec.scopes,
        }
    }

    /// Exchanges a refresh token. The old one stays valid: Kick has made them reusable in November 2025.
    pub(super) fn refresh(
        &mut self,
        client_id: &str,
        text: &str,
        now: Timestamp,
        chance: &Chance,
    ) -> Option<KickTokens> {
        let known = self.refresh.get_mut(text).filter(|refresh| {
            refresh.client_id == client_id && !refresh.revoked && now < refresh.expires_at
        })?;
        known.expires_at = now.plus_millis(REFRESH_MS);
        let spec = KickTokenSpec {
            client_id: client_id.to_owned(),
            user_id: Some(known.user_id),
            scopes: known.scopes.iter().cloned().collect(),
            ..KickTokenSpec::default()
        };
        Some(self.issue(spec, now, chance))
    }

    /// Records a user's consent, and returns the code for it.
    pub(super) fn agree(
        &mut self,
        client_id: &str,
        user_id: u64,
        scopes: BTreeSet<String>,
        (redirect_uri, challenge): (&str, &str),
        now: Timestamp,
        chance: &Chance,
    ) -> String {
        let text = texts::token(chance);
        let code = Code {
            client_id: client_id.to_owned(),
            user_id,
            scopes,
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.to_owned(),
            expires_at: now.plus_millis(CODE_MS),
        };
        self.codes.insert(text.clone(), code);
        text
    }

    /// Consumes a code, which works once.
    pub(super) fn take_code(&mut self, text: &str, now: Timestamp) -> Option<Code> {
        self.codes.remove(text).filter(|code| now < code.expires_at)
    }

    /// Revokes one token of either kind; returns whether there was one.
    pub(super) fn revoke(&mut self, text: &str) -> bool {
        let access = self.access.get_mut(text).map(|token| token.revoked = true);
        let refresh = self.refresh.get_mut(text).map(|token| token.revoked = true);
        access.or(refresh).is_some()
    }

    /// Makes an access token expire.
    pub(super) fn expire(&mut self, text: &str, now: Timestamp) -> bool {
        let token = self.access.get_mut(text);
        token.map(|token| token.expires_at = now.plus_secs(-1)).is_some()
    }

    /// Revokes everything that a user has granted, or every app token when `user_id` is `None`.
    pub(super) fn disconnect(&mut self, user_id: Option<u64>) {
        for token in self.access.values_mut().filter(|token| token.user_id == user_id) {
            token.revoked = true;
        }
        for refresh in self.refresh.values_mut() {
            refresh.revoked |= Some(refresh.user_id) == user_id;
        }
    }

    /// Makes the refresh tokens of a user expire, as after too long without use.
    pub(super) fn age_out(&mut self, user_id: u64, now: Timestamp) {
        for refresh in self
            .refresh
            .values_mut()
            .filter(|refresh| refresh.user_id == user_id)
        {
            refresh.expires_at = now;
        }
    }

    /// Removes a scope from everything that a user has granted.
    pub(super) fn shrink(&mut self, user_id: u64, scope: &str) {
        for token in self
            .access
            .values_mut()
            .filter(|token| token.user_id == Some(user_id))
        {
            token.scopes.remove(scope);
        }
        for refresh in self
            .refresh
            .values_mut()
            .filter(|refresh| refresh.user_id == user_id)
        {
            refresh.scopes.remove(scope);
        }
    }
}
