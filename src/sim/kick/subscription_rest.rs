//! `/public/v1/events/subscriptions`: one webhook URL per application, limits by event type, errors per item.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Refusal, RestResult};
use super::handle::KickSim;
use super::subscriptions::Subscription;
use super::texts;
use super::tokens::Token;
use super::world::World;
use crate::core::time::Timestamp;

/// Every event type that exists; all are version 1.
const EVENTS: [&str; 10] = [
    "chat.message.sent",
    "channel.followed",
    "channel.subscription.new",
    "channel.subscription.renewal",
    "channel.subscription.gifts",
    "channel.reward.redemption.updated",
    "livestream.status.updated",
    "livestream.metadata.updated",
    "moderation.banned",
    "kicks.gifted",
];

pub(super) fn routes(kick: KickSim) -> Router {
    Router::new()
        .route(
            "/public/v1/events/subscriptions",
            get(list).post(subscribe).delete(unsubscribe),
        )
        .with_state(kick)
}

async fn list(State(kick): State<KickSim>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    kick.answer(&headers, query, |world, token, query, _| {
        let of = query
            .numbers("broadcaster_user_id", 1)?
            .first()
            .copied()
            .or(token.user_id);
        let shown = world.subscriptions.all.iter().filter(|known| {
            known.client_id == token.client_id && of.is_none_or(|id| known.broadcaster == id)
        });
        Ok(Value::Array(shown.map(Subscription::to_json).collect()))
    })
}

#[derive(Deserialize)]
struct SubscriptionRequest {
    broadcaster_user_id: Option<u64>,
    method: String,
    events: Vec<RequestedEvent>,
}

#[derive(Deserialize)]
struct RequestedEvent {
    name: String,
    version: u64,
}

async fn subscribe(State(kick): State<KickSim>, headers: HeaderMap, body: String) -> Response {
    kick.answer(&headers, None, |world, token, _, now| {
        let request: SubscriptionRequest = serde_json::from_str(&body).map_err(|_| Refusal::invalid())?;
        let broadcaster = match token.user_id {
            Some(_) if !token.has("events:subscribe") => return Err(Refusal::forbidden()),
            Some(own) => own,
            None => request
                .broadcaster_user_id
                .ok_or_else(|| Refusal::bad("broadcaster_user_id is required for app tokens"))?,
        };
        if request.method != "webhook" || request.events.is_empty() {
            return Err(Refusal::invalid());
        }
        if !world.channels.contains_key(&broadcaster) {
            return Err(Refusal::invalid());
        }
        let added = request
            .events
            .iter()
            .map(|event| add_one(world, token, broadcaster, event, now));
        added.collect::<Result<Vec<Value>, Refusal>>().map(Value::Array)
    })
}

fn add_one(
    world: &mut World,
    token: &Token,
    broadcaster: u64,
    event: &RequestedEvent,
    now: Timestamp,
) -> RestResult {
    // Kick documents `error` for every item; clients with strict parsers show that it is absent where nothing failed.
    let outcome = |id: &str, error: &str| {
        let mut item = json!({"name": event.name, "version": event.version, "subscription_id": id});
        if !error.is_empty() {
            item["error"] = error.into();
        }
        item
    };
    if !EVENTS.contains(&event.name.as_str()) || event.version != 1 {
        return Ok(outcome("", "invalid event"));
    }
    if let Some(error) = world.knobs.subscription_errors.get(&event.name) {
        return Ok(outcome("", error));
    }
    let limit = if event.name == "chat.message.sent" {
        world.knobs.chat_subscription_limit
    } else {
        world.knobs.subscription_limit
    };
    let mine = |known: &&Subscription| known.client_id == token.client_id && known.event == event.name;
    let all: Vec<_> = world.subscriptions.all.iter().filter(mine).collect();
    if all.len() >= limit {
        return Err(Refusal::bad("event subscription limit reached"));
    }
    let same = all.iter().find(|known| known.broadcaster == broadcaster);
    if let Some(same) = same.filter(|_| !world.knobs.duplicate_subscriptions) {
        return Ok(outcome(&same.id, ""));
    }
    let id = texts::ulid(now, &world.chance);
    let answer = outcome(&id, "");
    world
        .subscriptions
        .add(id, &token.client_id, broadcaster, &event.name, now);
    Ok(answer)
}

async fn unsubscribe(State(kick): State<KickSim>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = kick.answer(&headers, query, |world, token, query, _| {
        let ids: Vec<_> = query.all("id").collect();
        if ids.is_empty() || ids.len() > 50 {
            return Err(Refusal::invalid());
        }
        // A user who has removed the application cannot delete its subscriptions; the application itself can.
        world.subscriptions.all.retain(|known| {
            let own = token.user_id.is_none_or(|user| known.broadcaster == user);
            !(own && known.client_id == token.client_id && ids.contains(&known.id.as_str()))
        });
        Ok(Value::Null)
    });
    if answer.status() == StatusCode::OK {
        StatusCode::NO_CONTENT.into_response()
    } else {
        answer
    }
}
