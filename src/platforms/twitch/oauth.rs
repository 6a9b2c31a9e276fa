//! The calls to `id.twitch.tv/oauth2`, each as thin as possible. Secrets go into the body, never into a URL.

use std::sync::Arc;

use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};

use super::wire::{Granted, Validated};
use crate::clock::Chance;
use crate::core::source::PlatformName;
use crate::http::{Answer, Http, HttpError, Retries, Skew};
use crate::platforms::PlatformError;
use crate::platforms::kit::answer::{Asked, is_foreign_refusal, reason};
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::GrantError;

/// Calls `id.twitch.tv`, or a server that stands in for it.
pub(super) struct OAuth {
    pub(super) http: Http,
    pub(super) base: Url,
    pub(super) chance: Chance,
    pub(super) skew: Arc<Skew>,
}

impl OAuth {
    /// Validates `token`; `Unauthorized` if Twitch itself rejects it.
    pub(super) async fn validate(
        &self,
        token: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Validated, PlatformError> {
        let asked = Asked {
            platform: PlatformName::Twitch,
            operation: "the validation of a token",
        };
        let mut attempt = 0;
        let outcome = loop {
            attempt += 1;
            let request = self
                .http
                .request(Method::GET, self.address("validate"))
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

    /// Exchanges a refresh token for a new pair.
    pub(super) async fn refresh(
        &self,
        client_id: &str,
        client_secret: Option<&SecretString>,
        refresh: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantError> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.expose_secret()),
        ];
        // Only a confidential client's refresh token can be sent again if the result is unknown.
        self.grant(&form, client_id, client_secret, client_secret.is_some(), meter)
            .await
    }

    /// Requests an application token.
    pub(super) async fn client_credentials(
        &self,
        client_id: &str,
        client_secret: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantError> {
        let form = [("grant_type", "client_credentials")];
        self.grant(&form, client_id, Some(client_secret), true, meter)
            .await
    }

    async fn grant(
        &self,
        form: &[(&str, &str)],
        client_id: &str,
        client_secret: Option<&SecretString>,
        repeatable: bool,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantError> {
        let mut fields = vec![("client_id", client_id)];
        fields.extend(client_secret.map(|secret| ("client_secret", secret.expose_secret())));
        fields.extend_from_slice(form);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = self
                .http
                .request(Method::POST, self.address("token"))
                .form(&fields);
            let outcome = self.send(request, meter).await;
            let wait = Retries::READ.wait_after(attempt, &outcome, &self.chance);
            match (read_grant(outcome), wait) {
                (Err(GrantError::Lost(_)), Some(wait)) if repeatable => tokio::time::sleep(wait).await,
                (Err(GrantError::NoEffect(_)), Some(wait)) => tokio::time::sleep(wait).await,
                (Err(GrantError::Foreign(_)), _) if attempt < Retries::READ.attempts => {
                    tokio::time::sleep(Retries::READ.backoff(attempt, &self.chance)).await;
                }
                (read, _) => return read,
            }
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder, meter: &Meter<'_>) -> Result<Answer, HttpError> {
        meter.sent();
        let request = request.build().map_err(|_| HttpError::Unsendable)?;
        let outcome = self.http.send(request).await;
        if let Ok(answer) = &outcome {
            self.skew.update(answer);
        }
        outcome
    }

    fn address(&self, path: &str) -> Url {
        super::options::below(&self.base, path)
    }
}

/// Whether a message mentions the token, as all of Twitch's rejections of a token do.
pub(super) fn is_about_token(words: &str) -> bool {
    words.to_ascii_lowercase().contains("token")
}

/// Whether a message is about the application: its id or its secret.
fn is_about_client(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("client") || words.contains("secret")
}

/// Interprets the answer of `POST /token`. The message decides, not the status: Twitch uses 400 for everything. A refusal without
/// Twitch's own message decides nothing: any 4xx means that the request was not processed.
fn read_grant(outcome: Result<Answer, HttpError>) -> Result<Granted, GrantError> {
    let asked = Asked {
        platform: PlatformName::Twitch,
        operation: "a token",
    };
    let never_sent = outcome.as_ref().is_err_and(HttpError::never_sent);
    let words = outcome.as_ref().map(reason).unwrap_or_default();
    let foreign = |answer: &Answer| is_foreign_refusal(PlatformName::Twitch, answer);
    let foreign = outcome.as_ref().is_ok_and(foreign);
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
        Err(_) if is_about_client(&words) => return Err(GrantError::Misconfigured(words)),
        Err(_) => {
            let reason = format!("a refusal without Twitch's own words: {words}");
            return Err(GrantError::Foreign(asked.unreadable(reason)));
        }
    };
    match answer.object::<Granted>() {
        Ok(granted) if !granted.access_token.is_empty() => Ok(granted),
        Ok(_) => Err(GrantError::Lost(
            asked.unreadable("the access token is empty".to_owned()),
        )),
        Err(reason) => Err(GrantError::Lost(asked.unreadable(reason))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;

    fn read(status: u16, body: &str) -> Result<Granted, GrantError> {
        read_grant(Ok(Answer::made_up(status, &[], body)))
    }

    #[test]
    fn failures_are_classified_by_message() {
        for (status, body, expected) in [
            (400, r#"{"status":400,"message":"Invalid refresh token"}"#, "gone"),
            (401, r#"{"status":401,"message":"invalid REFRESH token"}"#, "gone"),
            (
                400,
                r#"{"status":400,"message":"missing client secret"}"#,
                "misconfigured",
            ),
            (
                403,
                r#"{"status":403,"message":"invalid client secret"}"#,
                "misconfigured",
            ),
            (
                400,
                r#"{"status":400,"message":"invalid client"}"#,
                "misconfigured",
            ),
            (
                404,
                r#"{"status":404,"message":"client does not exist"}"#,
                "misconfigured",
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
                Err(GrantError::Misconfigured(_)) => "misconfigured",
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
            let failed = read_grant(Err(HttpError::Network {
                code: Code::NetworkConnect,
                reason: String::new(),
                never_sent,
            }));
            assert_eq!(matches!(failed, Err(GrantError::NoEffect(_))), expected);
        }
    }
}
