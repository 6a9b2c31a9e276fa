//! Roles in a channel: moderators, VIPs, editors, subscribers, chatters, grants, each with its required scope.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Refusal, page};
use super::call::{Call, CallResult, found, listed};
use super::lookups::second;
use super::members::{Member, Members};
use super::world::World;
use crate::sim::kit::query::Query;

/// Get Moderated Channels of the token's own user.
pub(super) fn moderated_channels(call: &mut Call<'_>) -> CallResult {
    call.caller.user_with(&["user:read:moderated_channels"])?;
    let user = call.caller.owns(call.query, "user_id")?;
    let channels: Vec<_> = call
        .world
        .roles
        .moderators
        .channels_of(&user)
        .filter_map(|id| call.world.user(id))
        .map(|user| {
            json!({"broadcaster_id": user.id, "broadcaster_login": user.login, "broadcaster_name": user.name})
        })
        .collect();
    let (data, mut pagination) = page(channels, call.query, 20, 100)?;
    if call.world.knobs.missing_cursor {
        pagination = json!({});
    }
    Ok(listed(&data, &pagination))
}

/// Lists the members of the token's own channel, all of them or those selected by `user_id`.
fn own_members(call: &Call<'_>, scopes: &[&str], members: fn(&World) -> &Members) -> CallResult {
    call.caller.user_with(scopes)?;
    let channel = call.caller.owns(call.query, "broadcaster_id")?;
    let asked = call.query.ids("user_id", 100)?;
    let all = members(call.world)
        .of(&channel)
        .filter(|(id, _)| asked.is_empty() || asked.contains(&id.as_str()));
    let shown: Vec<_> = all.map(|(id, _)| call.world.named("user", id)).collect();
    if asked.is_empty() {
        let (data, pagination) = page(shown, call.query, 20, 100)?;
        return Ok(listed(&data, &pagination));
    }
    Ok(listed(&shown, &json!({})))
}

/// Get Moderators.
pub(super) fn moderators(call: &mut Call<'_>) -> CallResult {
    own_members(call, &["moderation:read", "channel:manage:moderators"], |world| {
        &world.roles.moderators
    })
}

/// Get VIPs.
pub(super) fn vips(call: &mut Call<'_>) -> CallResult {
    own_members(call, &["channel:read:vips", "channel:manage:vips"], |world| {
        &world.roles.vips
    })
}

/// Get Channel Editors: no logins, no pages.
pub(super) fn editors(call: &mut Call<'_>) -> CallResult {
    call.caller.user_with(&["channel:read:editors"])?;
    let channel = call.caller.owns(call.query, "broadcaster_id")?;
    let editors = call.world.roles.editors.of(&channel);
    let shown = editors.map(|(id, member)| {
        let name = call.world.user(id).map(|user| user.name.clone());
        json!({"user_id": id, "user_name": name, "created_at": member.since.map(second)})
    });
    Ok(found(&shown.collect::<Vec<_>>()))
}

/// Get Banned Users.
pub(super) fn banned(call: &mut Call<'_>) -> CallResult {
    call.caller
        .user_with(&["moderation:read", "moderator:manage:banned_users"])?;
    let channel = call.caller.owns(call.query, "broadcaster_id")?;
    let asked = call.query.ids("user_id", 100)?;
    let banned = call.world.roles.banned.of(&channel);
    let banned = banned.filter(|(id, _)| asked.is_empty() || asked.contains(&id.as_str()));
    let shown: Vec<_> = banned
        .map(|(id, member)| {
            let mut shown = call.world.named("user", id);
            for (field, value) in call
                .world
                .named("moderator", &channel)
                .as_object()
                .into_iter()
                .flatten()
            {
                shown[field] = value.clone();
            }
            // Empty for a ban without expiry.
            shown["expires_at"] = json!("");
            shown["created_at"] = json!(member.since.map(second));
            shown["reason"] = json!("simulated");
            shown
        })
        .collect();
    let (data, pagination) = page(shown, call.query, 20, 100)?;
    Ok(listed(&data, &pagination))
}

fn subscription_json(world: &World, channel: &str, member: &Member) -> Value {
    let mut shown = world.named("broadcaster", channel);
    shown["is_gift"] = json!(member.gift);
    shown["tier"] = json!(member.tier);
    if member.gift {
        for (field, value) in world.named("gifter", channel).as_object().into_iter().flatten() {
            shown[field] = value.clone();
        }
    }
    shown
}

/// Check User Subscription: 404 means that there is none.
pub(super) fn user_subscription(call: &mut Call<'_>) -> CallResult {
    call.caller.user_with(&["user:read:subscriptions"])?;
    let channel = call.query.required("broadcaster_id")?;
    let user = call.caller.owns(call.query, "user_id")?;
    let Some(member) = call.world.roles.subscribers.get(channel, &user) else {
        return Err(Refusal::new(
            404,
            format!("{user} does not subscribe to {channel}"),
        ));
    };
    Ok(found(&[subscription_json(call.world, channel, member)]))
}

/// Get Broadcaster Subscriptions.
pub(super) fn broadcaster_subscriptions(call: &mut Call<'_>) -> CallResult {
    call.caller.user_with(&["channel:read:subscriptions"])?;
    let channel = call.caller.owns(call.query, "broadcaster_id")?;
    let asked = call.query.ids("user_id", 100)?;
    let all: Vec<_> = call.world.roles.subscribers.of(&channel).collect();
    let total = all.len();
    let chosen = all
        .into_iter()
        .filter(|(id, _)| asked.is_empty() || asked.contains(&id.as_str()));
    let shown: Vec<_> = chosen
        .map(|(id, member)| {
            let mut shown = subscription_json(call.world, &channel, member);
            for (field, value) in call.world.named("user", id).as_object().into_iter().flatten() {
                shown[field] = value.clone();
            }
            for field in ["gifter_id", "gifter_login", "gifter_name"] {
                if shown.get(field).is_none() {
                    shown[field] = json!("");
                }
            }
            shown["plan_name"] = json!("Channel Subscription");
            shown
        })
        .collect();
    let (data, pagination) = page(shown, call.query, 20, 100)?;
    let body = json!({"data": data, "pagination": pagination, "total": total, "points": total});
    Ok((StatusCode::OK, body))
}

/// Get Chatters: for the broadcaster and moderators only.
pub(super) fn chatters(call: &mut Call<'_>) -> CallResult {
    call.caller.user_with(&["moderator:read:chatters"])?;
    let channel = call.query.required("broadcaster_id")?.to_owned();
    let reader = call.caller.owns(call.query, "moderator_id")?;
    if reader != channel && !call.world.roles.moderators.has(&channel, &reader) {
        let message = "The user in moderator_id is not one of the broadcaster's moderators.";
        return Err(Refusal::new(403, message));
    }
    let present: Vec<_> = call
        .world
        .roles
        .chatters
        .of(&channel)
        .map(|(id, _)| call.world.named("user", id))
        .collect();
    let total = present.len();
    let (data, pagination) = page(present, call.query, 100, 1_000)?;
    Ok((
        StatusCode::OK,
        json!({"data": data, "pagination": pagination, "total": total}),
    ))
}

/// Get Authorization By User: app tokens only, at most ten users; users without a connection are left out.
pub(super) fn authorizations(call: &mut Call<'_>) -> CallResult {
    if call.caller.user_id.is_some() {
        return Err(Refusal::new(401, "This endpoint requires an app access token"));
    }
    let ids = asked_users(call.query)?;
    let shown = ids.into_iter().filter_map(|id| {
        let scopes = call.world.tokens.grant(&call.caller.client_id, &id.to_owned())?;
        let mut shown = call.world.named("user", id);
        shown["scopes"] = json!(scopes);
        Some(shown)
    });
    Ok(found(&shown.collect::<Vec<_>>()))
}

fn asked_users(query: &Query) -> Result<Vec<&str>, Refusal> {
    let ids = query.ids("user_id", 10)?;
    if ids.is_empty() {
        Err(Refusal::new(400, "Missing required parameter \"user_id\""))
    } else {
        Ok(ids)
    }
}
