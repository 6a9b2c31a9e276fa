//! Conduits: their shards, the routing of messages to shards, and what happens to shards that lose their socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::EventSub;
use crate::core::time::Timestamp;

/// Milliseconds after which a conduit without an enabled shard is deleted.
const ABANDONED_MS: i64 = 72 * 3_600_000;
/// The status of a shard that receives messages.
const ENABLED: &str = "enabled";

/// All conduits, by id.
pub(super) type Conduits = BTreeMap<String, Conduit>;

/// One conduit.
pub(super) struct Conduit {
    pub(super) client_id: String,
    pub(super) shard_count: usize,
    /// Those that were assigned a transport.
    pub(super) shards: BTreeMap<usize, Shard>,
    /// Since when no shard is enabled.
    pub(super) dead_since: Option<Timestamp>,
    /// Messages about channels that no shard received.
    pub(super) dropped: u64,
    /// Updates of shards that were accepted.
    pub(super) attached: u64,
}

/// One shard with a transport.
pub(super) struct Shard {
    /// The number of its socket; `None` for a webhook, and for a session of which the simulator has no socket.
    pub(super) socket: Option<u64>,
    pub(super) transport: Value,
    pub(super) status: String,
}

impl Shard {
    pub(super) fn to_json(&self, id: usize) -> Value {
        json!({"id": id.to_string(), "status": self.status, "transport": self.transport})
    }
}

/// Deviations of the simulated conduits from their usual behavior.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent switch of the control surface"
)]
pub struct ConduitKnobs {
    /// Updates of shards answer 202, with an error of this text for each shard.
    pub refuse_shards: Option<String>,
    /// Updates of shards are accepted, but the shards stay disabled.
    pub stay_disabled: bool,
    /// Updates of shards answer 400 `Missing required parameter ""`.
    pub nameless_refusal: bool,
    /// Updates of shards answer this status without being applied.
    pub shards_status: Option<u16>,
    /// Simulated milliseconds by which welcomes are late. The ten seconds for a first use begin without them.
    pub welcome_late_ms: i64,
    /// Shards above a smaller count stay listed as enabled.
    pub ghost_shards: bool,
    /// Shards do not follow a socket to another address.
    pub shards_stay: bool,
    /// Simulated milliseconds by which `conduit.shard.disabled` is late.
    pub disabled_late_ms: i64,
    /// `conduit.shard.disabled` is sent twice.
    pub disabled_twice: bool,
    /// `conduit.shard.disabled` is not sent.
    pub disabled_lost: bool,
    /// Messages are sent to two shards.
    pub two_shards: bool,
    /// Lists of shards and of a conduit's subscriptions end after their first page.
    pub missing_cursor: bool,
    /// Rows per page of these lists; 100 when absent.
    pub page_size: Option<usize>,
}

/// An act on a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConduitAct {
    /// Disable it, although its socket is open.
    Disable,
    /// Assign it to a session of another program.
    Steal,
}

/// A `conduit.shard.disabled` that is sent later.
pub(super) struct Late {
    at: Timestamp,
    conduit_id: String,
    client_id: String,
    event: Value,
}

/// Returns the shard that events with this value of a condition belong to.
pub(in crate::sim) fn shard_of(key: &str, shard_count: usize) -> usize {
    let number = key
        .bytes()
        .fold(0_usize, |sum, byte| (sum * 10 + usize::from(byte)) % 1_000_003);
    number % shard_count.max(1)
}

impl EventSub {
    pub(super) fn is_enabled(&self, shard: &Shard) -> bool {
        shard.status == ENABLED
            && shard
                .socket
                .is_some_and(|socket| self.sockets.contains_key(&socket))
    }

    /// Returns the sockets that receive a message with this value of a condition: that of its shard, or of one other shard when
    /// its own is disabled. A message for two disabled ones is dropped.
    pub(super) fn route(&mut self, id: &str, key: &str) -> Vec<u64> {
        let Some(conduit) = self.conduits.get(id) else {
            return Vec::new();
        };
        let count = conduit.shard_count.max(1);
        let first = shard_of(key, count);
        let socket_at = |index: usize| {
            let shard = conduit.shards.get(&(index % count))?;
            shard.socket.filter(|_| self.is_enabled(shard))
        };
        let is_webhook = conduit
            .shards
            .get(&first)
            .is_some_and(|shard| shard.transport["method"] == "webhook");
        let sockets: Vec<_> = if self.conduit_knobs.two_shards {
            [socket_at(first), socket_at(first + 1)]
                .into_iter()
                .flatten()
                .collect()
        } else if is_webhook {
            // Webhooks of shards are not delivered, and another shard does not take over what one fails to receive.
            Vec::new()
        } else {
            socket_at(first)
                .or_else(|| socket_at(first + 1))
                .into_iter()
                .collect()
        };
        // Only messages about channels, whose ids are numbers, count as dropped.
        let is_about_channel = key.bytes().all(|digit| digit.is_ascii_digit());
        if sockets.is_empty()
            && is_about_channel
            && let Some(conduit) = self.conduits.get_mut(id)
        {
            conduit.dropped += 1;
        }
        sockets
    }

    /// Moves the shards of a socket to the one that replaces it.
    pub(super) fn move_shards(&mut self, from: u64, to: u64) {
        let Some(new) = self.sockets.get(&to).filter(|_| !self.conduit_knobs.shards_stay) else {
            return;
        };
        let (session_id, connected_at) = (new.session_id.clone(), new.connected_at);
        for shard in self
            .conduits
            .values_mut()
            .flat_map(|conduit| conduit.shards.values_mut())
        {
            if shard.socket == Some(from) && shard.status == ENABLED {
                shard.socket = Some(to);
                shard.transport = socket_transport(&session_id, connected_at);
            }
        }
    }

    /// Disables the shards of a socket that has ended.
    pub(super) fn disable_shards_of(&mut self, socket: u64, status: &str) {
        let mut affected = Vec::new();
        for (id, conduit) in &self.conduits {
            let own = conduit
                .shards
                .iter()
                .filter(|(_, shard)| shard.socket == Some(socket));
            affected.extend(own.map(|(index, _)| (id.clone(), *index)));
        }
        for (id, index) in affected {
            self.disable_shard(&id, index, status);
        }
    }

    fn disable_shard(&mut self, id: &str, index: usize, status: &str) {
        let wall = self.clock.wall();
        let Some(conduit) = self.conduits.get_mut(id) else {
            return;
        };
        let client_id = conduit.client_id.clone();
        let Some(shard) = conduit
            .shards
            .get_mut(&index)
            .filter(|shard| shard.status == ENABLED)
        else {
            return;
        };
        status.clone_into(&mut shard.status);
        shard.transport["disconnected_at"] = json!(wall);
        let event = json!({
            "conduit_id": id, "shard_id": index.to_string(), "status": status, "transport": shard.transport,
        });
        self.update_dead_conduits();
        let knobs = &self.conduit_knobs;
        if knobs.disabled_lost {
            return;
        }
        let at = self.now().plus_millis(knobs.disabled_late_ms);
        let times = if knobs.disabled_twice { 2 } else { 1 };
        for _ in 0..times {
            self.late.push(Late {
                at,
                conduit_id: id.to_owned(),
                client_id: client_id.clone(),
                event: event.clone(),
            });
        }
        self.send_late();
    }

    /// Sends the messages that have become due.
    pub(super) fn send_late(&mut self) {
        let now = self.now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|late| late.at <= now);
        self.late = later;
        for late in due {
            const KIND: &str = "conduit.shard.disabled";
            self.notify(KIND, "conduit_id", &late.conduit_id, &late.event);
            self.notify(KIND, "client_id", &late.client_id, &late.event);
        }
    }

    /// Notes since when conduits have had no enabled shard.
    pub(super) fn update_dead_conduits(&mut self) {
        let now = self.now();
        let alive: Vec<_> = self
            .conduits
            .iter()
            .filter(|(_, conduit)| conduit.shards.values().any(|shard| self.is_enabled(shard)))
            .map(|(id, _)| id.clone())
            .collect();
        for (id, conduit) in &mut self.conduits {
            if alive.contains(id) {
                conduit.dead_since = None;
            } else {
                conduit.dead_since.get_or_insert(now);
            }
        }
    }

    /// Deletes the conduits that have had no enabled shard for three days.
    pub(super) fn remove_dead_conduits(&mut self) {
        self.update_dead_conduits();
        let now = self.now();
        let abandoned = |conduit: &Conduit| {
            conduit
                .dead_since
                .is_some_and(|since| since.plus_millis(ABANDONED_MS) <= now)
        };
        let dead: Vec<_> = self
            .conduits
            .iter()
            .filter(|(_, conduit)| abandoned(conduit))
            .map(|(id, _)| id.clone())
            .collect();
        for id in dead {
            self.remove_conduit(&id);
        }
    }

    /// Deletes a conduit, and ends its subscriptions. Returns whether there was one.
    pub(in crate::sim::twitch) fn remove_conduit(&mut self, id: &str) -> bool {
        let now = self.now();
        for subscription in &mut self.subscriptions {
            if subscription.is_of_conduit(id) && subscription.end.is_none() {
                subscription.end = Some((now, "conduit_deleted".to_owned()));
            }
        }
        self.conduits.remove(id).is_some()
    }

    /// Returns the ids of the conduits that are meant: this one, or all when empty.
    fn conduits_meant(&self, id: &str) -> Vec<String> {
        let all = self.conduits.keys();
        all.filter(|known| id.is_empty() || *known == id)
            .cloned()
            .collect()
    }

    /// Deletes a conduit (all when empty), as after three days without an enabled shard. Returns how many.
    pub(in crate::sim::twitch) fn remove_conduits(&mut self, id: &str) -> usize {
        let meant = self.conduits_meant(id);
        meant.iter().filter(|id| self.remove_conduit(id)).count()
    }

    /// Applies an act to a shard of a conduit (of all when empty). Returns how many shards that were.
    pub(in crate::sim::twitch) fn spoil_shard(&mut self, id: &str, index: usize, act: ConduitAct) -> usize {
        let mut count = 0;
        for id in self.conduits_meant(id) {
            let (connected_at, conduit) = (self.clock.wall(), self.conduits.get_mut(&id));
            let Some(shard) = conduit.and_then(|conduit| conduit.shards.get_mut(&index)) else {
                continue;
            };
            count += 1;
            match act {
                ConduitAct::Disable => self.disable_shard(&id, index, "websocket_internal_error"),
                ConduitAct::Steal => {
                    shard.socket = None;
                    shard.transport = socket_transport("AgoQofanother", connected_at);
                }
            }
        }
        count
    }

    /// Returns the conduits as the controls show them.
    pub(super) fn conduits_json(&self) -> Value {
        let shown = self.conduits.iter().map(|(id, conduit)| {
            let shards: Vec<_> = conduit.shards.iter().map(|(index, shard)| shard.to_json(*index)).collect();
            json!({
                "id": id, "client_id": conduit.client_id, "shard_count": conduit.shard_count, "shards": shards,
                "dropped": conduit.dropped, "attached": conduit.attached,
            })
        });
        shown.collect()
    }
}

/// Returns a shard's transport over a websocket.
pub(super) fn socket_transport(session_id: &str, connected_at: Timestamp) -> Value {
    json!({"method": "websocket", "session_id": session_id, "connected_at": connected_at})
}
