//! Sends single requests to Kick's two hosts, within one rate limit, retried only where that may change the result.

use std::time::Duration;

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::answer::{Endpoint, asked, is_blocked};
use super::rate_limit::{Quiet, RateLimiter};
use crate::clock::Chance;
use crate::core::source::PlatformName;
use crate::http::{Answer, Http, HttpError, Retries, Skew};
use crate::platforms::PlatformError;
use crate::platforms::kit::answer::Asked;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::smoothed_latency::Smoothed;

/// Attempts of a request with a transient failure.
const ATTEMPTS: u32 = 3;
/// Attempts of a request that the edge blocks; more would only prolong the block.
const BLOCKED_ATTEMPTS: u32 = 2;

pub(super) struct Call<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// Keys are repeated for several values, as Kick requires.
    pub(super) query: &'a [(&'static str, String)],
    pub(super) token: Option<&'a SecretString>,
    pub(super) form: Option<&'a [(&'static str, &'a str)]>,
    pub(super) json: Option<&'a Value>,
    /// Name of the operation, for users.
    pub(super) operation: &'static str,
    /// Whether sending it twice does no harm.
    pub(super) repeatable: bool,
}

impl<'a> Call<'a> {
    /// A read of the API.
    pub(super) fn get(path: &'a str, query: &'a [(&'static str, String)], operation: &'static str) -> Self {
        Self {
            endpoint: Endpoint::Api,
            method: Method::GET,
            path,
            query,
            token: None,
            form: None,
            json: None,
            operation,
            repeatable: true,
        }
    }

    /// A request for a token.
    pub(super) fn token(operation: &'static str) -> Self {
        Self {
            endpoint: Endpoint::Token,
            method: Method::POST,
            ..Self::get("/oauth/token", &[], operation)
        }
    }

    /// A request to revoke a token, which `query` contains.
    pub(super) fn revocation(query: &'a [(&'static str, String)]) -> Self {
        Self {
            endpoint: Endpoint::Token,
            method: Method::POST,
            ..Self::get("/oauth/revoke", query, "the revocation of a token")
        }
    }

    /// A request whether a token is active.
    pub(super) fn introspection(operation: &'static str) -> Self {
        Self {
            endpoint: Endpoint::Introspection,
            method: Method::POST,
            ..Self::get("/oauth/token/introspect", &[], operation)
        }
    }
}

/// HTTP client for Kick.
pub(super) struct Client {
    pub(super) http: Http,
    pub(super) auth_url: Url,
    pub(super) api_url: Url,
    pub(super) rate_limiter: RateLimiter,
    pub(super) chance: Chance,
    pub(super) patience: Duration,
    pub(super) round_trip: Smoothed,
    /// Skew between our clock and Kick's.
    pub(super) skew: Skew,
}

impl Client {
    /// Sends `call`, waiting and retrying where that makes sense.
    pub(super) async fn exchange(&self, call: &Call<'_>, meter: &Meter<'_>) -> Result<Answer, PlatformError> {
        let asked = asked(call.operation);
        let mut attempt = 1;
        loop {
            self.rate_limiter
                .acquire(self.patience)
                .await
                .map_err(|quiet| self.held_back(asked, quiet))?;
            meter.sent();
            let outcome = self.http.send(self.build(call)?).await;
            if let Ok(answer) = &outcome {
                self.skew.update(answer);
            }
            let never_sent = outcome.as_ref().is_err_and(HttpError::never_sent);
            let is_retryable = outcome.as_ref().err().is_none_or(HttpError::is_retryable);
            let open = outcome
                .as_ref()
                .is_ok_and(|answer| call.endpoint.leaves_open(answer));
            let requested_wait = outcome.as_ref().ok().and_then(Answer::requested_wait);
            let error = match call.endpoint.judge(asked, outcome) {
                Ok(answer) => {
                    self.rate_limiter.answered();
                    if call.endpoint == Endpoint::Api {
                        self.round_trip.record(answer.rtt);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            // A longer wait would hold up everything else that the probe requests; the next probe tries again.
            let is_short = requested_wait.is_none_or(|wait| wait <= self.patience);
            let again = (call.repeatable || never_sent) && is_short;
            let blocked = is_blocked(&error);
            match error {
                PlatformError::RateLimited { .. } => {
                    let wait = self.rate_limiter.refused(requested_wait);
                    if attempt >= ATTEMPTS || wait > self.patience {
                        return Err(rate_limited(Quiet(wait)));
                    }
                }
                error if blocked => {
                    if attempt >= BLOCKED_ATTEMPTS || !is_short {
                        self.rate_limiter.blocked(requested_wait, &error);
                    }
                    if attempt >= BLOCKED_ATTEMPTS || !again {
                        return Err(error);
                    }
                    self.pause(attempt, requested_wait).await;
                }
                PlatformError::Unavailable { .. } if is_retryable && again && attempt < ATTEMPTS => {
                    self.pause(attempt, requested_wait).await;
                }
                PlatformError::Unreadable { .. } if open && again && attempt < ATTEMPTS => {
                    self.pause(attempt, requested_wait).await;
                }
                error => return Err(error),
            }
            attempt += 1;
        }
    }

    /// Returns why a request is not sent during a backoff.
    fn held_back(&self, asked: Asked, quiet: Quiet) -> PlatformError {
        match self.rate_limiter.cause() {
            Some(PlatformError::Unavailable { reason, code, .. }) => {
                asked.unavailable(code, format!("{reason}; the next request waits"))
            }
            _ => rate_limited(quiet),
        }
    }

    async fn pause(&self, attempt: u32, requested_wait: Option<Duration>) {
        let own = Retries::READ.backoff(attempt, &self.chance);
        tokio::time::sleep(requested_wait.unwrap_or_default() + own).await;
    }

    fn build(&self, call: &Call<'_>) -> Result<reqwest::Request, PlatformError> {
        let base = match call.endpoint {
            Endpoint::Api => without(&self.api_url, &["/v1", "/public"]),
            Endpoint::Introspection | Endpoint::Token => without(&self.auth_url, &["/oauth"]),
        };
        let broken = || {
            let what = "base addresses and tokens from which a request can be built";
            PlatformError::not_configured(PlatformName::Kick, what)
        };
        let text = format!("{base}{}", call.path);
        let mut url: Url = text.parse().map_err(|_| broken())?;
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .header("accept", "application/json");
        if let Some(token) = call.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(form) = call.form {
            request = request.form(form);
        }
        if let Some(json) = call.json {
            request = request.json(json);
        }
        request.build().map_err(|_| broken())
    }
}

/// Returns a base URL without the path prefix that is part of every path, which some configurations include.
pub(super) fn without<'a>(base: &'a Url, ends: &[&str]) -> &'a str {
    let slashless = |text: &'a str| text.trim_end_matches('/');
    ends.iter().fold(slashless(base.as_str()), |text, end| {
        slashless(text.strip_suffix(end).unwrap_or(text))
    })
}

fn rate_limited(quiet: Quiet) -> PlatformError {
    PlatformError::rate_limited(PlatformName::Kick, Some(quiet.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_address_may_end_in_what_every_path_begins_with() {
        for (base, expected) in [
            ("https://api.kick.com", "https://api.kick.com"),
            ("https://api.kick.com/", "https://api.kick.com"),
            ("http://127.0.0.1:1/public/v1/", "http://127.0.0.1:1"),
            ("http://127.0.0.1:1/kick/public", "http://127.0.0.1:1/kick"),
            ("http://127.0.0.1:1/kick/", "http://127.0.0.1:1/kick"),
        ] {
            assert_eq!(without(&base.parse().unwrap(), &["/v1", "/public"]), expected);
        }
        let id = "http://127.0.0.1:1/id/oauth".parse().unwrap();
        assert_eq!(without(&id, &["/oauth"]), "http://127.0.0.1:1/id");
    }
}
