//! What the gateway's events mean for the configured guilds: whether they exist, what the bot may do in them, and their current
//! activity. Pure: events in, facts out. Guilds that are not configured are not stored.
//!
//! An event that cannot be parsed makes what it would have changed unknown, never wrong: nothing more is reported about it until
//! the complete guild is received again.

mod guild;

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::guild::{GuildEvent, Presence};

pub use self::guild::Guild;
use super::super::facts;
use super::super::wire::{
    Channel, GuildMember, Id, Role, Rows, ScheduledEvent, StageInstance, Timeout, VoiceState, lenient,
};
use super::super::{GuildOptions, StreamFrom};
use crate::core::code::Code;
use crate::core::observation::{Fact, Transport};
use crate::core::time::Timestamp;

/// The state of the configured guilds as received over the gateway.
#[derive(Debug)]
pub struct Guilds {
    me: Option<Id>,
    stream_from: Option<StreamFrom>,
    all: BTreeMap<u64, Guild>,
    unread: u64,
    /// Whether the session began without announcing any guild.
    none_listed: bool,
}

/// The state of the guilds, to be stored for the next process.
#[derive(Debug, Deserialize, Serialize)]
pub struct Image<G = BTreeMap<u64, Guild>> {
    me: Option<Id>,
    /// What counts as a stream, which determines the subscribed events.
    stream_from: Option<String>,
    guilds: G,
}

/// Facts about guilds, by id.
pub type GuildFacts = Vec<(u64, Fact)>;

#[derive(Deserialize)]
struct ReadyEvent {
    #[serde(default, deserialize_with = "lenient")]
    user: Option<Whose>,
    #[serde(default, deserialize_with = "lenient")]
    guilds: Option<Rows<GuildStub>>,
}

#[derive(Deserialize)]
struct Whose {
    id: Id,
}

#[derive(Deserialize)]
struct GuildStub {
    id: Id,
    /// An outage or a removal follows from it, so one that cannot be parsed proves neither.
    #[serde(default)]
    unavailable: Option<bool>,
}

/// An event about something in a guild.
#[derive(Deserialize)]
struct Within<T> {
    guild_id: Id,
    #[serde(flatten)]
    what: T,
}

#[derive(Deserialize)]
struct RoleEvent {
    role: Role,
}

#[derive(Deserialize)]
struct RoleGone {
    role_id: Id,
}

#[derive(Deserialize)]
struct Nothing {}

impl Guilds {
    /// Prepares to follow `guilds` with what is configured about them.
    pub fn new(
        guilds: impl IntoIterator<Item = (u64, GuildOptions)>,
        stream_from: Option<StreamFrom>,
    ) -> Self {
        Self {
            me: None,
            stream_from,
            all: guilds
                .into_iter()
                .map(|(id, options)| {
                    let guild = Guild {
                        options,
                        ..Guild::default()
                    };
                    (id, guild)
                })
                .collect(),
            unread: 0,
            none_listed: false,
        }
    }

    /// Returns the bot's own user id, once it was received.
    pub fn me(&self) -> Option<u64> {
        self.me.map(|me| me.0)
    }

    /// Assumes that this is the bot until a session reports its user, which not every server does.
    pub fn assume_bot_user(&mut self, id: Id) {
        self.me.get_or_insert(id);
    }

    /// Returns how many events could not be parsed.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// Returns the guilds that the bot is in and that are available.
    pub fn available(&self) -> impl Iterator<Item = u64> + '_ {
        self.with(Presence::Available)
    }

    /// Returns the guilds that the bot may be in, whether they are available or not.
    pub fn monitored(&self) -> impl Iterator<Item = u64> + '_ {
        let all = self.all.iter();
        all.filter(|(_, guild)| guild.presence != Presence::Gone)
            .map(|(id, _)| *id)
    }

    /// Returns available guilds for which everything that permissions follow from is known.
    pub fn exact(&self) -> impl Iterator<Item = u64> + '_ {
        let all = self.all.iter();
        all.filter(|(_, guild)| {
            guild.presence == Presence::Available
                && guild.rules.as_ref().is_some_and(|rules| rules.me.is_some())
        })
        .map(|(id, _)| *id)
    }

    /// Returns available guilds whose own member entry was not received.
    pub fn without_member(&self) -> impl Iterator<Item = u64> + '_ {
        let all = self.all.iter();
        all.filter(|(_, guild)| guild.rules.as_ref().is_some_and(|rules| rules.me.is_none()))
            .map(|(id, _)| *id)
    }

    /// Returns the parent of `channel`, if it is a thread that was received.
    pub fn parent_of(&self, guild: u64, channel: u64) -> Option<u64> {
        let rules = self.all.get(&guild)?.rules.as_ref()?;
        rules.channels.get(&channel)?.parent_id.map(|id| id.0)
    }

    /// Returns the configuration of a guild; `None` for one that is not configured.
    pub fn options(&self, guild: u64) -> Option<&GuildOptions> {
        self.all.get(&guild).map(|guild| &guild.options)
    }

    fn with(&self, presence: Presence) -> impl Iterator<Item = u64> + '_ {
        let all = self.all.iter();
        all.filter(move |(_, guild)| guild.presence == presence)
            .map(|(id, _)| *id)
    }

    /// Returns facts about guilds that were not received completely for long enough: those that were announced must have an
    /// outage, and the bot is in no others if none at all was announced.
    pub fn report_missing(&mut self) -> GuildFacts {
        let mut updates: GuildFacts = self.with(Presence::Unavailable).flat_map(outage).collect();
        if std::mem::take(&mut self.none_listed) {
            for (id, guild) in &mut self.all {
                if guild.presence == Presence::Unknown {
                    guild.presence = Presence::Gone;
                    updates.extend(not_in_guild(*id));
                }
            }
        }
        updates
    }

    /// Applies the bot's own member entry of a guild, requested because no event contained it.
    pub fn apply_member(&mut self, id: u64, member: GuildMember, now: Timestamp) -> GuildFacts {
        let me = self.me;
        let Some(guild) = self.all.get_mut(&id) else {
            return Vec::new();
        };
        if let Some(rules) = &mut guild.rules {
            rules.me = Some(member);
        }
        facts_of(id, guild.permissions(me, now))
    }

    /// Returns when a timeout of the bot next expires, since no event reports that.
    pub fn next_timeout_end(&self, now: Timestamp) -> Option<Timestamp> {
        let members = self
            .all
            .values()
            .filter_map(|guild| guild.rules.as_ref()?.me.as_ref());
        members
            .filter_map(|me| match me.communication_disabled_until {
                Timeout::Until(until) => Some(until),
                Timeout::None | Timeout::Unreadable => None,
            })
            .filter(|until| *until > now)
            .min()
    }

    /// Computes all permissions again, because a timeout has expired.
    pub fn recompute(&mut self, now: Timestamp) -> GuildFacts {
        let me = self.me;
        let all = self.all.iter();
        all.flat_map(|(id, guild)| facts_of(*id, guild.permissions(me, now)))
            .collect()
    }

    /// Returns the state, for a process that resumes the session.
    pub fn image(&self) -> Image<&BTreeMap<u64, Guild>> {
        Image {
            me: self.me,
            stream_from: self.stream_from.map(|from| format!("{from:?}")),
            guilds: &self.all,
        }
    }

    /// Restores the state of an earlier process, if that covers the current configuration. A session sends changes only, so what
    /// was not known before would stay unknown.
    pub fn recall(&mut self, image: Image) -> bool {
        let covered = self.all.iter().all(|(id, guild)| {
            let known = image.guilds.get(id);
            let channels_kept = |known: &Guild| {
                known
                    .rules
                    .as_ref()
                    .is_none_or(|rules| !rules.channels.is_empty())
            };
            known.is_some_and(|known| guild.options.channels.is_empty() || channels_kept(known))
        });
        if !covered || image.stream_from != self.image().stream_from {
            return false;
        }
        self.me = image.me;
        for (id, known) in image.guilds {
            if let Some(guild) = self.all.get_mut(&id) {
                let options = std::mem::take(&mut guild.options);
                *guild = Guild { options, ..known };
            }
        }
        true
    }

    /// Returns all facts as of `now`: the state of an earlier process, confirmed by the session.
    pub fn republish(&mut self, now: Timestamp) -> GuildFacts {
        let (me, stream_from) = (self.me, self.stream_from);
        let mut updates = Vec::new();
        for (id, guild) in &mut self.all {
            match guild.presence {
                Presence::Unknown => {}
                Presence::Unavailable => updates.extend(outage(*id)),
                Presence::Gone => updates.extend(not_in_guild(*id)),
                Presence::Available => {
                    updates.extend(member(*id, facts::up(Transport::Gateway)));
                    updates.extend(facts_of(*id, guild.permissions(me, now)));
                    updates.extend(guild.whole_stream(stream_from).map(|fact| (*id, fact)));
                }
            }
        }
        updates
    }

    pub fn update(&mut self, event: &str, data: &str, now: Timestamp) -> GuildFacts {
        match event {
            "READY" => self.ready(data),
            "GUILD_CREATE" => self.guild(data, true, now),
            "GUILD_UPDATE" => self.guild(data, false, now),
            "GUILD_DELETE" => self.gone(data),
            "GUILD_ROLE_CREATE" | "GUILD_ROLE_UPDATE" => {
                self.within(data, now, true, |guild, event: RoleEvent| {
                    if let Some(rules) = &mut guild.rules {
                        rules.law.roles.insert(event.role.id.0, event.role.permissions);
                    }
                })
            }
            "GUILD_ROLE_DELETE" => self.within(data, now, true, |guild, event: RoleGone| {
                if let Some(rules) = &mut guild.rules {
                    rules.law.roles.remove(&event.role_id.0);
                }
            }),
            "CHANNEL_CREATE" | "CHANNEL_UPDATE" | "THREAD_CREATE" | "THREAD_UPDATE" => {
                self.within(data, now, true, |guild, channel: Channel| {
                    let resume_state = !guild.options.channels.is_empty();
                    if let Some(rules) = guild.rules.as_mut().filter(|_| resume_state) {
                        rules.channels.insert(channel.id.0, channel);
                    }
                })
            }
            "CHANNEL_DELETE" | "THREAD_DELETE" => self.within(data, now, true, |guild, channel: Whose| {
                if let Some(rules) = &mut guild.rules {
                    rules.channels.remove(&channel.id.0);
                }
                guild.stages.remove(&channel.id.0);
            }),
            "GUILD_MEMBER_UPDATE" => self.member(data, now),
            _ => self.apply_stream_event(event, data, now),
        }
    }

    /// Applies an event about current activity.
    fn apply_stream_event(&mut self, event: &str, data: &str, now: Timestamp) -> GuildFacts {
        if self.stream_from.is_none() {
            return Vec::new();
        }
        match event {
            "STAGE_INSTANCE_CREATE" | "STAGE_INSTANCE_UPDATE" => {
                self.within(data, now, false, |guild, stage: StageInstance| {
                    guild.stages.insert(stage.channel_id.0, stage);
                })
            }
            "STAGE_INSTANCE_DELETE" => self.within(data, now, false, |guild, stage: StageInstance| {
                guild.stages.remove(&stage.channel_id.0);
            }),
            "GUILD_SCHEDULED_EVENT_CREATE" | "GUILD_SCHEDULED_EVENT_UPDATE" => {
                self.within(data, now, false, |guild, event: ScheduledEvent| {
                    if event.is_active() {
                        guild.events.insert(event.id.0);
                    } else {
                        guild.events.remove(&event.id.0);
                    }
                })
            }
            "GUILD_SCHEDULED_EVENT_DELETE" => self.within(data, now, false, |guild, event: Whose| {
                guild.events.remove(&event.id.0);
            }),
            "VOICE_STATE_UPDATE" => self.within(data, now, false, |guild, voice: VoiceState| {
                guild.apply_voice_state(voice);
            }),
            _ => Vec::new(),
        }
    }

    fn ready(&mut self, data: &str) -> GuildFacts {
        let Some(ready) = self.read::<ReadyEvent>(data) else {
            return Vec::new();
        };
        self.me = ready.user.map(|user| user.id).or(self.me);
        let announced = ready.guilds.is_some();
        let Rows { read: stubs, unread } = ready.guilds.unwrap_or_default();
        let listed: BTreeSet<_> = stubs.into_iter().map(|guild| guild.id.0).collect();
        // A row that cannot be parsed may be about any guild that is not listed.
        let is_complete = unread.is_empty();
        // A server may announce no guild beforehand and yet send all of them. That there is none is concluded later.
        self.none_listed = announced && is_complete && listed.is_empty();
        let mut updates = Vec::new();
        for (id, guild) in &mut self.all {
            // A new session sends everything again; the state of the old one may have changed meanwhile.
            guild.rules = None;
            if listed.contains(id) {
                guild.presence = Presence::Unavailable;
            } else if listed.is_empty() || !is_complete {
                guild.presence = Presence::Unknown;
            } else {
                guild.presence = Presence::Gone;
                updates.extend(not_in_guild(*id));
            }
        }
        updates
    }

    fn guild(&mut self, data: &str, whole: bool, now: Timestamp) -> GuildFacts {
        // A complete guild may be megabytes; those that are not configured are not parsed.
        if serde_json::from_str::<Whose>(data).is_ok_and(|event| !self.all.contains_key(&event.id.0)) {
            return Vec::new();
        }
        let Some(event) = self.read::<GuildEvent>(data) else {
            self.doubt(data);
            return Vec::new();
        };
        let (id, me, stream_from) = (event.id.0, self.me, self.stream_from);
        let Some(guild) = self.all.get_mut(&id) else {
            return Vec::new();
        };
        if event.unavailable == Some(true) {
            guild.presence = Presence::Unavailable;
            guild.rules = None;
            return outage(id).to_vec();
        }
        let profile = guild::profile(&event);
        // The profile comes first, so that the event of a change contains the name.
        let mut updates = vec![(id, profile)];
        if whole {
            guild.presence = Presence::Available;
            updates.extend(member(id, facts::up(Transport::Gateway)));
            guild.take_over(event, me);
        } else {
            guild.amend(event);
        }
        updates.extend(facts_of(id, guild.permissions(me, now)));
        if whole {
            updates.extend(guild.whole_stream(stream_from).map(|fact| (id, fact)));
        }
        updates
    }

    fn gone(&mut self, data: &str) -> GuildFacts {
        let Some(stub) = self.read::<GuildStub>(data) else {
            self.doubt(data);
            return Vec::new();
        };
        let id = stub.id.0;
        let Some(guild) = self.all.get_mut(&id) else {
            return Vec::new();
        };
        guild.rules = None;
        // Only with `unavailable` is it an outage; without, the bot was removed or the guild deleted.
        if stub.unavailable == Some(true) {
            guild.presence = Presence::Unavailable;
            outage(id).to_vec()
        } else {
            guild.presence = Presence::Gone;
            not_in_guild(id).to_vec()
        }
    }

    /// Members other than the bot itself are sent only with a privileged intent; if received, they are ignored.
    fn member(&mut self, data: &str, now: Timestamp) -> GuildFacts {
        let Some(event) = self.read::<Within<GuildMember>>(data) else {
            self.doubt(data);
            return Vec::new();
        };
        let (id, me) = (event.guild_id.0, self.me);
        let own = event.what.user.as_ref().is_some_and(|user| Some(user.id) == me);
        match self.all.get_mut(&id) {
            Some(guild) if own => {
                if let Some(rules) = &mut guild.rules {
                    rules.me = Some(event.what);
                }
                facts_of(id, guild.permissions(me, now))
            }
            _ => Vec::new(),
        }
    }

    /// Applies an event to its guild and returns what follows, for the permissions or for the stream.
    fn within<T: DeserializeOwned>(
        &mut self,
        data: &str,
        now: Timestamp,
        permissions: bool,
        change: impl FnOnce(&mut Guild, T),
    ) -> GuildFacts {
        let Some(event) = self.read::<Within<T>>(data) else {
            if permissions {
                self.doubt(data);
            }
            return Vec::new();
        };
        let (id, me, stream_from) = (event.guild_id.0, self.me, self.stream_from);
        let Some(guild) = self.all.get_mut(&id) else {
            return Vec::new();
        };
        change(guild, event.what);
        if permissions {
            facts_of(id, guild.permissions(me, now))
        } else {
            guild
                .stream_change(stream_from)
                .map(|fact| (id, fact))
                .into_iter()
                .collect()
        }
    }

    fn read<T: DeserializeOwned>(&mut self, data: &str) -> Option<T> {
        let read = serde_json::from_str(data).ok();
        self.unread += u64::from(read.is_none());
        read
    }

    /// Discards what the permissions of a guild follow from, because an event about them could not be parsed.
    fn doubt(&mut self, data: &str) {
        let id = serde_json::from_str::<Within<Nothing>>(data).map(|event| event.guild_id);
        let id = id.or_else(|_| serde_json::from_str::<Whose>(data).map(|event| event.id));
        for (known, guild) in &mut self.all {
            if id.as_ref().map_or(true, |id| id.0 == *known) {
                guild.rules = None;
            }
        }
    }
}

fn facts_of(id: u64, facts: Option<Vec<Fact>>) -> GuildFacts {
    facts.into_iter().flatten().map(|fact| (id, fact)).collect()
}

/// The bot is a member of the guild, which is temporarily unavailable at Discord.
fn outage(id: u64) -> [(u64, Fact); 2] {
    let message = "the guild suffers an outage at Discord";
    let down = facts::down(Transport::Gateway, Code::DiscordGuildUnavailable, message);
    member(id, down)
}

/// The bot is a member of the guild, with this state of the link. The state comes first: a guild that the bot has joined again
/// must not be judged by the link that it had before.
fn member(id: u64, link: Fact) -> [(u64, Fact); 2] {
    [(id, link), (id, Fact::Exists)]
}

fn not_in_guild(id: u64) -> [(u64, Fact); 2] {
    facts::not_in_guild(Transport::Gateway).map(|fact| (id, fact))
}

#[cfg(test)]
mod tests;
