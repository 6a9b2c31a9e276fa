//! What describes tokens: the rules of a platform, tokens to issue, tokens as issued.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Chance;

/// The rules by which a platform issues tokens.
#[derive(Debug)]
pub struct TokenRules {
    /// Lifetime of a user token in seconds.
    pub user_secs: i64,
    /// Lifetime of an app token in seconds.
    pub app_secs: i64,
    /// Lifetime of an authorization code in seconds; unlimited when absent.
    pub code_secs: Option<i64>,
    /// Rule for the refresh tokens of clients with a secret.
    pub confidential: RefreshRule,
    /// Rule for the refresh tokens of clients without one.
    pub public: RefreshRule,
    /// Whether the scopes of a token are a sorted set; otherwise they stay as they were requested.
    pub sorted_scopes: bool,
    /// Returns a random text of a kind.
    pub text: fn(Text, &Chance) -> String,
}

/// A rule for refresh tokens.
#[derive(Debug)]
pub struct RefreshRule {
    /// Lifetime after issue or last use in seconds; unlimited when absent.
    pub secs: Option<i64>,
    /// What an exchange does to the token.
    pub renewal: Renewal,
}

/// What an exchange does to a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It is consumed, the access tokens that came with it are revoked, and there is a new one.
    OneTime,
    /// It stays the only one.
    Stable,
    /// It stays valid beside a new one.
    Reusable,
}

/// A kind of random text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// An access token.
    Access,
    /// A refresh token.
    Refresh,
    /// An authorization code.
    Code,
}

/// A consent for which the application has not fetched a token yet.
#[derive(Debug, Clone)]
pub struct Code<U> {
    /// The application.
    pub client_id: String,
    /// The user who agreed.
    pub user_id: U,
    /// The scopes granted.
    pub scopes: Vec<String>,
    /// Where the browser was sent to.
    pub redirect_uri: String,
    /// The challenge of PKCE (S256), where the application has sent one.
    pub challenge: Option<String>,
}

impl<U> Code<U> {
    /// Returns whether `verifier` belongs to the challenge.
    pub(super) fn is_proven_by(&self, verifier: &str) -> bool {
        let hash = digest(&SHA256, verifier.as_bytes());
        let challenge = self.challenge.as_ref();
        challenge.is_none_or(|challenge| URL_SAFE_NO_PAD.encode(hash.as_ref()) == *challenge)
    }
}

/// An access token and its refresh token as issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The access token.
    pub access: String,
    /// The refresh token; app tokens have none.
    pub refresh: Option<String>,
    /// Seconds until the access token expires.
    pub expires_in: i64,
    /// The scopes granted.
    pub scopes: Vec<String>,
}

impl TokenPair {
    /// Returns the response of the command that issues a token.
    pub(in crate::sim) fn to_json(&self) -> Value {
        json!({"access_token": self.access, "refresh_token": self.refresh, "expires_in": self.expires_in})
    }
}

/// Description of a token to issue to a user with an id of type `U`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSpec<U> {
    /// The application; the world's first one when empty.
    pub client_id: String,
    /// The user, or `None` for an app token.
    pub user_id: Option<U>,
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

impl<U> Default for TokenSpec<U> {
    fn default() -> Self {
        Self {
            client_id: String::new(),
            user_id: None,
            scopes: Vec::new(),
            expires_in: None,
            access: None,
            refresh: None,
        }
    }
}
