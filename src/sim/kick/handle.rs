//! The handle of the simulated Kick: the changes of its world, and the events that are posted about them.

use std::sync::Arc;

use serde_json::Value;

use super::chat::KickChatSpec;
use super::delivery::{Delivery, SigningKey};
use super::texts;
use super::world::{KickChannelSpec, KickStreamSpec, Stream, World};
use crate::sim::kit::PlatformSim;

/// Handle of a simulated Kick.
pub type KickSim = PlatformSim<World>;

/// URLs of the parts of the simulated Kick, in the form in which a client is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KickUrls {
    /// In place of `https://id.kick.com`.
    pub auth: String,
    /// In place of `https://api.kick.com`.
    pub api: String,
}

impl KickSim {
    /// Returns the base URLs to configure a client with.
    pub fn urls(&self) -> KickUrls {
        KickUrls {
            auth: self.http(),
            api: self.http(),
        }
    }

    fn key(&self) -> Arc<SigningKey> {
        self.with_world(|world, _| Arc::clone(&world.webhooks.key))
    }

    /// Returns the public key for verifying deliveries, in PEM.
    pub fn public_key(&self) -> String {
        self.key().public_pem()
    }

    /// Replaces the key for signing and serves the new public key.
    pub fn rotate_key(&self) {
        self.with_world(|world, _| world.webhooks.key = Arc::default());
    }

    /// Signs a body as Kick would; for receivers' tests.
    pub fn sign(&self, message_id: &str, timestamp: &str, body: &[u8]) -> String {
        self.key().sign(message_id, timestamp, body)
    }

    /// Registers an application.
    pub fn add_app(&self, client_id: &str, secret: &str) {
        self.with_world(|world, _| world.tokens.add_client(client_id, Some(secret)));
    }

    /// Sets the URL of deliveries. `None` switches webhooks off, which deletes all subscriptions.
    pub fn set_webhook_url(&self, url: Option<&str>) {
        let url = url.map(str::to_owned);
        self.with_world(|world, _| {
            if url.is_none() {
                world.subscriptions.remove("", None);
            }
            world.webhooks.url = url;
        });
    }

    /// Adds a channel (a user), or changes its data, and sends the update.
    pub fn put_channel(&self, spec: KickChannelSpec) {
        let id = spec.id;
        self.with_world(|world, now| {
            if world.put_channel(spec) {
                world.send_metadata(id, now);
            }
        });
    }

    /// Adds a channel with id and slug only, or renames it.
    pub fn add_channel(&self, id: u64, slug: &str) {
        self.put_channel(KickChannelSpec {
            id,
            slug: Some(slug.to_owned()),
            name: Some(slug.to_owned()),
            ..KickChannelSpec::default()
        });
    }

    /// Omits a channel from every response, or includes it again.
    pub fn vanish(&self, id: u64, vanished: bool) {
        self.put_channel(KickChannelSpec {
            id,
            vanished: Some(vanished),
            ..KickChannelSpec::default()
        });
    }

    /// Starts a stream with plausible values; returns the text of its start.
    pub fn go_live(&self, id: u64) -> Option<String> {
        self.go_live_with(id, &KickStreamSpec::default())
    }

    /// Starts a stream as described; returns the text of its start, or `None` for an unknown or live channel.
    pub fn go_live_with(&self, id: u64, spec: &KickStreamSpec) -> Option<String> {
        self.with_world(|world, now| {
            let started_at = world.start_stream(id, spec, now)?;
            if !spec.silent {
                world.send_status(id, &started_at, None, now);
            }
            Some(started_at)
        })
    }

    /// Ends the stream of a channel; returns the text of its start.
    pub fn end_stream(&self, id: u64) -> Option<String> {
        self.end_stream_with(id, None, false)
    }

    /// Ends a stream that the lists show for `lag_ms` more (the world's usual lag when `None`).
    pub fn end_stream_with(&self, id: u64, lag_ms: Option<i64>, silent: bool) -> Option<String> {
        self.with_world(|world, now| {
            let (started_at, ended_at) = world.end_stream(id, lag_ms, now)?;
            if !silent {
                world.send_status(id, &started_at, Some(&ended_at), now);
            }
            Some(started_at)
        })
    }

    /// Sets the viewer count of the live stream.
    pub fn set_viewers(&self, id: u64, viewers: u64) {
        self.change_stream(id, |stream| stream.viewers = viewers);
    }

    /// Makes the next `answers` responses show 1 viewer.
    pub fn blip(&self, id: u64, answers: u32) {
        self.change_stream(id, |stream| stream.blips = answers);
    }

    fn change_stream(&self, id: u64, change: impl FnOnce(&mut Stream)) {
        self.with_world(|world, _| {
            let stream = world.channels.get_mut(&id).and_then(|channel| channel.running());
            stream.map(change)
        });
    }

    /// Sends chat messages in a channel; returns their ids, or `None` for an unknown channel.
    pub fn chat(&self, id: u64, spec: &KickChatSpec) -> Option<Vec<String>> {
        self.with_world(|world, now| {
            let lines = world.lines(id, spec, now)?;
            let said = lines.iter().map(|line| {
                world.emit("chat.message.sent", id, line, now);
                line["message_id"].as_str().unwrap_or_default().to_owned()
            });
            Some(said.collect())
        })
    }

    /// Sends an event unchanged to the subscriptions of that type; returns the number of deliveries.
    pub fn emit(&self, event: &str, broadcaster: u64, body: &Value) -> usize {
        self.with_world(|world, now| world.emit(event, broadcaster, body, now))
    }

    /// Returns the deliveries so far, oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.with_world(|world, _| world.webhooks.log())
    }

    /// Revokes a token of either kind; returns whether there was one.
    pub fn revoke_token(&self, token: &str) -> bool {
        self.with_world(|world, _| world.tokens.revoke(token))
    }

    /// Revokes all tokens of a user, or all app tokens when `None`. Kick sends no notification.
    pub fn disconnect(&self, user_id: Option<u64>) {
        self.with_world(|world, _| world.tokens.disconnect(None, user_id.as_ref()));
    }

    /// Makes a user's refresh tokens expire, as after a long time without use.
    pub fn age_out_refresh(&self, user_id: u64) {
        self.with_world(|world, now| world.tokens.expire_refresh_of(&user_id, now));
    }

    /// Removes a scope from a user's tokens.
    pub fn shrink_scope(&self, user_id: u64, scope: &str) {
        self.with_world(|world, _| world.tokens.shrink(&user_id, scope));
    }

    /// Adds a subscription as if an earlier run had created it.
    pub fn add_subscription(&self, client_id: &str, broadcaster: u64, event: &str) {
        self.with_world(|world, now| {
            let id = texts::ulid(now, &world.chance);
            world.subscriptions.add(id, client_id, broadcaster, event, now);
        });
    }

    /// Removes subscriptions of an event (all when empty) of a broadcaster (all when `None`); returns how many.
    pub fn drop_subscriptions(&self, event: &str, broadcaster: Option<u64>) -> usize {
        self.with_world(|world, _| world.subscriptions.remove(event, broadcaster))
    }

    /// Returns all subscriptions, as the controls show them.
    pub fn subscriptions(&self) -> Value {
        self.with_world(|world, _| world.subscriptions.to_json())
    }
}
