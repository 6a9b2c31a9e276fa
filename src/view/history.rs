//! What changed about sources, and how long each state had lasted.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::freshness::age_ms;
use crate::core::source::SourceKey;
use crate::core::verdict::explain;
use crate::store::HistoryEntry;

/// One transition as JSON shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryItem {
    /// The source.
    pub key: String,
    #[serde(flatten)]
    entry: HistoryEntry,
    /// The rule in words.
    pub because: &'static str,
    /// How long the state before it had lasted, in milliseconds: of a stream that ended, its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<u64>,
}

impl HistoryItem {
    /// The kind of a list of them.
    pub const KIND: &'static str = "HistoryList";

    /// Returns the entries of one or several sources, newest first, as JSON shows them.
    pub fn of(entries: &[(SourceKey, HistoryEntry)]) -> Vec<Self> {
        let item = |(index, (key, entry)): (usize, &(SourceKey, HistoryEntry))| Self {
            key: key.to_string(),
            because: explain(&entry.transition.rule),
            lasted_ms: lasted(entries, index),
            entry: entry.clone(),
        };
        entries.iter().enumerate().map(item).collect()
    }
}

/// Returns how long the state lasted that the entry ended: since the next older change of the same verdict of the same source.
pub fn lasted(entries: &[(SourceKey, HistoryEntry)], index: usize) -> Option<u64> {
    let (newer, older) = entries.split_at_checked(index + 1)?;
    let (key, ended) = newer.last()?;
    let ended = &ended.transition;
    let mut older = older.iter().filter(|(of, _)| of == key);
    let (_, began) = older.find(|(_, entry)| entry.transition.facet == ended.facet)?;
    Some(age_ms(began.transition.at, ended.at))
}
