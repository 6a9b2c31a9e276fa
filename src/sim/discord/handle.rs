//! The handle of the simulated Discord: the changes of its world, and what is dispatched about them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::intents::GUILDS;
use super::sessions::{GatewayCounts, Order};
use super::shapes;
use super::specs::{ChannelSpec, GuildSpec};
use super::world::{Bot, Channel, Guild, Membership, Overwrite, Role, World, is_thread};
use crate::core::time::Timestamp;
use crate::sim::kit::PlatformSim;
use crate::sim::kit::random_text::random;

/// Handle of a simulated Discord.
pub type DiscordSim = PlatformSim<World>;

impl DiscordSim {
    /// Returns the URL that a client is configured with in place of `https://discord.com/api/v10`.
    pub fn api_url(&self) -> String {
        format!("{}/api/v10", self.http())
    }

    /// Adds a bot with its token; `flags` enable privileged intents.
    pub fn add_bot(&self, id: u64, name: &str, token: &str, flags: u64) {
        let bot = Bot {
            name: name.to_owned(),
            token: token.to_owned(),
            flags,
        };
        self.with_world(|world, _| world.bots.insert(id, bot));
    }

    /// Replaces the token of a bot, as with "Reset Token", and returns the new one. Open sessions are closed with 4004 or
    /// continue, since Discord documents neither. `None` when there is no such bot.
    pub fn reset_token(&self, bot: u64, cut: bool) -> Option<String> {
        let fresh = random(b"abcdefghijklmnopqrstuvwxyz", 24, self.host().chance());
        self.with_world(|world, _| {
            let known = world.bots.get_mut(&bot)?;
            known.token = format!("{bot}.{fresh}");
            let token = known.token.clone();
            if cut {
                world.sessions.order_all(Some(bot), &Order::Close(4004));
                world.sessions.end(Some(bot));
            }
            Some(token)
        })
    }

    /// Adds a guild with the bot in it, or changes one.
    pub fn put_guild(&self, spec: &GuildSpec) {
        let id = spec.id;
        let changed = self.with_world(|world, _| {
            let known = world.guilds.contains_key(&id);
            let bots: BTreeMap<_, _> = world
                .bots
                .keys()
                .map(|bot| {
                    let membership = Membership {
                        roles: BTreeSet::from([id + 1]),
                        timed_out_until: None,
                    };
                    (*bot, membership)
                })
                .collect();
            let guild = world.guilds.entry(id).or_insert_with(|| empty_guild(id, bots));
            if let Some(name) = &spec.name {
                guild.name.clone_from(name);
            }
            guild.owner = spec.owner.unwrap_or(guild.owner);
            guild.member_count = spec.members.unwrap_or(guild.member_count);
            guild.presence_count = spec.presences.unwrap_or(guild.presence_count);
            for (role, permissions) in [(id, spec.everyone), (id + 1, spec.bot_role)] {
                if let (Some(role), Some(permissions)) = (guild.roles.get_mut(&role), permissions) {
                    role.permissions = permissions;
                }
            }
            known
        });
        if changed {
            let shown = self.with_world(|world, _| shapes::guild(id, &world.guilds[&id], false));
            self.dispatch(id, GUILDS, "GUILD_UPDATE", &shown);
        } else {
            self.announce(id);
        }
    }

    /// Removes the bots from a guild, as when they are kicked or the guild is deleted.
    pub fn remove_guild(&self, id: u64) -> bool {
        let gone = json!({"id": id.to_string()});
        self.dispatch(id, GUILDS, "GUILD_DELETE", &gone);
        self.with_world(|world, _| world.guilds.remove(&id).is_some())
    }

    /// Starts or ends an outage of a guild.
    pub fn set_outage(&self, id: u64, outage: bool) -> bool {
        let known = self.with_world(|world, _| world.guilds.get_mut(&id).map(|guild| guild.outage = outage));
        if known.is_none() {
            return false;
        }
        if outage {
            let news = json!({"id": id.to_string(), "unavailable": true});
            self.dispatch(id, GUILDS, "GUILD_DELETE", &news);
        } else {
            self.announce(id);
        }
        true
    }

    /// Adds or changes a role and, if requested, assigns it to the bots or removes it from them.
    pub fn put_role(&self, guild: u64, role: u64, permissions: u64, held: Option<bool>) -> bool {
        let changed = self.with_world(|world, _| {
            let of = world.guilds.get_mut(&guild)?;
            let known = of.roles.contains_key(&role);
            let position = of.roles.values().map(|role| role.position + 1).max().unwrap_or(0);
            let entry = of.roles.entry(role).or_insert_with(|| Role {
                name: format!("role {role}"),
                permissions,
                position,
                bot: None,
            });
            entry.permissions = permissions;
            let shown = shapes::role(role, entry);
            if let Some(held) = held {
                for member in of.bots.values_mut() {
                    if held {
                        member.roles.insert(role);
                    } else {
                        member.roles.remove(&role);
                    }
                }
            }
            Some((known, shown))
        });
        let Some((known, shown)) = changed else {
            return false;
        };
        let event = if known {
            "GUILD_ROLE_UPDATE"
        } else {
            "GUILD_ROLE_CREATE"
        };
        let news = json!({"guild_id": guild.to_string(), "role": shown});
        self.dispatch(guild, GUILDS, event, &news);
        if held.is_some() {
            self.send_members(guild);
        }
        true
    }

    pub fn remove_role(&self, guild: u64, role: u64) -> bool {
        let removed = self.with_world(|world, _| {
            let of = world.guilds.get_mut(&guild)?;
            for member in of.bots.values_mut() {
                member.roles.remove(&role);
            }
            of.roles.remove(&role)
        });
        let news = json!({"guild_id": guild.to_string(), "role_id": role.to_string()});
        self.dispatch(guild, GUILDS, "GUILD_ROLE_DELETE", &news);
        removed.is_some()
    }

    /// Puts the bots of a guild into a timeout until this time, or ends it.
    pub fn time_out(&self, guild: u64, until: Option<Timestamp>) -> bool {
        let known = self.with_world(|world, _| {
            let of = world.guilds.get_mut(&guild)?;
            for member in of.bots.values_mut() {
                member.timed_out_until = until;
            }
            Some(())
        });
        self.send_members(guild);
        known.is_some()
    }

    /// Adds a channel or changes one.
    pub fn put_channel(&self, spec: &ChannelSpec) -> bool {
        let known = self.with_world(|world, _| {
            let guild = world.guilds.get_mut(&spec.guild)?;
            let known = guild.channels.contains_key(&spec.id);
            let channel = guild.channels.entry(spec.id).or_insert_with(|| Channel {
                kind: spec.kind,
                name: format!("channel-{}", spec.id),
                parent: None,
                overwrites: Vec::new(),
            });
            channel.kind = spec.kind;
            channel.parent = spec.parent;
            if let Some(name) = &spec.name {
                channel.name.clone_from(name);
            }
            Some(known)
        });
        if let Some(known) = known {
            self.send_channel(spec.id, if known { "UPDATE" } else { "CREATE" });
        }
        known.is_some()
    }

    pub fn remove_channel(&self, id: u64) -> bool {
        let known = self.with_world(|world, _| world.guild_of_channel(id)).is_some();
        self.send_channel(id, "DELETE");
        self.with_world(|world, _| {
            for guild in world.guilds.values_mut() {
                guild.channels.remove(&id);
            }
        });
        known
    }

    /// Sets the permissions that a channel grants or denies to a role (kind 0) or a member (kind 1); none removes the overwrite.
    pub fn set_overwrite(&self, channel: u64, target: u64, kind: u64, allow: u64, deny: u64) -> bool {
        let known = self.with_world(|world, _| {
            let guild = world.guild_of_channel(channel)?;
            let found = world.guilds.get_mut(&guild)?.channels.get_mut(&channel)?;
            found
                .overwrites
                .retain(|overwrite| (overwrite.id, overwrite.kind) != (target, kind));
            if allow != 0 || deny != 0 {
                found.overwrites.push(Overwrite {
                    id: target,
                    kind,
                    allow,
                    deny,
                });
            }
            Some(())
        });
        self.send_channel(channel, "UPDATE");
        known.is_some()
    }

    /// Returns the counts of gateway events so far.
    pub fn gateway_counts(&self) -> GatewayCounts {
        self.with_world(|world, _| world.sessions.counts())
    }

    /// Returns how many sessions have an open connection.
    pub fn live_sessions(&self) -> usize {
        self.with_world(|world, _| world.sessions.live())
    }

    /// Returns how many requests were refused within the last ten minutes of the simulation.
    pub fn invalid_requests(&self) -> usize {
        self.with_world(|world, now| world.rate_limit.invalid(now))
    }

    /// Begins a session: READY with all guilds unavailable, then one `GUILD_CREATE` for each.
    pub(super) fn begin_session(&self, bot: u64, intents: u64, shard: (u64, u64), connection: u64) -> String {
        let url = self.ws();
        self.with_world(|world, now| {
            let id = format!("{:016x}", world.fresh_id(now));
            world.sessions.begin(&id, bot, intents, shard, connection);
            let of = world.bots[&bot].clone();
            let here: Vec<_> = world
                .guilds_of(bot)
                .filter(|(guild, _)| (guild >> 22) % shard.1 == shard.0)
                .map(|(guild, of)| (guild, of.clone()))
                .collect();
            let guilds: Vec<_> = here
                .iter()
                .map(|(guild, _)| json!({"id": guild.to_string(), "unavailable": true}))
                .collect();
            let ready = json!({"v": 10, "user": shapes::user(bot, &of), "guilds": guilds, "session_id": id,
                "resume_gateway_url": format!("{url}/resume"), "shard": [shard.0, shard.1],
                "application": {"id": bot.to_string(), "flags": of.flags}, "session_type": "normal",
                "private_channels": [], "relationships": [], "_trace": ["[]"]});
            world.sessions.send(&id, "READY", &ready);
            if intents & GUILDS != 0 {
                for (guild, what) in here.iter().filter(|(_, guild)| !guild.outage) {
                    let created = shapes::guild_create(*guild, what, bot, &of, &what.bots[&bot]);
                    world.sessions.send(&id, "GUILD_CREATE", &created);
                }
            }
            id
        })
    }

    /// Sends a complete guild to all sessions that receive its events.
    fn announce(&self, guild: u64) {
        self.with_world(|world, _| {
            let Some(of) = world.guilds.get(&guild).cloned() else {
                return;
            };
            let bots: Vec<_> = of.bots.keys().copied().collect();
            for (session, bot) in world.sessions.hearing(&bots, guild, GUILDS) {
                let created = shapes::guild_create(guild, &of, bot, &world.bots[&bot], &of.bots[&bot]);
                world.sessions.send(&session, "GUILD_CREATE", &created);
            }
        });
    }

    /// Sends to every bot of a guild its own member entry; no intent is needed for that.
    fn send_members(&self, guild: u64) {
        self.with_world(|world, _| {
            let Some(of) = world.guilds.get(&guild).cloned() else {
                return;
            };
            let bots: Vec<_> = of.bots.keys().copied().collect();
            for (session, bot) in world.sessions.hearing(&bots, guild, 0) {
                let mut member = shapes::member(bot, &world.bots[&bot], &of.bots[&bot]);
                member["guild_id"] = guild.to_string().into();
                world.sessions.send(&session, "GUILD_MEMBER_UPDATE", &member);
            }
        });
    }

    fn send_channel(&self, id: u64, what: &str) {
        let reported = self.with_world(|world, _| {
            let guild = world.guild_of_channel(id)?;
            let channel = &world.guilds[&guild].channels[&id];
            let kind = if is_thread(channel.kind) {
                "THREAD"
            } else {
                "CHANNEL"
            };
            Some((guild, kind, shapes::channel(id, guild, channel)))
        });
        if let Some((guild, kind, shown)) = reported {
            self.dispatch(guild, GUILDS, &format!("{kind}_{what}"), &shown);
        }
    }

    pub(super) fn dispatch(&self, guild: u64, intent: u64, event: &str, data: &Value) {
        self.with_world(|world, _| {
            let Some(of) = world.guilds.get(&guild) else {
                return;
            };
            let bots: Vec<_> = of.bots.keys().copied().collect();
            for (session, _) in world.sessions.hearing(&bots, guild, intent) {
                world.sessions.send(&session, event, data);
            }
        });
    }
}

fn empty_guild(id: u64, bots: BTreeMap<u64, Membership>) -> Guild {
    let role = |name: &str, permissions, position, bot| Role {
        name: name.to_owned(),
        permissions,
        position,
        bot,
    };
    let own = bots.keys().next().copied();
    Guild {
        name: format!("guild {id}"),
        owner: 77,
        outage: false,
        member_count: 120,
        presence_count: 31,
        // Everyone: add reactions, view, send, connect, speak. The bot's own role: view, send, manage messages, read history.
        roles: BTreeMap::from([
            (id, role("@everyone", 3_148_864, 0, None)),
            (id + 1, role("bot", 76_800, 1, own)),
        ]),
        bots,
        channels: BTreeMap::new(),
        stages: BTreeMap::new(),
        events: BTreeMap::new(),
        voices: BTreeMap::new(),
    }
}
