//! Kick's OAuth: which requests obtain and examine tokens, and what the answers mean.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::answer::{read, unreadable};
use super::client::{Call, Client, without};
use super::options::{APP, BOT, KickOptions, broadcaster_of};
use super::token_status::of_inactive;
use super::wire::{Envelope, Introspected, User, items};
use crate::clock::Clock;
use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::{
    self, Access, CodeRequest, Credentials, Described, Grant, GrantError, Granted, Owner, Provider,
    TokenManager, Validation, left_alone,
};
use crate::platforms::kit::token_check::{Refresh, TokenStatus};
use crate::tokens::{StoredToken, TokenKind};

/// Why a grant is gone: Kick answers `invalid_grant`.
const NOT_HONORED: &str = "it is no longer honored";
/// Why a grant was refused: Kick answers `invalid_client`.
const CLIENT_REJECTED: &str = "the application's id or secret is refused";

/// Why a code of a login was refused: Kick answers `invalid_grant`.
const CODE_REFUSED: &str = "the code was used, has expired, or was requested with another redirect address";

/// This platform's tokens.
pub(super) type Auth = TokenManager<OAuth>;

impl Auth {
    /// Returns the accounts that can be checked, the application first.
    pub(super) async fn accounts(&self) -> Result<Vec<Identity>, PlatformError> {
        let mut identities = self.identities().await?;
        identities.retain(|identity| identity.as_str() != APP);
        if self.can_be_app() {
            identities.insert(0, Identity::named(APP));
        }
        Ok(identities)
    }

    /// Returns a token for reading public data: the application's, else the bot's, else any broadcaster's.
    pub(super) async fn reader(&self, meter: &Meter<'_>) -> Result<Access, PlatformError> {
        let identity = self.accounts().await?.into_iter().next();
        self.access(&identity.ok_or_else(no_identity)?, meter).await
    }
}

/// Calls `id.kick.com`.
pub(super) struct OAuth {
    http: Arc<Client>,
    clock: Arc<dyn Clock>,
    client: oauth::Client,
    bot_user_id: Option<u64>,
}

impl OAuth {
    pub(super) fn new(options: &KickOptions, http: Arc<Client>, clock: Arc<dyn Clock>) -> Self {
        Self {
            http,
            clock,
            client: oauth::Client::new(options.client_id.as_deref(), options.client_secret.as_ref()),
            bot_user_id: options.bot_user_id,
        }
    }

    /// Requests whether `token` is active; `None` when it is not. Kick responds with 200 or with 401, both in the envelope of its
    /// API; without it the response is another server's.
    async fn introspect(
        &self,
        token: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Option<Introspected>, PlatformError> {
        let call = Call {
            token: Some(token),
            ..Call::introspection("the examination of a token")
        };
        let answer = match self.http.exchange(&call, meter).await {
            Err(PlatformError::Unauthorized { .. }) => return Ok(None),
            answer => answer?,
        };
        let introspected: Envelope<Value> = read(&answer, call.operation)?;
        let introspected =
            Introspected::of(introspected).map_err(|reason| unreadable(call.operation, reason))?;
        match introspected.active {
            Some(active) => Ok(Some(introspected).filter(|_| active)),
            None => Err(unreadable(
                call.operation,
                "the answer does not contain whether the token is active".to_owned(),
            )),
        }
    }

    /// Completes a token with the result of introspection, after checking that it belongs to this application.
    fn describe(
        &self,
        identity: &Identity,
        token: &StoredToken,
        introspected: Introspected,
    ) -> Result<Described, PlatformError> {
        let expires_at = introspected.ends_at().or(token.expires_at);
        let reported_client = introspected.client_id.filter(|id| !id.is_empty());
        if let (Some(reported), Some(ours)) = (&reported_client, &self.client.id)
            && reported != ours
        {
            return Err(not_ours(identity, "another application"));
        }
        let of_app = introspected
            .token_type
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("app"));
        if of_app && identity.as_str() != APP {
            return Err(not_ours(identity, "the application itself"));
        }
        Ok(Described {
            scopes_known: true,
            token: StoredToken {
                client_id: reported_client.or_else(|| token.client_id.clone()),
                // Missing scopes in the response do not remove any.
                scopes: introspected.scope.unwrap_or_else(|| token.scopes.clone()),
                expires_at,
                ..token.clone()
            },
        })
    }

    /// Decides about a token that introspection calls active although its expiry is in the past. Either may be wrong, so the API
    /// decides: a token that it accepts is valid, with an unknown expiry; one that it refuses is not active.
    async fn of_expired_active(&self, mut described: Described, meter: &Meter<'_>) -> Validation {
        if described.token.kind == TokenKind::App {
            return Validation::Refused(Some(described));
        }
        let tried = self
            .http
            .exchange(&own_user(&described.token.access), meter)
            .await;
        match tried {
            Ok(_) | Err(PlatformError::Forbidden { .. }) => {
                described.token.expires_at = None;
                Validation::Accepted(described)
            }
            Err(PlatformError::Unauthorized { .. }) => Validation::Refused(Some(described)),
            Err(error) => Validation::Unclear(unreadable(
                "the examination of a token",
                format!("Kick calls the token active and expired at once, and {error}"),
            )),
        }
    }
}

#[async_trait]
impl Provider for OAuth {
    const PLATFORM: PlatformName = PlatformName::Kick;
    const APP: &'static str = APP;
    const BOT: &'static str = BOT;
    const VALIDATION_NAMES_OWNER: bool = false;
    /// A 401 alone proves little, but app tokens have been observed to become invalid early (`KickDevDocs` issue 223).
    const REPLACES_REFUSED_APP_TOKEN: bool = true;
    const PKCE: bool = true;

    fn client(&self) -> &oauth::Client {
        &self.client
    }

    fn owner_of(&self, identity: &Identity) -> Option<String> {
        let id = match identity.as_str() {
            BOT => self.bot_user_id,
            _ => broadcaster_of(identity),
        };
        id.map(|id| id.to_string())
    }

    fn is_one_time(&self, _client: Credentials<'_>) -> bool {
        false
    }

    async fn exchange(
        &self,
        client: Credentials<'_>,
        grant: Grant<'_>,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantError> {
        if client.secret.is_none() {
            return Err(GrantError::NoEffect(no_identity()));
        }
        let call = Call {
            form: Some(&grant.form(client)),
            ..Call::token("a token")
        };
        match self.http.exchange(&call, meter).await {
            Ok(answer) => match answer.object::<Granted>() {
                Ok(granted) if !granted.access_token.is_empty() => Ok(granted),
                Ok(_) => Err("the token is empty".to_owned()),
                Err(reason) => Err(reason),
            }
            .map_err(|reason| GrantError::Foreign(unreadable(call.operation, reason))),
            Err(error) => Err(match of_grant_error(error) {
                GrantError::Gone(_) if grant.is_code() => GrantError::NotGranted(CODE_REFUSED.to_owned()),
                error => error,
            }),
        }
    }

    /// <https://docs.kick.com/getting-started/generating-tokens-oauth2-flow>
    fn consent_page(&self, request: &CodeRequest<'_>) -> Option<Url> {
        let base = without(&self.http.auth_url, &["/oauth"]);
        let page: Url = format!("{base}/oauth/authorize").parse().ok()?;
        request.challenge.map(|_| request.at(page))
    }

    /// Kick takes the token in the query, and names the parameter otherwise than RFC 7009 does.
    async fn revoke(
        &self,
        _client: Credentials<'_>,
        token: &StoredToken,
        meter: &Meter<'_>,
    ) -> Result<Option<&'static str>, PlatformError> {
        let refresh = token
            .refresh
            .as_ref()
            .map(|refresh| (&refresh.secret, "refresh_token"));
        for (secret, kind) in refresh.into_iter().chain([(&token.access, "access_token")]) {
            let query = [
                ("token", secret.expose_secret().to_owned()),
                ("token_hint_type", kind.to_owned()),
            ];
            self.http.exchange(&Call::revocation(&query), meter).await?;
        }
        Ok(None)
    }

    async fn validate(
        &self,
        identity: &Identity,
        token: &StoredToken,
        _refusal: Option<&str>,
        meter: &Meter<'_>,
    ) -> Validation {
        let introspected = match self.introspect(&token.access, meter).await {
            Ok(Some(introspected)) => introspected,
            Ok(None) => return Validation::Refused(None),
            Err(error) => return Validation::Unclear(error),
        };
        // By Kick's clock, as far as it is known.
        let now = self.http.skew.correct(self.clock.now());
        let is_over = introspected.ends_at().is_some_and(|end| now >= end);
        match self.describe(identity, token, introspected) {
            Ok(described) if is_over => self.of_expired_active(described, meter).await,
            Ok(described) => Validation::Accepted(described),
            Err(error) => Validation::Unclear(error),
        }
    }

    async fn owner(&self, token: &SecretString, meter: &Meter<'_>) -> Result<Option<Owner>, PlatformError> {
        let call = own_user(token);
        let answer = match self.http.exchange(&call, meter).await {
            // An invalid token, or one without `user:read`: its owner stays unknown, and its use will show which.
            Err(PlatformError::Unauthorized { .. } | PlatformError::Forbidden { .. }) => return Ok(None),
            answer => answer?,
        };
        let users: Envelope<Value> = read(&answer, call.operation)?;
        let Some(user) = items(users).into_iter().flatten().next() else {
            return Ok(None);
        };
        let user: User =
            serde_json::from_value(user).map_err(|error| unreadable(call.operation, error.to_string()))?;
        Ok(Some(Owner {
            user_id: user.user_id.to_string(),
            login: Some(user.name).filter(|name| !name.is_empty()),
        }))
    }

    fn status_after(&self, refresh: &Refresh, token: &StoredToken, now: Timestamp) -> TokenStatus {
        of_inactive(refresh, token, now)
    }

    fn platform_time(&self, now: Timestamp) -> Timestamp {
        self.http.skew.latest(now)
    }

    fn client_rejected(&self, _reason: String) -> PlatformError {
        PlatformError::ClientRejected {
            platform: PlatformName::Kick,
            reason: "invalid_client; check `kick.client_id` and `kick.client_secret`".to_owned(),
        }
    }

    fn no_client(&self) -> PlatformError {
        no_identity()
    }
}

/// Builds the request for the user that `token` belongs to.
fn own_user(token: &SecretString) -> Call<'_> {
    Call {
        token: Some(token),
        ..Call::get("/public/v1/users", &[], "the token's own user")
    }
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
        what: format!(
            "its own token for `{identity}`, but the one at hand belongs to {owner}; {}",
            left_alone(identity)
        ),
    }
}

/// Distinguishes the failures of a grant. The status of each is not documented, so the error's name decides, which is the reason
/// of the judged response. Only `invalid_grant` and `invalid_client` are known to come from Kick; a response with another name,
/// or without one, is not the token endpoint's.
fn of_grant_error(error: PlatformError) -> GrantError {
    match &error {
        PlatformError::Unauthorized { reason, .. } | PlatformError::Rejected { reason, .. } => {
            match reason.as_str() {
                "invalid_grant" => GrantError::Gone(NOT_HONORED.to_owned()),
                "invalid_client" => GrantError::ClientRejected(CLIENT_REJECTED.to_owned()),
                _ => GrantError::Foreign(error),
            }
        }
        PlatformError::Unavailable { code, .. }
            if code.is_of_network() || matches!(code, Code::Http(500..)) =>
        {
            GrantError::Lost(error)
        }
        PlatformError::Unavailable { .. }
        | PlatformError::Unreadable { .. }
        | PlatformError::Forbidden { .. } => GrantError::Foreign(error),
        PlatformError::RateLimited { .. }
        | PlatformError::ClientRejected { .. }
        | PlatformError::NotConfigured { .. }
        | PlatformError::OtherAccount { .. }
        | PlatformError::TokenStore { .. } => GrantError::NoEffect(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Endpoint;
    use super::*;
    use crate::http::{Answer, HttpError};

    fn failure(status: u16, kind: &str, body: &str) -> &'static str {
        let outcome = Ok(Answer::made_up(status, &[("content-type", kind)], body));
        named(outcome)
    }

    fn named(outcome: Result<Answer, HttpError>) -> &'static str {
        let asked = super::super::answer::asked("a token");
        assert_eq!(asked.platform, PlatformName::Kick);
        let judged = Endpoint::Token.judge(asked, outcome);
        match of_grant_error(judged.unwrap_err()) {
            GrantError::Gone(_) => "grant gone",
            GrantError::ClientRejected(_) => "client rejected",
            GrantError::NoEffect(_) | GrantError::Lost(_) => "no answer",
            GrantError::NotGranted(_) | GrantError::Foreign(_) => "unclear",
        }
    }

    #[test]
    fn only_kick_error_names_prove_a_lost_authorization() {
        let json = "application/json";
        for (status, kind, body, expected) in [
            (400, json, r#"{"error":"invalid_grant"}"#, "grant gone"),
            (401, json, r#"{"error":"invalid_grant"}"#, "grant gone"),
            (401, json, r#"{"error":"invalid_client"}"#, "client rejected"),
            (400, json, "", "unclear"),
            (401, json, "", "unclear"),
            (401, "text/plain", "Unauthorized", "unclear"),
            (401, json, r#"{"message":"Unauthorized"}"#, "unclear"),
            (403, json, r#"{"message":"Forbidden"}"#, "unclear"),
            (404, "text/html", "<html>", "unclear"),
            (404, json, r#"{"message":"Not Found"}"#, "unclear"),
            (400, json, r#"{"error":"Invalid request"}"#, "unclear"),
            (401, json, r#"{"error":"invalid_token"}"#, "unclear"),
            (401, json, r#"{"error":"access_denied"}"#, "unclear"),
            (401, json, r#"{"error":"unauthorized_client"}"#, "unclear"),
            (400, json, r#"{"error":"unauthorized_client"}"#, "unclear"),
            (401, json, r#"{"data":{},"message":"Unauthorized"}"#, "unclear"),
            (500, json, "{}", "no answer"),
            (502, "text/html", "<html>", "no answer"),
            (429, json, "{}", "no answer"),
        ] {
            assert_eq!(failure(status, kind, body), expected, "{status} {body}");
        }
        let lost = HttpError::Network {
            code: Code::NetworkTimeout,
            reason: String::new(),
            never_sent: false,
        };
        assert_eq!(named(Err(lost)), "no answer");
    }
}
