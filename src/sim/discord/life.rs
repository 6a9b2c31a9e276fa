//! Activity in the simulated guilds: stages, events, voice, chat, and faults of the gateway's connections.

use serde_json::{Value, json};

use super::handle::DiscordSim;
use super::intents::{CONTENT, EVENTS, GUILDS, MESSAGES, VOICE_STATES};
use super::sessions::Order;
use super::shapes;
use super::specs::{Author, GatewayAct, MessageSpec};
use super::world::{Bot, Event, Stage, Voice, World};
use crate::core::time::Timestamp;

impl DiscordSim {
    /// Starts a stage instance, or ends it; returns its id.
    pub fn set_stage(&self, channel: u64, topic: Option<&str>) -> Option<u64> {
        let (guild, stage, event) = self.with_world(|world, now| {
            let guild = world.guild_of_channel(channel)?;
            let fresh = world.fresh_id(now);
            let stages = &mut world.guilds.get_mut(&guild)?.stages;
            if let Some(topic) = topic {
                let known = stages.contains_key(&channel);
                let stage = stages.entry(channel).or_insert_with(|| Stage {
                    id: fresh,
                    topic: String::new(),
                });
                topic.clone_into(&mut stage.topic);
                let event = if known {
                    "STAGE_INSTANCE_UPDATE"
                } else {
                    "STAGE_INSTANCE_CREATE"
                };
                Some((guild, stage.clone(), event))
            } else {
                Some((guild, stages.remove(&channel)?, "STAGE_INSTANCE_DELETE"))
            }
        })?;
        self.dispatch(guild, GUILDS, event, &shapes::stage(guild, channel, &stage));
        Some(stage.id)
    }

    /// Sets the state of a scheduled event: 1 scheduled, 2 active, 3 completed, 4 canceled.
    pub fn set_event(&self, guild: u64, id: u64, status: u64) -> bool {
        let reported = self.with_world(|world, _| {
            let events = &mut world.guilds.get_mut(&guild)?.events;
            let known = events.contains_key(&id);
            let event = events.entry(id).or_insert_with(|| Event {
                name: format!("event {id}"),
                status,
                channel: None,
            });
            event.status = status;
            Some((known, shapes::event(guild, id, event)))
        });
        let Some((known, shown)) = reported else {
            return false;
        };
        let event = if known {
            "GUILD_SCHEDULED_EVENT_UPDATE"
        } else {
            "GUILD_SCHEDULED_EVENT_CREATE"
        };
        self.dispatch(guild, EVENTS, event, &shown);
        true
    }

    /// Moves a user into a voice channel (out of voice when `None`), streaming or not.
    pub fn set_voice(&self, guild: u64, user: u64, channel: Option<u64>, streaming: bool) -> bool {
        let reported = self.with_world(|world, _| {
            let voices = &mut world.guilds.get_mut(&guild)?.voices;
            match channel {
                Some(channel) => voices.insert(user, Voice { channel, streaming }),
                None => voices.remove(&user),
            };
            Some(shapes::voice(guild, user, voices.get(&user)))
        });
        if let Some(shown) = &reported {
            self.dispatch(guild, VOICE_STATES, "VOICE_STATE_UPDATE", shown);
        }
        reported.is_some()
    }

    /// Sends messages; returns their ids.
    pub fn send_messages(&self, spec: &MessageSpec) -> Vec<u64> {
        let Some(guild) = self.with_world(|world, _| world.guild_of_channel(spec.channel)) else {
            return Vec::new();
        };
        let ids: Vec<_> = (0..spec.count)
            .map(|n| match spec.id {
                Some(id) => id + u64::from(n),
                None => self.with_world(World::fresh_id),
            })
            .collect();
        for id in ids.iter().flat_map(|id| (0..spec.copies).map(move |_| *id)) {
            self.with_world(|world, now| {
                let bots: Vec<_> = world.bots.keys().copied().collect();
                for (session, bot) in world.sessions.hearing(&bots, guild, MESSAGES) {
                    let of = &world.guilds[&guild];
                    let can_see = of
                        .channels
                        .get(&spec.channel)
                        .is_some_and(|channel| of.sees(guild, bot, channel));
                    if can_see {
                        let reads = world.sessions.intents(&session) & CONTENT != 0;
                        let shown = message(spec, id, guild, (bot, &world.bots[&bot]), reads, now);
                        world.sessions.send(&session, "MESSAGE_CREATE", &shown);
                    }
                }
            });
        }
        ids
    }

    /// Applies an act to all open connections.
    pub fn gateway(&self, act: &GatewayAct) {
        self.with_world(|world, now| {
            let frame =
                |op: u64, d: Value| Order::Send(json!({"op": op, "d": d, "s": null, "t": null}).to_string());
            let order = match act {
                GatewayAct::Close(code) => Order::Close(*code),
                GatewayAct::Reset => Order::Reset,
                GatewayAct::Freeze => Order::Freeze,
                GatewayAct::Reconnect => frame(7, Value::Null),
                GatewayAct::Invalid(resumable) => {
                    if *resumable {
                        world.sessions.detach(now);
                    } else {
                        world.sessions.end(None);
                    }
                    Order::Invalid(*resumable)
                }
                GatewayAct::Heartbeat => frame(1, Value::Null),
                GatewayAct::Frame(frame) => Order::Send(frame.to_string()),
                GatewayAct::Event(name, data) => {
                    let bots: Vec<_> = world.bots.keys().copied().collect();
                    for (session, _) in world.sessions.hearing(&bots, 0, 0) {
                        world.sessions.send(&session, name, data);
                    }
                    return;
                }
            };
            world.sessions.order_all(None, &order);
        });
    }
}

/// A message as one session receives it. Without the intent for content it is empty, unless the message is the bot's own
/// or mentions it.
fn message(
    spec: &MessageSpec,
    id: u64,
    guild: u64,
    (me, bot): (u64, &Bot),
    reads: bool,
    now: Timestamp,
) -> Value {
    let own = spec.author == Author::Itself;
    let other = |id: u64, name: &str| {
        let mut user = shapes::person(id);
        user["username"] = name.into();
        user["bot"] = true.into();
        user
    };
    let author = match spec.author {
        Author::Person => shapes::person(77),
        Author::Itself => shapes::user(me, bot),
        Author::OtherBot => other(5_005, "otherbot"),
        Author::Webhook => other(6_006, "hook"),
    };
    let mentioned = spec.content.contains(&format!("<@{me}>"));
    let content = if own || mentioned || reads {
        spec.content.as_str()
    } else {
        ""
    };
    let mentions: Vec<_> = mentioned.then(|| shapes::user(me, bot)).into_iter().collect();
    let mut reported = json!({"id": id.to_string(), "channel_id": spec.channel.to_string(), "guild_id": guild.to_string(),
        "author": author, "content": content, "timestamp": shapes::time(now), "edited_timestamp": null, "tts": false,
        "mention_everyone": false, "mentions": mentions, "mention_roles": [], "attachments": [], "embeds": [],
        "components": [], "pinned": false, "type": spec.kind, "flags": 0});
    match spec.author {
        Author::Webhook => reported["webhook_id"] = "6006".into(),
        _ => {
            reported["member"] = json!({"roles": [], "joined_at": "2026-01-01T00:00:00+00:00", "deaf": false,
                "mute": false, "flags": 0});
        }
    }
    reported
}
