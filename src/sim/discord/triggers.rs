//! Discord's gateway events by their own names, as `bitbrat sim trigger` and `POST /__sim/trigger` trigger them.

use serde_json::{Map, Value, json};

use super::control::{carry_out, with_numeric_ids};
use super::handle::DiscordSim;
use crate::sim::directory::{EventGuide, Guide, Listed, SimSource, count_sent};
use crate::sim::orders::Failure;

const EVENTS: &[EventGuide] = &[
    EventGuide {
        name: "MESSAGE_CREATE",
        fields: &["channel", "content", "author", "kind", "count", "copies"],
        about: "a message is written, in the first text channel when none is named",
    },
    EventGuide {
        name: "STAGE_INSTANCE_CREATE",
        fields: &["channel", "topic"],
        about: "something begins on a stage",
    },
    EventGuide {
        name: "STAGE_INSTANCE_DELETE",
        fields: &["channel"],
        about: "it ends",
    },
    EventGuide {
        name: "GUILD_SCHEDULED_EVENT_UPDATE",
        fields: &["id", "status"],
        about: "a scheduled event begins (status 2), or gets another status",
    },
    EventGuide {
        name: "VOICE_STATE_UPDATE",
        fields: &["user", "channel", "streaming"],
        about: "a user enters voice, or leaves it when no channel is named",
    },
    EventGuide {
        name: "GUILD_UPDATE",
        fields: &["name", "owner", "everyone", "bot_role", "members", "presences"],
        about: "name, owner or permissions change",
    },
    EventGuide {
        name: "GUILD_ROLE_UPDATE",
        fields: &["role", "permissions", "held"],
        about: "a role changes, the bot's own when none is named",
    },
    EventGuide {
        name: "GUILD_MEMBER_UPDATE",
        fields: &["seconds"],
        about: "the bot is put into a timeout, or out of it (0 seconds)",
    },
    EventGuide {
        name: "GUILD_DELETE",
        fields: &["unavailable"],
        about: "the bot is removed, or an outage begins (unavailable=true)",
    },
    EventGuide {
        name: "GUILD_CREATE",
        fields: &[],
        about: "an outage ends",
    },
];

const ORDERS: &[&str] = &[
    "bot",
    "token_reset",
    "guild",
    "guild_remove",
    "outage",
    "role",
    "channel",
    "channel_remove",
    "overwrite",
    "timeout",
    "stage",
    "event",
    "voice",
    "message",
    "gateway",
    "trouble",
    "knobs",
];

/// Types of channels for messages, and of stages.
const TEXT: [u64; 2] = [0, 5];
const STAGE: [u64; 1] = [13];

impl DiscordSim {
    /// Returns the first channel of one of these types in a guild.
    fn first_channel(&self, guild: u64, kinds: &[u64]) -> Result<u64, Failure> {
        let found = self.with_world(|world| {
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

impl Listed for DiscordSim {
    fn guide(&self) -> Guide {
        Guide {
            platform: "discord",
            address: self.http(),
            bases: vec![
                ("https://discord.com/api/v10", self.api_url()),
                ("wss://gateway.discord.gg", self.gateway_url()),
            ],
            views: &["world"],
            orders: ORDERS,
            events: EVENTS,
        }
    }

    fn sources(&self) -> Vec<SimSource> {
        self.with_world(|world| {
            let guilds = world.guilds.iter();
            guilds
                .map(|(id, guild)| SimSource {
                    id: id.to_string(),
                    name: guild.name.clone(),
                })
                .collect()
        })
    }

    fn trigger(
        &self,
        event: &str,
        id: &str,
        mut fields: Map<String, Value>,
    ) -> Result<(Value, u64), Failure> {
        let guild: u64 = id.parse().map_err(|_| (404, format!("no guild `{id}`")))?;
        let (order, more) = match event {
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
        let preset = more.as_object().into_iter().flatten();
        for (name, value) in preset {
            if !fields.contains_key(name) {
                let value = match (order, name.as_str()) {
                    ("message", "channel") => self.first_channel(guild, &TEXT)?.into(),
                    ("stage", "channel") => self.first_channel(guild, &STAGE)?.into(),
                    _ => value.clone(),
                };
                fields.insert(name.clone(), value);
            }
        }
        let dispatched = || self.gateway_counts().dispatched;
        count_sent(
            dispatched,
            || carry_out(self, order, with_numeric_ids(fields)),
            || {},
        )
    }
}
