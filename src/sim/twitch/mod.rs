//! The simulated Twitch: `id.twitch.tv`, Helix and EventSub on one port, with controls to change its world while it runs.
//!
//! What it enforces comes from Twitch's documentation; where that is silent, from what clients have reported.

mod answer;
mod bucket;
mod control;
pub mod demo;
mod devices;
mod eventsub;
mod helix;
mod lookups;
mod oauth;
mod roles;
mod stream;
mod tokens;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Deserialize;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::clock::SimClock;
use super::host::{Host, Server, own};
use crate::clock::Clock;
use crate::core::time::Timestamp;

pub use devices::DeviceState;
pub use eventsub::{ChatSpec, Duplicate, EventSubKnobs, Reconnect, SocketAct};
pub use stream::Stream;
pub use tokens::{TokenPair, TokenSpec};
pub use world::{ChannelSpec, Knobs, StreamSpec};

use tokens::Client;
use world::{Member, World};

/// The handle on a simulated Twitch: the same controls as over HTTP. Cloning shares it.
#[derive(Clone)]
pub struct TwitchSim(Arc<Shared>);

struct Shared {
    host: Host,
    world: Mutex<World>,
    address: OnceLock<SocketAddr>,
    /// Chat that goes on in the background; each ends with its last line or with the server.
    feeds: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// Where the parts of the simulated Twitch are, in the form in which a client is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwitchUrls {
    /// In place of `https://id.twitch.tv/oauth2`.
    pub auth: String,
    /// In place of `https://api.twitch.tv/helix`.
    pub helix: String,
    /// In place of `https://api.twitch.tv/helix`, for EventSub subscriptions.
    pub eventsub_rest: String,
    /// In place of `wss://eventsub.wss.twitch.tv/ws`.
    pub eventsub_ws: String,
}

/// What somebody can be in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Moderates the channel.
    Moderator,
    /// Moderates the channel and leads its moderators; shown by another badge.
    LeadModerator,
    /// VIP; excludes being moderator.
    Vip,
    /// May edit the channel.
    Editor,
    /// Subscribes to the channel (tier 1).
    Subscriber,
    /// Is banned from its chat.
    Banned,
    /// Is present in its chat.
    Chatter,
}

/// How a stream ends.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndSpec {
    /// Simulated milliseconds for which polls still show it; the world's usual lag when absent.
    pub lag_ms: Option<i64>,
    /// Whether no event is pushed.
    pub silent: bool,
}

impl TwitchSim {
    /// Starts an empty Twitch on `address`. It runs as long as the returned server is kept.
    pub async fn start(host: Host, address: SocketAddr) -> io::Result<(Self, Server)> {
        let twitch = Self(Arc::new(Shared {
            host: host.clone(),
            world: Mutex::new(World::new(Arc::clone(host.clock()), host.chance().clone())),
            address: OnceLock::new(),
            feeds: Mutex::new(Vec::new()),
        }));
        let platform = oauth::routes(twitch.clone())
            .merge(helix::routes(twitch.clone()))
            .merge(eventsub::ws::routes(twitch.clone()));
        let server = host
            .serve(address, platform, control::routes(twitch.clone()))
            .await?;
        twitch.0.address.get_or_init(|| server.address());
        Ok((twitch, server))
    }

    /// Returns the base addresses to configure a client with.
    pub fn urls(&self) -> TwitchUrls {
        let http = self.http();
        TwitchUrls {
            auth: format!("{http}/oauth2"),
            helix: format!("{http}/helix"),
            eventsub_rest: format!("{http}/helix"),
            eventsub_ws: format!("{}/ws", http.replacen("http", "ws", 1)),
        }
    }

    /// Returns the server's base address, below which the controls are too.
    pub fn http(&self) -> String {
        let address = self
            .0
            .address
            .get()
            .map(SocketAddr::to_string)
            .unwrap_or_default();
        format!("http://{address}")
    }

    /// Returns faults, journal, chance and outages of this platform.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Returns the simulation's clock.
    pub fn clock(&self) -> &Arc<SimClock> {
        self.0.host.clock()
    }

    fn with_world<R>(&self, act: impl FnOnce(&mut World, Timestamp) -> R) -> R {
        let mut world = self.0.world.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut world, self.clock().now())
    }

    /// Registers an application; without a secret it is a public client.
    pub fn add_client(&self, client_id: &str, secret: Option<&str>) {
        let client = Client {
            secret: secret.map(str::to_owned),
        };
        self.with_world(|world, _| world.tokens.clients.insert(client_id.to_owned(), client));
    }

    /// Adds a channel (a user), or changes what is known of one.
    pub fn put_channel(&self, spec: ChannelSpec) {
        self.with_world(|world, now| {
            let id = spec.id.clone();
            let changes = world.put_channel(spec, now);
            if changes.about {
                world.tell_channel(&id);
            }
            if changes.name {
                world.tell_user(&id);
            }
        });
    }

    /// Adds a channel of which only id and login matter, or renames it.
    pub fn add_channel(&self, id: &str, login: &str) {
        self.put_channel(ChannelSpec {
            id: id.to_owned(),
            login: Some(login.to_owned()),
            ..ChannelSpec::default()
        });
    }

    /// Removes a user and channel as if deleted or suspended; returns whether there was one.
    pub fn remove_channel(&self, id: &str) -> bool {
        self.with_world(|world, _| {
            let known = world.remove_user(id);
            if known {
                world.tell_removed(id);
            }
            known
        })
    }

    /// Starts a stream with plausible values; returns it, or `None` for an unknown channel.
    pub fn go_live(&self, id: &str) -> Option<Stream> {
        self.go_live_with(id, &StreamSpec::default())
    }

    /// Starts a stream as described; returns it, or `None` for an unknown channel.
    pub fn go_live_with(&self, id: &str, spec: &StreamSpec) -> Option<Stream> {
        let wall = self.clock().wall();
        self.with_world(|world, now| {
            let stream = world.start_stream(id, spec, now, wall)?;
            if !spec.silent {
                world.tell_online(id, &stream);
            }
            Some(stream)
        })
    }

    /// Ends the stream of a channel; returns it, or `None` when there was none.
    pub fn end_stream(&self, id: &str) -> Option<Stream> {
        self.end_stream_with(id, &EndSpec::default())
    }

    /// Ends the stream of a channel as described; returns it, or `None` when there was none.
    pub fn end_stream_with(&self, id: &str, spec: &EndSpec) -> Option<Stream> {
        self.with_world(|world, now| {
            let stream = world.end_stream(id, spec.lag_ms, now)?;
            if !spec.silent {
                world.tell_offline(id, &stream);
            }
            Some(stream)
        })
    }

    /// Sets how many watch the running stream.
    pub fn set_viewers(&self, id: &str, viewers: u64) {
        self.change_stream(id, |stream| stream.viewers = viewers);
    }

    /// Sets the `type` of the running stream, such as the documented error value `""`.
    pub fn set_stream_type(&self, id: &str, kind: &str) {
        self.change_stream(id, |stream| kind.clone_into(&mut stream.kind));
    }

    fn change_stream(&self, id: &str, change: impl FnOnce(&mut Stream)) {
        self.with_world(|world, _| world.streams_of(id).map(|streams| streams.change(change)));
    }

    /// Makes every second of the next `polls` polls miss a live channel, beginning with the next.
    pub fn flap(&self, id: &str, polls: u32) {
        self.with_world(|world, _| world.streams_of(id).map(|streams| streams.flap(polls)));
    }

    /// Gives `user` a role in `channel` or takes it away. Moderators and VIPs exclude each other, as at Twitch.
    pub fn set_role(&self, channel: &str, user: &str, role: Role, held: bool) {
        let excluded = match role {
            Role::Moderator | Role::LeadModerator => Some(Role::Vip),
            Role::Vip => Some(Role::Moderator),
            Role::Editor | Role::Subscriber | Role::Banned | Role::Chatter => None,
        };
        self.with_world(|world, now| {
            if let Some(lost) = excluded.filter(|_| held)
                && world.roles.of(lost).remove(channel, user)
            {
                world.tell_role(channel, user, lost, false);
            }
            let tier = match role {
                Role::LeadModerator => "lead",
                Role::Subscriber => "1000",
                _ => "",
            };
            let member = Member {
                since: Some(now),
                tier: tier.to_owned(),
                gift: false,
            };
            let members = world.roles.of(role);
            let news = if held {
                members.add(channel, user, member)
            } else {
                members.remove(channel, user)
            };
            if news {
                world.tell_role(channel, user, role, held);
            }
        });
    }

    /// Hands out a token as described.
    pub fn issue_token(&self, mut spec: TokenSpec) -> TokenPair {
        self.with_world(|world, now| {
            if spec.client_id.is_empty() {
                spec.client_id = world.tokens.clients.keys().next().cloned().unwrap_or_default();
            }
            world.tokens.issue(spec, now, self.host().chance())
        })
    }

    /// Lets an access token end now, as if its time were over; returns whether it was known.
    pub fn expire_token(&self, access: &str) -> bool {
        self.with_world(|world, now| world.tokens.expire(access, now))
    }

    /// Lets all access tokens of a user end now; returns how many.
    pub fn expire_tokens_of(&self, user_id: &str) -> usize {
        self.with_world(|world, now| world.tokens.expire_all_of(user_id, now))
    }

    /// Ends the connection of a user with every application, as in the user's own settings.
    pub fn disconnect(&self, user_id: &str) {
        self.with_world(|world, _| {
            for client in world.tokens.connections_of(user_id) {
                world.disconnect(&client, user_id);
            }
        });
    }

    /// Decides a device code (the user's or the device's, or all pending ones when empty); returns how many.
    pub fn decide_device(&self, code: &str, state: &DeviceState) -> usize {
        self.with_world(|world, _| world.devices.decide(code, state))
    }

    /// Turns knobs.
    pub fn knobs(&self, turn: impl FnOnce(&mut Knobs)) {
        self.with_world(|world, _| turn(&mut world.knobs));
    }

    /// Turns the knobs of EventSub.
    pub fn eventsub_knobs(&self, turn: impl FnOnce(&mut EventSubKnobs)) {
        self.with_world(|world, _| turn(&mut world.eventsub.knobs));
    }

    /// Does something to the sockets of a session (of all when empty); returns how many that were.
    pub fn spoil_sockets(&self, session_id: &str, act: &SocketAct) -> usize {
        self.with_world(|world, _| world.eventsub.spoil(session_id, act))
    }

    /// Asks the sockets of a session (of all when empty) to move; returns how many that were.
    pub fn reconnect_sockets(&self, session_id: &str, how: &Reconnect) -> usize {
        let base = self.urls().eventsub_ws;
        self.with_world(|world, _| world.eventsub.reconnect(session_id, &base, how))
    }

    /// Ends subscriptions with a revocation: those of a type (all when empty) with an id (all when empty). Returns how
    /// many.
    pub fn revoke_subscriptions(&self, kind: &str, id: &str, status: &str) -> usize {
        self.with_world(|world, _| world.revoke_subscriptions(kind, id, status))
    }

    /// Lets go of the notifications held back by the knob `hold`, and turns it off. Returns how many.
    pub fn release(&self, newest_first: bool) -> usize {
        self.with_world(|world, _| world.eventsub.release(newest_first))
    }

    /// Tells an event as it is to the subscriptions of type `kind` whose condition has `key` = `value`; returns how many
    /// were told.
    pub fn emit(&self, kind: &str, key: &str, value: &str, event: &Value) -> usize {
        self.with_world(|world, _| world.eventsub.notify(kind, key, value, event))
    }

    /// Says lines in a channel at once; returns their message ids.
    pub fn chat(&self, channel: &str, spec: &ChatSpec) -> Vec<String> {
        self.with_world(|world, _| (0..spec.count).map(|_| world.say(channel, spec)).collect())
    }

    /// Says lines in a channel, one every [`ChatSpec::every_ms`], in the background.
    pub fn chat_on(&self, channel: &str, spec: ChatSpec) {
        let (twitch, channel) = (self.clone(), channel.to_owned());
        let feed = own(async move {
            for _ in 0..spec.count {
                tokio::select! {
                    () = twitch.clock().sleep(spec.every_ms) => {}
                    () = twitch.host().stopping().cancelled() => return,
                }
                twitch.with_world(|world, _| world.say(&channel, &spec));
            }
        });
        let mut feeds = self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|feed| !feed.is_finished());
        feeds.push(feed);
    }

    /// Returns the open sockets and all subscriptions, as the control surface shows them.
    pub fn eventsub_state(&self) -> Value {
        self.with_world(|world, _| world.eventsub.to_json())
    }

    /// Returns what really is, as the control surface shows it.
    pub fn truth(&self) -> Value {
        self.with_world(|world, _| world.to_json())
    }
}
