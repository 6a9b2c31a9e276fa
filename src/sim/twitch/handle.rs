//! The handle of the simulated Twitch: the changes of its world, and the events that are pushed about them.

use serde::Deserialize;
use serde_json::Value;

use super::eventsub::{
    ChatSpec, ConduitAct, ConduitKnobs, EventSubKnobs, ModerationSpec, Reconnect, SocketAct,
};
use super::members::{Member, Role};
use super::stream::Stream;
use super::world::{ChannelSpec, StreamSpec, World};
use crate::sim::host::own;
use crate::sim::kit::PlatformSim;
use crate::sim::kit::oauth::DeviceState;

/// Handle of a simulated Twitch.
pub type TwitchSim = PlatformSim<World>;

/// URLs of the parts of the simulated Twitch, in the form in which a client is configured.
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
    /// Returns the base URLs to configure a client with.
    pub fn urls(&self) -> TwitchUrls {
        let http = self.http();
        TwitchUrls {
            auth: format!("{http}/oauth2"),
            helix: format!("{http}/helix"),
            eventsub_rest: format!("{http}/helix"),
            eventsub_ws: format!("{}/ws", self.ws()),
        }
    }

    /// Registers an application; without a secret it is a public client.
    pub fn add_client(&self, client_id: &str, secret: Option<&str>) {
        self.with_world(|world, _| world.tokens.add_client(client_id, secret));
    }

    /// Adds a channel (a user), or changes its data.
    pub fn put_channel(&self, spec: ChannelSpec) {
        self.with_world(|world, now| {
            let id = spec.id.clone();
            let changes = world.put_channel(spec, now);
            if changes.about {
                world.send_channel(&id);
            }
            if changes.name {
                world.send_user(&id);
            }
        });
    }

    /// Adds a channel with id and login only, or renames it.
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
                world.send_removed(id);
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
                world.send_online(id, &stream);
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
                world.send_offline(id, &stream);
            }
            Some(stream)
        })
    }

    /// Sets the viewer count of the live stream.
    pub fn set_viewers(&self, id: &str, viewers: u64) {
        self.change_stream(id, |stream| stream.viewers = viewers);
    }

    /// Sets the `type` of the live stream, such as the documented error value `""`.
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

    /// Assigns `user` a role in `channel` or removes it. Moderators and VIPs exclude each other, as at Twitch.
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
                world.send_role(channel, user, lost, false);
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
                world.send_role(channel, user, role, held);
            }
        });
    }

    /// Makes all access tokens of a user expire now; returns how many.
    pub fn expire_tokens_of(&self, user_id: &str) -> usize {
        self.with_world(|world, now| world.tokens.expire_all_of(&user_id.to_owned(), now))
    }

    /// Disconnects a user from every application, as in the user's own settings.
    pub fn disconnect(&self, user_id: &str) {
        self.with_world(|world, _| {
            for client in world.tokens.connections_of(&user_id.to_owned()) {
                world.disconnect(&client, user_id);
            }
        });
    }

    /// Decides a device code (the user's or the device's, or all pending ones when empty); returns how many.
    pub fn decide_device(&self, code: &str, state: &DeviceState<String>) -> usize {
        self.with_world(|world, _| world.tokens.devices.decide(code, state))
    }

    /// Changes the knobs of EventSub.
    pub fn eventsub_knobs(&self, turn: impl FnOnce(&mut EventSubKnobs)) {
        self.with_world(|world, _| turn(&mut world.eventsub.knobs));
    }

    /// Changes the knobs of conduits.
    pub fn conduit_knobs(&self, turn: impl FnOnce(&mut ConduitKnobs)) {
        self.with_world(|world, _| turn(&mut world.eventsub.conduit_knobs));
    }

    /// Deletes a conduit (all when empty), as Twitch does after three days without an enabled shard; returns how many.
    pub fn remove_conduits(&self, conduit_id: &str) -> usize {
        self.with_world(|world, _| world.eventsub.remove_conduits(conduit_id))
    }

    /// Applies an act to a shard of a conduit (of all when empty); returns how many shards that were.
    pub fn spoil_shard(&self, conduit_id: &str, shard: usize, act: ConduitAct) -> usize {
        self.with_world(|world, _| world.eventsub.spoil_shard(conduit_id, shard, act))
    }

    /// Revokes the tokens of an application itself.
    pub fn revoke_app_tokens(&self, client_id: &str) {
        self.with_world(|world, _| world.tokens.disconnect(Some(client_id), None));
    }

    /// Applies an act to the sockets of a session (of all when empty); returns how many that were.
    pub fn spoil_sockets(&self, session_id: &str, act: &SocketAct) -> usize {
        self.with_world(|world, _| world.eventsub.spoil(session_id, act))
    }

    /// Asks the sockets of a session (of all when empty) to reconnect; returns how many that were.
    pub fn reconnect_sockets(&self, session_id: &str, how: &Reconnect) -> usize {
        let base = self.urls().eventsub_ws;
        self.with_world(|world, _| world.eventsub.reconnect(session_id, &base, how))
    }

    /// Revokes subscriptions: those of a type (all when empty) with an id (all when empty). Returns how many.
    pub fn revoke_subscriptions(&self, kind: &str, id: &str, status: &str) -> usize {
        self.with_world(|world, _| world.revoke_subscriptions(kind, id, status))
    }

    /// Releases the notifications held back by the knob `hold`, and turns it off. Returns how many.
    pub fn release(&self, newest_first: bool) -> usize {
        self.with_world(|world, _| world.eventsub.release(newest_first))
    }

    /// Sends an event unchanged to the subscriptions of type `kind` whose condition has `key` = `value`; returns their number.
    pub fn emit(&self, kind: &str, key: &str, value: &str, event: &Value) -> usize {
        self.with_world(|world, _| world.eventsub.notify(kind, key, value, event))
    }

    /// Performs an action of a moderator in a channel; returns to how many subscriptions `channel.moderate` was sent, or why
    /// there is no such action.
    pub fn moderate(&self, channel: &str, spec: &ModerationSpec) -> Result<usize, String> {
        spec.check()?;
        Ok(self.with_world(|world, _| world.moderate(channel, spec)))
    }

    /// Sends messages in a channel at once; returns their ids.
    pub fn chat(&self, channel: &str, spec: &ChatSpec) -> Vec<String> {
        self.with_world(|world, _| (0..spec.count).map(|_| world.say(channel, spec)).collect())
    }

    /// Sends messages in a channel, one every [`ChatSpec::every_ms`], in the background.
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
        self.with_world(|world, _| {
            world.feeds.retain(|feed| !feed.is_finished());
            world.feeds.push(feed);
        });
    }

    /// Returns the open sockets and all subscriptions, as the controls show them.
    pub fn eventsub_state(&self) -> Value {
        self.with_world(|world, _| world.eventsub.to_json())
    }
}
