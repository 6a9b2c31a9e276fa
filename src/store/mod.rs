//! The store port: keeps one document a source, and its history.

pub mod firestore;
pub mod memory;
pub mod retention;
pub mod sqlite;
mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde::{Deserialize, Serialize};

use crate::core::document::{BrokenDocument, SourceDocument};
use crate::core::facet::Facet;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;

/// Keeps source documents, one per [`SourceKey`].
///
/// A write names the version that it was based on. When someone else wrote in between, the answer is
/// [`StoreError::Conflict`]: the caller loads, joins and saves again. What cannot be used is never overwritten, because
/// it has no version that a write could name. `contract` tests check every promise made here against every adapter.
#[async_trait]
pub trait SourceStore: Send + Sync {
    /// Says where the documents are, for people: `sqlite:/path`, `firestore:project/(default)`.
    fn location(&self) -> String;

    /// Returns the document of `key`, or `None` when nothing was ever written under it;
    /// [`StoreError::Unusable`] when what is there cannot be read.
    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError>;

    /// Returns the documents of `keys`, in their order: what [`SourceStore::load`] returns of each.
    async fn load_some(
        &self,
        keys: &[SourceKey],
    ) -> Vec<Result<Option<Versioned<SourceDocument>>, StoreError>> {
        if keys.len() > SINGLE_READS {
            return some_of(keys, self.load_all().await);
        }
        stream::iter(keys.to_vec())
            .map(|key| async move { self.load(&key).await })
            .buffered(READERS)
            .collect()
            .await
    }

    /// Returns every stored document, sorted by id. One that cannot be read never hides the others.
    async fn load_all(&self) -> Result<Vec<Stored>, StoreError>;

    /// Returns what [`SourceStore::load_all`] returns, in short. A store that keeps summaries need not read the documents.
    async fn summaries(&self) -> Result<Vec<Stored<Arc<SourceSummary>>>, StoreError> {
        let all = self.load_all().await?;
        Ok(all.into_iter().map(Stored::in_short).collect())
    }

    /// Writes documents, each on top of the version it was based on (`None`: there was none), and returns the result of
    /// each in the same order. Many may go in one request, but one that fails never stops its neighbours. At most one
    /// write per key in a call. The history entries of a write are kept with its document or not at all, so that no
    /// transition is ever lost between the two.
    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>>;

    /// Deletes what is stored under a document id, with its history. Returns whether there was anything. Takes the raw id
    /// because orphans of other writers do not have the form of a key.
    async fn delete(&self, document_id: &str) -> Result<bool, StoreError>;

    /// Keeps history entries without their document (a migration does that). An entry whose id is already kept is not kept
    /// twice; entries beyond the [`retention::Retention`] are dropped, oldest first.
    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError>;

    /// Returns at most `limit` history entries, newest first: by when they happened, then by when they were recorded.
    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Yields the whole collection now and again after every change. Ends only when dropped; interruptions heal by
    /// themselves and show as an `Err` item in between.
    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError>;

    /// Does what a store puts off to be quick when it is asked for something. Whoever keeps a store open for long calls it
    /// every few seconds.
    async fn tidy(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Proves that the store is reachable and writable: writes, reads and deletes a probe document outside the collection's
    /// sources.
    async fn check(&self) -> Result<(), StoreError>;
}

/// Documents read one by one where a store knows no better; for more of them the whole collection is read at once.
const SINGLE_READS: usize = 50;
/// Such reads in flight.
const READERS: usize = 16;

/// Picks the documents of `keys` out of all.
fn some_of(
    keys: &[SourceKey],
    all: Result<Vec<Stored>, StoreError>,
) -> Vec<Result<Option<Versioned<SourceDocument>>, StoreError>> {
    let all = match all {
        Ok(all) => all,
        Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut stored: BTreeMap<_, _> = all
        .into_iter()
        .map(|stored| (stored.document_id, stored.document))
        .collect();
    let found = |key: &SourceKey| {
        let document_id = key.to_string();
        match stored.remove(&document_id) {
            None => Ok(None),
            Some(Ok(document)) => Ok(Some(document)),
            Some(Err(source)) => Err(StoreError::Unusable { document_id, source }),
        }
    };
    keys.iter().map(found).collect()
}

/// A value and the version it was read at.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Its version.
    pub version: Version,
}

/// A store's own name for one state of one document. Opaque; only compared for equality by the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// One write.
#[derive(Debug, Clone)]
pub struct Write {
    /// The document.
    pub document: SourceDocument,
    /// The version that it was based on; `None` when there was no document.
    pub base: Option<Version>,
    /// The transitions that the document brings, if any.
    pub history: Vec<HistoryEntry>,
}

impl Write {
    /// Builds a write that brings no transition.
    pub fn new(document: SourceDocument, base: Option<Version>) -> Self {
        Self {
            document,
            base,
            history: Vec::new(),
        }
    }
}

/// One stored document, readable or not.
#[derive(Debug, Clone)]
pub struct Stored<T = Versioned<SourceDocument>> {
    /// The document's id, normally `platform:id`.
    pub document_id: String,
    /// The document, or why it cannot be used.
    pub document: Result<T, Unusable>,
}

impl Stored {
    /// Sums it up.
    pub fn in_short(self) -> Stored<Arc<SourceSummary>> {
        Stored {
            document_id: self.document_id,
            document: self
                .document
                .map(|found| Arc::new(SourceSummary::of(&found.value))),
        }
    }
}

/// Why a stored document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Its id is not that of a source.
    #[error("its id is not `platform:number`")]
    NotASource,
    /// It is the leftover of another program's defect: a stream's id taken for a source's.
    #[error("it is keyed by a stream's id; the source is `{belongs_to}`")]
    Orphan {
        /// The document id of the source it should have been.
        belongs_to: String,
    },
    /// Its contents cannot be read.
    #[error(transparent)]
    Broken(#[from] BrokenDocument),
}

/// One entry of a source's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Deterministic, so that a repeated append is not a second entry.
    pub id: String,
    /// When we learnt of it (the transition's own `at` is when it happened).
    #[schemars(with = "String")]
    pub recorded_at: Timestamp,
    /// What changed.
    #[serde(flatten)]
    pub transition: Transition,
}

impl HistoryEntry {
    /// Builds the entry of `transition`, with an id that follows from the source and the transition alone.
    pub fn new(key: &SourceKey, recorded_at: Timestamp, transition: Transition) -> Self {
        let name = format!(
            "{key} {} {:?} {:?} {} {:?}",
            transition.facet.as_str(),
            transition.from,
            transition.to,
            transition.at,
            transition.stream_id
        );
        let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).to_string();
        Self {
            id,
            recorded_at,
            transition,
        }
    }

    /// Leaves out of a source's `entries`, newest first, those that tell what was so already: processes that watch the same
    /// source each tell of a change when they see it.
    pub fn told_once(mut entries: Vec<Self>) -> Vec<Self> {
        let mut so_far: BTreeMap<Facet, (Option<String>, Option<String>)> = BTreeMap::new();
        entries.reverse();
        entries.retain(|entry| {
            let Transition {
                facet, to, stream_id, ..
            } = &entry.transition;
            let last = so_far.get(facet);
            let repeated = last.is_some_and(|(last, of)| {
                last == to && (of.is_none() || stream_id.is_none() || of == stream_id)
            });
            if !repeated {
                so_far.insert(*facet, (to.clone(), stream_id.clone()));
            }
            !repeated
        });
        entries.reverse();
        entries
    }
}

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Someone else wrote the document in between.
    #[error("`{document_id}` was written by someone else in between")]
    Conflict {
        /// The document.
        document_id: String,
    },
    /// The stored document cannot be used; it is left as it is.
    #[error("`{document_id}` cannot be used")]
    Unusable {
        /// The document.
        document_id: String,
        /// Why.
        source: Unusable,
    },
    /// The document cannot be stored: too large, or otherwise refused for what it is.
    #[error("`{document_id}` cannot be stored: {reason}")]
    Rejected {
        /// The document.
        document_id: String,
        /// Why.
        reason: String,
    },
    /// The store cannot be reached, is busy or did not answer in time; trying again may help.
    #[error("{location} is not available: {reason}")]
    Unavailable {
        /// Where.
        location: String,
        /// Why.
        reason: String,
    },
    /// The store refuses us: permission, credentials, a wrong project, a full or read-only disk. A person must act.
    #[error("{location} refused: {reason}")]
    Refused {
        /// Where.
        location: String,
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The store was written by a newer bitbrat.
    #[error("{location} has schema version {found}, but this bitbrat knows only up to {known}")]
    NewerSchema {
        /// Where.
        location: String,
        /// What is there.
        found: i64,
        /// What we know.
        known: i64,
    },
}

impl StoreError {
    /// Returns whether trying again may help without anyone acting.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_processes_tell_of_one_change_is_shown_once() {
        let key: SourceKey = "twitch:1".parse().unwrap();
        let entry = |second: i64, facet, to: &str, stream: Option<&str>| {
            let at = Timestamp::EPOCH.plus_secs(second);
            let transition = Transition {
                facet,
                from: None,
                to: Some(to.to_owned()),
                at,
                rule: "some.rule".to_owned(),
                stream_id: stream.map(str::to_owned),
            };
            HistoryEntry::new(&key, at, transition)
        };
        let told = [
            entry(1, Facet::Stream, "OFFLINE", None),
            entry(2, Facet::Stream, "OFFLINE", None),
            entry(3, Facet::Status, "CONNECTED", None),
            entry(4, Facet::Stream, "ONLINE", Some("a")),
            entry(5, Facet::Stream, "ONLINE", Some("a")),
            entry(6, Facet::Status, "CONNECTED", None),
            entry(7, Facet::Stream, "ONLINE", Some("b")),
            entry(8, Facet::Stream, "OFFLINE", Some("b")),
            entry(9, Facet::Stream, "OFFLINE", None),
            entry(10, Facet::Stream, "ONLINE", Some("b")),
        ];
        let shown = HistoryEntry::told_once(told.iter().rev().cloned().collect());
        let times: Vec<_> = shown
            .iter()
            .map(|entry| entry.transition.at.as_millis() / 1000)
            .collect();
        assert_eq!(times, [10, 8, 7, 4, 3, 1]);
    }
}
