//! Obtains tokens: a user's by refreshing, the application's by its secret. A new one is stored before it is used, and under
//! the identity's lease, so that tasks and processes obtain it only once.

use secrecy::{ExposeSecret, SecretString};

use super::super::client::Call;
use super::super::meter::Meter;
use super::super::options::APP;
use super::super::wire::Granted;
use super::{Auth, app_refusal, no_identity, unreadable, unusable_store};
use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::platforms::PlatformError;
use crate::platforms::kit::oauth::{GrantError, can_refresh, expires_at, granted_app_token, is_same};
use crate::platforms::kit::token_check::Refresh;
use crate::tokens::{RefreshState, RefreshToken, StoredToken};

/// How long a refused client id or secret is not tried again (ms): it needs attention first.
const REFUSED_APP_PAUSE_MS: i64 = 600_000;
/// Why a grant is gone: Kick answers `invalid_grant`.
const NOT_HONORED: &str = "it is no longer honored";
/// Why a grant was refused: Kick answers `invalid_client`.
const APP_NOT_ACCEPTED: &str = "the application's id or secret is refused";

impl Auth {
    /// Refreshes a user's token, unless another task or process has done so meanwhile.
    pub(super) async fn renew(
        &self,
        identity: &Identity,
        seen: &StoredToken,
        meter: &Meter<'_>,
    ) -> Result<(StoredToken, Refresh), PlatformError> {
        let lease = self.store.lease(identity).await.map_err(unusable_store)?;
        let mut record = lease.load().await.map_err(unusable_store)?;
        let Some(current) = record.token.clone() else {
            return Err(no_identity());
        };
        if !is_same(&current.access, &seen.access) {
            return Ok((current, Refresh::Done));
        }
        let Some(refresh) = current.refresh.as_ref().filter(|_| can_refresh(&current)) else {
            let refused = current.refresh.is_some();
            let refresh = if refused {
                Refresh::GrantGone(NOT_HONORED.to_owned())
            } else {
                Refresh::Impossible
            };
            return Ok((current, refresh));
        };
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.secret.expose_secret()),
        ];
        let now = self.clock.now();
        match self.grant(&form, meter).await {
            Ok(granted) => {
                let token = StoredToken {
                    refresh: granted
                        .refresh_token
                        .filter(|text| !text.is_empty())
                        .map(RefreshToken::fresh)
                        .or_else(|| current.refresh.clone()),
                    client_id: self.client_id.clone(),
                    // Verified again with the new token.
                    user_id: None,
                    scopes: granted.scope.unwrap_or(current.scopes),
                    expires_at: expires_at(now, granted.expires_in),
                    ..StoredToken::unproven(granted.access_token, now)
                };
                record.token = Some(token.clone());
                lease.save(&record).await.map_err(unusable_store)?;
                Ok((token, Refresh::Done))
            }
            Err(failure @ GrantError::Gone(_)) => {
                let state = RefreshState::Refused {
                    at: now,
                    reason: "invalid_grant".to_owned(),
                };
                if let Some(refresh) = record.token.as_mut().and_then(|token| token.refresh.as_mut()) {
                    refresh.state = state;
                }
                lease.save(&record).await.map_err(unusable_store)?;
                Ok((record.token.unwrap_or(current), failure.as_refresh()))
            }
            Err(failure) => Ok((current, failure.as_refresh())),
        }
    }

    /// Obtains a token for the application, unless another task or process has done so meanwhile. `dead` must not be returned
    /// again.
    pub(super) async fn new_app_token(
        &self,
        dead: Option<&SecretString>,
        meter: &Meter<'_>,
    ) -> Result<StoredToken, PlatformError> {
        let is_usable = |token: &StoredToken| {
            let other = dead.is_none_or(|dead| !is_same(dead, &token.access));
            other && self.is_lasting_app_token(token, self.clock.now())
        };
        let request = self.request_app_token(meter);
        self.tokens()
            .app_token(&Identity::named(APP), is_usable, request)
            .await
    }

    async fn request_app_token(&self, meter: &Meter<'_>) -> Result<StoredToken, PlatformError> {
        let now = self.clock.now();
        let granted = match self.grant(&[("grant_type", "client_credentials")], meter).await {
            Ok(granted) => granted,
            Err(GrantError::Misconfigured(_)) => return Err(app_refusal()),
            // An error about a user's grant, which this request does not have, is no answer to it.
            Err(GrantError::Gone(_)) => {
                let reason = "invalid_grant for a request without a grant".to_owned();
                return Err(unreadable("a token", reason));
            }
            Err(GrantError::NoEffect(error) | GrantError::Lost(error) | GrantError::Foreign(error)) => {
                return Err(error);
            }
        };
        let client_id = self.client_id.as_deref();
        Ok(granted_app_token(
            client_id,
            granted.access_token,
            granted.expires_in,
            now,
        ))
    }

    async fn grant(&self, fields: &[(&'static str, &str)], meter: &Meter<'_>) -> Result<Granted, GrantError> {
        let (Some(client_id), Some(secret)) = (&self.client_id, &self.client_secret) else {
            return Err(GrantError::NoEffect(no_identity()));
        };
        let now = self.clock.now();
        let refused_at = *self.app_refused_at.lock();
        if refused_at.is_some_and(|at| at.is_recent(REFUSED_APP_PAUSE_MS - 1, now)) {
            return Err(GrantError::Misconfigured(APP_NOT_ACCEPTED.to_owned()));
        }
        let mut form = vec![
            ("client_id", client_id.as_str()),
            ("client_secret", secret.expose_secret()),
        ];
        form.extend_from_slice(fields);
        let call = Call {
            form: Some(&form),
            ..Call::token("a token")
        };
        let failure = match self.client.exchange(&call, &meter.calls).await {
            Ok(answer) => match answer.object::<Granted>() {
                Ok(granted) if !granted.access_token.is_empty() => return Ok(granted),
                Ok(_) => GrantError::Foreign(unreadable(call.operation, "the token is empty".to_owned())),
                Err(reason) => GrantError::Foreign(unreadable(call.operation, reason)),
            },
            Err(error) => of_grant_error(error),
        };
        if matches!(failure, GrantError::Misconfigured(_)) {
            *self.app_refused_at.lock() = Some(now);
        }
        Err(failure)
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
                "invalid_client" => GrantError::Misconfigured(APP_NOT_ACCEPTED.to_owned()),
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
    use super::super::super::answer::Endpoint;
    use super::*;
    use crate::core::source::PlatformName;
    use crate::http::{Answer, HttpError};

    fn failure(status: u16, kind: &str, body: &str) -> &'static str {
        let outcome = Ok(Answer::made_up(status, &[("content-type", kind)], body));
        named(outcome)
    }

    fn named(outcome: Result<Answer, HttpError>) -> &'static str {
        let asked = super::super::super::answer::asked("a token");
        assert_eq!(asked.platform, PlatformName::Kick);
        let judged = Endpoint::Token.judge(asked, outcome);
        match of_grant_error(judged.unwrap_err()) {
            GrantError::Gone(_) => "grant gone",
            GrantError::Misconfigured(_) => "app refused",
            GrantError::NoEffect(_) | GrantError::Lost(_) => "no answer",
            GrantError::Foreign(_) => "unclear",
        }
    }

    #[test]
    fn only_kick_error_names_prove_a_lost_authorization() {
        let json = "application/json";
        for (status, kind, body, expected) in [
            (400, json, r#"{"error":"invalid_grant"}"#, "grant gone"),
            (401, json, r#"{"error":"invalid_grant"}"#, "grant gone"),
            (401, json, r#"{"error":"invalid_client"}"#, "app refused"),
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
