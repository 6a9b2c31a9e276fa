//! The controls below `/__sim/discord/`: one order per request, its fields as JSON. Ids may be strings or numbers.

use serde::Deserialize;
use serde_json::{Value, json};

use super::faults;
use super::handle::DiscordSim;
use super::knobs::Knobs;
use super::specs::{ChannelSpec, GatewayAct, GuildSpec, MessageSpec};
use crate::sim::kit::failure::Failure;
use crate::sim::kit::handle::Fields;

/// Parses ids and permissions that are strings, as Discord writes them.
pub(super) fn with_numeric_ids(fields: Fields) -> Value {
    const TEXTS: [&str; 5] = ["name", "content", "topic", "token", "author"];
    fields
        .into_iter()
        .map(|(key, value)| {
            let number = value.as_str().filter(|_| !TEXTS.contains(&key.as_str()));
            let number = number.and_then(|text| text.parse::<u64>().ok());
            (key, number.map_or(value, Value::from))
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBot {
    id: u64,
    name: String,
    token: String,
    #[serde(default)]
    flags: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenReset {
    bot: u64,
    #[serde(default)]
    cut: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    id: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outage {
    id: u64,
    on: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleChange {
    guild: u64,
    role: u64,
    /// The role is deleted when absent.
    permissions: Option<u64>,
    held: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    channel: u64,
    target: u64,
    /// 0 for a role, 1 for a member.
    kind: u64,
    #[serde(default)]
    allow: u64,
    #[serde(default)]
    deny: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timeout {
    guild: u64,
    /// Simulated seconds from now; zero or less ends it.
    seconds: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnStage {
    channel: u64,
    /// It ends when absent.
    topic: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventChange {
    guild: u64,
    id: u64,
    status: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InVoice {
    guild: u64,
    user: u64,
    /// Not in voice when absent.
    channel: Option<u64>,
    #[serde(default)]
    streaming: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    act: GatewayAct,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    name: String,
    #[serde(default)]
    path: String,
    times: Option<u32>,
}

fn read<T: for<'de> Deserialize<'de>>(fields: Value) -> Result<T, Failure> {
    serde_json::from_value(fields).map_err(|error| (400, error.to_string()))
}

fn or_missing(known: bool) -> Result<Value, Failure> {
    if known {
        Ok(Value::Null)
    } else {
        Err((404, "no such bot, guild, role or channel".to_owned()))
    }
}

pub(super) fn carry_out(discord: &DiscordSim, order: &str, fields: Value) -> Result<Value, Failure> {
    match order {
        "bot" => {
            let bot: NewBot = read(fields)?;
            discord.add_bot(bot.id, &bot.name, &bot.token, bot.flags);
            Ok(Value::Null)
        }
        "token_reset" => {
            let reset: TokenReset = read(fields)?;
            let token = discord.reset_token(reset.bot, reset.cut);
            token.map_or_else(|| or_missing(false), |token| Ok(json!({"token": token})))
        }
        "guild" => {
            discord.put_guild(&read::<GuildSpec>(fields)?);
            Ok(Value::Null)
        }
        "guild_remove" => or_missing(discord.remove_guild(read::<Which>(fields)?.id)),
        "outage" => {
            let outage: Outage = read(fields)?;
            or_missing(discord.set_outage(outage.id, outage.on))
        }
        "role" => {
            let role: RoleChange = read(fields)?;
            or_missing(match role.permissions {
                Some(permissions) => discord.put_role(role.guild, role.role, permissions, role.held),
                None => discord.remove_role(role.guild, role.role),
            })
        }
        "overwrite" => {
            let of: Exception = read(fields)?;
            or_missing(discord.set_overwrite(of.channel, of.target, of.kind, of.allow, of.deny))
        }
        "timeout" => {
            let timeout: Timeout = read(fields)?;
            let until = (timeout.seconds > 0).then(|| discord.now().plus_secs(timeout.seconds));
            or_missing(discord.time_out(timeout.guild, until))
        }
        "channel" => or_missing(discord.put_channel(&read::<ChannelSpec>(fields)?)),
        "channel_remove" => or_missing(discord.remove_channel(read::<Which>(fields)?.id)),
        "knobs" => {
            let knobs: Knobs = read(fields)?;
            discord.knobs(|current| *current = knobs);
            Ok(Value::Null)
        }
        "trouble" => {
            let trouble: FaultOrder = read(fields)?;
            let mut fault = faults::named(&trouble.name)
                .ok_or_else(|| (404, format!("no failure mode `{}`", trouble.name)))?
                .on(&trouble.path);
            fault.times = trouble.times;
            Ok(json!({"id": discord.host().faults().add(fault)}))
        }
        _ => carry_out_life(discord, order, fields),
    }
}

/// Executes the orders about activity in guilds and the gateway.
fn carry_out_life(discord: &DiscordSim, order: &str, fields: Value) -> Result<Value, Failure> {
    match order {
        "stage" => {
            let stage: OnStage = read(fields)?;
            let told = discord.set_stage(stage.channel, stage.topic.as_deref());
            told.map_or_else(|| or_missing(false), |id| Ok(json!({"id": id.to_string()})))
        }
        "event" => {
            let event: EventChange = read(fields)?;
            or_missing(discord.set_event(event.guild, event.id, event.status))
        }
        "voice" => {
            let voice: InVoice = read(fields)?;
            or_missing(discord.set_voice(voice.guild, voice.user, voice.channel, voice.streaming))
        }
        "message" => {
            let ids = discord.send_messages(&read::<MessageSpec>(fields)?);
            Ok(json!({"ids": ids.iter().map(u64::to_string).collect::<Vec<_>>()}))
        }
        "gateway" => {
            discord.gateway(&read::<Act>(fields)?.act);
            Ok(Value::Null)
        }
        unknown => Err((404, format!("no order `{unknown}`"))),
    }
}
