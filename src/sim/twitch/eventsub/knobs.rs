//! The switches for deviating behavior of the simulated EventSub.

use serde::{Deserialize, Serialize};

/// How a notification is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicate {
    /// With the same message id, as at-least-once delivery does.
    SameId,
    /// As another message with an id of its own.
    FreshId,
}

/// Deviations of the simulated EventSub from its usual behavior.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent switch of the control surface"
)]
pub struct EventSubKnobs {
    /// Every notification is sent twice.
    pub duplicate: Option<Duplicate>,
    /// Milliseconds by which the timestamps of notifications lie in the past.
    pub age_ms: i64,
    /// Notifications are held back until released.
    pub hold: bool,
    /// Notifications are lost.
    pub drop_events: bool,
    /// `stream.offline` is sent without the stream's id, as before June 2026.
    pub offline_without_id: bool,
    /// Simulated milliseconds by which keepalives are late.
    pub keepalive_late_ms: i64,
    /// Keepalives are never sent.
    pub no_keepalives: bool,
    /// Real milliseconds that a client has to answer a ping; ten seconds when absent.
    pub pong_timeout_ms: Option<u64>,
    /// Simulated milliseconds for which the subscriptions of a lost socket still count towards the cost.
    pub orphan_cost_ms: i64,
    /// Subscriptions of a lost socket that still count towards the cost are not listed.
    pub orphans_hidden: bool,
    /// Simulated milliseconds by which the listed `total` is behind.
    pub stale_total_ms: i64,
    /// The id of the existing subscription is missing from a 409.
    pub conflict_without_id: bool,
    /// A socket that lost its last subscription is closed with 4003.
    pub close_when_empty: bool,
}
