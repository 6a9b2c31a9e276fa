//! The Helix calls, each as thin as possible: rate limit and retries are common to all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reqwest::{Method, Request, RequestBuilder, Url};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::options::below;
use super::rate_limit::{RateLimits, is_bucket_refusal};
use crate::clock::Chance;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::http::{Answer, Http, HttpError, Skew};
use crate::platforms::PlatformError;
use crate::platforms::kit::answer::Asked;
use crate::platforms::kit::lenient::{self, Unclear};
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::Access;
use crate::platforms::kit::smoothed_latency::Smoothed;

/// Maximum number of rows per page, and of ids per call.
pub(super) const PAGE: usize = 100;

/// Calls Helix, or a server that stands in for it.
pub(super) struct Helix {
    pub(super) http: Http,
    pub(super) base: Url,
    pub(super) chance: Chance,
    pub(super) skew: Arc<Skew>,
    pub(super) rate_limits: RateLimits,
    pub(super) latency: Smoothed,
}

#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    /// Its purpose, for error messages.
    pub(super) operation: &'static str,
    /// Relative to the base.
    pub(super) path: &'static str,
    /// Names may repeat.
    pub(super) query: Vec<(&'static str, &'a str)>,
}

/// A parsed page.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) rows: Vec<T>,
    /// Rows that cannot be parsed.
    pub(super) unread: Vec<Value>,
    pub(super) cursor: Option<String>,
    /// When it was received, in Twitch's time as far as that is known.
    pub(super) at: Timestamp,
}

impl Helix {
    /// Returns whether Helix accepts the token of `access`, by requesting a user; `None` if the answer is not Helix's own.
    pub(super) async fn accepts(&self, access: &Access, id: &str, meter: &Meter<'_>) -> Option<bool> {
        let call = Call {
            operation: "the list of users",
            path: "users",
            query: vec![("id", id)],
        };
        match self.ask(access, &call, meter).await {
            Ok(_) => Some(true),
            Err(PlatformError::Unauthorized { reason, .. }) if is_about_token(&reason) => Some(false),
            Err(_) => None,
        }
    }

    /// Sends one request within the rate limit and returns its result unchanged.
    pub(super) async fn send(
        &self,
        access: &Access,
        request: RequestBuilder,
        meter: &Meter<'_>,
    ) -> Result<Answer, HttpError> {
        let limit = self.rate_limits.of(&bucket(access));
        let point = limit.take().await;
        meter.sent();
        let outcome = self.http.send(authorized(request, access)?).await;
        if let Ok(answer) = &outcome {
            limit.update(answer);
            self.skew.update(answer);
            self.latency.record(answer.rtt);
        }
        drop(point);
        outcome
    }

    /// Sends `call` and interprets its answer.
    pub(super) async fn ask(
        &self,
        access: &Access,
        call: &Call<'_>,
        meter: &Meter<'_>,
    ) -> Result<Answer, PlatformError> {
        let mut attempt = 0;
        let outcome = loop {
            attempt += 1;
            let request = self
                .http
                .request(Method::GET, below(&self.base, call.path))
                .query(&call.query);
            let outcome = self.send(access, request, meter).await;
            let endpoints_own_limit =
                matches!(&outcome, Ok(answer) if answer.status == 429 && !is_bucket_refusal(answer));
            match asked(call).wait_after(attempt, &outcome, &self.chance) {
                Some(wait) if !endpoints_own_limit => tokio::time::sleep(wait).await,
                _ => break outcome,
            }
        };
        judge(call, outcome)
    }
}

/// Returns the name of the rate-limit bucket that calls with this token draw from.
fn bucket(access: &Access) -> String {
    let client = access.client_id.as_deref().unwrap_or_default();
    let user = access.user_id.as_deref().unwrap_or("app");
    format!("{client}/{user}")
}

fn authorized(request: RequestBuilder, access: &Access) -> Result<Request, HttpError> {
    request
        .bearer_auth(access.token.expose_secret())
        .header("Client-Id", access.client_id.as_deref().unwrap_or_default())
        .build()
        .map_err(|_| HttpError::Unsendable)
}

/// Names the operation.
pub(super) fn asked(call: &Call<'_>) -> Asked {
    Asked::new(PlatformName::Twitch, call.operation)
}

/// Interprets a status. Twitch answers 401 for an invalid token and for a valid one without the required permission; the message
/// distinguishes them.
fn judge(call: &Call<'_>, outcome: Result<Answer, HttpError>) -> Result<Answer, PlatformError> {
    match asked(call).judge(outcome) {
        Err(refusal @ PlatformError::Unauthorized { .. }) if is_about_permission(&refusal) => {
            Err(as_forbidden(refusal, call))
        }
        other => other,
    }
}

/// Returns whether a message mentions the token, as all of Twitch's rejections of a token do.
pub(super) fn is_about_token(words: &str) -> bool {
    words.to_ascii_lowercase().contains("token")
}

fn is_about_permission(refusal: &PlatformError) -> bool {
    let PlatformError::Unauthorized { reason, .. } = refusal else {
        return false;
    };
    let reason = reason.to_ascii_lowercase();
    ["scope", "match", "moderator", "permission", "not authorized to"]
        .iter()
        .any(|word| reason.contains(word))
}

/// Returns the message for a refusal that `validate` contradicts.
pub(super) fn contradiction(words: &str) -> String {
    format!("status 401 ({words}) for a token that Twitch calls valid; something between may have answered")
}

fn as_forbidden(refusal: PlatformError, call: &Call<'_>) -> PlatformError {
    match refusal {
        PlatformError::Unauthorized { reason, .. } => asked(call).forbidden(reason),
        other => other,
    }
}

/// Builds the query of a batch: `name=id` for each id.
pub(super) fn each<'a>(
    name: &'static str,
    ids: impl IntoIterator<Item = &'a str>,
) -> Vec<(&'static str, &'a str)> {
    ids.into_iter().map(|id| (name, id)).collect()
}

/// Returns for which of the `asked` ids an answer leaves undetermined whether they are listed. `field` names the id in a row. A
/// row with an id that was not requested may be any of them with a damaged id.
pub(super) fn unclear<'a>(
    asked: impl IntoIterator<Item = &'a str>,
    read: impl IntoIterator<Item = &'a str>,
    unread: &[Value],
    field: &str,
) -> Unclear<String> {
    let asked: BTreeSet<&str> = asked.into_iter().collect();
    let mut unclear = Unclear::nothing();
    for row in unread {
        let id = row.get(field).and_then(lenient::id_of);
        unclear.note(id.filter(|id| asked.contains(id.as_str())));
    }
    if read.into_iter().any(|id| !asked.contains(id)) {
        unclear.note(None);
    }
    unclear
}

/// Indexes the rows of a list by id, keeping the first of each.
pub(super) fn by_id<T>(rows: Vec<T>, id: impl Fn(&T) -> &str) -> BTreeMap<String, T> {
    let mut kept = BTreeMap::new();
    for row in rows {
        let key = id(&row).to_owned();
        kept.entry(key).or_insert(row);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_errors_are_not_token_rejections() {
        let refusal = |reason: &str| PlatformError::unauthorized(PlatformName::Twitch, reason);
        for (reason, about_permission) in [
            ("Invalid OAuth token", false),
            ("Token expired", false),
            ("OAuth token is missing", false),
            ("Missing Client ID or OAuth token", false),
            ("status 401", false),
            ("Missing scope: user:read:chat", true),
            (
                "Missing required scope channel:read:vips or channel:manage:vips",
                true,
            ),
            ("Client ID and OAuth token do not match", true),
            ("broadcaster_id does not match token", true),
            (
                "The ID in broadcaster_id must match the user ID found in the request's OAuth token.",
                true,
            ),
        ] {
            assert_eq!(
                is_about_permission(&refusal(reason)),
                about_permission,
                "{reason}"
            );
        }
    }
}
