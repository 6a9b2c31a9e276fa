//! Reports for programs: JSON, ndjson, YAML and CSV.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::cli::output::{Report, at_path};
use crate::core::time::Timestamp;

/// The version of all JSON that is printed.
pub const API_VERSION: &str = "bitbrat/v1";

/// What stands around the entries of every report.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<T> {
    /// Always `bitbrat/v1`; a layout that breaks readers would get another.
    pub api_version: &'static str,
    /// What the entries are.
    pub kind: &'static str,
    /// When this was true.
    #[schemars(with = "String")]
    pub as_of: Timestamp,
    /// The entries.
    pub items: Vec<T>,
    /// Stored documents and configured names that cannot be shown as entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<UnusableItem>,
}

/// Something that stands for a source and cannot be shown as one.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnusableItem {
    /// What it is.
    pub what: UnusableKind,
    /// The document's id in the store, or the configured name as `platform:name`.
    pub id: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// What it is that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnusableKind {
    /// A stored document that cannot be read, or that is not of a source.
    Document,
    /// A configured name whose id is not known.
    Name,
}

/// A report could not be turned into text.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// As JSON.
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
    /// As YAML.
    #[error("cannot write the report as YAML")]
    Yaml(#[from] serde_norway::Error),
    /// As CSV.
    #[error("cannot write the report as CSV: {0}")]
    Csv(String),
}

/// Wraps a report as JSON shows it.
pub fn envelope<R: Report>(report: &R) -> Envelope<R::Item> {
    Envelope {
        api_version: API_VERSION,
        kind: R::KIND,
        as_of: report.as_of(),
        items: report.items(),
        unusable: report.unusable(),
    }
}

/// Returns one indented JSON document.
pub fn json<R: Report>(report: &R) -> Result<String, RenderError> {
    Ok(serde_json::to_string_pretty(&envelope(report))? + "\n")
}

/// Returns one JSON object a line and entry, without the envelope.
pub fn ndjson<R: Report>(report: &R) -> Result<String, RenderError> {
    let mut text = String::new();
    for item in report.items() {
        text.push_str(&serde_json::to_string(&item)?);
        text.push('\n');
    }
    Ok(text)
}

/// Returns one YAML document.
pub fn yaml<R: Report>(report: &R) -> Result<String, RenderError> {
    Ok(serde_norway::to_string(&envelope(report))?)
}

/// Returns a header line and one line an entry. Lists are joined by spaces; what is not known is empty.
pub fn csv<R: Report>(report: &R) -> Result<String, RenderError> {
    let failed = |error: &dyn std::fmt::Display| RenderError::Csv(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(R::CSV).map_err(|error| failed(&error))?;
    for item in report.items() {
        let item = serde_json::to_value(&item)?;
        let fields = R::CSV
            .iter()
            .map(|path| at_path(&item, path).map_or_else(String::new, flat));
        writer.write_record(fields).map_err(|error| failed(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
