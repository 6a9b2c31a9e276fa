//! One guild as the gateway tells it, and what follows from that: permissions, and what counts as a stream. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::super::channels::{self, Access};
use super::super::super::facts::PERMISSIONS;
use super::super::super::permissions::GuildRules;
use super::super::super::streams::created_at;
use super::super::super::wire::{
    Channel, GuildMember, Id, Role, ScheduledEvent, StageInstance, VoiceState, lenient, readable,
};
use super::super::super::{GuildOptions, StreamFrom};
use crate::core::observation::Fact;
use crate::core::time::Timestamp;

/// A guild and what is going on in it.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Guild {
    /// Not kept: the configuration has it.
    #[serde(skip)]
    pub(super) options: GuildOptions,
    pub(super) presence: Presence,
    pub(super) rules: Option<Rules>,
    pub(super) stages: BTreeMap<u64, StageInstance>,
    pub(super) events: BTreeSet<u64>,
    /// Users who share their screen.
    pub(super) streaming: BTreeMap<u64, VoiceState>,
    /// The stream that was last told, if one is.
    pub(super) told_stream: Option<String>,
}

/// Whether a guild is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Presence {
    /// Nothing was told yet.
    #[default]
    Unknown,
    /// The bot is in it, but it was not told as a whole yet, or suffers an outage.
    Unavailable,
    Available,
    /// The bot is not in it.
    Gone,
}

/// What permissions follow from.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Rules {
    pub(super) law: GuildRules,
    pub(super) me: Option<GuildMember>,
    /// All channels and threads; kept only where channels are configured.
    pub(super) channels: BTreeMap<u64, Channel>,
}

#[derive(Deserialize)]
pub(super) struct GuildEvent {
    pub(super) id: Id,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) unavailable: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) owner_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) roles: Option<Vec<Role>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) member_count: Option<u64>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) members: Vec<GuildMember>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) channels: Vec<Channel>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) threads: Vec<Channel>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) stage_instances: Vec<StageInstance>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) guild_scheduled_events: Vec<ScheduledEvent>,
    #[serde(default, deserialize_with = "readable")]
    pub(super) voice_states: Vec<VoiceState>,
}

impl Guild {
    pub(super) fn take_over(&mut self, event: GuildEvent, me: Option<Id>) {
        let own = event
            .members
            .into_iter()
            .find(|member| member.user.as_ref().is_some_and(|user| Some(user.id) == me));
        let kept = !self.options.channels.is_empty();
        let channels = event.channels.into_iter().chain(event.threads).filter(|_| kept);
        self.rules = event.owner_id.zip(event.roles).map(|(owner, roles)| Rules {
            law: law(event.id, owner, &roles),
            me: own,
            channels: channels.map(|channel| (channel.id.0, channel)).collect(),
        });
        self.stages = event
            .stage_instances
            .into_iter()
            .map(|stage| (stage.channel_id.0, stage))
            .collect();
        let active = event
            .guild_scheduled_events
            .iter()
            .filter(|event| event.is_active());
        self.events = active.map(|event| event.id.0).collect();
        self.streaming.clear();
        for voice in event.voice_states {
            self.hear_voice(voice);
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
            rules.law.roles = law(event.id, Id(0), &roles).roles;
        }
    }

    pub(super) fn hear_voice(&mut self, voice: VoiceState) {
        if voice.streams() {
            self.streaming.insert(voice.user_id.0, voice);
        } else {
            self.streaming.remove(&voice.user_id.0);
        }
    }

    /// Tells what the bot may do, if all that it follows from is known.
    pub(super) fn permissions(&self, me: Option<Id>, now: Timestamp) -> Option<Vec<Fact>> {
        let rules = self.rules.as_ref()?;
        let subject = rules.me.as_ref()?.subject(me?.0, now);
        let base = rules.law.in_guild(&subject);
        let mut fields = BTreeMap::new();
        let grants = if self.options.channels.is_empty() {
            fields.insert("permissionScope".to_owned(), "guild".to_owned());
            base.grants()
        } else {
            let others: Vec<_> = rules.channels.values().cloned().collect();
            let access: BTreeMap<_, _> = self
                .options
                .channels
                .iter()
                .map(|id| {
                    let access = match rules.channels.get(id) {
                        Some(channel) => channels::access(&rules.law, &subject, channel, &others),
                        // Hidden, deleted or an archived thread: only a request could tell.
                        None => Access::Unknown("not told by the gateway".to_owned()),
                    };
                    (*id, access)
                })
                .collect();
            let report = channels::report(&access, base);
            fields.insert("channelPermissions".to_owned(), report.overview);
            fields.insert("permissionScope".to_owned(), report.scope?);
            report.grants?
        };
        let method = PERMISSIONS.to_owned();
        Some(vec![
            Fact::Permissions { method, grants },
            Fact::Profile { fields },
        ])
    }

    /// Returns the stream that is going on, by what counts as one.
    fn stream(&self, from: StreamFrom) -> Option<(String, Option<Timestamp>)> {
        let channel = self.options.stream_channel;
        match from {
            StreamFrom::Stage => {
                let here =
                    |stage: &&StageInstance| channel.is_none_or(|channel| stage.channel_id.0 == channel);
                let stage = self.stages.values().filter(here).min_by_key(|stage| stage.id)?;
                Some((stage.id.to_string(), Some(created_at(stage.id))))
            }
            StreamFrom::Event => self.events.first().map(|id| (id.to_string(), None)),
            StreamFrom::GoLive => {
                let user = self.options.stream_user;
                let counts = |voice: &&VoiceState| {
                    user.is_none_or(|user| voice.user_id.0 == user)
                        && channel.is_none_or(|channel| voice.channel_id == Some(Id(channel)))
                };
                self.streaming
                    .values()
                    .find(counts)
                    .map(|voice| (voice.stream_id(), None))
            }
        }
    }

    /// Tells the stream by the guild as a whole, which is as good as a complete poll.
    pub(super) fn whole_stream(&mut self, from: Option<StreamFrom>) -> Option<Fact> {
        let stream = self.stream(from?);
        self.told_stream = stream.as_ref().map(|(id, _)| id.clone());
        Some(match stream {
            Some((stream_id, started_at)) => Fact::StreamSeen {
                stream_id,
                started_at,
            },
            None => Fact::StreamAbsent,
        })
    }

    /// Tells what an event has changed about the stream.
    pub(super) fn stream_change(&mut self, from: Option<StreamFrom>) -> Option<Fact> {
        let stream = self.stream(from?);
        let id = stream.as_ref().map(|(id, _)| id.clone());
        let before = std::mem::replace(&mut self.told_stream, id.clone());
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

fn law(id: Id, owner: Id, roles: &[Role]) -> GuildRules {
    GuildRules {
        id: id.0,
        owner_id: owner.0,
        roles: roles.iter().map(|role| (role.id.0, role.permissions)).collect(),
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
