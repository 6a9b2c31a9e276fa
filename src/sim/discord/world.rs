//! The state of the simulated Discord: bots, guilds, roles, channels, and activity in them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::knobs::Knobs;
use super::rate_limit::RateLimit;
use super::sessions::Sessions;
use crate::core::time::Timestamp;

/// The mutable state of the simulated Discord.
#[derive(Debug, Default)]
pub struct World {
    pub(super) bots: BTreeMap<u64, Bot>,
    pub(super) guilds: BTreeMap<u64, Guild>,
    pub(super) rate_limit: RateLimit,
    pub(super) sessions: Sessions,
    pub(super) knobs: Knobs,
    last_id: u64,
}

/// A bot and its application, which share one id here.
#[derive(Debug, Clone)]
pub(super) struct Bot {
    pub(super) name: String,
    pub(super) token: String,
    /// Which privileged intents are enabled.
    pub(super) flags: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Guild {
    pub(super) name: String,
    pub(super) owner: u64,
    /// Whether it has an outage.
    pub(super) outage: bool,
    pub(super) member_count: u64,
    pub(super) presence_count: u64,
    pub(super) roles: BTreeMap<u64, Role>,
    /// The bots in it; other members only count as a number.
    pub(super) bots: BTreeMap<u64, Membership>,
    pub(super) channels: BTreeMap<u64, Channel>,
    /// Live stage instances, by channel.
    pub(super) stages: BTreeMap<u64, Stage>,
    pub(super) events: BTreeMap<u64, Event>,
    /// Voice states, by user.
    pub(super) voices: BTreeMap<u64, Voice>,
}

#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) permissions: u64,
    /// Its position in the order of roles; `@everyone` has 0.
    pub(super) position: u64,
    /// The bot whose own role it is. Discord manages such a role: it cannot be assigned manually.
    pub(super) bot: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Membership {
    pub(super) roles: BTreeSet<u64>,
    pub(super) timed_out_until: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) kind: u64,
    pub(super) name: String,
    pub(super) parent: Option<u64>,
    pub(super) overwrites: Vec<Overwrite>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Overwrite {
    pub(super) id: u64,
    /// 0 for a role, 1 for a member.
    pub(super) kind: u64,
    pub(super) allow: u64,
    pub(super) deny: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) id: u64,
    pub(super) topic: String,
}

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) status: u64,
    pub(super) channel: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct Voice {
    pub(super) channel: u64,
    pub(super) streaming: bool,
}

const ADMINISTRATOR: u64 = 1 << 3;
const VIEW_CHANNEL: u64 = 1 << 10;

impl World {
    /// Returns a new id that contains `now`, as Discord's do.
    pub(super) fn fresh_id(&mut self, now: Timestamp) -> u64 {
        let since = now.as_millis().saturating_sub(1_420_070_400_000).max(0);
        let made = u64::try_from(since).unwrap_or(0) << 22;
        self.last_id = made.max(self.last_id + 1);
        self.last_id
    }

    /// Returns the bot that a token belongs to.
    pub(super) fn bot_of(&self, token: &str) -> Option<u64> {
        let found = self.bots.iter().find(|(_, bot)| bot.token == token);
        found.map(|(id, _)| *id)
    }

    pub(super) fn guilds_of(&self, bot: u64) -> impl Iterator<Item = (u64, &Guild)> {
        self.guilds
            .iter()
            .filter(move |(_, guild)| guild.bots.contains_key(&bot))
            .map(|(id, guild)| (*id, guild))
    }

    pub(super) fn guild_of_channel(&self, channel: u64) -> Option<u64> {
        let found = self
            .guilds
            .iter()
            .find(|(_, guild)| guild.channels.contains_key(&channel));
        found.map(|(id, _)| *id)
    }

    /// Returns the actual state, as the controls show it.
    pub(super) fn to_json(&self, now: Timestamp) -> Value {
        let guilds: Vec<_> = self
            .guilds
            .iter()
            .map(|(id, guild)| {
                json!({"id": id.to_string(), "name": guild.name, "outage": guild.outage,
                    "bots": guild.bots.keys().map(u64::to_string).collect::<Vec<_>>(),
                    "channels": guild.channels.keys().map(u64::to_string).collect::<Vec<_>>(),
                    "stages": guild.stages.len(), "events": guild.events.len(), "voices": guild.voices.len()})
            })
            .collect();
        let bots: Vec<_> = self
            .bots
            .iter()
            .map(|(id, bot)| json!({"id": id.to_string(), "name": bot.name, "flags": bot.flags}))
            .collect();
        json!({"bots": bots, "guilds": guilds, "gateway": self.sessions.to_json(),
            "invalid_requests": self.rate_limit.invalid(now)})
    }
}

impl Guild {
    /// Returns a bot's permissions in the guild: the plain sum of its roles, everything for the owner.
    pub(super) fn permissions(&self, id: u64, bot: u64) -> u64 {
        if self.owner == bot {
            return (1 << 53) - 1 - (1 << 47);
        }
        let roles = self.bots.get(&bot).map(|member| &member.roles);
        let held = roles.into_iter().flatten().chain(std::iter::once(&id));
        held.filter_map(|role| self.roles.get(role))
            .fold(0, |sum, role| sum | role.permissions)
    }

    pub(super) fn sees(&self, id: u64, bot: u64, channel: &Channel) -> bool {
        let base = self.permissions(id, bot);
        if self.owner == bot || base & ADMINISTRATOR != 0 {
            return true;
        }
        let overwrites = match channel.parent.filter(|_| is_thread(channel.kind)) {
            Some(parent) => match self.channels.get(&parent) {
                Some(parent) => &parent.overwrites,
                None => return false,
            },
            None => &channel.overwrites,
        };
        let mut sees = base & VIEW_CHANNEL != 0;
        let mine = self.bots.get(&bot).map(|member| &member.roles);
        for level in 0..3 {
            let concerned = overwrites.iter().filter(|overwrite| match level {
                0 => overwrite.kind == 0 && overwrite.id == id,
                1 => {
                    overwrite.kind == 0
                        && overwrite.id != id
                        && mine.is_some_and(|roles| roles.contains(&overwrite.id))
                }
                _ => overwrite.kind == 1 && overwrite.id == bot,
            });
            let (mut allow, mut deny) = (false, false);
            for overwrite in concerned {
                allow |= overwrite.allow & VIEW_CHANNEL != 0;
                deny |= overwrite.deny & VIEW_CHANNEL != 0;
            }
            sees = (sees && !deny) || allow;
        }
        sees
    }
}

/// Returns whether a channel of this kind is a thread, which lists of channels leave out.
pub(super) fn is_thread(kind: u64) -> bool {
    (10..=12).contains(&kind)
}
