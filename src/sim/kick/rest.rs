//! `api.kick.com/public`: users, channels, livestreams, the public key.

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::answer::{Refusal, RestResult, envelope};
use super::handle::KickSim;
use super::tokens::Token;
use super::world::{Channel, World, category_json};
use crate::core::time::Timestamp;
use crate::sim::kit::oauth;
use crate::sim::kit::query::Query;

/// Returns the routes below `/public` for reading.
pub(super) fn routes(kick: KickSim) -> Router {
    Router::new()
        .route("/public/v1/users", get(users))
        .route("/public/v1/channels", get(channels))
        .route("/public/v1/users/livestreams", get(user_livestreams))
        .route("/public/v1/livestreams", get(livestreams_v1))
        .route("/public/v1/livestreams/stats", get(stats))
        .route("/public/v2/livestreams", get(livestreams_v2))
        .with_state(kick.clone())
        .merge(key_routes(kick))
}

/// The path of the key that verifies webhooks.
pub(super) const PUBLIC_KEY: &str = "/public/v1/public-key";

/// Returns the route of the key that verifies webhooks.
pub(super) fn key_routes(kick: KickSim) -> Router {
    Router::new().route(PUBLIC_KEY, get(public_key)).with_state(kick)
}

/// Refuses requests above the limit per minute, for both hosts together.
pub(super) async fn limit(State(kick): State<KickSim>, request: Request, next: Next) -> Response {
    let refused = kick.with_world(|world, now| world.over_limit(now).then_some(world.knobs.retry_after));
    let Some(retry_after) = refused else {
        return next.run(request).await;
    };
    let body = axum::Json(json!({"message": "Too Many Requests"}));
    let mut response = (axum::http::StatusCode::TOO_MANY_REQUESTS, body).into_response();
    if let Some(seconds) = retry_after {
        let headers = response.headers_mut();
        headers.insert(axum::http::header::RETRY_AFTER, seconds.into());
    }
    response
}

impl KickSim {
    /// Answers a request that needs a token of either kind.
    pub(super) fn answer(
        &self,
        headers: &HeaderMap,
        query: Option<String>,
        act: impl FnOnce(&mut World, &Token, &Query, Timestamp) -> RestResult,
    ) -> Response {
        let query = Query::parse(&query.unwrap_or_default());
        envelope(self.with_world(|world, now| {
            let token = oauth::bearer(headers, &["bearer"])
                .and_then(|text| world.tokens.check(text, now))
                .cloned();
            let token = token.ok_or_else(Refusal::unauthorized)?;
            let mut data = act(world, &token, &query, now)?;
            if world.knobs.unknown_fields {
                add_unknown(&mut data);
            }
            Ok(data)
        }))
    }
}

fn add_unknown(data: &mut Value) {
    match data {
        Value::Array(items) => items.iter_mut().for_each(add_unknown),
        Value::Object(fields) => {
            fields.insert("brand_new".to_owned(), json!({"nested": [1, null, "x"]}));
        }
        _ => {}
    }
}

/// Refuses a user's token without `scope`; app tokens need none to read public data.
fn scoped(token: &Token, scope: &str) -> Result<(), Refusal> {
    if token.user_id.is_none() || token.has(scope) {
        Ok(())
    } else {
        Err(Refusal::forbidden())
    }
}

async fn users(State(kick): State<KickSim>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    kick.answer(&headers, query, |world, token, query, _| {
        scoped(token, "user:read")?;
        let mut ids = query.numbers("id", 50)?;
        if ids.is_empty() {
            ids.push(token.user_id.ok_or_else(Refusal::unauthorized)?);
        }
        let own = token.user_id;
        let known = ids.iter().filter_map(|id| world.channels.get(id));
        let users = known.filter(|channel| !channel.vanished).map(|channel| {
            let email = if own == Some(channel.id) {
                "private@example.invalid"
            } else {
                ""
            };
            json!({
                "user_id": channel.id, "name": channel.name, "email": email,
                "profile_picture": format!("https://files.kick.com/u/{}.webp", channel.id),
            })
        });
        Ok(Value::Array(users.collect()))
    })
}

async fn channels(State(kick): State<KickSim>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    kick.answer(&headers, query, |world, token, query, now| {
        scoped(token, "channel:read")?;
        let slugs: Vec<_> = query.all("slug").map(str::to_owned).collect();
        let mut ids = query.numbers("broadcaster_user_id", 50)?;
        let mixed = !slugs.is_empty() && !ids.is_empty();
        if mixed || slugs.len() > 50 || slugs.iter().any(|slug| slug.is_empty() || slug.len() > 25) {
            return Err(Refusal::invalid());
        }
        if slugs.is_empty() && ids.is_empty() {
            ids.push(token.user_id.ok_or_else(Refusal::unauthorized)?);
        }
        for slug in &slugs {
            let found = world.channels.values().find(|channel| channel.slug == *slug);
            match found {
                Some(channel) => ids.push(channel.id),
                None if world.knobs.unknown_slug_400 => return Err(Refusal::invalid()),
                None => {}
            }
        }
        // The response to a large batch is wrong for about half of its channels.
        let corrupt = world.knobs.corrupt_over_25 && ids.len() > 25;
        let zero_start = world.knobs.zero_start_time;
        let refresh = world.knobs.viewer_refresh_ms;
        let mut items = Vec::new();
        for (place, id) in ids.iter().enumerate() {
            if let Some(channel) = world.channels.get_mut(id).filter(|channel| !channel.vanished) {
                let hide = corrupt && place % 2 == 1;
                items.push(channel_json(channel, now, refresh, hide, zero_start));
            }
        }
        // The order differs from that of the request.
        items.reverse();
        Ok(Value::Array(items))
    })
}

fn channel_json(channel: &mut Channel, now: Timestamp, refresh: i64, hide: bool, zero_start: bool) -> Value {
    let live = channel.running().filter(|_| !hide).map(|stream| {
        let started_at = stream.started_at.clone();
        (started_at, stream.count(now, refresh))
    });
    let offline_start = if zero_start { "0001-01-01T00:00:00Z" } else { "" };
    let (start, viewers) = live.clone().unwrap_or((offline_start.to_owned(), 0));
    json!({
        "broadcaster_user_id": channel.id, "slug": channel.slug, "stream_title": channel.title,
        "channel_description": "", "banner_picture": "", "category": category_json(&channel.category),
        "stream": {
            "is_live": live.is_some(), "viewer_count": viewers, "start_time": start, "language": "en",
            "is_mature": false, "thumbnail": "", "custom_tags": [], "url": "", "key": "",
        },
        "active_subscribers_count": 3, "canceled_subscribers_count": 0,
    })
}

async fn user_livestreams(
    State(kick): State<KickSim>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    kick.answer(&headers, query, |world, _, query, now| {
        let ids = query.numbers("user_id", 100)?;
        if ids.is_empty() {
            return Err(Refusal::invalid());
        }
        Ok(Value::Array(
            listed(world, now, |channel| ids.contains(&channel.id))
                .into_iter()
                .map(|(_, item)| item)
                .collect(),
        ))
    })
}

/// Returns the listed streams of the channels that `pick` selects, oldest start first.
fn listed(world: &mut World, now: Timestamp, pick: impl Fn(&Channel) -> bool) -> Vec<(String, Value)> {
    let refresh = world.knobs.viewer_refresh_ms;
    let mut items: Vec<(String, Value)> = world
        .channels
        .values_mut()
        .filter(|channel| !channel.vanished && pick(channel))
        .filter_map(|channel| {
            let (id, slug, name) = (channel.id, channel.slug.clone(), channel.name.clone());
            let (title, category) = (channel.title.clone(), category_json(&channel.category));
            let stream = channel.listed(now)?;
            let viewers = stream.count(now, refresh);
            let item = json!({
                "id": stream.id, "title": title, "thumbnail": "", "started_at": stream.started_at,
                "viewer_count": viewers, "language_code": "en", "tags": [], "has_mature_content": false,
                "broadcaster_user": {"id": id, "username": name, "profile_picture": ""},
                "category": category, "channel": {"slug": slug},
            });
            Some((stream.started_at.clone(), item))
        })
        .collect();
    items.sort_by(|one, other| one.0.cmp(&other.0));
    items
}

async fn livestreams_v2(
    State(kick): State<KickSim>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let mut response = json!(null);
    let answer = kick.answer(&headers, query, |world, _, query, now| {
        let limit = query.limit(100, 1_000)?;
        query.numbers("category_id", 25)?;
        let start = match query.get("cursor") {
            Some(cursor) => cursor
                .strip_prefix("c-")
                .and_then(|place| place.parse().ok())
                .ok_or_else(Refusal::invalid)?,
            None => 0,
        };
        let all = listed(world, now, |_| true);
        let end = start + limit;
        let next = if end < all.len() {
            format!("c-{end}")
        } else {
            String::new()
        };
        let page: Vec<_> = all
            .into_iter()
            .skip(start)
            .take(limit)
            .map(|(_, item)| item)
            .collect();
        response = json!({"data": page, "message": "OK", "pagination": {"next_cursor": next}});
        Ok(Value::Null)
    });
    if response.is_null() {
        answer
    } else {
        axum::Json(response).into_response()
    }
}

/// The deprecated list, in which all fields have different names.
async fn livestreams_v1(
    State(kick): State<KickSim>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    kick.answer(&headers, query, |world, _, query, now| {
        let ids = query.numbers("broadcaster_user_id", 50)?;
        let limit = query.limit(25, 100)?;
        let all = listed(world, now, |channel| ids.is_empty() || ids.contains(&channel.id));
        let old = all.into_iter().take(limit).map(|(started_at, item)| {
            json!({
                "broadcaster_user_id": item["broadcaster_user"]["id"],
                "channel_id": item["broadcaster_user"]["id"].as_u64().unwrap_or(0) + 100_000,
                "slug": item["channel"]["slug"], "stream_title": item["title"], "language": "en",
                "viewer_count": item["viewer_count"], "started_at": started_at, "thumbnail": "",
                "profile_picture": "", "has_mature_content": false, "custom_tags": [],
                "category": item["category"],
            })
        });
        Ok(Value::Array(old.collect()))
    })
}

async fn stats(State(kick): State<KickSim>, headers: HeaderMap) -> Response {
    kick.answer(&headers, None, |world, _, _, now| {
        let total = listed(world, now, |_| true).len();
        Ok(json!({"total_count": total}))
    })
}

async fn public_key(State(kick): State<KickSim>) -> Response {
    envelope(Ok(json!({"public_key": kick.public_key()})))
}
