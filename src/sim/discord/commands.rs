//! The commands below `/__sim/discord/`. Ids may be strings or numbers.

use serde::Deserialize;
use serde_json::{Value, json};

use super::faults;
use super::handle::DiscordSim;
use super::knobs::Knobs;
use super::specs::{ChannelSpec, GatewayAct, GuildSpec, MessageSpec};
use crate::sim::kit::commands::Fields;
use crate::sim::kit::failure::Failure;

/// A command; `docs/simulator.md` describes each.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Bot {
        id: u64,
        name: String,
        token: String,
        #[serde(default)]
        flags: u64,
    },
    TokenReset {
        bot: u64,
        #[serde(default)]
        cut: bool,
    },
    Guild(GuildSpec),
    GuildRemove {
        id: u64,
    },
    Outage {
        id: u64,
        on: bool,
    },
    Role {
        guild: u64,
        role: u64,
        /// The role is deleted when absent.
        permissions: Option<u64>,
        held: Option<bool>,
    },
    Channel(ChannelSpec),
    ChannelRemove {
        id: u64,
    },
    Overwrite {
        channel: u64,
        target: u64,
        /// 0 for a role, 1 for a member.
        kind: u64,
        #[serde(default)]
        allow: u64,
        #[serde(default)]
        deny: u64,
    },
    Timeout {
        guild: u64,
        /// Simulated seconds from now; zero or less ends it.
        seconds: i64,
    },
    Stage {
        channel: u64,
        /// It ends when absent.
        topic: Option<String>,
    },
    Event {
        guild: u64,
        id: u64,
        status: u64,
    },
    Voice {
        guild: u64,
        user: u64,
        /// Not in voice when absent.
        channel: Option<u64>,
        #[serde(default)]
        streaming: bool,
    },
    Message(MessageSpec),
    Gateway {
        act: GatewayAct,
    },
    Trouble {
        name: String,
        #[serde(default)]
        path: String,
        times: Option<u32>,
    },
    Knobs(Knobs),
}

/// Parses ids and permissions that are strings, as Discord writes them.
pub(super) fn with_numeric_ids(fields: Fields) -> Fields {
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

/// Returns what was found, or 404.
fn found<T>(found: Option<T>) -> Result<T, Failure> {
    found.ok_or_else(|| (404, "no such bot, guild, role or channel".to_owned()))
}

impl Command {
    /// Executes the command; returns the body of the response.
    pub(super) fn run(self, discord: &DiscordSim) -> Result<Value, Failure> {
        let known = match self {
            Self::Bot {
                id,
                name,
                token,
                flags,
            } => {
                discord.add_bot(id, &name, &token, flags);
                true
            }
            Self::TokenReset { bot, cut } => {
                return Ok(json!({"token": found(discord.reset_token(bot, cut))?}));
            }
            Self::Guild(spec) => {
                discord.put_guild(&spec);
                true
            }
            Self::GuildRemove { id } => discord.remove_guild(id),
            Self::Outage { id, on } => discord.set_outage(id, on),
            Self::Role {
                guild,
                role,
                permissions: Some(permissions),
                held,
            } => discord.put_role(guild, role, permissions, held),
            Self::Role { guild, role, .. } => discord.remove_role(guild, role),
            Self::Channel(spec) => discord.put_channel(&spec),
            Self::ChannelRemove { id } => discord.remove_channel(id),
            Self::Overwrite {
                channel,
                target,
                kind,
                allow,
                deny,
            } => discord.set_overwrite(channel, target, kind, allow, deny),
            Self::Timeout { guild, seconds } => {
                let until = (seconds > 0).then(|| discord.now().plus_secs(seconds));
                discord.time_out(guild, until)
            }
            Self::Stage { channel, topic } => {
                let stage = found(discord.set_stage(channel, topic.as_deref()))?;
                return Ok(json!({"id": stage.to_string()}));
            }
            Self::Event { guild, id, status } => discord.set_event(guild, id, status),
            Self::Voice {
                guild,
                user,
                channel,
                streaming,
            } => discord.set_voice(guild, user, channel, streaming),
            Self::Message(spec) => {
                let ids = discord.send_messages(&spec);
                return Ok(json!({"ids": ids.iter().map(u64::to_string).collect::<Vec<_>>()}));
            }
            Self::Gateway { act } => {
                discord.gateway(&act);
                true
            }
            Self::Trouble { name, path, times } => {
                let fault = faults::named(&name).ok_or_else(|| (404, format!("no failure mode `{name}`")))?;
                let mut fault = fault.on(&path);
                fault.times = times;
                return Ok(json!({"id": discord.host().faults().add(fault)}));
            }
            Self::Knobs(knobs) => {
                discord.knobs(|current| *current = knobs);
                true
            }
        };
        found(known.then_some(Value::Null))
    }
}
