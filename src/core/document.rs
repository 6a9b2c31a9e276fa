//! The document that a store keeps for a source: the platform's fields, derived, and our evidence beside them.
//!
//! The fields that other programs read are always derived afresh from the evidence. What other programs wrote and we
//! do not know survives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::counters;
use crate::core::evidence::Knowledge;
use crate::core::join::Join;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::{AuthStatus, Status, Verdict};

mod stored;
#[cfg(test)]
mod tests;

/// The version of the document's layout that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The fields of a source that every reader may rely on. Absent rather than null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceRecord {
    /// The platform's own id of the channel or guild.
    pub id: String,
    /// The platform.
    pub platform: PlatformName,
    /// The name that people see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Connected?
    pub status: Status,
    /// Live?
    pub stream_status: StreamStatus,
    /// When `status` was last decided or confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_status_update: Option<Timestamp>,
    /// When `streamStatus` was last decided or confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_stream_update: Option<Timestamp>,
    /// The newest error, also after recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Totals over all writers.
    pub metrics: Metrics,
    /// Everything else worth knowing: login, title, category, session, ….
    pub metadata: Map<String, Value>,
    /// Authorised? Absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_status: Option<AuthStatus>,
    /// How many watch; only while online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewer_count: Option<u64>,
    /// What the bot may do, sorted.
    pub permissions: Vec<String>,
    /// Smoothed round trip in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
}

/// The newest error of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastError {
    /// Stable and dotted.
    pub code: String,
    /// For people.
    pub message: String,
    /// When it happened.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

/// Totals over all writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Chat messages received.
    pub messages_in: u64,
    /// Chat messages handed to delivery.
    pub messages_out: u64,
    /// Errors met.
    pub errors: u64,
    /// New connections after the first.
    pub reconnects: u64,
    /// When a writer last reported anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_heartbeat: Option<Timestamp>,
}

/// A source's document.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceDocument {
    /// The source.
    pub key: SourceKey,
    /// What is known.
    pub knowledge: Knowledge,
    /// What it amounts to.
    pub verdict: Verdict,
    /// Fields of others, kept as they were.
    foreign: Foreign,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Foreign {
    top: Map<String, Value>,
    metadata: Map<String, Value>,
    display_name: Option<String>,
}

/// A stored document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenDocument {
    /// Its layout is of a newer program.
    #[error(
        "the document has schemaVersion {0}, but this bitbrat knows only up to {SCHEMA_VERSION}; upgrade bitbrat"
    )]
    Newer(u64),
    /// Its evidence cannot be read.
    #[error("the document's {field} cannot be read ({reason}); it is left as it is")]
    Unreadable {
        /// The field.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// It is not an object.
    #[error("the document is not an object")]
    NotAnObject,
}

impl SourceDocument {
    /// Starts a document about which nothing is known.
    pub fn new(key: SourceKey) -> Self {
        Self::from_knowledge(key, Knowledge::default())
    }

    /// Builds the document that follows from `knowledge`.
    pub fn from_knowledge(key: SourceKey, knowledge: Knowledge) -> Self {
        let verdict = Verdict::of(key.platform(), &knowledge.evidence);
        Self {
            key,
            knowledge,
            verdict,
            foreign: Foreign::default(),
        }
    }

    /// Joins `more` and derives the verdict again.
    pub fn join(&mut self, more: Knowledge) {
        let about_permissions = !more.evidence.permissions.is_empty();
        self.knowledge.join(more);
        let (platform, evidence) = (self.key.platform(), &self.knowledge.evidence);
        if about_permissions {
            self.verdict = Verdict::of(platform, evidence);
        } else {
            self.verdict.again(platform, evidence);
        }
    }

    /// Returns the fields that every reader may rely on.
    pub fn record(&self) -> SourceRecord {
        let evidence = &self.knowledge.evidence;
        let verdict = &self.verdict;
        let totals = counters::sum(&self.knowledge.counters);
        SourceRecord {
            id: self.key.id().to_owned(),
            platform: self.key.platform(),
            display_name: self.display_name().map(str::to_owned),
            status: verdict.status.value,
            stream_status: verdict.stream.value,
            last_status_update: verdict.status.at,
            last_stream_update: verdict.stream.at,
            last_error: evidence.error.as_ref().map(|error| LastError {
                code: error.value.code.clone(),
                message: error.value.message.clone(),
                at: error.at,
            }),
            metrics: Metrics {
                messages_in: totals.messages_in,
                messages_out: totals.messages_out,
                errors: totals.errors,
                reconnects: totals.reconnects,
                last_heartbeat: totals.at.max(verdict.status.at).max(verdict.stream.at),
            },
            metadata: self.metadata(),
            auth_status: verdict.auth.as_ref().map(|auth| auth.value),
            viewer_count: verdict.viewer_count,
            permissions: verdict.permissions.clone(),
            latency_ms: evidence.latency.as_ref().map(|latency| latency.value),
        }
    }

    /// Returns the name that people see, as far as it is known.
    pub fn display_name(&self) -> Option<&str> {
        let observed = self
            .knowledge
            .evidence
            .profile
            .get("displayName")
            .map(|name| name.value.as_str());
        observed.or(self.foreign.display_name.as_deref())
    }

    fn metadata(&self) -> Map<String, Value> {
        let mut metadata = self.foreign.metadata.clone();
        for (field, value) in &self.knowledge.evidence.profile {
            if field != "displayName" {
                metadata.insert(field.clone(), Value::String(value.value.clone()));
            }
        }
        match &self.verdict.session {
            Some(session) => {
                let mut entry = Map::new();
                entry.insert("streamId".into(), session.stream_id.clone().into());
                if let Some(start) = session.started_at {
                    entry.insert("startedAt".into(), start.to_string().into());
                }
                if let Some(end) = session.ended_at {
                    entry.insert("endedAt".into(), end.to_string().into());
                }
                if let Some(interruptions) = session.interruptions {
                    entry.insert("interruptions".into(), interruptions.into());
                }
                metadata.insert("session".into(), Value::Object(entry));
            }
            None => {
                metadata.remove("session");
            }
        }
        metadata
    }

    /// Returns whether it holds nothing that another program wrote, so that it follows from its knowledge alone.
    pub fn is_all_ours(&self) -> bool {
        self.foreign == Foreign::default()
    }

    /// Returns a member of the metadata that another program wrote and we do not derive.
    pub fn foreign_metadata(&self, field: &str) -> Option<&Value> {
        self.foreign.metadata.get(field)
    }
}
