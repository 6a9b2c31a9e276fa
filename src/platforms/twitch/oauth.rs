//! Twitch's OAuth: the calls to `id.twitch.tv/oauth2`, each as thin as possible, and what the answers mean. Secrets go into the
//! body, never into a URL.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use super::helix::{Helix, is_about_token};
use super::options::{APP, BOT, TwitchOptions, below, broadcaster_of};
use super::wire::{StartedDevice, Validated};
use crate::clock::{Chance, Clock};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::http::{Answer, Http, HttpError, Retries, Skew};
use crate::platforms::PlatformError;
use crate::platforms::kit::answer::{Asked, is_foreign_refusal, reason};
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::{
    Access, Client, CodeRequest, Credentials, Described, DeviceCode, Grant, GrantError, Granted, Provider,
    TokenManager, Validation,
};
use crate::secrets;
use crate::tokens::{StoredToken, TokenKind};

/// This platform's tokens.
pub(super) type Auth = TokenManager<OAuth>;

/// The bot's scopes that are needed for all results, and their purposes.
const NEEDED_SCOPES: [(&str, &str); 2] = [
    ("user:read:chat", "to receive its chat"),
    (
        "user:read:moderated_channels",
        "to list the channels it moderates",
    ),
];
/// Two expiries that differ by less (ms) are the same: `validate` returns whole seconds from when it answers.
const SAME_EXPIRY_MS: i64 = 60_000;

/// Calls `id.twitch.tv`, or a server that stands in for it.
pub(super) struct OAuth {
    http: Http,
    base: Url,
    clock: Arc<dyn Clock>,
    chance: Chance,
    skew: Arc<Skew>,
    /// Used when the answer of `validate` is inconclusive.
    helix: Arc<Helix>,
    client: Client,
    bot_user_id: Option<String>,
}

impl OAuth {
    pub(super) fn new(options: &TwitchOptions, helix: Arc<Helix>, clock: Arc<dyn Clock>) -> Self {
        Self {
            http: helix.http.clone(),
            base: options.auth_url.clone(),
            clock,
            chance: helix.chance.clone(),
            skew: Arc::clone(&helix.skew),
            helix,
            client: Client::new(options.client_id.as_deref(), options.client_secret.as_ref()),
            bot_user_id: options.bot_user_id.clone(),
        }
    }

    /// Requests the details of `token`; `Unauthorized` if Twitch itself rejects it.
    async fn details(&self, token: &SecretString, meter: &Meter<'_>) -> Result<Validated, PlatformError> {
        let asked = Asked {
            platform: PlatformName::Twitch,
            operation: "the validation of a token",
        };
        let mut attempt = 0;
        let outcome = loop {
            attempt += 1;
            let request = self
                .http
                .request(Method::GET, below(&self.base, "validate"))
                .header("Authorization", format!("OAuth {}", token.expose_secret()));
            let outcome = self.send(request, meter).await;
            match asked.wait_after(attempt, &outcome, &self.chance) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => break outcome,
            }
        };
        let answer = match asked.judge(outcome) {
            // All of Twitch's refusals here mention the token; those of frameworks and gateways do not.
            Err(PlatformError::Unauthorized { reason, .. }) if !is_about_token(&reason) => {
                return Err(asked.unreadable(format!("status 401 without Twitch's own words: {reason}")));
            }
            judged => judged?,
        };
        answer.object().map_err(|reason| asked.unreadable(reason))
    }

    /// Returns whether Helix accepts a token; `None` if the answer is not Helix's own.
    async fn helix_accepts(
        &self,
        identity: &Identity,
        token: &StoredToken,
        client_id: Option<&str>,
        meter: &Meter<'_>,
    ) -> Option<bool> {
        let client_id = client_id.or_else(|| self.client.of(token).map(|client| client.id))?;
        let access = Access {
            identity: identity.clone(),
            token: token.access.clone(),
            client_id: Some(client_id.to_owned()),
            user_id: token.user_id.clone(),
            scopes: token.scopes.clone(),
            scopes_known: true,
        };
        let known = token.user_id.as_deref().or(self.bot_user_id.as_deref());
        let id = broadcaster_of(identity).or(known).unwrap_or("1");
        self.helix.accepts(&access, id, meter).await
    }

    fn describe(&self, token: &StoredToken, validated: Validated) -> Described {
        let user_id = validated.user_id.filter(|id| !id.is_empty());
        let kind = if user_id.is_some() {
            TokenKind::User
        } else {
            TokenKind::App
        };
        // 0 means a token that never expires; a negative value means that it has expired.
        let expires_in = validated.expires_in.filter(|seconds| *seconds != 0);
        let expires_at = expires_in.map(|seconds| self.clock.now().plus_secs(seconds));
        let is_same = match (token.expires_at, expires_at) {
            (Some(known), Some(reported)) => known.millis_since(reported).abs() <= SAME_EXPIRY_MS,
            (known, reported) => known == reported,
        };
        let scopes_listed = validated.scopes.is_some();
        let scopes = match validated.scopes {
            Some(scopes) => scopes.into_iter().collect(),
            // An answer without a user's scopes removes none.
            None if kind == TokenKind::User => token.scopes.clone(),
            None => BTreeSet::new(),
        };
        Described {
            scopes_known: kind == TokenKind::App || scopes_listed || !scopes.is_empty(),
            token: StoredToken {
                kind,
                client_id: Some(validated.client_id),
                user_id,
                login: validated.login.filter(|login| !login.is_empty()),
                scopes,
                expires_at: if is_same { token.expires_at } else { expires_at },
                ..token.clone()
            },
        }
    }

    async fn send(&self, request: RequestBuilder, meter: &Meter<'_>) -> Result<Answer, HttpError> {
        meter.sent();
        let request = request.build().map_err(|_| HttpError::Unsendable)?;
        let outcome = self.http.send(request).await;
        if let Ok(answer) = &outcome {
            self.skew.update(answer);
        }
        outcome
    }
}

#[async_trait]
impl Provider for OAuth {
    const PLATFORM: PlatformName = PlatformName::Twitch;
    const APP: &'static str = APP;
    const BOT: &'static str = BOT;
    const VALIDATION_NAMES_OWNER: bool = true;
    const REPLACES_REFUSED_APP_TOKEN: bool = false;

    fn client(&self) -> &Client {
        &self.client
    }

    fn owner_of(&self, identity: &Identity) -> Option<String> {
        match identity.as_str() {
            BOT => self.bot_user_id.clone(),
            _ => broadcaster_of(identity).map(str::to_owned),
        }
    }

    /// The tokens of public clients are (<https://dev.twitch.tv/docs/authentication/refresh-tokens/>).
    fn is_one_time(&self, client: Credentials<'_>) -> bool {
        client.secret.is_none()
    }

    fn required_scopes(&self, identity: &Identity) -> &'static [(&'static str, &'static str)] {
        if identity.as_str() == BOT {
            &NEEDED_SCOPES
        } else {
            &[]
        }
    }

    async fn exchange(
        &self,
        client: Credentials<'_>,
        grant: Grant<'_>,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantError> {
        // A code works once, and so does the refresh token of a public client: if the result is unknown, neither is sent again.
        let repeatable = !self.is_one_time(client) && !grant.is_code();
        let form = grant.form(client);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = self
                .http
                .request(Method::POST, below(&self.base, "token"))
                .form(&form);
            let outcome = self.send(request, meter).await;
            let wait = Retries::READ.wait_after(attempt, &outcome, &self.chance);
            match (read_grant(outcome, grant.is_code()), wait) {
                (Err(GrantError::Lost(_)), Some(wait)) if repeatable => tokio::time::sleep(wait).await,
                (Err(GrantError::NoEffect(_)), Some(wait)) => tokio::time::sleep(wait).await,
                (Err(GrantError::Foreign(_)), _) if attempt < Retries::READ.attempts => {
                    tokio::time::sleep(Retries::READ.backoff(attempt, &self.chance)).await;
                }
                (read, _) => return read,
            }
        }
    }

    /// There is no PKCE. Without `force_verify` the page would log in the account that the browser uses for Twitch.
    /// <https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/#authorization-code-grant-flow>
    fn consent_page(&self, request: &CodeRequest<'_>) -> Option<Url> {
        let mut page = request.at(below(&self.base, "authorize"));
        page.query_pairs_mut().append_pair("force_verify", "true");
        Some(page)
    }

    /// The parameter is `scopes` here, and `scope` elsewhere
    /// (<https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/#device-code-grant-flow>).
    async fn start_device(
        &self,
        client: Credentials<'_>,
        scopes: &str,
        meter: &Meter<'_>,
    ) -> Option<Result<DeviceCode, GrantError>> {
        let request = self
            .http
            .request(Method::POST, below(&self.base, "device"))
            .form(&[("client_id", client.id), ("scopes", scopes)]);
        let outcome = self.send(request, meter).await;
        Some(read_answer::<StartedDevice>(outcome, true, "a device code").map(device_code))
    }

    /// Twitch revokes an access token alone; its refresh token works on (<https://github.com/twitchdev/issues/issues/943>).
    async fn revoke(
        &self,
        client: Credentials<'_>,
        token: &StoredToken,
        meter: &Meter<'_>,
    ) -> Result<Option<&'static str>, PlatformError> {
        let asked = Asked {
            platform: PlatformName::Twitch,
            operation: "the revocation of a token",
        };
        let form = [("client_id", client.id), ("token", token.access.expose_secret())];
        let request = self
            .http
            .request(Method::POST, below(&self.base, "revoke"))
            .form(&form);
        match asked.judge(self.send(request, meter).await) {
            Ok(_) => {}
            // It had expired or was revoked before.
            Err(PlatformError::Rejected {
                status: 400, reason, ..
            }) if reason.to_ascii_lowercase().contains("invalid token") => {}
            Err(error) => return Err(error),
        }
        Ok(Some(
            "the connection itself: the account's owner ends it at https://www.twitch.tv/settings/connections",
        ))
    }

    /// `validate` decides. If it describes an expired token, or rejects the token in a format that is not Twitch's own, Helix
    /// decides: the official mock server does both (<https://dev.twitch.tv/docs/cli/mock-api-command/>).
    async fn validate(
        &self,
        identity: &Identity,
        token: &StoredToken,
        refusal: Option<&str>,
        meter: &Meter<'_>,
    ) -> Validation {
        let helix_refused = refusal.is_some_and(is_about_token);
        let helix_says_expired = refusal.is_some_and(|words| words.to_ascii_lowercase().contains("expired"));
        match self.details(&token.access, meter).await {
            Ok(validated) if helix_says_expired => Validation::Refused(Some(self.describe(token, validated))),
            Ok(mut validated) if validated.expires_in.is_some_and(|seconds| seconds < 0) => {
                let client_id = Some(validated.client_id.as_str());
                match self.helix_accepts(identity, token, client_id, meter).await {
                    // Helix accepts the token, so the negative expiry is wrong; when the token expires is unknown.
                    Some(true) => {
                        validated.expires_in = None;
                        Validation::Accepted(self.describe(token, validated))
                    }
                    Some(false) => Validation::Refused(Some(self.describe(token, validated))),
                    None => Validation::Unclear(PlatformError::Unreadable {
                        platform: PlatformName::Twitch,
                        operation: "the validation of a token",
                        reason: "the answer accepts the token and reports it as expired".to_owned(),
                    }),
                }
            }
            Ok(validated) => Validation::Accepted(self.describe(token, validated)),
            Err(PlatformError::Unauthorized { .. }) => Validation::Refused(None),
            // Helix itself has rejected the token; that something else answers for `validate` changes nothing.
            Err(PlatformError::Unreadable { .. }) if helix_refused => Validation::Refused(None),
            Err(error @ PlatformError::Unreadable { .. }) => {
                match self.helix_accepts(identity, token, None, meter).await {
                    Some(false) => Validation::Refused(None),
                    Some(true) | None => Validation::Unclear(error),
                }
            }
            Err(error) => Validation::Unclear(error),
        }
    }

    fn platform_time(&self, now: Timestamp) -> Timestamp {
        self.skew.latest(now)
    }

    fn client_rejected(&self, reason: String) -> PlatformError {
        PlatformError::Unauthorized {
            platform: PlatformName::Twitch,
            reason: format!("the client id and secret were refused: {reason}"),
        }
    }

    fn no_client(&self) -> PlatformError {
        PlatformError::NotConfigured {
            platform: PlatformName::Twitch,
            what: "a client id (`twitch.client_id`), and its secret to ask as the application itself"
                .to_owned(),
        }
    }
}

/// Whether a message is about the application: its id or its secret.
fn is_about_client(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("client") || words.contains("secret")
}

/// Interprets the answer of `POST /token`.
fn read_grant(outcome: Result<Answer, HttpError>, is_code: bool) -> Result<Granted, GrantError> {
    let granted: Granted = read_answer(outcome, is_code, "a token")?;
    if granted.access_token.is_empty() {
        return Err(GrantError::Lost(PlatformError::Unreadable {
            platform: PlatformName::Twitch,
            operation: "a token",
            reason: "the access token is empty".to_owned(),
        }));
    }
    Ok(granted)
}

/// Interprets an answer about a grant. The message decides, not the status: Twitch uses 400 for everything. A refusal without
/// Twitch's own message decides nothing: any 4xx means that the request was not processed.
fn read_answer<T: DeserializeOwned>(
    outcome: Result<Answer, HttpError>,
    is_code: bool,
    operation: &'static str,
) -> Result<T, GrantError> {
    let asked = Asked {
        platform: PlatformName::Twitch,
        operation,
    };
    let never_sent = outcome.as_ref().is_err_and(HttpError::never_sent);
    let words = outcome.as_ref().map(reason).unwrap_or_default();
    let foreign = |answer: &Answer| is_foreign_refusal(PlatformName::Twitch, answer);
    let foreign = outcome.as_ref().is_ok_and(foreign);
    // The names of RFC 8628, section 3.5, also where they come in its form instead of Twitch's.
    let is_about_code = is_code
        && outcome
            .as_ref()
            .is_ok_and(|answer| (400..500).contains(&answer.status))
        && [
            "authorization_pending",
            "slow_down",
            "expired_token",
            "access_denied",
        ]
        .contains(&words.as_str());
    if is_about_code {
        return Err(GrantError::NotGranted(words));
    }
    let answer = match asked.judge(outcome) {
        Ok(answer) => answer,
        Err(error) if foreign => return Err(GrantError::Foreign(error)),
        Err(error) if never_sent => return Err(GrantError::NoEffect(error)),
        Err(error @ (PlatformError::Unavailable { .. } | PlatformError::Unreadable { .. })) => {
            return Err(GrantError::Lost(error));
        }
        Err(error @ PlatformError::RateLimited { .. }) => return Err(GrantError::NoEffect(error)),
        Err(PlatformError::Unauthorized { .. } | PlatformError::Rejected { status: 400, .. })
            if words.to_ascii_lowercase().contains("refresh token") =>
        {
            return Err(GrantError::Gone(words));
        }
        // A wrong secret and an unknown client are reported as such; any other message is no answer about this request.
        Err(_) if is_about_client(&words) => return Err(GrantError::ClientRejected(words)),
        Err(_) if is_code => return Err(GrantError::NotGranted(words)),
        Err(_) => {
            let reason = format!("a refusal without Twitch's own words: {words}");
            return Err(GrantError::Foreign(asked.unreadable(reason)));
        }
    };
    answer
        .object()
        .map_err(|reason| GrantError::Lost(asked.unreadable(reason)))
}

/// Returns the page on which a code is confirmed; Twitch's own where the answer names none.
fn page_of(verification_uri: &str) -> String {
    let page = Url::parse(verification_uri)
        .ok()
        .filter(|page| matches!(page.scheme(), "http" | "https"));
    page.map_or_else(|| "https://www.twitch.tv/activate".to_owned(), Into::into)
}

/// Twitch's codes last for 30 minutes and are checked every 5 seconds. Other figures are believed within bounds, because they are
/// added to times.
fn device_code(started: StartedDevice) -> DeviceCode {
    let seconds = |figure: Option<i64>| figure.and_then(|figure| u64::try_from(figure).ok());
    DeviceCode {
        device_code: secrets::secret(started.device_code),
        // Both are shown on a terminal.
        user_code: secrets::quote(&started.user_code),
        page: page_of(&started.verification_uri),
        expires_in: seconds(started.expires_in).unwrap_or(1_800).min(86_400),
        interval: seconds(started.interval).unwrap_or(5).clamp(1, 600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;

    fn read(status: u16, body: &str) -> Result<Granted, GrantError> {
        read_grant(Ok(Answer::made_up(status, &[], body)), false)
    }

    #[test]
    fn times_of_a_device_code_are_bounded() {
        for (expires_in, interval, expected) in [
            ("1800", "5", (1_800, 5)),
            ("null", "null", (1_800, 5)),
            ("-1", "-1", (1_800, 5)),
            ("60", "0", (60, 1)),
            ("9223372036854775807", "9223372036854775807", (86_400, 600)),
        ] {
            let body = format!(
                r#"{{"device_code":"d","user_code":"A","verification_uri":"https://x","expires_in":{expires_in},"interval":{interval}}}"#
            );
            let code = device_code(serde_json::from_str(&body).unwrap());
            assert_eq!((code.expires_in, code.interval), expected, "{body}");
        }
    }

    #[test]
    fn failures_are_classified_by_message() {
        for (status, body, expected) in [
            (400, r#"{"status":400,"message":"Invalid refresh token"}"#, "gone"),
            (401, r#"{"status":401,"message":"invalid REFRESH token"}"#, "gone"),
            (
                400,
                r#"{"status":400,"message":"missing client secret"}"#,
                "client rejected",
            ),
            (
                403,
                r#"{"status":403,"message":"invalid client secret"}"#,
                "client rejected",
            ),
            (
                400,
                r#"{"status":400,"message":"invalid client"}"#,
                "client rejected",
            ),
            (
                404,
                r#"{"status":404,"message":"client does not exist"}"#,
                "client rejected",
            ),
            (400, r#"{"message":"bad","status":400}"#, "foreign"),
            (401, r#"{"status":401,"message":"Unauthorized"}"#, "foreign"),
            (403, r#"{"status":403,"message":"blocked by policy"}"#, "foreign"),
            (400, "", "foreign"),
            (401, "", "foreign"),
            (403, "Forbidden", "foreign"),
            (404, "404 page not found", "foreign"),
            (400, r#"{"message":"invalid refresh token"}"#, "foreign"),
            (401, r#"{"error":"invalid_grant"}"#, "foreign"),
            (429, "{}", "no effect"),
            (500, "{}", "lost"),
            (200, "", "lost"),
            (200, r#"{"access_token":"","expires_in":1}"#, "lost"),
            (200, "<html>", "lost"),
            (400, "<html>refresh token</html>", "foreign"),
        ] {
            let found = match read(status, body) {
                Ok(_) => "granted",
                Err(GrantError::Gone(_)) => "gone",
                Err(GrantError::NotGranted(_)) => "not granted",
                Err(GrantError::ClientRejected(_)) => "client rejected",
                Err(GrantError::NoEffect(_)) => "no effect",
                Err(GrantError::Lost(_)) => "lost",
                Err(GrantError::Foreign(_)) => "foreign",
            };
            assert_eq!(found, expected, "{status} {body}");
        }
        let granted = read(200, r#"{"access_token":"a","refresh_token":"r","expires_in":9}"#).unwrap();
        assert_eq!(
            (granted.refresh_token.as_str(), granted.expires_in),
            ("r", Some(9))
        );
    }

    #[test]
    fn a_request_that_never_left_had_no_effect() {
        for (never_sent, expected) in [(true, true), (false, false)] {
            let lost = HttpError::Network {
                code: Code::NetworkConnect,
                reason: String::new(),
                never_sent,
            };
            let failed = read_grant(Err(lost), false);
            assert_eq!(matches!(failed, Err(GrantError::NoEffect(_))), expected);
        }
    }

    #[test]
    fn refused_code_is_reported_in_twitch_own_words() {
        let read = |status, body: &str| read_grant(Ok(Answer::made_up(status, &[], body)), true);
        for words in [
            "authorization_pending",
            "invalid device code",
            "Invalid authorization code",
        ] {
            let body = format!(r#"{{"status":400,"message":"{words}"}}"#);
            assert!(
                matches!(read(400, &body), Err(GrantError::NotGranted(said)) if said == words),
                "{words}"
            );
        }
        for status in [400, 429] {
            let standard = r#"{"error":"slow_down"}"#;
            assert!(
                matches!(read(status, standard), Err(GrantError::NotGranted(said)) if said == "slow_down")
            );
        }
        let public = r#"{"status":400,"message":"Invalid client credentials"}"#;
        assert!(matches!(read(400, public), Err(GrantError::ClientRejected(_))));
        assert!(matches!(
            read(400, "<html>a gateway</html>"),
            Err(GrantError::Foreign(_) | GrantError::Lost(_))
        ));
    }
}
