//! Access checks of `api.twitch.tv/helix`: the caller, the scopes, the rate limit.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, on};
use axum::{Json, routing::MethodFilter};
use serde_json::{Value, json};

use super::answer::Refusal;
use super::bucket::{self, Quota};
use super::call::{Call, Caller, Endpoint};
use super::eventsub::{conduit_rest, rest};
use super::handle::TwitchSim;
use super::world::World;
use super::{lookups, roles};
use crate::core::time::Timestamp;
use crate::sim::kit::oauth;
use crate::sim::kit::query::Query;

/// Returns the routes below `/helix`, and the same with the paths of Twitch's own command line tool: below `/mock`, and EventSub
/// below the root. Libraries with a mock mode use these addresses.
pub(super) fn routes(twitch: TwitchSim) -> Router {
    const READ: [(&str, Endpoint); 12] = [
        ("users", lookups::users),
        ("streams", lookups::streams),
        ("channels", lookups::channels),
        ("moderation/channels", roles::moderated_channels),
        ("moderation/moderators", roles::moderators),
        ("moderation/banned", roles::banned),
        ("channels/vips", roles::vips),
        ("channels/editors", roles::editors),
        ("subscriptions", roles::broadcaster_subscriptions),
        ("subscriptions/user", roles::user_subscription),
        ("chat/chatters", roles::chatters),
        ("authorization/users", roles::authorizations),
    ];
    let mut router = Router::new();
    for base in ["/helix", "/mock"] {
        for (path, endpoint) in READ {
            router = router.route(&format!("{base}/{path}"), handle(MethodFilter::GET, endpoint));
        }
    }
    for base in ["/helix", "/mock", ""] {
        let subscriptions = handle(MethodFilter::GET, rest::list)
            .merge(handle(MethodFilter::POST, rest::create))
            .merge(handle(MethodFilter::DELETE, rest::delete));
        router = router.route(&format!("{base}/eventsub/subscriptions"), subscriptions);
        let conduits = handle(MethodFilter::GET, conduit_rest::list)
            .merge(handle(MethodFilter::POST, conduit_rest::create))
            .merge(handle(MethodFilter::PATCH, conduit_rest::update))
            .merge(handle(MethodFilter::DELETE, conduit_rest::delete));
        router = router.route(&format!("{base}/eventsub/conduits"), conduits);
        let shards = handle(MethodFilter::GET, conduit_rest::shards)
            .merge(handle(MethodFilter::PATCH, conduit_rest::update_shards));
        router = router.route(&format!("{base}/eventsub/conduits/shards"), shards);
    }
    router.with_state(twitch)
}

/// Puts `endpoint` behind the access checks.
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

fn answer(
    twitch: &TwitchSim,
    headers: &HeaderMap,
    query: &Query,
    body: &str,
    endpoint: Endpoint,
) -> Response {
    let clock = Arc::clone(twitch.clock());
    twitch.with_world(|world, now| {
        let caller = match authorize(world, headers, now) {
            Ok(caller) => caller,
            Err(refusal) => return refusal.into_helix(),
        };
        let limit = world.knobs.bucket.unwrap_or(bucket::USUAL);
        let quota = world
            .buckets
            .acquire(&caller.client_id, caller.user_id.as_deref(), limit, now);
        let outcome = if quota.granted {
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
            add_rate_headers(&mut response, quota, clock.wall());
        }
        response
    })
}

/// Checks `Authorization` and `Client-Id` against each other.
fn authorize(world: &World, headers: &HeaderMap, now: Timestamp) -> Result<Caller, Refusal> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = oauth::bearer(headers, &["bearer"]);
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

fn add_rate_headers(response: &mut Response, quota: Quota, wall: Timestamp) {
    let full_at = wall.plus_millis(quota.full_in_ms + 999).as_millis() / 1000;
    let headers = response.headers_mut();
    headers.insert("ratelimit-limit", HeaderValue::from(quota.limit));
    headers.insert("ratelimit-remaining", HeaderValue::from(quota.remaining));
    headers.insert("ratelimit-reset", HeaderValue::from(full_at));
}

fn add_unknown_fields(body: &mut Value) {
    let novelty = json!({"since": "2031", "levels": [1, 2, 3]});
    for item in body["data"].as_array_mut().into_iter().flatten() {
        item["sim_novelty"] = novelty.clone();
    }
    body["sim_novelty"] = novelty;
}
