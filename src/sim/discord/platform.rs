//! What the kit needs to serve the simulated Discord: its addresses, its commands, and gateway events by their own names.

use axum::Router;
use serde_json::{Value, json};

use super::commands::{Command, with_numeric_ids};
use super::handle::DiscordSim;
use super::knobs::Knobs;
use super::world::World;
use super::{rest, socket};
use crate::core::time::Timestamp;
use crate::sim::directory::{EventGuide, SimSource, event};
use crate::sim::host::Host;
use crate::sim::kit::Setting;
use crate::sim::kit::commands::Fields;
use crate::sim::kit::failure::Failure;
use crate::sim::kit::handle::Simulated;
use crate::sim::replay::{PlatformScript, Prepared, Replayed};

const EVENTS: &[EventGuide] = &[
    event(
        "MESSAGE_CREATE",
        "channel content author kind count copies",
        "a message is written, in the first text channel when none is named",
    ),
    event(
        "STAGE_INSTANCE_CREATE",
        "channel topic",
        "something begins on a stage",
    ),
    event("STAGE_INSTANCE_DELETE", "channel", "it ends"),
    event(
        "GUILD_SCHEDULED_EVENT_UPDATE",
        "id status",
        "a scheduled event begins (status 2), or gets another status",
    ),
    event(
        "VOICE_STATE_UPDATE",
        "user channel streaming",
        "a user enters voice, or leaves it when no channel is named",
    ),
    event(
        "GUILD_UPDATE",
        "name owner everyone bot_role members presences",
        "name, owner or permissions change",
    ),
    event(
        "GUILD_ROLE_UPDATE",
        "role permissions held",
        "a role changes, the bot's own when none is named",
    ),
    event(
        "GUILD_MEMBER_UPDATE",
        "seconds",
        "the bot is put into a timeout, or out of it (0 seconds)",
    ),
    event(
        "GUILD_DELETE",
        "unavailable",
        "the bot is removed, or an outage begins (unavailable=true)",
    ),
    event("GUILD_CREATE", "", "an outage ends"),
];

/// Types of channels for messages, and of stages.
const TEXT: [u64; 2] = [0, 5];
const STAGE: [u64; 1] = [13];

impl DiscordSim {
    /// Returns the first channel of one of these types in a guild.
    fn first_channel(&self, guild: u64, kinds: &[u64]) -> Result<u64, Failure> {
        let found = self.with_world(|world, _| {
            let channels = world.guilds.get(&guild)?.channels.iter();
            let mut fitting = channels.filter(|(_, channel)| kinds.contains(&channel.kind));
            fitting.next().map(|(id, _)| *id)
        });
        found.ok_or_else(|| {
            (
                400,
                format!("discord:{guild} has no such channel: give `channel`"),
            )
        })
    }
}

/// The token that a replay suggests; it accepts any other one, too.
const REPLAY_TOKEN: &str = "replay-bot-token";

impl Replayed for World {
    fn set_up(_: &DiscordSim, script: &PlatformScript) -> Prepared {
        Prepared {
            settings: vec![
                ("discord.bot_token", REPLAY_TOKEN.to_owned()),
                ("discord.gateway", script.has_sockets().to_string()),
            ],
            ..Prepared::default()
        }
    }
}

impl Simulated for World {
    const NAME: &'static str = "discord";
    const EVENTS: &'static [EventGuide] = EVENTS;
    type Command = Command;
    type Knobs = Knobs;

    fn new(_host: &Host) -> Self {
        Self::default()
    }

    fn routes(discord: &DiscordSim) -> Router {
        rest::routes(discord.clone()).merge(socket::routes(discord.clone()))
    }

    fn bases(discord: &DiscordSim) -> Vec<(&'static str, String)> {
        vec![
            ("https://discord.com/api/v10", discord.api_url()),
            ("wss://gateway.discord.gg", discord.ws()),
        ]
    }

    fn addresses(discord: &DiscordSim) -> Vec<Setting> {
        vec![("discord.api_url", discord.api_url())]
    }

    fn knobs(&mut self) -> &mut Knobs {
        &mut self.knobs
    }

    fn truth(&mut self, now: Timestamp) -> Value {
        self.to_json(now)
    }

    fn sources(&self) -> Vec<SimSource> {
        let guilds = self.guilds.iter();
        guilds
            .map(|(id, guild)| SimSource {
                id: id.to_string(),
                name: guild.name.clone(),
            })
            .collect()
    }

    fn run(discord: &DiscordSim, command: Command) -> Result<Value, Failure> {
        command.run(discord)
    }

    fn prepare(fields: Fields) -> Fields {
        with_numeric_ids(fields)
    }

    fn cause(
        discord: &DiscordSim,
        event: &str,
        id: &str,
        fields: &mut Fields,
    ) -> Result<&'static str, Failure> {
        let guild: u64 = id.parse().map_err(|_| (404, format!("no guild `{id}`")))?;
        let (command, preset) = match event {
            "MESSAGE_CREATE" => ("message", json!({"channel": null})),
            "STAGE_INSTANCE_CREATE" => ("stage", json!({"channel": null, "topic": "simulated"})),
            "STAGE_INSTANCE_DELETE" => ("stage", json!({"channel": null})),
            "GUILD_SCHEDULED_EVENT_UPDATE" => {
                ("event", json!({"guild": guild, "id": guild + 500, "status": 2}))
            }
            "VOICE_STATE_UPDATE" => ("voice", json!({"guild": guild, "user": 77})),
            "GUILD_UPDATE" => ("guild", json!({"id": guild})),
            "GUILD_ROLE_UPDATE" => (
                "role",
                json!({"guild": guild, "role": guild + 1, "permissions": 76_800}),
            ),
            "GUILD_MEMBER_UPDATE" => ("timeout", json!({"guild": guild, "seconds": 600})),
            "GUILD_DELETE" if fields.remove("unavailable").is_some_and(|value| value == true) => {
                ("outage", json!({"id": guild, "on": true}))
            }
            "GUILD_DELETE" => ("guild_remove", json!({"id": guild})),
            "GUILD_CREATE" => ("outage", json!({"id": guild, "on": false})),
            unknown => return Err((404, format!("no event `{unknown}`"))),
        };
        for (name, value) in preset.as_object().into_iter().flatten() {
            if !fields.contains_key(name) {
                let value = match (command, name.as_str()) {
                    ("message", "channel") => discord.first_channel(guild, &TEXT)?.into(),
                    ("stage", "channel") => discord.first_channel(guild, &STAGE)?.into(),
                    _ => value.clone(),
                };
                fields.insert(name.clone(), value);
            }
        }
        Ok(command)
    }

    fn sent(&self) -> u64 {
        self.sessions.counts().dispatched
    }
}
