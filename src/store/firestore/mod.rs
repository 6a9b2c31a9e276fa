//! The store in the cloud: `sources/{platform}:{id}` in Firestore, where the rest of the platform reads it.
//!
//! A write carries the update time that it was based on, so there is no read before it and no lost update. The
//! connection is in `client`, values in `value`, the listener in `watch` and `replica`, what goes wrong in `trouble`.

mod client;
mod history;
mod replica;
mod trouble;
mod value;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use firestore::gcloud_sdk::google::firestore::v1::precondition::ConditionType;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::CollectionSelector;
use firestore::gcloud_sdk::google::firestore::v1::write::Operation;
use firestore::gcloud_sdk::google::firestore::v1::{
    Document, Precondition, StructuredQuery, Write as Request,
};
use firestore::gcloud_sdk::prost_types::Timestamp as Moment;
use firestore::gcloud_sdk::tonic::Code;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::{Map, Value};

use crate::core::document::SourceDocument;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::store::firestore::client::Client;
use crate::store::firestore::trouble::Failure;
use crate::store::retention::Retention;
use crate::store::{
    HistoryEntry, SourceStore, StoreError, Stored, Version, Versioned, Write, stored as documents,
};

/// Writes in one request; Firestore's own limit is 500.
const BATCH: usize = 450;
/// Bytes of documents in one request; Firestore's own limit is 10 MiB.
const BATCH_BYTES: usize = 7_000_000;
/// Documents in one request that bring history. All of them are written or none, so that a conflict of one costs the others
/// a second request; and a request costs much more than a document.
const GROUP: usize = 25;
/// Requests with one document after such a conflict. Where writers meet once they meet again.
const APART: u32 = 50;
/// Requests in flight. Measured: more than 64 gain nothing on one connection.
const IN_FLIGHT: usize = 64;
/// The collection in which [`SourceStore::check`] writes.
const PROBES: &str = "bitbrat_probe";

/// Where the documents are, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirestoreTarget {
    /// The project.
    pub project: String,
    /// The database, `(default)` unless the project has several.
    pub database: String,
    /// The collection that holds the documents.
    pub collection: String,
    /// `HOST:PORT` of an emulator; no credentials are looked for then.
    pub emulator: Option<String>,
    /// A service account's key file; else application default credentials.
    pub credentials_file: Option<PathBuf>,
    /// How long one request may take.
    pub patience: Duration,
    /// How much history is kept.
    pub retention: Retention,
}

impl FirestoreTarget {
    /// Builds a target with the defaults: collection `sources`, application default credentials, 5 s for a request.
    pub fn new(project: &str, database: &str) -> Self {
        Self {
            project: project.to_owned(),
            database: database.to_owned(),
            collection: "sources".to_owned(),
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

/// Keeps documents in a Firestore collection.
pub struct FirestoreStore {
    client: Arc<Client>,
    /// How many more documents that bring history go alone.
    apart: AtomicU32,
}

impl FirestoreStore {
    /// Prepares the store. Nothing is asked before the first call; a store that is down now may be up by then.
    pub fn new(target: FirestoreTarget) -> Self {
        Self {
            client: Arc::new(Client::new(target)),
            apart: AtomicU32::new(0),
        }
    }

    /// Returns the documents of a collection of the platform's, by id, below the document at `parent`. They are only read.
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

    fn target(&self) -> &FirestoreTarget {
        &self.client.target
    }

    fn explain(&self) -> impl Fn(Failure) -> StoreError {
        |failure| failure.explain(self.target())
    }

    /// Writes documents that bring no history, many in a request.
    async fn save_batch(&self, batch: Vec<Planned>) -> Vec<(usize, Result<Version, StoreError>)> {
        let requests = batch.iter().map(|planned| planned.request.clone()).collect();
        match self.client.batch(requests).await {
            Ok(response) => {
                let mut results = response.write_results.into_iter();
                let mut statuses = response.status.into_iter();
                let answer = |planned: Planned| {
                    let (result, status) = (
                        results.next().unwrap_or_default(),
                        statuses.next().unwrap_or_default(),
                    );
                    let saved = match Code::from(status.code) {
                        Code::Ok => Ok(version(result.update_time)),
                        code => Err(trouble::of_write(
                            self.target(),
                            &planned.document_id,
                            code,
                            &status.message,
                        )),
                    };
                    (planned.index, saved)
                };
                batch.into_iter().map(answer).collect()
            }
            // One request, one answer: what is wrong with one of many is found by asking for each alone.
            Err(Failure::Answer(status)) if batch.len() > 1 && is_about_contents(status.code()) => {
                let alone = stream::iter(batch).map(|planned| self.save_alone(planned));
                alone.buffer_unordered(IN_FLIGHT).collect().await
            }
            Err(failure) => {
                let failure = failure.explain_write(self.target(), "");
                let named =
                    |planned: Planned| (planned.index, Err(renamed(failure.clone(), planned.document_id)));
                batch.into_iter().map(named).collect()
            }
        }
    }

    /// Writes documents together with their history, all or none; what is wrong with one of them is found by asking for
    /// each alone.
    async fn save_group(&self, group: Vec<Planned>) -> Vec<(usize, Result<Version, StoreError>)> {
        if group.len() > 1 {
            let mut requests = Vec::new();
            let mut places = Vec::with_capacity(group.len());
            for planned in &group {
                let parent = self.client.path(&planned.document_id);
                places.push(requests.len());
                requests.push(planned.request.clone());
                requests.extend(planned.history.iter().map(|entry| history::write(&parent, entry)));
            }
            match self.client.commit(requests).await {
                Ok(results) => {
                    for planned in &group {
                        let parent = self.client.path(&planned.document_id);
                        self.sweep_now_and_then(&parent, &planned.history).await;
                    }
                    let at = |place: usize| results.get(place).and_then(|result| result.update_time);
                    let saved = group.iter().zip(places);
                    return saved
                        .map(|(planned, place)| (planned.index, Ok(version(at(place)))))
                        .collect();
                }
                Err(Failure::Answer(status)) if is_about_one(status.code()) => {
                    self.apart.store(APART, Ordering::Relaxed);
                }
                Err(failure) => {
                    let failure = failure.explain_write(self.target(), "");
                    let named = |planned: Planned| {
                        (planned.index, Err(renamed(failure.clone(), planned.document_id)))
                    };
                    return group.into_iter().map(named).collect();
                }
            }
        }
        let alone = stream::iter(group).map(|planned| self.save_alone(planned));
        alone.buffer_unordered(IN_FLIGHT).collect().await
    }

    /// How many documents that bring history go into one request now.
    fn group_size(&self, documents: usize) -> usize {
        let apart = self.apart.load(Ordering::Relaxed);
        if apart == 0 {
            return GROUP;
        }
        let documents = u32::try_from(documents).unwrap_or(u32::MAX);
        self.apart
            .store(apart.saturating_sub(documents), Ordering::Relaxed);
        1
    }

    /// Writes one document, together with its history or not at all.
    async fn save_alone(&self, planned: Planned) -> (usize, Result<Version, StoreError>) {
        let parent = self.client.path(&planned.document_id);
        let mut requests = vec![planned.request];
        requests.extend(planned.history.iter().map(|entry| history::write(&parent, entry)));
        let saved = match self.client.commit(requests).await {
            Ok(results) => Ok(version(
                results.into_iter().next().and_then(|result| result.update_time),
            )),
            Err(failure) => Err(failure.explain_write(self.target(), &planned.document_id)),
        };
        if saved.is_ok() {
            self.sweep_now_and_then(&parent, &planned.history).await;
        }
        (planned.index, saved)
    }

    async fn sweep_now_and_then(&self, parent: &str, entries: &[HistoryEntry]) {
        let Some(entry) = entries.iter().find(|entry| history::is_occasion(entry)) else {
            return;
        };
        let swept = history::sweep(&self.client, parent, entry.recorded_at, self.target().retention).await;
        if let Err(failure) = swept {
            let error = failure.explain(self.target());
            tracing::warn!(document = parent, %error, "Old history stays until the next occasion");
        }
    }
}

/// A write on its way: its place in the caller's list, and what is to be sent.
struct Planned {
    index: usize,
    document_id: String,
    bytes: usize,
    request: Request,
    history: Vec<HistoryEntry>,
}

impl Planned {
    fn of(index: usize, write: &Write, client: &Client) -> Result<Self, StoreError> {
        let document_id = write.document.key.to_string();
        let (fields, bytes) = documents::write(&write.document)?;
        let condition = match &write.base {
            None => ConditionType::Exists(false),
            Some(base) => match moment(base) {
                Some(at) => ConditionType::UpdateTime(at),
                // A version of another store cannot be the one that is here.
                None => return Err(StoreError::Conflict { document_id }),
            },
        };
        Ok(Self {
            index,
            request: update(client.path(&document_id), fields, Some(condition)),
            document_id,
            bytes,
            history: write.history.clone(),
        })
    }
}

/// Splits documents that bring history into requests.
fn groups(planned: Vec<Planned>, size: usize) -> Vec<Vec<Planned>> {
    let mut groups: Vec<Vec<Planned>> = Vec::new();
    let (mut writes, mut bytes) = (0, 0);
    for planned in planned {
        writes += 1 + planned.history.len();
        bytes += planned.bytes;
        match groups.last_mut() {
            Some(group) if group.len() < size && writes < BATCH && bytes < BATCH_BYTES => group.push(planned),
            _ => {
                (writes, bytes) = (1 + planned.history.len(), planned.bytes);
                groups.push(vec![planned]);
            }
        }
    }
    groups
}

fn update(path: String, fields: Map<String, Value>, condition: Option<ConditionType>) -> Request {
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

/// Whether an answer to many writes may be due to one of them.
fn is_about_contents(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition
    )
}

/// Whether an answer to a group, of which nothing was written then, may be due to one of it.
fn is_about_one(code: Code) -> bool {
    is_about_contents(code) || matches!(code, Code::AlreadyExists | Code::NotFound | Code::Aborted)
}

fn renamed(error: StoreError, document_id: String) -> StoreError {
    match error {
        StoreError::Conflict { .. } => StoreError::Conflict { document_id },
        StoreError::Rejected { reason, .. } => StoreError::Rejected { document_id, reason },
        other => other,
    }
}

/// A document's version is the moment at which it was last written.
fn version(update_time: Option<Moment>) -> Version {
    let at = update_time.unwrap_or_default();
    Version(format!("{}.{:09}", at.seconds, at.nanos))
}

fn moment(version: &Version) -> Option<Moment> {
    let (seconds, nanos) = version.0.split_once('.')?;
    Some(Moment {
        seconds: seconds.parse().ok()?,
        nanos: nanos.parse().ok()?,
    })
}

/// Reads a document as a source's, or says why not.
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

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        let document_id = key.to_string();
        let found = self
            .client
            .get(self.client.path(&document_id))
            .await
            .map_err(self.explain())?;
        match found.map(|document| stored(document).document) {
            None => Ok(None),
            Some(Ok(document)) => Ok(Some(document)),
            Some(Err(source)) => Err(StoreError::Unusable { document_id, source }),
        }
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

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        let mut results: Vec<Option<Result<Version, StoreError>>> = writes.iter().map(|_| None).collect();
        let mut alone = Vec::new();
        let mut together: Vec<Vec<Planned>> = Vec::new();
        let mut bytes = 0;
        for (index, write) in writes.iter().enumerate() {
            match Planned::of(index, write, &self.client) {
                Err(refused) => results[index] = Some(Err(refused)),
                Ok(planned) if !planned.history.is_empty() || writes.len() == 1 => alone.push(planned),
                Ok(planned) => {
                    bytes += planned.bytes;
                    match together.last_mut() {
                        Some(batch) if batch.len() < BATCH && bytes < BATCH_BYTES => batch.push(planned),
                        _ => {
                            bytes = planned.bytes;
                            together.push(vec![planned]);
                        }
                    }
                }
            }
        }
        let size = self.group_size(alone.len());
        let alone = stream::iter(groups(alone, size))
            .map(|group| self.save_group(group))
            .buffer_unordered(IN_FLIGHT)
            .concat();
        let together = stream::iter(together)
            .map(|batch| self.save_batch(batch))
            .buffer_unordered(4)
            .concat();
        let (alone, together) = futures_util::future::join(alone, together).await;
        for (index, saved) in alone.into_iter().chain(together) {
            results[index] = Some(saved);
        }
        results
            .into_iter()
            .map(|saved| saved.expect("every write was planned or refused"))
            .collect()
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
        for portion in entries.chunks(BATCH) {
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
        // Two programs that check at once do not meet.
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = format!("{}/{PROBES}/{id}", self.client.root());
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
            None => Err(trouble::unavailable(
                self.target(),
                "what was written could not be read back".into(),
            )),
        }
    }
}
