//! The state of the simulated Twitch: users and their channels, roles, streams, and the knobs for deviating behavior.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::bucket::Buckets;
use super::eventsub::state::EventSub;
use super::members::{Members, Roles};
use super::stream::{Stream, Streams};
use super::tokens::{RULES, Tokens};
use crate::clock::Chance;
use crate::core::time::Timestamp;
use crate::sim::clock::SimClock;

/// The complete state of the simulated Twitch.
pub struct World {
    users: HashMap<String, User>,
    logins: HashMap<String, String>,
    /// Channels that have, or recently had, a stream: those that a list of all streams must check.
    broadcasting: BTreeSet<String>,
    pub(super) roles: Roles,
    pub(super) tokens: Tokens,
    pub(super) buckets: Buckets,
    pub(super) eventsub: EventSub,
    pub(super) knobs: Knobs,
    /// Chat feeds in the background; each ends with its last message or with the server.
    pub(super) feeds: Vec<AbortOnDropHandle<()>>,
    last_stream_id: u64,
}

/// Effect of a change of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changes {
    /// Title, category or language have changed.
    pub(super) about: bool,
    /// Login or display name have changed.
    pub(super) name: bool,
}

/// A user, who always has a channel too.
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

/// Data about a channel to add or change; absent fields stay as they are.
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

/// Properties of a stream when it starts; absent fields get plausible values.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamSpec {
    pub stream_id: Option<String>,
    /// When it started; now when absent.
    pub started_at: Option<Timestamp>,
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

/// Deviations of the simulated Twitch from its usual behavior.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent switch of the control surface"
)]
pub struct Knobs {
    /// Simulated milliseconds until a started stream shows in polls.
    pub poll_lag_up_ms: i64,
    /// Simulated milliseconds for which an ended stream is still shown in polls.
    pub poll_lag_down_ms: i64,
    /// The list of moderated channels is cut after its first page and has no cursor.
    pub missing_cursor: bool,
    pub null_tags: bool,
    /// Responses have undocumented fields.
    pub unknown_fields: bool,
    /// Enumerations have undocumented values.
    pub unknown_values: bool,
    /// Scopes that no token has, regardless of its grant.
    pub denied_scopes: BTreeSet<String>,
    /// Responses have no `Ratelimit-*` headers.
    pub no_rate_headers: bool,
    /// Points per minute and bucket; Twitch's 800 when absent.
    pub bucket: Option<u32>,
    /// The user whose consent is given at once in the browser flows; none when absent.
    pub consent: Option<String>,
    /// Seconds between two requests for the token of a device code; Twitch's 5 when absent.
    pub device_interval: Option<u64>,
    /// Lifetime of a device code in seconds; Twitch's 1,800 when absent.
    pub device_secs: Option<i64>,
}

impl World {
    pub(super) fn new(clock: Arc<SimClock>, chance: Chance) -> Self {
        Self {
            users: HashMap::new(),
            logins: HashMap::new(),
            broadcasting: BTreeSet::new(),
            roles: Roles::default(),
            tokens: Tokens::new(&RULES),
            buckets: Buckets::default(),
            eventsub: EventSub::new(clock, chance),
            knobs: Knobs::default(),
            feeds: Vec::new(),
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

    /// Returns `{prefix}_id`, `{prefix}_login` and `{prefix}_name` of a user.
    pub(super) fn named(&self, prefix: &str, id: &str) -> Value {
        let user = self.user(id);
        let mut shown = serde_json::Map::new();
        shown.insert(format!("{prefix}_id"), json!(id));
        shown.insert(format!("{prefix}_login"), json!(user.map(|user| &user.login)));
        shown.insert(format!("{prefix}_name"), json!(user.map(|user| &user.name)));
        Value::Object(shown)
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

    /// Starts a stream on an existing channel and returns it; a live stream is replaced.
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

    /// Returns the actual state of every channel, for comparison with a client's results.
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
