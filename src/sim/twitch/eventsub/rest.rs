//! `/eventsub/subscriptions`: create, list, delete, with every limit that Twitch enforces.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::kinds::{self, Demand, Kind};
use super::state::{Condition, Subscription};
use crate::sim::twitch::answer::{Refusal, page};
use crate::sim::twitch::call::{Call, CallResult};
use crate::sim::twitch::world::World;

/// Maximum sockets with enabled subscriptions per (application, user).
const SOCKETS: usize = 3;
/// Maximum enabled subscriptions on one socket.
const SUBSCRIPTIONS: usize = 300;
/// Maximum enabled subscriptions of equal type and condition, over all sockets.
const MAX_EQUAL_SUBSCRIPTIONS: usize = 3;
/// Maximum cost points per (application, user).
const MAX_COST: u32 = 10;
/// Maximum channels in which one user may read chat without being moderator or invited.
const MAX_CHAT_SUBSCRIPTIONS: usize = 100;

/// The subscription that a create request asks for.
struct SubscriptionRequest {
    kind: &'static Kind,
    version: String,
    condition: Condition,
    socket: u64,
}

/// Create EventSub Subscription.
pub(in crate::sim::twitch) fn create(call: &mut Call<'_>) -> CallResult {
    call.world.eventsub.prune();
    let request = read(call)?;
    authorize(call, &request)?;
    let user = call.caller.user()?.to_owned();
    let client = call.caller.client_id.clone();
    let cost = cost(call.world, &client, &request);
    check_limits(call.world, &client, &user, &request, cost)?;

    let eventsub = &mut call.world.eventsub;
    let id = eventsub.unique_id();
    let created_at = eventsub.precise(eventsub.clock.wall());
    let socket = eventsub.sockets.get_mut(&request.socket).ok_or_else(no_session)?;
    socket.owner = Some((client.clone(), user.clone()));
    socket.used = true;
    let subscription = Subscription {
        id,
        kind: request.kind.name.to_owned(),
        version: request.version,
        condition: request.condition,
        cost,
        client_id: client.clone(),
        user_id: user.clone(),
        socket: request.socket,
        session_id: socket.session_id.clone(),
        connected_at: socket.connected_at,
        created_at,
        end: None,
        disconnected_at: None,
    };
    let shown = subscription.to_json(call.now);
    eventsub.subscriptions.push(subscription);
    eventsub.note_totals();
    let body = json!({
        "data": [shown], "total": eventsub.total(&client, &user),
        "total_cost": eventsub.total_cost(&client, &user), "max_total_cost": MAX_COST,
    });
    Ok((StatusCode::ACCEPTED, body))
}

fn no_session() -> Refusal {
    Refusal::new(
        400,
        "websocket transport session does not exist or has already disconnected",
    )
}

fn bad(message: &str) -> Refusal {
    Refusal::new(400, message)
}

fn read(call: &Call<'_>) -> Result<SubscriptionRequest, Refusal> {
    let body: Value =
        serde_json::from_str(call.body).map_err(|_| bad("The request body is not valid JSON"))?;
    match (body["transport"]["method"].as_str(), &call.caller.user_id) {
        (Some("websocket"), Some(_)) => {}
        (Some("websocket"), None) => {
            return Err(bad(
                "auth must use user access token to create websocket subscription",
            ));
        }
        (Some("webhook" | "conduit"), Some(_)) => {
            return Err(bad(
                "auth must use app access token to create webhook subscription",
            ));
        }
        (Some("webhook" | "conduit"), None) => {
            return Err(Refusal::new(501, "not simulated: webhooks and conduits"));
        }
        _ => return Err(bad("missing or unknown transport method")),
    }
    let (name, version) = (
        body["type"].as_str().unwrap_or_default(),
        body["version"].as_str().unwrap_or_default(),
    );
    let kind = match kinds::find(name, version) {
        Some(kind) => kind,
        None if kinds::is_documented(name) => {
            return Err(Refusal::new(
                501,
                format!("not simulated: subscriptions to {name}"),
            ));
        }
        None => return Err(bad("invalid subscription type and version")),
    };
    let given = body["condition"]
        .as_object()
        .ok_or_else(|| bad("missing condition"))?;
    let mut condition = Condition::new();
    for key in kind.condition {
        let value = given
            .get(*key)
            .and_then(Value::as_str)
            .filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| bad(&format!("missing or malformed condition {key}")))?;
        if call.world.user(value).is_none() {
            return Err(bad(&format!("invalid user in condition {key}")));
        }
        condition.insert((*key).to_owned(), value.to_owned());
    }
    if given.keys().any(|key| !kind.condition.contains(&key.as_str())) {
        return Err(bad("unknown key in condition"));
    }
    let session = body["transport"]["session_id"].as_str().unwrap_or_default();
    // After a handover that kept the id, the newest socket is the session.
    let socket = call
        .world
        .eventsub
        .sockets
        .iter()
        .rev()
        .find(|(_, socket)| socket.session_id == session);
    let (socket, state) = socket.ok_or_else(no_session)?;
    let asker = (call.caller.client_id.clone(), call.caller.user()?.to_owned());
    if state.owner.as_ref().is_some_and(|owner| *owner != asker) {
        return Err(bad(
            "websocket transport cannot have subscriptions created by different users",
        ));
    }
    Ok(SubscriptionRequest {
        kind,
        version: version.to_owned(),
        condition,
        socket: *socket,
    })
}

/// Refuses tokens without the scopes, banned users, and users who read too many chats.
fn authorize(call: &Call<'_>, request: &SubscriptionRequest) -> Result<(), Refusal> {
    let forbidden = || Refusal::new(403, "subscription missing proper authorization");
    let user = call.caller.user()?;
    let key = |key: &str| request.condition.get(key).cloned();
    if !request.kind.demand.met(user, key, |scope| call.caller.has(scope)) {
        return Err(forbidden());
    }
    let channel = request
        .condition
        .get("broadcaster_user_id")
        .map_or("", String::as_str);
    let roles = &call.world.roles;
    match request.kind.name {
        "channel.chat.message" if roles.banned.has(channel, user) => Err(forbidden()),
        "channel.chat.message" if !invited(call.world, &call.caller.client_id, channel, user) => {
            if uninvited_chats(call.world, &call.caller.client_id, user) >= MAX_CHAT_SUBSCRIPTIONS {
                Err(forbidden())
            } else {
                Ok(())
            }
        }
        "channel.moderate" if channel != user && !roles.moderators.has(channel, user) => Err(forbidden()),
        _ => Ok(()),
    }
}

/// Returns whether reading this chat does not count against the join limit.
fn invited(world: &World, client: &str, channel: &str, user: &str) -> bool {
    let granted = world.tokens.grant(client, &channel.to_owned());
    channel == user
        || world.roles.moderators.has(channel, user)
        || granted.is_some_and(|scopes| scopes.iter().any(|scope| scope == "channel:bot"))
}

fn uninvited_chats(world: &World, client: &str, user: &str) -> usize {
    let now = world.eventsub.now();
    let chats = world.eventsub.subscriptions.iter().filter(|sub| {
        sub.kind == "channel.chat.message"
            && sub.enabled(now)
            && sub.condition.get("user_id").is_some_and(|id| id == user)
    });
    let channels: std::collections::BTreeSet<_> = chats
        .filter_map(|sub| sub.condition.get("broadcaster_user_id"))
        .collect();
    channels
        .into_iter()
        .filter(|channel| !invited(world, client, channel, user))
        .count()
}

/// Returns the cost points of a subscription: one for types open to all, unless their user has authorized the application.
fn cost(world: &World, client: &str, request: &SubscriptionRequest) -> u32 {
    let authorized = || {
        let users = request.condition.values();
        users.into_iter().all(|user| {
            world
                .tokens
                .grant(client, user)
                .is_some_and(|scopes| !scopes.is_empty())
        })
    };
    u32::from(request.kind.demand == Demand::Nothing && !authorized())
}

fn check_limits(
    world: &World,
    client: &str,
    user: &str,
    request: &SubscriptionRequest,
    cost: u32,
) -> Result<(), Refusal> {
    let eventsub = &world.eventsub;
    let now = eventsub.now();
    let equal = |sub: &&Subscription| {
        sub.owned_by(client, user)
            && sub.enabled(now)
            && sub.kind == request.kind.name
            && sub.version == request.version
            && sub.condition == request.condition
    };
    let equals: Vec<_> = eventsub.subscriptions.iter().filter(equal).collect();
    if let Some(existing) = equals.iter().find(|sub| sub.socket == request.socket) {
        let conflict = Refusal::new(409, "subscription already exists");
        return Err(if eventsub.knobs.conflict_without_id {
            conflict
        } else {
            conflict.with("id", json!(existing.id))
        });
    }
    let too_many = |message: &str| Err(Refusal::new(429, message));
    if equals.len() >= MAX_EQUAL_SUBSCRIPTIONS {
        return too_many("maximum subscriptions with type and condition exceeded");
    }
    let sockets = eventsub.sockets_in_use(client, user);
    if !sockets.contains(&request.socket) && sockets.len() >= SOCKETS {
        return too_many("number of websocket transports limit exceeded");
    }
    let on_socket = eventsub
        .subscriptions
        .iter()
        .filter(|sub| sub.socket == request.socket && sub.enabled(now));
    if on_socket.count() >= SUBSCRIPTIONS {
        return too_many("maximum number of subscriptions for the websocket session exceeded");
    }
    if eventsub.total_cost(client, user) + cost > MAX_COST {
        return too_many("maximum total cost exceeded");
    }
    Ok(())
}

/// Get EventSub Subscriptions: the token's own, oldest first.
pub(in crate::sim::twitch) fn list(call: &mut Call<'_>) -> CallResult {
    call.world.eventsub.prune();
    let filters: Vec<_> = ["status", "type", "user_id", "subscription_id", "conduit_id"]
        .into_iter()
        .filter_map(|name| Some((name, call.query.get(name)?)))
        .collect();
    if filters.len() > 1 {
        return Err(bad(
            "the filters status, type, user_id, subscription_id and conduit_id exclude each other",
        ));
    }
    let eventsub = &call.world.eventsub;
    let now = call.now;
    // An app token lists webhooks and conduits, of which there are none.
    let user = call.caller.user_id.clone().unwrap_or_default();
    let client = &call.caller.client_id;
    let orphan = |sub: &Subscription| sub.end.as_ref().is_some_and(|(from, _)| now < *from);
    let matching = |sub: &&Subscription| match filters.first() {
        Some(("status", status)) => sub.status(now) == *status,
        Some(("type", kind)) => sub.kind == *kind,
        Some(("user_id", user)) => sub.condition.values().any(|value| value == user),
        Some(("subscription_id", id)) => sub.id == *id,
        Some(_) => false,
        None => true,
    };
    let own = eventsub
        .subscriptions
        .iter()
        .filter(|sub| sub.owned_by(client, &user));
    let listed = own
        .filter(|sub| !(eventsub.knobs.orphans_hidden && orphan(sub)))
        .filter(matching);
    let shown: Vec<_> = listed.map(|sub| sub.to_json(now)).collect();
    let (data, pagination) = page(shown, call.query, 100, 100)?;
    let body = json!({
        "data": data, "total": eventsub.total(client, &user), "total_cost": eventsub.total_cost(client, &user),
        "max_total_cost": MAX_COST, "pagination": pagination,
    });
    Ok((StatusCode::OK, body))
}

/// Delete EventSub Subscription.
pub(in crate::sim::twitch) fn delete(call: &mut Call<'_>) -> CallResult {
    let id = call.query.required("id")?;
    let user = call.caller.user_id.clone().unwrap_or_default();
    let client = &call.caller.client_id;
    let eventsub = &mut call.world.eventsub;
    let before = eventsub.subscriptions.len();
    eventsub
        .subscriptions
        .retain(|sub| sub.id != id || !sub.owned_by(client, &user));
    if eventsub.subscriptions.len() == before {
        return Err(Refusal::new(404, "subscription not found"));
    }
    eventsub.note_totals();
    Ok((StatusCode::NO_CONTENT, Value::Null))
}
