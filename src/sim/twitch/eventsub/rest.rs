//! `/eventsub/subscriptions`: create, list, delete, with every limit that Twitch enforces.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::conduit_rest::cut;
use super::kinds::{self, Demand, Kind};
use super::state::{Condition, Subscription, Transport};
use crate::sim::twitch::answer::{Refusal, page};
use crate::sim::twitch::call::{Call, CallResult};
use crate::sim::twitch::world::World;

/// Maximum sockets with enabled subscriptions per (application, user).
const SOCKETS: usize = 3;
/// Maximum enabled subscriptions on one socket.
const SUBSCRIPTIONS: usize = 300;
/// Maximum enabled subscriptions of equal type and condition, over all sockets.
const MAX_EQUAL_SUBSCRIPTIONS: usize = 3;
/// Maximum cost points per (application, user), and per application for webhooks and conduits.
const MAX_COST: u32 = 10;
const MAX_COST_OF_APPLICATION: u32 = 10_000;
/// Lengths of a webhook's secret.
const SECRET: std::ops::RangeInclusive<usize> = 10..=100;
/// Maximum channels in which one user may read chat without being moderator or invited.
const MAX_CHAT_SUBSCRIPTIONS: usize = 100;

/// The subscription that a create request asks for.
struct SubscriptionRequest {
    kind: &'static Kind,
    version: String,
    condition: Condition,
    transport: Transport,
}

impl SubscriptionRequest {
    fn socket(&self) -> Option<u64> {
        match self.transport {
            Transport::Socket { socket, .. } => Some(socket),
            Transport::Conduit(_) | Transport::Webhook { .. } => None,
        }
    }

    /// Returns whether a subscription delivers to the same place.
    fn is_delivered_like(&self, other: &Subscription) -> bool {
        match (&self.transport, &other.transport) {
            (Transport::Socket { socket, .. }, Transport::Socket { socket: other, .. }) => socket == other,
            (Transport::Conduit(id), Transport::Conduit(other)) => id == other,
            (Transport::Webhook { callback, .. }, Transport::Webhook { callback: other, .. }) => {
                callback == other
            }
            _ => false,
        }
    }
}

/// Create EventSub Subscription.
pub(in crate::sim::twitch) fn create(call: &mut Call<'_>) -> CallResult {
    call.world.eventsub.prune();
    let request = read(call)?;
    authorize(call, &request)?;
    let user = call.caller.user_id.clone().unwrap_or_default();
    let client = call.caller.client_id.clone();
    let cost = cost(call.world, &client, &request);
    check_limits(call.world, &client, &user, &request, cost)?;

    let eventsub = &mut call.world.eventsub;
    let id = eventsub.unique_id();
    let created_at = eventsub.precise(eventsub.clock.wall());
    let (socket, webhook) = (
        request.socket(),
        matches!(request.transport, Transport::Webhook { .. }),
    );
    if let Some(socket) = socket {
        let socket = eventsub.sockets.get_mut(&socket).ok_or_else(no_session)?;
        socket.owner = Some((client.clone(), user.clone()));
        socket.used = true;
    }
    let pending = || (call.now, "webhook_callback_verification_pending".to_owned());
    let subscription = Subscription {
        id,
        kind: request.kind.name.to_owned(),
        version: request.version,
        condition: request.condition,
        cost,
        client_id: client.clone(),
        user_id: user.clone(),
        transport: request.transport,
        created_at,
        end: webhook.then(pending),
    };
    if webhook {
        eventsub.verify(&subscription);
    }
    let shown = subscription.to_json(call.now);
    eventsub.subscriptions.push(subscription);
    eventsub.created += 1;
    eventsub.note_totals();
    let body = json!({
        "data": [shown], "total": eventsub.total(&client, &user),
        "total_cost": eventsub.total_cost(&client, &user), "max_total_cost": max_cost(&user),
    });
    Ok((StatusCode::ACCEPTED, body))
}

fn max_cost(user: &str) -> u32 {
    if user.is_empty() {
        MAX_COST_OF_APPLICATION
    } else {
        MAX_COST
    }
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
        (Some("websocket"), Some(_)) | (Some("webhook" | "conduit"), None) => {}
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
    if kind.demand == Demand::Application && call.caller.user_id.is_some() {
        return Err(bad("invalid transport and subscription type combination"));
    }
    Ok(SubscriptionRequest {
        kind,
        version: version.to_owned(),
        condition: condition(call, kind, &body["condition"])?,
        transport: transport(call, &body["transport"])?,
    })
}

fn condition(call: &Call<'_>, kind: &Kind, given: &Value) -> Result<Condition, Refusal> {
    let given = given.as_object().ok_or_else(|| bad("missing condition"))?;
    let mut condition = Condition::new();
    for key in kind.condition {
        let value = given
            .get(*key)
            .and_then(Value::as_str)
            .filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| bad(&format!("missing or malformed condition {key}")))?;
        if *key == "client_id" {
            if value != call.caller.client_id {
                return Err(Refusal::new(403, "subscription missing proper authorization"));
            }
        } else if call.world.user(value).is_none() {
            return Err(bad(&format!("invalid user in condition {key}")));
        }
        condition.insert((*key).to_owned(), value.to_owned());
    }
    // The one optional key.
    let optional = (kind.name == "conduit.shard.disabled").then_some("conduit_id");
    if let Some(value) = optional.and_then(|key| given.get(key)).and_then(Value::as_str) {
        condition.insert("conduit_id".to_owned(), value.to_owned());
    }
    let known = |key: &str| kind.condition.contains(&key) || Some(key) == optional;
    if given.keys().any(|key| !known(key)) {
        return Err(bad("unknown key in condition"));
    }
    Ok(condition)
}

fn transport(call: &Call<'_>, given: &Value) -> Result<Transport, Refusal> {
    let text = |key: &str| given[key].as_str().unwrap_or_default();
    match text("method") {
        "conduit" => {
            let conduit = call.world.eventsub.conduits.get(text("conduit_id"));
            let own = conduit.filter(|conduit| conduit.client_id == call.caller.client_id);
            own.ok_or_else(|| Refusal::new(404, "conduit not found"))?;
            Ok(Transport::Conduit(text("conduit_id").to_owned()))
        }
        "webhook" => {
            let (callback, secret) = (text("callback"), text("secret"));
            // Twitch requires HTTPS on port 443; on loopback the simulator does without.
            if !callback.starts_with("https://") && !callback.starts_with("http://127.0.0.1:") {
                return Err(bad("callback must be HTTPS and use port 443"));
            }
            if !SECRET.contains(&secret.len()) || !secret.is_ascii() {
                return Err(bad("secret must be between 10 and 100 ASCII characters"));
            }
            Ok(Transport::Webhook {
                callback: callback.to_owned(),
                secret: secret.to_owned(),
            })
        }
        _ => socket_transport(call, text("session_id")),
    }
}

fn socket_transport(call: &Call<'_>, session: &str) -> Result<Transport, Refusal> {
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
    Ok(Transport::Socket {
        socket: *socket,
        session_id: state.session_id.clone(),
        connected_at: state.connected_at,
        disconnected_at: None,
    })
}

/// Refuses tokens without the scopes, banned users, and users who read too many chats.
fn authorize(call: &Call<'_>, request: &SubscriptionRequest) -> Result<(), Refusal> {
    let forbidden = || Refusal::new(403, "subscription missing proper authorization");
    let Some(user) = call.caller.user_id.as_deref() else {
        return authorize_application(call, request);
    };
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

/// Refuses what the user in the condition has not granted to the application, and chats that it is not invited to.
fn authorize_application(call: &Call<'_>, request: &SubscriptionRequest) -> Result<(), Refusal> {
    let forbidden = || Refusal::new(403, "subscription missing proper authorization");
    let Some(whose) = request.kind.demand.whose() else {
        return Ok(());
    };
    let client = &call.caller.client_id;
    let user = request.condition.get(whose).cloned().unwrap_or_default();
    let granted = call.world.tokens.grant(client, &user).unwrap_or_default();
    let has = |scope: &str| granted.iter().any(|held| held == scope);
    if !request
        .kind
        .demand
        .met(&user, |key| request.condition.get(key).cloned(), has)
    {
        return Err(forbidden());
    }
    let channel = request
        .condition
        .get("broadcaster_user_id")
        .map_or("", String::as_str);
    let is_chat = request.kind.name == "channel.chat.message";
    let joins = !call.world.roles.banned.has(channel, &user)
        && has("user:bot")
        && invited(call.world, client, channel, &user);
    if is_chat && !joins {
        return Err(forbidden());
    }
    Ok(())
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
    if let Some(existing) = equals.iter().find(|sub| request.is_delivered_like(sub)) {
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
    if let Some(socket) = request.socket() {
        let sockets = eventsub.sockets_in_use(client, user);
        if !sockets.contains(&socket) && sockets.len() >= SOCKETS {
            return too_many("number of websocket transports limit exceeded");
        }
        let on_socket = eventsub
            .subscriptions
            .iter()
            .filter(|sub| sub.socket() == Some(socket) && sub.enabled(now));
        if on_socket.count() >= SUBSCRIPTIONS {
            return too_many("maximum number of subscriptions for the websocket session exceeded");
        }
    }
    if eventsub.total_cost(client, user) + cost > max_cost(user) {
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
    // An app token lists webhooks and conduits, which belong to no user.
    let user = call.caller.user_id.clone().unwrap_or_default();
    let client = &call.caller.client_id;
    let orphan = |sub: &Subscription| sub.end.as_ref().is_some_and(|(from, _)| now < *from);
    let matching = |sub: &&Subscription| match filters.first() {
        Some(("status", status)) => sub.status(now) == *status,
        Some(("type", kind)) => sub.kind == *kind,
        Some(("user_id", user)) => sub.condition.values().any(|value| value == user),
        Some(("subscription_id", id)) => sub.id == *id,
        Some((_, conduit)) => sub.is_of_conduit(conduit),
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
    let (data, pagination) = if filters.iter().any(|(name, _)| *name == "conduit_id") {
        cut(call, shown)?
    } else {
        page(shown, call.query, 100, 100)?
    };
    let body = json!({
        "data": data, "total": eventsub.total(client, &user), "total_cost": eventsub.total_cost(client, &user),
        "max_total_cost": max_cost(&user), "pagination": pagination,
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
