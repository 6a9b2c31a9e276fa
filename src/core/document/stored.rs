//! Stored form of a document: writing, reading, and import of documents of other programs.
//!
//! Reading is lenient with the fields of other programs and strict with our own evidence: a document with invalid evidence is
//! not overwritten.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{BrokenDocument, Foreign, SCHEMA_VERSION, SourceDocument, SourceRecord};
use crate::core::counters::{CounterTable, Counters};
use crate::core::evidence::{Evidence, Knowledge, Link};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Writer name for totals that another program counted.
const FOREIGN_WRITER: &str = "platform";

impl SourceDocument {
    /// Returns the document in its stored form: the record, our evidence and counters, and the fields of other programs.
    pub fn to_stored(&self) -> Map<String, Value> {
        let mut stored = self.foreign.top.clone();
        stored.extend(object(&self.record()));
        if let Some(Value::Object(metrics)) = stored.get_mut("metrics") {
            metrics.extend(self.foreign.metrics.clone());
        }
        // Other programs sort and filter by this field, so it is never omitted.
        stored.entry("lastStatusUpdate").or_insert_with(|| {
            let update = self.newest_evidence().or(self.foreign.status_update);
            update.unwrap_or(Timestamp::EPOCH).to_string().into()
        });
        stored.insert("schemaVersion".into(), SCHEMA_VERSION.into());
        stored.insert("evidence".into(), Value::Object(object(&self.knowledge.evidence)));
        stored.insert("counters".into(), Value::Object(object(&self.knowledge.counters)));
        stored
    }

    /// Time of the status update if no rule decided the status: the date of the newest evidence of any kind.
    fn newest_evidence(&self) -> Option<Timestamp> {
        let Knowledge { evidence, counters } = &self.knowledge;
        let of_links = evidence.connection.values().filter_map(Link::newest).max();
        let of_auth = evidence.auth.values().map(|check| check.at).max();
        let of_permissions = evidence.permissions.values().map(|grants| grants.at).max();
        let of_profile = evidence.profile.values().map(|value| value.at).max();
        let of_counters = counters.values().filter_map(|totals| totals.at).max();
        let of_error = evidence.error.as_ref().map(|error| error.at);
        let of_latency = evidence.latency.as_ref().map(|latency| latency.at);
        let newest = [
            of_links,
            of_auth,
            of_permissions,
            of_profile,
            of_counters,
            of_error,
            of_latency,
            evidence.viewers.as_ref().map(|viewers| viewers.at),
            evidence.stream.newest(),
            evidence.existence.seen,
            evidence.existence.missing.as_ref().map(|missing| missing.at),
        ];
        newest.into_iter().flatten().max()
    }

    /// Returns the text of [`SourceDocument::to_stored`] (with the fields in another order) without building the values first.
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
        if !self.foreign.metrics.is_empty() || self.verdict.status.at.is_none() {
            // Rare: a member has to be inserted into the record.
            return Value::Object(self.to_stored()).to_string();
        }
        let whole = Whole {
            record: self.record(),
            schema_version: SCHEMA_VERSION,
            evidence: &self.knowledge.evidence,
            counters: &self.knowledge.counters,
            foreign: &self.foreign.top,
        };
        serde_json::to_string(&whole).expect("our own structs with text keys always serialize")
    }

    /// Parses a stored document of `key`.
    ///
    /// Documents without our evidence (written by another program, or restored from a backup without state) are accepted:
    /// their totals, name and unknown fields are kept; their status claims are ignored.
    pub fn from_stored(key: SourceKey, stored: Value) -> Result<Self, BrokenDocument> {
        let Value::Object(mut fields) = stored else {
            return Err(BrokenDocument::NotAnObject);
        };
        newest_known(fields.get("schemaVersion"))?;
        let parts = Parts {
            schema_version: None,
            evidence: take(&mut fields, "evidence")?,
            counters: take(&mut fields, "counters")?,
            metrics: fields.remove("metrics").map(Later::Value),
            display_name: fields.remove("displayName"),
            status_update: fields.remove("lastStatusUpdate"),
            metadata: fields.remove("metadata").map(Later::Value),
            rest: fields,
        };
        Ok(Self::assemble(key, parts))
    }

    /// Parses the text of a stored document of `key`. Equivalent to [`SourceDocument::from_stored`] at a third of the cost,
    /// because evidence is parsed directly into its types and derived fields are skipped.
    pub fn from_text(key: SourceKey, text: &str) -> Result<Self, BrokenDocument> {
        match serde_json::from_str::<Parts>(text) {
            Ok(parts) => {
                newest_known(parts.schema_version.as_ref())?;
                Ok(Self::assemble(key, parts))
            }
            // The slow path reports which field is invalid.
            Err(_) => Self::from_stored(key, serde_json::from_str(text).unwrap_or_default()),
        }
    }

    fn assemble(key: SourceKey, parts: Parts<'_>) -> Self {
        let evidence = parts.evidence.unwrap_or_default();
        let metrics = parts.metrics.map(Later::read).unwrap_or_default();
        let counters = parts.counters.unwrap_or_else(|| {
            foreign_counters(&metrics)
                .map(|totals| BTreeMap::from([(FOREIGN_WRITER.to_owned(), totals)]))
                .unwrap_or_default()
        });
        let metrics = match metrics {
            Value::Object(mut members) => {
                members.retain(|member, value| !value.is_null() && !OUR_METRICS.contains(&member.as_str()));
                bounded(members)
            }
            _ => Map::new(),
        };
        let profile = &evidence.profile;
        let mut top = parts.rest;
        top.retain(|field, value| !value.is_null() && !RECORD_FIELDS.contains(&field.as_str()));
        let top = bounded(top);
        let derived = |field: &str| {
            field == "session"
                || COPIES.contains(&field)
                || (field != "displayName" && profile.contains_key(field))
        };
        let metadata = parts
            .metadata
            .map_or_else(Map::new, |metadata| metadata.members_but(derived));
        let metadata = bounded(metadata);
        // Until the name is known, the name in the address is written in its place, and must follow its changes.
        let is_from_address = |name: &String| profile.get("slug").is_some_and(|slug| slug.value == *name);
        let display_name = match parts.display_name {
            Some(Value::String(name)) if !profile.contains_key("displayName") && !is_from_address(&name) => {
                Some(name)
            }
            _ => None,
        };
        let known = Self::from_knowledge(key, Knowledge { evidence, counters });
        // If there is any evidence of our own, this value is derived.
        let status_update = match (&parts.status_update, known.newest_evidence()) {
            (Some(Value::String(at)), None) => at.parse().ok().filter(|at| *at > Timestamp::EPOCH),
            _ => None,
        };
        let foreign = Foreign {
            top,
            metadata,
            metrics,
            status_update,
            display_name,
        };
        Self { foreign, ..known }
    }
}

/// A stored document split into its parts.
#[derive(Default)]
struct Parts<'a> {
    schema_version: Option<Value>,
    evidence: Option<Evidence>,
    counters: Option<CounterTable>,
    metrics: Option<Later<'a>>,
    display_name: Option<Value>,
    status_update: Option<Value>,
    metadata: Option<Later<'a>>,
    rest: Map<String, Value>,
}

/// A part that is parsed only when it is needed; most parts never are.
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

    /// Returns the members of an object without nulls and derived members.
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
                Field::SchemaVersion => parts.schema_version = Some(fields.next_value()?),
                Field::StatusUpdate => parts.status_update = Some(fields.next_value()?),
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

/// Role of a field of a stored document.
enum Field {
    SchemaVersion,
    Evidence,
    Counters,
    Metrics,
    DisplayName,
    StatusUpdate,
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
                    "lastStatusUpdate" => Field::StatusUpdate,
                    "metadata" => Field::Metadata,
                    derived if RECORD_FIELDS.contains(&derived) => Field::Derived,
                    other => Field::Other(other.to_owned()),
                })
            }
        }
        deserializer.deserialize_identifier(FieldVisitor)
    }
}

/// Rejects a layout that is newer than this program, in whatever form a store or another program returns the number. A version
/// that is not a number may denote any layout; a document of unknown layout must not be overwritten.
fn newest_known(schema_version: Option<&Value>) -> Result<(), BrokenDocument> {
    let version = match schema_version {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    match version {
        Some(version) if version <= f64::from(SCHEMA_VERSION) => Ok(()),
        Some(version) if version.is_finite() => Err(BrokenDocument::Newer(rounded_up(version))),
        _ => Err(BrokenDocument::Unreadable {
            field: "schemaVersion",
            reason: "it is not a number".to_owned(),
        }),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and the number is only shown"
)]
fn rounded_up(version: f64) -> u64 {
    version.ceil() as u64
}

/// Converts every number that was stored as an integer and returned with a fraction part of zero back to an integer: the
/// languages of other programs have only doubles. None of our own fields is a fraction.
pub fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => whole(&number).map_or(Value::Number(number), Value::from),
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(members) => {
            let members = members.into_iter();
            members
                .map(|(name, value)| (name, whole_numbers(value)))
                .collect()
        }
        other => other,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it was checked to be whole and in range"
)]
fn whole(number: &serde_json::Number) -> Option<i64> {
    // Above this limit doubles cannot represent every integer.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let double = number.as_f64()?;
    (double.fract() == 0.0 && double.abs() <= LARGEST).then_some(double as i64)
}

/// Metadata members that are copies of our own events: the platform's persistence service stores the payload of an event as
/// metadata, member by member, and never removes one. With the stream evidence the copies would grow with each broadcast.
const COPIES: [&str; 4] = ["evidence", "counters", "transitions", "schemaVersion"];

/// Maximum number of members named by an id or a time that are kept in one foreign object; the newest are kept.
const NAMED_BY_ID: usize = 20;

/// Keeps foreign fields at every depth, except for the older members that are named by a stream's id or start: those grow with
/// each broadcast. Names of ordinary fields do not begin with a digit.
fn bounded(members: Map<String, Value>) -> Map<String, Value> {
    let is_id = |name: &str| name.starts_with(|letter: char| letter.is_ascii_digit());
    // Longer numbers are larger, and ids and times increase.
    let mut ids: Vec<_> = members.keys().filter(|name| is_id(name)).cloned().collect();
    ids.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    ids.truncate(ids.len().saturating_sub(NAMED_BY_ID));
    let mut kept = members;
    for old in ids {
        kept.remove(&old);
    }
    for value in kept.values_mut() {
        if let Value::Object(inner) = value {
            *inner = bounded(std::mem::take(inner));
        }
    }
    kept
}

/// The derived members of `metrics`.
const OUR_METRICS: [&str; 5] = [
    "messagesIn",
    "messagesOut",
    "errors",
    "reconnects",
    "lastHeartbeat",
];

/// Every derived field; these are never read from a stored document.
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
        Some(value) => serde_json::from_value(whole_numbers(value))
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

/// Totals as another program wrote them: with the names of the schema, or with those of its connectors.
fn foreign_counters(metrics: &Value) -> Option<Counters> {
    let metrics = metrics.as_object()?;
    let total = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| whole_numbers(metrics.get(*name)?.clone()).as_u64())
            .unwrap_or(0)
    };
    Some(Counters {
        messages_in: total(["messagesIn", "received"]),
        // `published` counts messages published on the bus, not messages sent to chat.
        messages_out: total(["messagesOut", "messagesOut"]),
        errors: total(["errors", "failed"]),
        reconnects: total(["reconnects", "reconnects"]),
        at: metrics
            .get("lastHeartbeat")
            .and_then(Value::as_str)
            .and_then(|at| at.parse().ok()),
    })
}
