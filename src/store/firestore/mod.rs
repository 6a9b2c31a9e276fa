//! The store adapter for Firestore: `sources/{platform}:{id}`, where the rest of BitBrat reads it.
//!
//! A write contains the update time on which it is based as a precondition, so there is no read before it and no lost update.
//! The connection is in `client`, values in `value`, batching of writes in `save`, the listener in `watch` and `replica`,
//! errors in `error`.

pub(crate) mod client;
pub(crate) mod error;
mod history;
mod replica;
mod save;
pub(crate) mod value;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use firestore::gcloud_sdk::google::firestore::v1::precondition::ConditionType;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::CollectionSelector;
use firestore::gcloud_sdk::google::firestore::v1::write::Operation;
use firestore::gcloud_sdk::google::firestore::v1::{
    Document, Precondition, StructuredQuery, Write as Request,
};
use firestore::gcloud_sdk::prost_types::Timestamp as Moment;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde_json::{Map, Value};

use crate::core::document::SourceDocument;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::store::firestore::client::Client;
use crate::store::firestore::error::Failure;
use crate::store::firestore::save::Saver;
use crate::store::retention::Retention;
use crate::store::{
    HistoryEntry, SourceStore, StoreError, Stored, Version, Versioned, Write, stored as documents,
};

/// The collection in which [`SourceStore::check`] writes.
const CHECK_COLLECTION: &str = "bitbrat_probe";

/// Documents that are read in one request.
const READ_AT_ONCE: usize = 250;
/// Such requests in flight.
const READS_IN_FLIGHT: usize = 4;

/// Location of the documents, and access to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirestoreTarget {
    pub project: String,
    /// The database, `(default)` unless the project has several.
    pub database: String,
    /// The collection of the documents.
    pub collection: String,
    /// The setting that names the project, for messages.
    pub setting: &'static str,
    /// `HOST:PORT` of an emulator; then no credentials are used.
    pub emulator: Option<String>,
    /// A service account's key file; else application default credentials.
    pub credentials_file: Option<PathBuf>,
    /// Timeout of one request.
    pub patience: Duration,
    /// Limits of the history.
    pub retention: Retention,
}

impl FirestoreTarget {
    /// Creates a target with the defaults: collection `sources`, application default credentials, 5 s per request.
    pub fn new(project: &str, database: &str) -> Self {
        Self {
            project: project.to_owned(),
            database: database.to_owned(),
            collection: "sources".to_owned(),
            setting: "store.url",
            emulator: None,
            credentials_file: None,
            patience: Duration::from_secs(5),
            retention: Retention::default(),
        }
    }
}

impl fmt::Display for FirestoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "firestore:{}/{}", self.project, self.database)
    }
}

/// A Firestore collection of documents.
pub struct FirestoreStore {
    client: Arc<Client>,
    saver: Saver,
}

impl FirestoreStore {
    /// Creates the store without a request; a store that is unavailable now may have recovered by the first call.
    pub fn new(target: FirestoreTarget) -> Self {
        let client = Arc::new(Client::new(target));
        Self {
            saver: Saver::new(Arc::clone(&client)),
            client,
        }
    }

    /// Returns the documents of one of BitBrat's collections by id, below the document at `parent`. Read-only.
    pub async fn others(&self, parent: &str, collection: &str) -> Result<Vec<(String, Value)>, StoreError> {
        let all = StructuredQuery {
            from: vec![CollectionSelector {
                collection_id: collection.to_owned(),
                all_descendants: false,
            }],
            ..StructuredQuery::default()
        };
        let parent = format!("{}/{parent}", self.client.root());
        let found = self.client.query(parent, all).await.map_err(self.explain())?;
        let named = found.into_iter().map(|document| {
            let id = document.name.rsplit('/').next().unwrap_or_default().to_owned();
            (id, Value::Object(value::to_json(document.fields)))
        });
        Ok(named.collect())
    }

    /// Reads documents in one request. Only these are billed, however large the collection is.
    async fn load_portion(
        &self,
        keys: Vec<SourceKey>,
    ) -> Vec<Result<Option<Versioned<SourceDocument>>, StoreError>> {
        let paths = keys.iter().map(|key| self.client.path(&key.to_string()));
        let found = match self.client.get_some(paths.collect()).await {
            Ok((found, _)) => found.into_iter().map(stored),
            Err(failure) => {
                let failure = failure.explain(self.target());
                return keys.iter().map(|_| Err(failure.clone())).collect();
            }
        };
        let found: BTreeMap<_, _> = found.map(|stored| (stored.document_id.clone(), stored)).collect();
        let read = |key: &SourceKey| {
            let stored = found.get(&key.to_string()).cloned();
            stored.map(Stored::into_result).transpose()
        };
        keys.iter().map(read).collect()
    }

    fn target(&self) -> &FirestoreTarget {
        &self.client.target
    }

    fn explain(&self) -> impl Fn(Failure) -> StoreError {
        |failure| failure.explain(self.target())
    }
}

pub(crate) fn update(path: String, fields: Map<String, Value>, condition: Option<ConditionType>) -> Request {
    Request {
        operation: Some(Operation::Update(Document {
            name: path,
            fields: value::to_fields(fields),
            ..Document::default()
        })),
        current_document: condition.map(precondition),
        ..Request::default()
    }
}

fn deletion(path: String, condition: Option<ConditionType>) -> Request {
    Request {
        operation: Some(Operation::Delete(path)),
        current_document: condition.map(precondition),
        ..Request::default()
    }
}

fn precondition(condition: ConditionType) -> Precondition {
    Precondition {
        condition_type: Some(condition),
    }
}

/// A document's version is the time of its last write.
pub(crate) fn version(update_time: Option<Moment>) -> Version {
    let at = update_time.unwrap_or_default();
    Version(format!("{}.{:09}", at.seconds, at.nanos))
}

pub(crate) fn moment(version: &Version) -> Option<Moment> {
    let (seconds, nanos) = version.0.split_once('.')?;
    Some(Moment {
        seconds: seconds.parse().ok()?,
        nanos: nanos.parse().ok()?,
    })
}

/// Parses a source document, or returns why it cannot be used.
fn stored(document: Document) -> Stored {
    let document_id = document.name.rsplit('/').next().unwrap_or_default().to_owned();
    let fields = Value::Object(value::to_json(document.fields));
    Stored {
        document: documents::read(&document_id, fields).map(|value| Versioned {
            value,
            version: version(document.update_time),
        }),
        document_id,
    }
}

#[async_trait]
impl SourceStore for FirestoreStore {
    fn location(&self) -> String {
        self.target().to_string()
    }

    fn bills_reads(&self) -> bool {
        true
    }

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        let document_id = key.to_string();
        let found = self
            .client
            .get(self.client.path(&document_id))
            .await
            .map_err(self.explain())?;
        found.map(|document| stored(document).into_result()).transpose()
    }

    async fn load_some(
        &self,
        keys: &[SourceKey],
    ) -> Vec<Result<Option<Versioned<SourceDocument>>, StoreError>> {
        let portions: Vec<_> = keys
            .chunks(READ_AT_ONCE)
            .map(|keys| self.load_portion(keys.to_vec()))
            .collect();
        stream::iter(portions).buffered(READS_IN_FLIGHT).concat().await
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        let all = StructuredQuery {
            from: vec![CollectionSelector {
                collection_id: self.target().collection.clone(),
                all_descendants: false,
            }],
            ..StructuredQuery::default()
        };
        let found = self
            .client
            .query(self.client.root(), all)
            .await
            .map_err(self.explain())?;
        let mut all: Vec<_> = found.into_iter().map(stored).collect();
        all.sort_by(|a, b| a.document_id.cmp(&b.document_id));
        Ok(all)
    }

    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError> {
        let found = self.client.get(self.client.path(document_id)).await;
        let found = found.map_err(self.explain())?;
        Ok(found.map(|document| Versioned {
            value: Value::Object(value::to_json(document.fields)).to_string(),
            version: version(document.update_time),
        }))
    }

    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError> {
        let conflict = || StoreError::Conflict {
            document_id: document_id.to_owned(),
        };
        let written_at = moment(version).ok_or_else(conflict)?;
        let condition = ConditionType::UpdateTime(written_at);
        self.client
            .commit(vec![deletion(self.client.path(document_id), Some(condition))])
            .await
            .map(drop)
            .map_err(|failure| failure.explain_write(self.target(), document_id))
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        self.saver.save(writes).await
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        let path = self.client.path(document_id);
        let history = history::clear(&self.client, &path)
            .await
            .map_err(self.explain())?;
        let gone = self
            .client
            .commit(vec![deletion(path, Some(ConditionType::Exists(true)))])
            .await;
        match gone.map_err(|failure| failure.explain_write(self.target(), document_id)) {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(history),
            Err(error) => Err(error),
        }
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        let parent = self.client.path(&key.to_string());
        for portion in entries.chunks(save::MAX_WRITES_PER_REQUEST) {
            let requests = portion
                .iter()
                .map(|entry| history::write(&parent, entry))
                .collect();
            self.client.commit(requests).await.map_err(self.explain())?;
        }
        let newest: Option<Timestamp> = entries.iter().map(|entry| entry.recorded_at).max();
        match newest {
            Some(newest) => history::sweep(&self.client, &parent, newest, self.target().retention)
                .await
                .map_err(self.explain()),
            None => Ok(()),
        }
    }

    async fn drop_history_after(&self, key: &SourceKey, until: Timestamp) -> Result<(), StoreError> {
        let parent = self.client.path(&key.to_string());
        history::drop_after(&self.client, &parent, until)
            .await
            .map_err(self.explain())
    }

    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let parent = self.client.path(&key.to_string());
        history::read(&self.client, parent, limit, self.target().retention)
            .await
            .map_err(self.explain())
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError> {
        Ok(watch::documents(self.client.clone()))
    }

    async fn check(&self) -> Result<(), StoreError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Two concurrent checks must not interfere.
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = format!("{}/{CHECK_COLLECTION}/{id}", self.client.root());
        let note = Map::from_iter([("note".to_owned(), Value::from("bitbrat was here"))]);
        self.client
            .commit(vec![update(path.clone(), note, None)])
            .await
            .map_err(self.explain())?;
        let read = self.client.get(path.clone()).await.map_err(self.explain())?;
        self.client
            .commit(vec![deletion(path, None)])
            .await
            .map_err(self.explain())?;
        match read {
            Some(_) => Ok(()),
            None => Err(error::unavailable(
                self.target(),
                "what was written could not be read back".into(),
            )),
        }
    }
}
