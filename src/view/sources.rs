//! The sources that a list shows: those that are stored, those that are only configured, and what cannot be shown as a source.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::freshness::Intervals;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::store::Stored;
use crate::view::envelope::{UnusableItem, UnusableKind};
use crate::view::source_row::SourceRow;

/// Sources, sorted by key, and what cannot be shown as one.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub rows: Vec<SourceRow>,
    pub unusable: Vec<UnusableItem>,
}

/// The part of the stored and configured sources that a list is about.
pub struct Wanted<K, I> {
    /// Whether a source is part of it.
    pub key: K,
    /// Whether a document that cannot be used is part of it, by its id.
    pub id: I,
}

/// Judges what is stored and configured at `now`. `origins` has the configured sources, and where each is configured.
pub fn judge<K: Fn(&SourceKey) -> bool, I: Fn(&str) -> bool>(
    stored: Vec<Stored<Arc<SourceSummary>>>,
    mut origins: BTreeMap<&SourceKey, &String>,
    wanted: &Wanted<K, I>,
    intervals: &Intervals,
    now: Timestamp,
) -> Sources {
    let mut sources = Sources {
        rows: Vec::with_capacity(stored.len()),
        unusable: Vec::new(),
    };
    for stored in stored {
        match stored.document {
            Ok(summary) if (wanted.key)(&summary.key) => {
                let origin = origins.remove(&summary.key);
                let mut row = SourceRow::new(summary, intervals, now);
                row.configured = origin.cloned();
                sources.rows.push(row);
            }
            Err(reason) if (wanted.id)(&stored.document_id) => sources.unusable.push(UnusableItem {
                what: UnusableKind::Document,
                id: stored.document_id,
                reason: reason.to_string(),
            }),
            Ok(_) | Err(_) => {}
        }
    }
    // A stored document that cannot be used does not belong to a source that was never probed.
    let is_unusable = |key: &SourceKey| sources.unusable.iter().any(|item| item.id == key.to_string());
    origins.retain(|key, _| (wanted.key)(key) && !is_unusable(key));
    let unchecked = origins.into_iter().map(|(key, origin)| SourceRow {
        configured: Some(origin.clone()),
        ..SourceRow::unchecked(key.clone(), intervals, now)
    });
    sources.rows.extend(unchecked);
    sources.rows.sort_by(|a, b| a.summary.key.cmp(&b.summary.key));
    sources
}
