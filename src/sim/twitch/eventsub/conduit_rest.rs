//! `/eventsub/conduits` and `/eventsub/conduits/shards`, with every limit that Twitch enforces.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::conduits::{Conduit, Shard, socket_transport};
use super::state::EventSub;
use crate::sim::twitch::answer::{Refusal, page};
use crate::sim::twitch::call::{Call, CallResult};

/// Maximum conduits of one application.
const CONDUITS: usize = 5;
/// Maximum shards of one conduit.
const SHARDS: u64 = 20_000;
/// Maximum shards in one update.
const SHARDS_PER_UPDATE: usize = 100;
/// Rows per page of a list.
const PAGE: usize = 100;

/// Refuses everything but app tokens; removes what has expired.
fn enter(call: &mut Call<'_>) -> Result<(), Refusal> {
    if call.caller.user_id.is_some() {
        return Err(Refusal::new(401, "OAuth token must be an app access token"));
    }
    call.world.eventsub.prune();
    Ok(())
}

fn body(call: &Call<'_>) -> Result<Value, Refusal> {
    serde_json::from_str(call.body).map_err(|_| Refusal::new(400, "The request body is not valid JSON"))
}

fn not_found() -> Refusal {
    Refusal::new(404, "not found")
}

fn missing(name: &str) -> Refusal {
    Refusal::new(400, format!("Missing required parameter \"{name}\""))
}

fn shard_count(body: &Value) -> Result<usize, Refusal> {
    let count = body["shard_count"]
        .as_u64()
        .filter(|count| (1..=SHARDS).contains(count));
    let count = count.ok_or_else(|| Refusal::new(400, "Invalid shard count"))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn shown(id: &str, conduit: &Conduit) -> Value {
    json!({"id": id, "shard_count": conduit.shard_count})
}

/// Returns the conduit `id` of the caller's application.
fn own<'a>(call: &'a mut Call<'_>, id: &str) -> Result<&'a mut Conduit, Refusal> {
    let client = &call.caller.client_id;
    let conduit = call.world.eventsub.conduits.get_mut(id);
    conduit
        .filter(|conduit| conduit.client_id == *client)
        .ok_or_else(not_found)
}

/// Create Conduits.
pub(in crate::sim::twitch) fn create(call: &mut Call<'_>) -> CallResult {
    enter(call)?;
    let shard_count = shard_count(&body(call)?)?;
    let client_id = call.caller.client_id.clone();
    let (now, eventsub) = (call.now, &mut call.world.eventsub);
    let own = eventsub
        .conduits
        .values()
        .filter(|conduit| conduit.client_id == client_id);
    if own.count() >= CONDUITS {
        return Err(Refusal::new(429, "Conduit limit reached"));
    }
    let id = eventsub.unique_id();
    let conduit = Conduit {
        client_id,
        shard_count,
        shards: std::collections::BTreeMap::new(),
        dead_since: Some(now),
        dropped: 0,
        attached: 0,
    };
    let data = json!({"data": [shown(&id, &conduit)]});
    eventsub.conduits.insert(id, conduit);
    Ok((StatusCode::OK, data))
}

/// Get Conduits.
pub(in crate::sim::twitch) fn list(call: &mut Call<'_>) -> CallResult {
    enter(call)?;
    let conduits = call.world.eventsub.conduits.iter();
    let own = conduits.filter(|(_, conduit)| conduit.client_id == call.caller.client_id);
    let data: Vec<_> = own.map(|(id, conduit)| shown(id, conduit)).collect();
    Ok((StatusCode::OK, json!({"data": data})))
}

/// Update Conduits.
pub(in crate::sim::twitch) fn update(call: &mut Call<'_>) -> CallResult {
    enter(call)?;
    let body = body(call)?;
    let id = body["id"].as_str().ok_or_else(|| missing("id"))?;
    let shard_count = shard_count(&body)?;
    let has_ghosts = call.world.eventsub.conduit_knobs.ghost_shards;
    let conduit = own(call, id)?;
    conduit.shard_count = shard_count;
    if !has_ghosts {
        conduit.shards.retain(|index, _| *index < shard_count);
    }
    let data = json!({"data": [shown(id, conduit)]});
    call.world.eventsub.update_dead_conduits();
    Ok((StatusCode::OK, data))
}

/// Delete Conduit.
pub(in crate::sim::twitch) fn delete(call: &mut Call<'_>) -> CallResult {
    enter(call)?;
    let id = call.query.required("id")?.to_owned();
    own(call, &id)?;
    call.world.eventsub.remove_conduit(&id);
    Ok((StatusCode::NO_CONTENT, Value::Null))
}

/// Get Conduit Shards: those that were assigned a transport.
pub(in crate::sim::twitch) fn shards(call: &mut Call<'_>) -> CallResult {
    enter(call)?;
    let id = call.query.required("conduit_id")?.to_owned();
    let status = call.query.get("status").map(str::to_owned);
    let conduit = own(call, &id)?;
    let listed = conduit
        .shards
        .iter()
        .filter(|(_, shard)| status.as_ref().is_none_or(|status| *status == shard.status));
    let all: Vec<_> = listed.map(|(index, shard)| shard.to_json(*index)).collect();
    let (data, pagination) = cut(call, all)?;
    Ok((StatusCode::OK, json!({"data": data, "pagination": pagination})))
}

/// Returns the requested page, as the knobs cut it.
pub(super) fn cut(call: &Call<'_>, all: Vec<Value>) -> Result<(Vec<Value>, Value), Refusal> {
    let knobs = &call.world.eventsub.conduit_knobs;
    let size = knobs.page_size.unwrap_or(PAGE).clamp(1, PAGE);
    let (data, pagination) = page(all, call.query, size, PAGE)?;
    let pagination = if knobs.missing_cursor {
        json!({})
    } else {
        pagination
    };
    Ok((data, pagination))
}

/// Update Conduit Shards. 202 does not mean that every shard was accepted.
pub(in crate::sim::twitch) fn update_shards(call: &mut Call<'_>) -> CallResult {
    enter(call)?;
    let body = body(call)?;
    let knobs = call.world.eventsub.conduit_knobs.clone();
    if knobs.nameless_refusal {
        return Err(missing(""));
    }
    if let Some(status) = knobs.shards_status {
        return Err(Refusal::new(status, "simulated"));
    }
    let id = body["conduit_id"].as_str().ok_or_else(|| missing(""))?;
    let wanted = body["shards"].as_array().ok_or_else(|| missing(""))?;
    if wanted.len() > SHARDS_PER_UPDATE {
        return Err(Refusal::new(400, "The number of shards must be at most 100"));
    }
    let shard_count = own(call, id)?.shard_count;
    let (mut data, mut errors) = (Vec::new(), Vec::new());
    for shard in wanted {
        let shard_id = shard["id"].as_str().ok_or_else(|| missing(""))?;
        let refused = |message: &str, code: &str| json!({"id": shard_id, "message": message, "code": code});
        let index = shard_id.parse().ok().filter(|index| *index < shard_count);
        let eventsub = &mut call.world.eventsub;
        match (index, &knobs.refuse_shards) {
            (None, _) => errors.push(refused(
                "The shard id is outside the conduit's range",
                "invalid_parameter",
            )),
            (Some(_), Some(text)) => errors.push(refused(text, "internal_error")),
            (Some(index), None) => match transport(eventsub, &shard["transport"])? {
                Some(mut new) => {
                    if knobs.stay_disabled {
                        "websocket_internal_error".clone_into(&mut new.status);
                    }
                    data.push(new.to_json(index));
                    attach(eventsub, id, index, new);
                }
                None => errors.push(refused(
                    "websocket transport session does not exist or has already disconnected",
                    "invalid_parameter",
                )),
            },
        }
    }
    call.world.eventsub.update_dead_conduits();
    Ok((StatusCode::ACCEPTED, json!({"data": data, "errors": errors})))
}

fn attach(eventsub: &mut EventSub, id: &str, index: usize, shard: Shard) {
    if let Some(socket) = shard.socket.and_then(|socket| eventsub.sockets.get_mut(&socket)) {
        socket.used = true;
    }
    if let Some(conduit) = eventsub.conduits.get_mut(id) {
        conduit.attached += 1;
        conduit.shards.insert(index, shard);
    }
}

/// Reads a shard's new transport; `None` for a session that does not exist.
fn transport(eventsub: &EventSub, wanted: &Value) -> Result<Option<Shard>, Refusal> {
    match wanted["method"].as_str() {
        Some("websocket") => {
            let session = wanted["session_id"].as_str().ok_or_else(|| missing(""))?;
            let sockets = eventsub.sockets.iter().rev();
            let found = sockets
                .into_iter()
                .find(|(_, socket)| socket.session_id == session);
            Ok(found.map(|(number, socket)| Shard {
                socket: Some(*number),
                transport: socket_transport(session, socket.connected_at),
                status: "enabled".to_owned(),
            }))
        }
        Some("webhook") => {
            let callback = wanted["callback"].as_str().ok_or_else(|| missing(""))?;
            Ok(Some(Shard {
                socket: None,
                transport: json!({"method": "webhook", "callback": callback}),
                status: "webhook_callback_verification_pending".to_owned(),
            }))
        }
        _ => Err(missing("")),
    }
}
