//! What a conduit publishes about itself.

use super::super::machine::Phase;
use super::super::status::{ConduitStatus, ConnectionStatus, SubscriptionState};
use super::super::subscription_set::Stand;
use super::Conduit;
use crate::platforms::twitch::options::APP;

impl Conduit {
    /// Publishes the status if it has changed.
    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let state = match &self.state.phase {
            Phase::BackingOff { .. } => "BACKING_OFF",
            Phase::Opening { .. } | Phase::Greeting { .. } => "CONNECTING",
            Phase::Open(session) if session.proven => "CONNECTED",
            Phase::Open(_) => "WELCOMED",
            Phase::Moving { .. } => "MOVING",
            Phase::Stopped => "STOPPED",
        };
        let conduit = self.conduit.as_ref().map(|conduit| ConduitStatus {
            id: conduit.id.clone(),
            shard_count: conduit.shard_count,
            own_shards: self.options.own_shards.clone(),
            lost: self.health.lost.clone(),
            disabled: self.health.disabled.clone(),
            covers: self.is_covering,
        });
        let status = ConnectionStatus {
            identity: APP.to_owned(),
            socket: 0,
            state,
            session: self.state.session().map(|session| session.id.clone()),
            failures: self.state.failures,
            last_error: self.last_error.clone(),
            conduit,
        };
        let subscriptions = self.subscriptions.stands().map(|(subscription, stand)| {
            let state = match stand {
                Stand::Enabled { .. } => SubscriptionState::Enabled,
                Stand::Due { .. } | Stand::Creating { .. } => {
                    let delay = self.subscriptions.delayed();
                    SubscriptionState::Pending(delay.map(|delay| delay.reason.clone()))
                }
                Stand::Refused { reason, .. } => SubscriptionState::Refused(reason.clone()),
            };
            (subscription.clone(), state)
        });
        let subscriptions = subscriptions.collect();
        self.cx
            .hub
            .note_connection(&self.name, Some((status, subscriptions)));
    }
}
