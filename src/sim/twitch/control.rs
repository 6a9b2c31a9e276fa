//! The controls below `/__sim/twitch/`: one order per request, its fields as JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::devices::DeviceState;
use super::eventsub::{ChatSpec, ModerationSpec, Reconnect, SocketAct};
use super::handle::{EndSpec, TwitchSim};
use super::members::Role;
use super::tokens::{TokenPair, TokenSpec};
use super::world::{ChannelSpec, StreamSpec};
use crate::sim::kit::failure::Failure;

/// Fields of orders for one channel.
struct Of<T> {
    id: String,
    rest: T,
}

impl<T: for<'de> Deserialize<'de>> Of<T> {
    /// Removes the channel's `id` from the fields and parses the others, none of which may be unknown.
    fn read(mut fields: Value) -> Result<Self, Failure> {
        let id = fields.as_object_mut().and_then(|fields| fields.remove("id"));
        let id = id.and_then(|id| id.as_str().map(str::to_owned));
        let id = id.ok_or_else(|| (400, "`id`, the channel as a string, is missing".to_owned()))?;
        Ok(Self {
            id,
            rest: read(fields)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Viewers {
    viewers: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Polls {
    polls: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Membership {
    user_id: String,
    role: Role,
    #[serde(default = "yes")]
    held: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewClient {
    client_id: String,
    client_secret: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct NewToken {
    client_id: String,
    user_id: Option<String>,
    scopes: Vec<String>,
    expires_in: Option<i64>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    user_id: Option<String>,
    token: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    #[serde(default)]
    code: String,
    state: String,
    #[serde(default)]
    user_id: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SocketOrder {
    #[serde(default)]
    session_id: String,
    act: SocketAct,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReconnectOrder {
    #[serde(default)]
    session_id: String,
    #[serde(default)]
    how: Reconnect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    subscription_id: String,
    status: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    #[serde(default)]
    newest_first: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Emission {
    r#type: String,
    /// One key of the condition and its value.
    condition: (String, String),
    event: Value,
}

fn read<T: for<'de> Deserialize<'de>>(fields: Value) -> Result<T, Failure> {
    serde_json::from_value(fields).map_err(|error| (400, error.to_string()))
}

/// Answers `value`, or 404 when there is nothing of that name.
fn or_missing<T>(found: Option<T>, value: impl FnOnce(T) -> Value) -> Result<Value, Failure> {
    found
        .map(value)
        .ok_or_else(|| (404, "no such channel, stream, token or code".to_owned()))
}

fn token_json(pair: &TokenPair) -> Value {
    json!({"access_token": pair.access, "refresh_token": pair.refresh, "expires_in": pair.expires_in})
}

pub(super) fn carry_out(twitch: &TwitchSim, order: &str, fields: Value) -> Result<Value, Failure> {
    let done = Ok(Value::Null);
    match order {
        "channel" => {
            twitch.put_channel(read::<ChannelSpec>(fields)?);
            done
        }
        "channel_remove" => {
            let of = Of::<Nothing>::read(fields)?;
            or_missing(twitch.remove_channel(&of.id).then_some(()), |()| Value::Null)
        }
        "stream_up" => {
            let of = Of::<StreamSpec>::read(fields)?;
            or_missing(
                twitch.go_live_with(&of.id, &of.rest),
                |stream| json!({"stream_id": stream.id, "started_at": stream.started_at}),
            )
        }
        "stream_down" => {
            let of = Of::<EndSpec>::read(fields)?;
            or_missing(
                twitch.end_stream_with(&of.id, &of.rest),
                |stream| json!({"stream_id": stream.id}),
            )
        }
        "viewers" => {
            let of = Of::<Viewers>::read(fields)?;
            twitch.set_viewers(&of.id, of.rest.viewers);
            done
        }
        "stream_type" => {
            let of = Of::<Kind>::read(fields)?;
            twitch.set_stream_type(&of.id, &of.rest.r#type);
            done
        }
        "flap" => {
            let of = Of::<Polls>::read(fields)?;
            twitch.flap(&of.id, of.rest.polls);
            done
        }
        "role" => {
            let of = Of::<Membership>::read(fields)?;
            twitch.set_role(&of.id, &of.rest.user_id, of.rest.role, of.rest.held);
            done
        }
        "knobs" => {
            let mut changed = Ok(Value::Null);
            twitch.knobs(|knobs| changed = turn(knobs, &fields));
            changed
        }
        "client" | "token" | "token_expire" | "disconnect" | "device" => {
            carry_out_auth(twitch, order, fields)
        }
        _ => carry_out_eventsub(twitch, order, fields),
    }
}

/// Sets those knobs that are among the fields; returns all of them.
fn turn<T: Serialize + for<'de> Deserialize<'de>>(knobs: &mut T, fields: &Value) -> Result<Value, Failure> {
    let current = serde_json::to_value(&*knobs).map_err(|error| (500, error.to_string()))?;
    let mut all = current;
    for (name, value) in fields.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    *knobs = read(all.clone())?;
    Ok(all)
}

/// Executes the orders about sockets, subscriptions and chat.
fn carry_out_eventsub(twitch: &TwitchSim, order: &str, fields: Value) -> Result<Value, Failure> {
    let counted = |count: usize| Ok(json!({"count": count}));
    match order {
        "eventsub" => {
            let mut changed = Ok(Value::Null);
            twitch.eventsub_knobs(|knobs| changed = turn(knobs, &fields));
            changed
        }
        "socket" => {
            let order: SocketOrder = read(fields)?;
            counted(twitch.spoil_sockets(&order.session_id, &order.act))
        }
        "reconnect" => {
            let order: ReconnectOrder = read(fields)?;
            counted(twitch.reconnect_sockets(&order.session_id, &order.how))
        }
        "revoke" => {
            let order: Revocation = read(fields)?;
            counted(twitch.revoke_subscriptions(&order.r#type, &order.subscription_id, &order.status))
        }
        "release" => {
            let order: Release = read(fields)?;
            counted(twitch.release(order.newest_first))
        }
        "emit" => {
            let order: Emission = read(fields)?;
            let (key, value) = order.condition;
            counted(twitch.emit(&order.r#type, &key, &value, &order.event))
        }
        "moderate" => {
            let of = Of::<ModerationSpec>::read(fields)?;
            counted(twitch.moderate(&of.id, &of.rest).map_err(|error| (400, error))?)
        }
        "chat" => {
            let of = Of::<ChatSpec>::read(fields)?;
            if of.rest.every_ms > 0 {
                twitch.chat_on(&of.id, of.rest);
                return Ok(Value::Null);
            }
            Ok(json!({"message_ids": twitch.chat(&of.id, &of.rest)}))
        }
        unknown => Err((404, format!("no order `{unknown}`"))),
    }
}

/// Executes the orders about applications, tokens and consents.
fn carry_out_auth(twitch: &TwitchSim, order: &str, fields: Value) -> Result<Value, Failure> {
    match order {
        "client" => {
            let client: NewClient = read(fields)?;
            twitch.add_client(&client.client_id, client.client_secret.as_deref());
            Ok(Value::Null)
        }
        "token" => {
            let token: NewToken = read(fields)?;
            Ok(token_json(&twitch.issue_token(TokenSpec {
                client_id: token.client_id,
                user_id: token.user_id,
                scopes: token.scopes,
                expires_in: token.expires_in,
                access: token.access_token,
                refresh: token.refresh_token,
            })))
        }
        "token_expire" => {
            let whose: Whose = read(fields)?;
            let by_text = whose.token.is_some_and(|text| twitch.expire_token(&text));
            let by_user = whose.user_id.map_or(0, |user| twitch.expire_tokens_of(&user));
            or_missing((by_text || by_user > 0).then_some(()), |()| Value::Null)
        }
        "disconnect" => {
            let whose: Whose = read(fields)?;
            or_missing(whose.user_id, |user| {
                twitch.disconnect(&user);
                Value::Null
            })
        }
        "device" => {
            let consent: Consent = read(fields)?;
            let state = match consent.state.as_str() {
                "granted" => DeviceState::Granted(consent.user_id),
                // Twitch does not document its response after a decline; this is its one terminal message.
                "denied" if consent.message.is_empty() => {
                    DeviceState::Denied("invalid device code".to_owned())
                }
                "denied" => DeviceState::Denied(consent.message),
                "expired" => DeviceState::Expired,
                other => return Err((400, format!("no state `{other}`: granted, denied or expired"))),
            };
            let decided = twitch.decide_device(&consent.code, &state);
            or_missing((decided > 0).then_some(()), |()| Value::Null)
        }
        unknown => Err((404, format!("no order `{unknown}`"))),
    }
}
