//! The controls below `/__sim/kick/`: one order per request, its fields as JSON.

use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::KickChatSpec;
use super::handle::KickSim;
use super::tokens::{KickTokenSpec, KickTokens};
use super::world::{KickChannelSpec, KickStreamSpec};
use crate::sim::kit::failure::Failure;
use crate::sim::kit::handle::Fields;

fn read<T: for<'de> Deserialize<'de>>(fields: Fields) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| (400, error.to_string()))
}

/// Takes the channel's `id` out of the fields.
fn take_id(fields: &mut Fields) -> Result<u64, Failure> {
    let id = fields.remove("id");
    id.and_then(|id| id.as_u64())
        .ok_or_else(|| (400, "`id`, the channel as a number, is missing".to_owned()))
}

fn found<T>(found: Option<T>) -> Result<T, Failure> {
    found.ok_or_else(|| (404, "no such channel, stream or token".to_owned()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    lag_ms: Option<i64>,
    #[serde(default)]
    silent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Viewers {
    viewers: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Blip {
    answers: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewApp {
    client_id: String,
    client_secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct NewToken {
    client_id: String,
    user_id: Option<u64>,
    scopes: Vec<String>,
    expires_in: Option<i64>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    user_id: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shrink {
    user_id: u64,
    scope: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    #[serde(default)]
    event: String,
    broadcaster_user_id: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    client_id: String,
    broadcaster_user_id: u64,
    event: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Emission {
    event: String,
    body: Value,
}

fn token_json(tokens: &KickTokens) -> Value {
    json!({
        "access_token": tokens.access, "refresh_token": tokens.refresh, "expires_in": tokens.expires_in,
    })
}

pub(super) fn carry_out(kick: &KickSim, order: &str, mut fields: Fields) -> Result<Value, Failure> {
    match order {
        "channel" => kick.put_channel(read::<KickChannelSpec>(fields)?),
        "stream_up" => {
            let id = take_id(&mut fields)?;
            let started_at = found(kick.go_live_with(id, &read::<KickStreamSpec>(fields)?))?;
            return Ok(json!({"started_at": started_at}));
        }
        "stream_down" => {
            let id = take_id(&mut fields)?;
            let end: End = read(fields)?;
            let started_at = found(kick.end_stream_with(id, end.lag_ms, end.silent))?;
            return Ok(json!({"started_at": started_at}));
        }
        "viewers" => {
            let id = take_id(&mut fields)?;
            kick.set_viewers(id, read::<Viewers>(fields)?.viewers);
        }
        "blip" => {
            let id = take_id(&mut fields)?;
            kick.blip(id, read::<Blip>(fields)?.answers);
        }
        "chat" => {
            let id = take_id(&mut fields)?;
            let ids = found(kick.chat(id, &read::<KickChatSpec>(fields)?))?;
            return Ok(json!({"message_ids": ids}));
        }
        "emit" => {
            let id = take_id(&mut fields)?;
            let emission: Emission = read(fields)?;
            return Ok(json!({"count": kick.emit(&emission.event, id, &emission.body)}));
        }
        "knobs" => return turn_knobs(kick, &fields),
        "webhook" => kick.set_webhook_url(read::<Place>(fields)?.url.as_deref()),
        "rotate_key" => kick.rotate_key(),
        "subscribe" => {
            let new: Subscribe = read(fields)?;
            kick.add_subscription(&new.client_id, new.broadcaster_user_id, &new.event);
        }
        "unsubscribe" => {
            let which: Unsubscribe = read(fields)?;
            let count = kick.drop_subscriptions(&which.event, which.broadcaster_user_id);
            return Ok(json!({"count": count}));
        }
        _ => return carry_out_auth(kick, order, fields),
    }
    Ok(Value::Null)
}

/// Executes the orders about applications and tokens.
fn carry_out_auth(kick: &KickSim, order: &str, fields: Fields) -> Result<Value, Failure> {
    match order {
        "app" => {
            let app: NewApp = read(fields)?;
            kick.add_app(&app.client_id, &app.client_secret);
        }
        "token" => {
            let new: NewToken = read(fields)?;
            return Ok(token_json(&kick.issue_token(KickTokenSpec {
                client_id: new.client_id,
                user_id: new.user_id,
                scopes: new.scopes,
                expires_in: new.expires_in,
                access: new.access_token,
                refresh: new.refresh_token,
            })));
        }
        "token_expire" => {
            let known = kick.expire_token(&read::<Text>(fields)?.token);
            found(known.then_some(()))?;
        }
        "token_revoke" => {
            let known = kick.revoke_token(&read::<Text>(fields)?.token);
            found(known.then_some(()))?;
        }
        "disconnect" => kick.disconnect(read::<Whose>(fields)?.user_id),
        "refresh_age_out" => kick.age_out_refresh(found(read::<Whose>(fields)?.user_id)?),
        "scope_shrink" => {
            let shrink: Shrink = read(fields)?;
            kick.shrink_scope(shrink.user_id, &shrink.scope);
        }
        unknown => return Err((404, format!("no order `{unknown}`"))),
    }
    Ok(Value::Null)
}

/// Sets those knobs that are among the fields; returns all of them.
fn turn_knobs(kick: &KickSim, fields: &Fields) -> Result<Value, Failure> {
    let mut outcome = Ok(Value::Null);
    kick.knobs(|knobs| {
        outcome = (|| {
            let mut all = serde_json::to_value(&*knobs).map_err(|error| (500, error.to_string()))?;
            for (name, value) in fields {
                all[name] = value.clone();
            }
            *knobs = serde_json::from_value(all.clone()).map_err(|error| (400, error.to_string()))?;
            Ok(all)
        })();
    });
    outcome
}
