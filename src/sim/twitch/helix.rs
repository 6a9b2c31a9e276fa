//! The gate of `api.twitch.tv/helix`: who asks, with which scopes, within which budget.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, on};
use axum::{Json, routing::MethodFilter};
use serde_json::{Value, json};

use super::answer::{Query, Refusal};
use super::bucket::{self, Budget};
use super::eventsub::rest;
use super::world::World;
use super::{TwitchSim, lookups, roles};
use crate::core::time::Timestamp;

/// Whose token a request carries.
pub(super) struct Caller {
    pub(super) client_id: String,
    /// The user, `None` for an app token.
    pub(super) user_id: Option<String>,
    scopes: Vec<String>,
}

impl Caller {
    /// Returns the user of the token; app tokens are refused.
    pub(super) fn user(&self) -> Result<&str, Refusal> {
        self.user_id
            .as_deref()
            .ok_or_else(|| Refusal::new(401, "Missing User OAUTH Token"))
    }

    pub(super) fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }

    /// Demands a user token with one of `scopes` and returns its user.
    pub(super) fn user_with(&self, scopes: &[&str]) -> Result<&str, Refusal> {
        let user = self.user()?;
        if scopes.iter().any(|scope| self.has(scope)) {
            return Ok(user);
        }
        Err(Refusal::new(
            401,
            format!("Missing scope: {}", scopes.join(" or ")),
        ))
    }

    /// Demands that the id given as `parameter` is the token's own user.
    pub(super) fn owns(&self, query: &Query, parameter: &str) -> Result<String, Refusal> {
        let given = query.ids(parameter, 1)?.first().map(|id| (*id).to_owned());
        let given =
            given.ok_or_else(|| Refusal::new(400, format!("Missing required parameter \"{parameter}\"")))?;
        if self.user()? == given {
            return Ok(given);
        }
        let message =
            format!("The ID in {parameter} must match the user ID found in the request's OAuth token.");
        Err(Refusal::new(401, message))
    }
}

/// A request that passed the gate.
pub(super) struct Call<'a> {
    pub(super) world: &'a mut World,
    pub(super) caller: &'a Caller,
    pub(super) query: &'a Query,
    pub(super) body: &'a str,
    pub(super) now: Timestamp,
}

/// A status and a body.
pub(super) type Answer = (StatusCode, Value);

/// What an endpoint comes to.
pub(super) type Outcome = Result<Answer, Refusal>;

/// What answers one method of one path.
pub(super) type Endpoint = fn(&mut Call<'_>) -> Outcome;

/// Answers 200 with `data`, its `pagination` and nothing else.
pub(super) fn listed(data: &[Value], pagination: &Value) -> Answer {
    (StatusCode::OK, json!({"data": data, "pagination": pagination}))
}

/// Answers 200 with `data` only.
pub(super) fn found(data: &[Value]) -> Answer {
    (StatusCode::OK, json!({"data": data}))
}

/// Returns the routes below `/helix`.
pub(super) fn routes(twitch: TwitchSim) -> Router {
    let read = |endpoint| handle(MethodFilter::GET, endpoint);
    Router::new()
        .route("/helix/users", read(lookups::users))
        .route("/helix/streams", read(lookups::streams))
        .route("/helix/channels", read(lookups::channels))
        .route("/helix/moderation/channels", read(roles::moderated_channels))
        .route("/helix/moderation/moderators", read(roles::moderators))
        .route("/helix/moderation/banned", read(roles::banned))
        .route("/helix/channels/vips", read(roles::vips))
        .route("/helix/channels/editors", read(roles::editors))
        .route("/helix/subscriptions", read(roles::broadcaster_subscriptions))
        .route("/helix/subscriptions/user", read(roles::user_subscription))
        .route("/helix/chat/chatters", read(roles::chatters))
        .route("/helix/authorization/users", read(roles::authorizations))
        .route(
            "/helix/eventsub/subscriptions",
            read(rest::list)
                .merge(handle(MethodFilter::POST, rest::create))
                .merge(handle(MethodFilter::DELETE, rest::delete)),
        )
        .route("/helix/{*other}", any(unknown))
        .with_state(twitch)
}

/// Puts `endpoint` behind the gate.
pub(super) fn handle(method: MethodFilter, endpoint: Endpoint) -> MethodRouter<TwitchSim> {
    on(
        method,
        move |State(twitch): State<TwitchSim>,
              headers: HeaderMap,
              RawQuery(query): RawQuery,
              body: String| async move {
            let query = Query::parse(&query.unwrap_or_default());
            answer(&twitch, &headers, &query, &body, endpoint)
        },
    )
}

async fn unknown() -> Response {
    Refusal::new(404, "").into_helix()
}

fn answer(
    twitch: &TwitchSim,
    headers: &HeaderMap,
    query: &Query,
    body: &str,
    endpoint: Endpoint,
) -> Response {
    let clock = Arc::clone(twitch.clock());
    twitch.with_world(|world, now| {
        let caller = match authorise(world, headers, now) {
            Ok(caller) => caller,
            Err(refusal) => return refusal.into_helix(),
        };
        let limit = world.knobs.bucket.unwrap_or(bucket::USUAL);
        let budget = world
            .buckets
            .take(&caller.client_id, caller.user_id.as_deref(), limit, now);
        let outcome = if budget.granted {
            endpoint(&mut Call {
                world,
                caller: &caller,
                query,
                body,
                now,
            })
        } else {
            Err(Refusal::new(429, "You have exceeded your rate limit"))
        };
        let mut response = match outcome {
            Ok((StatusCode::NO_CONTENT, _)) => StatusCode::NO_CONTENT.into_response(),
            Ok((status, mut body)) => {
                if world.knobs.unknown_fields {
                    add_unknown_fields(&mut body);
                }
                (status, Json(body)).into_response()
            }
            Err(refusal) => refusal.into_helix(),
        };
        if !world.knobs.no_rate_headers {
            add_rate_headers(&mut response, budget, clock.wall());
        }
        response
    })
}

/// Checks `Authorization` and `Client-Id` against each other.
fn authorise(world: &World, headers: &HeaderMap, now: Timestamp) -> Result<Caller, Refusal> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let bearer = bearer.ok_or_else(|| Refusal::new(401, "OAuth token is missing"))?;
    let client_id = text(HeaderName::from_static("client-id"));
    let client_id = client_id.ok_or_else(|| Refusal::new(401, "Client ID is missing"))?;
    let token = world
        .tokens
        .check(bearer, now)
        .ok_or_else(|| Refusal::new(401, "Invalid OAuth token"))?;
    if token.client_id != client_id {
        return Err(Refusal::new(401, "Client ID and OAuth token do not match"));
    }
    let credited = |scope: &&String| !world.knobs.denied_scopes.contains(*scope);
    Ok(Caller {
        client_id: client_id.to_owned(),
        user_id: token.user_id.clone(),
        scopes: token.scopes.iter().filter(credited).cloned().collect(),
    })
}

fn add_rate_headers(response: &mut Response, budget: Budget, wall: Timestamp) {
    let full_at = wall.plus_millis(budget.full_in_ms + 999).as_millis() / 1000;
    let headers = response.headers_mut();
    headers.insert("ratelimit-limit", HeaderValue::from(budget.limit));
    headers.insert("ratelimit-remaining", HeaderValue::from(budget.remaining));
    headers.insert("ratelimit-reset", HeaderValue::from(full_at));
}

fn add_unknown_fields(body: &mut Value) {
    let novelty = json!({"since": "2031", "levels": [1, 2, 3]});
    for item in body["data"].as_array_mut().into_iter().flatten() {
        item["sim_novelty"] = novelty.clone();
    }
    body["sim_novelty"] = novelty;
}
