//! The document that a store keeps for a source: the platform's fields, derived, and our evidence beside them.
//!
//! The fields that other programs read are always derived afresh from the evidence. What other programs wrote and we
//! do not know survives.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::core::counters::{self, CounterTable, Counters};
use crate::core::evidence::{Evidence, Knowledge};
use crate::core::join::Join;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::{AuthStatus, Status, Verdict};

/// The version of the document's layout that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The writer under whose name totals are kept that another program had counted.
const FOREIGN_WRITER: &str = "platform";

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
                entry.insert("interruptions".into(), session.interruptions.into());
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

    /// Returns the document as it is stored: the record, our evidence and counters, and the fields of others.
    pub fn to_stored(&self) -> Map<String, Value> {
        let mut stored = self.foreign.top.clone();
        stored.extend(object(&self.record()));
        stored.insert("schemaVersion".into(), SCHEMA_VERSION.into());
        stored.insert("evidence".into(), Value::Object(object(&self.knowledge.evidence)));
        stored.insert("counters".into(), Value::Object(object(&self.knowledge.counters)));
        stored
    }

    /// Returns the text of [`SourceDocument::to_stored`], its fields in another order, without building the values first.
    pub fn to_text(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Whole<'a> {
            #[serde(flatten)]
            record: SourceRecord,
            schema_version: u32,
            evidence: &'a Evidence,
            counters: &'a CounterTable,
            #[serde(flatten)]
            foreign: &'a Map<String, Value>,
        }
        let whole = Whole {
            record: self.record(),
            schema_version: SCHEMA_VERSION,
            evidence: &self.knowledge.evidence,
            counters: &self.knowledge.counters,
            foreign: &self.foreign.top,
        };
        serde_json::to_string(&whole).expect("our own structs with text keys always serialise")
    }

    /// Reads a stored document of `key`.
    ///
    /// Documents without our evidence (written by another program, or restored from a backup that strips state) are
    /// accepted: their totals, name and unknown fields are taken over, their claims are not.
    pub fn from_stored(key: SourceKey, stored: Value) -> Result<Self, BrokenDocument> {
        let Value::Object(mut fields) = stored else {
            return Err(BrokenDocument::NotAnObject);
        };
        let schema_version = fields.get("schemaVersion").and_then(Value::as_u64);
        newest_known(schema_version)?;
        let parts = Parts {
            schema_version,
            evidence: take(&mut fields, "evidence")?,
            counters: take(&mut fields, "counters")?,
            metrics: fields.remove("metrics").map(Later::Value),
            display_name: fields.remove("displayName"),
            metadata: fields.remove("metadata").map(Later::Value),
            rest: fields,
        };
        Ok(Self::assemble(key, parts))
    }

    /// Reads the text of a stored document of `key`: what [`SourceDocument::from_stored`] does, at a third of the cost,
    /// because evidence goes straight into its types and what is derived anyway is skipped.
    pub fn from_text(key: SourceKey, text: &str) -> Result<Self, BrokenDocument> {
        match serde_json::from_str::<Parts>(text) {
            Ok(parts) => {
                newest_known(parts.schema_version)?;
                Ok(Self::assemble(key, parts))
            }
            // The slow way knows which field is broken.
            Err(_) => Self::from_stored(key, serde_json::from_str(text).unwrap_or_default()),
        }
    }

    fn assemble(key: SourceKey, parts: Parts<'_>) -> Self {
        let evidence = parts.evidence.unwrap_or_default();
        let counters = parts.counters.unwrap_or_else(|| {
            let totals = parts
                .metrics
                .and_then(|metrics| foreign_counters(&metrics.read()));
            totals
                .map(|totals| BTreeMap::from([(FOREIGN_WRITER.to_owned(), totals)]))
                .unwrap_or_default()
        });
        let profile = &evidence.profile;
        let mut top = parts.rest;
        top.retain(|field, value| !value.is_null() && !RECORD_FIELDS.contains(&field.as_str()));
        let derived =
            |field: &str| field == "session" || (field != "displayName" && profile.contains_key(field));
        let metadata = parts
            .metadata
            .map_or_else(Map::new, |metadata| metadata.members_but(derived));
        let display_name = match parts.display_name {
            Some(Value::String(name)) if !profile.contains_key("displayName") => Some(name),
            _ => None,
        };
        let known = Self::from_knowledge(key, Knowledge { evidence, counters });
        let foreign = Foreign {
            top,
            metadata,
            display_name,
        };
        Self { foreign, ..known }
    }

    /// Returns a member of the metadata that another program wrote and we do not derive.
    pub fn foreign_metadata(&self, field: &str) -> Option<&Value> {
        self.foreign.metadata.get(field)
    }
}

/// A stored document taken apart.
#[derive(Default)]
struct Parts<'a> {
    schema_version: Option<u64>,
    evidence: Option<Evidence>,
    counters: Option<CounterTable>,
    metrics: Option<Later<'a>>,
    display_name: Option<Value>,
    metadata: Option<Later<'a>>,
    rest: Map<String, Value>,
}

/// A part that is read once it is known what is needed of it, which is mostly nothing.
enum Later<'a> {
    Value(Value),
    Text(&'a str),
}

impl Later<'_> {
    fn read(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Text(text) => serde_json::from_str(text).unwrap_or_default(),
        }
    }

    /// Returns the members of an object apart from nulls and those that are derived.
    fn members_but(self, derived: impl Fn(&str) -> bool) -> Map<String, Value> {
        match self {
            Self::Value(Value::Object(mut members)) => {
                members.retain(|member, value| !value.is_null() && !derived(member));
                members
            }
            Self::Value(_) => Map::new(),
            Self::Text(text) => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
                let kept = members.into_iter().filter(|(member, _)| !derived(member));
                kept.map(|(member, text)| (member, Self::Text(text.get()).read()))
                    .filter(|(_, value)| !value.is_null())
                    .collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PartsVisitor)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a stored document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Parts<'de>, A::Error> {
        let mut parts = Parts::default();
        while let Some(field) = fields.next_key::<Field>()? {
            match field {
                Field::SchemaVersion => parts.schema_version = fields.next_value::<Value>()?.as_u64(),
                Field::Evidence => parts.evidence = fields.next_value()?,
                Field::Counters => parts.counters = fields.next_value()?,
                Field::Metrics => parts.metrics = Some(Later::Text(fields.next_value::<&RawValue>()?.get())),
                Field::DisplayName => parts.display_name = fields.next_value()?,
                Field::Metadata => {
                    parts.metadata = Some(Later::Text(fields.next_value::<&RawValue>()?.get()));
                }
                Field::Derived => {
                    fields.next_value::<IgnoredAny>()?;
                }
                Field::Other(name) => {
                    parts.rest.insert(name, fields.next_value()?);
                }
            }
        }
        Ok(parts)
    }
}

/// What a field of a stored document is to us.
enum Field {
    SchemaVersion,
    Evidence,
    Counters,
    Metrics,
    DisplayName,
    Metadata,
    Derived,
    Other(String),
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl Visitor<'_> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(match name {
                    "schemaVersion" => Field::SchemaVersion,
                    "evidence" => Field::Evidence,
                    "counters" => Field::Counters,
                    "metrics" => Field::Metrics,
                    "displayName" => Field::DisplayName,
                    "metadata" => Field::Metadata,
                    derived if RECORD_FIELDS.contains(&derived) => Field::Derived,
                    other => Field::Other(other.to_owned()),
                })
            }
        }
        deserializer.deserialize_identifier(FieldVisitor)
    }
}

/// Refuses a layout that is newer than this program.
fn newest_known(schema_version: Option<u64>) -> Result<(), BrokenDocument> {
    match schema_version {
        Some(version) if version > u64::from(SCHEMA_VERSION) => Err(BrokenDocument::Newer(version)),
        _ => Ok(()),
    }
}

/// Every field that is derived and never taken over from a stored document.
const RECORD_FIELDS: &[&str] = &[
    "id",
    "platform",
    "displayName",
    "status",
    "streamStatus",
    "lastStatusUpdate",
    "lastStreamUpdate",
    "lastError",
    "metrics",
    "authStatus",
    "viewerCount",
    "permissions",
    "latencyMs",
    "schemaVersion",
];

fn take<T: serde::de::DeserializeOwned>(
    fields: &mut Map<String, Value>,
    field: &'static str,
) -> Result<Option<T>, BrokenDocument> {
    match fields.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|error| BrokenDocument::Unreadable {
                field,
                reason: error.to_string(),
            }),
    }
}

fn object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("our own structs with text keys always become objects"),
    }
}

/// Totals as another program wrote them: by the names of the schema, or by those of its connectors.
fn foreign_counters(metrics: &Value) -> Option<Counters> {
    let metrics = metrics.as_object()?;
    let total = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| metrics.get(*name).and_then(Value::as_u64))
            .unwrap_or(0)
    };
    Some(Counters {
        messages_in: total(["messagesIn", "received"]),
        // Its `published` counts messages put on the bus, not messages sent to chat.
        messages_out: total(["messagesOut", "messagesOut"]),
        errors: total(["errors", "failed"]),
        reconnects: total(["reconnects", "reconnects"]),
        at: metrics
            .get("lastHeartbeat")
            .and_then(Value::as_str)
            .and_then(|at| at.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::observation::{Fact, LinkState, Observation, Transport};
    use serde_json::json;

    fn key() -> SourceKey {
        "twitch:900200".parse().unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    fn live_document() -> SourceDocument {
        let facts = [
            Fact::Connection {
                transport: Transport::Api,
                state: LinkState::Up,
            },
            Fact::StreamSeen {
                stream_id: "40900001".into(),
                started_at: Some(at(-60)),
            },
            Fact::Viewers {
                count: 37,
                stream_id: Some("40900001".into()),
            },
            Fact::Profile {
                fields: BTreeMap::from([
                    ("displayName".into(), "RatCaster".into()),
                    ("login".into(), "ratcaster".into()),
                ]),
            },
        ];
        let observations = facts.map(|fact| Observation::new(&key(), at(0), "twitch.helix", fact));
        SourceDocument::from_knowledge(key(), Knowledge::of(&observations))
    }

    #[test]
    fn a_document_reads_back_as_it_was_stored() {
        let document = live_document();
        let stored = document.to_stored();
        assert_eq!(stored["viewerCount"], 37);
        assert_eq!(stored["metadata"]["session"]["streamId"], "40900001");
        let text = document.to_text();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!(stored));
        assert_eq!(
            SourceDocument::from_stored(key(), Value::Object(stored)).unwrap(),
            document
        );
        assert_eq!(SourceDocument::from_text(key(), &text).unwrap(), document);
    }

    #[test]
    fn text_and_value_are_read_alike_whatever_is_in_them() {
        for stored in [
            json!({}),
            json!([]),
            json!("text"),
            json!({ "schemaVersion": 99, "evidence": "later" }),
            json!({ "schemaVersion": "odd", "displayName": 7, "metadata": "none", "metrics": [] }),
            json!({ "evidence": null, "counters": null, "metrics": { "received": 5 } }),
            json!({ "evidence": { "connection": 5 } }),
            json!({ "counters": { "a": { "messagesIn": -1 } } }),
            json!({ "displayName": "Theirs", "tags": [1, null], "extra": null, "status": { "odd": true } }),
            json!({ "metadata": { "login": "x", "gone": null, "session": {}, "displayName": "y" } }),
        ] {
            let text = serde_json::to_string_pretty(&stored).unwrap();
            assert_eq!(
                SourceDocument::from_text(key(), &text),
                SourceDocument::from_stored(key(), stored),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_is_ever_stored_as_null() {
        fn has_null(value: &Value) -> bool {
            match value {
                Value::Null => true,
                Value::Array(items) => items.iter().any(has_null),
                Value::Object(fields) => fields.values().any(has_null),
                _ => false,
            }
        }
        assert!(!has_null(&Value::Object(live_document().to_stored())));
        assert!(!has_null(&Value::Object(SourceDocument::new(key()).to_stored())));
    }

    #[test]
    fn a_document_of_the_platforms_own_service_is_accepted_but_its_claims_are_not_believed() {
        let stored = json!({
            "id": "900200", "platform": "twitch", "displayName": "RatCaster", "status": "CONNECTED",
            "streamStatus": "ONLINE", "authStatus": "VALID", "viewerCount": null, "lastError": null,
            "metrics": {"received": 120, "published": 118, "failed": 2, "lastHeartbeat": "2026-05-01T18:00:00.000Z"},
            "metadata": {"login": "ratcaster", "title": null, "joinedChannels": ["#ratcaster"]},
            "notes": "set by a person",
        });
        let document = SourceDocument::from_stored(key(), stored).unwrap();
        let healed = document.to_stored();
        assert_eq!(healed["status"], "DISCONNECTED");
        assert_eq!(healed["streamStatus"], "UNKNOWN");
        assert!(!healed.contains_key("authStatus"));
        assert_eq!(healed["displayName"], "RatCaster");
        assert_eq!(healed["metrics"]["messagesIn"], 120);
        assert_eq!(healed["metrics"]["errors"], 2);
        assert_eq!(healed["notes"], "set by a person");
        assert_eq!(
            healed["metadata"],
            json!({"login": "ratcaster", "joinedChannels": ["#ratcaster"]})
        );
    }

    #[test]
    fn a_document_of_a_newer_program_is_refused() {
        let error = SourceDocument::from_stored(key(), json!({"schemaVersion": 99})).unwrap_err();
        assert!(error.to_string().contains("schemaVersion 99"), "{error}");
    }

    #[test]
    fn broken_fields_of_others_do_not_matter_and_broken_evidence_is_left_alone() {
        let odd = json!({"status": 7, "metrics": "many", "metadata": [1], "permissions": {}});
        assert!(SourceDocument::from_stored(key(), odd).is_ok());
        let broken = json!({"schemaVersion": 1, "evidence": {"latency": "fast"}});
        assert!(matches!(
            SourceDocument::from_stored(key(), broken),
            Err(BrokenDocument::Unreadable {
                field: "evidence",
                ..
            })
        ));
    }
}
