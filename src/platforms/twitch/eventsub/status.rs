//! How a listener stands, for people and pages.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::planner::Plan;
use crate::core::observation::ErrorInfo;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Polled channels that a page shows; `watch --plan` shows all of them.
const SHOWN: usize = 100;

/// Counts over all lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Events that were heard.
    pub events: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Messages that were too old to be heard.
    pub stale: u64,
    /// Messages and events of kinds or shapes that we do not know.
    pub unknown: u64,
    /// Events about channels that are not ours.
    pub foreign: u64,
    /// Chat lines said in another channel that shares its chat.
    pub shared_chat: u64,
    /// Subscriptions refused or ended by Twitch.
    pub errors: u64,
    /// Connections after the first.
    pub reconnects: u64,
}

/// How a line stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LineStatus {
    /// Whose token it uses.
    pub identity: String,
    /// Which of the account's sockets.
    pub socket: usize,
    /// `RESTING`, `CONNECTING`, `WELCOMED`, `CONNECTED`, `MOVING` or `STOPPED`.
    pub state: &'static str,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Failures since the line was last proven.
    pub failures: u32,
    /// Why it was last down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorInfo>,
}

/// How a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionStatus {
    /// The broadcaster's user id.
    pub channel: String,
    /// Twitch's name of the type.
    pub event_type: &'static str,
    /// `enabled`, `pending` or `refused: ` and why.
    pub status: String,
    /// Events heard.
    pub event_count: u64,
    /// Refusals and revocations.
    pub error_count: u64,
    /// When Twitch accepted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When one was last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_at: Option<Timestamp>,
    /// When it was last refused or revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<Timestamp>,
}

/// How a listener stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Sockets.
    pub lines: Vec<LineStatus>,
    /// Subscriptions.
    pub subscriptions: Vec<SubscriptionStatus>,
    /// Counts.
    pub tally: Tally,
    /// Channels of which polls saw what pushes did not tell.
    pub silent: Vec<SourceKey>,
    /// Whether there is a plan yet.
    pub is_planned: bool,
    /// The plan in force.
    pub plan: Arc<Plan>,
}

impl LineStatus {
    /// Returns whether the line is proven.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, "CONNECTED" | "MOVING")
    }
}

impl Status {
    /// Returns whether every line that tells who is live is proven; true when the plan has none. A line that tells one
    /// broadcaster's roles is a matter between that broadcaster and us.
    pub fn is_healthy(&self) -> bool {
        let mut needed = self.plan.lines.iter().filter(|line| line.tells_streams());
        self.is_planned
            && needed.all(|needed| {
                self.lines.iter().any(|line| {
                    (line.identity.as_str(), line.socket) == (needed.identity.as_str(), needed.socket)
                        && line.is_connected()
                })
            })
    }

    /// Says in a sentence how the listener stands.
    pub fn summary(&self) -> String {
        if !self.is_planned {
            return "who is to be listened to is not known yet".to_owned();
        }
        let connected = self.lines.iter().filter(|line| line.is_connected()).count();
        let (enabled, all) = (self.enabled(), self.subscriptions.len());
        let mut summary = format!(
            "{connected} of {} sockets connected, {enabled} of {all} subscriptions enabled",
            self.plan.lines.len()
        );
        if let Some(error) = self.lines.iter().find_map(|line| {
            let error = line.last_error.as_ref()?;
            (!line.is_connected()).then_some(error)
        }) {
            summary += &format!(", {}: {}", error.code, error.message);
        }
        if !self.plan.polled.is_empty() {
            summary += &format!(", {} channels polled", self.plan.polled.len());
        }
        if !self.silent.is_empty() {
            summary += &format!(", {} SILENT", self.silent.len());
        }
        summary
    }

    /// Returns everything for a debug page, under the names of BitBrat's own page and ours besides.
    pub fn detail(&self) -> Value {
        let subscriptions: Vec<_> = self
            .subscriptions
            .iter()
            .map(|subscription| {
                json!({
                    "channel": subscription.channel, "eventType": subscription.event_type,
                    "status": subscription.status, "eventCount": subscription.event_count,
                    "errorCount": subscription.error_count, "createdAt": subscription.created_at, "lastEventAt": subscription.last_event_at,
                    "lastErrorAt": subscription.last_error_at,
                })
            })
            .collect();
        json!({
            "enabled": true, "useYamlConfig": false,
            "subscriptionCount": self.subscriptions.len(), "activeSubscriptions": self.enabled(),
            "totalEvents": self.tally.events, "totalErrors": self.tally.errors,
            "subscriptions": subscriptions,
            "lines": self.lines, "tally": self.tally, "silent": self.silent,
            "plan": {
                "cost": self.plan.cost, "costLimit": self.plan.cost_limit, "sockets": self.plan.lines.len(),
                "spareSockets": self.plan.spare_sockets, "polledCount": self.plan.polled.len(),
                "polled": self.plan.polled.iter().take(SHOWN).collect::<Vec<_>>(),
            },
        })
    }

    fn enabled(&self) -> usize {
        self.subscriptions
            .iter()
            .filter(|subscription| subscription.status == "enabled")
            .count()
    }
}
