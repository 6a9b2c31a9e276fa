//! The calls to `id.twitch.tv/oauth2`, each as thin as it gets. Secrets go into the body, never into an address.

use std::sync::Arc;

use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};

use super::wire::{Granted, Validated};
use crate::clock::Chance;
use crate::core::source::PlatformName;
use crate::http::{Answer, Http, HttpError, Retries, Skew};
use crate::platforms::PlatformError;
use crate::platforms::answer::{Asked, reason};
use crate::platforms::meter::Meter;

/// Asks `id.twitch.tv`, or whoever stands in for it.
pub(super) struct OAuth {
    pub(super) http: Http,
    pub(super) base: Url,
    pub(super) chance: Chance,
    pub(super) skew: Arc<Skew>,
}

/// Why a grant was not exchanged for a token.
#[derive(Debug)]
pub(super) enum GrantFailure {
    /// The refresh token is not honoured any more.
    Gone(String),
    /// The application is refused: a wrong or missing secret, an unknown client id.
    Misconfigured(String),
    /// The request surely had no effect.
    NoEffect(PlatformError),
    /// The request may have been carried out, but its answer is lost.
    Lost(PlatformError),
}

impl OAuth {
    /// Asks whether `token` is good; `Unauthorized` when it is not.
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
            match Retries::READ.wait_after(attempt, &outcome, &self.chance) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => break outcome,
            }
        };
        let answer = asked.judge(outcome)?;
        answer.json().map_err(|reason| asked.unreadable(reason))
    }

    /// Exchanges a refresh token for a new pair.
    pub(super) async fn refresh(
        &self,
        client_id: &str,
        client_secret: Option<&SecretString>,
        refresh: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantFailure> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.expose_secret()),
        ];
        // Only a confidential client's refresh token can be sent again when it is unclear what became of it.
        self.grant(&form, client_id, client_secret, client_secret.is_some(), meter)
            .await
    }

    /// Gets a token for the application itself.
    pub(super) async fn client_credentials(
        &self,
        client_id: &str,
        client_secret: &SecretString,
        meter: &Meter<'_>,
    ) -> Result<Granted, GrantFailure> {
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
    ) -> Result<Granted, GrantFailure> {
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
                (Err(GrantFailure::Lost(_)), Some(wait)) if repeatable => tokio::time::sleep(wait).await,
                (Err(GrantFailure::NoEffect(_)), Some(wait)) => tokio::time::sleep(wait).await,
                (read, _) => return read,
            }
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder, meter: &Meter<'_>) -> Result<Answer, HttpError> {
        meter.sent();
        let request = request.build().map_err(|_| HttpError::Unsendable)?;
        let outcome = self.http.send(request).await;
        if let Ok(answer) = &outcome {
            self.skew.learn(answer);
        }
        outcome
    }

    fn address(&self, path: &str) -> Url {
        super::options::below(&self.base, path)
    }
}

/// Reads the answer of `POST /token`. The message decides, not the status: Twitch uses 400 for everything.
fn read_grant(outcome: Result<Answer, HttpError>) -> Result<Granted, GrantFailure> {
    let asked = Asked {
        platform: PlatformName::Twitch,
        operation: "a token",
    };
    let never_sent = outcome.as_ref().is_err_and(HttpError::never_sent);
    let words = outcome.as_ref().map(reason).unwrap_or_default();
    let answer = match asked.judge(outcome) {
        Ok(answer) => answer,
        Err(error) if never_sent => return Err(GrantFailure::NoEffect(error)),
        Err(error @ (PlatformError::Unavailable { .. } | PlatformError::Unreadable { .. })) => {
            return Err(GrantFailure::Lost(error));
        }
        Err(error @ PlatformError::RateLimited { .. }) => return Err(GrantFailure::NoEffect(error)),
        Err(PlatformError::Unauthorized { .. } | PlatformError::Rejected { status: 400, .. })
            if words.to_ascii_lowercase().contains("refresh token") =>
        {
            return Err(GrantFailure::Gone(words));
        }
        Err(_) => return Err(GrantFailure::Misconfigured(words)),
    };
    match answer.json::<Granted>() {
        Ok(granted) if !granted.access_token.is_empty() => Ok(granted),
        Ok(_) => Err(GrantFailure::Lost(
            asked.unreadable("the access token is empty".to_owned()),
        )),
        Err(reason) => Err(GrantFailure::Lost(asked.unreadable(reason))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Result<Granted, GrantFailure> {
        read_grant(Ok(Answer::made_up(status, &[], body)))
    }

    #[test]
    fn failures_are_told_apart_by_their_words() {
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
            (400, "", "misconfigured"),
            (404, "404 page not found", "misconfigured"),
            (429, "{}", "no effect"),
            (500, "{}", "lost"),
            (200, "", "lost"),
            (200, r#"{"access_token":"","expires_in":1}"#, "lost"),
            (200, "<html>", "lost"),
            (400, "<html>refresh token</html>", "lost"),
        ] {
            let found = match read(status, body) {
                Ok(_) => "granted",
                Err(GrantFailure::Gone(_)) => "gone",
                Err(GrantFailure::Misconfigured(_)) => "misconfigured",
                Err(GrantFailure::NoEffect(_)) => "no effect",
                Err(GrantFailure::Lost(_)) => "lost",
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
                code: "network.connect",
                reason: String::new(),
                never_sent,
            }));
            assert_eq!(matches!(failed, Err(GrantFailure::NoEffect(_))), expected);
        }
    }
}
