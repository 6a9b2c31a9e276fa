//! The status of a listener, for users and debug pages.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::planner::Plan;
use crate::core::number::count;
use crate::core::observation::ErrorInfo;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Number of polled channels that a page shows; `watch --plan` shows all of them.
const SHOWN: usize = 100;

/// The state of a subscription. Debug pages and logs show it as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Twitch accepted it, and its socket is connected.
    Enabled,
    /// It ended with its socket.
    NotConnected,
    /// It is yet to be created, with the reason if that is delayed.
    Pending(Option<String>),
    /// Twitch refused it, with the reason.
    Refused(String),
}

impl fmt::Display for SubscriptionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enabled => f.write_str("enabled"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Pending(None) => f.write_str("pending"),
            Self::Pending(Some(reason)) => write!(f, "pending: {reason}"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

impl Serialize for SubscriptionState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Counts over all connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Events processed.
    pub events: u64,
    /// Messages that were received again.
    pub duplicates: u64,
    /// Messages that were too old to be processed.
    pub stale: u64,
    /// Messages and events of unknown types or formats.
    pub unknown: u64,
    /// Events about channels that are not monitored.
    pub foreign: u64,
    /// Chat messages sent in another channel that shares its chat.
    pub shared_chat: u64,
    /// Subscriptions refused or revoked by Twitch.
    pub errors: u64,
    /// Connections after the first.
    pub reconnects: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStatus {
    /// Whose token it uses.
    pub identity: String,
    /// Which of the account's sockets.
    pub socket: usize,
    /// `BACKING_OFF`, `CONNECTING`, `WELCOMED`, `CONNECTED`, `MOVING` or `STOPPED`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Failures since a subscription was last accepted.
    pub failures: u32,
    /// The cause of its last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionStatus {
    /// The broadcaster's user id.
    pub channel: String,
    /// Twitch's name of the type.
    pub event_type: &'static str,
    pub status: SubscriptionState,
    /// Events received.
    pub event_count: u64,
    /// Refusals and revocations.
    pub error_count: u64,
    /// When Twitch accepted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When its last event was received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_at: Option<Timestamp>,
    /// When it was last refused or revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<Timestamp>,
}

/// The status of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Sockets.
    pub connections: Vec<ConnectionStatus>,
    pub subscriptions: Vec<SubscriptionStatus>,
    /// Counts.
    pub tally: Tally,
    /// Channels with events that polls observed and pushes did not report.
    pub silent: Vec<SourceKey>,
    /// Whether there is a plan yet.
    pub is_planned: bool,
    /// The plan in force.
    pub plan: Arc<Plan>,
    pub bot_user_id: Option<String>,
    /// Why the stored token of the bot cannot be used.
    pub bot_missing: Option<String>,
}

impl SubscriptionStatus {
    /// Returns the state in the vocabulary of BitBrat's connectors: `active`, `error` or `unsubscribed`.
    fn word(&self) -> &'static str {
        match self.status {
            SubscriptionState::Enabled => "active",
            SubscriptionState::Refused(_) => "error",
            SubscriptionState::NotConnected | SubscriptionState::Pending(_) => "unsubscribed",
        }
    }
}

impl ConnectionStatus {
    /// Returns whether the connection is up.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, "CONNECTED" | "MOVING")
    }
}

impl ConnectionStatus {
    /// Returns whether there is a session, to which subscriptions belong.
    pub(super) fn has_session(&self) -> bool {
        matches!(self.state, "WELCOMED" | "CONNECTED" | "MOVING")
    }
}

impl Status {
    /// Returns whether every connection that covers streams is up; true when the plan has none, unless it has none because the
    /// bot's token cannot be used. A connection that reports one broadcaster's roles concerns only that broadcaster.
    pub fn is_healthy(&self) -> bool {
        if self.bot_missing.is_some() && !self.plan.polled.is_empty() {
            return false;
        }
        let mut needed = self
            .plan
            .connections
            .iter()
            .filter(|connection| connection.covers_streams());
        self.is_planned
            && needed.all(|needed| {
                self.connections.iter().any(|connection| {
                    (connection.identity.as_str(), connection.socket)
                        == (needed.identity.as_str(), needed.socket)
                        && connection.is_connected()
                })
            })
    }

    /// Returns the listener's status as a sentence.
    pub fn summary(&self) -> String {
        if !self.is_planned {
            return "who is to be listened to is not known yet".to_owned();
        }
        let (enabled, all) = (self.enabled(), self.subscriptions.len());
        let connected = self.connected();
        let mut summary = format!(
            "{connected} of {} connected, {enabled} of {} enabled",
            count(self.plan.connections.len() as u64, "socket"),
            count(all as u64, "subscription")
        );
        if let Some(error) = self.connections.iter().find_map(|connection| {
            let error = connection.last_error.as_ref()?;
            (!connection.is_connected()).then_some(error)
        }) {
            summary += &format!(", {}: {}", error.code, error.message);
        }
        if let Some(why) = &self.bot_missing {
            summary += &format!(", the bot's token cannot be used: {why}");
        }
        if !self.plan.polled.is_empty() {
            summary += &format!(", {} polled", count(self.plan.polled.len() as u64, "channel"));
        }
        if !self.silent.is_empty() {
            summary += &format!(", {} SILENT", self.silent.len());
        }
        summary
    }

    /// Returns all details for a debug page, under the names of BitBrat's own page and additional ones.
    pub fn detail(&self) -> Value {
        let subscriptions: Vec<_> = self
            .subscriptions
            .iter()
            .map(|subscription| {
                json!({
                    "channel": subscription.channel, "eventType": subscription.event_type,
                    "status": subscription.word(), "detail": subscription.status, "eventCount": subscription.event_count,
                    "errorCount": subscription.error_count, "createdAt": subscription.created_at, "lastEventAt": subscription.last_event_at,
                    "lastErrorAt": subscription.last_error_at,
                })
            })
            .collect();
        json!({
            "enabled": true, "state": self.state(), "useYamlConfig": false, "botUserId": self.bot_user_id,
            "subscriptionCount": self.subscriptions.len(), "activeSubscriptions": self.enabled(),
            "totalEvents": self.tally.events, "totalErrors": self.tally.errors,
            "subscriptions": subscriptions,
            "lines": self.connections, "tally": self.tally, "silent": self.silent,
            "plan": {
                "cost": self.plan.cost, "costLimit": self.plan.cost_limit, "sockets": self.plan.connections.len(),
                "spareSockets": self.plan.spare_sockets, "polledCount": self.plan.polled.len(),
                "polled": self.plan.polled.iter().take(SHOWN).collect::<Vec<_>>(),
            },
        })
    }

    /// Returns the state in the vocabulary of BitBrat's connectors.
    fn state(&self) -> &'static str {
        let is = |state: &str| {
            self.connections
                .iter()
                .any(|connection| connection.state == state)
        };
        if !self.is_planned {
            "CONNECTING"
        } else if self.bot_missing.is_some() {
            "ERROR"
        } else if !self.plan.connections.is_empty() && self.is_healthy() {
            "CONNECTED"
        } else if is("STOPPED") {
            "ERROR"
        } else if is("CONNECTING") || is("WELCOMED") || is("MOVING") {
            "CONNECTING"
        } else {
            "DISCONNECTED"
        }
    }

    /// Returns how many connections are up.
    pub fn connected(&self) -> usize {
        let connections = self.connections.iter();
        connections.filter(|connection| connection.is_connected()).count()
    }

    /// Returns how many subscriptions Twitch has accepted.
    pub fn enabled(&self) -> usize {
        self.subscriptions
            .iter()
            .filter(|subscription| subscription.status == SubscriptionState::Enabled)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::planner::Polled;
    use super::*;

    fn subscription(status: SubscriptionState) -> SubscriptionStatus {
        SubscriptionStatus {
            channel: "777001".to_owned(),
            event_type: "stream.online",
            status,
            event_count: 0,
            error_count: 0,
            created_at: None,
            last_event_at: None,
            last_error_at: None,
        }
    }

    fn status() -> Status {
        Status {
            connections: Vec::new(),
            subscriptions: Vec::new(),
            tally: Tally::default(),
            silent: Vec::new(),
            is_planned: true,
            plan: Arc::default(),
            bot_user_id: None,
            bot_missing: None,
        }
    }

    #[test]
    fn subscription_status_uses_connector_terms() {
        for (state, text, word) in [
            (SubscriptionState::Enabled, "enabled", "active"),
            (SubscriptionState::Pending(None), "pending", "unsubscribed"),
            (
                SubscriptionState::Pending(Some("cost".to_owned())),
                "pending: cost",
                "unsubscribed",
            ),
            (SubscriptionState::NotConnected, "not connected", "unsubscribed"),
            (
                SubscriptionState::Refused("banned".to_owned()),
                "refused: banned",
                "error",
            ),
        ] {
            assert_eq!(serde_json::to_value(&state).unwrap(), text);
            assert_eq!(subscription(state).word(), word);
        }
    }

    #[test]
    fn an_unusable_bot_token_is_not_healthy() {
        let polled = Polled {
            source: "twitch:777001".parse().unwrap(),
            reason: "there is no usable token of the bot".into(),
        };
        let plan = Plan {
            polled: vec![polled],
            ..Plan::default()
        };
        let mut status = Status {
            plan: Arc::new(plan),
            ..status()
        };
        assert!(status.is_healthy(), "no token was stored, so polling is the plan");
        status.bot_missing = Some("revoked".to_owned());
        assert!(!status.is_healthy() && status.summary().contains("revoked"));
        assert_eq!(status.detail()["state"], "ERROR");
    }
}
