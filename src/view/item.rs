//! One source as JSON shows it, in lists.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::core::document::SourceRecord;
use crate::core::freshness::Freshness;
use crate::view::health::Health;
use crate::view::source_row::SourceRow;

/// One source as JSON shows it: the fields that every reader may rely on, and how old they are.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceItem {
    /// `platform:id`, as every command accepts it.
    pub key: String,
    #[serde(flatten)]
    record: ShownRecord,
    #[serde(flatten)]
    freshness: Freshness,
    /// Its health: `ok`, `unknown` (not enough evidence, or too old), `down`, `auth`.
    pub health: Health,
    /// Whether the configuration names it.
    pub configured: bool,
    /// Whether the store has a document of it.
    pub stored: bool,
}

/// The fields of the document as they are shown: unlike a document, a source of which nothing was ever proven has no status.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct ShownRecord(Map<String, Value>);

impl JsonSchema for ShownRecord {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ShownRecord".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = SourceRecord::json_schema(generator);
        let required = schema.get_mut("required").and_then(Value::as_array_mut);
        if let Some(required) = required {
            required.retain(|field| field != "status");
        }
        schema
    }
}

impl SourceItem {
    /// The kind of a list of them.
    pub const KIND: &'static str = "SourceList";
}

impl ShownRecord {
    fn of(row: &SourceRow) -> Self {
        let record = serde_json::to_value(row.summary.record()).expect("a record is plain JSON");
        let Value::Object(mut fields) = record else {
            return Self(Map::new());
        };
        if !row.is_checked() {
            fields.remove("status");
        }
        Self(fields)
    }
}

impl From<&SourceRow> for SourceItem {
    fn from(row: &SourceRow) -> Self {
        Self {
            key: row.summary.key.to_string(),
            record: ShownRecord::of(row),
            freshness: row.freshness.clone(),
            health: row.findings.worst(),
            configured: row.configured.is_some(),
            stored: row.stored,
        }
    }
}
