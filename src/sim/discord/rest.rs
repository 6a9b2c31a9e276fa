//! Discord's REST API below `/api/v10`, as far as the bot's probes need it.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Value, json};

use super::handle::DiscordSim;
use super::knobs::Knobs;
use super::rate_limit::{Admission, Remaining};
use super::shapes;
use super::world::{Guild, World, is_thread};
use crate::core::time::Timestamp;
use crate::sim::host;
use crate::sim::kit::query::Query;

pub(super) fn routes(discord: DiscordSim) -> Router {
    Router::new()
        .route("/api/{*rest}", any(answer))
        .with_state(discord)
}

/// A refusal: HTTP status, JSON code, message.
type Refusal = (u16, u64, &'static str);

const UNAUTHORIZED: Refusal = (401, 0, "401: Unauthorized");
const MISSING_ACCESS: Refusal = (403, 50_001, "Missing Access");
const UNKNOWN_GUILD: Refusal = (404, 10_004, "Unknown Guild");
const UNKNOWN_CHANNEL: Refusal = (404, 10_003, "Unknown Channel");
const UNKNOWN_MEMBER: Refusal = (404, 10_007, "Unknown Member");

/// When a request arrived, by the simulation's own clock and by the one reported to clients.
#[derive(Clone, Copy)]
struct Arrival {
    now: Timestamp,
    wall: Timestamp,
}

/// `path` arrives percent-decoded, because some libraries write `@me` as `%40me`.
async fn answer(State(discord): State<DiscordSim>, Path(path): Path<String>, request: Request) -> Response {
    let (now, wall) = (discord.now(), discord.clock().wall());
    let gateway = discord.ws();
    discord.with_world(|world, _| {
        let response = respond(world, &path, &request, Arrival { now, wall }, &gateway);
        if matches!(response.status().as_u16(), 401 | 403 | 429) {
            let knobs = world.knobs.clone();
            world.rate_limit.refused(&knobs, now);
        }
        response
    })
}

fn respond(world: &mut World, path: &str, request: &Request, at: Arrival, gateway: &str) -> Response {
    let now = at.now;
    let mut segments: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let version = segments.first().copied().unwrap_or_default();
    if version != "v10" && version != "v9" {
        return refuse((400, 50_041, "Invalid API version provided"));
    }
    segments.remove(0);
    let agent = text(request.headers(), header::USER_AGENT.as_str());
    if !is_well_formed(agent) {
        return refuse((403, 40_333, "internal network error"));
    }
    let Some((route, top)) = route_of(&segments).filter(|_| request.method() == "GET") else {
        return host::not_simulated(request.method(), request.uri());
    };
    let knobs = world.knobs.clone();
    let room = match world.rate_limit.acquire(route, top, &knobs, now) {
        Admission::Granted(room) => room,
        Admission::BucketEmpty(room) => {
            let mut response = too_many(room.reset_after, false);
            rate_headers(&mut response, route, room, at.wall, &knobs);
            response
                .headers_mut()
                .insert("x-ratelimit-scope", HeaderValue::from_static("user"));
            return response;
        }
        Admission::TooMany(wait) => {
            let mut response = too_many(wait, true);
            let headers = response.headers_mut();
            headers.insert("x-ratelimit-scope", HeaderValue::from_static("global"));
            headers.insert("x-ratelimit-global", HeaderValue::from_static("true"));
            return response;
        }
        Admission::Banned => return banned(),
    };
    let outcome = carry_out(world, &segments, request, now, gateway);
    let mut response = match outcome {
        Ok(value) if knobs.unknown_fields => axum::Json(shapes::with_unknown_fields(value)).into_response(),
        Ok(value) => axum::Json(value).into_response(),
        Err(refusal) => refuse(refusal),
    };
    rate_headers(&mut response, route, room, at.wall, &knobs);
    response
}

fn carry_out(
    world: &World,
    segments: &[&str],
    request: &Request,
    now: Timestamp,
    gateway: &str,
) -> Result<Value, Refusal> {
    if segments == ["gateway"] {
        return Ok(json!({"url": gateway}));
    }
    let token = text(request.headers(), header::AUTHORIZATION.as_str()).strip_prefix("Bot ");
    let me = token.and_then(|token| world.bot_of(token)).ok_or(UNAUTHORIZED)?;
    let bot = &world.bots[&me];
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let flag = |name| matches!(query.all(name).next(), Some("true" | "True" | "1"));
    let inside = |id: &str| -> Result<(u64, &Guild), Refusal> {
        let outside = if world.knobs.outsider_404 {
            UNKNOWN_GUILD
        } else {
            MISSING_ACCESS
        };
        let id = snowflake(id)?;
        let guild = world.guilds.get(&id).ok_or(outside)?;
        if guild.bots.contains_key(&me) {
            Ok((id, guild))
        } else {
            Err(outside)
        }
    };
    match segments {
        ["gateway", "bot"] => Ok(gateway_bot(world, me, now, gateway)),
        ["users", "@me"] => Ok(shapes::user(me, bot)),
        ["applications", "@me"] | ["oauth2", "applications", "@me"] => {
            Ok(shapes::application(me, bot, world.guilds_of(me).count()))
        }
        ["users", "@me", "guilds"] => list_guilds(world, me, &query, flag("with_counts")),
        ["guilds", id] => {
            let (id, guild) = inside(id)?;
            Ok(shapes::guild(id, guild, flag("with_counts")))
        }
        ["guilds", id, "members", user] => {
            let (_, guild) = inside(id)?;
            let user = snowflake(user)?;
            let member = guild.bots.get(&user).ok_or(UNKNOWN_MEMBER)?;
            Ok(shapes::member(user, &world.bots[&user], member))
        }
        ["guilds", id, "roles"] => {
            let (_, guild) = inside(id)?;
            Ok(shapes::roles(guild).collect())
        }
        ["guilds", id, "channels"] => {
            let (id, guild) = inside(id)?;
            let listed = guild.channels.iter().filter(|(_, channel)| {
                !is_thread(channel.kind) && (!world.knobs.list_without_hidden || guild.sees(id, me, channel))
            });
            Ok(listed
                .map(|(channel, what)| shapes::channel(*channel, id, what))
                .collect())
        }
        ["guilds", id, "scheduled-events"] => {
            let (id, guild) = inside(id)?;
            // Only scheduled and active events are listed.
            let open = guild.events.iter().filter(|(_, event)| event.status <= 2);
            Ok(open
                .map(|(event, what)| shapes::event(id, *event, what))
                .collect())
        }
        ["guilds", id, "voice-states", user] => {
            let (id, guild) = inside(id)?;
            let user = if *user == "@me" { me } else { snowflake(user)? };
            let stay = guild
                .voices
                .get(&user)
                .ok_or((404, 10_065, "Unknown Voice State"))?;
            Ok(shapes::voice_of_rest(id, user, stay))
        }
        ["channels", id] => {
            let (channel, guild, of) = visible_channel(world, me, id)?;
            Ok(shapes::channel(channel, guild, &of.channels[&channel]))
        }
        ["stage-instances", id] => {
            let (channel, guild, of) = visible_channel(world, me, id)?;
            let stage = of
                .stages
                .get(&channel)
                .ok_or((404, 10_067, "Unknown Stage Instance"))?;
            Ok(shapes::stage(guild, channel, stage))
        }
        // Includes `/oauth2/@me`: it is for bearer tokens and refuses a valid bot token.
        _ => Err(UNAUTHORIZED),
    }
}

fn gateway_bot(world: &World, me: u64, now: Timestamp, gateway: &str) -> Value {
    let sent = world.sessions.identifies(me, now);
    let left = u64::try_from(world.knobs.identify_total.saturating_sub(sent)).unwrap_or(u64::MAX);
    json!({"url": gateway, "shards": 1, "session_start_limit": {"total": world.knobs.identify_total,
        "remaining": world.knobs.reported_remaining.unwrap_or(left), "reset_after": 82_112_345,
        "max_concurrency": world.knobs.max_concurrency}})
}

fn list_guilds(world: &World, me: u64, query: &Query, counts: bool) -> Result<Value, Refusal> {
    const FORM: Refusal = (400, 50_035, "Invalid Form Body");
    let limit = match query.all("limit").next() {
        None => 200,
        Some(limit) => limit
            .parse()
            .ok()
            .filter(|limit| (1..=200).contains(limit))
            .ok_or(FORM)?,
    };
    let edge = |name| match query.all(name).next() {
        None => Ok(None),
        Some(id) => id.parse::<u64>().map(Some).map_err(|_| FORM),
    };
    let (after, before) = (edge("after")?, edge("before")?);
    let all = world
        .guilds_of(me)
        .filter(|(id, _)| after.is_none_or(|edge| *id > edge) && before.is_none_or(|edge| *id < edge));
    let shown = |(id, guild): (u64, &Guild)| shapes::partial_guild(id, guild, me, counts);
    Ok(if after.is_none() && before.is_some() {
        let all: Vec<_> = all.collect();
        let page = all.len().saturating_sub(limit);
        all.into_iter().skip(page).map(shown).collect()
    } else {
        all.take(limit).map(shown).collect()
    })
}

fn visible_channel<'a>(world: &'a World, me: u64, id: &str) -> Result<(u64, u64, &'a Guild), Refusal> {
    let id = snowflake(id)?;
    let guild = world.guild_of_channel(id).ok_or(UNKNOWN_CHANNEL)?;
    let of = &world.guilds[&guild];
    if of.bots.contains_key(&me) && of.sees(guild, me, &of.channels[&id]) {
        Ok((id, guild, of))
    } else {
        Err(MISSING_ACCESS)
    }
}

/// Returns the route of a request, and the guild or channel whose limit it counts towards; `None` when it is not
/// simulated.
fn route_of(segments: &[&str]) -> Option<(&'static str, u64)> {
    let top = segments.get(1).and_then(|id| id.parse().ok()).unwrap_or(0);
    let route = match segments {
        ["gateway"] | ["gateway", "bot"] => "gateway",
        ["users", "@me"] => "me",
        ["users", "@me", "guilds"] => "my-guilds",
        ["applications", "@me"] | ["oauth2", "applications", "@me"] => "application",
        ["oauth2", "@me"] | ["stage-instances", _] => "other",
        ["guilds", _] => "guild",
        ["guilds", _, "members", _] => "member",
        ["guilds", _, "scheduled-events"] => "events",
        ["guilds", _, "voice-states", _] => "voice",
        // Roles and channels share a bucket, which a client can only find out from the headers.
        ["guilds", _, "roles" | "channels"] => "guild-lists",
        ["channels", _] => "channel",
        _ => return None,
    };
    Some((route, top))
}

fn snowflake(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| (400, 50_035, "Invalid Form Body"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Checks the form `DiscordBot (<url>, <version>)`, which anything may follow. Discord documents the comma but does
/// not require it: discord.py has sent only a space for years.
fn is_well_formed(agent: &str) -> bool {
    agent
        .strip_prefix("DiscordBot (")
        .and_then(|rest| rest.split_once(')'))
        .and_then(|(inner, _)| inner.split_once([',', ' ']))
        .is_some_and(|(url, version)| url.starts_with("http") && !version.trim().is_empty())
}

fn refuse((status, code, message): Refusal) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, axum::Json(json!({"message": message, "code": code}))).into_response()
}

#[expect(clippy::cast_precision_loss, reason = "waits are short")]
fn too_many(wait_ms: i64, global: bool) -> Response {
    let seconds = wait_ms.max(1) as f64 / 1_000.0;
    let body = json!({"message": "You are being rate limited.", "retry_after": seconds, "global": global});
    let mut response = (StatusCode::TOO_MANY_REQUESTS, axum::Json(body)).into_response();
    // The header has whole seconds, rounded up.
    let header = seconds.ceil().to_string();
    if let Ok(value) = HeaderValue::try_from(header) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

/// Cloudflare's page for a banned address.
fn banned() -> Response {
    let mut response = Response::new(Body::from(
        "<!DOCTYPE html><html><head><title>Access denied | discord.com used Cloudflare to restrict access</title></head>\
         <body><h1>Error 1015</h1><p>You are being rate limited</p></body></html>",
    ));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=UTF-8"),
    );
    response
}

/// Adds the headers of a bucket. `wall` is the time reported to clients, which `X-RateLimit-Reset` uses.
#[expect(
    clippy::cast_precision_loss,
    reason = "resets are near, and milliseconds since 1970 fit into a double"
)]
fn rate_headers(response: &mut Response, route: &str, room: Remaining, wall: Timestamp, knobs: &Knobs) {
    if knobs.no_rate_headers {
        return;
    }
    // Opaque, and the same for the same route.
    let bucket: String = route
        .bytes()
        .map(|byte| char::from(b'a' + (byte ^ 0x5a) % 26))
        .collect();
    let reset_after = room.reset_after as f64 / 1_000.0;
    let reset = wall.plus_millis(room.reset_after).as_millis() as f64 / 1_000.0;
    for (name, value) in [
        ("x-ratelimit-limit", room.limit.to_string()),
        ("x-ratelimit-remaining", room.remaining.to_string()),
        ("x-ratelimit-reset", format!("{reset:.3}")),
        ("x-ratelimit-reset-after", format!("{reset_after:.3}")),
        ("x-ratelimit-bucket", bucket),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
}
