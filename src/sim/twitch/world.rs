//! The simulated Twitch itself: users and their channels, roles, streams, and the knobs that make it misbehave.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::clock::SimClock;
use super::Role;
use super::bucket::Buckets;
use super::devices::Devices;
use super::eventsub::EventSub;
use super::stream::{Stream, Streams};
use super::tokens::Tokens;
use crate::clock::Chance;
use crate::core::time::Timestamp;

/// Everything that the simulated Twitch knows.
pub(super) struct World {
    users: HashMap<String, User>,
    logins: HashMap<String, String>,
    /// Channels that have, or recently had, a stream: what a list of all streams must look at.
    broadcasting: BTreeSet<String>,
    pub(super) roles: Roles,
    pub(super) tokens: Tokens,
    pub(super) devices: Devices,
    pub(super) buckets: Buckets,
    pub(super) eventsub: EventSub,
    pub(super) knobs: Knobs,
    last_stream_id: u64,
}

/// What a change of a channel comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changes {
    /// Title, category or language are new.
    pub(super) about: bool,
    /// Login or display name are new.
    pub(super) name: bool,
}

/// A user, who always is a channel too.
pub(super) struct User {
    pub(super) id: String,
    pub(super) login: String,
    pub(super) name: String,
    pub(super) broadcaster_type: String,
    pub(super) created_at: Timestamp,
    pub(super) title: String,
    pub(super) game_id: String,
    pub(super) game_name: String,
    pub(super) language: String,
    pub(super) tags: Vec<String>,
    pub(super) streams: Streams,
}

/// What is said about a channel when it is added or changed; absent fields stay as they are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelSpec {
    /// The user id.
    pub id: String,
    /// The login name, lower case.
    pub login: Option<String>,
    /// The display name; the login when absent.
    pub name: Option<String>,
    /// `""`, `affiliate` or `partner`.
    pub broadcaster_type: Option<String>,
    /// The stream's title.
    pub title: Option<String>,
    /// The category's id.
    pub game_id: Option<String>,
    /// The category's name.
    pub game_name: Option<String>,
    /// Two-letter language.
    pub language: Option<String>,
    /// Tags of the channel.
    pub tags: Option<Vec<String>>,
}

/// How a stream starts; absent fields get plausible values.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamSpec {
    /// The stream's id.
    pub stream_id: Option<String>,
    /// When it started; now when absent.
    pub started_at: Option<Timestamp>,
    /// How many watch.
    pub viewers: Option<u64>,
    /// A new title of the channel.
    pub title: Option<String>,
    /// A new category of the channel, by name.
    pub game_name: Option<String>,
    /// Simulated milliseconds until polls show it; the world's usual lag when absent.
    pub lag_ms: Option<i64>,
    /// Whether no event is pushed, as for a bandwidth test.
    pub silent: bool,
}

/// Ways in which the simulated Twitch departs from its usual behaviour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent switch of the control surface"
)]
pub struct Knobs {
    /// Simulated milliseconds until a started stream shows in polls.
    pub poll_lag_up_ms: i64,
    /// Simulated milliseconds for which an ended stream lingers in polls.
    pub poll_lag_down_ms: i64,
    /// The list of moderated channels is cut after its first page and has no cursor.
    pub missing_cursor: bool,
    /// `tags` is null.
    pub null_tags: bool,
    /// Answers carry fields that nobody has heard of.
    pub unknown_fields: bool,
    /// Open enumerations carry values that nobody has heard of.
    pub unknown_values: bool,
    /// Scopes that no token is credited with, whatever it was granted.
    pub denied_scopes: BTreeSet<String>,
    /// Answers carry no `Ratelimit-*` headers.
    pub no_rate_headers: bool,
    /// Points per minute and bucket; Twitch's 800 when absent.
    pub bucket: Option<u32>,
    /// The user in whose name consent is given at once in the browser flows; nobody when absent.
    pub consent: Option<String>,
}

/// Members of channels in one role.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_channel: HashMap<String, BTreeMap<String, Member>>,
    by_user: HashMap<String, BTreeSet<String>>,
}

/// What is known of one membership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) since: Option<Timestamp>,
    /// `1000`, `2000` or `3000` for subscribers; `lead` for lead moderators.
    pub(super) tier: String,
    pub(super) gift: bool,
}

impl Members {
    /// Adds a member; returns whether that is news.
    pub(super) fn add(&mut self, channel: &str, user: &str, member: Member) -> bool {
        self.by_user
            .entry(user.to_owned())
            .or_default()
            .insert(channel.to_owned());
        self.by_channel
            .entry(channel.to_owned())
            .or_default()
            .insert(user.to_owned(), member)
            .is_none()
    }

    /// Removes a member; returns whether there was one.
    pub(super) fn remove(&mut self, channel: &str, user: &str) -> bool {
        if let Some(channels) = self.by_user.get_mut(user) {
            channels.remove(channel);
        }
        self.by_channel
            .get_mut(channel)
            .is_some_and(|members| members.remove(user).is_some())
    }

    pub(super) fn get(&self, channel: &str, user: &str) -> Option<&Member> {
        self.by_channel.get(channel)?.get(user)
    }

    pub(super) fn has(&self, channel: &str, user: &str) -> bool {
        self.get(channel, user).is_some()
    }

    /// Returns the members of `channel` in order of their ids.
    pub(super) fn of(&self, channel: &str) -> impl Iterator<Item = (&String, &Member)> {
        self.by_channel.get(channel).into_iter().flatten()
    }

    /// Returns the channels that `user` is a member of, in order of their ids.
    pub(super) fn channels_of(&self, user: &str) -> impl Iterator<Item = &String> {
        self.by_user.get(user).into_iter().flatten()
    }
}

/// Who is what in which channel.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) moderators: Members,
    pub(super) vips: Members,
    pub(super) editors: Members,
    pub(super) subscribers: Members,
    pub(super) banned: Members,
    pub(super) chatters: Members,
}

impl Roles {
    /// Returns the members of all channels in `role`.
    pub(super) fn of(&mut self, role: Role) -> &mut Members {
        match role {
            Role::Moderator | Role::LeadModerator => &mut self.moderators,
            Role::Vip => &mut self.vips,
            Role::Editor => &mut self.editors,
            Role::Subscriber => &mut self.subscribers,
            Role::Banned => &mut self.banned,
            Role::Chatter => &mut self.chatters,
        }
    }
}

impl World {
    pub(super) fn new(clock: Arc<SimClock>, chance: Chance) -> Self {
        Self {
            users: HashMap::new(),
            logins: HashMap::new(),
            broadcasting: BTreeSet::new(),
            roles: Roles::default(),
            tokens: Tokens::default(),
            devices: Devices::default(),
            buckets: Buckets::default(),
            eventsub: EventSub::new(clock, chance),
            knobs: Knobs::default(),
            last_stream_id: 0,
        }
    }

    /// Returns the user `id`, `None` when unknown, deleted or suspended.
    pub(super) fn user(&self, id: &str) -> Option<&User> {
        self.users.get(id)
    }

    pub(super) fn user_by_login(&self, login: &str) -> Option<&User> {
        self.users.get(self.logins.get(&login.to_lowercase())?)
    }

    pub(super) fn streams_of(&mut self, id: &str) -> Option<&mut Streams> {
        self.users.get_mut(id).map(|user| &mut user.streams)
    }

    /// Adds a channel, or changes (renames) a known one. Returns what changed of a known one.
    pub(super) fn put_channel(&mut self, spec: ChannelSpec, now: Timestamp) -> Changes {
        let known = self.users.contains_key(&spec.id);
        let user = self.users.entry(spec.id.clone()).or_insert_with(|| User {
            login: format!("user{}", spec.id),
            name: String::new(),
            broadcaster_type: "affiliate".to_owned(),
            created_at: now.plus_secs(-3 * 365 * 86_400),
            title: String::new(),
            game_id: "509670".to_owned(),
            game_name: "Science & Technology".to_owned(),
            language: "en".to_owned(),
            tags: vec!["English".to_owned()],
            streams: Streams::default(),
            id: spec.id,
        });
        let named = (user.login.clone(), user.name.clone());
        if let Some(login) = spec.login {
            self.logins.remove(&user.login);
            user.login = login;
            user.name.clear();
        }
        self.logins.insert(user.login.clone(), user.id.clone());
        if let Some(name) = spec.name {
            user.name = name;
        } else if user.name.is_empty() {
            user.name.clone_from(&user.login);
        }
        user.broadcaster_type = spec
            .broadcaster_type
            .unwrap_or_else(|| user.broadcaster_type.clone());
        user.tags = spec.tags.unwrap_or_else(|| user.tags.clone());
        let about = [
            (&mut user.title, spec.title),
            (&mut user.game_id, spec.game_id),
            (&mut user.game_name, spec.game_name),
            (&mut user.language, spec.language),
        ];
        let mut changed = false;
        for (old, new) in about {
            if let Some(new) = new {
                changed |= *old != new;
                *old = new;
            }
        }
        let renamed = named != (user.login.clone(), user.name.clone());
        Changes {
            about: known && changed,
            name: known && renamed,
        }
    }

    /// Removes a user as if deleted or suspended; returns whether there was one.
    pub(super) fn remove_user(&mut self, id: &str) -> bool {
        let Some(user) = self.users.remove(id) else {
            return false;
        };
        self.logins.remove(&user.login);
        self.broadcasting.remove(id);
        true
    }

    /// Starts a stream on a known channel and returns it; a stream already running is replaced.
    pub(super) fn start_stream(
        &mut self,
        id: &str,
        spec: &StreamSpec,
        now: Timestamp,
        wall: Timestamp,
    ) -> Option<Stream> {
        let lag = spec.lag_ms.unwrap_or(self.knobs.poll_lag_up_ms);
        let next_id = self.last_stream_id + 1;
        let user = self.users.get_mut(id)?;
        let stream = Stream {
            id: spec
                .stream_id
                .clone()
                .unwrap_or_else(|| (40_900_000 + next_id).to_string()),
            started_at: spec.started_at.unwrap_or(wall),
            viewers: spec.viewers.unwrap_or(25),
            kind: "live".to_owned(),
        };
        self.last_stream_id = next_id;
        if let Some(title) = &spec.title {
            user.title.clone_from(title);
        }
        if let Some(game) = &spec.game_name {
            user.game_name.clone_from(game);
        }
        user.streams.start(stream.clone(), now, lag);
        self.broadcasting.insert(id.to_owned());
        Some(stream)
    }

    /// Ends the stream of a channel and returns it.
    pub(super) fn end_stream(&mut self, id: &str, lag_ms: Option<i64>, now: Timestamp) -> Option<Stream> {
        let lag = lag_ms.unwrap_or(self.knobs.poll_lag_down_ms);
        self.users.get_mut(id)?.streams.end(now, lag)
    }

    /// Returns the ids of all channels that polls show, most viewers first.
    pub(super) fn live_channels(&self, now: Timestamp) -> Vec<String> {
        let shown = |id: &String| Some((self.users.get(id)?.streams.peek(now)?.viewers, id.clone()));
        let mut live: Vec<_> = self.broadcasting.iter().filter_map(shown).collect();
        live.sort_by(|a, b| b.cmp(a));
        live.into_iter().map(|(_, id)| id).collect()
    }

    /// Ends the connection between a user and an application.
    pub(super) fn disconnect(&mut self, client_id: &str, user_id: &str) {
        self.tokens.disconnect(client_id, user_id);
        self.tell_disconnected(client_id, user_id);
    }

    /// Returns the truth about every channel, for comparison with what a client believes.
    pub(super) fn to_json(&self) -> Value {
        let mut users: Vec<_> = self.users.values().collect();
        users.sort_by(|a, b| a.id.cmp(&b.id));
        let channels: Vec<_> = users.into_iter().map(|user| self.channel_json(user)).collect();
        json!({"channels": channels, "knobs": self.knobs})
    }

    fn channel_json(&self, user: &User) -> Value {
        let members = |role: &Members| role.of(&user.id).map(|(id, _)| id.clone()).collect::<Vec<_>>();
        let stream = user.streams.current().map(
            |stream| json!({"id": stream.id, "started_at": stream.started_at, "viewers": stream.viewers}),
        );
        json!({
            "id": user.id, "login": user.login, "name": user.name, "title": user.title,
            "game_name": user.game_name, "stream": stream,
            "moderators": members(&self.roles.moderators), "vips": members(&self.roles.vips),
            "editors": members(&self.roles.editors), "subscribers": members(&self.roles.subscribers),
            "banned": members(&self.roles.banned),
        })
    }
}
