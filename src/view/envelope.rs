//! What stands around the entries of every report and answer.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::time::Timestamp;

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
    /// How many entries there are without `--limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub total: Option<usize>,
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

impl<T> Envelope<T> {
    /// Wraps entries without a limit.
    pub fn of(kind: &'static str, as_of: Timestamp, items: Vec<T>) -> Self {
        Self {
            api_version: API_VERSION,
            kind,
            as_of,
            total: None,
            items,
            unusable: Vec::new(),
        }
    }
}
