//! The Helix calls, each as thin as it gets: budget, retries and one recovery from a refused token are common to all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Method, Request, RequestBuilder, Url};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use super::auth::{Access, Auth};
use super::budget::{Budgets, is_bucket_refusal};
use super::options::below;
use super::wire::List;
use crate::clock::Chance;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::http::{Answer, Http, HttpError, Retries, Skew};
use crate::platforms::PlatformError;
use crate::platforms::answer::Asked;
use crate::platforms::meter::Meter;

/// Rows that a page holds at most, and ids that a call takes at most.
pub(super) const PAGE: usize = 100;

/// Asks Helix, or whoever stands in for it.
pub(super) struct Helix {
    pub(super) http: Http,
    pub(super) base: Url,
    pub(super) chance: Chance,
    pub(super) skew: Arc<Skew>,
    pub(super) budgets: Budgets,
    pub(super) latency: Latency,
}

/// A call.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    /// What it is for, in error messages.
    pub(super) operation: &'static str,
    /// Below the base.
    pub(super) path: &'static str,
    /// Names may repeat.
    pub(super) query: Vec<(&'static str, &'a str)>,
}

/// A page that was read.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) rows: Vec<T>,
    pub(super) cursor: Option<String>,
    /// When it was received, in Twitch's time as far as that is known.
    pub(super) at: Timestamp,
}

impl Helix {
    /// Asks as `identity` and reads a list.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        auth: &Auth,
        identity: &Identity,
        call: &Call<'_>,
        meter: &Meter<'_>,
    ) -> Result<Page<T>, PlatformError> {
        let access = auth.access(identity, meter).await?;
        let answer = match self.ask(&access, call, meter).await {
            Err(refusal @ PlatformError::Unauthorized { .. }) => {
                match auth.after_refusal(&access, meter).await? {
                    Some(renewed) => self.ask(&renewed, call, meter).await?,
                    // The token is good, so this caller may not ask this.
                    None => return Err(as_forbidden(refusal, call.operation)),
                }
            }
            outcome => outcome?,
        };
        let asked = asked(call);
        let list: List<T> = answer.json().map_err(|reason| asked.unreadable(reason))?;
        Ok(Page {
            cursor: list.cursor().map(str::to_owned),
            rows: list.data,
            at: self.skew.correct(answer.received_at),
        })
    }

    /// Sends one request within the budget, whatever comes of it.
    pub(super) async fn send(
        &self,
        access: &Access,
        request: RequestBuilder,
        meter: &Meter<'_>,
    ) -> Result<Answer, HttpError> {
        let budget = self.budgets.of(&access.bucket());
        let point = budget.take().await;
        meter.sent();
        let outcome = self.http.send(authorised(request, access)?).await;
        if let Ok(answer) = &outcome {
            budget.learn(answer);
            self.skew.learn(answer);
            self.latency.learn(answer.rtt);
        }
        drop(point);
        outcome
    }

    async fn ask(
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
            match Retries::READ.wait_after(attempt, &outcome, &self.chance) {
                Some(wait) if !endpoints_own_limit => tokio::time::sleep(wait).await,
                _ => break outcome,
            }
        };
        judge(call, outcome)
    }
}

fn authorised(request: RequestBuilder, access: &Access) -> Result<Request, HttpError> {
    request
        .bearer_auth(access.token.expose_secret())
        .header("Client-Id", &access.client_id)
        .build()
        .map_err(|_| HttpError::Unsendable)
}

fn asked(call: &Call<'_>) -> Asked {
    Asked {
        platform: PlatformName::Twitch,
        operation: call.operation,
    }
}

/// Reads a status. Twitch answers 401 for a dead token and for a good one that may not ask this; the words tell.
fn judge(call: &Call<'_>, outcome: Result<Answer, HttpError>) -> Result<Answer, PlatformError> {
    match asked(call).judge(outcome) {
        Err(refusal @ PlatformError::Unauthorized { .. }) if is_about_permission(&refusal) => {
            Err(as_forbidden(refusal, call.operation))
        }
        other => other,
    }
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

fn as_forbidden(refusal: PlatformError, operation: &'static str) -> PlatformError {
    match refusal {
        PlatformError::Unauthorized { platform, reason } => PlatformError::Forbidden {
            platform,
            operation,
            reason,
        },
        other => other,
    }
}

/// The smoothed round trip.
#[derive(Debug, Default)]
pub(super) struct Latency(Mutex<Option<f64>>);

impl Latency {
    /// Weight of a new measurement.
    const WEIGHT: f64 = 0.2;

    fn learn(&self, rtt: Duration) {
        let millis = rtt.as_secs_f64() * 1000.0;
        let mut smoothed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *smoothed = Some(smoothed.map_or(millis, |old| old + Self::WEIGHT * (millis - old)));
    }

    /// Returns the smoothed round trip in whole milliseconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a round trip is positive and far below 2^53 ms"
    )]
    pub(super) fn millis(&self) -> Option<u64> {
        let smoothed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        smoothed.map(|millis| millis.round() as u64)
    }
}

/// Builds the query of a batch: `name=id` for each id.
pub(super) fn each<'a>(
    name: &'static str,
    ids: impl IntoIterator<Item = &'a str>,
) -> Vec<(&'static str, &'a str)> {
    ids.into_iter().map(|id| (name, id)).collect()
}

/// Keeps the rows of a list by an id, the first of each.
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
    fn only_a_dead_token_is_a_dead_token() {
        let refusal = |reason: &str| PlatformError::Unauthorized {
            platform: PlatformName::Twitch,
            reason: reason.to_owned(),
        };
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

    #[test]
    fn latency_is_smoothed() {
        let latency = Latency::default();
        assert_eq!(latency.millis(), None);
        latency.learn(Duration::from_millis(100));
        latency.learn(Duration::from_millis(600));
        assert_eq!(latency.millis(), Some(200));
    }
}
