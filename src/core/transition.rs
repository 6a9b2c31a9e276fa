//! Transitions: what changed between two verdicts. Everything that is announced or kept as history is one of these.

use serde::{Deserialize, Serialize};

use crate::core::facet::Facet;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::Verdict;

/// One change of one verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// Which verdict changed.
    pub facet: Facet,
    /// What it was; absent when nothing was known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// What it is; absent when it is no longer known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// The time of the event that decided it.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// The rule that decided it.
    pub rule: String,
    /// The stream that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream_id: Option<String>,
}

/// Returns what changed from `before` to `after`.
///
/// A second stream that replaces the first without a pause is a transition too (ONLINE to ONLINE, another stream id), so
/// that no session goes unannounced.
pub fn transitions(before: &Verdict, after: &Verdict) -> Vec<Transition> {
    let mut changes = Vec::new();
    if before.status.value != after.status.value {
        changes.push(Transition {
            facet: Facet::Status,
            from: Some(before.status.value.to_string()),
            to: Some(after.status.value.to_string()),
            at: after.status.at.unwrap_or(Timestamp::EPOCH),
            rule: after.status.rule.to_owned(),
            stream_id: None,
        });
    }
    let stream = |verdict: &Verdict| verdict.session.as_ref().map(|session| session.stream_id.clone());
    let online = after.stream.value == StreamStatus::Online;
    if before.stream.value != after.stream.value || (online && stream(before) != stream(after)) {
        changes.push(Transition {
            facet: Facet::Stream,
            from: Some(before.stream.value.to_string()),
            to: Some(after.stream.value.to_string()),
            at: after.stream.at.unwrap_or(Timestamp::EPOCH),
            rule: after.stream.rule.to_owned(),
            stream_id: stream(after).or_else(|| stream(before)),
        });
    }
    let auth = |verdict: &Verdict| verdict.auth.as_ref().map(|auth| auth.value.to_string());
    if auth(before) != auth(after) {
        changes.push(Transition {
            facet: Facet::Auth,
            from: auth(before),
            to: auth(after),
            at: after
                .auth
                .as_ref()
                .and_then(|auth| auth.at)
                .unwrap_or(Timestamp::EPOCH),
            rule: after
                .auth
                .as_ref()
                .map_or("auth.unknown", |auth| auth.rule)
                .to_owned(),
            stream_id: None,
        });
    }
    if before.permissions != after.permissions {
        changes.push(Transition {
            facet: Facet::Permissions,
            from: Some(before.permissions.join(" ")),
            to: Some(after.permissions.join(" ")),
            at: after.permissions_at.unwrap_or(Timestamp::EPOCH),
            rule: "permissions.newest-answer".to_owned(),
            stream_id: None,
        });
    }
    changes
}
