//! The state of one guild as received over the gateway, and what follows from it: permissions, and what counts as a stream. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::super::channels::{self, ChannelAccess};
use super::super::super::facts;
use super::super::super::permissions::GuildRules;
use super::super::super::probe::created_at;
use super::super::super::wire::{
    Channel, GuildMember, Id, Role, Rows, ScheduledEvent, StageInstance, VoiceState, covers, guild_rules,
    lenient, readable,
};
use super::super::super::{GuildOptions, StreamFrom};
use crate::core::observation::Fact;
use crate::core::time::Timestamp;
use crate::platforms::kit::lenient::or_default;

/// A guild and its current activity.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Guild {
    /// Not serialized: the configuration has it.
    #[serde(skip)]
    pub(super) options: GuildOptions,
    pub(super) presence: Presence,
    pub(super) rules: Option<Rules>,
    pub(super) stages: BTreeMap<u64, StageInstance>,
    pub(super) events: BTreeSet<u64>,
    /// Users who are sharing their screen.
    pub(super) streaming: BTreeMap<u64, VoiceState>,
    /// Whether something that may be a stream could not be parsed, so that finding none proves nothing.
    #[serde(default)]
    pub(super) stream_unclear: bool,
    /// The stream that was last emitted, if one is live.
    pub(super) emitted_stream: Option<String>,
}

/// Whether the bot is in a guild and the guild is available.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Presence {
    /// Nothing was received yet.
    #[default]
    Unknown,
    /// The bot is in it, but the complete guild was not received yet, or the guild has an outage.
    Unavailable,
    Available,
    /// The bot is not in it.
    Gone,
}

/// What the permissions follow from.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Rules {
    pub(super) law: GuildRules,
    /// Whether a role could not be parsed. It may be any of the bot's roles that is not among the others.
    #[serde(default)]
    pub(super) has_unread_role: bool,
    pub(super) me: Option<GuildMember>,
    /// All channels and threads; stored only where channels are configured.
    pub(super) channels: BTreeMap<u64, Channel>,
}

#[derive(Deserialize)]
pub(super) struct GuildEvent {
    pub(super) id: Id,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) unavailable: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) owner_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) roles: Option<Rows<Role>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) member_count: Option<u64>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) members: Vec<GuildMember>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) channels: Vec<Channel>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) threads: Vec<Channel>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stage_instances: Rows<StageInstance>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) guild_scheduled_events: Rows<ScheduledEvent>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) voice_states: Rows<VoiceState>,
}

impl Guild {
    pub(super) fn take_over(&mut self, event: GuildEvent, me: Option<Id>) {
        let own = event
            .members
            .into_iter()
            .find(|member| member.user.as_ref().is_some_and(|user| Some(user.id) == me));
        let resume_state = !self.options.channels.is_empty();
        let channels = event
            .channels
            .into_iter()
            .chain(event.threads)
            .filter(|_| resume_state);
        self.rules = event.owner_id.zip(event.roles).map(|(owner, roles)| Rules {
            law: guild_rules(event.id, owner, &roles.read),
            has_unread_role: !roles.unread.is_empty(),
            me: own,
            channels: channels.map(|channel| (channel.id.0, channel)).collect(),
        });
        self.stream_unclear = !event.stage_instances.unread.is_empty()
            || !event.guild_scheduled_events.unread.is_empty()
            || !event.voice_states.unread.is_empty();
        self.stages = event
            .stage_instances
            .read
            .into_iter()
            .map(|stage| (stage.channel_id.0, stage))
            .collect();
        let active = event
            .guild_scheduled_events
            .read
            .iter()
            .filter(|event| event.is_active());
        self.events = active.map(|event| event.id.0).collect();
        self.streaming.clear();
        for voice in event.voice_states.read {
            self.apply_voice_state(voice);
        }
    }

    pub(super) fn amend(&mut self, event: GuildEvent) {
        let Some(rules) = &mut self.rules else {
            return;
        };
        if let Some(owner) = event.owner_id {
            rules.law.owner_id = owner.0;
        }
        if let Some(roles) = event.roles {
            rules.law.roles = guild_rules(event.id, Id(0), &roles.read).roles;
            rules.has_unread_role = !roles.unread.is_empty();
        }
    }

    pub(super) fn apply_voice_state(&mut self, voice: VoiceState) {
        if voice.streams() {
            self.streaming.insert(voice.user_id.0, voice);
        } else {
            self.streaming.remove(&voice.user_id.0);
        }
    }

    /// Returns the bot's permissions as a fact, if everything that they follow from is known.
    pub(super) fn permissions(&self, me: Option<Id>, now: Timestamp) -> Option<Vec<Fact>> {
        let rules = self.rules.as_ref()?;
        let member = rules.me.as_ref()?;
        let subject = member.subject(me?.0, now);
        if rules.has_unread_role && !covers(&rules.law, member) {
            return None;
        }
        let base = rules.law.in_guild(&subject);
        let dated = |facts: Vec<Fact>| {
            if member.has_unclear_timeout(base) {
                facts::with_unclear_timeout(facts)
            } else {
                facts
            }
        };
        if self.options.channels.is_empty() {
            return Some(dated(facts::of_guild(base).into()));
        }
        let others: Vec<_> = rules.channels.values().cloned().collect();
        let access: BTreeMap<_, _> = self
            .options
            .channels
            .iter()
            .map(|id| {
                let access = match rules.channels.get(id) {
                    Some(channel) => channels::access(&rules.law, &subject, channel, &others),
                    // Hidden, deleted or an archived thread: only a request can distinguish these.
                    None => ChannelAccess::Unknown("not sent by the gateway".to_owned()),
                };
                (*id, access)
            })
            .collect();
        Some(dated(facts::of_channels(base, channels::report(&access, base))))
    }

    /// Returns the current stream, by what counts as one.
    fn stream(&self, from: StreamFrom) -> Option<(String, Option<Timestamp>)> {
        match from {
            StreamFrom::Stage => {
                let stage = self.stages.values().min_by_key(|stage| stage.id)?;
                Some((stage.id.to_string(), Some(created_at(stage.id))))
            }
            StreamFrom::Event => self.events.first().map(|id| (id.to_string(), None)),
            StreamFrom::GoLive => {
                let voice = self.streaming.values().next()?;
                Some((voice.stream_id(), None))
            }
        }
    }

    /// Returns the stream according to the complete guild, which is equivalent to a complete poll.
    pub(super) fn whole_stream(&mut self, from: Option<StreamFrom>) -> Option<Fact> {
        let stream = self.stream(from?);
        if stream.is_none() && self.stream_unclear {
            return None;
        }
        self.emitted_stream = stream.as_ref().map(|(id, _)| id.clone());
        Some(match stream {
            Some((stream_id, started_at)) => Fact::StreamSeen {
                stream_id,
                started_at,
            },
            None => Fact::StreamAbsent,
        })
    }

    /// Returns what an event has changed about the stream.
    pub(super) fn stream_change(&mut self, from: Option<StreamFrom>) -> Option<Fact> {
        let stream = self.stream(from?);
        let id = stream.as_ref().map(|(id, _)| id.clone());
        let before = std::mem::replace(&mut self.emitted_stream, id.clone());
        if before == id {
            return None;
        }
        let (live, started_at) = (id.is_some(), stream.and_then(|(_, started_at)| started_at));
        Some(Fact::StreamPush {
            live,
            stream_id: id.or(before),
            started_at,
        })
    }
}

pub(super) fn profile(event: &GuildEvent) -> Fact {
    let mut fields = BTreeMap::from([("mode".to_owned(), "gateway".to_owned())]);
    if let Some(name) = event.name.as_ref().filter(|name| !name.is_empty()) {
        fields.insert("displayName".to_owned(), name.clone());
        fields.insert("guildName".to_owned(), name.clone());
    }
    if let Some(count) = event.member_count {
        fields.insert("memberCount".to_owned(), count.to_string());
    }
    Fact::Profile { fields }
}
