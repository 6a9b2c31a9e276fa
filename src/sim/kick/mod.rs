//! The simulated Kick: `id.kick.com`, `api.kick.com` and signed webhooks on one port, with controls to change its world.
//!
//! What it enforces comes from Kick's documentation and from what its users have recorded; where sources disagree, a knob
//! chooses.

mod answer;
mod chat;
mod control;
pub mod demo;
mod oauth;
mod rest;
mod subscriptions;
mod texts;
mod tokens;
mod webhooks;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::middleware;
use serde_json::Value;

use super::clock::SimClock;
use super::host::{Host, Server};
use crate::clock::Clock;
use crate::core::time::Timestamp;

pub use chat::KickChatSpec;
pub use tokens::{KickTokenSpec, KickTokens};
pub use webhooks::Delivery;
pub use world::{KickChannelSpec, KickKnobs, KickStreamSpec, WebhookKnobs};

use tokens::App;
use webhooks::{Post, SigningKey};
use world::World;

/// The handle on a simulated Kick: the same controls as over HTTP. Cloning shares it.
#[derive(Clone)]
pub struct KickSim(Arc<Shared>);

struct Shared {
    host: Host,
    world: Mutex<World>,
    address: OnceLock<SocketAddr>,
    key: Mutex<Arc<SigningKey>>,
    /// The one webhook URL, and `None` while webhooks are switched off.
    webhook_url: Mutex<Option<String>>,
    post: OnceLock<Post>,
}

/// Where the parts of the simulated Kick are, in the form in which a client is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KickUrls {
    /// In place of `https://id.kick.com`.
    pub auth: String,
    /// In place of `https://api.kick.com`.
    pub api: String,
}

impl KickSim {
    /// Starts an empty Kick on `address`. It runs as long as the returned server is kept.
    pub async fn start(host: Host, address: SocketAddr) -> io::Result<(Self, Server)> {
        let kick = Self(Arc::new(Shared {
            host: host.clone(),
            world: Mutex::new(World::new(Arc::clone(host.clock()), host.chance().clone())),
            address: OnceLock::new(),
            key: Mutex::default(),
            webhook_url: Mutex::default(),
            post: OnceLock::new(),
        }));
        let post = Post::start(&host, Arc::downgrade(&kick.0));
        kick.0.post.get_or_init(|| post);
        let platform = oauth::routes(kick.clone())
            .merge(rest::routes(kick.clone()))
            .merge(subscriptions::routes(kick.clone()))
            .layer(middleware::from_fn_with_state(kick.clone(), rest::limit));
        let server = host
            .serve(address, platform, control::routes(kick.clone()))
            .await?;
        kick.0.address.get_or_init(|| server.address());
        Ok((kick, server))
    }

    /// Returns the base addresses to configure a client with.
    pub fn urls(&self) -> KickUrls {
        KickUrls {
            auth: self.http(),
            api: self.http(),
        }
    }

    /// Returns the server's base address, below which the controls are too.
    pub fn http(&self) -> String {
        let address = self.0.address.get();
        format!(
            "http://{}",
            address.map(SocketAddr::to_string).unwrap_or_default()
        )
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

    fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.0.key.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the public key that deliveries are signed for, in PEM.
    pub fn public_key(&self) -> String {
        self.key().public_pem()
    }

    /// Signs and serves with another key from now on.
    pub fn rotate_key(&self) {
        *self.0.key.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    /// Signs a body as Kick would; for receivers' tests.
    pub fn sign(&self, message_id: &str, timestamp: &str, body: &[u8]) -> String {
        self.key().sign(message_id, timestamp, body)
    }

    /// Registers an application.
    pub fn add_app(&self, client_id: &str, secret: &str) {
        let app = App {
            secret: secret.to_owned(),
        };
        self.with_world(|world, _| world.tokens.apps.insert(client_id.to_owned(), app));
    }

    /// Sets where deliveries go. `None` switches webhooks off, which deletes all subscriptions.
    pub fn set_webhook_url(&self, url: Option<&str>) {
        let url = url.map(str::to_owned);
        if url.is_none() {
            self.with_world(|world, _| world.subscriptions.remove("", None));
        }
        *self.0.webhook_url.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// Adds a channel (a user), or changes what is known of one, and tells it.
    pub fn put_channel(&self, spec: KickChannelSpec) {
        let id = spec.id;
        let news = self.with_world(|world, _| {
            let changed = world.put_channel(spec);
            let channel = world.channels.get(&id).filter(|_| changed)?;
            Some(webhooks::metadata_event(channel))
        });
        if let Some(body) = news {
            self.emit("livestream.metadata.updated", id, &body);
        }
    }

    /// Adds a channel of which only id and slug matter, or renames it.
    pub fn add_channel(&self, id: u64, slug: &str) {
        self.put_channel(KickChannelSpec {
            id,
            slug: Some(slug.to_owned()),
            name: Some(slug.to_owned()),
            ..KickChannelSpec::default()
        });
    }

    /// Leaves a channel out of every answer, or brings it back.
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
        let (started_at, body) = self.with_world(|world, now| {
            let started_at = world.start_stream(id, spec, now)?;
            let body = webhooks::status_event(world.channels.get(&id)?, &started_at, None);
            Some((started_at, body))
        })?;
        if !spec.silent {
            self.emit("livestream.status.updated", id, &body);
        }
        Some(started_at)
    }

    /// Ends the stream of a channel; returns the text of its start.
    pub fn end_stream(&self, id: u64) -> Option<String> {
        self.end_stream_with(id, None, false)
    }

    /// Ends a stream that the lists show for `lag_ms` more (the world's usual lag when `None`).
    pub fn end_stream_with(&self, id: u64, lag_ms: Option<i64>, silent: bool) -> Option<String> {
        let (started_at, body) = self.with_world(|world, now| {
            let (started_at, ended_at) = world.end_stream(id, lag_ms, now)?;
            let body = webhooks::status_event(world.channels.get(&id)?, &started_at, Some(&ended_at));
            Some((started_at, body))
        })?;
        if !silent {
            self.emit("livestream.status.updated", id, &body);
        }
        Some(started_at)
    }

    /// Sets how many watch the running stream.
    pub fn set_viewers(&self, id: u64, viewers: u64) {
        self.change_stream(id, |stream| stream.viewers = viewers);
    }

    /// Makes the next `answers` answers show 1 viewer.
    pub fn blip(&self, id: u64, answers: u32) {
        self.change_stream(id, |stream| stream.blips = answers);
    }

    fn change_stream(&self, id: u64, change: impl FnOnce(&mut world::Stream)) {
        self.with_world(|world, _| {
            let stream = world.channels.get_mut(&id).and_then(|channel| channel.running());
            stream.map(change)
        });
    }

    /// Says lines in a channel; returns their ids, or `None` for an unknown channel.
    pub fn chat(&self, id: u64, spec: &KickChatSpec) -> Option<Vec<String>> {
        let lines = self.with_world(|world, now| world.lines(id, spec, now))?;
        let said = lines.iter().map(|line| {
            self.emit("chat.message.sent", id, line);
            line["message_id"].as_str().unwrap_or_default().to_owned()
        });
        Some(said.collect())
    }

    /// Tells an event as it is to the subscriptions of that type; returns how many deliveries that makes.
    pub fn emit(&self, event: &str, broadcaster: u64, body: &Value) -> usize {
        let url = self
            .0
            .webhook_url
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let key = self.key();
        let outgoing =
            self.with_world(|world, now| world.outgoing(url.as_deref(), &key, event, broadcaster, body, now));
        let count = outgoing.len();
        if let Some(post) = self.0.post.get() {
            post.send(outgoing);
        }
        count
    }

    /// Returns what was delivered so far, oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let log = self.0.post.get().map(|post| Arc::clone(&post.log));
        log.map(|log| log.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }

    /// Hands out a token as described, as if it had been granted.
    pub fn issue_token(&self, spec: KickTokenSpec) -> KickTokens {
        self.with_world(|world, now| {
            let chance = world.chance.clone();
            world.tokens.issue(spec, now, &chance)
        })
    }

    /// Ends an access token as if its time had come; returns whether there was one.
    pub fn expire_token(&self, access: &str) -> bool {
        self.with_world(|world, now| world.tokens.expire(access, now))
    }

    /// Ends a token of either kind before its time; returns whether there was one.
    pub fn revoke_token(&self, token: &str) -> bool {
        self.with_world(|world, _| world.tokens.revoke(token))
    }

    /// Ends all tokens of a user, or all app tokens when `None`. Kick tells nobody.
    pub fn disconnect(&self, user_id: Option<u64>) {
        self.with_world(|world, _| world.tokens.disconnect(user_id));
    }

    /// Ends a user's refresh tokens as if they had lain idle.
    pub fn age_out_refresh(&self, user_id: u64) {
        self.with_world(|world, now| world.tokens.age_out(user_id, now));
    }

    /// Takes a scope away from a user's tokens.
    pub fn shrink_scope(&self, user_id: u64, scope: &str) {
        self.with_world(|world, _| world.tokens.shrink(user_id, scope));
    }

    /// Lists a subscription as if an earlier run had made it.
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

    /// Turns knobs.
    pub fn knobs(&self, turn: impl FnOnce(&mut KickKnobs)) {
        self.with_world(|world, _| turn(&mut world.knobs));
    }

    /// Returns all subscriptions, as the control surface shows them.
    pub fn subscriptions(&self) -> Value {
        self.with_world(|world, _| world.subscriptions.to_json())
    }

    /// Returns what really is, as the control surface shows it.
    pub fn truth(&self) -> Value {
        self.with_world(|world, _| world.describe())
    }
}
