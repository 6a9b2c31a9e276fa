//! The handle of the simulated Kick: the changes of its world, and the events that are posted about them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::Value;

use super::chat::KickChatSpec;
use super::texts;
use super::tokens::{App, KickTokenSpec, KickTokens};
use super::webhooks::{self, Delivery, Post, SigningKey};
use super::world::{KickChannelSpec, KickKnobs, KickStreamSpec, Stream, World};
use crate::clock::Clock;
use crate::core::time::Timestamp;
use crate::sim::clock::SimClock;
use crate::sim::host::Host;

/// Handle of a simulated Kick: the same controls as over HTTP. Cloning shares it.
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
    /// Number of deliveries for events so far.
    posted: AtomicU64,
}

/// URLs of the parts of the simulated Kick, in the form in which a client is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KickUrls {
    /// In place of `https://id.kick.com`.
    pub auth: String,
    /// In place of `https://api.kick.com`.
    pub api: String,
}

impl KickSim {
    /// Prepares an empty Kick, and the delivery of its webhooks; nothing listens yet.
    pub(super) fn new(host: Host) -> Self {
        let world = World::new(Arc::clone(host.clock()), host.chance().clone());
        let kick = Self(Arc::new(Shared {
            host,
            world: Mutex::new(world),
            address: OnceLock::new(),
            key: Mutex::default(),
            webhook_url: Mutex::default(),
            post: OnceLock::new(),
            posted: AtomicU64::new(0),
        }));
        let handle = kick.downgrade();
        kick.0.post.get_or_init(|| {
            Post::start(kick.host(), move |event, accepted| {
                let Some(kick) = handle() else { return false };
                kick.with_world(|world, now| world.subscriptions.delivered(event, accepted, now));
                true
            })
        });
        kick
    }

    /// Sets the address at which it is served.
    pub(super) fn set_address(&self, address: SocketAddr) {
        self.0.address.get_or_init(|| address);
    }

    /// Returns a function that returns this handle while it exists elsewhere.
    pub(super) fn downgrade(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<> {
        let weak = Arc::downgrade(&self.0);
        move || weak.upgrade().map(Self)
    }

    /// Returns the number of deliveries for events so far.
    pub(super) fn posted(&self) -> u64 {
        self.0.posted.load(Ordering::Relaxed)
    }

    /// Returns the base URLs to configure a client with.
    pub fn urls(&self) -> KickUrls {
        KickUrls {
            auth: self.http(),
            api: self.http(),
        }
    }

    /// Returns the server's base URL, below which the controls are too.
    pub fn http(&self) -> String {
        let address = self.0.address.get();
        format!(
            "http://{}",
            address.map(SocketAddr::to_string).unwrap_or_default()
        )
    }

    /// Returns faults, journal, randomness and outages of this platform.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Returns the simulation's clock.
    pub fn clock(&self) -> &Arc<SimClock> {
        self.0.host.clock()
    }

    pub(super) fn with_world<R>(&self, act: impl FnOnce(&mut World, Timestamp) -> R) -> R {
        let mut world = self.0.world.lock();
        act(&mut world, self.clock().now())
    }

    fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.0.key.lock())
    }

    /// Returns the public key for verifying deliveries, in PEM.
    pub fn public_key(&self) -> String {
        self.key().public_pem()
    }

    /// Replaces the key for signing and serves the new public key.
    pub fn rotate_key(&self) {
        *self.0.key.lock() = Arc::default();
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

    /// Sets the URL of deliveries. `None` switches webhooks off, which deletes all subscriptions.
    pub fn set_webhook_url(&self, url: Option<&str>) {
        let url = url.map(str::to_owned);
        if url.is_none() {
            self.with_world(|world, _| world.subscriptions.remove("", None));
        }
        *self.0.webhook_url.lock() = url;
    }

    /// Adds a channel (a user), or changes its data, and sends the update.
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
        let lines = self.with_world(|world, now| world.lines(id, spec, now))?;
        let said = lines.iter().map(|line| {
            self.emit("chat.message.sent", id, line);
            line["message_id"].as_str().unwrap_or_default().to_owned()
        });
        Some(said.collect())
    }

    /// Sends an event unchanged to the subscriptions of that type; returns the number of deliveries.
    pub fn emit(&self, event: &str, broadcaster: u64, body: &Value) -> usize {
        let url = self.0.webhook_url.lock().clone();
        let key = self.key();
        let outgoing =
            self.with_world(|world, now| world.outgoing(url.as_deref(), &key, event, broadcaster, body, now));
        let count = outgoing.len();
        let posted = u64::try_from(count).unwrap_or(0);
        self.0.posted.fetch_add(posted, Ordering::Relaxed);
        if let Some(post) = self.0.post.get() {
            post.send(outgoing);
        }
        count
    }

    /// Returns the deliveries so far, oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let log = self.0.post.get().map(|post| Arc::clone(&post.log));
        log.map(|log| log.lock().clone()).unwrap_or_default()
    }

    /// Issues a token as described, as if it had been granted.
    pub fn issue_token(&self, spec: KickTokenSpec) -> KickTokens {
        self.with_world(|world, now| {
            let chance = world.chance.clone();
            world.tokens.issue(spec, now, &chance)
        })
    }

    /// Makes an access token expire; returns whether there was one.
    pub fn expire_token(&self, access: &str) -> bool {
        self.with_world(|world, now| world.tokens.expire(access, now))
    }

    /// Revokes a token of either kind; returns whether there was one.
    pub fn revoke_token(&self, token: &str) -> bool {
        self.with_world(|world, _| world.tokens.revoke(token))
    }

    /// Revokes all tokens of a user, or all app tokens when `None`. Kick sends no notification.
    pub fn disconnect(&self, user_id: Option<u64>) {
        self.with_world(|world, _| world.tokens.disconnect(user_id));
    }

    /// Makes a user's refresh tokens expire, as after a long time without use.
    pub fn age_out_refresh(&self, user_id: u64) {
        self.with_world(|world, now| world.tokens.age_out(user_id, now));
    }

    /// Removes a scope from a user's tokens.
    pub fn shrink_scope(&self, user_id: u64, scope: &str) {
        self.with_world(|world, _| world.tokens.shrink(user_id, scope));
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

    /// Changes knobs.
    pub fn knobs(&self, turn: impl FnOnce(&mut KickKnobs)) {
        self.with_world(|world, _| turn(&mut world.knobs));
    }

    /// Returns all subscriptions, as the controls show them.
    pub fn subscriptions(&self) -> Value {
        self.with_world(|world, _| world.subscriptions.to_json())
    }

    /// Returns the actual state, as the controls show it.
    pub fn truth(&self) -> Value {
        self.with_world(|world, _| world.describe())
    }
}
