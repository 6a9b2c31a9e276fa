//! The store port: one document per source, and its history.

pub mod firestore;
pub mod guarded;
pub mod memory;
pub mod postgres;
pub mod retention;
pub mod sqlite;
mod stored;
mod unreached;

pub use self::stored::read_text as parse;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde::{Deserialize, Serialize};

use crate::core::document::{BrokenDocument, SourceDocument};
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::{Chain, Transition};

/// A store of source documents, one per [`SourceKey`].
///
/// A write names the version on which it is based. If another writer was faster, the result is [`StoreError::Conflict`]: the
/// caller loads, joins and saves again. An unusable document is never overwritten, because it has no version that a write
/// could name. `contract` tests check every guarantee documented here against every adapter.
#[async_trait]
#[warn(missing_docs)]
pub trait SourceStore: Send + Sync {
    /// Returns the location of the documents for people: `sqlite:/path`, `firestore:project/(default)`, `postgres:host:5432/db`.
    fn location(&self) -> String;

    /// Returns the document of `key`, or `None` if there is none; [`StoreError::Unusable`] if it cannot be parsed.
    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError>;

    /// Returns the documents of `keys` in the same order, each like [`SourceStore::load`].
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

    /// Returns every stored document, sorted by id. One that cannot be parsed does not hide the others.
    async fn load_all(&self) -> Result<Vec<Stored>, StoreError>;

    /// Returns the ids of the documents that cannot be used, with the reasons.
    async fn unusable(&self) -> Result<Vec<(String, Unusable)>, StoreError> {
        let all = self.load_all().await?;
        Ok(all.into_iter().filter_map(Stored::into_unusable).collect())
    }

    /// Returns the stored text of the document with this id, usable or not, and the version for [`SourceStore::remove`].
    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError>;

    /// Deletes the document with this id, and not its history, if it still has this version; otherwise [`StoreError::Conflict`].
    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError>;

    /// Returns the summaries of [`SourceStore::load_all`]. A store with stored summaries need not read the documents.
    async fn summaries(&self) -> Result<Vec<Stored<Arc<SourceSummary>>>, StoreError> {
        let all = self.load_all().await?;
        Ok(all.into_iter().map(Stored::to_summary).collect())
    }

    /// Whether each document that is read costs money.
    fn bills_reads(&self) -> bool {
        false
    }

    /// Writes documents, each based on a version (`None`: there was no document), and returns the results in the same order.
    /// Many writes may share a request, but a failed one never affects the others. At most one write per key in a call. A
    /// document and its history entries are written atomically, so that no transition is lost between the two.
    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>>;

    /// Deletes the document with this id and its history. Returns whether there was any. Takes the raw id because orphans of
    /// other writers do not have a valid key.
    async fn delete(&self, document_id: &str) -> Result<bool, StoreError>;

    /// Adds history entries without their document (used by migrations). Entries whose id exists are skipped; entries beyond
    /// the [`retention::Retention`] are dropped, oldest first.
    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError>;

    /// Deletes the entries of a source's history that are dated after `until`.
    async fn drop_history_after(&self, key: &SourceKey, until: Timestamp) -> Result<(), StoreError>;

    /// Returns at most `limit` history entries, newest first: by time of the transition, then by time of recording.
    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Emits the whole collection now and after every change. Ends only when dropped; interruptions recover without
    /// intervention and appear as an `Err` item in between.
    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError>;

    /// Runs deferred maintenance. Must be called every few seconds by processes that keep a store open for a long time.
    async fn tidy(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Verifies that the store is reachable and writable: writes, reads and deletes a probe document outside the sources.
    async fn check(&self) -> Result<(), StoreError>;
}

/// Maximum number of documents read individually by default; for more of them the whole collection is read at once.
const SINGLE_READS: usize = 50;
/// Concurrent individual reads.
const READERS: usize = 16;

/// Selects the documents of `keys`.
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
        .map(|stored| (stored.document_id.clone(), stored))
        .collect();
    let found = |key: &SourceKey| {
        let stored = stored.remove(&key.to_string());
        stored.map(Stored::into_result).transpose()
    };
    keys.iter().map(found).collect()
}

/// A value and the version at which it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The value as read.
    pub value: T,
    /// Version for the next write.
    pub version: Version,
}

/// A store's identifier for one state of one document. Opaque; only compared for equality by the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// One write of a document.
#[derive(Debug, Clone)]
pub struct Write {
    /// The new document.
    pub document: SourceDocument,
    /// The version on which it is based; `None` if there was no document.
    pub base: Option<Version>,
    /// The transitions of the document since `base`.
    pub history: Vec<HistoryEntry>,
}

impl Write {
    /// Creates a write without a transition.
    pub fn new(document: SourceDocument, base: Option<Version>) -> Self {
        Self {
            document,
            base,
            history: Vec::new(),
        }
    }
}

/// One stored document, usable or not.
#[derive(Debug, Clone)]
pub struct Stored<T = Versioned<SourceDocument>> {
    /// The document's id, normally `platform:id`.
    pub document_id: String,
    /// The document, or why it cannot be used.
    pub document: Result<T, Unusable>,
}

impl<T> Stored<T> {
    /// Returns the id and the reason of a document that cannot be used.
    pub fn into_unusable(self) -> Option<(String, Unusable)> {
        let reason = self.document.err()?;
        Some((self.document_id, reason))
    }
}

impl Stored {
    /// Returns the document; one that cannot be parsed is [`StoreError::Unusable`].
    pub fn into_result(self) -> Result<Versioned<SourceDocument>, StoreError> {
        let document_id = self.document_id;
        self.document
            .map_err(|source| StoreError::Unusable { document_id, source })
    }

    /// Converts the document to its summary.
    pub fn to_summary(self) -> Stored<Arc<SourceSummary>> {
        Stored {
            document_id: self.document_id,
            document: self
                .document
                .map(|found| Arc::new(SourceSummary::of(&found.value))),
        }
    }
}

/// Reason why a stored document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Its id is not a valid source key.
    #[error("its id is not `platform:number`")]
    NotASource,
    /// It was created by a defect of another program that used a stream's id as the source's.
    #[error("it is keyed by a stream's id; the source is `{belongs_to}`")]
    Orphan {
        /// The correct document id of the source.
        belongs_to: String,
    },
    /// Its contents cannot be parsed.
    #[error(transparent)]
    Broken(#[from] BrokenDocument),
}

/// One entry of a source's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Deterministic, so that a repeated append is not a second entry.
    pub id: String,
    /// When it was recorded (the transition's own `at` is when it happened).
    #[schemars(with = "String")]
    pub recorded_at: Timestamp,
    /// What changed.
    #[serde(flatten)]
    pub transition: Transition,
}

impl HistoryEntry {
    /// Creates the entry of `transition`, with an id derived only from the source and the transition.
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

    /// Creates the entries of `changes`, which happened in this order. Of a baseline that several of them complete only the last step
    /// is recorded: entries of the same time have no order, and an earlier step could be read as the last one.
    pub fn of_changes<'a>(
        key: &SourceKey,
        recorded_at: Timestamp,
        changes: impl IntoIterator<Item = &'a Transition>,
    ) -> Vec<Self> {
        let changes: Vec<&Transition> = changes.into_iter().collect();
        let is_completed = |place: usize| {
            let mut later = changes[place + 1..].iter();
            changes[place].initial && later.any(|later| later.initial && later.facet == changes[place].facet)
        };
        let recorded = (0..changes.len()).filter(|place| !is_completed(*place));
        recorded
            .map(|place| Self::new(key, recorded_at, changes[place].clone()))
            .collect()
    }

    /// Removes from a source's `entries` (newest first) those that repeat a known state: processes that monitor the same
    /// source each record a change when they detect it. Each remaining entry starts with the value of the one before it.
    pub fn without_repeats(mut entries: Vec<Self>) -> Vec<Self> {
        // Oldest first. Changes with the same time have the same order in every store.
        entries.reverse();
        entries.sort_by(|one, other| {
            let (one, other) = (&one.transition, &other.transition);
            one.at.cmp(&other.at).then(other.facet.cmp(&one.facet))
        });
        // Each writer compares with its own last state; the chain makes the history continuous.
        let mut chain = Chain::default();
        let mut joined: Vec<Self> = Vec::new();
        let mut entries = entries.into_iter().peekable();
        while let Some(first) = entries.next() {
            let (at, facet) = (first.transition.at, first.transition.facet);
            let mut of_instant = VecDeque::from([first]);
            while let Some(same) =
                entries.next_if(|entry| entry.transition.at == at && entry.transition.facet == facet)
            {
                of_instant.push_back(same);
            }
            // Several changes of a facet with the same time are ordered so that each continues the one before.
            while !of_instant.is_empty() {
                let next = of_instant
                    .iter()
                    .position(|entry| chain.is_continued_by(&entry.transition))
                    .unwrap_or(0);
                let Some(entry) = of_instant.remove(next) else {
                    break;
                };
                if let Some(transition) = chain.append(entry.transition) {
                    joined.push(Self { transition, ..entry });
                }
            }
        }
        // Of a baseline that was completed step by step only the last step is kept.
        let mut completed = BTreeSet::new();
        joined.reverse();
        joined.retain(|entry| !entry.transition.initial || completed.insert(entry.transition.facet));
        joined
    }
}

/// Error of a store operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another writer changed the document in the meantime.
    #[error("`{document_id}` was written by someone else in between")]
    Conflict {
        /// Id of the document.
        document_id: String,
    },
    /// The stored document cannot be used; it is left unchanged.
    #[error("`{document_id}` cannot be used")]
    Unusable {
        /// Id of the document.
        document_id: String,
        /// Reason why it cannot be used.
        source: Unusable,
    },
    /// The document cannot be stored: too large, or rejected because of its contents.
    #[error("`{document_id}` cannot be stored: {reason}")]
    Rejected {
        /// Id of the document.
        document_id: String,
        /// Reason for the rejection.
        reason: String,
    },
    /// The store is unreachable, busy or did not respond in time; a retry may succeed.
    #[error("{location} is not available: {reason}")]
    Unavailable {
        /// Location of the store.
        location: String,
        /// Reported by the store.
        reason: String,
        /// Suggested action, where one is known.
        hint: Option<String>,
    },
    /// The store rejects us: permission, credentials, a wrong project, a full or read-only disk. Needs attention.
    #[error("{location} refused: {reason}")]
    Refused {
        /// Location of the store.
        location: String,
        /// Reported by the store.
        reason: String,
        /// Suggested action.
        hint: String,
    },
    /// The store was written by a newer bitbrat.
    #[error("{location} has schema version {found}, but this bitbrat supports only up to {known}")]
    NewerSchema {
        /// Location of the store.
        location: String,
        /// Schema version of the store.
        found: i64,
        /// Newest supported schema version.
        known: i64,
    },
}

impl StoreError {
    /// Returns the reason in one sentence, including its cause.
    pub fn reason(&self) -> String {
        match self {
            Self::Unusable { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }

    /// Returns whether a retry may succeed without intervention.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::facet::Facet;

    #[test]
    fn change_recorded_by_two_processes_is_listed_once() {
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
                initial: false,
            };
            HistoryEntry::new(&key, at, transition)
        };
        let recorded_entries = [
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
        let shown = HistoryEntry::without_repeats(recorded_entries.iter().rev().cloned().collect());
        let times: Vec<_> = shown
            .iter()
            .map(|entry| entry.transition.at.as_millis() / 1000)
            .collect();
        assert_eq!(times, [10, 8, 7, 4, 3, 1]);
        let from: Vec<_> = shown
            .iter()
            .map(|entry| entry.transition.from.as_deref().unwrap_or_default())
            .collect();
        assert_eq!(
            from,
            ["OFFLINE", "ONLINE", "ONLINE", "OFFLINE", "", ""],
            "it joins"
        );
    }

    #[test]
    fn steps_of_a_baseline_in_one_write_are_one_entry() {
        let key: SourceKey = "twitch:1".parse().unwrap();
        let change = |facet, to: &str, initial: bool| Transition {
            facet,
            from: (!initial).then(|| "VALID".to_owned()),
            to: Some(to.to_owned()),
            at: Timestamp::EPOCH,
            rule: "some.rule".to_owned(),
            stream_id: None,
            initial,
        };
        let recorded = |changes: &[Transition]| {
            let entries = HistoryEntry::of_changes(&key, Timestamp::EPOCH, changes);
            let words = entries.into_iter().filter_map(|entry| entry.transition.to);
            words.collect::<Vec<_>>()
        };
        let steps = [
            change(Facet::Auth, "VALID", true),
            change(Facet::Status, "CONNECTED", true),
            change(Facet::Auth, "REVOKED", true),
        ];
        assert_eq!(recorded(&steps), ["CONNECTED", "REVOKED"]);
        let later = [
            change(Facet::Auth, "VALID", true),
            change(Facet::Auth, "REVOKED", false),
        ];
        assert_eq!(recorded(&later), ["VALID", "REVOKED"]);
    }

    #[test]
    fn completed_baseline_is_one_entry_of_the_history() {
        let key: SourceKey = "twitch:1".parse().unwrap();
        let entry = |second: i64, from: Option<&str>, to: &str| {
            let at = Timestamp::EPOCH.plus_secs(second);
            let transition = Transition {
                facet: Facet::Status,
                from: from.map(str::to_owned),
                to: Some(to.to_owned()),
                at,
                rule: "some.rule".to_owned(),
                stream_id: None,
                initial: from.is_none(),
            };
            HistoryEntry::new(&key, at, transition)
        };
        let shown = |recorded: &[HistoryEntry]| {
            let shown = HistoryEntry::without_repeats(recorded.iter().rev().cloned().collect());
            let words = shown.iter().rev().map(|entry| {
                let word = |word: &Option<String>| word.clone().unwrap_or_default();
                format!("{}>{}", word(&entry.transition.from), word(&entry.transition.to))
            });
            words.collect::<Vec<_>>()
        };
        let completed = [
            entry(1, None, "CONNECTED"),
            entry(1, None, "DISCONNECTED"),
            entry(9, Some("DISCONNECTED"), "CONNECTED"),
        ];
        assert_eq!(shown(&completed), [">DISCONNECTED", "DISCONNECTED>CONNECTED"]);
        let within_an_instant = [
            entry(1, None, "CONNECTED"),
            entry(5, Some("DISCONNECTED"), "CONNECTED"),
            entry(5, Some("CONNECTED"), "DISCONNECTED"),
        ];
        assert_eq!(
            shown(&within_an_instant),
            [">CONNECTED", "CONNECTED>DISCONNECTED", "DISCONNECTED>CONNECTED"]
        );
    }

    #[test]
    fn changes_of_one_instant_are_shown_in_one_order() {
        let key: SourceKey = "twitch:1".parse().unwrap();
        let entry = |facet| {
            let transition = Transition {
                facet,
                from: None,
                to: Some("x".to_owned()),
                at: Timestamp::EPOCH,
                rule: "some.rule".to_owned(),
                stream_id: None,
                initial: false,
            };
            HistoryEntry::new(&key, Timestamp::EPOCH, transition)
        };
        let entries = [Facet::Auth, Facet::Status, Facet::Permissions, Facet::Stream].map(entry);
        let facets = |mut entries: Vec<HistoryEntry>, by: usize| {
            entries.rotate_left(by);
            let shown = HistoryEntry::without_repeats(entries);
            shown
                .iter()
                .map(|entry| entry.transition.facet)
                .collect::<Vec<_>>()
        };
        for by in 0..4 {
            let expected = [Facet::Status, Facet::Stream, Facet::Auth, Facet::Permissions];
            assert_eq!(facets(entries.to_vec(), by), expected);
        }
    }
}
