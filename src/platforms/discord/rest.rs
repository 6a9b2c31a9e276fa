//! Sends requests to Discord over HTTP: with the token, within the limits, and not at all once requests are useless or harmful.
//!
//! [`super::answer`] classifies responses, [`super::limits`] decides when something may be sent.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use url::Url;

use super::answer::{self, ApiError};
use super::limits::{Admission, Limits, Route};
use super::memory::{Memory, TokenStatus, fingerprint};
use super::options::DiscordOptions;
use crate::clock::{Chance, Clock};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::http::{Http, HttpOptions, Retries, Skew};
use crate::platforms::RateLimit;
use crate::platforms::kit::answer::{error_despite, reported_error};
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::smoothed_latency::Smoothed;
use crate::traffic::Tap;

/// Attempts of one request when the network or Discord itself fails: a single failure is no evidence.
const ATTEMPTS: u32 = 3;
/// Attempts of one request that was rate limited.
const PATIENT_ATTEMPTS: u32 = 5;

/// Access to Discord's REST API with one bot token.
pub struct Rest {
    options: Arc<DiscordOptions>,
    /// Base URL, with the API version.
    api_url: Url,
    /// The bot's token: one line without whitespace and without the prefix `Bot`.
    pub(super) token: SecretString,
    host: String,
    /// Identifies the token without revealing it.
    pub(super) fingerprint: String,
    http: Http,
    limits: Mutex<Limits>,
    /// The state that outlives the process.
    pub(super) memory: Arc<Memory>,
    /// By which responses are dated.
    pub(super) clock: Arc<dyn Clock>,
    chance: Chance,
    /// Of successful requests.
    pub(super) round_trip: Smoothed,
    /// Skew between our clock and Discord's.
    pub(super) skew: Skew,
}

#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Route whose rate limit applies.
    pub route: Route,
    /// The path below the base URL, with its query.
    pub path: &'a str,
}

/// A call to a path without ids, which is its own route.
pub const fn plain(path: &'static str) -> Call<'static> {
    let (template, top) = (path, None);
    let route = Route { template, top };
    Call { route, path }
}

/// The request of the bot's own user.
pub const ME: Call<'static> = plain("users/@me");

#[derive(Debug, Clone)]
pub struct Response<T> {
    pub value: T,
    /// When it was received.
    pub at: Timestamp,
}

/// Discord requires `DiscordBot (<address>, <version>)`; Cloudflare blocks other formats.
fn user_agent(home_page: &str) -> String {
    format!("DiscordBot ({home_page}, {}) bitbrat", env!("CARGO_PKG_VERSION"))
}

impl Rest {
    /// Returns what records the traffic.
    pub(super) fn tap(&self) -> Option<&Tap> {
        self.http.tap()
    }

    /// Creates a client; nothing is sent yet.
    pub fn new(
        options: Arc<DiscordOptions>,
        api_url: Url,
        token: SecretString,
        memory: Arc<Memory>,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        let host = api_url.host_str().unwrap_or_default();
        let host = match api_url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let http = Http::new(
            HttpOptions {
                timeout: options.timeout,
                connect_timeout: options.timeout.min(Duration::from_secs(5)),
                user_agent: user_agent(&options.home_page),
                ..HttpOptions::default()
            },
            Arc::clone(&clock),
        );
        let http = match &options.request_times {
            Some(durations) => http.timed(Arc::clone(durations)),
            None => http,
        };
        let http = http.recorded(options.tap.clone());
        let mut limits = Limits::new(options.requests_per_second, options.max_invalid_requests);
        limits.set_breaker(memory.breaker(&host));
        Self {
            fingerprint: fingerprint(&token),
            options,
            api_url,
            token,
            host,
            http,
            limits: Mutex::new(limits),
            memory,
            clock,
            chance,
            round_trip: Smoothed::new(0.3),
            skew: Skew::default(),
        }
    }

    /// Returns whether the token may be used. A refused one may be tried again once an hour, and the result
    /// [`TokenStatus::MayTryOnce`] is that one try: exactly one request follows, by [`Rest::get_once`].
    pub fn token_status(&self) -> TokenStatus {
        self.memory.token_status(&self.fingerprint, self.clock.now())
    }

    /// Returns whether the token is known to be invalid.
    pub fn is_token_rejected(&self) -> bool {
        self.token_rejected_at().is_some()
    }

    /// Returns when the token was refused, if it was.
    pub fn token_rejected_at(&self) -> Option<Timestamp> {
        let rejected = self.memory.rejected(&self.fingerprint);
        rejected.map(|rejected| rejected.refused_at)
    }

    /// Returns whether Discord ever accepted the token. One that it never accepted is rejected rather than revoked.
    pub fn was_accepted(&self) -> bool {
        self.memory.was_accepted(&self.fingerprint)
    }

    /// Returns how many more requests may be refused before nothing is sent for a while. Discord's own limits change with every
    /// response and requests wait for them; exceeding this one leads to a ban.
    pub fn invalid_requests_left(&self) -> RateLimit {
        let (left, size) = self.limits.lock().invalid_requests_left(self.clock.now());
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        RateLimit {
            name: "refused requests in 10 min, of our own limit".to_owned(),
            bucket: "refused_requests".to_owned(),
            left: count(left),
            size: count(size),
        }
    }

    /// Clears all holds on forbidden resources, because a guild's rules have changed.
    pub fn clear_holds(&self) {
        self.limits.lock().clear_holds();
    }

    /// Sends `call` and parses the response, waiting and retrying where that makes sense.
    pub async fn get<T: DeserializeOwned>(
        &self,
        meter: &Meter<'_>,
        call: Call<'_>,
    ) -> Result<Response<T>, ApiError> {
        if let Some(rejected) = self.memory.rejected(&self.fingerprint) {
            return Err(ApiError::TokenRefused {
                at: rejected.refused_at,
                reason: "refused before; nothing was sent".to_owned(),
            });
        }
        let mut attempt = 1;
        loop {
            let error = match self.get_once(meter, call).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let pause = match &error {
                error if error.is_transient() && attempt < ATTEMPTS => {
                    Retries::READ.backoff(attempt, &self.chance)
                }
                // The limits track the duration; they delay the next attempt.
                ApiError::RateLimited { wait, .. }
                    if attempt < PATIENT_ATTEMPTS && *wait <= self.options.patience =>
                {
                    Duration::ZERO
                }
                _ => return Err(error),
            };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Sends one request, even with a token that was refused: for the one try that [`Rest::token_status`] has granted.
    pub async fn get_once<T: DeserializeOwned>(
        &self,
        meter: &Meter<'_>,
        call: Call<'_>,
    ) -> Result<Response<T>, ApiError> {
        self.admitted(call).await?;
        let request = self.request(call.path)?;
        meter.sent();
        let sent = self.http.send(request).await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                return Err(ApiError::Unavailable {
                    code: error.code(),
                    reason: error.to_string(),
                });
            }
        };
        self.skew.update(&answer);
        let at = answer.received_at;
        let outcome = answer::judge(answer.status, &answer.headers, &answer.body, at);
        self.update(
            call,
            answer::bucket_state(&answer.headers),
            outcome.as_ref().map(|&()| ()),
            at,
        );
        outcome?;
        if let Some(reason) = reported_error(PlatformName::Discord, &answer) {
            let reason = error_despite(answer.status, &reason);
            return Err(ApiError::Unreadable { reason });
        }
        self.round_trip.record(answer.rtt);
        match answer.json() {
            Ok(value) => {
                // A web page with status 200 is no proof of anything; JSON of the right shape is.
                // A failed write delays the next use by an hour at worst, so a full disk is no failure here.
                let _ = self.memory.token_accepted(&self.fingerprint, at);
                // What is pushed while the request is in progress is newer than its response.
                let at = answer.sent_at;
                Ok(Response { value, at })
            }
            Err(reason) => Err(ApiError::Unreadable { reason }),
        }
    }

    /// Waits until the limits allow the request.
    async fn admitted(&self, call: Call<'_>) -> Result<(), ApiError> {
        let resource = call.path.split('?').next().unwrap_or_default();
        let mut now = self.clock.now();
        let mut waited = Duration::ZERO;
        loop {
            let until = match self.limits.lock().admit(call.route, resource, now) {
                Admission::Go => return Ok(()),
                Admission::Hold { until, reason } => {
                    return Err(ApiError::Held {
                        until,
                        reason: reason.to_owned(),
                    });
                }
                Admission::Wait(until) => until,
            };
            let wait = until.since(now);
            waited += wait;
            if waited > self.options.patience {
                return Err(ApiError::Held {
                    until,
                    reason: "one of Discord's limits is not over before".to_owned(),
                });
            }
            // Jitter on top of the wait, so that many waiters do not retry at the same time.
            let jitter = Duration::from_millis(20).mul_f64(self.chance.fraction());
            tokio::time::sleep(wait + jitter).await;
            // The wait has really passed, even by a clock that was set back meanwhile.
            now = self.clock.now().max(until);
        }
    }

    fn request(&self, path: &str) -> Result<reqwest::Request, ApiError> {
        let broken = |reason: &str| ApiError::Unreadable {
            reason: reason.to_owned(),
        };
        let base = self.api_url.as_str().trim_end_matches('/');
        let url: Url = format!("{base}/{path}")
            .parse()
            .map_err(|_| broken("the address cannot be built"))?;
        let mut value = HeaderValue::try_from(format!("Bot {}", self.token.expose_secret()))
            .map_err(|_| broken("the token does not fit into a header"))?;
        value.set_sensitive(true);
        self.http
            .request(Method::GET, url)
            .header(AUTHORIZATION, value)
            .build()
            .map_err(|_| broken("the request cannot be built"))
    }

    fn update(
        &self,
        call: Call<'_>,
        reported: Option<answer::BucketState>,
        outcome: Result<(), &ApiError>,
        at: Timestamp,
    ) {
        let resource = call.path.split('?').next().unwrap_or_default();
        let (before, after) = {
            let mut limits = self.limits.lock();
            let before = limits.breaker();
            limits.update(call.route, resource, reported, outcome, at);
            (before, limits.breaker())
        };
        if before != after {
            // Kept in memory in any case; the file only serves the next process.
            let _ = self.memory.set_breaker(&self.host, after);
        }
        if let Err(ApiError::TokenRefused { at, .. }) = outcome {
            self.remember_refusal(*at);
        }
    }

    /// Records that Discord refused the token.
    pub fn remember_refusal(&self, at: Timestamp) {
        // If the write fails, at least this process stops sending.
        let _ = self.memory.token_refused(&self.fingerprint, at);
    }
}
