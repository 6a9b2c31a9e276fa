//! A document as it lies in a store: written, read back, and taken over from other programs.
//!
//! Reading is lenient with what others wrote and strict with our own evidence, which is left alone when it is broken.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{BrokenDocument, Foreign, SCHEMA_VERSION, SourceDocument, SourceRecord};
use crate::core::counters::{CounterTable, Counters};
use crate::core::evidence::{Evidence, Knowledge};
use crate::core::source::SourceKey;

/// The writer under whose name totals are kept that another program had counted.
const FOREIGN_WRITER: &str = "platform";

impl SourceDocument {
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
