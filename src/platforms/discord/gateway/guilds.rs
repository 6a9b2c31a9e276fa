//! What the gateway's events tell about the configured guilds: whether they are there, what the bot may do in them, what is
//! going on. Pure: events in, facts out. Guilds that nobody configured are not kept.
//!
//! An event that cannot be read makes what it would have changed unknown, never wrong: nothing more is said about it until
//! the guild is told as a whole again.

mod guild;

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::guild::{GuildEvent, Presence};

pub use self::guild::Guild;
use super::super::facts;
use super::super::wire::{
    Channel, GuildMember, Id, Role, ScheduledEvent, StageInstance, VoiceState, lenient,
};
use super::super::{GuildOptions, StreamFrom};
use crate::core::observation::{Fact, LinkState, Transport};
use crate::core::time::Timestamp;

/// The configured guilds as the gateway tells them.
#[derive(Debug)]
pub struct Guilds {
    me: Option<Id>,
    stream_from: Option<StreamFrom>,
    all: BTreeMap<u64, Guild>,
    unread: u64,
    /// Whether the session has begun by announcing no guild at all.
    none_listed: bool,
}

/// What is known of the guilds, to be kept for the next process.
#[derive(Debug, Deserialize, Serialize)]
pub struct Image<G = BTreeMap<u64, Guild>> {
    me: Option<Id>,
    /// What counts as a stream decides what was asked to be told.
    stream_from: Option<String>,
    guilds: G,
}

/// Facts about guilds, by id.
pub type Told = Vec<(u64, Fact)>;

#[derive(Deserialize)]
struct ReadyEvent {
    #[serde(default, deserialize_with = "lenient")]
    user: Option<Whose>,
    #[serde(default, deserialize_with = "lenient")]
    guilds: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
struct Whose {
    id: Id,
}

#[derive(Deserialize)]
struct GuildStub {
    id: Id,
    #[serde(default, deserialize_with = "lenient")]
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

    /// Returns the bot's own user id, once it was told.
    pub fn me(&self) -> Option<u64> {
        self.me.map(|me| me.0)
    }

    /// Takes it that this is the bot until a session tells who it is, which not every server does.
    pub fn presume_me(&mut self, id: Id) {
        self.me.get_or_insert(id);
    }

    /// Returns how many events could not be read.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// Returns the guilds that are there and available.
    pub fn available(&self) -> impl Iterator<Item = u64> + '_ {
        self.with(Presence::Available)
    }

    /// Returns the guilds that the bot may be in, whether they are available or not.
    pub fn attended(&self) -> impl Iterator<Item = u64> + '_ {
        let all = self.all.iter();
        all.filter(|(_, guild)| guild.presence != Presence::Gone)
            .map(|(id, _)| *id)
    }

    /// Returns available guilds of which all that permissions follow from is known.
    pub fn exact(&self) -> impl Iterator<Item = u64> + '_ {
        let all = self.all.iter();
        all.filter(|(_, guild)| {
            guild.presence == Presence::Available
                && guild.rules.as_ref().is_some_and(|rules| rules.me.is_some())
        })
        .map(|(id, _)| *id)
    }

    /// Returns available guilds whose own member entry was not told.
    pub fn without_member(&self) -> impl Iterator<Item = u64> + '_ {
        let all = self.all.iter();
        all.filter(|(_, guild)| guild.rules.as_ref().is_some_and(|rules| rules.me.is_none()))
            .map(|(id, _)| *id)
    }

    /// Returns the channel that holds `channel`, if it is a thread that was told.
    pub fn parent_of(&self, guild: u64, channel: u64) -> Option<u64> {
        let rules = self.all.get(&guild)?.rules.as_ref()?;
        rules.channels.get(&channel)?.parent_id.map(|id| id.0)
    }

    /// Returns what is configured about a guild; `None` for one that nobody configured.
    pub fn options(&self, guild: u64) -> Option<&GuildOptions> {
        self.all.get(&guild).map(|guild| &guild.options)
    }

    fn with(&self, presence: Presence) -> impl Iterator<Item = u64> + '_ {
        let all = self.all.iter();
        all.filter(move |(_, guild)| guild.presence == presence)
            .map(|(id, _)| *id)
    }

    /// Returns what to tell of guilds that have not been told as a whole for long enough: those that were announced must suffer
    /// an outage, and the bot is in no others if none at all was announced.
    pub fn settle(&mut self) -> Told {
        let mut news: Told = self
            .with(Presence::Unavailable)
            .map(|id| (id, outage()))
            .collect();
        if std::mem::take(&mut self.none_listed) {
            for (id, guild) in &mut self.all {
                if guild.presence == Presence::Unknown {
                    guild.presence = Presence::Gone;
                    news.push((*id, not_in_guild()));
                }
            }
        }
        news
    }

    /// Takes the bot's own member entry of a guild, asked for because no event told it.
    pub fn learn_member(&mut self, id: u64, member: GuildMember, now: Timestamp) -> Told {
        let me = self.me;
        let Some(guild) = self.all.get_mut(&id) else {
            return Vec::new();
        };
        if let Some(rules) = &mut guild.rules {
            rules.me = Some(member);
        }
        told(id, guild.permissions(me, now))
    }

    /// Returns when a timeout of the bot ends next, since no event tells that.
    pub fn next_timeout_end(&self, now: Timestamp) -> Option<Timestamp> {
        let members = self
            .all
            .values()
            .filter_map(|guild| guild.rules.as_ref()?.me.as_ref());
        members
            .filter_map(|me| me.communication_disabled_until)
            .filter(|until| *until > now)
            .min()
    }

    /// Computes all permissions again, because a timeout has ended.
    pub fn recompute(&mut self, now: Timestamp) -> Told {
        let me = self.me;
        let all = self.all.iter();
        all.flat_map(|(id, guild)| told(*id, guild.permissions(me, now)))
            .collect()
    }

    /// Returns what is known, for a process that takes the session up.
    pub fn image(&self) -> Image<&BTreeMap<u64, Guild>> {
        Image {
            me: self.me,
            stream_from: self.stream_from.map(|from| format!("{from:?}")),
            guilds: &self.all,
        }
    }

    /// Takes over what an earlier process knew, if that covers what is configured now. A session tells changes only, so what
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

    /// Tells all that is known as of `now`: what an earlier process knew and the session has confirmed.
    pub fn retell(&mut self, now: Timestamp) -> Told {
        let (me, stream_from) = (self.me, self.stream_from);
        let mut news = Vec::new();
        for (id, guild) in &mut self.all {
            match guild.presence {
                Presence::Unknown => {}
                Presence::Unavailable => news.push((*id, outage())),
                Presence::Gone => news.push((*id, not_in_guild())),
                Presence::Available => {
                    news.push((*id, facts::link(Transport::Gateway, LinkState::Up)));
                    news.extend(told(*id, guild.permissions(me, now)));
                    news.extend(guild.whole_stream(stream_from).map(|fact| (*id, fact)));
                }
            }
        }
        news
    }

    /// Learns from an event.
    pub fn learn(&mut self, event: &str, data: &str, now: Timestamp) -> Told {
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
                    let kept = !guild.options.channels.is_empty();
                    if let Some(rules) = guild.rules.as_mut().filter(|_| kept) {
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
            _ => self.learn_stream(event, data, now),
        }
    }

    /// Learns from an event about what is going on.
    fn learn_stream(&mut self, event: &str, data: &str, now: Timestamp) -> Told {
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
                guild.hear_voice(voice);
            }),
            _ => Vec::new(),
        }
    }

    fn ready(&mut self, data: &str) -> Told {
        let Some(ready) = self.read::<ReadyEvent>(data) else {
            return Vec::new();
        };
        self.me = ready.user.map(|user| user.id).or(self.me);
        let told = ready.guilds.is_some();
        let stubs = ready.guilds.into_iter().flatten();
        let listed: BTreeSet<_> = stubs
            .filter_map(|stub| serde_json::from_value::<GuildStub>(stub).ok())
            .map(|guild| guild.id.0)
            .collect();
        // A server may announce no guild beforehand and yet tell all of them. That it has none is believed later.
        self.none_listed = told && listed.is_empty();
        let mut news = Vec::new();
        for (id, guild) in &mut self.all {
            // A new session tells everything again; what was known of the old one may have changed meanwhile.
            guild.rules = None;
            if listed.is_empty() {
                guild.presence = Presence::Unknown;
            } else if listed.contains(id) {
                guild.presence = Presence::Unavailable;
            } else {
                guild.presence = Presence::Gone;
                news.push((*id, not_in_guild()));
            }
        }
        news
    }

    fn guild(&mut self, data: &str, whole: bool, now: Timestamp) -> Told {
        // A guild told as a whole may be megabytes; those that nobody configured are not read.
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
            return vec![(id, outage())];
        }
        let profile = guild::profile(&event);
        let mut news = Vec::new();
        if whole {
            guild.presence = Presence::Available;
            news.push((id, facts::link(Transport::Gateway, LinkState::Up)));
            guild.take_over(event, me);
        } else {
            guild.amend(event);
        }
        news.push((id, profile));
        news.extend(told(id, guild.permissions(me, now)));
        if whole {
            news.extend(guild.whole_stream(stream_from).map(|fact| (id, fact)));
        }
        news
    }

    fn gone(&mut self, data: &str) -> Told {
        let Some(stub) = self.read::<GuildStub>(data) else {
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
            vec![(id, outage())]
        } else {
            guild.presence = Presence::Gone;
            vec![(id, not_in_guild())]
        }
    }

    /// Members other than the bot itself are told only with a privileged intent; should they come, they do not count.
    fn member(&mut self, data: &str, now: Timestamp) -> Told {
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
                told(id, guild.permissions(me, now))
            }
            _ => Vec::new(),
        }
    }

    /// Lets an event change its guild and tells what follows, for the permissions or for the stream.
    fn within<T: DeserializeOwned>(
        &mut self,
        data: &str,
        now: Timestamp,
        permissions: bool,
        change: impl FnOnce(&mut Guild, T),
    ) -> Told {
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
            told(id, guild.permissions(me, now))
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

    /// Forgets what the permissions of a guild follow from, because an event about them could not be read.
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

fn told(id: u64, facts: Option<Vec<Fact>>) -> Told {
    facts.into_iter().flatten().map(|fact| (id, fact)).collect()
}

fn outage() -> Fact {
    let message = "the guild suffers an outage at Discord";
    facts::down(Transport::Gateway, "discord.guild_unavailable", message)
}

fn not_in_guild() -> Fact {
    let message = "the bot is not a member of this guild, or there is no such guild; invite it";
    facts::refused(Transport::Gateway, "discord.not_in_guild", message)
}

#[cfg(test)]
mod tests;
