//! One platform's OAuth, and what a token manager and a platform exchange.

use std::collections::BTreeSet;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::lenient;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::token_check::{Refresh, TokenStatus, after_refusal};
use crate::tokens::StoredToken;

/// The OAuth of one platform. It interprets the platform's answers and never touches the token store.
#[async_trait]
pub trait Provider: Send + Sync {
    const PLATFORM: PlatformName;
    /// The name of the application's account.
    const APP: &'static str;
    /// The name of the bot's account.
    const BOT: &'static str;
    /// Whether the validation of a token returns its user. If not, [`Provider::owner`] does.
    const VALIDATION_NAMES_OWNER: bool;
    /// Whether a refused token of the application is replaced without being validated first.
    const REPLACES_REFUSED_APP_TOKEN: bool;
    /// Whether an authorization code is exchanged with a proof of the request for it (PKCE, RFC 7636).
    const PKCE: bool = false;

    /// Returns the configured application.
    fn client(&self) -> &Client;

    /// Returns the id of the user that a token of `identity` must belong to, as far as its name or the configuration determines it.
    fn owner_of(&self, identity: &Identity) -> Option<String>;

    /// Returns whether each refresh token of `client` can be used only once. Such a token is never sent again if it may be spent.
    fn is_one_time(&self, client: Credentials<'_>) -> bool;

    /// Returns the scopes that the token of `identity` needs for all results, with their purposes.
    fn required_scopes(&self, _identity: &Identity) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Exchanges `grant` for a token.
    ///
    /// The error says what is known about the grant afterwards, because a one-time grant must not be sent again while it may be
    /// spent: [`GrantError::NoEffect`] only if the request was certainly not processed, [`GrantError::Lost`] if it may have been,
    /// [`GrantError::Foreign`] if another server than the token endpoint answered. [`GrantError::Gone`], `NotGranted` and
    /// `ClientRejected` need the platform's own words: a status alone proves none of them. The token of a success is not empty.
    /// A request that may have been processed is repeated within the call only if the grant can be used more than once. For
    /// [`Grant::Code`] and [`Grant::Device`] a refusal is `NotGranted`.
    async fn exchange(
        &self,
        client: Credentials<'_>,
        grant: Grant<'_>,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantError>;

    /// Returns the address at which a user consents in a browser; `None` if there is no such page.
    fn consent_page(&self, _request: &CodeRequest<'_>) -> Option<Url> {
        None
    }

    /// Requests a code that a user confirms on any device; `None` if the platform has no such login.
    async fn start_device(
        &self,
        _client: Credentials<'_>,
        _scopes: &str,
        _meter: &Meter<'_>,
    ) -> Option<Result<DeviceCode, GrantError>> {
        None
    }

    /// Revokes a token at the platform. Returns what stays valid there, if anything does.
    async fn revoke(
        &self,
        client: Credentials<'_>,
        token: &StoredToken,
        meter: &Meter<'_>,
    ) -> Result<Option<&'static str>, PlatformError>;

    /// Validates the access token of `identity`, which it neither refreshes nor stores. [`Validation::Refused`] only if the platform
    /// itself rejects the token; whatever proves neither is [`Validation::Unclear`]. `refusal` is the reason with which a call has already rejected it.
    async fn validate(
        &self,
        identity: &Identity,
        token: &StoredToken,
        refusal: Option<&str>,
        meter: &Meter<'_>,
    ) -> Validation;

    /// Looks up whose token this is; `None` if the platform does not return it for this token.
    async fn owner(&self, _token: &SecretString, _meter: &Meter<'_>) -> Result<Option<Owner>, PlatformError> {
        Ok(None)
    }

    /// Returns what the platform's clock shows at `now` where ours seems to be behind.
    fn platform_time(&self, now: Timestamp) -> Timestamp {
        now
    }

    /// Decides the status of `token` after it was rejected, from the result of the refresh.
    fn status_after(&self, refresh: &Refresh, token: &StoredToken, now: Timestamp) -> TokenStatus {
        after_refusal(refresh, token, None, now)
    }

    /// Builds the error for an application that gets no token because the platform rejects its id or secret.
    fn client_rejected(&self, reason: String) -> PlatformError;

    /// Builds the error for an application that is not configured.
    fn no_client(&self) -> PlatformError;
}

/// The configured application.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its id; if absent, the one to which a token turns out to belong.
    pub id: Option<String>,
    secret: Option<SecretString>,
}

impl Client {
    /// Uses an id and a secret; an empty id is none.
    pub fn new(id: Option<&str>, secret: Option<&SecretString>) -> Self {
        Self {
            id: id.filter(|id| !id.is_empty()).map(str::to_owned),
            secret: secret.cloned(),
        }
    }

    /// Returns the credentials of the application itself, with which it can obtain a token of its own.
    pub fn confidential(&self) -> Option<Credentials<'_>> {
        self.credentials().filter(|client| client.secret.is_some())
    }

    /// Returns the credentials of the application, with its secret if it has one.
    pub fn credentials(&self) -> Option<Credentials<'_>> {
        Some(Credentials {
            id: self.id.as_deref()?,
            secret: self.secret.as_ref(),
        })
    }

    /// Returns the credentials of the application that `token` belongs to. Another application never gets the secret.
    pub fn of<'a>(&'a self, token: &'a StoredToken) -> Option<Credentials<'a>> {
        let id = token.client_id.as_deref().or(self.id.as_deref())?;
        let is_own = self.id.as_deref().is_none_or(|own| own == id);
        Some(Credentials {
            id,
            secret: self.secret.as_ref().filter(|_| is_own),
        })
    }
}

/// The credentials of an application in a request.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The client id.
    pub id: &'a str,
    /// The secret; public applications have none.
    pub secret: Option<&'a SecretString>,
}

/// What is exchanged for a token.
#[derive(Debug, Clone, Copy)]
pub enum Grant<'a> {
    /// The credentials of the application, for its own token.
    ClientCredentials,
    /// A refresh token, for a new pair.
    RefreshToken(&'a SecretString),
    /// The code of a user's consent, for the first pair.
    Code {
        code: &'a SecretString,
        /// The address that it was sent to.
        redirect_uri: &'a str,
        /// The proof that the same program has requested it, on platforms with PKCE.
        verifier: Option<&'a SecretString>,
    },
    /// A device code, for the first pair once its user has confirmed it.
    Device {
        code: &'a SecretString,
        /// The scopes that it was requested with.
        scopes: &'a str,
    },
}

impl Grant<'_> {
    /// Returns whether it is a code, which a user's consent has to precede and which works once.
    pub fn is_code(self) -> bool {
        matches!(self, Self::Code { .. } | Self::Device { .. })
    }
}

/// A request for a user's consent in a browser.
#[derive(Debug, Clone, Copy)]
pub struct CodeRequest<'a> {
    /// The application's client id.
    pub client_id: &'a str,
    /// Where the browser is sent to afterwards, exactly as it is registered.
    pub redirect_uri: &'a str,
    /// The requested scopes, separated by blanks.
    pub scopes: &'a str,
    /// A random text that is sent back.
    pub state: &'a str,
    /// The hash of the proof, on platforms with PKCE.
    pub challenge: Option<&'a str>,
}

/// A code that a user confirms on any device.
#[derive(Debug, Clone)]
pub struct DeviceCode {
    /// What the program sends for a token.
    pub device_code: SecretString,
    /// What the user types in.
    pub user_code: String,
    /// The page on which the user confirms it.
    pub page: String,
    /// Seconds until it expires.
    pub expires_in: u64,
    /// Seconds between two requests for the token.
    pub interval: u64,
}

impl CodeRequest<'_> {
    /// Returns the address of the consent page at `page`, with the parameters of RFC 6749 and, with a challenge, of RFC 7636.
    pub fn at(&self, mut page: Url) -> Url {
        {
            let mut query = page.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", self.client_id)
                .append_pair("redirect_uri", self.redirect_uri)
                .append_pair("scope", self.scopes);
            if let Some(challenge) = self.challenge {
                query
                    .append_pair("code_challenge", challenge)
                    .append_pair("code_challenge_method", "S256");
            }
            query.append_pair("state", self.state);
        }
        page
    }
}

impl<'a> Grant<'a> {
    /// Returns the form of the request.
    pub fn form(self, client: Credentials<'a>) -> Vec<(&'static str, &'a str)> {
        let mut form = vec![("client_id", client.id)];
        // A device code belongs to the application without proof of it.
        let secret = client.secret.filter(|_| !matches!(self, Self::Device { .. }));
        form.extend(secret.map(|secret| ("client_secret", secret.expose_secret())));
        match self {
            Self::ClientCredentials => form.push(("grant_type", "client_credentials")),
            Self::RefreshToken(secret) => form.extend([
                ("grant_type", "refresh_token"),
                ("refresh_token", secret.expose_secret()),
            ]),
            Self::Code {
                code,
                redirect_uri,
                verifier,
            } => {
                form.extend([
                    ("grant_type", "authorization_code"),
                    ("code", code.expose_secret()),
                    ("redirect_uri", redirect_uri),
                ]);
                form.extend(verifier.map(|verifier| ("code_verifier", verifier.expose_secret())));
            }
            Self::Device { code, scopes } => form.extend([
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", code.expose_secret()),
                ("scopes", scopes),
            ]),
        }
        form
    }
}

/// The answer to a grant. A grant cannot always be repeated, so only the access token itself must be as documented.
#[derive(Deserialize)]
pub struct Granted {
    /// The access token.
    pub access_token: String,
    /// The refresh token; empty if there is none.
    #[serde(default, deserialize_with = "lenient::text")]
    pub refresh_token: String,
    /// The lifetime in seconds.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub expires_in: Option<i64>,
    /// The granted scopes.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub scope: Option<BTreeSet<String>>,
}

impl Granted {
    /// Returns when the token expires if it was granted at `now`. Platforms send zero or nothing for one without a known expiry.
    pub(super) fn expires_at(&self, now: Timestamp) -> Option<Timestamp> {
        let seconds = self.expires_in.filter(|seconds| *seconds > 0);
        seconds.map(|seconds| now.plus_secs(seconds))
    }
}

/// Why a grant was not exchanged for a token.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The refresh token is no longer honored.
    #[error("{0}")]
    Gone(String),
    /// The code is not exchanged, or not yet, for the platform's reason.
    #[error("{0}")]
    NotGranted(String),
    /// The platform rejects the client id or secret: a wrong or missing secret, or an unknown id.
    #[error("{0}")]
    ClientRejected(String),
    /// The request certainly had no effect.
    #[error("{0}")]
    NoEffect(PlatformError),
    /// The request may have been processed, but its answer is lost.
    #[error("{0}")]
    Lost(PlatformError),
    /// A refusal that is not the platform's own: the request had no effect and the answer proves nothing.
    #[error("{0}")]
    Foreign(PlatformError),
}

impl GrantError {
    /// Returns what the failure means for a refresh.
    pub(super) fn as_refresh(&self) -> Refresh {
        match self {
            Self::Gone(reason) => Refresh::GrantGone(reason.clone()),
            Self::NotGranted(reason) => Refresh::Unclear(reason.clone()),
            Self::ClientRejected(reason) => Refresh::ClientRejected(reason.clone()),
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

/// The platform's answer about an access token.
#[derive(Debug)]
pub enum Validation {
    /// The token is valid.
    Accepted(Described),
    /// The token is invalid, with its description if the platform still returned one.
    Refused(Option<Described>),
    /// The answer proves neither: there was none, it came from another server, or it contradicts itself. The token's status stays
    /// as it was. With [`PlatformError::OtherAccount`] the token is not this account's, and the check fails.
    Unclear(PlatformError),
}

/// A token with what its validation returned.
#[derive(Debug)]
pub struct Described {
    /// The token.
    pub token: StoredToken,
    /// Whether its scopes are known. If not, none is known to be missing.
    pub scopes_known: bool,
}

/// The user that a token belongs to.
#[derive(Debug)]
pub struct Owner {
    /// The user's id.
    pub user_id: String,
    /// The user's login.
    pub login: Option<String>,
}

/// A token for a call, with what is known about it.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its account.
    pub identity: Identity,
    /// The access token.
    pub token: SecretString,
    /// The application that it belongs to.
    pub client_id: Option<String>,
    /// The user that it belongs to.
    pub user_id: Option<String>,
    /// The granted scopes.
    pub scopes: BTreeSet<String>,
    /// Whether the platform has listed the scopes. If not, none is known to be missing.
    pub scopes_known: bool,
}

impl Access {
    /// Returns whether one of `scopes` was granted, as far as the scopes are known.
    pub fn has_scope(&self, scopes: &[&str]) -> bool {
        !self.scopes_known || scopes.iter().any(|scope| self.scopes.contains(*scope))
    }
}
