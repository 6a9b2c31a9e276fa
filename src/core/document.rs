//! The document that a store holds for a source: the fields of the platform's schema, derived, next to our evidence.
//!
//! The fields that other programs read are always derived from the evidence. Unknown fields that other programs wrote are
//! preserved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::code::ErrorCode;
use crate::core::counters;
use crate::core::evidence::Knowledge;
use crate::core::future::is_too_far_ahead;
use crate::core::join::{Join, Newest};
use crate::core::observation::ErrorInfo;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::{self, AuthStatus, Status, Verdict};

mod stored;
#[cfg(test)]
mod tests;

pub use stored::whole_numbers;

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
    /// The error that explains `status`; where none does, the newest one, also after recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Totals over all writers.
    pub metrics: Metrics,
    /// Everything else worth knowing: login, title, category, session, ….
    pub metadata: Map<String, Value>,
    /// Authorization; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_status: Option<AuthStatus>,
    /// How many watch; only while online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewer_count: Option<u64>,
    /// What the bot may do, sorted; empty when it may do nothing, absent while nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    /// Smoothed round trip in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
}

impl SourceRecord {
    /// Returns the permissions of the bot; empty while they are unknown.
    pub fn held(&self) -> &[String] {
        self.permissions.as_deref().unwrap_or_default()
    }
}

/// An error of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastError {
    /// Listed in `docs/errors.md`, or of another program.
    #[schemars(with = "String")]
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// When it happened.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

impl LastError {
    fn of(error: &Newest<ErrorInfo>) -> Self {
        Self {
            code: error.value.code.clone(),
            message: error.value.message.clone(),
            at: error.at,
        }
    }
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
    /// The joined evidence and counters.
    pub knowledge: Knowledge,
    /// Derived from `knowledge`.
    pub verdict: Verdict,
    /// Fields of other programs, preserved unchanged.
    foreign: Foreign,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Foreign {
    top: Map<String, Value>,
    metadata: Map<String, Value>,
    /// Members of `metrics` that are not ours.
    metrics: Map<String, Value>,
    /// Time of the last status update by another program.
    status_update: Option<Timestamp>,
    display_name: Option<String>,
}

/// Reason why a stored document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenDocument {
    /// `schemaVersion` is newer than [`SCHEMA_VERSION`].
    #[error(
        "the document has schemaVersion {0}, but this bitbrat supports only up to {SCHEMA_VERSION}; upgrade bitbrat"
    )]
    Newer(u64),
    /// Its evidence cannot be parsed.
    #[error("the document's {field} cannot be read ({reason})")]
    Unreadable {
        /// Name of the field.
        field: &'static str,
        /// Message of the parser.
        reason: String,
    },
    /// The document is not a JSON object.
    #[error("the document is not an object")]
    NotAnObject,
}

impl SourceDocument {
    /// Creates a document without evidence.
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

    /// Joins `more` and updates the verdict.
    pub fn join(&mut self, more: Knowledge) {
        let about_permissions = !more.evidence.permissions.is_empty();
        self.keep_newer_name(&more);
        self.knowledge.join(more);
        let (platform, evidence) = (self.key.platform(), &self.knowledge.evidence);
        if about_permissions {
            self.verdict = Verdict::of(platform, evidence);
        } else {
            self.verdict.again(platform, evidence);
        }
    }

    /// Joins `more`, which changes no status, stream, authorization or permission. The verdict is updated by the next
    /// [`SourceDocument::join`].
    pub fn join_description(&mut self, more: Knowledge) {
        self.keep_newer_name(&more);
        self.knowledge.join(more);
    }

    /// Turns the name that another program wrote into evidence where `more` brings an older name.
    fn keep_newer_name(&mut self, more: &Knowledge) {
        const NAME: &str = "displayName";
        let (Some(name), Some(at)) = (&self.foreign.display_name, self.foreign.status_update) else {
            return;
        };
        let is_older = more
            .evidence
            .profile
            .get(NAME)
            .is_some_and(|known_name| known_name.at < at);
        if is_older && !self.knowledge.evidence.profile.contains_key(NAME) {
            let newer = Newest::new(at, name.clone());
            self.knowledge.evidence.profile.insert(NAME.to_owned(), newer);
        }
    }

    /// Drops evidence dated further ahead of `now` than the tolerated clock difference: it was stored by a program whose clock
    /// was ahead, and would outrank every later fact. Returns whether there was any.
    pub fn drop_future(&mut self, now: Timestamp) -> bool {
        let refused = self.knowledge.drop_future(now);
        if refused {
            self.verdict = Verdict::of(self.key.platform(), &self.knowledge.evidence);
        }
        refused
    }

    /// Returns the newest date of the evidence if it is rejected at `now` because it lies in the future.
    pub fn newest_future(mut self, now: Timestamp) -> Option<Timestamp> {
        self.knowledge.newest().filter(|at| is_too_far_ahead(*at, now))
    }

    /// Moves evidence dated ahead of `now` to `now`, after the local clock was set back. Returns whether there was any.
    pub fn redate_future(&mut self, now: Timestamp) -> bool {
        let redated = self.knowledge.redate_future(now);
        if redated {
            self.verdict = Verdict::of(self.key.platform(), &self.knowledge.evidence);
        }
        redated
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
            last_error: self.cause().or_else(|| {
                // A question that failed after the status was proven explains why the status gets old.
                let newest = evidence.error.as_ref();
                newest
                    .filter(|error| Some(error.at) > verdict.status.at)
                    .map(LastError::of)
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
            permissions: verdict.permissions_known.then(|| verdict.permissions.clone()),
            latency_ms: evidence.latency.as_ref().map(|latency| latency.value),
        }
    }

    /// Returns the error that explains why the source is not connected; `None` if no error is the cause.
    pub fn cause(&self) -> Option<LastError> {
        verdict::cause(&self.knowledge.evidence, &self.verdict)
            .as_ref()
            .map(LastError::of)
    }

    /// Returns the display name, or the name in the source's address until that is known; `None` while neither is.
    pub fn display_name(&self) -> Option<&str> {
        let profile = &self.knowledge.evidence.profile;
        let observed = |field: &str| profile.get(field).map(|name| name.value.as_str());
        observed("displayName")
            .or(self.foreign.display_name.as_deref())
            .or_else(|| observed("slug"))
    }

    fn metadata(&self) -> Map<String, Value> {
        let mut metadata = self.foreign.metadata.clone();
        for (field, value) in &self.knowledge.evidence.profile {
            if field != "displayName" {
                metadata.insert(field.clone(), Value::String(value.value.clone()));
            }
        }
        match &self.verdict.broadcast {
            Some(broadcast) => {
                let mut entry = Map::new();
                entry.insert("streamId".into(), broadcast.stream_id.clone().into());
                if let Some(start) = broadcast.started_at {
                    entry.insert("startedAt".into(), start.to_string().into());
                }
                if let Some(end) = broadcast.ended_at {
                    entry.insert("endedAt".into(), end.to_string().into());
                }
                if let Some(interruptions) = broadcast.interruptions {
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

    /// Returns whether the document contains nothing that another program wrote, so that it follows from its knowledge alone.
    pub fn is_all_ours(&self) -> bool {
        self.foreign == Foreign::default()
    }

    /// Returns a member of the metadata that another program wrote and that is not derived.
    pub fn foreign_metadata(&self, field: &str) -> Option<&Value> {
        self.foreign.metadata.get(field)
    }
}
